"""
Connections to Redis: through redis-py's Connection where there is one server (or a Sentinel that names
it), through its RedisCluster where there are many. Nothing here knows of channels.

Two sorts each: blocking, for any thread, and `Link`, for one event loop. Every failure is a
LayerUnavailable.
"""

import asyncio
import os
import re
import threading
import time
from collections import deque
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from . import scripts
from .contract import LayerUnavailable
from .failures import check_version, unavailable

#: Seconds by which an answer to a blocking command may be late.
LATE = 5.0

#: Seconds that the layer's blocking commands wait at the most, on a cluster.
BLOCKING = 10.0

#: Seconds for which a command is tried again while its slot moves to another node.
MOVING = 5.0

#: A connection that was idle for so many seconds is looked at before it is used.
FRESH = 1.0

#: What may go wrong below; asyncio's own time-out is no OSError before Python 3.11.
ERRORS = (
    RedisError,
    redis.exceptions.RedisClusterException,  # no RedisError
    OSError,
    asyncio.TimeoutError,
    EOFError,
)


def make_servers(
    hosts=None,
    cluster=False,
    sentinels=None,
    service=None,
    sentinel_kwargs=None,
    connection_kwargs=None,
    socket_timeout=10.0,
    socket_connect_timeout=5.0,
    pool_size=64,
):
    """The servers that a layer's CONFIG names. No I/O. Raises ValueError with the remedy."""
    options = {"socket_timeout": socket_timeout, "socket_connect_timeout": socket_connect_timeout}
    options.update(connection_kwargs or {})
    options["protocol"] = 2
    if sentinels is not None:
        if hosts or cluster:
            raise ValueError("Give either sentinels and service, or hosts: not both.")
        if not service:
            raise ValueError(
                "sentinels needs service: the name of the primary, such as 'mymaster'."
            )
        return Direct(_sentinel_pool(sentinels, service, sentinel_kwargs, options), pool_size)
    hosts = (
        [hosts] if isinstance(hosts, (str, dict)) else list(hosts or ["redis://localhost:6379/0"])
    )
    urls = [_url(host) for host in hosts]
    if cluster:
        return Clustered(urls, options, pool_size)
    if len(urls) > 1:
        raise ValueError(
            "hosts names %d servers. What Channels 1.x did with them, spreading channels over servers "
            "that know nothing of each other, lost messages: set cluster=True for the nodes of a Redis "
            "Cluster, use sentinels for a primary and its replicas, or name one server." % len(urls)
        )
    return Direct(_url_pool(urls[0], options), pool_size)


def _url(host):
    if isinstance(host, dict) and "address" in host:  # as channels_redis writes it
        host = host["address"]
    if isinstance(host, (tuple, list)) and len(host) == 2:
        return "redis://%s:%d/0" % (host[0], int(host[1]))
    if isinstance(host, str) and "://" in host:
        return host
    raise ValueError(
        "hosts is a list of URLs ('redis://HOST:PORT/0') or (host, port), not %r." % (host,)
    )


def _where(url):
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def _url_pool(url, options):
    options = {
        key: value
        for key, value in options.items()
        if not (url.startswith("unix:") and key == "socket_connect_timeout")
    }

    def make(module, retry):
        return module.ConnectionPool.from_url(url, retry=retry(NoBackoff(), 0), **options)

    return make, _where(url)


def _sentinel_pool(sentinels, service, sentinel_kwargs, options):
    addresses = []
    for each in sentinels:
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise ValueError("sentinels is a list of (host, port), not %r." % (sentinels,))
        addresses.append((each[0], int(each[1])))

    def make(module, retry):
        kwargs = {
            key: options[key]
            for key in ("socket_timeout", "socket_connect_timeout")
            if key in options
        }
        kwargs.update(sentinel_kwargs or {})
        kwargs["protocol"] = 2
        sentinel_module = redis.sentinel if module is redis else redis.asyncio.sentinel
        sentinel = sentinel_module.Sentinel(addresses, sentinel_kwargs=kwargs, **options)
        pool = sentinel.master_for(service, retry=retry(NoBackoff(), 0)).connection_pool
        return pool

    return make, "%s (by Sentinel)" % service


def _blocking_pool(make):
    from redis.retry import Retry

    return make(redis, Retry)


def _async_pool(make):
    from redis.asyncio.retry import Retry

    return make(redis.asyncio, Retry)


def _preparation():
    """What every new connection is sent: the scripts, since it may be another server than the last."""
    return [("INFO", "server")] + [
        ("SCRIPT", "LOAD", script.text) for script in scripts.ALL.values()
    ]


def _check_preparation(replies, where):
    """Which run of which server this is, or None: an ACL may keep INFO away."""
    for reply in replies[1:]:
        if isinstance(reply, Exception):
            raise reply
    if isinstance(replies[0], Exception):
        return None
    check_version(replies[0], where)
    found = re.search(rb"run_id:(\w+)", replies[0])
    return found and found.group(1)


class Direct:
    """One server, or the primary that Sentinel names. Thread-safe; call `forked` in a child process."""

    is_cluster = False

    def __init__(self, pool, pool_size):
        self._make, self.where = pool
        self._pool_size = pool_size
        self.forked()

    def forked(self):
        self._pool = None
        self._free = deque()
        self._lock = threading.Lock()
        self._suspected = 0.0

    def suspect(self):
        """A connection was lost: the others are looked at before they are used again."""
        self._suspected = time.monotonic()

    def _lost(self, connection, error):
        self.suspect()
        connection.disconnect()
        return unavailable(error, self.where)

    # Blocking.

    def call(self, command):
        """The reply to one command."""
        connection = self._take()
        try:
            connection.send_command(*command)
            reply = connection.read_response()
        except NoScriptError:
            self._give(connection)
            return self.call(scripts.in_full(command))
        except ERRORS as error:
            raise self._lost(connection, error) from error
        except BaseException:
            connection.disconnect()  # a reply may still be on its way
            raise
        self._give(connection)
        return reply

    def call_many(self, commands):
        """The replies to several commands, in one round trip."""
        connection = self._take()
        try:
            replies = self._exchange(connection, commands)
        except ERRORS as error:
            raise self._lost(connection, error) from error
        except BaseException:
            connection.disconnect()
            raise
        self._give(connection)
        return [self._settled(reply, command) for reply, command in zip(replies, commands)]

    def _settled(self, reply, command):
        if isinstance(reply, NoScriptError):
            return self.call(scripts.in_full(command))
        if isinstance(reply, Exception):
            raise unavailable(reply, self.where)
        return reply

    def wait(self, command, seconds):
        """The reply to a command that blocks for up to `seconds`."""
        connection = self._take()
        try:
            connection.send_command(*command)
            if not connection.can_read(timeout=seconds + LATE):
                raise redis.exceptions.TimeoutError("no answer for %.0f s" % (seconds + LATE))
            reply = connection.read_response()
        except ERRORS as error:
            raise self._lost(connection, error) from error
        except BaseException:
            connection.disconnect()
            raise
        self._give(connection)
        return reply

    def scan(self, pattern):
        """The keys that match `pattern`, a set of bytes, found in steps that hold up nobody."""
        cursor, found = b"0", set()  # SCAN may name a key twice
        while True:
            cursor, keys = self.call(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
            found.update(keys)
            if int(cursor) == 0:
                return found

    def _take(self):
        while True:
            try:
                connection, used = self._free.pop()
            except IndexError:
                return self._connect()
            fresh = used > self._suspected and time.monotonic() - used < FRESH
            if fresh or _is_quiet(connection):
                return connection
            connection.disconnect()

    def _give(self, connection):
        if len(self._free) < self._pool_size:
            self._free.append((connection, time.monotonic()))
        else:
            connection.disconnect()

    def _connect(self):
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = _blocking_pool(self._make)
                pool = self._pool
            connection = pool.connection_class(**pool.connection_kwargs)
            try:
                connection.connect()
                _check_preparation(self._exchange(connection, _preparation()), self.where)
            except BaseException:
                connection.disconnect()
                raise
        except ERRORS as error:
            raise unavailable(error, self.where) from error
        return connection

    def _exchange(self, connection, commands):
        connection.send_packed_command(connection.pack_commands(commands))
        replies = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    def close(self):
        while self._free:
            self._free.pop()[0].disconnect()

    # For an event loop.

    def link(self):
        return DirectLink(self._make, self.where, self.suspect)


def _is_quiet(connection):
    """Whether an idle connection is still there, and owes nothing."""
    try:
        return not connection.can_read(timeout=0)
    except ERRORS:
        return False


class DirectLink:
    """One connection of an event loop; it connects when it is used. One user at a time."""

    def __init__(self, make, where, suspect):
        self._make, self.where, self._suspect = make, where, suspect
        self._pool = None
        self._connection = None
        #: Counts connections made, so that a user can tell that it is another one.
        self.generation = 0
        #: Which run of which server it is connected to; None where that is not known.
        self.run_id = None

    async def connect(self):
        if self._connection is not None:
            return
        if self._pool is None:
            self._pool = _async_pool(self._make)
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
            replies = await self._exchange(connection, _preparation(), None)
            run_id = _check_preparation(replies, self.where)
        except ERRORS as error:
            await connection.disconnect(nowait=True)
            raise unavailable(error, self.where) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        self.generation += 1
        self.run_id = run_id

    async def call(self, commands, seconds=None):
        """
        The replies to `commands`; one that Redis refused is the exception. With `seconds`, the last of
        them blocks for so long.
        """
        await self.connect()
        connection = self._connection
        try:
            replies = await self._exchange(
                connection, commands, None if seconds is None else seconds + LATE
            )
            for index, reply in enumerate(replies):
                if isinstance(reply, NoScriptError):
                    full = [scripts.in_full(commands[index])]
                    replies[index] = (await self._exchange(connection, full, None))[0]
        except ERRORS as error:
            self._suspect()
            await self.close()
            raise unavailable(error, self.where) from error
        except BaseException:
            self._connection = None
            await connection.disconnect(nowait=True)
            raise
        return replies

    async def _exchange(self, connection, commands, timeout):
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(timeout=timeout))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    async def close(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
        manager = getattr(self._pool, "sentinel_manager", None)
        if manager is not None:
            for sentinel in manager.sentinels:
                await sentinel.connection_pool.disconnect()


class Clustered:
    """A Redis Cluster, through redis-py's client, which knows where each hash tag lies."""

    is_cluster = True

    def __init__(self, urls, options, pool_size):
        self._urls, self._options = urls, dict(options)
        # Blocking commands go over the same connections: those wait BLOCKING at the most.
        self._options["socket_timeout"] = max(options["socket_timeout"], BLOCKING + LATE)
        self._pool_size = pool_size
        self.where = ", ".join(_where(url) for url in urls) + " (cluster)"
        self.forked()

    def forked(self):
        self._client = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def client(self):
        client = self._client
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
                client = self._client
        return client

    def _connect(self):
        error = None
        for url in self._urls:
            try:
                client = redis.RedisCluster.from_url(url, **self._options)
                info = client.info("server", target_nodes=client.get_random_node())
                check_version("redis_version:%s" % info["redis_version"], self.where)
                return client
            except (ERRORS, TypeError) as each:
                error = each
        raise unavailable(error, self.where) from error

    def call(self, command):
        deadline = time.monotonic() + MOVING
        while True:
            try:
                return self.client.execute_command(*command)
            except NoScriptError:
                command = scripts.in_full(command)
            except ERRORS as error:
                if not _is_moving(error) or time.monotonic() > deadline:
                    raise unavailable(error, self.where) from error
                time.sleep(0.02)

    def call_many(self, commands):
        return [self.call(command) for command in commands]

    def wait(self, command, seconds):
        return self.call(command)

    def scan(self, pattern):
        try:
            return set(
                self.client.scan_iter(
                    match=pattern, count=1000, target_nodes=redis.RedisCluster.PRIMARIES
                )
            )
        except ERRORS as error:
            raise unavailable(error, self.where) from error

    def close(self):
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def link(self):
        return ClusterLink(self._urls, self._options, self.where)


def _is_moving(error):
    """Whether a slot is between two nodes: nothing was done, and soon it can be."""
    return isinstance(error, redis.exceptions.TryAgainError) or "TTL exhausted" in str(error)


class ClusterLink:
    """An event loop's way to a cluster."""

    def __init__(self, urls, options, where):
        self._urls, self._options, self.where = urls, options, where
        self._client = None
        self.generation = 0
        self.run_id = None  # of many servers

    async def connect(self):
        if self._client is not None:
            return
        error = None
        for url in self._urls:
            client = redis.asyncio.RedisCluster.from_url(url, **self._options)
            try:
                await client.initialize()
            except ERRORS as each:
                error = each
                await _aclose(client)
                continue
            self._client = client
            self.generation += 1
            return
        raise unavailable(error, self.where) from error

    async def call(self, commands, seconds=None):
        await self.connect()
        replies = []
        for command in commands:
            try:
                replies.append(await self._one(command))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
            except ERRORS as error:
                await self.close()
                raise unavailable(error, self.where) from error
        return replies

    async def _one(self, command):
        deadline = time.monotonic() + MOVING
        while True:
            try:
                return await self._client.execute_command(*command)
            except NoScriptError:
                command = scripts.in_full(command)
            except ERRORS as error:
                if not _is_moving(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    async def close(self):
        client, self._client = self._client, None
        if client is not None:
            await _aclose(client)


async def _aclose(client):
    await (client.aclose() if hasattr(client, "aclose") else client.close())


__all__ = ["LATE", "Clustered", "Direct", "LayerUnavailable", "make_servers"]

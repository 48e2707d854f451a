"""
Connections to one server, or to the primary that Sentinel names, through redis-py's Connection.

`Direct` is blocking, for any thread; `DirectLink` is for one event loop. Each reply is that of the command
sent before it: a connection on which a reply is late, missing or cut off is closed, and the call raises
LayerUnavailable. So are all idle connections then, because they may lead to the same dead server. No command
is sent twice.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from typing import Any, Callable, Sequence, Tuple

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from . import scripts
from .failures import check_version, unavailable
from .scripts import Command
from .wire import make_async_wire, make_wire

#: Seconds by which the reply to a blocking command may be late.
LATE = 4.0

#: A connection that was idle for so many seconds is tested before it is used.
FRESH = 1.0

#: What may go wrong below; asyncio's time-out isn't an OSError before Python 3.11.
ERRORS: tuple[Any, ...] = (
    RedisError,
    redis.exceptions.RedisClusterException,  # not a RedisError
    OSError,
    asyncio.TimeoutError,
    EOFError,
)

#: Makes a pool of redis-py out of a module (redis or redis.asyncio).
MakePool = Callable[[Any], Any]

#: What makes a pool, and where it leads (text).
Pool = Tuple[MakePool, str]


def no_retry(module: Any) -> Any:
    """Return what keeps redis-py, or redis.asyncio, from sending a command again."""
    return module.retry.Retry(NoBackoff(), 0)


def _check_preparation(replies: Sequence[Any], where: str) -> bytes | None:
    """Return which run of which server this is, or None if an ACL forbids INFO."""
    for reply in replies[1:]:
        if isinstance(reply, Exception):
            raise reply
    if isinstance(replies[0], Exception):
        return None
    check_version(replies[0], where)
    found = re.search(rb"run_id:(\w+)", replies[0])
    return found.group(1) if found else None


class Direct:
    """One server, or the primary that Sentinel names. Thread-safe; call `forked` in a child process."""

    def __init__(self, pool: Pool, pool_size: int, greeting: Sequence[Command]) -> None:
        self.make_pool, self.where = pool
        self._pool_size, self._greeting = pool_size, greeting
        self.forked()

    def forked(self) -> None:
        """Forget the connections: in a child process they are the parent's."""
        self._pool: Any = None
        self._free: deque[tuple[Any, float]] = deque()
        self._lock = threading.Lock()
        self._suspected = 0.0
        #: Which run of which server the last connection led to; None if there was none.
        self.run_id: bytes | None = None
        #: When another run of the server was met (its time, milliseconds since 1970), or 0. What it has from
        #: before may have been handled: it may have lost that something was acknowledged.
        self.doubted = 0

    def suspect(self) -> None:
        """Stop using the connections that are idle now, because one was lost."""
        self._suspected = time.monotonic()

    def preparation(self) -> list[Command]:
        """Return what every new connection is sent: the scripts, because it may be another server."""
        first: list[Command] = [("INFO", "server")]
        first += [("SCRIPT", "LOAD", script.text) for script in scripts.ALL.values()]
        return first + list(self._greeting)

    # Blocking.

    def call(self, command: Command) -> Any:
        """Return the reply to one command."""
        return self._settled(self._run([command])[0], command)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to several commands, sent in one round trip."""
        replies = self._run(commands)
        return [self._settled(reply, command) for reply, command in zip(replies, commands)]

    def wait(self, command: Command, seconds: float) -> Any:
        """Return the reply to a command that blocks for up to `seconds`."""
        return self._settled(self._run([command], seconds + LATE)[0], command)

    def _settled(self, reply: Any, command: Command) -> Any:
        if isinstance(reply, NoScriptError):
            return self.call(scripts.in_full(command))
        if isinstance(reply, Exception):
            raise unavailable(reply, self.where) from reply
        return reply

    def _run(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """Return the replies to several commands; for one that Redis refused, the exception."""
        wire = self._take()
        try:
            replies = self._exchange(wire, commands, timeout)
        except ERRORS as error:
            self.suspect()
            wire.connection.disconnect()
            raise unavailable(error, self.where) from error
        except BaseException:
            wire.connection.disconnect()  # its reply may still come
            raise
        self._give(wire)
        return replies

    def _exchange(
        self, wire: Any, commands: Sequence[Command], seconds: float | None = None
    ) -> list[Any]:
        return _check_replies(wire.exchange(commands, seconds))

    def scan(self, pattern: str) -> set[bytes]:
        """Return the keys that match `pattern`. The server does other work between the steps."""
        cursor, found = b"0", set()  # SCAN may name a key twice
        while True:
            cursor, keys = self.call(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
            found.update(keys)
            if int(cursor) == 0:
                return found

    def _take(self) -> Any:
        while True:
            try:
                wire, used = self._free.pop()
            except IndexError:
                return self._connect()
            if used > self._suspected:
                if time.monotonic() - used < FRESH or _is_quiet(wire.connection):
                    return wire
            wire.connection.disconnect()

    def _give(self, wire: Any) -> None:
        if len(self._free) < self._pool_size:
            self._free.append((wire, time.monotonic()))
        else:
            wire.connection.disconnect()

    def _connect(self) -> Any:
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = self.make_pool(redis)
                pool = self._pool
            connection = pool.connection_class(**pool.connection_kwargs)
            try:
                connection.connect()
                wire = make_wire(connection)
                replies = self._exchange(wire, self.preparation())
                self._meet(_check_preparation(replies, self.where), replies[0])
            except BaseException:
                connection.disconnect()
                raise
        except ERRORS as error:
            raise unavailable(error, self.where) from error
        return wire

    def _meet(self, run_id: bytes | None, info: Any) -> None:
        """Take note of which run of which server a new connection leads to."""
        if run_id is None:
            return
        found = re.search(rb"server_time_usec:(\d+)", info)
        if self.run_id not in (None, run_id) and found:
            self.doubted = int(found.group(1)) // 1000
        self.run_id = run_id

    def close(self) -> None:
        while self._free:
            self._free.pop()[0].connection.disconnect()

    # For an event loop.

    def owners(self, keys: Sequence[str], former: set[str]) -> Any:
        """There is one server. The inboxes notice that it is another one, or another run."""

    def link(self, blocks: bool) -> DirectLink:
        return DirectLink(self)


def _check_replies(replies: list[Any]) -> list[Any]:
    """Return `replies`. Raise what says that the server isn't the primary any more."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            if isinstance(reply, ReadOnlyError) or str(reply).startswith("UNBLOCKED"):
                raise reply
    return replies


def _is_quiet(connection: Any) -> bool:
    """Return whether an idle connection is still there, and no reply is on its way."""
    try:
        return not connection.can_read(timeout=0)
    except ERRORS:
        return False


class DirectLink:
    """One connection of an event loop; it connects when it is used. One user at a time."""

    def __init__(self, server: Direct) -> None:
        self._server = server
        self._pool: Any = None
        self._connection: Any = None
        self._wire: Any = None
        #: How many connections were made; a different number means another connection.
        self.generation = 0
        #: Which run of which server it is connected to; None if that is not known.
        self.run_id: bytes | None = None

    async def connect(self) -> None:
        if self._connection is not None:
            if not self._wire.is_lost:
                return
            # What is sent over it would count as sent: the server may have taken it.
            self._server.suspect()
            await self.close()
        if self._pool is None:
            self._pool = self._server.make_pool(redis.asyncio)
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
            self._wire = make_async_wire(connection)
            replies = await self._exchange(self._wire, self._server.preparation(), None)
            run_id = _check_preparation(replies, self._server.where)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, ERRORS):
                raise unavailable(error, self._server.where) from error
            raise
        self._connection = connection
        self.generation += 1
        self.run_id = run_id

    async def call(self, commands: Sequence[Command], seconds: float | None = None) -> list[Any]:
        """
        Return the replies to `commands`; for one that Redis refused, the exception. With `seconds`, the last
        of them blocks for so long. Raises LayerUnavailable when a reply is late.
        """
        await self.connect()
        connection = self._connection
        try:
            replies = await self._exchange(
                self._wire, commands, None if seconds is None else seconds + LATE
            )
            for index, reply in enumerate(replies):
                if isinstance(reply, NoScriptError):
                    full = [scripts.in_full(commands[index])]
                    replies[index] = (await self._exchange(self._wire, full, None))[0]
        except ERRORS as error:
            self._server.suspect()
            await self.close()
            raise unavailable(error, self._server.where) from error
        except BaseException:
            self._connection = None
            await connection.disconnect(nowait=True)
            raise
        return replies

    async def _exchange(
        self, wire: Any, commands: Sequence[Command], seconds: float | None
    ) -> list[Any]:
        return _check_replies(await wire.exchange(commands, seconds))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
        manager = getattr(self._pool, "sentinel_manager", None)
        if manager is not None:
            for sentinel in manager.sentinels:
                await sentinel.connection_pool.disconnect()

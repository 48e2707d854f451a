"""
A Redis Cluster, through redis-py's client, which knows where each hash tag lies.

redis-py's own retries are off, because it would also retry commands whose reply was lost. It follows
redirections: a node that redirects a command has not run it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any, Sequence

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.exceptions import NoScriptError, ResponseError

from . import scripts
from .direct import ERRORS, LATE, no_retry
from .failures import check_version, unavailable
from .scripts import Command

#: Seconds that the layer's blocking commands wait at most, on a cluster.
BLOCKING = 10.0

#: Seconds for which a command is tried again while its slot moves to another node.
MOVING = 5.0


class Clustered:
    """The nodes of a cluster, and the blocking end, for any thread. Call `forked` in a child process."""

    #: As in Direct. Here a worker does not learn of another run.
    doubted = 0

    #: As in ClusterLink.
    run_id: bytes | None = None

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        options: dict[str, Any],
        where: str,
        greeting: Sequence[Command],
    ) -> None:
        self._addresses, self._options = list(addresses), options
        self.where, self.greeting = where, greeting
        self.forked()

    def forked(self) -> None:
        """Forget the connections: in a child process they are the parent's."""
        self._client: Any = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def make_client(self, module: Any, blocks: bool) -> Any:
        """
        Return a client that connects when it is used, of `module`: redis or redis.asyncio. With `blocks`,
        it waits for the replies to blocking commands.
        """
        options = dict(self._options)
        if blocks:
            options["socket_timeout"] = max(options["socket_timeout"], BLOCKING + LATE)
        if int(redis.__version__.split(".")[0]) < 6:
            options["cluster_error_retry_attempts"] = 0
        else:
            options["retry"] = no_retry(module)
        nodes = [module.cluster.ClusterNode(*address) for address in self._addresses]
        return module.RedisCluster(startup_nodes=nodes, **options)

    def met(self, client: Any) -> None:
        """Remember the nodes that a client has found, in case those of the settings go."""
        known = [(node.host, node.port) for node in client.get_nodes()]
        self._addresses = list(dict.fromkeys(self._addresses + known))

    @property
    def client(self) -> Any:
        # A failed client stays: redis-py finds the nodes anew, and a new client would need all of them.
        client = self._client
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
                client = self._client
        return client

    def _connect(self) -> Any:
        try:
            client = self.make_client(redis, blocks=True)
            info = client.info("server", target_nodes=client.get_random_node())
            check_version("redis_version:%s" % info["redis_version"], self.where)
            for command in self.greeting:
                self._execute(client, command)
        except ERRORS as error:
            raise unavailable(error, self.where) from error
        self.met(client)
        return client

    def call(self, command: Command) -> Any:
        """Return the reply to one command."""
        client = self.client
        try:
            return self._execute(client, command)
        except ERRORS as error:
            raise unavailable(error, self.where) from error

    def _execute(self, client: Any, command: Command) -> Any:
        deadline = time.monotonic() + MOVING
        while True:
            try:
                return client.execute_command(*command)
            except NoScriptError:
                command = scripts.in_full(command)
            except ERRORS as error:
                if not _is_moving(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to several commands."""
        return [self.call(command) for command in commands]

    def wait(self, command: Command, seconds: float) -> Any:
        """Return the reply to a command that blocks for up to `seconds`."""
        return self.call(command)

    def scan(self, pattern: str) -> set[bytes]:
        """Return the keys that match `pattern`."""
        client = self.client
        try:
            return set(
                client.scan_iter(
                    match=pattern, count=1000, target_nodes=redis.RedisCluster.PRIMARIES
                )
            )
        except ERRORS as error:
            raise unavailable(error, self.where) from error

    def owners(self, keys: Sequence[str], former: set[str]) -> tuple[dict[str, str], set[str]]:
        """
        Return which run of which node has the slot of each of `keys`; and the runs of all primaries that have
        such a slot, or whose run is in `former`.
        """
        client = self.client
        try:
            view = client.execute_command("CLUSTER NODES", target_nodes=client.get_random_node())
            slots = {key: client.keyslot(key) for key in keys}
            runs: dict[str, str] = {}
            primaries = set()
            for address, node in view.items():
                flags = node["flags"].split(",")
                mine = [key for key, slot in slots.items() if _has(node, slot)]
                known = any(run.startswith(node["node_id"]) for run in former)
                if "master" not in flags or not (mine or known):
                    continue
                if "fail" in flags and not mine:
                    continue  # another node has taken over its slots
                if "fail" in flags:
                    raise redis.exceptions.ClusterDownError("the node %s has failed" % address)
                host, _, port = address.rpartition(":")
                info = client.info("server", target_nodes=client.get_node(host, int(port)))
                run = "%s:%s" % (node["node_id"], info["run_id"])
                primaries.add(run)
                runs.update(dict.fromkeys(mine, run))
        except ERRORS + (AttributeError, ValueError) as error:  # a node that redis-py has not found
            raise unavailable(error, self.where) from error
        return runs, primaries

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def link(self, blocks: bool) -> ClusterLink:
        return ClusterLink(self, blocks)


def _has(node: dict[str, Any], slot: int) -> bool:
    """Return whether a node in the reply to CLUSTER NODES has a slot."""
    return any(int(bounds[0]) <= slot <= int(bounds[-1]) for bounds in node["slots"])


def _is_moving(error: Exception) -> bool:
    """Return whether a slot is between two nodes: nothing was done, and soon it can be."""
    return isinstance(error, redis.exceptions.TryAgainError) or "TTL exhausted" in str(error)


class ClusterLink:
    """The end for one event loop, as DirectLink."""

    def __init__(self, cluster: Clustered, blocks: bool) -> None:
        self._cluster, self._blocks = cluster, blocks
        self._client: Any = None
        self.generation = 0
        #: Always None, because there are many servers. The lease thread compares their runs.
        self.run_id: bytes | None = None

    async def connect(self) -> None:
        if self._client is not None:
            return
        client = self._cluster.make_client(redis.asyncio, self._blocks)
        try:
            await client.initialize()
            for command in self._cluster.greeting:
                await self._execute(client, command)
        except ERRORS as error:
            await _aclose(client)
            raise unavailable(error, self._cluster.where) from error
        self._cluster.met(client)
        self._client = client
        self.generation += 1

    async def call(self, commands: Sequence[Command], seconds: float | None = None) -> list[Any]:
        """Return the replies to `commands`; for one that Redis refused, the exception."""
        await self.connect()
        replies: list[Any] = []
        for command in commands:
            try:
                replies.append(await self._execute(self._client, command))
            except ResponseError as error:
                replies.append(error)
            except ERRORS as error:
                await self.close()
                raise unavailable(error, self._cluster.where) from error
        return replies

    async def _execute(self, client: Any, command: Command) -> Any:
        deadline = time.monotonic() + MOVING
        while True:
            try:
                return await client.execute_command(*command)
            except NoScriptError:
                command = scripts.in_full(command)
            except ERRORS as error:
                if not _is_moving(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _aclose(client)


async def _aclose(client: Any) -> None:
    await (client.aclose() if hasattr(client, "aclose") else client.close())

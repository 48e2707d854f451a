"""
A Redis Cluster, through redis-py's client, which knows where each hash tag lies.

redis-py may send a command once more after a lost reply, so each script must bear that.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any, Sequence

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, ResponseError

from . import scripts
from .direct import ERRORS, LATE
from .failures import check_version, unavailable
from .scripts import Command

#: Seconds that the layer's blocking commands wait at most, on a cluster.
BLOCKING = 10.0

#: Seconds for which a command is tried again while its slot moves to another node.
MOVING = 5.0


class Clustered:
    """The blocking end, for any thread. Call `forked` in a child process."""

    is_cluster = True

    def __init__(self, urls: Sequence[str], options: dict[str, Any], where: str) -> None:
        self._urls, self._options = urls, dict(options)
        # Blocking commands go over the same connections: those wait at most BLOCKING.
        self._options["socket_timeout"] = max(options["socket_timeout"], BLOCKING + LATE)
        self.where = where
        self.forked()

    def forked(self) -> None:
        """Forget the connections: in a child process they are the parent's."""
        self._client: Any = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def client(self) -> Any:
        client = self._client
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
                client = self._client
        return client

    def _connect(self) -> Any:
        error: Any = None
        for url in self._urls:
            try:
                client = redis.RedisCluster.from_url(url, **self._options)
                info = client.info("server", target_nodes=client.get_random_node())
                check_version("redis_version:%s" % info["redis_version"], self.where)
                return client
            except ERRORS + (TypeError,) as each:
                error = each
        raise unavailable(error, self.where) from error

    def call(self, command: Command) -> Any:
        """Return the reply to one command."""
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

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to several commands."""
        return [self.call(command) for command in commands]

    def wait(self, command: Command, seconds: float) -> Any:
        """Return the reply to a command that blocks for up to `seconds`."""
        return self.call(command)

    def scan(self, pattern: str) -> set[bytes]:
        """Return the keys that match `pattern`."""
        try:
            return set(
                self.client.scan_iter(
                    match=pattern, count=1000, target_nodes=redis.RedisCluster.PRIMARIES
                )
            )
        except ERRORS as error:
            raise unavailable(error, self.where) from error

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def link(self) -> ClusterLink:
        return ClusterLink(self._urls, self._options, self.where)


def _is_moving(error: Exception) -> bool:
    """Return whether a slot is between two nodes: nothing was done, and soon it can be."""
    return isinstance(error, redis.exceptions.TryAgainError) or "TTL exhausted" in str(error)


class ClusterLink:
    """The end for one event loop, as DirectLink."""

    def __init__(self, urls: Sequence[str], options: dict[str, Any], where: str) -> None:
        self._urls, self._options, self.where = urls, options, where
        self._client: Any = None
        self.generation = 0
        self.run_id: bytes | None = None  # there are many servers

    async def connect(self) -> None:
        if self._client is not None:
            return
        error: Any = None
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

    async def call(self, commands: Sequence[Command], seconds: float | None = None) -> list[Any]:
        """Return the replies to `commands`; for one that Redis refused, the exception."""
        await self.connect()
        replies: list[Any] = []
        for command in commands:
            try:
                replies.append(await self._one(command))
            except ResponseError as error:
                replies.append(error)
            except ERRORS as error:
                await self.close()
                raise unavailable(error, self.where) from error
        return replies

    async def _one(self, command: Command) -> Any:
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

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _aclose(client)


async def _aclose(client: Any) -> None:
    await (client.aclose() if hasattr(client, "aclose") else client.close())

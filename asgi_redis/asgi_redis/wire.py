"""
How commands leave over a connection that redis-py has made, and how their replies are read.

With hiredis, a connection of one of redis-py's own classes is used directly: its socket, or on an event loop
its transport. redis-py's own way makes some ten calls more for each command, and on an event loop sixty, with
a timer for each reply. It remains for the other connections: those that Sentinel manages, those with
`health_check_interval`, and all if hiredis isn't installed.

`exchange(commands, seconds)` returns the replies, with an exception for each command that the server
refused. It raises what redis-py or the socket raises. Then the connection must be closed. `seconds` is how
long the server may say nothing (None: the connection's socket_timeout). One exchange at a time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, Sequence

import redis
import redis.asyncio
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from .scripts import Command

try:
    from hiredis import Reader, pack_command
except ImportError:  # not installed, or older than 2.2
    pack_command = None

#: The classes of redis-py that do nothing more than connect.
_PLAIN = tuple(
    getattr(module, name)
    for module in (redis, redis.asyncio)
    for name in ("Connection", "SSLConnection", "UnixDomainSocketConnection")
)

#: Bytes that one read takes at most.
READ_SIZE = 16384

_MISSING = object()

#: Seconds that stand for no limit.
_FOREVER = 1e9


def make_wire(connection: Any) -> SocketWire | RedisPyWire:
    """Return what uses `connection` of redis.Connection's kind, once it is connected."""
    return (SocketWire if _is_plain(connection) else RedisPyWire)(connection)


def make_async_wire(connection: Any) -> TransportWire | AsyncRedisPyWire:
    """Return what uses `connection` of redis.asyncio.Connection's kind, once it is connected."""
    return (TransportWire if _is_plain(connection) else AsyncRedisPyWire)(connection)


def _is_plain(connection: Any) -> bool:
    return (
        pack_command is not None
        and type(connection) in _PLAIN
        and not connection.health_check_interval
        # Where redis-py keeps its socket or its stream is not documented: without one, its own way remains.
        and bool(getattr(connection, "_sock", None) or getattr(connection, "_writer", None))
    )


def _make_reader() -> Any:
    """Return a parser that makes redis-py's exceptions of the server's errors."""
    return Reader(
        protocolError=InvalidResponse,
        replyError=redis.connection.DefaultParser.parse_error,
        notEnoughData=_MISSING,
    )


def _pack(commands: Sequence[Command]) -> bytes:
    return b"".join(map(pack_command, commands))


def _raise_unanswered(reply: Exception) -> None:
    """Raise an error that isn't about its command, but about the server: it is loading its data, say."""
    if not isinstance(reply, ResponseError):
        raise reply


def _silent(seconds: float) -> Exception:
    error: Exception = redis.exceptions.TimeoutError("timed out: no reply for %.1f s" % seconds)
    return error


def _closed() -> Exception:
    error: Exception = redis.exceptions.ConnectionError("Connection closed by server.")
    return error


class SocketWire:
    """Blocking, over the socket itself."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket, self._seconds = connection._sock, connection.socket_timeout
        self._reader = _make_reader()

    def exchange(self, commands: Sequence[Command], seconds: float | None = None) -> list[Any]:
        sock, reader = self._socket, self._reader
        sock.sendall(_pack(commands))
        if seconds is not None:
            sock.settimeout(seconds)
        replies: list[Any] = []
        while True:
            reply = reader.gets()
            if reply is _MISSING:
                try:
                    data = sock.recv(READ_SIZE)
                except socket.timeout:
                    raise _silent(seconds or self._seconds) from None
                if not data:
                    raise _closed()
                reader.feed(data)
                continue
            if isinstance(reply, RedisError):
                _raise_unanswered(reply)
            replies.append(reply)
            if len(replies) == len(commands):
                break
        if seconds is not None:
            sock.settimeout(self._seconds)
        return replies


class RedisPyWire:
    """Blocking, in redis-py's own way."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def exchange(self, commands: Sequence[Command], seconds: float | None = None) -> list[Any]:
        connection = self.connection
        connection.send_packed_command(connection.pack_commands(commands))
        if seconds is not None and not connection.can_read(timeout=seconds):
            raise _silent(seconds)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies


class TransportWire(asyncio.Protocol):
    """For one event loop, over the transport itself."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._seconds = connection.socket_timeout
        self._loop = asyncio.get_event_loop()
        self._reader = _make_reader()
        self._replies: list[Any] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        #: Why no exchange is possible any more.
        self._error: Exception | None = None
        # One timer stays from exchange to exchange, because most of them end long before it.
        self._limit, self._deadline = 0.0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)

    @property
    def is_lost(self) -> bool:
        """Whether it is known already that nothing can be sent."""
        return self._error is not None

    async def exchange(self, commands: Sequence[Command], seconds: float | None) -> list[Any]:
        if self._error is not None:
            raise self._error
        self._set_deadline(self._seconds if seconds is None else seconds)
        self._replies, self._wanted = [], len(commands)
        self._waiter = self._loop.create_future()
        self._transport.write(_pack(commands))
        try:
            await self._waiter
        finally:
            self._waiter = None
        return self._replies

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while True:
                reply = self._reader.gets()
                if reply is _MISSING:
                    break
                if isinstance(reply, RedisError):
                    _raise_unanswered(reply)
                self._take(reply)
        except RedisError as error:
            self._fail(error)

    def _take(self, reply: Any) -> None:
        if self._waiter is None or len(self._replies) == self._wanted:
            raise InvalidResponse("a reply came to no command")
        self._replies.append(reply)
        if len(self._replies) < self._wanted:
            self._deadline = self._loop.time() + self._limit
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> None:
        self._fail(_closed())

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or _closed())
        if self._timer is not None:
            self._timer.cancel()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _set_deadline(self, seconds: float | None) -> None:
        self._limit = _FOREVER if seconds is None else seconds
        self._deadline = self._loop.time() + self._limit
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self._error is not None:
            return
        if self._loop.time() >= self._deadline:
            self._fail(_silent(self._limit))
        else:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)


class AsyncRedisPyWire:
    """For one event loop, in redis-py's own way."""

    #: Not known before something is sent.
    is_lost = False

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def exchange(self, commands: Sequence[Command], seconds: float | None) -> list[Any]:
        connection = self.connection
        await connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        for index in range(len(commands)):
            limit = seconds if index == len(commands) - 1 else None  # redis-py's socket_timeout
            began = time.monotonic()
            try:
                reply = await connection.read_response(timeout=limit)
            except ResponseError as error:
                reply = error
            # redis-py returns None both for an empty reply and when `limit` has passed.
            if reply is None and limit is not None and time.monotonic() - began > limit - 0.1:
                raise _silent(limit)
            replies.append(reply)
        return replies

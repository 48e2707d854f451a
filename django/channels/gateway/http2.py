"""
Bound the frames of HTTP/2 that a client of Hypercorn sends besides requests and their bodies: resets of
requests, pings, settings, empty parts of bodies, and unknown ones. Each costs the server up to a tenth of a
millisecond, and a reset with its request more: a client that sent 20,000 of them held up all others for
seconds. And bound what waits in Hypercorn for a client that doesn't read, and for how long. No module of
Hypercorn is imported.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from typing import Any, Callable

from . import backlog
from .internals import HYPERCORN_HTTP2, STREAMS, UNREAD, usable

#: Such frames that one client may send at once, and then each second. A browser sends a reset for each
#: request that a visitor no longer waits for, of which there are at most 100 at a time.
MAX_BURST, FRAMES_PER_SECOND = 512, 64

#: The first bytes that a client sends, and the length of a frame's head (RFC 9113, sections 3.4 and 4.1).
PREFACE, HEAD = 24, 9

#: Frames that aren't counted: DATA (unless it is empty), HEADERS, and WINDOW_UPDATE, which a fast download
#: needs. Of each request, one that ends its body isn't, either: many clients send it empty.
DATA, HEADERS, UNCOUNTED = 0, 1, (1, 8)
RST_STREAM = 3

#: The flag of DATA and HEADERS that ends the body.
END_STREAM = 0x01

#: As soon as so many bytes of one response wait for the client, its sender waits, too.
MAX_UNREAD = 32 * 1024

#: The errors by which a response and a connection end: INTERNAL_ERROR and ENHANCE_YOUR_CALM (RFC 9113,
#: section 7).
INTERNAL_ERROR, CALM = 2, 11


class StreamCounter:
    """Counts the frames of one connection of HTTP/2. Pure: no I/O, no clock."""

    __slots__ = ("resets", "_bodies", "_head", "_level", "_skip", "_time")

    def __init__(self) -> None:
        #: The streams that the client has reset, until somebody takes them from here.
        self.resets: list[int] = []
        self._head = b""  # the beginning of a frame's head
        self._skip = PREFACE  # bytes until the next frame
        self._bodies = 0  # that have begun and not ended
        self._level = self._time = 0.0

    def allows(self, data: bytes, now: float) -> bool:
        """Return whether the server may have `data`, the next bytes from the client. `now` is in seconds."""
        data, self._head = self._head + data, b""
        position, size, counted = self._skip, len(data), 0
        while position < size:
            if position + HEAD > size:
                self._head, position = data[position:], size
                break
            length, kind = int.from_bytes(data[position : position + 3], "big"), data[position + 3]
            counted += self._is_counted(kind, data[position + 4] & END_STREAM, length)
            if kind == RST_STREAM:
                self.resets.append(int.from_bytes(data[position + 5 : position + HEAD], "big"))
            position += HEAD + length
        self._skip = position - size
        if not counted:
            return True
        elapsed, self._time = now - self._time, now
        self._level = max(0.0, self._level - elapsed * FRAMES_PER_SECOND) + counted
        return self._level <= MAX_BURST

    def _is_counted(self, kind: int, ends: int, length: int) -> bool:
        if kind == HEADERS:
            self._bodies += not ends
        elif kind == DATA and ends and self._bodies:
            self._bodies -= 1
        else:
            return kind not in UNCOUNTED and (kind != DATA or not length)
        return False


def bound_streams(note: Callable[[str], None]) -> None:
    """
    Bound them on the connections that Hypercorn accepts from now on. Do nothing without Hypercorn. `note` is
    called with the address of a client whose connection ends.
    """
    for protocol in usable(STREAMS):
        if getattr(protocol, "channels_note_streams", None) is None:
            protocol.initiate = _beginning(protocol.initiate)
            protocol.handle = _counting(protocol.handle)
            protocol.stream_send = _resetting(_timing(protocol.stream_send))
        protocol.channels_note_streams = staticmethod(note)
    for buffer in usable(UNREAD):
        if getattr(buffer.push, "__wrapped__", None) is None:
            buffer.push = _waiting(buffer.push)


#: The tasks that read from clients, while they do. They send a WebSocket's pongs, too, and if they waited,
#: they couldn't read that the client has room again.
_readers: set[Any] = set()


def _waiting(original: Any) -> Any:
    @functools.wraps(original)
    async def push(self: Any, data: bytes) -> None:
        task: Any = asyncio.current_task()
        # The server ends, and gives its clients no more time. (Python 3.7 to 3.10 can't tell.)
        if getattr(task, "cancelling", int)():
            await self.close()
        try:
            await original(self, data)
            if task not in _readers:
                await _until_read(self)
        except asyncio.CancelledError:
            # The server ends, or the gateway gives up a client that is too slow.
            self.channels_is_cut = True
            await self.close()
            raise

    return push


async def _until_read(buffer: Any) -> None:
    """Wait until the client has read so much that little of `buffer` is left, or until its stream ends."""
    # Hypercorn lets the sender go on although the client has read nothing.
    while len(buffer.buffer) >= MAX_UNREAD and not buffer._complete:
        await buffer._paused.clear()
        await buffer._paused.wait()


def _beginning(original: Any) -> Any:
    @functools.wraps(original)
    async def initiate(self: Any, *args: Any, **kwargs: Any) -> None:
        self.channels_streams = StreamCounter()
        await original(self, *args, **kwargs)

    return initiate


def _timing(original: Any) -> Any:
    """End a response whose client reads nothing of what waits for it."""

    @functools.wraps(original)
    async def stream_send(self: Any, event: Any) -> None:
        buffer = self.stream_buffers.get(event.stream_id)
        waits = buffer is not None and (
            type(event).__name__ != "Body" or len(buffer.buffer) + len(event.data) >= MAX_UNREAD
        )
        if not waits or type(self.streams.get(event.stream_id)).__name__ != "HTTPStream":
            await original(self, event)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            backlog.READ_TIMEOUT,
            lambda: loop.create_task(_give_up(self, event.stream_id, buffer)),
        )
        try:
            await original(self, event)
        finally:
            timer.cancel()

    return stream_send


async def _give_up(protocol: Any, number: int, buffer: Any) -> None:
    """End a stream for both sides, as if its client had reset it."""
    await buffer.close()
    try:
        protocol.connection.reset_stream(number, error_code=CALM)
    except sys.modules[HYPERCORN_HTTP2].h2.exceptions.ProtocolError:
        pass  # it has ended
    await protocol._close_stream(number)  # the application gets its disconnect
    await protocol._window_updated(number)  # so that the task that sends forgets the stream
    # One task at a time waits for a client that doesn't even read from its connection.
    if not getattr(protocol, "channels_is_flushing", False):
        protocol.channels_is_flushing = True
        try:
            await protocol._flush()
        finally:
            protocol.channels_is_flushing = False


def _resetting(original: Any) -> Any:
    @functools.wraps(original)
    async def stream_send(self: Any, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        await original(self, event)
        buffer = self.stream_buffers.get(event.stream_id)
        if type(event).__name__ != "StreamClosed" or type(stream).__name__ != "HTTPStream":
            return
        if buffer is None or self.closed:
            return
        if getattr(buffer, "channels_is_cut", False) or not buffer._complete:
            # The response broke off. Hypercorn doesn't tell the client, which would wait for the rest.
            await buffer.close()
            try:
                self.connection.reset_stream(event.stream_id, error_code=INTERNAL_ERROR)
            except sys.modules[HYPERCORN_HTTP2].h2.exceptions.ProtocolError:
                return  # the client has reset it
            await self._flush()

    return stream_send


def _counting(original: Any) -> Any:
    @functools.wraps(original)
    async def handle(self: Any, event: Any) -> None:
        task = asyncio.current_task()
        _readers.add(task)
        try:
            await counted(self, event)
        finally:
            _readers.discard(task)

    async def counted(self: Any, event: Any) -> None:
        # A connection that is older than the gateway lacks a counter.
        counter, data = getattr(self, "channels_streams", None), getattr(event, "data", None)
        if counter is None or not isinstance(data, (bytes, bytearray)):
            await original(self, event)  # such as the end of the connection
            if self.closed:
                await _wake_senders(self, list(self.stream_buffers))
        elif not self.closed:
            if counter.allows(bytes(data), time.monotonic()):
                await original(self, event)
                if counter.resets:
                    resets, counter.resets = counter.resets, []
                    await _wake_senders(self, resets)
            else:
                await _end(self, original)

    return handle


async def _wake_senders(protocol: Any, ended: list[int]) -> None:
    """
    End what waits until the client reads more of these streams, which have ended. Hypercorn would have some
    of it wait for good, with all that its task refers to.
    """
    for stream in ended:
        buffer = protocol.stream_buffers.get(stream)
        if buffer is not None:
            await buffer.close()


async def _end(protocol: Any, handle: Any) -> None:
    """End a connection whose client sent a flood."""
    protocol.channels_note_streams((protocol.client or ("unknown client",))[0])
    closed = sys.modules[HYPERCORN_HTTP2].Closed()
    # The requests end first: a client that reads nothing would keep what is written to it, and them, waiting.
    await handle(protocol, closed)
    protocol.connection.close_connection(error_code=CALM)
    await protocol._flush()
    await protocol.send(closed)

"""
Bound what the frames of a WebSocket cost before the gateway learns of them. They are counted here before the
server parses them. No module of a server is imported.

* Frames that aren't whole messages: fragments, and control frames such as pings. The server handles them by
  itself, so the gateway cannot stop reading. A fragment of 6 bytes costs some microseconds, and more behind
  Daphne if many come at once: four clients that sent nothing else stopped a site.
* Small messages. A server parses all that it has read from one client before it attends to another, and
  64 kB may be 9,000 messages of one byte, which take half a second. So little is read at once from a client
  that sends such messages (`ReadSize`), and uvicorn gets in portions what was read (`PortionedTransport`),
  of a few clients at a time (`Rounds`).
"""

from __future__ import annotations

import functools
import time
from typing import Any, Callable

from .internals import FRAMES, lacks_for_frames, usable
from .portions import PortionedTransport
from .reading import FIRST_READ, LITTLE_READ, MAX_FRAMES_OF_A_READ, ReadSize

#: Fragments of one message. The library websockets allows as many.
MAX_FRAGMENTS = 4096

#: Fragments and control frames that one client may send at once, and then each second.
MAX_BURST, FRAMES_PER_SECOND = 4096, 256

#: The first bytes of frames that are a whole message: text and binary, also compressed.
MESSAGES = (0x81, 0x82, 0xC1, 0xC2)

#: Called with the address of a client whose connection ends.
Note = Callable[[str], None]


class FrameCounter:
    """Counts a client's frames that aren't whole messages (RFC 6455, section 5.2). Pure: no I/O, no clock."""

    __slots__ = ("_fragments", "_head", "_level", "_skip", "_time", "in_read")

    def __init__(self) -> None:
        #: Frames of all kinds in the bytes that came last.
        self.in_read = 0
        self._head = b""  # the beginning of a frame's head
        self._skip = 0  # bytes that remain of a frame's payload
        self._fragments = 0  # of the message that has not ended
        self._level = self._time = 0.0

    def allows(self, data: bytes, now: float) -> bool:
        """Return whether the server may have `data`, the next bytes from the client. `now` is in seconds."""
        return self.take(data, now, len(data) + 1) >= 0

    def take(self, data: bytes, now: float, most: int) -> int:
        """
        Return how many of the next bytes from the client, `data`, have the beginnings of at most `most` (1 or
        more) frames, or -1 if the server may not have these. The rest comes again. `now` is in seconds.
        """
        before = len(self._head)
        if self._head:
            data, self._head = self._head + data, b""
        position, size, extra = self._skip, len(data), 0
        self.in_read = 0
        while position < size and self.in_read < most:
            length = data[position + 1] if position + 1 < size else 0
            is_masked, length = length & 128, length & 127
            end = position + (2 if length < 126 else 4 if length == 126 else 10)  # of the length
            start = end + (4 if is_masked else 0)
            if start > size:
                self._head, position = data[position:], size
                break
            if length > 125:
                length = int.from_bytes(data[position + 2 : end], "big")
            self.in_read += 1
            if data[position] not in MESSAGES:
                extra += 1
                if not data[position] & 0x08:  # no control frame, which may come between fragments
                    self._fragments = 0 if data[position] & 0x80 else self._fragments + 1
                if extra > MAX_BURST or self._fragments > MAX_FRAGMENTS:
                    return -1
            position = start + length
        self._skip, taken = max(0, position - size), min(position, size) - before
        if not extra:
            return taken
        elapsed, self._time = now - self._time, now
        self._level = max(0.0, self._level - elapsed * FRAMES_PER_SECOND) + extra
        return taken if self._level <= MAX_BURST else -1


def bound_uvicorn(note: Note) -> None:
    """Bound the frames on the connections that uvicorn accepts from now on. Do nothing without uvicorn."""
    for protocol in usable(FRAMES):
        if getattr(protocol, "channels_note_frames", None) is None:
            protocol.connection_made = _beginning(protocol.connection_made)
            protocol.data_received = _counting(protocol.data_received)
        protocol.channels_note_frames = staticmethod(note)


def _beginning(original: Any) -> Any:
    @functools.wraps(original)
    def connection_made(self: Any, transport: Any) -> None:
        self.channels_frames = self.channels_portions = None
        original(self, transport)

    return connection_made


def _counting(original: Any) -> Any:
    def parse(self: Any, data: bytes) -> None:
        """Give the server `data`, or a portion of it. The rest waits."""
        counter = self.channels_frames
        most = MAX_FRAMES_OF_A_READ if _can_wait(self) else len(data) + 1
        size = counter.take(data, time.monotonic(), most)
        if size < 0:
            _end(self)
            return
        is_portion = size < len(data)
        self.channels_read_size.note(size, counter.in_read + is_portion)
        if is_portion:
            if self.channels_portions is None:
                self.channels_portions = self.transport = PortionedTransport(self, parse)
            self.channels_portions.hold(data[size:])
            data = data[:size]
        original(self, data)
        if self.channels_portions is not None:
            self.channels_portions.go_on()

    @functools.wraps(original)
    def data_received(self: Any, data: bytes) -> None:
        if not hasattr(self, "channels_frames"):
            # The connection is older than the gateway, so it isn't known where a frame begins.
            original(self, data)
        elif self.channels_frames is None:
            self.channels_frames = FrameCounter()  # uvicorn passes on the head of the handshake
            least = FIRST_READ if _can_wait(self) else LITTLE_READ
            self.channels_read_size = ReadSize(self.transport, least)
            original(self, data)
        elif self.channels_portions is not None and self.channels_portions.must_wait:
            self.channels_portions.hold(data)
            self.channels_portions.go_on()
        else:
            parse(self, data)

    return data_received


def _can_wait(protocol: Any) -> bool:
    """
    Return whether a protocol of uvicorn tells when it wants more. That of the library websockets doesn't: it
    parses 32 messages at a time.
    """
    return hasattr(protocol, "read_paused")


def _end(protocol: Any) -> None:
    """End a connection of uvicorn whose client sent a flood."""
    if not protocol.transport.is_closing():
        protocol.channels_note_frames((protocol.client or ("unknown client",))[0])
        protocol.transport.abort()


def bound_twisted(protocol: Any, address: str, note: Note) -> None:
    """
    Bound the frames that come to `protocol`, a WebSocket of Daphne whose handshake is not answered.

    A client must wait for that answer (RFC 6455, section 4.1). What comes earlier ends the connection,
    because autobahn could take it for another handshake, so that it would not be clear where a frame begins.
    """
    if lacks_for_frames(protocol):
        return
    counter, original = FrameCounter(), protocol.dataReceived
    read_size = ReadSize(protocol.transport)

    def dataReceived(data: bytes) -> None:
        is_early = protocol.state == protocol.STATE_CONNECTING
        if not is_early and counter.allows(data, time.monotonic()):
            read_size.note(len(data), counter.in_read)
            original(data)
            return
        protocol.dataReceived = _ignore
        note(address)
        protocol.transport.abortConnection()

    protocol.dataReceived = dataReceived
    if protocol.data:
        dataReceived(b"")


def _ignore(data: bytes) -> None:
    """Take what comes before the connection has ended."""

"""
Have uvicorn parse what one client sent in portions, so that other clients get their turn between them. No
module of a server is imported.

uvicorn reads up to 256 KB at once. These can be 40,000 chunks of one byte, and for each chunk uvicorn copies
the body that has come: four clients that sent such chunks held up all others for seconds. Or they can be
37,000 messages of one byte on a WebSocket, which fragments.py counts.
"""

from __future__ import annotations

import functools
from typing import Any

from .internals import CHUNKS, usable
from .rounds import rounds_of

#: Bytes of a read, up to which it is parsed at once.
SMALL_READ = 4096

#: Line breaks in a larger read, and bytes for each of them, above which it is parsed in portions. A chunk has
#: two.
MAX_LINES_OF_A_READ, BYTES_OF_A_LINE = 512, 128

#: Line breaks of a portion, and its size in bytes.
LINES, MIN_SIZE, MAX_SIZE = 256, 1024, 16 * 1024

#: Bytes that wait to be parsed, above which the server gets them at once. Reading pauses while any wait, but
#: the server may resume it.
MAX_WAITING = 1024 * 1024


def parse_in_portions() -> None:
    """Apply this to the connections that uvicorn accepts from now on. Do nothing without uvicorn."""
    for protocol in usable(CHUNKS):
        if not hasattr(protocol, "channels_waiting"):
            protocol.channels_waiting = b""
            protocol.data_received = _in_portions(protocol.data_received)


def may_have_chunks(headers: Any, data: bytes) -> bool:
    """Return whether a read has chunks of a body whose request has these headers, or the head of another."""
    if len(data) <= SMALL_READ:
        return False
    return any(name == b"transfer-encoding" for name, _ in headers or ()) or b"HTTP/1." in data


def is_dense(data: bytes) -> bool:
    """Return whether a read has so many lines that it is parsed in portions."""
    return data.count(b"\n") > max(MAX_LINES_OF_A_READ, len(data) // BYTES_OF_A_LINE)


def size_of_next(data: bytes) -> int:
    """Return how many of the bytes that wait are parsed next."""
    size = min(len(data), MAX_SIZE)
    lines = data.count(b"\n", 0, size)
    return size if lines <= LINES else max(MIN_SIZE, size * LINES // lines)


def _in_portions(original: Any) -> Any:
    @functools.wraps(original)
    def data_received(self: Any, data: bytes) -> None:
        waiting = self.channels_waiting
        headers = getattr(self, "headers", ())
        if not waiting and not (may_have_chunks(headers, data) and is_dense(data)):
            original(self, data)
            return
        self.channels_waiting = waiting + data
        self.transport.pause_reading()
        if not waiting:
            _parse_on(self, original)
        while len(self.channels_waiting) > MAX_WAITING:
            _parse_next(self, original)

    return data_received


def _parse_on(protocol: Any, original: Any) -> None:
    """Parse a portion, and the next one in a later round of the event loop."""
    _parse_next(protocol, original)
    transport = protocol.transport
    if protocol.channels_waiting:
        rounds_of(protocol.loop).add(functools.partial(_parse_on, protocol, original))
    elif not transport.is_closing() and not getattr(protocol.flow, "read_paused", False):
        transport.resume_reading()


def _parse_next(protocol: Any, original: Any) -> None:
    waiting, transport = protocol.channels_waiting, protocol.transport
    if transport.is_closing() or transport.get_protocol() is not protocol:
        protocol.channels_waiting = b""  # what follows a handshake is dropped, as uvicorn does
        return
    size = size_of_next(waiting)
    protocol.channels_waiting = waiting[size:]
    try:
        original(protocol, waiting[:size])
    except Exception:
        # As if the transport had called it.
        transport.abort()
        raise


class PortionedTransport:
    """
    Stands in for the transport of a WebSocket of uvicorn whose client sent many small messages at once. When
    the server asks to read on, because the messages of the last portion were taken, it gets the next portion
    in its turn (`Rounds`): `parse(protocol, data)` gives it one, and lets the rest wait here. Everything else
    goes to the transport.

    Belongs to the event loop of the server.
    """

    def __init__(self, protocol: Any, parse: Any) -> None:
        #: What has been read, and not parsed.
        self.waiting = b""
        self._is_paused = self._is_scheduled = False
        self._parse = parse
        self._protocol = protocol
        self._rounds = rounds_of(protocol.loop)
        self._transport = protocol.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def resume_reading(self) -> None:
        """Parse on, and read on when nothing waits."""
        if self.waiting:
            if not self._is_scheduled:
                self._is_scheduled = True
                self._rounds.add(self._parse_next)
        else:
            self._is_paused = False
            self._transport.resume_reading()

    @property
    def must_wait(self) -> bool:
        """Whether what comes now has to wait for its turn."""
        return bool(self.waiting) or self._rounds.is_busy

    def hold(self, data: bytes) -> None:
        """Let `data` wait. Nothing is read meanwhile."""
        self.waiting += data
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Parse or read on after a portion, unless the server will ask for it."""
        if self._is_paused and not self._protocol.read_paused and not self._transport.is_closing():
            self.resume_reading()

    def _parse_next(self) -> None:
        self._is_scheduled = False
        data, self.waiting = self.waiting, b""
        if self._transport.is_closing():
            return
        try:
            self._parse(self._protocol, data)
        except Exception:
            # As if the transport had called it.
            self._transport.abort()
            raise

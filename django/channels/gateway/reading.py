"""
How much is read at once from one client.

A server handles all that it has read from one client before it attends to another. Of many small messages, or
chunks of a body, 64 KB can take half a second.
"""

from __future__ import annotations

import functools
from typing import Any

from .internals import READS, usable

#: Bytes that are read at once from a client at first, and at most if it has sent many messages at once.
FIRST_READ = 4096

#: Bytes that are read at once while a client sends many messages, where the server gets all that was read.
#: FIRST_READ may be 680 empty messages. Of a hundred such clients in turn, that is a second's work.
LITTLE_READ = 512

#: Frames, or chunks of a body. A read with more of them makes FIRST_READ the client's limit. It is
#: also the most in a portion of messages (fragments.py).
MAX_FRAMES_OF_A_READ = 64

#: What transports call the number of bytes that they read at once: Twisted's, and asyncio's own.
READ_SIZES = ("bufferSize", "max_size")


class ReadSize:
    """
    Sets how many bytes are read at once from a client: few at first, and twice as many after each read that
    was full, up to what the transport reads by itself. After a read with many messages it is `least`. A
    transport that doesn't tell, such as uvloop's, is left alone: it reads up to 256 KB.
    """

    __slots__ = ("_least", "_limit", "_name", "_size", "_transport")

    def __init__(self, transport: Any, least: int = LITTLE_READ) -> None:
        self._least = least
        # With TLS, Twisted's transport that reads is below the one that encrypts.
        below = [transport, getattr(transport, "transport", None)]
        found = [(each, name) for each in below for name in READ_SIZES if hasattr(each, name)]
        self._transport: Any = found[0][0] if found else None
        self._name = found[0][1] if found else ""
        self._size: int = getattr(self._transport, self._name) if found else 0
        # Requests that came before on the connection may have set its own.
        self._limit: int = getattr(type(self._transport), self._name, self._size) if found else 0
        self._set(FIRST_READ)

    def note(self, size: int, frames: int) -> None:
        """Take into account a read of `size` bytes with so many frames, or chunks of a body."""
        if frames > MAX_FRAMES_OF_A_READ:
            self._limit = min(self._limit, FIRST_READ)
            self._set(self._least)
        elif size >= self._size < self._limit:
            self._set(self._size * 2)

    def _set(self, size: int) -> None:
        size = min(size, self._limit)
        if size != self._size:
            self._size = size
            setattr(self._transport, self._name, size)


def read_little_of_chunks() -> None:
    """
    Have Twisted read little at once of a body in small chunks, on the connections that Daphne accepts from
    now on. Do nothing without Twisted.
    """
    for protocol in usable(READS):
        if not hasattr(protocol, "channels_read_size"):
            protocol.channels_read_size = None
            protocol.connectionMade = _beginning(protocol.connectionMade)
            protocol.dataReceived = _noting(protocol.dataReceived)


def _beginning(original: Any) -> Any:
    @functools.wraps(original)
    def connectionMade(self: Any) -> None:
        self.channels_read_size = ReadSize(self.transport)
        original(self)

    return connectionMade


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def dataReceived(self: Any, data: bytes) -> None:
        original(self, data)
        read_size = self.channels_read_size
        if read_size is not None:
            # A chunk has two line breaks.
            read_size.note(len(data), data.count(b"\n") // 2 if _has_chunks(self) else 0)

    return dataReceived


def _has_chunks(channel: Any) -> bool:
    """Return whether the body that comes on a channel of Twisted is in chunks."""
    requests = channel.requests
    return bool(requests) and requests[-1].requestHeaders.hasHeader(b"transfer-encoding")

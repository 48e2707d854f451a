"""
Bound what a connection of uvicorn with httptools sends before its request can be checked: the head, and the
trailers of a chunked body. The other servers do this themselves. No module of a server is imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable

from .internals import HEADS, usable

if TYPE_CHECKING:
    from .limits import Limits

#: Bytes of a head, or of trailers, above `headers_size` and `target_size`, that end the connection.
HEAD_MARGIN = 256 * 1024


class Heads:
    """
    Bounds the head and the trailers that a connection of uvicorn with httptools sends.

    httptools keeps an unfinished field, and uvicorn all fields, without a bound: a head of 160 MB takes
    5.6 GB of memory. uvicorn adds the trailers of a chunked body to the headers of its request, after the
    gateway has checked them. Trailers are dropped here. A client that sends more than `limit` bytes outside
    of bodies without ending a head gets a 400, and its connection ends.
    """

    def __init__(self, limit: int, note: Callable[[str], None]) -> None:
        self.limit = limit
        #: Called with the address of a client whose connection ends.
        self.note = note

    @classmethod
    def of(cls, limits: Limits, note: Callable[[str], None]) -> Heads:
        """Return the Heads for these limits. A head that is a little too large gets its 414 or 431."""
        return cls(limits.headers_size + limits.target_size + HEAD_MARGIN, note)


def bound_heads(heads: Heads) -> None:
    """Apply `heads` to the connections that uvicorn accepts from now on. Do nothing without httptools."""
    for protocol in usable(HEADS):
        if getattr(protocol, "channels_heads", None) is None:
            for name, wrap in _WRAPPERS.items():
                setattr(protocol, name, wrap(getattr(protocol, name)))
        protocol.channels_heads = heads


def _beginning(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.channels_pending, self.channels_in_head = 0, True

    return __init__


def _counting(original: Any) -> Any:
    @functools.wraps(original)
    def data_received(self: Any, data: bytes) -> None:
        if not hasattr(
            self, "channels_pending"
        ):  # older than the gateway: its parser calls the originals
            original(self, data)
            return
        self.channels_pending += len(data)
        original(self, data)
        if self.channels_pending > self.channels_heads.limit and not self.transport.is_closing():
            self.channels_heads.note((self.client or ("unknown client",))[0])
            self.send_400_response("The head or the trailers of the request are too large.")

    return data_received


def _without_trailers(original: Any) -> Any:
    @functools.wraps(original)
    def on_header(self: Any, name: bytes, value: bytes) -> None:
        if self.channels_in_head:
            original(self, name, value)

    return on_header


def _progress(original: Any, in_head: bool) -> Any:
    @functools.wraps(original)
    def callback(self: Any, *args: Any) -> None:
        self.channels_pending, self.channels_in_head = 0, in_head
        original(self, *args)

    return callback


_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "__init__": _beginning,
    "data_received": _counting,
    "on_header": _without_trailers,
    "on_headers_complete": functools.partial(_progress, in_head=False),
    "on_body": functools.partial(_progress, in_head=False),
    "on_message_complete": functools.partial(_progress, in_head=True),
}

"""
Bound what a server has to write to a WebSocket beyond what the gateway gives it: its answers to pings; and
for how long, once the socket is to end.

uvicorn and Daphne answer each ping of a client at once, also if that client reads nothing. uvicorn closes a
connection when all is written. For a client that stays and reads nothing, it would wait for ever, and not end
itself, either.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..log import RateLimit, shown
from . import connection as connections
from .daphne import SocketSend

if TYPE_CHECKING:
    from .application import Gateway

logger = logging.getLogger("django.channels.gateway")

#: Bytes that may wait in the transport of one socket. The gateway writes a frame only when there are few.
MAX_WRITE_BUFFER = 4 * 1024 * 1024

#: Seconds between two checks of all sockets.
CHECK_INTERVAL = 1.0


class WriteBuffers:
    """Aborts the sockets whose transports hold too much. Belongs to the event loop of the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._timer: Any = None
        self._lines = RateLimit()
        #: By transport that will end: the bytes that wait in it, and the time at which some were last taken.
        self._ending: dict[Any, tuple[int, float]] = {}

    def start(self) -> None:
        """Check from now on, as long as there are connections."""
        if self._timer is None:
            self._timer = self._gateway.loop.call_later(CHECK_INTERVAL, self.check)

    def check(self) -> None:
        """Abort the sockets that hold too much, and check again later."""
        self._timer = None
        checked: list[Any] = list(self._gateway.connections.values())
        for connection in checked:
            transport = getattr(connection, "transport", None)  # a request has none
            if transport is not None and _size(transport) > MAX_WRITE_BUFFER:
                self._gateway.layer.count("slow_clients")
                self._lines.log(
                    logger.warning,
                    "Ended WebSocket %s: its client reads nothing, and %d bytes waited for it in the "
                    "server. Clients that send many pings cause this.",
                    shown(connection.state.path),
                    _size(transport),
                )
                _abort(transport)
            elif transport is not None and _is_closing(transport):
                # uvicorn ends when all connections have ended, also those that wait for workers.
                connection.read_to_end()
                self.watch_end(transport)
        self._abort_ending()
        if self._gateway.connections or self._ending:
            self.start()

    def watch_end(self, transport: Any) -> None:
        """
        Abort `transport`, which is to end, if its client takes nothing of what is written to it for
        CLOSE_TIMEOUT seconds. None: the transport isn't known.
        """
        if transport is not None and transport not in self._ending and _size(transport):
            self._ending[transport] = (_size(transport), self._gateway.loop.time())
            self.start()

    def _abort_ending(self) -> None:
        now = self._gateway.loop.time()
        for transport, (before, since) in list(self._ending.items()):
            size = _size(transport)
            if size and size < before:
                self._ending[transport] = (size, now)
            elif not size or now - since > connections.CLOSE_TIMEOUT:
                del self._ending[transport]
                if size:
                    self._gateway.layer.count("slow_clients")
                    _abort(transport)

    def close(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()


def transport_of(send: Any) -> Any:
    """Return the transport of asyncio or Twisted that `send` writes to, or None if the server is unknown."""
    server = send.protocol if type(send) is SocketSend else getattr(send, "__self__", None)
    return getattr(server, "transport", None)


def _size(transport: Any) -> int:
    """Return how many bytes wait in a transport. 0 if it doesn't tell."""
    size = getattr(transport, "get_write_buffer_size", None)
    if size is not None:
        return int(size())
    # Twisted lacks a public name for it.
    return len(getattr(transport, "dataBuffer", b"")) + int(getattr(transport, "_tempDataLen", 0))


def _is_closing(transport: Any) -> bool:
    """Return whether the server has closed a transport: `is_closing` is asyncio's name."""
    is_closing = getattr(transport, "is_closing", None)
    return bool(getattr(transport, "disconnecting", False) if is_closing is None else is_closing())


def _abort(transport: Any) -> None:
    """End a connection without writing what waits: `abort` is asyncio's name, the other one Twisted's."""
    (getattr(transport, "abort", None) or transport.abortConnection)()

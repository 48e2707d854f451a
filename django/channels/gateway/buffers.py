"""
Bound what a server has to write to a WebSocket beyond what the gateway gives it: its answers to pings.

uvicorn and Daphne answer each ping of a client at once, also if that client reads nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..log import RateLimit, shown
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

    def start(self) -> None:
        """Check from now on, as long as there are connections."""
        if self._timer is None:
            self._timer = self._gateway.loop.call_later(CHECK_INTERVAL, self.check)

    def check(self) -> None:
        """Abort the sockets that hold too much, and check again later."""
        self._timer = None
        for connection in list(self._gateway.connections.values()):
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
        if self._gateway.connections:
            self.start()

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


def _abort(transport: Any) -> None:
    """End a connection without writing what waits: `abort` is asyncio's name, the other one Twisted's."""
    (getattr(transport, "abort", None) or transport.abortConnection)()

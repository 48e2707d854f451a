"""
End the sockets from which nothing comes, for servers that don't notice that a client has vanished.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .application import Gateway
    from .connection import Connection

#: How often, within the time that a socket may be silent, the gateway checks all sockets.
CHECKS = 4


class IdleSockets:
    """
    When each socket of a gateway was last heard of. Belongs to the event loop of the gateway, whose option
    `idle_time` says for how many seconds a socket may be silent.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._seconds = gateway.limits.idle_time
        self._loop = asyncio.get_event_loop()
        self._heard_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._timer = self._loop.call_later(self._seconds / CHECKS, self.check)

    def heard(self, connection: Connection) -> None:
        """Note that something came from a client."""
        self._heard_at[connection] = self._loop.time()

    def check(self) -> None:
        """Close the sockets that were silent for too long, unless their frames wait for a worker."""
        now = self._loop.time()
        for connection in list(self._gateway.connections.values()):
            if connection.reader is None or connection.state.in_flight is not None:
                continue  # no socket; or nothing may be read
            heard_at = self._heard_at.setdefault(connection, now)
            if now - heard_at > self._seconds:
                connection.perform(connection.state.silent())
        self._timer = self._loop.call_later(self._seconds / CHECKS, self.check)

    def close(self) -> None:
        """Stop checking."""
        self._timer.cancel()

"""
End the sockets whose clients send data before Hypercorn has answered their handshake. No module of Hypercorn
is imported.

Hypercorn answers such a client with a 400, and never tells the application that the socket has ended. The
gateway kept it for good, and its disconnect consumer never ran.
"""

from __future__ import annotations

import functools
from typing import Any

from .internals import EARLY, usable

#: The code of a socket that ended without a close frame (RFC 6455, section 7.1.5).
ABNORMAL = 1006


def end_early_sockets() -> None:
    """End such sockets from now on. Do nothing without Hypercorn."""
    for stream in usable(EARLY):
        if getattr(stream.handle, "__wrapped__", None) is None:
            stream.handle = _ending(stream.handle)


def _ending(original: Any) -> Any:
    @functools.wraps(original)
    async def handle(self: Any, event: Any) -> None:
        was_closed = self.closed
        await original(self, event)
        if self.closed and not was_closed and type(event).__name__ in ("Body", "Data"):
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": ABNORMAL})

    return handle

"""
End both sides of a socket of Hypercorn if one has ended. No module of Hypercorn is imported.

A client that sends data before its handshake is answered gets a 400 from Hypercorn, which never tells the
application that the socket has ended. The gateway kept it for good, and its disconnect consumer never ran.

If the application has ended while more frames wait for it than Hypercorn's queue takes, the task that reads
from the client waited for room for good. The connection stayed open, and Hypercorn couldn't be stopped.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from .internals import ENDS, usable

#: The code of a socket that ended without a close frame (RFC 6455, section 7.1.5).
ABNORMAL = 1006


def end_both_sides() -> None:
    """End such sockets from now on. Do nothing without Hypercorn."""
    for stream in usable(ENDS):
        if getattr(stream.handle, "__wrapped__", None) is None:
            stream.handle = _ending(stream.handle)
            stream.app_send = _emptying(stream.app_send)


def _ending(original: Any) -> Any:
    @functools.wraps(original)
    async def handle(self: Any, event: Any) -> None:
        was_closed = self.closed
        await original(self, event)
        if self.closed and not was_closed and type(event).__name__ in ("Body", "Data"):
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": ABNORMAL})

    return handle


def _emptying(original: Any) -> Any:
    @functools.wraps(original)
    async def app_send(self: Any, message: Any) -> None:
        if message is None:  # the application has ended
            queue, self.app_put = getattr(self.app_put, "__self__", None), _ignore
            # Each that is taken lets one go on that waits for room.
            while isinstance(queue, asyncio.Queue) and not queue.empty():
                queue.get_nowait()
        await original(self, message)

    return app_send


async def _ignore(message: Any) -> None:
    """Take what would go to an application that has ended."""

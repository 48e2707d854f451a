"""
What a gateway tells about options of its server that let clients use more memory than they need to.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("django.channels.gateway")


class Advice:
    """Checks the server once, and logs what to change. Belongs to the event loop of its gateway."""

    def __init__(self) -> None:
        self._is_due = True

    def check(self, receive: Any) -> None:
        """Check the server whose `receive` this is, unless that was done."""
        if self._is_due:
            self._is_due = False
            text = advice_about(receive)
            if text is not None:
                logger.warning(text)


def advice_about(receive: Any) -> str | None:
    """Return what to change about the server whose `receive` of a WebSocket this is, or None."""
    protocol = getattr(receive, "__self__", None)
    if not type(protocol).__module__.startswith("uvicorn."):
        return None
    config = getattr(protocol, "config", None)
    if getattr(config, "ws_per_message_deflate", False):
        return (
            "uvicorn accepts compressed frames, of which 64 KB can take 64 MB of memory, whatever "
            "--ws-max-size says. Start it with --ws-per-message-deflate false."
        )
    return None

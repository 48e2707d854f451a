"""
What a gateway tells about its server: options that let clients use more memory than they need to, and a proxy
in front of it that keeps WebSockets from it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..log import RateLimit, shown
from ..pages import see
from ..protocol import WEBSOCKET_CONNECT
from .scopes import request_event

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer

#: Seconds between two lines about handshakes that came as requests. Each client can send one.
INTERVAL = 60.0

logger = logging.getLogger("django.channels.gateway")


class Advice:
    """Checks the server once, and logs what to change. Belongs to the event loop of its gateway."""

    def __init__(self) -> None:
        self._is_due = True
        self._lost_upgrades = RateLimit(INTERVAL)

    def check(self, receive: Any) -> None:
        """Check the server whose `receive` this is, unless that was done."""
        if self._is_due:
            self._is_due = False
            text = advice_about(receive)
            if text is not None:
                logger.warning(text)

    def check_request(self, scope: Any, layer: BaseChannelLayer) -> None:
        """
        Log that the request of `scope` is the handshake of a WebSocket without its Upgrade, if a route of
        `layer` would take it. Raises nothing.
        """
        names = [name for name, _ in scope["headers"]]
        if b"sec-websocket-key" not in names:
            return
        try:
            is_taken = _takes_socket(scope, layer)
        except Exception:  # a routing that can't be imported is reported by workers and `check`
            return
        if not is_taken:
            return
        if b"upgrade" in names:
            reason = "The server has no support for WebSockets. For uvicorn: pip install websockets"
        else:
            reason = "A proxy in front of the server dropped the Upgrade header: have it pass Upgrade and "
            reason += "Connection on"
        self._lost_upgrades.log(
            logger.warning,
            "The handshake of a WebSocket to %s came as an HTTP request, so no socket is opened. %s. %s",
            shown(scope["path"]),
            reason,
            see("howto/deployment/asgi/nginx"),
        )


def _takes_socket(scope: Any, layer: BaseChannelLayer) -> bool:
    """Return whether a route takes the handshake that the request of `scope` was."""
    from ..message import Message

    message = Message(request_event(scope), WEBSOCKET_CONNECT, layer)
    return layer.router.match(message) is not None


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

"""
What a gateway tells about its server: it can't do WebSockets, or a proxy in front of it keeps them from it.
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
    """Logs what to change about the server. Belongs to the event loop of its gateway."""

    def __init__(self) -> None:
        self._lost_upgrades = RateLimit(INTERVAL)

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

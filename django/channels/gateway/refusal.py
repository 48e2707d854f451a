"""
Refuse a request or a handshake before anything of it reaches the layer.
"""

from __future__ import annotations

import logging
from http.client import responses
from typing import TYPE_CHECKING, Any, Mapping

from ..log import RateLimit, shown

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer
    from .connection import ServerSend

logger = logging.getLogger("django.channels.gateway")

#: The extension of ASGI by which a server sends a whole response in place of a handshake's 403.
DENIAL_RESPONSE = "websocket.http.response"

#: What the line in the log says about each status.
REASONS = {
    400: "its method or one of its headers has a character that none may have",
    414: "its path and query are longer than the option target_size allows",
    431: "its headers are larger than the option headers_size allows",
}


class Refusals:
    """Refuses clients of one gateway, counts them, and logs each kind once a second at most."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        self._layer = layer
        self._rates = {status: RateLimit() for status in REASONS}

    async def refuse(self, scope: Mapping[str, Any], send: ServerSend, status: int) -> None:
        """Answer the client of `scope` with `status`. A server without DENIAL_RESPONSE sends a 403."""
        if status == 400:
            self._layer.count("bad_requests")
        else:
            self._layer.count("requests_too_large")
        suppressed = self._rates[status].allow()
        if suppressed is not None:
            logger.warning(
                "Refused %s %s of %s with %d: %s. Others refused since the last line: %d",
                "request" if scope["type"] == "http" else "WebSocket",
                shown(scope["path"]),
                shown((scope.get("client") or ("unknown client",))[0]),
                status,
                REASONS[status],
                suppressed,
            )
        if scope["type"] == "http":
            prefix = "http.response"
        elif DENIAL_RESPONSE in (scope.get("extensions") or ()):
            prefix = DENIAL_RESPONSE
        else:
            await send({"type": "websocket.close", "code": 1000})
            return
        title = "%s (%d)" % (responses[status], status)
        body = ("<!doctype html><title>%s</title><h1>%s</h1>" % (title, title)).encode()
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": prefix + ".start", "status": status, "headers": headers})
        await send({"type": prefix + ".body", "body": body, "more_body": False})

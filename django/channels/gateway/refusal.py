"""
Refuse a request or a handshake before anything of it reaches the layer.
"""

from __future__ import annotations

import logging
from http.client import responses
from typing import TYPE_CHECKING, Any, Mapping

from ..log import RateLimit, shown
from . import http2
from .daphne import close_after_response
from .fragments import FRAMES_PER_SECOND, MAX_FRAGMENTS
from .pipelines import MAX_PIPELINED

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer
    from .connection import ServerSend

logger = logging.getLogger("django.channels.gateway")

#: The extension of ASGI by which a server sends a whole response in place of a handshake's 403.
DENIAL_RESPONSE = "websocket.http.response"

#: What the line in the log says about each status, and the counter.
REASONS = {
    400: (
        "its method or a header has a character that none may have, or the end of its body isn't clear",
        "bad_requests",
    ),
    408: (
        "its body came more slowly than the options body_grace, body_rate and body_time allow",
        "bodies_slow",
    ),
    413: ("its body is larger than the option body_size allows", "bodies_too_large"),
    414: ("its path and query are longer than the option target_size allows", "requests_too_large"),
    429: (
        "more than %d other requests wait behind it on its connection" % MAX_PIPELINED,
        "pipelines_refused",
    ),
    431: ("its headers are larger than the option headers_size allows", "requests_too_large"),
    503: (
        "there is no room for its body (options bodies_memory and bodies_disk, of which one address has a "
        "share, or the disk is full)",
        "bodies_refused",
    ),
}


class Refusals:
    """Refuses clients of one gateway, counts them, and logs each kind once a second at most."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        self._layer = layer
        self._rates = {status: RateLimit() for status in REASONS}
        self._heads, self._frames, self._streams = RateLimit(), RateLimit(), RateLimit()

    async def refuse(self, scope: Mapping[str, Any], send: ServerSend, status: int) -> None:
        """Answer the client of `scope` with `status`. A server without DENIAL_RESPONSE sends a 403."""
        self.note(scope, status)
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
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if status in (400, 408, 429) and scope.get("http_version", "1.1")[0] == "1":
            # The rest of the body, and requests behind this one, are not waited for. What is behind a body
            # whose end is in doubt must not become a request.
            headers.append((b"connection", b"close"))
            close_after_response(send)
        await send({"type": prefix + ".start", "status": status, "headers": headers})
        await send({"type": prefix + ".body", "body": body, "more_body": False})

    def note(self, scope: Mapping[str, Any], status: int) -> None:
        """Count and log that the client of `scope` gets `status`."""
        reason, counter = REASONS[status]
        self._layer.count(counter)
        self._rates[status].log(
            logger.warning,
            "Refused %s %s of %s with %d: %s.",
            "request" if scope["type"] == "http" else "WebSocket",
            shown(scope["path"]),
            shown((scope.get("client") or ("unknown client",))[0]),
            status,
            reason,
        )

    def note_head(self, address: str) -> None:
        """Count and log a client whose connection has ended because of an endless head: see heads.py."""
        self._layer.count("requests_too_large")
        self._heads.log(
            logger.warning,
            "Closed a connection of %s: the head of its request, or what follows its body, is larger than "
            "the options headers_size and target_size allow.",
            shown(address),
        )

    def note_frames(self, address: str) -> None:
        """Count and log a client whose connection has ended because of its fragments: see fragments.py."""
        self._layer.count("frames_too_many")
        self._frames.log(
            logger.warning,
            "Ended a WebSocket of %s: it sent too many fragments or control frames (or, behind Daphne, "
            "frames before the handshake was answered). A message may have %d fragments, and a client may "
            "send %d such frames a second.",
            shown(address),
            MAX_FRAGMENTS,
            FRAMES_PER_SECOND,
        )

    def note_streams(self, address: str) -> None:
        """Count and log a client whose connection of HTTP/2 has ended because of its frames: see http2.py."""
        self._layer.count("frames_too_many")
        self._streams.log(
            logger.warning,
            "Ended a connection of %s: over HTTP/2, it reset too many requests, or sent too many control "
            "frames. A client may send %d such frames a second.",
            shown(address),
            http2.FRAMES_PER_SECOND,
        )

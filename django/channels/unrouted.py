"""What the log says of a WebSocket whose path no route takes: which path is near, and what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

from .log import shown
from .pages import see

if TYPE_CHECKING:
    from .message import Message

#: How many parts at the beginning of a path may be the place of the site.
MAX_PREFIX = 3


def denial(message: Message) -> str:
    """Return the text about the handshake `message`, which no route takes."""
    path = str(message.get("path"))
    text = "WebSocket %s denied: no route of channel websocket.connect takes this path" % shown(
        path
    )
    for near in _near(path):
        if _is_taken(message, near):
            return "%s, but one takes %s. %s" % (text, shown(near), _remedy(path, near))
    return text + "."


def _near(path: str) -> Iterator[str]:
    """Return `path` with or without its last slash, and without its first parts."""
    yield path[:-1] if path.endswith("/") else path + "/"
    rest = path
    for _ in range(MAX_PREFIX):
        rest = "/" + rest[1:].partition("/")[2]
        if rest == "/":
            return
        yield rest


def _remedy(path: str, near: str) -> str:
    if not path.endswith(near) or path == near + "/":
        return "Correct the URL in the page."
    prefix = shown(path[: -len(near)])
    return (
        "If the site is below %s, write include(…, path=r'^(?:%s(?=/))?') around its routes. %s"
        % (
            prefix,
            prefix,
            see("howto/deployment/asgi/nginx"),
        )
    )


def _is_taken(message: Message, path: str) -> bool:
    other = message.copy()
    other.content["path"] = path
    return message.channel_layer.router.match(other) is not None

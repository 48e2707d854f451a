"""
From an ASGI 3 scope to the event of a channel. Pure functions.

The keys of `websocket.connect` and `http.request` that describe the connection are set here, and nowhere
else. To add one, set it here and add it to `protocol.WebSocketConnect` or `protocol.HttpRequest`.
"""

from __future__ import annotations

import codecs
from typing import Any, Mapping
from urllib.parse import unquote_to_bytes


def _keep_percent_encoded(error: Any) -> tuple[str, int]:
    """A decoder's error handler: bytes that are not UTF-8 stay percent-encoded."""
    undecodable = error.object[error.start : error.end]
    return "".join("%%%02X" % byte for byte in undecodable), error.end


codecs.register_error("channels.percent", _keep_percent_encoded)


def request_event(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `http.request` except its body: a `protocol.HttpRequest`."""
    event = _connection(scope, "http")
    event["http_version"] = scope.get("http_version", "1.1")
    event["method"] = scope["method"]
    return event


def connect_event(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `websocket.connect`: a `protocol.WebSocketConnect`."""
    event = _connection(scope, "ws")
    if scope.get("subprotocols"):
        event["subprotocols"] = list(scope["subprotocols"])
    return event


def _connection(scope: Mapping[str, Any], scheme: str) -> dict[str, Any]:
    """Return the keys that both events have."""
    return {
        "scheme": scope.get("scheme", scheme),
        "path": _path(scope),
        "query_string": scope.get("query_string", b""),
        "root_path": scope.get("root_path", ""),
        # Consumers and checks look for names in lower case, as ASGI has them.
        "headers": [[bytes(name).lower(), bytes(value)] for name, value in scope["headers"]],
        "client": list(scope["client"]) if scope.get("client") else None,
        "server": list(scope["server"]) if scope.get("server") else None,
    }


def _path(scope: Mapping[str, Any]) -> str:
    """
    Return the path as every event of the connection has it.

    Bytes that are not UTF-8 stay percent-encoded, if the server gives the raw path or escapes them. A layer
    cannot carry lone surrogates, so they are escaped too.
    """
    path: str = scope["path"]
    if path.isascii():
        return path
    raw = scope.get("raw_path")
    if raw:
        octets = unquote_to_bytes(raw.partition(b"?")[0])
        # Servers differ in how they decode such bytes, and in whether raw_path is the same path.
        if path in (octets.decode("utf-8", "replace"), octets.decode("utf-8", "surrogateescape")):
            return octets.decode("utf-8", "channels.percent")
    try:
        octets = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        octets = path.encode("utf-8", "surrogatepass")
    return octets.decode("utf-8", "channels.percent")

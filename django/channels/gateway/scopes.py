"""
From an ASGI 3 scope to the event of a channel. Pure functions.

The keys of `websocket.connect` and `http.request` that describe the connection are set here, and nowhere
else. To add one, set it here and add it to `protocol.WebSocketConnect` or `protocol.HttpRequest`.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Mapping, MutableMapping
from urllib.parse import unquote_to_bytes


def _keep_percent_encoded(error: Any) -> tuple[str, int]:
    """A decoder's error handler: bytes that are not UTF-8 stay percent-encoded."""
    undecodable = error.object[error.start : error.end]
    return "".join("%%%02X" % byte for byte in undecodable), error.end


codecs.register_error("channels.percent", _keep_percent_encoded)


#: How a target in absolute form begins (RFC 9112, section 3.2.2).
_AUTHORITY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def correct_path(scope: MutableMapping[str, Any]) -> None:
    """
    Make the path of a target in absolute form ("http://host/path"), or without a path, what the path of the
    usual form would be. Every server has to accept the absolute form, and some leave all of it in the path.
    Remove a fragment ("#…"), which a target must not have: some servers do so for requests only. Make the
    `root_path` one that begins with a slash and doesn't end in one.
    """
    root = scope.get("root_path") or ""
    if root and (root[0] != "/" or root[-1] == "/"):
        _correct_root(scope, root)
    path, root = scope["path"], scope.get("root_path") or ""
    if "#" in path:
        path = _cut_fragment(scope)
    query = scope.get("query_string") or b""
    if b"#" in query:
        scope["query_string"] = query.partition(b"#")[0]
    if path[:1] == "/" and "://" not in path:
        return
    corrected = _without_authority(path, root)
    if corrected != path:
        raw = scope.get("raw_path")
        if raw is not None:
            latin = _octets(root).decode("latin-1")
            scope["raw_path"] = _without_authority(raw.decode("latin-1"), latin).encode("latin-1")
        scope["path"] = corrected


def _correct_root(scope: MutableMapping[str, Any], root: str) -> None:
    """Correct the `root_path`, and the paths that begin with it: uvicorn puts it before the client's path."""
    stripped = root.strip("/")
    corrected = "/" + stripped if stripped else ""
    path, raw = scope["path"], scope.get("raw_path")
    if path.startswith(root):
        scope["path"] = corrected + _absolute(path[len(root) :])
    if raw is not None:
        octets = _octets(root)
        if raw.startswith(octets):
            rest = _absolute(raw[len(octets) :].decode("latin-1")).encode("latin-1")
            scope["raw_path"] = _octets(corrected) + rest
    scope["root_path"] = corrected


def _absolute(path: str) -> str:
    """Return a path that begins with a slash, or with a scheme."""
    return path if path[:1] == "/" or _AUTHORITY.match(path) else "/" + path


def _cut_fragment(scope: MutableMapping[str, Any]) -> str:
    """Remove what follows a "#" of the raw path, and the query. An escaped "#" stays. Return the path."""
    path: str = scope["path"]
    kept, sign, _ = (scope.get("raw_path") or b"").partition(b"?")[0].partition(b"#")
    if sign:
        escaped = unquote_to_bytes(kept).count(b"#")
        scope["path"] = path = "#".join(path.split("#")[: escaped + 1])
        scope["raw_path"], scope["query_string"] = kept, b""
    return path


def _without_authority(path: str, root: str) -> str:
    """Return `path`, which may begin with `root`, without a scheme and a host after that."""
    prefix = root if path.startswith(root) else ""
    match = _AUTHORITY.match(path, len(prefix))
    return (path if match is None else prefix + path[match.end() :]) or "/"


def request_event(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `http.request` except its body: a `protocol.HttpRequest`."""
    event = _connection(scope, "http")
    event["http_version"] = scope.get("http_version", "1.1")
    event["method"] = scope["method"]
    return event


#: The longest Host header (bytes) that is corrected: a name has 253 characters.
MAX_HOST = 1024


def connect_event(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `websocket.connect`: a `protocol.WebSocketConnect`."""
    event = _connection(scope, "ws")
    for pair in event["headers"]:
        # Not a long one, which old Pythons take long to encode.
        if pair[0] == b"host" and not pair[1].isascii() and len(pair[1]) <= MAX_HOST:
            pair[1] = _ascii_host(pair[1])
    if scope.get("subprotocols"):
        event["subprotocols"] = [_text(each) for each in scope["subprotocols"]]
    return event


def _connection(scope: Mapping[str, Any], scheme: str) -> dict[str, Any]:
    """Return the keys that both events have."""
    return {
        "scheme": scope.get("scheme", scheme),
        "path": path_of(scope),
        "query_string": scope.get("query_string", b""),
        "root_path": _text(scope.get("root_path", "")),
        # Consumers and checks look for names in lower case, as ASGI has them.
        "headers": [[bytes(name).lower(), bytes(value)] for name, value in scope["headers"]],
        "client": _address(scope.get("client")),
        "server": _address(scope.get("server")),
    }


def _ascii_host(value: bytes) -> bytes:
    """
    Return the Host header as the client sent it. The library wsproto decodes the name of an international
    domain, which ALLOWED_HOSTS and Origin headers have in ASCII.
    """
    try:
        host, colon, port = value.decode().partition(":")
        return host.encode("idna") + (colon + port).encode("ascii")
    except UnicodeError:
        return value


def _address(address: Any) -> list[Any] | None:
    """Return an address of a scope, a host and a port, as a layer carries it."""
    return [_text(address[0]), *address[1:]] if address else None


def _text(value: Any) -> Any:
    """Return text with "?" for each lone surrogate, which a layer cannot carry. None stays None."""
    if not value or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode()


def path_of(scope: Mapping[str, Any]) -> str:
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
    return _octets(path).decode("utf-8", "channels.percent")


def _octets(path: str) -> bytes:
    """Return the bytes of a path that a server has decoded, with whatever surrogates."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return path.encode("utf-8", "surrogatepass")

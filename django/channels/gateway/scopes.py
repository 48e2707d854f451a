"""From an ASGI 3 scope to the standard keys of a channel's message. Pure functions."""

import codecs
from urllib.parse import unquote_to_bytes


def _keep_percent_encoded(error):
    """A decoder's error handler: bytes that are not UTF-8 stay percent-encoded."""
    undecodable = error.object[error.start : error.end]
    return "".join("%%%02X" % byte for byte in undecodable), error.end


codecs.register_error("channels.percent", _keep_percent_encoded)


def request_message(scope):
    """The keys of `http.request` but those of its body (ASGI 1.0 specification, section HTTP)."""
    message = _connection(scope, "http")
    message["http_version"] = scope.get("http_version", "1.1")
    message["method"] = scope["method"]
    return message


def connect_message(scope):
    """The keys of `websocket.connect`, and the subprotocols that the client offers."""
    message = _connection(scope, "ws")
    if scope.get("subprotocols"):
        message["subprotocols"] = list(scope["subprotocols"])
    return message


def _connection(scope, scheme):
    return {
        "scheme": scope.get("scheme", scheme),
        "path": _path(scope),
        "query_string": scope.get("query_string", b""),
        "root_path": scope.get("root_path", ""),
        "headers": [[bytes(name), bytes(value)] for name, value in scope["headers"]],
        "client": list(scope["client"]) if scope.get("client") else None,
        "server": list(scope["server"]) if scope.get("server") else None,
    }


def _path(scope):
    """The path, with what is not UTF-8 in it as Django has it under WSGI, where the server lets us know."""
    path, raw = scope["path"], scope.get("raw_path")
    if raw and not path.isascii():
        octets = unquote_to_bytes(raw.partition(b"?")[0])
        # Servers differ in what they put in the place of such bytes, and whether raw_path is the same path.
        if path in (octets.decode("utf-8", "replace"), octets.decode("utf-8", "surrogateescape")):
            return octets.decode("utf-8", "channels.percent")
    return path

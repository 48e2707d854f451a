"""From an ASGI 3 scope to the standard keys of a channel's message. Pure functions."""


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
        "path": scope["path"],
        "query_string": scope.get("query_string", b""),
        "root_path": scope.get("root_path", ""),
        "headers": [[bytes(name), bytes(value)] for name, value in scope["headers"]],
        "client": list(scope["client"]) if scope.get("client") else None,
        "server": list(scope["server"]) if scope.get("server") else None,
    }

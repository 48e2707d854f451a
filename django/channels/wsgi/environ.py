"""
Translate between the environment of a WSGI request (PEP 3333) and the scope of an ASGI one. Pure functions.
"""

from __future__ import annotations

import sys
from http.client import responses
from typing import Any, Iterable, Mapping
from urllib.parse import quote

#: Headers of one connection, which a WSGI application may not send (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    )
)

#: The keys of an environment that are headers but lack the prefix HTTP_.
_HEADER_KEYS = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}


def scope_of(environ: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the ASGI scope of the request that `environ` describes.

    It leaves out what only WSGI servers set, such as REMOTE_USER.
    """
    root = environ.get("SCRIPT_NAME", "").rstrip("/").encode("latin-1")
    path = root + (environ.get("PATH_INFO", "") or "/").encode("latin-1")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
        "method": environ["REQUEST_METHOD"].upper(),
        "scheme": environ["wsgi.url_scheme"],
        "path": path.decode("utf-8", "surrogateescape"),
        "raw_path": quote(path).encode("ascii"),
        "root_path": root.decode("utf-8", "surrogateescape"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": list(_headers_of(environ)),
        "client": _address(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")),
        "server": _address(environ["SERVER_NAME"], environ["SERVER_PORT"]),
    }


def _headers_of(environ: Mapping[str, Any]) -> Iterable[tuple[bytes, bytes]]:
    for key, value in environ.items():
        if key in _HEADER_KEYS:
            if value:
                yield _HEADER_KEYS[key], value.encode("latin-1")
        elif key.startswith("HTTP_") and key != "HTTP_TRANSFER_ENCODING":
            yield key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")
    if environ.get("HTTP_TRANSFER_ENCODING") and body_length(environ) is None:
        yield b"transfer-encoding", b"chunked"


def _address(host: str | None, port: str | None) -> tuple[str, int] | None:
    return (host, int(port) if port and port.isdecimal() else 0) if host else None


def body_length(environ: Mapping[str, Any]) -> int | None:
    """
    Return the length of the request's body, in bytes. None: the server doesn't know it, and `wsgi.input`
    ends where the body does.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        return int(length)
    return None if environ.get("wsgi.input_terminated") else 0


def status_line(status: int) -> str:
    """Return a status as `start_response` wants it: "404 Not Found"."""
    return "%d %s" % (status, responses.get(status, "Unknown"))


def wsgi_headers(status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return the headers of an ASGI response as `start_response` wants them."""
    # The validator of PEP 3333 refuses a type of a body that doesn't exist.
    dropped = HOP_BY_HOP | {b"content-type"} if status in (204, 304) else HOP_BY_HOP
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name.lower() not in dropped
    ]


def environ_of(request: Any, script_name: str = "") -> dict[str, Any]:
    """
    Return a new environment for the ASGIRequest `request`. An application that is mounted at `script_name`
    ("/old") gets the rest of the path.
    """
    environ: dict[str, Any] = {
        key: value for key, value in request.META.items() if isinstance(value, str)
    }
    prefix, path = request.script_name, request.path_info
    if script_name and (path + "/").startswith(script_name + "/"):
        prefix, path = prefix + script_name, path[len(script_name) :]
    environ["SCRIPT_NAME"] = prefix.encode("utf-8").decode("latin-1")
    environ["PATH_INFO"] = path.encode("utf-8").decode("latin-1")
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": request.META["wsgi.url_scheme"],
            "wsgi.input": request._incoming,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
    )
    return environ

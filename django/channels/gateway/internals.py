"""
What the gateway uses of its servers beyond ASGI: the modules, classes and attributes of uvicorn, Daphne,
Hypercorn and granian that aren't public. Another version of a server may lack one. The gateway then leaves
the server alone there, and one line in the log says what it doesn't bound. No module of a server is imported.

prepared.py and watch.py also look at how uvicorn is built, to save time. What they don't recognize goes the
way of plain ASGI, so nothing is logged.
"""

from __future__ import annotations

import inspect
import logging
import sys
from functools import lru_cache
from types import CodeType
from typing import Any, Iterator, NamedTuple

logger = logging.getLogger("django.channels.gateway")

#: uvicorn's modules. Each has one protocol class; the first two have the class of a request, too.
HTTP_MODULES = "uvicorn.protocols.http."
HTTPTOOLS, H11 = HTTP_MODULES + "httptools_impl", HTTP_MODULES + "h11_impl"
ZTTP, HTTP2 = HTTP_MODULES + "zttp_impl", HTTP_MODULES + "zttp_h2_impl"
SOCKET_MODULES = "uvicorn.protocols.websockets."
WEBSOCKETS, SANSIO = SOCKET_MODULES + "websockets_impl", SOCKET_MODULES + "websockets_sansio_impl"
WSPROTO = SOCKET_MODULES + "wsproto_impl"
CYCLE = "RequestResponseCycle"

#: Twisted's module of HTTP/1, Hypercorn's of sockets and of HTTP/2, and granian's of everything.
TWISTED, HYPERCORN = "twisted.web.http", "hypercorn.protocol.ws_stream"
GRANIAN, HYPERCORN_HTTP2 = "granian._granian", "hypercorn.protocol.h2"


class Class(NamedTuple):
    """A class of a server, and what the gateway uses of it and of its instances."""

    module: str
    name: str
    uses: tuple[str, ...]


class Bound(NamedTuple):
    """What the gateway bounds by means of some classes. `what` is the end of "the gateway doesn't bound"."""

    what: str
    kinds: tuple[Class, ...]


_FRAMES = ("connection_made", "data_received", "transport", "client")
_CHUNKS = ("data_received", "transport", "loop", "flow", "headers")

#: Frames that aren't whole messages, and small messages (fragments.py).
FRAMES = Bound(
    "floods of small frames",
    (
        Class(WEBSOCKETS, "WebSocketProtocol", _FRAMES),
        Class(SANSIO, "WebSocketsSansIOProtocol", (*_FRAMES, "loop", "read_paused")),
        Class(WSPROTO, "WSProtocol", (*_FRAMES, "loop", "read_paused")),
    ),
)

#: Bodies in many small chunks (portions.py).
CHUNKS = Bound(
    "bodies in many small chunks",
    (
        Class(H11, "H11Protocol", _CHUNKS),
        Class(HTTPTOOLS, "HttpToolsProtocol", _CHUNKS),
        Class(ZTTP, "ZttpProtocol", _CHUNKS),
    ),
)

#: The heads of requests, and trailers (heads.py).
HEADS = Bound(
    "the heads of requests",
    (
        Class(
            HTTPTOOLS,
            "HttpToolsProtocol",
            (
                "data_received",
                "on_header",
                "on_headers_complete",
                "on_body",
                "on_message_complete",
                "send_400_response",
                "transport",
                "client",
            ),
        ),
    ),
)

#: Requests that wait behind another one of their connection (pipelines.py).
PIPELINES = Bound(
    "pipelined requests",
    (
        Class(HTTPTOOLS, "HttpToolsProtocol", ("pipeline",)),
        Class(HTTPTOOLS, CYCLE, ("on_response",)),
        Class(H11, CYCLE, ("conn",)),
    ),
)

#: Handshakes that the server refuses without an answer (sansio.py).
HANDSHAKES = Bound(
    "connections whose handshake the server refuses by itself",
    (
        Class(
            SANSIO,
            "WebSocketsSansIOProtocol",
            ("data_received", "transport", "conn", "handshake_complete", "handshake_initiated"),
        ),
    ),
)

#: Sockets of which one side has ended (ends.py).
ENDS = Bound(
    "sockets whose clients send data before the handshake is answered, or more than is read",
    (Class(HYPERCORN, "WSStream", ("handle", "closed", "app_put", "app_send")),),
)

#: Frames that the client has compressed (compression.py).
COMPRESSION = Bound(
    "compressed frames",
    (
        Class(WEBSOCKETS, "WebSocketProtocol", ("config", "ws_per_message_deflate")),
        Class(SANSIO, "WebSocketsSansIOProtocol", ("config", "ws_per_message_deflate")),
        Class(WSPROTO, "WSProtocol", ("config", "ws_per_message_deflate")),
        Class(HYPERCORN, "Handshake", ("accept", "extensions")),
    ),
)

#: Frames of HTTP/2 (http2.py).
STREAMS = Bound(
    "floods of resets and other small frames of HTTP/2",
    (
        Class(
            HYPERCORN_HTTP2,
            "H2Protocol",
            (
                "initiate",
                "handle",
                "connection",
                "closed",
                "client",
                "stream_buffers",
                "stream_send",
                "streams",
                "_close_stream",
                "_flush",
                "_window_updated",
                "send",
            ),
        ),
    ),
)

#: What waits of a response for a client of HTTP/2 (http2.py).
UNREAD = Bound(
    "what clients of HTTP/2 don't read",
    (Class(HYPERCORN_HTTP2, "StreamBuffer", ("push", "buffer", "_complete", "_paused")),),
)

#: What Daphne reads at once of a body (reading.py).
READS = Bound(
    "bodies in many small chunks",
    (Class(TWISTED, "HTTPChannel", ("connectionMade", "dataReceived", "transport", "requests")),),
)

#: All of them.
BOUNDS = (FRAMES, CHUNKS, HEADS, PIPELINES, HANDSHAKES, ENDS, COMPRESSION, STREAMS, UNREAD, READS)

#: What the gateway uses of a WebSocket of Daphne, which is autobahn's (`bound_twisted`).
SOCKET_OF_DAPHNE = ("dataReceived", "state", "STATE_CONNECTING", "data", "transport")

#: What is in the log.
_reported: set[tuple[str, str, str]] = set()


def usable(bound: Bound) -> Iterator[Any]:
    """Yield the loaded classes of `bound` that have all that it uses. Log the others, each once."""
    for module, name, uses in bound.kinds:
        loaded = sys.modules.get(module)
        if loaded is None:
            continue
        kind = getattr(loaded, name, None)
        if kind is None:
            report(bound.what, module, f"it lacks the class {name}")
            continue
        lacks = [each for each in uses if not _has(kind, each)]
        if lacks:
            report(bound.what, module, "its class {} has no {}".format(name, ", ".join(lacks)))
        else:
            yield kind


def report_unknown() -> None:
    """Log the protocols of uvicorn that are loaded, and that the gateway doesn't know."""
    known = {each.module for bound in BOUNDS for each in bound.kinds} | {HTTP2}
    for module, loaded in list(sys.modules.items()):
        if (
            loaded is not None
            and module.startswith((HTTP_MODULES, SOCKET_MODULES))
            and module.endswith("_impl")
        ):
            # A module that chooses between two others defines no protocol.
            if module not in known and ".auto_" not in module:
                report("what one client sends", module, "it is unknown here")


def lacks_for_frames(protocol: Any) -> bool:
    """Return whether a WebSocket of Daphne lacks what the gateway uses to bound its frames. Log it once."""
    lacks = [each for each in SOCKET_OF_DAPHNE if not hasattr(protocol, each)]
    if lacks:
        report(FRAMES.what, type(protocol).__module__, "its class has no " + ", ".join(lacks))
    return bool(lacks)


def report(what: str, module: str, why: str) -> None:
    """Log once that the gateway doesn't bound `what` in the server of `module`, because of `why`."""
    if (what, module, why) in _reported:
        return
    _reported.add((what, module, why))
    package = module.partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", None)
    logger.warning(
        "The gateway doesn't know this version of %s (%s), and doesn't bound %s in %s: %s. Use a version "
        "that this one of channels was tested with, or a proxy in front.",
        package,
        version if isinstance(version, str) else "unknown",
        what,
        module,
        why,
    )


def _has(kind: Any, name: str) -> bool:
    """Return whether a class has an attribute, or a method that uses one of its instance by this name."""
    return hasattr(kind, name) or name in _names_in(kind)


@lru_cache(maxsize=32)
def _names_in(kind: Any) -> frozenset[str]:
    names: set[str] = set()
    for each in kind.__mro__:
        for value in vars(each).values():
            # Not the names in what the gateway has put around a method.
            code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
            if isinstance(code, CodeType):
                _add_names(code, names)
    return frozenset(names)


def _add_names(code: CodeType, names: set[str]) -> None:
    names.update(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            _add_names(each, names)

"""
What Daphne does differently from other servers. This module does not import Daphne or Twisted.

* The scope of a WebSocket lacks its scheme and parts of some paths, and a client may choose SCRIPT_NAME and,
  before 4.2.2, the size of a frame: see `correct_scope`.
* With an old Twisted, it mixes up the responses to pipelined requests: see `response_lock`.
* In ASGI 3, `send` waits until the client has room. Daphne's returns at once and buffers without a bound.
  `with_flow_control` waits for a client that reads slowly, and cuts a response short, by way of Twisted.
* A server stops reading while `receive` isn't called. Daphne queues frames without a bound:
  `SocketSend.paused_reading` pauses the transport of one client.
* Daphne rejects a handshake that isn't answered after 5 seconds, and says nothing: see `_wait_as_long`.
* Daphne resets a connection at most a second, and often some milliseconds, after its close frame, unless
  the client has answered it. A reset can discard the frame, and with it the code: see `CLOSE_TIMEOUT`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import Any, Awaitable, Callable, Dict, Iterator, Mapping, MutableMapping
from urllib.parse import unquote_to_bytes
from weakref import WeakKeyDictionary

from django.conf import settings

from ..layers.messages import MAX_WEIGHT
from .fragments import Note, bound_twisted
from .handshake import ACCEPT_TIMEOUT
from .transport import PausedTransport

ServerSend = Callable[[Dict[str, Any]], Awaitable[None]]

#: The events that make a client fall behind.
_CONTENT = ("http.response.body", "websocket.send")


def _server_of(send: Any) -> Any:
    """Return Daphne's Server if `send` is a function of it, else None."""
    server = getattr(getattr(send, "func", None), "__self__", None)
    if server is None:
        return None
    is_daphne = any(each.__module__ == "daphne.server" for each in type(server).__mro__)
    return server if is_daphne else None


def correct_scope(scope: MutableMapping[str, Any], send: Any) -> None:
    """
    Set in Daphne's `scope` what it leaves out or takes from the client. Leave alone the scope of another
    server.

    Any client may send the header Daphne-Root-Path, which Daphne makes the `root_path`: it would choose the
    beginning of each URL that the site builds. CHANNEL_DAPHNE_ROOT_PATH says that a proxy sets it.
    """
    server = _server_of(send)
    if server is None:
        return
    own = getattr(server, "root_path", "")
    # Before 4.1, the scope of a WebSocket has none.
    path = scope.get("root_path", own)
    scope["root_path"] = path if path == own or _may_choose_root_path(path) else own
    if scope["type"] == "websocket":
        _limit_frames(send.args[0])
        _wait_as_long(server)
        _correct_path(scope, send.args[0])
        scope.setdefault("scheme", "wss" if _is_secure(send.args[0]) else "ws")


def _correct_path(scope: MutableMapping[str, Any], protocol: Any) -> None:
    """
    Set the path of a WebSocket to what the client asked for. Daphne's lacks the parameters after a semicolon
    in the last part, and the first part after two slashes, which a proxy in front may have looked at.
    """
    target = getattr(protocol, "http_request_uri", None)
    if isinstance(target, str):
        raw = target.partition("?")[0].encode("latin-1", "replace")
        scope["raw_path"] = raw
        scope["path"] = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


#: Daphne's limits for a handshake, in seconds, if none was given: of its command, and of its Server.
_DEFAULT_LIMITS = (5, 20)

#: Seconds that Daphne waits longer than the gateway, so that the gateway answers, counts and logs.
_LONGER = 5.0


def _wait_as_long(server: Any) -> None:
    """Have Daphne wait for the answer to a handshake as the gateway does, unless its option says how long."""
    if getattr(server, "websocket_connect_timeout", None) in _DEFAULT_LIMITS:
        server.websocket_connect_timeout = ACCEPT_TIMEOUT + _LONGER


def _limit_frames(protocol: Any) -> None:
    """Set the limits that Daphne sets since 4.2.2. Before, a client's frame may have any size."""
    for name in ("maxFramePayloadSize", "maxMessagePayloadSize"):
        if getattr(protocol, name, None) == 0:  # autobahn: no limit
            setattr(protocol, name, MAX_WEIGHT)


def bound_frames(scope: Mapping[str, Any], send: Any, note: Note) -> None:
    """Bound the frames of a WebSocket behind Daphne that aren't whole messages: see fragments.py."""
    if _server_of(send) is not None:
        bound_twisted(send.args[0], (scope.get("client") or ("unknown client",))[0], note)


def _may_choose_root_path(path: str) -> bool:
    """Return whether a request may come with this `root_path`: the site asked for it, and it is a path."""
    if not getattr(settings, "CHANNEL_DAPHNE_ROOT_PATH", False):
        return False
    is_path = path == "" or (path[0] == "/" and path[1:2] not in ("/", "\\"))
    return is_path and path.isprintable()


def _is_secure(protocol: Any) -> bool:
    """Return whether the client of this WebSocket uses TLS, as Daphne's --proxy-headers or Twisted tells."""
    # Only Twisted's transports with TLS have this method.
    has_tls = hasattr(getattr(protocol, "transport", None), "getPeerCertificate")
    return has_tls or getattr(protocol, "client_scheme", None) == "https"


#: By the connection of a request (Twisted's HTTPChannel): held while one of its requests is handled.
_response_locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()


def response_lock(send: Any) -> asyncio.Lock | None:
    """
    Return the lock to hold while this request is handled. None if the server isn't Daphne.

    Twisted before 24.7 handles pipelined requests at the same time, and writes each response when it is
    ready, so that a client takes it for that of another request (CVE-2023-46137, CVE-2024-41671).
    """
    channel = getattr(send.args[0], "channel", None) if _server_of(send) is not None else None
    if channel is None:
        return None
    return _response_locks.setdefault(channel, asyncio.Lock())


def close_after_response(send: Any) -> None:
    """Let Daphne close the connection after this response. The other servers read `Connection: close`."""
    if _server_of(send) is not None:
        channel: Any = getattr(send.args[0], "channel", None)
        if hasattr(channel, "persistent"):  # not that of a stream of HTTP/2
            channel.persistent = False


def with_flow_control(send: Any) -> Any:
    """Return a `send` that waits for the client if the server is Daphne, else `send` itself."""
    if _server_of(send) is None:
        return send
    protocol = send.args[0]
    is_request = hasattr(protocol, "loseConnection")
    return RequestSend(send, protocol) if is_request else SocketSend(send, protocol)


#: How long a client has to answer a close frame, in seconds. Autobahn cuts fractions of a second off the
#: time when it would give up: its own second may be none.
CLOSE_TIMEOUT = 5


class FlowControl:
    """
    A `send` that waits for the client. It is Twisted's push producer, too
    (twisted.internet.interfaces.IPushProducer), so that the transport says when to wait.

    Belongs to the event loop, which is Twisted's reactor, too.
    """

    def __init__(self, send: ServerSend, protocol: Any) -> None:
        self._send = send
        self._protocol = protocol
        self._registered = False
        self._is_gone = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    async def __call__(self, event: dict[str, Any]) -> None:
        is_last = event["type"] == "http.response.body" and not event["more_body"]
        if is_last:
            self._end()
        elif not self._registered and not self._is_gone and event["type"] in _CONTENT:
            self._registered = True
            self._register()
        await self._send(event)
        if self._registered:
            await self._may_write.wait()

    @property
    def _consumer(self) -> Any:
        """What the producer is registered with."""
        raise NotImplementedError

    def _register(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        if self._registered:
            self._registered = False
            self._consumer.unregisterProducer()

    # The producer, which Twisted's transport calls.

    def pauseProducing(self) -> None:
        """Wait: the client is behind."""
        self._may_write.clear()

    def resumeProducing(self) -> None:
        """Continue: the client has caught up."""
        self._may_write.set()

    def stopProducing(self) -> None:
        """Stop waiting: the client has gone."""
        self._registered = False
        self._is_gone = True
        self._may_write.set()


class RequestSend(FlowControl):
    """The `send` of a request (twisted.web.http.Request)."""

    @property
    def _consumer(self) -> Any:
        return self._protocol

    def _register(self) -> None:
        self._consumer.registerProducer(self, True)

    def cut(self, at_once: bool = False) -> None:
        """
        End the connection in the middle of the response; with `at_once`, also if its client doesn't read what
        was written.
        """
        self._end()
        # Over HTTP/2 the stream has to end in an error, not the connection.
        channel = getattr(self._protocol, "channel", None)
        abort = getattr(channel, "abortConnection", None)
        if abort is None and at_once:
            abort = getattr(getattr(channel, "transport", None), "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self._protocol.loseConnection()


class SocketSend(FlowControl):
    """The `send` of a WebSocket (autobahn). Its transport still has the HTTP channel as its producer."""

    def __init__(self, send: ServerSend, protocol: Any) -> None:
        super().__init__(send, protocol)
        protocol.closeHandshakeTimeout = CLOSE_TIMEOUT

    @property
    def protocol(self) -> Any:
        """Daphne's protocol of this socket, which is autobahn's."""
        return self._protocol

    @property
    def is_flowing(self) -> bool:
        """Whether the transport tells when to wait, and now has room."""
        return self._registered and self._may_write.is_set()

    @contextmanager
    def paused_reading(self) -> Iterator[None]:
        """Read nothing from the client meanwhile. Daphne would queue every frame."""
        protocol = self._protocol
        # The answer to a ping can't be read either, so the gateway awaits no answer and sends no ping.
        timeout, protocol.autoPingTimeoutCall = getattr(protocol, "autoPingTimeoutCall", None), None
        if timeout is not None:
            timeout.cancel()
        protocol.last_ping = float("inf")
        try:
            with PausedTransport(self._consumer):
                yield
        finally:
            protocol.last_ping = time.time()

    @property
    def _consumer(self) -> Any:
        return self._protocol.transport

    def _register(self) -> None:
        self._consumer.unregisterProducer()
        self._consumer.registerProducer(self, True)

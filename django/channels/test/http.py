"""Clients that speak as a gateway does: WebSocket events and HTTP requests, with cookies and users."""

from __future__ import annotations

import json as json_module
import warnings
from collections import deque
from importlib import import_module
from typing import Any, Sequence

from django.conf import settings
from django.http import HttpRequest, SimpleCookie

from ..asgi import DEFAULT_LAYER_ALIAS
from ..auth import transfer_user
from ..backends import InvalidChannelLayerError
from ..gateway.handshake import answer_to_handshake
from ..gateway.scopes import connect_event, request_event
from ..habits import instead
from ..log import shown
from ..subprotocols import choose, known_subprotocols
from .base import Client, forget_session, session_of
from .refused import warn_of_late, warn_of_refused
from .shared import level_of_test

_CONNECT = "client.send_and_consume('websocket.connect', %s)"
_RECEIVE = "client.receive(), which decodes JSON; client.receive(json=False) doesn't"
_SEND = "client.send_and_consume('websocket.receive', path='/…/', text=…)"

#: Methods of the communicators of Channels 4, and what to write.
_INSTEAD = {
    "connect": _CONNECT % "path='/…/'",
    "disconnect": "client.send_and_consume('websocket.disconnect', path='/…/')",
    "receive_from": _RECEIVE,
    "receive_json_from": _RECEIVE,
    "receive_nothing": "client.receive(), which is None if there is nothing",
    "receive_output": _RECEIVE,
    "send_input": _SEND,
    "send_json_to": _SEND + ", which encodes a dict",
    "send_to": _SEND,
    "wait": "nothing: consume() runs the consumer to its end",
}

#: The warning for a path that no real event has, twice with the path.
_NO_SLASH = (
    "%r is taken for the path of the event, and each path begins with a slash. For the text of a frame, "
    "write text=%r."
)


class WSClient(Client):
    """
    A WebSocket, as consumers see it. It keeps cookies and headers, and can log in.

    Frames are JSON by default. Every message has the path and the headers, so that a test needs no handshake;
    a gateway sends the headers with the handshake only. With `ordered`, every message has its `order`.

    `subprotocols` (list of text) is what it offers in the handshake. `subprotocol` is the one that it was
    accepted with, or None.
    """

    def __init__(
        self,
        alias: str = DEFAULT_LAYER_ALIAS,
        ordered: bool = False,
        subprotocols: Sequence[str] = (),
    ) -> None:
        if not isinstance(alias, str) or "/" in alias:
            raise InvalidChannelLayerError(
                "The first argument of %s is the alias of a layer, not %s. A path belongs to a message: %s"
                % (type(self).__name__, shown(repr(alias)), _CONNECT % "path='/…/'")
            )
        super().__init__(alias=alias)
        self.ordered = ordered
        self.subprotocols: list[str] = list(subprotocols)
        self.subprotocol: str | None = None
        self._offered: Sequence[str] = ()
        self._has_connected = False
        #: Whether a reply has closed the socket.
        self._is_closed = False
        self._path = "/"
        self.cookies = SimpleCookie()
        self._headers: dict[str, str | bytes] = {}
        self._session: Any = None
        #: The number that the next message gets, with `ordered`.
        self.order = 0
        self._received: deque[Any] = deque()

    def __getattr__(self, name: str) -> Any:
        if name in _INSTEAD:
            raise AttributeError(instead("%s.%s" % (type(self).__name__, name), _INSTEAD[name]))
        return object.__getattribute__(self, name)  # raises again what a property may have raised

    # Headers, cookies, sessions and users.

    def set_header(self, key: str, value: str | bytes) -> None:
        """Send the header `key` (text) with the value from now on."""
        if key.lower() == "cookie":
            raise ValueError("Set cookies with set_cookie(name, value).")
        self._headers[key.lower()] = value

    def set_cookie(self, key: str, value: str) -> None:
        """Send the cookie `key` with the value (both text) from now on."""
        self.cookies[key] = value

    def get_cookies(self) -> dict[str, str]:
        """Return the values of the cookies by name."""
        return {key: morsel.value for key, morsel in self.cookies.items()}

    @property
    def headers(self) -> dict[str, str | bytes]:
        """The headers that were set, by lower-case name, and the cookie header (bytes)."""
        headers = dict(self._headers)
        if self.cookies:
            pairs = ("%s=%s" % (key, each.coded_value) for key, each in self.cookies.items())
            headers["cookie"] = "; ".join(pairs).encode("utf-8")
        return headers

    def _header_list(self) -> list[list[bytes]]:
        """Return the headers as a gateway sends them: a list of [name, value], both bytes."""
        return [
            [
                name.encode("ascii"),
                value if isinstance(value, bytes) else str(value).encode("utf-8"),
            ]
            for name, value in dict({"host": "testserver"}, **self.headers).items()
        ]

    @property
    def session(self) -> Any:
        """This client's HTTP session, created if it is missing. Call its save() after a change."""
        if self._session is None:
            store = import_module(settings.SESSION_ENGINE).SessionStore
            cookie = self.cookies.get(settings.SESSION_COOKIE_NAME)
            self._session = store(cookie.value if cookie else None)
            if cookie is None:
                self._session.save()
                self.set_cookie(settings.SESSION_COOKIE_NAME, self._session.session_key)
        return self._session

    def login(self, **credentials: Any) -> bool:
        """
        Log in with the arguments of authenticate(). Return whether they were accepted.

        Before the first handshake, the channel session gets the user too, so that a test needs no handshake.
        """
        from django.contrib.auth import authenticate

        user = authenticate(**credentials)
        if user is None or not user.is_active:
            return False
        self._login(user)
        return True

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Log in as `user`, by `backend` (dotted path) or the first authentication backend."""
        user.backend = backend or settings.AUTHENTICATION_BACKENDS[0]
        self._login(user)

    def _login(self, user: Any) -> None:
        from django.contrib.auth import login

        request = HttpRequest()
        request.session = self.session
        login(request, user)
        request.session.save()
        self.set_cookie(settings.SESSION_COOKIE_NAME, request.session.session_key)
        if not self._has_connected:
            # In Channels 1.1 the client's session was the channel session, too.
            transfer_user(request.session, session_of(self.channel_layer, self.reply_channel))

    def logout(self) -> None:
        """Log out: delete the session and its cookie."""
        self.session.flush()
        self.cookies.pop(settings.SESSION_COOKIE_NAME, None)
        self._session = None

    # Messages.

    def send(
        self,
        to: str,
        content: dict[str, Any] | str | None = None,
        text: Any = None,
        path: str = "/",
    ) -> None:
        """
        Send an event on the channel `to`: `content` (dict), with the keys that a gateway adds.

        `text` is the frame: text, or a value to encode as JSON. `path` may have a query string. Messages on
        other channels have the path and the headers, too.
        """
        if isinstance(content, str):  # send(channel, path), as the documentation of 1.1 has it too
            path = content
            content = None
        message = self._event(to, path)
        message.update(content or {})
        if text is not None:
            message["text"] = text if isinstance(text, str) else json_module.dumps(text)
        if to == "websocket.connect":
            self._offered, self.subprotocol = message.get("subprotocols") or (), None
        super().send(to, message)

    def _event(self, channel: str, path: str) -> dict[str, Any]:
        path, _, query_string = path.partition("?")
        if not path.startswith("/"):
            warnings.warn(_NO_SLASH % (path, path), RuntimeWarning, stacklevel=level_of_test())
        self._path = path
        scope = {
            "path": path,
            "query_string": query_string.encode("utf-8"),
            "headers": self._header_list(),
            "client": ("127.0.0.1", 0),
            "server": ("testserver", 80),
            "method": "GET",
            "subprotocols": self.subprotocols,
        }
        event: dict[str, Any] = {"path": path, "headers": scope["headers"]}
        if channel == "http.request":
            event = dict(request_event(scope), body=b"")
        elif channel == "websocket.connect":
            event = connect_event(scope)
            self.order = 0
            self._has_connected, self._is_closed = True, False
            forget_session(self.channel_layer, self.reply_channel)
        elif channel == "websocket.disconnect":
            event["code"] = 1000
        if self.ordered:
            event["order"] = self.order
            self.order += 1
        return event

    def send_and_consume(  # type: ignore[override]  # the order is that of 1.1
        self,
        channel: str,
        content: dict[str, Any] | str | None = None,
        text: Any = None,
        path: str = "/",
        fail_on_none: bool = True,
        check_accept: bool = True,
    ) -> Any:
        """Call `send`, then `consume`. Return what the consumer returns."""
        self.send(channel, content, text=text, path=path)
        return self.consume(channel, fail_on_none=fail_on_none, check_accept=check_accept)

    def consume(self, channel: str, fail_on_none: bool = True, check_accept: bool = True) -> Any:
        """
        Run the consumer of the next message on `channel`, as `Client.consume` does.

        With `check_accept`, raise AssertionError if a handshake isn't accepted, and remove the reply
        `{"accept": True}`.
        """
        result = super().consume(channel, fail_on_none=fail_on_none)
        if check_accept and channel == "websocket.connect":
            self._check_accepted()
        return result

    def _check_accepted(self) -> None:
        replies = []
        while True:
            reply = self._next_reply()
            if reply is None:
                break
            replies.append(reply)
        for reply in replies:
            accepted = answer_to_handshake(reply)
            if accepted:
                self._choose_subprotocol(reply)
                break
            if accepted is False:
                raise AssertionError("The connection was rejected: %r" % (reply,))
        else:
            raise AssertionError(
                "The connection was not accepted: the consumer of websocket.connect sends "
                '{"accept": True} or a frame.%s' % (" It sent %r." % replies[0] if replies else "")
            )
        only = {"accept", "subprotocol"}
        self._received.extend(
            each for each in replies if not each.get("accept") or set(each) - only
        )

    def _choose_subprotocol(self, reply: dict[str, Any]) -> None:
        """Set `subprotocol` as a gateway chooses it. Raise AssertionError for one that was not offered."""
        self.subprotocol, refused = choose(reply, self._offered, known_subprotocols())
        if refused is not None:
            raise AssertionError(
                "The connection was accepted with the subprotocol %r, which this client didn't offer: %r."
                % (refused, list(self._offered))
            )

    def _next_reply(self) -> Any:
        if self._received:
            return self._received.popleft()
        reply = super().receive()
        if reply is not None:
            warn_of_refused(reply, self._path)
            if self._is_closed:
                warn_of_late(reply, self._path)
            self._is_closed = self._is_closed or bool(reply.get("close"))
        return reply

    def receive(self, json: bool = True) -> Any:
        """
        Return the content of the next reply: its text, decoded unless `json` is False; or, if it has none,
        the reply itself: a dict such as {"bytes": b"…"} or {"close": True}. Return None without a reply.
        """
        content = self._next_reply()
        if content is None:
            return None
        if content.get("text") is not None:
            return json_module.loads(content["text"]) if json else content["text"]
        return content


class HttpClient(WSClient):
    """WSClient under the name that it had before Channels 1.1.4. It also sends `http.request`."""

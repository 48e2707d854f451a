"""
Users on connections: `message.user`, from the HTTP session or from the channel session.

django.contrib.auth does the checking (backend, session hash). The user is looked up when it is first used,
as `request.user` is.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Iterator

from django.utils.functional import SimpleLazyObject

from .compat import CallableBool
from .decorators import decorate, decorator, message_of, named
from .exceptions import DenyConnection, WebsocketCloseException
from .protocol import WEBSOCKET_CONNECT, WEBSOCKET_DISCONNECT
from .sessions import (
    ChannelSession,
    channel_and_http_session,
    channel_session,
    http_session,
)
from .types import AnyConsumer


class _Holder:
    """Stands in for the request that django.contrib.auth.get_user() takes: it has a session."""

    def __init__(self, session: Any) -> None:
        self.session = session


def transfer_user(from_session: Any, to_session: Any) -> None:
    """
    Make the user of `from_session` also the user of `to_session`. Both are Django's sessions.

    Without a user in `from_session`, the user of `to_session` is removed.
    """
    from django.contrib import auth

    for key in (auth.BACKEND_SESSION_KEY, auth.SESSION_KEY, auth.HASH_SESSION_KEY):
        if key in from_session:
            to_session[key] = from_session[key]
        elif key in to_session:
            del to_session[key]


def session_user(session: Any) -> Any:
    """
    Return the user who is logged in on `session`, or an AnonymousUser (also if `session` is None). The user
    is looked up when it is first used.
    """
    return SimpleLazyObject(functools.partial(_get_user, session))


def _get_user(session: Any) -> Any:
    from django.contrib import auth
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser() if session is None else auth.get_user(_Holder(session))


def load_user(message: Any) -> None:
    """Look up the user of a message now. An asynchronous consumer must not, because that may block."""
    message.user.is_authenticated  # noqa: B018


def _http_user(session: Any) -> Any:
    """
    Return the user of an HTTP session.

    A copy is checked, because Django gives the session a new key after a change of SECRET_KEY. A socket
    cannot send the new key to the browser, so the visitor would be logged out.
    """
    from django.contrib import auth

    if session is None:
        return session_user(None)
    keys = (auth.BACKEND_SESSION_KEY, auth.SESSION_KEY, auth.HASH_SESSION_KEY)
    copy = ChannelSession({key: session[key] for key in keys if key in session})
    return session_user(copy)


@decorator
def channel_session_user(func: AnyConsumer) -> AnyConsumer:
    """Give the consumer `message.user`, from the channel session, and `message.channel_session`."""

    def around(message: Any) -> Iterator[None]:
        message.user = session_user(message.channel_session)
        yield

    return channel_session(decorate(func, around, load_user))


@decorator
def http_session_user(func: AnyConsumer) -> AnyConsumer:
    """
    Give the consumer `message.user`, from the HTTP session, and `message.http_session`.

    For messages that carry cookies: `http.request` and `websocket.connect`.
    """

    def around(message: Any) -> Iterator[None]:
        message.user = _http_user(message.http_session)
        yield

    return http_session(decorate(func, around, load_user))


@decorator
def channel_session_user_from_http(func: AnyConsumer) -> AnyConsumer:
    """
    Copy the user from the HTTP session to the channel session, and give `message.user`.

    Meant for `websocket.connect`; later events of the connection use `channel_session_user`. A
    message that carries no session leaves the channel session's user as it is.
    """

    def around(message: Any) -> Iterator[None]:
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
        message.user = session_user(message.channel_session)
        yield

    return http_session(channel_session(decorate(func, around, load_user)))


@decorator
def channel_and_http_session_user_from_http(func: AnyConsumer) -> AnyConsumer:
    """
    Do what `channel_session_user_from_http` does, and give `message.http_session` at every later event.

    That decorator on the consumer of `websocket.connect` stores the key of the HTTP session as
    `channel_and_http_session` does.
    """
    return channel_and_http_session(channel_session_user_from_http(func))


def login_required(func: Any = None, code: int | None = None) -> Any:
    """
    Run the consumer only for a user who is logged in, and active. The consumer gets `message.user`.

    At `websocket.connect` others are refused: with a 403, or with the close code `code` (3000 to 4999), which
    a browser sees. At a later event, when the user has logged out meanwhile, the socket is closed with
    `code`. Write `@login_required`, or `@login_required(code=4401)`.
    """
    if func is not None and not callable(func):
        raise TypeError("Give the close code by name: @login_required(code=%r)." % (func,))
    if code is not None:
        DenyConnection(code=code)  # raises ValueError for a code that can't be sent
    if func is None:
        return functools.partial(login_required, code=code)

    def around(message: Any) -> Iterator[None]:
        if not _may_enter(message.user):
            if message.channel_name == WEBSOCKET_CONNECT:
                raise DenyConnection("Login required.", code=code)
            if message.channel_name != WEBSOCKET_DISCONNECT:
                raise WebsocketCloseException(code)
        yield

    return named(_with_user(decorate(func, around, load_user)), "login_required")


def _with_user(func: Any) -> Any:
    """Give the consumer `message.user`, unless a decorator around it has."""
    from_http, later = channel_session_user_from_http(func), channel_session_user(func)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        message = message_of(args, kwargs)
        if "user" in vars(message):
            return func(*args, **kwargs)
        chosen = from_http if message.channel_name == WEBSOCKET_CONNECT else later
        return chosen(*args, **kwargs)

    return run


def _may_enter(user: Any) -> bool:
    """Return whether a user is logged in and active. Before Django 1.10, `is_authenticated` is a method."""
    found = user.is_authenticated
    is_method = callable(found) and not isinstance(found, CallableBool)
    return bool(found() if is_method else found) and user.is_active


if not TYPE_CHECKING:
    from .habits import former_names

    __getattr__ = former_names(__name__)

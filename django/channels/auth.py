"""
Users on connections: `message.user`, from the visitor's own session or from the channel session.

Follows django.contrib.auth, which does the checking (backend, session hash). The user is looked up
when first used, as `request.user` is.
"""

import functools

from django.utils.functional import SimpleLazyObject

from .sessions import channel_session, http_session


class _Holder:
    """What django.contrib.auth.get_user asks of a request: its session."""

    def __init__(self, session):
        self.session = session


def transfer_user(from_session, to_session):
    """
    Make the user of `from_session` the user of `to_session` too.

    Where nobody is logged in on the former, nobody is on the latter afterwards.
    """
    from django.contrib import auth

    for key in (auth.BACKEND_SESSION_KEY, auth.SESSION_KEY, auth.HASH_SESSION_KEY):
        if key in from_session:
            to_session[key] = from_session[key]
        elif key in to_session:
            del to_session[key]


def session_user(session):
    """The user logged in on `session`, or an AnonymousUser (for None too); looked up lazily."""
    return SimpleLazyObject(functools.partial(_get_user, session))


def _get_user(session):
    from django.contrib import auth
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser() if session is None else auth.get_user(_Holder(session))


def channel_session_user(func):
    """Give the consumer `message.user`, from the channel session, and `message.channel_session`."""

    @channel_session
    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        message.user = session_user(message.channel_session)
        return func(message, *args, **kwargs)

    return inner


def http_session_user(func):
    """
    Give the consumer `message.user`, from the visitor's own session, and `message.http_session`.

    For messages that carry cookies: `http.request` and `websocket.connect`.
    """

    @http_session
    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        message.user = session_user(message.http_session)
        return func(message, *args, **kwargs)

    return inner


def channel_session_user_from_http(func):
    """
    Copy the user from the visitor's own session to the channel session, and give `message.user`.

    Meant for `websocket.connect`; later events of the connection use `channel_session_user`. A
    message that carries no session leaves the channel session's user as it is.
    """

    @http_session
    @channel_session
    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
        message.user = session_user(message.channel_session)
        return func(message, *args, **kwargs)

    return inner

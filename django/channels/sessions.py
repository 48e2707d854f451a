"""
Sessions of a connection: the channel session, which travels with its events, and the visitor's HTTP session.

`message.channel_session` needs no store. Its data comes with the event, and what changed goes back
with the acknowledgement (`ChannelSession.patch`), so nothing reads or writes a database for it. The
HTTP session is Django's. The cookie of a handshake or request names it.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Iterator, cast

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import QueryDict
from django.utils.functional import SimpleLazyObject

from .compat import SessionEnded, save_existing_session
from .decorators import ConsumerT, decorate, decorator
from .exceptions import ChannelSocketException
from .layers.messages import clean
from .protocol import SESSION, SessionPatch, make_patch

if TYPE_CHECKING:
    from .message import Message

if __package__ == "django.channels":
    from django.core.handlers.asgi_request import read_cookies
else:  # the add-on brings its own
    from channels.handlers.asgi_request import read_cookies

logger = logging.getLogger("django.channels")

#: Where a channel session remembers the key of the HTTP session that it was opened with.
HTTP_SESSION_KEY = "_http_session_key"


class ChannelSession(SessionBase):
    """
    The session of one connection: one of Django's sessions, whose data travels with the events.

    `data` (dict) is the data that came with the event. It is never changed, and it is copied when the
    session is first used, so that a session that no code touches costs nothing. `reply_channel` (text or
    None) names the connection; the session key is derived from it. Belongs to the thread that runs the
    consumer.
    """

    def __init__(
        self, data: dict[str, Any] | None = None, reply_channel: str | None = None
    ) -> None:
        super().__init__(_key_of(reply_channel))
        self._received = {} if data is None else data

    # What Django's other sessions ask a store to do.

    def load(self) -> dict[str, Any]:
        return copy.deepcopy(self._received)

    def exists(self, session_key: str | None = None) -> bool:
        return session_key is None or bool(session_key == self.session_key)

    def create(self) -> None:
        """Do nothing: the session exists as soon as its connection does."""

    def save(self, must_create: bool = False) -> None:
        """Do nothing: what changed leaves with the acknowledgement, saved or not."""

    def delete(self, session_key: str | None = None) -> None:
        """Remove all data, unless `session_key` is the key of another session."""
        if self.exists(session_key):
            self.clear()

    def cycle_key(self) -> None:
        """Keep the key. A client cannot choose it in advance, because it belongs to the connection."""

    def flush(self) -> None:
        """Remove all data, as logging out does. The key stays, because the connection does."""
        self.clear()

    async def acycle_key(self) -> None:
        self.cycle_key()

    async def aflush(self) -> None:
        self.flush()

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: a session ends with its connection, and none expires."""

    # The calls of the worker.

    def snapshot(self) -> dict[str, Any]:
        """Return the data as it is now, to send with a message. Do not change it."""
        return cast("dict[str, Any]", getattr(self, "_session_cache", self._received))

    def patch(self) -> SessionPatch | None:
        """
        Return what the consumer changed, or None for nothing.

        A change inside a nested list or dict counts too. Raises InvalidMessage, naming the key, for a
        value that no channel layer carries.
        """
        now = getattr(self, "_session_cache", None)
        if now is None:
            return None
        before = self._received
        changed = {k: v for k, v in now.items() if k not in before or not _same(before[k], v)}
        if not changed and all(key in now for key in before):
            return None
        return make_patch(before, clean({SESSION: changed})[SESSION], now)


def _key_of(reply_channel: str | None) -> str:
    return hashlib.sha256((reply_channel or "").encode()).hexdigest()[:32]


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of one type, at every depth: True is not 1."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def session_for_reply_channel(reply_channel: str) -> ChannelSession:
    """
    Return an empty session for the connection that `reply_channel` names.

    It cannot see the connection's own data, because that is in no store. Inside a consumer, use
    `message.channel_session`.
    """
    return ChannelSession({}, reply_channel)


@decorator
def channel_session(func: ConsumerT) -> ConsumerT:
    """
    Give the consumer `message.channel_session`, which persists as long as the connection does.

    Every message has the attribute, decorated or not. The decorator checks that the message belongs to
    a connection: the consumer raises ValueError for one without a `reply_channel`, unless a test has given
    the message a session.
    """

    def around(message: Message) -> Iterator[None]:
        if message.reply_channel is None and message.channel_session is None:
            raise ValueError(
                "The message on %s lacks a reply_channel, so it belongs to no connection and "
                "cannot have a channel_session: forward the reply_channel with it."
                % message.channel.name
            )
        yield

    return decorate(func, around)


def enforce_ordering(func: Any = None, slight: bool = False) -> Any:
    """
    Return the consumer as it is. Kept for projects written for Channels 1.x.

    Events of one connection are always handled in order and one at a time. Use it with or without
    arguments.
    """
    if func is None:
        return enforce_ordering
    return func


@decorator
def http_session(func: ConsumerT) -> ConsumerT:
    """
    Give the consumer `message.http_session`, the visitor's own session (`request.session` in a view).

    The session cookie names it, so the message must carry it. `http.request` and `websocket.connect` do.
    If no such session exists, the attribute is None, because a socket cannot set a cookie: only a view can
    start a session. What the consumer changes is saved after it, unless the session was flushed, or was
    deleted meanwhile by a logout elsewhere. In these cases nothing is saved, and no error is raised.

    With the setting CHANNEL_SESSION_KEY_IN_QUERY, the `session_key` parameter of the query string names the
    session of a message without a session cookie.
    """

    def around(message: Any) -> Iterator[None]:
        if hasattr(message, "http_session"):
            yield
            return
        message.http_session = existing_session(http_session_key(message))
        yield from _save_after(lambda: message.http_session)

    return decorate(func, around, closes=True)


@decorator
def channel_and_http_session(func: ConsumerT) -> ConsumerT:
    """
    Give the consumer both `message.channel_session` and `message.http_session`.

    On `websocket.connect`, and any other message with cookies, the key of the HTTP session is
    remembered in the channel session. Later events of the connection find it there.
    """

    def around(message: Any) -> Iterator[None]:
        if hasattr(message, "http_session"):
            remember_http_session(message)
            yield
            return
        key = http_session_key(message)
        if key is None:
            key = message.channel_session.get(HTTP_SESSION_KEY)
        message.http_session = existing_session(key)
        remember_http_session(message)
        try:
            yield from _save_after(lambda: message.http_session)
        finally:
            _follow_key(message, message.http_session)

    return channel_session(decorate(func, around, closes=True))


@decorator
def remembered_http_session(func: ConsumerT) -> ConsumerT:
    """
    Give the consumer what `channel_and_http_session` does, but read the HTTP session only when
    `message.http_session` is first used. If the key of a session is known, the attribute isn't None, but
    false if the session no longer exists.
    """

    def around(message: Any) -> Iterator[None]:
        if hasattr(message, "http_session"):
            remember_http_session(message)
            yield
            return
        key = message.channel_session.get(HTTP_SESSION_KEY)
        found: list[Any] = []

        def find() -> Any:
            found.append(existing_session(key))
            return found[0]

        message.http_session = SimpleLazyObject(find) if key else None
        try:
            yield from _save_after(lambda: found[0] if found else None)
        finally:
            if found:
                _follow_key(message, found[0])

    def load(message: Any) -> None:
        if message.http_session is not None:
            message.http_session.session_key  # noqa: B018  (this loads the session)

    return channel_session(decorate(func, around, load, closes=True))


def remember_http_session(message: Any) -> None:
    """Store the key of `message.http_session`, if it has one, in the channel session."""
    session = message.http_session
    if session is not None and message.channel_session.get(HTTP_SESSION_KEY) != session.session_key:
        message.channel_session[HTTP_SESSION_KEY] = session.session_key


def _follow_key(message: Any, session: Any) -> None:
    """Remember the new key of a session that the consumer gave one, and forget that of an ended session."""
    known = message.channel_session.get(HTTP_SESSION_KEY)
    if session is None or known is None:
        return
    if not session.session_key:
        del message.channel_session[HTTP_SESSION_KEY]
    else:
        message.channel_session[HTTP_SESSION_KEY] = session.session_key


def http_session_key(message: Message) -> str | None:
    """
    Return the key that the message's cookie gives, or None.

    Without such a cookie, the query string may give it, if the site sets CHANNEL_SESSION_KEY_IN_QUERY. By
    default it may not: a link could put a visitor into a session that somebody else knows.
    """
    # HTTP/2 sends several headers. As in a view, the last cookie of a name counts.
    headers = [value for name, value in message.get("headers") or () if name.lower() == b"cookie"]
    if headers:
        cookies = read_cookies(b"; ".join(headers).decode("latin-1"))
        if settings.SESSION_COOKIE_NAME in cookies:
            return cast(str, cookies[settings.SESSION_COOKIE_NAME])
    query = message.get("query_string")
    if query and getattr(settings, "CHANNEL_SESSION_KEY_IN_QUERY", False):
        return cast("str | None", QueryDict(query, encoding="utf-8").get("session_key"))
    return None


#: What a session key may be. Databases and caches raise their own errors for other characters.
_SESSION_KEY = re.compile(r"[\x21-\x7e]{1,8192}\Z")


#: The engines whose keys are short, and the most characters that each of their stores takes.
_STORED = {
    "django.contrib.sessions.backends." + name for name in ("db", "cache", "cached_db", "file")
}
_MAX_STORED_KEY = 200


def existing_session(session_key: str | None) -> Any:
    """Return the session of the configured engine that `session_key` names, or None."""
    if not session_key or not _SESSION_KEY.match(session_key):
        return None
    if len(session_key) > _MAX_STORED_KEY and settings.SESSION_ENGINE in _STORED:
        return None
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    # Every engine finds out by reading whether the session exists. What it has read is needed next anyway.
    session.keys()
    # The engine of signed cookies keeps a forged key, but reading it begins a new session: it is modified.
    return session if session.session_key and not session.modified else None


def _save_after(session: Callable[[], Any]) -> Iterator[None]:
    """Run the consumer, then save its HTTP session, also if the consumer ended by closing the socket."""
    try:
        yield
    except ChannelSocketException:
        _save(session())
        raise
    except SessionEnded:  # the consumer called `save`
        logger.info("A consumer ended early, because its HTTP session was deleted meanwhile.")
        ended = session()
        if ended is not None:
            ended._session_key = None  # so that the connection forgets it
        return
    _save(session())


def _save(session: Any) -> None:
    """Save a session that was changed, unless it has ended: here or, meanwhile, elsewhere."""
    if not session or not session.modified or not session.session_key:
        return
    try:
        save_existing_session(session)
    except SessionEnded:
        session._session_key = None


if not TYPE_CHECKING:
    from .habits import former_names

    __getattr__ = former_names(__name__)

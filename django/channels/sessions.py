"""
Sessions of a connection: the one that travels with its events, and the visitor's own, HTTP, one.

`message.channel_session` needs no store. Its data came with the event and what changed goes back
with the event's answer (`ChannelSession.patch`); nothing reads or writes a database for it. The
HTTP session is Django's, found by the cookie of a handshake or request, or by `?session_key=`.
"""

import copy
import functools
import hashlib
from importlib import import_module

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import QueryDict, parse_cookie
from django.utils.functional import SimpleLazyObject

from .exceptions import ChannelSocketException
from .layers.messages import clean

#: Where a channel session remembers the key of the HTTP session it was opened with.
HTTP_SESSION_KEY = "_http_session_key"


class ChannelSession(SessionBase):
    """
    What is known of one connection: a session as Django's are, whose data travels with the events.

    `data` (dict) is the data that came with the event; it is never changed, and is read only when
    the session is first used, so that one nobody touches costs nothing. `reply_channel` (text or
    None) names the connection, and the session key is derived from it.
    """

    def __init__(self, data=None, reply_channel=None):
        super().__init__(_key_of(reply_channel))
        self._came_with = {} if data is None else data

    # What a store would do; there is none.

    def load(self):
        return copy.deepcopy(self._came_with)

    def exists(self, session_key=None):
        return session_key is None or session_key == self.session_key

    def create(self):
        """A travelling session is there as soon as its connection is."""

    def save(self, must_create=False):
        """Nothing to write: what changed leaves with the event's answer, saved or not."""

    def delete(self, session_key=None):
        """Forget everything, unless `session_key` is another session's."""
        if self.exists(session_key):
            self.clear()

    def cycle_key(self):
        """The key is the connection's own, which nobody can fix in advance: it stays."""
        self.modified = True

    def flush(self):
        """Forget everything (logging out does). The key stays, as the connection does."""
        self.clear()

    async def acycle_key(self):
        self.cycle_key()

    async def aflush(self):
        self.flush()

    @classmethod
    def clear_expired(cls):
        """A session ends with its socket: nothing expires."""

    # What the worker asks for.

    def snapshot(self):
        """The data as it is now (dict), to send with a message: read it, do not change it."""
        return getattr(self, "_session_cache", self._came_with)

    def patch(self):
        """
        What the consumer changed: `{"set": {key: value}, "removed": [key]}`, or None for nothing.

        Compares with what came, so a change inside a nested list or dict counts too. Raises
        InvalidMessage, naming the key, for a value that no channel layer carries.
        """
        now = getattr(self, "_session_cache", None)
        if now is None:
            return None
        before = self._came_with
        changed = {k: v for k, v in now.items() if k not in before or not _same(before[k], v)}
        removed = [key for key in before if key not in now]
        if not changed and not removed:
            return None
        return {"set": clean({"channel_session": changed})["channel_session"], "removed": removed}


def _key_of(reply_channel):
    return hashlib.sha256((reply_channel or "").encode()).hexdigest()[:32]


def _same(one, other):
    """Equal, and of one type: True is not 1 to whoever reads the session next."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def session_for_reply_channel(reply_channel):
    """
    An empty session object for the connection that `reply_channel` (text) names.

    Sessions live with their connection, not in a store, so this one cannot see what the connection
    holds: inside a consumer, use `message.channel_session`.
    """
    return ChannelSession({}, reply_channel)


def channel_session(func):
    """
    Give the consumer `message.channel_session`, which persists as long as the connection does.

    Every message has the attribute, decorated or not; this makes sure that the message comes from
    a connection. Raises ValueError for a message without a `reply_channel`.
    """

    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        if message.reply_channel is None:
            raise ValueError(
                "The message on %s has no reply_channel, so it belongs to no connection and has "
                "no channel_session: forward the reply_channel with it." % message.channel.name
            )
        return func(message, *args, **kwargs)

    return inner


def enforce_ordering(func=None, slight=False):
    """
    Kept for projects written for Channels 1.x: returns the consumer as it is.

    Events of one connection are always handled in order and one at a time. Works bare, and with
    `slight=True`.
    """
    if func is None:
        return enforce_ordering
    return func


def http_session(func):
    """
    Give the consumer `message.http_session`: the visitor's own session, as `request.session` is.

    It is found by the `session_key` parameter of the query string or else by the session cookie,
    so the message must carry them (`http.request` and `websocket.connect` do). Without a session
    that exists, the attribute is None: a socket cannot set a cookie, only a view can start one.
    What the consumer changes is saved after it.
    """

    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        if hasattr(message, "http_session"):
            return func(message, *args, **kwargs)
        message.http_session = existing_session(http_session_key(message))
        return _save_after(message, func, args, kwargs)

    return inner


def channel_and_http_session(func):
    """
    Give the consumer both `message.channel_session` and `message.http_session`.

    On `websocket.connect` (and whatever else carries cookies) the key of the HTTP session is
    remembered in the channel session; later events of the connection find it there.
    """

    @channel_session
    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        if hasattr(message, "http_session"):
            remember_http_session(message)
            return func(message, *args, **kwargs)
        key = http_session_key(message)
        if key is None:
            key = message.channel_session.get(HTTP_SESSION_KEY)
        message.http_session = existing_session(key)
        remember_http_session(message)
        return _save_after(message, func, args, kwargs)

    return inner


def remembered_http_session(func):
    """
    As `channel_and_http_session`, for a consumer that may not look: the session is read when
    `message.http_session` is first used. Where the key of a session is known, that is never None.
    """

    @channel_session
    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        if hasattr(message, "http_session"):
            remember_http_session(message)
            return func(message, *args, **kwargs)
        key = message.channel_session.get(HTTP_SESSION_KEY)
        found = []

        def find():
            found.append(existing_session(key))
            return found[0]

        message.http_session = SimpleLazyObject(find) if key else None
        try:
            result = func(message, *args, **kwargs)
        except ChannelSocketException:
            _save(found and found[0])
            raise
        _save(found and found[0])
        return result

    return inner


def remember_http_session(message):
    """Note the key of `message.http_session`, if it has one, in its channel session."""
    session = message.http_session
    if session is not None and message.channel_session.get(HTTP_SESSION_KEY) != session.session_key:
        message.channel_session[HTTP_SESSION_KEY] = session.session_key


def http_session_key(message):
    """The key that the message's query string or cookie gives (text), or None."""
    query = message.get("query_string")
    if query:
        key = QueryDict(query, encoding="utf-8").get("session_key")
        if key:
            return key
    for name, value in message.get("headers") or ():
        if name == b"cookie":
            cookies = parse_cookie(value.decode("latin-1"))
            if settings.SESSION_COOKIE_NAME in cookies:
                return cookies[settings.SESSION_COOKIE_NAME]
    return None


def existing_session(session_key):
    """The session of the configured engine that `session_key` (text or None) names, or None."""
    if not session_key:
        return None
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    # Reading it is how every engine (the one in signed cookies too) finds out whether it exists,
    # and what was read is needed next anyway.
    session.keys()
    return session if session.session_key else None


def _save_after(message, func, args, kwargs):
    """Run the consumer, then save its HTTP session; also where it ended by closing the socket."""
    try:
        result = func(message, *args, **kwargs)
    except ChannelSocketException:
        _save(message.http_session)
        raise
    _save(message.http_session)
    return result


def _save(session):
    if session and session.modified:
        session.save()

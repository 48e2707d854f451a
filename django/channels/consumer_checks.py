"""
System checks of the consumers that routes lead to, and of bindings: what would do nothing, in silence. What
would raise an error is E007, in checks.py.
"""

from __future__ import annotations

import sys
import types
from typing import Any, Iterable, Iterator, Tuple

from django.core.checks import Warning, register

from .consume import consumer_name
from .decorators import decorators_of
from .misspelt import is_plain, mentions, misspelt
from .pages import see
from .protocol import WEBSOCKET_CONNECT, WEBSOCKET_DISCONNECT, WEBSOCKET_RECEIVE
from .routing import Include, Route

#: The channels of a route, and its consumer.
_Use = Tuple[Iterable[str], Any]

#: Channels whose messages have no cookies.
_LATER = {WEBSOCKET_RECEIVE, WEBSOCKET_DISCONNECT}

#: The methods of a class, and their channels.
_METHODS = {
    "connect": WEBSOCKET_CONNECT,
    "receive": WEBSOCKET_RECEIVE,
    "disconnect": WEBSOCKET_DISCONNECT,
}

#: Decorators of later events that need one of others at websocket.connect.
_USER = {"channel_session_user", "login_required"}
_GIVES_USER = {"channel_session_user_from_http", "login_required"}

#: Attributes of a class that give its sockets a user.
_FLAGS = ("http_user", "http_user_and_session", "login_required")

#: What a consumer mentions that logs a user in.
_OWN_LOGIN = set("transfer_user login SESSION_KEY HASH_SESSION_KEY _auth_user_id".split())


def check_consumers(alias: str, routes: Iterable[Any]) -> Iterator[Any]:
    """Check the consumers of a layer for channels.W016 to W019."""
    uses = list(_uses(routes))
    classes = {each for _, each in uses if isinstance(each, type)}
    for each in list(classes):
        streams = getattr(each, "consumers", None)
        if isinstance(streams, dict):
            classes.update(one for one in streams.values() if isinstance(one, type))
            yield from _check_streams(alias, each, streams)
    for each in sorted(classes, key=consumer_name):
        if hasattr(each, "method_calls"):
            yield from _check_names("CHANNEL_LAYERS[%r]: " % alias, each)
    yield from _check_http_session(alias, uses)
    yield from _check_user(alias, uses)


def _check_streams(alias: str, owner: type, streams: dict[str, Any]) -> Iterator[Any]:
    """Check for channels.W019: a binding under another name than that of its stream."""
    for name, consumer in streams.items():
        binding: Any = getattr(consumer, "binding", None)
        stream = getattr(binding, "stream", name)
        if isinstance(consumer, types.FunctionType) and isinstance(stream, str) and stream != name:
            yield Warning(
                "CHANNEL_LAYERS[%r]: %s.consumers has the binding %s as %r, but its stream is %r, on which "
                "it sends." % (alias, owner.__qualname__, binding.__name__, name, stream),
                hint="Use one name: consumers = {%r: %s.consumer}." % (stream, binding.__name__),
                id="channels.W019",
            )


@register("channels")  # type: ignore[untyped-decorator]
def check_bindings(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W016, a misspelt name in a binding, and W020, a name that isn't a field."""
    base = sys.modules.get(__package__ + ".binding.base")
    bindings = [] if base is None else base.BindingMetaclass.binding_classes
    problems = [problem for each in bindings for problem in _check_names("", each)]
    return problems + [problem for each in bindings for problem in _check_fields(each)]


def _check_fields(binding: Any) -> Iterator[Any]:
    for attribute, name in binding.unknown_names():
        yield Warning(
            "%s.%s.%s has %r, which isn't a field of its model: it has no effect."
            % (binding.__module__, binding.__qualname__, attribute, name),
            hint="Correct or remove it. Methods and properties go into send_members of a "
            "WebsocketBindingWithMembers; the primary key is always sent, as pk.",
            id="channels.W020",
        )


def _check_names(where: str, owner: type) -> Iterator[Any]:
    for name, meant in misspelt(owner):
        yield Warning(
            "%s%s.%s has %r, which nothing uses, and no %r."
            % (where, owner.__module__, owner.__qualname__, name, meant),
            hint="Did you mean %r? If other code uses it, give it another name." % meant,
            id="channels.W016",
        )


def _uses(routes: Iterable[Any]) -> Iterator[_Use]:
    """Return the channels and the consumer of each route, and of each method of a class."""
    for each in routes:
        if isinstance(each, Include):
            yield from _uses(each.routes)
        elif isinstance(each, Route):
            yield each.channels, each.consumer
            if hasattr(each.consumer, "method_calls"):
                for name, channel in _METHODS.items():
                    if hasattr(each.consumer, name):
                        yield [channel], getattr(each.consumer, name)


def _check_http_session(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """Check for channels.W017: `http_session` where no message has a cookie."""
    remembering = "channel_and_http_session"
    if not all(is_plain(consumer) for channels, consumer in uses if WEBSOCKET_CONNECT in channels):
        return  # what it calls may remember it
    is_remembered = any(
        getattr(consumer, "http_user_and_session", False)
        or (WEBSOCKET_CONNECT in channels and remembering in decorators_of(consumer))
        for channels, consumer in uses
    )
    flagged = {
        id(getattr(owner, method, None))
        for _, owner in uses
        if any(getattr(owner, each, False) for each in _FLAGS)
        for method in _METHODS
    }
    for channels, consumer in uses:
        later = _LATER.intersection(channels)
        names = decorators_of(consumer)
        found = {"http_session", "http_session_user", remembering}.intersection(names)
        if not later or not found or names.intersection(_GIVES_USER) or id(consumer) in flagged:
            continue
        if remembering not in names or not is_remembered:
            yield Warning(
                "CHANNEL_LAYERS[%r]: %s has the decorator %s, but messages on %s have no cookies, and no "
                "consumer of websocket.connect remembers the session, so message.http_session is None there."
                % (alias, consumer_name(consumer), max(found), " and ".join(sorted(later))),
                hint="Use channel_and_http_session there and at websocket.connect, or "
                "http_user_and_session = True on a class. %s" % see("topics/channels/sessions"),
                id="channels.W017",
            )


def _check_user(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """
    Check for channels.W018: `channel_session_user`, and nothing at websocket.connect gives a user. Silent
    where a consumer may call what gives one.
    """
    readers = []
    for channels, consumer in uses:
        names = set(decorators_of(consumer))
        if isinstance(consumer, type):
            if any(getattr(consumer, each, False) for each in _FLAGS):
                return
            if getattr(consumer, "channel_session_user", False) is True:
                names.add("channel_session_user")
        if not is_plain(consumer) or _OWN_LOGIN.intersection(mentions(consumer)):
            return
        if WEBSOCKET_CONNECT in channels and names.intersection(_GIVES_USER):
            return
        if names.intersection(_USER) and not {WEBSOCKET_CONNECT}.union(_LATER).isdisjoint(channels):
            readers.append(consumer)
    for consumer in readers:
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s reads message.user from the channel session, where no consumer of "
            "websocket.connect puts it, so it is always anonymous."
            % (alias, consumer_name(consumer)),
            hint="Decorate the consumer of websocket.connect with channel_session_user_from_http (add it, if "
            "there is none), or use http_user = True on a class. %s"
            % see("topics/channels/sessions"),
            id="channels.W018",
        )

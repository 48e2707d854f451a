"""
System checks of the consumers that routes lead to: what would do nothing, in silence. What would raise an
error is E007, in route_checks.py.
"""

from __future__ import annotations

import re
import types
from typing import Any, Iterable, Iterator, NamedTuple

from django.core.checks import Warning

from .callables import remedy_of_unbound, unbound, view_class
from .class_checks import check_attributes, check_names
from .consume import consumer_name
from .decorators import decorators_of
from .misspelt import mentions
from .pages import see
from .protocol import WEBSOCKET_CONNECT, WEBSOCKET_DISCONNECT, WEBSOCKET_RECEIVE
from .reached import reached
from .routing import Filters, Include, Route


class _Use(NamedTuple):
    """A consumer, its channels, and the route with its filters, after those of the includes around it."""

    channels: Iterable[str]
    consumer: Any
    route: Any
    filters: Filters


#: The module of the decorators of Django's views.
_VIEWS = "django.contrib.auth.decorators"

#: Modules of Django whose decorators need a request or a response. Those of csrf only set a flag.
_NEED_REQUEST = {
    "django.views.decorators." + each for each in ("cache", "clickjacking", "http", "vary")
}

#: Channels whose messages come without cookies.
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

#: Decorators that read the user of the HTTP session, whose cookie only a handshake has.
_FROM_HTTP = "channel_session_user_from_http"

#: The decorator that keeps the key of the HTTP session with the connection.
_REMEMBERS = "channel_and_http_session"

#: Attributes of a class that give its sockets a user.
_FLAGS = ("http_user", "http_user_and_session", "login_required")

#: What a consumer mentions that logs a user in.
_OWN_LOGIN = set("transfer_user login SESSION_KEY HASH_SESSION_KEY _auth_user_id".split())

#: What a view mentions, and what a consumer does that makes a request or a response by hand.
_OF_VIEWS = set(
    "COOKIES FILES GET HttpResponse HttpResponseRedirect JsonResponse META POST build_absolute_uri "
    "get_host method redirect render".split()
)
_OF_CONSUMERS = set("AsgiHandler AsgiRequest channel_session content reply_channel".split())


def check_consumers(alias: str, routes: list[Any]) -> Iterator[Any]:
    """Check the consumers of a layer for channels.W016 to W019, W021, W024 and W025."""
    uses = list(_uses(routes))
    yield from _check_decorators(alias, uses)
    yield from _check_kinds(alias, uses)
    classes = {each.consumer for each in uses if isinstance(each.consumer, type)}
    for each in list(classes):
        streams = getattr(each, "consumers", None)
        if isinstance(streams, dict):
            classes.update(one for one in streams.values() if isinstance(one, type))
            yield from _check_streams(alias, each, streams)
    for each in sorted(classes, key=consumer_name):
        if hasattr(each, "method_calls"):
            yield from check_names("CHANNEL_LAYERS[%r]: " % alias, each)
            yield from check_attributes("CHANNEL_LAYERS[%r]: " % alias, each)
    if _are_known(routes):
        yield from _check_http_session(alias, uses)
        yield from _check_user(alias, uses)


def _are_known(routes: Iterable[Any]) -> bool:
    """Return whether each route is of this package: which messages others take isn't known."""
    return all(
        _are_known(each.routes)
        if getattr(type(each), "match", None) is Include.match
        else getattr(type(each), "match", None) is Route.match
        for each in routes
    )


def _check_decorators(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """Check for channels.W021: a decorator of Django's views. On methods, route() refuses it."""
    found = {(consumer_name(use.consumer), _decorator_for_views(use.consumer)) for use in uses}
    for name, home in sorted(each for each in found if each[1]):
        text = "fails, because it gets a message and not a request"
        hint = "Remove it. A route filters by method='^POST$'. %s" % see(
            "topics/channels/consumers"
        )
        if home == _VIEWS:
            text = (
                "For a user who isn't logged in it fails with an AttributeError, because it gets a message "
                "and not a request"
            )
            hint = "Use login_required of %s.auth. %s" % (
                __package__,
                see("topics/channels/sessions"),
            )
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s has a decorator of views from %s. %s."
            % (alias, name, home, text[:1].upper() + text[1:]),
            hint=hint,
            id="channels.W021",
        )


def _decorator_for_views(function: Any) -> str:
    """Return the module of a decorator around `function` that needs a request, or ""."""
    while isinstance(function, types.FunctionType):
        home = str(function.__globals__.get("__name__"))
        if home == _VIEWS or home in _NEED_REQUEST:
            return home
        function = getattr(function, "__wrapped__", None)
    return ""


def _check_kinds(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """Check for channels.W024: a method without its instance, or a view. What can't run at all is E007."""
    found: dict[str, tuple[str, str]] = {}
    for use in uses:
        if use.consumer is not use.route.consumer:
            continue  # a method of a class that is routed to
        streams = getattr(use.consumer, "consumers", None)
        for each in [use.consumer, *(streams.values() if isinstance(streams, dict) else ())]:
            kind = _problem_of_kind(each)
            if kind is not None:
                found[consumer_name(each)] = kind
    for name, (problem, hint) in sorted(found.items()):
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s %s." % (alias, name, problem), hint=hint, id="channels.W024"
        )


def _problem_of_kind(consumer: Any) -> tuple[str, str] | None:
    """Return what a consumer seems to be instead of one, and what to write, or None."""
    method, view = unbound(consumer), view_class(consumer)
    if method is not None:
        return (
            "is a method of a class, and no instance is made of it, so that its `self` is the message",
            remedy_of_unbound(method) + ".",
        )
    function = consumer
    while isinstance(getattr(function, "__wrapped__", None), types.FunctionType):
        function = function.__wrapped__
    names = mentions(function) if isinstance(function, types.FunctionType) else set()
    if view is not None or (
        names
        and function.__code__.co_varnames[:1] == ("request",)
        and names.intersection(_OF_VIEWS)
        and names.isdisjoint(_OF_CONSUMERS)
    ):
        return (
            "seems to be a view: it takes a request, and a consumer gets a message",
            "Put it into urls.py. Requests that no route takes go to the views.",
        )
    return None


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


def _uses(routes: Iterable[Any], outer: Filters = []) -> Iterator[_Use]:  # noqa: B006  (never changed)
    """Return the use of each route, and of each method of a class."""
    for each in routes:
        if isinstance(each, Include):
            yield from _uses(each.routes, outer + each.filters)
        elif isinstance(each, Route):
            filters = outer + each.filters
            yield _Use(each.channels, each.consumer, each, filters)
            if hasattr(each.consumer, "method_calls"):
                for name, channel in _METHODS.items():
                    if hasattr(each.consumer, name):
                        yield _Use([channel], getattr(each.consumer, name), each, filters)


def _connects(uses: list[_Use], use: _Use) -> list[_Use]:
    """Return the uses at websocket.connect that the sockets of `use` may have had, in the order of routes."""
    found: list[_Use] = []
    last = None
    for each in uses:
        if last is not None and each.route is not last:
            break  # the routes behind it see no handshake of these sockets
        if WEBSOCKET_CONNECT in each.channels and _may_share_path(each, use):
            found.append(each)
            if each.filters == use.filters:
                last = each.route
    return found


def _may_share_path(one: _Use, other: _Use) -> bool:
    first, second = _path_start(one.filters), _path_start(other.filters)
    return first.startswith(second) or second.startswith(first)


def _path_start(filters: Filters) -> str:
    """Return the plain text with which each path begins that passes `filters`."""
    start = ""
    for _, pattern in (each for each in filters if each[0] == "path"):
        regex = pattern.pattern.lstrip("^")
        if "|" in regex or pattern.flags & (re.IGNORECASE | re.VERBOSE):
            break
        text = re.match(r"[\w/-]*(?![\w/*?+{-])", regex)
        start += text.group() if text is not None else ""
        if text is None or text.group() != regex:
            break
    return start


def _check_http_session(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """Check for channels.W017: `http_session` where no message has a cookie."""
    flagged = {
        id(getattr(use.consumer, method, None))
        for use in uses
        if any(getattr(use.consumer, each, False) for each in _FLAGS)
        for method in _METHODS
    }
    reach = _Reach(uses)
    for use in uses:
        later = _LATER.intersection(use.channels)
        names = decorators_of(use.consumer)
        found = {"http_session", "http_session_user", _REMEMBERS}.intersection(names)
        if not later or not found or names.intersection(_GIVES_USER) or id(use.consumer) in flagged:
            continue
        connects = _connects(uses, use)
        if any(reach.may_remember(each.consumer) for each in connects):
            continue
        if _REMEMBERS not in names or not any(map(_is_remembering, connects)):
            yield Warning(
                "CHANNEL_LAYERS[%r]: %s has the decorator %s, but messages on %s have no cookies, and no "
                "consumer of websocket.connect on its path remembers the session, so message.http_session is "
                "None there."
                % (alias, consumer_name(use.consumer), max(found), " and ".join(sorted(later))),
                hint="Use channel_and_http_session there and at websocket.connect, or "
                "http_user_and_session = True on a class. %s" % see("topics/channels/sessions"),
                id="channels.W017",
            )


def _is_remembering(use: _Use) -> bool:
    return bool(
        getattr(use.consumer, "http_user_and_session", False)
        or _REMEMBERS in decorators_of(use.consumer)
    )


def _check_user(alias: str, uses: list[_Use]) -> Iterator[Any]:
    """
    Check for channels.W018: a consumer reads the user of a socket whose handshake gives it none.
    Silent where a consumer of such sockets may call what gives one.
    """
    sockets = _LATER.union([WEBSOCKET_CONNECT])
    others = [use for use in uses if sockets.isdisjoint(use.channels)]
    reach = _Reach(uses)
    if any(reach.may_log_in(use.consumer) for use in others if decorators_of(use.consumer)):
        return  # it may have the channel session of a socket
    for use in uses:
        names = set(decorators_of(use.consumer))
        if getattr(use.consumer, "channel_session_user", False) is True:
            names.add("channel_session_user")
        if sockets.isdisjoint(use.channels) or not names.intersection(_USER.union([_FROM_HTTP])):
            continue
        connects = _connects(uses, use)
        if any(map(_gives_user, connects)):
            continue
        if _FROM_HTTP in names and any(map(_is_remembering, connects)):
            continue
        near = connects + [
            each
            for each in uses
            if not _LATER.isdisjoint(each.channels) and _may_share_path(each, use)
        ]
        if any(reach.may_log_in(each.consumer) for each in near):
            continue
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s reads message.user, but the user of a socket comes with the cookies of "
            "its handshake, and no consumer of websocket.connect on its path puts it into the channel "
            "session, so it is always anonymous." % (alias, consumer_name(use.consumer)),
            hint="Decorate the consumer of websocket.connect with channel_session_user_from_http (add it, if "
            "there is none), or use http_user = True on a class. %s"
            % see("topics/channels/sessions"),
            id="channels.W018",
        )


def _gives_user(use: _Use) -> bool:
    """Return whether the consumer of a handshake puts the user into the channel session."""
    flagged = any(getattr(use.consumer, each, False) for each in _FLAGS)
    return flagged or not _GIVES_USER.isdisjoint(decorators_of(use.consumer))


class _Reach:
    """What the consumers of a layer call, besides each other: their own decorators are judged by channel."""

    def __init__(self, uses: list[_Use]) -> None:
        self._functions: dict[int, list[Any] | None] = {}
        self._layers: set[int] = set()
        for use in uses:
            layer = use.consumer
            while isinstance(layer, types.FunctionType):
                self._layers.add(id(layer))
                layer = getattr(layer, "__wrapped__", None)

    def may_log_in(self, consumer: Any) -> bool:
        """Return whether `consumer` may put a user into a channel session, by itself or by what it calls."""
        return self._may(consumer, _GIVES_USER, _OWN_LOGIN)

    def may_remember(self, consumer: Any) -> bool:
        """Return whether what `consumer` calls may remember the HTTP session."""
        return self._may(consumer, {_REMEMBERS, "channel_and_http_session_user_from_http"})

    def _may(self, consumer: Any, decorators: set[str], names: Iterable[str] = ()) -> bool:
        if id(consumer) not in self._functions:
            self._functions[id(consumer)] = reached(consumer)
        functions = self._functions[id(consumer)]
        if functions is None:
            return True
        for each in functions:
            if id(each) not in self._layers and not decorators.isdisjoint(decorators_of(each)):
                return True
            wanted = set(names) if hasattr(each, "__wrapped__") else decorators.union(names)
            if not wanted.isdisjoint(mentions(each)):
                return True
        return False

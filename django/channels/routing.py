"""
Routing: which consumer handles a message, by its channel and by regular expressions over its content.

The file is a little over 400 lines because each kind of route checks what it is given here.
"""

from __future__ import annotations

import re
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NoReturn,
    Optional,
    Pattern,
    Tuple,
    Union,
    cast,
)

from django.core.exceptions import ImproperlyConfigured

from .exceptions import InvalidChannelName
from .habits import PAGE, problem_of_call, problem_of_path
from .hints import hinted_route
from .imports import CannotImport, import_path
from .layers.names import check_channel_name
from .runnable import problem_of
from .types import Consumer

if TYPE_CHECKING:
    from typing import Protocol

    from .message import Message
    from .types import ConsumerClass

    class Routable(Protocol):
        """
        What stands in a list of routes: a Route, an Include, or another object with this method. It may also
        have `channel_names()`, which returns the names of the channels that workers must consume for it.
        """

        def match(self, message: Message) -> Match | None:
            """Return the consumer for a message and its keyword arguments, or None."""


#: A consumer, and the keyword arguments that the filters of its route found.
Match = Tuple[Consumer, Dict[str, Any]]

#: What a project writes as routing: a list of routes, a dict of channel to consumer, or a dotted path.
Routing = Union[str, List[Any], Tuple[Any, ...], Mapping[str, Any]]

Filters = List[Tuple[str, Pattern[str]]]

#: What a route finds for a message, with the channel and the content as includes have changed them.
Find = Callable[[str, Mapping[str, Any], "Message"], Optional[Match]]


#: The dotted path of a routing, for messages.
_EXAMPLE = "mysite.routing.channel_routing"

#: Channels for which an Include remembers its routes. A site has fewer.
MAX_KNOWN_CHANNELS = 1000


class InvalidRoute(ImproperlyConfigured, ValueError):
    """The arguments of a route, or a routing, cannot work; the text says how to correct it."""


class Router:
    """
    The routes of a layer, tried in order.

    `routing` is a list of routes and includes, a dict of channel to consumer, or the dotted path of
    either. Raises InvalidRoute, an ImproperlyConfigured, for anything else.
    """

    def __init__(self, routing: Routing) -> None:
        self.root: Include = Include(routing)
        self.channels: set[str] = self.root.channel_names()

    def add_route(self, route: Routable) -> None:
        """Add `route` behind all others."""
        self.root.routes.append(route)
        self.channels |= _channel_names(route)

    def check_default(self, http_consumer: Consumer | None = None) -> None:
        """
        Add Django's own handling behind the project's routes: views for `http.request` (by
        `http_consumer` if it is given), and consumers that ignore WebSocket events.

        A WebSocket is accepted by default only if one of the project's routes takes its frames.
        """
        from .handler import ViewConsumer

        known = list(self.root.routes)
        self.add_route(route("http.request", http_consumer or ViewConsumer()))
        self.add_route(route("http.disconnect", null_consumer))
        self.add_route(_KnownSocket(known))
        self.add_route(route("websocket.receive", null_consumer))
        self.add_route(route("websocket.disconnect", null_consumer))

    def match(self, message: Message) -> Match | None:
        """Return `(consumer, kwargs)` of the first route that matches `message`, or None."""
        return self.root.find(message.channel_name, message.content, message)

    @classmethod
    def resolve_routing(cls, routing: Routing) -> list[Routable]:
        """Return a list of routes from a dotted path, a list or a dict."""
        return _resolve(routing)


class Route:
    """One channel's consumer (a callable, or its dotted path), for messages that match `filters`."""

    @hinted_route
    def __init__(
        self,
        channels: str | Iterable[str],
        consumer: str | Consumer,
        *misplaced: NoReturn,
        **filters: str | bytes | Pattern[str],
    ) -> None:
        _refuse(problem_of_call("route(channel, consumer", channels, misplaced))
        self.channels: set[str] = _names(channels)
        self.consumer: Consumer = _consumer(consumer)
        self.filters: Filters = _compile(filters)
        _refuse(problem_of(self.consumer, groups_of(self.filters)))
        for name, pattern in self.filters:
            if pattern.groups > len(pattern.groupindex):
                raise InvalidRoute(
                    "The filter %s=%r of the consumer %r has positional groups. Consumers get keyword "
                    "arguments only: name the group, (?P<name>…), or don't capture it, (?:…)."
                    % (name, pattern.pattern, consumer)
                )

    def channel_names(self) -> set[str]:
        return set(self.channels)

    def match(self, message: Message) -> Match | None:
        """Return `(consumer, kwargs)` if the route takes `message`, or None."""
        return self.find(_channel_name(message), message.content, message)

    def find(self, channel: str, content: Mapping[str, Any], message: Message) -> Match | None:
        """Do as `match`, for `content` on `channel`, which includes may have taken from `message`."""
        if channel not in self.channels:
            return None
        if not self.filters:
            return self.consumer, {}
        kwargs: dict[str, Any] = {}
        for name, pattern in self.filters:
            found = _search(pattern, content.get(name))
            if found is None:
                return None
            kwargs.update(found.groupdict())
        return self.consumer, kwargs

    def __repr__(self) -> str:
        return "<Route %s: %r>" % (", ".join(sorted(self.channels)), self.consumer)


class RouteClass(Route):
    """A class-based consumer, on each of the channels that its `channel_names()` returns."""

    @hinted_route
    def __init__(
        self,
        consumer: str | ConsumerClass,
        *misplaced: NoReturn,
        **filters: str | bytes | Pattern[str],
    ) -> None:
        _refuse(problem_of_call("route_class(consumer", consumer, misplaced))
        found = _consumer(consumer)
        if not hasattr(found, "channel_names"):
            _refuse(problem_of(found))
            raise InvalidRoute(
                "route_class() takes a consumer class with channel_names(), not %r: use "
                "route(channel, consumer) for a function." % (found,)
            )
        super().__init__(found.channel_names(), found, **filters)


#: What a class of the site may replace, to take messages on other channels.
_OF_ROUTE = (Route.match, Route.find)


class Include:
    """
    Other routing, for messages that match `filters`. The part that a filter matched is removed before the
    included routes see the value, as a URLconf's prefix is.
    """

    @hinted_route
    def __init__(
        self, routing: Routing, *misplaced: NoReturn, **filters: str | bytes | Pattern[str]
    ) -> None:
        _refuse(problem_of_call("include(routing", routing, misplaced))
        self.routes: list[Routable] = _resolve(routing)
        self.filters: Filters = _compile(filters)
        self._found: list[Routable] = []
        self._finds: dict[str, list[Find]] = {}  # by channel

    def channel_names(self) -> set[str]:
        return set().union(*map(_channel_names, self.routes)) if self.routes else set()

    def match(self, message: Message) -> Match | None:
        """Return `(consumer, kwargs)` of the first included route that takes `message`, or None."""
        return self.find(_channel_name(message), message.content, message)

    def find(self, channel: str, content: Mapping[str, Any], message: Message) -> Match | None:
        """Do as `match`, for `content` on `channel`, which includes may have taken from `message`."""
        kwargs: dict[str, Any] = {}
        if self.filters:
            rest = dict(content)
            for name, pattern in self.filters:
                found = _search(pattern, content.get(name))
                if found is None:
                    return None
                kwargs.update(found.groupdict())
                rest[name] = _text(rest[name])[found.end() :]
            content = rest
        for find in self._find_all(channel):
            match = find(channel, content, message)
            if match is not None:
                if kwargs:
                    return match[0], dict(kwargs, **match[1])
                return match
        return None

    def _find_all(self, channel: str) -> list[Find]:
        """
        Return how the routes that may take messages on `channel` find their match. `routes` may have changed
        since the last call.
        """
        known = self._finds
        if self._found != self.routes:
            known = self._finds = {}  # first: another thread may be here
            self._found = list(self.routes)
        finds = known.get(channel)
        if finds is None:
            finds = [_find(each) for each in self.routes if _may_take(each, channel)]
            if len(known) < MAX_KNOWN_CHANNELS:
                known[channel] = finds
        return finds

    def __repr__(self) -> str:
        return "<Include of %r>" % (self.routes,)


class _KnownSocket:
    """Accepts a WebSocket that no route of the project connects, if one of them takes its frames."""

    def __init__(self, routes: list[Routable]) -> None:
        self._known = Include(routes)

    def channel_names(self) -> set[str]:
        return {"websocket.connect"}

    def match(self, message: Message) -> Match | None:
        return self.find(_channel_name(message), message.content, message)

    def find(self, channel: str, content: Mapping[str, Any], message: Message) -> Match | None:
        if channel == "websocket.connect":
            if self._known.find("websocket.receive", content, message) is not None:
                return connect_consumer, {}
        return None


def _names(channels: str | Iterable[str]) -> set[str]:
    """Return the names of a route's channels. Raises InvalidRoute for one that no channel can have."""
    try:
        names = {channels} if isinstance(channels, str) else set(channels)
    except TypeError:
        raise InvalidRoute(
            "A route has the name of a channel, or a list of names, not %r." % (channels,)
        ) from None
    for name in names:
        _refuse(problem_of_call("route(channel, consumer", name))
        try:
            check_channel_name(name)
        except InvalidChannelName as error:
            raise InvalidRoute(
                "No route can take it: %s For several channels, write a list of their names."
                % error
            ) from None
    return names


def _refuse(problem: str) -> None:
    if problem:
        raise InvalidRoute(problem)


def _may_take(each: Routable, channel: str) -> bool:
    """Return whether `each` may take messages on `channel`. A route that the site changed may take any."""
    is_plain = isinstance(each, Route) and (type(each).match, type(each).find) == _OF_ROUTE
    if not is_plain or not {"match", "find"}.isdisjoint(vars(each)):
        return True
    return channel in each.channels  # type: ignore[attr-defined]


def _find(each: Routable) -> Find:
    """Return how `each` finds its match. A class of the site that has its own `match` is asked by that."""
    if getattr(type(each), "match", None) in (Route.match, Include.match, _KnownSocket.match):
        return cast("Find", each.find)  # type: ignore[attr-defined]

    def find(channel: str, content: Mapping[str, Any], message: Message) -> Match | None:
        if content is not message.content or channel != _channel_name(message):
            message = message.copy()
            message.content, message.channel_name = dict(content), channel
        return each.match(message)

    return find


def _channel_name(message: Message) -> str:
    name = getattr(message, "channel_name", None)
    return message.channel.name if name is None else name


def _channel_names(each: Any) -> set[str]:
    return set(each.channel_names()) if hasattr(each, "channel_names") else set()


def _resolve(routing: Routing) -> list[Routable]:
    """Return a list of routes from what a project wrote."""
    if isinstance(routing, str):
        module_name, _, name = routing.rpartition(".")
        try:
            routing = import_path(routing)
        except CannotImport as error:
            text = "The routing %r cannot be imported: %s." % (routing, str(error).rstrip("."))
            if not error.is_raised:
                text += " Write the dotted path of a list of routes, such as '%s'." % _EXAMPLE
            raise InvalidRoute(text) from error
        if not isinstance(routing, (list, tuple, dict)):
            raise InvalidRoute(
                "The routing '%s.%s' is a %s; it must be a list of routes, or a dict of channel to "
                "consumer." % (module_name, name, type(routing).__name__)
            )
    if isinstance(routing, dict):
        return [route(channel, consumer) for channel, consumer in routing.items()]
    if not isinstance(routing, (list, tuple)):
        raise InvalidRoute(
            "%r isn't routing: write a list of routes, such as [route(…)], a dict of channel to consumer, or "
            "the dotted path of one, such as '%s'." % (routing, _EXAMPLE)
        )
    for each in routing:
        if not callable(getattr(each, "match", None)):
            raise InvalidRoute("%r isn't a route: %s." % (each, _remedy(each)))
    return list(routing)


def _remedy(each: Any) -> str:
    """Return what to write instead of `each`, which stands in a list of routes and isn't one."""
    if hasattr(each, "as_route"):
        return "write %s.as_route(path=r'^/…$')" % getattr(each, "__name__", "the class")
    if callable(getattr(each, "resolve", None)):
        return (
            "it is a URL pattern; write route('websocket.receive', consumer, path=r'^/…$') or "
            "Consumer.as_route(path=r'^/…$'). %s" % PAGE.rstrip(".")
        )
    return "use route(), route_class() or include(), or an object with match(message)"


def groups_of(filters: Filters) -> list[str]:
    """Return the names of the groups of these filters: the keyword arguments that they give."""
    return [name for _, pattern in filters for name in pattern.groupindex]


def _consumer(consumer: str | Consumer | ConsumerClass) -> Any:
    """Return a consumer, imported if it is a dotted path. Raises InvalidRoute."""
    found: Any = consumer
    if isinstance(consumer, str):
        try:
            found = import_path(consumer)
        except CannotImport as error:
            text = "The consumer %r cannot be imported: %s." % (consumer, str(error).rstrip("."))
            if not error.is_raised:
                text += " Write its dotted path, such as 'mysite.consumers.ws_connect'."
            raise InvalidRoute(text) from error
    if isinstance(found, (Route, Include)):
        raise InvalidRoute(
            "%r is a route already: put it into the list of routes as it is." % (found,)
        )
    if not callable(found):
        raise InvalidRoute(
            "The consumer %r isn't callable: write a function, a class, or its dotted path."
            % (found,)
        )
    return found


def _compile(filters: Mapping[str, str | bytes | Pattern[str]]) -> Filters:
    for name, value in filters.items():
        if not isinstance(value, (str, bytes, re.Pattern)):
            raise InvalidRoute(
                "%s=%r cannot be the filter of a route: write a regular expression. Attributes of a class "
                "stand in attrs: as_route(attrs={%r: %r}, path=r'^/…$')."
                % (name, value, name, value)
            )
    try:
        compiled = [
            (name, re.compile(pattern.decode() if isinstance(pattern, bytes) else pattern))
            for name, pattern in sorted(filters.items())
        ]
    except (re.error, TypeError, ValueError) as error:
        raise InvalidRoute(
            "%r cannot be the filters of a route: %s. Write a regular expression for each key."
            % (filters, error)
        ) from error
    for name, pattern in compiled:
        if name == "path":
            _refuse(problem_of_path(_text(pattern.pattern)))
        if isinstance(pattern.pattern, bytes):
            text = "The filter %s=%r is a compiled pattern of bytes, but filters see text: compile a text."
            raise InvalidRoute(text % (name, pattern.pattern))
    return compiled


def _search(pattern: Pattern[str], value: Any) -> re.Match[str] | None:
    if type(value) is str:  # nearly always
        return pattern.match(value)
    return None if value is None else pattern.match(_text(value))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def connect_consumer(message: Message) -> None:
    """Accept a WebSocket."""
    message.reply_channel.send({"accept": True})


def null_consumer(message: Message) -> None:
    """Ignore an event that needs no answer."""


# The names that projects write.
route = Route
route_class = RouteClass
include = Include


if not TYPE_CHECKING:
    from .habits import former_names

    __getattr__ = former_names(__name__)

"""
Routing: which consumer takes a message, by its channel and by regular expressions over its content.
"""

import importlib
import re

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string


class Router:
    """
    The routes of a layer, tried in order.

    `routing` is a list of routes and includes, a dict of channel to consumer, or the dotted path of
    either. Raises ImproperlyConfigured for anything else.
    """

    def __init__(self, routing):
        self.root = Include(routing)
        self.channels = self.root.channel_names()

    def add_route(self, route):
        """Try `route` after all others."""
        self.root.routes.append(route)
        self.channels |= route.channel_names()

    def check_default(self, http_consumer=None):
        """
        Add Django's own handling behind the project's routes: views for `http.request` (by
        `http_consumer` where given), and consumers that let WebSocket events pass.

        A WebSocket is accepted by default only where a project's route would take its frames.
        """
        from .handler import ViewConsumer

        known = list(self.root.routes)
        self.add_route(route("http.request", http_consumer or ViewConsumer()))
        self.add_route(route("http.disconnect", null_consumer))
        self.add_route(_KnownSocket(known))
        self.add_route(route("websocket.receive", null_consumer))
        self.add_route(route("websocket.disconnect", null_consumer))

    def match(self, message):
        """`(consumer, kwargs)` of the first route that takes `message`, or None."""
        return self.root.match(message._channel_name, message.content)

    @classmethod
    def resolve_routing(cls, routing):
        """A list of routes from a dotted path, a list or a dict."""
        return _resolve(routing)


class Route:
    """One channel's consumer (a callable, or its dotted path), for messages that match `filters`."""

    def __init__(self, channels, consumer, **filters):
        self.channels = {channels} if isinstance(channels, str) else set(channels)
        self.consumer = _consumer(consumer)
        self.filters = _compile(filters)

    def channel_names(self):
        return set(self.channels)

    def match(self, channel, content):
        if channel not in self.channels:
            return None
        if not self.filters:
            return self.consumer, {}
        kwargs = {}
        for name, pattern in self.filters:
            found = _search(pattern, content.get(name))
            if found is None:
                return None
            kwargs.update(found.groupdict())
        return self.consumer, kwargs

    def __repr__(self):
        return "<Route %s: %r>" % (", ".join(sorted(self.channels)), self.consumer)


class RouteClass(Route):
    """A class-based consumer, on each of the channels that it names itself (`channel_names()`)."""

    def __init__(self, consumer, **filters):
        consumer = _consumer(consumer)
        if not hasattr(consumer, "channel_names"):
            raise ImproperlyConfigured(
                "route_class() takes a consumer class with channel_names(), not %r: use "
                "route(channel, consumer) for a function." % (consumer,)
            )
        super().__init__(consumer.channel_names(), consumer, **filters)


class Include:
    """
    Other routing, for messages that match `filters`; what a filter matched is cut off before the included
    routes see the value, as a URLconf's prefix is.
    """

    def __init__(self, routing, **filters):
        self.routes = _resolve(routing)
        self.filters = _compile(filters)

    def channel_names(self):
        return (
            set().union(*(each.channel_names() for each in self.routes)) if self.routes else set()
        )

    def match(self, channel, content):
        kwargs = {}
        if self.filters:
            content = dict(content)
            for name, pattern in self.filters:
                found = _search(pattern, content.get(name))
                if found is None:
                    return None
                kwargs.update(found.groupdict())
                content[name] = _text(content[name])[found.end() :]
        for each in self.routes:
            match = each.match(channel, content)
            if match is not None:
                if kwargs:
                    return match[0], dict(kwargs, **match[1])
                return match
        return None


class _KnownSocket:
    """Accepts a WebSocket whose connect nobody takes, where a project's route would take its frames."""

    def __init__(self, routes):
        self._routes = routes

    def channel_names(self):
        return {"websocket.connect"}

    def match(self, channel, content):
        if channel == "websocket.connect":
            for each in self._routes:
                if each.match("websocket.receive", content) is not None:
                    return connect_consumer, {}
        return None


def _resolve(routing):
    """A list of routes from what a project wrote."""
    if isinstance(routing, str):
        module_name, _, name = routing.rpartition(".")
        try:
            routing = import_string(routing)
        except ImportError as error:
            raise ImproperlyConfigured(
                "The routing %r cannot be imported: %s. Write the dotted path of a list of routes, "
                "such as 'mysite.routing.channel_routing'." % (routing, error)
            ) from error
        if not isinstance(routing, (list, tuple, dict)):
            raise ImproperlyConfigured(
                "The routing '%s.%s' is a %s; it must be a list of routes, or a dict of channel to "
                "consumer." % (module_name, name, type(routing).__name__)
            )
    if isinstance(routing, dict):
        return [route(channel, consumer) for channel, consumer in routing.items()]
    if not isinstance(routing, (list, tuple)):
        raise ImproperlyConfigured(
            "Routing is a list of routes, a dict of channel to consumer, or the dotted path of one, "
            "not %r." % (routing,)
        )
    for each in routing:
        if not hasattr(each, "match") or not hasattr(each, "channel_names"):
            raise ImproperlyConfigured(
                "%r is no route: use route(), route_class() or include()." % (each,)
            )
    return list(routing)


def _consumer(consumer):
    if not isinstance(consumer, str):
        if not callable(consumer):
            raise ImproperlyConfigured("The consumer %r is not callable." % (consumer,))
        return consumer
    module_name, _, name = consumer.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(
            "The consumer %r cannot be imported: %s." % (consumer, error)
        ) from error


def _compile(filters):
    try:
        return [(name, re.compile(pattern)) for name, pattern in sorted(filters.items())]
    except (re.error, TypeError) as error:
        raise ImproperlyConfigured(
            "A route's filters are regular expressions; %r: %s." % (filters, error)
        ) from error


def _search(pattern, value):
    return None if value is None else pattern.match(_text(value))


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def connect_consumer(message):
    """Accept a WebSocket."""
    message.reply_channel.send({"accept": True})


def null_consumer(message):
    """Let an event pass that needs no answer."""


# The names that projects write.
route = Route
route_class = RouteClass
include = Include

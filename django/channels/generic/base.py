"""The class-based consumer: calls the method for a message's channel. Knows no protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, Iterable, Mapping, NoReturn

from ..auth import channel_session_user
from ..coroutines import finish, off_loop, unfinished
from ..habits import PAGE, instead, missing_attribute
from ..runnable import Call
from ..sessions import channel_session

if TYPE_CHECKING:
    from ..message import Message
    from ..routing import RouteClass
    from ..types import Consumer


def _mapping_of(cls: type[BaseConsumer]) -> Mapping[str, str]:
    """Return the `method_mapping` of a class. Raises InvalidRoute if it isn't a dict."""
    if not isinstance(cls.method_mapping, Mapping):
        from ..routing import InvalidRoute

        raise InvalidRoute(
            "%s.method_mapping is a dict of channel to method, such as {'jobs.start': 'start'}, not %r."
            % (cls.__name__, cls.method_mapping)
        )
    return cls.method_mapping


class BaseConsumer:
    """
    A consumer as a class: making an instance handles the message.

    `method_mapping` maps channel names to names of methods, each called with the message and the
    keyword arguments of the routing. One instance handles one message, so methods may keep state on
    `self`. `self.message` and `self.kwargs` are set.
    """

    method_mapping: Mapping[str, str] = {}

    #: Set to True to run the decorator of that name around every method.
    channel_session: bool = False
    channel_session_user: bool = False

    #: What an asynchronous handler returned: it has not run yet. The worker awaits it.
    unfinished: Any = None

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.message = message
        self.kwargs = kwargs
        returned = self.dispatch(message, **kwargs)
        if returned is not None:
            self.unfinished = unfinished(returned)

    def __await__(self) -> Generator[Any, Any, BaseConsumer]:
        """Wait for the end of an asynchronous handler. Return this instance."""
        waiting, self.unfinished = self.unfinished, None
        if waiting is not None:
            yield from finish(waiting).__await__()
        return self

    @classmethod
    def channel_names(cls) -> set[str]:
        """Return the channel names to route here. They must not change while the process runs."""
        return set(_mapping_of(cls))

    @classmethod
    def method_calls(cls) -> dict[str, Call]:
        """Return how the methods are called, by name. `route_class` refuses a class whose methods differ."""
        return {name: Call(("message",)) for name in _mapping_of(cls).values()}

    @classmethod
    def problem_of_attributes(cls, groups: Iterable[str]) -> str:
        """
        Return the name of an attribute that can't work, and why, or "". `groups` are the names of the groups
        of the route's filters. `route_class` refuses such a class.
        """
        return ""

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> NoReturn:
        """Raise InvalidRoute: a consumer of Channels 4 is an ASGI application, and this one is routed to."""
        from ..routing import InvalidRoute

        raise InvalidRoute(
            instead("%s.as_asgi()" % cls.__name__, "%s.as_route(path=r'^/…$')" % cls.__name__)
        )

    @classmethod
    def as_view(cls, **initkwargs: Any) -> NoReturn:
        """Raise InvalidRoute: a consumer has a route, in the routing and not in urls.py."""
        from ..routing import InvalidRoute

        raise InvalidRoute(
            "%s is a consumer, not a view. Put %s.as_route(path=r'^/…$') into the ROUTING, and not into "
            "urls.py. %s" % (cls.__name__, cls.__name__, PAGE)
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute(self, name)

    @classmethod
    def as_route(cls, attrs: Mapping[str, Any] | None = None, **filters: str) -> RouteClass:
        """
        Return a route to this consumer: `route_class(cls, **filters)`.

        `attrs` (dict) are attributes of a subclass that is made for this route alone.
        """
        from ..routing import InvalidRoute, route_class

        if attrs is not None and not isinstance(attrs, Mapping):
            path = attrs if isinstance(attrs, str) else "^/…$"
            raise InvalidRoute(
                "The path is given by name: write %s.as_route(path=%r). `attrs` is a dict. %s"
                % (cls.__name__, path, PAGE)
            )
        consumer: type[BaseConsumer] = cls
        if attrs:
            # The module of the class, so that tracebacks and errors lead there.
            body = dict({"__module__": cls.__module__, "__doc__": cls.__doc__}, **attrs)
            consumer = type(cls.__name__, (cls,), body)
        return route_class(consumer, **filters)

    def get_handler(self, message: Message, **kwargs: Any) -> Consumer:
        """Return the method for the message's channel, decorated as the class asks."""
        handler: Consumer = getattr(self, self.method_mapping[message.channel.name])
        if self.channel_session_user:
            return channel_session_user(handler)
        if self.channel_session:
            return channel_session(handler)
        return handler

    def dispatch(self, message: Message, **kwargs: Any) -> Any:
        """Handle the message with the method that `get_handler` finds."""
        return off_loop(self._dispatch, message, **kwargs)

    def _dispatch(self, message: Message, **kwargs: Any) -> Any:
        return self.get_handler(message, **kwargs)(message, **kwargs)

"""The class-based consumer: from a message's channel to a method. Knows no protocol."""

from ..auth import channel_session_user
from ..sessions import channel_session


class BaseConsumer:
    """
    A consumer as a class: making an instance handles the message.

    `method_mapping` maps channel names to names of methods, each called with the message and the
    keyword arguments of the routing. One instance handles one message, so what a method keeps on
    `self` is its own; `self.message` and `self.kwargs` are set.
    """

    method_mapping = {}

    #: Set to True to run the decorator of that name around every method.
    channel_session = False
    channel_session_user = False

    def __init__(self, message, **kwargs):
        self.message = message
        self.kwargs = kwargs
        self.dispatch(message, **kwargs)

    @classmethod
    def channel_names(cls):
        """The channel names to route here (a set); the same for as long as a process runs."""
        return set(cls.method_mapping)

    @classmethod
    def as_route(cls, attrs=None, **filters):
        """
        A route to this consumer: `route_class(cls, **filters)`.

        `attrs` (dict) are attributes of a subclass made for this route alone.
        """
        from ..routing import route_class

        consumer = cls
        if attrs:
            # The module is the class's own, so that tracebacks and errors lead there.
            body = dict({"__module__": cls.__module__, "__doc__": cls.__doc__}, **attrs)
            consumer = type(cls.__name__, (cls,), body)
        return route_class(consumer, **filters)

    def get_handler(self, message, **kwargs):
        """The method for the message's channel, decorated as the class asks."""
        handler = getattr(self, self.method_mapping[message.channel.name])
        if self.channel_session_user:
            return channel_session_user(handler)
        if self.channel_session:
            return channel_session(handler)
        return handler

    def dispatch(self, message, **kwargs):
        """Handle the message with the method that `get_handler` finds."""
        return self.get_handler(message, **kwargs)(message, **kwargs)

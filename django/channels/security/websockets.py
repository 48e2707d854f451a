"""
Which web pages may open a WebSocket to this site: checks of the Origin header (RFC 6454, RFC 6455).

A browser sends cookies with a WebSocket handshake from any page, and doesn't apply the same-origin policy.
So the worker calls `origin_allowed` before every consumer of `websocket.connect`: the site's own pages may
connect, and those of CSRF_TRUSTED_ORIGINS (origins.py). Any other is refused (403). A consumer can change
that with `any_origin`, `allowed_origins`, or a subclass of `BaseOriginValidator`.

A handshake without Origin passes. Every browser sends one, so such a handshake comes from a script, a test
or a native application, which could claim any origin. `allowed_hosts_only` refuses that, as Channels 1.1
documents it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, cast

from ..callables import is_own
from ..coroutines import answer_of
from ..decorators import decorator
from ..exceptions import DenyConnection
from ..types import AnyConsumer
from .origins import Origin, host_is_allowed, is_trusted, matches, read_origin

if TYPE_CHECKING:
    from ..message import Message
    from ..types import Consumer

#: The attributes of a consumer that `origin_allowed` reads.
_MARKS = ("any_origin", "allowed_origins", "origin_validator", "validates_origin")


def origin_allowed(message: Message, consumer: Consumer | None = None) -> bool:
    """
    Return whether `consumer` (or None) may handle this `websocket.connect` message.

    Reads the attributes that `any_origin`, `allowed_origins` and `BaseOriginValidator` set on the consumer.
    """
    consumer = marked(consumer)
    validator = getattr(consumer, "origin_validator", None)
    if validator is not None:  # first: a class must not inherit `any_origin` past its validator
        name = "%s.allows" % getattr(validator, "__name__", validator)
        return cast(bool, answer_of(validator(_no_consumer).allows(message), name))
    if getattr(consumer, "any_origin", False) or getattr(consumer, "validates_origin", False):
        return True
    try:
        origin = read_origin(message)
        if origin is None:
            return True
        extra = getattr(consumer, "allowed_origins", ())
        return is_trusted(message, origin) or any(matches(Origin(origin), one) for one in extra)
    except ValueError:
        return False


def marked(consumer: Any) -> Any:
    """
    Return what has the attributes that `origin_allowed` reads: of a functools.partial without them, its
    function, also below other decorators.

    Other decorators copy the attributes, or hide them on purpose: theirs count.
    """
    if any(hasattr(consumer, each) for each in _MARKS):
        return consumer
    inner: Any = consumer
    while inner is not None:
        if isinstance(inner, functools.partial):
            return marked(inner.func)
        inner = getattr(inner, "__dict__", {}).get("__wrapped__")
    return consumer


def check_origin(message: Message, consumer: Consumer | None = None) -> None:
    """Raise DenyConnection unless `origin_allowed(message, consumer)`."""
    if not origin_allowed(message, consumer):
        raise DenyConnection(
            "Origin refused: add it to CSRF_TRUSTED_ORIGINS, or mark the consumer with "
            "channels.security.websockets.allowed_origins or any_origin."
        )


@decorator
def any_origin(consumer: AnyConsumer) -> AnyConsumer:
    """
    Let pages of any site open this socket (a decorator).

    For functions and classes; a class-based consumer may also say `any_origin = True` in its body.
    """
    return _mark(consumer, "any_origin", True)


def allowed_origins(*origins: str) -> Callable[[AnyConsumer], AnyConsumer]:
    """
    Let pages of these origins open this socket, besides those that the site trusts (a decorator).

    Each is `"scheme://host[:port]"`, where the host may begin with `*.` for every subdomain. A
    class-based consumer may also list them as `allowed_origins` in its body. Raises ValueError for
    anything else.
    """
    for origin in origins:
        if not isinstance(origin, str):
            raise ValueError('Write @allowed_origins("https://other.example"), not %r.' % (origin,))
        Origin(origin, is_pattern=True)
    return functools.partial(_mark, name="allowed_origins", value=origins)


def _mark(consumer: AnyConsumer, name: str, value: Any) -> AnyConsumer:
    try:
        setattr(consumer, name, value)
    except AttributeError:  # a bound method takes no attributes

        @functools.wraps(consumer)
        def wrapper(message: Message, *args: Any, **kwargs: Any) -> Any:
            return consumer(message, *args, **kwargs)

        setattr(wrapper, name, value)
        return cast(AnyConsumer, wrapper)
    return consumer


def _no_consumer(message: Message) -> None:
    """Stand in for the consumer where a validator is only asked."""


class BaseOriginValidator:
    """
    Check the Origin header before a consumer of `websocket.connect` (a class-based decorator).

    A subclass defines `validate_origin`, which is asked about every origin, also "null" and "file://". A
    handshake that fails it, whose Origin is missing, sent twice or not ASCII, is refused with
    DenyConnection. This replaces the check that every other consumer gets.

    It decorates functions and classes. A class stays the same class; it may also name its validator as
    `origin_validator` in its body.
    """

    #: Read by `origin_allowed`; functools.wraps carries it through further decorators.
    validates_origin = True

    func: Consumer

    def __new__(cls, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not callable(func) or (args and is_own(cls.__init__)):
            raise TypeError(
                "@%s is written above a function, method or class, without parentheses."
                % cls.__name__
            )
        if isinstance(func, type):
            if "origin_validator" in func.__dict__:
                raise TypeError(
                    "%s has the origin validator %r already. Write one validator that asks both."
                    % (func.__name__, func.__dict__["origin_validator"])
                )
            return _mark(func, "origin_validator", cls)
        return super().__new__(cls)

    def __init__(self, func: Consumer) -> None:
        functools.update_wrapper(self, func)
        self.__dict__["validates_origin"] = True
        self.func = func

    def __call__(self, message: Message, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        if not answer_of(self.allows(message), "%s.allows" % name):
            raise DenyConnection("Origin refused by %s." % name)
        return self.func(message, *args, **kwargs)

    def allows(self, message: Message) -> bool:
        """Return whether the consumer may handle this handshake. A ValueError of a method refuses it."""
        name = type(self).__name__
        try:
            origin = answer_of(self.get_origin(message), "%s.get_origin" % name)
            if origin is None:
                return False
            answer = self.validate_origin(message, origin)
            return bool(answer_of(answer, "%s.validate_origin" % name))
        except ValueError:
            return False

    def get_origin(self, message: Message) -> str | None:
        """Return the Origin as text, or None. Raises ValueError if it is sent twice or isn't ASCII."""
        return read_origin(message)

    def validate_origin(self, message: Message, origin: str) -> bool:
        """Return whether a page of `origin` (text, as the header has it) may connect."""
        raise NotImplementedError("%s must define validate_origin()." % type(self).__name__)


class AllowedHostsOnlyOriginValidator(BaseOriginValidator):
    """
    Allow handshakes from pages of the hosts that ALLOWED_HOSTS names, on any port, and from pages that the
    site trusts without it.
    """

    def validate_origin(self, message: Message, origin: str) -> bool:
        return host_is_allowed(message, origin) or is_trusted(message, origin)


allowed_hosts_only = AllowedHostsOnlyOriginValidator

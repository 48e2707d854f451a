"""
Which web pages may open a WebSocket to this site: checks of the Origin header (RFC 6454, RFC 6455).

Cookies go with a WebSocket handshake from any page, and no same-origin rule holds scripts back, so
the worker calls `check_origin` before every consumer of `websocket.connect`: a page of a host in
ALLOWED_HOSTS may connect, any other is refused (403). A route says otherwise with `any_origin`,
`allowed_origins`, or a `BaseOriginValidator` of its own.

A handshake without Origin passes: every browser sends one, so it comes from a script, a test or a
native application, which could claim any origin it liked. `allowed_hosts_only` is stricter, as
Channels 1.1 documents it, and refuses that too.
"""

import functools
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from ..exceptions import DenyConnection

#: What Django takes for ALLOWED_HOSTS where that is empty and DEBUG is on.
DEBUG_HOSTS = [".localhost", "localhost", "127.0.0.1", "[::1]"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origin:
    """A web origin in parts: `scheme`, `host` (lower case, IPv6 in brackets) and `port` (int)."""

    def __init__(self, text):
        """Raises ValueError where `text` is no `scheme://host[:port]`."""
        parts = urlsplit(text)
        # A trailing dot marks the name as complete and names the same host.
        host = (parts.hostname or "").rstrip(".")
        more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if not parts.scheme or not host or more:
            raise ValueError("%r is no origin: it must read scheme://host[:port]." % (text,))
        self.scheme = parts.scheme
        self.host = "[%s]" % host if ":" in host else host
        self.port = parts.port or _DEFAULT_PORTS.get(self.scheme)


def read_origin(message):
    """
    The Origin header of a handshake as text, or None where there is none.

    Raises ValueError where there are several, or one that is not ASCII.
    """
    values = [value for name, value in message.get("headers") or () if name == b"origin"]
    if not values:
        return None
    if len(values) > 1:
        raise ValueError("The handshake has %d Origin headers." % len(values))
    return values[0].decode("ascii")


def host_is_allowed(origin):
    """Whether ALLOWED_HOSTS has the host of `origin` (text). Raises ValueError for no origin."""
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = DEBUG_HOSTS
    return validate_host(Origin(origin).host, allowed)


def origin_allowed(message, consumer=None):
    """
    Whether `consumer` (any callable, or None) may see this `websocket.connect` message.

    Reads what `any_origin`, `allowed_origins` and `BaseOriginValidator` left on the consumer.
    """
    if getattr(consumer, "any_origin", False) or getattr(consumer, "validates_origin", False):
        return True
    try:
        origin = read_origin(message)
        if origin is None:
            return True
        extra = getattr(consumer, "allowed_origins", ())
        return host_is_allowed(origin) or any(_matches(Origin(origin), one) for one in extra)
    except ValueError:
        return False


def check_origin(message, consumer=None):
    """Raise DenyConnection unless `origin_allowed(message, consumer)`."""
    if not origin_allowed(message, consumer):
        raise DenyConnection(
            "Origin refused: add its host to ALLOWED_HOSTS, or mark the consumer with "
            "channels.security.websockets.allowed_origins or any_origin."
        )


def any_origin(consumer):
    """
    Decorator: pages of any site may open this socket.

    For functions and classes; a class-based consumer may also say `any_origin = True` in its body.
    """
    return _mark(consumer, "any_origin", True)


def allowed_origins(*origins):
    """
    Decorator: pages of these origins may open this socket, besides those of ALLOWED_HOSTS.

    Each is `"scheme://host[:port]"`, where the host may begin with `*.` for every subdomain. A
    class-based consumer may also list them as `allowed_origins` in its body. Raises ValueError for
    anything else.
    """
    for origin in origins:
        if not isinstance(origin, str):
            raise ValueError('Write @allowed_origins("https://other.example"), not %r.' % (origin,))
        Origin(origin)
    return functools.partial(_mark, name="allowed_origins", value=origins)


def _mark(consumer, name, value):
    try:
        setattr(consumer, name, value)
    except AttributeError:  # a bound method takes no attributes

        @functools.wraps(consumer)
        def wrapper(message, *args, **kwargs):
            return consumer(message, *args, **kwargs)

        setattr(wrapper, name, value)
        return wrapper
    return consumer


def _matches(origin, pattern):
    """Whether an Origin is the one that `pattern` writes, or one of its subdomains."""
    wanted = Origin(pattern)
    if (origin.scheme, origin.port) != (wanted.scheme, wanted.port):
        return False
    if wanted.host.startswith("*."):
        return origin.host.endswith(wanted.host[1:])
    return origin.host == wanted.host


class BaseOriginValidator:
    """
    Class-based decorator for consumers of `websocket.connect` that looks at the Origin header.

    A subclass defines `validate_origin`. A handshake that fails it, or has no Origin or a malformed
    one, is refused with DenyConnection. It replaces the check every other consumer gets.
    """

    #: Read by `origin_allowed`; functools.wraps carries it through further decorators.
    validates_origin = True

    def __init__(self, func):
        functools.update_wrapper(self, func)
        self.__dict__["validates_origin"] = True
        self.func = func

    def __call__(self, message, *args, **kwargs):
        try:
            origin = self.get_origin(message)
            valid = origin is not None and self.validate_origin(message, origin)
        except ValueError:
            valid = False
        if not valid:
            raise DenyConnection("Origin refused by %s." % type(self).__name__)
        return self.func(message, *args, **kwargs)

    def get_origin(self, message):
        """The Origin as text, or None. ValueError where it is malformed."""
        origin = read_origin(message)
        if origin is not None:
            Origin(origin)
        return origin

    def validate_origin(self, message, origin):
        """Whether a page of `origin` (text, as the header has it) may connect."""
        raise NotImplementedError("%s must define validate_origin()." % type(self).__name__)


class AllowedHostsOnlyOriginValidator(BaseOriginValidator):
    """Passes handshakes from pages of the hosts in ALLOWED_HOSTS, and no other."""

    def validate_origin(self, message, origin):
        return host_is_allowed(origin)


allowed_hosts_only = AllowedHostsOnlyOriginValidator

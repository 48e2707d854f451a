"""
Web origins (RFC 6454), and the question whether this site trusts the page that opens a WebSocket.

The rule is that of Django's CSRF check. An origin is trusted if it is the site's own, as the Host header and
the scheme of the handshake tell, or if CSRF_TRUSTED_ORIGINS has it. Scheme and port count. With DEBUG, pages
of this machine are trusted, too, because front-end development servers use other ports.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http.request import validate_host

from ..compat import TRUSTED_HOSTS_LACK_SCHEME

if TYPE_CHECKING:
    from ..message import Message

if __package__ == "django.channels.security":
    from django.core.handlers.asgi_request import ASGIRequest
else:  # the add-on brings its own
    from channels.handlers.asgi_request import ASGIRequest

#: The hosts of this machine, and those that Django allows if ALLOWED_HOSTS is empty and DEBUG is on.
DEBUG_HOSTS = [".localhost", "localhost", "127.0.0.1", "[::1]"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

#: scheme, host and port of an origin, or of a pattern.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|\*?[a-z0-9._-]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE
)

#: The keys of a handshake that tell the site's own origin.
_KEYS = ("headers", "scheme", "server")


class Origin:
    """A web origin in parts: `scheme`, `host` (lower case, IPv6 in brackets) and `port` (int or None)."""

    def __init__(self, text: str, is_pattern: bool = False) -> None:
        """
        Parse `text`. Raises ValueError if it isn't `scheme://host[:port]`. The host of a pattern may begin
        with `*.`, or with a dot.
        """
        # fullmatch, because urlsplit removes line breaks and tabs, and accepts any character in a host.
        match = _ORIGIN.fullmatch(text)
        port = match and match.group(3)
        # A trailing dot marks the name as complete and names the same host.
        host = match and match.group(2).lower().rstrip(".")
        is_valid = host and (is_pattern or host[0] not in "*.") and 0 < int(port or 1) < 2**16
        if not match or not host or not is_valid:
            raise ValueError("%r isn't an origin: write scheme://host[:port]." % (text,))
        self.scheme = match.group(1).lower()
        self.host = host
        self.port = int(port) if port else _DEFAULT_PORTS.get(self.scheme)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __str__(self) -> str:
        if self.port == _DEFAULT_PORTS.get(self.scheme):
            return "%s://%s" % (self.scheme, self.host)
        return "%s://%s:%s" % self.parts

    @property
    def parts(self) -> tuple[str, str, int | None]:
        return self.scheme, self.host, self.port


def read_origin(message: Message) -> str | None:
    """
    Return the Origin header of a handshake as text, or None if it is missing.

    Raises ValueError if there are several, or if it isn't ASCII.
    """
    values = _origin_headers(message)
    if not values:
        return None
    if len(values) > 1:
        raise ValueError("The handshake has %d Origin headers." % len(values))
    return values[0].decode("ascii")


def origin_text(message: Message) -> str:
    """Return what the handshake has as its Origin, well-formed or not, for a log line."""
    return ", ".join(value.decode("latin-1") for value in _origin_headers(message))


def _origin_headers(message: Message) -> list[bytes]:
    return [value for name, value in message.get("headers") or () if name.lower() == b"origin"]


def own_origin(message: Message) -> Origin | None:
    """
    Return the origin of this site's own pages, as the handshake tells it. None if ALLOWED_HOSTS refuses its
    Host header.

    Django reads the headers: SECURE_PROXY_SSL_HEADER, USE_X_FORWARDED_HOST and USE_X_FORWARDED_PORT count.
    """
    request = ASGIRequest({key: message.get(key) for key in _KEYS})
    try:
        return Origin("%s://%s" % (request.scheme, request.get_host()))
    except (DisallowedHost, ValueError):
        return None


def is_trusted(message: Message, text: str) -> bool:
    """
    Return whether this site trusts pages of the origin `text` with the socket of this handshake.

    Raises ValueError if `text` isn't an origin.
    """
    origin, own = Origin(text), own_origin(message)
    return (
        origin == own
        or any(
            _trusts(entry, origin, own) for entry in getattr(settings, "CSRF_TRUSTED_ORIGINS", ())
        )
        or (settings.DEBUG and is_local(origin))
    )


def is_local(origin: Origin) -> bool:
    """Return whether `origin` is of pages that this machine serves."""
    return origin.scheme in ("http", "https") and bool(validate_host(origin.host, DEBUG_HOSTS))


def host_is_allowed(message: Message, text: str) -> bool:
    """
    Return whether ALLOWED_HOSTS names the host of the origin `text`. A `*` there names no host, and a page
    that came without TLS may not open a socket with TLS.

    Raises ValueError if `text` isn't an origin.
    """
    origin = Origin(text)
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = DEBUG_HOSTS
    return bool(
        validate_host(origin.host, [each for each in allowed if each != "*"])
    ) and not is_downgrade(origin, own_origin(message))


def is_downgrade(origin: Origin, own: Origin | None) -> bool:
    """Return whether the page came without TLS, unlike its socket: anyone on the way may change it."""
    return origin.scheme == "http" and own is not None and own.scheme == "https"


def matches(origin: Origin, pattern: str) -> bool:
    """Return whether `pattern` is this origin, or with `*.` a domain that it is a subdomain of."""
    wanted = Origin(pattern, is_pattern=True)
    if (origin.scheme, origin.port) != (wanted.scheme, wanted.port):
        return False
    if wanted.host.startswith("*."):
        return origin.host.endswith(wanted.host[1:])
    return origin.host == wanted.host


def _trusts(entry: str, origin: Origin, own: Origin | None) -> bool:
    """Return whether an entry of CSRF_TRUSTED_ORIGINS, read as Django's CSRF check does, has this origin."""
    has_scheme = "://" in entry
    if not has_scheme and (not TRUSTED_HOSTS_LACK_SCHEME or origin.scheme not in ("http", "https")):
        return False  # a host without a scheme is an older form, see compat.py
    try:
        text = entry if has_scheme else "%s://%s" % (origin.scheme, entry)
        wanted = Origin(text, is_pattern=True)
    except ValueError:
        return False
    if (origin.scheme, origin.port) != (wanted.scheme, wanted.port):
        return False
    if not has_scheme and is_downgrade(origin, own):
        return False
    if has_scheme and wanted.host.startswith("."):
        return False  # Django reads a leading dot only without a scheme
    # Both "https://*.example.com" and ".example.com" have example.com itself, too.
    return cast(bool, validate_host(origin.host, [wanted.host.lstrip("*")]))


def explain(message: Message, consumer: str) -> str:
    """
    Return why the Origin of this handshake is refused, and what to set, as the rest of a sentence. `consumer`
    is the name of the consumer.
    """
    add = (
        "To let its pages in, add it to CSRF_TRUSTED_ORIGINS%s, or to the allowed_origins of %s"
        % (" (scheme://host)" if TRUSTED_HOSTS_LACK_SCHEME else "", consumer)
    )
    try:
        origin = Origin(read_origin(message) or "")
    except ValueError:
        return (
            "not one scheme://host[:port]. Only an origin validator of %s could accept it"
            % consumer
        )
    own = own_origin(message)
    if own is None:
        return (
            "not trusted, because the Host header of the handshake isn't in ALLOWED_HOSTS. Add the host "
            "there if it is the site's. %s" % add
        )
    return "not %s, the site's own. %s%s" % (own, _remedy(origin, own), add)


def _remedy(origin: Origin, own: Origin) -> str:
    """Return what to set if a proxy hides the scheme or the port of the site, or ""."""
    if origin.host != own.host:
        return ""
    if origin.scheme == "https" and own.scheme == "http":
        return (
            "If a proxy in front terminates TLS, let it send X-Forwarded-Proto, and set "
            "SECURE_PROXY_SSL_HEADER. "
        )
    if origin.scheme == own.scheme:
        return (
            "If a proxy in front drops the port, let it pass on the Host header unchanged (nginx: "
            "proxy_set_header Host $http_host). "
        )
    return ""

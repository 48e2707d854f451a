"""
The limits of a gateway that a site may set, under "GATEWAY" in its entry of CHANNEL_LAYERS, and the check of
a request's head against them. Pure: no I/O, no clock.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Mapping, NamedTuple, Pattern

from django.core.exceptions import ImproperlyConfigured

from .headers import are_headers, content_length, has_one_end, is_token

KB, MB, GB = 1024, 1024**2, 1024**3

#: Bytes that each header counts besides its name and its value, as in HTTP/2 (RFC 9113, section 6.5.2).
HEADER_OVERHEAD = 32

#: The status of a head that is malformed, those of one that is too large, and of a body that is.
BAD_REQUEST = 400
URI_TOO_LONG, HEADERS_TOO_LARGE, BODY_TOO_LARGE = 414, 431, 413

#: The status of a request behind which too many others of its connection wait.
TOO_MANY_REQUESTS = 429

#: The largest body_in_message. The rest of a message of a megabyte is left for the head of the request.
MAX_BODY_IN_MESSAGE = 768 * KB

#: The options that are not integers: regular expressions, and booleans.
STREAM_PATHS = "stream_paths"
SWITCHES = ("share_frames", "compression")


class Limits(NamedTuple):
    """What one gateway allows. A size is in bytes, a time in seconds."""

    #: Size of all headers of a request or handshake together: above it, 431.
    headers_size: int = 64 * KB
    #: Size of a request's path and query together: above it, 414.
    target_size: int = 8 * KB
    #: Requests and handshakes of one address that may wait for their turn: above it, 503 and 1013.
    address_waiting: int = 1000
    #: The same of one session, where the client sends its cookie.
    session_waiting: int = 200
    #: Seconds for which nothing may come from a socket: after them, 1001. 0 disables this.
    idle_time: int = 0
    #: Size of the frames of one address, and of all, that workers have not handled: above it, their sockets
    #: are not read.
    address_frames: int = 32 * MB
    frames_memory: int = 64 * MB
    #: Size of the answers of all sockets that clients have not read: above it, a socket whose client has not
    #: read 64 KB has to wait with its frames. One address has as much as it leaves free.
    unread_memory: int = 64 * MB
    #: Size of a response that may wait for its client while its worker goes on.
    response_size: int = 16 * MB
    #: Size of all responses that wait for clients: in memory, and in a temporary file.
    responses_memory: int = 64 * MB
    responses_file: int = 4 * 1024 * MB
    #: Bytes a second that a client must read while a worker waits for it.
    response_rate: int = 8 * KB
    #: Size of a request's body that is sent with the request, in one message.
    body_in_message: int = 256 * KB
    #: Size of a body: above it, 413.
    body_size: int = GB
    #: Bytes of one body, and of all bodies, that are kept in memory. What is more goes into a file.
    body_memory: int = MB
    bodies_memory: int = 64 * MB
    #: Bytes of all bodies in the temporary file: above it, 503.
    bodies_disk: int = 4 * GB
    #: A client gets `body_grace` for its body, and a second more for each `body_rate` bytes that it has sent,
    #: but no more than `body_time`. After that, 408.
    body_rate: int = KB
    body_grace: int = 30
    body_time: int = 3600
    #: Regular expressions: the view of a path that one of them finds gets the body as it comes.
    stream_paths: tuple[Pattern[str], ...] = ()
    #: Whether a frame for a group is encoded once for all its members, where the server is known.
    share_frames: bool = True
    #: Whether the server may agree to compressed frames of sockets.
    compression: bool = False


def make_limits(options: Mapping[str, Any] | None) -> Limits:
    """Return the Limits that `options` change. Raises ImproperlyConfigured, naming the option."""
    values = Limits()._asdict()
    if options is not None and not isinstance(options, Mapping):
        raise ImproperlyConfigured("GATEWAY is a dict of options, not %r." % (options,))
    for name, value in (options or {}).items():
        if name not in values:
            near = difflib.get_close_matches(str(name), list(values), 1)
            raise ImproperlyConfigured(
                "GATEWAY doesn't know the option %r%s. The options are: %s."
                % (name, ": do you mean %r?" % near[0] if near else "", ", ".join(sorted(values)))
            )
        if name == STREAM_PATHS:
            values[name] = _patterns(value)
            continue
        if name in SWITCHES:
            if not isinstance(value, bool):
                raise ImproperlyConfigured(
                    "The option %r of GATEWAY is True or False, not %r." % (name, value)
                )
            values[name] = value
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ImproperlyConfigured(
                "The option %r of GATEWAY is a positive integer, not %r." % (name, value)
            )
        if name == "body_in_message" and value > MAX_BODY_IN_MESSAGE:
            raise ImproperlyConfigured(
                "The option 'body_in_message' of GATEWAY is at most %d, not %d: a message holds no more."
                % (MAX_BODY_IN_MESSAGE, value)
            )
        values[name] = value
    return Limits(**values)


def _patterns(value: Any) -> tuple[Pattern[str], ...]:
    try:
        if isinstance(value, (list, tuple)):
            return tuple(map(re.compile, value))
    except (TypeError, re.error):
        pass
    raise ImproperlyConfigured(
        "The option %r of GATEWAY is a list of regular expressions, not %r." % (STREAM_PATHS, value)
    )


def check_request(limits: Limits, scope: Mapping[str, Any]) -> int | None:
    """Return the status that refuses a request whose head or body is too large, or None."""
    status = check_head(limits, scope)
    if status is None and (content_length(scope["headers"]) or 0) > limits.body_size:
        return BODY_TOO_LARGE
    return status


def check_head(limits: Limits, scope: Mapping[str, Any]) -> int | None:
    """
    Return the status that refuses a request or handshake whose head is too large or malformed, or None.
    """
    size = sum([len(name) + len(value) + HEADER_OVERHEAD for name, value in scope["headers"]])
    if size > limits.headers_size:
        return HEADERS_TOO_LARGE
    path, raw = scope["path"], scope.get("raw_path") or b""
    # Characters of the decoded path are at most 4 bytes; the raw one is what the client sent.
    size = max(len(raw), len(path) if path.isascii() else len(path.encode("utf-8", "replace")))
    size += len(scope.get("query_string") or b"")
    method = (scope.get("method") or "GET").encode("ascii", "backslashreplace")
    # These two are short by themselves, unless a client makes them long.
    if max(size, len(method), len(scope.get("root_path") or "")) > limits.target_size:
        return URI_TOO_LONG
    headers = scope["headers"]
    if not is_token(method) or not are_headers(headers):
        return BAD_REQUEST
    return None if scope["type"] != "http" or has_one_end(headers) else BAD_REQUEST

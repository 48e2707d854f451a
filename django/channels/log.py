"""The lines that `runserver` logs: one for each HTTP request, WebSocket opened, refused and closed.

They go to Django's own logger "django.server", whose formatter colours them by status. And what every
other line needs that has something of a client's in it (`visible`).
"""

import logging
import threading
import time

import django
from django.core.management.color import color_style

logger = logging.getLogger("django.server")

#: Beside the status, what the line of a WebSocket event says.
_WEBSOCKET_EVENTS = {
    "connected": ("OPEN", 101),
    "rejected": ("REFUSED", 403),
    "disconnected": ("CLOSE", None),
}


def visible(text):
    """`text` (any object) for a line of a log: what would break the line, or colour it, is escaped."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class ActionLog:
    """
    What daphne's Server calls as `action_logger(protocol, action, details)`.

    Durations are in seconds: of a request, of a handshake (OPEN, REFUSED), of a connection (CLOSE).
    """

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._since = {}  # client address of an open WebSocket, to the time of its last event

    def __call__(self, protocol, action, details):
        if protocol == "http" and action == "complete":
            self._http(details)
        elif protocol == "websocket":
            self._websocket(action, details)

    def _http(self, details):
        status = details["status"]
        logger.log(
            _level(status),
            "HTTP %s %s %s %s [%.3f s, %s]",
            visible(details["method"]),
            visible(details["path"]),
            status,
            details["size"],
            details["time_taken"],
            details["client"],
            extra={"status_code": status, "server_time": _server_time()},
        )

    def _websocket(self, action, details):
        client, now = details["client"], self._clock()
        if action == "connecting":
            self._since[client] = now
        # A refused handshake is followed by "disconnected", which says nothing new.
        if action not in _WEBSOCKET_EVENTS or client not in self._since:
            return
        since = self._since.pop(client)
        if action == "connected":
            self._since[client] = now
        event, status = _WEBSOCKET_EVENTS[action]
        logger.log(
            _level(status),
            "WebSocket %s %s%s [%.3f s, %s]",
            event,
            visible(details["path"]),
            " %d" % status if status else "",
            now - since,
            client,
            extra={"status_code": status, "server_time": _server_time()},
        )


def _server_time():
    """The time as the lines of Django's own development server have it."""
    return time.strftime("%d/%b/%Y %H:%M:%S")


def _level(status):
    if not status or status < 400:
        return logging.INFO
    return logging.WARNING if status < 500 else logging.ERROR


class _ServerFormatter(logging.Formatter):
    """What Django's formatter for "django.server" does since 1.10."""

    STYLES = {1: "HTTP_INFO", 2: "HTTP_SUCCESS", 3: "HTTP_REDIRECT", 5: "HTTP_SERVER_ERROR"}

    def __init__(self):
        super().__init__()
        self.style = color_style()

    def format(self, record):
        text = record.getMessage()
        status = getattr(record, "status_code", None)
        if status:
            name = self.STYLES.get(status // 100, "HTTP_BAD_REQUEST")
            name = {304: "HTTP_NOT_MODIFIED", 404: "HTTP_NOT_FOUND"}.get(status, name)
            text = getattr(self.style, name)(text)
        return "[%s] %s" % (getattr(record, "server_time", _server_time()), text)


def configure():
    """Gives "django.server" a handler where neither Django (before 1.10) nor the project did."""
    if django.VERSION < (1, 10) and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_ServerFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class Seldom:
    """Lets one of many lines alike through in `seconds`. Thread-safe."""

    def __init__(self, seconds=1.0, clock=time.monotonic):
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._next = self._held_back = 0

    def ask(self):
        """None: not now. Else the number of lines that were held back since the last."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                self._held_back += 1
                return None
            self._next = now + self._seconds
            held_back, self._held_back = self._held_back, 0
            return held_back


class LastResort(logging.StreamHandler):
    """
    Writes to stderr what nobody else would: in production, Django's default LOGGING leaves
    "django.channels" without a handler, and a consumer's traceback would be lost.
    """

    def __init__(self):
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record):
        if not logging.getLogger().handlers:
            super().emit(record)


def add_last_resort(settings):
    """Install LastResort, unless the site logs by LOGGING of its own, or DEBUG has the console do it."""
    channels_logger = logging.getLogger("django.channels")
    if not settings.LOGGING and not settings.DEBUG and not channels_logger.handlers:
        channels_logger.addHandler(LastResort())

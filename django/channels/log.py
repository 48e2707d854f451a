"""
The lines that `runserver` logs: one for each HTTP request, and one for each WebSocket that opens, is
refused or closes. They go to Django's logger "django.server", whose formatter colours them by status.

Tools for every other log line: `shown` cuts and escapes what a client sent, `RateLimit` limits how often a
line is logged, and `LastResort` writes lines that would reach no other handler. The file is a little over 400
lines because whatever makes a line of the log safe is here.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import django
from django.core.management.color import color_style

logger = logging.getLogger("django.server")
layer_logger = logging.getLogger("django.channels.layers")


class SafeLogger(logging.Logger):
    """
    A logger that raises nothing if a handler or a filter of the site does, because the code that logs must
    still answer its client. As Python does for handlers that write to a stream, the error goes to stderr.

    Control characters in a traceback are escaped, whatever handler and formatter the site or its server has.
    """

    def handle(self, record: logging.LogRecord) -> None:
        try:
            if record.exc_info and not record.exc_text:
                _escape_traceback(record)
            super().handle(record)
        except BaseException as error:
            # In the main thread, these two are how a process is told to end.
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and (
                threading.current_thread() is threading.main_thread()
            ):
                raise
            _show_lost_line(record)


def _escape_traceback(record: logging.LogRecord) -> None:
    """
    Give `record` the text of its traceback, if an exception has put control characters or very much text into
    it. Otherwise leave it to the formatters, which may write a traceback in another way.
    """
    whole = _plain.formatException(record.exc_info)  # type: ignore[arg-type]
    text = _shortened(whole)
    if len(text) < len(whole) or not text.replace("\n", "").replace("\t", "").isprintable():
        record.exc_text = "\n".join(visible(line) for line in text.split("\n"))


_plain = logging.Formatter()

#: Characters of a traceback in the log. The text of an exception may hold all that a client sent.
MAX_TRACEBACK = 32 * 1024


def _shortened(traceback: str) -> str:
    """Return a traceback (text), or its beginning and its end if it is longer than MAX_TRACEBACK."""
    surplus = len(traceback) - MAX_TRACEBACK
    if surplus <= 0:
        return traceback
    half = MAX_TRACEBACK // 2
    return "%s\n(%d characters are left out.)\n%s" % (traceback[:half], surplus, traceback[-half:])


def _show_lost_line(record: logging.LogRecord) -> None:
    """Write the error of a log handler to stderr, and the line that it has lost."""
    if not logging.raiseExceptions or sys.stderr is None:
        return
    try:
        sys.stderr.write("--- Logging error ---\n%s" % traceback.format_exc())
        sys.stderr.write("Message: %s\n" % visible(record.getMessage()))
        if record.exc_info and record.exc_info[0] is not None:
            sys.stderr.write("About: %s\n" % record.exc_info[0].__name__)
    except BaseException:  # also from `str` of the site's own objects
        pass


#: The loggers that this package logs to.
LOGGERS = ("django.channels",) + tuple(
    "django.channels." + name
    for name in (
        "binding",
        "consume",
        "delay",
        "gateway",
        "layers",
        "management",
        "worker",
    )
)

for _logger in map(logging.getLogger, LOGGERS):
    if type(_logger) is logging.Logger:  # not of another class that the site has chosen
        _logger.__class__ = SafeLogger


#: What the line of a WebSocket event says, and the status that colours it.
_WEBSOCKET_EVENTS: dict[str, tuple[str, int | None]] = {
    "connected": ("OPEN", 101),
    "rejected": ("REFUSED", 403),
    "disconnected": ("CLOSE", None),
}


#: The most characters of one thing that a client chose (a path, a name, an origin) in a log line.
MAX_SHOWN = 200


def shown(value: object) -> str:
    """Return what a client sent as text for a log line: `visible`, and at most MAX_SHOWN characters."""
    text = visible(str(value)[: MAX_SHOWN + 1])
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def visible(value: object) -> str:
    """Return `value` as text for a log line. Characters that would break or colour the line are escaped."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


#: WebSockets whose times are kept. Of more than these, the oldest get no further line.
MAX_TIMED = 10000


class ActionLog:
    """
    Log what Daphne's Server reports by calling `action_logger(protocol, action, details)`.

    Durations are in seconds: of a request, of a handshake (OPEN, REFUSED), of a connection (CLOSE).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: The time of the last event of each open WebSocket, by client address.
        self._since: dict[Any, float] = {}

    def __call__(self, protocol: str, action: str, details: Mapping[str, Any]) -> None:
        if protocol == "http" and action == "complete":
            self._http(details)
        elif protocol == "websocket":
            self._websocket(action, details)

    def _http(self, details: Mapping[str, Any]) -> None:
        status = details["status"]
        logger.log(
            _level(status),
            "HTTP %s %s %s %s [%.3f s, %s]",
            shown(details["method"]),
            shown(details["path"]),
            status,
            details["size"],
            details["time_taken"],
            details["client"],
            extra={"status_code": status, "server_time": _server_time()},
        )

    def _websocket(self, action: str, details: Mapping[str, Any]) -> None:
        client, now = details["client"], self._clock()
        if action == "connecting":
            if len(self._since) >= MAX_TIMED:
                del self._since[next(iter(self._since))]
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
            shown(details["path"]),
            " %d" % status if status else "",
            now - since,
            client,
            extra={"status_code": status, "server_time": _server_time()},
        )


def _server_time() -> str:
    """Return the time in the format of Django's development server."""
    return time.strftime("%d/%b/%Y %H:%M:%S")


def _level(status: int | None) -> int:
    if not status or status < 400:
        return logging.INFO
    return logging.WARNING if status < 500 else logging.ERROR


class _ServerFormatter(logging.Formatter):
    """Format lines as Django's own formatter for "django.server" does since 1.10."""

    STYLES = {1: "HTTP_INFO", 2: "HTTP_SUCCESS", 3: "HTTP_REDIRECT", 5: "HTTP_SERVER_ERROR"}

    def __init__(self) -> None:
        super().__init__()
        self.colors = color_style()

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        status = getattr(record, "status_code", None)
        if status:
            name = self.STYLES.get(status // 100, "HTTP_BAD_REQUEST")
            name = {304: "HTTP_NOT_MODIFIED", 404: "HTTP_NOT_FOUND"}.get(status, name)
            text = getattr(self.colors, name)(text)
        return "[%s] %s" % (getattr(record, "server_time", _server_time()), text)


def configure() -> None:
    """Give "django.server" a handler unless Django (from 1.10) or the project did."""
    if django.VERSION < (1, 10) and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_ServerFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


#: One line for each message that a worker handles, with `-v 2`.
consumers_logger = logging.getLogger("django.channels.consume")


def show_consumers() -> None:
    """Write the lines of `consumers_logger` to stderr, unless the site configures that logger."""
    if consumers_logger.level == logging.NOTSET:
        consumers_logger.setLevel(logging.INFO)
    if not consumers_logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        consumers_logger.addHandler(handler)
        consumers_logger.propagate = False


#: Starts, signals and ends of worker processes.
process_logger = logging.getLogger("django.channels.management")


def show_processes(settings: Any) -> None:
    """Write the lines of `process_logger` to stderr with their time, unless the site sets LOGGING."""
    if settings.LOGGING or process_logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s [%(process)d] %(message)s"))
    process_logger.addHandler(handler)
    process_logger.setLevel(logging.INFO)
    process_logger.propagate = False


class RateLimit:
    """Limit how often a line is logged: at most once in `seconds`. Thread-safe."""

    def __init__(self, seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._next = 0.0
        self._suppressed = 0

    def allow(self) -> int | None:
        """
        Return None if the line must not be logged now. Otherwise return how many lines were suppressed
        since the last one that was logged.
        """
        with self._lock:
            now = self._clock()
            if now < self._next:
                self._suppressed += 1
                return None
            self._next = now + self._seconds
            suppressed, self._suppressed = self._suppressed, 0
            return suppressed

    def log(self, write: Callable[..., None], text: str, *values: Any) -> None:
        """Log `text % values` by `write`, a method of a logger, unless it must not be logged now."""
        _write(write, self.allow(), text, values)

    def clear(self) -> None:
        """Forget the lines that were logged. For tests."""
        with self._lock:
            self._next, self._suppressed = 0.0, 0


def _write(
    write: Callable[..., None], suppressed: int | None, text: str, values: Sequence[Any]
) -> None:
    """Log a line, and at its end how many others like it were suppressed. Do nothing if that is None."""
    if suppressed:
        text, values = (
            text + " (And %d more like this since the last such line.)",
            (*values, suppressed),
        )
    if suppressed is not None:
        write(text, *values)


#: Keys whose last lines are remembered. Of more than these, the oldest is forgotten.
MAX_KEYS = 1000


class RateLimitByKey:
    """Limit how often a line about one thing is logged. With DEBUG, each line is logged. Thread-safe."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._limits: dict[str, RateLimit] = {}

    def allow(self, key: str) -> int | None:
        """Do as `RateLimit.allow` for the lines about `key`."""
        from django.conf import settings

        with self._lock:
            limit = self._limits.get(key)
            if limit is None:
                if len(self._limits) >= MAX_KEYS:
                    del self._limits[next(iter(self._limits))]
                limit = self._limits[key] = RateLimit(self._seconds, self._clock)
        return 0 if settings.DEBUG else limit.allow()

    def log(self, key: str, write: Callable[..., None], text: str, *values: Any) -> None:
        """Do as `RateLimit.log` for a line about `key`."""
        _write(write, self.allow(key), text, values)

    def clear(self) -> None:
        """Forget the lines that were logged. For tests."""
        with self._lock:
            self._limits.clear()


#: Seconds without an error after which a layer that can only be read counts as reached again: those of two
#: heartbeats, of which some succeed on a full disk.
WRITE_INTERVAL = 10.0


class Reachability:
    """
    Log one line when the server behind a layer can't be reached, and one when it can be again, however many
    threads of this process notice it. Thread-safe.

    The times are those (monotonic) at which a call began. A call that began before the last change says
    nothing new.
    """

    def __init__(self, layer: object) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._changed_at = float("-inf")
        #: Whether the last call has failed.
        self.is_away = False
        #: When (monotonic) a call last failed on a layer that can be read.
        self._unwritable_at = float("-inf")

    def failed(self, error: Exception, began: float) -> None:
        """Take note that a call failed with LayerUnavailable."""
        with self._lock:
            if getattr(error, "is_readable", False):
                self._unwritable_at = time.monotonic()
            if self.is_away or began < self._changed_at:
                return
            self.is_away, self._changed_at = True, time.monotonic()
        layer_logger.warning(
            "The channel layer %s cannot be reached: %s. This process tries again until it can.",
            self._layer,
            str(error).rstrip("."),
        )

    def succeeded(self, began: float) -> None:
        """Take note that a call succeeded."""
        if not self.is_away:
            return
        with self._lock:
            if not self.is_away or began < self._changed_at:
                return
            if began - self._unwritable_at < WRITE_INTERVAL:
                return  # it may have been a call that only reads
            self.is_away, away = False, time.monotonic() - self._changed_at
            self._changed_at = time.monotonic()
        layer_logger.warning(
            "The channel layer %s can be reached again, after %.1f s.", self._layer, away
        )


if TYPE_CHECKING:
    _StderrHandler = logging.StreamHandler[Any]
else:
    _StderrHandler = logging.StreamHandler


class _LastResortFormatter(logging.Formatter):
    """Format lines so that nothing in a traceback, such as what a client sent, looks like another line."""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # it may be that of another formatter, whose lines are not indented
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        lines = _shortened(super().formatException(ei)).split("\n")
        return "\n".join("    " + visible(line) for line in lines)


class LastResort(_StderrHandler):
    """
    Write lines to stderr that would reach no other handler. In production, Django's default LOGGING leaves
    "django.channels" without a handler, and a consumer's traceback would be lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(_LastResortFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


def add_last_resort(settings: Any) -> None:
    """Install LastResort, unless the site sets LOGGING or DEBUG (Django then logs to the console)."""
    channels_logger = logging.getLogger("django.channels")
    if not settings.LOGGING and not settings.DEBUG and not channels_logger.handlers:
        channels_logger.addHandler(LastResort())


def setup_logger(name: str, verbosity: int = 1) -> logging.Logger:
    """Return the logger `name`. Deprecated name of Channels 1.x: configure LOGGING instead."""
    from .moved import warn_moved

    warn_moved("%s.setup_logger" % __name__, "the setting LOGGING and logging.getLogger")
    named = logging.getLogger(name)
    named.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    return named

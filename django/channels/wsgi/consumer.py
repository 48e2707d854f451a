"""
A consumer that runs a WSGI application: its requests as `http.request` messages, its responses as replies.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, Iterable, Iterator

from django.http import HttpResponse, StreamingHttpResponse

from ..gateway.length import BODILESS
from ..handler import AsgiHandler, ViewConsumer
from ..log import RateLimit, shown
from .environ import environ_of

logger = logging.getLogger("django.channels.worker")

#: Seconds for which an application runs on after its client has the whole response.
RUN_ON_TIMEOUT = 10.0

_cut_off = RateLimit(60.0)

#: A WSGI application, as PEP 3333 defines it.
WSGICallable = Callable[[Dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Headers:
    """A response with the headers of a WSGI application, of which several may have one name."""

    wsgi_headers: list[tuple[str, str]] = []

    def items(self) -> list[tuple[str, str]]:
        return self.wsgi_headers


class _WholeResponse(_Headers, HttpResponse):  # type: ignore[misc]
    pass


class _StreamingResponse(_Headers, StreamingHttpResponse):  # type: ignore[misc]
    pass


class Run:
    """
    One call of a WSGI application: its status, its headers, and an iterator of its content.

    Raises what the application raises, and RuntimeError if it breaks PEP 3333. Belongs to one thread. `close`
    it when nothing more is read.
    """

    def __init__(self, application: WSGICallable, environ: dict[str, Any]) -> None:
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self._ready: list[bytes] = []  # what was written or read before the status was asked for
        self._sent = self._has_ended = False
        self._given = 0  # bytes of content
        self._method = environ["REQUEST_METHOD"]
        self._path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        self._result = application(environ, self._start_response)
        self._rest: Iterator[bytes] = iter(())
        try:
            self._rest = iter(self._result)
            # An application may call start_response as late as with its first part that isn't empty.
            for part in self._rest:
                self._ready.append(self._checked(part))
                if part:
                    break
            if self.status is None:
                raise RuntimeError("The WSGI application did not call start_response.")
        except BaseException:
            self.close()
            raise

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                # Servers have sent the headers once an application has written, and so raise here.
                if self._sent or any(self._ready):
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: leave no cycle with the traceback
        elif self.status is not None:
            raise RuntimeError("The WSGI application called start_response twice.")
        if not status[:3].isdecimal():
            raise RuntimeError("The WSGI application set the status %r." % (status,))
        self.status, self.headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self._ready.append(self._checked(data))

    def _checked(self, part: bytes) -> bytes:
        if self.status is None and part:
            raise RuntimeError(
                "The WSGI application did not call start_response before its content."
            )
        if not isinstance(part, bytes):
            raise RuntimeError(
                "The WSGI application returned content of type %s; it must be bytes."
                % type(part).__name__
            )
        return part

    @property
    def code(self) -> int:
        """The status as a number."""
        assert self.status is not None
        return int(self.status[:3])

    @property
    def is_whole(self) -> bool:
        """Whether the application has returned all its content at once, as most do."""
        return isinstance(self._result, (list, tuple))

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> bytes:
        self._sent = True
        if self._ready:
            part = self._ready.pop(0)
        else:
            try:
                part = self._checked(next(self._rest))
            except BaseException:  # its end, too
                self._has_ended = True
                raise
        self._given += len(part)
        return part

    def close(self) -> None:
        """
        Close the result of the application. If its client has the whole response, the application runs to its
        end before that, as under WSGI servers, which drop what it gives meanwhile. It may do so for
        RUN_ON_TIMEOUT seconds, because a client that leaves is not noticed any more.
        """
        try:
            if self.status is not None and not self._has_ended and self._is_answered():
                self._run_on()
        finally:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()

    def _is_answered(self) -> bool:
        """Return whether no more content can go to the client."""
        if self._method == "HEAD" or self.code in BODILESS:
            return True
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        return any(each.isdecimal() and int(each) <= self._given for each in lengths)

    def _run_on(self) -> None:
        deadline = time.monotonic() + RUN_ON_TIMEOUT
        for _ in self:
            if time.monotonic() > deadline:
                _cut_off.log(
                    logger.warning,
                    "The WSGI application was closed while it gave more content for %s: the response was "
                    "complete %g seconds before.",
                    shown(self._path),
                    RUN_ON_TIMEOUT,
                )
                break


class _WSGIHandler(AsgiHandler):
    """The handler with a WSGI application in the place of Django's middleware and views."""

    def __init__(self, application: WSGICallable, script_name: str) -> None:
        # Not that of the parent class, which would load Django's middleware.
        self.application = application
        self.script_name = script_name

    def get_response(self, request: Any) -> Any:
        run = Run(self.application, environ_of(request, self.script_name))
        closes = True
        try:
            response: Any
            if run.is_whole:
                response = _WholeResponse(b"".join(run), status=run.code)
            else:
                response = _StreamingResponse(run, status=run.code)
            response.wsgi_headers = run.headers
            for name, value in run.headers:
                if name.lower() == "content-length":
                    response["Content-Length"] = value
            closes = run.is_whole  # a stream is closed at its end
            return response
        finally:
            if closes:
                run.close()


class WSGIConsumer(ViewConsumer):
    """
    A consumer of `http.request` that runs `application`, any WSGI application::

        route("http.request", WSGIConsumer(application, script_name="/old"), path=r"^/old/")

    `script_name` is the beginning of the path, which the application gets as its SCRIPT_NAME. The response
    leaves as that of a view does: each part as soon as it exists, and at most a window ahead of the client.
    What an application passes to `write` leaves when it returns.
    """

    handler_class = _WSGIHandler

    def __init__(self, application: WSGICallable, script_name: str = "") -> None:
        if not callable(application):
            raise TypeError("WSGIConsumer runs a WSGI application, not %r." % (application,))
        if script_name and (script_name[0] != "/" or script_name[-1] == "/"):
            raise ValueError(
                "script_name begins with a slash and ends without one, like '/old', not %r."
                % script_name
            )
        super().__init__()
        self._handler = _WSGIHandler(application, script_name)

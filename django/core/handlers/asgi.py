"""
Django's HTTP handler for channels: an `http.request` message in, reply messages out.

The messages are those of the ASGI 1.0 HTTP specification. This module and those next to it
(`asgi_request`, `asgi_body`, `asgi_response`, `asgi_later`) use Django alone: no channel layer, no socket,
and nothing of channels is imported. If a body doesn't fit in its message, the caller passes the rest as an
iterable of bytes. The response is a generator of replies, which the caller sends.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, Callable, Iterable, Iterator, Mapping

import django
from django.conf import settings
from django.core import signals
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.handlers.base import BaseHandler
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseServerError,
)

from .asgi_body import BodyStream
from .asgi_later import AnswersLater
from .asgi_request import ASGIRequest
from .asgi_response import CHUNK_SIZE, contents_of, without_signal
from .asgi_signals import open_transactions_kept

__all__ = [
    "ASGIHandler",
    "ASGIRequest",
    "BodyStream",
    "CHUNK_SIZE",
    "convert_exception_to_response",
]

if django.VERSION >= (1, 10):
    from django.core.handlers.exception import convert_exception_to_response
    from django.urls import set_script_prefix
else:  # not from compat.py: see the first lines of this file
    from django.core.urlresolvers import get_resolver, set_script_prefix

    _ERROR_STATUSES = ((Http404, 404), (PermissionDenied, 403), (SuspiciousOperation, 400))

    def convert_exception_to_response(
        get_response: Callable[[HttpRequest], HttpResponse],
    ) -> Callable[[HttpRequest], HttpResponse]:
        """Return a function that calls `get_response(request)`, and turns exceptions into responses."""

        def inner(request: HttpRequest) -> HttpResponse:
            try:
                return get_response(request)
            except Exception as error:
                handler, resolver = BaseHandler(), get_resolver(None)
                if isinstance(error, Http404) and settings.DEBUG:
                    from django.views.debug import technical_404_response

                    return technical_404_response(request, error)
                for kind, status in _ERROR_STATUSES:
                    if isinstance(error, kind):
                        known = () if django.VERSION < (1, 9) else (error,)
                        return handler.get_exception_response(request, resolver, status, *known)
                return handler.handle_uncaught_exception(request, resolver, sys.exc_info())

        return inner


logger = logging.getLogger("django.request")

#: The most characters of a path, which a client chose, in a log line.
MAX_SHOWN = 200


def may_have_body(response: Any) -> bool:
    """Return whether the status of a response allows a body."""
    status: int = response.status_code
    return status not in (204, 304) and not 100 <= status < 200


class ASGIHandler(AnswersLater):
    """
    The site as a function of a message: `handler(message, body)` returns a generator of replies.

    The first step of the generator runs the site's middleware and view. A streaming response is read step
    by step. The end of the generator closes the response, which sends `request_finished`. A subclass may
    close it later: see `call_after_replies`. If the iterable of the body raised an exception and the site
    answered with an error, the generator raises that exception, so that the caller decides on the reply.
    """

    request_class: type[ASGIRequest] = ASGIRequest

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    def __call__(
        self, message: Mapping[str, Any], body: Iterable[bytes] | None = None
    ) -> Iterator[dict[str, Any]]:
        answer = self.respond(message, body)
        if answer is not None:
            yield from self.encode_response(*answer)

    def respond(
        self,
        message: Mapping[str, Any],
        body: Iterable[bytes] | None = None,
        request: Any = None,
    ) -> tuple[Any, bool] | None:
        """
        Return the site's response and whether it answers a HEAD, or None if other code will answer. The
        caller passes both to `encode_response`, which closes the response. `request` is the HttpRequest, if
        the caller has made it already.
        """
        response: Any
        try:
            if request is None:
                request = self.request_class(message, body)
        except UnicodeError as error:
            # As under WSGI: the path isn't text, so middleware and views cannot run.
            logger.warning(
                "Bad Request (%s)",
                error.__class__.__name__,
                exc_info=True,
                extra={"status_code": 400},
            )
            request, head = None, False
            self._start("", {})
            response = HttpResponseBadRequest()
        else:
            head = request.method == "HEAD"
            self._start(request.script_name, request.META)
            try:
                response = self.get_response(request)
            except BaseException:
                # Only with DEBUG_PROPAGATE_EXCEPTIONS, or for an exception that Django doesn't catch.
                self.call_after_replies(self._send_finished)
                raise
        response._handler_class = self.__class__
        if request is not None:
            failure = request._incoming.failure
            if failure is not None and response.status_code >= 400:
                self.close_response(response)
                raise failure
            if self.is_answered_later(request, response):
                self.close_response(response)
                return None
        return response, head

    @classmethod
    def _start(cls, script_name: str, environ: dict[str, Any], signalled: bool = False) -> None:
        set_script_prefix(script_name or "/")
        if not signalled:
            with open_transactions_kept():
                signals.request_started.send(sender=cls, environ=environ)

    @classmethod
    def _send_finished(cls) -> None:
        with open_transactions_kept():
            signals.request_finished.send(sender=cls)

    @classmethod
    def call_after_replies(cls, call: Callable[[], Any]) -> None:
        """
        Call `call()`, which may take long. A subclass may do it later, in the same thread, when the caller
        has sent the replies.
        """
        call()

    @classmethod
    def handle_uncaught(
        cls, message: Mapping[str, Any], error: BaseException, signalled: bool = False
    ) -> Iterator[dict[str, Any]]:
        """
        Return the replies to `message` (a generator) with the site's error page for the exception `error`,
        which code other than a view raised. It is logged and signalled as Django does, once. With
        `signalled`, a handler has taken the request before, so that the signals around it aren't sent again.
        """

        def fail(request: HttpRequest) -> HttpResponse:
            raise error

        try:
            # An empty rest of the body, because the code that failed may have read it already.
            request = cls.request_class(message, ())
            cls._start(request.script_name, request.META, signalled)
            head = request.method == "HEAD"
            response = convert_exception_to_response(fail)(request)
        except BaseException as raised:
            # The site's own error page failed, or it wants exceptions propagated, or Django catches none
            # of this class.
            path = str(message.get("path"))[:MAX_SHOWN].encode("unicode_escape").decode("ascii")
            logger.error("Internal Server Error: %s", path, exc_info=raised)
            head = message.get("method") == "HEAD"
            response = HttpResponseServerError("<h1>Server Error (500)</h1>")
        response._handler_class = cls
        return cls.encode_response(without_signal(response) if signalled else response, head)

    @classmethod
    def encode_response(cls, response: Any, head: bool = False) -> Iterator[dict[str, Any]]:
        """
        Yield the replies that carry `response`, and close it at their end. The first one has `status` and
        `headers`; all have `more_content` and at most CHUNK_SIZE bytes of `content`.

        With `head`, or if the status allows no body, the content is empty. A content that is longer than the
        Content-Length is cut. Raises ResponseTooShort for one that is shorter, and what the iterator of a
        streaming response raises.
        """
        try:
            reply = cls.head_of(response)
            if head or not may_have_body(response):
                reply["content"] = b""
                reply["more_content"] = False
                yield reply
                return
            contents = contents_of(response)
            try:
                for content, last in contents:
                    reply["content"] = content
                    reply["more_content"] = not last
                    yield reply
                    reply = {}
            finally:
                # A loop that is left early doesn't close its generator. Until Python 3.10, the garbage
                # collector did it much later.
                if response.streaming:
                    cls._close_now(contents)
        finally:
            cls.close_response(response)

    @classmethod
    def head_of(cls, response: Any) -> dict[str, Any]:
        """Return the status and the headers of a response, as the first reply has them."""
        has_body = may_have_body(response)
        headers = []
        for name, value in response.items():
            name = name.encode("ascii").lower()
            # A length that no body follows makes some servers wait for it, or raise.
            if has_body or name != b"content-length":
                headers.append([name, value.encode("latin-1")])
        for cookie in response.cookies.values():
            headers.append([b"set-cookie", cookie.OutputString().encode("utf-8")])
        return {"status": response.status_code, "headers": headers}

    @classmethod
    def close_response(cls, response: Any) -> None:
        """Close a response, when the replies have left."""
        cls.call_after_replies(functools.partial(cls._close_now, response))

    @staticmethod
    def _close_now(response: Any) -> None:
        """Close a response, or the generator of its content. Raises nothing."""
        try:
            with open_transactions_kept():
                response.close()
        except BaseException:
            # The client has its response already: an error page would come too late.
            logger.exception("Closing the response failed.")

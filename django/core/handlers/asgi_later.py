"""Requests that other code answers later: what a view or middleware raises to say so, for `asgi.py`."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable

import django
from django.core.handlers import base
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse

try:  # this one also recognizes callables that are marked as asynchronous
    from asgiref.sync import iscoroutinefunction
except ImportError:
    from asyncio import iscoroutinefunction

if django.VERSION >= (1, 10):
    from django.core.handlers.exception import convert_exception_to_response


class AnswersLater(base.BaseHandler):
    """
    A handler for which an exception of `answered_later` is an ordinary end of a view, and of middleware.

    Outer middleware sees an empty response with the status 202, which is never sent. `is_answered_later`
    tells the caller.
    """

    #: Exceptions by which a view or middleware says that other code will answer the request.
    answered_later: tuple[type[BaseException], ...] = ()

    def load_middleware(self, *args: Any, **kwargs: Any) -> None:
        if django.VERSION >= (1, 10):
            # Django wraps each middleware in what this name of its module stands for.
            base.convert_exception_to_response = _convert
        outer, _loading.handler = _loading.handler, self if self.answered_later else None
        try:
            super().load_middleware(*args, **kwargs)
        finally:
            _loading.handler = outer
        if self.answered_later and django.VERSION < (2, 0):
            self._catch_in_old_middleware()

    @staticmethod
    def is_answered_later(request: Any, response: Any) -> bool:
        """Return whether other code answers `request`, for which this handler has made `response`."""
        # Middleware may have passed on a copy of the request, or returned another response.
        return any(getattr(each, "_answered_later", False) for each in (request, response))

    def _catch_in_old_middleware(self) -> None:
        """Catch what the methods of MIDDLEWARE_CLASSES raise. Django calls them one by one."""
        for kind in ("request", "view", "template_response", "response", "exception"):
            name = "_%s_middleware" % kind
            answer = self._render_later if kind == "template_response" else self._answer_later
            methods = getattr(self, name, None) or []
            setattr(self, name, [self._catch_later(each, answer) for each in methods])

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """
        Return the view as Django calls it, with ATOMIC_REQUESTS in a transaction.

        A view that is answered later ends here with a response, inside the transaction: an exception would
        roll it back.
        """
        atomic: Callable[..., Any] = super().make_view_atomic(view)
        # Without a transaction, the exception may leave the view: see `process_exception_by_middleware`.
        catches = atomic is not view
        if django.VERSION < (1, 10):
            catches = True  # that method isn't called
        if self.answered_later and catches:
            atomic = super().make_view_atomic(self._catch_later(view))
        return atomic

    def _catch_later(
        self, call: Callable[..., Any], answer: Callable[[Any], Any] | None = None
    ) -> Callable[..., Any]:
        """
        Return `call`, whose first argument is the request, with what `answer` (`_answer_later`) returns in
        the place of an exception of `answered_later`.
        """
        later = self.answered_later
        respond = answer or self._answer_later
        wrapper: Callable[..., Any]
        if iscoroutinefunction(call):

            async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                try:
                    return await call(request, *args, **kwargs)
                except later:
                    return respond(request)

        else:

            def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                try:
                    return call(request, *args, **kwargs)
                except later:
                    return respond(request)

        # `update_wrapper` needs the attributes of a function; a view may be any object that can be called.
        present = [each for each in functools.WRAPPER_ASSIGNMENTS if hasattr(call, each)]
        return functools.update_wrapper(wrapper, call, assigned=present)

    def process_exception_by_middleware(
        self, exception: BaseException, request: HttpRequest
    ) -> HttpResponse | None:
        if isinstance(exception, self.answered_later):
            return self._answer_later(request)
        return super().process_exception_by_middleware(exception, request)

    def handle_uncaught_exception(
        self, request: HttpRequest, resolver: Any, exc_info: Any
    ) -> HttpResponse:
        """Return the response for an exception. Django calls this before 2.0 only."""
        if self.answered_later and issubclass(exc_info[0], self.answered_later):
            return self._answer_later(request)
        return super().handle_uncaught_exception(request, resolver, exc_info)

    @staticmethod
    def _answer_later(request: Any) -> HttpResponse:
        # Middleware needs a response; this one is never sent. No middleware treats 202 as an error, or
        # stores it in a cache.
        return _mark(request, HttpResponse(status=202))

    @staticmethod
    def _render_later(request: Any) -> Any:
        """Do as `_answer_later`, where Django renders the response afterwards."""
        response: Any = SimpleTemplateResponse((), status=202)
        response.content = b""  # it counts as rendered
        return _mark(request, response)


def _mark(request: Any, response: Any) -> Any:
    request._answered_later = response._answered_later = True
    return response


class _Loading(threading.local):
    """The handler whose middleware this thread loads, if it is one that answers later."""

    handler: AnswersLater | None = None


_loading = _Loading()


def _convert(get_response: Callable[..., Any]) -> Callable[..., Any]:
    """Do as Django's function of this purpose, after catching what says that other code will answer."""
    handler = _loading.handler
    if handler is not None:
        get_response = handler._catch_later(get_response)
    converted: Callable[..., Any] = convert_exception_to_response(get_response)
    return converted

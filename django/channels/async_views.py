"""
Run asynchronous views on the event loop of a worker, so that a view that waits holds no thread.

This module decides which requests go to the event loop, and has Django answer them there. Other requests, and
those whose body doesn't fit in one message, run in a worker's thread (`handler.py`). Nothing here sends a
response.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core import signals
from django.http import Http404
from django.utils.translation import get_language_from_path, override

from . import protocol
from .compat import get_resolver, iscoroutinefunction, set_script_prefix
from .continued import current_event
from .coroutines import in_thread
from .exceptions import ChannelFull, LayerUnavailable
from .protocol import BODY_CHANNEL, REPLY_CHANNEL

if TYPE_CHECKING:
    from .continued import Continued
    from .message import Message

#: Seconds that a view may take before its gateway is asked to tell whether the client has gone.
WATCH_INTERVAL = 0.5

#: Paths whose view is remembered. Clients choose them, so they are few.
MAX_GUESSES = 256


class AsyncViews:
    """
    Answers requests whose view is asynchronous, for a `handler_class` like AsgiHandler.

    Whether a view is asynchronous is known only when the middleware has run: it may choose the URLconf, the
    language of the URL or another path. Where it must run, on the event loop or in a thread, has to be
    decided before. So `request_for` guesses, from the path alone, and Django's handler gives the right
    response in both places. Where the guess was a thread and the view was asynchronous, `learn` corrects it:
    requests for which the same view is guessed go to the event loop from then on.

    Thread-safe: `request_for` and `learn` are for a worker's threads, and `respond` for the event loop.
    """

    def __init__(self, handler_class: Any) -> None:
        self._handler: Any = None
        self._lock = threading.Lock()
        self._handler_class = handler_class
        self._site = _Site(None)

    def request_for(self, message: Message) -> tuple[Any, bool]:
        """
        Return the HttpRequest of `message`, and whether its view seems to be asynchronous and its body is all
        in the message. The request is None if the guess needed none.
        """
        request = None
        if django.VERSION < (4, 2) or message.content.get(BODY_CHANNEL):
            return None, False
        try:
            site = self._current_site()
            if not site.has_async_views:
                return None, False
            request = self._handler_class.request_class(message)
            view, is_async = site.guess_view(request.path_info)
        except Exception:
            # Of the site's URLconf, or for a path that isn't text. In a thread, the handler answers it.
            return None, False
        if is_async or view in site.misleading:
            return request, True
        message.guessed_view = view
        return request, False

    def learn(self, message: Message, view: Any) -> None:
        """Take note of the view that a request reached in a thread."""
        # `request_for` has looked at the view that it guessed.
        if view is message.guessed_view or not iscoroutinefunction(view):
            return
        site = self._site
        site.has_async_views = True
        if message.guessed_view is not False:
            site.misleading.add(message.guessed_view)

    def _current_site(self) -> _Site:
        """Return what is known of the site's URLs. A changed ROOT_URLCONF or a cleared cache begins anew."""
        resolver = get_resolver(None)
        site = self._site
        if site.resolver is not resolver:
            site = _Site(resolver)
            # A site without asynchronous views pays nothing for each request.
            site.has_async_views = _has_async_view(resolver.url_patterns)
            self._site = site
        return site

    async def respond(self, request: Any) -> Any:
        """
        Return what `ASGIHandler.respond` does: the response, and whether it answers a HEAD. None if other
        code will answer, or if the client has gone: the view is cancelled then, as by Django's own handler.
        """
        event = current_event()
        event.threads.take_from(event.loop.view_threads)
        handler = self._handler
        if handler is None:
            handler = await in_thread(self._load)
        set_script_prefix(request.script_name or "/")
        request.message.is_signalled = True
        await in_thread(_send_started, handler.__class__, request.META)
        watch = asyncio.ensure_future(_watch_client(event, request.message))
        try:
            response = await handler.get_response_async(request)
        except asyncio.CancelledError:
            handler.call_after_replies(handler._send_finished)
            if event.stops or not event.window.is_closed:
                raise
            return None
        except BaseException:
            # Only with DEBUG_PROPAGATE_EXCEPTIONS, or for an exception that Django doesn't catch.
            handler.call_after_replies(handler._send_finished)
            raise
        finally:
            watch.cancel()
        response._handler_class = handler.__class__
        if handler.is_answered_later(request, response):
            handler.close_response(response)
            return None
        return response, request.method == "HEAD"

    def _load(self) -> Any:
        """Return the handler, with the site's middleware. Its constructors may block."""
        with self._lock:
            if self._handler is None:
                handler = self._handler_class()
                handler.load_middleware(is_async=True)
                self._handler = handler
            return self._handler


class _Site:
    """
    What is known of the URLs of `resolver`, that of ROOT_URLCONF.

    * `has_async_views`: whether this URLconf has any, or a request has reached one in another URLconf;
    * `misleading`: views of this URLconf that were guessed for requests which reached an asynchronous one.
      None stands for a path without a view. It holds no more than the views of the site;
    * `guess_view(path)`: what `_guess_view` returns. It remembers the last paths.
    """

    def __init__(self, resolver: Any) -> None:
        self.resolver = resolver
        self.guess_view = functools.lru_cache(MAX_GUESSES)(functools.partial(_guess_view, resolver))
        self.has_async_views = False
        self.misleading: set[Any] = set()


def _guess_view(resolver: Any, path: str) -> tuple[Any, bool]:
    """
    Return the view of `path` as LocaleMiddleware and no other middleware would find it, or None, and whether
    it is asynchronous.
    """
    language = get_language_from_path(path) if settings.USE_I18N else None
    try:
        with override(language) if language is not None else nullcontext():
            view = resolver.resolve(path).func
    except Http404:
        view = None
    return view, iscoroutinefunction(view)


def _send_started(sender: Any, environ: dict[str, Any]) -> None:
    signals.request_started.send(sender=sender, environ=environ)


async def _watch_client(event: Continued, message: Message) -> None:
    """Have the view cancelled when its client goes. It costs a message, so not for a quick view."""
    await asyncio.sleep(WATCH_INTERVAL)
    event.ends_with_client = True
    layer = message.channel_layer
    while True:
        try:
            # Not through a Channel, which removes control keys.
            await event.loop.call(
                layer.send, message[REPLY_CHANNEL], protocol.told_on(event.window.name)
            )
            return
        except (ChannelFull, LayerUnavailable):
            await asyncio.sleep(WATCH_INTERVAL)


def _has_async_view(patterns: Any) -> bool:
    """Return whether one of these URL patterns, or of those that they include, has an asynchronous view."""
    return any(
        _has_async_view(pattern.url_patterns)
        if hasattr(pattern, "url_patterns")
        else iscoroutinefunction(pattern.callback)
        for pattern in patterns
    )

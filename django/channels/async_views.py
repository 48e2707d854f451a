"""
Asynchronous views on the event loop of a worker, so that one which waits holds no thread.

Here: which requests have such a view, and how Django answers them. The other views, and those whose body
doesn't fit in its message, run in a worker's thread (`handler.py`). Nothing here sends a response.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import django
from django.core import signals
from django.http import Http404

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


class AsyncViews:
    """
    Answers requests whose view is asynchronous, for a `handler_class` like AsgiHandler. Needs Django 4.2.

    Thread-safe: `request_for` is for a worker's threads, and `respond` for the event loop.
    """

    def __init__(self, handler_class: Any) -> None:
        self._handler: Any = None
        self._lock = threading.Lock()
        self._handler_class = handler_class
        self._exist: bool | None = None if django.VERSION >= (4, 2) else False

    def request_for(self, message: Message) -> Any:
        """
        Return the HttpRequest of `message`, if its view is asynchronous and its body is all in the message.
        None otherwise.
        """
        if self._exist is None:
            # A site without any pays nothing for each request.
            self._exist = _has_async_view(get_resolver(None).url_patterns)
        if not self._exist or message.get(BODY_CHANNEL):
            return None
        try:
            request = self._handler_class.request_class(message)
            view = get_resolver(None).resolve(request.path_info).func
        except (Http404, UnicodeError):
            return None
        return request if iscoroutinefunction(view) else None

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
        if getattr(request, "_answered_later", False):
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

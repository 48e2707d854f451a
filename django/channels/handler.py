"""
Views as consumers: ViewConsumer takes `http.request`; AsgiHandler and AsgiRequest keep their 1.1 names.

The core handler (`django/core/handlers/asgi.py`) turns a message into a request and a response into
replies, and knows no layer. Here is what needs one: a body that arrives in parts on its own channel,
and a streamed response that stays at most a window ahead of the client.
"""

from __future__ import annotations

import logging
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Iterator

from django.core.signals import setting_changed
from django.http import HttpResponse

from . import protocol
from .advice import advise_host, advise_static
from .async_views import AsyncViews
from .coroutines import in_thread, run_here
from .eventloop import WorkerStops
from .exceptions import (
    ChannelFull,
    ClientGone,
    LayerUnavailable,
    RequestTimeout,
    ResponseLater,
)
from .gateway.limits import make_limits
from .log import shown
from .message import Message
from .outbox import outbox
from .protocol import BODY_CHANNEL, CLOSED, REPLY_CHANNEL, WINDOW_CHANNEL, WRITTEN, still_there
from .replies import deliver_or_log
from .streams import AsyncStream, log_refused, may_hold_a_thread, send_in_test
from .windows import Silence

if TYPE_CHECKING:
    from .channel import Channel
    from .eventloop import ConsumerLoop
    from .layers.base import BaseChannelLayer

# add-on: begin
# The add-on brings the handler as a separate module, because Django 3.0 and later use that name for
# another one.
# add-on: end
if __package__ == "django.channels":
    from django.core.handlers.asgi import CHUNK_SIZE, ASGIHandler, ASGIRequest, may_have_body
    from django.core.handlers.asgi_response import without_signal
else:
    from channels.handlers.asgi import CHUNK_SIZE, ASGIHandler, ASGIRequest, may_have_body
    from channels.handlers.asgi_response import without_signal

logger = logging.getLogger("django.channels.worker")

#: Seconds without any part of the body after which a request is answered with a 408.
BODY_TIMEOUT = 60.0

#: Replies of a streamed response that may be on their way to the client.
RESPONSE_WINDOW = 8

#: Seconds without any progress of the client after which a stream is closed. Without this bound, a
#: thread would wait forever if a gateway is lost and its notice with it.
STREAM_TIMEOUT = 300.0

#: Seconds between two polls of a slow stream for whether its client is still there.
WINDOW_POLL_INTERVAL = 1.0

#: Seconds between two attempts to send to a full channel, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.25


def read_body(message: Any) -> Iterator[bytes]:
    """
    Yield the parts of the body that follow the one in `message`, which has a `body_channel`.

    For each part it gives a credit back to the gateway, which then sends another one. Raises
    ClientGone if the client goes away, and RequestTimeout after BODY_TIMEOUT seconds without a part.
    """
    layer, channel = message.channel_layer, message[BODY_CHANNEL]
    while True:
        part = _wait(layer, channel, BODY_TIMEOUT)
        if part is None:
            raise RequestTimeout(f"No part of the request's body came in {BODY_TIMEOUT:g} seconds.")
        if part.get(CLOSED):
            raise ClientGone("The client went away before it had sent the request's body.")
        more = part.get("more_content", False)
        if more:
            _send(message, protocol.body_credit(1), BODY_TIMEOUT)
        yield part.get("content") or b""
        if not more:
            return


def _wait(layer: BaseChannelLayer, channel: str, seconds: float) -> dict[str, Any] | None:
    """Return the next message of `channel`, or None after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        _, found = layer.receive_many([channel], block=True)
        if found is not None or time.monotonic() > deadline:
            return found


def _wait_for_client(message: Message, window: str) -> dict[str, Any]:
    """
    Return the next notice on `window`. Raises ClientGone if the client takes nothing, or its gateway is lost.
    """
    layer, deadline = message.channel_layer, time.monotonic() + STREAM_TIMEOUT
    silence = Silence(layer, message[REPLY_CHANNEL], window)
    while True:
        _, found = layer.receive_many([window], block=True)
        if found is not None and found != still_there(False):
            return found
        if found is not None:
            silence.heard()
        elif time.monotonic() > deadline:
            raise ClientGone(f"The client took nothing for {STREAM_TIMEOUT:g} seconds.")
        elif not silence.ends():
            raise ClientGone("The gateway of the client is gone.")


def _send(message: Any, reply: dict[str, Any], seconds: float) -> None:
    """
    Send `reply` to the gateway of `message` now. While its inbox is full, try again. Raises ChannelFull
    after `seconds`.
    """
    deadline, interval = time.monotonic() + seconds, RETRY_INTERVAL
    while True:
        try:
            # Not through a Channel, which removes control keys.
            message.channel_layer.send(message[REPLY_CHANNEL], reply)
            return
        except ChannelFull:
            if time.monotonic() > deadline:
                raise
        time.sleep(interval)
        interval = min(interval * 2, MAX_RETRY_INTERVAL)


class AsgiRequest(ASGIRequest):
    """The HttpRequest of a Message, which is its attribute `message`."""

    ResponseLater = ResponseLater

    def __init__(self, message: Any, body: Any = None) -> None:
        if body is None and message.get(BODY_CHANNEL):
            body = read_body(message)
        # The dict itself, because each look into a Message costs a call.
        super().__init__(getattr(message, "content", message), body)
        self.message = message
        self.reply_channel: Channel | None = getattr(message, "reply_channel", None)


class AsgiHandler(ASGIHandler):
    """
    The site's middleware and views as a function of a Message: `handler(message)` returns a generator of
    replies.

    If the view raises ResponseLater, other code answers the request, and nothing is sent here. In a
    consumer, a response is closed when the replies have left.
    """

    request_class = AsgiRequest
    answered_later = (ResponseLater,)

    #: Called with the message and the view of each request, when its middleware has run. Views may be async.
    view_found: Callable[[Message, Any], None] | None = None

    def respond(self, message: Any, body: Any = None, request: Any = None) -> Any:
        if isinstance(message, Message):  # a consumer may pass on a dict
            message.is_signalled = True
        return super().respond(message, body, request)

    def resolve_request(self, request: Any) -> Any:
        match = super().resolve_request(request)
        message = getattr(request, "message", None)  # middleware may pass on another request
        if self.view_found is not None and message is not None:
            self.view_found(message, match.func)
        return match

    @classmethod
    def call_after_replies(cls, call: Callable[[], Any]) -> None:
        outbox.call_afterwards(call)


class ViewConsumer:
    """
    The consumer that `http.request` has by default: the site's middleware and views.

    A response of one message leaves when the consumer ends, as everything does that a consumer sends. A
    longer one leaves as it is made, at most RESPONSE_WINDOW messages ahead of the gateway. If the client goes
    away, the response is closed. An asynchronous stream is left to the event loop of the worker. Others hold
    their thread, and no more threads than StreamThreads allows.

    Thread-safe: the threads of a worker share one instance.
    """

    handler_class = AsgiHandler

    #: Whether requests for static files are answered here.
    serves_static = False

    def __init__(self) -> None:
        self._handler: AsgiHandler | None = None
        self._async_views = AsyncViews(self.handler_class)

    @property
    def handler(self) -> AsgiHandler:
        # Made with the first request, because routing may be read before the applications are ready.
        handler = self._handler
        if handler is None:
            handler = self.handler_class()
            handler.view_found = self._async_views.learn
            self._handler = handler
            _loaded.add(self)
        return handler

    def forget_middleware(self) -> None:
        """Load the site's middleware once more, with the next request."""
        self._handler, self._async_views = None, AsyncViews(self.handler_class)

    def __call__(self, message: Message, **kwargs: Any) -> Any:
        request = None
        if self._loop_of(message) is not None:
            request, is_async = self._async_views.request_for(message)
            if is_async:
                return self._answer_on_loop(message, request)
        self._answer(message, lambda: self.handler.respond(message, request=request))
        return None

    async def _answer_on_loop(self, message: Message, request: Any) -> None:
        """Answer a request whose view is asynchronous."""
        answer = await self._async_views.respond(request)
        if answer is None:
            return
        response, head = answer
        is_long = response.streaming or len(response.content) > CHUNK_SIZE
        if is_long and not head and not getattr(response, "is_async", False):
            # A thread of the loop waits for the client.
            await in_thread(self._answer, message, lambda: answer)
        else:
            self._answer(message, lambda: answer)

    def _answer(self, message: Message, respond: Callable[[], tuple[Any, bool] | None]) -> None:
        """Send the response that `respond()` returns, and whether it is for a HEAD. None: it has none."""
        replies: Any = iter(())
        holds = None
        try:
            answer = respond()
            if answer is None:
                return
            response, head = answer
            message.has_response = True
            if response.status_code in (400, 404):
                self._advise(message, response.status_code)
            if not head and response.streaming and getattr(response, "is_async", False):
                if may_have_body(response) and self._stream_async(message, response):
                    return
            holds = self._hold_a_thread(message, response) if not head else None
            if holds is False:
                self.handler_class.close_response(response)
                replies = self._instead(unavailable())
            else:
                replies = self.handler_class.encode_response(response, head)
            reply = next(replies, None)
            if reply is None:
                return
            if reply["more_content"]:
                self._stream(message, reply, replies)
        except ClientGone:
            return
        except RequestTimeout:
            reply = next(self._instead(_request_timeout()))
        except WorkerStops:
            reply = next(self._instead(unavailable()))
        except LayerUnavailable as error:
            # If the response has begun, the gateway breaks it off.
            logger.warning(
                "%s was answered with 503, because the channel layer %s could not be reached: %s",
                shown(message.get("path")),
                message.channel_layer.alias,
                error,
            )
            reply = next(self._instead(unavailable()))
        finally:
            close = getattr(replies, "close", None)
            if close is not None:
                close()
            if holds:
                message.worker.stream_threads.release()
        if not reply["more_content"]:
            message.reply_channel.send(reply)

    def _instead(self, response: HttpResponse) -> Iterator[dict[str, Any]]:
        """Return the replies of `response`, which is sent in the place of the site's own response."""
        replies: Iterator[dict[str, Any]]
        replies = self.handler_class.encode_response(without_signal(response))
        return replies

    def _advise(self, message: Message, status: int) -> None:
        """Log what a newcomer to deployment has forgotten, if that is why the client gets an error."""
        if status == 404 and not self.serves_static:
            advise_static(str(message.get("path")), str(message.get("root_path") or ""))
        elif status == 400:
            with suppress(UnicodeError):  # the path isn't text, which is logged
                advise_host(self.handler_class.request_class(message, ()))

    @staticmethod
    def _loop_of(message: Message) -> ConsumerLoop | None:
        """Return the event loop that may continue the event of `message`, or None."""
        worker = message.worker
        return worker.loop if worker is not None and worker.is_running else None

    def _stream_async(self, message: Message, response: Any) -> bool:
        """Send an asynchronous stream. Return False if it has to be sent as any other one."""
        loop = self._loop_of(message)
        if loop is not None:
            self._stream_on(loop, message, response)
        elif message.is_read:
            return False
        else:
            try:
                run_here(send_in_test(message, response, self.handler_class.head_of(response)))
            finally:
                self.handler_class.close_response(response)
        return True

    def _stream_on(self, loop: ConsumerLoop, message: Message, response: Any) -> None:
        """Have the event loop send an asynchronous stream, so that this thread need not wait for it."""
        if not loop.may_stream(message):
            reason = "its process may have %d asynchronous streams, and its address has its share"
            log_refused(message, reason % loop.limit)
            self.handler_class.close_response(response)
            for reply in self._instead(unavailable()):
                message.reply_channel.send(reply)
            return
        stream = AsyncStream(message, response, self.handler_class, RESPONSE_WINDOW, STREAM_TIMEOUT)
        outbox.continue_with(message, stream.run)

    @staticmethod
    def _hold_a_thread(message: Message, response: Any) -> bool | None:
        """
        Return True if this response may hold a thread for long, and is counted now; False if it may not,
        because others hold as many as are allowed. None: it takes no longer than its view.
        """
        threads = getattr(message.worker, "stream_threads", None)
        if threads is None:
            return None
        if not response.streaming and len(response.content) <= CHUNK_SIZE:
            return None
        size = make_limits(message.channel_layer.gateway_options).response_size
        if not may_hold_a_thread(response, size):
            return None
        if threads.acquire():
            return True
        log_refused(message, "%d threads hold streams already" % threads.limit)
        return False

    def _stream(
        self, message: Message, reply: dict[str, Any] | None, replies: Iterator[dict[str, Any]]
    ) -> None:
        """
        Send `reply`, the first of several, and the rest. Raises ClientGone if the client goes away.
        """
        layer = message.channel_layer
        window = layer.new_channel("http.window.?")
        if reply is not None:
            reply[WINDOW_CHANNEL] = window
        ahead, polled_at = 0, time.monotonic()
        while reply is not None:
            # A fast view learns from a full window that its client is lost; a slow view has to ask.
            if ahead >= RESPONSE_WINDOW or time.monotonic() > polled_at + WINDOW_POLL_INTERVAL:
                ahead -= self._written(message, window, ahead)
                polled_at = time.monotonic()
            # What the view has sent to channels and groups doesn't wait for the end of the stream.
            for send in outbox.take():
                deliver_or_log(send)
            if reply["content"] or not reply["more_content"] or "status" in reply:
                _send(message, reply, STREAM_TIMEOUT if message.is_read else 0.0)
                ahead += 1
            else:
                # An asynchronous stream waits. If the client has gone, the stream must not wait on.
                ahead -= self._written(message, window, ahead)
                polled_at = time.monotonic()
                if message.worker is not None and message.worker.stopping:
                    raise WorkerStops()
            reply = next(replies, None)

    @staticmethod
    def _written(message: Message, window: str, ahead: int) -> int:
        """
        Return how many messages the gateway has written. While the window is full, wait for it. Raises
        ClientGone if the client goes away, or takes nothing for STREAM_TIMEOUT seconds.
        """
        if not message.is_read:
            return ahead
        written = 0
        while True:
            if ahead - written >= RESPONSE_WINDOW:
                found = _wait_for_client(message, window)
            else:
                _, waiting = message.channel_layer.receive_many([window])
                if waiting is None:
                    return written
                found = waiting
            if found.get(CLOSED):
                raise ClientGone("The client went away while its response was sent.")
            written += found.get(WRITTEN, 0)


#: Those that have loaded the site's middleware.
_loaded: Any = weakref.WeakSet()


def _setting_changed(**kwargs: Any) -> None:
    """A test has changed a setting, which may be one of middleware."""
    for consumer in list(_loaded):
        consumer.forget_middleware()


setting_changed.connect(_setting_changed, dispatch_uid=__name__)


def unavailable() -> HttpResponse:
    """Return a 503."""
    response = HttpResponse("<h1>Service Unavailable (503)</h1>", status=503)
    response["Retry-After"] = "1"
    return response


def _request_timeout() -> HttpResponse:
    return HttpResponse("<h1>Request Timeout (408)</h1>", status=408)

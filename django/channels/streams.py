"""
Streaming responses that wait: asynchronous ones on the event loop of the worker, and how many threads the
others may hold.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .continued import EventThreads
from .coroutines import in_thread
from .exceptions import ChannelFull, ClientGone, LayerUnavailable
from .log import RateLimit, shown
from .outbox import PendingSend, outbox
from .protocol import REPLY_CHANNEL, WINDOW_CHANNEL
from .replies import deliver_or_log

if __package__ == "django.channels":
    from django.core.handlers.asgi_response import HEAD_INTERVAL, Cut, split, without_signal
else:
    from channels.handlers.asgi_response import HEAD_INTERVAL, Cut, split, without_signal

if TYPE_CHECKING:
    from .continued import Continued
    from .message import Message
    from .windows import Window

logger = logging.getLogger("django.channels.worker")

#: Seconds between two attempts to send to a full channel, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.25


def count_setting(name: str, default: int) -> int:
    """Return the setting `name`, or `default`. Raises ImproperlyConfigured unless it is positive."""
    value = getattr(settings, name, None)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ImproperlyConfigured("The setting %s is a positive number, not %r." % (name, value))
    return value


class StreamThreads:
    """
    Counts the threads of a process that synchronous streams hold. The setting CHANNEL_STREAM_THREADS bounds
    them; without it, all threads but one. Thread-safe.
    """

    def __init__(self, threads: int) -> None:
        self.limit = count_setting("CHANNEL_STREAM_THREADS", max(1, threads - 1))
        self._held = 0
        self._lock = threading.Lock()

    def acquire(self) -> bool:
        """Hold one more. Return False if that would be too many."""
        with self._lock:
            if self._held >= self.limit:
                return False
            self._held += 1
            return True

    def release(self) -> None:
        """Hold one less."""
        with self._lock:
            self._held -= 1


def may_hold_a_thread(response: Any, size: int) -> bool:
    """
    Return whether making `response` may take as long as its view, or its client, wants. A gateway takes
    `size` bytes at once.
    """
    if not response.streaming:
        return len(response.content) > size
    length = response.get("Content-Length", "")
    is_file = getattr(response, "file_to_stream", None) is not None
    return not (is_file and length.isdecimal() and int(length) <= size)


_refused = RateLimit()


def log_refused(message: Message, reason: str) -> None:
    """Count a stream that is answered with 503. Log a line, at most one a second."""
    message.channel_layer.count("streams_refused")
    _refused.log(
        logger.warning,
        "The stream %s was answered with 503, because %s.",
        shown(message.get("path")),
        reason,
    )


class AsyncStream:
    """
    An asynchronous streaming response, on its way to the client of `message`.

    `run` continues the event of the message on the event loop. `window_size` is how many parts may be on
    their way, and `timeout` for how many seconds its gateway may leave them there.
    """

    def __init__(
        self,
        message: Message,
        response: Any,
        handler_class: Any,
        window_size: int,
        timeout: float,
    ) -> None:
        self.message = message
        self.response = response
        self.handler_class = handler_class
        self.window_size, self.timeout = window_size, timeout
        #: The head of the response, until it was sent.
        self._head: dict[str, Any] | None = None
        self._lock: Any = None
        self._event: Any = None
        self._window: Any = None

    async def run(self, event: Continued) -> None:
        """
        Send the response. Returns if the client goes, and raises what the iterator raises. If the process
        stops, or the layer is unavailable, the client gets a 503, or a response that breaks off.
        """
        from .handler import unavailable

        self._event, self._lock = event, asyncio.Lock()
        window: Window = event.window
        self._window = window
        try:
            await self._send_all()
        except asyncio.CancelledError:
            if window.is_closed:
                return
            if not event.stops:
                raise  # from the iterator
            self._answer(unavailable())
        except ClientGone:
            return
        except LayerUnavailable as error:
            logger.warning(
                "The stream %s broke off, because the channel layer %s could not be reached: %s",
                shown(self.message.get("path")),
                self.message.channel_layer.alias,
                error,
            )
            self._answer(unavailable())
        finally:
            self.handler_class.close_response(self.response)

    def _answer(self, response: Any) -> None:
        """Send a whole response with the acknowledgement. The gateway breaks off one that has begun."""
        for reply in self.handler_class.encode_response(without_signal(response)):
            self.message.reply_channel.send(reply, on_commit=False)

    async def _send_all(self) -> None:
        from asgiref.sync import SyncToAsync, ThreadSensitiveContext

        head = self.handler_class.head_of(self.response)
        self._head = dict(head, **{WINDOW_CHANNEL: self._window.name})
        timer = asyncio.get_event_loop().call_later(HEAD_INTERVAL, self._send_head_soon)
        self._head_task: Any = None
        # What the iterator passes to sync_to_async runs in a separate thread, with separate connections.
        context, executor = ThreadSensitiveContext(), EventThreads(1)
        SyncToAsync.context_to_thread_executor[context] = executor
        iterator = self.response.streaming_content
        try:
            async with context:
                try:
                    await self._send_parts(iterator)
                finally:
                    timer.cancel()
                    try:
                        await _close(iterator, self.response)
                    finally:
                        # The context would wait for the thread, and the event loop with it.
                        SyncToAsync.context_to_thread_executor.pop(context, None)
                        if executor.is_used:
                            executor.submit(connections.close_all)
                            executor.shutdown(wait=False)
        finally:
            if self._head_task is not None:
                await asyncio.wait([self._head_task])  # a head that is being sent leaves first

    async def _send_parts(self, iterator: Any) -> None:
        cut = Cut(self.response)
        async for chunk in iterator:
            if not chunk:
                await asyncio.sleep(0)  # so that it can be cancelled, and that others run
                self._check_client()
            for part, _ in split(chunk) if chunk else ():
                content, is_last = cut.next(part)
                if is_last:
                    await self._send_last(content)
                    return
                await self._send(content)
        cut.end()
        await self._send_last(b"")

    async def _send_last(self, content: bytes) -> None:
        """Send the last part with the acknowledgement."""
        reply = {"content": content, "more_content": False}
        async with self._lock:
            if self._head is not None:
                reply.update(self._head)  # the Channel drops its window: nothing follows
                self._head = None
        self.message.reply_channel.send(reply, on_commit=False)

    def _send_head_soon(self) -> None:
        self._head_task = asyncio.ensure_future(self._send_head())

    async def _send_head(self) -> None:
        """Send the head before the first part, which takes long. If that fails, the part brings it."""
        try:
            await self._send(b"", only_head=True)
        except Exception:
            pass

    async def _send(self, content: bytes, only_head: bool = False) -> None:
        """Send one part, and before it what the view has sent to channels and groups."""
        async with self._lock:
            if only_head and self._head is None:
                return
            if not await self._window.below(self.window_size, self.timeout):
                raise ClientGone("The client took nothing for %g seconds." % self.timeout)
            self._check_client()
            reply = {"content": content, "more_content": True}
            if self._head is not None:
                reply.update(self._head)
            await self._deliver(outbox.take(), reply)
            self._head = None
            self._window.ahead += 1
            self._event.active_at = time.monotonic()

    def _check_client(self) -> None:
        """
        Raise ClientGone if the client has gone. The cancellation may be lost: an iterator may swallow it,
        and so does asyncio.wait_for until Python 3.11.
        """
        if self._window.is_closed:
            raise ClientGone("The client went away while its response was sent.")

    async def _deliver(self, sends: list[PendingSend], reply: dict[str, Any]) -> None:
        """Send. While the gateway's inbox is full, try again. Raises ChannelFull after the timeout."""
        deadline, interval = time.monotonic() + self.timeout, RETRY_INTERVAL
        layer, channel = self.message.channel_layer, self.message[REPLY_CHANNEL]
        if sends:
            await self._event.loop.call(_deliver_all, sends)
        while True:
            try:
                # Not through a Channel, which removes control keys.
                if layer.crosses_processes:
                    await self._event.loop.call(layer.send, channel, reply)
                else:
                    layer.send(channel, reply)
                return
            except ChannelFull:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)


def _deliver_all(sends: list[PendingSend]) -> None:
    for send in sends:
        deliver_or_log(send)


async def _close(iterator: Any, response: Any) -> None:
    # Django wraps the view's iterator, and doesn't close it.
    for each in (iterator, getattr(response, "_iterator", None)):
        close = getattr(each, "aclose", None)
        if close is not None:
            await close()


async def send_in_test(message: Message, response: Any, head: dict[str, Any]) -> None:
    """
    Send an asynchronous stream for the test client, by `run_here`: what it passes to sync_to_async runs in
    the thread of the test, and so in its transaction. Raises what the iterator raises, and ChannelFull.
    """
    cut, reply = Cut(response), head
    iterator = response.streaming_content
    try:
        async for chunk in iterator:
            for part, _ in split(chunk) if chunk else ():
                content, is_last = cut.next(part)
                reply.update(content=content, more_content=not is_last)
                await in_thread(_send_now, message, reply)
                if is_last:
                    return
                reply = {}
        cut.end()
        reply.update(content=b"", more_content=False)
        await in_thread(_send_now, message, reply)
    finally:
        await _close(iterator, response)


def _send_now(message: Message, reply: dict[str, Any]) -> None:
    """Send one part, and before it what the view has sent."""
    _deliver_all(outbox.take())
    message.channel_layer.send(message[REPLY_CHANNEL], reply)

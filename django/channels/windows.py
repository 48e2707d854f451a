"""
Flow control for consumers on the event loop: a send waits while its client is far behind.

A window counts the messages of one event that its gateway has not yet written. The gateway sends notices
about what it has written to the channel of the window.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Callable

from .exceptions import ChannelFull, LayerUnavailable
from .protocol import CLOSED, WRITTEN, closed, told_on

if TYPE_CHECKING:
    from .continued import Continued
    from .layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.worker")

#: Seconds between two attempts to reach a layer that is unavailable.
RECONNECT_INTERVAL = 1.0


#: Seconds without a notice after which a gateway is asked whether it is still there, and the number of
#: questions without an answer after which it counts as lost. (It may be lost before it has set a last will.)
ASK_INTERVAL, MAX_QUESTIONS = 10.0, 3


class Silence:
    """The silence of the gateway with the channel `reply_channel`, which should tell the channel `window`."""

    def __init__(self, layer: BaseChannelLayer, reply_channel: str, window: str) -> None:
        self._layer, self._reply_channel, self._window = layer, reply_channel, window
        self.heard()

    def heard(self) -> None:
        """Begin anew: a notice came."""
        self._asked = 0
        self._ask_at = time.monotonic() + ASK_INTERVAL

    def ends(self) -> bool:
        """Ask the gateway, if that is due. Return False once it counts as lost. Blocks while it is asked."""
        if time.monotonic() < self._ask_at:
            return True
        if self._asked == MAX_QUESTIONS:
            return False
        self._ask_at = time.monotonic() + ASK_INTERVAL
        try:
            # Not through a Channel, which removes control keys.
            self._layer.send(self._reply_channel, told_on(self._window))
            self._asked += 1
        except (ChannelFull, LayerUnavailable):
            pass  # the gateway was not asked
        return True


class Window:
    """
    The number of messages by which one event is ahead of its client. Its gateway sends notices to the channel
    `name`.

    Belongs to the event loop.
    """

    def __init__(self, name: str, event: Continued, forget: Callable[[Window], None]) -> None:
        self.name = name
        #: Messages that were sent, and that the gateway has not written or stored.
        self.ahead = 0
        self.is_closed = False
        #: Notices that came.
        self._notices = 0
        self._event = event
        self._forget = forget
        #: A future for each task that waits for a notice.
        self._waiting: set[asyncio.Future[None]] = set()

    def notice(self, message: dict[str, Any]) -> None:
        """Handle a notice of the gateway."""
        if message.get(CLOSED):
            self.is_closed = True
            self._event.client_gone()
        self._notices += 1
        self.ahead = max(0, self.ahead - message.get(WRITTEN, 0))
        for each in self._waiting:
            _end(each)

    async def below(self, number: int, seconds: float) -> bool:
        """
        Wait until fewer than `number` messages are ahead, or the window is closed. Return False if nothing is
        taken for `seconds`. If the gateway is lost, the window is closed.
        """
        if self.ahead < number or self.is_closed:
            return True
        replies = self._event.replies
        silence = Silence(replies.layer, replies.reply_channel, self.name)
        ahead, deadline = self.ahead, time.monotonic() + seconds
        notices = self._notices
        while self.ahead >= number and not self.is_closed:
            if self.ahead < ahead:
                ahead, deadline = self.ahead, time.monotonic() + seconds
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._next_notice(min(left, ASK_INTERVAL))
            # The answer to a question may come before the call that asks it has ended.
            if self._notices != notices:
                notices = self._notices
                silence.heard()
            elif left > ASK_INTERVAL and not await self._event.loop.call(silence.ends):
                self.notice(closed())
        return True

    async def _next_notice(self, seconds: float) -> None:
        """Wait for a notice, for at most `seconds`."""
        loop = asyncio.get_event_loop()
        # Not asyncio.wait_for: until Python 3.12, it loses a cancellation that comes with a notice.
        notice: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, notice)
        self._waiting.add(notice)
        try:
            await notice
        finally:
            timer.cancel()
            self._waiting.discard(notice)

    def close(self) -> None:
        """Ignore later notices."""
        self._forget(self)


def _end(notice: asyncio.Future[None]) -> None:
    if not notice.done():
        notice.set_result(None)


class Windows:
    """
    All windows of an event loop. Their channels share one queue. The thread "channels-windows" reads it, and
    starts with the first window.

    Belongs to the event loop.
    """

    def __init__(self, layer: BaseChannelLayer) -> None:
        self._layer = layer
        self._loop: Any = None
        self._windows: dict[str, Window] = {}
        self._number = 0
        self._prefix = ""

    def open(self, event: Continued) -> Window:
        """Return a Window for what `event` sends to its client."""
        if not self._prefix:
            self._prefix = "http.window.%s!" % uuid.uuid4().hex[:12]
            self._loop = asyncio.get_event_loop()
            threading.Thread(target=self._read, name="channels-windows", daemon=True).start()
        self._number += 1
        window = Window("%s%d" % (self._prefix, self._number), event, self._forget)
        self._windows[window.name] = window
        return window

    def end(self) -> None:
        """End the thread. Call this when the loop has ended."""
        if self._prefix:
            try:
                self._layer.deliver(self._prefix, closed())  # it wakes the thread
            except Exception:
                pass  # the thread ends when its call does

    def _forget(self, window: Window) -> None:
        self._windows.pop(window.name, None)

    def _read(self) -> None:
        """Pass the notices of gateways to the loop. Runs in the thread "channels-windows"."""
        while not self._loop.is_closed():
            try:
                channel, message = self._layer.receive_many([self._prefix], block=True)
                if message is not None:
                    self._loop.call_soon_threadsafe(self._notice, channel, message)
            except Exception as error:
                if self._loop.is_closed():
                    return
                if not isinstance(error, LayerUnavailable):
                    logger.exception("Notices of gateways could not be read; trying again:")
                time.sleep(RECONNECT_INTERVAL)

    def _notice(self, channel: str, message: dict[str, Any]) -> None:
        window = self._windows.get(channel)
        if window is not None:
            window.notice(message)

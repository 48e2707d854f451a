"""
The sender: sends events to the workers, and tries again those that the layer refuses.

An event that finds its channel full, or the layer unavailable, waits here. The disconnect of a connection
is always delivered, however late. Any other event is given up after SEND_TIMEOUT, and its client gets a
503 or 1013; but an open socket outlives an outage of the layer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Dict, Tuple

from ..exceptions import LayerUnavailable
from ..log import shown
from ..protocol import DISCONNECT_CHANNELS, EVENT_ID, MAYBE, REDELIVERED, WEBSOCKET_RECEIVE

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer, Inbox
    from .connection import Connection

logger = logging.getLogger("django.channels.gateway")

#: Seconds for which an event waits for room on a full channel before its client is rejected. Daphne gives
#: up a handshake after 5 seconds (--websocket_connect_timeout), without an answer.
SEND_TIMEOUT = 3.0

#: The deadline of an event that waits as long as the layer is unavailable.
NEVER = float("inf")

#: Seconds between two lines in the log about rejected clients.
LOG_INTERVAL = 1.0

#: Seconds between two attempts while channels are full, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.1

#: Seconds without a refusal after which the interval is short again.
RETRY_RESET_AFTER = 1.0

#: Events of one channel that are tried again at a time.
RETRY_BATCH = 100

#: (deadline, connection, message) of a refused event.
_Refused = Tuple[float, Any, Dict[str, Any]]


class EventSender:
    """
    Sends events and parts of bodies through the inbox of one gateway.

    Belongs to the gateway's event loop.
    """

    def __init__(
        self, layer: BaseChannelLayer, inbox: Inbox, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._layer = layer
        self._inbox = inbox
        self._loop = loop
        self._refused: dict[str, deque[_Refused]] = {}  # by channel, the next to try first
        self._retry_task: Any = None
        self._retried_at, self._retry_interval = 0.0, RETRY_INTERVAL
        self._rejected = 0
        self._log_timer: Any = None

    def send(self, connection: Connection, channel: str, message: dict[str, Any]) -> None:
        """Send one event, or one part of a body, of a connection."""
        deadline = self._loop.time() + SEND_TIMEOUT
        refused = self._refused.get(channel)
        if refused and EVENT_ID in message:
            refused.append((deadline, connection, message))
        else:
            self._send(connection, channel, message, deadline)

    def _send(
        self, connection: Connection, channel: str, message: dict[str, Any], deadline: float
    ) -> None:
        self._inbox.send(
            channel, message, partial(self._not_sent, connection, channel, message, deadline)
        )

    def _not_sent(
        self,
        connection: Connection,
        channel: str,
        message: dict[str, Any],
        deadline: float,
        error: Exception,
    ) -> None:
        """Let an event wait for a while. Of a body or a window no part may be missing, so that one fails."""
        is_unavailable = isinstance(error, LayerUnavailable)
        if EVENT_ID not in message:
            connection.perform(connection.state.refused(channel))
        elif is_unavailable or isinstance(error, self._layer.ChannelFull):
            if is_unavailable:
                # The layer may have taken it all the same.
                message[REDELIVERED] = MAYBE
            if channel == WEBSOCKET_RECEIVE:
                # An open socket outlives an outage; only a layer that is there and full closes it.
                if is_unavailable:
                    deadline = NEVER
                elif deadline == NEVER:
                    deadline = self._loop.time() + SEND_TIMEOUT
            self._refused.setdefault(channel, deque()).append((deadline, connection, message))
            if self._retry_task is None or self._retry_task.done():
                self._retry_task = self._loop.create_task(self._retry())
        else:
            logger.error("An event of %s was not sent: %s", shown(connection.state.path), error)
            connection.perform(connection.state.refused(channel))

    async def _retry(self) -> None:
        """While channels are full: try a few events again, and reject clients that have waited too long."""
        if self._loop.time() > self._retried_at + RETRY_RESET_AFTER:
            self._retry_interval = RETRY_INTERVAL
        while self._refused:
            await asyncio.sleep(self._retry_interval)
            self._retry_interval = min(self._retry_interval * 1.5, MAX_RETRY_INTERVAL)
            now = self._retried_at = self._loop.time()
            for channel, refused in list(self._refused.items()):
                again = [refused.popleft() for _ in range(min(RETRY_BATCH, len(refused)))]
                while refused and refused[0][0] < now:
                    again.append(refused.popleft())
                if not refused:
                    del self._refused[channel]
                for each in again:
                    self._try_again(channel, now, *each)
        self._retry_task = None

    def _try_again(
        self,
        channel: str,
        now: float,
        deadline: float,
        connection: Connection,
        message: dict[str, Any],
    ) -> None:
        try:
            if deadline < now and channel not in DISCONNECT_CHANNELS:
                connection.perform(connection.state.refused(channel))
            else:
                self._send(connection, channel, message, deadline)
        except Exception:
            logger.exception(
                "An event of %s could not be sent again:", shown(connection.state.path)
            )

    def count_rejected(self) -> None:
        """Count one more client that gets a 503 or a 1013. A line in the log says now and then how many."""
        self._rejected += 1
        if self._log_timer is None:
            self.log_rejected()

    def log_rejected(self) -> None:
        """Log how many clients were rejected since the last line, and look again after LOG_INTERVAL."""
        count, self._rejected = self._rejected, 0
        self._log_timer = self._loop.call_later(LOG_INTERVAL, self.log_rejected) if count else None
        if count:
            logger.warning(
                "A channel is full, or the layer is unavailable. Clients that were rejected with 503 or "
                "1013: %d",
                count,
            )

    def close(self) -> None:
        """Stop trying again, and stop the timer."""
        for task in (self._retry_task, self._log_timer):
            if task is not None:
                task.cancel()

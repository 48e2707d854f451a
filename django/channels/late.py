"""
Tell gateways which asynchronous consumers take long, so that they send the events of other connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .protocol import TURN_CHANNELS
from .replies import tell_running

if TYPE_CHECKING:
    from .continued import Continued

#: Seconds after which the gateway is told that an asynchronous consumer takes long. Until then, the gateway
#: counts the event as one that waits for a worker.
RUNNING_AFTER = 0.02


class LateEvents:
    """
    The running events of one loop whose gateways are told after RUNNING_AFTER seconds. `calls` is the
    executor for calls of the layer.

    Belongs to the event loop.
    """

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        #: The time (monotonic) to tell the gateway, and the event. The earliest comes first.
        self._events: deque[tuple[float, Continued]] = deque()

    def watch(self, event: Continued) -> None:
        """Tell the gateway of `event` after RUNNING_AFTER seconds, if the event has not ended."""
        if event.replies.event_id is None or event.message.channel_name not in TURN_CHANNELS:
            return
        self._events.append((time.monotonic() + RUNNING_AFTER, event))
        if len(self._events) == 1:
            asyncio.get_event_loop().call_later(RUNNING_AFTER, self._check)

    def _check(self) -> None:
        now, late = time.monotonic(), []
        while self._events and (self._events[0][0] <= now or self._events[0][1].has_ended):
            event = self._events.popleft()[1]
            if not event.has_ended:
                late.append(event.replies)
        loop = asyncio.get_event_loop()
        if late:
            loop.run_in_executor(self._calls, tell_running, late)
        if self._events:
            loop.call_later(self._events[0][0] - now, self._check)

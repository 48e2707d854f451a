"""
What a gateway logs if no worker takes its events: the workers may be missing, or use another layer. Both look
healthy then, until the first event expires.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Iterable

from ..log import RateLimit

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer
    from .turns import Lane

logger = logging.getLogger("django.channels.gateway")

#: Seconds without an acknowledgement after which the gateway asks the layer whether events wait.
ACK_TIMEOUT = 5.0

#: Seconds that the oldest event must have waited then. If it is younger, workers took those before it.
MIN_AGE = 4.0

#: Seconds between two lines of one gateway.
LOG_INTERVAL = 60.0


class UntakenWatch:
    """
    Logs that no worker takes the events that a gateway sends. The event of a slow consumer has been taken,
    so it isn't logged. Belongs to the event loop of its gateway; `report` runs in a thread.
    """

    def __init__(
        self, layer: BaseChannelLayer, loop: asyncio.AbstractEventLoop, lanes: Iterable[Lane]
    ) -> None:
        self._layer, self._loop, self._lanes = layer, loop, list(lanes)
        self._acks: list[int] = []
        self._line = RateLimit(LOG_INTERVAL)
        #: The timer of the next check, while events are in flight.
        self.timer: Any = None

    def start(self) -> None:
        """Check after ACK_TIMEOUT seconds. Call this when an event is sent and `timer` is None."""
        self._acks = [lane.acks for lane in self._lanes]
        self.timer = self._loop.call_later(ACK_TIMEOUT, self._check)

    def _check(self) -> None:
        self.timer = None
        in_flight = [
            (lane, acks) for lane, acks in zip(self._lanes, self._acks) if lane.in_flight > 0
        ]
        channels = [lane.channel for lane, acks in in_flight if lane.acks == acks]
        if channels:
            self._loop.run_in_executor(None, self.report, channels)
        if in_flight:
            self.start()

    def report(self, channels: Iterable[str]) -> None:
        """Ask the layer how long events wait on `channels`, and log it if they do. Raises nothing."""
        for channel in channels:
            try:
                found = self._layer.channel_statistics(channel)
                count, age = found["messages_pending"], found["messages_max_age"]
            except Exception:
                return  # an outage is logged elsewhere, and a layer need not have statistics
            if count and age >= MIN_AGE:
                self._line.log(
                    logger.warning,
                    "A message on %s has waited for a worker for %d s; %d wait on the channel layer %s. The "
                    "workers are missing or busy, or use another layer: another alias, host, database or "
                    "prefix. Start manage.py runworker with the settings of this server.",
                    channel,
                    age,
                    count,
                    self._layer,
                )
                return

    def close(self) -> None:
        """Stop checking."""
        if self.timer is not None:
            self.timer.cancel()

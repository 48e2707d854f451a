"""
Which clients are refused because too much of theirs waits, and how many because room is missing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..log import RateLimit, shown

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer
    from .limits import Limits
    from .turns import Lane

logger = logging.getLogger("django.channels.gateway")

#: Seconds between two lines in the log; and while the layer is unreachable.
LOG_INTERVAL, OUTAGE_LOG_INTERVAL = 1.0, 60.0


class RejectedClients:
    """Counts the clients of one gateway that get a 503 or a 1013. Belongs to its event loop."""

    def __init__(self, layer: BaseChannelLayer, loop: asyncio.AbstractEventLoop) -> None:
        self._layer, self._loop = layer, loop
        self._number = 0
        self.timer: Any = None

    def count(self) -> None:
        """Count one more client. A line in the log says now and then how many."""
        self._number += 1
        if self.timer is None:
            self.log()

    def log(self) -> None:
        """Log how many clients were rejected since the last line, and check again after an interval."""
        number, self._number = self._number, 0
        interval = OUTAGE_LOG_INTERVAL if self._layer.reachability.is_away else LOG_INTERVAL
        self.timer = self._loop.call_later(interval, self.log) if number else None
        if number:
            logger.warning(
                "A channel is full, or the layer is unavailable. Clients that were rejected with 503 or "
                "1013: %d",
                number,
            )

    def close(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()


class WaitingLimits:
    """How many events of one address, and of one session, may wait for their turn in one gateway."""

    def __init__(self, layer: BaseChannelLayer, limits: Limits) -> None:
        self._layer, self._limits = layer, limits
        #: Whose events were refused, to a limit of lines in the log.
        self._logs = {"client": RateLimit(), "session of the client": RateLimit()}

    def are_exceeded(self, lane: Lane, address: str, session: Any) -> bool:
        """Return whether so many events of a client wait that another is refused. Count and log it."""
        limits = self._limits
        whose, limit = "client", limits.address_waiting
        if lane.waiting.count(address) < limit:
            whose, limit = "session of the client", limits.session_waiting
            if lane.waiting.count(address, session) < limit:
                return False
        self._layer.count("clients_limited")
        self._logs[whose].log(
            logger.warning,
            "%d events of one %s %s wait for a worker: another was refused on %s.",
            limit,
            whose,
            shown(address),
            lane.channel,
        )
        return True

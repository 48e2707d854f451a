"""
The places for asynchronous consumers on the event loop of a worker process.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Callable

from .log import RateLimit

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.worker")

#: Asynchronous consumers that one process runs at a time, by default. Another one waits.
ASYNC_CONCURRENCY = 100

#: Seconds between two looks of a thread that waits for a place: whether it is to end.
POLL_INTERVAL = 0.5


class Places:
    """`number` places, of which each consumer takes one. Thread-safe."""

    def __init__(self, layer: BaseChannelLayer, number: int) -> None:
        self.layer = layer
        self.number = number
        self.taken = 0
        self._changed = threading.Condition()
        self._limit = RateLimit(10.0)

    def acquire(self, gives_up: Callable[[], bool]) -> bool:
        """Wait for a place, and take it. Return False if `gives_up()` becomes true meanwhile."""
        with self._changed:
            while self.taken >= self.number:
                if gives_up():
                    return False
                self._note()
                self._changed.wait(POLL_INTERVAL)
            self.taken += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        with self._changed:
            self.taken -= 1
            self._changed.notify()

    def wake(self) -> None:
        """Have those that wait look whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def _note(self) -> None:
        self.layer.count("async_waits")
        suppressed = self._limit.allow()
        if suppressed is not None:
            logger.warning(
                "%d asynchronous consumers run, and a thread waits with another one: start more workers, or "
                "raise --async-concurrency. Times since the last line: %d",
                self.number,
                suppressed,
            )

"""
Limit how many asynchronous consumers run at a time on the event loop of a worker process.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator

from .log import RateLimit

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.worker")

#: Asynchronous consumers that one process runs at a time, by default. Another one waits.
ASYNC_CONCURRENCY = 100

#: Asynchronous consumers of one process that wait for slow clients without a place, for each place.
PAUSED_PER_PLACE = 10

#: Seconds after which a thread that waits for a place checks whether it must end.
POLL_INTERVAL = 0.5


class Places:
    """
    A semaphore with `number` places. Each running consumer has one. Thread-safe.

    A consumer that has ended leaves its place before its answer is sent, because the answer may cause the
    next message. So up to `2 * number` consumers run or are not yet acknowledged.
    """

    def __init__(self, layer: BaseChannelLayer, number: int) -> None:
        self.layer = layer
        self.number = number
        self.taken = 0
        #: The number of consumers that have left their place and are not yet acknowledged.
        self.leaving = 0
        #: The number of consumers that wait for a slow client, without a place.
        self.paused = 0
        self._changed = threading.Condition()
        self._limit = RateLimit(10.0)

    def acquire(self, gives_up: Callable[[], bool]) -> bool:
        """Wait for a place, take it and return True. Return False once `gives_up()` is true."""
        with self._changed:
            while self.taken >= self.number or self.taken + self.leaving >= 2 * self.number:
                if gives_up():
                    return False
                self._note()
                self._changed.wait(POLL_INTERVAL)
            self.taken += 1
        return True

    @property
    def used(self) -> int:
        """The number of consumers that run, wait for a client, or are not yet acknowledged."""
        return self.taken + self.leaving + self.paused

    @contextmanager
    def waiting_for_client(self) -> Iterator[None]:
        """
        Leave the place of a consumer to others while it waits for a slow client, unless too many wait.
        So clients that read nothing keep no other consumer from running. Afterwards, the consumer goes on at
        once, although others may have taken all places.
        """
        with self._changed:
            is_paused = self.paused < PAUSED_PER_PLACE * self.number
            if is_paused:
                self._move(-1)
        try:
            yield
        finally:
            if is_paused:
                with self._changed:
                    self._move(1)

    def _move(self, number: int) -> None:
        """Count `number` consumers more as running, that many less as paused."""
        self.taken += number
        self.paused -= number
        self._changed.notify()

    def leave(self) -> None:
        """Give a place back when the consumer has ended. `release(True)` must follow."""
        with self._changed:
            self.taken -= 1
            self.leaving += 1
            self._changed.notify()

    def release(self, has_left: bool = False) -> None:
        """Note that a consumer is acknowledged. `has_left`: `leave` has given its place back."""
        with self._changed:
            if has_left:
                self.leaving -= 1
            else:
                self.taken -= 1
            self._changed.notify()

    def wake(self) -> None:
        """Have the threads that wait check whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def _note(self) -> None:
        self.layer.count("async_waits")
        self._limit.log(
            logger.warning,
            "%d asynchronous consumers run, and a thread waits with another one: start more workers, or "
            "raise --async-concurrency.",
            self.number,
        )

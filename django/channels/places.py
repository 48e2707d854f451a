"""
Limit how many asynchronous consumers run at a time on the event loop of a worker process.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

from .log import RateLimit
from .shares import Shares

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .worker import Worker

logger = logging.getLogger("django.channels.worker")

#: Asynchronous consumers that one process runs at a time, by default. Another one waits. Gateways hold an
#: address back that has its share (gateway/held.py).
ASYNC_CONCURRENCY = 200

#: An address with at most this part of the places is not held back: one twelfth, 16 of 200.
FEW = 12

#: Asynchronous consumers of one process that wait for slow clients without a place, for each place.
PAUSED_PER_PLACE = 10

#: Seconds after which a thread that waits for a place checks whether it must end.
POLL_INTERVAL = 0.5

#: Seconds between two polls of the last thread for messages that need no place.
LAST_THREAD_INTERVAL = 0.05


class Places:
    """
    A semaphore with `number` places. Each running consumer has one. Thread-safe.

    A consumer that has ended leaves its place before its answer is sent, because the answer may cause the
    next message. So up to `2 * number` consumers run or are not yet acknowledged.
    """

    def __init__(self, layer: BaseChannelLayer, number: int) -> None:
        self.layer = layer
        self.number = number
        #: The places that are taken.
        self.shares = Shares()
        #: The number of consumers that have left their place and are not yet acknowledged.
        self.leaving = 0
        #: The number of consumers that wait for a slow client, without a place.
        self.paused = 0
        #: The channels on which consumers of this process were asynchronous, and not.
        self.async_channels: set[str] = set()
        self.sync_channels: set[str] = set()
        #: How many threads may claim what waits for a place, while all are taken. 0: all of them.
        self.max_waiting = 0
        #: The threads that may wait for a place, each with its own `may_wait`.
        self.threads: list[Worker] = []
        self._changed = threading.Condition()
        self._limit = RateLimit(10.0)

    def saw(self, channel: str, is_async: bool) -> None:
        """Take note of the kind of a consumer that a message on `channel` had."""
        (self.async_channels if is_async else self.sync_channels).add(channel)

    def needs_place(self, channel: str) -> bool:
        """Return whether all consumers that messages on `channel` had so far were asynchronous."""
        return channel in self.async_channels and channel not in self.sync_channels

    def enter(self, thread: Worker, channels: Sequence[str]) -> Sequence[str]:
        """
        While all places are taken: return () to a thread that may claim from all `channels`, and set its
        `may_wait`. To the last thread, return those whose messages need no place: it takes only these.
        """
        with self._changed:
            if self.max_waiting and sum(each.may_wait for each in self.threads) >= self.max_waiting:
                others = [each for each in channels if not self.needs_place(each)]
                if others:
                    return others
            thread.may_wait = True
        return ()

    def is_full(self) -> bool:
        """Return whether no place is free."""
        taken = self.shares.used
        return taken >= self.number or taken + self.leaving >= 2 * self.number

    def is_over_share(self, address: str) -> bool:
        """
        Return whether the consumers of `address` have as many places as are free, or more: the rule of
        shares.py. False for what comes without an address, and for an address with few places.
        """
        own = self.shares.of(address) if address else 0
        return own > self.number // FEW and own >= self.number - self.taken

    def acquire(self, gives_up: Callable[[], bool], address: str = "") -> bool:
        """
        Wait for a place, take it for `address`, and return True. Return False once `gives_up()` is true.
        """
        with self._changed:
            while self.is_full():
                if gives_up():
                    return False
                self._note()
                self._changed.wait(POLL_INTERVAL)
            self.shares.take(address, 1)
        return True

    @property
    def taken(self) -> int:
        """The number of places that are taken."""
        return self.shares.used

    @property
    def used(self) -> int:
        """The number of consumers that run, wait for a client, or are not yet acknowledged."""
        return self.taken + self.leaving + self.paused

    @contextmanager
    def waiting_for_client(self, address: str = "") -> Iterator[None]:
        """
        Leave the place of a consumer for `address` to others while it waits for a slow client, unless too
        many wait. So clients that read nothing keep no other consumer from running. Afterwards, the consumer
        goes on at once, although others may have taken all places.
        """
        with self._changed:
            is_paused = self.paused < PAUSED_PER_PLACE * self.number
            if is_paused:
                self._move(address, -1)
        try:
            yield
        finally:
            if is_paused:
                with self._changed:
                    self._move(address, 1)

    def _move(self, address: str, number: int) -> None:
        """Count `number` consumers more as running, that many less as paused."""
        self.shares.take(address, number)
        self.paused -= number
        self._changed.notify()

    def leave(self, address: str) -> None:
        """Give the place of a consumer for `address` back when it has ended. `release` must follow."""
        with self._changed:
            self.shares.take(address, -1)
            self.leaving += 1
            self._changed.notify()

    def release(self, address: str, has_left: bool = False) -> None:
        """
        Note that a consumer for `address` is acknowledged. `has_left`: `leave` has given its place back.
        """
        with self._changed:
            if has_left:
                self.leaving -= 1
            else:
                self.shares.take(address, -1)
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

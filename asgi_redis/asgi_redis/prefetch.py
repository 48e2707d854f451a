"""
What each consumer of a worker has claimed, handled and answered between two round trips to the server.

While consumers of `websocket.receive` are quick and messages wait, a consumer claims several messages at
once, and their replies leave together: then a message costs a fraction of a round trip. Replies wait for
about MAX_WAIT seconds. A consumer that turns out to be slow delays only itself: after that time the
PrefetchMonitor sends the replies and requeues the messages that were prefetched.

Each claim has a number that is used once, and a message is held under a field made of the consumer, the
number of its claim and its index. So a claim whose reply got lost is repeated with the same number, and
only fields that came back in a reply are ever acknowledged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Callable, NamedTuple, Sequence

from .contract import LayerUnavailable, start_thread

logger = logging.getLogger("django.channels.layers")

#: The channel of which several messages are claimed: its gateway learns what is lost.
CHANNEL = "websocket.receive"

#: How many.
LIMIT = 16

#: A consumer is quick that ends within so many seconds; so many in a row make prefetching worth it.
QUICK, QUICK_RUNS = 0.001, 8

#: Seconds that replies, and prefetched messages, wait for the consumer that runs.
MAX_WAIT = 0.003

#: Seconds until the PrefetchMonitor tries again, while the server can't be reached.
RETRY_INTERVAL = 0.1


class Held(NamedTuple):
    """A message that a consumer has claimed: the field under which it is held, and the entry."""

    field: str
    entry: bytes


class Reply(NamedTuple):
    """The last reply to a message."""

    channel: str
    body: bytes


class Consumer:
    """One consumer. Its thread and the PrefetchMonitor use it, under `lock` while a consumer runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        #: The number of the next claim, or of the one whose reply has not come.
        self.number = 1
        #: Whether a claim of that number may have been carried out.
        self.is_unsure = False
        self.current: Held | None = None  # the message whose consumer runs
        self.acked: list[str] = []  # fields to acknowledge
        self.replies: list[Reply] = []
        self.prefetched: deque[Held] = deque()  # claimed and not begun
        self.returned: list[Held] = []  # to requeue, until the server has said that it has them
        self.quick = 0
        self.began_at = 0.0  # when the consumer of `current` began (monotonic)
        self.sent_at = 0.0  # when the server last took replies

    def end(self) -> None:
        """Take note that the consumer has ended."""
        with self.lock:
            if self.current is not None:
                self.acked.append(self.current.field)
                self.current = None
                self.quick = self.quick + 1 if time.monotonic() - self.began_at < QUICK else 0

    def hand_over(self, other: Consumer) -> None:
        """Have `other` hold the message whose consumer runs on, on an event loop."""
        with self.lock:
            other.current, self.current = self.current, None
            self.quick += 1

    def begin(self) -> Held | None:
        """Return the next prefetched message, whose consumer is about to run, if there is one."""
        with self.lock:
            if not self.prefetched:
                return None
            self.current = self.prefetched.popleft()
            self.began_at = time.monotonic()
            return self.current

    def claimed(self, entries: Sequence[bytes], used_up: bool = False) -> None:
        """Take in the reply to the claim of `number`: the server has taken all that went with it."""
        self.sent()
        for index, entry in enumerate(entries):
            self.prefetched.append(Held("%s:%d:%d" % (self.name, self.number, index), entry))
        self.is_unsure = False
        if entries or used_up:
            self.number += 1

    def sent(self) -> None:
        """Take note that the server has taken all acknowledgements, replies and requeued messages."""
        self.acked, self.replies, self.returned = [], [], []
        self.sent_at = time.monotonic()

    def give_back(self) -> None:
        """Requeue what was prefetched."""
        self.returned += reversed(self.prefetched)
        self.prefetched.clear()

    @property
    def is_late(self) -> bool:
        """Whether replies have waited long enough, and more messages are prefetched."""
        return bool(self.prefetched and self.replies and time.monotonic() - self.sent_at > MAX_WAIT)

    @property
    def wanted(self) -> int:
        """How many messages to claim."""
        return LIMIT if self.quick >= QUICK_RUNS else 1


class PrefetchMonitor:
    """
    The thread that looks after consumers that take long, or whose responses take long to close.
    `settle(consumer)` is the store's.
    """

    def __init__(self, settle: Callable[[Consumer], Any]) -> None:
        self._settle = settle
        self.forked()

    def forked(self) -> None:
        """Forget the parent process's thread and consumers."""
        self._consumers: dict[str, Consumer] = {}
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._lock = threading.Lock()

    def close(self) -> None:
        """
        End the thread, and forget the consumers: others requeue what they had. `watch` starts another thread.
        """
        with self._lock:
            ended, self._wanted = self._wanted, threading.Event()
            self._consumers, self._thread = {}, None
        ended.set()

    def watch(self, consumer: Consumer) -> None:
        """Have the thread look after `consumer`, which has something that must not wait long."""
        self._consumers[consumer.name] = consumer
        if not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None:
                with self._lock:
                    if self._thread is None:
                        self._thread = start_thread(
                            "channels-prefetch", partial(self._run, self._wanted)
                        )

    def _run(self, wanted: threading.Event) -> None:
        while self._wanted is wanted:
            wanted.wait()
            wanted.clear()
            pause = MAX_WAIT
            while self._consumers and self._wanted is wanted:
                time.sleep(pause)
                pause = MAX_WAIT
                for consumer in list(self._consumers.values()):
                    try:
                        self.step(consumer)
                    except LayerUnavailable:
                        pause = RETRY_INTERVAL  # the consumer's own thread meets the same failure
                    except BaseException:  # the other consumers are looked after
                        logger.exception("Prefetched messages could not be requeued; trying again")

    def step(self, consumer: Consumer) -> None:
        """Send and requeue what has waited too long; forget a consumer that has nothing."""
        with consumer.lock:
            if not consumer.prefetched and not consumer.replies:
                self._consumers.pop(consumer.name, None)  # its thread reports again
            elif consumer.current is not None and time.monotonic() - consumer.began_at > MAX_WAIT:
                consumer.quick = 0
                self._settle(consumer)

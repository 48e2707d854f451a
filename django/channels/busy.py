"""
Watches the worker threads of a process: logs consumers that run for long, and that no thread is left.

One thread, "channels-watch", calls `BusyWatch.check` each second. Consumers on the event loop hold no thread,
so they aren't watched.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Sequence, Tuple

from django.conf import settings

from .log import RateLimit, RateLimitByKey, visible

if TYPE_CHECKING:
    from .worker import Worker

logger = logging.getLogger("django.channels.worker")

#: Seconds between two checks.
WATCH_INTERVAL = 1.0

#: Seconds after which a consumer is logged as slow, unless CHANNEL_SLOW_CONSUMER says otherwise.
SLOW_CONSUMER = 5.0

#: Seconds for which all threads must be busy before that is logged, and seconds until it is logged again.
ALL_BUSY, ALL_BUSY_INTERVAL = 10.0, 60.0

#: Seconds between two lines about one slow consumer.
SLOW_INTERVAL = 60.0

#: How many consumers the line about busy threads names, and how many frames of a stack are logged.
MOST_NAMED, MOST_FRAMES = 3, 25


#: What a worker thread is doing: its consumer, the channel, and when it began (monotonic). A plain tuple,
#: because each message has one.
Running = Tuple[Any, str, float]


def began(running: Running) -> float:
    """Return when a consumer began (monotonic)."""
    return running[2]


def slow_consumer() -> float | None:
    """Return the setting CHANNEL_SLOW_CONSUMER: seconds, or None for never."""
    return getattr(settings, "CHANNEL_SLOW_CONSUMER", SLOW_CONSUMER) or None


class BusyWatch:
    """
    Belongs to the thread that calls `run`. What it reads of the workers, their threads replace as a whole.
    """

    def __init__(self, workers: Sequence[Worker], stop: threading.Event) -> None:
        self._workers = workers
        self._stop = stop
        self._logged: dict[int, Running] = {}  # by index of the worker
        self._busy_since: float | None = None
        self._all_busy = RateLimit(ALL_BUSY_INTERVAL)
        self._slow = RateLimitByKey(SLOW_INTERVAL)

    def run(self) -> None:
        """Check until the workers are told to stop."""
        while not self._stop.wait(WATCH_INTERVAL):
            self.check(time.monotonic())

    def check(self, now: float) -> None:
        """Log what must be logged at the time `now` (monotonic)."""
        running = [worker.running for worker in self._workers]
        slow = slow_consumer()
        for index, each in enumerate(running):
            if each is None or slow is None or now - began(each) < slow:
                continue
            if self._logged.get(index) is not each:
                self._logged[index] = each
                self._log_slow(self._workers[index], each, now)
        busy = [each for each in running if each is not None]
        if len(busy) < len(running):
            self._busy_since = None
            return
        if self._busy_since is None:
            self._busy_since = min(now, max(map(began, busy)))
        if now - self._busy_since >= ALL_BUSY:
            self._log_all_busy(busy, now)

    def _log_slow(self, worker: Worker, running: Running, now: float) -> None:
        from .consume import consumer_name

        consumer, channel, since = running
        name = consumer_name(consumer)
        frame = sys._current_frames().get(worker.thread_id or 0)
        stack = traceback.format_stack(frame)[-MOST_FRAMES:] if frame is not None else []
        if worker.running is not running:
            return  # it has ended, so the stack is that of something else
        lines = "".join(stack).rstrip().split("\n")
        self._slow.log(
            name,
            logger.warning,
            "The consumer %s has run for %.1f s on a message of the channel %s, longer than "
            "CHANNEL_SLOW_CONSUMER (%g s). Its worker thread handles no other message meanwhile. Its stack "
            "is now:\n%s",
            name,
            now - since,
            channel,
            slow_consumer() or 0,
            "\n".join("    " + visible(line) for line in lines),
        )

    def _log_all_busy(self, busy: list[Running], now: float) -> None:
        from .consume import consumer_name

        longest = sorted(busy, key=began)[:MOST_NAMED]
        layer = self._workers[0].channel_layer
        more = "manage.py runworker --threads"
        if not layer.crosses_processes:
            more = "CONFIG = {'threads': …} of the layer %s" % layer.alias
        self._all_busy.log(
            logger.warning,
            "All %d worker threads of process %d have been busy for %.0f s, and other messages wait for one. "
            "The consumers that run longest: %s. For more threads, use %s. Or write these consumers as "
            "async def.",
            len(busy),
            os.getpid(),
            now - (self._busy_since or now),
            ", ".join(
                "%s on %s for %.1f s" % (consumer_name(consumer), channel, now - since)
                for consumer, channel, since in longest
            ),
            more,
        )

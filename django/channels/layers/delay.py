"""
A thread that hands over items after a delay, for layers without a store. No I/O.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from typing import Any, Callable

from .engine.threads import start_thread

logger = logging.getLogger("django.channels.layers")


class Delay:
    """
    Calls `deliver(item)` when each item is due. Thread-safe: `_changed` guards the heap.

    The thread, "channels-delay", lives while any item waits. What `deliver` raises is logged, and ends
    nothing.
    """

    def __init__(self, deliver: Callable[[Any], None]) -> None:
        self._deliver = deliver
        self._heap: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, seconds: float, item: Any) -> None:
        """Deliver `item` in `seconds`, a number that `seconds_of` returned."""
        when = time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._numbers), item))
            if self._thread is None:
                self._thread = start_thread("channels-delay", self._run)
            self._changed.notify()

    def clear(self) -> None:
        """Forget all items."""
        with self._changed:
            del self._heap[:]
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._heap:
                    self._thread = None
                    return
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))
                    continue
                _, _, item = heapq.heappop(self._heap)
            try:
                self._deliver(item)
            except BaseException:
                logger.exception("A delayed message was lost.")

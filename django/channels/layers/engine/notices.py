"""
Log lines about what may happen often: at most one a second for each kind, with what was held back counted in.

The same event has the same words on every layer. No I/O but logging.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from typing import Callable, Mapping

from ...log import RateLimit

logger = logging.getLogger("django.channels.layers")

#: Channels that one line names. Code can name channels after what a client sent.
MAX_CHANNELS = 20

#: The part of a channel's name that one connection or reader has alone.
_SINGLE_USE = re.compile(r"([!?]).+")


class Notices:
    """The rate-limited lines of one layer, which keeps `kept` dead letters. Thread-safe."""

    def __init__(self, kept: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._expired: Counter[str] = Counter()
        self._dropped = 0
        self._expired_limit, self._dropped_limit = RateLimit(clock=clock), RateLimit(clock=clock)

    def expired(self, channels: Mapping[str, int]) -> None:
        """Report expired messages: how many on each channel."""
        with self._lock:
            for channel, number in channels.items():
                # Of the many channels of bodies and gateways, only the kind matters.
                name = _SINGLE_USE.sub(r"\1…", channel)
                if name not in self._expired and len(self._expired) >= MAX_CHANNELS:
                    name = "other channels"
                self._expired[name] += number
        self.flush()

    def dropped(self, number: int) -> None:
        """Report that `number` dead letters were dropped, because there were too many."""
        with self._lock:
            self._dropped += number
        self.flush()

    def flush(self) -> None:
        """Log the lines that are due. The lease thread calls this with each heartbeat."""
        expired: Counter[str] = Counter()
        dropped = 0
        with self._lock:
            if self._expired and self._expired_limit.allow() is not None:
                expired, self._expired = self._expired, Counter()
            if self._dropped and self._dropped_limit.allow() is not None:
                dropped, self._dropped = self._dropped, 0
        if expired:
            command = "manage.py runworker"
            if "asgi.delay" in expired:
                command += ", and manage.py rundelay for asgi.delay"
            logger.warning(
                "Messages on %s expired before a worker took them. Start workers that consume these "
                "channels, or more of them: %s.",
                ", ".join("%s (%d)" % each for each in sorted(expired.items())),
                command,
            )
        if dropped:
            logger.error(
                "%d dead letters were dropped: no more than %d are kept. Look at them with manage.py "
                "deadletters, or raise the layer's option dead_letters.",
                dropped,
                self._kept,
            )

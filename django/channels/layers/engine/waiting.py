"""
Readers that wait, and what wakes them. One lock, no I/O, no thread.

One reader of a kind is woken for a change. If it finds something, it wakes the next (`found`), so that short
work stays with few threads.
"""

from __future__ import annotations

import threading
from typing import Iterable

# How a wait ended.
CHANGED = "changed"  # there may be something new
WOKEN = "woken"  # `wake` was called for this consumer
TIMEOUT = "timeout"


class _Waiter:
    __slots__ = ("channels", "consumer", "ready", "result")

    def __init__(self, channels: tuple[str, ...], consumer: str | None) -> None:
        self.channels = channels
        self.consumer = consumer
        self.result = TIMEOUT
        self.ready = threading.Lock()
        self.ready.acquire()


class Waiters:
    """The waiting readers of one process. Thread-safe."""

    def __init__(self) -> None:
        #: Changes whenever there may be something new: read it, poll, and wait on it.
        self.version = 0
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []
        self._woken: set[str] = set()

    def wait(
        self,
        channels: tuple[str, ...],
        version: int,
        seconds: float,
        consumer: str | None = None,
    ) -> str:
        """
        Wait for up to `seconds` until something may have come to one of `channels` after `version` was read.
        Return CHANGED, WOKEN or TIMEOUT.
        """
        with self._lock:
            if consumer is not None and consumer in self._woken:
                self._woken.discard(consumer)
                return WOKEN
            if self.version != version:
                return CHANGED
            waiter = _Waiter(channels, consumer)
            self._waiters.append(waiter)
        try:
            waiter.ready.acquire(timeout=max(0.0, seconds))
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if consumer is not None:
            with self._lock:
                if consumer in self._woken:
                    self._woken.discard(consumer)
                    if waiter.result == CHANGED:
                        self._wake_one(channels)  # this reader will not poll, so another one must
                    return WOKEN
        return waiter.result

    def wake(self, consumer: str) -> None:
        """End the wait of `consumer`, or its next one."""
        with self._lock:
            self._woken.add(consumer)
            for waiter in self._waiters:
                if waiter.consumer == consumer:
                    self._release(waiter, WOKEN)
                    break

    def found(self, channels: tuple[str, ...]) -> None:
        """Wake another reader that waits for the same `channels`: there may be more."""
        with self._lock:
            self._wake_one(channels)

    def changed(self, channels: Iterable[str] | None = None) -> None:
        """Wake one reader of each kind that waits for any of `channels`; None means every channel."""
        names = None if channels is None else set(channels)
        with self._lock:
            self.version += 1
            seen = set()
            # Whoever began to wait last is woken first: its stack and caches are warm.
            for waiter in list(reversed(self._waiters)):
                if waiter.channels in seen:
                    continue
                if names is None or not names.isdisjoint(waiter.channels):
                    seen.add(waiter.channels)
                    self._release(waiter, CHANGED)

    def wanted(self) -> set[str]:
        """Return the channels that somebody waits for."""
        with self._lock:
            return {channel for waiter in self._waiters for channel in waiter.channels}

    def _wake_one(self, channels: tuple[str, ...]) -> None:
        for waiter in reversed(self._waiters):
            if waiter.channels == channels:
                self._release(waiter, CHANGED)
                return

    def _release(self, waiter: _Waiter, result: str) -> None:
        self._waiters.remove(waiter)
        waiter.result = result
        waiter.ready.release()

"""What a layer counts: in this process, and added up over all processes. No I/O."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Callable


class Counters:
    """The counters of one layer in one process. Thread-safe."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin at zero in a child process: the parent shares what it counted itself."""
        self._lock = threading.Lock()
        self._sharing = threading.Lock()
        self._values: Counter[str] = Counter()
        self._shared: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Add `number` to the counter `name`."""
        with self._lock:
            self._values[name] += number

    def values(self) -> dict[str, int]:
        """Return what this process has counted since it started."""
        with self._lock:
            return dict(self._values)

    def share(self, add: Callable[[dict[str, int]], None]) -> None:
        """
        Call `add(increments)` with what was counted since the last call that raised nothing. `add` adds to
        the counters of all processes.
        """
        with self._sharing:
            with self._lock:
                now = self._values.copy()
            new = now - self._shared
            if new:
                add(dict(new))
                self._shared = now

    def total(self, read: Callable[[], dict[str, int]]) -> dict[str, int]:
        """Return the counters of all processes: what `read()` returns, and what is not shared yet."""
        with self._sharing:
            total = Counter(read())
            with self._lock:
                total += self._values - self._shared
        return dict(total)

    def reset_shared(self) -> None:
        """Regard everything counted so far as shared: the shared counters were set to zero."""
        with self._sharing, self._lock:
            self._shared = self._values.copy()

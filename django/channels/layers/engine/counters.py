"""What a layer counts: in this process, and added up over all processes. No I/O."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from typing import Any, Callable

#: Seconds for which a store remembers the number under which a process last added its counters.
NUMBER_LIFETIME = 86400


def with_statistics(counters: dict[str, int], found: dict[str, Any]) -> dict[str, Any]:
    """Return what was `found`, and the counters, some of them under the names of `global_statistics`."""
    return {
        **found,
        "messages_count": counters.pop("sent", 0),
        "messages_expired": counters.pop("expired", 0),
        "channel_full_count": counters.get("full", 0),
        "counters": counters,
    }


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
        #: What a call of `share` that failed has handed over: the store may have added it.
        self._unsure: Counter[str] = Counter()
        self._id = uuid.uuid4().hex
        self._number = 0

    def add(self, name: str, number: int = 1) -> None:
        """Add `number` to the counter `name`."""
        with self._lock:
            self._values[name] += number

    def values(self) -> dict[str, int]:
        """Return what this process has counted since it started."""
        with self._lock:
            return dict(self._values)

    def share(self, add: Callable[[dict[str, int], str, int], None]) -> None:
        """
        Call `add(increments, process, number)` with what was counted since the last call. `add` adds to the
        counters of all processes, once for each number of a process. If it raises, the next call of `share`
        repeats it with the same increments and the same number.
        """
        with self._sharing:
            if self._unsure:
                self._add(add)
            with self._lock:
                self._unsure = self._values - self._shared
            if self._unsure:
                self._number += 1
                self._add(add)

    def _add(self, add: Callable[[dict[str, int], str, int], None]) -> None:
        add(dict(self._unsure), self._id, self._number)
        self._shared += self._unsure
        self._unsure = Counter()

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
            self._unsure = Counter()

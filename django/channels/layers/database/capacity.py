"""
What this process knows of queues without asking the database: how much room they have, and where they begin.

Both are tricks that save queries; neither is shared. No I/O.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Sequence

#: Seconds for which a counted queue is relied on; and the share of its room that is given as credit.
CREDIT_LIFETIME = 1.0
CREDIT_SHARE = 4

#: Entries that are kept at most.
MAX_QUEUES = 5000

#: Seconds after which the number of a message that was taken becomes its queue's low-water mark.
MARK_LAG = 0.1

#: Seconds between two searches from the start of the queues: least, most; and their share of the time.
SEARCH_MIN_INTERVAL = 1.0
SEARCH_MAX_INTERVAL = 10.0
SEARCH_SHARE = 0.05


class _Room:
    __slots__ = ("credit", "mark", "until")

    def __init__(self) -> None:
        self.credit = 0
        self.mark = 0
        self.until = 0.0


class RemainingCapacity:
    """
    How many more messages queues take. Thread-safe.

    After a queue was counted, a share of its room is credit: so many messages are sent without another count.
    The bound is exact for one sender, and may be passed by that share if several send at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rooms: dict[str, _Room] = {}

    def take(
        self,
        queue: str,
        pending: int,
        count: Callable[[int], tuple[int, int, int | None]],
    ) -> bool:
        """
        Return whether there is room for one more message, besides `pending` that are about to be sent.

        `count(mark)` returns (messages that wait, capacity, number of the first or None); numbers up to
        `mark` are known to be gone.
        """
        now = time.monotonic()
        with self._lock:
            room = self._rooms.get(queue)
            if room is None:
                if len(self._rooms) > MAX_QUEUES:
                    self._rooms.clear()
                room = self._rooms[queue] = _Room()
            if room.credit > 0 and now < room.until:
                room.credit -= 1
                return True
        waiting, capacity, first = count(room.mark)
        waiting += pending
        with self._lock:
            if first is not None:
                room.mark = first - 1
            room.credit = max(0, (capacity - waiting) // CREDIT_SHARE - 1)
            room.until = now + CREDIT_LIFETIME
        return waiting < capacity

    def clear(self) -> None:
        """Forget everything: the tables were emptied."""
        with self._lock:
            self._rooms.clear()


class LowWaterMarks:
    """
    Numbers below which a queue is known to be empty, so that a search need not pass what others have taken.
    Thread-safe.

    PostgreSQL keeps the index entries of deleted rows while any transaction that could see them is open. A
    mark is a number that was taken MARK_LAG seconds ago. A message may come in below it (requeued, or one
    whose sender was slow to commit), so a search starts from the very beginning from time to time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: dict[str, list[float]] = {}  # queue to [mark, next mark, when that was taken]
        self._search_at = 0.0

    def of(self, queues: Sequence[str]) -> list[int]:
        """Return the mark of each of `queues`; all 0 when a search from the beginning is due."""
        if time.monotonic() >= self._search_at:
            return [0] * len(queues)
        marks = self._marks
        return [int(marks[queue][0]) if queue in marks else 0 for queue in queues]

    def searched(self, seconds: float) -> None:
        """Plan the next search from the beginning: this one took `seconds`."""
        pause = min(SEARCH_MAX_INTERVAL, max(SEARCH_MIN_INTERVAL, seconds / SEARCH_SHARE))
        self._search_at = time.monotonic() + pause

    def taken(self, queue: str, number: int) -> None:
        """Note that the message `number` of `queue` was taken."""
        now = time.monotonic()
        with self._lock:
            entry = self._marks.get(queue)
            if entry is None:
                if len(self._marks) > MAX_QUEUES:
                    self._marks.clear()
                self._marks[queue] = [0, number, now]
            elif now - entry[2] >= MARK_LAG:
                entry[0] = max(entry[0], min(entry[1], number - 1))
                entry[1], entry[2] = number, now

    def clear(self) -> None:
        """Forget everything: numbers may begin anew, or something came in below."""
        with self._lock:
            self._marks.clear()
            self._search_at = 0.0

    def forget(self, queue: str) -> None:
        """Forget the mark of one queue: something came in below it."""
        with self._lock:
            self._marks.pop(queue, None)

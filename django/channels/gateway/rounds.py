"""
Rounds of an event loop, in which a few of the clients that wait with portions get one of them parsed.

Each portion is small, but a round in which a hundred clients had theirs parsed took a second.
"""

from __future__ import annotations

import contextvars
import weakref
from collections import deque
from typing import Any, Callable

#: Portions that are parsed in one round of the event loop, of as many clients.
PORTIONS_OF_A_ROUND = 4


class Rounds:
    """Calls what waits, a few calls in each round of an event loop, first come first served."""

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)  # which this must not keep alive
        self._waiting: deque[tuple[contextvars.Context, Callable[[], None]]] = deque()
        self._is_scheduled = False

    def add(self, parse: Callable[[], None]) -> None:
        """
        Call `parse` in one of the next rounds, in the context of the caller. What it raises is reported to
        the event loop.
        """
        self._waiting.append((contextvars.copy_context(), parse))
        self._schedule()

    @property
    def is_busy(self) -> bool:
        """Whether as many wait as the next round calls, or more."""
        return len(self._waiting) >= PORTIONS_OF_A_ROUND

    def _schedule(self) -> None:
        loop = self._loop()
        if not self._is_scheduled and loop is not None:
            self._is_scheduled = True
            loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        number = min(PORTIONS_OF_A_ROUND, len(self._waiting))
        calls = [self._waiting.popleft() for _ in range(number)]
        if self._waiting:
            self._schedule()
        for context, parse in calls:
            try:
                context.run(parse)
            except Exception as error:  # keeps no other client from its turn
                loop = self._loop()
                text = "A portion of what a client sent could not be parsed"
                if loop is not None:
                    loop.call_exception_handler({"message": text, "exception": error})


_rounds: weakref.WeakKeyDictionary[Any, Rounds] = weakref.WeakKeyDictionary()


def rounds_of(loop: Any) -> Rounds:
    """Return the Rounds of an event loop."""
    found = _rounds.get(loop)
    if found is None:
        found = _rounds[loop] = Rounds(loop)
    return found

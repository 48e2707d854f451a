"""
Tell gateways which events have run for a while, so that they send the events of other connections.

`LateEvents` does it for the event loop of a process, `LateThreads` for its worker threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Sequence

from .protocol import HTTP_REQUEST, TURN_CHANNELS, WEBSOCKET_CONNECT
from .replies import tell_running

if TYPE_CHECKING:
    from .continued import Continued
    from .worker import Worker

#: Seconds after which the gateway is told that an event runs. Until then, the gateway counts it as one that
#: waits for a worker.
RUNNING_AFTER = 0.02

#: The channels whose events are told while a worker thread runs them. Batches of frames are short.
THREAD_CHANNELS = frozenset([HTTP_REQUEST, WEBSOCKET_CONNECT])


class LateEvents:
    """
    The running consumers and streams of one loop, whose gateways are told after RUNNING_AFTER seconds.
    `calls` is the executor for calls of the layer.

    Belongs to the event loop.
    """

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        #: The time (monotonic) to tell the gateway, and the event. The earliest comes first.
        self._events: deque[tuple[float, Continued]] = deque()

    def watch(self, event: Continued) -> None:
        """Tell the gateway of `event`, once, after RUNNING_AFTER seconds, if the event has not ended."""
        if event.replies.event_id is None or event.message.channel_name not in TURN_CHANNELS:
            return
        if event.replies.is_late:
            return
        self._events.append((time.monotonic() + RUNNING_AFTER, event))
        if len(self._events) == 1:
            asyncio.get_event_loop().call_later(RUNNING_AFTER, self._check)

    def _check(self) -> None:
        now, late = time.monotonic(), []
        while self._events and (self._events[0][0] <= now or self._events[0][1].has_ended):
            event = self._events.popleft()[1]
            if not (event.has_ended or event.replies.is_late):
                event.replies.is_late = True
                late.append(event.replies)
        loop = asyncio.get_event_loop()
        if late:
            loop.run_in_executor(self._calls, tell_running, late)
        if self._events:
            loop.call_later(self._events[0][0] - now, self._check)


class LateThreads:
    """
    The events that the worker threads of a process run, whose gateways are told after about RUNNING_AFTER
    seconds. A worker has its event of one of THREAD_CHANNELS in `handling`.

    Belongs to the thread that calls `run`. `is_asleep`, `wake` and `end` are thread-safe.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        #: Whether a worker that begins an event must call `wake`. So most events call nothing.
        self.is_asleep = False
        self._has_ended = False
        self._woken = threading.Event()

    def wake(self) -> None:
        """Watch again."""
        self.is_asleep = False
        self._woken.set()

    def end(self) -> None:
        """End `run` soon."""
        self._has_ended = True
        self._woken.set()

    def run(self) -> None:
        """Tell the gateways of late events until `end`."""
        while not self._has_ended:
            self._woken.clear()
            # Before the workers are read, so that an event which begins meanwhile isn't missed.
            self.is_asleep = True
            pause = self.check(time.monotonic())
            if pause is None:
                if not self._has_ended:
                    self._woken.wait()
                pause = RUNNING_AFTER
            self.is_asleep = False
            time.sleep(pause)

    def check(self, now: float) -> float | None:
        """
        Tell the gateways of the events that are late at the time `now` (monotonic). Return the seconds until
        the next one may be late, or None if there is none.
        """
        late, first = [], None
        for worker in self._workers:
            replies = worker.handling
            if replies is None or replies.is_late:
                continue
            if replies.started + RUNNING_AFTER <= now:
                replies.is_late = True
                late.append(replies)
            elif first is None or replies.started < first:
                first = replies.started
        if late:
            tell_running(late)
        return None if first is None else max(first + RUNNING_AFTER - now, RUNNING_AFTER / 4)

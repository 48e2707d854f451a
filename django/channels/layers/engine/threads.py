"""
Threads that do not end by a bug: every thread of layers and workers begins here.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable

from ...log import RateLimit

logger = logging.getLogger("django.channels.layers")

#: Seconds before the work of a thread that failed starts again: at first, and at most.
RESTART_INTERVAL, MAX_RESTART_INTERVAL = 0.1, 1.0

#: Seconds of work after which a failure counts as the first one again.
STEADY = 10.0


def start_thread(
    name: str, work: Callable[[], object], is_over: Callable[[], bool] = lambda: False
) -> threading.Thread:
    """
    Start the daemon thread `name`, which calls `work()` until it returns, and return the thread.

    Whatever `work` raises, SystemExit included, is logged, at most once a second, and `work` is called again
    after a pause, unless `is_over()`. So `work` must be able to begin again, and must return at once when it
    is to end.
    """
    thread = threading.Thread(target=_repeat, args=(name, work, is_over), name=name, daemon=True)
    thread.start()
    return thread


def _repeat(name: str, work: Callable[[], object], is_over: Callable[[], bool]) -> None:
    limit, pause = RateLimit(), RESTART_INTERVAL
    while True:
        began = time.monotonic()
        try:
            work()
            return
        except BaseException:  # also SystemExit: nothing that a thread meets may stop the site
            _log(name, limit)
        if is_over():
            return
        if time.monotonic() - began > STEADY:
            pause = RESTART_INTERVAL
        time.sleep(pause)
        pause = min(pause * 2, MAX_RESTART_INTERVAL)


def _log(name: str, limit: RateLimit) -> None:
    try:
        limit.log(logger.exception, "The thread %s failed; it continues.", name)
    except BaseException:  # the site's own log handler failed
        pass

"""
The threads in which the event loop of a worker has blocking code of the site run.
"""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Callable

from .signals import release_connections

try:
    from asgiref.sync import SyncToAsync, ThreadSensitiveContext
except ImportError:  # with Django 2.2 and older, or an asgiref older than 3.3.2
    SyncToAsync = None

#: Threads of one process. Each has its own database connections.
SITE_THREADS = 16


class SiteThreads:
    """
    Up to `limit` threads, each of which runs one call at a time. They start when they are needed.

    Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        #: Each thread, with the number of events that use it.
        self._used: list[list[Any]] = []

    def acquire(self) -> list[Any]:
        """Return the entry of the thread that the fewest events use."""
        with self._lock:
            entry = min(self._used, key=lambda each: each[1], default=None)
            if entry is None or (entry[1] and len(self._used) < self.limit):
                name = "channels-loop-site-%d" % (len(self._used) + 1)
                entry = [ThreadPoolExecutor(1, thread_name_prefix=name), 0]
                self._used.append(entry)
            entry[1] += 1
            return entry

    def release(self, entry: list[Any]) -> None:
        """
        Count one event less on a thread. When it has none, it releases its database connections: events that
        share a thread share these, too.
        """
        with self._lock:
            entry[1] -= 1
            if entry[1]:
                return
        try:
            entry[0].submit(self._release_connections, entry)
        except RuntimeError:
            pass  # the process ends

    @staticmethod
    def _release_connections(entry: list[Any]) -> None:
        """Runs in the thread. Another event may have begun to use it meanwhile."""
        if not entry[1]:
            release_connections()

    def end(self) -> None:
        """End the threads after what they run."""
        with self._lock:
            for executor, _ in self._used:
                executor.shutdown(wait=False)


class SiteThread(Executor):
    """
    The thread of one event: the calls of an event run in one thread, one after the other, as Django expects
    of what asgiref calls "thread sensitive".

    Belongs to the event loop.
    """

    def __init__(self, threads: SiteThreads) -> None:
        self._threads = threads
        self._entry: Any = None
        self._context: Any = None

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Have the thread call `function`."""
        if self._entry is None:
            self._entry = self._threads.acquire()
        future: Future[Any] = self._entry[0].submit(function, *args, **kwargs)
        return future

    def take_from(self, threads: SiteThreads) -> None:
        """Take the thread from `threads`, if it wasn't needed before."""
        self._threads = threads

    def use_for_asgiref(self) -> None:
        """Have `sync_to_async` use the thread in this context."""
        if SyncToAsync is None:
            return
        if self._context is None:
            self._context = ThreadSensitiveContext()
            SyncToAsync.context_to_thread_executor[self._context] = self
        SyncToAsync.thread_sensitive_context.set(self._context)

    def close(self) -> None:
        """Release the thread to other events."""
        if self._context is not None:
            SyncToAsync.context_to_thread_executor.pop(self._context, None)
        if self._entry is not None:
            self._threads.release(self._entry)
            self._entry = None

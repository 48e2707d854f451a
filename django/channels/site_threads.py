"""
Run the site's blocking code in threads, for the event loop of a worker.
"""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Callable

from .coroutines import call_in_executor
from .signals import release_connections
from .transactions import Open, add_opened, end_opened, open_here

try:
    from asgiref.sync import SyncToAsync, ThreadSensitiveContext
except ImportError:  # without asgiref, or with one older than 3.3.2
    SyncToAsync = None

#: Threads of one process, by default. Each has its own database connections.
SITE_THREADS = 16


class Call(Future):  # type: ignore[type-arg]
    """A call in a thread, which is in the set `running` until it ends."""

    #: Whether its await was cancelled while it ran.
    is_left = False

    def __init__(self, running: set[Call]) -> None:
        super().__init__()
        running.add(self)
        self.add_done_callback(running.discard)

    def cancel(self) -> bool:
        is_cancelled = super().cancel()
        self.is_left = not is_cancelled
        return is_cancelled


def carry_out(call: Call, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Do `call` in this thread, unless it was cancelled before."""
    if not call.set_running_or_notify_cancel():
        return
    try:
        call.set_result(call_in_executor(function, *args, **kwargs))
    except BaseException as error:
        call.set_exception(error)
        del call  # the error's traceback holds this frame, which would hold it in turn


class SiteThreads:
    """
    A pool of up to `limit` threads. Each runs one call at a time, and starts when it is needed.

    Events that run at the same time may share a thread. Its entry is [executor, number of events].

    Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        #: The entry of each thread.
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

    def release(self, entry: list[Any], finish: Callable[[], Any] = bool) -> None:
        """
        Note that an event no longer uses a thread, in which `finish()` is then called. A thread without
        events closes its database connections, because events that share a thread also share its connections.
        """
        with self._lock:
            entry[1] -= 1
        try:
            entry[0].submit(self._release_connections, entry, finish)
        except RuntimeError:
            pass  # the process ends

    @staticmethod
    def _release_connections(entry: list[Any], finish: Callable[[], Any]) -> None:
        """Release the connections of this thread, if no other event has begun to use it meanwhile."""
        finish()
        if not entry[1]:
            release_connections()

    def end(self) -> None:
        """End each thread when it has run the calls that it has."""
        with self._lock:
            for executor, _ in self._used:
                executor.shutdown(wait=False)


class SiteThread(Executor):
    """
    The thread of one event, as an Executor. All calls of an event run in the same thread, one after the
    other: Django requires that of calls that asgiref names "thread sensitive".

    Belongs to the event loop.
    """

    def __init__(self, threads: SiteThreads) -> None:
        self._threads = threads
        self._entry: Any = None
        self._context: Any = None
        self._is_closed = False
        #: The calls of the event that wait or run, in this thread and in others.
        self.running: set[Call] = set()
        #: Returns how a log line names the event.
        self.who: Callable[[], str] = lambda: "An event"
        #: What the event has opened on the thread's connections and not closed yet. The thread's.
        self._opened: dict[str, Open] = {}

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Call `function` in the thread."""
        if self._entry is None:
            self._entry = self._threads.acquire()
        call = Call(self.running)
        self._entry[0].submit(carry_out, call, self._call, function, *args, **kwargs)
        if self._is_closed:
            self.close()  # of a task that has outlived the event
        return call

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` in the thread. A transaction may begin in one call and end in a later one."""
        before = open_here()
        try:
            return function(*args, **kwargs)
        finally:
            add_opened(self._opened, before, open_here())

    def _finish(self) -> None:
        """Roll back what the event has left open, in the thread and after all of its calls."""
        left = {alias for alias, opened in self._opened.items() if max(opened) > 0}
        self._opened.clear()
        if left:
            others = {alias: each for alias, each in open_here().items() if alias not in left}
            end_opened(others, self.who)

    @property
    def has_left_calls(self) -> bool:
        """Whether calls of the event still run whose await was cancelled."""
        return any(call.is_left for call in self.running.copy())

    def take_from(self, threads: SiteThreads) -> None:
        """Use a thread of `threads`. Does nothing after the first `submit`."""
        self._threads = threads

    def use_for_asgiref(self) -> None:
        """Make `sync_to_async` use the thread in this context."""
        if SyncToAsync is None:
            return
        if self._context is None:
            self._context = ThreadSensitiveContext()
            SyncToAsync.context_to_thread_executor[self._context] = self
        SyncToAsync.thread_sensitive_context.set(self._context)

    def close(self) -> None:
        """Release the thread to other events."""
        self._is_closed = True
        if self._context is not None:
            SyncToAsync.context_to_thread_executor.pop(self._context, None)
        if self._entry is not None:
            self._threads.release(self._entry, self._finish)
            self._entry = None

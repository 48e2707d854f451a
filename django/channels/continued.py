"""
One event that an event loop continues.
"""

from __future__ import annotations

import contextvars
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Callable, ContextManager

from .site_threads import Call, SiteThread, carry_out

if TYPE_CHECKING:
    from .eventloop import ConsumerLoop, Handover
    from .windows import Window


class Continued:
    """
    One event that is continued on the loop. `loop` is the ConsumerLoop, for the coroutine to use.

    Belongs to the event loop.
    """

    def __init__(self, loop: ConsumerLoop, handover: Handover) -> None:
        self.loop = loop
        self.consumer_id = handover.consumer_id
        self.replies = handover.replies
        self.proceed = handover.proceed
        self.message: Any = None
        #: Whether an asynchronous consumer runs, and not a stream.
        self.is_consumer = False
        #: The address for which a stream counts.
        self.address = ""
        #: Whether the consumer is cancelled when its client goes. A stream always is.
        self.ends_with_client = False
        #: When (monotonic) it last sent something.
        self.active_at = time.monotonic()
        #: Whether the process stops, and cancels it.
        self.stops = False
        self.task: Any = None
        #: The tasks that its coroutine has started.
        self.tasks: Any = weakref.WeakSet()
        self.threads = SiteThread(loop.site_threads)
        self._window: Window | None = None
        self.has_ended = False
        #: Whether its consumer has ended, and so left its place.
        self.has_left = False
        #: Set when it is acknowledged.
        self.ended = handover.ended

    @property
    def window(self) -> Window:
        """How far the client of this event is behind."""
        if self._window is None:
            self._window = self.loop.windows.open(self)
        return self._window

    def waits_for_client(self) -> ContextManager[None]:
        """Return a context manager to wait in for a slow client. A consumer gives up its place meanwhile."""
        if not self.is_consumer:
            return nullcontext()
        return self.loop.places.waiting_for_client(self.replies.address)

    def cancel(self) -> None:
        """Cancel the coroutine. It may still clear up."""
        if self.task is not None:
            self.task.cancel()

    def client_gone(self) -> None:
        """Handle that the client has left. Most consumers learn it when they send."""
        if self.ends_with_client or not self.is_consumer:
            self.cancel()

    def close(self) -> None:
        """Give back what it has used."""
        self.has_ended = True
        if self._window is not None:
            self._window.close()
        self.threads.close()


#: The event that a task belongs to.
CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("channels_event", default=None)


def current_event() -> Any:
    """Return the event (a Continued) that the task belongs to which runs here, or None."""
    return CURRENT.get()


class EventThreads(ThreadPoolExecutor):
    """Threads of the site's code besides SiteThread: those of `asyncio.to_thread`, and of a stream."""

    #: Whether a thread was started.
    is_used = False

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        """Call `function` in a thread, for the event whose task runs here."""
        self.is_used = True
        event = current_event()
        call = Call(set() if event is None else event.threads.running)
        super().submit(carry_out, call, function, *args, **kwargs)
        return call

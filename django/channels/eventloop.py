"""
The event loop of a worker process: continues events that wait without holding a worker's thread.

A worker's thread runs a consumer. If that leaves a coroutine for the rest of its event, the thread hands the
event over: the claim with its consumer id, the Replies, and the context variables. The thread goes on under
another consumer id, because a claim belongs to an id and not to a thread. `ConsumerLoop` runs the coroutine,
sends what it left, and acknowledges the event.

The coroutine must not block. It has layers called by `ConsumerLoop.call`, which uses threads. A lost process
loses these events as it loses those of its threads: the redelivery policy decides.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
import uuid
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Awaitable, Callable, NamedTuple

from .consume import call_afterwards, continue_consumer
from .exceptions import LayerUnavailable
from .protocol import CLOSED, WRITTEN, closed
from .signals import release_connections
from .streams import count_setting

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .message import Message
    from .outbox import Rest
    from .replies import Replies

logger = logging.getLogger("django.channels.worker")

#: Events that one process continues at a time. Another one is refused.
MAX_EVENTS = 1000

#: Threads for the calls that block.
CALL_THREADS = 4

#: When the process is told to stop: seconds for which an event may have sent nothing, or it is cancelled at
#: once; seconds before the end of the grace period at which all are cancelled; and between two looks.
STOP_IDLE, STOP_MARGIN, STOP_POLL_INTERVAL = 2.0, 1.0, 0.05

#: Seconds that tasks which an event has started may run on after its end.
TASKS_TIMEOUT = 0.1

#: Seconds between two attempts to reach a layer that is unavailable.
RECONNECT_INTERVAL = 1.0


class WorkerStops(Exception):
    """The worker was told to stop, while a consumer waits."""


class Window:
    """
    How far the stream of one event is ahead of its gateway, which sends notices to the channel `name`.

    Belongs to the event loop.
    """

    def __init__(self, name: str, event: Continued, forget: Callable[[Window], None]) -> None:
        self.name = name
        #: Messages that the gateway hasn't written or stored.
        self.ahead = 0
        self.is_closed = False
        self._event = event
        self._forget = forget
        self._changed = asyncio.Event()

    def notice(self, message: dict[str, Any]) -> None:
        """Handle what the gateway has sent."""
        if message.get(CLOSED):
            self.is_closed = True
            self._event.cancel()
        self.ahead -= message.get(WRITTEN, 0)
        self._changed.set()

    async def below(self, number: int, seconds: float) -> bool:
        """Wait until it is ahead by less than `number`. Return False if nothing changes for `seconds`."""
        while self.ahead >= number:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except asyncio.TimeoutError:
                return False
        return True

    def close(self) -> None:
        """Expect no more notices."""
        self._forget(self)


class Continued:
    """
    One event that is continued on the loop. `loop` is the ConsumerLoop, for the coroutine to use.

    Belongs to the event loop.
    """

    def __init__(
        self, loop: ConsumerLoop, consumer_id: str, replies: Replies, message: Message
    ) -> None:
        self.loop = loop
        self.consumer_id = consumer_id
        self.replies = replies
        self.message = message
        #: When (monotonic) it last sent something.
        self.active_at = time.monotonic()
        #: Whether the process stops, and cancels it.
        self.stops = False
        self.task: Any = None
        #: The tasks that its coroutine has started.
        self.tasks: Any = weakref.WeakSet()

    def cancel(self) -> None:
        """Cancel the coroutine. It may still clear up."""
        if self.task is not None:
            self.task.cancel()


#: The event that a task belongs to.
_current: contextvars.ContextVar[Any] = contextvars.ContextVar("channels_event", default=None)


class _Handover(NamedTuple):
    consumer_id: str
    replies: Replies
    rest: Rest


class ConsumerLoop:
    """
    The event loop of the workers of one process and layer. Its thread starts with the first event.

    `take_over`, `is_full`, `new_consumer_id`, `end_by` and `join` are thread-safe. Everything else belongs to
    the event loop, in the thread "channels-loop".
    """

    def __init__(self, layer: BaseChannelLayer) -> None:
        self.layer = layer
        #: Events at a time.
        self.limit = count_setting("CHANNEL_ASYNC_STREAMS", MAX_EVENTS)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: Any = None
        self._calls = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="channels-loop-call")
        self._events: dict[Continued, None] = {}
        self._number = 0  # of events that were handed over and have not ended
        self._spare_ids: deque[str] = deque()
        self._stopping = False
        self._windows: dict[str, Window] = {}
        self._window_number = 0
        self._window_thread: threading.Thread | None = None
        self._window_prefix = ""

    # For the worker's threads.

    @property
    def is_full(self) -> bool:
        """Whether no event should be handed over now."""
        return self._number >= self.limit or self._stopping

    def new_consumer_id(self) -> str:
        """Return a consumer id for a worker's thread that hands over its own. Ids are used again."""
        try:
            return self._spare_ids.popleft()
        except IndexError:
            return make_consumer_id()

    def take_over(self, consumer_id: str, replies: Replies, rest: Rest) -> None:
        """
        Continue the event that `consumer_id` has claimed. Nothing else may be claimed under this id until
        `new_consumer_id` has returned it. Returns at once.
        """
        with self._lock:
            self._number += 1
            if self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_task_factory(_make_task)
                self._thread = threading.Thread(
                    target=self._run_loop, name="channels-loop", daemon=True
                )
                self._thread.start()
        handover = _Handover(consumer_id, replies, rest)
        # A task copies the context in which it is made: that of the consumer.
        self._loop.call_soon_threadsafe(rest.context.run, self._begin, handover)

    def end_by(self, deadline: float) -> None:
        """
        Take no more events, and let those that run end until `deadline` (monotonic). Those that wait are
        cancelled soon, and all of them before the deadline. Returns at once.
        """
        with self._lock:
            self._stopping = True
            if self._thread is not None:
                self._loop.call_soon_threadsafe(self._cancel_waiting, deadline)

    def join(self, deadline: float) -> bool:
        """Wait for the end of all events after `end_by`, and end the loop. Return whether all have ended."""
        if self._thread is None:
            return True
        while self._number:
            if time.monotonic() > deadline:
                return False
            time.sleep(STOP_POLL_INTERVAL)
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread, self._thread = self._thread, None
        thread.join(max(STOP_MARGIN, deadline - time.monotonic()))
        return not thread.is_alive()

    # The loop.

    def _run_loop(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
                break
            except BaseException:  # a SystemExit of a task that site code has started, for example
                logger.exception("A task of the event loop ended by this error. The loop runs on:")
        self._calls.shutdown(wait=False)
        if self._window_prefix:
            try:
                self.layer.deliver(self._window_prefix, closed())  # it wakes the thread
            except Exception:
                pass  # the thread ends when its call does
        loop.close()

    def _begin(self, handover: _Handover) -> None:
        event = Continued(self, handover.consumer_id, handover.replies, handover.rest.message)
        self._events[event] = None
        _current.set(event)
        event.task = self._loop.create_task(self._run(event, handover.rest))

    async def _run(self, event: Continued, rest: Rest) -> None:
        """Run the rest of one event, send what it leaves, and acknowledge it."""
        try:
            result = await continue_consumer(event, rest)
            await self._end_tasks(event)
            await self.call(self._finish, event, result)
        except BaseException:
            logger.exception("An event could not be ended. It is lost when this process ends:")
        finally:
            self._events.pop(event, None)
            with self._lock:
                self._number -= 1

    def _finish(self, event: Continued, result: Any) -> None:
        """Send and acknowledge. Runs in a thread for calls."""
        replies = event.replies
        try:
            try:
                replies.add(event.message, result)
            except BaseException:
                logger.exception("What a consumer left on the event loop could not be sent:")
                replies.fail()
            replies.finish()
            call_afterwards(replies.afterwards)
            self.layer.acknowledge(event.consumer_id)
            self._spare_ids.append(event.consumer_id)
        except LayerUnavailable as error:
            logger.warning(
                "A message could not be acknowledged. The layer will treat it as lost: %s", error
            )
        finally:
            release_connections()

    async def _end_tasks(self, event: Continued) -> None:
        """End the tasks that the event has started: each gets a moment."""
        await asyncio.sleep(0)
        for cancels in (False, True):
            tasks = {each for each in event.tasks if not each.done()}
            tasks.discard(asyncio.current_task())
            if not tasks:
                return
            if cancels:
                for each in tasks:
                    each.cancel()
            await asyncio.wait(tasks, timeout=TASKS_TIMEOUT)

    def _cancel_waiting(self, deadline: float) -> None:
        """Cancel what waits, or everything near the deadline, and look again soon."""
        now = time.monotonic()
        is_late = now > deadline - STOP_MARGIN
        for event in list(self._events):
            if not event.stops and (is_late or now - event.active_at > STOP_IDLE):
                event.stops = True
                event.cancel()
        if self._number:
            self._loop.call_later(STOP_POLL_INTERVAL, self._cancel_waiting, deadline)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Return what `function(*args)` returns, which may block. It runs in a thread, in the context of the
        caller, and to its end: what is cancelled meanwhile is cancelled afterwards.
        """
        context = contextvars.copy_context()
        future = self._loop.run_in_executor(self._calls, context.run, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    # Windows.

    def open_window(self, event: Continued) -> Window:
        """Return a Window for the stream of `event`. All windows of the process share one channel's queue."""
        if self._window_thread is None:
            self._window_prefix = "http.window.%s!" % uuid.uuid4().hex[:12]
            self._window_thread = threading.Thread(
                target=self._read_windows, name="channels-windows", daemon=True
            )
            self._window_thread.start()
        self._window_number += 1
        window = Window(
            "%s%d" % (self._window_prefix, self._window_number), event, self._forget_window
        )
        self._windows[window.name] = window
        return window

    def _forget_window(self, window: Window) -> None:
        self._windows.pop(window.name, None)

    def _read_windows(self) -> None:
        """Pass the notices of gateways to the loop. Runs in the thread "channels-windows"."""
        while not self._loop.is_closed():
            try:
                channel, message = self.layer.receive_many([self._window_prefix], block=True)
                if message is not None:
                    self._loop.call_soon_threadsafe(self._notice, channel, message)
            except Exception as error:
                if self._loop.is_closed():
                    return
                if not isinstance(error, LayerUnavailable):
                    logger.exception("Notices of gateways could not be read; trying again:")
                time.sleep(RECONNECT_INTERVAL)

    def _notice(self, channel: str, message: dict[str, Any]) -> None:
        window = self._windows.get(channel)
        if window is not None:
            window.notice(message)


def make_consumer_id() -> str:
    """Return a new consumer id of this process."""
    return "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Awaitable[Any], **options: Any
) -> asyncio.Task[Any]:
    """Make a task, and note the event that it belongs to."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)  # type: ignore[arg-type]
    event = _current.get()
    if event is not None:
        event.tasks.add(task)
    return task

"""
The event loop of a worker process: runs asynchronous consumers, and streams that wait, without a thread each.

A worker's thread runs a consumer. If that leaves a coroutine for the rest of its event, the thread hands the
event over: the claim with its consumer id, the Replies, and the context variables. The thread goes on under
another consumer id, because a claim belongs to an id and not to a thread. `ConsumerLoop` runs the coroutine,
sends what it left, and acknowledges the event.

The coroutine must not block: see `ConsumerLoop.call`. A lost process loses these events as it loses those of
its threads: the redelivery policy decides.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Coroutine, NamedTuple

from .acknowledging import Acknowledger
from .awaited import send_so_far
from .consume import (
    CANCELLED,
    HANDLED,
    Result,
    call_afterwards,
    consumer_name,
    continue_consumer,
    described,
    end_consumer,
)
from .continued import CURRENT, Continued, EventThreads
from .coroutines import (
    RaisesWhereItWaits,
    call_blocking_with,
    call_in_executor,
    call_with,
    share_loop,
)
from .late import LateEvents
from .log import RateLimitByKey
from .pages import see
from .places import ASYNC_CONCURRENCY, Places
from .protocol import WEBSOCKET_CONNECT
from .shares import Shares, client_address
from .signals import release_connections
from .site_threads import SITE_THREADS, SiteThreads
from .streams import count_setting
from .thread_state import current_state
from .windows import Windows

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .outbox import Rest
    from .replies import Replies

logger = logging.getLogger("django.channels.worker")

#: Streams that one process continues at a time. Another one is refused.
MAX_EVENTS = 2000

#: What a consumer sends in memory is sent on the loop itself, if it isn't more.
FEW_SENDS = 100

#: Threads for the calls that block.
CALL_THREADS = 4

#: When the process stops: seconds for which a stream may have sent nothing, or it is cancelled at once;
#: seconds before the end of the grace period at which all are cancelled; and between two checks.
STOP_IDLE, STOP_MARGIN, STOP_POLL_INTERVAL = 2.0, 1.0, 0.05

#: Seconds that tasks which an event has started may run on after its end.
TASKS_TIMEOUT = 0.1

#: Seconds for which the end of an event waits for a thread that it no longer awaits; and between two polls.
THREADS_TIMEOUT, THREADS_POLL_INTERVAL = 10.0, 0.02


class WorkerStops(Exception):
    """The worker was told to stop, while a consumer waits."""


class Handover(NamedTuple):
    """A claimed event, as a worker's thread hands it to the loop."""

    #: The id under which it is claimed.
    consumer_id: str
    replies: Replies
    rest: Rest
    #: Handles the next frames of a batch, until one leaves a rest. Called in a thread.
    proceed: Callable[[Replies], Any]
    #: Set when the event has ended.
    ended: threading.Event


class ConsumerLoop:
    """
    The event loop of the workers of one process and layer. Its thread starts with the first event. Up to
    `concurrency` asynchronous consumers run on it at a time, and besides them streams.

    `take_over`, `may_stream`, `places`, `new_consumer_id`, `end_by` and `join` are thread-safe. Everything
    else belongs to the event loop, in the thread "channels-loop".
    """

    def __init__(self, layer: BaseChannelLayer, concurrency: int = ASYNC_CONCURRENCY) -> None:
        self.layer = layer
        #: Streams at a time.
        self.limit = count_setting("CHANNEL_ASYNC_STREAMS", MAX_EVENTS)
        #: For asynchronous consumers. The thread that hands one over has acquired a place, which the
        #: consumer's end gives back.
        self.places = Places(layer, concurrency)
        self.windows = Windows(layer)
        self.site_threads = SiteThreads(count_setting("CHANNEL_ASYNC_THREADS", SITE_THREADS))
        #: Enough for each view to have its own: synchronous middleware holds one until its view has ended.
        self.view_threads = SiteThreads(concurrency)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: Any = None
        self._calls = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="channels-loop-call")
        self._events: dict[Continued, None] = {}
        self._streams = Shares()  # that were handed over and have not ended
        self._late = LateEvents(self._calls)
        self._cancelled = RateLimitByKey(60.0)
        self._outlived = RateLimitByKey(60.0)
        self._abandoned = 0  # consumers that were cancelled at the end
        self.spare_ids: deque[str] = deque()
        self.is_stopping = False
        #: When (monotonic) everything is cancelled, because the process stops.
        self._stops_at = float("inf")
        #: Set before the loop is stopped for good. Site code that runs on it may stop it, too.
        self._has_ended = False
        self._acknowledger = Acknowledger(self)

    # For the worker's threads.

    def may_stream(self, message: Any) -> bool:
        """Return whether a stream for the client of `message` may be handed over now."""
        address = client_address(message)
        return not self.is_stopping and self._streams.allows(address, 1, self.limit)

    def new_consumer_id(self) -> str:
        """Return a consumer id for a worker's thread that hands over its own. Ids are used again."""
        try:
            return self.spare_ids.popleft()
        except IndexError:
            return make_consumer_id()

    def take_over(
        self, consumer_id: str, replies: Replies, rest: Rest, proceed: Callable[[Replies], Any]
    ) -> threading.Event:
        """
        Continue the event that `consumer_id` has claimed. Nothing else may be claimed under this id until
        `new_consumer_id` has returned it. Returns at once, an Event that is set when all is done.

        For an asynchronous consumer, a place was acquired.
        """
        with self._lock:
            if rest.held is None:
                self._streams.take(client_address(rest.message), 1)
            if self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_task_factory(_make_task)
                self._loop.set_default_executor(EventThreads(thread_name_prefix="asyncio"))
                self._thread = threading.Thread(
                    target=self._run_loop, name="channels-loop", daemon=True
                )
                self._thread.start()
        handover = Handover(consumer_id, replies, rest, proceed, threading.Event())
        # A task copies the context in which it is made: that of the consumer.
        self._loop.call_soon_threadsafe(rest.context.run, self._begin, handover)
        return handover.ended

    def end_by(self, deadline: float) -> None:
        """
        Take no more streams, and let the events that run end until `deadline` (monotonic). Streams that wait
        are cancelled soon, and everything before the deadline. Returns at once.
        """
        self.places.wake()
        with self._lock:
            self.is_stopping = True
            self._stops_at = deadline - STOP_MARGIN
            if self._thread is not None:
                self._loop.call_soon_threadsafe(self._cancel_waiting, deadline)

    def join(self, deadline: float) -> bool:
        """
        Wait for the end of all events after `end_by`, and end the loop. Return whether all have ended in
        order: those that were cancelled count as lost.
        """
        if self._thread is None:
            return True
        while self._streams.used or self.places.used:
            if time.monotonic() > deadline:
                return False
            time.sleep(STOP_POLL_INTERVAL)
        self._has_ended = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread, self._thread = self._thread, None
        thread.join(max(STOP_MARGIN, deadline - time.monotonic()))
        return not thread.is_alive() and not self._abandoned

    # The loop.

    def _run_loop(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        share_loop()
        while True:
            try:
                loop.run_forever()
                if self._has_ended:
                    break
                logger.error("Site code stopped the event loop of the workers. The loop runs on.")
            except BaseException:  # a SystemExit of a task that site code has started, for example
                logger.exception("A task of the event loop ended by this error. The loop runs on:")
        self._calls.shutdown(wait=False)
        self.site_threads.end()
        self.view_threads.end()
        self.windows.end()
        loop.close()

    def _begin(self, handover: Handover) -> None:
        event = Continued(self, handover)
        self._events[event] = None
        self._start(event, handover.rest)

    def _start(self, event: Continued, rest: Rest) -> None:
        """Start the task for one rest of an event, in the context of that rest."""
        CURRENT.set(event)
        event.message = rest.message
        was_consumer, event.is_consumer = event.is_consumer, rest.held is not None
        event.address = event.address or client_address(rest.message)
        if was_consumer and not event.is_consumer:
            # It has left a stream, which has another place, and no thread.
            event.threads.close()
            with self._lock:
                self._streams.take(client_address(rest.message), 1)
            self.places.release(event.replies.address)
        event.threads.who = functools.partial(described, rest.consumer or rest.run)
        if event.is_consumer:
            call_blocking_with(self.call_site)
            event.threads.use_for_asgiref()
        self._late.watch(event)
        event.task = self.start(self._run(event, rest))
        if event.stops:
            event.cancel()  # the process stops, and the part before this one has ended meanwhile

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of the loop, in a copy of this context."""
        return _make_task(self._loop, coroutine)  # site code may have set another task factory

    async def _run(self, event: Continued, rest: Rest) -> None:
        """Run one rest of an event, send what it leaves, and go on with the next one, or acknowledge."""
        following = None
        is_handled = False
        try:
            result = await end_consumer(event, rest, await continue_consumer(event, rest))
            if event.is_consumer and result.rest is None and not event.replies.has_more_frames:
                self.places.leave(event.replies.address)
                event.has_left = True
            if result.outcome == CANCELLED:
                self._abandoned += 1
            else:
                if self._settles_at_once(event, result):
                    following = self._settle(event, rest, result)
                else:
                    # The consumers of the next frames may block, and so may what closes a response.
                    # The threads for calls must not.
                    is_site_code = event.replies.has_more_frames or result.afterwards
                    call = self.call_site if is_site_code else self.call
                    following = await call(self._settle, event, rest, result)
                is_handled = following is None
        except BaseException:
            logger.exception("An event could not be ended. It is lost when this process ends:")
        if following is not None:
            following.context.run(self._start, event, following)
        elif is_handled:
            self._acknowledger.add(event)
        else:
            self.end(event)

    def end(self, event: Continued) -> None:
        """Forget an event, and give back what it has used."""
        self._events.pop(event, None)
        event.close()
        if event.is_consumer:
            self.places.release(event.replies.address, event.has_left)
        else:
            with self._lock:
                self._streams.take(event.address, -1)
        event.ended.set()

    def _settles_at_once(self, event: Continued, result: Result) -> bool:
        """Return whether `_settle` would not block: what is usual is kept until it is acknowledged."""
        return (
            result.outcome == HANDLED
            and not result.afterwards
            and result.rest is None
            and len(result.sends) <= FEW_SENDS
            and not event.replies.has_more_frames
            and (
                not self.layer.crosses_processes
                or (self.layer.keeps_answers and event.replies.keeps(result.sends))
            )
        )

    def _settle(self, event: Continued, rest: Rest, result: Result) -> Rest | None:
        """
        Send what one rest has left. Then go on with the next frame, and return what that leaves to be
        awaited; or None if the event is handled. Runs in a thread for calls, or on the loop.
        """
        replies = event.replies
        try:
            try:
                replies.conclude(rest.message, rest.consumer or rest.run, result)
            except BaseException:
                logger.exception("What a consumer left on the event loop could not be sent:")
                replies.fail()
            if replies.rest is None and replies.has_more_frames:
                event.proceed(replies)
            if replies.rest is not None:
                replies.flush()
                return replies.take_rest()
            replies.finish()
            call_afterwards(replies.afterwards)
        finally:
            release_connections()
        return None

    def _log_cancelled(self, event: Continued, rest: Rest, number: int) -> None:
        """Log that tasks outlived the consumer that has started them. One of Channels 4 lives on for them."""
        if not event.is_consumer or event.stops:
            return
        name = consumer_name(rest.consumer)
        self._cancelled.log(
            name,
            logger.warning,
            "The consumer %s has ended and left %d tasks of asyncio.create_task, which are cancelled: a "
            "consumer handles one message, and its tasks end with it. Await them, or send a message to a "
            "channel whose consumer does the work. %s",
            name,
            number,
            see("topics/channels/async"),
        )

    async def end_tasks(self, event: Continued, rest: Rest) -> None:
        """End the tasks that the event has started: each gets a moment."""
        if len(event.tasks) <= 1:
            return  # there is only the one that runs here
        await asyncio.sleep(0)
        for cancels in (False, True):
            tasks = {each for each in event.tasks if not each.done()}
            tasks.discard(asyncio.current_task())
            if not tasks:
                return
            if cancels:
                self._log_cancelled(event, rest, len(tasks))
                for each in tasks:
                    each.cancel()
            await asyncio.wait(tasks, timeout=TASKS_TIMEOUT)

    async def end_threads(self, event: Continued, may_send: bool) -> None:
        """
        Wait for the threads of an event that run on although their await was cancelled: what they send, too,
        comes before the next event of the same client. With `may_send`, that client need not wait for what
        was sent before.
        """
        threads, deadline = event.threads, time.monotonic() + THREADS_TIMEOUT
        await asyncio.sleep(0)  # asyncio cancels a call in a thread one step after its await
        if threads.has_left_calls and may_send and event.message.channel_name != WEBSOCKET_CONNECT:
            try:
                await send_so_far(event)
            except BaseException:
                logger.exception("What a consumer has sent on the event loop could not be sent:")
        while threads.has_left_calls:
            if time.monotonic() > min(deadline, self._stops_at):
                self._log_outlived(threads.who())
                return
            await asyncio.sleep(THREADS_POLL_INTERVAL)

    def _log_outlived(self, who: str) -> None:
        self._outlived.log(
            who,
            logger.warning,
            "%s has ended, and its thread still runs, whose await was cancelled: what the thread sends from "
            "now on may overtake other messages. Give what blocks there a time-out. %s",
            who,
            see("topics/channels/async"),
        )

    def _cancel_waiting(self, deadline: float) -> None:
        """Cancel streams that wait, or everything near the deadline, and check again soon."""
        now = time.monotonic()
        is_late = now > deadline - STOP_MARGIN
        for event in list(self._events):
            is_idle = not event.is_consumer and now - event.active_at > STOP_IDLE
            if not event.stops and (is_late or is_idle):
                event.stops = True
                event.cancel()
        if self._streams.used or self.places.used:
            self._loop.call_later(STOP_POLL_INTERVAL, self._cancel_waiting, deadline)

    def is_running_here(self) -> bool:
        """Return whether this thread runs the event loop."""
        return asyncio.get_event_loop() is self._loop

    async def call_on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return what `coroutine` does, run on this loop. For a loop in another thread, in its context."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Return what `function(*args)` returns, which may wait for the layer. It runs in a thread, in the
        context of the caller, and to its end: what is cancelled meanwhile is cancelled afterwards.
        """
        return await _to_its_end(self._calls, function, *args)

    async def call_site(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Do as `call`, in a thread for the site's code, which is the same one for the whole event, and with the
        language, time zone and URLs of the caller.
        """
        threads = CURRENT.get().threads
        return await _to_its_end(threads, call_with, current_state(), function, *args)


async def _to_its_end(executor: Any, function: Callable[..., Any], *args: Any) -> Any:
    context = contextvars.copy_context()
    loop = asyncio.get_event_loop()
    future = loop.run_in_executor(executor, context.run, call_in_executor, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # However often it is cancelled: what follows must not run while the call does.
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:  # an Exception until Python 3.7 goes
                pass
        if not future.cancelled():
            future.exception()  # or asyncio would log that nothing has read it
        raise


def make_consumer_id() -> str:
    """Return a new consumer id of this process."""
    return "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    """Make a task, and note the event that it belongs to."""
    if asyncio.iscoroutine(coroutine):  # of anything else, Task says what it is
        coroutine = RaisesWhereItWaits(coroutine)
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    event = CURRENT.get()
    if event is not None:
        event.tasks.add(task)
    return task

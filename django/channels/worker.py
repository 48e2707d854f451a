"""
The worker: claims messages from a layer and runs the site's consumers on them, in threads.

Here are the claim loop and its threads. `consume.py` runs one consumer, `replies.py` sends what it left.
The worker knows the layer's contract and the routing, and holds no sockets. It knows two channel names: to
deny a handshake without a route, and to send an error page. `run()` repeats `run_once()`.

The file is a little over 400 lines because Channels 1.1 has both Worker and WorkerGroup here.
"""

from __future__ import annotations

import contextvars
import fnmatch
import functools
import logging
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from django.db import connections

from .busy import BusyWatch, Running
from .consume import HANDLED, WAITS, Result, call_afterwards, close_waiting, run_consumer
from .eventloop import ConsumerLoop, make_consumer_id
from .exceptions import LayerUnavailable
from .late import THREAD_CHANNELS, LateThreads
from .layers.engine.threads import start_thread
from .message import Message
from .outbox import TO_CHANNEL, PendingSend
from .places import ASYNC_CONCURRENCY, LAST_THREAD_INTERVAL
from .protocol import HTTP_REQUEST, WEBSOCKET_CONNECT, lost_a_worker
from .replies import MESSAGE_RETRIES, Replies
from .signals import release_connections, worker_process_ready, worker_ready
from .streams import StreamThreads
from .thread_state import keep_opened_in, starting_context
from .unrouted import denial

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.worker")

Callback = Callable[[str, Message], Any]

#: When a batch of frames has run for this many seconds, the replies so far are sent.
BATCH_FLUSH_INTERVAL = 0.02

#: Seconds between two attempts to reach a layer that is unavailable, at first and at most.
RECONNECT_INTERVAL, MAX_RECONNECT_INTERVAL = 0.1, 2.0

#: Seconds before a redelivered message runs.
REDELIVERED_DELAY = 0.1

#: Seconds that a thread waits, at most, after it has requeued a redelivered message.
REDELIVERED_RETRY_INTERVAL = 1.0

#: Seconds that a thread waits for the end of a redelivered message which it has handed to the event loop.
REDELIVERED_ASYNC_TIMEOUT = 1.0

#: Seconds between two polls of a WorkerGroup for a signal that has told it to end.
STOP_POLL_INTERVAL = 0.5

#: Held by the thread of this process that handles a redelivered message.
_redelivered_lock = threading.Lock()


class Worker:
    """
    The claim loop of one thread: handles one message at a time, in the thread that calls `run`.

    * `callback(channel, message)` is called with each message before its consumer runs.
    * `message_retries`: a message whose consumer raises ConsumeLater more often than this is given up, with
      an error in the log.
    * `signal_handlers`: SIGTERM and SIGINT end `run()` after the consumer that is running. Only in the main
      thread.
    * `only_channels`, `exclude_channels`: lists of name patterns (globs).
    * `loop`: the event loop of the process, for what consumers leave to it.
    * `drain`: at the end, handle what still waits. No other process would, on a layer that ends with this
      process.

    `stop` may be called from any thread, and `ready` by the code that starts the worker. Everything else
    belongs to the thread that runs it.
    """

    def __init__(
        self,
        channel_layer: BaseChannelLayer,
        callback: Callback | None = None,
        message_retries: int = MESSAGE_RETRIES,
        signal_handlers: bool = True,
        only_channels: list[str] | None = None,
        exclude_channels: list[str] | None = None,
        drain: bool = False,
        loop: ConsumerLoop | None = None,
    ) -> None:
        self.channel_layer = channel_layer
        #: Where consumers may leave the rest of their events, while `run` runs. None: nowhere.
        self.loop = loop
        #: How many threads of the process may be held by streams. None: as many as there are.
        self.stream_threads: StreamThreads | None = None
        self.drain = drain
        self.callback = callback
        self.message_retries = message_retries
        self.signal_handlers = signal_handlers
        self.only_channels = only_channels
        self.exclude_channels = exclude_channels
        self.consumer_id = make_consumer_id()
        self.stopping = False
        #: Whether `run` runs, and claims again at once.
        self.is_running = False
        self._channels: list[str] | None = None
        #: What `run` is doing now, and its thread. Any thread may read them.
        self.running: Running | None = None
        self.thread_id: int | None = None
        #: The event that this thread runs, if `late` must tell the gateway of it. `late` reads it.
        self.handling: Replies | None = None
        self.late: LateThreads | None = None
        channel_layer.is_served = True
        #: Set when the event ends that this thread handed over last to the event loop.
        self._handed_over: threading.Event | None = None
        #: Whether it claims, or has claimed, what may need a place. Set without a lock, for each message.
        self.may_wait = False
        self._places = None if loop is None else loop.places
        if self._places is not None:
            self._places.threads.append(self)

    @property
    def channels(self) -> list[str]:
        """The names that it claims from: those of the routing that the patterns let through."""
        if self._channels is None:
            self._channels = self.apply_channel_filters(self.channel_layer.router.channels)
        return self._channels

    def apply_channel_filters(self, channels: Iterable[str]) -> list[str]:
        """Return those of `channels` that the patterns let through, sorted."""
        if self.only_channels:
            channels = [name for name in channels if _matches(name, self.only_channels)]
        if self.exclude_channels:
            channels = [name for name in channels if not _matches(name, self.exclude_channels)]
        return sorted(channels)

    def ready(self) -> None:
        """Tell the site that this worker is about to claim."""
        worker_ready.send(sender=self)

    # The loop.

    def run(self) -> None:
        """Claim and handle messages until `stop`. While the layer is unavailable, try again."""
        if self.signal_handlers and _is_main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
        interval = RECONNECT_INTERVAL
        try:
            self.is_running = True
            self.thread_id = threading.get_ident()
            while not self.stopping:
                began = time.monotonic()
                try:
                    self.run_once(block=True)
                    if self.channel_layer.reachability.is_away:
                        self.channel_layer.reachability.succeeded(began)
                    interval = RECONNECT_INTERVAL
                    continue
                except LayerUnavailable as error:
                    self.channel_layer.reachability.failed(error, began)
                except BaseException as error:
                    # A bug of the layer, or of what the site hooks in, must not end the thread. In the main
                    # thread, these two are how a process is told to end.
                    if isinstance(error, (KeyboardInterrupt, SystemExit)) and _is_main_thread():
                        raise
                    logger.exception("The worker continues after this error, in %.1f s:", interval)
                time.sleep(interval)
                interval = min(interval * 2, MAX_RECONNECT_INTERVAL)
            while self.drain and self.run_once():
                pass
            self._acknowledge()
        finally:
            connections.close_all()

    def run_once(self, block: bool = False) -> bool:
        """
        Acknowledge the last message, claim one and handle it. Return whether there was one.

        With `block`, wait for a message up to the layer's `block_for` seconds. Raises LayerUnavailable.
        """
        self.running = None
        places = self._places
        others: Sequence[str] = ()
        channels = self.channels
        if places is not None and not self.stopping:
            if places.is_full():
                # Not empty if only this thread doesn't wait for a place: it may claim only what needs none.
                others = places.enter(self, channels)
            else:
                self.may_wait = True
        try:
            channel, content = self.channel_layer.claim(
                self.consumer_id, others or channels, block and not others
            )
            if channel is None or content is None:
                if others and block:
                    time.sleep(LAST_THREAD_INTERVAL)
                return False
            if others and channel not in others:
                # The layer prefetched it when this thread could still claim from all channels.
                self.channel_layer.requeue(self.consumer_id)
                return False
            if places is not None and channel in places.sync_channels:
                self.may_wait = False  # on a channel that isn't known yet, it may come to wait
            if lost_a_worker(content):
                self._handle_redelivered(channel, content)
            else:
                self.handle(channel, content)
            return True
        finally:
            self.may_wait = False

    def _handle_redelivered(self, channel: str, content: dict[str, Any]) -> None:
        """
        Handle a message that was lost with a worker before. In each process they run one at a time, so that
        a message that crashes the process loses only itself.
        """
        if _redelivered_lock.acquire(False):
            try:
                # The message may crash the process again. Other threads that claimed redelivered messages
                # get the time to requeue theirs first.
                time.sleep(REDELIVERED_DELAY)
                self._handed_over = None
                self.handle(channel, content)
                self._acknowledge()  # before another one may begin
                if self._handed_over is not None:
                    self._handed_over.wait(REDELIVERED_ASYNC_TIMEOUT)
            finally:
                _redelivered_lock.release()
        else:
            self.channel_layer.requeue(self.consumer_id)
            # Wait before claiming it again.
            if _redelivered_lock.acquire(True, REDELIVERED_RETRY_INTERVAL):
                _redelivered_lock.release()

    def stop(self) -> None:
        """End `run` after the message that is being handled. Thread-safe."""
        self.stopping = True
        self.channel_layer.wake(self.consumer_id)

    def failed(self) -> bool:
        """Count that a bug has ended `run`. Return whether it is not to run again."""
        self.channel_layer.count("threads_restarted")
        return self.stopping

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Not `stop`: a handler runs between two instructions, while this thread may hold the layer's lock.
        self.stopping = True

    def _acknowledge(self) -> None:
        try:
            self.channel_layer.acknowledge(self.consumer_id)
        except LayerUnavailable as error:
            logger.warning(
                "The last message could not be acknowledged. The layer will treat it as lost: %s",
                error,
            )

    # One message.

    def handle(self, channel: str, content: dict[str, Any]) -> None:
        """Run the consumer of a message, or of each frame of a batch, and send what it left."""
        # With a consumer id, the layer may send the ack with the next claim, which only `run` makes at once.
        consumer_id = self.consumer_id if self.is_running else None
        replies = Replies(self.channel_layer, channel, content, consumer_id, self.message_retries)
        replies.places = self._places
        if self.late is not None and channel in THREAD_CHANNELS and replies.event_id is not None:
            self.handling = replies
            if self.late.is_asleep:
                self.late.wake()
        self._consume_all(channel, content, replies)
        self.handling = None
        if replies.rest is not None and self.loop is not None:
            self._hand_over(
                self.loop, replies, functools.partial(self._consume_all, channel, content)
            )
        else:
            replies.finish()
            if replies.afterwards:
                # Only now, because a client doesn't wait for a response to be closed.
                call_afterwards(replies.afterwards)
        release_connections()

    def _consume_all(self, channel: str, content: dict[str, Any], replies: Replies) -> None:
        """
        Run the consumer of a message, or of each frame of a batch that is left, until one leaves something
        for the event loop. The loop calls this in another thread for the frames after that.
        """
        try:
            release_connections()
            if replies.frames is None:
                self._consume(channel, content, replies)
            else:
                self._consume_frames(channel, content, replies)
        except BaseException:
            # run_consumer catches the consumer's exceptions: this is one of the callback, or of a route.
            logger.exception("A message on %s could not be handled:", channel)
            replies.fail()

    def _hand_over(
        self, loop: ConsumerLoop, replies: Replies, consume_all: Callable[[Replies], None]
    ) -> None:
        """Have the event loop continue an event, with the claim under the id that this thread had."""
        replies.flush()
        rest = replies.take_rest()
        assert rest is not None
        if rest.held is not None:
            self.may_wait = True
        if rest.held is not None and not loop.places.acquire(self._gives_up, replies.address):
            close_waiting(rest)
            replies.requeue(dict(rest.message.content))
            replies.finish()
            return
        spare = loop.new_consumer_id()
        consumer_id, self.consumer_id = self.channel_layer.split(self.consumer_id, spare)
        replies.consumer_id = consumer_id
        self._handed_over = loop.take_over(consumer_id, replies, rest, consume_all)

    def _gives_up(self) -> bool:
        """Whether to requeue a message for which the loop lacks a place. Another process may have one."""
        return self.stopping and self.channel_layer.crosses_processes

    def _consume_frames(self, channel: str, content: dict[str, Any], replies: Replies) -> None:
        flushed_at = time.monotonic()
        while replies.has_more_frames:
            self._consume(channel, dict(content, **replies.next_frame()), replies)
            if replies.rest is not None:
                return
            if time.monotonic() - flushed_at > BATCH_FLUSH_INTERVAL and not replies.ends_batch:
                replies.flush()
                flushed_at = time.monotonic()

    def _consume(self, channel: str, content: dict[str, Any], replies: Replies) -> None:
        message = Message(content, channel, self.channel_layer, replies.event_id, replies.session)
        message.worker = self
        if self.callback:
            # What it sets is there for the consumer of this message, and for no other one.
            context = contextvars.copy_context()
            try:
                context.run(self._call_back, message, replies)
            finally:
                keep_opened_in(context)
        else:
            self._consume_message(message, replies)

    def _call_back(self, message: Message, replies: Replies) -> None:
        self.callback(message.channel_name, message)  # type: ignore[misc]
        self._consume_message(message, replies)

    def _consume_message(self, message: Message, replies: Replies) -> None:
        channel = message.channel_name
        match = self.channel_layer.router.match(message)
        if match is None:
            self._refuse_unrouted(message, replies)
            return
        consumer, kwargs = match
        may_wait = self.loop is not None and self.is_running
        # The event loop may call this in another thread, for the rest of a batch.
        if threading.get_ident() == self.thread_id:
            self.running = (consumer, channel, replies.began)
        result = run_consumer(
            message,
            consumer,
            kwargs,
            self.__class__,
            _send_error_page,
            may_wait,
            replies.send_ahead,
        )
        outcome, places = result.outcome, self._places
        if places is not None and (outcome == WAITS or channel not in places.sync_channels):
            places.saw(channel, outcome == WAITS)
        if outcome == HANDLED:
            replies.add(message, result)  # as `conclude`, without a call for each message
        else:
            replies.conclude(message, consumer, result)

    def _refuse_unrouted(self, message: Message, replies: Replies) -> None:
        """Deny a WebSocket whose path no route takes. Any other message without a route is an error."""
        if message.channel_name == WEBSOCKET_CONNECT:
            logger.warning("%s", denial(message))
            close = PendingSend(
                self.channel_layer, TO_CHANNEL, replies.reply_channel, {"close": True}
            )
            replies.add(message, Result([close]))
            return
        logger.error(
            "No route takes this message on %s: check the ROUTING of the layer %s.",
            message.channel_name,
            self.channel_layer.alias,
        )
        replies.fail()


def _send_error_page(message: Message, error: BaseException) -> bool:
    """
    Send Django's own page for the exception of a consumer of `http.request`. Return True if the page was
    sent. Making it has then logged the exception.
    """
    if message.channel_name != HTTP_REQUEST or message.event_id is None:
        return False
    from .handler import AsgiHandler

    for reply in AsgiHandler.handle_uncaught(message, error, message.is_signalled):
        message.reply_channel.send(reply, on_commit=False)
    return True


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class WorkerGroup:
    """
    `threads` workers, each in its own daemon thread, and an event loop for up to `async_concurrency`
    asynchronous consumers at a time. The other arguments are those of Worker.

    `start()` returns at once; `run()` waits until `stop()`, or for a signal with `signal_handlers`. `stop`
    may be called from any thread; everything else belongs to the thread that starts the group.
    """

    def __init__(
        self,
        channel_layer: BaseChannelLayer,
        threads: int = 4,
        n_threads: int | None = None,
        signal_handlers: bool = False,
        async_concurrency: int = ASYNC_CONCURRENCY,
        **options: Any,
    ) -> None:
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.loop = ConsumerLoop(channel_layer, async_concurrency)
        self.loop.places.max_waiting = (n_threads or threads) - 1
        self.stream_threads = StreamThreads(n_threads or threads)
        self.workers = [
            Worker(channel_layer, signal_handlers=False, loop=self.loop, **options)
            for _ in range(n_threads or threads)
        ]
        self._late = LateThreads(self.workers)
        for worker in self.workers:
            worker.stream_threads = self.stream_threads
            worker.late = self._late
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._signalled = False

    def ready(self) -> None:
        """Tell the site, once for each worker, that it is about to claim."""
        for worker in self.workers:
            worker.ready()

    def start(self) -> None:
        """Start the threads. Raises ImproperlyConfigured for a routing that cannot be imported."""
        self.channel_layer.router  # noqa: B018  (a wrong routing fails here, not in every thread)
        self.ready()
        for number, worker in enumerate(self.workers, 1):
            name = "channels-worker-%d" % number
            run = functools.partial(starting_context().run, worker.run)
            self._threads.append(start_thread(name, run, worker.failed))
        watch = BusyWatch(self.workers, self._stop)
        start_thread("channels-watch", watch.run, self._stop.is_set)
        start_thread("channels-late", self._late.run, self._stop.is_set)
        worker_process_ready.send(sender=self)

    def run(self) -> None:
        """Start, wait until told to stop, and let the consumers that are running end."""
        if self.signal_handlers:
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
        self.start()
        while not (self._signalled or self._stop.wait(STOP_POLL_INTERVAL)):
            pass
        self.stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Not the Event: the thread that this interrupts may hold its lock.
        self._signalled = True

    def stop(self, grace: float = 10.0) -> bool:
        """
        End the threads, each after the message that it handles, and then the event loop. Return whether all
        of them ended within `grace` seconds.
        """
        self._stop.set()
        for worker in self.workers:
            worker.stop()
        deadline = time.monotonic() + grace
        self.loop.end_by(deadline)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._late.end()
        has_ended = self.loop.join(deadline)
        return has_ended and not any(thread.is_alive() for thread in self._threads)

"""
The worker: claims messages from a layer and runs the site's consumers on them, in threads.

It knows the layer's contract and the routing, and nothing of sockets. `run()` repeats `run_once()`.
"""

import fnmatch
import logging
import os
import signal
import threading
import time
import uuid
import weakref

from django.db import connections

from .exceptions import (
    ChannelFull,
    ChannelSocketException,
    ConsumeLater,
    DenyConnection,
    LayerUnavailable,
)
from .log import RateLimit, visible
from .message import Message
from .outbox import outbox
from .protocol import EVENT_CHANNELS
from .security.websockets import origin_allowed
from .signals import (
    consumer_finished,
    consumer_started,
    release_connections,
    worker_process_ready,
    worker_ready,
)

logger = logging.getLogger("django.channels.worker")

#: A message is put back this often, by ConsumeLater, before it is given up.
MESSAGE_RETRIES = 10

#: What consumers of one batch of frames answer is sent on the way once this many seconds have passed.
BATCH_PATIENCE = 0.02

#: Answers that leave together are no more than this, and no longer (in bytes, or characters).
MAX_REPLIES = 500
MAX_REPLIES_LENGTH = 1024 * 1024

#: Seconds for which an answer waits for room in a gateway's inbox.
REPLY_PATIENCE = 30.0

#: Seconds between two tries to reach a layer that is away, at the most.
MAX_PAUSE = 2.0

#: Seconds that a thread waits when it has put back what must not run beside another one of its sort.
SUSPECT_PAUSE = 1.0

#: Seconds between two looks of a WorkerGroup at whether a signal has told it to end.
LOOK_EVERY = 0.5

#: Seconds before a message runs that was lost with a worker before.
SUSPECT_DELAY = 0.1

#: Of a layer, what lets one line a second about messages that were not sent into the log.
_not_sent = weakref.WeakKeyDictionary()

#: Held by the thread of this process that handles a message which was lost with a worker before.
_one_suspect = threading.Lock()


class Worker:
    """
    One thread's work on `channel_layer`.

    `only_channels` and `exclude_channels` are lists of name patterns (globs);
    `callback(channel, message)` is called with each message before its consumer runs. A message
    whose consumer raises ConsumeLater more than `message_retries` times is given up, with an error
    in the log. With `signal_handlers`, SIGTERM and SIGINT end `run()` once the consumer that runs
    has ended (in the main thread only). With `drain`, what waits by then is still handled: nobody
    else would, on a layer that ends with the process.
    """

    def __init__(
        self,
        channel_layer,
        callback=None,
        message_retries=MESSAGE_RETRIES,
        signal_handlers=True,
        only_channels=None,
        exclude_channels=None,
        drain=False,
    ):
        self.channel_layer = channel_layer
        self.drain = drain
        self.callback = callback
        self.message_retries = message_retries
        self.signal_handlers = signal_handlers
        self.only_channels = only_channels
        self.exclude_channels = exclude_channels
        self.slot = "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())
        self.stopping = False
        self._runs = False
        self._channels = None

    @property
    def channels(self):
        """The names it claims from: those of the routing, by the patterns given."""
        if self._channels is None:
            self._channels = self.apply_channel_filters(self.channel_layer.router.channels)
        return self._channels

    def apply_channel_filters(self, channels):
        """Those of `channels` that the patterns let through: a sorted list."""
        if self.only_channels:
            channels = [name for name in channels if _matches(name, self.only_channels)]
        if self.exclude_channels:
            channels = [name for name in channels if not _matches(name, self.exclude_channels)]
        return sorted(channels)

    def ready(self):
        """Tell the site that this worker is about to claim."""
        worker_ready.send(sender=self)

    def run(self):
        """Claim and handle messages until `stop`; a layer that is away is waited for."""
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
        pause = 0.1
        try:
            self._runs = True
            while not self.stopping:
                try:
                    self.run_once(block=True)
                    pause = 0.1
                except LayerUnavailable as error:
                    logger.warning(
                        "The channel layer %s cannot be reached (%s); trying again in %.1f s.",
                        self.channel_layer.alias,
                        error,
                        pause,
                    )
                    time.sleep(pause)
                    pause = min(pause * 2, MAX_PAUSE)
                except Exception:
                    # The layer's, or of what the site hooks into the worker: others wait for this thread.
                    logger.exception("The worker goes on after this error, in %.1f s:", pause)
                    time.sleep(pause)
                    pause = min(pause * 2, MAX_PAUSE)
            while self.drain and self.run_once():
                pass
            self._acknowledge()
        finally:
            connections.close_all()

    def run_once(self, block=False):
        """
        Acknowledge the last message, claim one and handle it. Returns whether there was one. With `block`,
        waits for it as long as the layer does (`block_for`).
        """
        channel, content = self.channel_layer.claim(self.slot, self.channels, block)
        if channel is None:
            return False
        if content.get("redelivered") is True:
            self._handle_suspect(channel, content)
        else:
            self.handle(channel, content)
        return True

    def _handle_suspect(self, channel, content):
        """
        Handle a message that was lost with a worker before: one at a time in a process, for should this one
        die too, the message that kills it is not to take the same others with it each time.
        """
        if _one_suspect.acquire(False):
            try:
                # What other threads claimed at the same time is put back before this may kill them.
                time.sleep(SUSPECT_DELAY)
                self.handle(channel, content)
                self._acknowledge()  # before another one may begin
            finally:
                _one_suspect.release()
        else:
            self.channel_layer.requeue(self.slot)
            # Nor is it to come straight back.
            if _one_suspect.acquire(True, SUSPECT_PAUSE):
                _one_suspect.release()

    def stop(self):
        """End `run` after the message that is being handled. Thread-safe."""
        self.stopping = True
        self.channel_layer.wake(self.slot)

    def _on_signal(self, number, frame):
        # Not `stop`: a handler runs between two instructions, where the layer's lock may be held.
        self.stopping = True

    def _acknowledge(self):
        try:
            self.channel_layer.acknowledge(self.slot)
        except LayerUnavailable as error:
            logger.warning("The last message could not be acknowledged: %s", error)

    # One message.

    def handle(self, channel, content):
        """Run the consumer of a message, or of each frame of a batch; send what was held, and the answer."""
        # In the loop of `run`, the last answer may wait for the next claim, which follows at once.
        answer = _Answer(self.channel_layer, channel, content, self.slot if self._runs else None)
        try:
            if answer.frames is None:
                self._consume(channel, content, answer)
            else:
                self._consume_frames(channel, content, answer)
        except Exception:
            # What a consumer raises is dealt with: this is the callback's, a route's or an error page's.
            logger.exception("A message on %s could not be handled:", channel)
            answer.failed()
        answer.finish()

    def _consume_frames(self, channel, content, answer):
        began = time.monotonic()
        for number, frame in enumerate(answer.frames, 1):
            self._consume(channel, dict(content, **frame), answer)
            if answer.ends_batch:
                answer.put_back_frames(frame, answer.frames[number:])
                break
            if time.monotonic() - began > BATCH_PATIENCE:
                answer.flush()
                began = time.monotonic()

    def _consume(self, channel, content, answer):
        message = Message(
            content, channel, self.channel_layer, answer.exchange, answer.session_data
        )
        if self.callback:
            self.callback(channel, message)
        match = self.channel_layer.router.match(message)
        if match is None:
            self._unmatched(message, answer)
            return
        consumer, kwargs = match
        outer = outbox.open()
        requeue, patch = False, None
        try:
            release_connections()
            consumer_started.send(sender=self.__class__, environ={})
            try:
                if channel == "websocket.connect":
                    self._check_origin(message, consumer)
                consumer(message, **kwargs)
            except DenyConnection:
                if channel != "websocket.connect":
                    raise ValueError(
                        "DenyConnection is for websocket.connect; to end a socket, send "
                        "{'close': True} or raise WebsocketCloseException."
                    ) from None
                # An accept that was sent before must not open the socket after all.
                outbox.held[:] = [each for each in outbox.held if each[2] != answer.reply_channel]
                message.reply_channel.send({"close": True})
            except ChannelSocketException as error:
                error.run(message)
            patch = message.session_patch()
        except ConsumeLater:
            requeue = True
        except Exception as error:
            logger.exception("Error processing message with consumer %s:", _name(consumer))
            answer.failed(message, error)
        except (SystemExit, KeyboardInterrupt) as error:
            # Of a consumer, not of this process: the socket is told, the thread goes on.
            logger.exception("The consumer %s raised %s:", _name(consumer), type(error).__name__)
            answer.failed(message, error)
        finally:
            try:
                consumer_finished.send(sender=self.__class__)
                release_connections()
            except Exception:
                logger.exception("After the consumer %s:", _name(consumer))
            held = outbox.close(outer)
        if requeue:
            self._requeue(channel, message, answer)
        else:
            answer.add(message, held, patch)

    def _check_origin(self, message, consumer):
        """A WebSocket from a page of another site is denied, unless its route says otherwise."""
        if not origin_allowed(message, consumer):
            logger.warning(
                "WebSocket %s denied: its Origin is not in ALLOWED_HOSTS.",
                visible(message.get("path")),
            )
            raise DenyConnection()

    def _unmatched(self, message, answer):
        if message._channel_name == "websocket.connect":
            logger.warning(
                "WebSocket %s denied: no route of channel websocket.connect takes this path.",
                visible(message.get("path")),
            )
            answer.add(
                message, [(self.channel_layer, "send", answer.reply_channel, {"close": True})]
            )
            return
        logger.error(
            "No route takes this message on %s: check the ROUTING of the layer %s.",
            message._channel_name,
            self.channel_layer.alias,
        )
        answer.failed(message, None)

    def _requeue(self, channel, message, answer):
        """Put it back, as ConsumeLater asks. Its exchange stays open, so nothing overtakes it."""
        content = dict(message.content)
        retries = content.pop("__retries__", 0) + 1
        if retries > self.message_retries:
            logger.error("ConsumeLater was raised %d times on %s: given up.", retries, channel)
            answer.failed(message, None)
            return
        content["__retries__"] = retries
        answer.put_back(content)


class _Answer:
    """
    What goes back for one claimed message: the replies to its own client, the session, and *done*.

    Replies wait and leave together with *done*, unless something else was sent after them: then they
    leave first, so that everything arrives in the order in which it was sent.
    """

    def __init__(self, layer, channel, content, slot=None):
        self.layer = layer
        self.channel = channel
        self.slot = slot
        self.exchange = self.frames = None
        if channel in EVENT_CHANNELS:  # elsewhere the site may have keys of these names
            self.exchange = content.pop("exchange", None)
            self.frames = content.pop("frames", None)
        self.session_data = content.pop("channel_session", None)
        self.reply_channel = content.get("reply_channel")
        self.ends_batch = False
        self._replies = []
        self._length = 0
        self._error = False
        self._put_back = None
        self._patch = None

    def add(self, message, held, patch=None):
        """One consumer has ended: send what it held for others, keep what it held for its own client."""
        if patch is not None:
            self.session_data = dict(message.channel_session.items())
            if self.exchange is None:
                # First, for what follows may make the client send a frame that counts on it.
                self._reply({"channel_session": patch})
            else:
                self._patch = _merged(self._patch, patch)
        for layer, kind, name, content in held:
            if (
                kind == "send"
                and name == self.reply_channel
                and layer is self.layer
                and self.exchange is not None
            ):
                carried = content.get("text") or content.get("bytes") or content.get("content")
                length = len(carried) if isinstance(carried, (str, bytes)) else 0
                if len(self._replies) >= MAX_REPLIES or self._length + length > MAX_REPLIES_LENGTH:
                    self.flush()
                self._replies.append(content)
                self._length += length
                self.ends_batch = self.ends_batch or bool(content.get("close"))
                continue
            self.flush()
            if (
                kind == "send"
                and self.reply_channel is not None
                and content.get("reply_channel") == self.reply_channel
                and self.session_data
            ):
                # Handed on for the same client: the consumer there sees its session.
                content = dict(content, channel_session=self.session_data)
            self._send(layer, kind, name, content)

    def failed(self, message=None, error=None):
        """Its consumer raised: Django's own 500 for a request, an error close for a socket."""
        self._error = True
        self.ends_batch = True
        if self.channel == "http.request" and error is not None and self.exchange is not None:
            from .handler import AsgiHandler

            for reply in AsgiHandler.handle_uncaught(message, error):
                outbox.held.append((self.layer, "send", self.reply_channel, reply))

    def put_back(self, content):
        """The message is to be handled later: its exchange stays open."""
        self._put_back = content
        self.ends_batch = True
        if self.exchange is not None:
            content["exchange"] = self.exchange
        if self.session_data:
            content["channel_session"] = self.session_data

    def put_back_frames(self, frame, rest):
        """Where `frame` was put back, the frames after it wait with it."""
        if self._put_back is not None and rest:
            keys = [key for key in list(frame) + ["__retries__"] if key in self._put_back]
            first = {key: self._put_back.pop(key) for key in keys}
            self._put_back["frames"] = [first] + rest

    def flush(self):
        """Send the replies that wait."""
        if self._replies:
            replies, self._replies, self._length = self._replies, [], 0
            self._reply({"replies": replies})

    def finish(self):
        """Send *done*, with everything that still waits."""
        if self._put_back is not None:
            self.flush()
            if self._patch is not None:
                patch, self._patch = self._patch, None
                self._reply({"channel_session": patch})
            if self._send(self.layer, "send", self.channel, self._put_back):
                return
            self._error = True
        if self.exchange is None:
            return
        answer = {"done": self.exchange}
        if self._replies:
            answer["replies"] = self._replies
        if self._patch is not None:
            answer["channel_session"] = self._patch
        if self._error:
            answer["error"] = True
        self._reply(answer, last=True)

    def _reply(self, answer, last=False):
        """An answer is not dropped since its gateway is behind; it waits for room."""
        deadline = time.monotonic() + REPLY_PATIENCE
        pause = 0.005
        while True:
            try:
                if last and self.slot is not None:
                    self.layer.finish(self.slot, self.reply_channel, answer)
                else:
                    self.layer.deliver(self.reply_channel, answer)
                return
            except (ChannelFull, LayerUnavailable) as error:
                if time.monotonic() > deadline:
                    logger.error("The answer to %s was not sent: %s", self.reply_channel, error)
                    return
            time.sleep(pause)
            pause = min(pause * 2, 0.2)

    def _send(self, layer, kind, name, content):
        """Returns whether there was room."""
        try:
            (layer.deliver if kind == "send" else layer.deliver_group)(name, content)
            return True
        except (ChannelFull, LayerUnavailable) as error:
            layer.count("held_not_sent")
            held_back = _not_sent.setdefault(layer, RateLimit()).allow()
            if held_back is not None:
                logger.error(
                    "What a consumer sent to the %s %s was not sent: %s Send with immediately=True "
                    "to get this error in the consumer.%s",
                    "channel" if kind == "send" else "group",
                    name,
                    error,
                    " (Since the last such line: %d more.)" % held_back if held_back else "",
                )
            return False


def _merged(first, second):
    """Two patches of a session as one."""
    if first is None:
        return second
    changed = {key: value for key, value in first["set"].items() if key not in second["removed"]}
    changed.update(second["set"])
    removed = (set(first["removed"]) - set(second["set"])) | set(second["removed"])
    return {"set": changed, "removed": sorted(removed)}


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _name(consumer):
    return "%s.%s" % (
        getattr(consumer, "__module__", type(consumer).__module__),
        getattr(consumer, "__qualname__", type(consumer).__qualname__),
    )


class WorkerGroup:
    """
    `threads` workers, each in a daemon thread; the arguments are those of Worker.

    `start()` returns at once; `run()` waits until `stop()`, or a signal where `signal_handlers` is set.
    """

    def __init__(self, channel_layer, threads=4, n_threads=None, signal_handlers=False, **options):
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.workers = [
            Worker(channel_layer, signal_handlers=False, **options)
            for _ in range(n_threads or threads)
        ]
        self._threads = []
        self._stop = threading.Event()
        self._told = False

    def ready(self):
        """Tell the site, once a worker, that it is about to claim."""
        for worker in self.workers:
            worker.ready()

    def start(self):
        """Start the threads."""
        self.channel_layer.router  # noqa: B018  (a wrong routing fails here, not in every thread)
        self.ready()
        for number, worker in enumerate(self.workers, 1):
            thread = threading.Thread(
                target=worker.run, name="channels-worker-%d" % number, daemon=True
            )
            thread.start()
            self._threads.append(thread)
        worker_process_ready.send(sender=self)

    def run(self):
        """Start, and wait until told to stop; then let the consumers that run end."""
        if self.signal_handlers:
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
        self.start()
        while not (self._told or self._stop.wait(LOOK_EVERY)):
            pass
        self.stop()

    def _on_signal(self, number, frame):
        # Not the Event, whose lock the thread that this interrupts may hold.
        self._told = True

    def stop(self, grace=10.0):
        """
        End the threads, each after the message it handles. Returns whether all ended within `grace` seconds.
        """
        self._stop.set()
        for worker in self.workers:
            worker.stop()
        deadline = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

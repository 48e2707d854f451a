"""
Replies: collect what a consumer sends to its own client, and hand it over together with the ack.

Replies wait and leave together with the acknowledgement of the event, in one message to the gateway. If
the consumer sends to another channel or group after them, they leave first, so that everything arrives in
the order in which it was sent.
"""

from __future__ import annotations

import logging
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Callable

from . import protocol
from .consume import FAILED, Result
from .exceptions import ChannelFull, LayerUnavailable
from .log import RateLimit, shown
from .outbox import TO_CHANNEL, PendingSend
from .protocol import EVENT_CHANNELS, EVENT_ID, FRAMES, REPLY_CHANNEL, RETRIES, SESSION

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .message import Message
    from .outbox import Rest

logger = logging.getLogger("django.channels.worker")

#: Replies that leave in one message: at most this many, and at most this long (in bytes, or characters).
MAX_REPLIES = 500
MAX_REPLIES_LENGTH = 1024 * 1024

#: Seconds of the consumers of an event from which on the ack tells how long they ran.
MIN_RUN_TIME = 0.001

#: Seconds for which an answer waits for room in a gateway's inbox.
REPLY_TIMEOUT = 30.0

#: Seconds between two attempts to deliver an answer, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.2

#: For each layer, what limits the log to one line a second about messages that were not sent.
_not_sent: Any = weakref.WeakKeyDictionary()


class Replies:
    """
    What goes back for one claimed message: the replies to its client, the session's changes, and the ack.

    `content` is the message as it was claimed; its control keys are taken out. With `consumer_id`, the ack
    goes through `layer.finish`, which may keep it until the consumer's next claim. Without it, it is
    delivered at once. Belongs to the thread of one worker.
    """

    def __init__(
        self,
        layer: BaseChannelLayer,
        channel: str,
        content: dict[str, Any],
        consumer_id: str | None = None,
    ) -> None:
        self.layer: Any = layer
        self.channel = channel
        self.consumer_id = consumer_id
        self.event_id: int | None = None
        self.frames: list[dict[str, Any]] | None = None
        if channel in EVENT_CHANNELS:  # elsewhere a site may have keys of these names
            self.event_id = content.pop(EVENT_ID, None)
            self.frames = content.pop(FRAMES, None)
        #: The data of the connection's session, as the next consumer is to see it.
        self.session = content.pop(SESSION, None)
        self.reply_channel: Any = content.get(REPLY_CHANNEL)  # text, in what gateways send
        #: Whether the frames after this one are not to be handled, or not now.
        self.ends_batch = False
        self._started = time.monotonic()
        self._replies: list[dict[str, Any]] = []
        self._length = 0
        self._failed = False
        self._requeued: dict[str, Any] | None = None
        self._patch: protocol.SessionPatch | None = None
        #: What to call after `finish`, in order: see `consume.call_afterwards`.
        self.afterwards: list[Callable[[], Any]] = []
        #: What the event loop must run before `finish`, or None.
        self.rest: Rest | None = None

    def add(self, message: Message, result: Result) -> None:
        """Take over what a consumer left: keep what is for its own client, send the rest."""
        self.afterwards += result.afterwards
        self.rest = result.rest
        if result.outcome == FAILED:
            self.fail()
        if result.session_patch is not None:
            self.session = dict(message.channel_session.items())
            if self.event_id is None:
                # First, because what follows may make the client send a frame that counts on it.
                self._deliver(protocol.session_patch(result.session_patch))
            else:
                self._patch = protocol.merge_patches(self._patch, result.session_patch)
        for send in result.sends:
            if self.event_id is not None and send.is_for(self.layer, self.reply_channel):
                self._add_reply(send.message)
            else:
                self.flush()
                self._forward(send)

    def _add_reply(self, reply: dict[str, Any]) -> None:
        carried = reply.get("text") or reply.get("bytes") or reply.get("content")
        length = len(carried) if isinstance(carried, (str, bytes)) else 0
        if len(self._replies) >= MAX_REPLIES or self._length + length > MAX_REPLIES_LENGTH:
            self.flush()
        self._replies.append(reply)
        self._length += length
        if reply.get("close"):
            self.ends_batch = True

    def _forward(self, send: PendingSend) -> bool:
        """Send it to its channel or group. Return whether there was room."""
        if (
            self.session
            and self.reply_channel is not None
            and send.kind == TO_CHANNEL
            and send.message.get(REPLY_CHANNEL) == self.reply_channel
        ):
            # Handed on for the same client: the consumer there sees its session.
            send.message = dict(send.message, **{SESSION: self.session})
        return deliver_or_log(send)

    def fail(self) -> None:
        """Note that the consumer failed: an error page for a request, close code 1011 for a socket."""
        self._failed = True
        self.ends_batch = True

    def requeue(self, content: dict[str, Any]) -> None:
        """Put the message, with this content, back on its channel. Its event stays in flight."""
        self._requeued = content
        self.ends_batch = True
        if self.event_id is not None:
            content[EVENT_ID] = self.event_id
        if self.session:
            content[SESSION] = self.session

    def requeue_frames(self, frame: dict[str, Any], rest: list[dict[str, Any]]) -> None:
        """If `frame` was requeued, requeue the frames after it in the same message."""
        if self._requeued is not None and rest:
            keys = [key for key in [*frame, RETRIES] if key in self._requeued]
            first = {key: self._requeued.pop(key) for key in keys}
            self._requeued[FRAMES] = [first, *rest]

    def flush(self) -> None:
        """Send the replies that wait, ahead of the ack."""
        if self._replies:
            waiting, self._replies, self._length = self._replies, [], 0
            self._deliver(protocol.replies(waiting))

    def finish(self) -> None:
        """Send the ack, with everything that still waits; or requeue the message."""
        if self._requeued is not None:
            self.flush()
            if self._patch is not None:
                patch, self._patch = self._patch, None
                self._deliver(protocol.session_patch(patch))
            if deliver_or_log(PendingSend(self.layer, TO_CHANNEL, self.channel, self._requeued)):
                return
            self._failed = True
        if self.event_id is not None:
            seconds = time.monotonic() - self._started
            ran = int(1000 * seconds) if seconds >= MIN_RUN_TIME else 0
            ack = protocol.ack(self.event_id, self._replies, self._patch, self._failed, ran)
            self._deliver(ack, last=True)

    def _deliver(self, answer: dict[str, Any], last: bool = False) -> None:
        """
        Send an answer to the gateway. If the gateway is behind, wait for room. The last answer of a worker
        waits until the layer is there. Any other one is given up after REPLY_TIMEOUT: the last one tells it.
        """
        deadline = time.monotonic() + REPLY_TIMEOUT
        interval = RETRY_INTERVAL
        # A gateway ignores a second ack, and nothing else that comes twice.
        once = {} if last or not self.layer.remembers_sends else {"send_id": uuid.uuid4().hex}
        consumer_id = self.consumer_id if last else None
        while True:
            is_late = time.monotonic() > deadline
            try:
                # What comes afterwards may take long, and the layer may keep what goes to `finish`.
                if consumer_id is not None and (is_late or not self.afterwards):
                    self.layer.finish(consumer_id, self.reply_channel, answer)
                else:
                    self.layer.deliver(self.reply_channel, answer, **once)
                return
            except (ChannelFull, LayerUnavailable) as error:
                # While the layer is unreachable, this thread could not claim another message either.
                waits = consumer_id is not None and isinstance(error, LayerUnavailable)
                if is_late and not waits:
                    logger.error(
                        "The answer to %s was not sent within %g seconds, and is lost: %s",
                        self.reply_channel,
                        REPLY_TIMEOUT,
                        error,
                    )
                    self._failed = True
                    return
            time.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)


def deliver_or_log(send: PendingSend) -> bool:
    """Send what a consumer sent, or drop, count and log it if the channel is full. Return whether it went."""
    try:
        send.deliver_once()
        return True
    except (ChannelFull, LayerUnavailable) as error:
        send.layer.count("sends_dropped")
        suppressed = _not_sent.setdefault(send.layer, RateLimit()).allow()
        if suppressed is not None:
            logger.error(
                "A consumer's message to the %s %s was not sent: %s Send with immediately=True "
                "to get this error in the consumer.%s",
                send.kind,
                shown(send.name),
                shown(error),
                " (Since the last such line: %d more.)" % suppressed if suppressed else "",
            )
        return False

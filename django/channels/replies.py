"""
Replies: collect what a consumer sends to its own client, and hand it over together with the ack.

Replies wait and leave together with the acknowledgement of the event, in one message to the gateway. If
the consumer sends to another channel or group after them, they leave first, so that everything arrives in
the order in which it was sent. The exception is the consumer of a handshake that it ends: see `_refuses`.
"""

from __future__ import annotations

import logging
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Callable

from . import protocol
from .consume import FAILED, LATER, WAITS, Result, log_failure
from .exceptions import ChannelFull, LayerUnavailable
from .log import RateLimit, shown
from .outbox import TO_CHANNEL, PendingSend
from .protocol import (
    COUNTS_FOR,
    EVENT_CHANNELS,
    EVENT_ID,
    FRAMES,
    REDELIVERED,
    REPLY_CHANNEL,
    RETRIES,
    SESSION,
    WEBSOCKET_CONNECT,
)

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .message import Message
    from .outbox import Rest
    from .places import Places

logger = logging.getLogger("django.channels.worker")

#: How many times ConsumeLater may requeue one message. After that, it is given up.
MESSAGE_RETRIES = 10

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

    # Class attributes, because most events change few of them.
    _begun = 0  # frames whose consumer has begun
    #: Whether the frames after this one are not to be handled, or not now.
    ends_batch = False
    #: Whether the gateway was told that the event runs.
    is_late = False
    _length = 0
    _failed = False
    #: Whether the consumer of a handshake ends the socket. Its replies then leave with the ack only, even
    #: if it has accepted: others' messages would reach the client before the end.
    _refuses = False
    _requeued: dict[str, Any] | None = None
    _patch: protocol.SessionPatch | None = None
    #: What the event loop must run before `finish`, or before the next frame, or None.
    rest: Rest | None = None
    #: The address that the event counts for, or "".
    address = ""
    #: The places for asynchronous consumers of this process, or None.
    places: Places | None = None

    def __init__(
        self,
        layer: BaseChannelLayer,
        channel: str,
        content: dict[str, Any],
        consumer_id: str | None = None,
        message_retries: int = MESSAGE_RETRIES,
    ) -> None:
        self.layer: Any = layer
        self.message_retries = message_retries
        self.channel = channel
        self.consumer_id = consumer_id
        self.event_id: int | None = None
        self.frames: list[dict[str, Any]] | None = None
        if channel in EVENT_CHANNELS:  # elsewhere a site may have keys of these names
            self.event_id = content.pop(EVENT_ID, None)
            self.address = content.pop(COUNTS_FOR, "")
            self.frames = content.pop(FRAMES, None)
        #: The data of the connection's session, as the next consumer is to see it.
        self.session = content.pop(SESSION, None)
        self.reply_channel: Any = content.get(REPLY_CHANNEL)  # text, in what gateways send
        self._retries: int = content.get(RETRIES, 0)
        self._redelivered = content.get(REDELIVERED)
        self.started = time.monotonic()
        #: When its consumer began, or that of the frame which is handled.
        self.began = self.started
        self._replies: list[dict[str, Any]] = []
        #: What to call after `finish`, in order: see `consume.call_afterwards`.
        self.afterwards: list[Callable[[], Any]] = []

    @property
    def has_more_frames(self) -> bool:
        """Whether another frame of the event must be handled now."""
        return self.frames is not None and self._begun < len(self.frames) and not self.ends_batch

    def next_frame(self) -> dict[str, Any]:
        """Return the next frame, whose consumer begins."""
        assert self.frames is not None
        self._begun += 1
        self.began = time.monotonic()
        return self.frames[self._begun - 1]

    def take_rest(self) -> Rest | None:
        """Return what the event loop must run, and forget it."""
        rest, self.rest = self.rest, None
        return rest

    def conclude(self, message: Message, consumer: Any, result: Result) -> None:
        """Do what the outcome of a consumer asks for: take over what it left, log its error, or requeue."""
        if result.outcome == WAITS:
            self.rest = result.rest
        elif result.outcome == LATER:
            self.afterwards += result.afterwards
            self._consume_later(message)
        else:
            if result.outcome == FAILED and not result.error_logged:
                log_failure(consumer, result.error)
            self.add(message, result)

    def _consume_later(self, message: Message) -> None:
        """Requeue the message. Its event stays in flight, so that no later one overtakes it."""
        content, retries = dict(message.content), self._retries + 1
        if self.frames is not None:
            retries = self.frames[self._begun - 1].get(RETRIES, 0) + 1
        # The consumer may have put what a client sent into its message.
        protocol.drop_control_keys(content, self.channel)
        if self._redelivered is not None:
            content[REDELIVERED] = self._redelivered
        if retries > self.message_retries:
            logger.error(
                "ConsumeLater was raised %d times on %s: the message is given up.",
                retries,
                message.channel_name,
            )
            self.fail()
            return
        content[RETRIES] = retries
        self.requeue(content)

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
        if self.channel == WEBSOCKET_CONNECT and not self._refuses:
            self._refuses = self._failed or any(
                self.is_own(send) and send.message.get("close") for send in result.sends
            )
        self._add_sends(result.sends)

    def is_own(self, send: PendingSend) -> bool:
        """Return whether `send` goes to the client whose event this is."""
        return self.event_id is not None and send.is_for(self.layer, self.reply_channel)

    def keeps(self, sends: list[PendingSend]) -> bool:
        """Return whether `add` would keep all of `sends` until `finish`, and so send nothing."""
        length = self._length
        for send in sends:
            if not self.is_own(send):
                return False
            length += _length_of(send.message)
        room = MAX_REPLIES - len(self._replies)
        return self.event_id is not None and len(sends) <= room and length <= MAX_REPLIES_LENGTH

    def _add_sends(self, sends: list[PendingSend]) -> None:
        """Keep what is for the own client, and send the rest after it."""
        for send in sends:
            if self.is_own(send):
                self._add_reply(send.message)
                continue
            if not self._refuses:
                self.flush()
            self._forward(send)

    def send_so_far(self, sends: list[PendingSend]) -> None:
        """Send `sends` now, although the event hasn't ended."""
        self._add_sends(sends)
        self.flush()

    def send_ahead(
        self, sends: list[PendingSend], last: PendingSend, window: str | None = None
    ) -> bool:
        """
        Send `sends` and `last` now, while the consumer runs. Return False if room was missing for what goes
        to the own client, whose gateway tells the channel `window` what it has written.

        Raises ChannelFull or LayerUnavailable for `last`, if it goes elsewhere.
        """
        self._add_sends(sends)
        if self.is_own(last):
            self._add_reply(last.message)
            return self.flush(window)
        self.flush()
        self._address(last)
        last.deliver_once()
        return True

    def _add_reply(self, reply: dict[str, Any]) -> None:
        carried = reply.get("text")
        length = len(carried) if carried.__class__ is str else _length_of(reply)
        if len(self._replies) >= MAX_REPLIES or self._length + length > MAX_REPLIES_LENGTH:
            self.flush()
        self._replies.append(reply)
        self._length += length
        if reply.get("close"):
            self.ends_batch = True

    def _forward(self, send: PendingSend) -> bool:
        """Send it to its channel or group. Return whether there was room."""
        self._address(send)
        return deliver_or_log(send)

    def _address(self, send: PendingSend) -> None:
        """Add the session to a message that is handed on for the same client: the consumer there sees it."""
        if (
            self.session
            and self.reply_channel is not None
            and send.kind == TO_CHANNEL
            and send.message.get(REPLY_CHANNEL) == self.reply_channel
        ):
            send.message = dict(send.message, **{SESSION: self.session})

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
            if self.address:
                content[COUNTS_FOR] = self.address
        if self.session:
            content[SESSION] = self.session

    def _add_frames(self, requeued: dict[str, Any]) -> None:
        """Add the frames after the one that is requeued to its message."""
        if self.frames is None or self._begun >= len(self.frames):
            return
        frame = self.frames[self._begun - 1]
        first = {key: requeued.pop(key) for key in [*frame, RETRIES] if key in requeued}
        requeued[FRAMES] = [first, *self.frames[self._begun :]]

    def flush(self, window: str | None = None) -> bool:
        """Send the replies that wait, ahead of the ack. Return False if they were given up."""
        if not self._replies:
            return True
        waiting, self._replies, self._length = self._replies, [], 0
        return self._deliver(protocol.replies(waiting, window))

    def running(self) -> dict[str, Any]:
        """Return the notice to the gateway that the event takes long."""
        assert self.event_id is not None
        ran = int(1000 * (time.monotonic() - self.started))
        return protocol.running(self.event_id, ran, self._over_share())

    def _over_share(self) -> str | None:
        """Return the address if it has its share of the places for asynchronous consumers, or None."""
        if self.places is not None and self.places.is_over_share(self.address):
            return self.address
        return None

    def finish(self) -> None:
        """Send the ack, with everything that still waits; or requeue the message."""
        if self._requeued is not None:
            self._add_frames(self._requeued)
            self.flush()
            if self._patch is not None:
                patch, self._patch = self._patch, None
                self._deliver(protocol.session_patch(patch))
            if deliver_or_log(PendingSend(self.layer, TO_CHANNEL, self.channel, self._requeued)):
                return
            self._failed = True
        if self.event_id is not None:
            seconds = time.monotonic() - self.started
            ran = int(1000 * seconds) if seconds >= MIN_RUN_TIME else 0
            # Inline, because most processes have no places taken.
            taken = self.places is not None and self.places.shares.used
            over_share = self._over_share() if taken else None
            ack = protocol.ack(
                self.event_id, self._replies, self._patch, self._failed, ran, over_share
            )
            self._deliver(ack, last=True)

    def _deliver(self, answer: dict[str, Any], last: bool = False) -> bool:
        """
        Send an answer to the gateway. If the gateway is behind, wait for room. The last answer of a worker
        waits until the layer is there. Any other one is given up after REPLY_TIMEOUT: the last one tells it.
        Return whether it was sent.
        """
        deadline = time.monotonic() + REPLY_TIMEOUT
        interval = RETRY_INTERVAL
        # A gateway ignores a second ack, and nothing else that comes twice.
        once = {} if last or not self.layer.remembers_sends else {"send_id": uuid.uuid4().hex}
        consumer_id = self.consumer_id if last else None
        while True:
            is_late = time.monotonic() > deadline
            try:
                if consumer_id is not None:
                    soon = {"soon": True} if self.afterwards else {}
                    self.layer.finish(consumer_id, self.reply_channel, answer, **soon)
                else:
                    self.layer.deliver(self.reply_channel, answer, **once)
                return True
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
                    return False
            time.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)


def _length_of(reply: dict[str, Any]) -> int:
    carried = reply.get("text") or reply.get("bytes") or reply.get("content")
    return len(carried) if isinstance(carried, (str, bytes)) else 0


def tell_running(late: list[Replies]) -> None:
    """Tell gateways that events of one layer take long: they send others. If that fails, the others wait."""
    try:
        late[0].layer.deliver_all([(each.reply_channel, each.running()) for each in late])
    except LayerUnavailable:
        pass


def deliver_or_log(send: PendingSend) -> bool:
    """Send what a consumer sent, or drop, count and log it if the channel is full. Return whether it went."""
    try:
        send.deliver_once()
        return True
    except (ChannelFull, LayerUnavailable) as error:
        send.layer.count("sends_dropped")
        _not_sent.setdefault(send.layer, RateLimit()).log(
            logger.error,
            "A consumer's message to the %s %s was not sent: %s. Send with immediately=True "
            "to get this error in the consumer.",
            send.kind,
            shown(send.name),
            shown(error).rstrip("."),
        )
        return False

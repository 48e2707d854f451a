"""
The outbox: holds what a consumer sends, and what it leaves to be done, until the consumer ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Awaitable, Callable, NamedTuple, Optional, Sequence

from .exceptions import LayerUnavailable
from .protocol import during
from .thread_state import current_state

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .protocol import Message

# The kinds of a PendingSend.
TO_CHANNEL = "channel"
TO_GROUP = "group"

#: Sends a list of PendingSend and one more, before the consumer ends. Returns False if room was missing.
SendAhead = Optional[Callable[["list[PendingSend]", "PendingSend"], bool]]

#: Seconds for which a pending send is tried again while the layer is unavailable.
SEND_TIMEOUT = 30.0

#: Seconds between two attempts, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.2

#: When (monotonic) sends to a layer were last given up, so that a consumer's other sends need not wait, too.
_given_up: Any = weakref.WeakKeyDictionary()


class PendingSend:
    """A clean message that waits for the end of the consumer that sent it."""

    __slots__ = ("kind", "layer", "message", "name")

    def __init__(self, layer: BaseChannelLayer, kind: str, name: str, message: Message) -> None:
        self.layer = layer
        self.kind = kind  # TO_CHANNEL or TO_GROUP
        self.name = name
        self.message = message

    def is_for(self, layer: BaseChannelLayer, channel: str | None) -> bool:
        """Return whether it goes to `channel` of `layer`."""
        return self.name == channel and self.kind == TO_CHANNEL and self.layer is layer

    def deliver(self) -> None:
        """Send it now. Raises ChannelFull or LayerUnavailable."""
        if self.kind == TO_CHANNEL:
            self.layer.deliver(self.name, self.message)
        else:
            self.layer.deliver_group(self.name, self.message)

    def deliver_once(self) -> None:
        """Send it as `deliver` does, by `send_once`."""
        call = self.layer.deliver if self.kind == TO_CHANNEL else self.layer.deliver_group
        send_once(self.layer, call, self.name, self.message)

    def __repr__(self) -> str:
        return "<PendingSend to %s %s: %r>" % (self.kind, self.name, self.message)


def send_once(layer: Any, call: Callable[..., None], *args: Any) -> None:
    """
    Call `call(*args)`, a method of `layer` that sends a message. A layer that is unavailable, and remembers
    what it was sent, is tried again for SEND_TIMEOUT seconds; but once only, if it was given up as long ago
    or less. The argument `send_id` keeps the message from being sent twice.
    """
    if not getattr(layer, "remembers_sends", False):
        call(*args)
        return
    send_id, began, interval = uuid.uuid4().hex, time.monotonic(), RETRY_INTERVAL
    deadline = began
    if began - _given_up.get(layer, float("-inf")) > SEND_TIMEOUT:
        deadline += SEND_TIMEOUT
    while True:
        try:
            call(*args, send_id=send_id)
            return
        except LayerUnavailable:
            if time.monotonic() >= deadline:
                _given_up[layer] = time.monotonic()
                raise
        time.sleep(interval)
        interval = min(interval * 2, MAX_RETRY_INTERVAL)


def deliver_all(sends: Sequence[PendingSend]) -> Exception | None:
    """Send them in order, also after one that fails. Return the first error, or None."""
    first = None
    for send in sends:
        try:
            send.deliver()
        except Exception as error:
            first = first or error
    return first


class Handshake(NamedTuple):
    """The connect event whose consumer runs."""

    layer: BaseChannelLayer
    reply_channel: str
    event_id: int


class Rest(NamedTuple):
    """What a consumer leaves for the event loop: the rest of its event."""

    message: Any
    #: `await run(event)`, where event is an `eventloop.Continued`.
    run: Callable[[Any], Awaitable[Any]]
    context: contextvars.Context
    #: The language, time zone and URLs of the consumer. Its context may lack them, or share them with others.
    state: Any
    #: Called as `run_consumer` calls it.
    answer_error: Any = None
    #: Of an asynchronous consumer: what it has sent before it was awaited. None: it is another rest.
    held: Held | None = None
    #: The sender of `consumer_finished`, if that is still to be sent.
    sender: Any = None
    #: What the log calls the consumer.
    consumer: Any = None
    #: What is awaited, to be closed if it is not.
    waiting: Any = None


class Held:
    """What the outbox holds for one consumer."""

    # Not a NamedTuple: each message has one, and that takes half as long again to make.
    __slots__ = ("afterwards", "handshake", "rest", "sends")

    def __init__(
        self,
        sends: list[PendingSend],
        afterwards: list[Callable[[], Any]],
        handshake: Handshake | None = None,
    ) -> None:
        #: Its sends, in order.
        self.sends = sends
        #: What to call, without arguments, after the sends have left.
        self.afterwards = afterwards
        #: The handshake that it may answer, or None if it handles another message than a connect event.
        self.handshake = handshake
        #: The rest of its event, if the event loop continues it.
        self.rest: Rest | None = None


class Slot:
    """
    The outbox of one consumer. Every thread and task that runs in the consumer's context shares it.

    `lock` guards `held`, and is never held while something is sent. The lock `sending` is held by the thread
    that sends ahead of the consumer's end, and from `Outbox.leave` until the event loop continues the
    consumer. Most consumers need none, so the first that needs it makes it.
    """

    # Class attributes, because most consumers don't change them.
    #: The event (a Continued), once the event loop of a worker continues it.
    event: Any = None
    #: Whether `sending` is held for the event loop that is to continue the consumer.
    is_left = False
    #: For each event loop: awaited sends leave in the order in which they are asked for.
    locks: Any = None
    _sending: threading.Lock | None = None

    def __init__(self, held: Held, outer: Slot | None, send_ahead: SendAhead) -> None:
        #: None: the consumer has ended, and sends leave at once.
        self.held: Held | None = held
        #: The outbox of the consumer around this one.
        self.outer = outer
        #: See `consume.run_consumer`.
        self.send_ahead = send_ahead
        self.lock = threading.Lock()

    @property
    def sending(self) -> threading.Lock:
        """The lock of the thread that sends ahead."""
        with self.lock:
            if self._sending is None:
                self._sending = threading.Lock()
            return self._sending

    def end(self) -> Held | None:
        """Hold nothing any more. Return what was held. Waits for another thread that sends ahead."""
        with self.lock:
            sending = self._sending
            if sending is None:
                # A thread that comes now to send ahead finds that the consumer has ended.
                held, self.held = self.held, None
        if sending is not None:
            with sending, self.lock:
                held, self.held = self.held, None
        self.send_ahead = None  # a copy of the context may live on, and should hold no message
        return held

    def take(self) -> list[PendingSend]:
        """Return the pending sends, and forget them. The consumer runs on."""
        with self.lock:
            if self.held is None:
                return []
            sends = self.held.sends[:]
            del self.held.sends[:]
            return sends

    def lock_of(self, loop: Any) -> Any:
        """Return the asyncio.Lock of the awaited sends on `loop`, which runs."""
        with self.lock:
            if self.locks is None:
                self.locks = weakref.WeakKeyDictionary()
            if loop not in self.locks:
                self.locks[loop] = asyncio.Lock()
            return self.locks[loop]


#: The outbox of the consumer that runs here. A copy of the context brings it to another thread or task.
_slot: contextvars.ContextVar[Slot | None] = contextvars.ContextVar("channels_outbox", default=None)


class Outbox:
    """
    What the consumer that runs in this context has sent, in order.

    `held` is None while no consumer runs; sends then leave at once. Thread-safe: a consumer may send from
    several threads, if they run in copies of its context, as those of asgiref do.
    """

    @property
    def slot(self) -> Slot | None:
        """The outbox of the consumer that runs here, or has run here, or None."""
        return _slot.get()

    @property
    def held(self) -> Held | None:
        """What is held for the consumer that runs."""
        slot = _slot.get()
        return None if slot is None else slot.held

    @property
    def pending(self) -> list[PendingSend] | None:
        """The sends that wait, or None while no consumer runs."""
        held = self.held
        return None if held is None else held.sends

    def open(self, handshake: Handshake | None = None, send_ahead: SendAhead = None) -> Slot | None:
        """Begin to hold sends. Return the outbox of a consumer around this one, or None."""
        outer = _slot.get()
        _slot.set(Slot(Held([], [], handshake), outer, send_ahead))
        return outer

    def close(self) -> Held:
        """
        Stop holding sends. Return what was held. Waits for another thread that sends ahead.
        """
        slot = _slot.get()
        if slot is None:
            return Held([], [])
        _slot.set(slot.outer)
        return slot.end() or Held([], [])

    def leave(self) -> None:
        """
        Go back to the outbox around this one, which holds on: the event loop continues its consumer. Waits
        for another thread that sends ahead. The next one waits for `continue_by` or `give_up`.
        """
        slot = _slot.get()
        if slot is not None:
            slot.sending.acquire()
            slot.is_left = True
            _slot.set(slot.outer)

    def hold(self, layer: BaseChannelLayer, kind: str, name: str, message: Message) -> bool:
        """Keep a send until the consumer ends. Return False if none runs: the send must leave now."""
        slot = _slot.get()
        if slot is None:
            return False
        with slot.lock:
            held = slot.held
            if held is None:
                return False
            held.sends.append(PendingSend(layer, kind, name, message))
            return True

    def continue_with(self, message: Any, run: Callable[[Any], Awaitable[None]]) -> None:
        """
        Have the event loop of the worker run the rest of this consumer's event, in the context variables that
        there are now: `await run(event)`. Only in a consumer whose worker has an event loop.
        """
        slot = _slot.get()
        if slot is None or slot.held is None:
            raise RuntimeError("No consumer runs, whose event could be continued.")
        slot.held.rest = Rest(message, run, contextvars.copy_context(), current_state())

    def continue_by(self, event: Any) -> None:
        """
        Have what leaves ahead of the consumer's end leave by `event` (a Continued), on its event loop. No
        thread sends ahead by itself from now on, so that `close` never blocks the loop.
        """
        slot = _slot.get()
        if slot is not None:
            slot.event = event
            self._end_leave(slot)

    def give_up(self) -> None:
        """Drop what this outbox holds, which was left for an event loop that does not continue it."""
        slot = _slot.get()
        if slot is not None:
            with slot.lock:
                slot.held = slot.send_ahead = None
            self._end_leave(slot)

    @staticmethod
    def _end_leave(slot: Slot) -> None:
        if slot.is_left:
            slot.is_left = False
            slot.sending.release()

    def sign(self, layer: BaseChannelLayer, channel: str, message: Message) -> Message:
        """Return `message` as it leaves at once. The gateway must know the consumer that may accept."""
        held = self.held
        handshake = None if held is None else held.handshake
        if handshake is None or handshake.layer is not layer or handshake.reply_channel != channel:
            return message
        return during(handshake.event_id, message)

    def take(self) -> list[PendingSend]:
        """Return the pending sends, and forget them. The consumer runs on."""
        slot = _slot.get()
        return [] if slot is None else slot.take()

    def call_afterwards(self, call: Callable[[], Any]) -> None:
        """Call `call()` after the sends of this consumer have left; now, if no consumer runs."""
        slot = _slot.get()
        if slot is not None:
            with slot.lock:
                if slot.held is not None:
                    slot.held.afterwards.append(call)
                    return
        call()

    def withdraw(self, layer: BaseChannelLayer, channel: str) -> None:
        """Forget the pending sends to one channel."""
        slot = _slot.get()
        if slot is not None:
            with slot.lock:
                sends = [] if slot.held is None else slot.held.sends
                sends[:] = [send for send in sends if not send.is_for(layer, channel)]


outbox = Outbox()


class PendingMessageStore:
    """
    The outbox under the name and calls it has in Channels 1.1 (`prepare`, `active`, `send_and_flush`),
    for code that runs a consumer without a worker.
    """

    @property
    def active(self) -> bool:
        return outbox.pending is not None

    def prepare(self, **kwargs: Any) -> None:
        outbox.open()

    def send_and_flush(self, **kwargs: Any) -> None:
        held = outbox.close()
        error = deliver_all(held.sends)
        for call in held.afterwards:
            call()
        if error is not None:
            raise error


pending_message_store = PendingMessageStore()

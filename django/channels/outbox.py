"""
The outbox: holds what a consumer sends, and what it leaves to be done, until the consumer ends.
"""

from __future__ import annotations

import contextvars
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Awaitable, Callable, NamedTuple, Sequence

from .exceptions import LayerUnavailable
from .protocol import during
from .thread_state import current_state

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .protocol import Message

# The kinds of a PendingSend.
TO_CHANNEL = "channel"
TO_GROUP = "group"

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
        """
        Send it as `deliver` does. A layer that is unavailable, and remembers what it was sent, is tried again
        for SEND_TIMEOUT seconds; but once only, if it was given up as long ago or less.
        """
        layer: Any = self.layer
        if not getattr(layer, "remembers_sends", False):
            self.deliver()
            return
        call = layer.deliver if self.kind == TO_CHANNEL else layer.deliver_group
        send_id, began, interval = uuid.uuid4().hex, time.monotonic(), RETRY_INTERVAL
        deadline = began
        if began - _given_up.get(layer, float("-inf")) > SEND_TIMEOUT:
            deadline += SEND_TIMEOUT
        while True:
            try:
                call(self.name, self.message, send_id=send_id)
                return
            except LayerUnavailable:
                if time.monotonic() >= deadline:
                    _given_up[layer] = time.monotonic()
                    raise
            time.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)

    def __repr__(self) -> str:
        return "<PendingSend to %s %s: %r>" % (self.kind, self.name, self.message)


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


class Held(NamedTuple):
    """What the outbox holds for one consumer."""

    #: Its sends, in order.
    sends: list[PendingSend]
    #: What to call, without arguments, after the sends have left.
    afterwards: list[Callable[[], Any]]
    #: The handshake that it may answer, or None if it handles another message than a connect event.
    handshake: Handshake | None = None
    #: The rest of its event, if the event loop continues it. At most one.
    rests: Sequence[Rest] = ()


class _Slot:
    """The outbox of one task, and of the threads that it calls."""

    def __init__(self, held: Held | None = None) -> None:
        self.held = held
        #: Awaited sends leave in the order in which they are asked for.
        self.lock: Any = None


#: The slot of the task that runs, or None in a thread without one.
_slot: contextvars.ContextVar[_Slot | None] = contextvars.ContextVar(
    "channels_outbox", default=None
)


class Outbox(threading.local):
    """
    What the consumer that runs in this thread or task has sent, in order.

    `held` is None while no consumer runs; sends then leave at once. Each thread has its own outbox, and
    so has each task that called `separate`.
    """

    _held: Held | None = None

    @property
    def held(self) -> Held | None:
        """What is held for the consumer that runs."""
        slot = _slot.get()
        return self._held if slot is None else slot.held

    @held.setter
    def held(self, held: Held | None) -> None:
        slot = _slot.get()
        if slot is None:
            self._held = held
        else:
            slot.held = held

    def separate(self, held: Held | None = None) -> Any:
        """
        Give the task that runs, and what it calls in its context, its own outbox, which holds `held`. Return
        what `join` takes.
        """
        before = _slot.get()
        _slot.set(_Slot(held))
        return before

    def join(self, before: Any) -> None:
        """Go back to the outbox that was there before `separate`."""
        _slot.set(before)

    @property
    def slot(self) -> Any:
        """The outbox of the task that runs, with its lock, or None in a thread without one."""
        return _slot.get()

    def continue_with(self, message: Any, run: Callable[[Any], Awaitable[None]]) -> None:
        """
        Have the event loop of the worker run the rest of this consumer's event, in the context variables that
        there are now: `await run(event)`. Only in a consumer whose worker has an event loop.
        """
        if self.held is None:
            raise RuntimeError("No consumer runs, whose event could be continued.")
        self.held = self.held._replace(
            rests=[Rest(message, run, contextvars.copy_context(), current_state())]
        )

    @property
    def pending(self) -> list[PendingSend] | None:
        """The sends that wait, or None while no consumer runs."""
        slot = _slot.get()
        held = self._held if slot is None else slot.held
        return None if held is None else held.sends

    def open(self, handshake: Handshake | None = None) -> Held | None:
        """Begin to hold sends. Return what a consumer around this one holds, for `close`."""
        slot, held = _slot.get(), Held([], [], handshake)
        # Not through `held`: this happens for every event.
        if slot is None:
            outer, self._held = self._held, held
        else:
            outer, slot.held = slot.held, held
        return outer

    def sign(self, layer: BaseChannelLayer, channel: str, message: Message) -> Message:
        """Return `message` as it leaves at once. The gateway must know the consumer that may accept."""
        handshake = None if self.held is None else self.held.handshake
        if handshake is None or handshake.layer is not layer or handshake.reply_channel != channel:
            return message
        return during(handshake.event_id, message)

    def close(self, outer: Held | None = None) -> Held:
        """Stop holding sends. Return what was held."""
        slot = _slot.get()
        if slot is None:
            held, self._held = self._held, outer
        else:
            held, slot.held = slot.held, outer
        return held or Held([], [])

    def take(self) -> list[PendingSend]:
        """Return the pending sends, and forget them. The consumer runs on."""
        if self.held is None:
            return []
        sends = self.held.sends[:]
        del self.held.sends[:]
        return sends

    def call_afterwards(self, call: Callable[[], Any]) -> None:
        """Call `call()` after the sends of this consumer have left; now, if no consumer runs."""
        if self.held is None:
            call()
        else:
            self.held.afterwards.append(call)

    def withdraw(self, layer: BaseChannelLayer, channel: str) -> None:
        """Forget the pending sends to one channel."""
        if self.held is not None:
            sends = self.held.sends
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
        for send in held.sends:
            send.deliver()
        for call in held.afterwards:
            call()


pending_message_store = PendingMessageStore()

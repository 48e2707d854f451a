"""
The outbox: holds what a consumer sends, and what it leaves to be done, until the consumer ends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .protocol import Message

# The kinds of a PendingSend.
TO_CHANNEL = "channel"
TO_GROUP = "group"


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

    def __repr__(self) -> str:
        return "<PendingSend to %s %s: %r>" % (self.kind, self.name, self.message)


class Held(NamedTuple):
    """What the outbox holds for one consumer."""

    #: Its sends, in order.
    sends: list[PendingSend]
    #: What to call, without arguments, after the sends have left.
    afterwards: list[Callable[[], Any]]


class Outbox(threading.local):
    """
    What the consumer that runs in this thread has sent, in order.

    `held` is None while no consumer runs; sends then leave at once. Each thread has its own outbox.
    """

    held: Held | None = None

    @property
    def pending(self) -> list[PendingSend] | None:
        """The sends that wait, or None while no consumer runs."""
        return None if self.held is None else self.held.sends

    def open(self) -> Held | None:
        """Begin to hold sends. Return what a consumer around this one holds, for `close`."""
        outer, self.held = self.held, Held([], [])
        return outer

    def close(self, outer: Held | None = None) -> Held:
        """Stop holding sends. Return what was held."""
        held, self.held = self.held, outer
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

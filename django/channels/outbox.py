"""
The outbox: holds what a consumer sends until the consumer ends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

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


class Outbox(threading.local):
    """
    What the consumer that runs in this thread has sent, in order.

    `pending` is None while no consumer runs; sends then leave at once. Each thread has its own outbox.
    """

    pending: list[PendingSend] | None = None

    def open(self) -> list[PendingSend] | None:
        """Begin to hold sends. Return what a consumer around this one holds, for `close`."""
        outer, self.pending = self.pending, []
        return outer

    def close(self, outer: list[PendingSend] | None = None) -> list[PendingSend]:
        """Stop holding sends. Return the pending ones."""
        pending, self.pending = self.pending, outer
        return pending or []

    def withdraw(self, layer: BaseChannelLayer, channel: str) -> None:
        """Forget the pending sends to one channel."""
        if self.pending is not None:
            self.pending[:] = [send for send in self.pending if not send.is_for(layer, channel)]


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
        for send in outbox.close():
            send.deliver()


pending_message_store = PendingMessageStore()

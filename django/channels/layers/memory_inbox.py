"""
The gateway's end of the in-memory layer. It is as close to its layer as one class in two files.
"""

from __future__ import annotations

import time
from asyncio import get_event_loop
from typing import TYPE_CHECKING

from ..exceptions import ChannelFull
from ..protocol import ignores_capacity
from .base import Inbox
from .names import inbox_of

if TYPE_CHECKING:
    from asyncio import Future
    from typing import Callable, Sequence

    from .base import Message
    from .memory import MemoryChannelLayer

#: Seconds between two searches of a gateway for expired messages.
EXPIRY_INTERVAL = 1.0


class MemoryInbox(Inbox):
    """
    The inbox of an event loop in the same process. The layer's lock guards what has arrived; the rest
    belongs to the event loop.
    """

    def __init__(self, layer: MemoryChannelLayer, name: str) -> None:
        self.name = name
        #: When (monotonic) the oldest unread message arrived.
        self.since = 0.0
        self._layer = layer
        self._loop = get_event_loop()
        self._messages: list[tuple[str, Message]] = []
        self._waiting: list[Future[None]] = []
        self._sent_to: dict[str, None] = {}  # channels whose readers must be woken
        self._timer = self._loop.call_later(EXPIRY_INTERVAL, self._drop_expired)

    def _drop_expired(self) -> None:
        """Drop what has expired, and report events to their connections, also while the site is idle."""
        self._layer.drop_expired()
        self._timer = self._loop.call_later(EXPIRY_INTERVAL, self._drop_expired)

    @property
    def unread(self) -> int:
        """How many messages have arrived and were not read."""
        return len(self._messages)

    def clear(self) -> None:
        """Drop what was not read. The layer's lock is held."""
        self._messages = []

    def put(self, channel: str, message: Message, control: bool = False) -> None:
        """
        Append a message, and wake the loop once for all that arrive before it looks. A `control` message is
        taken even if the inbox is full. Raises ChannelFull. The layer's lock is held.
        """
        messages = self._messages
        if not messages:
            self.since = time.monotonic()
        elif (
            len(messages) >= self._layer.inbox_capacity
            and not control
            and not ignores_capacity(message)
        ):
            self._layer.count("full")
            raise ChannelFull("The inbox %r is full: its event loop is behind." % self.name)
        messages.append((channel, message))
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                self._loop.call_soon_threadsafe(_wake, waiting)
            except RuntimeError:
                pass  # the loop has ended, and the gateway with it

    async def receive(self) -> list[tuple[str, Message]]:
        while True:
            with self._layer._lock:
                if self._messages:
                    messages, self._messages = self._messages, []
                    return messages
                waiting: Future[None] = self._loop.create_future()
                self._waiting.append(waiting)
            await waiting

    def take(self) -> list[tuple[str, Message]]:
        self._wake_readers()
        with self._layer._lock:
            messages, self._messages = self._messages, []
            return messages

    def send(self, channel: str, message: Message, failed: Callable[[Exception], None]) -> None:
        try:
            with self._layer._lock:
                self._layer._put(channel, message, wake=False)
        except ChannelFull as error:
            failed(error)
            return
        # Readers are woken when this turn of the loop is over. Before that they would only take turns with
        # it: a thread switch at each of its system calls.
        self._sent_to[channel] = None
        if len(self._sent_to) == 1:
            try:
                self._loop.call_soon(self._wake_readers)
            except RuntimeError:  # the loop is closed: the process is about to end
                self._wake_readers()

    def _wake_readers(self) -> None:
        sent_to, self._sent_to = self._sent_to, {}
        with self._layer._lock:
            for channel in sent_to:
                self._layer._wake_reader(channel, inbox_of(channel) or channel)

    def group_discard(self, group: str, channel: str) -> None:
        with self._layer._lock:
            self._layer._discard(group, self.name, channel)

    def drop_channel(self, channel: str) -> None:
        with self._layer._lock:
            self._layer._queues.pop(channel, None)

    async def close(self) -> None:
        self._timer.cancel()
        layer = self._layer
        with layer._lock:
            if layer._inboxes.get(self.name) is not self:
                return  # a later inbox has this name, and the memberships under it
            del layer._inboxes[self.name]
            for group, inboxes in list(layer._groups.items()):
                if inboxes.pop(self.name, None) is not None and not inboxes:
                    del layer._groups[group]


def _wake(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)

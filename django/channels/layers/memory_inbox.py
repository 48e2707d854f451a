"""
The gateway's end of the in-memory layer. It is as close to its layer as one class in two files.
"""

from __future__ import annotations

import threading
import time
from asyncio import get_event_loop
from typing import TYPE_CHECKING

from ..exceptions import ChannelFull
from ..protocol import ignores_capacity
from .base import Inbox
from .names import queue_of

if TYPE_CHECKING:
    from asyncio import Future
    from typing import Any, Callable, Sequence

    from .base import Message
    from .memory import MemoryChannelLayer

#: Seconds between two searches of a gateway for expired messages.
EXPIRY_INTERVAL = 1.0

#: Seconds that a loop waits for the answers of quick consumers, at most.
WATCH_TIMEOUT = 0.001

#: Seconds for each answer up to which consumers are quick. Those that take longer are, if they computed for
#: half of the time, and so didn't wait for a database or the like.
QUICK = 0.0002

#: How many times a loop doesn't wait after consumers that weren't quick, at first and at most.
MIN_SKIPS, MAX_SKIPS = 8, 1024


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
        self._watch = Watch()
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
        Append a message, and wake the loop once for all that arrive before it takes them. A `control`
        message is taken even if the inbox is full. Raises ChannelFull. The layer's lock is held.
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
        if self._waiting and not self._watch.is_on:
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
                self._loop.call_soon(self._wake_and_watch)
            except RuntimeError:  # the loop is closed: the process is about to end
                self._wake_readers()

    def _wake_readers(self) -> None:
        with self._layer._lock:
            for wakeup in self._take_readers():
                wakeup.release()

    def _take_readers(self) -> list[Any]:
        """Return the locks to release for what was sent. The layer's lock is held."""
        sent_to, self._sent_to = self._sent_to, {}
        found: list[Any] = []
        if not self._layer._readers:
            return found
        for name in sent_to:
            wakeup = self._layer._take_reader(name, queue_of(name))
            if wakeup is not None:
                found.append(wakeup)
        return found

    def _wake_and_watch(self) -> None:
        """
        Wake the readers of what was sent. While consumers are quick, wait here for what they answer.

        The loop couldn't do much meanwhile, because one thread at a time runs Python code. If it waited for
        its sockets instead, each answer would have to wake it through a system call, and the two threads
        would take turns at each call after that.
        """
        watch, layer = self._watch, self._layer
        done = None
        with layer._lock:
            wakeups = self._take_readers()
            if wakeups and not self._messages and watch.begin():
                done = threading.Lock()
                done.acquire()
                layer._watches.append(done)
        for wakeup in wakeups:
            wakeup.release()
        if done is None:
            return
        try:
            # Nothing stands between the last two calls, so a reader rarely has to wait for this thread.
            done.acquire(timeout=WATCH_TIMEOUT)
        finally:
            self._end_watch(done)

    def _end_watch(self, done: Any) -> None:
        """Take up what came while the loop waited for `done`, and wake readers for what was left."""
        layer, waiting = self._layer, []
        with layer._lock:
            if done in layer._watches:
                layer._watches.remove(done)
            self._watch.end(len(self._messages))
            if self._messages:
                waiting, self._waiting = self._waiting, waiting
            if not layer._watches:
                layer._wake_for_rest()
        _wake(waiting)

    def group_discard(self, group: str, channel: str) -> None:
        with self._layer._lock:
            self._layer._discard(group, self.name, channel)

    def drop_channel(self, channel: str) -> None:
        with self._layer._lock:
            self._layer._queues.pop(channel, None)

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
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


class Watch:
    """Whether one event loop waits for the answers of quick consumers. The layer's lock guards it."""

    __slots__ = ("is_on", "_began", "_computed", "_skips", "_to_skip")

    def __init__(self) -> None:
        #: Whether the loop waits, and is not to be woken in another way.
        self.is_on = False
        self._began = self._computed = 0.0
        self._skips = MIN_SKIPS
        self._to_skip = 0

    def begin(self) -> bool:
        """Return whether the loop is to wait now."""
        if self._to_skip:
            self._to_skip -= 1
            return False
        self._began, self._computed = time.monotonic(), time.process_time()
        self.is_on = True
        return True

    def end(self, answers: int) -> None:
        """Note that the loop waits no more, and that so many answers came."""
        self.is_on = False
        seconds = time.monotonic() - self._began
        if answers and (
            seconds <= QUICK * answers or time.process_time() - self._computed >= seconds / 2
        ):
            self._skips = MIN_SKIPS
        else:
            self._to_skip = self._skips
            self._skips = min(2 * self._skips, MAX_SKIPS)

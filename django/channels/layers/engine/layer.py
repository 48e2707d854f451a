"""
EngineLayer: the contract of `layers/base.py` over a store.

Here is what is the same for every layer that crosses processes. What one store alone can do stays in it.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ...exceptions import LayerUnavailable
from ...log import Reachability
from ...protocol import MAYBE, REDELIVERED, ignores_capacity
from ..base import BaseChannelLayer, DeadLetter, Inbox, Message, Received
from ..messages import clean
from ..names import (
    check_channel_name,
    check_channel_names,
    check_group_name,
    check_inbox_name,
    queue_of,
)
from . import process
from .counters import with_statistics
from .leases import LeaseManager
from .notices import Notices
from .options import Options, seconds_of
from .recovery import Recovery, logger
from .redelivery import RedeliveryPolicy
from .store import Entry, Outgoing, Unreadable

if TYPE_CHECKING:
    from .store import Pending, Store


class EngineLayer(BaseChannelLayer):
    """
    A layer over a `Store`, which `make_store` makes when it is first needed. Thread-safe.

    `options` are those of every such layer; `common` those of BaseChannelLayer. Making a layer connects to
    nothing and starts no thread. Raises ImproperlyConfigured for options out of range.
    """

    extensions = (
        "groups",
        "flush",
        "statistics",
        "inbox",
        "acknowledgement",
        "delay",
        "leases",
        "wills",
        "dead_letters",
    )

    def __init__(self, options: Options, **common: Any) -> None:
        super().__init__(**common)
        self.options = options.check()
        self.inbox_capacity = options.inbox_capacity
        self.policy = RedeliveryPolicy(options.lost, options.retry_safe_requests)
        self.recovery = Recovery(self)
        self._store: Store | None = None
        self._begin()
        process.register(self)

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        self._lock = threading.RLock()
        self.notices = Notices(self.options.dead_letters)
        #: By consumer: an unreadable entry whose `dead_letter` call failed. It may have taken effect, so the
        #: next call repeats it.
        self._unreadable: dict[str | None, tuple[Entry, Exception]] = {}
        #: The leases of this process.
        self.leases = LeaseManager(self)
        #: When (monotonic) a process without a lease thread shares its counters.
        self._share_at = time.monotonic() + self.options.heartbeat

    @abstractmethod
    def make_store(self) -> Store:
        """Return the store. It connects to nothing yet."""

    @property
    def store(self) -> Store:
        """The store, made when it is first needed."""
        store = self._store
        if store is None:
            with self._lock:
                if self._store is None:
                    made = self.make_store()
                    made.bind(self)
                    self._store = made
                store = self._store
        return store

    # The life of a process.

    def after_fork(self) -> None:
        """Begin anew in a child process: connections, threads, leases and locks are the parent's."""
        self._begin()
        self.counters.after_fork()
        self.reachability = Reachability(self)
        self._gateways = {}
        if self._store is not None:
            self._store.after_fork()

    def leave(self) -> None:
        """Release this process's lease, and share its counters. Raises LayerUnavailable."""
        if self._store is not None:
            self.leases.leave()
            self.share_counters()

    def close(self) -> None:
        if self._store is not None:
            self.leases.stop()
        try:
            self.leave()
        except LayerUnavailable:
            pass  # the lease will run out
        with self._lock:
            store, self._store = self._store, None
            self._begin()
        if store is not None:
            store.close()

    # Sending.

    @property
    def remembers_sends(self) -> bool:
        return self.store.remembers_sends

    def deliver(self, channel: str, message: Message, send_id: str = "") -> None:
        body = self.store.encode(channel, message)
        item = Outgoing(channel, body, ignores_capacity(message), id=send_id)
        full = self.store.send([item])
        if not full:
            self.count("sent")
        self._share_now_and_then()
        if full:
            raise self.channel_full(channel)

    def deliver_all(self, items: Sequence[tuple[str, Message]]) -> None:
        self.store.send(
            [Outgoing(each, self.store.encode(each, message)) for each, message in items]
        )

    def send_later(self, channel: str, message: Message, delay: float, send_id: str = "") -> None:
        check_channel_name(channel)
        seconds = seconds_of(delay)
        body = self.store.encode(channel, clean(message))
        if send_id:
            self.store.delay(channel, body, seconds, send_id)
        else:
            self.store.delay(channel, body, seconds)
        # If no worker and no gateway runs, this process sends it.
        self.leases.expect(seconds)

    # Receiving.

    def receive_many(self, channels: Sequence[str], block: bool = False) -> Received:
        return self._receive(None, check_channel_names(channels), block)

    def claim(self, consumer: str, channels: Sequence[str], block: bool = False) -> Received:
        return self._receive(consumer, check_channel_names(channels), block)

    def _receive(self, consumer: str | None, channels: Sequence[str], block: bool) -> Received:
        store = self.store
        deadline = time.monotonic() + self.block_for if block else 0.0
        if block:
            self.leases.start()  # its thread sends what is due, and reports what expires
        self._dead_letter_again(consumer)
        while True:
            if consumer is None:
                entry = store.take(channels, block) if channels else None
            else:
                entry = store.claim(consumer, self.leases.process, channels, block)
            if entry is not None:
                message = self._read(consumer, entry)
                if message is not None:
                    return entry.channel, message
                continue
            remaining = deadline - time.monotonic() if block else 0.0
            if remaining <= 0 or not channels or not store.wait(consumer, channels, remaining):
                return None, None

    def _read(self, consumer: str | None, entry: Entry) -> Message | None:
        """Return the message of an entry; None for one that cannot be read, which becomes a dead letter."""
        try:
            message = self.store.decode(entry.channel, entry.body)
        except Exception as error:  # Unreadable, or a bug: nothing else is lost with it
            self.dead_letter(consumer, entry, error)
            return None
        if entry.losses:
            message[REDELIVERED] = True
        elif entry.doubtful:
            message[REDELIVERED] = MAYBE
        return message

    def dead_letter(self, consumer: str | None, entry: Entry, error: Exception) -> None:
        """Make a dead letter of an entry that cannot be read."""
        if consumer is not None:
            self._unreadable[consumer] = (entry, error)
        dropped = self.store.dead_letter(consumer, entry, "unreadable")
        self._unreadable.pop(consumer, None)
        self.recovery.unreadable(entry, error, dropped)

    def _dead_letter_again(self, consumer: str | None) -> None:
        """Repeat a `dead_letter` call that failed, before `consumer` acknowledges the entry."""
        if consumer in self._unreadable:
            self.dead_letter(consumer, *self._unreadable[consumer])

    # Acknowledgement.

    def acknowledge(self, consumer: str) -> None:
        self._dead_letter_again(consumer)
        self.store.acknowledge(consumer)

    def acknowledge_all(self, consumers: Sequence[str]) -> None:
        for consumer in consumers:
            self._dead_letter_again(consumer)
        self.store.acknowledge_all(consumers)

    @property
    def keeps_answers(self) -> bool:  # type: ignore[override]
        return self.store.keeps_answers

    def split(self, consumer: str, spare: str) -> tuple[str, str]:
        return self.store.split(consumer, spare)

    def finish(self, consumer: str, channel: str, message: Message, soon: bool = False) -> None:
        if not self.store.finish(consumer, channel, self.store.encode(channel, message), soon):
            raise self.channel_full(channel)
        self.count("sent")

    def requeue(self, consumer: str) -> None:
        self.store.requeue(consumer)

    def wake(self, consumer: str) -> None:
        self.store.wake(consumer)

    # Groups.

    def group_add(self, group: str, channel: str) -> None:
        self.store.group_add(check_group_name(group), check_channel_name(channel))

    def group_discard(self, group: str, channel: str) -> None:
        self.store.group_discard(check_group_name(group), check_channel_name(channel))

    def group_channels(self, group: str) -> list[str]:
        return self.store.group_channels(check_group_name(group))

    def deliver_group(self, group: str, message: Message, send_id: str = "") -> None:
        skipped = self.store.send_group(group, message, send_id)
        if skipped:
            self.count("group_full", skipped)
        self.count("sent")
        self._share_now_and_then()

    # Dead letters.

    def dead_letters(self) -> list[DeadLetter]:
        letters = []
        for id, channel, body, reason, died in self.store.dead_letters():
            try:
                message: Message | None = self.store.decode(channel, body)
            except Unreadable:
                message = None
            letters.append(DeadLetter(id, channel, message, reason, died))
        return letters

    def requeue_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        return sum(self.store.requeue_dead_letter(id) for id in self._letter_ids(ids))

    def drop_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        return self.store.drop_dead_letters(self._letter_ids(ids))

    def _letter_ids(self, ids: Iterable[str] | None) -> list[str]:
        if ids is None:
            return [letter[0] for letter in self.store.dead_letters()]
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
            # The letters of a text would be the ids, which no dead letter has.
            raise TypeError(
                "ids is a list of ids of dead letters, not %.200r: write [id]." % (ids,)
            )
        return [str(each) for each in ids]

    # Flush and statistics.

    def flush(self) -> None:
        self.store.flush()
        self.counters.reset_shared()

    def global_statistics(self) -> dict[str, Any]:
        found = self._describe(self.store.pending())
        found["messages_held"] = self.store.count_unacknowledged()
        found["dead_letters"] = self.store.count_dead_letters()
        return with_statistics(self.counters.total(self.store.counters), found)

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        return self._describe(self.store.pending(queue_of(check_channel_name(channel))))

    def _describe(self, pending: Sequence[Pending]) -> dict[str, Any]:
        return {
            "messages_pending": sum(each.count for each in pending),
            "messages_max_age": max((each.age for each in pending), default=0.0),
        }

    def share_counters(self) -> None:
        """Add what this process has counted to the counters of all processes. Raises LayerUnavailable."""
        self.counters.share(self.store.add_counters)

    def _share_now_and_then(self) -> None:
        """Share the counters of a process that only sends, which runs without a lease thread."""
        now = time.monotonic()
        if now < self._share_at:
            return
        self._share_at = now + self.options.heartbeat
        if self.leases.runs:
            return
        try:
            self.share_counters()
        except LayerUnavailable as error:
            logger.debug("The counters of %s were not shared: %s", self, error)

    # What gateways call.

    def open_inbox(self, name: str) -> Inbox:
        return self.store.open_inbox(check_inbox_name(name))

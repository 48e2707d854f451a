"""
TransactionStore: a store for whatever has transactions, such as a database, or a file under a lock.

The rules are here: what belongs into one step, and what is requeued, sent or forgotten in it. A subclass
defines `transaction`, and small primitives that move or change one thing. The primitives take `tx`: whatever
`transaction` hands to its function.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from ... import protocol
from ..names import inbox_of
from . import codec
from .recovery import BURY, NOTIFY, REQUEUE, WILL_EXPIRY
from .store import Due, Entry, Outgoing, Recovered, Store, Unreadable, Will
from .threads import start_thread
from .waiting import CHANGED, Waiters

if TYPE_CHECKING:
    from ..base import Message
    from .recovery import Action


class TransactionStore(Store):
    """
    A store of transactions. Thread-safe if `transaction` is.

    A claim is acknowledged by the next call of its consumer, if this process has seen the entry. One that it
    hasn't seen was claimed by a call whose reply got lost, and is requeued.
    """

    #: Seconds between two looks for what other processes have changed.
    poll_interval = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        self.waiters = Waiters()
        self._local = threading.local()
        self._seen: dict[
            str, Any
        ] = {}  # consumer to the id of the entry that its last claim returned
        self._turn = 0
        self._subscribers: dict[str, Callable[[], None]] = {}
        self._poller: threading.Thread | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()
        if self._poller is not None:
            self._poller.join()
        self._begin()

    def after_fork(self) -> None:
        super().after_fork()
        self._begin()

    # Primitives.

    @abstractmethod
    def transaction(self, work: Callable[[Any], Any]) -> Any:
        """
        Return `work(tx)`, which happens as one step among all processes, or not at all. It may be called
        again. Raises LayerUnavailable. Afterwards, wake the readers of what was changed.
        """

    @abstractmethod
    def put(self, tx: Any, items: Sequence[Outgoing]) -> Sequence[int]:
        """Put messages at the end of their queues; return the indexes of those that find them full."""

    @abstractmethod
    def put_first(self, tx: Any, entry: Entry) -> None:
        """Put an entry at the head of its queue, with a new expiry."""

    def take_next(self, tx: Any, channels: Sequence[str]) -> Entry | None:
        """Take the next message of the first of `channels` that has one; see `Store.take` for "!"."""
        raise NotImplementedError

    @abstractmethod
    def take_expired(self, tx: Any, events: bool = True) -> Iterable[Entry]:
        """
        Take messages that have expired, some at a time: those of `protocol.EVENT_CHANNELS`, or, without
        `events`, all others.
        """

    def set_claim(self, tx: Any, consumer: str, process: str, entry: Any) -> None:
        """Make an entry the claim of `consumer`, which has none."""
        raise NotImplementedError

    @abstractmethod
    def take_claim(self, tx: Any, consumer: str) -> Entry | None:
        """Remove the claim of `consumer`, and return it."""

    @abstractmethod
    def claims_of(self, tx: Any, process: str) -> Sequence[tuple[str, Entry]]:
        """Return (consumer, entry) of each claim of a process."""

    @abstractmethod
    def has_lease(self, tx: Any, name: str) -> bool:
        """Return whether the lease `name` exists."""

    @abstractmethod
    def ended_leases(self, tx: Any) -> Sequence[str]:
        """Return the names whose lease has run out, and keep others from ending them."""

    @abstractmethod
    def end_lease(self, tx: Any, name: str) -> None:
        """Remove a lease; and of a gateway, the memberships and the inbox."""

    def set_will(self, tx: Any, gateway: str, will: Will) -> None:
        """Store the will of a connection of a gateway, in place of an earlier one."""
        raise NotImplementedError

    def clear_will(self, tx: Any, connection: str) -> None:
        """Delete the will of a connection, if it has one."""
        raise NotImplementedError

    @abstractmethod
    def take_wills(self, tx: Any, gateway: str) -> Iterable[tuple[str, Any]]:
        """Remove the wills of a gateway, and return (channel, body) of each."""

    @abstractmethod
    def add_member(self, tx: Any, group: str, channel: str, gateway: str) -> bool:
        """Add a member that belongs to `gateway`, or to none (""). Return whether it was none before."""

    @abstractmethod
    def remove_member(self, tx: Any, group: str, channel: str) -> bool:
        """Remove a member, if it is one. Return whether it was, and belonged to a gateway."""

    @abstractmethod
    def group_routes(self, group: str) -> tuple[Sequence[str], Sequence[str]]:
        """Return the gateways that have members of a group, and the members without one."""

    @abstractmethod
    def count_members(self, group: str, gateway: str) -> int:
        """Return how many members of a group a gateway has."""

    @abstractmethod
    def next_due(self) -> float | None:
        """Return the seconds until the next delayed message is due, or None if there is none."""

    @abstractmethod
    def take_due(self, tx: Any) -> Sequence[Outgoing]:
        """Take delayed messages that are due, some at a time."""

    @abstractmethod
    def add_dead(self, tx: Any, entry: Entry, reason: str) -> int:
        """
        Add a dead letter, and drop the oldest but for `layer.options.dead_letters`. Return how many were
        dropped.
        """

    @abstractmethod
    def take_dead(self, tx: Any, id: str) -> Outgoing | None:
        """Remove a dead letter, and return its message."""

    def look_in(self, tx: Any, inbox: str, limit: int) -> Sequence[Entry]:
        """Return the first `limit` messages of an inbox that have not expired. They stay there."""
        raise NotImplementedError

    def drop_from(self, tx: Any, inbox: str, ids: Sequence[Any]) -> int:
        """Remove the messages with these ids from an inbox. Return how many there were."""
        raise NotImplementedError

    @abstractmethod
    def clear(self, tx: Any) -> Iterable[str]:
        """Remove everything but leases and wills. Return the names of the gateways."""

    def version(self) -> Any:
        """Return something that differs once another process has changed anything."""
        raise NotImplementedError

    # Helpers of primitives.

    def expiry_of(self, item: Outgoing) -> float:
        """Return the seconds after which a message expires."""
        expiry: float = self.layer.expiries[item.channel] if item.expiry is None else item.expiry
        return expiry

    def capacity_of(self, tx: Any, item: Outgoing) -> float:
        """Return how many messages may wait where `item` goes."""
        inbox = inbox_of(item.channel)
        if item.unlimited:
            return math.inf
        if inbox is not None and self.has_lease(tx, inbox):
            return self.layer.inbox_capacity
        capacity: int = self.layer.capacities[item.channel]
        return capacity

    # Readers that wait.

    def start_polling(self) -> None:
        """Start, if it does not run, the thread that wakes readers when other processes change something."""
        if self._poller is None:
            self._poller = start_thread("channels-poll", self._poll)

    def _poll(self) -> None:
        last = None
        while not self._closed.wait(self.poll_interval):
            version = self.version()
            if version != last:
                last = version
                self.changed()

    def changed(self) -> None:
        """Wake the readers of this process: something may have come for them."""
        self.waiters.changed()
        for callback in list(self._subscribers.values()):
            callback()
        self.wake_due()

    # Bodies: JSON, which any storage can hold.

    def encode(self, channel: str, message: Message) -> Any:
        return codec.encode(message)

    def decode(self, channel: str, body: Any) -> Message:
        try:
            message: Any = codec.decode(body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unreadable("it is not JSON as this layer writes it (%s)" % error) from error
        if not isinstance(message, dict):
            raise Unreadable("it holds a %s, not a dict" % type(message).__name__)
        return message

    # Messages.

    def send(self, items: Sequence[Outgoing]) -> Sequence[int]:
        refused: Sequence[int] = self.transaction(lambda tx: self.put(tx, items))
        return refused

    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        self._local.version = self.waiters.version
        channels = self._turned(channels)
        entry: Entry | None = self.transaction(lambda tx: self.take_next(tx, channels))
        return entry

    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        def work(tx: Any) -> Entry | None:
            self.settle(tx, consumer)
            entry = self.take_next(tx, turned)
            if entry is not None:
                self.set_claim(tx, consumer, process, entry)
            return entry

        self._local.version = self.waiters.version
        turned = self._turned(channels)
        entry: Entry | None = self.transaction(work)
        self._seen[consumer] = entry and entry.id
        return entry

    def _turned(self, channels: Sequence[str]) -> Sequence[str]:
        """Return `channels` in the order in which to look at them: each comes first in turn."""
        self._turn += 1
        turn = self._turn % len(channels) if channels else 0
        return [*channels[turn:], *channels[:turn]]

    def settle(self, tx: Any, consumer: str) -> None:
        """Forget what `consumer` holds, if this process has seen it; else requeue it."""
        entry = self.take_claim(tx, consumer)
        if entry is not None and entry.id != self._seen.get(consumer):
            self.put_first(tx, entry)

    def acknowledge(self, consumer: str) -> None:
        self.transaction(lambda tx: self.settle(tx, consumer))

    def requeue(self, consumer: str) -> None:
        self._seen.pop(consumer, None)  # as if it had never been seen
        self.transaction(lambda tx: self.settle(tx, consumer))

    def dead_letter(self, consumer: str | None, entry: Entry, reason: str) -> int:
        def work(tx: Any) -> int:
            if consumer is None:
                held = True
            elif consumer.endswith("!"):
                held = bool(self.drop_from(tx, consumer, [entry.id]))
            else:
                held = self.take_claim(tx, consumer) is not None
            if not held:
                return 0  # an earlier call did it, and its reply got lost
            return self.add_dead(tx, entry, reason)

        dropped: int = self.transaction(work)
        if consumer is not None:
            self._seen.pop(consumer, None)
        return dropped

    def wait(self, consumer: str | None, channels: Sequence[str], seconds: float) -> bool:
        self.start_polling()
        return self.waiters.wait(tuple(channels), self._local.version, seconds, consumer) == CHANGED

    def wake(self, consumer: str) -> None:
        self.waiters.wake(consumer)

    # Leases and expiry.

    def recover(self, decide: Callable[[Entry], Action]) -> Recovered:
        def work(tx: Any) -> Recovered:
            names = self.ended_leases(tx)
            done = Recovered(list(names), [])
            for name in names:
                claims = self.claims_of(tx, name)
                for consumer, _ in claims:
                    self.take_claim(tx, consumer)
                done = self._carry_out(tx, [entry for _, entry in claims], decide, done)
                self._end(tx, name)
            return done

        recovered: Recovered = self.transaction(work)
        return recovered

    def expire(self, decide: Callable[[Entry], Action]) -> Recovered:
        def work(tx: Any) -> Recovered:
            return self._carry_out(tx, self.take_expired(tx), decide, Recovered([], []))

        expired: Recovered = self.transaction(work)
        return expired

    def sweep(self) -> dict[str, int]:
        found: Iterable[Entry] = self.transaction(lambda tx: self.take_expired(tx, False))
        return Counter(entry.channel for entry in found)

    def _carry_out(
        self,
        tx: Any,
        entries: Iterable[Entry],
        decide: Callable[[Entry], Action],
        done: Recovered,
    ) -> Recovered:
        """Do with each entry as `decide` says; return `done` with the decisions added."""
        dropped = 0
        for entry in entries:
            action, again = decide(entry), entry._replace(losses=entry.losses + 1)
            if action.kind == REQUEUE:
                self.put_first(tx, again)
            elif action.kind == NOTIFY and action.notice is not None:
                self.put(tx, [action.notice])
            elif action.kind == BURY:
                dropped += self.add_dead(tx, again, action.reason)
            done.decisions.append((entry.channel, action.kind))
        return done._replace(dropped=done.dropped + dropped)

    def _end(self, tx: Any, name: str) -> None:
        """End a lease: send the wills of its connections, remove memberships and inbox."""
        wills = [
            Outgoing(channel, body, True, max(self.layer.expiries[channel], WILL_EXPIRY))
            for channel, body in self.take_wills(tx, name)
        ]
        self.put(tx, wills)
        self.end_lease(tx, name)

    def leave(self, name: str) -> None:
        def work(tx: Any) -> None:
            if not self.claims_of(tx, name):
                self._end(tx, name)

        self.transaction(work)

    # Delay.

    def send_due(self) -> Due:
        seconds = self.next_due()
        if seconds is None or seconds > 0:
            return Due(0, seconds)

        def work(tx: Any) -> tuple[int, int]:
            items = self.take_due(tx)
            return len(items), len(self.put(tx, items))

        taken, full = self.transaction(work)
        # None was left: another process is sending them.
        return Due(full, 0.0 if taken else self.poll_interval)

    # Groups.

    def group_add(self, group: str, channel: str) -> None:
        def work(tx: Any) -> None:
            gateway = inbox_of(channel) or ""
            if gateway and not self.has_lease(tx, gateway):
                gateway = ""  # no gateway is there: an ordinary channel's membership
            if self.add_member(tx, group, channel, gateway) and gateway:
                self._tell(tx, channel, protocol.group_added(group))

        self.transaction(work)

    def group_discard(self, group: str, channel: str) -> None:
        def work(tx: Any) -> None:
            if self.remove_member(tx, group, channel):
                self._tell(tx, channel, protocol.group_discarded(group))

        self.transaction(work)

    def _tell(self, tx: Any, channel: str, notice: Message) -> None:
        """Send a notice to a gateway."""
        self.put(tx, [Outgoing(channel, self.encode(channel, notice), unlimited=True)])

    def send_group(self, group: str, message: Message) -> int:
        gateways, others = self.group_routes(group)
        items = []
        if gateways:
            body = self.encode("", protocol.group_message(group, message))
            items += [Outgoing(gateway, body) for gateway in gateways]
        if others:
            body = self.encode("", message)
            items += [Outgoing(channel, body) for channel in others]
        return sum(
            self.count_members(group, gateways[index]) if index < len(gateways) else 1
            for index in (self.send(items) if items else ())
        )

    # Dead letters and flush.

    def requeue_dead_letter(self, id: str) -> bool:
        def work(tx: Any) -> bool:
            item = self.take_dead(tx, id)
            if item is not None:
                self.put(tx, [item._replace(unlimited=True)])
            return item is not None

        found: bool = self.transaction(work)
        return found

    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        def work(tx: Any) -> int:
            return sum(self.take_dead(tx, id) is not None for id in ids)

        dropped: int = self.transaction(work)
        return dropped

    def flush(self) -> None:
        def work(tx: Any) -> None:
            for gateway in self.clear(tx):
                self._tell(tx, gateway, protocol.reset())

        self.transaction(work)

    # A gateway's end.

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> Sequence[Entry]:
        def work(tx: Any) -> Sequence[Entry]:
            self.drop_from(tx, name, acked)
            return self.look_in(tx, name, limit)

        found: Sequence[Entry] = self.transaction(work)
        return found

    def gateway_batch(
        self,
        inbox: str,
        wills: Sequence[Will],
        cleared: Sequence[str],
        discards: Sequence[tuple[str, str]],
        sends: Sequence[Outgoing],
    ) -> Sequence[int]:
        def work(tx: Any) -> Sequence[int]:
            for will in wills:
                self.set_will(tx, inbox, will)
            for connection in cleared:
                self.clear_will(tx, connection)
            for group, channel in discards:
                self.remove_member(tx, group, channel)
            return self.put(tx, sends)

        refused: Sequence[int] = self.transaction(work)
        return refused

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        self._subscribers[name] = callback
        self.start_polling()

    def unsubscribe(self, name: str) -> None:
        self._subscribers.pop(name, None)

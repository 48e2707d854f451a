"""
TransactionStore: a store for whatever has transactions, such as a database, or a file under a lock.

The rules are here: what belongs into one step, and what is requeued, sent or forgotten in it. A subclass
defines `transaction` and the other primitives of records.py.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence, TypeVar

from ... import protocol
from ..names import inbox_of
from . import codec
from .records import RecordStore
from .recovery import DEAD_LETTER, NOTIFY, REQUEUE, WILL_EXPIRY
from .store import Due, Entry, LeaseEnded, Outgoing, Recovered, Unreadable, Will
from .threads import start_thread
from .waiting import CHANGED, Waiters

if TYPE_CHECKING:
    from ..base import Message
    from .recovery import Action

Item = TypeVar("Item")


class TransactionStore(RecordStore):
    """
    A store of transactions. Thread-safe if `transaction` is.

    A claim is acknowledged by the next call of its consumer, if this process has seen the entry. One that it
    hasn't seen was claimed by a call whose reply got lost, and is requeued.
    """

    #: Seconds between two polls for what other processes have changed.
    poll_interval = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        self.waiters = Waiters()
        self._local = threading.local()
        #: Consumer to the id of the entry that its last claim returned, until it is acknowledged.
        self._seen: dict[str, Any] = {}
        self._turn = 0
        #: By inbox; "": called when a message may be due.
        self.subscribers: dict[str, Callable[[], None]] = {"": self.wake_due}
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

    def changed(self, names: Iterable[str] | None = None) -> None:
        """
        Wake the readers of this process: something may have come for those of `names`, or of any channel. The
        name "" stands for delayed messages.
        """
        wanted = None if names is None else set(names)
        self.waiters.changed(wanted)
        for name, callback in list(self.subscribers.items()):
            if wanted is None or name in wanted:
                callback()

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
        return self.transaction(lambda tx: self.put(tx, items))

    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        self._local.version = self.waiters.version
        channels = self.turned(channels)
        return self.transaction(lambda tx: self.take_next(tx, channels))

    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        def work(tx: Any) -> Entry | None:
            self.release_claim(tx, consumer)
            entry = self.take_next(tx, turned)
            if entry is not None:
                self.set_claim(tx, consumer, process, entry)
            return entry

        self._local.version = self.waiters.version
        turned = self.turned(channels)
        entry: Entry | None = self.transaction(work)
        if entry is None:
            self.forget(consumer)
        else:
            self._seen[consumer] = entry.id
        return entry

    def turned(self, channels: Sequence[Item]) -> list[Item]:
        """Return `channels` in the order in which to poll them: each comes first in turn."""
        self._turn += 1
        turn = self._turn % len(channels) if channels else 0
        return [*channels[turn:], *channels[:turn]]

    def release_claim(self, tx: Any, consumer: str) -> None:
        """Forget what `consumer` holds, if this process has seen it; else requeue it."""
        entry = self.take_claim(tx, consumer)
        if entry is not None and entry.id != self._seen.get(consumer):
            self.put_first(tx, entry)

    def forget(self, consumer: str) -> None:
        """Forget what `consumer` has claimed here, so that nothing grows with the consumers of the past."""
        self._seen.pop(consumer, None)

    def acknowledge(self, consumer: str) -> None:
        self.transaction(lambda tx: self.release_claim(tx, consumer))
        self.forget(consumer)

    def requeue(self, consumer: str) -> None:
        self.forget(consumer)  # as if it had never been seen
        self.transaction(lambda tx: self.release_claim(tx, consumer))

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
            self.forget(consumer)
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
                ended = self._end(tx, name)
                if ended:
                    self._send_notice(tx, name, protocol.reset(ended), WILL_EXPIRY)
            return done

        return self.transaction(work)

    def expire(self, decide: Callable[[Entry], Action]) -> Recovered:
        def work(tx: Any) -> Recovered:
            return self._carry_out(tx, self.take_expired(tx), decide, Recovered([], []))

        return self.transaction(work)

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
            elif action.kind == DEAD_LETTER:
                dropped += self.add_dead(tx, again, action.reason)
            done.decisions.append((entry.channel, action.kind))
        return done._replace(dropped=done.dropped + dropped)

    def _end(self, tx: Any, name: str) -> list[str]:
        """
        End a lease: send the wills of its connections, remove memberships and inbox. Return the connections
        whose wills were sent.
        """
        wills = list(self.take_wills(tx, name))
        will_expiry = self.layer.recovery.will_expiry
        self.put(
            tx,
            [Outgoing(each.channel, each.body, True, will_expiry(each.channel)) for each in wills],
        )
        self.end_lease(tx, name)
        return [each.connection for each in wills]

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
                self._send_notice(tx, channel, protocol.group_added(group))

        self.transaction(work)

    def group_discard(self, group: str, channel: str) -> None:
        def work(tx: Any) -> None:
            if self.remove_member(tx, group, channel):
                self._send_notice(tx, channel, protocol.group_discarded(group))

        self.transaction(work)

    def _send_notice(
        self, tx: Any, channel: str, notice: Message, expiry: float | None = None
    ) -> None:
        """Send a notice to a gateway."""
        self.put(tx, [Outgoing(channel, self.encode(channel, notice), True, expiry)])

    def send_group(self, group: str, message: Message, id: str = "") -> int:
        gateways, others = self.group_routes(group)
        items = []
        if gateways:
            body = self.encode("", protocol.group_message(group, message))
            items += [Outgoing(gateway, body, id=id) for gateway in gateways]
        if others:
            inner, others = protocol.for_members(message, others)
            body = self.encode("", inner)
            items += [Outgoing(channel, body, id=id) for channel in others]
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

        return self.transaction(work)

    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        def work(tx: Any) -> int:
            return sum(self.take_dead(tx, id) is not None for id in ids)

        return self.transaction(work)

    def flush(self) -> None:
        def work(tx: Any) -> None:
            for gateway in self.clear(tx):
                self._send_notice(tx, gateway, protocol.reset())

        self.transaction(work)

    # A gateway's end.

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> Sequence[Entry]:
        def work(tx: Any) -> Sequence[Entry]:
            self.drop_from(tx, name, acked)
            return self.peek_inbox(tx, name, limit)

        return self.transaction(work)

    def gateway_batch(
        self,
        inbox: str,
        wills: Sequence[Will],
        cleared: Sequence[str],
        discards: Sequence[tuple[str, str]],
        sends: Sequence[Outgoing],
    ) -> Sequence[int]:
        def work(tx: Any) -> Sequence[int]:
            if not self.has_lease(tx, inbox):
                raise LeaseEnded("The lease of the gateway %s has ended." % inbox)
            for will in wills:
                self.set_will(tx, inbox, will)
            for connection in cleared:
                self.clear_will(tx, connection)
            for group, channel in discards:
                self.remove_member(tx, group, channel)
            return self.put(tx, sends)

        return self.transaction(work)

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        self.subscribers[name] = callback
        self.start_polling()

    def unsubscribe(self, name: str) -> None:
        self.subscribers.pop(name, None)

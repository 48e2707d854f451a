"""
What a store must do: the primitives under the engine.

A store moves and remembers messages; it decides nothing. Where a rule is needed, the engine hands a function
in (`decide`), which the store calls while it holds the message. `EngineLayer` is the only caller.

Unless its docstring says otherwise, each call is thread-safe, atomic (all of it happens or nothing), does not
wait for messages, and raises LayerUnavailable if the store cannot be reached. After LayerUnavailable it is
unknown whether the call happened, so every call may be repeated:

* an entry's `id` is used for one claim only, and only ids that the engine has seen are acknowledged;
* an entry that a lost reply handed out is handed out again, or requeued, by the consumer's next call.

To write a store, subclass `TransactionStore` (transactions.py) if the storage has transactions. Otherwise,
subclass `Store`, define the abstract methods, and override others where the storage can do better.
`docs/topics/channels/write-a-layer.txt` has a complete one. The file is a little over 400 lines because it is
all that a store promises.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ...exceptions import NotSent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..base import Inbox, Message
    from .layer import EngineLayer
    from .recovery import Action


class Unreadable(Exception):
    """A body that is damaged, from another version, or encrypted under an unknown key."""


class LeaseEnded(NotSent):
    """The lease under which a call was made has ended: others have recovered what its holder had."""


class Entry(NamedTuple):
    """A message as a store hands it out."""

    #: Identifies this claim; used once.
    id: Any
    channel: str
    #: What `Store.encode` made.
    body: Any
    #: How many workers have died with it.
    losses: int = 0
    #: Whether it may have been handled: the store may have lost an acknowledgement.
    doubtful: bool = False


class Outgoing(NamedTuple):
    """A message that goes into a store."""

    channel: str
    body: Any
    #: Whether it is taken although its channel or inbox is full.
    unlimited: bool = False
    #: Seconds after which it expires; None: as the layer's options say for its channel.
    expiry: float | None = None
    #: Text that is used for this message alone. If `Store.remembers_sends`, sending it again does nothing.
    id: str = ""


class Will(NamedTuple):
    """The last will of one connection: what is sent if its gateway dies."""

    connection: str
    channel: str
    body: Any


class Heartbeat(NamedTuple):
    """What `Store.heartbeat` found."""

    #: Those of this process's names that had no lease any more. The engine takes them again.
    missing: list[str]
    #: Whether leases of others have run out: call `recover`.
    lost: bool = False
    #: Whether messages have expired for which somebody waits: call `expire`.
    expired: bool = False
    #: Seconds until the next lease runs out, if its holder is dead; None: unknown.
    next_end: float | None = None


class Recovered(NamedTuple):
    """What `Store.recover` and `Store.expire` have done, after it was committed."""

    #: The names whose lease had run out.
    names: list[str]
    #: What was decided on each message: (channel, the action's kind).
    decisions: list[tuple[str, str]]
    #: How many dead letters were dropped to keep their number.
    dropped: int = 0


class Due(NamedTuple):
    """What `Store.send_due` has done."""

    #: How many messages found their channel full, and were dropped.
    full: int
    #: Seconds until the next delayed message is due, 0 if more are due now; None: there is none.
    next: float | None


class Pending(NamedTuple):
    """The messages that wait on one channel, or in one inbox."""

    channel: str
    count: int  # type: ignore[assignment]  # a tuple's method of that name
    #: For how many seconds the oldest has waited.
    age: float


class Store(ABC):
    """The storage of one layer. Made by `EngineLayer.make_store`, which connects to nothing yet."""

    #: Whether the store remembers the id of an Outgoing and of `send_group`, for a minute or longer.
    remembers_sends = False

    def __init__(self) -> None:
        self.layer: EngineLayer
        self._due = threading.Condition()
        self._due_changed = False

    def bind(self, layer: EngineLayer) -> None:
        """Remember the layer: capacities, expiries and options are read from it."""
        self.layer = layer

    def after_fork(self) -> None:
        """Forget connections, threads and locks: they are the parent's."""
        self._due = threading.Condition()
        self._due_changed = False

    def reach(self) -> None:
        """Raise LayerUnavailable if the server can't be reached. A store that can't tell does nothing."""

    def close(self) -> None:
        """Close connections and end threads. A later call opens them again."""

    # Bodies.

    @abstractmethod
    def encode(self, channel: str, message: Message) -> Any:
        """Return the body of a clean message. `channel` is "" for a message to a group."""

    @abstractmethod
    def decode(self, channel: str, body: Any) -> Message:
        """Return the message of a body. Raises Unreadable, never anything else, for a bad one."""

    # Messages.

    @abstractmethod
    def send(self, items: Sequence[Outgoing]) -> Sequence[int]:
        """
        Put messages on their channels, in this order. Return the indexes of those whose channel was full,
        which were not sent. Each message is atomic; all together need not be.
        """

    @abstractmethod
    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        """
        Take the next message of `channels` for good. Each channel is the first in turn. A name
        that ends in "!" means all channels that begin with it. With `block`, the caller will `wait` if
        there is nothing, so a store may skip a poll that it knows to be useless.
        """

    @abstractmethod
    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        """
        Acknowledge what `consumer` has handled, send its buffered replies, and claim the next message of
        `channels` for it, all in one step. `process` is the name of the lease under which it is claimed.
        None: nothing is there, and nothing is unacknowledged any more.
        """

    def finish(self, consumer: str, channel: str, body: Any, soon: bool = False) -> bool:
        """
        Send the last reply to what `consumer` holds, now or with its next `claim` or `acknowledge`; with
        `soon`, within a few milliseconds. Capacity does not matter. Return whether it was taken.
        """
        return not self.send([Outgoing(channel, body, unlimited=True)])

    @abstractmethod
    def acknowledge(self, consumer: str) -> None:
        """Forget what `consumer` holds, after sending its buffered replies."""

    def acknowledge_all(self, consumers: Sequence[str]) -> None:
        """Do as `acknowledge` for each of `consumers`. It may happen for some of them only."""
        for consumer in consumers:
            self.acknowledge(consumer)

    #: Whether `finish` keeps the reply, so that it doesn't wait and doesn't raise LayerUnavailable.
    keeps_answers = False

    def split(self, consumer: str, spare: str) -> tuple[str, str]:
        """As `BaseChannelLayer.split`: no entry is acknowledged by it."""
        return consumer, spare

    @abstractmethod
    def requeue(self, consumer: str) -> None:
        """Put what `consumer` holds back at the head of its channel, with a new expiry."""

    @abstractmethod
    def dead_letter(self, consumer: str | None, entry: Entry, reason: str) -> int:
        """
        Move an entry to the dead letters: one that `consumer` holds, one in the inbox `consumer` (which ends
        in "!"), or, with None, one that was removed. Keep the newest `layer.options.dead_letters`.
        Return how many were dropped for that. If `consumer` doesn't hold the entry any more, do nothing: an
        earlier call, whose reply was lost, has moved it.
        """

    @abstractmethod
    def wait(self, consumer: str | None, channels: Sequence[str], seconds: float) -> bool:
        """
        Wait until there may be a message on `channels`, for `seconds` at most. Return False when the time is
        up, or `wake` was called for `consumer`. A message that came just before the call ends the wait.
        """

    @abstractmethod
    def wake(self, consumer: str) -> None:
        """End the wait of `consumer`, or its next one. Does not raise LayerUnavailable."""

    # Leases. A name is a worker process (without "!"), or the inbox of a gateway (ending in "!").

    @abstractmethod
    def register(self, name: str) -> None:
        """Take a lease of `layer.options.lease` seconds under `name`."""

    @abstractmethod
    def heartbeat(self, names: Sequence[str]) -> Heartbeat:
        """Renew leases, and check for those that have run out and for messages that have expired."""

    @abstractmethod
    def extend_leases(self) -> None:
        """Renew every lease of all processes: the store was unreachable for all of them."""

    @abstractmethod
    def recover(self, decide: Callable[[Entry], Action]) -> Recovered:
        """
        Clear up after names whose lease has run out, each exactly once among all processes. For each message
        that a worker process held, do as `decide(entry)` says. Of a gateway, send the wills, remove
        memberships and inbox, and leave a notice `protocol.reset` that names the connections whose will was
        sent: a gateway that comes back must not tell their end twice. What was interrupted is taken up by
        the next call.
        """

    @abstractmethod
    def leave(self, name: str) -> None:
        """
        End a lease in order. Of a gateway, send the wills of connections that are still open, and remove
        memberships and inbox. A worker process that still holds messages keeps its lease: when it runs out,
        they are recovered.
        """

    # Expiry.

    @abstractmethod
    def expire(self, decide: Callable[[Entry], Action]) -> Recovered:
        """Take events that have expired, and do with each as `decide(entry)` says, exactly once."""

    def sweep(self) -> dict[str, int]:
        """
        Remove what else has expired. Return how many messages went of each shared channel. Called now and
        then, for a store that does not do so by itself.
        """
        return {}

    def drop_channels(self, channels: Sequence[str]) -> None:
        """Remove what waits on channels with a single reader, which is done with them."""
        for channel in channels:
            while self.take([channel]) is not None:
                pass

    # Delay.

    @abstractmethod
    def delay(self, channel: str, body: Any, seconds: float, id: str = "") -> None:
        """
        Keep a message until it is due in `seconds`; not again if one with this `id` was kept. A store is
        given ids only if it `remembers_sends`.
        """

    @abstractmethod
    def send_due(self) -> Due:
        """Send the delayed messages that are due, each once among all processes, some at a time."""

    #: Seconds that must pass between two polls for due messages that `wake_due` asked for.
    due_pause = 0.0

    def due_interval(self) -> float:
        """Return the seconds after which to poll for due messages without a notification."""
        return self.layer.options.heartbeat

    def wait_due(self, seconds: float) -> bool:
        """Wait until a message may be due sooner than known, for `seconds` at most. Return whether."""
        with self._due:
            if not self._due_changed and seconds > 0:
                self._due.wait(seconds)
            changed, self._due_changed = self._due_changed, False
            return changed

    def wake_due(self) -> None:
        """End `wait_due`: something was delayed, or the thread must end."""
        with self._due:
            self._due_changed = True
            self._due.notify_all()

    # Groups.

    @abstractmethod
    def group_add(self, group: str, channel: str) -> None:
        """
        Add a member. If it belongs to the inbox of a live gateway and was not a member, that inbox gets the
        notice `protocol.group_added`, in the same step.
        """

    @abstractmethod
    def group_discard(self, group: str, channel: str) -> None:
        """Remove a member, with the notice `protocol.group_discarded` as for `group_add`."""

    @abstractmethod
    def group_channels(self, group: str) -> list[str]:
        """Return the members of a group."""

    @abstractmethod
    def send_group(self, group: str, message: Message, id: str = "") -> int:
        """
        Send to a group: one `protocol.group_message` for each gateway with members, however many, and the
        message for each other member. If `remembers_sends`, each member gets a message of one `id` only
        once. Return how many members were skipped because they were full.
        """

    # Dead letters.

    @abstractmethod
    def dead_letters(self) -> Iterable[tuple[str, str, Any, str, float]]:
        """Return (id, channel, body, reason, seconds since 1970) of each, the oldest first."""

    @abstractmethod
    def requeue_dead_letter(self, id: str) -> bool:
        """Send a dead letter again, whatever the capacity. Return whether it was there."""

    @abstractmethod
    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        """Delete dead letters. Return how many there were."""

    @abstractmethod
    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""

    # Counters and statistics.

    @abstractmethod
    def add_counters(self, increments: dict[str, int], process: str, number: int) -> None:
        """
        Add to the counters of all processes. Numbers of a `process` grow. A call with one that was added
        before repeats a call whose reply got lost: it must do nothing, in a store that can lose replies.
        """

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Return the counters of all processes."""

    @abstractmethod
    def pending(self, channel: str | None = None) -> list[Pending]:
        """Return what waits, of one channel or inbox or of all."""

    @abstractmethod
    def count_unacknowledged(self) -> int:
        """Return how many messages are claimed and not acknowledged."""

    @abstractmethod
    def flush(self) -> None:
        """Remove everything but leases and wills. Each open inbox gets `protocol.reset`."""

    # A gateway's end, for `ThreadedInbox`. A store that has its own inbox overrides only `open_inbox`.

    def open_inbox(self, name: str) -> Inbox:
        """Return the inbox of a gateway; called in its event loop."""
        from .inbox import ThreadedInbox

        return ThreadedInbox(self.layer, name)

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> Sequence[Entry]:
        """
        Forget the messages of an inbox whose ids are `acked`, and return up to `limit` of the others, in
        order. What is returned stays until it is acknowledged.
        """
        raise NotImplementedError

    def gateway_batch(
        self,
        inbox: str,
        wills: Sequence[Will],
        cleared: Sequence[str],
        discards: Sequence[tuple[str, str]],
        sends: Sequence[Outgoing],
    ) -> Sequence[int]:
        """
        Do what a gateway wants done, in this order: set wills, clear wills (of these connections), remove
        memberships (group, channel; no notice), and send. Return the indexes of `sends` that found their
        channel full. Raises LeaseEnded, and does nothing, if the lease ended after this was called: a call
        that arrives late must not undo the recovery of its gateway.
        """
        raise NotImplementedError

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        """Call `callback()`, in any thread, whenever something may have come to the inbox `name`."""
        raise NotImplementedError

    def unsubscribe(self, name: str) -> None:
        """Call no more."""

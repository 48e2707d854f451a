"""
RecordStore: the primitives of a store that has transactions. `TransactionStore` has the rules over them.

Each primitive moves or changes one thing. Most take `tx`: whatever `transaction` hands to its function.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence, TypeVar

from ..names import inbox_of
from .store import Store

if TYPE_CHECKING:
    from .store import Entry, Outgoing, Will

#: What a transaction returns.
Result = TypeVar("Result")


class RecordStore(Store):
    """What a `TransactionStore` has to define, besides what it leaves abstract of `Store`. Thread-safe."""

    @abstractmethod
    def transaction(self, work: Callable[[Any], Result]) -> Result:
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
    def take_wills(self, tx: Any, gateway: str) -> Iterable[Will]:
        """Remove the wills of a gateway, and return them."""

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

    def peek_inbox(self, tx: Any, inbox: str, limit: int) -> Sequence[Entry]:
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

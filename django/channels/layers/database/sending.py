"""
Write messages into the tables of a database store, in one statement or one transaction.
"""

from __future__ import annotations

from typing import Sequence, Tuple

from ...exceptions import LayerUnavailable, NotSent
from ..engine.store import LeaseEnded, Outgoing
from .capacity import RemainingCapacity
from .connections import Connection
from .tables import Row, Tables

#: Seconds for which the id of a sent message is remembered. A pending send is tried again for 30 seconds.
SENT_LIFETIME = 120.0

#: (key, turn) of the gateway that sends: see the statement "fence". ("", 0) for other senders.
Sender = Tuple[str, int]

#: A sender that isn't a gateway.
NO_GATEWAY: Sender = ("", 0)


class Sending(Tables):
    """The part of DatabaseStore that sends. Thread-safe."""

    remembers_sends = True

    #: Whether a search for messages may start at a low-water mark.
    uses_marks = True

    def _begin(self) -> None:
        super()._begin()
        self.room = RemainingCapacity()

    def put(self, connection: Connection, items: Sequence[Outgoing]) -> Sequence[int]:
        refused, rows = self._fitting(items, connection)
        self.insert_on(connection, rows)
        connection.changed.update(row["queue"] for row in rows)
        return refused

    def send(self, items: Sequence[Outgoing]) -> Sequence[int]:
        refused, rows = self._fitting(items)
        if rows:
            self._insert(rows)
        return refused

    def _fitting(
        self, items: Sequence[Outgoing], connection: Connection | None = None
    ) -> tuple[list[int], list[Row]]:
        """
        Return the indexes of the `items` whose queue is full, and the rows of the other items. Raises
        NotSent if the database can't be asked.
        """
        refused, rows = [], []
        pending: dict[str, int] = {}
        for index, item in enumerate(items):
            queue = self.queue(item.channel)
            ahead = pending.get(queue, 0)
            if item.unlimited or self._has_room(queue, item.channel, ahead, connection):
                pending[queue] = ahead + 1
                rows.append(self.row(queue, item))
            else:
                refused.append(index)
        return refused, rows

    def row(self, queue: str, item: Outgoing) -> Row:
        """Return the row of a message."""
        return {
            "queue": queue,
            "channel": item.channel,
            "body": item.body,
            "expiry": self.expiry_of(item),
            "sent": item.id and self.key(item.id),
        }

    def _has_room(
        self, queue: str, channel: str, pending: int = 0, connection: Connection | None = None
    ) -> bool:
        def count(mark: int) -> tuple[int, int, int | None]:
            capacity: int = self.layer.capacities[channel]
            inbox_capacity = self.layer.inbox_capacity
            limit = max(capacity, inbox_capacity) if "!" in queue else capacity
            parameters = {"queue": queue, "limit": limit, "mark": mark if self.uses_marks else 0}
            if connection is None:
                try:
                    rows = self.read("room", parameters)
                except LayerUnavailable as error:
                    raise NotSent.because_of(error)  # noqa: B904
            else:
                rows = connection.rows(self.sql["room"], parameters)
            waiting, gateways, first = rows[0]
            first = first if isinstance(first, int) else None
            return waiting, inbox_capacity if gateways else capacity, first

        return self.room.take(queue, pending, count)

    def _insert(self, rows: list[Row], sender: Sender = NO_GATEWAY) -> None:
        """Insert rows, and wake their readers."""
        topics = self._topics(rows)
        at_once = self.notifier.due(topics)
        self.insert(rows, at_once, sender)
        self._inserted(rows, topics, at_once)

    def insert(self, rows: list[Row], topics: Sequence[str], sender: Sender) -> None:
        """
        Put `rows` on their queues, in this order. Leave out rows whose ids are remembered. Also notify
        `topics`, if the database has notifications. Raises LeaseEnded if the sender's lease has ended.
        """
        single = not (sender[0] or topics or any(row["sent"] for row in rows))
        self.connections.transaction(
            lambda connection: self.insert_from(connection, rows, topics, sender),
            single=single and self.takes_one_statement(rows),
        )

    def takes_one_statement(self, rows: list[Row]) -> bool:
        """Return whether one statement inserts `rows`. Several need a transaction: all leave, or none."""
        return len(list(self.parts(rows))) == 1

    def insert_from(
        self, connection: Connection, rows: list[Row], topics: Sequence[str], sender: Sender
    ) -> None:
        """Do as `insert`, in the caller's transaction."""
        self.pass_fence(connection, sender)
        self.insert_on(connection, rows)
        if topics:
            connection.rows(self.sql["notify"], {"topics": list(topics)})

    def pass_fence(self, connection: Connection, sender: Sender) -> None:
        """Raise LeaseEnded if a gateway's lease has ended since its turn. Other senders pass always."""
        gateway, turn = sender
        if gateway and not connection.run(
            self.sql["pass_fence"], {"gateway": gateway, "turn": turn}
        ):
            raise self.lease_ended(gateway)

    def lease_ended(self, gateway: str) -> LeaseEnded:
        """Return the exception for a gateway whose lease has ended; `gateway` is its key."""
        return LeaseEnded("The lease of the gateway %s has ended." % self.name(gateway))

    def insert_on(self, connection: Connection, rows: list[Row]) -> None:
        """Put `rows` on their queues in the caller's transaction, but for rows with a remembered id."""
        for part in self.parts(self.unsent(connection, rows)):
            connection.run(*self.many("insert", "insert_row", part))

    def unsent(self, connection: Connection, rows: list[Row]) -> list[Row]:
        """Return those of `rows` whose ids are not remembered yet, and remember these ids."""
        # Sorted, because two transactions that add them in different orders could deadlock.
        ids = sorted({row["sent"] for row in rows if row["sent"]})
        if not ids:
            return rows
        attempt, new = self.next_turn(), set(ids)
        for part in self.parts([{"id": each} for each in ids]):
            for row in part:
                row.update(attempt=attempt, seconds=SENT_LIFETIME)
            if connection.run(*self.many("remember", "sent_row", part)) < len(part):
                statement, parameters = self.many("remembered", "number", part)
                found = connection.rows(statement, dict(parameters, attempt=attempt))
                new -= {row["id"] for row in part} - {row[0] for row in found}
        return [row for row in rows if not row["sent"] or row["sent"] in new]

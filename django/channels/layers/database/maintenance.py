"""
Leases, recovery, expiry, delay, dead letters, counters and statistics of the database store.

Each is a statement, or a primitive of a transaction: see engine/transactions.py.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Iterable, Sequence

from ..engine.counters import NUMBER_LIFETIME
from ..engine.store import Entry, Heartbeat, Outgoing, Pending, Will
from .claiming import Claiming
from .connections import Connection
from .rows import LAST_TIME, entry_of, is_text, name, number, text

#: Seconds of a poll for expired events from which on not every heartbeat polls.
LONG_POLL = 0.25

#: Seconds between two of them at most; and their share of the time.
POLL_MAX_INTERVAL = 10.0
POLL_SHARE = 0.05

#: Seconds between two polls for delayed messages where nothing tells of those of other processes.
DUE_INTERVAL = 0.5


def with_long_timeout(method: Any) -> Any:
    """Let the statements of a store's method take LONG_TIMEOUT seconds, because it reads whole tables."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.connections.long_timeout():
            return method(self, *args, **kwargs)

    return call


class Maintenance(Claiming):
    """A part of DatabaseStore."""

    #: When (monotonic) to poll for expired events again.
    _poll_at = 0.0

    # Leases.

    def register(self, name: str) -> None:
        key = self.key(name)
        fence = {"consumer": key, "process": key, "queue": "", "turn": self.next_turn()}

        def work(connection: Connection) -> None:
            connection.run(self.sql["register"], {"name": key, "lease": self.layer.options.lease})
            if name.endswith("!"):
                connection.run(self.sql["fence"], fence)

        self.connections.transaction(work)

    def heartbeat(self, names: Sequence[str]) -> Heartbeat:
        lease = self.layer.options.lease
        missing = [
            each
            for each in names
            if not self.write("renew", {"name": self.key(each), "lease": lease})
        ]
        if missing:
            self.marks.clear()
        ending, expired = self._poll_events()
        lost = ending is not None and ending < 0
        return Heartbeat(missing, lost, expired, None if lost else ending)

    def _poll_events(self) -> tuple[float | None, bool]:
        """
        Return (seconds until the next lease runs out, whether events have expired). If a poll takes long,
        because PostgreSQL cannot clear away what is gone, the next ones leave the second out.
        """
        began = time.monotonic()
        if began < self._poll_at:
            return self.read("shortest", self.range)[0][0], False
        statement, parameters = self.many("poll_events", "queue_name", self.events)
        parameters.update(self.range)
        # If the statement is cancelled because it takes too long, no heartbeat polls for a while.
        self._poll_at = began + POLL_MAX_INTERVAL
        ((ending, expired),) = self.connections.statement(
            lambda each: each.rows(statement, parameters)
        )
        self._poll_at = 0.0
        seconds = time.monotonic() - began
        if seconds > LONG_POLL:
            self._poll_at = began + seconds + min(POLL_MAX_INTERVAL, seconds / POLL_SHARE)
        return ending, bool(expired)

    def extend_leases(self) -> None:
        self.write("extend_leases", dict(self.range, lease=self.layer.options.lease))

    def has_lease(self, connection: Connection, name: str) -> bool:
        return bool(connection.rows(self.sql["registered"], {"name": self.key(name)})[0][0])

    def ended_leases(self, connection: Connection) -> list[str]:
        names = [self.name(row[0]) for row in connection.rows(self.sql["lost"], self.range)]
        return [each for each in names if not self._has_batch(connection, each)]

    def _has_batch(self, connection: Connection, name: str) -> bool:
        """
        Return whether a batch of a gateway is on its way. If the gateway was cut off within it, the database
        keeps its locks for a while, for which the recovery of others must not wait.
        """
        gateway = {"gateway": self.key(name)}
        return (
            name.endswith("!")
            and not connection.rows(self.sql["lock_fence"], gateway)
            and bool(connection.rows(self.sql["has_fence"], gateway))
        )

    def end_lease(self, connection: Connection, name: str) -> None:
        key = self.key(name)
        connection.run(self.sql["leave_groups"], {"gateway": key})
        if key.endswith("!"):
            connection.run(self.sql["drop_queue"], {"queue": key})
        connection.run(self.sql["unregister"], {"name": key})

    def claims_of(self, connection: Connection, process: str) -> list[tuple[str, Entry]]:
        rows = connection.rows(self.sql["claims_of"], {"process": self.key(process)})
        return [(row[0], entry_of(row[1], *row[3:])) for row in rows]

    def take_wills(self, connection: Connection, gateway: str) -> list[Will]:
        # First the fence: a batch of the gateway that is on its way has ended then, or finds it gone.
        connection.run(self.sql["forget_claims"], {"process": self.key(gateway)})
        parameters = {"gateway": self.key(gateway)}
        rows = connection.rows(self.sql["wills"], parameters)
        connection.run(self.sql["clear_wills_of"], parameters)
        found = []
        for channel, queue, body in rows:
            if is_text(queue) and queue.startswith(self.key("")):
                found.append(Will(self.name(text(channel)), self.name(queue), body))
            else:
                self._dead_letter_damaged(connection, Entry(None, queue, body))
        return found

    # Expiry.

    def take_expired(self, connection: Connection, events: bool = True) -> list[Entry]:
        statement, parameters = self.many("expired", "queue_name", self.events)
        rows = connection.rows(statement, parameters)
        for id, queue, _, _ in rows:
            connection.run(self.sql["drop"], {"queue": queue, "id": id})
        return [entry_of(id, channel, body) for id, _, channel, body in rows]

    @with_long_timeout
    def sweep(self) -> dict[str, int]:
        count, parameters = self.many("stale", "queue_name", self.events)
        statement, _ = self.many("sweep", "queue_name", self.events)
        parameters.update(self.range)
        channels = dict(self.connections.statement(lambda each: each.rows(count, parameters)))
        if channels and not self.connections.transaction(
            lambda connection: connection.run(statement, parameters), single=True
        ):
            channels = {}  # another process swept them
        for statement in ("sweep_groups", "sweep_sent", "sweep_claims"):
            self.write(statement, self.range)
        self.write("add_missing_leases", dict(self.range, lease=self.layer.options.lease))
        return {text(channel): count for channel, count in channels.items()}

    # Delay.

    def delay(self, channel: str, body: Any, seconds: float, id: str = "") -> None:
        row = {"queue": self.queue(channel), "channel": channel, "body": body, "delay": seconds}

        def work(connection: Connection) -> None:
            if not id or self.unsent(connection, [{"sent": self.key(id)}]):
                connection.run(self.sql["delay"], row)

        self.connections.transaction(work, single=not id)
        self.notify_delay()

    def next_due(self) -> float | None:
        seconds: float | None = self.read("next_due", self.range)[0][0]
        return seconds

    def take_due(self, connection: Connection) -> list[Outgoing]:
        rows = connection.rows(self.sql["due"], self.range)
        items = []
        for id, channel, body, due in rows:
            connection.run(self.sql["drop_delayed"], {"id": id})
            if is_text(channel) and channel and is_text(body) and number(due) and due < LAST_TIME:
                items.append(Outgoing(channel, body))
            else:
                self._dead_letter_damaged(connection, Entry(None, channel, body))
        return items

    def due_interval(self) -> float:
        if self.listener.listening or (self.sees_changes and self.listener.runs):
            heartbeat: float = self.layer.options.heartbeat
            return heartbeat
        return DUE_INTERVAL

    # Dead letters.

    def _dead_letter_damaged(self, connection: Connection, entry: Entry) -> None:
        """Make a dead letter of what no worker holds, and log it."""
        dropped = self.add_dead(connection, entry, "unreadable")
        self.layer.recovery.unreadable(entry, "its row is damaged", dropped)

    def add_dead(self, connection: Connection, entry: Entry, reason: str) -> int:
        channel = name(entry.channel)
        row = {"queue": self.queue(channel), "channel": channel, "body": text(entry.body)}
        connection.run(self.sql["add_dead"], dict(row, losses=entry.losses, reason=reason))
        most = self.layer.options.dead_letters
        return connection.run(self.sql["trim_dead"], dict(self.range, most=most))

    def take_dead(self, connection: Connection, id: str) -> Outgoing | None:
        if not (id.isascii() and id.isdigit() and len(id) < 19):  # for PostgreSQL's bigint
            return None
        parameters = dict(self.range, id=int(id))
        for _, _, channel, body in connection.rows(self.sql["dead_one"], parameters):
            if not is_text(channel):
                return None  # no channel is known to which it could go
            connection.run(self.sql["drop_dead"], parameters)
            return Outgoing(channel, body)
        return None

    @with_long_timeout
    def dead_letters(self) -> Iterable[tuple[str, str, Any, str, float]]:
        return [
            (str(id), name(channel), body, text(reason), number(died))
            for id, channel, body, reason, died in self.read("dead", self.range)
        ]

    @with_long_timeout
    def count_dead_letters(self) -> int:
        return int(self.read("count_dead", self.range)[0][0])

    # Counters and statistics.

    def add_counters(self, increments: dict[str, int], process: str, number: int) -> None:
        # Sorted, because two processes that add in different orders could deadlock.
        rows = [{"name": self.key(each), "value": increments[each]} for each in sorted(increments)]
        statement, parameters = self.many("add_counters", "counter_row", rows)
        last = {
            "id": self.key("counted " + process),
            "attempt": number,
            "seconds": NUMBER_LIFETIME,
        }

        def work(connection: Connection) -> None:
            if connection.run(self.sql["advance"], last) or connection.run(
                *self.many("remember", "sent_row", [last])
            ):
                connection.run(statement, parameters)

        self.connections.transaction(work)

    def counters(self) -> dict[str, int]:
        return {
            self.name(key): int(number(value))
            for key, value in self.read("counters", self.range)
            if is_text(key)
        }

    @with_long_timeout
    def pending(self, channel: str | None = None) -> list[Pending]:
        found = []
        for queue, count, seconds in self.read("pending", self.range):
            queue_name = self.name(text(queue))
            if channel is None or queue_name == channel:
                age = number(self.layer.expiries[queue_name] - number(seconds))
                found.append(Pending(queue_name, count, age))
        return found

    def count_unacknowledged(self) -> int:
        return int(self.read("count_claims", self.range)[0][0])

    @with_long_timeout
    def flush(self) -> None:
        super().flush()
        self.room.clear()

    def clear(self, connection: Connection) -> list[str]:
        for table in ("message", "claim", "sent", "group", "delayed", "dead", "counter"):
            connection.run(self.sql["flush_" + table], self.range)
        return sorted(
            self.name(row[0]) for row in connection.rows(self.sql["gateways"], self.range)
        )

"""
Leases, recovery, expiry, delay, dead letters, counters and statistics of the database store.

Each is a statement or a transaction; the engine decides when, and what happens to a message.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from ... import protocol
from ..engine.recovery import BURY, NOTIFY, REQUEUE, WILL_EXPIRY, Action
from ..engine.store import Due, Entry, Heartbeat, Outgoing, Pending, Recovered

if TYPE_CHECKING:
    from .connections import Connection
    from .store import DatabaseStore

    Base = DatabaseStore
else:
    Base = object

#: Seconds from which on a look for expired events is not taken with each heartbeat.
LONG_LOOK = 0.25

#: Seconds between two of them at most; and their share of the time.
LOOK_MAX_INTERVAL = 10.0
LOOK_SHARE = 0.05

#: Delayed messages that are sent in one transaction.
DUE_BATCH = 100

#: Seconds between two looks for delayed messages where nothing tells of those of other processes.
DUE_INTERVAL = 0.5


class Maintenance(Base):
    """A part of DatabaseStore."""

    #: When (monotonic) to look for expired events again.
    _look_again = 0.0

    # Leases.

    def register(self, name: str) -> None:
        self.write("register", {"name": self.key(name), "lease": self.layer.options.lease})

    def heartbeat(self, names: Sequence[str]) -> Heartbeat:
        lease = self.layer.options.lease
        missing = [
            name
            for name in names
            if not self.write("renew", {"name": self.key(name), "lease": lease})
        ]
        if missing:
            self.marks.clear()
        ending, expired = self._look_around()
        lost = ending is not None and ending < 0
        return Heartbeat(missing, lost, expired, None if lost else ending)

    def _look_around(self) -> tuple[float | None, bool]:
        """
        Return (seconds until the next lease runs out, whether events have expired). Where a look takes long,
        because PostgreSQL cannot clear away what is gone, the next ones leave the second out.
        """
        began = time.monotonic()
        if began < self._look_again:
            return self.read("shortest", self.range)[0][0], False
        statement, parameters = self.many("look_around", "queue_name", self.events)
        parameters.update(self.range)
        ((ending, expired),) = self.connections.statement(
            lambda each: each.rows(statement, parameters)
        )
        seconds = time.monotonic() - began
        if seconds > LONG_LOOK:
            self._look_again = began + seconds + min(LOOK_MAX_INTERVAL, seconds / LOOK_SHARE)
        return ending, bool(expired)

    def extend_leases(self) -> None:
        self.write("extend_leases", dict(self.range, lease=self.layer.options.lease))

    def recover(self, decide: Callable[[Entry], Action]) -> Recovered:
        def work(connection: Connection) -> tuple[Recovered, set[str]]:
            changed: set[str] = set()
            decisions: list[tuple[str, str]] = []
            dropped = 0
            keys = [row[0] for row in connection.rows(self.sql["lost"], self.range)]
            for key in keys:
                for _, number, _, channel, body, losses in connection.rows(
                    self.sql["claims_of"], {"process": key}
                ):
                    entry = Entry(number, channel, body, losses)
                    action = decide(entry)
                    dropped += self._carry_out(connection, entry, action, changed)
                    decisions.append((channel, action.kind))
                connection.run(self.sql["forget_claims"], {"process": key})
                self._end(connection, key, changed)
            names = [self.name(key) for key in keys]
            return Recovered(names, decisions, dropped), changed

        done, changed = self.connections.transaction(work)
        self.changed(changed, below=True)
        return done

    def _carry_out(
        self, connection: Connection, entry: Entry, action: Action, changed: set[str]
    ) -> int:
        """Do as `action` says; add the queue that it changes. Return how many dead letters were dropped."""
        queue = self.queue(entry.channel)
        if action.kind == REQUEUE:
            self.requeue_row(connection, entry._replace(losses=entry.losses + 1))
            changed.add(queue)
        elif action.kind == NOTIFY and action.notice is not None:
            row = self.row(self.queue(action.notice.channel), action.notice)
            self.insert_on(connection, [row])
            changed.add(row["queue"])
        elif action.kind == BURY:
            row = {"queue": queue, "channel": entry.channel, "body": entry.body}
            row.update(losses=entry.losses + 1, reason=action.reason)
            connection.run(self.sql["add_dead"], row)
            return connection.run(self.sql["trim_dead"], self.kept_dead())
        return 0

    def _end(self, connection: Connection, key: str, changed: set[str]) -> None:
        """End a lease: send the wills of its connections, remove memberships and inbox."""
        rows = []
        for queue, body in connection.rows(self.sql["wills"], {"gateway": key}):
            channel = self.name(queue)
            expiry = max(self.layer.expiries[channel], WILL_EXPIRY)
            rows.append(self.row(queue, Outgoing(channel, body, expiry=expiry)))
            changed.add(queue)
        if rows:
            self.insert_on(connection, rows)
        connection.run(self.sql["leave_groups"], {"gateway": key})
        connection.run(self.sql["clear_wills_of"], {"gateway": key})
        if key.endswith("!"):
            connection.run(self.sql["drop_queue"], {"queue": key})
        connection.run(self.sql["unregister"], {"name": key})

    def leave(self, name: str) -> None:
        def work(connection: Connection) -> set[str]:
            changed: set[str] = set()
            key = self.key(name)
            if not connection.rows(self.sql["claims_of"], {"process": key}):
                self._end(connection, key, changed)
            return changed

        self.changed(self.connections.transaction(work))

    # Expiry.

    def expire(self, decide: Callable[[Entry], Action]) -> Recovered:
        statement, parameters = self.many("expired", "queue_name", self.events)

        def work(connection: Connection) -> tuple[Recovered, set[str]]:
            changed: set[str] = set()
            decisions: list[tuple[str, str]] = []
            dropped = 0
            for number, queue, channel, body in connection.rows(statement, parameters):
                connection.run(self.sql["drop"], {"queue": queue, "id": number})
                entry = Entry(number, channel, body)
                action = decide(entry)
                dropped += self._carry_out(connection, entry, action, changed)
                decisions.append((channel, action.kind))
            return Recovered([], decisions, dropped), changed

        done, changed = self.connections.transaction(work)
        self.changed(changed)
        return done

    def sweep(self) -> dict[str, int]:
        look, parameters = self.many("stale", "queue_name", self.events)
        statement, _ = self.many("sweep", "queue_name", self.events)
        parameters.update(self.range)
        channels = dict(self.connections.statement(lambda each: each.rows(look, parameters)))
        if channels and not self.connections.transaction(
            lambda connection: connection.run(statement, parameters), single=True
        ):
            channels = {}  # another process swept them
        self.write("sweep_groups", self.range)
        return channels

    # Delay.

    def delay(self, channel: str, body: Any, seconds: float) -> None:
        row = {"queue": self.queue(channel), "channel": channel, "body": body, "delay": seconds}
        self.write("delay", row)
        self.tell_delay()

    def send_due(self) -> Due:
        seconds = self.read("next_due", self.range)[0][0]
        if seconds is None or seconds > 0:
            return Due(0, seconds)

        def work(connection: Connection) -> tuple[int, int, set[str]]:
            items = []
            for number, _, channel, body in connection.rows(self.sql["due"], self.range):
                connection.run(self.sql["drop_delayed"], {"id": number})
                items.append(Outgoing(channel, body))
            refused, rows = self._fitting(items, connection)
            if rows:
                self.insert_on(connection, rows)
            return len(items), len(refused), {row["queue"] for row in rows}

        taken, full, changed = self.connections.transaction(work)
        self.changed(changed)
        # None was left: another process is sending them.
        return Due(full, 0.0 if taken else self.poll_interval)

    def due_interval(self) -> float:
        if self.listener.listening or (self.sees_changes and self.listener.runs):
            return self.layer.options.heartbeat
        return DUE_INTERVAL

    # Dead letters.

    def kept_dead(self) -> dict[str, Any]:
        """Return the parameters of "trim_dead"."""
        return dict(self.range, most=self.layer.options.dead_letters)

    def dead_letters(self) -> Iterable[tuple[str, str, Any, str, float]]:
        for number, channel, body, reason, died in self.read("dead", self.range):
            yield str(number), channel, body, reason, died

    def requeue_dead_letter(self, id: str) -> bool:
        def work(connection: Connection) -> set[str]:
            rows = connection.rows(self.sql["dead_one"], dict(self.range, id=int(id)))
            if not rows:
                return set()
            _, queue, channel, body = rows[0]
            connection.run(self.sql["drop_dead"], dict(self.range, id=int(id)))
            self.insert_on(connection, [self.row(queue, Outgoing(channel, body))])
            return {queue}

        changed = self.connections.transaction(work) if id.isdigit() else set()
        self.changed(changed)
        return bool(changed)

    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        return sum(
            self.write("drop_dead", dict(self.range, id=int(each)))
            for each in ids
            if each.isdigit()
        )

    def count_dead_letters(self) -> int:
        return int(self.read("count_dead", self.range)[0][0])

    # Counters and statistics.

    def add_counters(self, increments: dict[str, int]) -> None:
        # Sorted, because two processes that add in different orders could deadlock.
        rows = [{"name": self.key(name), "value": increments[name]} for name in sorted(increments)]
        statement, parameters = self.many("add_counters", "counter_row", rows)
        self.connections.transaction(
            lambda connection: connection.run(statement, parameters), single=True
        )

    def counters(self) -> dict[str, int]:
        return {self.name(key): value for key, value in self.read("counters", self.range)}

    def pending(self, channel: str | None = None) -> list[Pending]:
        found = []
        for queue, count, seconds in self.read("pending", self.range):
            name = self.name(queue)
            if channel is None or name == channel:
                found.append(Pending(name, count, self.layer.expiries[name] - seconds))
        return found

    def count_unacknowledged(self) -> int:
        return int(self.read("count_claims", self.range)[0][0])

    def flush(self) -> None:
        def work(connection: Connection) -> set[str]:
            for table in ("message", "claim", "group", "delayed", "dead", "counter"):
                connection.run(self.sql["flush_" + table], self.range)
            gateways = {row[0] for row in connection.rows(self.sql["gateways"], self.range)}
            rows = []
            for queue in sorted(gateways):
                name = self.name(queue)
                rows.append(self.row(queue, Outgoing(name, self.encode(name, protocol.reset()))))
            if rows:
                self.insert_on(connection, rows)
            return gateways

        changed = self.connections.transaction(work)
        self.room.clear()
        self.changed(changed)

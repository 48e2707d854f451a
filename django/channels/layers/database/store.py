"""
DatabaseStore: the primitives of engine/store.py over tables. Statements are in sql/.

Messages, claims, groups and a gateway's batch are here; leases, recovery, delay, dead letters and statistics
are in maintenance.py. How the next message is taken differs between databases: postgresql.py, mysql.py,
sqlite.py.

A *queue* is the prefix of the layer, a colon, and a channel's name, or for a process-local channel the name
up to its "!". Every other key has the same prefix.
"""

from __future__ import annotations

import threading
import time
from functools import lru_cache, partial
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from ... import protocol
from ...exceptions import LayerUnavailable
from ..engine.store import Entry, Outgoing, Unreadable, Will
from ..engine.transactions import TransactionStore
from ..engine.waiting import CHANGED
from ..names import inbox_of, queue_of
from . import rows as values
from .capacity import LowWaterMarks, RemainingCapacity
from .connections import Connection, Connections
from .listener import NotificationListener, Notifier, topic
from .maintenance import Maintenance
from .statements import numbered, statements

#: Rows that one INSERT takes.
MAX_ROWS = 200

#: Bytes of bodies in one statement, unless a single one is longer. MariaDB refuses statements of 16 MB.
MAX_STATEMENT = 4 * 1024 * 1024

#: Seconds for which a look that found nothing spares other threads theirs, while notifications come through.
EMPTY_LIFETIME = 4.0

#: Seconds for which the id of a message that was sent is remembered. A pending send is tried for 30.
SENT_LIFETIME = 120.0

#: Kinds of readers whose last look is remembered.
MAX_KINDS = 1000

Row = Dict[str, Any]

#: (queue, the one name wanted of a queue that names share, or "") of each channel, in the order to look.
Wanted = List[Tuple[str, str]]


class DatabaseStore(Maintenance, TransactionStore):
    """
    The tables of one layer. `alias` is the Django database, `prefix` keeps layers apart, `options` are for
    the connections. Thread-safe.
    """

    connections_class: type[Connections]

    #: Whether the database notifies (PostgreSQL); else, readers poll, at this interval in seconds.
    notifies = False
    poll_interval = 0.05
    due_pause = 0.05

    remembers_sends = True

    #: Whether searches may start at a low-water mark.
    uses_marks = True

    #: Whether `change_counter` tells cheaply that there may be something new.
    sees_changes = False

    def __init__(self, alias: str, prefix: str, **options: Any) -> None:
        self.connections = self.connections_class(alias, **options)
        self.sql = statements(self.connections.vendor)
        self.prefix = prefix
        self.range = {"low": prefix + ":", "high": prefix + ";"}
        #: The queues of gateways' events, whose gateways wait for an acknowledgement.
        self.events = [{"queue": self.key(name)} for name in sorted(protocol.EVENT_CHANNELS)]
        super().__init__()

    def _begin(self) -> None:
        super()._begin()
        self._lock = threading.Lock()
        self.room = RemainingCapacity()
        self.marks = LowWaterMarks()
        self.listener = NotificationListener(self)
        self.listener.subscribe("", self.wake_due)
        self.notifier = Notifier(self)
        self._unsure: set[str] = set()  # consumers whose last claim failed on the way
        self._turns: dict[str, int] = {}  # consumer to the turn of the claim that it has seen
        self._last_turn = 0
        self._empty: dict[tuple[str, ...], tuple[int, float]] = {}
        self._kinds: dict[tuple[str, ...], tuple[Wanted, tuple[str, ...]]] = {}

    def after_fork(self) -> None:
        self.connections.after_fork()
        super().after_fork()

    def close(self) -> None:
        self.listener.stop()
        self.notifier.flush()
        self.connections.close_idle()

    def key(self, name: str) -> str:
        """Return the key under which a queue, group, gateway or process is stored."""
        return self.range["low"] + name

    def name(self, key: str) -> str:
        """Return the name behind a key."""
        return key[len(self.range["low"]) :]

    def queue(self, channel: str) -> str:
        """Return the queue of a channel."""
        return self.key(queue_of(channel))

    # Statements.

    def write(self, name: str, parameters: dict[str, Any]) -> int:
        """Execute one statement that writes; return the number of rows it changed."""
        count: int = self.connections.statement(lambda each: each.run(self.sql[name], parameters))
        return count

    def read(self, name: str, parameters: dict[str, Any]) -> list[Any]:
        """Execute one statement that reads; return its rows."""
        rows: list[Any] = self.connections.statement(
            lambda each: each.rows(self.sql[name], parameters)
        )
        return rows

    def many(self, name: str, row_name: str, rows: list[Row]) -> tuple[str, dict[str, Any]]:
        """Return a statement with {rows}, and its parameters, for `rows` (dicts)."""
        parameters = {
            "%s%d" % (key, number): value
            for number, row in enumerate(rows)
            for key, value in row.items()
        }
        return _with_rows(self.sql[name], self.sql[row_name], len(rows)), parameters

    def parts(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Split `rows` into lists that one statement takes: by number, and by the size of their bodies."""
        part: list[Row] = []
        size = 0
        for row in rows:
            length = len(row.get("body") or "")
            if part and (len(part) == MAX_ROWS or size + length > MAX_STATEMENT):
                yield part
                part, size = [], 0
            part.append(row)
            size += length
        if part:
            yield part

    def transaction(self, work: Callable[[Connection], Any]) -> Any:
        def run(connection: Connection) -> tuple[Any, set[str], bool]:
            connection.changed, connection.below = set(), False
            return work(connection), connection.changed, connection.below

        result, changed, below = self.connections.transaction(run)
        self.wake_readers(changed, below)
        return result

    def decode(self, channel: str, body: Any) -> protocol.Message:
        if not (values.is_text(channel) and isinstance(body, str)):
            raise Unreadable("its row holds what this layer never writes")
        try:
            body.encode("ascii")
        except UnicodeEncodeError as error:
            raise Unreadable("its body is not ASCII") from error
        return super().decode(channel, body)

    # Sending.

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
        """Return the indexes of `items` that find their queue full, and the rows of the others."""
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
                rows = self.read("room", parameters)
            else:
                rows = connection.rows(self.sql["room"], parameters)
            waiting, gateways, first = rows[0]
            first = first if isinstance(first, int) else None
            return waiting, inbox_capacity if gateways else capacity, first

        return self.room.take(queue, pending, count)

    def _insert(self, rows: list[Row]) -> None:
        """Insert rows, and wake their readers."""
        topics = self._topics(rows)
        at_once = self.notifier.due(topics) if topics else []
        self.insert(rows, at_once)
        self._inserted(rows, topics, at_once)

    def _inserted(self, rows: list[Row], topics: set[str], notified: Sequence[str]) -> None:
        """Wake the readers of rows that were committed, and their topics but for those `notified`."""
        if len(notified) < len(topics):
            self.notifier.notify(topics.difference(notified))
        if rows and not self.listener.listening:
            self.listener.changed({row["queue"] for row in rows})

    def insert(self, rows: list[Row], topics: Sequence[str] = ()) -> None:
        """
        Put `rows` on their queues, in this order, but for those whose ids are remembered. Notify `topics`,
        where the database does, as well.
        """
        if any(row["sent"] for row in rows):
            self.insert_in_transaction(rows)
        else:
            with self.connections.lend() as connection:
                self.insert_on(connection, rows)

    def insert_in_transaction(self, rows: list[Row], topics: Sequence[str] = ()) -> None:
        """Do as `insert`, in one transaction."""

        def work(connection: Connection) -> None:
            self.insert_on(connection, rows)
            if topics:
                connection.rows(self.sql["notify"], {"topics": list(topics)})

        self.connections.transaction(work)

    def insert_on(self, connection: Connection, rows: list[Row]) -> None:
        """Put `rows` on their queues, but for those whose ids are remembered, in the caller's transaction."""
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

    # Notifying.

    def _topics(self, rows: list[Row]) -> set[str]:
        """Return the topics to notify when something comes to the queues of `rows`."""
        if not self.notifies:
            return set()
        return {
            topic(self.prefix, row["queue"] if row["queue"].endswith("!") else "work")
            for row in rows
        }

    def wake_readers(self, queues: set[str], below: bool = False) -> None:
        """Wake the readers of `queues`; with `below`, something came in below their low-water marks."""
        if not queues:
            return
        rows = [{"queue": queue} for queue in queues]
        topics = self._topics(rows)
        if below:
            for queue in queues:
                self.marks.forget(queue)
            if topics:
                topics.add(topic(self.prefix, "back"))
        self._inserted(rows, topics, ())

    def tell_delay(self) -> None:
        """Have other processes look for due messages."""
        if self.notifies:
            self.notifier.notify({topic(self.prefix, "delay")})

    # Taking.

    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        return self._next(channels, None, "", block)

    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        self._settle_unsure(consumer)
        return self._next(channels, consumer, self.key(process), block)

    def _next(
        self, channels: Sequence[str], consumer: str | None, process: str, block: bool
    ) -> Entry | None:
        found = self._kinds.get(tuple(channels))
        wanted, queues = found or self._add_kind(tuple(channels))
        local = self._local
        woken, local.woken = getattr(local, "woken", False), False
        local.version = self.waiters.version
        known = self._known_empty(queues, local.version) if block and not woken else None
        if known or not wanted:
            if consumer is not None:
                self.acknowledge(consumer)
            return None
        try:
            row = self._look(wanted, consumer, process)
        except LayerUnavailable:
            self._empty.pop(queues, None)
            raise
        if row is None:
            self._empty[queues] = (local.version, time.monotonic())
            return None
        if known is False:
            # Other threads were waiting for this result; wake them.
            self._empty.pop(queues, None)
            self.listener.changed(set(queues))
        elif woken:
            self.waiters.found(queues)
        number, _, channel, body, losses = row
        return values.entry_of(number, channel, body, losses)

    def _add_kind(self, channels: tuple[str, ...]) -> tuple[Wanted, tuple[str, ...]]:
        """
        Return (queue, the one name wanted of a queue that names share, or "") of each channel; and the queues
        alone, for which this kind of readers waits. Remember both.
        """
        wanted = []
        for channel in channels:
            inbox = inbox_of(channel)
            wanted.append(
                (self.key(inbox or channel), channel if inbox not in (None, channel) else "")
            )
        if len(self._kinds) > MAX_KINDS:
            self._kinds.clear()
        found = self._kinds[channels] = wanted, tuple(queue for queue, _ in wanted)
        return found

    def _known_empty(self, queues: tuple[str, ...], version: int) -> bool | None:
        """
        Return whether a recent look found nothing and no notification has come since. False: it was some time
        ago, so the caller must look, for all; None: nothing is known.
        """
        now = time.monotonic()
        with self._lock:
            if len(self._empty) > MAX_KINDS:
                self._empty.clear()
            if not self.listener.listening:
                return None
            known = self._empty.get(queues)
            if known is None or known[0] != version:
                return None
            if now - known[1] < EMPTY_LIFETIME:
                return True
            self._empty[queues] = (version, now)
            return False

    def _look(self, wanted: Wanted, consumer: str | None, process: str) -> Any:
        self._turn += 1
        turn = self._turn % len(wanted)
        wanted = wanted[turn:] + wanted[:turn]
        if consumer is None:
            return self.take_row(wanted)
        turn = self.next_turn()
        try:
            row = self.claim_row(consumer, process, wanted, turn)
        except LayerUnavailable:
            # The claim may have happened. What it took is requeued by the next call, not acknowledged.
            self._unsure.add(consumer)
            raise
        if row is None:
            self.acknowledge(consumer)
        else:
            self._seen[consumer], self._turns[consumer] = row[0], turn
        return row

    def next_turn(self) -> int:
        """Return a number greater than those of earlier calls, of this process and of those before it."""
        with self._lock:
            self._last_turn = max(self._last_turn + 1, int(time.time() * 1000000))
            return self._last_turn

    def take_row(self, wanted: Wanted) -> Any:
        """Take (id, queue, channel, body, losses) of the next message of `wanted`, or None."""
        raise NotImplementedError

    def claim_row(self, consumer: str, process: str, wanted: Wanted, turn: int) -> Any:
        """
        Do as `take_row`, and make it the claim of `consumer`. None: an earlier claim stays. If the row of the
        consumer has a later `turn`, this call arrived late, and must do nothing.
        """
        raise NotImplementedError

    def put_claim(
        self, connection: Connection, consumer: str, process: str, row: Any, turn: int
    ) -> None:
        """Make the message `row` the claim of `consumer`, in place of one with an earlier turn."""
        number, queue, channel, body, losses = row
        parameters = {"consumer": consumer, "process": process, "id": number, "queue": queue}
        parameters.update(channel=channel, body=body, losses=losses, turn=turn)
        if not self.write_claim(connection, parameters):
            raise LayerUnavailable("A claim of %s arrived late." % consumer)

    def write_claim(self, connection: Connection, parameters: dict[str, Any]) -> int:
        """Write the row of a claim. Return 0 if there is one with a later turn."""
        return connection.run(self.sql["set_claim"], parameters)

    def wait(self, consumer: str | None, channels: Sequence[str], seconds: float) -> bool:
        self.listener.start()
        queues = tuple(self.queue(channel) for channel in channels)
        version = getattr(self._local, "version", self.waiters.version)
        result = self.waiters.wait(queues, version, seconds, consumer)
        self._local.woken = result == CHANGED
        return result == CHANGED

    # Acknowledging.

    def acknowledge(self, consumer: str) -> None:
        self._settle_unsure(consumer)
        if consumer in self._seen:
            self.write("acknowledge", {"consumer": consumer, "turn": self._turns[consumer]})
            self._seen.pop(consumer, None)

    def requeue(self, consumer: str) -> None:
        self._settle_unsure(consumer)
        if self._seen.pop(consumer, None) is not None:
            self._unsure.add(consumer)  # until the database has confirmed it
            self._settle_unsure(consumer)

    def _settle_unsure(self, consumer: str) -> None:
        """After a claim whose reply was lost: requeue what it took, if it took anything."""
        if consumer in self._unsure:
            self.transaction(lambda connection: self.settle(connection, consumer))
            self._unsure.discard(consumer)
            self._seen.pop(consumer, None)

    def settle(self, connection: Connection, consumer: str) -> None:
        # The earlier call may be on its way yet. It must find a later turn.
        fence = dict(self.range, consumer=consumer, turn=self.next_turn())
        connection.run(self.sql["fence"], fence)
        super().settle(connection, consumer)

    def put_first(self, connection: Connection, entry: Entry) -> None:
        """Put an entry back at the head of its queue, under the number that it had."""
        row = self.row(self.queue(entry.channel), Outgoing(entry.channel, entry.body))
        if not connection.run(self.sql["requeue"], dict(row, id=entry.id, losses=entry.losses)):
            self.insert_on(connection, [row])  # a damaged row has its number
        connection.changed.add(row["queue"])
        connection.below = True

    def take_claim(self, connection: Connection, consumer: str) -> Entry | None:
        rows = connection.rows(self.sql["claim_of"], {"consumer": consumer})
        if not rows:
            return None
        connection.run(self.sql["release"], {"consumer": consumer})
        number, _, channel, body, losses = rows[0]
        return values.entry_of(number, channel, body, losses)

    def change_counter(self) -> Callable[[], Any]:
        """Return a function whose result differs once somebody else has written. It reads no table."""
        raise NotImplementedError

    def listen(self) -> Any:
        """Return a connection that LISTENs, where `notifies`."""
        raise NotImplementedError

    def notify(self, topics: Sequence[str]) -> None:
        """Wake the processes that LISTEN to `topics`, where `notifies`."""

    def peek(self, queues: Sequence[str]) -> set[str]:
        """Return those of `queues` where something waits."""
        queues = list(dict.fromkeys(queues))
        if not queues:
            return set()
        parameters = {"queue%d" % number: queue for number, queue in enumerate(queues)}
        statement = _union(self.sql["peek"], len(queues))
        rows = self.connections.statement(lambda each: each.rows(statement, parameters))
        return {row[0] for row in rows}

    # Groups.

    def add_member(self, connection: Connection, group: str, channel: str, gateway: str) -> bool:
        member = {"grp": self.key(group), "gateway": gateway and self.key(gateway)}
        return bool(connection.run(self.sql["group_add"], dict(member, channel=channel)))

    def remove_member(self, connection: Connection, group: str, channel: str) -> bool:
        inbox = inbox_of(channel)
        member = {"grp": self.key(group), "gateway": inbox and self.key(inbox), "channel": channel}
        if inbox and connection.run(self.sql["group_discard"], member):
            return True
        connection.run(self.sql["group_discard"], dict(member, gateway=""))
        return False

    def group_channels(self, group: str) -> list[str]:
        rows = self.read("group_channels", {"grp": self.key(group)})
        return [row[0] for row in rows if values.is_text(row[0])]

    def group_routes(self, group: str) -> tuple[list[str], list[str]]:
        routes = self.read("group_routes", {"grp": self.key(group)})
        routes = [row for row in routes if values.is_text(row[0]) and values.is_text(row[1])]
        gateways = [self.name(gateway) for gateway, _ in routes if gateway.startswith(self.key(""))]
        return gateways, [channel for gateway, channel in routes if not gateway]

    def count_members(self, group: str, gateway: str) -> int:
        member = {"grp": self.key(group), "gateway": self.key(gateway)}
        return int(self.read("group_members", member)[0][0])

    # A gateway's end.

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> list[Entry]:
        # Two statements need no transaction: each may be repeated.
        if acked:
            self.connections.transaction(
                partial(self.drop_from, inbox=name, ids=acked), single=True
            )
        rows = self.read("inbox", {"queue": self.key(name), "limit": limit})
        return [Entry(*row) for row in rows]

    def drop_from(self, connection: Connection, inbox: str, ids: Sequence[Any]) -> int:
        statement, parameters = self.many("drop_many", "number", [{"id": each} for each in ids])
        return connection.run(statement, dict(parameters, queue=self.key(inbox)))

    def gateway_batch(
        self,
        inbox: str,
        wills: Sequence[Will],
        cleared: Sequence[str],
        discards: Sequence[tuple[str, str]],
        sends: Sequence[Outgoing],
    ) -> Sequence[int]:
        refused, rows = self._fitting(sends)
        if not (wills or cleared or discards):
            if rows:
                self._insert(rows)
            return refused
        topics = self._topics(rows)
        at_once = self.notifier.due(topics) if topics else []
        gateway = self.key(inbox)
        will_rows = [{"channel": self.key(each.connection), "gateway": gateway} for each in wills]
        for row, each in zip(will_rows, wills):
            row.update(queue=self.key(each.channel), body=each.body)

        def work(connection: Connection) -> None:
            for part in self.parts(will_rows):
                connection.run(*self.many("set_wills", "will_row", part))
            for name in cleared:
                connection.run(self.sql["clear_will"], {"channel": self.key(name)})
            for group, channel in discards:
                member = {"grp": self.key(group), "gateway": gateway, "channel": channel}
                connection.run(self.sql["group_discard"], member)
            if rows:
                self.insert_on(connection, rows)
            if at_once:
                connection.rows(self.sql["notify"], {"topics": list(at_once)})

        self.connections.transaction(work)
        self._inserted(rows, topics, at_once)
        return refused

    def drop_channels(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self.write("drop_queue", {"queue": self.queue(channel)})

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        self.listener.subscribe(self.key(name), callback)
        self.listener.start()

    def unsubscribe(self, name: str) -> None:
        self.listener.unsubscribe(self.key(name))


@lru_cache(maxsize=512)
def _with_rows(statement: str, row: str, number: int) -> str:
    rows = ", ".join(numbered(row, each) for each in range(number))
    return statement.replace("{rows}", rows)


@lru_cache(maxsize=512)
def _union(statement: str, number: int) -> str:
    return " UNION ALL ".join(numbered(statement, each) for each in range(number))

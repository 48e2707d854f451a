"""
Tables: the statements, keys and transactions of a database store, and what wakes its readers.

Statements are in sql/. A *queue* is the prefix of the layer, a colon, and a channel's name, or for a
process-local channel the name up to its "!". Every other key has the same prefix.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Iterator, Sequence

from ... import protocol
from ..engine.records import Result
from ..engine.store import Unreadable
from ..engine.transactions import TransactionStore
from ..names import queue_of
from . import rows as values
from .capacity import LowWaterMarks
from .connections import Connection, Connections
from .listener import NotificationListener, Notifier, topic
from .statements import statements, union, with_rows

#: Rows that one INSERT takes.
MAX_ROWS = 200

#: Bytes of bodies in one statement, unless a single one is longer. MariaDB refuses statements of 16 MB.
MAX_STATEMENT = 4 * 1024 * 1024

Row = Dict[str, Any]


class Tables(TransactionStore):
    """
    The tables of one layer. `alias` is the Django database, `prefix` keeps layers apart, `options` are for
    the connections. Thread-safe.
    """

    connections_class: type[Connections]

    #: Whether the database notifies (PostgreSQL); else, readers poll.
    notifies = False
    due_pause = 0.05

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
        self._last_turn = 0
        self.marks = LowWaterMarks()
        self.listener = NotificationListener(self)
        self.notifier = Notifier(self)

    def after_fork(self) -> None:
        self.connections.after_fork()
        super().after_fork()

    def close(self) -> None:
        self.listener.stop()
        self.notifier.flush()
        self.connections.close_idle()

    def reach(self) -> None:
        self.connections.statement(lambda connection: None)

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
        return self.connections.transaction(
            lambda each: each.run(self.sql[name], parameters), single=True
        )

    def read(self, name: str, parameters: dict[str, Any]) -> list[Any]:
        """Execute one statement that reads; return its rows."""
        return self.connections.statement(lambda each: each.rows(self.sql[name], parameters))

    def many(self, name: str, row_name: str, rows: list[Row]) -> tuple[str, dict[str, Any]]:
        """Return a statement with {rows}, and its parameters, for `rows` (dicts)."""
        parameters = {
            "%s%d" % (key, number): value
            for number, row in enumerate(rows)
            for key, value in row.items()
        }
        return with_rows(self.sql[name], self.sql[row_name], len(rows)), parameters

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

    def transaction(self, work: Callable[[Connection], Result]) -> Result:
        def run(connection: Connection) -> tuple[Result, set[str], bool]:
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

    def next_turn(self) -> int:
        """Return a number greater than those of earlier calls, of this process and of those before it."""
        with self._lock:
            self._last_turn = max(self._last_turn + 1, int(time.time() * 1000000))
            return self._last_turn

    # Notifying.

    def _topics(self, rows: list[Row]) -> set[str]:
        """Return the topics to notify when something comes to the queues of `rows`."""
        if not self.notifies:
            return set()
        return {
            topic(self.prefix, row["queue"] if row["queue"].endswith("!") else "work")
            for row in rows
        }

    def _inserted(self, rows: list[Row], topics: set[str], notified: Sequence[str]) -> None:
        """Wake the readers of rows that were committed, and their topics but for those `notified`."""
        if len(notified) < len(topics):
            self.notifier.notify(topics.difference(notified))
        if rows and not self.listener.listening:
            self.changed({row["queue"] for row in rows})

    def wake_readers(self, queues: set[str], below: bool) -> None:
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

    def notify_delay(self) -> None:
        """Have other processes poll for due messages."""
        if self.notifies:
            self.notifier.notify({topic(self.prefix, "delay")})

    def change_counter(self) -> Callable[[], Any]:
        """Return a function whose result differs once somebody else has written. It reads no table."""
        raise NotImplementedError

    def notify(self, topics: Sequence[str]) -> None:
        """Wake the processes that LISTEN to `topics`, where `notifies`."""

    def peek(self, queues: Sequence[str]) -> set[str]:
        """Return those of `queues` where something waits."""
        queues = list(dict.fromkeys(queues))
        if not queues:
            return set()
        parameters = {"queue%d" % number: queue for number, queue in enumerate(queues)}
        statement = union(self.sql["peek"], len(queues))
        rows = self.connections.statement(lambda each: each.rows(statement, parameters))
        return {row[0] for row in rows}

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        super().subscribe(self.key(name), callback)
        self.listener.interrupt()

    def unsubscribe(self, name: str) -> None:
        super().unsubscribe(self.key(name))
        self.listener.interrupt()

    def start_polling(self) -> None:
        self.listener.start()

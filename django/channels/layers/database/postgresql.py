"""
PostgreSQL: claims in one statement past what others have locked; LISTEN and NOTIFY to wake who
waits.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Sequence

from django.core.exceptions import ImproperlyConfigured

from ...transactions import POSTGRESQL_CONFLICTS
from ..engine.store import Entry
from . import deadlines
from .claiming import Wanted
from .connections import (
    CONNECT_TIMEOUT,
    IDLE_TRANSACTION_TIMEOUT,
    Conflict,
    Connection,
    Connections,
)
from .refusals import not_migrated, numbers_used_up, unreachable
from .sending import SENT_LIFETIME, Sender
from .store import DatabaseStore
from .tables import Row

OLDEST = (13, 0)

#: SQLSTATEs of a missing table or function.
_UNDEFINED = ("42P01", "42883")

#: SQLSTATEs, or their classes, of what the server or its administrator must mend: it refuses all
#: statements, or writes (a standby: 25006, 0A000), or this user (42501).
_UNAVAILABLE = ("08", "57", "53", "25", "3D", "28", "55", "58", "XX", "0A000", "42501")

#: Those with which a running server refuses a statement: it is rolled back.
_REFUSED = ("53", "25", "3D", "28", "55", "0A000", "42501")


class PostgreSQLConnection(Connection):
    """A connection that also may LISTEN. Each call may raise the driver's errors."""

    def listen(self, topic: str) -> None:
        self.run('LISTEN "%s"' % topic)

    def unlisten(self, topic: str) -> None:
        self.run('UNLISTEN "%s"' % topic)

    def topics(self) -> set[str]:
        """Return the topics of the notifications that have come: a set. Does not wait."""
        found: set[str] = set()
        if hasattr(self.raw, "pgconn"):
            if deadlines.readable(self.descriptor):
                self.raw.pgconn.consume_input()
            while True:
                notify = self.raw.pgconn.notifies()
                if notify is None:
                    return found
                found.add(notify.relname.decode())
        self.raw.poll()
        while self.raw.notifies:
            found.add(self.raw.notifies.pop(0).channel)
        return found


class PostgreSQLConnections(Connections):
    vendor = "postgresql"
    # Claims skip and wait for rows of others, which a stricter level answers with an error. The defaults of
    # the database or its user may be stricter, and read-only.
    # A connection whose path was cut must not keep its locks for hours.
    begin = (
        "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; "
        "SET LOCAL idle_in_transaction_session_timeout = '%ds'" % IDLE_TRANSACTION_TIMEOUT
    )

    def open(self) -> Connection:
        wrapper = self.wrapper()
        self.errors = (wrapper.Database.Error,)
        parameters = wrapper.get_connection_params()
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
        raw = wrapper.get_new_connection(parameters)
        raw.autocommit = True
        if wrapper.Database.__name__ == "psycopg":
            # The driver's own, which puts parameters in on this side: no statement is prepared, which a
            # pooler would not bear.
            cursor = wrapper.Database.ClientCursor(raw)
        else:
            cursor = raw.cursor()
        connection = PostgreSQLConnection(raw, cursor, descriptor=raw.fileno())
        deadlines.watch(connection)
        role = wrapper.settings_dict["OPTIONS"].get("assume_role")
        if role:
            connection.run('SET ROLE "%s"' % role.replace('"', '""'))
        number = int(connection.rows("SHOW server_version_num")[0][0])
        if (number // 10000, 0) < OLDEST:
            connection.close()
            raise ImproperlyConfigured(
                "The channel layer needs PostgreSQL %d or newer; the database %r is version %d."
                % (OLDEST[0], self.alias, number // 10000)
            )
        # Not SET: behind a pooler in transaction mode, the setting would reach connections of the site.
        defaults = connection.rows(
            "SELECT current_setting('transaction_isolation'), "
            "current_setting('default_transaction_read_only')"
        )
        connection.explicit = tuple(defaults[0]) != ("read committed", "off")
        return connection

    def explain(self, error: BaseException) -> BaseException:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state in _UNDEFINED:
            return not_migrated(self.alias, error)
        if state in POSTGRESQL_CONFLICTS:
            return Conflict(str(error))
        # The drivers have a class for each state.
        names = [each.__name__ for each in type(error).__mro__]
        if (
            state is None
            or state.startswith(_UNAVAILABLE)
            or "OperationalError" in names
            or "InterfaceError" in names
        ):
            refused = state is not None and state.startswith(_REFUSED)
            return unreachable("PostgreSQL", self.alias, error, refused)
        return numbers_used_up("PostgreSQL", self.alias, error) or error


class PostgreSQLStore(DatabaseStore):
    """The tables in PostgreSQL."""

    connections_class = PostgreSQLConnections
    notifies = True

    def insert(self, rows: list[Row], topics: Sequence[str], sender: Sender) -> None:
        ids = {row["sent"] for row in rows}
        gateway, turn = sender
        has_ids = any(ids)
        if not self.takes_one_statement(rows) or len(ids) > 1 or (gateway and not has_ids):
            super().insert(rows, topics, sender)
            return
        name = "insert_once" if has_ids else "insert_and_notify" if topics else "insert"
        statement, parameters = self.many(name, "insert_row", rows)
        parameters.update(sent=rows[0]["sent"], topics=list(topics), seconds=SENT_LIFETIME)
        parameters.update(gateway=gateway, turn=turn)
        done = self.connections.transaction(
            partial(Connection.run, statement=statement, parameters=parameters), single=True
        )
        if name == "insert_once" and not done:
            raise self.lease_ended(gateway)

    def notify(self, topics: Sequence[str]) -> None:
        parameters = {"topics": list(topics)}
        self.connections.statement(lambda each: each.rows(self.sql["notify"], parameters))

    def next_row(self, wanted: Wanted, consumer: str | None, process: str, turn: int) -> Any:
        queues, names = zip(*wanted)
        marks = self.marks.of(queues)
        statement = self.sql["take" if consumer is None else "claim"]
        parameters: dict[str, Any] = {"queues": list(queues), "names": list(names), "marks": marks}
        if consumer is not None:
            parameters.update(consumer=consumer, process=process, turn=turn)
        began = time.monotonic()
        rows = self.connections.statement(lambda each: each.rows(statement, parameters))
        if not any(marks):
            self.marks.searched(time.monotonic() - began)
        row = rows[0]
        if row[0] is None:
            return None
        self.marks.taken(row[1], row[0])
        return row

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> list[Entry]:
        queue = self.key(name)
        if acked:
            self.marks.taken(queue, max(acked))
        mark = self.marks.of([queue])[0]
        began = time.monotonic()
        parameters = {"queue": queue, "mark": mark, "limit": limit, "acked": list(acked)}
        rows = self.connections.statement(lambda each: each.rows(self.sql["inbox"], parameters))
        if not mark:
            self.marks.searched(time.monotonic() - began)
        return [Entry(*row) for row in rows]

"""MariaDB and MySQL: claims skip what others have locked, in short transactions. Readers that wait poll."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ...transactions import MYSQL_CONFLICTS
from . import deadlines
from .connections import (
    CONNECT_TIMEOUT,
    IDLE_TRANSACTION_TIMEOUT,
    LONG_TIMEOUT,
    Conflict,
    Connection,
    Connections,
)
from .refusals import not_migrated, numbers_used_up, unreachable
from .store import DatabaseStore

OLDEST_MARIADB = (10, 6)
OLDEST_MYSQL = (8, 0)

_NO_SUCH_TABLE = 1146

#: With these, a running server refuses a statement: the disk or a table is full, it is read-only, the user
#: may not do it.
_REFUSED = (1021, 1114, 1142, 1143, 1290, 1792, 1836)


class MySQLConnections(Connections):
    vendor = "mysql"
    #: Whether DELETE returns what it deletes (MariaDB).
    returns = False
    begin = "START TRANSACTION"

    def open(self) -> Connection:
        wrapper = self.wrapper()
        self.errors = (wrapper.Database.Error,)
        parameters = wrapper.get_connection_params()
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
        # PyMySQL's time to connect doesn't include the handshake.
        is_pymysql = wrapper.Database.__name__ == "pymysql"
        limit = parameters["connect_timeout"] if is_pymysql else int(LONG_TIMEOUT)
        for name in ("read_timeout", "write_timeout"):
            parameters.setdefault(name, limit)
        raw = wrapper.get_new_connection(parameters)
        if is_pymysql:
            raw._read_timeout = raw._write_timeout = LONG_TIMEOUT
        descriptor = raw._sock.fileno() if is_pymysql else raw.fileno()
        connection = Connection(raw, raw.cursor(), descriptor=descriptor)
        deadlines.watch(connection)
        raw.autocommit(True)
        self._check_version(connection.rows("SELECT version()")[0][0], raw)
        # At this level, reading locks nothing. Any other level would also lock the gaps between rows.
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        # The site, or its server, may have other modes for its own statements.
        limits = (
            "SET SESSION sql_mode = 'STRICT_TRANS_TABLES', SESSION sql_safe_updates = 0, "
            "SESSION sql_big_selects = 1, SESSION completion_type = 0"
        )
        limits += ", SESSION innodb_lock_wait_timeout = %d" % max(1, self.timeout)
        if self.returns:
            # A connection whose path was cut must not keep its locks for hours.
            limits += ", SESSION idle_transaction_timeout = %d" % IDLE_TRANSACTION_TIMEOUT
        connection.run(limits)
        return connection

    def _check_version(self, text: str, raw: Any) -> None:
        version = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
        maria = "MariaDB" in text
        oldest = OLDEST_MARIADB if maria else OLDEST_MYSQL
        self.returns = maria
        if version < oldest:
            raw.close()
            raise ImproperlyConfigured(
                "The channel layer needs %s %d.%d or newer; the database %r is %s."
                % (("MariaDB" if maria else "MySQL",) + oldest + (self.alias, text))
            )

    def explain(self, error: BaseException) -> BaseException:
        number = error.args[0] if error.args else None
        if number == _NO_SUCH_TABLE:
            return not_migrated(self.alias, error)
        if number in MYSQL_CONFLICTS:
            return Conflict(str(error))
        used_up = numbers_used_up("MySQL", self.alias, error)
        if used_up is not None:
            return used_up
        name = type(error).__name__
        if name in ("OperationalError", "InterfaceError", "InternalError"):
            return unreachable("MySQL", self.alias, error, number in _REFUSED)
        return error


class MySQLStore(DatabaseStore):
    """The tables in MariaDB or MySQL."""

    connections_class = MySQLConnections
    connections: MySQLConnections
    poll_interval = 0.03

    @property
    def takes_at_once(self) -> bool:  # type: ignore[override]
        return self.connections.returns

    def take_first(
        self, connection: Connection, queue: str, channel: str, single: bool
    ) -> list[Any]:
        if single:
            return super().take_first(connection, queue, channel, single)
        # Past what others have locked.
        rows = connection.rows(self.sql["next"], {"queue": queue, "channel": channel})
        if rows:
            connection.run(self.sql["drop"], {"queue": queue, "id": rows[0][0]})
        return rows

    def write_claim(self, connection: Connection, parameters: dict[str, Any]) -> int:
        return super().write_claim(connection, parameters) or connection.run(
            self.sql["add_claim"], parameters
        )

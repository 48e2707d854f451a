"""
End the transactions that a consumer leaves open: the next consumer of its thread has clean connections.

A consumer leaves one open if it calls `atomic().__enter__()` and not `__exit__()`, if it leaves autocommit
off, or by BEGIN in its own SQL.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Mapping, NamedTuple

from django.db import connections, transaction

from .log import RateLimitByKey
from .pages import see
from .signals import this_thread

logger = logging.getLogger("django.channels.worker")


class Open(NamedTuple):
    """What is open on one connection. Numbers, so that the difference of two can be told."""

    #: Blocks of `transaction.atomic()`, one within the other.
    blocks: int = 0
    #: 1 if the settings ask for autocommit and it is off, or the other way round.
    manual: int = 0
    #: 1 if the driver is in a transaction that Django doesn't know.
    unknown: int = 0


_NOTHING = Open()

#: What servers say of a deadlock, its like, and a lock that wasn't got in time.
MYSQL_CONFLICTS = (1205, 1213, 1020)
POSTGRESQL_CONFLICTS = ("40P01", "40001", "55P03")

#: A bit of the status of MariaDB and MySQL: SERVER_STATUS_IN_TRANS.
_IN_TRANSACTION = 1

#: How a log line names each.
_WHAT = (
    "inside transaction.atomic()",
    "with autocommit off",
    "inside a transaction of its own SQL",
)

#: What is open in a thread, by the alias of the database. A database without anything open may be missing.
OpenHere = Mapping[str, Open]

_lines = RateLimitByKey(60.0)


def open_here() -> OpenHere:
    """Return what is open on the connections of this thread. Costs nothing in one that uses no database."""
    if not this_thread.connected:
        return {}
    found = ((connection.alias, _open_on(connection)) for connection in _own_connections())
    return {alias: each for alias, each in found if each != _NOTHING}


def add_opened(total: dict[str, Open], before: OpenHere, after: OpenHere) -> None:
    """Add to `total` what was opened between `before` and `after`. What was closed counts below zero."""
    for alias in {*before, *after}:
        three = total.get(alias, _NOTHING), before.get(alias, _NOTHING), after.get(alias, _NOTHING)
        total[alias] = Open(*(each + new - old for each, old, new in zip(*three)))


def end_opened(before: OpenHere, who: Callable[[], str]) -> None:
    """
    Roll back what this thread has opened after `before` and left open. Log a line for each database,
    which begins with `who()`. Raises nothing.
    """
    if not this_thread.connected:
        return
    for connection in _own_connections():
        was, now = before.get(connection.alias, _NOTHING), _open_on(connection)
        opened = [what for what, old, new in zip(_WHAT, was, now) if new > old]
        if not opened:
            continue
        try:
            loses = not now.manual or _driver_is_in_transaction(connection) is not False
            if now.blocks > was.blocks:
                _leave_blocks(connection, was.blocks)
            if _open_on(connection) != was:
                connection.close()
            if loses:
                _log(who(), connection.alias, opened[0])
        except BaseException:  # of the driver, or of the site's backend or receivers
            logger.exception("%s has left a transaction open, whose connection is replaced:", who())
            if was == _NOTHING:
                del connections[connection.alias]


def _log(who: str, alias: str, what: str) -> None:
    _lines.log(
        "%s %s" % (who, alias),
        logger.error,
        "%s has ended %s on the database %s: what it has not committed is rolled back. Use "
        "`with transaction.atomic():`. %s",
        who,
        what,
        alias,
        see("topics/channels/consumers"),
    )


def _own_connections() -> list[Any]:
    """Return this thread's connections. A live server's test shares those to a database in memory."""
    return [each for each in connections.all() if not each.allow_thread_sharing]


def _open_on(connection: Any) -> Open:
    blocks = connection.in_atomic_block + len(connection.savepoint_ids)
    if blocks or connection.connection is None:
        return Open(blocks)
    wanted = connection.settings_dict["AUTOCOMMIT"]
    if connection.autocommit != wanted:
        return Open(manual=1)
    if wanted and _driver_is_in_transaction(connection):
        return Open(unknown=1)
    return _NOTHING


def _driver_is_in_transaction(connection: Any) -> bool | None:
    """Ask the driver, not the server, whether a transaction is open. None: this driver can't say."""
    raw = connection.connection
    if connection.vendor == "sqlite":
        return getattr(raw, "in_transaction", None)
    if connection.vendor == "postgresql" and raw is not None:
        info = getattr(raw, "info", None)
        status = getattr(info, "transaction_status", None)
        return None if status is None else int(status) in (2, 3)  # INTRANS, INERROR
    if connection.vendor == "mysql":
        # What the server said with its last answer. PyMySQL keeps it, and mysqlclient doesn't tell it.
        status = getattr(raw, "server_status", None)
        return None if status is None else bool(status & _IN_TRANSACTION)
    return None


class _LeftOpen(Exception):
    """Given to the end of an atomic block, which then rolls back."""


def _leave_blocks(connection: Any, blocks: int) -> None:
    """Leave the atomic blocks of a connection until `blocks` are open. Roll back what they changed."""
    while True:
        left = _open_on(connection).blocks
        if left <= blocks:
            return
        # A block without a savepoint can't be rolled back alone. The one around it is, if it is left, too.
        has_savepoint = not connection.savepoint_ids or connection.savepoint_ids[-1] is not None
        error = _LeftOpen() if has_savepoint else None
        try:
            transaction.atomic(connection.alias).__exit__(error and type(error), error, None)
        except Exception:  # the connection is lost: Django has closed it
            pass
        if _open_on(connection).blocks >= left:
            raise RuntimeError("An atomic block could not be left.")


def lost_to_another(error: BaseException) -> bool:
    """
    Return whether a server says that a transaction has lost against another one: it was rolled back, and may
    run again. `error` is that of the driver, or Django's with that one as its cause.
    """
    told = error.__cause__ or error
    state = getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)
    return state in POSTGRESQL_CONFLICTS or (told.args[:1] or (None,))[0] in MYSQL_CONFLICTS

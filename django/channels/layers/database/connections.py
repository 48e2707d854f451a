"""
The layer's own connections: opened as the Django alias says, in autocommit, and never a request's.

`Connections` gives them out, one to a thread at a time, and outlives a restart of the server and a
fork. What differs between databases is in postgresql.py, mysql.py and sqlite.py.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Callable, ContextManager, NoReturn

from django.db import connections as aliases
from django.db.utils import load_backend

from ...exceptions import LayerUnavailable, NotSent
from ..engine.records import Result
from . import deadlines

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often a transaction runs that loses against another one (a deadlock).
TRIES = 10

#: Seconds for which a connection that was just used is taken to be alive.
FRESH = 0.02

#: Seconds for which a statement waits for its answer, unless the layer's option `socket_timeout` says another
#: number; and one that reads whole tables.
SOCKET_TIMEOUT = 5.0
LONG_TIMEOUT = 60.0

#: Seconds for which connecting may take, unless OPTIONS of the alias says another number.
CONNECT_TIMEOUT = 5

#: Seconds after which the server ends a transaction of ours that waits for its next statement.
IDLE_TRANSACTION_TIMEOUT = 10

_NEVER = float("inf")
_NO_LOCK = nullcontext()

#: How many idle connections are kept.
MAX_IDLE = 16

#: The parent's connections, in a forked process. They are kept because some drivers close a connection when
#: it is collected.
_inherited: list[list[Connection]] = []

#: The databases of the site, by alias, as they were when Django had loaded its apps.
_names: dict[str, str] = {}


def remember_names() -> None:
    """Remember which databases the site has: see `Connections.is_temporary`."""
    for alias in aliases:
        _names.setdefault(alias, str(aliases[alias].settings_dict["NAME"]))


class Conflict(Exception):
    """The transaction lost against another one, and was rolled back: run it again."""


class Connection:
    """
    One connection of the driver, with the cursor that everything runs on. For one thread at a time; only
    `cut_if_late` may be called by another one.

    A statement raises LayerUnavailable if the answer takes longer than `timeout` seconds.
    """

    def __init__(self, raw: Any, cursor: Any, path: str = "", descriptor: int = -1) -> None:
        self.raw = raw
        self.cursor = cursor
        #: The file, on SQLite; and the descriptor of the socket, on the others.
        self.path = path
        self.file_id: tuple[int, int, bool] | None = None
        self.companions: tuple[Any, ...] = ()  # the ids of its log and of the log's index
        self.descriptor = descriptor
        self.timeout = SOCKET_TIMEOUT
        self._deadline = _NEVER  # (monotonic) of the statement that runs
        # Guards the deadline. Without one, the descriptor may already belong to another socket.
        self._lock = threading.Lock()
        self._is_cut = False
        #: Whether each statement needs a transaction that says its isolation level (PostgreSQL).
        self.explicit = False
        #: The queues that this transaction changes, and whether a message returned to the head of one.
        self.changed: set[str] = set()
        self.below = False
        #: When (monotonic) it was last used.
        self.used = 0.0

    def run(self, statement: str, parameters: Any = ()) -> int:
        """Execute a statement; return the number of rows it changed."""
        count: int = self._answer(statement, parameters, lambda: self.cursor.rowcount)
        return count

    def rows(self, statement: str, parameters: Any = ()) -> list[Any]:
        """Execute a statement; return its rows, a list of tuples."""
        return list(self._answer(statement, parameters, self.cursor.fetchall))

    def _answer(self, statement: str, parameters: Any, result: Callable[[], Any]) -> Any:
        self._deadline = time.monotonic() + self.timeout
        try:
            self.cursor.execute(statement, parameters)
            return result()
        except Exception as error:
            if self._is_cut:
                raise LayerUnavailable(
                    "The database did not answer within %g seconds." % self.timeout
                ) from error
            raise
        finally:
            with self._lock:
                self._deadline = _NEVER

    def cut_if_late(self, now: float) -> None:
        """Shut the socket down if the answer to a statement is overdue: the statement raises."""
        with self._lock:
            if now > self._deadline and not self._is_cut:
                self._is_cut = True
                try:
                    with deadlines.open_socket(self) as sock:
                        sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already

    def close(self) -> None:
        """Close it. A broken one raises nothing."""
        deadlines.forget(self)
        # The cursor first: SQLite keeps its lock for a statement whose rows were not all fetched.
        for each in (self.cursor, self.raw):
            try:
                each.close()
            except Exception:  # noqa: S110  (it is broken already)
                pass


class Connections:
    """
    Connections to one database. A subclass opens them, and explains its driver's errors. Thread-safe.

    `alias` names the entry of DATABASES. It is read anew for each connection, because its NAME may change.
    """

    vendor: str
    begin = "BEGIN"
    fresh = FRESH
    #: Whether a statement that failed may have been executed: its answer got lost.
    loses_answers = True
    #: What a transaction that writes holds.
    lock: ContextManager[object] = _NO_LOCK

    def __init__(self, alias: str, timeout: float = SOCKET_TIMEOUT) -> None:
        self.alias = alias
        self.timeout = timeout
        self._timeouts = threading.local()
        self.errors: tuple[type[BaseException], ...] = ()  # the driver's, once it has been loaded
        self._settings: dict[str, Any] | None = None
        self._opened: str | None = None  # the NAME when a connection was last opened
        self._reset()

    def _reset(self) -> None:
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Begin anew in a child process. The parent's connections are not even closed here."""
        _inherited.append(self._idle)
        deadlines.after_fork()
        self._reset()

    # For a subclass.

    def open(self) -> Connection:
        """Return a new Connection. Raises the driver's errors."""
        raise NotImplementedError

    def is_alive(self, connection: Connection) -> bool:
        """Return whether an idle connection is still there, without asking the server."""
        return not deadlines.readable(connection.descriptor)

    def explain(self, error: BaseException) -> BaseException:
        """Return the exception to raise for one of the driver's `errors`."""
        raise NotImplementedError

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise what `explain` returns for the driver's errors in the block."""
        try:
            yield
        except self.errors as error:
            raise self.explain(error) from error

    # Use.

    def name(self) -> str:
        """Return the NAME that the alias has now."""
        if self._settings is None:
            self._settings = aliases[self.alias].settings_dict  # its NAME is changed in place
            _names.setdefault(self.alias, str(self._settings["NAME"]))
        return str(self._settings["NAME"])

    def has_other_name(self) -> bool:
        """Return whether the alias has another NAME than at the start: that of a test runner's database."""
        return self.name() != _names[self.alias]

    def is_temporary(self) -> bool:
        """
        Return whether idle connections are closed. A test runner, or a script that clones databases, gives
        the alias another NAME. It will want to drop that database, and a server refuses to drop one that
        has connections.
        """
        return self.has_other_name()

    def has_moved(self) -> bool:
        """Return whether the alias has another NAME than when a connection was last opened."""
        return self._opened is not None and self._opened != self.name()

    def statement(self, work: Callable[[Connection], Result]) -> Result:
        """Do as `transaction` for `work` that executes one statement, which on SQLite only reads."""
        return self.transaction(work, single=True, writes=False)

    def transaction(
        self, work: Callable[[Connection], Result], single: bool = False, writes: bool = True
    ) -> Result:
        """
        Return `work(connection)`, run between BEGIN and COMMIT, or as it is if it is a `single` statement.
        With `writes`, hold the `lock`. It runs again if it lost against another transaction. Raises
        ImproperlyConfigured, NotSent if certainly nothing was done, and another LayerUnavailable if the
        database may have done it.
        """
        attempt, began = 0, time.monotonic()
        while True:
            try:
                return self._run(work, single, writes)
            except Conflict as error:
                attempt += 1
                if attempt == TRIES or time.monotonic() - began > self.timeout:
                    raise NotSent(
                        "A transaction lost against others %d times: %s" % (TRIES, error)
                    ) from error
                time.sleep(0.002 * attempt)

    def _run(self, work: Callable[[Connection], Result], single: bool, writes: bool) -> Result:
        connection, committing = None, False
        try:
            connection = self._get()
            with self.lock if writes else _NO_LOCK:
                committing = single and not connection.explicit
                if committing:
                    result = work(connection)
                else:
                    connection.run(self.begin)
                    result = work(connection)
                    committing = True
                    connection.run("COMMIT")
        except BaseException as error:
            self._give_up(connection, error, committing)
        self._put(connection)
        return result

    def _give_up(
        self, connection: Connection | None, error: BaseException, committing: bool
    ) -> NoReturn:
        """
        Close a connection that failed, and raise `error` as callers know it. Without `committing`, nothing
        was sent that could be done now.
        """
        if connection is not None:
            connection.close()
        explained = error
        if isinstance(error, self.errors) and not isinstance(error, LayerUnavailable):
            explained = self.explain(error)
        if isinstance(explained, LayerUnavailable):
            self.close_idle()
            if not (committing and self.loses_answers):
                explained = NotSent.because_of(explained)
        if explained is not error:
            raise explained from error
        raise error

    @contextmanager
    def long_timeout(self) -> Iterator[None]:
        """Let the statements of this thread take LONG_TIMEOUT seconds, in the block."""
        self._timeouts.seconds = LONG_TIMEOUT
        try:
            yield
        finally:
            del self._timeouts.seconds

    def _get(self) -> Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._open()
            elif time.monotonic() - connection.used >= self.fresh and not self.is_alive(connection):
                connection.close()
                continue
            connection.timeout = getattr(self._timeouts, "seconds", self.timeout)
            return connection

    def _put(self, connection: Connection) -> None:
        connection.used = time.monotonic()
        temporary = self.is_temporary()
        with self._lock:
            if len(self._idle) < MAX_IDLE and not temporary:
                self._idle.append(connection)
                return
        connection.close()

    def _open(self) -> Connection:
        """Open one: on another thread if an event loop runs in this one, as Django's back ends demand."""
        self._opened = self.name()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.open()
        with ThreadPoolExecutor(1, thread_name_prefix="channels-connect") as executor:
            return executor.submit(self.open).result()

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def wrapper(self) -> Any:
        """Return Django's connection object for a copy of the alias, only to open connections as it does."""
        settings = dict(aliases[self.alias].settings_dict)
        settings["OPTIONS"] = dict(settings.get("OPTIONS") or {})
        # A pool of Django's is for requests; these connections are kept here.
        settings["OPTIONS"].pop("pool", None)
        return load_backend(settings["ENGINE"]).DatabaseWrapper(settings, self.alias)

"""
SQLite: the layer has its own file, so that it never locks the site's database. Readers that wait poll.

SQLite has one writer at a time. Writers queue for a lock of the operating system, because the pauses of
SQLite's own busy loop grow until it gives up with "database is locked". A statement that runs alone while
it holds that lock cannot find that another writer came first.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import threading
import time
from typing import Any, Callable

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import LayerUnavailable
from .connections import Conflict, Connection, Connections
from .refusals import tables_of_other_version, unusable_file
from .sqlite_file import ASIDE, FileId, LayerFile, is_damage, other_version
from .statements import statements
from .store import DatabaseStore
from .tables import Row

try:
    import fcntl
except ImportError:  # Windows, where SQLite's own waiting has to do
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("django.channels.layers")

OLDEST = (3, 35, 0)

#: The version of the tables, which is written into the file. Add one when the tables change: code of another
#: version then refuses the file.
SCHEMA = 4

#: What else is in the file: tables of a site that keeps its own in it.
_OF_OTHERS = (
    "SELECT 1 FROM sqlite_master WHERE tbl_name NOT LIKE 'channels\\_database\\_%' ESCAPE '\\' "
    "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT 1"
)

#: Seconds that SQLite itself waits for a lock that somebody else (a backup, a shell) holds: as long as a
#: statement may take on a server.
BUSY_TIMEOUT = 5

#: Tries to get the lock before sleeping until it is free. A write takes less time than waking up.
SPINS = 40


class WriterLock:
    """
    Held by one writer at a time among all processes, each of which has one such object. `path()` returns the
    path of the layer's file; the lock is that of a file next to it.
    """

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path
        self._writer = threading.Lock()
        self._file: tuple[str, int] | None = None

    def __enter__(self) -> None:
        self._writer.acquire()
        if fcntl is not None:
            try:
                self._stand_in_line(self._descriptor())
            except BaseException:
                self._writer.release()
                raise

    def _stand_in_line(self, descriptor: int) -> None:
        for _ in range(SPINS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def __exit__(self, *exc_info: object) -> None:
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file[1], fcntl.LOCK_UN)
        self._writer.release()

    def _descriptor(self) -> int:
        path = self._path()
        if self._file is None or self._file[0] != path:
            self._close()
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._file = (path, os.open(path + "-lock", flags, 0o600))
        return self._file[1]

    def reopen(self) -> None:
        """Close the file. The next writer opens it anew, because another one may be under its name."""
        with self._writer:  # a thread that holds the lock gives back the one that it took
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file[1])


class SQLiteConnection(Connection):
    """
    A connection that tells the layer's file if it is damaged. It takes back, as a parameter, what a damaged
    row holds: text that is not UTF-8.
    """

    file: LayerFile

    def _answer(self, statement: str, parameters: Any, result: Callable[[], Any]) -> Any:
        try:
            return super()._answer(statement, parameters, result)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self.file.note_damage(self.file_id, error)
            raise
        except UnicodeEncodeError:
            parameters = dict(parameters)
            for name, value in parameters.items():
                if isinstance(value, str) and not value.isascii():
                    parameters[name] = value.encode("utf-8", "surrogateescape")
                    cast = "CAST(:%s AS TEXT)" % name
                    statement = re.sub(r":%s\b" % name, cast, statement)
            return super()._answer(statement, parameters, result)


class SQLiteConnections(Connections):
    vendor = "sqlite"
    begin = "BEGIN IMMEDIATE"
    fresh = 0.0  # checking whether a connection is alive costs next to nothing
    loses_answers = False
    lock: WriterLock

    def __init__(self, alias: str, file: Any = None) -> None:
        self._file = file
        self._name: str | None = None  # of the site's file, in whose folder _path is
        self._path = ""
        self._layer_file = LayerFile(SCHEMA)
        super().__init__(alias)
        self.errors = (sqlite3.Error, OSError)

    def _reset(self) -> None:
        super()._reset()
        self.lock = WriterLock(self.path)  # a child process opens its file anew
        self._layer_file.after_fork()

    def path(self) -> str:
        """
        Return the path of the layer's file: the configured one, or one next to the site's file, or a
        temporary one for a site in memory.
        """
        if self._file is not None:
            return str(self._file)
        name = self.name()
        if name != self._name:
            self._path, self._name = self._path_beside(name), name
        return self._path

    def is_temporary(self) -> bool:
        # A file can be deleted although somebody has it open.
        return False

    def _path_beside(self, name: str) -> str:
        if name and name != ":memory:" and not name.startswith("file:"):
            root, extension = os.path.splitext(name)
            return root + "-channels" + extension
        digest = hashlib.sha256((name + ":" + self.alias).encode()).hexdigest()[:8]
        return os.path.join(_temporary_folder(), "channels-%s.sqlite3" % digest)

    def open(self) -> Connection:
        if sqlite3.sqlite_version_info < OLDEST:
            raise ImproperlyConfigured(
                "The channel layer needs SQLite %d.%d or newer, not %s: use a newer Python build."
                % (OLDEST[0], OLDEST[1], sqlite3.sqlite_version)
            )
        path = self.path()
        try:
            return self._open_file(path)
        except (sqlite3.Error, OSError) as error:
            if not self._layer_file.found_damaged(path, error):
                raise
        return self._open_file(path)  # a new one, in the place of one that was damaged

    def _open_file(self, path: str) -> Connection:
        file = self._layer_file
        # Under the lock, so that no other process takes a new file for one that was emptied.
        with self.lock:
            file.look(path)
            file.create(path)
            # SQLite would open it to read. That connection would fail even when the file can be written.
            if not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            raw = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            connection = SQLiteConnection(raw, raw.cursor(), path)
            connection.file = file
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            file.is_shared = bool(connection.rows(_OF_OTHERS))
            # Only now is there something in a new file.
            problem = file.damage(file.known)
            lost = file.meet(path)
            connection.file_id, connection.companions = file.known, file.state.companions
        if lost is not None:
            self._leave_file(path, lost, problem)
        return connection

    def _prepare(self, connection: Connection) -> None:
        """Set what each connection needs, and create the tables if they aren't there."""
        raw = connection.raw
        # A text that is not UTF-8 must not fail all the rows that are fetched with it.
        raw.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
        raw.create_function("unixnow", 0, time.time)
        # The journal's mode stays with the file. In WAL mode, NORMAL loses the last messages with a power
        # failure, and nothing else.
        connection.rows("PRAGMA journal_mode = WAL")
        connection.run("PRAGMA synchronous = NORMAL")
        version = other_version(raw, SCHEMA)
        if version is not None:
            is_shared = bool(connection.rows(_OF_OTHERS))
            raise tables_of_other_version(connection.path, version, SCHEMA, is_shared)
        if connection.rows("PRAGMA user_version") != [(SCHEMA,)]:
            raw.executescript(
                "BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT"
                % (statements("sqlite")["tables"], SCHEMA)
            )

    def _leave_file(self, path: str, lost: FileId | None, problem: str | None) -> None:
        """Close what is open of a lost file. Log the loss, but once."""
        if not self._layer_file.leave(path, lost):
            return
        self.lock.reopen()
        # A new file comes before connections are closed, which writes their log into it.
        if self._layer_file.is_unusable(path):
            with self.lock:
                self._layer_file.create(path)
        self.close_idle()
        aside = ""
        if problem is not None:
            aside = " It is %s now: delete it, or look at it with sqlite3's .recover." % (
                path + ASIDE
            )
        logger.error(
            "The file of the channel layer, %s, was %s.%s What it held is lost to this process, which goes "
            "on with the file that is there now. Sockets are closed with 1012.",
            path,
            "deleted, replaced or emptied" if problem is None else "damaged (%s)" % problem,
            aside,
        )

    def is_alive(self, connection: Connection) -> bool:
        # Another file may be under the name of this one: a test runner's next database, a restored backup, or
        # nothing at all.
        if connection.path != self.path():
            return False
        file = self._layer_file
        if file.is_whole(connection.path, connection.file_id, connection.companions):
            return True
        self._leave_file(connection.path, connection.file_id, file.damage(connection.file_id))
        return False

    def explain(self, error: BaseException) -> BaseException:
        if "locked" in str(error):
            return Conflict("SQLite (%s): %s" % (self.path(), error))
        if is_damage(error) and self._layer_file.known is None:
            return LayerUnavailable(
                "SQLite (%s): %s. The file is damaged, or isn't a file of a channel layer: move it away, "
                "with those next to it that end in -wal and -shm, or correct FILE."
                % (self.path(), error)
            )
        if isinstance(error, (sqlite3.OperationalError, sqlite3.DatabaseError, OSError)):
            return unusable_file(self.path(), error)
        return error


class SQLiteStore(DatabaseStore):
    """The tables in an SQLite file."""

    connections_class = SQLiteConnections
    connections: SQLiteConnections
    poll_interval = 0.02
    sees_changes = True
    # Nothing is left in the way of a search, and the clock that numbers may be set back.
    uses_marks = False

    def close(self) -> None:
        super().close()
        self.connections.lock.reopen()

    def takes_one_statement(self, rows: list[Row]) -> bool:
        return len(rows) == 1

    def insert_on(self, connection: Connection, rows: list[Row]) -> None:
        # One by one: each number depends on the one before.
        for row in self.unsent(connection, rows):
            connection.run(self.sql["insert_one"], row)

    def change_counter(self) -> Callable[[], Any]:
        connection = self.connections.open()

        def version() -> Any:
            if self.connections.is_alive(connection):
                return connection.rows("PRAGMA data_version")[0][0]
            connection.close()
            raise LayerUnavailable("The file of the channel layer was replaced.")

        return version


_folder: str | None = None


def _temporary_folder() -> str:
    """Return a folder that is removed when the process ends. Forked processes share it."""
    global _folder
    if _folder is None:
        import shutil

        _folder = tempfile.mkdtemp(prefix="channels-")
        owner = os.getpid()

        def remove() -> None:
            if os.getpid() == owner:
                shutil.rmtree(_folder, ignore_errors=True)

        atexit.register(remove)
    return _folder

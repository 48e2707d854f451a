"""
SQLite: the layer has its own file, so that it never locks the site's database. Readers that wait poll.

SQLite has one writer at a time. Writers queue for a lock of the operating system, because the pauses of
SQLite's own busy loop grow until it gives up with "database is locked". A statement that runs alone while
it holds that lock cannot find that another writer came first.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import re
import sqlite3
import stat
import tempfile
import threading
import time
from typing import Any, Callable, Tuple

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import LayerUnavailable
from .connections import Conflict, Connection, Connections
from .statements import statements
from .store import DatabaseStore
from .tables import Row

try:
    import fcntl
except ImportError:  # Windows, where SQLite's own waiting has to do
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("django.channels.layers")

OLDEST = (3, 35, 0)

#: The version of the tables, which is written into the file. Add one when the tables change.
SCHEMA = 4

#: Seconds between two checks whether the file was deleted, replaced or emptied.
FILE_INTERVAL = 0.5

#: Seconds that SQLite itself waits for a lock that somebody else (a backup, a shell) holds.
BUSY_TIMEOUT = 30

#: Tries to get the lock before sleeping until it is free. A write takes less time than waking up.
SPINS = 40


#: See `_id_of`.
_FileId = Tuple[int, int, bool]


def _id_of(path: str) -> _FileId | None:
    """
    Return what tells a file from another one of the same name, and from itself after it was emptied; None if
    there is none.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, not status.st_size


class SQLiteConnection(Connection):
    """A connection that takes back, as a parameter, what a damaged row holds: text that is not UTF-8."""

    def _answer(self, statement: str, parameters: Any, result: Callable[[], Any]) -> Any:
        try:
            return super()._answer(statement, parameters, result)
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

    def __init__(self, alias: str, file: Any = None) -> None:
        self._file = file
        self._name: str | None = None  # of the site's file, in whose folder _path is
        self._path = ""
        self._check_at = 0.0  # when (monotonic) to check again whether the file is still there
        self._file_id: _FileId | None = None
        self._known: tuple[str, _FileId | None] = ("", None)  # the file that was opened last
        self._told: _FileId | None = None  # the file of whose end the log has told
        super().__init__(alias)
        self.errors = (sqlite3.Error, OSError)

    def _reset(self) -> None:
        super()._reset()
        self._writer = threading.Lock()
        self._line: tuple[str, int] | None = None

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
        # Under the lock, so that no other process takes a new file for one that was emptied.
        self.lock()
        try:
            self._create(path)
            raw = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            # A text that is not UTF-8 must not fail all the rows that are fetched with it.
            raw.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
            connection = SQLiteConnection(raw, raw.cursor(), path)
            raw.create_function("unixnow", 0, time.time)
            # The journal's mode stays with the file. In WAL mode, NORMAL loses the last messages with a power
            # failure, and nothing else.
            connection.rows("PRAGMA journal_mode = WAL")
            connection.run("PRAGMA synchronous = NORMAL")
            if connection.rows("PRAGMA user_version") != [(SCHEMA,)]:
                raw.executescript(
                    "BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT"
                    % (statements("sqlite")["tables"], SCHEMA)
                )
            # Only now is there something in a new file.
            lost = self._meet(path)
            connection.file_id = self._known[1]
        finally:
            self.unlock()
        if lost is not None:
            self._leave_file(path, lost)
        return connection

    def _meet(self, path: str) -> _FileId | None:
        """
        Take the file that is there now for the layer's. Return that of another one that was it until now.
        """
        known_path, known = self._known
        self._file_id = found = _id_of(path)
        if path != known_path:
            known = None
        if known is None or found != known:
            # Another tuple for another file, also if it gets the number of an old one.
            self._known = path, found
            return known
        return None

    def _leave_file(self, path: str, lost: _FileId | None) -> None:
        """Close what is open of a lost file. Log the loss, but once."""
        if lost is None or self._told is lost:
            return
        self._told = lost
        if self._known[1] is lost:
            self._known = path, None
        with self._writer:  # a thread that holds the lock gives back the one that it took
            self._leave_line()  # the file in whose lock writers wait may be another one, too
        self._leave_emptied(path)
        self.close_idle()
        logger.error(
            "The file of the channel layer, %s, was deleted, replaced or emptied. What it held is lost to "
            "this process, which goes on with the file that is there now. Sockets are closed with 1012.",
            path,
        )

    def _create(self, path: str) -> None:
        """
        Create the file for its owner alone. SQLite gives the files next to it the same permissions. Under
        the lock of writers.
        """
        emptied = self._remove_emptied(path)
        try:
            # Only a new one is opened: closing an existing one would drop the locks of other connections.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        if emptied is not None:
            os.chmod(path, stat.S_IMODE(emptied.st_mode))
            with contextlib.suppress(OSError, AttributeError):  # another user's; Windows
                os.chown(path, emptied.st_uid, emptied.st_gid)

    def is_alive(self, connection: Connection) -> bool:
        # Another file may be under the name of this one: a test runner's next database, a restored backup, or
        # nothing at all.
        if connection.path != self.path():
            return False
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at, self._file_id = now + FILE_INTERVAL, _id_of(connection.path)
        if connection.file_id == self._file_id:
            return True
        self._leave_file(connection.path, connection.file_id)
        return False

    def _remove_emptied(self, path: str) -> os.stat_result | None:
        """
        Delete a file that was cut to 0 bytes while it was in use, and return its state. What a process still
        has in the log next to it would be written into it, as a part of a database. All processes notice a
        new file.
        """
        try:
            status = os.stat(path)
        except OSError:
            return None
        if status.st_size or not os.path.exists(path + "-wal"):
            return None
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(OSError):
                os.remove(path + suffix)
        return status

    def _leave_emptied(self, path: str) -> None:
        """Put a new file in its place before connections are closed, which writes their log into it."""
        now = _id_of(path)
        if now is not None and now[2]:
            self.lock()
            try:
                self._create(path)
            finally:
                self.unlock()

    def explain(self, error: BaseException) -> BaseException:
        if "locked" in str(error):
            return Conflict("SQLite (%s): %s" % (self.path(), error))
        if isinstance(error, (sqlite3.OperationalError, sqlite3.DatabaseError, OSError)):
            return LayerUnavailable("SQLite (%s): %s" % (self.path(), error))
        return error

    def lock(self) -> None:
        self._writer.acquire()
        if fcntl is not None:
            try:
                self._stand_in_line(self._descriptor())
            except BaseException:
                self._writer.release()
                raise

    def _stand_in_line(self, line: int) -> None:
        for _ in range(SPINS):
            try:
                fcntl.flock(line, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
        fcntl.flock(line, fcntl.LOCK_EX)

    def unlock(self) -> None:
        if fcntl is not None and self._line is not None:
            fcntl.flock(self._line[1], fcntl.LOCK_UN)
        self._writer.release()

    def _descriptor(self) -> int:
        """Return that of the file in whose lock writers wait in line. A child process opens it anew."""
        path = self.path()
        if self._line is None or self._line[0] != path:
            self._leave_line()
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._line = (path, os.open(path + "-lock", flags, 0o600))
        return self._line[1]

    def _leave_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            os.close(line[1])


class SQLiteStore(DatabaseStore):
    """The tables in an SQLite file."""

    connections_class = SQLiteConnections
    poll_interval = 0.02
    sees_changes = True
    # Nothing is left in the way of a search, and the clock that numbers may be set back.
    uses_marks = False

    def write(self, name: str, parameters: dict[str, Any]) -> int:
        return self.connections.transaction(
            lambda connection: connection.run(self.sql[name], parameters), single=True
        )

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

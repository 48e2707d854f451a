"""
The layer's SQLite file under a running site: is it still there, and whole? If not, a new one takes its place.

SQLite itself notices no file that was deleted or replaced, and damage only where it reads.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import threading
import time
from typing import Any, NamedTuple, Tuple
from urllib.request import pathname2url

from ...exceptions import LayerUnavailable

#: Seconds between two looks at the file.
INTERVAL = 0.5

#: What is added to the name of a damaged file when it is put aside.
ASIDE = ".damaged"

#: How the names of the companions of the layer's file end: the log, and its index.
COMPANIONS = ("-wal", "-shm")

#: What tells a file from another one of the same name, and from itself after it was emptied.
FileId = Tuple[int, int, bool]

_DAMAGE = re.compile(
    r"malformed|not a database|file is encrypted|unsupported file format|no such table: channels_database"
)

#: The tables of any version of the layer.
_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'channels_database_message'"

#: The bytes at the file's beginning that stay: its kind, the size of a page, formats, encoding, versions.
_HEAD = (slice(0, 20), slice(56, 64), slice(68, 72))


def is_damage(error: BaseException) -> bool:
    """Return whether SQLite's `error` says that the file itself is bad."""
    return isinstance(error, sqlite3.DatabaseError) and bool(_DAMAGE.search(str(error)))


def _id_of(path: str) -> FileId | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, not status.st_size


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def other_version(raw: Any, schema: int) -> int | None:
    """
    Return the version of the layer's tables that a connection finds, if it isn't `schema`. The file is
    whole, and processes with other code may use it. Return None for a file without such tables, too.
    """
    version: int = raw.execute("PRAGMA user_version").fetchone()[0]
    return version if version != schema and raw.execute(_TABLES).fetchone() else None


def problem_of(path: str, schema: int) -> str | None:
    """
    Return what is wrong with the file, as a connection that has read nothing of it sees it, or None: also if
    it can't be examined, because it is locked, for example, or no descriptor is free; or if its tables have
    another version.
    """
    try:
        raw = sqlite3.connect("file:%s?mode=rw" % pathname2url(path), timeout=1.0, uri=True)
        try:
            if other_version(raw, schema) is None:
                if raw.execute("PRAGMA user_version").fetchone()[0] != schema:
                    return "it isn't a file of the channel layer"
            found: str = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
            return None if found == "ok" else " ".join(found.split())  # a line of the log
        finally:
            raw.close()
    except sqlite3.DatabaseError as error:
        return str(error) if is_damage(error) else None


class State(NamedTuple):
    """What a look at the files finds."""

    file: FileId | None
    companions: tuple[FileId | None, ...]  # those of COMPANIONS; an empty one counts as the same
    sizes: tuple[int, int]  # of the file and of its log
    head: bytes  # the parts of _HEAD
    pages: int  # the size that the file should have


class LayerFile:
    """What one process knows of the layer's file. Call `create` and `meet` under the lock of writers."""

    def __init__(self, schema: int) -> None:
        self._schema = schema
        self._look_at = 0.0  # when (monotonic) to look again
        self.state = State(None, (), (0, 0), b"", 0)  # at the last look
        self._known: tuple[str, FileId | None] = ("", None)  # the file that was opened last
        self._told: FileId | None = None  # the file of whose end the log has told
        self._damage: tuple[FileId, str] | None = None  # the file, and what is wrong with it
        self._descriptor: tuple[FileId, int] | None = None  # to read its head
        self.after_fork()
        #: Whether the file holds tables of others, so that it must not be put aside.
        self.is_shared = False

    def after_fork(self) -> None:
        """Begin anew in a child process: a thread of the parent may have been looking."""
        self._looking = threading.Lock()

    def look(self, path: str, at_once: bool = False) -> State:
        """
        Look at the files, if that is due. A file that has become smaller, is smaller than it says, or has
        another head, is checked.
        """
        if time.monotonic() < self._look_at and not at_once:
            return self.state
        # One thread at a time: two would close the same descriptor, or replace a newer state by an older one.
        # Checking a large file takes long, so that others don't wait for it unless they must.
        if self._looking.acquire(blocking=at_once):
            try:
                self._look_at = time.monotonic() + INTERVAL
                self._look(path)
            finally:
                self._looking.release()
        return self.state

    def _look(self, path: str) -> None:
        before, file = self.state, _id_of(path)
        found = [_id_of(path + suffix) for suffix in COMPANIONS]
        companions = tuple(each and (each[0], each[1], False) for each in found)
        if companions == before.companions:
            companions = before.companions  # connections share it
        head = self._head(path, file)
        self.state = after = State(
            file,
            companions,
            (_size_of(path), _size_of(path + "-wal")),
            b"".join(head[part] for part in _HEAD),
            int.from_bytes(head[28:32], "big") * int.from_bytes(head[16:18], "big"),
        )
        if file is None or file != before.file or file != self._known[1]:
            return
        is_smaller = any(new < old for new, old in zip(after.sizes, before.sizes))
        # For a moment, it also is while its log is written into it.
        is_short = after.sizes[0] < after.pages and after[2:] != before[2:]
        if is_smaller or is_short or after.head != before.head:
            problem = problem_of(path, self._schema)
            # Others may have compacted the file between the reading of its head and that of its size.
            is_cut = is_short and not after.sizes[1] and head == self._head(path, file)
            if problem is None and is_cut:
                problem = "a part is missing at its end"  # and isn't in the log
            if problem is not None:
                self._damage = file, problem

    def _head(self, path: str, file: FileId | None) -> bytes:
        """
        Return the file's beginning. Its descriptor stays open: closing it would drop the locks that other
        connections of this process have.
        """
        if file is None or file[2] or not hasattr(os, "pread"):
            return b""
        if self._descriptor is None or self._descriptor[0] != file:
            former = self._descriptor
            try:
                self._descriptor = file, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return b""
            if former is not None:
                os.close(former[1])  # of a file that is lost
        try:
            return os.pread(self._descriptor[1], 100, 0)
        except OSError:
            return b""

    def note_damage(self, file: FileId | None, problem: object) -> bool:
        """Take a known file for damaged. Return whether it is the one that was opened last."""
        if file is None or file != self._known[1]:
            return False
        self._damage = file, str(problem)
        return True

    def damage(self, file: FileId | None) -> str | None:
        """Return what is wrong with a file, or None."""
        damage = self._damage
        return damage[1] if damage is not None and damage[0] == file else None

    def is_whole(
        self, path: str, file: FileId | None, companions: tuple[FileId | None, ...]
    ) -> bool:
        """Return whether a connection's file, and its companions, are still those of the layer."""
        state = self.look(path)
        if file != state.file:
            return False
        if companions != state.companions:
            self.note_damage(file, "%s-wal or -shm was removed or replaced" % path)
        return self.damage(file) is None

    def found_damaged(self, path: str, error: BaseException) -> bool:
        """Return whether the file that can't be opened is the one that was opened before, and is damaged."""
        file = _id_of(path)
        return is_damage(error) and self.note_damage(file, error) or self.damage(file) is not None

    def meet(self, path: str) -> FileId | None:
        """
        Take the file that is there now for the layer's. Return that of another one that was it until now.
        """
        known_path, known = self._known
        found = self.look(path, at_once=True).file
        if path != known_path:
            known = None
        if known is None or found != known:
            # Another tuple for another file, also if it gets the number of an old one.
            self._known, self._damage = (path, found), None
            return known
        return None

    @property
    def known(self) -> FileId | None:
        """The file that was opened last."""
        return self._known[1]

    def leave(self, path: str, lost: FileId | None) -> bool:
        """Forget a file that is lost. Return whether the log has to tell it."""
        if lost is None or self._told is lost:
            return False
        self._told = lost
        if self._known[1] is lost:
            self._known = path, None
        return True

    def create(self, path: str) -> None:
        """
        Create the file for its owner alone, and put aside what is in its way. SQLite gives its companions
        it the same permissions.
        """
        former = self._make_way(path)
        try:
            # Only a new one is opened: closing an existing one would drop the locks of other connections.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        if former is not None:
            os.chmod(path, stat.S_IMODE(former.st_mode))
            with contextlib.suppress(OSError, AttributeError):  # another user's; Windows
                os.chown(path, former.st_uid, former.st_gid)

    def is_unusable(self, path: str) -> bool:
        """Return whether the file that is there now can only make way for another one."""
        now = _id_of(path)
        return now is not None and (now[2] or self.damage(now) is not None)

    def _make_way(self, path: str) -> os.stat_result | None:
        """
        Delete what a file that was deleted or emptied has left, and put a damaged one aside. Return the state
        of the file that was there. All processes notice a new file.
        """
        try:
            status = os.stat(path)
        except FileNotFoundError:
            # SQLite takes a log that it finds for that of the new file.
            self._remove(path, COMPANIONS)
            return None
        if not status.st_size and os.path.exists(path + "-wal"):
            # What a process still has in the log would be written into it, as a part of a database.
            self._remove(path, (*COMPANIONS, ""))
            return status
        file = _id_of(path)
        problem = self.damage(file)
        if problem is None:
            return None
        if self.is_shared:
            if problem_of(path, self._schema) is None:
                self._damage = None  # somebody has mended it
                return None
            raise LayerUnavailable(
                "The file of the channel layer, %s, is damaged (%s), and holds tables of others: put a "
                "backup in its place. Better give the layer a separate FILE." % (path, problem)
            )
        for suffix in ("", *COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path + suffix, path + ASIDE + suffix)
        return status

    def _remove(self, path: str, suffixes: tuple[str, ...]) -> None:
        for suffix in suffixes:
            with contextlib.suppress(OSError):
                os.remove(path + suffix)

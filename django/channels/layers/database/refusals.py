"""What the layer raises if its database can't be used, with what to do about it."""

from __future__ import annotations

import re
from typing import Sequence

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import LayerUnavailable, NotSent

#: What PostgreSQL, MariaDB and their drivers say, and what to do. The first that is found counts.
_REMEDIES = (
    (r"database \"([^\"]+)\" does not exist", "Create it (createdb {0}), or correct NAME"),
    (r"Unknown database '([^']+)'", "Create it (CREATE DATABASE {0}), or correct NAME"),
    (r"role \"([^\"]+)\" does not exist", "Create it (createuser {0}), or correct USER"),
    (
        r"Peer authentication failed|Ident authentication failed",
        "Set HOST to 'localhost', with a PASSWORD, or correct USER",
    ),
    (
        r"password authentication failed|no password supplied|Access denied",
        "Correct USER and PASSWORD",
    ),
    (r"no pg_hba.conf entry", "Let pg_hba.conf of the server accept this client, or correct HOST"),
    (
        r"Connection refused|No such file or directory|Can't connect|[Nn]ame or service not known"
        r"|could not translate host name|failed to resolve host|Unknown .*server host",
        "Start the server, or correct HOST and PORT",
    ),
)

#: What SQLite and the operating system say about a file, and what to do.
_FILE_REMEDIES = (
    (
        r"readonly database|Read-only file system|Permission denied|not permitted|unable to open",
        "Let the user of this process read and write the file, those next to it (-lock, -wal and -shm) and "
        "their folder, or correct FILE. (If they may, the process has too many open files: see ulimit -n)",
    ),
    (
        r"disk is full|No space left|[Qq]uota exceeded",
        "Free space on its disk, or let FILE be on another one",
    ),
    (
        r"disk I/O error|File too large",
        "Its disk may be full or broken, or the process may not write files of this size (ulimit -f)",
    ),
    (r"No such file or directory", "Create its folder, or correct FILE"),
    (r"Too many open files", "Let the process open more files (ulimit -n)"),
)

#: What all of them say if they write no more, and can still be read.
_WRITES_NOTHING = re.compile(
    r"disk (is )?full|No space left|table '[^']*' is full|quota exceeded|read-?only", re.I
)

#: What they say if no greater number is left for a row, and what to do.
_NUMBERS_USED_UP = (
    (
        r"reached maximum value of sequence \"([^\"]+)\"",
        "Delete the rows with ids above 9e18 from the layer's tables, and run ALTER SEQUENCE {0} RESTART",
    ),
    (
        r"Failed to read auto-increment|Out of range value for column 'id'"
        r"|Duplicate entry '\S*9223372036854775807",
        "Delete the rows with ids above 9e18 from the layer's tables, and run ALTER TABLE ... "
        "AUTO_INCREMENT = 1 for channels_database_message, channels_database_delayed and "
        "channels_database_dead",
    ),
)


class TablesMissing(NotSent, ImproperlyConfigured):  # type: ignore[misc]
    """
    The tables, or those of this version, are missing. Each process logs it once, and retries until somebody
    has mended it.
    """


def not_migrated(alias: str, error: object) -> TablesMissing:
    """Return the exception to raise if the tables are missing."""
    return TablesMissing(
        "The database %r lacks the tables of the channel layer (%s): add %r to INSTALLED_APPS and run "
        "manage.py migrate --database=%s"
        % (alias, str(error).strip().split("\n")[0], __package__, alias)
    )


def tables_of_other_version(path: str, version: int, own: int, is_shared: bool) -> TablesMissing:
    """
    Return the exception to raise if the file at `path` has tables of another version than this code's own.
    `is_shared` tells whether it has tables of others, too.
    """
    return TablesMissing(
        "The file of the channel layer, %s, has tables of %s version (%d) than this code uses (%d). Run the "
        "same code in all processes of the site. If it is this one, stop them, and %s. What waits there is "
        "lost."
        % (
            path,
            "a newer" if version > own else "an older",
            version,
            own,
            "drop the tables whose names begin with channels_database_"
            if is_shared
            else "delete the file with those next to it that end in -wal and -shm",
        )
    )


def numbers_used_up(server: str, alias: str, error: object) -> NotSent | None:
    """Return the exception to raise if a table takes no more rows, because a row has the greatest number."""
    for pattern, remedy in _NUMBERS_USED_UP:
        found = re.search(pattern, str(error))
        if found is not None:
            remedy = remedy.format(*found.groups())
            return NotSent(
                "%s (database %r) has no greater number for another row: %s. %s."
                % (server, alias, " ".join(str(error).split()), remedy)
            )
    return None


def _with_remedy(error: BaseException, remedies: Sequence[tuple[str, str]], where: str = "") -> str:
    """Return the text of `error`, with what to do about it, and `where`."""
    text = " ".join(str(error).split()) or type(error).__name__
    for pattern, remedy in remedies:
        found = re.search(pattern, text)
        if found is not None:
            return "%s. %s%s" % (text.rstrip(".?"), remedy.format(*found.groups()), where)
    return text


def unusable_file(path: str, error: BaseException) -> LayerUnavailable:
    """Return the exception to raise if the SQLite file at `path` can't be read or written."""
    result = LayerUnavailable("SQLite (%s): %s" % (path, _with_remedy(error, _FILE_REMEDIES)))
    result.is_readable = _WRITES_NOTHING.search(str(error)) is not None
    return result


def unreachable(
    server: str, alias: str, error: BaseException, refused: bool = False
) -> LayerUnavailable:
    """
    Return the exception to raise if `server` doesn't answer, or has `refused` the statement, which then has
    done nothing.
    """
    text = _with_remedy(error, _REMEDIES, " of %r in DATABASES" % alias)
    kind = NotSent if refused else LayerUnavailable
    result = kind("%s (database %r): %s" % (server, alias, text))
    result.is_readable = _WRITES_NOTHING.search(str(error)) is not None
    return result

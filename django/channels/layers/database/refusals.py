"""What the layer raises if its database can't be used, with what to do about it."""

from __future__ import annotations

import re

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
    """Tables are missing. Each process logs it once, and retries until `migrate` has made them."""


def not_migrated(alias: str, error: object) -> TablesMissing:
    """Return the exception to raise if the tables are missing."""
    return TablesMissing(
        "The database %r lacks the tables of the channel layer (%s): add %r to INSTALLED_APPS and run "
        "manage.py migrate --database=%s"
        % (alias, str(error).strip().split("\n")[0], __package__, alias)
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


def unreachable(
    server: str, alias: str, error: BaseException, refused: bool = False
) -> LayerUnavailable:
    """
    Return the exception to raise if `server` doesn't answer, or has `refused` the statement, which then has
    done nothing.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    for pattern, remedy in _REMEDIES:
        found = re.search(pattern, text)
        if found is not None:
            remedy = remedy.format(*found.groups())
            text = "%s. %s of %r in DATABASES" % (text.rstrip(".?"), remedy, alias)
            break
    result = NotSent if refused else LayerUnavailable
    return result("%s (database %r): %s" % (server, alias, text))

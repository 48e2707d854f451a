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


class TablesMissing(NotSent, ImproperlyConfigured):  # type: ignore[misc]
    """Tables are missing. Each process logs it once, and retries until `migrate` has made them."""


def not_migrated(alias: str, error: object) -> TablesMissing:
    """Return the exception to raise if the tables are missing."""
    return TablesMissing(
        "The database %r lacks the tables of the channel layer (%s): add %r to INSTALLED_APPS and run "
        "manage.py migrate --database=%s"
        % (alias, str(error).strip().split("\n")[0], __package__, alias)
    )


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

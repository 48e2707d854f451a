"""
Reads the SQL files: `sql/common.sql`, and over it that of one database. No connection, no state.

A file holds statements, each after a line `-- name: …`; the comment lines below that describe it.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

TABLES = [
    "channels_database_" + name
    for name in (
        "message",
        "claim",
        "sent",
        "process",
        "will",
        "group",
        "delayed",
        "dead",
        "counter",
    )
]

#: What PostgreSQL has besides.
FUNCTIONS = ["channels_database_" + name for name in ("take", "inbox", "room")]

#: Each database's own clock: seconds since 1970, as a float.
NOW = {
    "postgresql": "date_part('epoch', clock_timestamp())",
    "mysql": "unix_timestamp(sysdate(6))",
    "sqlite": "unixnow()",
}

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sql")
_PARAMETER = re.compile(r"(?<!:):([a-z]+)\b")


@lru_cache(maxsize=None)
def statements(vendor: str) -> dict[str, str]:
    """
    Return the statements for `vendor` ("postgresql", "mysql", "sqlite"): a dict of name to text, as its
    driver reads it.
    """
    found: dict[str, str] = {}
    for name in ("common", vendor):
        with open(os.path.join(_FOLDER, name + ".sql"), encoding="ascii") as file:
            found.update(_parse(file.read()))
    return {name: _adapt(text, vendor) for name, text in found.items()}


def schema(vendor: str) -> list[str]:
    """Return the statements that make the tables, and on PostgreSQL the functions: a list."""
    found = statements(vendor)
    functions = [text for name, text in sorted(found.items()) if name.startswith("function_")]
    return found["tables"].split(";\n") + functions


def _parse(text: str) -> dict[str, str]:
    found = {}
    for part in text.split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if not line.startswith("--")]
        found[name.strip()] = "\n".join(lines).strip().rstrip(";")
    return found


def _adapt(text: str, vendor: str) -> str:
    text = text.replace("{now}", NOW[vendor])
    if vendor == "sqlite":
        return text
    return _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))


def numbered(text: str, number: int) -> str:
    """Return `text` with the `number` appended to the name of each parameter."""
    text = re.sub(r"%\(([a-z]+)\)s", r"%%(\g<1>%d)s" % number, text)
    return _PARAMETER.sub(r":\g<1>%d" % number, text)


@lru_cache(maxsize=512)
def with_rows(text: str, row: str, number: int) -> str:
    """Return the statement `text` with `number` times `row` in place of {rows}."""
    return text.replace("{rows}", ", ".join(numbered(row, each) for each in range(number)))


@lru_cache(maxsize=512)
def union(text: str, number: int) -> str:
    """Return the union of `number` times the statement `text`."""
    return " UNION ALL ".join(numbered(text, each) for each in range(number))

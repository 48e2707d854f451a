"""
What rows hold, which may be damaged: SQLite keeps any type in any column. No I/O.

A damaged value becomes one that everything can work with. `DatabaseStore.decode` refuses a message whose body
or channel is damaged, so that it becomes a dead letter.
"""

from __future__ import annotations

import math
from typing import Any

from ..engine.store import Entry

#: Later times, in seconds since 1970, are damaged. In SQLite, every text is greater than every number.
LAST_TIME = 1e12

#: Characters of a channel's name that are kept of a damaged one.
MAX_NAME = 100


def is_text(value: Any) -> bool:
    """Return whether a value is text as the layer writes it: ASCII."""
    return isinstance(value, str) and all(ord(character) < 128 for character in value[:MAX_NAME])


def text(value: Any) -> str:
    """Return any value as ASCII text, which every database stores."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value).encode("ascii", "backslashreplace").decode("ascii")


def name(value: Any) -> str:
    """Return any value as text that fits where a channel's name is kept."""
    return text(value)[:MAX_NAME]


def number(value: Any) -> Any:
    """Return a number as it is, and 0 for any other value."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else 0


def entry_of(id: Any, channel: Any, body: Any, losses: Any = 0) -> Entry:
    """Return the entry of a row."""
    return Entry(id, channel, body, int(number(losses)))

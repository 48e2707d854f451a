"""
What a message may hold. `clean` checks, copies and weighs in one pass; no I/O and no state.

The types follow the ASGI 1.0 specification: text, bytes, signed 64-bit integers, floats, booleans,
None, lists (a tuple becomes a list) and dicts with text keys.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

from ..compat import CallableBool
from ..exceptions import InvalidMessage, MessageTooLarge

MAX_WEIGHT = 1024 * 1024

#: Levels of lists and dicts in a message. Code that walks through more of them may reach Python's limit.
MAX_NESTING = 200

#: What isn't a bracket of JSON: strings, also one without an end, and the rest.
_NOT_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^"\[\]{}]+', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}

#: Where a value is in a message: the place of the dict or list that holds it, and its key there. Only errors
#: make text of it, which is as long as all keys above the value. Clients may choose them.
_Place = Any

_REMEDY = (
    "; a message holds text, bytes, 64-bit integers, floats, booleans, None, lists and dicts. "
)
_REMEDY += "Convert it: send str() of a date, a Decimal or a UUID, the pk of a model, the name of a channel."


def clean(message: Any, limit: int = MAX_WEIGHT) -> dict[str, Any]:
    """
    Return a deep copy of `message` (dict) that shares nothing with the sender's.

    Raises InvalidMessage, naming the key, for anything a layer does not carry and for more than MAX_NESTING
    levels. Raises MessageTooLarge over `limit`, in bytes as JSON would weigh it (bytes count as they are;
    escapes are not counted).
    """
    if not isinstance(message, dict):
        key = "bytes" if isinstance(message, bytes) else "text"
        raise InvalidMessage(
            'A message is a dict, not %s. Write send({"%s": …}), or send_json(…) for JSON.'
            % (type(message).__name__, key)
        )
    copy: dict[str, Any]
    copy, weight = _copy(message)
    if weight > limit:
        raise MessageTooLarge(
            "The message weighs %d bytes, over the limit of %d: send it in parts, or store it and "
            "send its key." % (weight, limit)
        )
    return copy


def weigh(value: str | bytes) -> int:
    """Return the weight in bytes of a text or bytes frame, as `clean` counts it."""
    if isinstance(value, bytes):
        return len(value) + 2
    if value.isascii():
        return len(value) + 2
    return len(value.encode("utf-8", "surrogatepass")) + 2


def check_nesting(text: str, most: int = MAX_NESTING) -> None:
    """
    Raise ValueError if JSON `text` has more than `most` levels of lists and dicts. Call it before text is
    decoded that others can choose: Python 3.7 and 3.8 can end the process if it is nested very deeply.
    """
    if text.count("[") + text.count("{") > most:
        brackets = _NOT_BRACKETS.sub("", text)
        if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > most:
            raise ValueError("It is nested more than %d levels deep." % most)


def _copy(value: Any, where: _Place = None, depth: int = 0) -> tuple[Any, int]:
    kind = type(value)
    if kind is str:
        if value.isascii():
            return value, len(value) + 2
        try:
            return value, len(value.encode()) + 2
        except UnicodeEncodeError:
            raise InvalidMessage(
                "%s is text with a lone surrogate, which UTF-8 cannot encode." % _name(where)
            ) from None
    if kind is bytes:
        return value, len(value) + 2
    if value is None or kind is bool:
        return value, 5
    if kind is int:
        if not -(2**63) <= value < 2**63:
            raise InvalidMessage("%s is an integer beyond 64 bits." % _name(where))
        return value, 1 if -1 < value < 10 else len(str(value))
    if kind is float:
        return value, len(repr(value))
    if depth > MAX_NESTING:
        raise InvalidMessage("The message is nested more than %d levels deep." % MAX_NESTING)
    if kind is dict:
        copy: dict[str, Any] = {}
        total = 2
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = _plain_key(key, where)
            copy[key], weight = _copy(item, (where, key), depth + 1)
            total += weight + len(key) + 4
        return copy, total
    if kind is list or kind is tuple:
        items: list[Any] = []
        total = 2
        for index, item in enumerate(value):
            # Without a call for each part of each header.
            item, weight = (
                (item, len(item) + 2)
                if type(item) is bytes
                else _copy(item, (where, index), depth + 1)
            )
            items.append(item)
            total += weight + 1
        return items, total
    return _copy(_plain(value, where), where, depth)


def _plain_key(key: Any, where: _Place) -> str:
    """Return a key of the dict at `where` as plain text."""
    if not isinstance(key, str):
        raise InvalidMessage("%s has the key %.200r: keys are text." % (_name(where), key))
    text: str = _copy(str.__str__(key), where)[0]
    return text


def _plain(value: Any, where: _Place) -> Any:
    """Return a subclass (SafeString, IntEnum, OrderedDict…) as its plain type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, CallableBool):
        return bool(value)
    kinds: tuple[Any, ...] = (bytes, int, float, dict, list, tuple)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise InvalidMessage("%s is a %s%s" % (_name(where), type(value).__name__, _REMEDY))


def _name(where: _Place) -> str:
    """Return how an error names the value at `where`, such as "The message's 'a.b[3]'"."""
    keys = []
    while where is not None:
        where, key = where
        keys.append("[%d]" % key if isinstance(key, int) else "." + key)
    return "The message's %.200r" % "".join(reversed(keys))[1:] if keys else "The message"

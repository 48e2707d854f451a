"""
Messages as text: JSON in ASCII, which every storage keeps alike. No I/O and no state.

Bytes are a dict whose only key is a NUL character, with base64. A key of the message's own that
begins with NUL gets one more.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from ..messages import MAX_NESTING, check_nesting

_NUL = "\0"

#: Levels that a body may have: those of a message, and one for bytes; with room to spare.
_MAX_LEVELS = MAX_NESTING + 10


def encode(message: dict[str, Any]) -> str:
    """Return a clean message as ASCII text."""
    found: list[None] = []

    def default(value: bytes) -> dict[str, str]:
        found.append(None)
        return {_NUL: b64encode(value).decode("ascii")}

    text = json.dumps(message, default=default, separators=(",", ":"), check_circular=False)
    if text.count('"\\u0000') != len(found):
        return json.dumps(_escape(message), default=default, separators=(",", ":"))
    return text


def decode(text: str) -> Any:
    """Return the message that `encode` was given. Raises ValueError and others for what it didn't write."""
    has_marks = '"\\u0000' in text
    check_nesting(text, _MAX_LEVELS)
    return json.loads(text, object_hook=_restore if has_marks else None)


def _escape(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _NUL + key if key.startswith(_NUL) else key: _escape(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value


def _restore(found: dict[str, Any]) -> Any:
    if len(found) == 1 and _NUL in found:
        return b64decode(found[_NUL])
    return {key[1:] if key.startswith(_NUL) else key: item for key, item in found.items()}

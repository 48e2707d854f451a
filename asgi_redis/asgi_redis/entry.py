"""
The format of an entry, which queues, consumers and dead letters hold. lua/prelude.lua writes the same.

An entry is 13 digits (when it expires, in milliseconds since 1970), 1 digit (how many workers were lost
with it), and a body: the channel, a newline, the payload. Delayed messages and inboxes hold bodies; a
delayed one stands behind an id that makes it unique. No I/O and no state.
"""

from __future__ import annotations

import uuid
from typing import Any

_STAMP = 13
_HEAD = _STAMP + 1
_DELAYED_ID = 16
_ZERO = ord("0")


def split_body(body: bytes) -> tuple[str, bytes]:
    """Return the channel and the payload of a body."""
    name, _, payload = body.partition(b"\n")
    return name.decode("ascii", "replace"), payload


def parse(entry: bytes) -> tuple[str, bytes, int]:
    """Return the channel, the body and the losses of an entry; "" as the channel of what is damaged."""
    if not entry[:_HEAD].isdigit() or len(entry) <= _HEAD:
        return "", entry, 0
    channel = entry[_HEAD : max(_HEAD, entry.find(b"\n", _HEAD))].decode("ascii", "replace")
    return channel, entry[_HEAD:], entry[_STAMP] - _ZERO


def expires(entry: bytes) -> int:
    """Return when an entry expires, in milliseconds since 1970; 0 if it is damaged."""
    return int(entry[:_STAMP]) if entry[:_HEAD].isdigit() else 0


def record_body(fields: Any) -> bytes:
    """Return the field "e" of a stream's record as redis-py returns it, or all of a record that has none."""
    if not isinstance(fields, dict):
        fields = dict(zip(fields[::2], fields[1::2]))
    found: bytes = fields[b"e"] if b"e" in fields else b" ".join(sum(fields.items(), ()))
    return found


def make_expired(body: bytes) -> bytes:
    """Return an entry for a body that was in no queue, for the dead letters."""
    return b"0" * _HEAD + body


def make_delayed(body: bytes, id: str) -> bytes:
    """
    Return what a delayed body is kept as: two equal bodies are two messages. `id` is that of one message, at
    least 16 ASCII characters, of which the first 16 count.
    """
    return (id or uuid.uuid4().hex)[:_DELAYED_ID].encode() + body


def delayed_id(member: bytes) -> str:
    """Return what makes a delayed message unique."""
    return member[:_DELAYED_ID].decode("ascii", "replace")


def delayed_body(member: bytes) -> bytes:
    return member[_DELAYED_ID:]

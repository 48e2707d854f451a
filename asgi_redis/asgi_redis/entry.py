"""
The format of an entry, which queues, consumers and dead letters hold. lua/prelude.lua writes the same.

An entry is 13 digits (when it expires, in milliseconds since 1970), 1 digit (how many workers were lost
with it), and a body: the channel, a newline, the payload. Delayed messages and inboxes hold bodies; a
delayed one stands behind an id that makes it unique. No I/O and no state.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

_STAMP = 13
_HEAD = _STAMP + 1
_DELAYED_ID = 16


class Parsed(NamedTuple):
    """An entry, taken apart."""

    losses: int
    channel: str
    body: bytes


def make_body(channel: str, payload: bytes) -> bytes:
    return channel.encode() + b"\n" + payload


def split_body(body: bytes) -> tuple[str, bytes]:
    """Return the channel and the payload of a body."""
    name, _, payload = body.partition(b"\n")
    return name.decode("ascii", "replace"), payload


def parse(entry: bytes) -> Parsed:
    """Take an entry apart. A damaged one has no losses, and what is left as its channel and body."""
    body = entry[_HEAD:]
    digit = entry[_STAMP:_HEAD]
    losses = int(digit) if digit.isdigit() else 0
    return Parsed(losses, split_body(body)[0], body)


def make_expired(body: bytes) -> bytes:
    """Return an entry for a body that was in no queue, for the dead letters."""
    return b"0" * _HEAD + body


def make_delayed(body: bytes) -> bytes:
    """Return what a delayed body is kept as: two equal bodies are two messages."""
    return uuid.uuid4().hex[:_DELAYED_ID].encode() + body


def delayed_body(member: bytes) -> bytes:
    return member[_DELAYED_ID:]

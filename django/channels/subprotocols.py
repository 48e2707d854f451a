"""Which subprotocol a WebSocket is accepted with. The test client and class-based consumers use this, too."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from django.conf import settings

#: A subprotocol's name: a token of HTTP (RFC 7230).
SUBPROTOCOL = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def known_subprotocols() -> tuple[str, ...]:
    """Return the setting CHANNELS_WS_PROTOCOLS. It is for handshakes that are accepted without naming one."""
    return tuple(getattr(settings, "CHANNELS_WS_PROTOCOLS", None) or ())


def first_offered(offered: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the first subprotocol that the client offered and that is `known`, or None."""
    names = set(known)
    return next((each for each in offered if each in names), None)


def choose(
    answer: Mapping[str, Any], offered: Iterable[str], known: Iterable[str]
) -> tuple[str | None, Any]:
    """
    Return the subprotocol of an `answer` that accepts a handshake, and one that must be refused; or None.

    An answer with the key "subprotocol" decides: None stands for no subprotocol. The client must have offered
    the one that it names. For other answers, it is the first that the client offered and that is `known`.
    """
    if "subprotocol" not in answer:
        return first_offered(offered, known), None
    asked = answer["subprotocol"]
    return (asked, None) if asked in offered else (None, asked)

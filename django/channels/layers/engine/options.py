"""
The options that CHANNEL_LAYERS may give a layer, and what is refused: the same words on every layer.

A layer declares what it takes beyond these by its constructor's arguments. No I/O.
"""

from __future__ import annotations

import difflib
import math
from decimal import Decimal
from typing import Any, Iterable, Mapping, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .redelivery import RedeliveryPolicy

#: The options of `BaseChannelLayer`.
COMMON = ("expiry", "group_expiry", "capacity", "channel_capacity", "channel_expiry")

#: A lease outlives this many heartbeats, so that one that is late loses nothing.
HEARTBEATS = 3

#: No time in options, and no delay, is longer: ten years, which every store and every clock can add.
MAX_SECONDS = 3650 * 86400


class Options(NamedTuple):
    """
    The options of every layer on the engine.

    `heartbeat` and `lease` are the seconds between two signs of life of a process, and after which it is
    taken for dead. `lost` and `retry_safe_requests`: see redelivery.py. `dead_letters` is how many are kept,
    the newest. `inbox_capacity` is how many messages a gateway may be behind.
    """

    heartbeat: float = 5.0
    lease: float = 15.0
    lost: dict[str, str] | None = None
    retry_safe_requests: bool = False
    dead_letters: int = 10000
    inbox_capacity: int = 20000

    def check(self) -> Options:
        """Return these options. Raise ImproperlyConfigured, naming the remedy, for one out of range."""
        for name in ("heartbeat", "lease"):
            check_seconds(name, getattr(self, name))
        if self.lease < HEARTBEATS * self.heartbeat:
            raise ImproperlyConfigured(
                "The channel layer's lease is %r s and its heartbeat %r s: a lease lasts at least %d "
                "heartbeats. Raise lease, or lower heartbeat."
                % (self.lease, self.heartbeat, HEARTBEATS)
            )
        if not is_count(self.dead_letters):
            raise refusal("dead_letters", "how many are kept, 0 or more", self.dead_letters)
        check_capacity("inbox_capacity", self.inbox_capacity)
        if not isinstance(self.retry_safe_requests, bool):
            raise refusal("retry_safe_requests", "True or False", self.retry_safe_requests)
        RedeliveryPolicy(self.lost, self.retry_safe_requests)
        return self


def check_seconds(name: str, value: Any) -> None:
    """Raise ImproperlyConfigured unless the option `name` has a time above 0, and not above MAX_SECONDS."""
    if not is_number(value) or not 0 < value <= MAX_SECONDS:
        raise refusal(name, "a number of seconds above 0 and up to %d" % MAX_SECONDS, value)


def check_common(
    expiry: Any, group_expiry: Any, capacity: Any, capacities: Any, expiries: Any
) -> None:
    """Raise ImproperlyConfigured for an option of BaseChannelLayer that is out of range."""
    check_seconds("expiry", expiry)
    check_seconds("group_expiry", group_expiry)
    check_capacity("capacity", capacity)
    for name, numbers, check in (
        ("channel_capacity", capacities, check_capacity),
        ("channel_expiry", expiries, check_seconds),
    ):
        if numbers is None:
            continue
        if not isinstance(numbers, Mapping):
            raise refusal(name, "a dict of name patterns", numbers)
        for pattern, number in numbers.items():
            if not isinstance(pattern, str) and not hasattr(pattern, "match"):
                raise refusal(name, "a dict with patterns of channel names as keys", pattern)
            check("%s[%r]" % (name, pattern), number)


def check_capacity(name: str, value: object) -> None:
    """Raise ImproperlyConfigured unless the option `name` has a number of messages."""
    if not is_count(value, 1):
        raise refusal(name, "a number of messages, 1 or more", value)


def seconds_of(delay: Any) -> float:
    """
    Return `delay`, a number, as seconds: 0 for a negative one. Raises ValueError for any other value, NaN
    included, and for more than MAX_SECONDS.
    """
    if isinstance(delay, (int, float, Decimal)) and not isinstance(delay, bool):
        try:
            seconds = float(delay)
        except (OverflowError, ValueError):  # an int of 400 digits; a signalling NaN
            seconds = math.nan
        if seconds <= MAX_SECONDS:
            return max(0.0, seconds)
    raise ValueError(
        "A delay is a number of seconds up to %d, not %s." % (MAX_SECONDS, shown(delay))
    )


def is_number(value: object) -> bool:
    """Return whether `value` is an int or a finite float."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        or (isinstance(value, float) and math.isfinite(value))
    )


def is_count(value: object, least: int = 0) -> bool:
    """Return whether `value` is an int of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def refusal(name: str, wanted: str, value: object) -> ImproperlyConfigured:
    """Return the exception for an option that has a bad value."""
    return ImproperlyConfigured(
        "The channel layer's option %s is %s, not %s." % (name, wanted, shown(value))
    )


def shown(value: object) -> str:
    """Return the first 200 characters of what represents `value` in an error message."""
    try:
        return repr(value)[:200]
    except Exception:  # an int of more than 4300 digits
        return "this %s" % type(value).__name__


def fold(options: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """
    Return `options` with lower-case names: CONFIG may write them in capitals.

    Raises ImproperlyConfigured for a name that is not in `known`, and suggests the nearest.
    """
    known = sorted(known)
    found = {}
    for name, value in options.items():
        folded = name.lower()
        if folded not in known:
            near = difflib.get_close_matches(folded, known, 1)
            raise ImproperlyConfigured(
                "The channel layer doesn't know the option %r.%s Its options are: %s."
                % (name, " Did you mean %r?" % near[0] if near else "", ", ".join(known))
            )
        if folded in found:
            raise ImproperlyConfigured("The channel layer's option %s is given twice." % folded)
        found[folded] = value
    return found


def split(
    config: dict[str, Any], own: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """
    Return the options of a layer in three dicts: its own, with defaults from `own`; those of `Options`; and
    those of BaseChannelLayer. Raises ImproperlyConfigured as `fold` does.
    """
    given = fold(config, [*own, *Options._fields, *COMMON])
    found = dict(own)
    found.update((name, given[name]) for name in own if name in given)
    shared = {name: given[name] for name in Options._fields if name in given}
    return found, shared, {name: given[name] for name in COMMON if name in given}

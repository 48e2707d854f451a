"""
Names of channels and groups, and settings that go by name pattern. No I/O and no state.

The alphabet and the length follow the ASGI 1.0 specification.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Dict, Mapping, Pattern, Sequence

from ..exceptions import InvalidChannelName

MAX_NAME_LENGTH = 99

_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+([!?][a-zA-Z0-9\-_.]*)?\Z")
_GROUP = re.compile(r"[a-zA-Z0-9\-_.]+\Z")

_CHANNEL_TEXT = (
    "%.200s is not a channel name: use up to %d ASCII letters, digits, hyphens, underscores and "
    "periods, with at most one '!' or '?'."
)
_GROUP_TEXT = (
    "%.200s is not a group name: use up to %d ASCII letters, digits, hyphens, underscores and "
    "periods."
)


def check_channel_name(name: str) -> str:
    """Return `name`. Raise InvalidChannelName, saying what a channel name looks like, for any other."""
    try:
        return _check(name, _CHANNEL)
    except TypeError:  # also for a name that cannot be cached, such as a list from a client's JSON
        raise _refusal(name, _CHANNEL_TEXT) from None


def check_group_name(name: str) -> str:
    """Return `name`. Raise InvalidChannelName, saying what a group name looks like, for any other."""
    try:
        return _check(name, _GROUP)
    except TypeError:
        raise _refusal(name, _GROUP_TEXT) from None


def check_channel_names(names: Sequence[str]) -> Sequence[str]:
    """
    Return `names` (a list or tuple), the channels to read. Raise InvalidChannelName for one that
    isn't a channel's name, and for text, whose letters would be the names.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise InvalidChannelName(
            "The channels to read are a list of names, not %.200s: write [name]." % _repr(names)
        )
    if not isinstance(names, (list, tuple)):
        names = list(names)
    try:
        _check_each(tuple(names))
    except TypeError:
        for name in names:
            check_channel_name(name)
    return names


@lru_cache(maxsize=8192)
def _check(name: str, pattern: Pattern[str]) -> str:
    """Return `name`, or raise TypeError. Exceptions are not cached, so no bad name is kept."""
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not pattern.match(name):
        raise TypeError
    return name


@lru_cache(maxsize=256)
def _check_each(names: tuple[str, ...]) -> None:
    """Raise TypeError if one of `names` isn't a channel's. A worker claims from the same ones each time."""
    for name in names:
        _check(name, _CHANNEL)


def _refusal(name: Any, text: str) -> InvalidChannelName:
    return InvalidChannelName(text % (_repr(name), MAX_NAME_LENGTH))


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # for example of an integer with more digits than Python writes
        return "this %s" % type(value).__name__


def inbox_of(channel: str) -> str | None:
    """Return the inbox that a process-local channel belongs to ("gateway.a!" of "gateway.a!7"), or None."""
    end = channel.find("!") + 1
    return channel[:end] if end else None


def queue_of(channel: str) -> str:
    """Return the queue that the messages of a channel wait in: its inbox, or the queue with its name."""
    return inbox_of(channel) or channel


def shares_queue(channel: str) -> bool:
    """Return whether a channel is one of an inbox ("gateway.a!7"), whose queue holds those of others, too."""
    return inbox_of(channel) not in (None, channel)


def check_inbox_name(name: str) -> str:
    """Return `name`. Raise InvalidChannelName or ValueError for any other than an inbox can have."""
    if not check_channel_name(name).endswith("!"):
        raise ValueError("An inbox has a process-local name, which ends in '!', not %r." % name)
    return name


#: Names for which a ByName remembers its number. A site has fewer channels that aren't replies.
MAX_REMEMBERED = 1000


def is_shared(channel: str) -> bool:
    """
    Return whether any worker may take a message of `channel`. Others belong to one process or to one reader,
    and expire unnoticed when that has gone.
    """
    return "!" not in channel and "?" not in channel


class ByName(Dict[str, Any]):
    """
    A number by channel name: the first of `patterns` that matches, what `names` has, or `default`.

    `patterns` maps globs ("http.*", "gateway.*!*") or compiled regular expressions to numbers; `names`
    whole names. As a dict, it has what was asked for before. Thread-safe.
    """

    def __init__(
        self,
        default: Any,
        patterns: Mapping[Any, Any] | None = None,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.default = default
        self._names = names or {}
        self._patterns = [
            (
                re.compile(fnmatch.translate(pattern)) if isinstance(pattern, str) else pattern,
                number,
            )
            for pattern, number in (patterns or {}).items()
        ]

    def __missing__(self, channel: str) -> Any:
        found = self._names.get(channel, self.default)
        for pattern, number in self._patterns:
            if pattern.match(channel):
                found = number
                break
        if len(self) < MAX_REMEMBERED and "!" not in channel:
            self[channel] = found
        return found

"""
What happens to a message whose worker died, or that expired: the engine's decisions. No I/O but logging.

A store calls `decide_lost` or `decide_expired` for each message while it holds it, maybe more than once if
its transaction is repeated. Counters and log lines therefore follow the commit (`lost`, `expired`). Neither
raises anything: one message must not stop what happens to the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ... import protocol
from ..names import check_channel_name, is_shared
from .redelivery import REPORT, RETRY
from .store import Entry, Outgoing

if TYPE_CHECKING:
    from .layer import EngineLayer
    from .store import Recovered

logger = logging.getLogger("django.channels.layers")

#: Seconds for which the notice of a lost event waits for its gateway, at least. It is not sent again.
NOTICE_EXPIRY = 3600

#: Seconds for which a last will waits for a worker, at least.
WILL_EXPIRY = 3600

# What an Action asks for.
REQUEUE = "requeue"  # at the head of its channel, with one loss more
NOTIFY = "notify"  # send `notice` to its gateway, and forget it
DEAD_LETTER = "dead-letter"  # with `reason`, and one loss more
DROP = "drop"  # forget it


class Action(NamedTuple):
    """What a store must do with an entry, in the same step in which it removes it."""

    kind: str
    notice: Outgoing | None = None
    reason: str = ""


class Recovery:
    """The decisions of one layer. Thread-safe: it keeps no state."""

    def __init__(self, layer: EngineLayer) -> None:
        self._layer = layer

    def decide_lost(self, entry: Entry) -> Action:
        """Return what happens to a message that a dead worker held, by the redelivery policy."""
        try:
            message = self._layer.store.decode(entry.channel, entry.body)
        except Exception:  # Unreadable, or a bug: what is decided with it must not wait for ever
            return Action(DEAD_LETTER, reason="unreadable")
        policy = self._layer.policy.decide(entry.channel, message, entry.losses + 1)
        if policy == RETRY:
            return Action(REQUEUE)
        action = self._notify(message) if policy == REPORT else None
        return action or Action(DEAD_LETTER, reason="lost")

    def decide_expired(self, entry: Entry) -> Action:
        """Return what happens to an event that expired: its gateway is told, if one waits for it."""
        try:
            message = self._layer.store.decode(entry.channel, entry.body)
        except Exception:  # Unreadable, or a bug: what is decided with it must not wait for ever
            return Action(DEAD_LETTER, reason="unreadable")
        return self._notify(message) or Action(DROP)

    def will_expiry(self, channel: str) -> float:
        """Return for how many seconds a last will on `channel` waits for a worker."""
        expiry: float = max(self._layer.expiries[channel], WILL_EXPIRY)
        return expiry

    def _notify(self, message: protocol.Message) -> Action | None:
        """Return the action that tells the gateway of a message, or None if none waits for it."""
        address = protocol.reply_address(message)
        if address is None:
            return None
        channel, event_id = address
        try:
            expiry = max(self._layer.expiries[check_channel_name(channel)], NOTICE_EXPIRY)
            body = self._layer.store.encode(channel, protocol.lost(event_id))
        except Exception:  # a site's own message with these keys, of whatever types
            logger.exception("The loss of a message could not be reported to %r.", channel)
            return None
        return Action(NOTIFY, Outgoing(channel, body, unlimited=True, expiry=expiry))

    # After the commit.

    def lost(self, done: Recovered) -> None:
        """Count and log what `Store.recover` has done."""
        count = self._layer.count
        for name in done.names:
            logger.warning(
                "The lease of the %s ran out; what it held is recovered.",
                describe(name),
            )
        if done.names:
            count("lost", len(done.names))
        for channel, kind in done.decisions:
            if kind == NOTIFY:
                count("lost_reported")
                logger.warning("A worker died with a message of %s. Its client is told.", channel)
            elif kind == REQUEUE:
                count("lost_retried")
                logger.warning("A worker died with a message of %s. It is requeued.", channel)
            elif kind == DEAD_LETTER:
                count("lost_dead")
                logger.error(
                    "A worker died with a message of %s. It is a dead letter now: manage.py deadletters.",
                    channel,
                )
        self.dropped(done.dropped)

    def expired(self, done: Recovered) -> None:
        """Count and log what `Store.expire` has done."""
        expired = Counter(channel for channel, kind in done.decisions if kind != DEAD_LETTER)
        if expired:
            self.swept(expired)
        for channel, kind in done.decisions:
            if kind == DEAD_LETTER:
                self.unreadable(Entry(None, channel, None), "it is damaged", 0)
        self.dropped(done.dropped)

    def swept(self, channels: dict[str, int]) -> None:
        """Count and log expired messages that a worker could have taken: how many on each channel."""
        shared = {name: number for name, number in channels.items() if is_shared(name)}
        if shared:
            self._layer.count("expired", sum(shared.values()))
            self._layer.notices.expired(shared)

    def unreadable(self, entry: Entry, error: Exception | str, dropped: int) -> None:
        """Count and log a message that became a dead letter because it cannot be read."""
        self._layer.count("unreadable")
        logger.error(
            "A message on %s cannot be read: %s. It is a dead letter now: manage.py deadletters.",
            entry.channel or "an inbox",
            error,
        )
        self.dropped(dropped)

    def dropped(self, number: int) -> None:
        """Count and log dead letters that were dropped because there were too many."""
        if number:
            self._layer.count("dead_letters_dropped", number)
            self._layer.notices.dropped(number)


def describe(name: str) -> str:
    """Return the holder of a lease for a log line: "worker process …" or "gateway …"."""
    return ("gateway %s" if "!" in name else "worker process %s") % name

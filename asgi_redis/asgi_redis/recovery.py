"""
What becomes of what a dead worker held, by the policy of `layers/lost.py`, and of events that expired: one
step for one message.
"""

import logging
import threading
import time
from collections import Counter

from .contract import REPORT, RETRY, LayerUnavailable

logger = logging.getLogger("django.channels.redis")

#: Slots of this process that hold what expired begin so (lua/beat.lua).
EXPIRED = "expired:"


def settle(layer, slot, entry):
    """
    Deal with what a dead worker held, or what expired, which `slot` of this process holds now. Each step is
    atomic; should this process be lost between them, another one begins again.
    """
    channel, message, losses = layer.read_entry(entry)
    if message is None:
        layer.bury(slot, "unreadable")
        return
    if slot.startswith(EXPIRED):
        if "exchange" in message and "reply_channel" in message:
            _report(layer, channel, message)
        layer.forget(slot)
        return
    policy = layer.policy.decide(channel, message, losses + 1)
    if policy == REPORT:
        logger.warning("A worker was lost with a message of %s: its client is told.", channel)
        _report(layer, channel, message)
        layer.forget(slot)
        layer.count("lost_reported")
    elif policy == RETRY:
        logger.warning("A worker was lost with a message of %s: it goes to another.", channel)
        layer.put_back(slot, channel, losses=1)
        layer.count("lost_retried")
    else:
        logger.error(
            "A worker was lost with a message of %s: it is among the dead letters.", channel
        )
        layer.bury(slot, "lost")
        layer.count("lost_dead")


def _report(layer, channel, message):
    """Tell its gateway, which answers the client; of an exchange that is over it takes no notice."""
    try:
        layer.deliver(message["reply_channel"], {"lost": message["exchange"]})
    except LayerUnavailable:
        raise
    except Exception:
        logger.exception("The loss of a message of %s could not be reported", channel)


class Notices:
    """What may happen often, and is logged at most once a second: the rest is in the next line."""

    PAUSE = 1.0

    def __init__(self, dead_letters):
        self._kept = dead_letters
        self._lock = threading.Lock()
        self._expired, self._dropped = Counter(), 0
        self._expired_at = self._dropped_at = -self.PAUSE

    def expired(self, channel, number):
        """So many messages of `channel` expired."""
        with self._lock:
            self._expired[channel] += number

    def dropped(self, number):
        """So many dead letters were dropped."""
        with self._lock:
            self._dropped += number
        self.log()

    def log(self):
        """Write the lines that are due. Each heartbeat does."""
        now = time.monotonic()
        expired, dropped = None, 0
        with self._lock:
            if self._expired and now - self._expired_at >= self.PAUSE:
                expired, self._expired, self._expired_at = self._expired, Counter(), now
            if self._dropped and now - self._dropped_at >= self.PAUSE:
                dropped, self._dropped, self._dropped_at = self._dropped, 0, now
        if expired:
            logger.warning(
                "Expired, since nobody took them in time: %s. No worker is running for them, or too "
                "few: start `manage.py runworker`.",
                ", ".join("%d of %s" % (number, name) for name, number in sorted(expired.items())),
            )
        if dropped:
            logger.error(
                "%d dead letters were dropped: no more than %d are kept. See `manage.py deadletters`, "
                "and the layer's option dead_letters.",
                dropped,
                self._kept,
            )

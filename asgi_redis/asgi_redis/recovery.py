"""
What becomes of what a dead worker held, by the policy of `layers/lost.py`, and of events that expired: one
step for one message.
"""

import logging
import threading
import time
from collections import Counter

from .contract import REPORT, RETRY, LayerUnavailable, protocol
from .gateways import EXPIRED

logger = logging.getLogger("django.channels.redis")


def settle(layer, held):
    """
    Deal with what a dead worker held, or what expired, which this process holds now. Each step is
    atomic; should this process be lost between them, another one begins again.
    """
    field = held.field
    channel, message, losses = layer.read_entry(held.entry)
    if message is None:
        layer.dropped(layer.store.dead_letter(field, "unreadable"))
        return
    address = protocol.reply_address(message)
    if field.startswith(EXPIRED):
        if address is not None:
            _report(layer, channel, address)
        layer.store.forget(field)
        return
    policy = layer.policy.decide(channel, message, losses + 1)
    if policy == REPORT:
        logger.warning("A worker was lost with a message of %s: its client is told.", channel)
        _report(layer, channel, address)
        layer.store.forget(field)
        layer.count("lost_reported")
    elif policy == RETRY:
        logger.warning("A worker was lost with a message of %s: it goes to another.", channel)
        layer.store.put_back(held, 1)
        layer.count("lost_retried")
    else:
        logger.error(
            "A worker was lost with a message of %s: it is among the dead letters.", channel
        )
        layer.dropped(layer.store.dead_letter(field, "lost"))
        layer.count("lost_dead")


def _report(layer, channel, address):
    """Tell its gateway, which answers the client; of an exchange that is over it takes no notice."""
    try:
        layer.deliver(address[0], protocol.lost(address[1]))
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

"""
What becomes of what the dead held: the policy for a lost worker's messages, and the dead letters.

Policies by channel pattern: "report" (its gateway is told, and answers 502 or closes with 1011),
"retry" (again at the head of its channel, marked `redelivered`; after MAX_LOSSES it is dead-lettered),
"dead-letter" (kept aside, to be looked at).
"""

import logging
from collections import namedtuple

from .contract import ByName, LayerUnavailable

logger = logging.getLogger("django.channels.redis")

REPORT, RETRY, DEAD_LETTER = "report", "retry", "dead-letter"

#: How many workers a message may take with it before it is given up.
MAX_LOSSES = 3

#: Dead letters that are kept, about; beyond, the oldest go.
MAX_DEAD_LETTERS = 10000

#: What a site's own patterns come before.
DEFAULTS = {
    "http.request": REPORT,
    "websocket.connect": REPORT,
    "websocket.receive": REPORT,
    "http.disconnect": RETRY,
    "websocket.disconnect": RETRY,
}

#: Requests that RFC 9110 calls safe, which `retry_safe_requests` lets run once more.
SAFE_METHODS = ("GET", "HEAD")


class DeadLetter(namedtuple("DeadLetter", "id channel message reason time")):
    """
    A message that nobody will handle: its `id` (text), `channel`, `message` (None if it cannot be read),
    `reason` ("lost": its worker died; "unreadable") and `time` (seconds since 1970).
    """

    __slots__ = ()


class Policy:
    """Which policy a message falls under: `lost` maps channel patterns to them, before DEFAULTS."""

    def __init__(self, lost=None, retry_safe_requests=False):
        for pattern, policy in (lost or {}).items():
            if policy not in (REPORT, RETRY, DEAD_LETTER):
                raise ValueError(
                    "lost[%r] is %r; it must be 'report', 'retry' or 'dead-letter'."
                    % (pattern, policy)
                )
        patterns = dict(lost or {})
        for pattern, policy in DEFAULTS.items():
            patterns.setdefault(pattern, policy)
        self._by_name = ByName(DEAD_LETTER, patterns)
        self._retry_safe_requests = retry_safe_requests

    def __call__(self, channel, message, losses):
        """REPORT, RETRY or DEAD_LETTER for a message whose worker was lost, for the (losses + 1)th time."""
        if (
            self._retry_safe_requests
            and channel == "http.request"
            and losses == 0
            and message.get("method") in SAFE_METHODS
            and "body_channel" not in message
        ):
            return RETRY
        policy = self._by_name[channel]
        if policy == REPORT and not (
            isinstance(message.get("reply_channel"), str)
            and isinstance(message.get("exchange"), int)
        ):
            return DEAD_LETTER
        if policy == RETRY and losses + 1 >= MAX_LOSSES:
            return DEAD_LETTER
        return policy


def settle(layer, slot, entry):
    """Deal with what a dead worker held, which `slot` of this process holds now. Each step is atomic."""
    channel, message, losses = layer.read_entry(entry)
    if message is None:
        layer.bury(slot, "unreadable")
        return
    policy = layer.policy(channel, message, losses)
    layer.count("lost")
    if policy == REPORT:
        logger.warning("A worker was lost with a message of %s: its client is told.", channel)
        try:
            layer.deliver(message["reply_channel"], {"lost": message["exchange"]})
        except LayerUnavailable:
            raise
        except Exception:
            logger.exception("The loss of a message of %s could not be reported", channel)
        layer.acknowledge(slot)
    elif policy == RETRY:
        logger.warning("A worker was lost with a message of %s: it goes to another.", channel)
        layer.put_back(slot, channel, losses=1)
    else:
        logger.error(
            "A worker was lost with a message of %s: it is among the dead letters.", channel
        )
        layer.bury(slot, "lost")

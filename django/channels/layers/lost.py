"""
What becomes of a message whose worker was lost: a pure policy by channel name, for layers that keep leases.

* "report": its gateway is told, which answers 502 or closes the socket with 1011;
* "retry": it goes back to the head of its channel, marked `redelivered`, and when it is lost for the
  third time, to the dead letters;
* "dead-letter": it goes to the dead letters, for somebody to look at.
"""

from collections import namedtuple

from django.core.exceptions import ImproperlyConfigured

from .names import ByName

REPORT, RETRY, DEAD_LETTER = "report", "retry", "dead-letter"

#: A message that is retried goes to the dead letters when it is lost this often.
MAX_LOSSES = 3

#: What a site's own patterns come before; other channels are DEAD_LETTER.
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
    A message that was given up: its `id` (text), `channel`, `message` (None if it cannot be read),
    `reason` ("lost": its worker died; "unreadable") and `time` (seconds since 1970).
    """

    __slots__ = ()


class LostPolicy:
    """
    `lost` maps globs of channel names to one of the policies, before DEFAULTS; with `retry_safe_requests` a
    GET or HEAD request without a long body is retried once before it is reported.
    """

    def __init__(self, lost=None, retry_safe_requests=False):
        patterns = dict(lost or {})
        for pattern, policy in patterns.items():
            if policy not in (REPORT, RETRY, DEAD_LETTER):
                raise ImproperlyConfigured(
                    "The layer's option lost has %r for %r; it must be %r, %r or %r."
                    % (policy, pattern, REPORT, RETRY, DEAD_LETTER)
                )
        for pattern, policy in DEFAULTS.items():
            patterns.setdefault(pattern, policy)
        self._by_name = ByName(DEAD_LETTER, patterns)
        self._retry_safe_requests = retry_safe_requests

    def decide(self, channel, message, losses):
        """
        REPORT, RETRY or DEAD_LETTER, for `message` (dict) lost on `channel` for the `losses`-th time. REPORT
        only where there is a gateway to report to.
        """
        if (
            self._retry_safe_requests
            and channel == "http.request"
            and losses <= 1
            and message.get("method") in SAFE_METHODS
            and "body_channel" not in message
        ):
            return RETRY
        policy = self._by_name[channel]
        if policy == RETRY and losses >= MAX_LOSSES:
            return DEAD_LETTER
        if policy == REPORT and not ("exchange" in message and "reply_channel" in message):
            return DEAD_LETTER
        return policy

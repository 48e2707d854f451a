"""
What becomes of a message whose worker was lost: a pure policy by channel name, for layers that keep leases.

* "report": its gateway is told, which answers 502 or closes the socket with 1011;
* "retry": it goes back to the head of its channel, marked `redelivered`, and after MAX_LOSSES losses to
  the dead letters;
* "retry-safe": "retry" once for a GET or HEAD request, "report" for the rest;
* "dead-letter": it goes to the dead letters, for somebody to look at.
"""

import fnmatch

from django.core.exceptions import ImproperlyConfigured

REPORT, RETRY, RETRY_SAFE, DEAD_LETTER = "report", "retry", "retry-safe", "dead-letter"

#: A message that is retried goes to the dead letters when it is lost this often.
MAX_LOSSES = 3


class LostPolicy:
    """
    `patterns` maps globs of channel names to one of the four policies; the first that matches counts. What
    none matches is "report" for a gateway's event, "retry" for `websocket.disconnect` and
    `http.disconnect`, and "dead-letter" for the rest.
    """

    def __init__(self, patterns=None):
        self._patterns = list((patterns or {}).items())
        for pattern, policy in self._patterns:
            if policy not in (REPORT, RETRY, RETRY_SAFE, DEAD_LETTER):
                raise ImproperlyConfigured(
                    "The policy of %r for lost messages is %r; it must be one of %s."
                    % (pattern, policy, ", ".join((REPORT, RETRY, RETRY_SAFE, DEAD_LETTER)))
                )

    def decide(self, channel, message, losses):
        """
        REPORT, RETRY or DEAD_LETTER, for `message` (dict) lost on `channel` for the `losses`-th time. REPORT
        only where there is a gateway to report to.
        """
        for pattern, policy in self._patterns:
            if fnmatch.fnmatchcase(channel, pattern):
                break
        else:
            policy = self._default(channel, message)
        reportable = "exchange" in message and "reply_channel" in message
        if policy == RETRY_SAFE:
            safe = message.get("method") in ("GET", "HEAD") and losses <= 1
            policy = RETRY if safe else REPORT
        if policy == RETRY and losses >= MAX_LOSSES:
            return DEAD_LETTER
        if policy == REPORT and not reportable:
            return DEAD_LETTER
        return policy

    def _default(self, channel, message):
        if channel in ("websocket.disconnect", "http.disconnect"):
            return RETRY
        return REPORT if "exchange" in message else DEAD_LETTER

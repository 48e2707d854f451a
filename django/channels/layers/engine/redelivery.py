"""
The redelivery policy: what happens to a message whose worker died. Pure: by channel name and message.

* "report": its gateway is told, which answers 502 or closes the socket with 1011;
* "retry": it is requeued, marked `redelivered`; lost for the third time, it becomes a dead letter;
* "dead-letter": it becomes a dead letter, for an operator to examine.
"""

from __future__ import annotations

from typing import Any, Mapping

from django.core.exceptions import ImproperlyConfigured

from ... import protocol
from ..names import ByName

REPORT, RETRY, DEAD_LETTER = "report", "retry", "dead-letter"

#: A message that is retried becomes a dead letter when it is lost for this many times.
MAX_LOSSES = 3

#: The policies that a site's own patterns override. Other channels are DEAD_LETTER.
DEFAULTS = {
    protocol.HTTP_REQUEST: REPORT,
    protocol.WEBSOCKET_CONNECT: REPORT,
    protocol.WEBSOCKET_RECEIVE: REPORT,
    protocol.HTTP_DISCONNECT: RETRY,
    protocol.WEBSOCKET_DISCONNECT: RETRY,
}

#: Requests that RFC 9110 calls safe, which `retry_safe_requests` allows to run once more.
SAFE_METHODS = ("GET", "HEAD")


class RedeliveryPolicy:
    """
    The policy of one layer. `lost` maps globs of channel names to a policy, before DEFAULTS. With
    `retry_safe_requests`, a GET or HEAD request without a long body is retried once before it is reported.

    Raises ImproperlyConfigured for an unknown policy.
    """

    def __init__(
        self, lost: Mapping[str, str] | None = None, retry_safe_requests: bool = False
    ) -> None:
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

    def decide(self, channel: str, message: dict[str, Any], losses: int) -> str:
        """
        Return REPORT, RETRY or DEAD_LETTER for `message`, lost on `channel` for the `losses`-th time. REPORT
        only if a gateway waits for the message's acknowledgement.
        """
        if (
            self._retry_safe_requests
            and channel == protocol.HTTP_REQUEST
            and losses <= 1
            and message.get("method") in SAFE_METHODS
            and protocol.BODY_CHANNEL not in message
        ):
            return RETRY
        policy: str = self._by_name[channel]
        if policy == RETRY and losses >= MAX_LOSSES:
            return DEAD_LETTER
        if policy == REPORT and protocol.reply_address(message) is None:
            return DEAD_LETTER
        return policy

"""
Hold a response to its Content-Length. Pure: no I/O.

Otherwise a server, such as Daphne, may send what is too much ahead of the next response on the connection.
The handler of views holds to the length by itself; this is for every reply of a consumer.
"""

from __future__ import annotations

from typing import Any, Iterable

from .headers import content_length

#: Statuses of responses without a body.
BODILESS = (204, 304)

TOO_LONG = "The content of a reply to %s is longer than its Content-Length, and was cut there."
TOO_SHORT = (
    "The content of a reply to %s is shorter than its Content-Length: its client gets an error."
)


class Length:
    """How much of the content of one response may follow."""

    __slots__ = ("_has_body", "_left")

    def __init__(self, method: Any, status: int, headers: Iterable[Any]) -> None:
        self._has_body = method != "HEAD" and status not in BODILESS
        #: Bytes that may follow. None without a limit.
        self._left: int | None = content_length(headers) if self._has_body else 0

    def fit(self, content: bytes, more: bool) -> tuple[bytes, bool, str | None]:
        """
        Return what may be sent of `content`, whether more of it may follow, and what to log: None if the
        content is right, TOO_LONG, or TOO_SHORT if the response must break off.
        """
        if self._left is None:
            return content, more, None
        surplus = len(content) > self._left
        if len(content) < self._left and not more:
            return content, more, TOO_SHORT
        content = content[: self._left]
        self._left -= len(content)
        return content, more and not surplus, TOO_LONG if surplus and self._has_body else None


def add_length(head: dict[str, Any], method: str, size: int) -> None:
    """Add the Content-Length to the event that begins a response of `size` bytes, if it lacks one."""
    if method == "HEAD" or head["status"] in BODILESS:
        return
    headers = list(head.get("headers") or ())
    if content_length(headers) is None:
        head["headers"] = [*headers, (b"content-length", b"%d" % size)]

"""Answers that come before the body of their request was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .headers import content_length
from .internals import GRANIAN
from .length import add_length

if TYPE_CHECKING:
    from .upload import Upload


def ends_at_length(send: Any) -> bool:
    """
    Return whether this is the `send` of a server (granian) that ends the connection as soon as a response has
    its length, although the body of the request wasn't read, and although the last part wasn't sent.
    """
    kind = type(getattr(send, "__self__", None))
    return (kind.__module__, kind.__qualname__) == (GRANIAN, "ASGIHTTPProtocol")


class SendAfterUpload:
    """
    A `send` that ends a response only after the body of its request was read or dropped.

    A response of one part gets its length and leaves at once, without its end. With the length, its client
    has all of it. Without the length, nginx would wait for the end before it sends more of the body, while
    the end waits for the body.

    A server for which `ends_at_length` holds gets the part that completes the response only afterwards, and
    the head with it: nginx answers with 502 if its connection ends while it sends the body.

    A response of several parts whose head has left, and whose end its client can't tell yet, waits only as
    long as the body is coming: nginx may have stopped sending it.
    """

    def __init__(self, send: Any, upload: Upload) -> None:
        self._send = send
        self._upload = upload
        self._head: dict[str, Any] | None = None  # until the first part comes
        self._ends_at_length = ends_at_length(send)
        self._left: int | None = None  # bytes until the response has its length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._send, name)

    async def __call__(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self._head = event
            self._left = content_length(event.get("headers") or ())
            return
        is_last = event["type"] == "http.response.body" and not event.get("more_body")
        if self._ends_at_length and (is_last or self._completes(event)) and self._expects_body:
            await self._upload.drain(proxy_waits=self._head is None)
            waits = False
        else:
            waits = is_last and self._expects_body
        proxy_waits = self._head is None and self._left is None
        if self._head is not None:
            head, self._head = self._head, None
            if waits:
                add_length(head, self._upload.method, len(event.get("body", b"")))
            await self._send(head)
        if waits:
            if event.get("body"):
                await self._send(dict(event, more_body=True))
                event = dict(event, body=b"")
            await self._upload.drain(proxy_waits)
        await self._send(event)

    @property
    def _expects_body(self) -> bool:
        """Whether more of the body of the request may come."""
        return not (self._upload.complete or self._upload.gone)

    def _completes(self, event: dict[str, Any]) -> bool:
        """Return whether the response has its length with this part."""
        if self._left is None:
            return False
        self._left -= len(event.get("body", b""))
        return self._left <= 0

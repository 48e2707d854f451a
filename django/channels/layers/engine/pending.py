"""
What the event loop of a gateway wants its layer to do, in the order in which it must be done. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ...exceptions import MessageTooLarge
from ..messages import MAX_WEIGHT

if TYPE_CHECKING:
    from ..base import Message
    from .store import Store

#: Bytes, or characters of text, in the body of one message. A message of MAX_WEIGHT fits whatever it holds.
MAX_BODY = 2 * MAX_WEIGHT

#: Why a body cannot be made: a message of a gateway isn't checked before.
UNSENDABLE = (MessageTooLarge, TypeError, ValueError, OverflowError)

#: Logged without a traceback: Django's mail to the admins shows the variables of each frame. With a large
#: message, this takes minutes, for which the event loop would stand still.
WILL_REFUSED = "The last will of %s cannot be stored: %s."


class Send(NamedTuple):
    """One message on its way out: `body` is a message, or what a store has made of it."""

    channel: str
    body: Any
    unlimited: bool
    failed: Callable[[Exception], None]
    #: What is equal in an event and in the same event when it is sent again; None for another message.
    event: Any = None


class Batch(NamedTuple):
    """
    What one step of a sender takes: wills to set by connection, wills to clear, discards, sends, and
    channels to drop.
    """

    wills: dict[str, Any]
    cleared: list[str]
    discards: list[tuple[str, str]]
    sends: list[Send]
    dropped: list[str]


class PendingWork:
    """
    What a gateway wants its layer to do, in the order it must be done in a batch.

    Sends keep their order. Of the wills of one connection, only the last counts. Not thread-safe: the inbox
    that owns it uses it from one thread, or under its lock.
    """

    def __init__(self) -> None:
        self._sends: deque[Send] = deque()
        self._wills: OrderedDict[str, Any] = OrderedDict()  # by connection; None: clear it
        self._stored: set[str] = set()  # connections whose will the store may have
        self._discards: list[tuple[str, str]] = []
        self._dropped: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._sends or self._wills or self._discards or self._dropped)

    def send(self, send: Send) -> None:
        """Add a message."""
        self._sends.append(send)

    def set_will(self, connection: str, will: Any) -> None:
        """Set the will of a connection, in place of an earlier one."""
        self._wills[connection] = will

    def clear_will(self, connection: str) -> None:
        """Clear the will of a connection; one that no store has heard of is forgotten here."""
        if connection in self._stored:
            self._wills[connection] = None
        else:
            self._wills.pop(connection, None)

    def discard(self, group: str, channel: str) -> None:
        """Remove a membership."""
        self._discards.append((group, channel))

    def drop(self, channel: str) -> None:
        """Remove what waits on a channel."""
        self._dropped.append(channel)

    def take(self, limit: int, size: int | None = None) -> Batch:
        """
        Take a batch of at most `limit` messages, and about `size` bytes if their bodies are bytes. Its wills
        and discards are all there are. Wills are cleared, and channels dropped, only with the last message:
        the one that says that the connection has ended, or a part of a body, must leave first, or with it.
        """
        sends: list[Send] = []
        total = 0
        while self._sends and len(sends) < limit and (size is None or total < size):
            sends.append(self._sends.popleft())
            if size is not None:
                total += len(sends[-1].body)
        changes, self._wills = self._wills, OrderedDict()
        wills = {connection: will for connection, will in changes.items() if will is not None}
        cleared = [connection for connection, will in changes.items() if will is None]
        dropped: list[str] = []
        if self._sends:
            self._wills.update(dict.fromkeys(cleared))
            cleared = []
        else:
            dropped, self._dropped = self._dropped, []
        self._stored.update(wills)
        discards, self._discards = self._discards, []
        return Batch(wills, cleared, discards, sends, dropped)

    def done(self, batch: Batch) -> None:
        """Forget the connections whose wills a batch has cleared in the store."""
        self._stored.difference_update(each for each in batch.cleared if each not in self._wills)

    def put_back(self, batch: Batch) -> None:
        """
        Take back a batch that may not have been done, except for its messages: each change may be done
        twice. The messages are not sent again here; the caller reports them.
        """
        changes: OrderedDict[str, Any] = OrderedDict(batch.wills)
        changes.update(dict.fromkeys(batch.cleared))
        changes.update(self._wills)
        self._wills = changes
        self._discards = batch.discards + self._discards
        self._dropped = batch.dropped + self._dropped

    def withdraw(self) -> list[Send]:
        """Return the messages that wait, which are then not sent. What else is wanted stays."""
        sends = list(self._sends)
        self._sends.clear()
        return sends


def encode(store: Store, channel: str, message: Message) -> Any:
    """Return the body of a gateway's message. Raises one of UNSENDABLE."""
    body = store.encode(channel, message)
    if len(body) > MAX_BODY:
        text = "The message for %s takes %d bytes, over the limit of %d."
        raise MessageTooLarge(text % (channel, len(body), MAX_BODY))
    return body

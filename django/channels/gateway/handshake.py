"""
What other code sends to a WebSocket whose handshake is not answered: it waits here. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Any, Dict

from ..habits import PAGE
from ..protocol import ERROR, REPLIES, is_notice
from .frames import MIN_UNREAD_WEIGHT, SharedRoom
from .state import LOG, Action

Message = Dict[str, Any]

#: Seconds in which the site has to accept or deny a WebSocket. Behind Daphne, too: see daphne.py.
ACCEPT_TIMEOUT = 30.0

#: Messages, and their length, that wait. They must not be more than a client that reads slowly may have
#: unread (`websocket.MAX_UNREAD`), together with the one that answers the handshake.
MAX_BUFFERED = 999
MAX_BUFFERED_LENGTH = 4 * 1024 * 1024


#: What is logged of a handshake that ends without an answer: its event is in flight, or was handled.
UNHANDLED = (
    "WebSocket %s was not accepted in time: denied after %s s. No worker has handled its websocket.connect "
    "to the end. Look for busy or missing workers (manage.py runworker), and for a consumer that waits."
)
UNANSWERED = (
    "WebSocket %s was not accepted in time: denied after %s s. Its consumer of websocket.connect has ended "
    'without an answer. Send {"accept": True} or {"close": True} to message.reply_channel, or call accept() '
    "or close() of a class."
)


LEFT = (
    "The client of WebSocket %s has left before its handshake was answered. The consumer of "
    'websocket.connect had ended without an answer. Send {"accept": True} or {"close": True} to '
    "message.reply_channel, or call accept() or close() of a class."
)


class HandshakeBuffer:
    """
    The messages of others that wait for the answer to a handshake, in order.

    `decision` is the first of them that answers the handshake, or None. The others count in `room`, with what
    other code has sent to open sockets. Belongs to the event loop of its gateway.
    """

    __slots__ = ("decision", "room", "_length", "_messages")

    def __init__(self) -> None:
        self.decision: Message | None = None
        self.room: SharedRoom | None = None
        self._messages: list[Message] = []
        self._length = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, message: Message) -> bool:
        """Keep `message`, if it would do anything. Return False if the buffer is full."""
        if not has_data(message) and not message.get("close"):
            return True
        length = self._length + length_of(message)
        if len(self._messages) >= MAX_BUFFERED or length >= MAX_BUFFERED_LENGTH:
            return False
        if self.room is not None:
            if self.room.is_full and length > MIN_UNREAD_WEIGHT:
                return False
            self.room.take(carried_by(message))
        self._messages.append(message)
        self._length = length
        return True

    def add_decision(self, message: Message) -> bool:
        """Keep `message` if it is the first that answers the handshake. There is always room for that one."""
        accept = message.get("accept")
        if self.decision is not None or not (accept or accept is False or message.get("close")):
            return False
        self.decision = message
        self._messages.append(message)
        return True

    def take(self) -> list[Message]:
        """Return the messages, and forget them."""
        messages = self._messages
        if self.room is not None:
            for each in messages:
                if each is not self.decision:
                    self.room.give(carried_by(each))
        self.decision, self._messages, self._length = None, [], 0
        return messages


def length_of(message: Message) -> int:
    """Return the length of the text or bytes in a message."""
    return len(carried_by(message))


def carried_by(message: Message) -> str | bytes:
    """Return the text or bytes in a message. Nothing for another type, which is never written."""
    carried = message.get("text") or message.get("bytes")
    return carried if isinstance(carried, (str, bytes)) else ""


def has_data(message: Message) -> bool:
    """Return whether a message carries a frame."""
    return message.get("text") is not None or message.get("bytes") is not None


def answer_to_handshake(message: Message) -> bool | None:
    """
    Return True if a reply to the connect event accepts the handshake, False if it denies it, and None if it
    decides nothing. Data accepts, too. The test client decides by this function as well.
    """
    if message.get("accept") is False or (message.get("close") and not has_data(message)):
        return False
    return True if message.get("accept") or has_data(message) else None


def refuses(message: Message) -> bool:
    """
    Return whether the consumer of the connect event ends the socket in the message that answers it: also if
    it accepts the handshake first, so that a browser sees the close code.
    """
    return bool(message.get(ERROR)) or any(each.get("close") for each in message.get(REPLIES) or ())


def says_nothing(message: Message) -> bool:
    """Return whether a message to an open socket without a frame and without "close" is a mistake."""
    if message.get("accept") is False:
        return True
    return not ("accept" in message or "close" in message or is_notice(message))


def nothing_for(path: str, message: Message) -> Action:
    """Return the action that logs a message which says nothing to the socket of `path`."""
    text = (
        "A message to WebSocket %s, or to a group that it is in, lacks text, bytes and close, so its client "
        "gets nothing. Its keys: %s. Send {'text': …}."
    )
    if "accept" in message:
        text += " To end a socket that was accepted, send {'close': True}."
    if "type" in message:
        text += " Its type calls no method of a consumer here, unlike in Channels 2 to 4. " + PAGE
    return (LOG, "warning", text, path, ", ".join(sorted(map(str, message))) or "none")


def no_answer_for(path: str, message: Message) -> Action:
    """Return the action that logs a reply to the handshake of `path` which doesn't answer it."""
    text = (
        "A reply to the handshake of WebSocket %s lacks accept, close, text and bytes, so it answers "
        "nothing. Its keys: %s. Send {'accept': True}."
    )
    return (LOG, "warning", text, path, ", ".join(sorted(map(str, message))) or "none")

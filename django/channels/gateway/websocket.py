"""
A WebSocket's state: what to do about each thing that can happen to it. Pure: no I/O, no clock.

The messages follow the ASGI 1.0 specification's WebSocket section, with the control keys of `protocol.py`.
The file is a little over 400 lines because all transitions of the state are in one class.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Sequence

from ..layers.messages import weigh
from ..protocol import (
    ACK,
    DURING,
    ERROR,
    FRAMES,
    LOST,
    RAN,
    REPLIES,
    SESSION,
    WEBSOCKET_CONNECT,
    WEBSOCKET_DISCONNECT,
    WEBSOCKET_RECEIVE,
    WINDOW_CHANNEL,
    is_notice,
    still_there,
)
from ..subprotocols import choose
from .codes import FAILED, GOING_AWAY, GONE, NORMAL, OVERLOADED, RESTARTED, SENDABLE, TOO_BIG
from .frames import (
    MAX_FRAME,
    MAX_WAITING,
    MIN_UNREAD_WEIGHT,
    SMALL_FRAME,
    UNLIMITED,
    UNLIMITED_UNREAD,
    FrameQueue,
    FrameRoom,
    SharedRoom,
    UnreadRoom,
)
from .handshake import (
    ACCEPT_TIMEOUT,
    LEFT,
    UNANSWERED,
    UNHANDLED,
    HandshakeBuffer,
    answer_to_handshake,
    has_data,
    length_of,
    no_answer_for,
    nothing_for,
    refuses,
    says_nothing,
)
from .state import COUNT, DISCARD, FINISH, LOG, SEND, WRITE, Action, ConnectionState
from .window import SocketWindow

# The phases of a socket.
CONNECTING = "connecting"  # connect is with the workers, the handshake is not answered
OPEN = "open"
CLOSING = "closing"  # no frame comes or goes any more; events before the close are still handled
CLOSED = "closed"  # nothing more will be sent to the workers

#: What moves it from one phase to the next. A pair that is not here changes nothing.
TRANSITIONS = {
    (CONNECTING, "accept"): OPEN,
    (CONNECTING, "deny"): CLOSED,
    (CONNECTING, "gone"): CLOSING,
    (OPEN, "close"): CLOSING,
    (OPEN, "gone"): CLOSING,
    (CLOSING, "drained"): CLOSED,
}

#: Messages, and their length, that wait for a client that reads slowly.
MAX_UNREAD = 1000
MAX_UNREAD_WEIGHT = 4 * 1024 * 1024

#: What is logged when a socket is closed because all clients together leave too much unread.
CROWDED = (
    "WebSocket %s was closed with 1013: its client reads too slowly what groups and other code send, and the "
    "clients of this gateway, or of one address, have more unread than the option unread_memory allows."
)

#: What is logged of frames that were sent, and that no client gets.
BOTH = (
    "A message to WebSocket %s has both text and bytes, and a frame is one of them: its bytes were not sent. "
    "Send two messages."
)
AFTER_CLOSE = (
    "A consumer of WebSocket %s sent a frame after its own close, so its client doesn't get it. Send the "
    "frame first, or both in one: {'text': …, 'close': True}."
)
AFTER_THE_END = (
    "The consumer of websocket.disconnect for WebSocket %s sent a frame to its own client, which has gone. "
    "To tell other clients, send to a group."
)

# The sender of a message. Too many unread messages of others close the socket. Too many of the socket's own
# consumers stop its frames from being handled.
OTHERS, OWN = False, True


class WebSocket(ConnectionState):
    """
    The state of one socket. Every method is an event and returns actions (see state.py).

    Belongs to the event loop of its gateway.
    """

    #: Whether the server has closed the connection, and what it has read is all that will come.
    _has_last_frames = False

    def __init__(self, reply_channel: str, path: str) -> None:
        super().__init__(reply_channel, path)
        self.phase = CONNECTING
        #: Whether the connect event was sent: then a disconnect event must follow.
        self.connected = False
        self.close_code: Any = None
        self.known_subprotocols: Sequence[str] = ()  # the site's, for an answer that names none
        self._subprotocols: Sequence[str] = ()
        self._order = 0
        self._frames = FrameQueue(UNLIMITED)
        self._all_unread = UNLIMITED_UNREAD
        self._all_of_others: SharedRoom | None = None
        self._of_others: Any = ()  # what waits of others, and counts there; a deque once there is any
        self._buffered = HandshakeBuffer()
        self._unread, self._unread_weight = [0, 0], [0, 0]  # by sender: OTHERS, OWN
        #: Whether the server takes nothing more for the client.
        self._is_cut_off = False
        self._window = SocketWindow(reply_channel)

    # What the client does.

    def connect(self, message: dict[str, Any]) -> list[Action]:
        """Handle the request of the handshake. `message` is what `scopes.connect_event` returned."""
        self.connected = True
        self._subprotocols = message.get("subprotocols") or ()
        message["order"] = 0
        return [self.event(WEBSOCKET_CONNECT, 0, message)]

    def frame(self, text: str | None = None, data: bytes | None = None) -> list[Action]:
        """Handle a frame of `text`, or of `data`."""
        if self.phase != OPEN:
            return []
        key, value = ("text", text) if text is not None else ("bytes", data or b"")
        weight = weigh(value)
        if weight > MAX_FRAME:
            return [(COUNT, "frames_too_big"), *self._close(TOO_BIG)]
        self._order += 1
        if self.in_flight is None and not self._is_suspended():
            if weight > SMALL_FRAME:
                self._frames.send(weight)
            return [self._receive({key: value, "order": self._order})]
        self._frames.add(weight, {key: value, "order": self._order})
        return []

    def gone(self, code: int = GONE) -> list[Action]:
        """Handle the end of the connection. `code` is the client's close code, or GONE."""
        if self.phase == CLOSING:
            return [(FINISH,)]
        self.close_code = code
        unanswered = self.phase == CONNECTING and self.in_flight is None
        self._move("gone")
        self._forget_others()
        actions: list[Action] = [(LOG, "warning", LEFT, self.path)] if unanswered else []
        return [*actions, (DISCARD,), (FINISH,), *self._window.end(), *self._next()]

    def cut_off(self) -> list[Action]:
        """
        Handle that the server takes nothing more for the client, which has gone. Its frames that have come
        are handled, and `gone` follows them. The answers to them are dropped: waiting for the client to read
        would never end.
        """
        self._is_cut_off = True
        self._all_unread.add(-self._unread_weight[OWN])
        self._unread, self._unread_weight = [0, 0], [0, 0]
        self._forget_others()
        return [(DISCARD,), *self._window.end(), *self._next()]

    def read_to_end(self) -> None:
        """Take what the server still has of the client. It reads no more."""
        self._has_last_frames = True

    @property
    def over(self) -> bool:
        """Whether nothing more will be sent to the workers."""
        return self.phase == CLOSED

    @property
    def reading(self) -> bool:
        """Whether the socket may be read. Not while too many frames wait for a worker."""
        frames = self._frames
        if not frames.waiting and not frames.all.full_rooms:
            return True
        return self._has_last_frames or frames.has_room

    def use_rooms(
        self, frames: FrameRoom, unread: UnreadRoom, of_others: SharedRoom | None = None
    ) -> None:
        """
        Count frames of the client in `frames`. Count what it has not read in `unread`, or in `of_others` if
        other code sent it.
        """
        self._frames, self._all_unread, self._all_of_others = FrameQueue(frames), unread, of_others
        self._buffered.room = of_others

    def call_when_free(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` when there may be room for frames that other sockets take now."""
        self._frames.room.call_when_free(callback)

    def stop_waiting(self, callback: Callable[[], Any], is_leaving: bool = False) -> None:
        """Forget a callback of `call_when_free`. With `is_leaving`, others may have the room at once."""
        self._frames.room.forget(callback, is_leaving)

    def release(self) -> None:
        """Count nothing of this socket any more: its gateway forgets it."""
        self._frames.clear()
        self._frames.landed()
        self._all_unread.add(-self._unread_weight[OWN])
        self._unread_weight[OWN] = 0
        self._forget_others()

    # What the workers and the rest of the site send.

    def reply(self, message: dict[str, Any]) -> list[Action]:
        """Handle a message on the reply channel."""
        if ACK not in message and REPLIES not in message:
            if WINDOW_CHANNEL in message:
                return [(SEND, message[WINDOW_CHANNEL], still_there(self._takes_nothing))]
            is_own = self.in_flight is not None and message.get(DURING) == self.in_flight
            actions = self._apply(message, OTHERS) if is_own else self._apply_of_others(message)
            actions += self._merge_session(message.get(SESSION))
            if LOST in message and message[LOST] == self.in_flight:
                actions += self.lost()
            return actions
        actions = []
        if ACK in message and message[ACK] != self.in_flight:
            # The layer was unavailable, so that the answer was sent twice. The client already has it.
            return actions
        if WINDOW_CHANNEL in message:
            return self._apply_windowed(message)
        before = self.phase
        if before == CONNECTING and refuses(message):
            self._buffered.take()
        for each in message.get(REPLIES) or ():
            if self.phase in (CLOSING, CLOSED) and before != CLOSING and has_data(each):
                text = AFTER_THE_END if before == CLOSED else AFTER_CLOSE
                actions.append((LOG, "warning", text, self.path))
            actions += self._apply(each, sender=OWN)
        if SESSION in message:
            actions += self._merge_session(message[SESSION])
        if message.get(ERROR):
            actions += self._close(FAILED)
        if ACK in message:
            self._end_event(message.get(RAN, 0))
            if self._buffered.decision is not None:
                actions += self._decide()
            actions += self._next()
        return actions

    def _apply_windowed(self, message: dict[str, Any]) -> list[Action]:
        """Handle replies of a consumer that waits until they are written."""
        actions = self._window.open(message[WINDOW_CHANNEL])
        for each in message[REPLIES]:
            actions += self._window.mark(self._apply(each, sender=OWN))
        return actions + (self._window.end() if self._takes_nothing else [])

    @property
    def _takes_nothing(self) -> bool:
        """Whether no further frame is written to the client."""
        return self._is_cut_off or self.phase in (CLOSING, CLOSED)

    def _merge_session(self, patch: Any) -> list[Action]:
        """Apply what a consumer changed in the session, in the last will too."""
        return [self.last_will()] if self.merge(patch) and self.connected else []

    def last_will(self) -> Action:
        """Return the action that has the layer send the disconnect event if this gateway is lost."""
        return self.will(WEBSOCKET_DISCONNECT, {"code": GONE})

    def group(self, message: dict[str, Any]) -> list[Action]:
        """Handle a message to a group that the socket is in. It never answers a handshake, so it waits."""
        if self.phase == CONNECTING:
            return [] if self._buffered.add(message) else [(COUNT, "group_full")]
        return self._apply(message, sender=OTHERS)

    def _apply_of_others(self, message: dict[str, Any]) -> list[Action]:
        """
        Do what a message says that other code sent than the consumer of the event in flight.

        Until the handshake is answered, it waits. It may answer the handshake with an explicit "accept" or
        "close", after the consumer of the connect event has ended without an answer.
        """
        if self.phase != CONNECTING:
            return self._apply(message, sender=OTHERS)
        if self._buffered.add_decision(message):
            return self._decide()
        return [] if self._buffered.add(message) else [(COUNT, "handshake_full")]

    def _decide(self) -> list[Action]:
        """Answer the handshake as other code asked, if the consumer of the connect event has ended."""
        decision = self._buffered.decision
        if decision is None or self.phase != CONNECTING or self.in_flight is not None:
            return []
        if answer_to_handshake(decision) is False:
            return self._deny()
        return self._accept(decision) + self._apply_buffered()

    def _apply_buffered(self) -> list[Action]:
        """Do what the messages say that have waited for the handshake, in order."""
        actions: list[Action] = []
        for each in self._buffered.take():
            actions += self._apply(each, sender=OTHERS)
        return actions

    def _apply(self, message: dict[str, Any], sender: bool) -> list[Action]:
        """
        Do what one message says. OWN is a reply of the consumer that handles this socket's event.

        In a handshake, the message answers it: call this for the own consumer's messages only.
        """
        if self.phase in (CLOSING, CLOSED):
            return []
        text, data, close = message.get("text"), message.get("bytes"), message.get("close")
        actions: list[Action] = []
        is_handshake = self.phase == CONNECTING
        if is_handshake:
            accepted = answer_to_handshake(message)
            if accepted is None:
                return [] if is_notice(message) else [no_answer_for(self.path, message)]
            if not accepted:
                return self._deny()
            actions += self._accept(message)
        if text is not None:
            actions += self._write("text", text, str, sender)
            if data is not None:
                actions.append((LOG, "error", BOTH, self.path))
        elif data is not None:
            actions += self._write("bytes", data, bytes, sender)
        if close:
            actions += self._close_as_asked(close)
        elif text is None and data is None and says_nothing(message):
            actions.append(nothing_for(self.path, message))
        if is_handshake and self._buffered and self.phase == OPEN:
            actions += self._apply_buffered()
        return actions

    def _accept(self, answer: dict[str, Any]) -> list[Action]:
        self._move("accept")
        chosen, refused = choose(answer, self._subprotocols, self.known_subprotocols)
        accept = {"type": "websocket.accept"}
        if chosen is not None:
            accept["subprotocol"] = chosen
        if refused is None:
            return [(WRITE, accept, None)]
        text = "Cannot accept %s with subprotocol %s: the client did not offer it."
        return [(LOG, "error", text, self.path, repr(refused)), (WRITE, accept, None)]

    def _close_as_asked(self, code: Any) -> list[Action]:
        """Close the socket as a reply asks, with True or a close code."""
        if code is True:
            code = NORMAL
        elif not isinstance(code, int) or not (code in SENDABLE or 3000 <= code <= 4999):
            text = (
                "A reply closes %s with %s, which isn't a close code: 1011 was sent instead. Send "
                "True, 1000, or a number from 3000 to 4999."
            )
            return [(LOG, "error", text, self.path, repr(code)), *self._close(FAILED)]
        return self._close(code)

    def _write(
        self, key: str, value: Any, kind: type[str] | type[bytes], sender: bool
    ) -> list[Action]:
        if not isinstance(value, kind):
            text = "A reply's %s to %s is of type %s; it must be %s. It was not sent."
            values = (key, self.path, type(value).__name__, kind.__name__)
            return [(LOG, "error", text, *values)]
        if self._is_cut_off:
            return []
        length = len(value)
        if not sender and (self._is_behind(OTHERS) or self._is_crowded(length)):
            crowded = [] if self._is_behind(OTHERS) else [(LOG, "warning", CROWDED, self.path)]
            self._forget_others()
            return [*crowded, (COUNT, "slow_clients"), (DISCARD,), *self._close(OVERLOADED)]
        self._unread[sender] += 1
        self._unread_weight[sender] += length
        if sender:
            self._all_unread.add(length)
            self._frames.answered += length
        else:
            self._hold(value)
        return [(WRITE, {"type": "websocket.send", key: value}, sender)]

    def written(self, event: dict[str, Any], sender: Any) -> list[Action]:
        """
        Handle that the server has taken an event: the client reads. `sender` is OWN, OTHERS, the window of
        the consumer that awaits its sends, or None for no frame.
        """
        if sender is None:
            return []
        if sender.__class__ is str:
            return self._window.written(sender, event) + self.written(event, OWN)
        length = len(event["text"] if "text" in event else event["bytes"])
        self._unread[sender] -= 1
        self._unread_weight[sender] -= length
        if sender:
            self._all_unread.add(-length)
        elif self._of_others:
            self._all_of_others.give(self._of_others.popleft())  # type: ignore[union-attr]
        if self.in_flight is None and sender and self._frames.waiting:
            return self._next()
        return []

    def wait_for_client(self, event: dict[str, Any]) -> None:
        """Handle that the server has not yet taken a frame of others, which was written at once."""
        self._unread[OTHERS] += 1
        self._unread_weight[OTHERS] += length_of(event)
        self._hold(event.get("text") or event.get("bytes") or "")

    def _hold(self, value: str | bytes) -> None:
        """Count a message of others, in order, until it was written or is forgotten."""
        if self._all_of_others is not None:
            self._of_others = self._of_others or deque()
            self._of_others.append(value)
            self._all_of_others.take(value)

    def _forget_others(self) -> None:
        """Count no message of others any more. None waits, or those that do are discarded."""
        values, self._of_others = self._of_others, ()
        for each in values:
            self._all_of_others.give(each)  # type: ignore[union-attr]

    def _is_crowded(self, length: int) -> bool:
        """Return whether all clients, or its address, leave too much of others unread, and this one much."""
        room, unread = self._all_of_others, self._unread_weight[OTHERS]
        if room is None or not room.is_full or not unread:
            return False
        return unread + length > MIN_UNREAD_WEIGHT

    def _is_behind(self, sender: bool) -> bool:
        """Return whether the client has too much of this sender unread."""
        return (
            self._unread[sender] >= MAX_UNREAD or self._unread_weight[sender] >= MAX_UNREAD_WEIGHT
        )

    def _is_suspended(self) -> bool:
        """Return whether frames are not handled, because this client, its address or all have much unread."""
        if self.phase != OPEN or not self._unread[OWN]:
            return False
        if self._is_behind(OWN):
            return True
        return self._unread_weight[OWN] >= MIN_UNREAD_WEIGHT and self._all_unread.is_full

    # What goes wrong.

    def lost(self) -> list[Action]:
        """Handle that the worker died that handled the event in flight, or that the event expired."""
        self._end_event()
        return [(COUNT, "lost"), *self._close(FAILED), *self._next()]

    def refused(self, channel: str) -> list[Action]:
        """Handle that the layer did not take the event in flight, because `channel` is full."""
        self._end_event()
        actions: list[Action] = [(COUNT, "refused")]
        if channel == WEBSOCKET_CONNECT:
            # Accept it, because a browser sees the close code of an open socket only. No event was sent.
            self.connected = False
            self._move("accept")
            actions.append((WRITE, {"type": "websocket.accept"}, None))
        return actions + self._close(OVERLOADED) + self._next()

    def reset(self, told: bool = False) -> list[Action]:
        """
        Handle that the layer has lost its data, and with it this socket's memberships. If the site was `told`
        that the socket has ended, its last will was sent: no second disconnect follows.
        """
        if self.phase == CONNECTING and self.in_flight is not None:
            # Nothing tells whether a worker has taken the connect event.
            self.connected = False
            return self._deny()
        self._end_event()
        self.connected = self.connected and not told
        return self._close(RESTARTED) + self._next()

    def silent(self) -> list[Action]:
        """Handle that nothing has come from the client for too long."""
        return [(COUNT, "silent"), *self._close(GOING_AWAY)] if self.phase == OPEN else []

    def timeout(self) -> list[Action]:
        """Handle that the handshake was not answered in time."""
        if self.phase != CONNECTING:
            return []
        self.close_code = GONE
        text = UNHANDLED if self.in_flight is not None else UNANSWERED
        self._move("gone")
        return [
            (LOG, "warning", text, self.path, "%g" % ACCEPT_TIMEOUT),
            (WRITE, {"type": "websocket.close", "code": NORMAL}, None),
            (FINISH,),
            *self._next(),
        ]

    # The steps behind them.

    def _end_event(self, ran: int | None = None) -> None:
        """Note that no event is in flight. Its consumers ran for `ran` milliseconds, if that is known."""
        self.in_flight = None
        if ran or self._frames.sent:
            self._frames.landed(ran)

    def _move(self, event: str) -> None:
        self.phase = TRANSITIONS.get((self.phase, event), self.phase)
        if self.phase in (CLOSING, CLOSED):
            self._buffered.take()

    def _deny(self) -> list[Action]:
        """Refuse the handshake. The site is not told of the end of a socket that it denied."""
        self._move("deny")
        self._end_event()
        return [
            (COUNT, "denied"),
            (WRITE, {"type": "websocket.close", "code": NORMAL}, None),
            (FINISH,),
        ]

    def _close(self, code: int) -> list[Action]:
        """Close it from this side. Frames that wait for a worker are dropped."""
        if self.phase not in (CONNECTING, OPEN):
            return []
        self._move("gone" if self.phase == CONNECTING else "close")
        self.close_code = code
        self._frames.clear()
        return [
            (WRITE, {"type": "websocket.close", "code": code}, None),
            (FINISH,),
            *self._window.end(),
            *self._next(),
        ]

    def _next(self) -> list[Action]:
        """Send the next event, unless one is in flight."""
        if self.in_flight is not None:
            return []
        if self._frames.waiting:
            if self._is_suspended():
                return []
            # Each frame may have an answer that this client leaves unread, too.
            most = 1 if self._all_unread.is_full else MAX_WAITING
            return [self._receive(*self._frames.take_batch(most))]
        if self.phase == CLOSING:
            self._move("drained")
            if self.connected:
                self._order += 1
                message = {"path": self.path, "code": self.close_code, "order": self._order}
                return [self.event(WEBSOCKET_DISCONNECT, self._order, message)]
        return []

    def _receive(self, *frames: dict[str, Any]) -> Action:
        message: dict[str, Any] = frames[0] if len(frames) == 1 else {FRAMES: list(frames)}
        message["path"] = self.path
        return self.event(WEBSOCKET_RECEIVE, frames[-1]["order"], message)

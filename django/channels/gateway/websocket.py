"""
A WebSocket's state: what to do about each thing that can happen to it. Pure: no I/O, no clock.

The messages follow the ASGI 1.0 specification's WebSocket section, with the keys that exchanges add.
"""

from collections import deque

from ..layers.messages import weigh
from .exchanges import COUNT, DROP, FINISH, HOLD, LOG, WRITE, Exchange

# Where the socket stands.
CONNECTING = "connecting"  # connect is with the workers, the handshake is not answered
OPEN = "open"
CLOSING = "closing"  # no frame comes or goes any more; what came before is still being handled
CLOSED = "closed"  # nothing more will be sent to the workers

#: What moves it on. A pair that is not here changes nothing.
TRANSITIONS = {
    (CONNECTING, "accept"): OPEN,
    (CONNECTING, "deny"): CLOSED,
    (CONNECTING, "gone"): CLOSING,
    (OPEN, "close"): CLOSING,
    (OPEN, "gone"): CLOSING,
    (CLOSING, "drained"): CLOSED,
}

# Close codes, of RFC 6455 and the IANA registry.
GONE = 1006
TOO_BIG = 1009
ERROR = 1011
RESTARTED = 1012
OVERLOADED = 1013

#: Those below 3000 that a server may send; 1005, 1006 and 1015 never travel.
_SENDABLE = frozenset(range(1000, 1015)) - {1004, 1005, 1006}

#: Frames, and their weight in bytes, that wait for a worker before the socket is no longer read.
MAX_WAITING = 64
MAX_WAITING_WEIGHT = 1024 * 1024

#: The heaviest frame that fits into a message, with room for the other keys.
MAX_FRAME = 1024 * 1024 - 16 * 1024

#: Frames that wait may go to the worker together, up to this weight in bytes.
MAX_BATCH_WEIGHT = 512 * 1024

#: Messages, and their weight (length), that wait for a client that reads slowly.
MAX_UNREAD = 1000
MAX_UNREAD_WEIGHT = 4 * 1024 * 1024

# Who sent them: past the bound, others' messages close the socket; its own consumers' stop its frames.
OTHERS, OWN = False, True


class WebSocket(Exchange):
    """The state of one socket. Every method is an event and returns actions (see exchanges.py)."""

    def __init__(self, reply_channel, path):
        super().__init__(reply_channel, path)
        self.state = CONNECTING
        self.connected = False  # whether the connect event went out, so that an end is owed
        self.close_code = None
        self._subprotocols = ()
        self._order = 0
        self._waiting = deque()
        self._waiting_weight = 0
        self._held = []
        self._unread = [0, 0]  # by others, by this socket's own consumers
        self._unread_weight = [0, 0]

    # What the client does.

    def connect(self, message):
        """The handshake's request has come; `message` holds its standard keys."""
        self.connected = True
        self._subprotocols = message.get("subprotocols") or ()
        message["order"] = 0
        return [self.event("websocket.connect", 0, message)]

    def frame(self, text=None, data=None):
        """A frame of text, or of data (bytes), has come."""
        if self.state != OPEN:
            return []
        key, value = ("text", text) if text is not None else ("bytes", data or b"")
        weight = weigh(value)
        if weight > MAX_FRAME:
            return [(COUNT, "frames_too_big")] + self._close(TOO_BIG)
        self._order += 1
        if self.busy is None and not self._choked():
            return [self._receive({key: value, "order": self._order})]
        self._waiting.append((weight, {key: value, "order": self._order}))
        self._waiting_weight += weight
        return []

    def gone(self, code=GONE):
        """The client has gone, with a close code or GONE."""
        if self.state == CLOSING:
            return [(FINISH,)]
        self.close_code = code
        self._move("gone")
        return [(DROP,), (FINISH,)] + self._next()

    @property
    def over(self):
        """Whether nothing more will happen here."""
        return self.state == CLOSED

    @property
    def reading(self):
        """Whether the socket may be read: not while too much waits for a worker."""
        return len(self._waiting) < MAX_WAITING and self._waiting_weight < MAX_WAITING_WEIGHT

    # What the workers and the rest of the site say.

    def reply(self, message):
        """A message came on the reply channel."""
        if "done" not in message and "replies" not in message:
            actions = self._plain(message, own=OTHERS)
            actions += self._remember(message.get("channel_session"))
            if "lost" in message and message["lost"] == self.busy:
                actions += self.lost()
            return actions
        actions = []
        if "done" in message and message["done"] != self.busy:
            # Sent or handled once more, since the layer was away and nobody knew: the client has it.
            return actions
        for each in message.get("replies") or ():
            actions += self._plain(each, own=OWN)
        actions += self._remember(message.get("channel_session"))
        if message.get("error"):
            actions += self._close(ERROR)
        if "done" in message:
            self.busy = None
            actions += self._next()
        return actions

    def _remember(self, patch):
        """Take over what a consumer changed in the session: the farewell is to have it too."""
        return [self.farewell()] if self.merge(patch) and self.connected else []

    def farewell(self):
        """The action that has the layer tell the site of this socket's end, should the gateway be lost."""
        message = {"reply_channel": self.reply_channel, "path": self.path, "code": GONE}
        if self.session:
            message["channel_session"] = self.session.copy()
        return (HOLD, self.reply_channel, "websocket.disconnect", message)

    def group(self, message):
        """A message came for a group of which the socket is a member: it accepts no handshake by itself."""
        if self.state == CONNECTING:
            if len(self._held) < MAX_UNREAD:
                self._held.append(message)
                return []
            return [(COUNT, "group_full")]
        return self._plain(message, own=OTHERS)

    def _plain(self, message, own):
        """An ordinary reply, of the consumer that handles this socket's event (`own`), or of others."""
        if self.state in (CLOSING, CLOSED):
            return []
        text, data, close = message.get("text"), message.get("bytes"), message.get("close")
        actions = []
        if self.state == CONNECTING:
            has_data = text is not None or data is not None
            if message.get("accept") is False or (close and not has_data):
                return self._deny()
            if not message.get("accept") and not has_data:
                return []
            self._move("accept")
            accept = {"type": "websocket.accept"}
            subprotocol = message.get("subprotocol")
            if subprotocol in self._subprotocols:
                accept["subprotocol"] = subprotocol
            elif subprotocol is not None:
                line = (
                    "The subprotocol %r, which %s was to be accepted with, is none of its client's."
                )
                actions = [(LOG, "error", line % (subprotocol, self.path))]
            actions.append((WRITE, accept, None))
        if text is not None:
            actions += self._write("text", text, str, own)
        elif data is not None:
            actions += self._write("bytes", data, bytes, own)
        if close:
            actions += self._close_with(close)
        if self._held and self.state == OPEN:
            held, self._held = self._held, []
            for each in held:
                actions += self._plain(each, own=OTHERS)
        return actions

    def _close_with(self, code):
        """Close it as a reply asks, with True or a close code."""
        if code is True:
            code = 1000
        elif not isinstance(code, int) or not (code in _SENDABLE or 3000 <= code <= 4999):
            text = "A reply closes %s with %r, which is no close code: 1011 was sent instead."
            return [(LOG, "error", text % (self.path, code))] + self._close(ERROR)
        return self._close(code)

    def _write(self, key, value, kind, own):
        if not isinstance(value, kind):
            text = "A reply's %r to %s is of type %s; it must be %s. It was not sent."
            values = (key, self.path, type(value).__name__, kind.__name__)
            return [(LOG, "error", text % values)]
        if not own and self._is_behind(OTHERS):
            return [(COUNT, "slow_clients"), (DROP,)] + self._close(OVERLOADED)
        self._unread[own] += 1
        self._unread_weight[own] += len(value)
        return [(WRITE, {"type": "websocket.send", key: value}, own)]

    def written(self, event, own):
        """The server has taken an event; if it is a `websocket.send`, the client reads."""
        if own is None:
            return []
        self._unread[own] -= 1
        self._unread_weight[own] -= len(event.get("text") or event.get("bytes") or "")
        if self.busy is None and own and self._waiting:
            return self._next()
        return []

    def _is_behind(self, whose):
        return self._unread[whose] >= MAX_UNREAD or self._unread_weight[whose] >= MAX_UNREAD_WEIGHT

    def _choked(self):
        """A client that does not read the answers to its frames gets no more of them handled."""
        return self.state == OPEN and self._is_behind(OWN)

    # What goes wrong.

    def lost(self):
        """The worker that held this socket's event died."""
        self.busy = None
        return [(COUNT, "lost")] + self._close(ERROR) + self._next()

    def full(self, channel):
        """The layer did not take this socket's event: `channel` is full."""
        self.busy = None
        actions = [(COUNT, "refused")]
        if channel == "websocket.connect":
            # Accepted, since a browser sees the close code of an open socket only; no event went out.
            self.connected = False
            self._move("accept")
            actions.append((WRITE, {"type": "websocket.accept"}, None))
        return actions + self._close(OVERLOADED) + self._next()

    def reset(self):
        """The layer has lost its data, and with it this socket's memberships."""
        if self.state == CONNECTING:
            self.connected = False
            return self._deny()
        self.busy = None
        return self._close(RESTARTED) + self._next()

    def timeout(self):
        """Nobody answered the handshake in time."""
        if self.state != CONNECTING:
            return []
        self.close_code = GONE
        self._move("gone")
        return (
            [(LOG, "warning", "WebSocket %s was not accepted in time: denied." % self.path)]
            + [(WRITE, {"type": "websocket.close", "code": 1000}, None), (FINISH,)]
            + self._next()
        )

    # The steps behind them.

    def _move(self, event):
        self.state = TRANSITIONS.get((self.state, event), self.state)

    def _deny(self):
        self._move("deny")
        self.busy = None
        return [
            (COUNT, "denied"),
            (WRITE, {"type": "websocket.close", "code": 1000}, None),
            (FINISH,),
        ]

    def _close(self, code):
        """Close it from this side; what the client sent and nobody has handled is not handled."""
        if self.state not in (CONNECTING, OPEN):
            return []
        self._move("gone" if self.state == CONNECTING else "close")
        self.close_code = code
        actions = [(WRITE, {"type": "websocket.close", "code": code}, None), (FINISH,)]
        self._waiting.clear()
        self._waiting_weight = 0
        return actions + self._next()

    def _next(self):
        """Send out the next event, if none is out."""
        if self.busy is not None or self._choked():
            return []
        if self._waiting:
            return [self._receive(*self._batch())]
        if self.state == CLOSING:
            self._move("drained")
            if self.connected:
                self._order += 1
                message = {"path": self.path, "code": self.close_code, "order": self._order}
                return [self.event("websocket.disconnect", self._order, message)]
        return []

    def _batch(self):
        """The frames that wait, as many as go out together."""
        frames, total = [], 0
        while self._waiting:
            weight, frame = self._waiting[0]
            if frames and total + weight > MAX_BATCH_WEIGHT:
                break
            self._waiting.popleft()
            self._waiting_weight -= weight
            total += weight
            frames.append(frame)
        return frames

    def _receive(self, *frames):
        message = frames[0] if len(frames) == 1 else {"frames": list(frames)}
        message["path"] = self.path
        return self.event("websocket.receive", frames[-1]["order"], message)

"""
An HTTP request's state: what to do about each thing that can happen to it. Pure: no I/O, no clock.

The messages follow the ASGI 1.0 specification's HTTP section, with the control keys of `protocol.py`.
Windows bound how much of a body or of a response is on its way. The file is a little over 400 lines because
one state decides for all of a request.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable

from .. import protocol
from ..protocol import (
    ACK,
    BODY_CHANNEL,
    BODY_CREDIT,
    ERROR,
    HTTP_DISCONNECT,
    HTTP_REQUEST,
    LOST,
    REPLIES,
    SESSION,
    WINDOW_CHANNEL,
)
from .headers import clean_value, content_length, is_one_number, is_token, is_value
from .length import BODILESS, TOO_SHORT, Length
from .state import (
    ABORT,
    COUNT,
    DISCARD,
    FINISH,
    LOG,
    SEND,
    SET_WILL,
    WRITE,
    Action,
    ConnectionState,
)

# The phases of a request.
WAITING = "waiting"  # no answer yet
STREAMING = "streaming"  # the head is written, and more content follows
FINISHED = "finished"

#: What moves it from one phase to the next. A pair that is not here changes nothing.
TRANSITIONS = {
    (WAITING, "head"): STREAMING,
    (WAITING, "gone"): FINISHED,
    (STREAMING, "last"): FINISHED,
    (STREAMING, "gone"): FINISHED,
}

#: The ids of its two events.
_REQUEST, _DISCONNECT = 0, 1

#: Parts of a body that are on their way while the view reads it, and before it has begun to.
BODY_WINDOW, FIRST_BODY_WINDOW = 8, 1

#: Replies without a window that wait for a slow client: those of a long-poll that is answered in parts.
MAX_UNREAD = 1000

#: Parts of a response that are taken before its worker is told so. Half of its window: so the worker need not
#: wait, and a short response costs no message.
CREDIT_BATCH = 4

#: What replies to sockets have, and those to requests don't.
FRAME_KEYS = ("accept", "close", "text", "bytes")

_FRAMING = (b"transfer-encoding", b"content-length")

_PAGES = {
    408: b"<!doctype html><title>Request Timeout (408)</title><h1>Request Timeout (408)</h1>",
    413: b"<!doctype html><title>Content Too Large (413)</title><h1>Content Too Large (413)</h1>",
    500: b"<!doctype html><title>Server Error (500)</title><h1>Server Error (500)</h1>",
    502: b"<!doctype html><title>Bad Gateway (502)</title><h1>Bad Gateway (502)</h1>"
    b"<p>The answer to this request was lost. It may have been handled.</p>",
    503: b"<!doctype html><title>Service Unavailable (503)</title><h1>Service Unavailable (503)</h1>"
    b"<p>The site is busy. Please try again shortly.</p>",
}


class Request(ConnectionState):
    """
    The state of one request. Every method is an event and returns actions (see state.py).

    Belongs to the event loop of its gateway.
    """

    def __init__(self, reply_channel: str, path: str) -> None:
        super().__init__(reply_channel, path)
        self.phase = WAITING
        self.body_channel: str | None = None
        self._window_channel: str | None = None
        self._credit = FIRST_BODY_WINDOW
        self._is_read = False  # whether the view has begun to read the rest of the body
        self._body_is_due = False  # whether there is more of it
        self._unread = 0
        #: Parts of the response that came, and whose worker may not send as many more yet.
        self.owed = 0
        #: Bytes that the response has at least.
        self.size = self._came = 0
        self._disconnect_due = False
        self._has_will = False
        self._method: Any = None
        self._length: Any = None

    # What the client does.

    def request(
        self, message: dict[str, Any], more_body: bool, new_body_channel: Callable[[], str]
    ) -> list[Action]:
        """
        Handle the head and the first part of the body. `message` is what `scopes.request_event` returned,
        with the body. `new_body_channel()` returns a channel for the rest, if there is more of it.
        """
        actions = [self.event(HTTP_REQUEST, _REQUEST, message)]
        self._method = message.get("method")
        self._body_is_due = more_body
        if more_body:
            self.body_channel = message[BODY_CHANNEL] = new_body_channel()
            actions.append(self._own(self.body_channel))
        return actions

    def body(self, content: bytes, more: bool) -> list[Action]:
        """Handle a further part of the body."""
        if self.phase == FINISHED:
            return []
        self._credit -= 1
        self._body_is_due = more
        part: protocol.BodyPart = {"content": content, "more_content": more}
        return [(SEND, self.body_channel, part)]

    @property
    def over(self) -> bool:
        """Whether no more will be sent to the workers, and no worker reads what was sent."""
        is_read = self.in_flight == _REQUEST and bool(self.channels)
        return self.phase == FINISHED and not self._disconnect_due and not is_read

    @property
    def waits(self) -> bool:
        """Whether the request may wait for a worker, also one whose client has gone."""
        return self.in_flight == _REQUEST and self.phase != STREAMING

    @property
    def answered(self) -> bool:
        """Whether the response is complete, or the client has gone."""
        return self.phase == FINISHED

    @property
    def reading(self) -> bool:
        """Whether more of the body may be sent. Not while the view has a window of it to read."""
        return self._credit > 0

    def body_failed(self, status: int) -> list[Action]:
        """Handle that the rest of the body doesn't come, or cannot be taken."""
        return [] if self.phase == FINISHED else self._fail(status)

    def gone(self) -> list[Action]:
        """Handle that the client has gone."""
        if self.phase == FINISHED:
            return []
        self._move("gone")
        actions = [(DISCARD,), (FINISH,), *self._tell_closed()]
        self._disconnect_due = True
        return actions + self._next()

    # What the workers and the rest of the site send.

    def reply(self, message: dict[str, Any]) -> list[Action]:
        """Handle a message on the reply channel."""
        actions: list[Action] = []
        if message.get(WINDOW_CHANNEL):
            actions += self._note_window(message[WINDOW_CHANNEL], len(message) == 1)
        if ACK in message or REPLIES in message:
            for each in message.get(REPLIES) or ():
                actions += self._apply(each)
        elif "status" in message or "content" in message:
            actions += self._apply(message)
        if SESSION in message and self.merge(message[SESSION]) and self._has_will:
            actions.append(self._last_will())
        if BODY_CREDIT in message:
            self._credit += message[BODY_CREDIT]
            if not self._is_read:
                self._is_read = True
                self._credit += BODY_WINDOW - FIRST_BODY_WINDOW
        if message.get(ERROR):
            actions += self._fail(500)
        if ACK in message and message[ACK] == self.in_flight:
            self.in_flight = None
            actions += self._next() + self._set_will()
        if LOST in message and message[LOST] == self.in_flight:
            self.in_flight = None
            actions += [(COUNT, "lost"), *self._fail(502), *self._next()]
        return actions

    def begun(self) -> list[Action]:
        return super().begun() + self._set_will()

    def _note_window(self, channel: str, is_question: bool) -> list[Action]:
        """Take note of the channel on which the sender of the response learns what was written."""
        if channel == self._window_channel:
            answer = protocol.still_there(self.phase == FINISHED)
            return [(SEND, channel, answer)] if is_question else []
        if self.phase == WAITING:
            self._window_channel = channel
            return [self._own(channel)]
        if self.phase == FINISHED:
            # The client left before the first part: the view must not wait for it to read.
            self.channels += (channel,)
            return [(SEND, channel, protocol.closed())]
        return []

    def group(self, message: dict[str, Any]) -> list[Action]:
        """Handle a message to a group that the client is in: an answer, without any control keys."""
        return self._apply(message) if "status" in message or "content" in message else []

    def _apply(self, message: dict[str, Any]) -> list[Action]:
        """Write one message of the response."""
        if self.phase == FINISHED:
            return []
        refused = self._refuse(message)
        if refused is not None:
            return refused
        actions: list[Action] = []
        headers = message.get("headers") or ()
        if self.phase == WAITING:
            self._length = Length(self._method, message["status"], headers)
        asked = bool(message.get("more_content"))
        content, more, problem = self._length.fit(message.get("content", b""), asked)
        if problem:
            actions.append((LOG, "error", problem, self.path))
        if problem is TOO_SHORT:
            return actions + self._fail(500)
        if self.phase == WAITING:
            self._move("head")
            if self._window_channel is not None:
                self.size = content_length(headers) or 0
            actions.append((WRITE, response_start(message["status"], headers), None))
            actions += self._set_will() if more else ()
        if self._window_channel is None:
            self._unread += 1
            if self._unread > MAX_UNREAD:
                return self.too_slow()
        elif more:
            self.owed += 1
            self._came += len(content)
            self.size = max(self.size, self._came)
        actions.append((WRITE, response_content(content, more), "content"))
        if not more:
            self._move("last")
            actions.append((FINISH,))
            if asked:
                actions += self._tell_closed()  # it was cut
            elif self._body_is_due:
                # A consumer that reads on must not wait for it.
                actions.append((SEND, self.body_channel, protocol.closed()))
        return actions

    def _refuse(self, message: dict[str, Any]) -> list[Action] | None:
        """Return what to do instead of writing a message of the response, if the message is wrong."""
        if self.phase == WAITING:
            problem = head_problem(message)
            if not problem:
                return None
            text = "The reply to %s %s: a 500 was sent instead."
            return [(LOG, "error", text, self.path, problem), *self._fail(500)]
        if "status" in message:
            return self._abort()  # an error page, in the middle of the response that it is about
        frame = next((key for key in FRAME_KEYS if key in message), None)
        if frame is not None and "content" not in message:
            # It would end the response as if it were complete.
            text = "A reply to %s has %r, which is for WebSockets. The response was cut."
            return [(LOG, "error", text, self.path, frame), *self._abort()]
        content = message.get("content", b"")
        if isinstance(content, bytes):
            return None
        text = "The content of a reply to %s is of type %s; it must be bytes. The response was cut."
        return [(LOG, "error", text, self.path, type(content).__name__), *self._abort()]

    def written(self, event: dict[str, Any], note: str | None) -> list[Action]:
        """Handle that the server has taken a part of the response: the client reads."""
        if note is not None:
            self._unread -= 1
        return []

    def credit(self) -> list[Action]:
        """Let the worker send as many parts as came: there is room for what it sends."""
        if self.owed < CREDIT_BATCH or self.phase != STREAMING:
            return []
        owed, self.owed = self.owed, 0
        return [(SEND, self._window_channel, protocol.written(owed))]

    def too_slow(self) -> list[Action]:
        """Cut the response, also one that is complete here, because the client reads it too slowly."""
        actions: list[Action] = [(COUNT, "slow_clients"), (DISCARD,)]
        if self.phase == FINISHED:
            return [*actions, (COUNT, "responses_cut"), (ABORT,), (FINISH,)]
        return actions + self._abort()

    # What goes wrong.

    def refused(self, channel: str) -> list[Action]:
        """Handle that the layer did not take the request, a part of its body, or a notice to a window."""
        if channel == HTTP_REQUEST:
            self._forget_event()
        return [(COUNT, "refused"), *self._fail(503)]

    def reset(self, told: bool = False) -> list[Action]:
        """
        Handle that the layer has lost its data, and the request with it. If the site was `told` that the
        client has gone, its last will was sent.
        """
        self._forget_event()
        self._disconnect_due = self._has_will and not told and self.phase != FINISHED
        return self._fail(502) + self._next()

    def unreachable(self, was_sent: bool = True) -> list[Action]:
        """
        Answer a client that waits: with a 502, because a worker may have handled the request. If the request
        has not been sent, with a 503, and then it never is.
        """
        if self.phase != WAITING or self.in_flight is None:
            return []
        return [(COUNT, "lost"), *self._fail(502)] if was_sent else self.refused(HTTP_REQUEST)

    # The steps behind them.

    def _forget_event(self) -> None:
        """The request reached no worker, so no answer comes, and no worker has to learn of its end."""
        self.in_flight = None
        self._disconnect_due = False

    def _set_will(self) -> list[Action]:
        """
        Have the layer send the disconnect event if this gateway is lost, because the site may know of the
        client now. Most requests are answered before that, and should not pay for it.
        """
        if self._has_will or (self.phase == FINISHED and not self._disconnect_due):
            return []
        self._has_will = True
        return [self._last_will()]

    def _last_will(self) -> Action:
        return self.will(HTTP_DISCONNECT, {})

    def _own(self, channel: str) -> Action:
        """
        Note a channel that only this request sends to. If this gateway is lost, its reader is told that the
        client has gone.
        """
        self.channels += (channel,)
        return (SET_WILL, channel, channel, protocol.closed())

    def _move(self, event: str) -> None:
        self.phase = TRANSITIONS.get((self.phase, event), self.phase)
        if self.phase == FINISHED:
            self.owed = 0

    def _next(self) -> list[Action]:
        """Send the disconnect event, if it is due and no event is in flight."""
        if self.in_flight is None and self._disconnect_due:
            self._disconnect_due = False
            return [self.event(HTTP_DISCONNECT, _DISCONNECT, {"path": self.path})]
        return []

    def _tell_closed(self) -> list[Action]:
        """Tell a worker that reads the body, or writes a stream, to stop."""
        return [(SEND, channel, protocol.closed()) for channel in self.channels]

    def _fail(self, status: int) -> list[Action]:
        """Answer with an error page, or cut the response if it has begun."""
        if self.phase != WAITING:
            return self._abort()
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        self._move("head")
        self._move("last")
        return [
            (WRITE, response_start(status, headers), None),
            (WRITE, response_content(_PAGES[status], False), None),
            (FINISH,),
            *self._tell_closed(),
        ]

    def _abort(self) -> list[Action]:
        """End without a last part, so that the client can tell that the response is incomplete."""
        if self.phase == FINISHED:
            return []
        self._move("gone")
        return [(COUNT, "responses_cut"), (ABORT,), (FINISH,), *self._tell_closed()]


def head_problem(message: dict[str, Any]) -> str | None:
    """Return what is wrong with the first message of a response, or None."""
    status = message.get("status")
    if status is None:
        return "has no 'status'"
    content = message.get("content", b"")
    if not isinstance(content, bytes):
        return "has content of type %s; it must be bytes" % type(content).__name__
    # A 1xx is not a final answer: the client would wait for another, and a proxy mistake the next one for it.
    if not isinstance(status, int) or not 200 <= status <= 999:
        return "has the status %r" % (status,)
    headers = message.get("headers") or ()
    if not isinstance(headers, (list, tuple)):
        return "has headers of type %s; they must be a list" % type(headers).__name__
    for header in headers:
        if (
            not isinstance(header, (list, tuple))
            or len(header) != 2
            or not (isinstance(header[0], bytes) and isinstance(header[1], bytes))
        ):
            return "has the header %r, which isn't a [name, value] of bytes" % (header,)
        name, value = header
        # Not every server checks. A line break would turn one header into two, or into a whole response.
        if not is_token(name) or not is_value(value):
            return "has the header %r, with a character that no header may have" % (header,)
    # A server raises at what isn't a number, and a proxy may take another of two numbers.
    lengths = [value.strip() for name, value in headers if name.lower() == b"content-length"]
    if lengths and not is_one_number(lengths):
        return "has the Content-Length %r, which isn't one number" % b", ".join(lengths).decode(
            "latin-1"
        )
    return None


def response_start(status: int, headers: Iterable[Any]) -> dict[str, Any]:
    """Return the event of ASGI that begins a response."""
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (name.lower(), clean_value(value))
            for name, value in headers
            # The server says how it frames the body. Some raise for a length that no body follows.
            if name.lower() not in (_FRAMING if status in BODILESS else _FRAMING[:1])
        ],
    }


def response_content(body: bytes, more: bool) -> dict[str, Any]:
    """Return the event of ASGI with content, and whether more of it follows."""
    return {"type": "http.response.body", "body": body, "more_body": more}

"""
An HTTP request's state: what to do about each thing that can happen to it. Pure: no I/O, no clock.

The messages follow the ASGI 1.0 specification's HTTP section, with the keys that exchanges add: windows
bound what is on the way in either direction.
"""

import re
import string

from .exchanges import COUNT, CUT, DISPATCH, DROP, FINISH, HOLD, LOG, WRITE, Exchange

# Where the request stands.
WAITING = "waiting"  # no answer yet
STREAMING = "streaming"  # the head is written, more content is to come
FINISHED = "finished"

#: What moves it on. A pair that is not here changes nothing.
TRANSITIONS = {
    (WAITING, "head"): STREAMING,
    (WAITING, "gone"): FINISHED,
    (STREAMING, "last"): FINISHED,
    (STREAMING, "gone"): FINISHED,
}

#: Chunks of a body that go to the worker before it has read the first of them.
BODY_WINDOW = 8

#: Replies without a window (long-polls that others answer in parts) that wait for a slow client.
MAX_UNREAD = 1000

#: What the name of a header is made of (RFC 9110, section 5.6.2), and what its value never holds.
_TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()
_BREAK = re.compile(rb"[\r\n\0]")

_PAGES = {
    500: b"<!doctype html><title>Server Error (500)</title><h1>Server Error (500)</h1>",
    502: b"<!doctype html><title>Bad Gateway (502)</title><h1>Bad Gateway (502)</h1>"
    b"<p>The process that handled this request was lost.</p>",
    503: b"<!doctype html><title>Service Unavailable (503)</title><h1>Service Unavailable (503)</h1>"
    b"<p>The site is busy. Please try again shortly.</p>",
}


class Request(Exchange):
    """The state of one request. Every method is an event and returns actions (see exchanges.py)."""

    def __init__(self, reply_channel, path):
        super().__init__(reply_channel, path)
        self.state = WAITING
        self.body_channel = None
        self._window_channel = None
        self._credit = BODY_WINDOW
        self._unread = 0
        self._disconnect_due = False

    # What the client does.

    def request(self, message, more_body, new_body_channel):
        """
        The head and the first part of the body have come; `message` holds the standard keys.
        `new_body_channel()` names a channel for the rest, if there is any.
        """
        actions = [self.event("http.request", 0, message)]
        if more_body:
            self.body_channel = message["body_channel"] = new_body_channel()
            actions.append(_hold_closed(self.body_channel))
        return actions

    def body(self, content, more):
        """A further part (bytes) of the body has come."""
        if self.state == FINISHED:
            return []
        self._credit -= 1
        message = {"content": content, "more_content": more}
        return [(DISPATCH, self.body_channel, message)]

    @property
    def over(self):
        """Whether nothing more will happen here."""
        return self.state == FINISHED and not self._disconnect_due

    @property
    def reading(self):
        """Whether the body may be read on: not while the view has a window of it to read."""
        return self._credit > 0

    def gone(self):
        """The client has gone."""
        if self.state == FINISHED:
            return []
        self._move("gone")
        actions = [(DROP,), (FINISH,)] + self._closed()
        self._disconnect_due = True
        return actions + self._next()

    # What the workers and the rest of the site say.

    def reply(self, message):
        """A message came on the reply channel."""
        actions = []
        exchange_keys = "done" in message or "replies" in message
        if exchange_keys:
            for each in message.get("replies") or ():
                actions += self._plain(each)
        elif "status" in message or "content" in message:
            if self.state == WAITING:
                self._window_channel = message.get("window_channel")
                if self._window_channel is not None:
                    actions.append(_hold_closed(self._window_channel))
            actions += self._plain(message)
        self.merge(message.get("channel_session"))
        self._credit += message.get("body_credit", 0)
        if message.get("error"):
            actions += self._fail(500)
        if "done" in message and message["done"] == self.busy:
            self.busy = None
            actions += self._next()
        if "lost" in message and message["lost"] == self.busy:
            self.busy = None
            actions += [(COUNT, "lost")] + self._fail(502) + self._next()
        return actions

    def group(self, message):
        """A message came for a group of which the client is a member: an answer like any other."""
        return self._plain(message) if "status" in message or "content" in message else []

    def _plain(self, message):
        if self.state == FINISHED:
            return []
        actions = []
        if self.state == WAITING:
            problem = _head_problem(message)
            if problem:
                text = "The reply to %s %s: a 500 was sent instead." % (self.path, problem)
                return [(LOG, "error", text)] + self._fail(500)
            self._move("head")
            actions.append((WRITE, _start(message["status"], message.get("headers") or ()), None))
        elif "status" in message:
            return self._cut()  # an error page, in the middle of the response that it is about
        content, more = message.get("content", b""), bool(message.get("more_content"))
        if not isinstance(content, bytes):
            text = (
                "The content of a reply to %s is of type %s; it must be bytes: the reply was cut."
            )
            return [(LOG, "error", text % (self.path, type(content).__name__))] + self._cut()
        if self._window_channel is None:
            self._unread += 1
            if self._unread > MAX_UNREAD:
                return [(COUNT, "slow_clients"), (DROP,)] + self._cut()
        event = {"type": "http.response.body", "body": content, "more_body": more}
        actions.append((WRITE, event, "content"))
        if not more:
            self._move("last")
            actions.append((FINISH,))
        return actions

    def written(self, event, note):
        """The server has taken a part of the response, so the client reads."""
        if note is None:
            return []
        self._unread -= 1
        if self._window_channel is not None and event["more_body"]:
            return [(DISPATCH, self._window_channel, {"written": 1})]
        return []

    # What goes wrong.

    def full(self, channel):
        """The layer did not take the request, or a part of its body, or what a window is told."""
        if channel == "http.request":
            self._unsent()
        return [(COUNT, "refused")] + self._fail(503)

    def reset(self):
        """The layer has lost its data, and the request with it."""
        self._unsent()
        return self._fail(502)

    # The steps behind them.

    def _unsent(self):
        """No answer will come to the request, and nobody is owed its end, should the client have gone."""
        self.busy = None
        self._disconnect_due = False

    def _move(self, event):
        self.state = TRANSITIONS.get((self.state, event), self.state)

    def _next(self):
        if self.busy is None and self._disconnect_due:
            self._disconnect_due = False
            return [self.event("http.disconnect", 1, {"path": self.path})]
        return []

    def _closed(self):
        """Tell a worker that reads the body, or writes a stream, to stop."""
        return [
            (DISPATCH, channel, {"closed": True})
            for channel in (self.body_channel, self._window_channel)
            if channel is not None
        ]

    def _fail(self, status):
        """Answer with an error page if nothing was answered; else cut the response short."""
        if self.state != WAITING:
            return self._cut()
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        self._move("head")
        self._move("last")
        return [
            (WRITE, _start(status, headers), None),
            (
                WRITE,
                {"type": "http.response.body", "body": _PAGES[status], "more_body": False},
                None,
            ),
            (FINISH,),
        ] + self._closed()

    def _cut(self):
        """End without a last part, so that the client can tell that it has not got everything."""
        if self.state == FINISHED:
            return []
        self._move("gone")
        return [(COUNT, "responses_cut"), (CUT,), (FINISH,)] + self._closed()


def _hold_closed(channel):
    """Should the gateway be lost, who reads `channel` is told that the client has gone."""
    return (HOLD, channel, channel, {"closed": True})


def _head_problem(message):
    """What is wrong with the first message of a response, or None."""
    status = message.get("status")
    if status is None:
        return "has no 'status'"
    # 1xx is no answer: the client would wait for another, and a proxy mistake the next one for it.
    if not isinstance(status, int) or not 200 <= status <= 999:
        return "has the status %r" % (status,)
    headers = message.get("headers") or ()
    if not isinstance(headers, (list, tuple)):
        return "has headers of type %s; they must be a list" % type(headers).__name__
    for header in headers:
        if (
            not isinstance(header, (list, tuple))
            or len(header) != 2
            or not all(isinstance(part, bytes) for part in header)
        ):
            return "has the header %r, which is no [name, value] of bytes" % (header,)
        name, value = header
        # Not every server looks: with a line break in it, one header is two, or a whole response.
        if not name or name.translate(None, _TOKEN) or _BREAK.search(value):
            return "has the header %r, which has a character that no header may have" % (header,)
    return None


def _start(status, headers):
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.lower(), value) for name, value in headers],
    }

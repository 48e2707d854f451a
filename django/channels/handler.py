"""
Views as consumers: ViewConsumer takes `http.request`, and AsgiHandler and AsgiRequest keep their
1.1 names.

What an HTTP message means to Django is in the core handler, which knows no layer. Here is what it
takes from one: a body that arrives in chunks on a channel of its own, and a response that leaves in
a window.
"""

import time

from django.http import HttpResponse

from .exceptions import ChannelFull, RequestAborted, RequestTimeout, ResponseLater

# The add-on has the handler as a module of its own: Django 3.0 and later use the name for another
# one.
if __package__ == "django.channels":
    from django.core.handlers.asgi import ASGIHandler, ASGIRequest
else:
    from channels.handlers.asgi import ASGIHandler, ASGIRequest

#: Seconds without any part of the body after which a request is given up with a 408.
BODY_TIMEOUT = 60.0

#: Replies of a streamed response that may be on their way to the client.
RESPONSE_WINDOW = 8

#: Seconds for which a client may take nothing of a stream: its gateway may be gone, and nobody
#: tell.
STALLED_AFTER = 300.0

#: Seconds between two looks at whether the client of an unhurried stream is still there.
LOOK_EVERY = 1.0

#: Seconds between two attempts to send to a full channel, at first and at most.
RETRY_FIRST, RETRY_MOST = 0.005, 0.25


def read_body(message):
    """
    The chunks (bytes) of the body that follow the one in `message`, which has a `body_channel`.

    For each chunk it returns a credit to the gateway, which sends another one. Raises
    RequestAborted if the client goes away, RequestTimeout after BODY_TIMEOUT seconds without a
    chunk.
    """
    layer, channel = message.channel_layer, message["body_channel"]
    while True:
        chunk = _wait(layer, channel, BODY_TIMEOUT)
        if chunk is None:
            raise RequestTimeout(f"No part of the request's body came in {BODY_TIMEOUT:g} seconds.")
        if chunk.get("closed"):
            raise RequestAborted("The client went away before it had sent the request's body.")
        more = chunk.get("more_content", False)
        if more:
            _send(message, {"body_credit": 1}, BODY_TIMEOUT)
        yield chunk.get("content") or b""
        if not more:
            return


def _wait(layer, channel, seconds):
    """The next message of `channel` (dict), or None after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        _, found = layer.receive_many([channel], block=True)
        if found is not None or time.monotonic() > deadline:
            return found


def _send(message, reply, seconds):
    """
    Send `reply` to the gateway of `message` at once, and again while its inbox is full. Raises
    ChannelFull after `seconds` of that.
    """
    deadline, pause = time.monotonic() + seconds, RETRY_FIRST
    while True:
        try:
            # Not through the Channel, which takes the gateway's own keys out.
            return message.channel_layer.send(message["reply_channel"], reply)
        except ChannelFull:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, RETRY_MOST)


class AsgiRequest(ASGIRequest):
    """The HttpRequest of a Message; `message` and `reply_channel` lead back to it."""

    ResponseLater = ResponseLater

    def __init__(self, message, body=None):
        if body is None and message.get("body_channel"):
            body = read_body(message)
        super().__init__(message, body)
        self.message = message
        self.reply_channel = getattr(message, "reply_channel", None)


class AsgiHandler(ASGIHandler):
    """
    The site's middleware and views as a function of a Message: `handler(message)` gives the
    replies.

    A view that raises ResponseLater has handed the request on, and there are no replies.
    """

    request_class = AsgiRequest
    answered_later = (ResponseLater,)


class ViewConsumer:
    """
    The consumer that `http.request` has by default: the site's middleware and views.

    A response of one message leaves with the consumer's end, as what every consumer sends does. A
    longer one leaves as it is made, at most RESPONSE_WINDOW messages ahead of the client: this
    thread waits as it does under WSGI. If the client goes away, the response is closed where it
    stands.
    """

    handler_class = AsgiHandler

    def __init__(self):
        self._handler = None

    @property
    def handler(self):
        # Made with the first request: routing may be read before the settings and applications are.
        handler = self._handler
        if handler is None:
            handler = self._handler = self.handler_class()
        return handler

    def __call__(self, message, **kwargs):
        replies = self.handler(message)
        try:
            reply = next(replies, None)
            if reply is None:
                return
            if reply["more_content"]:
                self._stream(message, reply, replies)
        except RequestAborted:
            return
        except RequestTimeout:
            reply = next(self.handler_class.encode_response(_request_timeout()))
        finally:
            replies.close()
        if not reply["more_content"]:
            message.reply_channel.send(reply)

    def _stream(self, message, reply, replies):
        """
        Send `reply`, the first of several, and the rest. Raises RequestAborted if the client goes
        away.
        """
        layer = message.channel_layer
        window = layer.new_channel("http.window.?")
        reply["window_channel"] = window
        ahead, looked = 0, time.monotonic()
        while reply is not None:
            # A slow view is told of a lost client here, a fast one by what its window says.
            if ahead >= RESPONSE_WINDOW or time.monotonic() > looked + LOOK_EVERY:
                ahead -= self._written(layer, window, ahead)
                looked = time.monotonic()
            _send(message, reply, STALLED_AFTER)
            ahead += 1
            reply = next(replies, None)

    @staticmethod
    def _written(layer, window, ahead):
        """
        How many messages the gateway says it has written; waits for it while the window is full.
        """
        written = 0
        while True:
            if ahead - written >= RESPONSE_WINDOW:
                found = _wait(layer, window, STALLED_AFTER)
                if found is None:
                    raise RequestAborted(f"The client took nothing for {STALLED_AFTER:g} seconds.")
            else:
                _, found = layer.receive_many([window])
                if found is None:
                    return written
            if found.get("closed"):
                raise RequestAborted("The client went away while its response was sent.")
            written += found.get("written", 0)


def _request_timeout():
    return HttpResponse("<h1>Request Timeout (408)</h1>", status=408)

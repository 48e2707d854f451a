"""
What Daphne keeps from an application, asked of Twisted: to wait for a client that reads slowly, and to
cut a response short. ASGI 3 has `send` wait; Daphne's returns at once and buffers without a bound.

Behind any other server nothing here is used. Nothing here imports Daphne or Twisted.
"""

import asyncio

#: The events of which a client may have too many.
_CONTENT = ("http.response.body", "websocket.send")


def with_flow_control(send):
    """`send` of an ASGI 3 server, made to wait for the client where the server is Daphne."""
    server = getattr(getattr(send, "func", None), "__self__", None)
    if not any(each.__module__ == "daphne.server" for each in type(server).__mro__):
        return send
    protocol = send.args[0]
    is_request = hasattr(protocol, "loseConnection")
    return RequestSend(send, protocol) if is_request else SocketSend(send, protocol)


class FlowControl:
    """A `send`, and a push producer (twisted.internet.interfaces.IPushProducer) that it waits for."""

    def __init__(self, send, protocol):
        self._send = send
        self._protocol = protocol
        self._registered = False
        self._is_gone = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    async def __call__(self, event):
        is_last = event["type"] == "http.response.body" and not event["more_body"]
        if is_last:
            self._end()
        elif not self._registered and not self._is_gone and event["type"] in _CONTENT:
            self._registered = True
            self._register()
        await self._send(event)
        if self._registered:
            await self._may_write.wait()

    def _end(self):
        if self._registered:
            self._registered = False
            self._consumer.unregisterProducer()

    # The producer: Twisted's transport says how it is doing.

    def pauseProducing(self):
        self._may_write.clear()

    def resumeProducing(self):
        self._may_write.set()

    def stopProducing(self):
        """The client has gone."""
        self._registered = False
        self._is_gone = True
        self._may_write.set()


class RequestSend(FlowControl):
    """That of a request (twisted.web.http.Request)."""

    @property
    def _consumer(self):
        return self._protocol

    def _register(self):
        self._consumer.registerProducer(self, True)

    def cut(self):
        """End the connection in the middle of the response."""
        self._end()
        # Over HTTP/2 it is the stream that ends, and has to end in an error.
        channel = getattr(self._protocol, "channel", None)
        abort = getattr(channel, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self._protocol.loseConnection()


class SocketSend(FlowControl):
    """That of a WebSocket (autobahn), whose transport still has the HTTP channel as its producer."""

    @property
    def _consumer(self):
        return self._protocol.transport

    def _register(self):
        self._consumer.unregisterProducer()
        self._consumer.registerProducer(self, True)

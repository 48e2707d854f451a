"""Bodies of requests in the gateway: from a server that says when, over the in-memory layer."""

import asyncio
import unittest

from django.channels import route
from django.channels.layers.memory import MemoryChannelLayer

from .support.waiting import TIMEOUT, wait_until

PART = 64 * 1024


class Server:
    """The server's side of one request: `send` and `receive` as an application calls them."""

    def __init__(self, *headers, method="POST", path="/"):
        self.scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        self.events = asyncio.Queue()
        self.receive = self.events.get
        self.sent = []
        self.ended = asyncio.Event()

    def body(self, *parts, more=False):
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts) and not more
            self.events.put_nowait({"type": "http.request", "body": part, "more_body": not is_last})
        return self

    def leave(self):
        self.events.put_nowait({"type": "http.disconnect"})
        return self

    async def send(self, event):
        self.sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            self.ended.set()

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    async def run(self, layer):
        await asyncio.wait_for(layer(self.scope, self.receive, self.send), TIMEOUT)
        return self


class BodyCase(unittest.TestCase):
    """A site with one consumer, `self.consume(message)`, on `self.layer`."""

    def setUp(self):
        self.messages = []
        self.layer = MemoryChannelLayer(threads=2)
        self.layer.alias = "test"
        self.layer.routing = [
            route("http.request", lambda message: self.consume(message)),
            route("http.disconnect", self.messages.append),
        ]

    def consume(self, message):
        """Answer without reading the body."""
        self.messages.append(message)
        message.reply_channel.send({"status": 200, "headers": [], "content": b"done"})

    def serve(self, function):
        """Run the coroutine function `function()` in an event loop with a gateway."""

        async def main():
            try:
                return await function()
            finally:
                await self.layer.gateway.stop()

        return asyncio.run(main())


class UnreadBodyTests(BodyCase):
    def test_an_unread_body_goes_with_its_request(self):
        async def upload():
            for _ in range(5):
                await Server().body(*[b"x" * PART] * 40).run(self.layer)
            count = self.layer.global_statistics
            await asyncio.get_event_loop().run_in_executor(
                None, wait_until, lambda: count()["messages_pending"] == 0, "the bodies to go"
            )

        self.serve(upload)

    def test_expired_messages_go_without_any_traffic(self):
        self.layer.expiries.default = 0.01

        async def send():
            self.assertFalse(self.layer.gateway.stopped)
            self.layer.send("test.nobody?reads", {"text": "this"})
            await asyncio.get_event_loop().run_in_executor(
                None, wait_until, lambda: not self.layer._queues, "the message to go"
            )

        self.serve(send)

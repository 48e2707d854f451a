"""
While the consumer of a handshake runs, no road of other code answers it. Whole sockets, on two layers.

The test is the server of one socket. Its consumer waits for the test, which meanwhile sends by each road.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import threading
import unittest

from django.channels import Channel, Group, route
from django.channels.exceptions import ConsumeLater
from django.channels.layers.database import DatabaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.worker import WorkerGroup

from .support.waiting import TIMEOUT, wait_until

MESSAGES = [
    {"accept": True},
    {"accept": True, "subprotocol": "two"},
    {"close": True},
    {"close": 4001},
    {"text": "other"},
    {"bytes": b"other"},
    {"accept": False},
    {"accept": True, "text": "other"},
    {"text": "other", "close": 4001},
]


def send(case, client, content):
    case.channel(client).send(content)


def send_in_a_thread(case, client, content):
    thread = threading.Thread(target=send, args=(case, client, content))
    thread.start()
    thread.join()


def asend(case, client, content):
    asyncio.run(case.channel(client).asend(content))


def group(case, client, content):
    room = Group("room", channel_layer=case.layer)
    room.add(client)
    room.send(content)


def consumer(case, client, content):
    case.do("work", client, content)


def async_consumer(case, client, content):
    case.do("work.async", client, content)


def requeued_consumer(case, client, content):
    case.do("work.later", client, content)


def second_event(case, client, content):
    """A consumer of an event that the site sends, with the reply channel of the socket."""
    case.do("websocket.receive", client, content)


ROADS = [send, send_in_a_thread, asend, consumer, async_consumer, requeued_consumer]
ROADS += [second_event]


class Socket:
    """One socket of `case`, whose consumer runs, and the server's side of it."""

    def __init__(self, case):
        self.case, self.written = case, []
        self.scope = {"type": "websocket", "path": "/a/7", "headers": []}
        self.scope["subprotocols"] = ["one", "two"]

    async def __aenter__(self):
        self.events = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.ensure_future(
            self.case.layer(self.scope, self.events.get, self.send)
        )
        await self.until(lambda: self.case.clients, "the consumer to run")
        return self

    async def __aexit__(self, *exc_info):
        self.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self.running, TIMEOUT)

    async def send(self, event):
        event = {key: value for key, value in event.items() if value is not None}
        self.written.append(event)

    async def until(self, condition, text):
        loop = asyncio.get_event_loop()
        return await loop.run_in_executor(None, wait_until, condition, text)


class UndecidedCase:
    def setUp(self):
        self.layer = self.make_layer()
        self.layer.alias = "test"
        self.clients, self.done, self.ended = [], [], []
        self.release = threading.Event()
        self.layer.routing = [
            route("websocket.connect", self.connect, path=r"^/a/(?P<number>\d+)$"),
            route("websocket.disconnect", self.disconnect, path=r"^/a/(?P<number>\d+)$"),
            route("websocket.receive", self.work),
            route("work", self.work),
            route("work.async", self.work_async),
            route("work.later", self.work_later),
        ]
        self.start()

    def channel(self, name):
        return Channel(name, channel_layer=self.layer)

    def connect(self, message, number):
        message.channel_session["number"] = number
        self.clients.append(message.reply_channel.name)
        self.release.wait()
        self.end(message)

    def disconnect(self, message, number):
        self.ended.append((number, message["code"], dict(message.channel_session.items())))

    def work(self, message):
        self.channel(message["to"]).send(message["what"])
        self.done.append(True)

    async def work_async(self, message):
        await self.channel(message["to"]).asend(message["what"])
        self.done.append(True)

    def work_later(self, message):
        if "again" not in message.content:
            message.content["again"] = True
            raise ConsumeLater()
        self.work(message)

    def do(self, channel, client, content):
        """Have the consumer of `channel` send."""
        del self.done[:]
        message = {"to": client, "what": content, "path": "/", "reply_channel": client}
        self.channel(channel).send(message)
        wait_until(lambda: self.done, "the other consumer")

    def check(self, roads, messages, end, expected):
        """Open a socket for each road and message; `expected(message)` is what is written at the end."""
        for road, message in itertools.product(roads, messages):
            with self.subTest(road=road.__name__, message=message):
                asyncio.run(self.one(road, message, end, expected))

    async def one(self, road, message, end, expected):
        self.end = end
        self.release.clear()
        del self.clients[:], self.ended[:]
        try:
            async with Socket(self) as socket:
                await asyncio.get_event_loop().run_in_executor(
                    None, road, self, self.clients[0], message
                )
                state = self.layer.gateway.connections[self.clients[0]].state
                if road is not group:
                    await socket.until(lambda: state._buffered, "it to arrive")
                self.assertEqual(socket.written, [])
                self.release.set()
                wanted = expected(road, message)
                await socket.until(lambda: len(socket.written) >= len(wanted), "the answer")
                await socket.until(lambda: state.in_flight is None, "the ack")
                self.assertEqual(socket.written, wanted)
        finally:
            self.release.set()
        await self.layer.gateway.stop()

    def test_the_own_consumer_accepts(self):
        def end(message):
            message.reply_channel.send({"accept": True, "subprotocol": "one"})

        self.check(ROADS + [group], MESSAGES, end, self.after_acceptance)

    def after_acceptance(self, road, message):
        wanted = [{"type": "websocket.accept", "subprotocol": "one"}]
        data = {key: message[key] for key in ("text", "bytes") if key in message}
        if data:
            wanted.append(dict(data, type="websocket.send"))
        if message.get("close"):
            code = 1000 if message["close"] is True else message["close"]
            wanted.append({"type": "websocket.close", "code": code})
        return wanted


class MemoryTests(UndecidedCase, unittest.TestCase):
    def make_layer(self):
        return MemoryChannelLayer(threads=4)

    def start(self):
        pass


class SQLiteTests(UndecidedCase, unittest.TestCase):
    def make_layer(self):
        folder = tempfile.mkdtemp(prefix="channels-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        layer = DatabaseChannelLayer(file=os.path.join(folder, "layer.sqlite3"))
        self.addCleanup(layer.close)
        return layer

    def start(self):
        group = WorkerGroup(self.layer, threads=4)
        group.start()
        self.addCleanup(group.stop, TIMEOUT)

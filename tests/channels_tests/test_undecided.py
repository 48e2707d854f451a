"""
While the consumer of a handshake runs, no road of other code answers it. Whole sockets, on two layers.

The test is the server of one socket. Its consumer waits for the test, which meanwhile sends by each road.
"""

import asyncio
import inspect
import itertools
import os
import shutil
import tempfile
import threading
import unittest

from django.channels import Channel, Group, route
from django.channels.delay.consumers import delay_message
from django.channels.exceptions import ConsumeLater
from django.channels.layers.database import DatabaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.worker import WorkerGroup

from .support.waiting import TIMEOUT, wait_until

#: What the consumer of the handshake leaves in the session.
SESSION = {"number": "7"}

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


def delayed(case, client, content):
    delay = {"channel": client, "content": content, "delay": 0}
    case.channel("asgi.delay").send(delay)


def second_event(case, client, content):
    """A consumer of an event that the site sends, with the reply channel of the socket."""
    case.do("websocket.receive", client, content)


ROADS = [send, send_in_a_thread, asend, consumer, async_consumer, requeued_consumer]
ROADS += [delayed, second_event]


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
        return await loop.run_in_executor(None, wait_until, condition, text, TIMEOUT, 0.002)


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
            route("asgi.delay", delay_message),
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
        if inspect.iscoroutinefunction(self.end):
            return self.connect_async(message)
        self.release.wait()
        return self.end(message)

    async def connect_async(self, message):
        await asyncio.get_event_loop().run_in_executor(None, self.release.wait)
        await self.end(message)

    def disconnect(self, message, number):
        self.ended.append((number, message["code"], dict(message.channel_session.items())))

    def work(self, message):
        if "to" not in message:
            return
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
        wait_until(lambda: self.done, "the other consumer", interval=0.002)

    def check(self, roads, messages, end, expected, code, session=SESSION):
        """
        Open a socket for each road and message. `expected(road, message)` is what is written at the end, and
        `code(road, message)` the code of the disconnect event, or None if there must be none. That event has
        `session`.
        """
        for road, message in itertools.product(roads, messages):
            with self.subTest(road=road.__name__, message=message):
                del self.clients[:], self.ended[:]
                asyncio.run(
                    self.one(road, message, end, expected(road, message), code(road, message))
                )
                if self.ended:
                    self.assertEqual(self.ended[0][2], session)

    async def one(self, road, message, end, wanted, code):
        self.end = end
        self.release.clear()
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
                await socket.until(lambda: len(socket.written) >= len(wanted), "the answer")
                await socket.until(lambda: state.in_flight is None, "the ack")
                self.assertEqual(socket.written, wanted)
                self.assertFalse(state._buffered and wanted)
            if code is not None:
                await socket.until(lambda: self.ended, "the disconnect")
            self.assertEqual(self.layer.gateway.unread_of_others.used, 0)
        finally:
            self.release.set()
        await self.layer.gateway.stop()
        self.assertEqual([each[:2] for each in self.ended], [] if code is None else [("7", code)])

    def after_acceptance(self, road, message):
        wanted = [{"type": "websocket.accept", "subprotocol": "one"}]
        data = {key: message[key] for key in ("text", "bytes") if key in message}
        if data:
            wanted.append(dict(data, type="websocket.send"))
        if message.get("close"):
            code = 1000 if message["close"] is True else message["close"]
            wanted.append({"type": "websocket.close", "code": code})
        return wanted


class MemoryLayer:
    def make_layer(self):
        return MemoryChannelLayer(threads=4)

    def start(self):
        pass


class CrossingLayer:
    """A layer that crosses processes doesn't start worker threads: `start` does."""

    def start(self):
        group = WorkerGroup(self.layer, threads=4)
        group.start()
        self.addCleanup(group.stop, TIMEOUT)


class SQLiteLayer(CrossingLayer):
    def make_layer(self):
        folder = tempfile.mkdtemp(prefix="channels-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        layer = DatabaseChannelLayer(file=os.path.join(folder, "layer.sqlite3"))
        self.addCleanup(layer.close)
        return layer


def code_after_acceptance(road, message):
    """Return the code of the disconnect event."""
    return 1000 if message.get("close") is True else message.get("close") or 1001


class Accepts(UndecidedCase):
    def test_the_own_consumer_accepts(self):
        def end(message):
            message.reply_channel.send({"accept": True, "subprotocol": "one"})

        self.check(ROADS + [group], MESSAGES, end, self.after_acceptance, code_after_acceptance)


class MemoryTests(MemoryLayer, Accepts, unittest.TestCase):
    pass


class SQLiteTests(SQLiteLayer, Accepts, unittest.TestCase):
    pass

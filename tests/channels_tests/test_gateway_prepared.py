"""Frames that are encoded once for a group, and events that are written where they come from."""

import asyncio
import inspect
import os
import socket
import struct
import sys
import types
import unittest
import zlib
from unittest import mock

from django.channels import protocol
from django.channels.gateway import prepared, sockets
from django.channels.gateway.application import Gateway
from django.channels.gateway.limits import make_limits
from django.channels.gateway.prepared import (
    Frame,
    UvicornWriter,
    accepts_immediately,
    direct_writer,
)
from django.channels.gateway.sockets import SocketConnection
from django.channels.gateway.websocket import MAX_UNREAD, WebSocket
from django.channels.layers.memory import MemoryChannelLayer
from django.core.exceptions import ImproperlyConfigured

from .support.requirements import require
from .support.sites import SiteBehindServer
from .support.waiting import TIMEOUT

ROUTING = """
from {channels} import Group, route
from {channels}.gateway import prepared

written = {"shared": 0}


def count(cls):
    write = cls.write

    def counted(self, frame, is_shared=True):
        done = write(self, frame, is_shared)
        written["shared"] += done and is_shared
        return done

    cls.write = counted


count(prepared.UvicornWriter)
count(prepared.DaphneWriter)


def connect(message):
    Group("all").add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def receive(message):
    what, _, rest = message["text"].partition(" ")
    channel, group = message.reply_channel, Group("all")
    if what == "mix":
        for number in range(0, int(rest), 2):
            channel.send({"text": str(number)}, immediately=True)
            group.send({"text": str(number + 1)}, immediately=True)
    elif what == "close":
        group.send({"text": "before"}, immediately=True)
        channel.send({"close": 4002}, immediately=True)
        group.send({"text": "after"}, immediately=True)
    elif what == "long":
        for _ in range(int(rest)):
            group.send({"text": "x" * 65536}, immediately=True)
    elif what == "bytes":
        group.send({"bytes": bytes(bytearray(range(256))) * 2})
    elif what == "written":
        slow = message.channel_layer.statistics().get("slow_clients", 0)
        channel.send({"text": "%d %d" % (written["shared"], slow)})
    else:
        group.send({"text": rest})


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
]
"""


class Client:
    """A raw WebSocket, so that the bits of each frame can be seen."""

    def __init__(self, server, extensions=""):
        self.sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        head = (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        ) % server.port
        if extensions:
            head += "Sec-WebSocket-Extensions: %s\r\n" % extensions
        self.sock.sendall(head.encode() + b"\r\n")
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.sock.recv(65536)
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")
        self._inflate = zlib.decompressobj(-15)

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.sock.sendall(struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + masked)

    def _take(self, length):
        while len(self.data) < length:
            more = self.sock.recv(262144)
            if not more:
                raise EOFError("the server has ended the connection")
            self.data += more
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def receive(self):
        """Return (opcode, whether it was compressed, payload) of the next frame."""
        first, length = struct.unpack("!BB", self._take(2))
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        payload = self._take(length)
        is_compressed = bool(first & 0x40)
        if is_compressed:
            payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
        return first & 0x0F, is_compressed, payload

    def text(self):
        opcode, _, payload = self.receive()
        assert opcode == 1, (opcode, payload)
        return payload.decode()

    def close(self):
        self.sock.close()


class ServerTests(SiteBehindServer):
    program = "uvicorn"
    files = {"mysite/routing.py": ROUTING}
    settings = 'CHANNEL_LAYERS["default"]["GATEWAY"] = {"compression": True}'

    #: Whether the server's frames are shared, and whether it agrees to compression.
    shares, compresses = True, True

    def connect(self, extensions=""):
        client = Client(self.server, extensions)
        self.addCleanup(client.close)
        self.assertIn(b" 101 ", client.head)
        # Not in its group before the gateway was told so.
        client.send("say ready")
        while client.text() != "ready":
            pass
        return client

    def counted(self, client):
        """Return how many frames were shared, and how many clients were closed for reading slowly."""
        client.send("written")
        return [int(number) for number in client.text().split()]

    def test_frames_of_the_group_and_of_the_own_consumer_stay_in_order(self):
        one, two = self.connect(), self.connect()
        self.assertEqual(one.text(), "ready")  # of the other
        before = self.counted(one)[0]
        one.send("mix 400")
        self.assertEqual([one.text() for _ in range(400)], [str(each) for each in range(400)])
        self.assertEqual([two.text() for _ in range(200)], [str(each) for each in range(1, 400, 2)])
        if self.shares:
            self.assertGreater(self.counted(one)[0], before)
        else:
            self.assertEqual(self.counted(one)[0], 0)

    def test_nothing_follows_a_close(self):
        one, two = self.connect(), self.connect()
        self.assertEqual(one.text(), "ready")
        one.send("close")
        self.assertEqual(one.text(), "before")
        opcode, _, payload = one.receive()
        self.assertEqual((opcode, payload[:2]), (8, struct.pack("!H", 4002)))
        self.assertEqual([two.text(), two.text()], ["before", "after"])

    def test_bytes_are_sent_as_they_are(self):
        one = self.connect()
        one.send("bytes")
        self.assertEqual(one.receive()[::2], (2, bytes(range(256)) * 2))

    def test_a_client_with_compression_reads_short_and_long_frames(self):
        one = self.connect("permessage-deflate")
        is_agreed = b"permessage-deflate" in one.head
        self.assertEqual(is_agreed, self.compresses)
        for _ in range(3):
            one.send("say short")
            _, is_compressed, payload = one.receive()
            self.assertEqual(payload, b"short")
            self.assertEqual(is_compressed, is_agreed and not self.shares)
            one.send("long 1")
            _, is_compressed, payload = one.receive()
            self.assertEqual((is_compressed, payload), (is_agreed, b"x" * 65536))

    def test_a_member_that_reads_slowly_is_closed_and_does_not_delay_the_others(self):
        slow, quick = self.connect(), self.connect()
        before, rounds = self.counted(quick)[1], 0
        while self.counted(quick)[1] == before:
            rounds += 1
            self.assertLess(rounds, 50, "the slow member is still there")
            quick.send("long 20")
            for _ in range(20):
                self.assertEqual(len(quick.text()), 65536)
        slow.close()


def has_what_is_needed(kind):
    """Return whether this version of uvicorn's class is known. Older ones lack some attributes."""
    # Without what a gateway of this process has put around it.
    names = inspect.unwrap(kind.__init__).__code__.co_names
    return kind.__name__ in prepared._PLAIN and set(prepared._ATTRIBUTES) <= set(names)


class UvicornTests(ServerTests, unittest.TestCase):
    """With the implementation that uvicorn takes by itself."""

    @classmethod
    def setUpClass(cls):
        require("uvicorn")
        from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

        cls.shares = has_what_is_needed(AutoWebSocketsProtocol)
        super().setUpClass()


class WsprotoTests(ServerTests, unittest.TestCase):
    arguments = ("--ws", "wsproto")

    @classmethod
    def setUpClass(cls):
        require("uvicorn", "wsproto")
        from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

        cls.shares = has_what_is_needed(WSProtocol)
        super().setUpClass()


class DaphneTests(ServerTests, unittest.TestCase):
    program, compresses = "daphne", False

    @classmethod
    def setUpClass(cls):
        require("daphne")
        super().setUpClass()


class WebSocketsSansIOProtocol:
    """What uvicorn's class of this name has."""

    def __init__(self):
        self.writable, self.transport, self.conn = mock.Mock(), mock.Mock(), mock.Mock()
        self.writable.is_set.return_value = True
        self.transport.is_closing.return_value = False
        self.conn.state, self.conn.debug, self.conn.extensions = mock.Mock(), False, []
        type(self.conn.state).OPEN = self.conn.state
        self.close_sent = self.disconnected = False
        self.handshake_complete = True
        self.queue = []

    async def send(self, event):
        self.queue.append(event)


WebSocketsSansIOProtocol.__module__ = "uvicorn.protocols.websockets.websockets_sansio_impl"


class RecognitionTests(unittest.TestCase):
    """Anything unfamiliar gets plain ASGI."""

    FRAME = Frame({"type": "websocket.send", "text": "hello"})

    def setUp(self):
        self.uvicorn = types.ModuleType("uvicorn")
        self.uvicorn.__version__ = "0.40.0"
        patch = mock.patch.dict(sys.modules, uvicorn=self.uvicorn)
        patch.start()
        self.addCleanup(patch.stop)

    def test_another_version(self):
        self.uvicorn.__version__ = "1.0.0"
        self.assertIsNone(direct_writer(WebSocketsSansIOProtocol().send))
        del self.uvicorn.__version__
        self.assertIsNone(direct_writer(WebSocketsSansIOProtocol().send))

    def test_a_send_that_does_something_unknown(self):
        async def send(self, event):
            self.bytes_written = len(event["text"])

        async def send_in_a_function(self, event):
            def count():
                self.bytes_written = len(event["text"])

            count()

        for each in (send, send_in_a_function):
            with mock.patch.object(WebSocketsSansIOProtocol, "send", each):
                self.assertIsNone(direct_writer(WebSocketsSansIOProtocol().send))
        self.assertIsNotNone(direct_writer(WebSocketsSansIOProtocol().send))

    def test_a_known_server(self):
        server = WebSocketsSansIOProtocol()
        self.assertTrue(accepts_immediately(server.send))
        self.assertTrue(direct_writer(server.send).write(self.FRAME))
        server.transport.write.assert_called_once_with(b"\x81\x05hello")

    def test_nothing_is_written_to_a_socket_that_is_not_ready(self):
        changes = {
            "state": lambda server: setattr(server.conn, "state", "closing"),
            "close": lambda server: setattr(server, "close_sent", True),
            "gone": lambda server: setattr(server, "disconnected", True),
            "handshake": lambda server: setattr(server, "handshake_complete", False),
            "paused": lambda server: setattr(server.writable.is_set, "return_value", False),
            "closing": lambda server: setattr(server.transport.is_closing, "return_value", True),
        }
        for name, change in changes.items():
            with self.subTest(name):
                server = WebSocketsSansIOProtocol()
                writer = direct_writer(server.send)
                change(server)
                self.assertFalse(writer.write(self.FRAME))
                server.transport.write.assert_not_called()

    def test_a_long_frame_is_left_to_a_server_that_compresses(self):
        server = WebSocketsSansIOProtocol()
        server.conn.extensions = ["permessage-deflate"]
        text = "x" * (prepared.MAX_UNCOMPRESSED + 1)
        writer = direct_writer(server.send)
        self.assertFalse(writer.write(Frame({"type": "websocket.send", "text": text})))
        self.assertTrue(writer.write(Frame({"type": "websocket.send", "text": text[1:]})))

    def test_a_frame_of_one_socket_is_left_to_a_server_that_compresses(self):
        server = WebSocketsSansIOProtocol()
        writer = direct_writer(server.send)
        self.assertTrue(writer.write(self.FRAME, False))
        server.conn.extensions = ["permessage-deflate"]
        self.assertFalse(writer.write(self.FRAME, False))
        self.assertTrue(writer.write(self.FRAME))

    def test_a_wrapped_send(self):
        server = WebSocketsSansIOProtocol()

        async def send(event):
            await server.send(event)

        self.assertFalse(accepts_immediately(send))
        self.assertIsNone(direct_writer(send))

    def test_a_subclass(self):
        class Other(WebSocketsSansIOProtocol):
            pass

        self.assertFalse(accepts_immediately(Other().send))
        self.assertIsNone(direct_writer(Other().send))

    def test_another_method_of_a_known_class(self):
        server = WebSocketsSansIOProtocol()
        server.send = server.__init__
        self.assertFalse(accepts_immediately(server.send))
        self.assertIsNone(direct_writer(server.send))

    def test_an_attribute_that_is_missing(self):
        for name in (
            "writable",
            "close_sent",
            "disconnected",
            "handshake_complete",
            "transport",
            "conn",
        ):
            with self.subTest(name):
                server = WebSocketsSansIOProtocol()
                delattr(server, name)
                self.assertIsNone(direct_writer(server.send))

    def test_a_server_that_logs_frames(self):
        server = WebSocketsSansIOProtocol()
        server.conn.debug = True
        self.assertIsNone(direct_writer(server.send))

    def test_the_option(self):
        self.assertIs(make_limits({"share_frames": False}).share_frames, False)
        with self.assertRaises(ImproperlyConfigured):
            make_limits({"share_frames": 1})


class FrameTests(unittest.TestCase):
    def test_only_what_is_nothing_but_a_frame(self):
        self.assertEqual(Frame.of({"text": "x"}).event, {"type": "websocket.send", "text": "x"})
        self.assertEqual(Frame.of({"bytes": b"x"}).event, {"type": "websocket.send", "bytes": b"x"})
        for message in (
            {},
            {"text": 1},
            {"bytes": "x"},
            {"text": "x", "close": True},
            {"status": 200},
        ):
            self.assertIsNone(Frame.of(message), message)

    def test_each_length_has_its_head(self):
        for length, head in (
            (1, b"\x81\x01"),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):
            frame = Frame({"type": "websocket.send", "text": "x" * length})
            self.assertEqual(frame.encoded, head + b"x" * length)
        self.assertEqual(Frame({"type": "", "bytes": b"\xff"}).encoded, b"\x82\x01\xff")

    def test_a_text_that_cannot_be_encoded_is_left_to_the_server(self):
        frame = Frame({"type": "websocket.send", "text": "\ud800"})
        self.assertFalse(UvicornWriter(WebSocketsSansIOProtocol()).write(frame))


def begin_at_once(loop, coroutine, **options):
    """Make a task as `asyncio.eager_task_factory` does, which Python has since 3.12."""
    try:
        future = coroutine.send(None)
    except StopIteration as end:
        done = loop.create_future()
        done.set_result(end.value)
        return done

    async def go_on():
        await sockets.Suspended(coroutine, future)

    return asyncio.Task(go_on(), loop=loop)


class WritingTests(unittest.TestCase):
    """A `send` that is stepped where the event comes from, and that may wait."""

    def run_with(self, scenario, send, limits=None, steps=True):
        async def main():
            layer = MemoryChannelLayer(threads=0)
            layer.alias, layer.routing, layer.gateway_options = "test", [], limits or {}
            gateway = Gateway(layer)
            state = WebSocket(gateway.name + "1", "/x")
            with mock.patch.object(sockets, "accepts_immediately", lambda send: steps):
                client = SocketConnection(gateway, state, send)
            client.perform(state.connect({}))
            client.perform(state.reply(protocol.ack(0, [{"accept": True}])))
            try:
                await asyncio.wait_for(scenario(client), TIMEOUT)
            finally:
                await gateway.stop()

        asyncio.run(main())

    def group(self, client, text):
        message = {"text": text}
        client.take_group(message, Frame.of(message))

    def test_what_comes_while_the_server_waits_comes_later_and_in_order(self):
        for number in (1, 3):  # how often the server waits
            events, may_write = [], []

            async def send(event, events=events, may_write=may_write, number=number):
                if event.get("text") == "first":
                    for _ in range(number):
                        may_write.append(asyncio.get_event_loop().create_future())
                        await may_write[-1]
                events.append(event.get("text"))

            async def scenario(client, events=events, may_write=may_write, number=number):
                self.group(client, "zero")
                self.assertEqual(events, [None, "zero"])  # at once
                self.group(client, "first")
                self.group(client, "second")
                client.perform(client.state.reply({"text": "third"}))
                for _ in range(number):
                    self.assertEqual(events, [None, "zero"])
                    may_write[-1].set_result(None)
                    for _ in range(5):
                        await asyncio.sleep(0)
                self.assertEqual(events, [None, "zero", "first", "second", "third"])
                self.group(client, "fourth")  # at once again
                self.assertEqual(events[-1], "fourth")
                self.assertEqual(client.state._unread, [0, 0])

            self.run_with(scenario, send)

    def test_an_eager_task_factory_changes_nothing(self):
        for steps in (True, False):
            events = []

            async def send(event, events=events):
                events.append(event.get("text") or event["type"])

            async def scenario(client, events=events):
                client.gateway.loop.set_task_factory(begin_at_once)
                for text in ("one", "two"):
                    client.perform(client.state.reply({"text": text}))
                    for _ in range(3):
                        await asyncio.sleep(0)
                client.perform(client.state.reply({"close": True}))
                for _ in range(3):
                    await asyncio.sleep(0)
                client.gateway.loop.set_task_factory(None)
                self.assertEqual(events[-3:], ["one", "two", "websocket.close"])
                self.assertIsNone(client.writer)
                self.assertEqual(client.state._unread, [0, 0])

            self.run_with(scenario, send, steps=steps)

    def test_a_server_that_waits_still_bounds_what_waits(self):
        async def send(event):
            if event["type"] == "websocket.send":
                await asyncio.get_event_loop().create_future()

        async def scenario(client):
            for number in range(MAX_UNREAD + 1):
                self.group(client, str(number))
            self.assertEqual(client.gateway.layer.statistics()["slow_clients"], 1)
            self.assertEqual(client.state.close_code, 1013)

        self.run_with(scenario, send)

    def test_what_a_server_raises_ends_the_writing(self):
        for error in (OSError("gone"), RuntimeError("refused")):
            events = []

            async def send(event, error=error, events=events):
                events.append(event)
                if event["type"] == "websocket.send":
                    raise error

            async def scenario(client, error=error, events=events):
                self.group(client, "one")
                self.group(client, "two")
                self.assertEqual(len(events), 2)
                self.assertIs(client.error, error)

            self.run_with(scenario, send)

    def test_a_socket_that_this_side_has_closed_is_left_after_a_while(self):
        async def send(event):
            pass

        async def scenario(client):
            client.perform(client.state.reply({"close": True}))
            await client.serve(asyncio.Queue().get)  # a server that never ends it

        with mock.patch.object(sockets.connection, "CLOSE_TIMEOUT", 0.01):
            self.run_with(scenario, send)

    def test_the_end_of_the_servers_task_ends_the_reading(self):
        async def send(event):
            pass

        async def scenario(client):
            task = asyncio.ensure_future(client.serve(asyncio.Queue().get))
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        self.run_with(scenario, send)

"""Compressed frames, of which a few kilobytes are megabytes of text, on real servers. See SECURITY.md."""

import base64
import os
import socket
import struct
import unittest
import zlib

from django.channels.gateway.limits import make_limits
from django.core.exceptions import ImproperlyConfigured

from .support.requirements import require, require_servers
from .support.sites import SiteBehindServer
from .support.waiting import TIMEOUT

ROUTING = """
from {channels} import route


def receive(message):
    message.reply_channel.send({"text": "length: %d" % len(message["text"])})


channel_routing = [route("websocket.receive", receive)]
"""

ALLOWED = """
CHANNEL_LAYERS["default"]["GATEWAY"] = {"compression": True}
"""

#: The first byte of a frame with the whole text of a message, and of one that is compressed.
TEXT, COMPRESSED = 0x81, 0xC1

CLOSE = 0x88


def frame(first, payload):
    """Return a frame of a client, masked with zeros."""
    short = len(payload) < 126
    length = bytes([0x80 | len(payload)]) if short else b"\xfe" + struct.pack("!H", len(payload))
    return bytes([first]) + length + b"\0\0\0\0" + payload


def compressed(text):
    """Return a compressed frame with `text`."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(COMPRESSED, payload[:-4])


class Client:
    """A socket that offers compression."""

    def __init__(self, server):
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)
        self.close = self._socket.close
        self.send = self._socket.sendall
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "", ""]
        self.send("\r\n".join(lines).encode())
        self._data = b""
        self.head = self._read_until(b"\r\n\r\n")

    @property
    def is_compressed(self):
        """Whether the server agreed to compression."""
        return b"permessage-deflate" in self.head.lower()

    def _read_until(self, end):
        while end not in self._data:
            part = self._socket.recv(65536)
            if not part:
                raise EOFError("ended after %r" % self._data)
            self._data += part
        head, _, self._data = self._data.partition(end)
        return head

    def read(self, size):
        """Return so many bytes, or fewer if the connection ends before."""
        while len(self._data) < size:
            try:
                part = self._socket.recv(65536)
            except ConnectionError:
                part = b""
            if not part:
                break
            self._data += part
        data, self._data = self._data[:size], self._data[size:]
        return data

    def receive(self):
        """Return the first byte and the payload of the next short frame; nothing at the end."""
        head = self.read(2)
        return (head[0], self.read(head[1])) if len(head) == 2 else None


class RefusingTests(SiteBehindServer):
    files = {"mysite/routing.py": ROUTING}

    def connect(self):
        client = Client(self.server)
        self.addCleanup(client.close)
        self.assertIn(b" 101 ", client.head)
        return client

    def test_a_client_that_offers_compression_gets_none(self):
        client = self.connect()
        self.assertFalse(client.is_compressed, client.head)
        client.send(frame(TEXT, b"x" * 1000))
        self.assertEqual(client.receive(), (TEXT, b"length: 1000"))

    def test_a_compressed_frame_ends_its_socket_and_reaches_no_consumer(self):
        bystander = self.connect()
        for text in (b"", b"x", b"x" * 1000, b"x" * 900000, b"x" * 64 * 1024 * 1024):
            with self.subTest(length=len(text)):
                client = self.connect()
                client.send(compressed(text))
                found = client.receive()
                self.assertEqual((found or (CLOSE, b""))[0], CLOSE)
                bystander.send(frame(TEXT, b"here"))
                self.assertEqual(bystander.receive(), (TEXT, b"length: 4"))


class SansIOTests(RefusingTests, unittest.TestCase):
    program, arguments = "uvicorn", ("--ws", "websockets-sansio")

    @classmethod
    def setUpClass(cls):
        require_servers("uvicorn", "websockets")
        super().setUpClass()


class WebsocketsTests(RefusingTests, unittest.TestCase):
    program, arguments = "uvicorn", ("--ws", "websockets")

    @classmethod
    def setUpClass(cls):
        require("uvicorn", "websockets")
        super().setUpClass()


class WsprotoTests(RefusingTests, unittest.TestCase):
    program, arguments = "uvicorn", ("--ws", "wsproto")

    @classmethod
    def setUpClass(cls):
        require("uvicorn", "wsproto")
        super().setUpClass()


class HypercornTests(RefusingTests, unittest.TestCase):
    program = "hypercorn"

    @classmethod
    def setUpClass(cls):
        require("hypercorn")
        super().setUpClass()


class DaphneTests(RefusingTests, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require("daphne")
        super().setUpClass()


class GranianTests(RefusingTests, unittest.TestCase):
    program = "granian"


class AllowedTests:
    """With the option, servers do what they do by themselves."""

    files, settings = {"mysite/routing.py": ROUTING}, ALLOWED

    def test_a_client_and_the_server_compress(self):
        client = Client(self.server)
        self.addCleanup(client.close)
        self.assertTrue(client.is_compressed, client.head)
        client.send(compressed(b"x" * 100000))
        first, payload = client.receive()
        if first == COMPRESSED:
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        self.assertEqual(payload, b"length: 100000")


class UvicornAllowedTests(AllowedTests, SiteBehindServer, unittest.TestCase):
    program = "uvicorn"

    @classmethod
    def setUpClass(cls):
        require("uvicorn", "websockets")
        super().setUpClass()


class HypercornAllowedTests(AllowedTests, SiteBehindServer, unittest.TestCase):
    program = "hypercorn"

    @classmethod
    def setUpClass(cls):
        require("hypercorn")
        super().setUpClass()


class OptionTests(unittest.TestCase):
    def test_it_is_true_or_false(self):
        self.assertIs(make_limits({}).compression, False)
        self.assertIs(make_limits({"compression": True}).compression, True)
        for value in (1, 0, None, "false"):
            with self.subTest(value), self.assertRaises(ImproperlyConfigured):
                make_limits({"compression": value})

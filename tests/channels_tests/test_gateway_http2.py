"""Frames of HTTP/2 besides requests and bodies: they are counted before Hypercorn parses them."""

import socket
import struct
import sys
import unittest
import urllib.request

from django.channels.gateway.http2 import FRAMES_PER_SECOND, MAX_BURST, StreamCounter

from .support.sites import SiteBehindServer
from .support.waiting import TIMEOUT, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
CONTINUATION, UNKNOWN = 9, 0x77

#: GET / of localhost, and the same as POST, without the compression of headers (RFC 7541, appendix A).
GET, POST = (method + b"\x84\x86\x01\x09localhost" for method in (b"\x82", b"\x83"))
END_STREAM, END_HEADERS = 1, 4


def frame(kind, payload=b"", stream=0, flags=0):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def reset_requests(number, first=1):
    for stream in range(first, first + 2 * number, 2):
        yield frame(HEADERS, GET, stream, END_STREAM | END_HEADERS)
        yield frame(RST_STREAM, struct.pack("!I", 8), stream)


class CounterTests(unittest.TestCase):
    def allowed(self, *parts, now=0.0):
        counter = StreamCounter()
        return [counter.allows(part, now) for part in (PREFACE, *parts)][1:]

    def test_a_burst_is_allowed_and_one_frame_more_is_not(self):
        for kind in (PRIORITY, RST_STREAM, SETTINGS, PING, CONTINUATION, UNKNOWN, DATA):
            with self.subTest(kind=kind):
                payload = b"" if kind == DATA else b"12345678"
                burst = frame(kind, payload, 1) * MAX_BURST
                self.assertEqual(self.allowed(burst, frame(kind, payload, 1)), [True, False])

    def test_bodies_and_what_a_download_needs_are_not_counted(self):
        data = frame(DATA, b"x" * 100, 1) + frame(WINDOW_UPDATE, b"1234") + frame(HEADERS, GET, 1)
        self.assertEqual(self.allowed(data * 10 * MAX_BURST), [True])

    def test_an_empty_end_of_a_body_is_not_counted_once_for_each_request(self):
        request = frame(HEADERS, POST, 1, END_HEADERS) + frame(DATA, b"abc", 1)
        end = frame(DATA, b"", 1, END_STREAM)
        parts = (request + end) * 10 * MAX_BURST
        self.assertEqual(self.allowed(parts, end * MAX_BURST, end), [True, True, False])
        bodies = (frame(HEADERS, POST, 1, END_HEADERS) + frame(DATA, b"abc", 1, END_STREAM)) * 9
        self.assertEqual(self.allowed(bodies, end * MAX_BURST, end), [True, True, False])
        requests = frame(HEADERS, GET, 1, END_STREAM | END_HEADERS) * 9
        self.assertEqual(self.allowed(requests, end * MAX_BURST, end), [True, True, False])

    def test_frames_are_counted_wherever_the_reads_end(self):
        parts = [
            frame(DATA, b"x" * length, 1) + frame(PING, b"12345678") for length in range(1, 200)
        ]
        data = PREFACE + b"".join(parts) + frame(PING, b"12345678") * (MAX_BURST - 199)
        for size in (1, 2, 7, 8, 9, 10, 11, 100, 4096, len(data)):
            with self.subTest(size=size):
                counter = StreamCounter()
                reads = [data[start : start + size] for start in range(0, len(data), size)]
                self.assertTrue(all(counter.allows(read, 0.0) for read in reads))
                self.assertFalse(counter.allows(frame(PING, b"12345678"), 0.0))

    def test_the_streams_that_a_client_resets_are_told(self):
        data = PREFACE + b"".join(reset_requests(5)) + frame(DATA, b"\3" * 30, 1)
        for size in (1, 5, len(data)):
            counter = StreamCounter()
            for start in range(0, len(data), size):
                self.assertTrue(counter.allows(data[start : start + size], 0.0))
            self.assertEqual(counter.resets, [1, 3, 5, 7, 9])

    def test_a_client_may_send_as_many_each_second(self):
        counter = StreamCounter()
        self.assertTrue(counter.allows(PREFACE + frame(PING) * MAX_BURST, 0.0))
        for second in range(1, 10):
            self.assertTrue(counter.allows(frame(PING) * FRAMES_PER_SECOND, float(second)))
        self.assertFalse(counter.allows(frame(PING) * FRAMES_PER_SECOND, 9.5))


VIEWS = """
from django.http import HttpResponse, StreamingHttpResponse


def index(request):
    return HttpResponse("hello")


def page(request):
    return HttpResponse(b"x" * 40000)


def large(request):
    return HttpResponse(b"x" * 1000000)


def endless(request):
    def parts():
        while True:
            yield b"x" * 16000

    return StreamingHttpResponse(parts())


def broken(request):
    def parts():
        yield b"x" * 100
        raise OSError("it breaks off")

    return StreamingHttpResponse(parts())
"""

#: Answers /connections with the number of connections that the gateway knows.
ASGI = """
import os

from {channels}.asgi import get_channel_layer
from {channels}.gateway import backlog

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

backlog.RATE_INTERVAL = 1.0

layer = get_channel_layer()


async def channel_layer(scope, receive, send):
    if scope["type"] == "http" and scope["query_string"].startswith(b"read_timeout="):
        backlog.READ_TIMEOUT = float(scope["query_string"][13:])
    if scope["type"] == "lifespan" or scope["path"] != "/connections":
        return await layer(scope, receive, send)
    body = str(len(layer.gateway.connections)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [re_path("^$", views.index)] + [
    re_path("^%s$" % view.__name__, view)
    for view in (views.page, views.large, views.endless, views.broken)
]
"""


def get(path):
    """The headers of GET `path`."""
    length, more = [len(path)], len(path) - 127
    if more >= 0:  # in groups of seven bits (RFC 7541, section 5.1)
        length = [127, more % 128 + 128, more // 128]
    return b"\x82\x04" + bytes(length) + path + GET[2:]


def named(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


#: The headers that open a socket at / of localhost (RFC 8441).
OPEN_SOCKET = b"\x02\x07CONNECT\x84\x86\x01\x09localhost" + named(b":protocol", b"websocket")
OPEN_SOCKET += named(b"sec-websocket-version", b"13")
PING_OF_SOCKET = 9

#: The same over HTTP/1.1.
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode, payload):
    """A frame of a WebSocket's client (RFC 6455)."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


ROUTING = """
from {channels} import route


def receive(message):
    message.reply_channel.send({"bytes": b"x" * 200000})


channel_routing = [route("websocket.receive", receive)]
"""


class HypercornTests(SiteBehindServer, unittest.TestCase):
    program = "hypercorn"
    files = {
        "mysite/views.py": VIEWS,
        "mysite/urls.py": URLS,
        "mysite/asgi.py": ASGI,
        "mysite/routing.py": ROUTING,
    }

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=TIMEOUT)
        self.addCleanup(connection.close)
        connection.sendall(PREFACE + frame(SETTINGS))
        reader = connection.makefile("rb")
        self.addCleanup(reader.close)
        return reader, connection

    def kinds_until(self, reader, wanted):
        """Return the kinds of the frames that come, up to `wanted`: (kind, stream), or None for the end."""
        found = []
        while True:
            try:
                head = reader.read(9)
                payload = reader.read(int.from_bytes(head[:3], "big"))
            except ConnectionError:
                head = payload = b""
            if len(head) < 9:
                return [*found, None]
            found.append((head[3], int.from_bytes(head[5:], "big")))
            if found[-1] == wanted:
                return [*found, payload]

    def floods(self):
        ping = frame(PING, b"12345678")
        yield "resets", b"".join(reset_requests(4 * MAX_BURST))
        yield "pings", ping * 4 * MAX_BURST
        yield "settings", frame(SETTINGS, struct.pack("!HI", 4, 65535)) * 4 * MAX_BURST
        yield "priorities", frame(PRIORITY, b"\0\0\0\0\1", 1) * 4 * MAX_BURST
        yield "unknown frames", frame(UNKNOWN) * 4 * MAX_BURST
        body = frame(DATA, b"", 1) * 4 * MAX_BURST
        yield "empty parts", frame(HEADERS, POST, 1, END_HEADERS) + body

    def test_a_flood_ends_its_connection_and_others_are_served(self):
        for name, flood in self.floods():
            with self.subTest(flood=name):
                reader, connection = self.connect()
                try:
                    connection.sendall(flood)
                except ConnectionError:
                    pass  # it has ended already
                self.assertIsNone(self.kinds_until(reader, None)[-1])
                with urllib.request.urlopen(self.server.url("/"), timeout=TIMEOUT) as response:
                    self.assertEqual(response.read(), b"hello")
        self.assertIn("Ended a connection of 127.0.0.1: over HTTP/2", self.server.output)

    def test_nothing_remains_of_a_client_that_leaves_what_it_asked_for_unread(self):
        for path in (b"/large", b"/endless"):
            for ends_all in (True, False):
                with self.subTest(path=path, ends_all=ends_all):
                    reader, connection = self.connect()
                    for stream in (1, 3):
                        flags = END_STREAM | END_HEADERS
                        connection.sendall(frame(HEADERS, get(path), stream, flags))
                    self.read_a_window(reader)
                    if ends_all:
                        reader.close()
                        connection.close()
                    else:
                        for stream in (1, 3):
                            connection.sendall(frame(RST_STREAM, struct.pack("!I", 8), stream))
                    wait_until(lambda: self.connections() == 0, "the end of the requests")

    def test_a_client_that_reads_nothing_is_cut_like_any_other(self):
        reader, connection = self.connect()
        connection.sendall(frame(HEADERS, get(b"/endless"), 1, END_STREAM | END_HEADERS))
        self.read_a_window(reader)
        wait_until(lambda: self.connections() == 0, "the end of the request")
        # If it reads again, it sees that the response is not whole.
        self.assertIn((RST_STREAM, 1), self.kinds_until(reader, (RST_STREAM, 1)))

    def test_a_client_that_reads_nothing_of_a_short_response_is_reset(self):
        """Whether the site or the gateway answers, and whatever the size: all of it waits in the server."""
        self.connections("?read_timeout=0.5")
        self.addCleanup(self.connections, "?read_timeout=300")
        reader, connection = self.connect()
        no_window = struct.pack("!HI", 4, 0)
        connection.sendall(frame(SETTINGS, no_window))
        paths = (b"/", b"/page", b"/nowhere", b"/" + b"x" * 9000)
        for number, path in enumerate(paths):
            stream = 1 + 2 * number
            with self.subTest(path=path[:20]):
                connection.sendall(frame(HEADERS, get(path), stream, END_STREAM | END_HEADERS))
                reset = (RST_STREAM, stream)
                self.assertIn(reset, self.kinds_until(reader, reset))
        wait_until(lambda: self.connections() == 0, "the end of the requests")

    def test_a_response_that_breaks_off_is_reset(self):
        reader, connection = self.connect()
        for stream in (1, 3):
            connection.sendall(frame(HEADERS, get(b"/broken"), stream, END_STREAM | END_HEADERS))
            self.assertIn((RST_STREAM, stream), self.kinds_until(reader, (RST_STREAM, stream)))

    def test_a_socket_that_reads_late_and_is_pinged_gets_all(self):
        reader, connection = self.open_socket()
        connection.sendall(frame(DATA, masked(1, b"x"), 1))
        self.read_a_window(reader)
        connection.sendall(frame(DATA, masked(PING_OF_SOCKET, b""), 1))
        left = 200000 - 65535
        for stream in (0, 1):
            connection.sendall(frame(WINDOW_UPDATE, struct.pack("!I", left), stream))
        while left > 0:
            head = reader.read(9)
            size = len(reader.read(int.from_bytes(head[:3], "big")))
            left -= size if head[3] == DATA else 0

    def test_nothing_remains_of_a_socket_that_sends_before_its_handshake_is_answered(self):
        data = masked(1, b"x")
        with self.subTest("HTTP/2"):
            reader, connection = self.connect()
            connection.sendall(frame(HEADERS, OPEN_SOCKET, 1, END_HEADERS) + frame(DATA, data, 1))
            self.kinds_until(reader, (HEADERS, 1))  # a 400, or the end of the connection
            wait_until(lambda: self.connections() == 0, "the end of the socket")
        with self.subTest("HTTP/1.1"):
            address = ("127.0.0.1", self.server.port)
            with socket.create_connection(address, timeout=TIMEOUT) as connection:
                connection.sendall(HANDSHAKE + data)
                connection.recv(1000)
                wait_until(lambda: self.connections() == 0, "the end of the socket")

    def test_a_client_that_reads_gets_all(self):
        reader, connection = self.connect()
        for stream in (1, 3):
            connection.sendall(frame(HEADERS, get(b"/large"), stream, END_STREAM | END_HEADERS))
        left = {1: 1000000, 3: 1000000}
        while left:
            head = reader.read(9)
            stream, size = int.from_bytes(head[5:], "big"), int.from_bytes(head[:3], "big")
            self.assertEqual(len(reader.read(size)), size)
            if head[3] == DATA:
                left[stream] -= size
                if head[4] & END_STREAM:
                    self.assertEqual(left.pop(stream), 0)
                elif size:
                    for each in (0, stream):
                        connection.sendall(frame(WINDOW_UPDATE, struct.pack("!I", size), each))

    def read_a_window(self, reader):
        """Read all that comes of responses until the client says that it has read some of them."""
        left = 65535
        while left:
            head = reader.read(9)
            size = len(reader.read(int.from_bytes(head[:3], "big")))
            left -= size if head[3] == DATA else 0

    def open_socket(self):
        reader, connection = self.connect()
        connection.sendall(frame(HEADERS, OPEN_SOCKET, 1, END_HEADERS))
        self.assertIn((HEADERS, 1), self.kinds_until(reader, (HEADERS, 1)))
        return reader, connection

    def connections(self, query=""):
        """Return the number of connections that the gateway knows."""
        url = self.server.url("/connections" + query)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return int(response.read())

    def test_a_client_that_gives_up_some_requests_is_served(self):
        reader, connection = self.connect()
        connection.sendall(b"".join(reset_requests(100)) + frame(PING, b"12345678") * 100)
        last = 1001
        connection.sendall(frame(HEADERS, GET, last, END_STREAM | END_HEADERS))
        self.assertIn((HEADERS, last), self.kinds_until(reader, (HEADERS, last)))

    @unittest.skipIf(
        sys.version_info >= (3, 12) or sys.version_info[:2] == (3, 8),
        "there, Hypercorn waits for its clients in any case",
    )
    def test_the_server_stops_whatever_its_clients_left_unread(self):
        sockets = [self.open_socket() for _ in range(3)]
        for (reader, connection), frames in zip(sockets, (1, 300, 300)):
            connection.sendall(frame(DATA, masked(1, b"x"), 1) * frames)
            self.read_a_window(reader)
        reader.close()
        connection.close()
        self.server.stop()
        type(self).server = self.start_server()

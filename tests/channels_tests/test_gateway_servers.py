"""The gateway behind real servers, Daphne and uvicorn, with worker threads in the same process."""

import hashlib
import http.client
import json
import sys
import threading
import unittest
import urllib.error
import urllib.request
from socket import SHUT_WR

import django

from .support.requirements import require
from .support.sites import SiteBehindServer, serve
from .support.waiting import TIMEOUT, wait_until

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "good.example"]
DATA_UPLOAD_MAX_MEMORY_SIZE = None
"""

VIEWS = r"""
import hashlib, json, threading

from django.http import HttpResponse, StreamingHttpResponse
from {channels} import Group
from mysite import routing


def index(request):
    return HttpResponse("hello")


def upload(request):
    digest, size = hashlib.sha256(), 0
    while True:
        chunk = request.read(100000)
        if not chunk:
            break
        digest.update(chunk)
        size += len(chunk)
    return HttpResponse("%d %s" % (size, digest.hexdigest()))


def ignore_body(request):
    return HttpResponse("did not look")


def stream(request):
    def parts():
        try:
            for number in range(int(request.GET["parts"])):
                if "note" in request.GET:
                    routing.note("parts", number)
                yield (b"%08d" % number) * 8192
        finally:
            routing.note("stream", "closed")
    return StreamingHttpResponse(parts())


def broken_stream(request):
    def parts():
        yield b"a" * 100000
        yield b"b" * 100000
        raise RuntimeError("secret detail")
    return StreamingHttpResponse(parts())


def length(request):
    # Ten bytes, whatever the header says.
    response = StreamingHttpResponse(iter([b"01234", b"56789"]))
    response["Content-Length"] = request.GET["declared"]
    return response


async def wait_for_ever(parts):
    import asyncio

    try:
        for number in range(parts):
            yield b"%d" % number
        await asyncio.Event().wait()
    finally:
        routing.note("idle", "closed")


def idle(request):
    routing.note("idle", "begun")
    return StreamingHttpResponse(wait_for_ever(int(request.GET["parts"])))


def fail(request):
    raise RuntimeError("secret detail")


def headers(request):
    return HttpResponse(json.dumps({k: v for k, v in request.META.items() if k.startswith("HTTP_X")}))


def notes(request):
    with routing.lock:
        return HttpResponse(json.dumps(routing.notes.get(request.GET["of"], [])))


def release(request):
    routing.go_on.set()
    return HttpResponse("released")


def answer(request):
    Group("polls").send({"status": 200, "content": b"at last"})
    return HttpResponse("sent")


def statistics(request):
    from {channels}.asgi import channel_layers
    return HttpResponse(json.dumps(channel_layers["default"].statistics()))
"""

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [re_path("^$", views.index)] + [
    re_path("^%s/$" % name, getattr(views, name))
    for name in (
        "upload", "ignore_body", "stream", "length", "idle", "broken_stream", "fail", "headers",
        "notes", "answer", "statistics", "release",
    )
]
"""

ROUTING = """
import threading, time

from {channels} import Group, include, route
from {channels}.security.websockets import any_origin
from django.db import connection

lock = threading.Lock()
go_on = threading.Event()
notes = {}
busy = {}


def note(name, what):
    with lock:
        notes.setdefault(name, []).append(what)


def only_one(message):
    # Every event of a socket passes here: no two of one socket may do so at a time.
    name = message.reply_channel.name
    with lock:
        if busy.setdefault(name, 0):
            notes.setdefault("overlaps", []).append(name)
        busy[name] += 1
    time.sleep(0.0001)
    with lock:
        busy[name] -= 1


def ordered_connect(message):
    only_one(message)
    message.channel_session["name"] = message["query_string"].decode()
    note(message.channel_session["name"], "connect")
    message.reply_channel.send({"accept": True})


def ordered_receive(message):
    only_one(message)
    message.channel_session["count"] = message.channel_session.get("count", 0) + 1
    note(message.channel_session["name"], int(message["text"]))
    if message.channel_session["name"] != "leaver":
        message.reply_channel.send({"text": "%s %d" % (message["text"], message.channel_session["count"])})


def ordered_disconnect(message):
    only_one(message)
    note(message.channel_session["name"], "disconnect")


def use_database(message):
    unused = connection.connection is None
    connection.cursor().execute("SELECT 1")
    message.reply_channel.send({"text": "opened" if unused else "left open"})


def echo(message):
    if message.get("text") is not None:
        if message["text"] == "fail":
            raise RuntimeError("secret detail")
        if message["text"] == "close":
            message.reply_channel.send({"text": "bye", "close": 4001})
            return
        message.reply_channel.send({"text": message["text"]})
    else:
        message.reply_channel.send({"bytes": message["bytes"]})


def held(message):
    if message["order"] == 1:
        go_on.wait(60)
        go_on.clear()  # for the next test
    if message["bytes"] == b"last":
        message.reply_channel.send({"text": str(message["order"])})


def echo_disconnect(message):
    note("codes", message["code"])


def flood_connect(message):
    message.reply_channel.send({"accept": True})
    Group("flood").add(message.reply_channel)


def flood(message):
    for number in range(20):
        Group("flood").send({"text": ("%08d" % number) * 8192})


def farewell(message):
    time.sleep(0.05)
    print("consumer says farewell", flush=True)


def room_connect(message, room):
    message.reply_channel.send({"accept": True})
    Group("room-" + room).add(message.reply_channel)


def room_receive(message, room):
    Group("room-" + room).send({"text": message["text"]})


@any_origin
def open_connect(message):
    message.reply_channel.send({"accept": True})


def poll(message):
    Group("polls").add(message.reply_channel)
    note("polls", "waiting")


def poll_gone(message):
    note("polls", "gone")


channel_routing = [
    route("websocket.connect", ordered_connect, path="^/ordered/$"),
    route("websocket.receive", ordered_receive, path="^/ordered/$"),
    route("websocket.disconnect", ordered_disconnect, path="^/ordered/$"),
    route("websocket.receive", echo, path="^/echo/$"),
    route("websocket.disconnect", echo_disconnect, path="^/echo/$"),
    route("websocket.receive", held, path="^/held/$"),
    route("websocket.connect", flood_connect, path="^/flood/$"),
    route("websocket.receive", flood, path="^/flood/$"),
    route("websocket.receive", echo, path="^/farewell/$"),
    route("websocket.disconnect", farewell, path="^/farewell/$"),
    route("websocket.connect", room_connect, path="^/room/(?P<room>[a-z]+)/$"),
    route("websocket.receive", room_receive, path="^/room/(?P<room>[a-z]+)/$"),
    route("websocket.connect", open_connect, path="^/open/$"),
    route("websocket.receive", use_database, path="^/database/$"),
    route("http.request", poll, path="^/poll/$"),
    route("http.disconnect", poll_gone, path="^/poll/$"),
]
"""


class ServerTests(SiteBehindServer):
    files = {"mysite/views.py": VIEWS, "mysite/urls.py": URLS, "mysite/routing.py": ROUTING}
    settings = SETTINGS

    #: Whether the server, told to stop, ends sockets that are open.
    ends_with_open_sockets = True

    #: What must not stand in the log of a server that was told to stop.
    no_traceback = "Traceback"

    @classmethod
    def setUpClass(cls):
        require("websocket")
        super().setUpClass()

    def connect(self, path, **options):
        import websocket

        options.setdefault("suppress_origin", "origin" not in options)
        # In pure Python, checking megabytes takes a minute on a busy machine.
        options.setdefault("skip_utf8_validation", True)
        socket = websocket.create_connection(
            self.server.websocket_url(path), timeout=TIMEOUT, **options
        )
        self.addCleanup(socket.shutdown)
        return socket

    def denied(self, path, **options):
        """The status with which the handshake is refused."""
        import websocket

        with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
            self.connect(path, **options)
        return caught.exception.status_code

    def close_code(self, socket):
        """The code with which the server closes the socket, which it does next."""
        import websocket

        opcode, data = socket.recv_data()
        self.assertEqual(opcode, websocket.ABNF.OPCODE_CLOSE, data)
        return int.from_bytes(data[:2], "big")

    def get(self, path, data=None, headers=None):
        """(status, body) of a request."""
        request = urllib.request.Request(self.server.url(path), data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def notes(self, name):
        return json.loads(self.get("/notes/?of=" + name)[1].decode())

    # WebSockets.

    def test_echo_of_text_and_bytes(self):
        socket = self.connect("/echo/")
        socket.send("gr\u00fc\u00df dich")
        self.assertEqual(socket.recv(), "gr\u00fc\u00df dich")
        socket.send_binary(b"\x00\xff")
        self.assertEqual(socket.recv(), b"\x00\xff")

    def test_every_sockets_events_are_handled_in_order_and_one_at_a_time(self):
        sockets = {name: self.connect("/ordered/?%d" % name) for name in range(50)}
        frames = list(range(200))
        for socket in sockets.values():
            for number in frames:
                socket.send(str(number))
        for socket in sockets.values():
            answers = [socket.recv() for _ in frames]
            self.assertEqual(answers, ["%d %d" % (number, number + 1) for number in frames])
            socket.close()
        expected = ["connect"] + frames + ["disconnect"]
        for name in sockets:
            wait_until(lambda name=name: "disconnect" in self.notes(str(name)), "disconnect")
            self.assertEqual(self.notes(str(name)), expected)
        self.assertEqual(self.notes("overlaps"), [])

    def test_frames_sent_before_leaving_are_all_handled(self):
        socket = self.connect("/ordered/?leaver")
        for number in range(100):
            socket.send(str(number))
        socket.send_close()  # without a look at any answer
        # Else uvicorn 0.22 waits 10 s for it. The consumer answers nothing: when a write fails, websockets
        # throws away the frames that it has not given to the application (all but 32).
        socket.sock.shutdown(SHUT_WR)
        wait_until(lambda: "disconnect" in self.notes("leaver"), "disconnect")
        self.assertEqual(self.notes("leaver"), ["connect"] + list(range(100)) + ["disconnect"])

    def test_a_group_reaches_every_member(self):
        ada, bob = self.connect("/room/lobby/"), self.connect("/room/lobby/")
        other = self.connect("/room/other/")
        other.send("only here")
        self.assertEqual(other.recv(), "only here")
        ada.send("hello")
        self.assertEqual((ada.recv(), bob.recv()), ("hello", "hello"))
        bob.close()
        ada.send("still there?")
        self.assertEqual(ada.recv(), "still there?")
        other.send("last")
        self.assertEqual(other.recv(), "last")

    def test_database_connections_are_released_after_each_event(self):
        # More events than threads, so one thread at least has had one before.
        socket = self.connect("/database/")
        for _ in range(8):
            socket.send("x")
            self.assertEqual(socket.recv(), "opened")

    def test_the_site_closes_with_its_code(self):
        socket = self.connect("/echo/")
        socket.send("close")
        self.assertEqual(socket.recv(), "bye")
        self.assertEqual(self.close_code(socket), 4001)
        wait_until(lambda: 4001 in self.notes("codes"), "the disconnect event")

    def test_a_consumer_that_raises_closes_with_1011(self):
        socket = self.connect("/echo/")
        socket.send("fail")
        self.assertEqual(self.close_code(socket), self.code(1011))
        self.server.wait_for_output("RuntimeError: secret detail")

    def test_an_unknown_path_is_denied(self):
        self.assertEqual(self.denied("/unknown/"), 403)
        self.server.wait_for_output("WebSocket /unknown/ denied: no route")

    def test_a_page_of_another_site_is_denied_unless_the_route_says_otherwise(self):
        self.assertEqual(self.denied("/echo/", origin="https://evil.example"), 403)
        self.server.wait_for_output("WebSocket /echo/ denied: its Origin")
        self.assertEqual(self.denied("/echo/", origin="http://good.example"), 403)
        self.connect("/echo/", origin="http://good.example", host="good.example")
        self.connect("/open/", origin="https://evil.example")

    def send_10_megabytes(self):
        """A socket to which the server says what it thinks of a frame of that size."""
        socket = self.connect("/echo/")
        try:
            socket.send("x" * 10 * 1024 * 1024)
        except OSError:
            pass  # the server has not read it to its end
        return socket

    # HTTP.

    def test_a_view(self):
        self.assertEqual(self.get("/"), (200, b"hello"))
        self.assertEqual(self.get("/no-such-page/")[0], 404)

    def test_keep_alive(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        for _ in range(3):
            connection.request("GET", "/")
            self.assertEqual(connection.getresponse().read(), b"hello")

    def test_a_view_that_raises_tells_nothing_of_it(self):
        status, body = self.get("/fail/")
        self.assertEqual(status, 500)
        self.assertNotIn(b"secret", body)

    def test_an_unknown_host(self):
        self.assertEqual(self.get("/", headers={"Host": "evil.example"})[0], 400)

    def test_a_header_with_an_underscore_is_not_taken_for_another(self):
        status, body = self.get("/headers/", headers={"X-Real": "1", "X_Real": "2"})
        self.assertEqual(json.loads(body.decode()), {"HTTP_X_REAL": "1"})

    def test_a_large_upload_arrives_whole(self):
        data = bytes(range(256)) * 20000
        expected = "%d %s" % (len(data), hashlib.sha256(data).hexdigest())
        self.assertEqual(self.get("/upload/", data), (200, expected.encode()))

    def test_a_body_that_nobody_reads(self):
        self.assertEqual(self.get("/ignore_body/", b"x" * 100000), (200, b"did not look"))
        self.assertEqual(self.get("/"), (200, b"hello"))

    def test_a_streamed_response(self):
        status, body = self.get("/stream/?parts=100")
        self.assertEqual(body, b"".join((b"%08d" % number) * 8192 for number in range(100)))

    def test_a_client_that_leaves_a_stream_stops_it(self):
        before = len(self.notes("stream"))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        connection.request("GET", "/stream/?parts=1000000")
        self.assertEqual(connection.getresponse().read(8), b"00000000")
        connection.sock and connection.sock.close()
        connection.close()
        wait_until(lambda: len(self.notes("stream")) > before, "the iterator to be closed")

    def test_a_stream_that_breaks_is_cut_and_seen_to_be(self):
        with self.assertRaises((http.client.IncompleteRead, ConnectionError)):
            _, body = self.get("/broken_stream/")
            self.fail("it looked complete: %d bytes, ending in %r" % (len(body), body[-100:]))

    def test_a_content_that_is_longer_than_its_length_is_cut(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        for declared in (3, 5, 7, 10):
            connection.request("GET", "/length/?declared=%d" % declared)
            self.assertEqual(connection.getresponse().read(), b"0123456789"[:declared])

    def test_a_content_that_is_shorter_than_its_length_is_seen_to_be(self):
        with self.assertRaises((http.client.IncompleteRead, ConnectionError)):
            self.fail("it looked complete: %r" % (self.get("/length/?declared=11"),))

    @unittest.skipUnless(
        django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on"
    )
    def test_clients_that_leave_idle_streams_free_their_threads(self):
        for parts in (0, 1):
            before = self.notes("idle")
            connections = []
            for number in range(1, 4):  # the fourth thread is for `notes`
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.server.port, timeout=TIMEOUT
                )
                connection.request("GET", "/idle/?parts=%d" % parts)
                connections.append(connection)
                begun = before.count("begun") + number
                wait_until(
                    lambda begun=begun: self.notes("idle").count("begun") == begun, "the view"
                )
            for connection in connections:
                connection.close()
            closed = before.count("closed") + 3
            wait_until(
                lambda closed=closed: self.notes("idle").count("closed") == closed,
                "the streams to be closed",
            )

    def test_a_stream_goes_no_faster_than_its_client_reads(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        connection.request("GET", "/stream/?parts=20000&note=1")  # 1.3 GB
        self.assertEqual(connection.getresponse().read(8), b"00000000")
        counts = [0]

        def stands_still():
            counts.append(len(self.notes("parts")))
            return counts[-1] == counts[-2] > 0

        wait_until(stands_still, "the stream to wait for its client", interval=0.3)
        self.assertLess(counts[-1], 500)

    def test_a_client_sends_no_faster_than_its_consumer_reads(self):
        import websocket

        frame, sent = b"x" * 16384, 0
        socket = self.connect("/held/")
        socket.settimeout(1)
        try:
            while sent < 4000:  # 64 MB
                socket.send_binary(frame)
                sent += 1
        except websocket.WebSocketTimeoutException:
            pass  # the server has stopped reading: a part of a frame may be written
        self.assertLess(sent, 1500)
        self.assertEqual(self.get("/")[1], b"hello")
        self.assertEqual(self.get("/release/")[1], b"released")

    def test_a_client_that_had_to_wait_is_heard_again(self):
        frame = b"x" * 16384
        socket = self.connect("/held/")
        # 16 MB keep the autobahn of Python 3.7, which is pure Python, busy for 5 s on an idle machine.
        socket.settimeout(4 * TIMEOUT)
        sender = threading.Thread(
            target=lambda: (
                [socket.send_binary(frame) for _ in range(1000)] + [socket.send_binary(b"last")]
            )
        )
        sender.start()
        self.get("/release/")
        self.assertEqual(socket.recv(), "1001")
        sender.join()

    def test_a_member_that_does_not_read_is_closed_and_the_others_get_everything(self):
        slow, quick = self.connect("/flood/"), self.connect("/flood/")
        before = self.statistics().get("slow_clients", 0)
        rounds = 0
        while self.statistics().get("slow_clients", 0) == before:
            rounds += 1
            self.assertLess(rounds, 50, "the slow member is still there")
            quick.send("more")
            for number in range(20):
                self.assertEqual(quick.recv()[:8], "%08d" % number)
        slow.shutdown()

    def statistics(self):
        return json.loads(self.get("/statistics/")[1].decode())

    def test_a_long_poll_is_answered_by_a_group(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        before = self.notes("polls").count("waiting")
        connection.request("GET", "/poll/")
        wait_until(lambda: self.notes("polls").count("waiting") > before, "the poll")
        self.get("/answer/")
        self.assertEqual(connection.getresponse().read(), b"at last")

    def test_a_long_poll_whose_client_leaves_is_told(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        before = self.notes("polls")
        connection.request("GET", "/poll/")
        wait_until(lambda: self.notes("polls").count("waiting") > before.count("waiting"))
        connection.close()
        wait_until(lambda: self.notes("polls").count("gone") > before.count("gone"), "its end")

    # The process.

    def test_the_process_ends_when_told_to(self):
        self.needs_an_end()
        with serve(self.project, self.program) as server:
            socket = self.connect_to(server, "/echo/")
            socket.send("hello")
            self.assertEqual(socket.recv(), "hello")
            server.stop()
        self.assertNotRegex(server.output, self.no_traceback)

    def needs_an_end(self):
        if not self.ends_with_open_sockets:
            self.skipTest("%s does not end while a socket is open" % self.program)

    def test_the_site_is_told_of_sockets_that_end_with_the_process(self):
        self.needs_an_end()
        with serve(self.project, self.program) as server:
            for _ in range(3):
                socket = self.connect_to(server, "/farewell/")
                socket.send("hello")
                self.assertEqual(socket.recv(), "hello")
            server.stop()
        self.assertEqual(server.output.count("consumer says farewell"), 3)

    def connect_to(self, server, path):
        import websocket

        socket = websocket.create_connection(server.websocket_url(path), timeout=TIMEOUT)
        self.addCleanup(socket.shutdown)
        return socket


class DaphneTests(ServerTests, unittest.TestCase):
    program = "daphne"

    def code(self, code):
        # Daphne refuses to send the protocol's own codes but 1000: the gateway adds 3000.
        return code + 3000

    def test_a_text_frame_that_is_no_utf8_ends_its_socket(self):
        import websocket

        socket = self.connect("/echo/")
        socket.send_frame(websocket.ABNF.create_frame(b"\xff\xfe", websocket.ABNF.OPCODE_TEXT))
        with self.assertRaises((OSError, websocket.WebSocketConnectionClosedException)):
            socket.recv_data()  # it drops the connection

    def test_a_frame_of_10_megabytes_ends_its_socket(self):
        import websocket

        before = len(self.notes("codes"))
        socket = self.send_10_megabytes()
        try:
            self.assertEqual(self.close_code(socket), self.code(1009))
        except (OSError, websocket.WebSocketConnectionClosedException):
            pass  # autobahn 26 has its own limit, and drops the connection
        wait_until(lambda: len(self.notes("codes")) > before, "the disconnect event")


class UvicornTests(ServerTests, unittest.TestCase):
    program = "uvicorn"

    def code(self, code):
        return code

    def test_a_frame_of_10_megabytes_ends_its_socket(self):
        self.assertEqual(self.close_code(self.send_10_megabytes()), self.code(1009))

    def test_an_empty_frame(self):
        # Not with Daphne, which drops the answer.
        socket = self.connect("/echo/")
        socket.send("")
        self.assertEqual(socket.recv(), "")

    def test_a_text_frame_that_is_no_utf8_ends_its_socket(self):
        import websocket

        socket = self.connect("/echo/")
        socket.send_frame(websocket.ABNF.create_frame(b"\xff\xfe", websocket.ABNF.OPCODE_TEXT))
        self.assertEqual(self.close_code(socket), 1007)


class HypercornTests(ServerTests, unittest.TestCase):
    program = "hypercorn"
    # From Python 3.12 on it waits for them, for ever (pgjones/hypercorn#308), and so does 0.17, the
    # last one for Python 3.8.
    ends_with_open_sockets = sys.version_info < (3, 12) and sys.version_info[:2] != (3, 8)
    no_traceback = 'File ".*channels/(gateway|layers)'  # it logs its own way out of an open socket

    def code(self, code):
        return code


class GranianTests(ServerTests, unittest.TestCase):
    program = "granian"

    def code(self, code):
        return code


class UvicornUnderGunicornTests(ServerTests, unittest.TestCase):
    program = "gunicorn-uvicorn"

    def code(self, code):
        return code

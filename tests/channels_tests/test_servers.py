"""What every ASGI server has to carry: methods, headers, bodies, frames, many sockets, and an orderly end.

test_gateway_servers.py has what the gateway promises behind a server; here is what HTTP and WebSocket
promise. What a server can't do is an attribute of its class, and stands in the table of
docs/howto/deployment/asgi/index.txt.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import threading
import unittest

from .support.ports import can_connect_to
from .support.processes import Process, allow_open_files
from .support.requirements import missing, require_servers
from .support.sites import SiteBehindServer, serve
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until

SETTINGS = """
ALLOWED_HOSTS = ["*"]
DEBUG = False
CHANNEL_LAYERS["default"]["GATEWAY"] = {"compression": True}
"""

VIEWS = r"""
import json, time

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from {channels} import Group


def index(request):
    return HttpResponse("hello")


def request_as_seen(request):
    body = request.read().decode("latin-1")
    names = ("QUERY_STRING", "SCRIPT_NAME", "PATH_INFO", "HTTP_X_MANY", "HTTP_RANGE")
    seen = {name: request.META[name] for name in names if name in request.META}
    seen.update(method=request.method, body=body, cookies=request.COOKIES, path=request.path)
    response = JsonResponse(seen)
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def status(request, code):
    response = HttpResponse(status=int(code))
    if code == "206":
        response["Content-Range"] = "bytes 2-4/10"
        response.content = b"234"
    return response


def stream(request):
    return StreamingHttpResponse(iter([b"one,", b"two,", b"three"]))


def odd_header(request):
    response = HttpResponse("odd")
    response["X-Odd"] = bytes.fromhex(request.GET["value"]).decode("latin-1")
    return response


def slow(request):
    time.sleep(0.05)
    return HttpResponse(b"x" * 20000)


def tell(request):
    Group("everybody").send({"text": "now"})
    return HttpResponse("told")
"""

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [
    re_path("^$", views.index),
    re_path("^seen/", views.request_as_seen),
    re_path("^status/([0-9]+)/$", views.status),
    re_path("^stream/$", views.stream),
    re_path("^slow/$", views.slow),
    re_path("^odd-header/$", views.odd_header),
    re_path("^tell/$", views.tell),
]
"""

ROUTING = """
from {channels} import Group, route
from django.http import HttpResponse


def connect(message):
    offered = message.content.get("subprotocols") or []
    accept = {"accept": True}
    if "chat.v2" in offered:
        accept["subprotocol"] = "chat.v2"
    message.reply_channel.send(accept)
    Group("everybody").add(message.reply_channel)


def receive(message):
    if message.get("text") is not None:
        message.reply_channel.send({"text": message["text"]})
    else:
        message.reply_channel.send({"bytes": message["bytes"]})


def disconnect(message):
    print("disconnected with %s" % message["code"], flush=True)


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
"""


class Answer:
    """A response as it came over the wire."""

    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines[1:])
        ]

    def all(self, name):
        """Return all values of the header `name`."""
        return [value for each, value in self.headers if each == name]


class EveryServer(SiteBehindServer):
    """Tests of one server, for a subclass of TestCase that names it."""

    files = {"mysite/views.py": VIEWS, "mysite/urls.py": URLS, "mysite/routing.py": ROUTING}
    settings = SETTINGS

    #: Arguments that put the site below /base, and that bind a Unix socket; None if it can't.
    below_a_path = None
    on_a_unix_socket = None

    #: Whether a client of HTTP/1.0 gets a chunked stream, which it need not understand.
    chunks_for_http_1_0 = False

    #: Whether the consumer is told the code with which the client closed.
    tells_close_codes = True

    @classmethod
    def setUpClass(cls):
        require_servers("websocket", "websockets")
        super().setUpClass()

    def exchange(self, text, address=None):
        """Send the bytes of `text` on a new connection; return all that comes until it ends."""
        if address is None:
            connection = socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(TIMEOUT)
            connection.connect(address)
        with connection:
            connection.sendall(text.encode("latin-1"))
            parts = []
            while True:
                part = connection.recv(65536)
                if not part:
                    return b"".join(parts)
                parts.append(part)

    def ask(self, line, *headers, body="", address=None):
        """Return the Answer to one request, after which the server closes the connection."""
        lines = [line + " HTTP/1.1", "Host: example.com", "Connection: close", *headers, "", body]
        return Answer(self.exchange("\r\n".join(lines), address))

    def seen(self, line, *headers, body="", address=None):
        """Return what the view saw of the request."""
        answer = self.ask(line, *headers, body=body, address=address)
        self.assertEqual(answer.status, 200, answer.body)
        body = answer.body
        if answer.all("transfer-encoding"):
            body = body[body.index(b"{") : body.rindex(b"}") + 1]
        return json.loads(body.decode())

    # HTTP.

    def test_every_method_reaches_the_view_with_its_body(self):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"):
            seen = self.seen(method + " /seen/", "Content-Length: 3", body="a=1")
            self.assertEqual((seen["method"], seen["body"]), (method, "a=1"))

    def test_path_and_query_arrive_as_they_were_sent(self):
        seen = self.seen("GET /seen/gr%C3%BC%C3%9F%20dich?q=%2F+a&q=")
        self.assertEqual(seen["path"], "/seen/gr\u00fc\u00df dich")
        self.assertEqual(seen["QUERY_STRING"], "q=%2F+a&q=")

    def test_repeated_headers_are_joined_and_cookies_are_all_there(self):
        seen = self.seen("GET /seen/", "X-Many: 1", "X-Many: 2", "Cookie: a=1", "Cookie: b=2")
        self.assertEqual(seen["HTTP_X_MANY"].replace(" ", ""), "1,2")
        self.assertEqual(seen["cookies"], {"a": "1", "b": "2"})

    def test_every_set_cookie_is_a_header_of_its_own(self):
        cookies = self.ask("GET /seen/").all("set-cookie")
        self.assertEqual(sorted(each.partition(";")[0] for each in cookies), ["one=1", "two=2"])

    def test_a_header_with_any_character_arrives_in_a_response(self):
        for byte in (*range(33), 127, 128, 160, 255):
            for value in (b"a%cb" % byte, b"%ca" % byte, b"a%c" % byte):
                answer = self.ask("GET /odd-header/?value=" + value.hex())
                with self.subTest(value):
                    if byte in b"\0\r\n":  # a break of the head: refused
                        self.assertEqual(answer.status, 500)
                        continue
                    is_control = byte == 127 or byte < 32 and (byte != 9 or value != b"a\tb")
                    expected = value.replace(b"%c" % byte, b" ") if is_control else value
                    self.assertEqual(
                        (answer.status, answer.all("x-odd")),
                        (200, [expected.decode("latin-1").strip()]),
                    )

    def test_a_chunked_body_arrives_whole(self):
        chunks = "3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n"
        seen = self.seen("POST /seen/", "Transfer-Encoding: chunked", body=chunks)
        self.assertEqual(seen["body"], "abcde")

    def test_a_stream_is_chunked_or_ends_with_its_connection(self):
        answer = self.ask("GET /stream/")
        if answer.all("transfer-encoding"):
            self.assertTrue(answer.body.endswith(b"0\r\n\r\n"), answer.body)
            self.assertIn(b"three", answer.body)
        else:
            self.assertEqual(answer.body, b"one,two,three")
        answer = Answer(self.exchange("GET /stream/ HTTP/1.0\r\nHost: example.com\r\n\r\n"))
        self.assertIn(b"three", answer.body)
        if not self.chunks_for_http_1_0:
            self.assertEqual(answer.all("transfer-encoding"), [])
            self.assertEqual(answer.body, b"one,two,three")

    def test_a_head_request_has_the_length_and_no_body(self):
        answer = self.ask("HEAD /")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.all("content-length"), ["5"])

    def test_a_range_passes_both_ways(self):
        self.assertEqual(self.seen("GET /seen/", "Range: bytes=2-4")["HTTP_RANGE"], "bytes=2-4")
        answer = self.ask("GET /status/206/")
        self.assertEqual((answer.status, answer.body), (206, b"234"))
        self.assertEqual(answer.all("content-range"), ["bytes 2-4/10"])

    def test_a_status_without_a_body_leaves_the_connection_usable(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        for code in (204, 304, 204):
            connection.request("GET", "/status/%d/" % code)
            response = connection.getresponse()
            self.assertEqual((response.status, response.read()), (code, b""))
        connection.request("GET", "/")
        self.assertEqual(connection.getresponse().read(), b"hello")

    def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(self):
        head = "POST /seen/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as connection:
            connection.sendall((head + "Connection: close\r\n\r\n").encode())
            self.assertTrue(connection.recv(65536).startswith(b"HTTP/1.1 100 "))
            connection.sendall(b"abc")
            self.assertIn(b'"body": "abc"', connection.makefile("rb").read())

    def test_a_site_below_a_path(self):
        if self.below_a_path is None:
            self.skipTest("%s lacks an option for the path" % self.program)
        with serve(self.project, self.program, args=self.below_a_path) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
            self.addCleanup(connection.close)
            connection.request("GET", self.requested_below)
            seen = json.loads(connection.getresponse().read().decode())
        self.assertEqual((seen["SCRIPT_NAME"], seen["path"]), ("/base", "/base/seen/"))

    #: What a client, or the proxy before the server, asks for.
    requested_below = "/base/seen/"

    def test_a_site_on_a_unix_socket(self):
        if self.on_a_unix_socket is None:
            self.skipTest("%s lacks an option for it" % self.program)
        address = os.path.join(self.project.directory, "socket")
        arguments = [each.format(address) for each in self.on_a_unix_socket]
        command = [sys.executable, "-m", *arguments, "mysite.asgi:channel_layer"]
        with Process(command, self.project.directory, self.project.environment()) as process:
            wait_until(lambda: can_connect_to(address), "the socket", START_TIMEOUT)
            self.assertEqual(self.seen("GET /seen/", address=address)["path"], "/seen/")
            process.stop()

    # WebSockets.

    def connect(self, path="/", **options):
        import websocket

        options.setdefault("suppress_origin", True)
        found = websocket.create_connection(
            self.server.websocket_url(path), timeout=TIMEOUT, **options
        )
        self.addCleanup(found.shutdown)
        return found

    def test_a_subprotocol_is_chosen_from_those_offered(self):
        found = self.connect(subprotocols=["chat.v1", "chat.v2"])
        self.assertEqual(found.getsubprotocol(), "chat.v2")
        self.assertIsNone(self.connect().getsubprotocol())

    def test_a_message_in_fragments_arrives_whole(self):
        from websocket import ABNF

        found = self.connect()
        for opcode, part in ((ABNF.OPCODE_TEXT, "one "), (ABNF.OPCODE_BINARY, b"\x00\xff")):
            parts = [part] * 3
            found.send_frame(ABNF.create_frame(parts[0], opcode, 0))
            found.ping("in between")
            found.send_frame(ABNF.create_frame(parts[1], ABNF.OPCODE_CONT, 0))
            found.send_frame(ABNF.create_frame(parts[2], ABNF.OPCODE_CONT, 1))
            self.assertEqual(found.recv(), part * 3)

    def test_a_ping_is_answered(self):
        from websocket import ABNF

        found = self.connect()
        found.ping("are you there?")
        opcode, data = found.recv_data(control_frame=True)
        self.assertEqual((opcode, data), (ABNF.OPCODE_PONG, b"are you there?"))

    def test_compressed_frames_arrive_whole(self):
        async def echo():
            import websockets

            async with websockets.connect(self.server.websocket_url("/")) as found:
                for text in ("x" * 30000, "short", "y" * 100000):
                    await found.send(text)
                    self.assertEqual(await asyncio.wait_for(found.recv(), TIMEOUT), text)

        asyncio.run(echo())

    def test_the_close_code_of_a_client_reaches_the_consumer(self):
        found = self.connect()
        found.send_close(4321)
        code = 4321 if self.tells_close_codes else 1006
        self.server.wait_for_output("disconnected with %d" % code)

    def test_a_thousand_sockets(self):
        with files_for(3000):
            asyncio.run(self.thousand())

    async def thousand(self):
        import websockets

        url = self.server.websocket_url("/")
        found = []
        try:
            for first in range(0, 1000, 50):
                opened = [
                    websockets.connect(url, compression=None, open_timeout=TIMEOUT)
                    for _ in range(first, first + 50)
                ]
                found += await asyncio.gather(*opened)

            async def echo(number, each):
                await each.send(str(number))
                self.assertEqual(await asyncio.wait_for(each.recv(), TIMEOUT), str(number))

            await asyncio.gather(*(echo(number, each) for number, each in enumerate(found)))
            answer = asyncio.get_running_loop().run_in_executor(None, self.ask, "GET /tell/")
            texts = await asyncio.wait_for(
                asyncio.gather(*(each.recv() for each in found)), 2 * TIMEOUT
            )
            self.assertEqual(texts, ["now"] * 1000)
            self.assertEqual((await answer).status, 200)
        finally:
            for each in found:
                each.transport.abort()

    # The process.

    def test_a_server_that_ends_under_load_cuts_no_response(self):
        with serve(self.project, self.program, args=self.arguments) as server:
            answers, ends = [], []
            stopping = threading.Event()

            def visit():
                while True:
                    connection = http.client.HTTPConnection(
                        "127.0.0.1", server.port, timeout=TIMEOUT
                    )
                    try:
                        connection.request("GET", "/slow/")
                        response = connection.getresponse()
                        answers.append((response.status, len(response.read())))
                    except (OSError, http.client.HTTPException) as error:
                        ends.append(error)
                        if stopping.is_set():
                            return
                    finally:
                        connection.close()

            threads = [threading.Thread(target=visit) for _ in range(8)]
            for thread in threads:
                thread.start()
            wait_until(lambda: len(answers) > 40, "answers")
            stopping.set()
            os.kill(server.pid, signal.SIGTERM)
            for thread in threads:
                thread.join(TIMEOUT)
            server.stop()
        wrong = {each for each in answers if each != (200, 20000)}
        self.assertLessEqual(wrong, {(503, each[1]) for each in wrong}, "not cut, but refused")
        cut = [each for each in ends if isinstance(each, http.client.IncompleteRead)]
        self.assertEqual(cut, [])


class files_for:
    """Let this process open `number` files inside the block."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        import resource

        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = allow_open_files(self.number)
        if allowed < self.number:
            missing("a process may open only %d files here" % allowed)

    def __exit__(self, *exc_info):
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


class DaphneTests(EveryServer, unittest.TestCase):
    program = "daphne"
    below_a_path = ["--root-path", "/base"]
    requested_below = "/seen/"
    on_a_unix_socket = ["daphne", "-u", "{}"]


class UvicornTests(EveryServer, unittest.TestCase):
    program = "uvicorn"
    arguments = ["--loop", "asyncio", "--http", "h11"]
    below_a_path = ["--root-path", "/base"]
    requested_below = "/seen/"
    on_a_unix_socket = ["uvicorn", "--uds", "{}"]


class UvicornOnUvloopTests(EveryServer, unittest.TestCase):
    program = "uvicorn"
    arguments = ["--loop", "uvloop", "--http", "httptools"]
    chunks_for_http_1_0 = True


class UvicornUnderGunicornTests(EveryServer, unittest.TestCase):
    program = "gunicorn-uvicorn"
    on_a_unix_socket = [
        "gunicorn",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        "--bind",
        "unix:{}",
    ]
    chunks_for_http_1_0 = True  # it takes httptools if that is installed


class HypercornTests(EveryServer, unittest.TestCase):
    program = "hypercorn"
    tells_close_codes = False
    below_a_path = ["--root-path", "/base"]
    on_a_unix_socket = ["hypercorn", "--bind", "unix:{}"]


class GranianTests(EveryServer, unittest.TestCase):
    program = "granian"
    below_a_path = ["--url-path-prefix", "/base"]
    on_a_unix_socket = ["granian", "--interface", "asgi", "--uds", "{}"]

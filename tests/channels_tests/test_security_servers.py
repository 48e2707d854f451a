"""Attacks on the head and the framing of requests, on real servers. See SECURITY.md."""

import http.client
import importlib
import io
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import unittest

from .support.ports import free_port
from .support.requirements import require
from .support.sites import FILES, Project, SiteBehindServer, serve
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["example.com"]
INSTALLED_APPS = ["{channels}"]
"""

VIEWS = """
import json, threading

from django.http import HttpResponse, HttpResponseRedirect
from {channels} import Channel

fast_was_answered = threading.Event()
seen = []


def index(request):
    seen.append(request.path)
    return HttpResponse("view of %s %s" % (request.path, len(request.body)))


def large(request):
    response = HttpResponse(b"x" * 5000000)
    # Django before 1.11 doesn't say it, and the body would be in chunks.
    response["Content-Length"] = "5000000"
    return response


def seen_paths(request):
    return HttpResponse(json.dumps(seen))


def slow(request):
    # An answer to /fast/ that overtakes this one would come now.
    fast_was_answered.wait(1)
    return HttpResponse("view of /slow/")


def fast(request):
    fast_was_answered.set()
    return HttpResponse("view of /fast/")


def meta(request):
    return HttpResponse(json.dumps({k: v for k, v in request.META.items() if isinstance(v, str)}))


def redirect(request):
    from django.core.urlresolvers import get_script_prefix

    return HttpResponseRedirect(get_script_prefix() + "login/")


def split(request):
    # What a client sent, in a header that a consumer writes itself.
    value = request.GET["value"].encode("latin-1")
    request.reply_channel.send({
        "status": 200, "headers": [[b"x-value", value]], "content": b"view of /split/",
    })
    from {channels}.exceptions import ResponseLater

    raise ResponseLater()
""".replace(
    "from django.core.urlresolvers import get_script_prefix",
    """try:
        from django.urls import get_script_prefix
    except ImportError:
        from django.core.urlresolvers import get_script_prefix""",
)

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [
    re_path("^large/$", views.large),
    re_path("^slow/$", views.slow),
    re_path("^fast/$", views.fast),
    re_path("^meta/$", views.meta),
    re_path("^redirect/$", views.redirect),
    re_path("^split/$", views.split),
    re_path("^seen/$", views.seen_paths),
    re_path("", views.index),
]
"""

ROUTING = """
import time

from {channels} import route


def connect(message):
    message.reply_channel.send({"accept": True, "text": message["scheme"]})


received = {}


def receive(message):
    # Numbers one after the other, and then a question for the last one.
    name, text = message.reply_channel.name, message["text"]
    if text == "slow":
        time.sleep(1)
        message.reply_channel.send({"text": "slow"})
    elif text == "much":
        message.reply_channel.send({"text": "x" * 500000})
    elif text == "?":
        message.reply_channel.send({"text": str(received.pop(name))})
    elif int(text) == (received.get(name, 0) + 1) % 10:
        received[name] = received.get(name, 0) + 1


def disconnect(message):
    print("disconnected", flush=True)


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
"""

#: The head of a handshake, without the line that ends it.
HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

#: A request that must not be taken out of the body of another one.
SMUGGLED = b"GET /smuggled00/ HTTP/1.1\r\nHost: example.com\r\n\r\n"

#: Ambiguous ends of a body, each as the headers and the body of a POST. A proxy may see another end.
AMBIGUOUS = {
    "length and chunks": (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (5 + len(SMUGGLED)),
        b"0\r\n\r\n" + SMUGGLED,
    ),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
    "a list of lengths": (b"Content-Length: 0, %d\r\n" % len(SMUGGLED), SMUGGLED),
    "a length with a sign": (b"Content-Length: +%d\r\n" % len(SMUGGLED), SMUGGLED),
    "a length with an underscore": (b"Content-Length: 1_0\r\n", SMUGGLED),
    "a negative length": (b"Content-Length: -1\r\n", SMUGGLED),
    "a hexadecimal length": (b"Content-Length: 0x5\r\n", SMUGGLED),
    "another coding": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "two codings": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"0\r\n\r\n" + SMUGGLED,
    ),
    "a space before the colon": (
        b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n" % (5 + len(SMUGGLED)),
        b"0\r\n\r\n" + SMUGGLED,
    ),
    "a chunk size with a sign": (b"Transfer-Encoding: chunked\r\n", b"+0\r\n\r\n" + SMUGGLED),
    "a hexadecimal chunk size": (b"Transfer-Encoding: chunked\r\n", b"0x0\r\n\r\n" + SMUGGLED),
    "a chunk without its line break": (
        b"Transfer-Encoding: chunked\r\n",
        b"3\r\nabcXX0\r\n\r\n" + SMUGGLED,
    ),
}

#: Names that have to reach the site under no key of META that another name has.
BAD_NAMES = (
    b"X-Pa\xdf",
    b"X-\xb5",
    b"X Y",
    b"X\x00",
    b"X_Forwarded_For",
    b"Content_Length",
    b"\xff",
)


def sent_until_end(client, more, most):
    """
    Send `more` again and again on the socket `client`, until the server ends the connection. Return how many
    bytes were sent. Raises AssertionError if these are `most`, or if it takes too long.
    """
    sent, deadline = 0, time.monotonic() + TIMEOUT
    try:
        while sent < most:
            sent += client.send(more)
            if time.monotonic() > deadline:
                raise AssertionError(
                    "the connection is open after %d bytes, %g s" % (sent, TIMEOUT)
                )
    except (BrokenPipeError, ConnectionResetError):
        return sent
    except socket.timeout:
        raise AssertionError(
            "the server doesn't read, and doesn't end the connection: %d bytes" % sent
        ) from None
    raise AssertionError("the connection is still open after %d bytes" % sent)


class Recorded:
    """What a server has sent, as a socket that http.client reads."""

    def __init__(self, answer):
        self.makefile = lambda mode: io.BytesIO(answer)


class ServerAttacks(SiteBehindServer):
    """Attacks that every server withstands, or the gateway behind it."""

    files = {"mysite/views.py": VIEWS, "mysite/urls.py": URLS, "mysite/routing.py": ROUTING}
    settings = SETTINGS

    @classmethod
    def setUpClass(cls):
        require(cls.program, "websocket", "openssl")
        super().setUpClass()

    def talk(self, data, last=None):
        """
        Send `data` on one connection, and return all that the server sends until it closes it, or until it
        has sent `last`.
        """
        with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as client:
            try:
                client.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server has answered, and closed it, before all was sent
            answer = b""
            while True:
                try:
                    part = client.recv(65536)
                except ConnectionResetError:
                    return answer
                if not part:
                    return answer
                answer += part
                if last is not None and last in answer:
                    return answer

    def get(self, path, *headers, close=True):
        lines = [b"GET %s HTTP/1.1" % path, b"Host: example.com", *headers]
        lines += [b"Connection: close"] if close else []
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def body(self, *headers, path=b"/meta/"):
        """The content of the response, from JSON."""
        return self.content(self.talk(self.get(path, *headers)))

    def has_old_h11(self):
        """Whether the server parses with h11 before 0.16, which has this hole: CVE-2025-43859."""
        import h11

        old = tuple(map(int, h11.__version__.split(".")[:2])) < (0, 16)
        return old and self.program != "daphne"

    @staticmethod
    def content(answer):
        """The content of the only response in `answer`, from JSON."""
        response = http.client.HTTPResponse(Recorded(answer))
        response.begin()
        return json.loads(response.read().decode())

    def seen(self):
        """The paths of the requests that the site's index has seen."""
        return self.body(path=b"/seen/")

    def test_no_body_is_taken_for_a_request(self):
        for number, (name, (headers, body)) in enumerate(AMBIGUOUS.items()):
            if name == "a chunk without its line break" and self.has_old_h11():
                continue
            with self.subTest(name):
                path = b"/smuggled%02d/" % number
                head = b"POST / HTTP/1.1\r\nHost: example.com\r\n%s\r\n" % headers
                # The last request ends the connection, if the server still reads.
                answer = self.talk(head + body.replace(b"/smuggled00/", path) + self.get(b"/last/"))
                self.assertNotIn(path.decode(), self.seen(), answer)

    def test_responses_come_in_the_order_of_the_requests(self):
        paths = (b"/slow/", b"/fast/", b"/last/")
        requests = [self.get(path, close=False) for path in paths]
        answer = self.talk(b"".join(requests), last=b"view of /last/")
        places = [answer.find(b"view of " + path) for path in paths]
        self.assertNotIn(-1, places)
        self.assertEqual(places, sorted(places))

    def test_no_name_of_a_header_gets_the_key_of_another(self):
        plain = set(self.body())
        for name in BAD_NAMES:
            with self.subTest(name):
                answer = self.talk(self.get(b"/meta/", name + b": evil"))
                if answer.split(b" ")[1] != b"400":
                    found = self.content(answer)
                    self.assertEqual(set(found), plain)

    def test_a_body_of_tiny_chunks_arrives_whole_and_the_next_request_after_it(self):
        head = self.get(b"/chunks/", b"Transfer-Encoding: chunked", close=False)
        body = b"1\r\nx\r\n" * 30000 + b"0\r\n\r\n"
        answer = self.talk(head.replace(b"GET", b"POST", 1) + body + self.get(b"/behind/"))
        self.assertIn(b"view of /chunks/ 30000", answer)
        self.assertIn(b"view of /behind/ 0", answer)

    def test_a_trailer_is_no_header(self):
        head = self.get(b"/meta/", b"Transfer-Encoding: chunked").replace(b"GET", b"POST", 1)
        body, trailers = b"1\r\na\r\n0\r\n", b"X-Forwarded-For: evil\r\nX-Evil: 1\r\n\r\n"
        # Together, and after the head was handled.
        for parts in ((head + body + trailers,), (head, body, trailers)):
            with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for part in parts:
                    client.sendall(part)
                answer = b""
                while True:
                    part = client.recv(65536)
                    if not part:
                        break
                    answer += part
            if answer.split(b" ")[1] != b"400":
                found = self.content(answer)
                self.assertNotIn("HTTP_X_EVIL", found)
                self.assertNotIn("evil", found.get("HTTP_X_FORWARDED_FOR", ""))

    def test_a_client_does_not_choose_the_prefix_of_urls(self):
        for value in (b"/evil", b"//evil.example", b"javascript:alert(1)//"):
            header = b"Daphne-Root-Path: " + value
            self.assertEqual(self.body(header)["SCRIPT_NAME"], "")
            head = self.talk(self.get(b"/redirect/", header)).lower()
            # Django before 1.9 makes the URL absolute.
            self.assertRegex(head, b"location: (http://example.com)?/login/\r\n")

    def test_a_response_is_not_split(self):
        for value in (b"x%0d%0aSet-Cookie:%20evil=1", b"x%0a%0aevil", b"x%0d", b"x%00y"):
            head = self.talk(self.get(b"/split/?value=" + value))
            self.assertEqual(head.split(b" ")[1], b"500", head)
            self.assertNotIn(b"evil", head)

    def test_a_request_target_is_no_other_host(self):
        for target in (b"//evil.example/", b"http://evil.example/", b"/\\evil.example"):
            answer = self.talk(self.get(target))
            self.assertNotIn(b"\r\nlocation:", answer.lower())


#: Frames that aren't whole messages, as a client sends them again and again after the first one.
FLOODS = {
    "fragments of a byte": (b"\x01\x81\0\0\0\0x", b"\x00\x81\0\0\0\0x"),
    "empty fragments": (b"\x02\x80\0\0\0\0", b"\x00\x80\0\0\0\0"),
    "messages of few fragments": (b"", b"\x01\x81\0\0\0\0x" + b"\x80\x81\0\0\0\0x"),
    "pings": (b"", b"\x89\xfd" + b"\0" * 4 + b"x" * 125),
    "empty pings": (b"", b"\x89\x80\0\0\0\0"),
    "pongs": (b"", b"\x8a\x80\0\0\0\0"),
}


class FloodTests:
    """A part of the tests of the servers whose frames the gateway can count: fragments.py."""

    def check_flood(self, port, first, more):
        """Open a socket that reads nothing, and check that the server soon ends it."""
        import websocket

        client = websocket.create_connection(
            "ws://127.0.0.1:%d/" % port, timeout=TIMEOUT, host="example.com", suppress_origin=True
        )
        self.addCleanup(client.shutdown)
        self.assertEqual(client.recv(), "ws")
        client.sock.sendall(first)
        # Besides what the server takes, the buffers of the system have room for some.
        sent_until_end(client.sock, more * (65536 // len(more)), 20 * 1024 * 1024)

    def test_a_flood_of_frames_that_are_no_message_ends_its_socket(self):
        for name, parts in FLOODS.items():
            with self.subTest(name):
                self.check_flood(self.server.port, *parts)
        self.assertEqual(self.talk(self.get(b"/meta/")).split(b" ")[1], b"200")


class DaphneTests(FloodTests, ServerAttacks, unittest.TestCase):
    program = "daphne"

    def test_the_size_of_a_frame_is_limited(self):
        import websocket

        client = websocket.create_connection(
            self.server.websocket_url("/"),
            timeout=TIMEOUT,
            host="example.com",
            suppress_origin=True,
        )
        self.addCleanup(client.shutdown)
        self.assertEqual(client.recv(), "ws")
        size = 300 * 1024 * 1024
        # The head of a masked binary frame. The server must not wait for what it announces.
        client.sock.sendall(b"\x82\xff" + size.to_bytes(8, "big") + b"\0" * 4 + b"x" * 1000)
        try:
            opcode, _ = client.recv_data()
            self.assertEqual(opcode, websocket.ABNF.OPCODE_CLOSE)
        except (OSError, websocket.WebSocketConnectionClosedException) as error:
            self.assertNotIsInstance(error, websocket.WebSocketTimeoutException)

    def test_a_page_with_tls_opens_a_socket_with_tls(self):
        import websocket

        key, certificate = (os.path.join(self.project.directory, each) for each in ("key", "cert"))
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=example.com", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = free_port()
        endpoint = "ssl:%d:privateKey=%s:certKey=%s:interface=127.0.0.1" % (port, key, certificate)
        arguments = ["-m", "daphne", "-e", endpoint, "mysite.asgi:channel_layer"]
        process = self.project.python(*arguments)
        self.addCleanup(process.kill)
        process.wait_for_output("Listening on TCP")
        site = "https://example.com:%d" % port

        def open_socket(origin):
            context = ssl.create_default_context(cafile=certificate)
            context.check_hostname = False
            plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
            tls = context.wrap_socket(plain, server_hostname="example.com")
            self.addCleanup(tls.close)
            return websocket.create_connection(
                site.replace("https:", "wss:") + "/", socket=tls, origin=origin
            ).recv()

        self.assertEqual(open_socket(site), "wss")
        with self.assertRaises(websocket.WebSocketBadStatusException):
            open_socket(site.replace("https:", "http:"))


#: uvicorn's libraries for WebSockets, by the value of its option --ws.
IMPLEMENTATIONS = {
    "websockets": "uvicorn.protocols.websockets.websockets_impl",
    "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl",
    "wsproto": "uvicorn.protocols.websockets.wsproto_impl",
}


def can_import(*modules):
    """Return whether these modules can be imported: not each Python has each library, or version of it."""
    try:
        for name in modules:
            importlib.import_module(name)
    except ImportError:
        return False
    return True


class EndlessTests:
    """A part of the tests of uvicorn's parsers: what doesn't end."""

    def check_endless(self, start, more):
        """Check that the server soon ends a connection on which `more` comes again and again."""
        with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as client:
            client.sendall(start)
            # Besides what the server takes, the buffers of the system have room for some.
            sent_until_end(client, more, 50 * 1024 * 1024)

    def test_requests_without_an_end_behind_others_end_their_connection(self):
        requests = self.get(b"/", close=False) * 1000
        self.check_endless(b"", requests)

    def test_a_few_requests_may_wait(self):
        requests = self.get(b"/a/", close=False) * 30 + self.get(b"/last/")
        self.assertEqual(self.talk(requests).count(b"view of /"), 31)


class UvicornTests(FloodTests, EndlessTests, ServerAttacks, unittest.TestCase):
    program = "uvicorn"

    def test_a_flood_ends_its_socket_with_each_library_for_websockets(self):
        for name, package in (("websockets", "websockets"), ("wsproto", "wsproto")):
            try:
                importlib.import_module(package)
            except ImportError:
                continue
            with serve(self.project, "uvicorn", args=("--ws", name)) as server:
                for kind, parts in FLOODS.items():
                    with self.subTest(kind, library=name):
                        self.check_flood(server.port, *parts)

    def test_a_handshake_that_its_library_refuses_is_answered(self):
        """uvicorn never answered it with websockets-sansio, and kept the connection."""
        heads = {
            "method": HANDSHAKE.replace(b"GET", b"POST") + b"Content-Length: 2\r\n\r\nab",
            "header": HANDSHAKE + b"Cookie: a=%s\r\n\r\n" % (b"x" * 20000),
        }
        for name in IMPLEMENTATIONS:
            if not can_import(IMPLEMENTATIONS[name]):
                continue
            with serve(self.project, "uvicorn", args=("--ws", name)) as server:
                for kind, head in heads.items():
                    with self.subTest(kind, library=name):
                        with socket.create_connection(
                            ("127.0.0.1", server.port), TIMEOUT
                        ) as client:
                            client.sendall(head)
                            self.assertRegex(client.recv(13), rb"^HTTP/1.1 [14]")

    def test_what_is_no_frame_before_the_answer_logs_no_traceback(self):
        connect = 'message.reply_channel.send({"accept": True, "text": message["scheme"]})'
        routing = ROUTING.replace(connect, 'print("asked", flush=True)')  # it answers nothing
        files = {"mysite/routing.py": routing}
        with Project(files, settings=SETTINGS) as project:
            for name in IMPLEMENTATIONS:
                if not can_import(IMPLEMENTATIONS[name]):
                    continue
                with self.subTest(library=name):
                    with serve(project, "uvicorn", args=("--ws", name)) as server:
                        with socket.create_connection(
                            ("127.0.0.1", server.port), TIMEOUT
                        ) as client:
                            client.sendall(HANDSHAKE + b"\r\n")
                            wait_until(lambda: "asked" in server.output, "the consumer")  # noqa: B023
                            client.sendall(b"\xff\xff\xff\xff")
                            client.shutdown(socket.SHUT_WR)
                            client.recv(1)
                        self.assertNotIn("Traceback", server.output)

    def test_each_of_many_tiny_messages_arrives_in_order(self):
        """The server gets them in portions: see fragments.py."""
        import websocket

        number = 20000
        frames = b"".join(b"\x81\x81\0\0\0\0%d" % (each % 10) for each in range(1, number + 1))
        for name, loop in itertools.product(IMPLEMENTATIONS, ("asyncio", "uvloop")):
            with self.subTest(library=name, loop=loop):
                if not can_import(IMPLEMENTATIONS[name], loop):
                    continue
                with serve(self.project, "uvicorn", args=("--ws", name, "--loop", loop)) as server:
                    client = websocket.create_connection(
                        server.websocket_url("/"),
                        timeout=3 * TIMEOUT,
                        host="example.com",
                        suppress_origin=True,
                    )
                    self.addCleanup(client.shutdown)
                    self.assertEqual(client.recv(), "ws")
                    client.sock.sendall(frames)
                    client.send("?")
                    self.assertEqual(client.recv(), str(number))
                    client.close()

    def project_with(self, module, setting):
        """Return a project whose server sets a number of a module of the gateway."""
        change = "from {channels}.gateway import %s\n%s.%s\n" % (module, module, setting)
        files = {
            "mysite/asgi.py": FILES["mysite/asgi.py"] + change,
            "mysite/routing.py": ROUTING,
        }
        project = Project(files, settings=SETTINGS)
        self.addCleanup(project.close)
        return project

    def socket_of(self, server):
        import websocket

        client = websocket.create_connection(
            server.websocket_url("/"), timeout=TIMEOUT, host="example.com", suppress_origin=True
        )
        self.addCleanup(client.shutdown)
        self.assertEqual(client.recv(), "ws")
        return client

    def test_clients_that_read_no_answers_do_not_keep_the_server_from_ending(self):
        project = self.project_with("connection", "CLOSE_TIMEOUT = 1")
        for name in IMPLEMENTATIONS:
            if not can_import(IMPLEMENTATIONS[name]):
                continue
            with self.subTest(library=name), serve(
                project, "uvicorn", args=("--ws", name)
            ) as server:
                client = self.socket_of(server)
                for _ in range(100):
                    client.send("much")
                client.sock.recv(1)  # the first answer is on its way
                server.popen.send_signal(signal.SIGTERM)
                server.wait(START_TIMEOUT)
                self.assertFalse(server.alive)

    def test_a_client_that_leaves_with_its_answers_unread_gets_its_disconnect(self):
        """Before version 0.53, uvicorn doesn't wake what waits to write to a client that has left."""
        for name in IMPLEMENTATIONS:
            if not can_import(IMPLEMENTATIONS[name]):
                continue
            with self.subTest(library=name), serve(
                self.project, "uvicorn", args=("--ws", name)
            ) as server:
                client = self.socket_of(server)
                for _ in range(100):
                    client.send("much")
                client.sock.recv(1)  # the first answer is on its way
                client.shutdown()
                server.wait_for_output("disconnected")
                server.popen.send_signal(signal.SIGTERM)
                server.wait(START_TIMEOUT)
                self.assertFalse(server.alive)

    def test_at_its_end_clients_get_the_rest_of_their_answers_and_others_do_not_keep_it(self):
        """With a time limit, without which uvicorn waits as long as the gateway does."""
        limit = "%d" % max(1, TIMEOUT / 2)
        args = ("--timeout-graceful-shutdown", limit)
        with serve(self.project, "uvicorn", args=args) as server:
            clients, answers = [], []
            for _ in range(4):
                client = socket.socket()
                self.addCleanup(client.close)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                client.settimeout(TIMEOUT)
                client.connect(("127.0.0.1", server.port))
                client.sendall(self.get(b"/large/"))
                clients.append(client)
                answers.append(client.recv(1000))  # it is on its way
            server.popen.send_signal(signal.SIGTERM)
            for client, answer in list(zip(clients, answers))[:2]:
                part = answer
                while part:
                    part = client.recv(65536)
                    answer += part
                self.assertEqual(len(answer.partition(b"\r\n\r\n")[2]), 5000000)
            server.wait(START_TIMEOUT)
            self.assertFalse(server.alive)

    def test_clients_whose_frames_wait_for_workers_do_not_keep_the_server_from_ending(self):
        project = self.project_with("application", "SHUTDOWN_TIMEOUT = 1")
        for name, module in IMPLEMENTATIONS.items():
            if not can_import(module):
                continue
            with self.subTest(library=name), serve(
                project, "uvicorn", args=("--ws", name)
            ) as server:
                client = self.socket_of(server)
                for _ in range(300):
                    client.send("slow")
                self.assertEqual(client.recv(), "slow")
                server.popen.send_signal(signal.SIGTERM)
                server.wait(START_TIMEOUT)
                self.assertFalse(server.alive)

    def need_httptools(self):
        try:
            import httptools  # noqa: F401
        except ImportError:
            self.skipTest("uvicorn reads pipelined requests one by one without httptools")

    def test_a_connection_with_many_waiting_requests_is_closed(self):
        self.need_httptools()
        answer = self.talk(self.get(b"/many/", close=False) * 2000)
        self.assertEqual(answer.split(b" ")[1], b"429", answer[:200])
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertNotIn("/many/", self.seen())

    def test_a_connection_whose_requests_come_while_others_wait_is_closed(self):
        """Each answer lets uvicorn read on, although requests wait."""
        self.need_httptools()
        with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as client:
            answer, few = b"", self.get(b"/few/", close=False) * 20
            client.sendall(few)
            try:
                while b" 429 " not in answer and answer.count(b"view of /few/") < 200:
                    part = client.recv(65536)
                    if not part:
                        break
                    for _ in range(part.count(b"HTTP/1.1 200")):
                        client.sendall(few)
                    answer += part
            except (BrokenPipeError, ConnectionResetError):
                pass  # closed, with requests unread
        # On a busy machine, what is sent at once may arrive in parts, of which few are too many.
        self.assertLess(answer.count(b"view of /few/"), 200)

    def test_a_head_without_an_end_ends_its_connection(self):
        chunked = self.get(b"/", b"Transfer-Encoding: chunked")
        heads = {
            "value": (b"GET / HTTP/1.1\r\nHost: example.com\r\nX: ", b"x" * 65536),
            "name": (b"GET / HTTP/1.1\r\nHost: example.com\r\nX", b"x" * 65536),
            "target": (b"GET /", b"x" * 65536),
            "fields": (b"GET / HTTP/1.1\r\n", b"X: x\r\n" * 10000),
            "trailers": (chunked + b"1\r\na\r\n0\r\n", b"X: x\r\n" * 10000),
            "trailer": (chunked + b"1\r\na\r\n0\r\nX: ", b"x" * 65536),
        }
        for name, parts in heads.items():
            with self.subTest(name):
                self.check_endless(*parts)

    def test_a_large_head_that_ends_gets_its_status(self):
        header = b"X: " + b"x" * 100000
        self.assertEqual(self.talk(self.get(b"/", header)).split(b" ")[1], b"431")


class H11Tests(EndlessTests, ServerAttacks, unittest.TestCase):
    program, arguments = "uvicorn", ("--http", "h11")


class ZttpTests(FloodTests, EndlessTests, ServerAttacks, unittest.TestCase):
    """uvicorn's newest parser."""

    program, arguments = "uvicorn", ("--http", "zttp")

    @classmethod
    def setUpClass(cls):
        if not can_import("uvicorn.protocols.http.zttp_impl"):
            raise unittest.SkipTest("this Python, or this uvicorn, lacks zttp")
        super().setUpClass()


class HypercornTests(ServerAttacks, unittest.TestCase):
    program = "hypercorn"

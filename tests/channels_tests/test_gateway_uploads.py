"""Uploads through real servers and a plain nginx: early answers, refused bodies, and clients that leave."""

import contextlib
import hashlib
import http.client
import os
import pwd
import shutil
import socket
import tempfile
import unittest

from .support.ports import can_connect, free_port
from .support.processes import Process
from .support.requirements import find_program, missing, require, require_servers
from .support.servers import open_directory
from .support.sites import NEW_SERVERS, Project, serve
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until

MB = 1024 * 1024

SETTINGS = """
DEBUG = False
DATA_UPLOAD_MAX_MEMORY_SIZE = None
CHANNEL_LAYERS["default"]["GATEWAY"] = {
    "body_size": 30 * 1024 * 1024,
    "headers_size": 8000,
    "stream_paths": ["^/stream/"],
}
"""

VIEWS = """
import hashlib
import io
import threading

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from {channels}.asgi import channel_layers
from mysite import routing


def ignore(request):
    return HttpResponse("did not look")


def refuse(request):
    return HttpResponse("refused", status=403)


def read_some(request):
    request.read(70000)
    return HttpResponse("read some")


def in_parts(request):
    return FileResponse(io.BytesIO(b"in parts"))


def stream(request):
    return StreamingHttpResponse(iter([b"a ", b"stream"]))


def read(request):
    digest, size = hashlib.sha256(), 0
    while True:
        part = request.read(100000)
        if not part:
            return HttpResponse("%d %s" % (size, digest.hexdigest()))
        digest.update(part)
        size += len(part)


def wait(request):
    routing.waiting.set()
    routing.go_on.wait(60)
    return HttpResponse("too late")


def state(request):
    # A request that is answered, or whose client has left, is "finished" in its gateway.
    gateways = list(channel_layers["default"]._gateways.values())
    states = [each.state for gateway in gateways for each in list(gateway.connections.values())]
    open_requests = sum(each.phase != "finished" for each in states) - 1
    room = gateways[0].room
    return HttpResponse(
        "%s %d %d %d"
        % (
            routing.waiting.is_set(),
            open_requests,
            len(routing.gone),
            room.memory.used + room.disk.used,
        )
    )


def release(request):
    routing.go_on.set()
    return HttpResponse("released")


def reset(request):
    routing.waiting.clear()
    routing.go_on.clear()
    del routing.gone[:]
    return HttpResponse("reset")
"""

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

names = "ignore refuse read_some in_parts stream read wait state release reset".split()
urlpatterns = [re_path("^(?:stream/)?%s$" % name, getattr(views, name)) for name in names]
"""

ROUTING = """
import threading

from {channels} import route

waiting, go_on = threading.Event(), threading.Event()
gone = []

channel_routing = [route("http.disconnect", lambda message: gone.append(message["path"]))]
"""

NGINX = """
%(user)sdaemon off;
pid nginx.pid;
worker_processes 1;
events {}
http {
    %(temporary)s
    access_log off;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:%(port)d;
        location / { proxy_pass http://127.0.0.1:%(server)d; }
        # Not for /stream/wait: without its buffer, nginx doesn't notice a client that leaves while the
        # last of its body is on the way.
        location ~ ^/stream/(ignore|refuse|read_some|in_parts|stream|read)$ {
            proxy_pass http://127.0.0.1:%(server)d;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }
    }
}
"""


class Nginx:
    """A plain nginx in front of the server that listens on the port `server`."""

    def __init__(self, server):
        program = find_program("nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx")
        if program is None:
            missing("not installed here: nginx")
        self.directory = tempfile.mkdtemp(prefix="channels-test-", dir=open_directory())
        self.port = free_port()
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        values = {
            "user": "user %s;\n" % pwd.getpwuid(0).pw_name if os.getuid() == 0 else "",
            "temporary": " ".join("%s_temp_path tmp_%s;" % (each, each) for each in names),
            "port": self.port,
            "server": server,
        }
        with open(os.path.join(self.directory, "nginx.conf"), "w", encoding="utf-8") as out:
            out.write(NGINX % values)
        command = [program, "-p", self.directory, "-e", "error.log", "-c", "nginx.conf"]
        self.process = Process(command, self.directory)
        wait_until(
            lambda: not self.process.alive or can_connect(self.port),
            "nginx to listen",
            START_TIMEOUT,
        )
        if not self.process.alive:
            raise AssertionError(self.process.describe("did not start"))

    def close(self):
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class UploadTests:
    """The tests, for the server `program`."""

    program, arguments = None, ()

    @classmethod
    def setUpClass(cls):
        if cls.program in NEW_SERVERS:
            require_servers()
        require(cls.program)
        super().setUpClass()
        files = {"mysite/views.py": VIEWS, "mysite/urls.py": URLS, "mysite/routing.py": ROUTING}
        with contextlib.ExitStack() as stack:
            project = stack.enter_context(Project(files, settings=SETTINGS))
            cls.server = serve(project, cls.program, args=cls.arguments)
            stack.callback(cls.server.kill)
            nginx = Nginx(cls.server.port)
            stack.callback(nginx.close)
            cls.ports = {"nginx": nginx.port, "the server": cls.server.port}
            cls.cleanup = stack.pop_all()

    @classmethod
    def tearDownClass(cls):
        cls.cleanup.close()
        super().tearDownClass()

    def request(self, path, body=None, port=None, headers=()):
        """Return the status and the content of the answer."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.server.port, timeout=TIMEOUT
        )
        try:
            connection.request("GET" if body is None else "POST", path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def each(self, paths, sizes, check):
        """Call `check(port, path, size)` for every way to the site, path and size, each in a subtest."""
        for name, port in self.ports.items():
            for path in paths:
                for size in sizes:
                    with self.subTest(through=name, path=path, size=size):
                        check(port, path, size)

    def test_a_view_may_answer_without_reading_the_body(self):
        def check(port, path, size):
            self.assertEqual(self.request(path, b"x" * size, port), (200, "did not look"))

        self.each(("/ignore", "/stream/ignore"), (10, 300000, 20 * MB), check)

    def test_an_early_answer_arrives_whatever_its_kind(self):
        expected = {
            "refuse": (403, "refused"),
            "read_some": (200, "read some"),
            "in_parts": (200, "in parts"),
            "stream": (200, "a stream"),
        }

        def check(port, path, size):
            for _ in range(3):
                answer = self.request(path, b"x" * size, port)
                self.assertEqual(answer, expected[path.split("/")[-1]])

        paths = [before + name for before in ("/", "/stream/") for name in expected]
        self.each(paths, (300000, 6 * MB), check)

    def test_bodies_arrive_whole(self):
        def check(port, path, size):
            body = os.urandom(size)
            expected = "%d %s" % (size, hashlib.sha256(body).hexdigest())
            self.assertEqual(self.request(path, body, port), (200, expected))

        self.each(("/read", "/stream/read"), (0, 10, 300000, 20 * MB), check)
        self.assertEqual(self.state().split()[3], "0")

    def test_a_chunked_body_arrives_whole(self):
        def check(port, path, size):
            parts = iter([b"x" * (size // 10)] * 10)
            headers = [("Transfer-Encoding", "chunked")]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            connection.request("POST", path, parts, dict(headers), encode_chunked=True)
            response = connection.getresponse()
            self.assertTrue(response.read().decode().startswith("%d " % size))
            connection.close()

        self.each(("/read", "/stream/read"), (300000,), check)

    def test_a_refused_body_gets_its_status(self):
        def check(port, path, size):
            self.assertEqual(self.request(path, b"x" * size, port)[0], 413)

        self.each(("/read", "/stream/read"), (31 * MB,), check)

    def test_a_refused_head_gets_its_status_although_a_body_follows(self):
        headers = [("X-Large", "x" * 4000), ("X-Larger", "x" * 4000)]

        def check(port, path, size):
            self.assertEqual(self.request(path, b"x" * size, port, headers)[0], 431)

        self.each(("/read",), (10, 5 * MB), check)

    def test_a_client_that_leaves_is_noticed_and_told(self):
        self.each(("/wait", "/stream/wait"), (0, 10, 300000, 20 * MB), self.leave)

    def leave(self, port, path, size):
        self.request("/reset")
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            head = "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
            client.sendall((head % (path, size)).encode() + b"x" * size)
            wait_until(lambda: self.state().startswith("True "), "the view to begin")
        try:
            wait_until(lambda: self.state().split()[1] == "0", "the gateway to notice")
        finally:
            self.request("/release")
        wait_until(lambda: self.state().split()[2] == "1", "http.disconnect")

    def state(self):
        return self.request("/state")[1]


class DaphneUploadTests(UploadTests, unittest.TestCase):
    program = "daphne"


class UvicornUploadTests(UploadTests, unittest.TestCase):
    program = "uvicorn"


class HypercornUploadTests(UploadTests, unittest.TestCase):
    program = "hypercorn"


class UvicornH11UploadTests(UploadTests, unittest.TestCase):
    program, arguments = "uvicorn", ("--http", "h11")


class GranianUploadTests(UploadTests, unittest.TestCase):
    program = "granian"

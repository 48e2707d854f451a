"""Servers with several processes, and HTTP/2 with a browser, in front of worker processes.

The layer is the database's, on SQLite: the processes of a server share nothing else.
"""

import asyncio
import http.client
import os
import shutil
import ssl
import subprocess
import tempfile
import unittest

from .support.chromium import start_chromium
from .support.ports import free_port
from .support.requirements import require_servers
from .support.sites import PACKAGE, Project, SiteBehindServer, serve
from .support.waiting import TIMEOUT, wait_until

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS += ["{channels}.layers.database"]
DATABASES["default"]["OPTIONS"] = {"timeout": 20}
CHANNEL_LAYERS["default"]["BACKEND"] = "{channels}.layers.database.DatabaseChannelLayer"
"""

FILES = {
    "mysite/views.py": '''
from django.http import HttpResponse
from {channels} import Group

PAGE = """<!DOCTYPE html><title>waits</title><script>
const socket = new WebSocket("wss://" + location.host + "/socket/");
socket.onmessage = (event) => { document.title = event.data };
socket.onopen = () => socket.send("over a socket");
</script>"""


def index(request):
    if "tell" in request.GET:
        Group("everybody").send({"text": "now"})
    return HttpResponse("hello from a worker")


def page(request):
    return HttpResponse(PAGE)
''',
    "mysite/urls.py": """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [re_path("^$", views.index), re_path("^page/$", views.page)]
""",
    "mysite/routing.py": """
import time

from {channels} import Group, route


def connect(message):
    message.reply_channel.send({"accept": True})
    Group("everybody").add(message.reply_channel)
    message.reply_channel.send({"text": "welcome"})


def receive(message):
    message.reply_channel.send({"text": "got " + message["text"]})


def disconnect(message):
    print("a socket ended with %s." % message["code"], flush=True)


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
""",
}

SOCKETS = 24


class SeveralProcesses(unittest.TestCase):
    """A project whose consumers run in one `runworker`, for servers with four processes each."""

    @classmethod
    def setUpClass(cls):
        require_servers("websockets")
        super().setUpClass()
        cls.project = Project(FILES, settings=SETTINGS.replace("{channels}", PACKAGE))
        try:
            with cls.project.manage("migrate", "--verbosity", "0") as process:
                if process.wait(TIMEOUT):
                    raise AssertionError(process.describe("failed"))
            cls.worker = cls.project.manage("runworker", "--threads", "4")
        except BaseException:
            cls.project.close()
            raise

    @classmethod
    def tearDownClass(cls):
        try:
            cls.worker.stop()
        finally:
            cls.worker.kill()
            cls.project.close()
        super().tearDownClass()

    def get(self, server, path="/", tries=1):
        """Return (status, body). `tries`: how often to ask if the connection is closed without an answer."""
        while True:
            tries -= 1
            try:
                return self.get_once(server, path)
            except ConnectionError:
                if not tries:
                    raise

    def get_once(self, server, path):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def check(self, program, *arguments):
        """Requests, a group over all processes, and the end of every socket."""
        before = self.worker.output.count("a socket ended")
        with serve(self.project, program, args=arguments) as server:
            asyncio.run(self.group_reaches_everybody(server))
            for _ in range(40):
                self.assertEqual(self.get(server), (200, b"hello from a worker"))
            server.stop()
        wait_until(
            lambda: self.worker.output.count("a socket ended") == before + SOCKETS,
            "the end of every socket",
        )

    async def group_reaches_everybody(self, server):
        import websockets

        opened = [
            websockets.connect(server.websocket_url("/socket/"), open_timeout=TIMEOUT)
            for _ in range(SOCKETS)
        ]
        found = await asyncio.gather(*opened)
        for each in found:
            self.assertEqual(await asyncio.wait_for(each.recv(), TIMEOUT), "welcome")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.get, server, "/?tell")
        for each in found:
            self.assertEqual(await asyncio.wait_for(each.recv(), TIMEOUT), "now")
        # Half of the clients leave by themselves, and the others when the server ends.
        await asyncio.gather(*(each.close() for each in found[::2]))
        for each in found[1::2]:
            each.transport.abort()

    def test_uvicorn(self):
        self.check("uvicorn", "--workers", "4")

    def test_hypercorn(self):
        self.check("hypercorn", "--workers", "4")

    def test_granian(self):
        self.check("granian", "--workers", "4")

    def test_gunicorn_that_loads_the_site_before_it_forks(self):
        self.check("gunicorn-uvicorn", "--workers", "4", "--preload")

    def test_gunicorn_that_replaces_its_processes(self):
        arguments = ["--workers", "2", "--preload", "--max-requests", "10"]
        with serve(self.project, "gunicorn-uvicorn", args=arguments) as server:
            for _ in range(60):
                # A process that ends may close a connection before it has read a request. A proxy asks
                # again, as here.
                self.assertEqual(self.get(server, tries=3), (200, b"hello from a worker"))
            self.assertGreater(server.output.count("Booting worker"), 4)
            server.stop()
        self.assertNotIn("worker class for WSGI", server.output)

    def test_gunicorn_with_a_worker_class_for_wsgi_says_what_to_use(self):
        for kind in ("sync", "gthread"):
            with serve(self.project, "gunicorn", args=["--worker-class", kind]) as server:
                line = "gunicorn runs a worker class for WSGI.*How to use Django with uvicorn"
                server.wait_for_output(line)
                self.assertEqual(self.get(server)[0], 500)
                server.stop()


def certificate(directory):
    """Make a key and a certificate for localhost; return their paths."""
    key, path = (os.path.join(directory, each) for each in ("tls.key", "tls.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", key, "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return key, path


class HTTP2(SiteBehindServer):
    """A page over HTTP/2 and a WebSocket, for a subclass that names the server."""

    files, settings = FILES, "ALLOWED_HOSTS = ['*']"

    @classmethod
    def setUpClass(cls):
        require_servers("openssl", "h2", "httpx")
        super().setUpClass()

    @classmethod
    def start_server(cls):
        cls.key, cls.certificate = certificate(cls.project.directory)
        server, cls.port = cls.start()
        return server

    def test_a_real_client_gets_many_pages_on_one_connection(self):
        import httpx

        context = ssl.create_default_context(cafile=self.certificate)

        async def visit():
            async with httpx.AsyncClient(http2=True, http1=False, verify=context) as client:
                url = "https://localhost:%d/" % self.port
                found = await asyncio.gather(*(client.get(url, timeout=TIMEOUT) for _ in range(50)))
            return {(each.http_version, each.status_code, each.text) for each in found}

        self.assertEqual(asyncio.run(visit()), {("HTTP/2", 200, "hello from a worker")})

    def test_a_browser_has_a_page_over_http_2_and_a_socket_beside_it(self):
        profile = tempfile.mkdtemp(prefix="chromium-")
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        driver = start_chromium(profile, "--ignore-certificate-errors")
        self.addCleanup(driver.quit)
        driver.get("https://localhost:%d/page/" % self.port)
        protocol = driver.execute_script(
            "return performance.getEntriesByType('navigation')[0].nextHopProtocol"
        )
        self.assertEqual(protocol, "h2")
        wait_until(lambda: driver.title not in ("", "waits"), "the socket's answer")
        self.assertIn(driver.title, ("welcome", "got over a socket"))
        wait_until(lambda: driver.title == "got over a socket", "the socket's answer")


class DaphneHTTP2Tests(HTTP2, unittest.TestCase):
    @classmethod
    def start(cls):
        port = free_port()
        endpoint = "ssl:%d:privateKey=%s:certKey=%s:interface=127.0.0.1" % (
            port,
            cls.key,
            cls.certificate,
        )
        return serve(cls.project, "daphne", args=["-e", endpoint]), port


class HypercornHTTP2Tests(HTTP2, unittest.TestCase):
    @classmethod
    def start(cls):
        arguments = ["--certfile", cls.certificate, "--keyfile", cls.key]
        server = serve(cls.project, "hypercorn", args=arguments)
        return server, server.port


class GranianHTTP2Tests(HTTP2, unittest.TestCase):
    @classmethod
    def start(cls):
        arguments = ["--ssl-certificate", cls.certificate, "--ssl-keyfile", cls.key]
        server = serve(cls.project, "granian", args=arguments)
        return server, server.port

"""The nginx configuration of the documentation, in a real nginx, in front of Daphne and uvicorn."""

import contextlib
import http.client
import json
import os
import pwd
import re
import socket
import ssl
import subprocess
import textwrap
import unittest
import urllib.parse

from .support.ports import can_connect, can_connect_to, free_port
from .support.processes import Process
from .support.requirements import find_program, missing, require
from .support.sites import Project
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until
from .test_docs import text_of

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["example.com"]
INSTALLED_APPS = ["{channels}"]
MIDDLEWARE = MIDDLEWARE_CLASSES = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# The proxy has to remove these headers even if a site trusts them.
USE_X_FORWARDED_HOST = True
USE_X_FORWARDED_PORT = True
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
"""

VIEWS = """
import json

from django.http import HttpResponse
from django.middleware.csrf import get_token

KEYS = ("REMOTE_ADDR", "SCRIPT_NAME", "HTTP_HOST", "HTTP_UPGRADE", "HTTP_FORWARDED")


def index(request):
    found = {key: request.META.get(key) for key in KEYS}
    found.update(url=request.build_absolute_uri(), token=get_token(request), method=request.method)
    return HttpResponse(json.dumps(found))
"""

ROUTING = """
import json

from {channels} import route


def connect(message):
    message.reply_channel.send({"accept": True})
    seen = {key: message[key] for key in ("path", "root_path", "scheme", "client")}
    message.reply_channel.send({"text": json.dumps(seen)})


channel_routing = [route("websocket.connect", connect)]
"""

URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [re_path("", views.index)]
"""

#: What an attacker sends to the proxy.
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X_Forwarded_For": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=http;host=evil.example",
    "Daphne-Root-Path": "javascript:alert(1)//",
}

COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "--proxy-headers", "--forwarded-allow-ips", "*", "--uds"],
    "daphne": ["-m", "daphne", "--proxy-headers", "-u"],
}


def nginx_blocks(page):
    """Return the nginx configurations of a page of the documentation."""
    found = re.findall(r"\.\. code-block:: nginx\n\n((?:    .*\n|\n)+)", text_of(page))
    return [textwrap.dedent(block) for block in found]


class Nginx:
    """
    A real nginx with the configuration of the documentation, whose paths and port are replaced. `directory`
    is where the server listens on asgi.sock.
    """

    def __init__(self, directory):
        self.port = free_port()
        self.directory = directory
        proxy, site = nginx_blocks("howto/deployment/asgi/nginx.txt")[:2]
        self.certificate = os.path.join(directory, "example.com.pem")
        self._make_certificate(self.certificate, os.path.join(directory, "example.com.key"))
        self.write("mysite_proxy.conf", proxy)
        locations = self.locations(site)
        self.write("nginx.conf", self.main(locations))
        program = find_program("nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx")
        command = [program, "-p", directory, "-e", "error.log", "-c", "nginx.conf"]
        self.process = Process(command, directory)
        try:
            wait_until(
                lambda: not self.process.alive or can_connect(self.port),
                "nginx to listen",
                START_TIMEOUT,
            )
            if not self.process.alive:
                raise AssertionError(self.process.describe("did not start"))
        except BaseException:
            self.process.kill()
            raise

    @staticmethod
    def locations(site):
        """Return the main configuration of the page with the locations of the other examples."""
        below = nginx_blocks("howto/deployment/asgi/nginx.txt")[2]
        sockets, _ = nginx_blocks("howto/deployment/asgi/wsgi.txt")[0].split("location / ")
        end = site.rindex("}")
        return site[:end] + below + sockets + site[end:]

    def main(self, site):
        user = "user %s;\n" % pwd.getpwuid(0).pw_name if os.getuid() == 0 else ""
        temporary = "".join(
            "    %s_temp_path tmp_%s;\n" % (each, each)
            for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            "%sdaemon off;\npid nginx.pid;\nworker_processes 1;\nevents {}\nhttp {\n%s%s%s}\n"
            % (
                user,
                temporary,
                "    access_log off;\n",
                site,
            )
        )

    def write(self, name, text):
        for documented, real in (
            ("/run/mysite/", self.directory + "/"),
            ("/etc/ssl/", self.directory + "/"),
            ("/etc/nginx/", self.directory + "/"),
            ("listen 443 ", "listen 127.0.0.1:%d " % self.port),
        ):
            text = text.replace(documented, real)
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as out:
            out.write(text)

    @staticmethod
    def _make_certificate(certificate, key):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=example.com", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def connect(self):
        """Return a TLS connection, as a browser that was sent to example.com has it."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        return context.wrap_socket(plain, server_hostname="example.com")

    def close(self):
        self.process.kill()


class ProxyCase(unittest.TestCase):
    """A site behind `program`, with the arguments `options`, behind the documented proxy."""

    program = None
    options = ()

    @classmethod
    def setUpClass(cls):
        require(cls.program, "websocket", "openssl")
        if find_program("nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx") is None:
            missing("not installed here: nginx")
        super().setUpClass()
        files = {"mysite/views.py": VIEWS, "mysite/urls.py": URLS, "mysite/routing.py": ROUTING}
        with contextlib.ExitStack() as stack:
            project = stack.enter_context(Project(files, settings=SETTINGS))
            path = os.path.join(project.directory, "asgi.sock")
            command = COMMANDS[cls.program] + [path, *cls.options, "mysite.asgi:channel_layer"]
            server = project.python(*command)
            stack.callback(server.kill)
            wait_until(
                lambda: not server.alive or can_connect_to(path),
                "the server's socket",
                START_TIMEOUT,
            )
            cls.nginx = Nginx(project.directory)
            stack.callback(cls.nginx.close)
            cls.site = "https://example.com:%d" % cls.nginx.port
            cls.cleanup = stack.pop_all()

    @classmethod
    def tearDownClass(cls):
        cls.cleanup.close()
        super().tearDownClass()

    def request(self, path="/", method="GET", body=None, **headers):
        """Return the status and the content (from JSON, or None) of a request through the proxy."""
        connection = http.client.HTTPConnection("example.com", self.nginx.port)
        connection.sock = self.nginx.connect()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read().decode()
            return response.status, json.loads(content) if response.status == 200 else None
        finally:
            connection.close()

    def open(self, path="/ws/", origin=None, headers=()):
        """Open a WebSocket through the proxy. Return what its consumer has seen."""
        import websocket

        client = websocket.create_connection(
            self.site.replace("https:", "wss:") + path,
            socket=self.nginx.connect(),
            origin=origin or self.site,
            header=list(headers),
        )
        try:
            return json.loads(client.recv())
        finally:
            client.shutdown()


class ProxyTests:
    """What a site may rely on."""

    def test_a_client_does_not_choose_its_address_or_the_url_of_the_site(self):
        _, plain = self.request("/page/")
        _, forged = self.request("/page/", **{n.replace("-", "_"): v for n, v in FORGED.items()})
        for found in (plain, forged):
            self.assertEqual(found["REMOTE_ADDR"], "127.0.0.1")
            self.assertEqual(found["SCRIPT_NAME"], "")
            self.assertEqual(found["HTTP_HOST"], self.site[8:])
            self.assertEqual(found["url"], self.site + "/page/")
            self.assertIsNone(found["HTTP_FORWARDED"])

    def test_a_socket_does_not_choose_either(self):
        forged = ["%s: %s" % item for item in FORGED.items()]
        for headers in ([], forged):
            found = self.open(headers=headers)
            self.assertEqual(found["client"][0], "127.0.0.1")
            self.assertEqual((found["root_path"], found["path"]), ("", "/ws/"))
            self.assertIn(found["scheme"], ("wss", "https"))

    def test_a_form_passes_the_csrf_check_on_any_port(self):
        _, page = self.request()
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": page["token"]})
        cookie = "csrftoken=" + page["token"]

        def post(origin):
            return self.request(
                "/",
                "POST",
                data,
                Content_Type="application/x-www-form-urlencoded",
                Cookie=cookie,
                Origin=origin,
                Referer=origin + "/",
            )[0]

        self.assertEqual(post(self.site), 200)
        for origin in ("https://evil.example", "https://example.com", self.site + "0"):
            self.assertEqual(post(origin), 403)

    def test_a_socket_belongs_to_the_pages_of_its_own_port(self):
        import websocket

        for path in ("/", "/ws/"):
            self.assertEqual(self.open(path)["path"], path)
            for origin in (
                "https://evil.example",
                "https://example.com",
                self.site.replace("https:", "http:"),
            ):
                with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
                    self.open(path, origin)
                self.assertEqual(caught.exception.status_code, 403)

    def test_only_websockets_are_upgraded(self):
        for upgrade in ("h2c", "TLS/1.0", "websocket, h2c", "foo"):
            _, found = self.request(
                Upgrade=upgrade, Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAMAAABk"
            )
            self.assertIsNone(found["HTTP_UPGRADE"], upgrade)


class DaphneTests(ProxyTests, ProxyCase):
    program = "daphne"


class UvicornTests(ProxyTests, ProxyCase):
    program = "uvicorn"


class BelowAPathTests:
    """The option and the location of the example for a site below a path."""

    options = ("--root-path", "/shop")

    def test_the_site_is_below_the_path(self):
        _, found = self.request("/shop/page/")
        self.assertEqual(found["SCRIPT_NAME"], "/shop")
        self.assertEqual(found["url"], self.site + "/shop/page/")
        found = self.open("/shop/live/", headers=["Daphne-Root-Path: /evil"])
        self.assertEqual(found["root_path"], "/shop")
        self.assertIn(found["path"], ("/live/", "/shop/live/"))


class DaphneBelowAPathTests(BelowAPathTests, ProxyCase):
    program = "daphne"


class UvicornBelowAPathTests(BelowAPathTests, ProxyCase):
    program = "uvicorn"

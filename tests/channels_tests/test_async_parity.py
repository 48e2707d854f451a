"""Asynchronous views, middleware, ORM and streams: the same answers as from Django's own ASGI handler.

One project, served twice by uvicorn: once by its channel layer, once by Django's application.
"""

import http.client
import json
import socket
import unittest

import django

from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import TIMEOUT, wait_until

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS += ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "mysite.views.async_middleware",
    "mysite.views.sync_middleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
"""

FILES = {
    "mysite/plain.py": """
import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

application = get_asgi_application()
""",
    "mysite/views.py": """
import asyncio
import contextvars
import threading

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils.decorators import async_only_middleware, sync_only_middleware
from django.views import View

counted = {"open": 0, "most": 0}
value = contextvars.ContextVar("value", default="none")


@async_only_middleware
def async_middleware(get_response):
    async def inner(request):
        value.set("set by middleware")
        response = await get_response(request)
        response["X-Async"] = "yes"
        return response

    return inner


@sync_only_middleware
def sync_middleware(get_response):
    def inner(request):
        response = get_response(request)
        response["X-Sync"] = "yes"
        return response

    return inner


async def index(request):
    await asyncio.sleep(0)
    return HttpResponse("async %s" % value.get())


def sync_view(request):
    return HttpResponse("sync %s" % value.get())


async def orm(request):
    name = request.GET["name"]
    await User.objects.acreate(username=name)
    count = await User.objects.acount()
    found = [each.username async for each in User.objects.filter(username=name)]
    await User.objects.filter(username=name).adelete()
    return JsonResponse({"count": count, "found": found})


async def sync_orm(request):
    try:
        User.objects.count()
    except Exception as error:
        return HttpResponse(type(error).__name__)
    return HttpResponse("no error")


async def session(request):
    if hasattr(request.session, "aset"):
        await request.session.aset("seen", await request.session.aget("seen", 0) + 1)
        return HttpResponse(str(await request.session.aget("seen")))
    return HttpResponse("1")


async def body(request):
    return HttpResponse("%d %s" % (len(request.body), request.POST.get("a")))


async def gathered(request):
    async def part(number):
        await asyncio.sleep(0.01 * (3 - number))
        return str(number)

    return HttpResponse(",".join(await asyncio.gather(*(part(number) for number in range(3)))))


async def fails(request):
    raise RuntimeError("secret")


async def missing(request):
    raise Http404


async def denied(request):
    raise PermissionDenied


class Both(View):
    async def get(self, request):
        return HttpResponse("get")

    async def post(self, request):
        return HttpResponse("post")


async def stream(request):
    async def parts():
        for number in range(5):
            await asyncio.sleep(0)
            yield "%d,%s;" % (number, value.get())

    return StreamingHttpResponse(parts())


async def big(request):
    return HttpResponse(b"0123456789" * 100000)


async def sync_stream(request):
    return StreamingHttpResponse(iter([b"one,", b"two"]))


async def events(request):
    async def parts():
        counted["open"] += 1
        counted["most"] = max(counted["most"], counted["open"])
        try:
            yield "data: begun\\n\\n"
            while True:
                await asyncio.sleep(3600)
                yield "data: later\\n\\n"
        finally:
            counted["open"] -= 1

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


async def waits(request):
    counted["open"] += 1
    counted["most"] = max(counted["most"], counted["open"])
    try:
        await asyncio.sleep(3600)
    finally:
        counted["open"] -= 1


async def counts(request):
    return JsonResponse(dict(counted, threads=threading.active_count()))
""",
    "mysite/urls.py": """
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from mysite import views

urlpatterns = [
    path("", views.index),
    path("sync/", views.sync_view),
    path("orm/", views.orm),
    path("sync-orm/", views.sync_orm),
    path("session/", views.session),
    path("body/", csrf_exempt(views.body)),
    path("csrf/", views.body),
    path("gathered/", views.gathered),
    path("fails/", views.fails),
    path("missing/", views.missing),
    path("denied/", views.denied),
    path("both/", csrf_exempt(views.Both.as_view())),
    path("stream/", views.stream),
    path("big/", views.big),
    path("sync-stream/", views.sync_stream),
    path("events/", views.events),
    path("waits/", views.waits),
    path("counts/", views.counts),
]
""",
}

#: (method, path, body)
REQUESTS = (
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/sync/", None),
    ("GET", "/sync", None),
    ("GET", "/orm/?name=ada", None),
    ("GET", "/sync-orm/", None),
    ("GET", "/session/", None),
    ("POST", "/body/", b"a=1"),
    ("POST", "/body/", b"a=" + b"x" * 1000000),
    ("POST", "/csrf/", b"a=1"),
    ("GET", "/gathered/", None),
    ("GET", "/fails/", None),
    ("GET", "/missing/", None),
    ("GET", "/denied/", None),
    ("GET", "/both/", None),
    ("POST", "/both/", b""),
    ("PUT", "/both/", b""),
    ("OPTIONS", "/both/", None),
    ("GET", "/stream/", None),
    ("HEAD", "/stream/", None),
    ("GET", "/big/", None),
    ("HEAD", "/big/", None),
    ("GET", "/sync-stream/", None),
)

#: Headers that may differ: the time, the server's own, and how the body is delimited.
LEFT_OUT = {"date", "server", "transfer-encoding", "connection", "set-cookie"}

#: Fewer than asynchronous consumers that one process runs at a time.
MANY = 90


@unittest.skipIf(django.VERSION < (4, 2), "Django streams asynchronous iterators from 4.2 on")
class AsyncParityTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require("uvicorn")
        super().setUpClass()
        cls.project = Project(FILES, settings=SETTINGS)
        cls.servers = []
        try:
            with cls.project.manage("migrate", "--verbosity", "0") as process:
                if process.wait():
                    raise AssertionError(process.describe("failed"))
            for application in ("mysite.plain:application", "mysite.asgi:channel_layer"):
                cls.servers.append(serve(cls.project, "uvicorn", application))
        except BaseException:
            cls.end()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.end()
        super().tearDownClass()

    @classmethod
    def end(cls):
        for server in cls.servers:
            server.kill()
        cls.project.close()

    def ask(self, server, method, path, body=None):
        """Return (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        names = set(found) - LEFT_OUT
        return response.status, {name: found[name] for name in names}, response.read()

    def test_every_answer_is_that_of_djangos_own_handler(self):
        plain, ours = self.servers
        for request in REQUESTS:
            with self.subTest("%s %s" % request[:2]):
                self.assertEqual(self.ask(ours, *request), self.ask(plain, *request))

    def counts(self, server):
        return json.loads(self.ask(server, "GET", "/counts/")[2].decode())

    def open(self, server, path, number):
        """Return `number` connections that have asked for `path`."""
        found = []
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
            self.addCleanup(connection.close)
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
            found.append(connection)
        return found

    def test_many_streams_share_one_process_and_end_with_their_clients(self):
        for server in self.servers:
            found = self.open(server, "/events/", MANY)
            for connection in found:
                text = b""
                while b"data: begun" not in text:
                    text += connection.recv(65536)
            self.assertEqual(self.counts(server)["open"], MANY)
            self.assertEqual(self.ask(server, "GET", "/sync/")[0], 200)
            for connection in found:
                connection.close()
            # Django's own handler notices it from 5.0 on.
            if server is not self.servers[0] or django.VERSION >= (5, 0):
                wait_until(lambda server=server: self.counts(server)["open"] == 0, "their end")

    @unittest.skipIf(django.VERSION < (5, 0), "Django cancels views whose client left from 5.0 on")
    def test_many_views_that_wait_share_one_process_and_are_cancelled(self):
        for server in self.servers:
            found = self.open(server, "/waits/", MANY)
            wait_until(lambda server=server: self.counts(server)["open"] == MANY, "all views")
            for connection in found:
                connection.close()
            wait_until(lambda server=server: self.counts(server)["open"] == 0, "their end")

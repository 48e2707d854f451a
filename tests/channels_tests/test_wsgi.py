"""WSGI in each direction, under wsgiref's validator: workers behind it, and its applications in workers."""

import asyncio
import http.client
import io
import itertools
import logging
import sys
import threading
import time
import unittest
import urllib.request
from functools import partial
from unittest import mock
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from django.channels.handler import ViewConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.routing import route
from django.channels.wsgi import LayerApplication, WSGIConsumer, over_layer
from django.channels.wsgi.in_gateway import WSGIRunner
from django.http import HttpResponse, StreamingHttpResponse
from django.test import SimpleTestCase, override_settings

from . import http_site
from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import TIMEOUT, wait_until

#: A body that passes through a temporary file: bytes.
LARGE = 3 * 1024 * 1024


def environ_of(path="/", body=b"", **changes):
    """Return what a WSGI server passes to its application."""
    environ = {}
    setup_testing_defaults(environ)
    environ.update(
        PATH_INFO=path,
        QUERY_STRING="",
        REMOTE_ADDR="192.0.2.7",
        SERVER_PROTOCOL="HTTP/1.1",
        CONTENT_LENGTH=str(len(body)),
        **{"wsgi.input": io.BytesIO(body)},
    )
    environ.update(changes)
    return environ


class Answer:
    """What a WSGI application answers: `status`, `headers` and `body`. The application is closed."""

    def __init__(self, application, environ):
        parts = validator(application)(environ, self.start_response)
        try:
            self.body = b"".join(parts)
        finally:
            parts.close()

    def start_response(self, status, headers, exc_info=None):
        self.status, self.headers = status, headers
        return lambda data: self.fail("write() isn't for new applications")

    def __getitem__(self, name):
        return [value for each, value in self.headers if each.lower() == name]


class LayerCase(SimpleTestCase):
    """A layer in memory, whose workers run views and consumers in threads."""

    def application(self, consumer=None, view=None, **options):
        layer = MemoryChannelLayer(threads=2)
        layer.routing = [route("http.request", consumer or ViewConsumer())]
        if view is not None:
            context = override_settings(
                ROOT_URLCONF=type("URLconf", (), {"urlpatterns": [http_site.re_path(r"", view)]}),
                MIDDLEWARE=[],
                MIDDLEWARE_CLASSES=[],
                ALLOWED_HOSTS=["*"],
            )
            context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)
        application = LayerApplication(layer, **options)
        self.addCleanup(application.close)
        return application


class LayerApplicationTests(LayerCase):
    def test_a_view_sees_the_request_of_the_wsgi_server(self):
        def view(request):
            lines = [
                request.method,
                request.path,
                request.META["SCRIPT_NAME"],
                request.GET["q"],
                request.META["REMOTE_ADDR"],
                request.META["HTTP_X_NAME"],
                request.scheme,
                request.body.decode(),
            ]
            return HttpResponse("\n".join(lines), status=201, content_type="text/plain")

        environ = environ_of(
            "/p\xc3\xa4th",
            b"the body",
            REQUEST_METHOD="POST",
            SCRIPT_NAME="/site",
            QUERY_STRING="q=%20x",
            HTTP_X_NAME="a name",
            **{"wsgi.url_scheme": "https"},
        )
        answer = Answer(self.application(view=view), environ)
        self.assertEqual(answer.status, "201 Created")
        self.assertEqual(answer["content-type"], ["text/plain"])
        self.assertEqual(
            answer.body.decode().split("\n"),
            ["POST", "/site/p\xe4th", "/site", " x", "192.0.2.7", "a name", "https", "the body"],
        )

    def test_large_bodies_pass_in_both_directions(self):
        def view(request):
            size = sum(len(each) for each in iter(lambda: request.read(65536), b""))
            return StreamingHttpResponse(b"x" * 65536 for _ in range(size // 65536))

        environ = environ_of("/", b"y" * LARGE, REQUEST_METHOD="POST")
        self.assertEqual(Answer(self.application(view=view), environ).body, b"x" * LARGE)

    def test_a_body_without_a_length_ends_where_the_input_ends(self):
        def view(request):
            return HttpResponse(request.read())

        environ = environ_of(
            "/",
            b"chunks",
            REQUEST_METHOD="POST",
            CONTENT_LENGTH="",
            HTTP_TRANSFER_ENCODING="chunked",
            **{"wsgi.input_terminated": True},
        )
        del environ["CONTENT_LENGTH"]
        self.assertEqual(Answer(self.application(view=view), environ).body, b"chunks")

    def test_a_request_without_a_body_has_no_header_of_one(self):
        # gunicorn sets wsgi.input_terminated for each request.
        application = self.application(view=lambda request: HttpResponse(repr(request.META)))
        environ = environ_of(**{"wsgi.input_terminated": True})
        del environ["CONTENT_LENGTH"]
        self.assertNotIn(b"TRANSFER_ENCODING", Answer(application, environ).body)

    def test_each_part_of_a_stream_comes_when_it_exists(self):
        may_go_on = threading.Event()

        def parts():
            yield b"first"
            may_go_on.wait(TIMEOUT)
            yield b"second"

        application = self.application(view=lambda request: StreamingHttpResponse(parts()))
        content = iter(application(environ_of(), lambda status, headers: None))
        self.assertEqual(next(content), b"first")
        may_go_on.set()
        self.assertEqual(b"".join(content), b"second")

    def test_a_stream_ends_when_the_wsgi_server_closes_it(self):
        closed = threading.Event()

        def parts():
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed.set()

        application = self.application(view=lambda request: StreamingHttpResponse(parts()))
        content = application(environ_of(), lambda status, headers: None)
        next(content)
        content.close()
        self.assertTrue(closed.wait(TIMEOUT))

    def test_a_client_that_is_gone_ends_the_wait_for_a_response(self):
        # What a server does whose client has gone while the view runs is to close nothing: it waits. But a
        # body that ends early says so.
        environ = environ_of("/", b"half", REQUEST_METHOD="POST", CONTENT_LENGTH="8")
        answer = Answer(self.application(view=lambda request: HttpResponse("never")), environ)
        self.assertNotIn(b"never", answer.body)

    def test_no_response_in_time_is_a_504(self):
        may_end = threading.Event()

        def view(request):
            may_end.wait(TIMEOUT)
            return HttpResponse("late")

        application = self.application(view=view, timeout=0.1)
        self.addCleanup(may_end.set)  # before the application is closed
        answer = Answer(application, environ_of())
        self.assertEqual(answer.status, "504 Gateway Timeout")
        self.assertIn(b"504", answer.body)

    def test_a_server_that_refuses_the_head_ends_the_request(self):
        """It gets nothing that it could close."""
        gone = threading.Event()

        def view(request):
            def parts():
                try:
                    while True:
                        yield b"x" * 100000
                finally:
                    gone.set()

            return StreamingHttpResponse(parts())

        def refuse(status, headers, exc_info=None):
            raise ValueError("a header that the server doesn't take")

        with self.assertRaises(ValueError):
            self.application(view=view)(environ_of(), refuse)
        self.assertTrue(gone.wait(TIMEOUT))

    def test_a_large_body_gives_a_worker_more_time(self):
        deadlines = []

        def view(request):
            request.read()
            return HttpResponse("in time")

        class Watched(over_layer.Exchange):
            def _step(self):
                if self._deadline is not None:
                    deadlines.append(self._deadline - time.monotonic())
                return super()._step()

        with mock.patch.object(over_layer, "Exchange", Watched):
            for size in (0, LARGE):
                environ = environ_of("/", b"x" * size, REQUEST_METHOD="POST")
                answer = Answer(self.application(view=view, timeout=60), environ)
                self.assertEqual(answer.body, b"in time")
                if not size:
                    self.assertLessEqual(max(deadlines), 60)
        self.assertGreater(max(deadlines), 60 + LARGE / over_layer.BYTES_PER_SECOND - 1)

    def test_head_and_204_have_no_content(self):
        application = self.application(view=lambda request: HttpResponse("content"))
        answer = Answer(application, environ_of(REQUEST_METHOD="HEAD"))
        self.assertEqual((answer.status, answer.body), ("200 OK", b""))
        application = self.application(view=lambda request: HttpResponse(status=304))
        self.assertEqual(Answer(application, environ_of()).body, b"")

    def test_a_response_that_breaks_off_raises(self):
        def parts():
            yield b"first"
            raise KeyError("no more")

        application = self.application(view=lambda request: StreamingHttpResponse(parts()))
        content = iter(application(environ_of(), lambda status, headers: None))
        self.assertEqual(next(content), b"first")
        with self.assertRaises(OSError):
            next(content)


def old_site(environ, start_response):
    """A WSGI application that shows what it gets."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    lines = [
        environ["SCRIPT_NAME"],
        environ["PATH_INFO"].encode("latin-1").decode("utf-8"),
        environ["QUERY_STRING"],
        environ["wsgi.input"].read(length).decode(),
    ]
    start_response(
        "200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    )
    return ["\n".join(lines).encode()]


class ConsumerTests(LayerCase):
    """Over both bridges: the validator checks the application and the server in one test."""

    def answer(self, site, path="/old/p\xc3\xa4th", script_name="/old", **changes):
        body = changes.pop("body", b"")
        application = self.application(WSGIConsumer(validator(site), script_name))
        return Answer(application, environ_of(path, body, **changes))

    def test_the_application_gets_its_request_and_gives_its_response(self):
        answer = self.answer(old_site, body=b"the body", REQUEST_METHOD="POST", QUERY_STRING="a=b")
        self.assertEqual(answer.status, "200 OK")
        self.assertEqual(answer["set-cookie"], ["a=1", "b=2"])
        self.assertEqual(answer.body.decode().split("\n"), ["/old", "/p\xe4th", "a=b", "the body"])

    def test_a_generator_is_streamed_and_closed(self):
        closed = threading.Event()

        def site(environ, start_response):
            try:
                start_response("200 OK", [("Content-Type", "text/plain")])
                for _ in range(40):
                    yield b"x" * 65536
            finally:
                closed.set()

        self.assertEqual(self.answer(site).body, b"x" * 65536 * 40)
        self.assertTrue(closed.wait(TIMEOUT))

    def test_what_is_written_comes_before_what_is_returned(self):
        def site(environ, start_response):
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"first ")
            return [b"second"]

        self.assertEqual(self.answer(site).body, b"first second")

    def test_mistakes_of_the_application_are_a_500(self):
        def silent(environ, start_response):
            return [b"no status"]

        def raises(environ, start_response):
            raise KeyError("secret")

        def text(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return ["text"]

        for site in (silent, raises, text):
            with self.subTest(site.__name__), self.assertLogs("django.request", "ERROR"):
                application = self.application(WSGIConsumer(site))
                answer = Answer(application, environ_of())
                self.assertEqual(answer.status, "500 Internal Server Error")
                self.assertNotIn(b"secret", answer.body)

    def test_an_application_may_replace_its_response_by_an_error_page(self):
        def site(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            try:
                raise KeyError("x")
            except KeyError:
                start_response("503 Away", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"away"]

        answer = self.answer(site)
        self.assertEqual((answer.status[:3], answer.body), ("503", b"away"))

    def test_an_error_after_content_was_written_is_a_500_without_it(self):
        def site(environ, start_response):
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"partial")
            try:
                raise KeyError("x")
            except KeyError:
                start_response("503 Away", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"away"]

        with self.assertLogs("django.request", "ERROR"):
            answer = self.answer(site)
        self.assertEqual(answer.status, "500 Internal Server Error")
        self.assertNotIn(b"partial", answer.body)

    def test_a_result_is_closed_once_whatever_becomes_of_it(self):
        closed = []

        class Whole(list):
            def close(self):
                closed.append(self)

        class Stream:
            def __init__(self, parts):
                self.parts = parts

            def __iter__(self):
                return iter(self.parts)

            close = Whole.close

        text = ("Content-Type", "text/plain")
        for status, header in (
            ("200 OK", text),
            ("999 Other", text),
            ("100 Continue", text),
            ("200 OK", ("Content-Length", "1\n")),
            ("200 OK", ("X-Name", "\u20ac")),
            ("200 OK", ("X-Name", b"bytes")),
        ):
            for result in (Whole([b"x"]), Whole(["text"]), Stream([b"x"]), Stream(["text"])):
                with self.subTest(status=status, header=header, result=type(result).__name__):
                    del closed[:]

                    def site(environ, start_response):
                        start_response(status, [header])  # noqa: B023
                        return result  # noqa: B023

                    Answer(self.application(WSGIConsumer(site)), environ_of())
                    wait_until(lambda: closed, "the result to be closed")
                    self.assertEqual(len(closed), 1)

    def test_an_application_whose_response_is_complete_runs_on_to_its_end(self):
        for method, status, headers in COMPLETE:
            with self.subTest(method=method, status=status):
                result = Logging()
                application = self.application(WSGIConsumer(giving(result, status, headers)))
                answer = application(environ_of(REQUEST_METHOD=method), lambda *args: None)
                for _ in answer:
                    pass
                answer.close()
                wait_until(partial(result.log.__contains__, "close"), "the application's close")
                self.assertEqual(result.log, ["end", "close"])

    def test_a_script_name_without_its_slash_is_refused(self):
        for script_name in ("old", "/old/", "/"):
            with self.subTest(script_name), self.assertRaisesMessage(
                ValueError, "begins with a slash"
            ):
                WSGIConsumer(old_site, script_name)
        with self.assertRaisesMessage(TypeError, "runs a WSGI application"):
            WSGIConsumer("mysite.wsgi")


class Logging:
    """The result of a WSGI application, which notes whether it was read to its end, and closed."""

    def __init__(self, parts=(b"ab", b"", b"cd")):
        self.parts, self.log = iter(parts), []

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self.parts)
        except StopIteration:
            self.log.append("end")
            raise

    def close(self):
        self.log.append("close")


def giving(result, status, headers):
    """Return a WSGI application that returns `result`. Its headers have "_" in the place of "-"."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def application(environ, start_response):
        start_response(status, pairs)
        return result

    return application


#: Method, status and headers of responses that are complete before their application has ended.
COMPLETE = [
    ("HEAD", "200 OK", {}),
    ("GET", "204 No Content", {}),
    ("GET", "304 Not Modified", {}),
    ("GET", "200 OK", {"Content_Length": "1"}),
]


class InGatewayResponseTests(SimpleTestCase):
    """A WSGI application as `http=`: its responses are held to the rules for those of workers."""

    def ask(self, application, method="GET"):
        """Return the status and the content that the server gets. The content is None if it breaks off."""
        return asyncio.run(self._ask(application, method))

    async def _ask(self, application, method):
        layer = MemoryChannelLayer(threads=1)
        layer.routing = []
        layer.http_application = application
        scope = dict(over_layer.scope_of(environ_of()), method=method)
        events, sent = [{"type": "http.request", "body": b""}], []

        async def receive():
            if events:
                return events.pop()
            return await asyncio.get_event_loop().create_future()

        async def send(event):
            sent.append(event)

        try:
            await layer(scope, receive, send)
        except RuntimeError:  # by which a server knows that the response breaks off
            return sent[0]["status"] if sent else None, None
        finally:
            await layer.gateway.stop()
        self.assertFalse(sent[-1]["more_body"])
        return sent[0]["status"], b"".join(event["body"] for event in sent[1:])

    def site(self, result, status="200 OK", **headers):
        return giving(result, status, headers)

    def test_a_response_is_held_to_its_length(self):
        for result, length, content in (
            ([b"ab", b"cd"], "4", b"abcd"),
            (iter([b"", b"ab", b"", b"cd", b""]), "4", b"abcd"),
            ([b"abcd"], "2", b"ab"),
            (iter([b"ab", b"cd"]), "3", b"abc"),
            ([b"abcd"], "9", None),
            ([], "0", b""),
        ):
            with self.subTest(length=length, content=content):
                answer = self.ask(self.site(result, Content_Length=length))
                self.assertEqual(answer, (200, content))

    def test_head_204_and_304_have_no_content(self):
        self.assertEqual(self.ask(self.site([b"content"]), "HEAD"), (200, b""))
        for status in ("204 No Content", "304 Not Modified"):
            self.assertEqual(self.ask(self.site([b"content"], status)), (int(status[:3]), b""))

    def test_an_application_whose_response_is_complete_runs_on_to_its_end(self):
        for method, status, headers in COMPLETE:
            with self.subTest(method=method, status=status):
                result = Logging()
                # A surplus is logged, too.
                with self.assertLogs("django.channels.gateway") as logs:
                    logging.getLogger("django.channels.gateway").info("")
                    self.ask(self.site(result, status, **headers), method)
                self.assertEqual(result.log, ["end", "close"])
                self.assertEqual(len(logs.output), 2 if headers else 1)

    def test_an_application_without_an_end_is_closed_after_a_time(self):
        result = Logging(itertools.repeat(b"x"))
        with mock.patch("django.channels.wsgi.consumer.RUN_ON_TIMEOUT", 0.01):
            with self.assertLogs("django.channels.worker", "WARNING"):
                self.ask(self.site(result), "HEAD")
        self.assertEqual(result.log, ["close"])

    def test_a_head_that_http_does_not_allow_is_a_500(self):
        for application in (
            self.site([b"x"], "100 Continue"),
            self.site([b"x"], X_Name="a\r\nSet-Cookie: b=1"),
            self.site([b"x"], X_Name="\u20ac"),
            self.site([b"x"], Content_Length="many"),
        ):
            with self.assertLogs("django.channels.gateway", "ERROR"):
                status, content = self.ask(application)
            self.assertEqual(status, 500)
            self.assertIn(b"500", content)

    def test_an_exit_that_the_application_asks_for_ends_no_server(self):
        def leaves(environ, start_response):
            raise SystemExit(3)

        def leaves_later(environ, start_response):
            start_response("200 OK", [])
            yield b"first"
            raise SystemExit(3)

        async def leaves_asgi(scope, receive, send):
            raise SystemExit(3)

        with self.assertLogs("django.channels.gateway", "ERROR"):
            self.assertEqual(self.ask(leaves)[0], 500)
        with self.assertLogs("django.channels.gateway", "ERROR"):
            self.assertEqual(self.ask(leaves_later), (200, None))
        # The server answers what an ASGI application raises.
        self.assertEqual(self.ask(leaves_asgi), (None, None))


SITE = {
    "mysite/wsgi.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

from {channels}.wsgi import get_wsgi_application

application = get_wsgi_application()
""",
    "mysite/views.py": """
import os

from django.http import HttpResponse, StreamingHttpResponse


def index(request):
    size = sum(len(each) for each in iter(lambda: request.read(65536), b""))
    return HttpResponse("%s %s" % (size, os.getpid()))


def failing():
    yield b"x"
    raise KeyError("no more")


def stream(request):
    return StreamingHttpResponse(failing() if "fail" in request.GET else (b"x" * 65536 for _ in range(64)))
""",
    "mysite/urls.py": """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from . import views

urlpatterns = [re_path("^stream/$", views.stream), re_path("", views.index)]
""",
    "mysite/http.py": """
import os

from django.core.wsgi import get_wsgi_application

from {channels}.asgi import get_channel_layer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

channel_layer = get_channel_layer(http=get_wsgi_application())
""",
    "mysite/http_asgi.py": """
import os

from django.core.asgi import get_asgi_application

from {channels}.asgi import get_channel_layer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

channel_layer = get_channel_layer(http=get_asgi_application())
""",
}


class ServerCase(unittest.TestCase):
    def project(self, settings=""):
        project = Project(SITE, settings)
        self.addCleanup(project.close)
        return project

    def get(self, server, path="/", data=None):
        with urllib.request.urlopen(server.url(path), data, timeout=TIMEOUT) as response:
            return response.read()


class GunicornTests(ServerCase):
    """A site under gunicorn whose views run in a worker of another process."""

    def test_a_worker_answers_the_requests_of_forked_processes(self):
        settings = """
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "{channels}.layers.database.DatabaseChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
    }
}
INSTALLED_APPS += ["{channels}.layers.database"]
"""
        require("gunicorn")
        project = self.project(settings)
        migrating = project.manage("migrate", "-v0")
        self.assertEqual(migrating.wait(), 0, migrating.output)
        with project.manage("runworker") as worker, serve(
            project, "gunicorn", "mysite.wsgi:application", ["--workers", "2", "--preload"]
        ) as server:
            size, pid = self.get(server, "/", b"x" * LARGE).split()
            self.assertEqual((int(size), int(pid)), (LARGE, worker.pid))
            self.assertEqual(self.get(server, "/stream/"), b"x" * 65536 * 64)
            with self.assertRaises((http.client.IncompleteRead, OSError)):
                self.get(server, "/stream/?fail")
            server.stop()
            self.assertNotIn("in order", server.output)


class _Upload:
    """The body of a request that has none, of a client that waits."""

    def watch(self):
        pass

    async def wait_until_gone(self):
        await asyncio.sleep(1000)


class InGatewayTests(unittest.TestCase):
    def answer(self, application):
        """Return what the client gets, as events of ASGI."""
        events = []

        async def send(event):
            events.append(event)

        async def run():
            runner = WSGIRunner(application, threads=1)
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "query_string": b"",
                "headers": [(b"host", b"testserver")],
            }
            try:
                await asyncio.wait_for(runner(scope, _Upload(), b"", send), TIMEOUT)
            finally:
                runner.close()

        asyncio.run(run())
        return events

    def test_whatever_the_application_raises_is_answered(self):
        for error in (KeyError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration):

            def application(environ, start_response, error=error):
                raise error("of the application")

            with self.subTest(error), self.assertLogs("django.channels", "ERROR"):
                self.assertEqual(self.answer(application)[0]["status"], 500)

    def test_what_it_raises_after_its_head_breaks_the_response_off(self):
        for error in (KeyError, SystemExit, KeyboardInterrupt, GeneratorExit):

            def application(environ, start_response, error=error):
                start_response("200 OK", [("Content-Type", "text/plain")])
                yield b"part"
                raise error("of the application")

            with self.subTest(error), self.assertLogs("django.channels", "ERROR"):
                with self.assertRaises(RuntimeError):
                    self.answer(application)


class OwnApplicationTests(ServerCase):
    """`get_channel_layer(http=…)`: requests in the process of the server, WebSockets over the layer."""

    def check(self, module):
        require("websocket")
        import websocket

        for program in ("daphne", "uvicorn"):
            with self.subTest(program), serve(
                self.project(), program, "mysite.%s:channel_layer" % module
            ) as server:
                size, pid = self.get(server, "/", b"x" * LARGE).split()
                self.assertEqual((int(size), int(pid)), (LARGE, server.pid))
                self.assertEqual(self.get(server, "/stream/"), b"x" * 65536 * 64)
                with self.assertRaises((http.client.IncompleteRead, OSError)):
                    self.get(server, "/stream/?fail")
                socket = websocket.create_connection(server.websocket_url(), timeout=TIMEOUT)
                socket.send("hi")
                self.assertEqual(socket.recv(), "echo: hi")
                socket.close()

    def test_a_wsgi_application_answers_requests_in_the_servers_process(self):
        self.check("http")

    def test_an_asgi_application_answers_requests_in_the_servers_process(self):
        import django

        if django.VERSION < (3, 0):
            self.skipTest("Django has an ASGI application since 3.0.")
        self.check("http_asgi")

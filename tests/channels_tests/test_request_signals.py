"""Each request sends `request_started` and `request_finished` once, however it ends."""

import io
import threading
from unittest import mock

import django
from django import http
from django.channels import handler
from django.channels.exceptions import LayerUnavailable
from django.channels.handler import AsgiHandler
from django.channels.routing import route
from django.core import signals
from django.test import override_settings

from . import http_site
from .support.contexts import enter
from .support.waiting import TIMEOUT, wait_until
from .test_worker_http import ERRORS
from .test_worker_streams import SiteCase

HAS_ASYNC_STREAMS = django.VERSION >= (4, 2)


def parts(error, count):
    for _ in range(count):
        yield b"part"
    raise error()


async def async_parts(error, count):
    for _ in range(count):
        yield b"part"
    raise error()


class SignalTests(SiteCase):
    def setUp(self):
        super().setUp()
        self.started, self.finished = [], []

        def started(environ, **kwargs):
            self.started.append(environ["PATH_INFO"])

        def finished(**kwargs):
            self.finished.append(True)

        signals.request_started.connect(started)
        self.addCleanup(signals.request_started.disconnect, started)
        signals.request_finished.connect(finished)
        self.addCleanup(signals.request_finished.disconnect, finished)

    def ask_all(self, paths):
        """Have each path answered to its end. Check that each has sent both signals once."""
        for number, path in enumerate(paths, 1):
            with self.subTest(path=path):
                self.answers(self.ask(path))
                wait_until(lambda number=number: len(self.finished) >= number, "request_finished")
                self.assertEqual(self.started.count(path), 1)
        self.assertTrue(self.group.stop(TIMEOUT))  # nothing comes later
        self.assertEqual(sorted(self.started), sorted(paths))
        self.assertEqual(len(self.finished), len(paths))

    def view(self, makes):
        """Return a view that answers with what the function for its path returns, or raises."""
        return lambda request: makes[request.path]()

    def failing(self):
        """Return a dict: a path, and a function that returns a response which fails, or raises."""
        makes = {}

        def add(path, make, error, count):
            makes[path] = lambda: http.StreamingHttpResponse(make(error, count))

        for error in ERRORS:
            name = error.__name__

            def fail(error=error):
                raise error()

            makes["/view/" + name] = fail
            for count in (0, 2):
                add("/stream/%s/%d" % (name, count), parts, error, count)
                if HAS_ASYNC_STREAMS:
                    add("/async/%s/%d" % (name, count), async_parts, error, count)
        return makes

    def test_for_what_a_view_or_stream_raises(self):
        makes = self.failing()
        self.start(self.view(makes))
        self.ask_all(list(makes))

    def test_for_what_an_asynchronous_view_or_its_stream_raises(self):
        if not HAS_ASYNC_STREAMS:
            self.skipTest("Django 4.2 brings asynchronous streams")
        makes = self.failing()

        async def view(request):
            return makes[request.path]()

        self.start(view)
        self.ask_all(list(makes))

    def test_for_a_content_that_is_too_short(self):
        def short(content):
            response = (
                http.HttpResponse(content)
                if isinstance(content, bytes)
                else http.StreamingHttpResponse(content)
            )
            response["Content-Length"] = "100"
            return response

        makes = {"/whole": lambda: short(b"x"), "/stream": lambda: short(iter([b"x", b"y"]))}
        self.start(self.view(makes))
        self.ask_all(list(makes))

    def test_for_a_propagated_exception(self):
        def fail():
            raise KeyError("x")

        enter(self, override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True))
        self.start(self.view({"/": fail}))
        self.ask_all(["/"])

    def test_for_streams_that_are_refused_or_meet_an_unreachable_layer(self):
        enter(self, override_settings(CHANNEL_STREAM_THREADS=1))
        go = threading.Event()

        def waiting():
            yield b"part"
            go.wait(TIMEOUT)

        makes = {
            "/waits": lambda: http.StreamingHttpResponse(waiting()),
            "/refused": lambda: http.StreamingHttpResponse(iter([b"x"])),
        }
        self.start(self.view(makes), threads=2)
        channel = self.ask("/waits")
        self.next(channel)
        self.assertEqual(self.response(self.answers(self.ask("/refused"))).status, 503)
        go.set()
        self.answers(channel)
        wait_until(lambda: len(self.finished) >= 2, "request_finished")
        with mock.patch.object(handler, "_send", side_effect=LayerUnavailable("away")):
            self.answers(self.ask("/waits"))
        wait_until(lambda: len(self.finished) >= 3, "request_finished")
        self.assertTrue(self.group.stop(TIMEOUT))
        self.assertEqual((len(self.started), len(self.finished)), (3, 3))

    def test_for_a_body_that_does_not_come(self):
        self.layer.block_for = 0.01
        enter(self, mock.patch.object(handler, "BODY_TIMEOUT", 0.05))
        self.start(http_site.raw_body)
        channel = self.ask("/", method="POST", body=b"x", body_channel="http.request.body.x!1")
        self.assertEqual(self.response(self.answers(channel)).status, 408)
        wait_until(lambda: self.finished, "request_finished")
        self.assertTrue(self.group.stop(TIMEOUT))
        self.assertEqual((self.started, self.finished), (["/"], [True]))

    def test_for_a_consumer_that_raises_before_or_after_a_view(self):
        def before(message):
            raise KeyError("x")

        def after(message):
            list(AsgiHandler()(message))
            raise KeyError("x")

        self.layer.routing = [
            route("http.request", before, path="^/before$"),
            route("http.request", after, path="^/after$"),
        ]
        self.start(http_site.hello)
        self.ask_all(["/before", "/after"])

    def test_the_error_page_of_a_broken_stream_is_closed(self):
        page = io.BytesIO(b"sorry")

        def view(request):
            return http.StreamingHttpResponse(parts(KeyError, 0))

        self.start(view)
        urlconf = type(
            "URLconf",
            (),
            {
                "urlpatterns": [http_site.re_path(r"", view)],
                "handler500": staticmethod(lambda request: http.FileResponse(page, status=500)),
            },
        )
        enter(self, override_settings(ROOT_URLCONF=urlconf))
        self.assertEqual(self.response(self.answers(self.ask("/"))).body, b"sorry")
        wait_until(lambda: page.closed and self.finished, "both to be closed")
        self.assertTrue(self.group.stop(TIMEOUT))
        self.assertEqual(len(self.finished), 1)

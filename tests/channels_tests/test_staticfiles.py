"""Static files in development: under STATIC_URL a file, or a 404; elsewhere the views."""

import logging
import os
import shutil
import tempfile
from unittest import mock

import django
from django.channels import advice
from django.channels.handler import AsgiRequest, ViewConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit
from django.channels.message import Message
from django.channels.staticfiles import StaticFilesConsumer, StaticFilesHandler
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.handlers import StaticFilesHandler as WSGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.test import SimpleTestCase, modify_settings, override_settings

from .http_messages import Received, Sent
from .test_silence import Lines


class StaticFilesTests(SimpleTestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.write("site.css", b"body {}\n")
        self.write("a b.txt", b"blank")
        self.write("caf\u00e9.txt", b"accent")
        self.write("large.bin", b"0123456789abcdef" * 65536)
        self.write(os.path.join("sub", "x.js"), b"x()")
        context = override_settings(
            ROOT_URLCONF="channels_tests.http_site",
            MIDDLEWARE=[],
            MIDDLEWARE_CLASSES=[],
            ALLOWED_HOSTS=["testserver"],
            STATIC_URL="/static/",
            STATICFILES_DIRS=[self.directory],
            STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
        )
        context.__enter__()
        self.addCleanup(finders.get_finder.cache_clear)
        self.addCleanup(context.__exit__, None, None, None)
        finders.get_finder.cache_clear()

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(content)

    def get(self, *args, **kwargs):
        return Received.from_replies(StaticFilesHandler()(Sent(*args, **kwargs).message()))

    def test_files(self):
        for path, content, content_type in (
            ("site.css", b"body {}\n", "text/css"),
            ("a%20b.txt", b"blank", "text/plain"),
            ("caf%C3%A9.txt", b"accent", "text/plain"),
            ("sub/x.js", b"x()", None),
            ("large.bin", b"0123456789abcdef" * 65536, "application/octet-stream"),
        ):
            got = self.get("GET", "/static/" + path)
            self.assertEqual((got.status, got.body), (200, content))
            self.assertEqual(got.header("content-length"), str(len(content)))
            if content_type is not None:
                self.assertTrue(got.header("content-type").startswith(content_type))

    def test_same_as_under_wsgi(self):
        for method in ("GET", "HEAD"):
            for path in ("site.css", "large.bin", "missing.css", ""):
                with self.subTest(path, method=method):
                    sent = Sent(method, "/static/" + path)
                    started = []
                    result = WSGIStaticFilesHandler(WSGIHandler())(
                        sent.environ(), lambda *args, started=started: started.append(args)
                    )
                    body = b"".join(result)
                    result.close()
                    got = self.get(method, "/static/" + path)
                    self.assertEqual(got.status, int(started[0][0].split(" ")[0]))
                    headers = sorted((name.lower(), value) for name, value in started[0][1])
                    self.assertEqual(got.headers, headers)
                    self.assertEqual(got.body, b"" if method == "HEAD" else body)

    def test_unmodified(self):
        modified = self.get("GET", "/static/site.css").header("last-modified")
        headers = [("If-Modified-Since", modified)]
        got = self.get("GET", "/static/site.css", headers=headers)
        self.assertEqual((got.status, got.body), (304, b""))

    def test_missing(self):
        self.assertEqual(self.get("GET", "/static/missing.css").status, 404)
        with self.settings(DEBUG=True):
            got = self.get("GET", "/static/missing.css")
        self.assertEqual(got.status, 404)
        self.assertIn(b"missing.css", got.body)

    def test_outside_of_the_directory(self):
        secret = os.path.join(os.path.dirname(self.directory), "channels-secret.txt")
        self.addCleanup(os.remove, secret)
        with open(secret, "w") as file:
            file.write("secret")
        outside = (
            "../channels-secret.txt",
            "%2e%2e/channels-secret.txt",
            "/" + secret,
            "//other/" + secret,
        )
        for path in outside:
            got = self.get("GET", "/static/" + path)
            self.assertIn(got.status, (400, 404))

    def test_other_requests_go_to_the_views(self):
        self.assertEqual(self.get("GET", "/hello/").body, b"hello world")
        self.assertEqual(self.get("GET", "/statics/").status, 404)

    def test_static_url_of_another_host(self):
        with self.settings(STATIC_URL="https://cdn.example.com/hello/"):
            self.assertEqual(self.get("GET", "/hello/").body, b"hello world")

    def test_script_name(self):
        got = self.get("GET", "/static/site.css", script_name="/app")
        self.assertEqual(got.status, 200)
        if django.VERSION >= (3, 1):
            with self.settings(STATIC_URL="static/"):
                self.assertEqual(self.get("GET", "/static/site.css").status, 200)
                got = self.get("GET", "/static/site.css", script_name="/app")
                self.assertEqual(got.status, 200)

    def test_no_static_url(self):
        with self.settings(STATIC_URL=None), self.assertRaises(ImproperlyConfigured):
            self.get("GET", "/hello/")

    def test_consumer(self):
        layer = MemoryChannelLayer()
        consumer = StaticFilesConsumer()
        for path, body in (("/static/site.css", b"body {}\n"), ("/hello/", b"hello world")):
            consumer(Message(Sent("GET", path).message(), "http.request", layer))
            _, reply = layer.receive_many(["gateway.test!1"])
            self.assertEqual(reply["content"], body)

    def advice(self, consumer, path, **kwargs):
        """Return what is logged about a request that `consumer` answers."""
        logging.disable(logging.NOTSET)
        layer = MemoryChannelLayer()
        with mock.patch.object(advice, "_static", RateLimit(60.0)):
            with Lines("django.channels") as lines:
                for _ in range(2):
                    consumer(Message(Sent("GET", path, **kwargs).message(), "http.request", layer))
        return [each for each in lines if "static file" in each]

    @modify_settings(INSTALLED_APPS={"append": "django.contrib.staticfiles"})
    def test_a_static_file_that_the_server_does_not_serve_is_named_once_with_the_remedy(self):
        for kwargs in ({}, {"script_name": "/app"}):
            (line,) = self.advice(ViewConsumer(), "/static/sub/x.js", **kwargs)
            for word in ("/static/sub/x.js got a 404", "collectstatic", "STATIC_ROOT", "nginx"):
                self.assertIn(word, line)
        for path in ("/static/nothing.js", "/nothing/", "/static/../x", "/static/", "/hello/"):
            self.assertEqual(self.advice(ViewConsumer(), path), [], path)
        self.assertEqual(self.advice(StaticFilesConsumer(), "/static/nothing.js"), [])
        with self.settings(STATIC_URL="https://cdn.example.com/static/"):
            self.assertEqual(self.advice(ViewConsumer(), "/static/site.css"), [])

    def test_a_host_that_is_not_allowed_is_named_once_with_the_remedy(self):
        common = ["django.middleware.common.CommonMiddleware"]
        logging.disable(logging.NOTSET)
        for host, number in (("wrong.example", 1), ("testserver", 0)):
            layer = MemoryChannelLayer()
            sent = Sent("GET", "/hello/", headers=[("Host", host)])
            message = Message(sent.message(), "http.request", layer)
            with mock.patch.object(advice, "_host", RateLimit(60.0)):
                with Lines("django.channels") as lines:
                    with self.settings(MIDDLEWARE=common, MIDDLEWARE_CLASSES=common):
                        ViewConsumer()(message)
                        ViewConsumer()(message)
                    with self.settings(DEBUG=True):  # Django says so itself
                        advice.advise_host(AsgiRequest(message))
            self.assertEqual(len(lines), number, lines)
            if lines:
                for word in ("/hello/ got a 400", "add 'wrong.example' to ALLOWED_HOSTS"):
                    self.assertIn(word, lines[0])

    def test_large_file_is_streamed(self):
        layer = MemoryChannelLayer()
        StaticFilesConsumer()(
            Message(Sent("GET", "/static/large.bin").message(), "http.request", layer)
        )
        replies = [layer.receive_many(["gateway.test!1"])[1] for _ in range(4)]
        self.assertIn("window_channel", replies[0])
        self.assertEqual(
            b"".join(reply["content"] for reply in replies), b"0123456789abcdef" * 65536
        )
        self.assertFalse(replies[-1]["more_content"])

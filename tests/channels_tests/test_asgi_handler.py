"""The core HTTP handler: what requests and replies look like where WSGI has nothing to compare them with."""

import codecs
import io
import logging
import os
import random
import tempfile
import threading
from unittest import mock, skipIf, skipUnless

import django
from django import http
from django.core import signals
from django.http.request import UnreadablePostError
from django.test import SimpleTestCase, override_settings

from . import http_site
from .core_handler import asgi, asgi_request
from .http_messages import Received, Sent
from .support.contexts import enter
from .support.waiting import TIMEOUT

try:
    from django.urls import get_script_prefix
except ImportError:  # Django 1.8 and 1.9
    from django.core.urlresolvers import get_script_prefix

CHUNK = 256 * 1024
FORM = ("Content-Type", "application/x-www-form-urlencoded")
MULTIPART = ("Content-Type", "multipart/form-data; boundary=xx")


class Views:
    """A URLconf of one view, for any path."""

    def __init__(self, view):
        self.urlpatterns = [http_site.re_path(r"", view)]


def with_view(view, **settings):
    """Settings under which `view` answers every request."""
    return override_settings(ROOT_URLCONF=Views(view), **settings)


class HandlerCase(SimpleTestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        enter(
            self,
            override_settings(
                MIDDLEWARE=[],
                MIDDLEWARE_CLASSES=[],
                ALLOWED_HOSTS=["testserver"],
                ROOT_URLCONF="channels_tests.http_site",
            ),
        )

    def replies(self, view=None, sent=None, body=None, **changes):
        if view is not None:
            enter(self, with_view(view))
        return asgi.ASGIHandler()((sent or Sent()).message(**changes), body)

    def received(self, *args, **kwargs):
        return Received.from_replies(self.replies(*args, **kwargs))


class RequestTests(HandlerCase):
    def request(self, *args, **changes):
        return asgi.ASGIRequest(Sent(*args).message(**changes))

    def test_least_message(self):
        request = asgi.ASGIRequest({"path": "/x/"})
        self.assertEqual((request.method, request.path, request.scheme), ("GET", "/x/", "http"))
        self.assertEqual((dict(request.GET), request.COOKIES, request.body), ({}, {}, b""))
        self.assertEqual(request.META["REMOTE_ADDR"], "")
        self.assertEqual(request.META["SERVER_NAME"], "unknown")

    def test_addresses(self):
        meta = self.request(client=["::1", 5000], server=["::", 8000]).META
        self.assertEqual(meta["REMOTE_ADDR"], "::1")
        self.assertEqual(meta["REMOTE_HOST"], "::1")
        self.assertEqual(meta["REMOTE_PORT"], "5000")
        self.assertEqual((meta["SERVER_NAME"], meta["SERVER_PORT"]), ("::", "8000"))

    def test_unix_socket(self):
        meta = self.request(client=None, server=["/run/site.sock", None]).META
        self.assertEqual((meta["SERVER_NAME"], meta["SERVER_PORT"]), ("unknown", "0"))
        self.assertEqual(meta["REMOTE_ADDR"], "")
        self.assertNotIn("REMOTE_PORT", meta)

    def test_protocol(self):
        self.assertEqual(self.request(http_version="2").META["SERVER_PROTOCOL"], "HTTP/2")

    def test_websocket_schemes(self):
        self.assertEqual(self.request(scheme="wss").scheme, "https")
        self.assertEqual(self.request(scheme="ws").scheme, "http")

    def test_headers(self):
        headers = [
            [b"host", b"testserver"],
            [b"x-two", b"1"],
            [b"x-two", b"2"],
            [b"cookie", b"a=1"],
            [b"cookie", b"b=2"],
            [b"x_two", b"spoofed"],
            [b"X-Upper", b"kept"],
            [b"content_length", b"1"],
        ]
        request = self.request(headers=headers)
        self.assertEqual(request.META["HTTP_X_TWO"], "1,2")
        self.assertEqual(request.META["HTTP_X_UPPER"], "kept")
        self.assertEqual(request.COOKIES, {"a": "1", "b": "2"})
        self.assertNotIn("CONTENT_LENGTH", request.META)
        if django.VERSION >= (2, 2):
            self.assertEqual(request.headers["x-two"], "1,2")

    def test_many_made_up_headers_are_not_remembered(self):
        for number in range(3000):
            self.request(headers=[[b"x-made-up-%d" % number, b"1"]])
        self.assertLessEqual(len(asgi_request._meta_keys), 256)
        meta = self.request(headers=[[b"x-after-all", b"1"]]).META
        self.assertEqual(meta["HTTP_X_AFTER_ALL"], "1")

    def test_a_long_header_name_is_not_remembered(self):
        name = b"x-" + b"long" * 1000
        meta = self.request(headers=[[name, b"1"]]).META
        self.assertEqual(meta["HTTP_X_" + "LONG" * 1000], "1")
        self.assertNotIn(name, asgi_request._meta_keys)

    def test_python_is_not_asked_for_charsets_that_a_client_made_up(self):
        # It keeps every name, found or not, for good.
        def read(charset):
            content_type = b"text/plain; charset=" + charset
            return self.request(headers=[[b"content-type", content_type]]).encoding

        self.assertEqual(read(b"koi8-r"), "koi8-r")
        self.assertEqual(read(b"UTF-8"), "UTF-8")
        with mock.patch.object(asgi_request.codecs, "lookup", wraps=codecs.lookup) as lookup:
            for name in (b"made-up-%d", b"x" * 1000 + b"%d", b"aliases%d", b"utf-8-%d"):
                for number in range(20):
                    self.assertIsNone(read(name % number))
            self.assertEqual(lookup.call_args_list, [])
            for number in range(1, 20):
                self.assertIn(read(b"utf" + b"-" * number + b"8"), ("utf-8", None))
            self.assertEqual({call[0][0] for call in lookup.call_args_list}, {"utf_8"})

    def test_prefix_in_the_path_or_taken_off(self):
        for path, expected in (
            ("/app/x/", "/app/x/"),
            ("/app", "/app/"),
            ("/app/", "/app/"),
            ("/x/", "/app/x/"),
            ("/apple/", "/app/apple/"),
            ("/", "/app/"),
        ):
            for root_path in ("/app", "/app/"):
                request = self.request(path=path, root_path=root_path)
                self.assertEqual(request.path, expected)
                self.assertEqual(request.path_info, expected[len("/app") :])
                self.assertEqual(request.META["SCRIPT_NAME"], "/app")

    def test_path_that_is_no_text(self):
        for changes in ({"path": "/\ud800/"}, {"root_path": "/\udce9", "path": "/"}):
            got = self.received(**changes)
            self.assertEqual(got.status, 400)

    def test_post_and_get_can_be_replaced(self):
        request = self.request("GET", "/?a=1")
        request.GET = request.POST = http.QueryDict("b=2")
        self.assertEqual((request.GET["b"], request.POST["b"]), ("2", "2"))

    def test_encoding_set_late_reads_the_form_again(self):
        request = self.request("POST", "/?q=%C1", [FORM], b"p=%C1")
        self.assertEqual((request.GET["q"], request.POST["p"]), ("\ufffd", "\ufffd"))
        if django.VERSION < (5, 0):  # later ones take UTF-8 forms only
            request.encoding = "koi8-r"
            self.assertEqual((request.GET["q"], request.POST["p"]), ("\u0430", "\u0430"))


class BodyTests(HandlerCase):
    def request(self, first=b"", chunks=None, headers=(), length=None):
        if length is not None:
            headers = list(headers) + [("Content-Length", str(length))]
        return asgi.ASGIRequest(Sent("POST", "/", headers).message(body=first), chunks)

    def test_chunks_are_read_as_the_view_reads(self):
        taken = []

        def chunks():
            for chunk in (b"cd", b"ef\n", b"", b"gh"):
                taken.append(chunk)
                yield chunk

        request = self.request(b"ab", chunks())
        self.assertEqual(taken, [])
        self.assertEqual(request.read(1), b"a")
        self.assertEqual(taken, [])
        self.assertEqual(request.read(2), b"bc")
        self.assertEqual(taken, [b"cd"])
        self.assertEqual(request.readline(), b"def\n")
        self.assertEqual(taken, [b"cd", b"ef\n"])
        self.assertEqual(request.read(), b"gh")
        self.assertEqual((request.read(), request.readline(), request.read(5)), (b"", b"", b""))

    def test_lines(self):
        request = self.request(b"a\nb", [b"\n", b"\n", b"no end"])
        self.assertEqual(list(request), [b"a\n", b"b\n", b"\n", b"no end"])
        stream = asgi.BodyStream(b"abc\ndef", [b"g\n"])
        self.assertEqual(stream.readline(2), b"ab")
        self.assertEqual(stream.readline(2), b"c\n")
        self.assertEqual(stream.readline(100), b"defg\n")
        self.assertEqual(stream.readline(100), b"")
        self.assertEqual(asgi.BodyStream(b"a\nb\n").readlines(), [b"a\n", b"b\n"])

    def test_any_reads_give_what_a_file_gives(self):
        for seed in range(300):
            chance = random.Random(seed)
            chunks = [
                bytes(chance.choice(b"ab\n") for _ in range(chance.randrange(9)))
                for _ in range(chance.randrange(5))
            ]
            first, whole = b"start\n", b"".join([b"start\n"] + chunks)
            length = chance.choice([None, len(whole), chance.randrange(len(whole) + 1)])
            stream, file = asgi.BodyStream(first, chunks, length), io.BytesIO(whole[:length])
            for _ in range(12):
                limit = chance.randrange(9)
                left = len(file.getvalue()) - file.tell()
                call = chance.choice(["read", "readline", "exceeds"])
                if call == "exceeds":
                    self.assertEqual(stream.exceeds(limit), left > limit, seed)
                else:
                    got, wanted = (getattr(each, call)(limit) for each in (stream, file))
                    self.assertEqual(got, wanted, seed)
            self.assertEqual(stream.read(), file.read(), seed)

    def test_whole_body(self):
        request = self.request(b"a", [b"b" * 100, b"c"])
        self.assertEqual(request.body, b"a" + b"b" * 100 + b"c")
        self.assertEqual(request.read(2), b"ab")

    def test_content_length_ends_the_body(self):
        endless = iter(lambda: b"x" * 10, None)
        request = self.request(b"", endless, length=25)
        self.assertEqual(request.body, b"x" * 25)
        stream = asgi.BodyStream(b"one\ntwo\n", None, 5)
        self.assertEqual(
            [stream.readline(), stream.readline(), stream.read()], [b"one\n", b"t", b""]
        )

    def test_chunked_form(self):
        request = self.request(b"a=1&b", [b"=2&c=", b"3"], [FORM])
        self.assertEqual(request.POST.dict(), {"a": "1", "b": "2", "c": "3"})

    def form(self, content):
        return (
            b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
            b'--xx\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n'
            b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n--xx--\r\n"
        )

    def test_chunked_upload(self):
        """Without a Content-Length, which Django's parser takes for an empty body."""
        content = bytes(range(256)) * 2000
        form = self.form(content)
        chunks = [form[start : start + 1000] for start in range(0, len(form), 1000)]
        request = self.request(b"", chunks, [MULTIPART])
        self.assertEqual(request.FILES["f"].read(), content)
        self.assertEqual(request.POST["a"], "1")
        # The length was not known in advance.
        self.assertTrue(hasattr(request.FILES["f"], "temporary_file_path"))
        request.close()

    def test_chunked_upload_in_one_message(self):
        request = self.request(self.form(b"small"), None, [MULTIPART])
        self.assertEqual(request.FILES["f"].read(), b"small")
        self.assertFalse(hasattr(request.FILES["f"], "temporary_file_path"))

    def test_chunked_upload_whose_body_was_read_before(self):
        form = self.form(b"small")
        request = self.request(form[:20], [form[20:]], [MULTIPART])
        self.assertEqual(request.body, form)
        self.assertEqual(request.FILES["f"].read(), b"small")

    def test_negative_content_length(self):
        self.assertEqual(self.request(b"abc", length=-5).read(), b"")

    def test_limit_without_a_content_length(self):
        taken = []

        def chunks():
            while True:
                taken.append(1)
                yield b"x" * 10

        with self.settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
            got = self.received(http_site.raw_body, Sent("POST"), chunks())
            self.assertEqual(got.status, 400)
            self.assertLess(len(taken), 20)
            got = self.received(http_site.raw_body, Sent("POST"), [b"x" * 50] * 2)
            self.assertEqual((got.status, got.body), (200, b"x" * 100))

    def broken(self):
        yield b"part"
        raise KeyError("the cable")

    def test_broken_body_cannot_be_read(self):
        for read in (lambda r: r.body, lambda r: r.POST, lambda r: r.read(), lambda r: list(r)):
            request = self.request(b"a=", self.broken(), [FORM])
            with self.assertRaises(UnreadablePostError):
                read(request)

    def test_broken_body_is_never_taken_for_a_whole_one(self):
        request = self.request(b"a", self.broken())
        for _ in range(2):
            with self.assertRaises(UnreadablePostError):
                request.read()
        self.assertEqual(request.read(5), b"apart")

    def test_broken_body_is_the_callers_to_answer(self):
        with self.assertRaises(KeyError):
            list(self.replies(http_site.raw_body, Sent("POST"), self.broken()))

    def test_broken_body_that_the_view_made_the_best_of(self):
        def view(request):
            try:
                request.body  # noqa: B018
            except UnreadablePostError:
                return http.HttpResponse("never mind")

        self.assertEqual(self.received(view, Sent("POST"), self.broken()).body, b"never mind")


class ReplyTests(HandlerCase):
    def test_first_reply(self):
        def view(request):
            response = http.HttpResponse("x", content_type="text/plain")
            response["X-Name"] = "value"
            response.set_cookie("a", "b")
            return response

        (reply,) = self.replies(view)
        self.assertEqual(sorted(reply), ["content", "headers", "more_content", "status"])
        self.assertEqual(
            (reply["status"], reply["content"], reply["more_content"]), (200, b"x", False)
        )
        self.assertIn([b"content-type", b"text/plain"], reply["headers"])
        self.assertIn([b"x-name", b"value"], reply["headers"])
        cookies = [value for name, value in reply["headers"] if name == b"set-cookie"]
        self.assertEqual([each.split(b";")[0] for each in cookies], [b"a=b"])
        self.assertIs(type(reply["status"]), int)

    def test_content_is_split(self):
        for size in (CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK):
            replies = list(self.replies(lambda request, size=size: http.HttpResponse(b"x" * size)))
            sizes = [len(reply["content"]) for reply in replies]
            self.assertEqual(sum(sizes), size)
            self.assertLessEqual(max(sizes), CHUNK)
            self.assertEqual(len(sizes), -(-size // CHUNK))
            self.assertEqual(
                [r["more_content"] for r in replies], [True] * (len(sizes) - 1) + [False]
            )

    def test_stream_is_followed_lazily(self):
        made = []
        # Django 2.0 to 3.0 stream the repr() of a memoryview, under WSGI too.
        last = b"c" if (2, 0) <= django.VERSION < (3, 1) else memoryview(b"c")

        def parts():
            for part in (b"a", "b", b"", b"x" * (CHUNK + 5), last):
                made.append(part)
                yield part

        replies = self.replies(lambda request: http.StreamingHttpResponse(parts()))
        self.assertEqual(made, [])
        self.assertEqual(next(replies)["content"], b"a")
        self.assertEqual(len(made), 1)
        self.assertEqual(next(replies)["content"], b"b")
        self.assertEqual(len(made), 2)
        rest = list(replies)
        self.assertEqual([len(reply["content"]) for reply in rest], [CHUNK, 5, 1, 0])
        self.assertEqual([reply["more_content"] for reply in rest], [True, True, True, False])

    def test_stream_is_run_to_its_end(self):
        ended = []

        def parts():
            yield b"abc"
            ended.append(True)

        def view(request):
            response = http.StreamingHttpResponse(parts())
            response["Content-Length"] = "3"
            return response

        self.assertEqual(self.received(view).body, b"abc")
        self.assertEqual(ended, [True])

    def test_file_in_large_chunks(self):
        content = b"0123456789abcdef" * (CHUNK // 8)

        def view(request):
            response = http.FileResponse(io.BytesIO(content))
            response["Content-Length"] = str(len(content))
            return response

        replies = list(self.replies(view))
        self.assertEqual([len(reply["content"]) for reply in replies], [CHUNK, CHUNK])
        self.assertEqual([reply["more_content"] for reply in replies], [True, False])
        self.assertEqual(b"".join(reply["content"] for reply in replies), content)

    def test_small_file_in_one_reply(self):
        with tempfile.NamedTemporaryFile() as source:
            source.write(b"text")
            source.flush()

            def view(request):
                response = http.FileResponse(open(source.name, "rb"))
                response["Content-Length"] = str(os.path.getsize(source.name))
                return response

            (reply,) = self.replies(view)
        self.assertEqual((reply["content"], reply["more_content"]), (b"text", False))

    def test_file_without_a_length_and_empty_file(self):
        for content in (b"text", b""):
            for length in (None, str(len(content))):

                def view(request, content=content, length=length):
                    response = http.FileResponse(io.BytesIO(content))
                    del response["Content-Length"]
                    if length is not None:
                        response["Content-Length"] = length
                    return response

                self.assertEqual(self.received(view).body, content)

    def test_file_is_closed(self):
        files = [io.BytesIO(b"x" * 10), io.BytesIO(b"y" * CHUNK * 3)]
        for file in files:
            replies = self.replies(lambda request, file=file: http.FileResponse(file))
            next(replies)
            replies.close()
            self.assertTrue(file.closed)

    def test_head_and_no_content(self):
        def view(request):
            return http.StreamingHttpResponse(never(), status=self.status)

        def never():
            self.fail("The body must not be read.")
            yield

        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            self.status = status
            got = self.received(view, Sent(method))
            self.assertEqual((got.status, got.body), (status, b""))

    def test_no_length_for_no_content(self):
        def view(request):
            response = http.HttpResponse("x" * 5, status=self.status)
            response["Content-Length"] = "5"
            return response

        for method, status, length in (("HEAD", 200, "5"), ("GET", 204, None), ("GET", 304, None)):
            self.status = status
            self.assertEqual(self.received(view, Sent(method)).header("content-length"), length)

    def test_cookie_beyond_latin_1(self):
        def view(request):
            response = http.HttpResponse()
            response.set_cookie("a", "caf\xe9 \u65e5")
            return response

        cookie = self.received(view).header("set-cookie").split(";")[0]
        self.assertTrue(cookie.startswith("a="))

    def test_encode_response_alone(self):
        (reply,) = asgi.ASGIHandler.encode_response(http.HttpResponse("hello", status=201))
        self.assertEqual((reply["status"], reply["content"]), (201, b"hello"))

    def test_failing_stream(self):
        def parts():
            yield b"a"
            raise KeyError("the view")

        replies = self.replies(lambda request: http.StreamingHttpResponse(parts()))
        self.assertEqual(next(replies)["content"], b"a")
        with self.assertRaises(KeyError):
            next(replies)

    def test_failing_close_does_not_lose_the_response(self):
        class Parts:
            def __iter__(self):
                return iter([b"a"])

            def close(self):
                raise KeyError("closing")

        got = self.received(lambda request: http.StreamingHttpResponse(Parts()))
        self.assertEqual(got.body, b"a")


class SignalTests(HandlerCase):
    def setUp(self):
        super().setUp()
        self.events = []
        for name in ("request_started", "request_finished"):
            self.listen(getattr(signals, name), name)

    def listen(self, signal, name):
        def receiver(sender, **kwargs):
            self.events.append((name, sender))
            if name == "request_started":
                self.environ = kwargs["environ"]

        signal.connect(receiver)
        self.addCleanup(signal.disconnect, receiver)

    def names(self):
        self.assertEqual({sender for _, sender in self.events}, {asgi.ASGIHandler})
        names = [name for name, _ in self.events]
        del self.events[:]
        return names

    def view(self, request):
        self.events.append(("view", asgi.ASGIHandler))
        return http.HttpResponse("x")

    def test_order(self):
        list(self.replies(self.view))
        self.assertEqual(self.names(), ["request_started", "view", "request_finished"])
        self.assertEqual(self.environ["PATH_INFO"], "/")

    def test_once_for_every_outcome(self):
        for sent, changes in (
            (Sent("GET", "/error/"), {}),
            (Sent("GET", "/nowhere/"), {}),
            (Sent("HEAD", "/hello/"), {}),
            (Sent("GET", "/stream/"), {}),
            (Sent("GET", "/file/"), {}),
            (Sent("GET", "/status/204/"), {}),
            (Sent("GET", "/"), {"path": "/\ud800"}),
        ):
            list(self.replies(sent=sent, **changes))
            self.assertEqual(self.names(), ["request_started", "request_finished"])

    @override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
    def test_once_for_a_propagated_exception(self):
        with self.assertRaises(RuntimeError):
            list(self.replies(sent=Sent("GET", "/error/")))
        self.assertEqual(self.names(), ["request_started", "request_finished"])

    def test_nothing_runs_before_the_generator_does(self):
        replies = self.replies(self.view)
        replies.close()
        self.assertEqual(self.events, [])

    def test_finished_when_the_stream_is(self):
        def parts():
            try:
                for _ in range(3):
                    yield b"x"
            finally:
                self.events.append(("closed", asgi.ASGIHandler))

        replies = self.replies(lambda request: http.StreamingHttpResponse(parts()))
        next(replies)
        self.assertEqual(self.names(), ["request_started"])
        list(replies)
        self.assertEqual(self.names(), ["closed", "request_finished"])

    def test_closing_the_generator_closes_the_response(self):
        def parts():
            try:
                while True:
                    yield b"x"
            finally:
                self.events.append(("closed", asgi.ASGIHandler))

        replies = self.replies(lambda request: http.StreamingHttpResponse(parts()))
        next(replies)
        next(replies)
        replies.close()
        self.assertEqual(self.names(), ["request_started", "closed", "request_finished"])

    def test_script_prefix_does_not_stay(self):
        prefixes = []

        def view(request):
            prefixes.append(get_script_prefix())
            return http.HttpResponse()

        list(self.replies(view, Sent(script_name="/app")))
        list(self.replies(view))
        self.assertEqual(prefixes, ["/app/", "/"])

    def test_files_of_the_request_are_closed(self):
        closed = []

        def view(request):
            file = request.FILES["f"]
            close = file.close
            file.close = lambda: (closed.append(file.name), close())
            return http.HttpResponse("x")

        form = BodyTests.form(self, b"content")
        list(self.replies(view, Sent("POST", "/", [MULTIPART], form)))
        self.assertEqual(closed, ["f.txt"])


class UncaughtTests(HandlerCase):
    """What a consumer raised, as a page of the site."""

    def test_server_error(self):
        got = Received.from_replies(
            asgi.ASGIHandler.handle_uncaught(Sent().message(), RuntimeError("x"))
        )
        self.assertEqual(got.status, 500)
        self.assertIn(b"Server Error (500)", got.body)

    def test_not_found(self):
        got = Received.from_replies(
            asgi.ASGIHandler.handle_uncaught(Sent().message(), http.Http404())
        )
        self.assertEqual(got.status, 404)

    @override_settings(DEBUG=True)
    def test_debug_page(self):
        for error, status in ((RuntimeError("the reason"), 500), (http.Http404("the reason"), 404)):
            got = Received.from_replies(asgi.ASGIHandler.handle_uncaught(Sent().message(), error))
            self.assertEqual(got.status, status)
            self.assertIn(b"the reason", got.body)

    @override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
    def test_always_an_answer(self):
        got = Received.from_replies(
            asgi.ASGIHandler.handle_uncaught(Sent().message(), KeyError("x"))
        )
        self.assertEqual(got.status, 500)
        got = Received.from_replies(
            asgi.ASGIHandler.handle_uncaught(Sent().message(path="/\ud800"), KeyError("x"))
        )
        self.assertEqual(got.status, 500)

    def test_head(self):
        got = Received.from_replies(
            asgi.ASGIHandler.handle_uncaught(Sent("HEAD").message(), KeyError("x"))
        )
        self.assertEqual((got.status, got.body), (500, b""))


if django.VERSION >= (3, 1):
    from . import async_site


@skipIf(django.VERSION < (3, 1), "Django has asynchronous views from 3.1 on")
class AsyncTests(HandlerCase):
    def test_view(self):
        self.assertEqual(self.received(async_site.view).body, b"asynchronously")

    def test_failing_view(self):
        self.assertEqual(self.received(async_site.failing_view).status, 500)

    def test_middleware(self):
        middleware = ["channels_tests.async_site.middleware", "channels_tests.http_site.marker"]
        with self.settings(MIDDLEWARE=middleware):
            for view in (async_site.view, http_site.hello):
                got = self.received(view)
                self.assertEqual(got.status, 200)
                self.assertEqual(got.header("x-async"), "yes")
                self.assertEqual(got.header("x-sync"), "yes")


@skipUnless(django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on")
class AsyncStreamTests(HandlerCase):
    def stream(self, parts):
        return self.replies(lambda request: http.StreamingHttpResponse(parts))

    def test_chunks_as_they_come(self):
        log = []
        replies = self.stream(async_site.parts(log))
        self.assertEqual(next(replies)["content"], b"0")
        self.assertEqual(log, ["made 0"])
        self.assertEqual(next(replies)["content"], b"1")
        self.assertEqual(log, ["made 0", "made 1"])
        replies.close()
        self.assertEqual(log[-1], "closed")

    def test_to_the_end(self):
        log = []
        got = Received.from_replies(self.stream(async_site.parts(log, 3)))
        self.assertEqual(got.body, b"012")
        self.assertEqual(log[-1], "closed")

    def test_empty(self):
        self.assertEqual(Received.from_replies(self.stream(async_site.parts([], 0))).body, b"")

    def test_failing(self):
        replies = self.stream(async_site.failing_parts())
        self.assertEqual(next(replies)["content"], b"a")
        with self.assertRaises(KeyError):
            next(replies)

    def test_context_and_task_stay_the_same(self):
        got = Received.from_replies(self.stream(async_site.parts_of_one_task()))
        self.assertEqual(got.body, b"same same ")

    def test_synchronous_code_within(self):
        got = Received.from_replies(self.stream(async_site.parts_from_a_thread()))
        self.assertEqual(got.body, b"abc")

    def test_stray_tasks_end_with_it(self):
        log = []
        list(self.stream(async_site.parts_beside_a_task(log)))
        self.assertEqual(log, ["started", "cancelled"])

    def test_iterator_that_is_no_generator(self):
        got = Received.from_replies(self.stream(async_site.Countdown(3)))
        self.assertEqual(got.body, b"210")

    def test_no_thread_stays(self):
        before = threading.active_count()
        list(self.stream(async_site.parts_from_a_thread()))
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and threading.active_count() > before:
                thread.join(TIMEOUT)
        self.assertLessEqual(threading.active_count(), before)

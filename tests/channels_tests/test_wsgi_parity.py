"""The same requests through Django's WSGI handler and through this one: the same responses come out."""

import json
import logging
import re
from urllib.parse import unquote_to_bytes

import django
from django.channels.gateway.scopes import request_event
from django.test import SimpleTestCase, override_settings

from . import http_site
from .core_handler import asgi
from .http_messages import Received, Sent

SITE_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

#: Keys that only one server sets, or that say how it runs.
SERVER_KEYS = ("wsgi.", "GATEWAY_INTERFACE", "REMOTE_PORT", "REMOTE_HOST")

#: Paths that show how each kind of character arrives at the view.
PATHS = [
    "/seen/",
    "/seen/caf%C3%A9/",
    "/seen/%E6%97%A5%E6%9C%AC/",
    "/seen/a%2Fb/",
    "/seen/a%20b%2Bc/",
    "/seen/a+b/",
    "/seen/100%25/",
    "/seen//double//slash/",
    "/seen/..%2F..%2Fetc/",
    "/seen/%3Fq=%23/",
    "/seen/caf%E9/",
    "/seen/%FF%FE%C3%A9/",
    "/seen/%00/",
    "/seen/;a=b/",
]

FORM = ("Content-Type", "application/x-www-form-urlencoded")
BOUNDARY = "b0undary"
MULTIPART = ("Content-Type", "multipart/form-data; boundary=" + BOUNDARY)


def multipart(*parts):
    """A body of (headers, content) parts, text and bytes."""
    lines = []
    for head, content in parts:
        lines += [b"--" + BOUNDARY.encode(), head.encode("utf-8"), b"", content]
    return b"\r\n".join(lines + [b"--" + BOUNDARY.encode() + b"--", b""])


def field(name, content):
    return 'Content-Disposition: form-data; name="%s"' % name, content


def file_part(name, filename, content, content_type="text/plain"):
    disposition = 'Content-Disposition: form-data; name="%s"; filename="%s"' % (name, filename)
    return disposition + "\r\nContent-Type: " + content_type, content


def without_date(headers):
    """Return `headers` without the times in them, because a second may pass between two responses."""
    found = []
    for name, value in headers:
        if name.lower() == "set-cookie" and "Max-Age=0" not in value:
            value = re.sub(r"expires=[^;]+", "expires=", value)
        found.append((name, "" if name.lower() == "date" else value))
    return found


class ParityCase(SimpleTestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        del http_site.seen_requests[:]

    def both(self, *args, **kwargs):
        """Send one request to each handler; returns both responses, WSGI's first."""
        sent = Sent(*args, **kwargs)
        expected = Received.from_wsgi(sent.environ())
        got = Received.from_replies(asgi.ASGIHandler()(sent.message()))
        return expected, got

    def assertSame(self, *args, **kwargs):
        """Both handlers answer the same, and (for the caller to check that it means something) what."""
        expected, got = self.both(*args, **kwargs)
        self.assertEqual(got.status, expected.status)
        self.assertEqual(without_date(got.headers), without_date(expected.headers))
        self.assertEqual(got.body, expected.body)
        return got


@override_settings(
    ROOT_URLCONF="channels_tests.http_site",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    MIDDLEWARE_CLASSES=["django.middleware.common.CommonMiddleware"],
    ALLOWED_HOSTS=["testserver", "[::1]"],
)
class RequestParityTests(ParityCase):
    """What a view sees of a request."""

    def seen(self, *args, **kwargs):
        got = self.assertSame(*args, **kwargs)
        self.assertEqual(got.status, 200, got.body)
        return json.loads(got.body.decode("utf-8"))

    def test_meta(self):
        self.seen(
            "GET",
            "/seen/a%20b/?x=1&x=2",
            headers=[
                ("User-Agent", "Test/1.0"),
                ("Accept-Language", "de, en;q=0.5"),
                ("X-Forwarded-For", "203.0.113.1"),
                ("X-Forwarded-For", "203.0.113.2"),
                ("X-Latin", "caf\xe9"),
                ("X_Spoofed", "1"),
                ("Cookie", "a=1; b=2"),
            ],
        )
        by_wsgi, by_message = http_site.seen_requests
        ours = {k: v for k, v in by_message.META.items() if not k.startswith(SERVER_KEYS)}
        theirs = {k: v for k, v in by_wsgi.META.items() if not k.startswith(SERVER_KEYS)}
        theirs = {k: theirs[k] for k in theirs if k in ours or k.startswith("HTTP_")}
        self.assertEqual(ours, theirs)
        self.assertEqual(ours["HTTP_X_FORWARDED_FOR"], "203.0.113.1,203.0.113.2")
        self.assertNotIn("HTTP_X_SPOOFED", ours)
        self.assertEqual(by_message.META["wsgi.url_scheme"], "http")

    def test_meta_of_a_form(self):
        self.seen("POST", "/seen/", headers=[FORM], body=b"a=1")
        for request in http_site.seen_requests:
            self.assertEqual(request.META["CONTENT_TYPE"], FORM[1])
            self.assertEqual(request.META["CONTENT_LENGTH"], "3")
            self.assertNotIn("HTTP_CONTENT_TYPE", request.META)
            self.assertNotIn("HTTP_CONTENT_LENGTH", request.META)

    def test_attributes_of_a_plain_request(self):
        """Whatever a later Django puts on every request is on this one, too."""
        self.seen("GET", "/seen/")
        for request in http_site.seen_requests:
            for name in vars(django.http.HttpRequest()):
                if name != "_post_parse_error":
                    getattr(request, name)

    def test_paths(self):
        for path in PATHS:
            with self.subTest(path):
                self.seen("GET", path)

    def test_paths_by_way_of_the_gateway(self):
        """Whatever a server puts in the place of bytes that are not UTF-8."""
        for path in PATHS:
            octets = unquote_to_bytes(path)
            for errors in ("replace", "surrogateescape"):
                with self.subTest(path, errors=errors):
                    sent = Sent("GET", path)
                    scope = {
                        "type": "http",
                        "method": "GET",
                        "path": octets.decode("utf-8", errors),
                        "raw_path": path.encode("ascii"),
                        "headers": sent.message()["headers"],
                    }
                    expected = Received.from_wsgi(sent.environ())
                    got = Received.from_replies(asgi.ASGIHandler()(request_event(scope)))
                    self.assertEqual(got.body, expected.body)

    def test_queries(self):
        for query in (
            "",
            "a",
            "a=1&a=2&b=",
            "q=caf%C3%A9",
            "q=caf\xe9",
            "q=%E9",
            "q=a+b%20c",
            "a;b=1",
            "=x",
            "q=%zz",
            "%E6%97%A5=%E6%9C%AC",
        ):
            with self.subTest(query):
                self.seen("GET", "/seen/?" + query)

    def test_encoding_set_by_the_view(self):
        got = self.assertSame("GET", "/charset/?q=%C1%C2%D7")
        self.assertEqual(got.body.decode("utf-8"), "\u0430\u0431\u0432")

    def test_cookies(self):
        for value in (
            "a=1",
            "a=1; b=2; a=3",
            'a="1; 2"',
            "a=caf\xc3\xa9",
            "a=\xff",
            "junk",
            ";;",
            "",
        ):
            with self.subTest(value):
                self.seen("GET", "/seen/", headers=[("Cookie", value)])

    def test_script_name(self):
        told = self.seen("GET", "/seen/x/", script_name="/app")
        self.assertEqual(told["path"], "/app/seen/x/")
        self.assertEqual(told["path_info"], "/seen/x/")
        self.assertEqual(told["reverse"], "/app/hello/")
        self.assertEqual(self.seen("GET", "/seen/")["reverse"], "/hello/")

    def test_script_name_alone(self):
        expected, got = self.both("GET", "", script_name="/app")
        self.assertEqual(got.status, expected.status)

    @override_settings(FORCE_SCRIPT_NAME="/forced")
    def test_forced_script_name(self):
        self.assertEqual(self.seen("GET", "/seen/")["path"], "/forced/seen/")

    def test_scheme(self):
        told = self.seen("GET", "/seen/", scheme="https", headers=[("Host", "testserver")])
        self.assertTrue(told["secure"])
        self.assertTrue(told["uri"].startswith("https://"))

    @override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    def test_scheme_behind_a_proxy(self):
        for value, secure in (("https", True), ("http", False)):
            told = self.seen("GET", "/seen/", headers=[("X-Forwarded-Proto", value)])
            self.assertEqual(told["secure"], secure)

    def test_hosts(self):
        for host in ("testserver:8000", "[::1]:80", "TestServer"):
            with self.subTest(host):
                self.seen("GET", "/seen/", headers=[("Host", host)])

    @override_settings(USE_X_FORWARDED_HOST=True, USE_X_FORWARDED_PORT=True)
    def test_forwarded_host(self):
        self.seen("GET", "/seen/", headers=[("X-Forwarded-Host", "testserver")])

    def test_bad_hosts(self):
        for host in ("evil.example", "a b", "testserver:x", ""):
            with self.subTest(host):
                expected, got = self.both("GET", "/seen/", headers=[("Host", host)])
                self.assertEqual(got.status, expected.status)
                self.assertEqual(got.status, 400)

    def test_methods(self):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
            with self.subTest(method):
                self.assertEqual(self.seen(method, "/seen/")["method"], method)

    def test_forms(self):
        for body in (
            b"a=1&a=2&b=caf%C3%A9",
            b"",
            b"a",
            "q=\u65e5".encode(),
            b"q=%E9&r=\xe9",
            b"a=" + b"x" * 100000,
        ):
            with self.subTest(body[:20]):
                told = self.seen("POST", "/seen/", headers=[FORM], body=body)
                self.assertEqual(told["content_type"] or FORM[1], FORM[1])

    def test_form_content_types(self):
        for value in (
            FORM[1] + "; charset=utf-8",
            FORM[1] + "; charset=nonsense",
            FORM[1] + '; charset="UTF-8"; x=y',
            "application/json",
            "text/plain",
            "nonsense",
        ):
            with self.subTest(value):
                self.seen("POST", "/seen/", headers=[("Content-Type", value)], body=b"a=%C3%A9")

    def test_form_in_another_charset(self):
        content_type = ("Content-Type", FORM[1] + "; charset=koi8-r")
        self.assertSame("POST", "/seen/", headers=[content_type], body=b"a=%C1")

    def test_form_is_not_read_for_other_methods(self):
        told = self.seen("PUT", "/seen/", headers=[FORM], body=b"a=1")
        self.assertEqual(told["post"], [])

    def test_multipart(self):
        body = multipart(
            field("a", b"1"),
            field("a", "zwei \u00fc".encode()),
            file_part("f", "one.txt", b"first\r\nlines\n"),
            file_part("f", "z\u00fcei.bin", bytes(range(256)), "application/x-thing"),
            file_part("empty", "", b""),
        )
        told = self.seen("POST", "/seen/", headers=[MULTIPART], body=body)
        self.assertEqual(told["files"]["f"][0][:3], ["one.txt", "text/plain", 13])
        self.assertIn(["a", ["1", "zwei \u00fc"]], told["post"])

    def test_multipart_to_a_temporary_file(self):
        body = multipart(file_part("f", "big.bin", b"x" * 3000000), field("a", b"1"))
        got = self.assertSame("POST", "/upload/", headers=[MULTIPART], body=body)
        self.assertIn(b"('big.bin', 3000000, 3000000)", got.body)

    def test_broken_multipart(self):
        for headers, body in (
            ([MULTIPART], b"no boundary at all"),
            ([MULTIPART], multipart(file_part("f", "a.txt", b"cut short"))[:-40]),
            ([("Content-Type", "multipart/form-data")], b"x"),
            ([("Content-Type", "multipart/form-data; boundary=\xe9")], b"x"),
            ([MULTIPART, ("Content-Length", "0")], b""),
        ):
            with self.subTest(headers=headers):
                self.assertSame("POST", "/seen/", headers=headers, body=body)

    def test_body(self):
        for body in (b"", b"x", bytes(range(256)) * 1000):
            with self.subTest(len(body)):
                got = self.assertSame("POST", "/body/", body=body)
                self.assertEqual(got.body, body)

    def test_body_and_form(self):
        self.assertSame("POST", "/body-then-post/", headers=[FORM], body=b"a=1")
        body = multipart(field("a", b"1"))
        got = self.assertSame("POST", "/body-then-post/", headers=[MULTIPART], body=body)
        self.assertIn(b"[('a', ['1'])]", got.body)

    def test_body_after_the_form_was_read(self):
        self.assertSame("POST", "/post-then-body/", headers=[FORM], body=b"a=1")
        body = multipart(field("a", b"1"))
        got = self.assertSame("POST", "/post-then-body/", headers=[MULTIPART], body=body)
        self.assertEqual(got.status, 500)

    def test_body_as_a_file(self):
        got = self.assertSame("POST", "/lines/", body=b"one\ntwo\nthree\n\nfour")
        self.assertEqual(
            got.body, repr([b"one\n", b"two", b"\n", b"three\n", b"\n", b"four"]).encode()
        )

    def test_content_length_and_body_differ(self):
        self.assertSame("POST", "/body/", headers=[("Content-Length", "3")], body=b"abcdef")

    def test_bad_content_lengths(self):
        for value in ("abc", "", "1e3", "\xb2"):
            for path in ("/lines/", "/body/"):
                with self.subTest(path + value):
                    self.assertSame("POST", path, headers=[("Content-Length", value)], body=b"abc")

    @override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100, DATA_UPLOAD_MAX_NUMBER_FIELDS=10)
    def test_upload_limits(self):
        limited = django.VERSION >= (1, 10)
        for path, headers, body in (
            ("/seen/", [FORM], b"a=" + b"x" * 200),
            ("/body/", [], b"x" * 101),
            ("/seen/", [FORM], b"&".join([b"a=1"] * 11)),
            ("/seen/", [MULTIPART], multipart(field("a", b"x" * 101))),
            ("/seen/?" + "&".join(["a=1"] * 11), [], b""),
        ):
            with self.subTest(path=path, body=body[:20]):
                expected, got = self.both("POST", path, headers=headers, body=body)
                self.assertEqual(got.status, expected.status)
                self.assertEqual(got.status in (400, 413), limited)
        got = self.assertSame("POST", "/body/", body=b"x" * 100)
        self.assertEqual(got.status, 200)
        body = multipart(file_part("f", "big.bin", b"x" * 1000))
        got = self.assertSame("POST", "/upload/", headers=[MULTIPART], body=body)
        self.assertEqual(got.status, 200)


class ResponseParityTests(ParityCase):
    """What a client sees of a response."""

    def test_responses(self):
        for path, status in (
            ("/hello/", 200),
            ("/hello/caf%C3%A9/", 200),
            ("/hello", 301),
            ("/cookies/", 200),
            ("/headers/", 200),
            ("/redirect/", 302),
            ("/error/", 500),
            ("/missing/", 404),
            ("/nowhere/", 404),
            ("/forbidden/", 403),
            ("/suspicious/", 400),
            ("/no-response/", 500),
            ("/stream/", 200),
            ("/stream-big/", 200),
            ("/stream-nothing/", 200),
            ("/big/", 200),
            ("/file/", 200),
            ("/file-unsized/", 200),
            ("/file-small/", 200),
            ("/conditional/", 200),
            ("/lazy/", 200),
        ):
            for method in ("GET", "HEAD"):
                with self.subTest(path, method=method):
                    got = self.assertSame(method, path)
                    self.assertEqual(got.status, status)
                    if method == "HEAD":
                        self.assertEqual(got.body, b"")

    def test_statuses(self):
        for code in (200, 201, 204, 299, 304, 404, 418, 500, 503):
            with self.subTest(code):
                got = self.assertSame("GET", "/status/%d/" % code)
                self.assertEqual(got.status, code)
                self.assertEqual(bool(got.body), code not in (204, 304))

    def test_append_slash_keeps_the_query_and_script_name(self):
        got = self.assertSame("GET", "/hello?a=1", script_name="/app")
        self.assertIn("/app/hello/?a=1", got.header("location"))

    def test_conditional_requests(self):
        got = self.assertSame("GET", "/conditional/", headers=[("If-None-Match", '"v1"')])
        self.assertEqual((got.status, got.body), (304, b""))
        got = self.assertSame("GET", "/conditional/", headers=[("If-None-Match", '"v0"')])
        self.assertEqual(got.status, 200)
        got = self.assertSame("PUT", "/conditional/", headers=[("If-Match", '"v0"')])
        self.assertEqual(got.status, 412 if not self.guards_forms else 403)

    #: Whether the class' middleware refuses a request without a CSRF token.
    guards_forms = False

    def test_many_cookies(self):
        got = self.assertSame("GET", "/cookies/")
        self.assertEqual(got.header("set-cookie").count("\n"), 2)

    @override_settings(DEBUG=True)
    def test_debug_pages(self):
        for path in ("/error/", "/missing/", "/nowhere/", "/suspicious/"):
            with self.subTest(path):
                expected, got = self.both("GET", path)
                self.assertEqual(got.status, expected.status)
                self.assertEqual(got.header("content-type"), expected.header("content-type"))
                # Both show the same page, of a request that differs in its server's keys.
                self.assertEqual(got.body[:80], expected.body[:80])

    @override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
    def test_propagated_exceptions(self):
        for path, error in (("/error/", RuntimeError), ("/no-response/", ValueError)):
            sent = Sent("GET", path)
            with self.assertRaises(error):
                Received.from_wsgi(sent.environ())
            with self.assertRaises(error):
                list(asgi.ASGIHandler()(sent.message()))


ResponseParityTests = override_settings(
    ROOT_URLCONF="channels_tests.http_site",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    MIDDLEWARE_CLASSES=["django.middleware.common.CommonMiddleware"],
    ALLOWED_HOSTS=["testserver"],
)(ResponseParityTests)


@override_settings(
    ROOT_URLCONF="channels_tests.http_site",
    MIDDLEWARE=SITE_MIDDLEWARE,
    MIDDLEWARE_CLASSES=SITE_MIDDLEWARE,
    ALLOWED_HOSTS=["testserver"],
    SECURE_CONTENT_TYPE_NOSNIFF=True,
)
class SiteMiddlewareParityTests(ResponseParityTests):
    """The same under the middleware that most sites have."""

    guards_forms = True

    def test_gzip(self):
        for path in ("/big/", "/stream-big/", "/file/"):
            with self.subTest(path):
                expected, got = self.both("GET", path, headers=[("Accept-Encoding", "gzip")])
                self.assertEqual(got.status, 200)
                self.assertEqual(got.header("content-encoding"), "gzip")
                # Compressed bytes hold the time, or random padding.
                self.assertEqual(expected.header("content-encoding"), "gzip")

    def test_csrf(self):
        got = self.assertSame("POST", "/guarded/", headers=[FORM], body=b"a=1")
        self.assertEqual(got.status, 403)
        token = "a" * 32
        got = self.assertSame(
            "POST",
            "/guarded/",
            headers=[FORM, ("Cookie", "csrftoken=" + token)],
            body=b"csrfmiddlewaretoken=" + token.encode(),
        )
        self.assertEqual(got.status, 200)

    @override_settings(SECURE_SSL_REDIRECT=True)
    def test_redirect_to_https(self):
        got = self.assertSame("GET", "/hello/?a=1")
        self.assertEqual(got.header("location"), "https://testserver/hello/?a=1")

"""Odd paths: each event of a socket and each request has the same form of them, on every server."""

import json
import os
import socket
import unittest

from django.channels.gateway.scopes import correct_path
from django.test import SimpleTestCase

from .support.sites import SiteBehindServer
from .support.waiting import TIMEOUT, wait_until

ROUTING = r"""
import json

from {channels} import route


def log(message, kind):
    with open("events", "a", encoding="utf-8") as out:
        query = message.get("query_string", b"").decode()
        out.write(json.dumps([kind, message["path"], query]) + "\n")


def request(message):
    log(message, "request")
    message.reply_channel.send({"status": 200, "headers": [], "content": b""})


def connect(message):
    log(message, "connect")
    message.reply_channel.send({"accept": True})


def receive(message):
    log(message, "receive")
    message.reply_channel.send({"text": message["text"]})


def disconnect(message):
    log(message, "disconnect")


channel_routing = [
    route("http.request", request),
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
"""

#: What a client asks for, and the path that every event has.
PATHS = [
    (b"/", "/"),
    (b"/a%2Fb%2fc%00", "/a/b/c\0"),
    (b"/a%c3%A9%F0%9F%98%80", "/a\u00e9\U0001f600"),
    (b"/a%ffb%FF", "/a%FFb%FF"),
    (b"/a%c0%af", "/a%C0%AF"),
    (b"/a%ed%a0%80%f4%90%80%80", "/a%ED%A0%80%F4%90%80%80"),
    (b"/a%EF%BF%BD%ff%25ff%zz%2", "/a\ufffd%FF%ff%zz%2"),
    (b"/a+b;c=d/e;f=g", "/a+b;c=d/e;f=g"),
    (b"/a%3Fb%23c?d?e=&%ff;+&f", "/a?b#c"),
    (b"//host//b/../%2e%2e/.", "//host//b/../../."),
    (b"///", "///"),
    (b"http://example.com/x%ff;y?z", "/x%FF;y"),
    (b"/x/http://example.com/", "/x/http://example.com/"),
    (b"/" + b"%ff" * 1500, "/" + "%FF" * 1500),
]

HANDSHAKE = b"""Connection: Upgrade\r
Upgrade: websocket\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
\r
"""


class EveryServer(SiteBehindServer):
    """Tests of one server, for a subclass of TestCase that names it."""

    files = {"mysite/routing.py": ROUTING}
    settings = 'ALLOWED_HOSTS = ["*"]'
    #: What the server puts in front of each path.
    prefix = ""

    def ask(self, path, headers):
        """Return a socket that has asked for `path`."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT)
        self.addCleanup(connection.close)
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: example.com\r\n" + headers)
        return connection

    def events(self):
        try:
            with open(os.path.join(self.project.directory, "events"), encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []

    def test_a_request_and_each_event_of_a_socket_have_the_same_path(self):
        for target, path in PATHS:
            with self.subTest(target=target[:40]):
                query = target.partition(b"?")[2].decode()
                self.check(target, self.prefix + path, query)

    def check(self, target, path, query):
        before = len(self.events())
        request = self.ask(target, b"Connection: close\r\n\r\n").makefile("rb")
        self.assertIn(b" 200 ", request.readline())
        request.read()
        with self.ask(target, HANDSHAKE) as client, client.makefile("rb") as reader:
            self.assertIn(b" 101 ", reader.readline())
            client.sendall(b"\x81\x81\0\0\0\0x")
            while reader.readline().strip():
                pass
            self.assertEqual(reader.read(3), b"\x81\x01x")
        wait_until(lambda: len(self.events()) >= before + 4, "disconnect")
        expected = [["request", path, query], ["connect", path, query]]
        expected += [["receive", path, ""], ["disconnect", path, ""]]
        self.assertEqual(self.events()[before:], expected)


class AbsoluteFormTests(SimpleTestCase):
    def test_its_scheme_and_host_are_left_out(self):
        for path, root, corrected in (
            ("http://example.com/x%", "", "/x%"),
            ("WSS://user@[::1]:8000", "", "/"),
            ("/basehttp://example.com/x", "/base", "/base/x"),
            ("http://example.com/x", "/base", "/x"),
            ("", "", "/"),
            ("/x/http://example.com/", "", "/x/http://example.com/"),
            ("/base/http://example.com/", "/base", "/base/http://example.com/"),
            ("*", "", "*"),
        ):
            scope = {"path": path, "root_path": root, "raw_path": path.encode()}
            correct_path(scope)
            self.assertEqual(scope["path"], corrected)
            self.assertEqual(scope["raw_path"], corrected.encode())


class RootPathTests(SimpleTestCase):
    def test_a_slash_at_its_end_is_in_no_path(self):
        for root, path, expected in (
            ("/app/", "/app//x/", ("/app", "/app/x/")),  # as uvicorn joins them
            ("/app/", "/app/x/", ("/app", "/app/x/")),
            ("/app/", "/x/", ("/app", "/x/")),
            ("/app/", "/app", ("/app", "/app")),
            ("/app/", "/app//", ("/app", "/app/")),
            ("/app/", "/app///x", ("/app", "/app//x")),
            ("/", "//x/", ("", "/x/")),
            ("/", "/x/", ("", "/x/")),
            ("app", "app/x/", ("/app", "/app/x/")),
            ("app/", "/x/", ("/app", "/x/")),
            ("/app", "/app//x/", ("/app", "/app//x/")),
            ("/a//b", "/a//b/x/", ("/a//b", "/a//b/x/")),
            ("/\xe9/", "/\xe9//x/", ("/\xe9", "/\xe9/x/")),
        ):
            with self.subTest(root=root, path=path):
                scope = {"root_path": root, "path": path, "raw_path": path.encode()}
                correct_path(scope)
                self.assertEqual((scope["root_path"], scope["path"]), expected)
                self.assertEqual(scope["raw_path"].decode(), expected[1])

    def test_one_with_any_surrogates_is_corrected(self):
        for surrogate, octets in (("\udcff", b"\xff"), ("\uddb8", b"\xed\xb6\xb8")):
            root, raw_root = "/" + surrogate, b"/" + octets
            for given, path, raw in (
                (root + "/", root + "//x", raw_root + b"//x"),
                (surrogate, surrogate + "/x", octets + b"/x"),
                (root, root + "http://example.com/x", raw_root + b"http://example.com/x"),
            ):
                with self.subTest(given=given, path=path):
                    scope = {"root_path": given, "path": path, "raw_path": raw}
                    correct_path(scope)
                    self.assertEqual((scope["root_path"], scope["path"]), (root, root + "/x"))
                    self.assertEqual(scope["raw_path"], raw_root + b"/x")


class FragmentTests(SimpleTestCase):
    def test_a_fragment_is_cut_off_and_an_escaped_sign_is_not(self):
        for raw, path, corrected, query in (
            (b"/a#b", "/a#b", "/a", b""),
            (b"/a%23b", "/a#b", "/a#b", b"q"),
            (b"/a%23%ffb#c%23#d", "/a#\ufffdb#c##d", "/a#\ufffdb", b""),
            (b"/%23?d#e", "/#", "/#", b"q"),
            (b"http://example.com#b", "http://example.com#b", "/", b""),
            (None, "/a#b", "/a#b", b"q"),
        ):
            scope = {"path": path, "raw_path": raw, "query_string": b"q"}
            correct_path(scope)
            self.assertEqual(scope["path"], corrected)
            self.assertEqual(scope["query_string"], query)
        for raw, query in ((b"q#f", b"q"), (b"%23#?", b"%23"), (b"#", b"")):
            scope = {"path": "/a", "raw_path": b"/a", "query_string": raw}
            correct_path(scope)
            self.assertEqual(scope, {"path": "/a", "raw_path": b"/a", "query_string": query})


class WithFragment:
    def test_the_path_of_each_event_has_no_fragment(self):
        for target in (b"/a%23b#c", b"/a%23b#c?d"):
            self.check(target, self.prefix + "/a#b", "")
        self.check(b"/a?b=%23#c?d", self.prefix + "/a", "b=%23")


class DaphneTests(EveryServer, unittest.TestCase):
    program = "daphne"


class UvicornTests(WithFragment, EveryServer, unittest.TestCase):
    program = "uvicorn"


class UvicornBelowAPathTests(EveryServer, unittest.TestCase):
    program, arguments = "uvicorn", ["--root-path", "/base"]

    @property
    def prefix(self):
        import uvicorn

        # Since 0.26, the path begins with the root path. Python 3.7 has an older uvicorn.
        version = tuple(int(number) for number in uvicorn.__version__.split(".")[:2])
        return "/base" if version >= (0, 26) else ""


class UvicornBelowAPathWithASlashTests(UvicornBelowAPathTests):
    arguments = ["--root-path", "/base/"]


class UvicornInPythonTests(WithFragment, EveryServer, unittest.TestCase):
    program, arguments = "uvicorn", ["--http", "h11", "--ws", "wsproto"]


class HypercornTests(WithFragment, EveryServer, unittest.TestCase):
    program = "hypercorn"


class GranianTests(WithFragment, EveryServer, unittest.TestCase):
    program = "granian"

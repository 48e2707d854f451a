"""What no server should let pass in the head of a request, and the gateway refuses if one does."""

import unittest

from django.channels.gateway.scopes import connect_event
from django.channels.handler import ASGIRequest
from django.test import SimpleTestCase

from .test_gateway_limits import Recorder, first_events, scope_of

BAD_NAMES = (
    b"",
    b"x y",
    b" x",
    b"x:",
    b"x\r\ny",
    b"x\0",
    b"x\xdf",  # in upper case, as text: XSS
    b"x-\xb5",
    b"\xff",
    b"x/y",
    b"(x)",
)
BAD_VALUES = (b"x\r\nset-cookie: a=b", b"x\n", b"\r", b"a\0b")
BAD_METHODS = ("GET /", "G\u00c9T", "GET\r\n", "(GET)", "G\0")


class HostTests(unittest.TestCase):
    def host_of(self, value):
        headers = [(b"host", value), (b"x-other", value)]
        event = connect_event(scope_of("websocket", headers=headers))
        self.assertEqual(event["headers"][1][1], value)
        return event["headers"][0][1]

    def test_a_host_that_the_server_has_decoded_is_that_of_the_client(self):
        sent = b"xn--bcher-kva.example"
        self.assertEqual(self.host_of("b\u00fccher.example".encode()), sent)
        self.assertEqual(self.host_of("b\u00fccher.example:8000".encode()), sent + b":8000")

    def test_what_is_no_domain_stays_as_it_is(self):
        texts = ("\u00fc..example", "example.com:\u00fc", "\u00fc" * 100, "\u00fc" * 30000)
        for value in (b"\xff", b"example.com:80", b"[::1]:80", *(each.encode() for each in texts)):
            self.assertEqual(self.host_of(value), value)


class MalformedHeadTests(unittest.TestCase):
    def refuse(self, *scopes):
        layer = Recorder()
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            found = first_events(layer, *scopes)
        self.assertEqual(layer.events, [])
        self.assertEqual(layer.statistics()["bad_requests"], len(scopes))
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(len(logs.output[0].splitlines()), 1)
        return found

    def test_a_request_with_a_malformed_header_is_refused(self):
        headers = [(name, b"x") for name in BAD_NAMES] + [(b"x", value) for value in BAD_VALUES]
        found = self.refuse(
            *(scope_of("http", headers=[(b"host", b"example.com"), each]) for each in headers)
        )
        self.assertEqual([event["status"] for event in found], [400] * len(headers))

    def test_a_handshake_with_a_malformed_header_is_refused(self):
        headers = [(name, b"x") for name in BAD_NAMES] + [(b"x", value) for value in BAD_VALUES]
        found = self.refuse(*(scope_of("websocket", headers=[each]) for each in headers))
        self.assertEqual({event["type"] for event in found}, {"websocket.close"})

    def test_a_method_that_is_not_a_token_is_refused(self):
        found = self.refuse(*(scope_of("http", method=each) for each in BAD_METHODS))
        self.assertEqual([event["status"] for event in found], [400] * len(BAD_METHODS))

    def test_a_request_whose_body_may_have_two_ends_is_refused(self):
        length, chunked = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")
        doubtful = [
            [length, chunked],
            [chunked, chunked],
            [length, length],
            [(b"Content-Length", b"5"), (b"TRANSFER-ENCODING", b"chunked")],
            [chunked, (b"transfer-encoding", b"identity")],
        ]
        doubtful += [[(b"transfer-encoding", value)] for value in (b"gzip, chunked", b"x", b"")]
        lengths = (b"", b"+5", b"-1", b"0x5", b"1_0", b"5, 5", b"5 5", b"\xb2", b"1" * 5000)
        doubtful += [[(b"content-length", value)] for value in lengths]
        found = self.refuse(*(scope_of("http", headers=headers) for headers in doubtful))
        self.assertEqual([event["status"] for event in found], [400] * len(doubtful))
        for event in found:
            self.assertIn((b"connection", b"close"), event["headers"])

    def test_a_request_whose_body_has_one_end_passes(self):
        for headers in (
            [(b"content-length", b"0")],
            [(b"content-length", b" 5 ")],
            [(b"transfer-encoding", b"Chunked")],
        ):
            found = first_events(Recorder(), scope_of("http", headers=headers))
            self.assertEqual(found[0]["status"], 200)

    def test_other_heads_pass(self):
        layer = Recorder()
        headers = [(b"x-" + bytes([n]), b"x") for n in b"!#$%&'*+-.^_`|~0aZ"]
        headers += [(b"x", bytes([n])) for n in range(256) if n not in b"\r\n\0"]
        scopes = [scope_of("http", headers=headers), scope_of("websocket", headers=headers)]
        scopes.append(scope_of("http", method="X-Own!"))
        self.assertEqual(
            [event.get("status") for event in first_events(layer, *scopes)], [200, None, 200]
        )

    def test_consumers_see_names_in_lower_case(self):
        seen = []

        class Layer(Recorder):
            def _put(self, channel, message, *args, **kwargs):
                seen.append(message.get("headers"))
                return super()._put(channel, message, *args, **kwargs)

        first_events(Layer(), scope_of("websocket", headers=[(b"Origin", b"https://A.example")]))
        self.assertIn([[b"origin", b"https://A.example"]], seen)


class MetaTests(SimpleTestCase):
    """No two names share a key of request.META, but for the case of ASCII letters."""

    def meta(self, *names):
        return ASGIRequest({"path": "/", "headers": [[name, b"evil"] for name in names]}).META

    def test_a_name_that_is_not_ascii_has_no_key(self):
        plain = set(self.meta())
        for name in (b"x-pa\xdf", b"x-\xb5", b"\xff", b"x-\xe9", b"Content-Length\xa0"):
            self.assertEqual(set(self.meta(name)), plain)

    def test_a_name_with_an_underscore_has_no_key(self):
        plain = set(self.meta())
        for name in (b"x_forwarded_proto", b"X-Forwarded_Proto", b"content_length", b"_"):
            self.assertEqual(set(self.meta(name)), plain)

    def test_names_are_the_same_in_any_case(self):
        for name in (b"x-own", b"X-OWN", b"x-OWN"):
            self.assertEqual(self.meta(name)["HTTP_X_OWN"], "evil")

"""channels.security.websockets: from which pages a WebSocket may be opened."""

import functools
import warnings
from unittest import mock

import django
from django.channels import consume
from django.channels.asgi import channel_layers
from django.channels.exceptions import DenyConnection
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.log import RateLimit
from django.channels.message import Message
from django.channels.routing import InvalidRoute, route, route_class
from django.channels.security.origins import explain
from django.channels.security.websockets import (
    BaseOriginValidator,
    allowed_hosts_only,
    allowed_origins,
    any_origin,
    check_origin,
    origin_allowed,
)
from django.channels.sessions import channel_session
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.test import SimpleTestCase, override_settings


def handshake(*origins, host=b"example.com", scheme="wss", headers=()):
    """Return the handshake of a page of these origins with https://example.com, or with another site."""
    headers = [[b"host", host], *headers] + [[b"origin", origin] for origin in origins]
    content = {"reply_channel": "reply?1", "path": "/", "headers": headers, "scheme": scheme}
    return Message(content, "websocket.connect", channel_layers["default"])


def consumer(message):
    return "ran"


MALFORMED = [
    (b"null",),
    (b"",),
    (b"example.com",),
    (b"https://",),
    (b"https://example.com:port",),
    (b"https://example.com:99999",),
    (b"https://example.com/path",),
    (b"https://example.com?x=1",),
    (b"https://user@example.com",),
    (b"https://[::1",),
    (b"https://ex\xc3\xa4mple.com",),
    (b"https://exam\tple.com",),
    (b" https://example.com",),
    (b"https://example.com\n",),
    (b"https://example.com:",),
    (b"https://example.com:0",),
    (b"https://evil.example\\.example.com",),
    (b"https://*.example.com",),
    (b"https://example.com", b"https://example.com"),
]


@override_settings(
    ALLOWED_HOSTS=["example.com", ".example.net", "[::1]"], DEBUG=False, CSRF_TRUSTED_ORIGINS=[]
)
class DefaultCheckTests(SimpleTestCase):
    def allowed(self, *origins, **options):
        return origin_allowed(handshake(*origins, **options), consumer)

    def check(self, expected, host, scheme, origin):
        with self.subTest(host=host, scheme=scheme, origin=origin):
            self.assertEqual(self.allowed(origin, host=host, scheme=scheme), expected)

    def test_pages_of_the_site_itself(self):
        for host, scheme, origin in (
            (b"example.com", "wss", b"https://example.com"),
            (b"example.com", "https", b"https://example.com"),
            (b"example.com", "ws", b"http://example.com"),
            (b"example.com", None, b"http://example.com"),
            (b"example.com:8443", "wss", b"https://example.com:8443"),
            (b"example.com:443", "wss", b"https://example.com"),
            (b"EXAMPLE.com", "wss", b"https://example.com"),
            (b"example.com", "wss", b"https://EXAMPLE.com/"),
            (b"example.com", "wss", b"https://example.com."),
            (b"deep.sub.example.net", "ws", b"http://deep.sub.example.net"),
            (b"[::1]:8000", "ws", b"http://[::1]:8000"),
        ):
            self.check(True, host, scheme, origin)

    def test_pages_of_other_sites(self):
        for origin in (
            b"https://evil.example",
            b"https://sub.example.com",
            b"https://example.com.evil.example",
            b"https://badexample.com",
            b"https://example.net",  # in ALLOWED_HOSTS, and another site
            b"http://localhost",
            b"app://example.com",
        ):
            with self.subTest(origin=origin):
                self.assertFalse(self.allowed(origin))

    def test_scheme_and_port_count(self):
        for host, scheme, origin in (
            (b"example.com", "wss", b"http://example.com"),
            (b"example.com", "ws", b"https://example.com"),
            (b"example.com", "wss", b"https://example.com:8443"),
            (b"example.com:8443", "wss", b"https://example.com"),
            (b"example.com", "ws", b"http://example.com:8000"),
            (b"example.com", "ws", b"http://example.com:443"),
            # The same port, so that the scheme alone differs.
            (b"example.com:8443", "wss", b"http://example.com:8443"),
            (b"example.com:8000", "ws", b"https://example.com:8000"),
            (b"example.com", "ws", b"https://example.com:80"),
            (b"example.com:80", "wss", b"http://example.com"),
        ):
            self.check(False, host, scheme, origin)

    def test_no_origin_is_no_browser(self):
        self.assertTrue(self.allowed())
        self.assertTrue(origin_allowed(Message({}, "websocket.connect", None), consumer))

    def test_malformed(self):
        for origins in MALFORMED:
            with self.subTest(origins=origins):
                self.assertFalse(self.allowed(*origins))

    def test_a_host_that_allowed_hosts_refuses_is_no_site(self):
        for host in (
            b"evil.example",
            b"example.com@evil.example",
            b"example.com, evil.example",
            b"",
        ):
            with self.subTest(host=host):
                self.assertFalse(self.allowed(b"https://" + host, host=host))
                self.assertFalse(self.allowed(b"https://example.com", host=host))

    def test_two_hosts_are_no_site(self):
        second = [[b"host", b"evil.example"]]
        for origin in (b"https://example.com", b"https://evil.example"):
            self.assertFalse(self.allowed(origin, headers=second))

    def test_an_origin_header_in_another_case_is_read(self):
        self.assertFalse(self.allowed(headers=[[b"Origin", b"https://evil.example"]]))

    def test_check_origin_denies(self):
        check_origin(handshake(b"https://example.com"), consumer)
        with self.assertRaises(DenyConnection):
            check_origin(handshake(b"https://evil.example"), consumer)

    @override_settings(ALLOWED_HOSTS=["*"])
    def test_star_allows_the_same_site_alone(self):
        for host, scheme in ((b"one.example", "wss"), (b"two.example:8000", "ws")):
            page = (b"https://" if scheme == "wss" else b"http://") + host
            self.assertTrue(self.allowed(page, host=host, scheme=scheme))
            for origin in (b"https://evil.example", b"http://evil.example", b"null"):
                self.assertFalse(self.allowed(origin, host=host, scheme=scheme))

    @override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    def test_the_scheme_may_come_from_a_proxy(self):
        proxied = {"scheme": "ws", "headers": [[b"x-forwarded-proto", b"https"]]}
        self.assertTrue(self.allowed(b"https://example.com", **proxied))
        self.assertFalse(self.allowed(b"http://example.com", **proxied))
        self.assertFalse(self.allowed(b"https://example.com", scheme="ws"))

    def test_headers_of_a_proxy_count_only_if_django_trusts_them(self):
        for name, value in (
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", b"evil.example"),
            (b"x-forwarded-port", b"8443"),
        ):
            self.assertTrue(self.allowed(b"https://example.com", headers=[[name, value]]))
            self.assertFalse(self.allowed(b"https://evil.example", headers=[[name, value]]))

    @override_settings(USE_X_FORWARDED_HOST=True)
    def test_the_host_may_come_from_a_proxy(self):
        proxied = {
            "host": b"127.0.0.1:8001",
            "headers": [[b"x-forwarded-host", b"example.com:8443"]],
        }
        self.assertTrue(self.allowed(b"https://example.com:8443", **proxied))
        self.assertFalse(self.allowed(b"https://example.com", **proxied))
        self.assertFalse(self.allowed(b"https://127.0.0.1:8001", **proxied))

    def test_a_dev_server_of_this_machine_passes_with_debug_alone(self):
        local = (
            b"http://localhost:5173",
            b"https://localhost:3000",
            b"http://127.0.0.1:8080",
            b"http://[::1]:5173",
            b"http://app.localhost:5173",
        )
        others = (
            b"https://evil.example",
            b"http://localhost.evil.example:5173",
            b"http://127.0.0.1.evil.example",
            b"app://localhost",
            b"null",
        )
        for origin in local + others:
            for hosts in ([], ["*"], ["example.com"]):
                with self.subTest(origin=origin, hosts=hosts):
                    with override_settings(DEBUG=True, ALLOWED_HOSTS=hosts):
                        passes = self.allowed(origin, host=b"localhost:8000", scheme="ws")
                        self.assertEqual(passes, origin in local)
                    with override_settings(ALLOWED_HOSTS=hosts):
                        self.assertFalse(self.allowed(origin, scheme="ws"))

    @override_settings(ALLOWED_HOSTS=[], DEBUG=False)
    def test_no_hosts(self):
        self.assertFalse(self.allowed(b"http://localhost", host=b"localhost", scheme="ws"))


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False)
class TrustedOriginTests(SimpleTestCase):
    """CSRF_TRUSTED_ORIGINS, in the forms of all versions of Django."""

    def assert_trusts(self, entries, origins, expected=True, **options):
        with override_settings(CSRF_TRUSTED_ORIGINS=entries):
            for origin in origins:
                with self.subTest(entries=entries, origin=origin, options=options):
                    found = origin_allowed(handshake(origin, **options), consumer)
                    self.assertEqual(found, expected)

    def test_an_origin(self):
        entries = ["https://www.example.org", "http://old.example.org:8000"]
        self.assert_trusts(entries, [b"https://www.example.org", b"http://old.example.org:8000"])
        self.assert_trusts(entries, [b"https://www.example.org"], host=b"not.allowed")
        others = [
            b"http://www.example.org",
            b"https://www.example.org:8443",
            b"https://a.www.example.org",
            b"http://old.example.org",
        ]
        self.assert_trusts(entries, others, False)

    def test_a_wildcard_is_read_as_django_does(self):
        entries = ["https://*.example.org", "https://*.example.net:8443"]
        self.assert_trusts(entries, [b"https://a.b.example.org", b"https://example.org"])
        self.assert_trusts(entries, [b"https://a.example.net:8443"])
        others = [
            b"http://a.example.org",
            b"https://badexample.org",
            b"https://a.example.net",
            b"https://*.example.org",
            b"https://.example.org",
        ]
        self.assert_trusts(entries, others, False)

    def test_a_dot_after_the_scheme_is_no_wildcard_as_in_django(self):
        entries = ["https://.example.org", "http://.example.org:8000"]
        origins = [b"https://a.example.org", b"https://example.org", b"http://a.example.org:8000"]
        self.assert_trusts(entries, origins, False)

    def test_malformed_entries_trust_nothing(self):
        entries = ["https://*", "*", "", "https://", "://", "null", "https://a b", "https://x/path"]
        self.assert_trusts(entries, [b"https://evil.example", b"http://x", b"https://x"], False)
        self.assert_trusts(entries + ["https://good.example"], [b"https://good.example"])

    def test_hosts_without_a_scheme_are_for_django_before_4(self):
        is_read = django.VERSION < (4, 0)
        entries = ["www.example.org", ".example.net", "port.example.org:8443"]
        hosts = [b"https://www.example.org", b"https://a.example.net", b"https://example.net"]
        self.assert_trusts(entries, hosts + [b"https://port.example.org:8443"], is_read)
        self.assert_trusts(entries, [b"http://www.example.org"], is_read, scheme="ws")
        others = [
            b"http://www.example.org",  # a page without TLS, for a socket with it
            b"https://www.example.org:8443",
            b"https://port.example.org",
            b"https://a.www.example.org",
            b"app://www.example.org",
        ]
        self.assert_trusts(entries, others, False)


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False, CSRF_TRUSTED_ORIGINS=[])
class ExplanationTests(SimpleTestCase):
    """The line in the log says what to set."""

    def explain(self, *origins, **options):
        return explain(handshake(*origins, **options), "shop.consumers.connect")

    def test_another_site(self):
        text = self.explain(b"https://evil.example")
        self.assertIn("not https://example.com, the site's own", text)
        self.assertIn("CSRF_TRUSTED_ORIGINS", text)
        self.assertIn("allowed_origins of shop.consumers.connect", text)
        self.assertNotIn("proxy", text)

    def test_a_proxy_that_ends_tls(self):
        text = self.explain(b"https://example.com", scheme="ws")
        self.assertIn("SECURE_PROXY_SSL_HEADER", text)

    def test_a_proxy_that_drops_the_port(self):
        text = self.explain(b"https://example.com:8443")
        self.assertIn("proxy_set_header Host $http_host", text)

    def test_a_host_that_is_not_allowed(self):
        text = self.explain(b"https://example.org", host=b"example.org")
        self.assertIn(
            "Host header of the handshake isn't in ALLOWED_HOSTS. Add the host there", text
        )

    def test_not_an_origin(self):
        for origins in MALFORMED:
            self.assertIn("origin validator of shop.consumers.connect", self.explain(*origins))


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False)
class MarkTests(SimpleTestCase):
    def test_any_origin(self):
        @channel_session
        @any_origin
        def open_to_all(message):
            pass

        self.assertTrue(origin_allowed(handshake(b"https://evil.example"), open_to_all))
        self.assertTrue(origin_allowed(handshake(b"null"), open_to_all))

    def test_any_origin_on_classes(self):
        @any_origin
        class Decorated(WebsocketConsumer):
            pass

        class Attribute(WebsocketConsumer):
            any_origin = True

        by_route = WebsocketConsumer.as_route(attrs={"any_origin": True}).consumer
        for each in (Decorated, Attribute, by_route):
            self.assertTrue(origin_allowed(handshake(b"https://evil.example"), each))
        self.assertFalse(origin_allowed(handshake(b"https://evil.example"), WebsocketConsumer))

    def test_any_origin_on_a_bound_method_and_a_partial(self):
        class Chat:
            def connect(self, message):
                return "connected"

        marked = any_origin(Chat().connect)
        self.assertEqual(marked(handshake()), "connected")
        self.assertTrue(origin_allowed(handshake(b"https://evil.example"), marked))
        partial = any_origin(functools.partial(consumer))
        self.assertTrue(origin_allowed(handshake(b"https://evil.example"), partial))

    def test_a_partial_has_the_marks_of_its_function(self):
        class Validated(BaseOriginValidator):
            def validate_origin(self, message, origin):
                return origin == "null"

        def connect(message, room=None):
            return room

        for mark in (any_origin, allowed_origins("https://evil.example")):
            one = functools.partial(mark(functools.partial(consumer)), room=1)
            for each in (one, functools.partial(one, room=2), channel_session(one)):
                self.assertTrue(origin_allowed(handshake(b"https://evil.example"), each))
        validated = functools.partial(Validated(connect), room="lobby")
        for each in (validated, channel_session(validated)):
            self.assertTrue(origin_allowed(handshake(b"null"), each))
        self.assertEqual(validated(handshake(b"null")), "lobby")
        with self.assertRaises(DenyConnection):
            validated(handshake(b"https://evil.example"))
        for each in (functools.partial(connect), channel_session(functools.partial(connect))):
            self.assertFalse(origin_allowed(handshake(b"null"), each))

    def test_a_decorator_that_hides_or_changes_the_marks_is_obeyed(self):
        marked = any_origin(lambda message: None)
        partial = functools.wraps(functools.partial(marked))(lambda message: None)
        hidden = functools.wraps(marked, updated=())(lambda message: None)
        evil = handshake(b"https://evil.example")
        self.assertTrue(origin_allowed(evil, partial))
        partial.any_origin = False
        for each in (partial, hidden):
            self.assertFalse(origin_allowed(evil, each))

    def test_a_decorator_for_origins_on_a_method_is_refused(self):
        """The class's own check would refuse the page before the method is called."""

        class Own(BaseOriginValidator):
            def validate_origin(self, message, origin):
                return True

        decorators = [Own, allowed_hosts_only, any_origin, allowed_origins("https://a.example")]
        for decorator in decorators:
            for outer in (channel_session, lambda function: function):

                class Decorated(WebsocketConsumer):
                    @outer
                    @decorator
                    def connect(self, message, **kwargs):
                        pass

                with self.subTest(decorator), self.assertRaisesRegex(
                    InvalidRoute, "Decorated.connect .* above the class"
                ):
                    route_class(Decorated, path="^/")

    def test_allowed_origins(self):
        @allowed_origins("https://other.example", "http://*.sub.example:8000")
        def marked(message):
            pass

        for origin, expected in (
            (b"https://other.example", True),
            (b"https://other.example:443", True),
            (b"https://example.com", True),
            (b"http://a.sub.example:8000", True),
            (b"http://a.b.sub.example:8000", True),
            (b"http://sub.example:8000", False),
            (b"http://a.sub.example", False),
            (b"http://other.example", False),
            (b"https://other.example:8443", False),
            (b"https://evil.example", False),
            (b"null", False),
        ):
            with self.subTest(origin=origin):
                self.assertEqual(origin_allowed(handshake(origin), marked), expected)

    def test_allowed_origins_on_a_class(self):
        class Attribute(WebsocketConsumer):
            allowed_origins = ["https://other.example"]

        self.assertTrue(origin_allowed(handshake(b"https://other.example"), Attribute))
        self.assertFalse(origin_allowed(handshake(b"https://evil.example"), Attribute))

    def test_allowed_origins_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "scheme://host"):
            allowed_origins("other.example")
        with self.assertRaisesRegex(ValueError, "allowed_origins"):
            allowed_origins(consumer)


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False)
class ValidatorTests(ChannelTestCase):
    def refused(self, decorated, *origins, **options):
        try:
            decorated(handshake(*origins, **options))
        except DenyConnection:
            return True
        return False

    def test_allowed_hosts_only(self):
        decorated = allowed_hosts_only(consumer)
        self.assertEqual(decorated(handshake(b"https://example.com")), "ran")
        self.assertEqual(decorated.__name__, "consumer")
        for origins in [(b"https://evil.example",), ()] + MALFORMED:
            with self.subTest(origins=origins):
                self.assertTrue(self.refused(decorated, *origins))

    def test_allowed_hosts_only_takes_the_hosts_that_allowed_hosts_names(self):
        decorated = allowed_hosts_only(consumer)
        for allowed in (["*"], ["example.com", "*"], ["example.com", "www.example.com"]):
            with override_settings(ALLOWED_HOSTS=allowed):
                self.assertTrue(self.refused(decorated, b"https://evil.example"))
                self.assertFalse(self.refused(decorated, b"https://example.com"))
                named = "www.example.com" in allowed
                for origin in (b"https://www.example.com", b"https://www.example.com:8443"):
                    self.assertEqual(self.refused(decorated, origin), not named)
                self.assertTrue(self.refused(decorated, b"http://www.example.com"))
        with override_settings(CSRF_TRUSTED_ORIGINS=["https://partner.example"]):
            self.assertFalse(self.refused(decorated, b"https://partner.example"))

    def test_own_validator_replaces_the_default_check(self):
        class OnlyOther(BaseOriginValidator):
            def validate_origin(self, message, origin):
                return origin == "https://other.example"

        @channel_session
        @OnlyOther
        def decorated(message, **kwargs):
            return kwargs

        message = handshake(b"https://other.example")
        self.assertTrue(origin_allowed(message, decorated))
        self.assertEqual(decorated(message, room="x"), {"room": "x"})
        with self.assertRaises(DenyConnection):
            decorated(handshake(b"https://example.com"))

    def make(self):
        asked = []

        class Own(BaseOriginValidator):
            def validate_origin(self, message, origin):
                asked.append(origin)
                return origin in ("null", "file://", "app:com.example", "")

        return Own, asked

    def test_own_validator_is_asked_about_every_origin(self):
        own, asked = self.make()
        decorated = own(consumer)
        for origin in (b"null", b"file://", b"app:com.example", b""):
            self.assertEqual(decorated(handshake(origin)), "ran")
        for origin in (b"https://example.com", b"example.com", b"https://[::1", b"x y"):
            with self.assertRaises(DenyConnection):
                decorated(handshake(origin))
        self.assertEqual(len(asked), 8)
        for origins in ((), (b"null", b"null"), (b"https://ex\xc3\xa4mple.com",)):
            with self.assertRaises(DenyConnection):
                decorated(handshake(*origins))
        self.assertEqual(len(asked), 8)

    def test_own_validator_on_classes(self):
        own, asked = self.make()

        @own
        class Decorated(WebsocketConsumer):
            any_origin = True

        class Inherits(Decorated):
            pass

        class Attribute(WebsocketConsumer):
            origin_validator = own

        routes = [route_class(each) for each in (Decorated, Inherits, Attribute)]
        routes.append(WebsocketConsumer.as_route(attrs={"origin_validator": own}))
        routes.append(route_class(own(type("Called", (WebsocketConsumer,), {}))))
        for each in routes:
            with self.subTest(route=each), apply_routes([each]):
                client = WSClient()
                client.set_header("origin", "null")
                client.send_and_consume("websocket.connect")
                client.send_and_consume("websocket.receive", {"text": "x"})
                client.send_and_consume("websocket.disconnect")
                other = WSClient()
                other.set_header("origin", "https://example.com")
                with mock.patch.object(consume, "_refused_origins", RateLimit()):
                    with self.assertLogs("django.channels.worker", "WARNING") as logs:
                        with self.assertRaisesRegex(AssertionError, "rejected"):
                            other.send_and_consume("websocket.connect")
                self.assertIn("origin validator of", logs.output[0])
        self.assertIs(type(Decorated), type)

    def test_a_second_validator_of_one_class_is_refused(self):
        own, asked = self.make()

        @own
        class Decorated(WebsocketConsumer):
            pass

        with self.assertRaisesRegex(TypeError, "has the origin validator"):
            own(Decorated)

    def test_an_asynchronous_validator_allows_nothing(self):
        async def method(self, *args):
            return True

        for name in ("validate_origin", "get_origin", "allows"):
            validator = type("Own", (BaseOriginValidator,), {name: method})
            decorated = validator(type("Decorated", (WebsocketConsumer,), {}))
            for check in (
                lambda message, validator=validator: validator(consumer)(message),
                lambda message, decorated=decorated: origin_allowed(message, decorated),
            ):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    with self.assertRaisesRegex(TypeError, "%s must not be asynchronous" % name):
                        check(handshake(b"https://example.com"))
                self.assertEqual(caught, [])  # not one more, about a coroutine

    def test_validator_without_validate_origin(self):
        with self.assertRaises(NotImplementedError):
            BaseOriginValidator(consumer)(handshake(b"https://example.com"))


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False)
class ClientTests(ChannelTestCase):
    """The check as consumers meet it."""

    def test_other_site_is_rejected(self):
        def connect(message):
            message.reply_channel.send({"accept": True})

        with apply_routes([route("websocket.connect", connect)]):
            client = WSClient()
            client.set_header("host", "example.com")
            client.set_header("origin", "https://evil.example")
            with self.assertRaisesRegex(AssertionError, "rejected"):
                client.send_and_consume("websocket.connect")
            client.set_header("origin", "http://example.com")
            client.send_and_consume("websocket.connect")

    def test_denied_by_decorator_after_an_accept(self):
        def connect(message):
            message.reply_channel.send({"accept": True})
            raise DenyConnection()

        with apply_routes(route("websocket.connect", connect)):
            with self.assertRaisesRegex(AssertionError, "rejected"):
                WSClient().send_and_consume("websocket.connect")

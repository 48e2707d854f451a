"""channels.security.websockets: from which pages a WebSocket may be opened."""

import functools
from unittest import mock

from django.channels import consume
from django.channels.asgi import channel_layers
from django.channels.exceptions import DenyConnection
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.log import RateLimit
from django.channels.message import Message
from django.channels.routing import route, route_class
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


def handshake(*origins):
    headers = [[b"host", b"example.com"]] + [[b"origin", origin] for origin in origins]
    content = {"reply_channel": "reply?1", "path": "/", "headers": headers}
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
    (b"https://example.com", b"https://example.com"),
]


@override_settings(ALLOWED_HOSTS=["example.com", ".example.net", "[::1]"], DEBUG=False)
class DefaultCheckTests(SimpleTestCase):
    def allowed(self, *origins, **kwargs):
        return origin_allowed(handshake(*origins), kwargs.get("consumer", consumer))

    def test_pages_of_allowed_hosts(self):
        for origin in (
            b"https://example.com",
            b"http://example.com:8000",
            b"http://EXAMPLE.com",
            b"https://example.com.",
            b"https://example.com/",
            b"https://example.net",
            b"https://deep.sub.example.net",
            b"http://[::1]:8000",
        ):
            with self.subTest(origin=origin):
                self.assertTrue(self.allowed(origin))

    def test_pages_of_other_hosts(self):
        for origin in (
            b"https://evil.example",
            b"https://sub.example.com",
            b"https://example.com.evil.example",
            b"https://badexample.net",
            b"http://localhost",
        ):
            with self.subTest(origin=origin):
                self.assertFalse(self.allowed(origin))

    def test_no_origin_is_no_browser(self):
        self.assertTrue(self.allowed())
        self.assertTrue(origin_allowed(Message({}, "websocket.connect", None), consumer))

    def test_malformed(self):
        for origins in MALFORMED:
            with self.subTest(origins=origins):
                self.assertFalse(self.allowed(*origins))

    def test_check_origin_denies(self):
        check_origin(handshake(b"https://example.com"), consumer)
        with self.assertRaises(DenyConnection):
            check_origin(handshake(b"https://evil.example"), consumer)

    @override_settings(ALLOWED_HOSTS=["*"])
    def test_star(self):
        self.assertTrue(self.allowed(b"https://evil.example"))
        self.assertFalse(self.allowed(b"null"))

    @override_settings(ALLOWED_HOSTS=[], DEBUG=True)
    def test_debug_without_hosts(self):
        for origin in (
            b"http://localhost:8000",
            b"http://127.0.0.1:8000",
            b"http://[::1]:8000",
            b"http://sub.localhost",
        ):
            self.assertTrue(self.allowed(origin))
        self.assertFalse(self.allowed(b"https://evil.example"))

    @override_settings(ALLOWED_HOSTS=[], DEBUG=False)
    def test_no_hosts(self):
        self.assertFalse(self.allowed(b"http://localhost"))


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
    def test_allowed_hosts_only(self):
        decorated = allowed_hosts_only(consumer)
        self.assertEqual(decorated(handshake(b"https://example.com")), "ran")
        self.assertEqual(decorated.__name__, "consumer")
        for origins in [(b"https://evil.example",), ()] + MALFORMED:
            with self.subTest(origins=origins):
                with self.assertRaises(DenyConnection):
                    decorated(handshake(*origins))

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
            client.set_header("origin", "https://evil.example")
            with self.assertRaisesRegex(AssertionError, "rejected"):
                client.send_and_consume("websocket.connect")
            client.set_header("origin", "https://example.com")
            client.send_and_consume("websocket.connect")

    def test_denied_by_decorator_after_an_accept(self):
        def connect(message):
            message.reply_channel.send({"accept": True})
            raise DenyConnection()

        with apply_routes(route("websocket.connect", connect)):
            with self.assertRaisesRegex(AssertionError, "rejected"):
                WSClient().send_and_consume("websocket.connect")

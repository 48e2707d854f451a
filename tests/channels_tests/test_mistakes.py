"""
Mistakes other than habits from Channels 2 to 4 and misspelt names: each ends in an error, or a line of the
log, that says what to write.
"""

import functools
import gc
import warnings
from datetime import date
from decimal import Decimal
from unittest import mock
from uuid import UUID

from django.channels import Channel, Group, advice, checks, include, route, route_class
from django.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    login_required,
)
from django.channels.binding.websockets import WebsocketBinding
from django.channels.exceptions import InvalidMessage
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.habits import PACKAGE
from django.channels.handler import AsgiHandler
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimitByKey
from django.channels.message import Message
from django.channels.routing import InvalidRoute, Router
from django.channels.security.websockets import allowed_hosts_only, allowed_origins, any_origin
from django.channels.sessions import channel_and_http_session, channel_session, http_session
from django.channels.test import ChannelTestCase, Client, apply_routes
from django.contrib.auth.decorators import login_required as django_login_required
from django.contrib.auth.decorators import user_passes_test
from django.db import transaction
from django.http import HttpResponse
from django.test import SimpleTestCase, override_settings
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property

from .test_gateway_websocket import Socket
from .test_silence import Lines

MEMORY = MemoryChannelLayer.__module__ + ".MemoryChannelLayer"


def consumer(message):
    pass


class Echo(WebsocketConsumer):
    pass


user_passes = user_passes_test(lambda user: True)


class RouteTests(SimpleTestCase):
    def assert_refused(self, call, *words, error=InvalidRoute):
        with self.assertRaises(error) as raised:
            call()
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_a_channel_that_no_message_can_be_on(self):
        for channels in ("websocket.*", "my channel", "", ["websocket.connect", 5], None, 5):
            self.assert_refused(functools.partial(route, channels, consumer), "name")
        self.assert_refused(lambda: route("websocket.*", consumer), "'websocket.*'", "a list")
        self.assert_refused(lambda: Router({5: consumer}), "5")
        self.assertEqual(route(("a", "b?"), consumer).channel_names(), {"a", "b?"})

    def test_what_a_dotted_path_leads_to_must_be_callable(self):
        self.assert_refused(lambda: route("own", __name__), "it is a module", "its dotted path")
        self.assert_refused(lambda: route("own", __name__ + ".__doc__"), "isn't callable")

    def test_a_generator_would_run_nothing_wherever_it_hides(self):
        class Called:
            def __call__(self, message):
                yield message

        class CalledAsync:
            async def __call__(self, message):
                yield message

        def more(message, number=0):
            yield number

        class Yields(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                yield text

        class YieldsAsync(WebsocketConsumer):
            async def receive(self, text=None, bytes=None, **kwargs):
                yield text

        partial = functools.partial(more, number=1)
        for each in (Called(), CalledAsync(), partial, channel_session_user(more), AsgiHandler()):
            self.assert_refused(functools.partial(route, "own", each), "generator", "yield")
        for each in (Yields, YieldsAsync):
            self.assert_refused(
                functools.partial(route_class, each), ".receive ", "generator", "yield"
            )

    def test_the_consumers_of_a_demultiplexer(self):
        class Stream(JsonWebsocketConsumer):
            def receive(self, content):
                pass

        class Items(WebsocketBinding):
            pass

        class Right(JsonWebsocketConsumer):
            def connect(self, message, multiplexer, **kwargs):
                pass

        for consumers, words in [
            (["items"], ["dict of stream to consumer", "a list"]),
            (Stream, ["dict of stream", "a type"]),
            ({"items": "mysite.Items"}, ["consumers['items']", "'mysite.Items'"]),
            (
                {"items": Stream},
                ["consumers['items']", "'multiplexer'", "demultiplexer gives", "**kwargs"],
            ),
            ({"items": Items}, ["consumers['items']", "write Items.consumer"]),
        ]:
            several = type("Several", (WebsocketDemultiplexer,), {"consumers": consumers})
            with self.subTest(consumers=consumers):
                self.assert_refused(several.as_route, "Several.consumers", *words)
        right = {"right": Right, "echo": Echo, "function": lambda message, **kwargs: None}
        type("Several", (WebsocketDemultiplexer,), {"consumers": right}).as_route()
        later = property(lambda self: right)
        type("Several", (WebsocketDemultiplexer,), {"consumers": later}).as_route()

    def test_names_that_are_one_text(self):
        for name in ("groups", "subprotocols"):
            text = type("Room", (WebsocketConsumer,), {name: "chat"})
            self.assert_refused(text.as_route, "Room." + name, "write ['chat']")

    def test_attributes_that_cannot_work(self):
        for name, value, word in [
            ("groups", ["chat room"], "'chat room'"),
            ("groups", 5, "a list of names, not 5"),
            ("login_required", "4401", "3000 to 4999"),
            ("login_required", 401, "3000 to 4999"),
            ("allowed_origins", "https://a.example", "write ['https://a.example']"),
            ("allowed_origins", ["a.example"], "scheme://host"),
        ]:
            room = type("Room", (WebsocketConsumer,), {name: value})
            with self.subTest(name=name, value=value):
                self.assert_refused(room.as_route, "Room." + name, word)
        for name, value in [
            ("groups", ("chat",)),
            ("groups", property(lambda self: "chat")),
            ("login_required", True),
            ("login_required", 4401),
            ("allowed_origins", ["https://*.a.example"]),
        ]:
            type("Room", (WebsocketConsumer,), {name: value}).as_route()

    def test_connection_groups_without_a_group_of_the_path(self):
        room = type("Room", (WebsocketConsumer,), {"connection_groups": lambda self: ["a"]})
        self.assert_refused(
            lambda: room.as_route(path=r"^/(?P<room>\w+)/$"),
            "connection_groups",
            "'room'",
            "**kwargs",
        )
        room.as_route()

    def test_decorators_of_others(self):
        async def later(message):
            pass

        wrong = "login_required of channels.auth".replace("channels", PACKAGE)
        # Around a function, it lets a user pass who has logged in, as in Channels 1.x.
        for decorated in (django_login_required(consumer), channel_session(user_passes(consumer))):
            route("own", decorated)
        room = type("Room", (WebsocketConsumer,), {"connect": django_login_required(consumer)})
        self.assert_refused(room.as_route, "Room.connect", wrong)
        self.assert_refused(lambda: route("own", transaction.atomic(later)), "ends before", "later")
        route("own", transaction.atomic(consumer))
        route("own", channel_session(later))

    def test_what_a_site_does_in_its_own_way_is_not_refused(self):
        def in_groups(self, message=None, **kwargs):
            return [each % 1 for each in self.groups]

        def keeps(self, message, room=None, **kwargs):
            self.room = room
            WebsocketConsumer.__init__(self, message, **kwargs)

        def call(self, message, **kwargs):
            pass

        own = {"groups": ["room-%s"], "connection_groups": in_groups}
        for base, body in (
            (WebsocketConsumer, own),
            (WebsocketConsumer, {"groups": cached_property(lambda self: ["a"])}),
            (WebsocketConsumer, {"login_required": call}),
            (WebsocketConsumer, {"connect": method_decorator(allowed_hosts_only)(call)}),
            (WebsocketConsumer, {"__init__": keeps, "connection_groups": lambda self: [self.room]}),
            (WebsocketDemultiplexer, {"consumers": cached_property(lambda self: {})}),
            (WebsocketDemultiplexer, {"consumers": {"a": "path"}, "receive": call}),
        ):
            with self.subTest(body):
                type("Own", (base,), body).as_route(path=r"^/(?P<room>\w+)/$")

        class Plain:
            def __init__(self, message, **kwargs):
                pass

            def trigger_inbound(self):
                pass

        class Chat:
            @channel_session
            def receive(self, message):
                pass

        class Limited(allowed_hosts_only):
            def __init__(self, func, limit=1):
                super().__init__(func)

        route("own", Plain)
        route("own", Limited(consumer, limit=2))
        layers = {"default": {"BACKEND": MEMORY, "ROUTING": [route("own", Chat().receive)]}}
        with override_settings(CHANNEL_LAYERS=layers):
            self.assertEqual(checks.check_channel_layers(None), [])
        for immediately in (None, 0, 1):
            with mock.patch.object(Channel, "_deliver"):
                Channel("own").send({}, immediately)

    def test_a_binding_is_no_consumer(self):
        self.assert_refused(
            lambda: route_class(WebsocketBinding), "write WebsocketBinding.consumer"
        )
        self.assert_refused(
            lambda: route("own", WebsocketBinding), "write WebsocketBinding.consumer"
        )

    def test_attrs_that_are_no_dict(self):
        self.assert_refused(lambda: Echo.as_route(["groups"]), "path='^/…$'", "is a dict")

    def test_a_decorator_that_is_given_something_else_than_a_consumer(self):
        for decorator in (
            allowed_hosts_only,
            any_origin,
            channel_and_http_session,
            channel_and_http_session_user_from_http,
            channel_session,
            channel_session_user,
            channel_session_user_from_http,
            http_session,
            http_session_user,
        ):
            for given in ((), (None,), ("chat",), (consumer, 5)):
                self.assert_refused(
                    functools.partial(decorator, *given),
                    "@" + decorator.__name__,
                    "without parentheses",
                    error=TypeError,
                )
            if decorator is not allowed_hosts_only:
                self.assertTrue(callable(decorator(consumer)))
        self.assert_refused(lambda: channel_session_user(None), "None", error=TypeError)
        self.assert_refused(lambda: login_required(4401), "code=4401", error=TypeError)

    def test_a_code_that_no_client_can_be_sent_is_refused_where_it_is_written(self):
        for code in (401, "4401", 1006):
            call = functools.partial(login_required, code=code)
            self.assert_refused(call, repr(code), "3000 to 4999", error=ValueError)

    def test_a_decorator_that_needs_arguments(self):
        call = functools.partial(allowed_origins, consumer)
        self.assert_refused(call, '@allowed_origins("https://', error=ValueError)

    def test_include_of_what_is_no_list(self):
        self.assert_refused(lambda: include(route("own", consumer)), "list of routes")

    def test_an_attribute_of_a_class_among_the_filters(self):
        for call in (Echo.as_route, functools.partial(route_class, Echo)):
            wrong = functools.partial(call, path="^/", http_user=True)
            self.assert_refused(wrong, "http_user=True", "attrs={'http_user': True}")
        self.assert_refused(
            lambda: route("own", consumer, order=5), "order=5", "regular expression"
        )

    def test_a_group_with_the_name_of_an_argument(self):
        class Json(JsonWebsocketConsumer):
            def receive(self, content, **kwargs):
                pass

        class Plain(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                pass

        def takes_any(message, **kwargs):
            pass

        for call, name in (
            (functools.partial(route_class, Json), "content"),
            (functools.partial(route_class, Plain), "text"),
            (functools.partial(route_class, Plain), "message"),
            (functools.partial(route, "own", takes_any), "message"),
        ):
            wrong = functools.partial(call, path="^/(?P<%s>a)/" % name)
            self.assert_refused(wrong, "gets %r already" % name, "(?P<other_")
        # Nothing fails there until a frame comes.
        self.assertTrue(route_class(Echo, path="^/(?P<text>a)/"))


class SettingTests(SimpleTestCase):
    def check(self, **given):
        with override_settings(**given):
            problems = checks.check_values(None)
        self.assertLessEqual({each.id for each in problems}, {"channels.E008"})
        return "".join(each.msg for each in problems)

    def test_a_setting_of_the_wrong_type(self):
        for name, values in (
            ("CHANNEL_STREAM_THREADS", ("4", 0, 2.5, True)),
            ("CHANNEL_ASYNC_THREADS", (0, "16")),
            ("CHANNEL_ASYNC_STREAMS", (-1, [])),
            ("CHANNEL_SLOW_CONSUMER", ("5", -1, float("nan"), True)),
            ("CHANNEL_SESSION_KEY_IN_QUERY", ("False", 1, None)),
            ("CHANNEL_DAPHNE_ROOT_PATH", ("/shop",)),
        ):
            for value in values:
                text = self.check(**{name: value})
                self.assertIn("%s is" % name, text)
                self.assertIn("not %r" % value, text)

    def test_values_that_are_right(self):
        self.assertEqual(self.check(), "")
        self.assertEqual(
            self.check(
                CHANNEL_STREAM_THREADS=None,
                CHANNEL_ASYNC_STREAMS=5,
                CHANNEL_SLOW_CONSUMER=0.5,
                CHANNEL_SESSION_KEY_IN_QUERY=True,
            ),
            "",
        )
        self.assertEqual(self.check(CHANNEL_SLOW_CONSUMER=None), "")


class SocketTests(SimpleTestCase):
    def assert_line(self, socket, *words):
        (line,) = socket.logged
        for word in ("/path",) + words:
            self.assertIn(word, line)

    def test_a_reply_to_the_handshake_that_answers_nothing(self):
        self.assert_line(Socket().done({"acept": True}), "acept", "{'accept': True}")
        self.assert_line(Socket().done({"type": "websocket.accept"}), "type", "{'accept': True}")
        self.assert_line(Socket().done({"accept": None}), "{'accept': True}")
        self.assertEqual(Socket().done().logged, [])  # other code may answer
        self.assertEqual(Socket().done({"text": "hi"}).logged, [])

    def test_a_client_that_leaves_an_unanswered_handshake(self):
        left = Socket().done()
        left.do(left.state.gone())
        self.assert_line(left, "has left before", '{"accept": True}', "accept()")
        for socket in (Socket(), Socket().opened()):  # its consumer runs, or it was answered
            self.assertEqual(socket.do(socket.state.gone()).logged, [])

    def test_text_and_bytes_in_one_message(self):
        for send in ("reply", "group"):
            socket = Socket().opened()
            socket.do(getattr(socket.state, send)({"text": "a", "bytes": b"b"}))
            self.assert_line(socket, "text and bytes", "two messages")
            self.assertEqual(len(socket.written), 1)

    def test_a_frame_after_the_close_of_the_same_event(self):
        for first in ({"close": True}, {"close": "4000"}):
            socket = Socket().opened()
            socket.frame("hi").done(first, {"text": "late"})
            self.assertIn("{'text': …, 'close': True}", socket.logged[-1])
        self.assert_line(Socket().done({"accept": False}, {"text": "late"}), "after its own close")
        socket = Socket().opened()
        socket.frame("hi").done({"text": "bye", "close": True}, {"close": True})
        self.assertEqual(socket.logged, [])

    def test_a_frame_for_a_client_that_has_gone_meanwhile_is_no_mistake(self):
        socket = Socket().opened().frame("hi")
        socket.do(socket.state.gone()).done({"text": "an answer"}, {"close": True})
        self.assertEqual(socket.logged, [])

    def test_a_frame_of_the_consumer_of_the_disconnect(self):
        socket = Socket().opened()
        socket.do(socket.state.gone())
        self.assertEqual(socket.channels, ["websocket.disconnect"])
        self.assert_line(socket.done({"text": "bye"}), "which has gone", "group")

    def test_a_refusal_after_the_acceptance(self):
        socket = Socket().opened()
        self.assert_line(socket.reply(accept=False), "Its keys: accept", "{'close': True}")

    def test_a_close_code_that_is_none_names_those_that_are(self):
        socket = Socket().opened()
        self.assert_line(socket.reply(close="4000"), "'4000'", "3000 to 4999")


class MessageTests(SimpleTestCase):
    def test_a_value_that_no_layer_carries_says_how_to_convert_it(self):
        for value in (Decimal("1.5"), date(2020, 1, 1), UUID(int=1), {1}, Channel("a")):
            with self.assertRaises(InvalidMessage) as raised:
                MemoryChannelLayer().check_message({"n": value})
            for word in ("'n'", type(value).__name__, "str()", "pk of a model"):
                self.assertIn(word, str(raised.exception))

    def test_a_key_that_the_message_lacks(self):
        message = Message({"path": "/", "bytes": b"x"}, "websocket.receive", None)
        for key, words in (
            ("text", ["bytes, path", "message.get('text')"]),
            ("query_string", ["bytes, path", "Only websocket.connect", "message.channel_session"]),
        ):
            with self.assertRaises(KeyError) as raised:
                message[key]
            self.assertEqual(raised.exception.args, (key,))
            for word in words:
                self.assertIn(word, str(raised.exception))
        with self.assertRaises(KeyError) as raised:
            Message({"a": 1}, "own", None)["text"]
        self.assertNotIn("websocket", str(raised.exception))


class AwaitTests(SimpleTestCase):
    def test_a_call_that_was_not_awaited_is_named_as_it_was_written(self):
        layer = MemoryChannelLayer()
        for target in (Channel("own", channel_layer=layer), Group("own", channel_layer=layer)):
            for name in ("asend", "asend_json"):
                written = "%s.%s" % (type(target).__name__, name)
                with warnings.catch_warnings(record=True) as found:
                    warnings.simplefilter("always")
                    getattr(target, name)({})
                    gc.collect()
                self.assertIn("coroutine '%s' was never awaited" % written, str(found[0].message))


class ConsumerTests(ChannelTestCase):
    def run_consumer(self, consumer, content):
        with apply_routes([route("own", consumer)]):
            return Client().send_and_consume("own", content)

    def test_a_message_without_a_reply_channel(self):
        def answer(message):
            message.reply_channel.send({"text": "x"})

        def remember(message):
            message.channel_session["x"] = 1

        def recall(message):
            return message.channel_session["x"]

        def other(message):
            None.send()

        for each in (answer, remember, recall):
            Channel("own").send({"a": 1})
            with self.assertRaises((AttributeError, TypeError)) as raised:
                self.consume_without_client(each)
            for word in ("own", "message.channel_session", "message.reply_channel.name"):
                self.assertIn(word, str(raised.exception))
        with self.assertRaises(AttributeError) as raised:
            self.run_consumer(other, {})
        self.assertNotIn("reply_channel", str(raised.exception))

    def consume_without_client(self, consumer):
        with apply_routes([route("own", consumer)]):
            Client().consume("own")

    def assert_hint(self, consumer, *words, error=TypeError, text="{}"):
        with self.assertRaises(error) as raised, apply_routes([consumer]):
            Client().send_and_consume("websocket.receive", {"path": "/", "text": text})
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_calls_that_were_written_otherwise(self):
        for call, words in [
            (lambda message: message["text"]["key"], ["json.loads", "JsonWebsocketConsumer"]),
            (
                lambda message: Group.send("chat", {"text": "x"}),
                ["Group(name).send({…})", "'chat'"],
            ),
            (lambda message: Channel.send({"text": "x"}), ["Channel(name).send({…})"]),
            (lambda message: Channel("own").send({}, {"close": True}), ["immediately", "one dict"]),
            (lambda message: Group("chat").add(message), ["message.reply_channel, not <Message"]),
            (lambda message: Group("chat").discard(None), ["message.reply_channel, not None"]),
            (lambda message: Group(), ["'name'"]),
        ]:
            self.assert_hint(route("websocket.receive", call), *words)
        self.assert_hint(
            route("websocket.receive", lambda message: message["text"].get("key")),
            "json.loads",
            error=AttributeError,
        )

    def test_methods_that_were_called_otherwise(self):
        for base, call, words in [
            (WebsocketConsumer, lambda self: self.send({"a": 1}), ["a dict", "json.dumps"]),
            (WebsocketConsumer, lambda self: self.group_send("a", [1]), ["a list"]),
            (JsonWebsocketConsumer, lambda self: self.send(text="x"), ["send(content)"]),
            (
                WebsocketConsumer,
                lambda self: WebsocketConsumer.connect(self),
                ["connect(message, **"],
            ),
        ]:
            room = type(
                "Room", (base,), {"receive": lambda self, *args, _call=call, **kwargs: _call(self)}
            )
            self.assert_hint(room.as_route(), *words)

    def test_groups_that_are_forgotten_to_return(self):
        room = type(
            "Room", (WebsocketConsumer,), {"connection_groups": lambda self, **kwargs: None}
        )
        with self.assertRaisesRegex(TypeError, "list of names, not None"), apply_routes(
            [room.as_route()]
        ):
            Client().send_and_consume("websocket.connect", {"path": "/"})

    def returned(self, value):
        with mock.patch.object(advice, "_returned", RateLimitByKey(60)):
            with Lines("django.channels") as lines:
                self.assertIs(self.run_consumer(lambda message: value, {}), value)

                async def later(message):
                    return value

                self.run_consumer(later, {})
        return lines

    def test_what_a_consumer_returns_in_place_of_a_send(self):
        for value in (HttpResponse("x"), {"text": "x"}, {"accept": True}, (x for x in "ab")):
            lines = self.returned(value)
            self.assertEqual(len(lines), 2, value)
            for word in (
                "test_mistakes",
                type(value).__name__,
                "a consumer returns nothing",
                "reply_channel.send",
            ):
                self.assertIn(word, lines[0])
            self.assertEqual("encode_response" in lines[0], not isinstance(value, dict))
        for value in (None, True, "text", {"rows": 2}, 5, [1]):
            self.assertEqual(self.returned(value), [])

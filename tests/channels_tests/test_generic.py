"""channels.generic: class-based consumers."""

import datetime
import functools
import json
import logging
import sys
from unittest import mock

from django.channels import Channel, Group, consume, route_class
from django.channels.exceptions import SendNotAvailableOnDemultiplexer
from django.channels.generic import BaseConsumer
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit
from django.channels.routing import InvalidRoute, Router
from django.channels.sessions import channel_session
from django.channels.test import ChannelTestCase, Client, WSClient, apply_routes
from django.channels.worker import Worker
from django.contrib.auth import get_user_model


class BaseConsumerTests(ChannelTestCase):
    def test_dispatch(self):
        class MyConsumer(BaseConsumer):
            method_mapping = {"test.one": "one", "test.two": "two"}

            def one(self, message, **kwargs):
                self.called = ("one", message, kwargs)

            def two(self, message, **kwargs):
                self.called = ("two", message, kwargs)

        self.assertEqual(MyConsumer.channel_names(), {"test.one", "test.two"})
        Channel("test.two").send({"value": 33})
        message = self.get_next_message("test.two", require=True)
        consumer = MyConsumer(message, room="x")
        self.assertEqual(consumer.called, ("two", message, {"room": "x"}))
        self.assertIs(consumer.message, message)
        self.assertEqual(consumer.kwargs, {"room": "x"})

    def test_as_route_with_filters_and_attrs(self):
        class MyConsumer(BaseConsumer):
            method_mapping = {"test": "test"}
            trigger = "unset"

            def test(self, message, **kwargs):
                Channel("result").send({"trigger": self.trigger, "kwargs": kwargs})

        with apply_routes(
            [
                MyConsumer.as_route(name="^a(?P<rest>.*)", attrs={"trigger": "from attrs"}),
                MyConsumer.as_route(name="^b"),
            ]
        ):
            client = Client()
            client.send_and_consume("test", {"name": "abc"})
            self.assertEqual(
                self.get_next_message("result").content,
                {"trigger": "from attrs", "kwargs": {"rest": "bc"}},
            )
            client.send_and_consume("test", {"name": "b"})
            self.assertEqual(self.get_next_message("result")["trigger"], "unset")
            with self.assertRaisesRegex(AssertionError, "No route"):
                client.send_and_consume("test", {"name": "c"})
        self.assertEqual(MyConsumer.trigger, "unset")

    def test_session_decorators(self):
        class WithUser(BaseConsumer):
            method_mapping = {"test": "test"}
            channel_session_user = True

            def test(self, message, **kwargs):
                message.channel_session["n"] = message.channel_session.get("n", 0) + 1
                self.user = message.user

        class WithSession(WithUser):
            channel_session_user = False
            channel_session = True

            def test(self, message, **kwargs):
                self.n = message.channel_session["n"]

        client = Client()
        with apply_routes(route_class(WithUser)):
            client.send_and_consume("test")
            self.assertFalse(client.send_and_consume("test").user.pk)
        with apply_routes(route_class(WithSession)):
            self.assertEqual(client.send_and_consume("test").n, 2)

    def test_get_handler_takes_decorators(self):
        class Decorated(BaseConsumer):
            method_mapping = {"test": "test"}

            def get_handler(self, *args, **kwargs):
                handler = super(Decorated, self).get_handler(*args, **kwargs)

                def wrapped(message, **kwargs):
                    return handler(message, extra=1, **kwargs)

                return wrapped

            def test(self, message, extra):
                self.extra = extra

        with apply_routes(Decorated.as_route()):
            self.assertEqual(Client().send_and_consume("test").extra, 1)


class WebsocketConsumerTests(ChannelTestCase):
    def test_life_of_a_socket(self):
        events = []

        class MyConsumer(WebsocketConsumer):
            strict_ordering = True
            slight_ordering = True

            def connection_groups(self, **kwargs):
                return ["room-%s" % kwargs["room"]]

            def connect(self, message, **kwargs):
                events.append(("connect", message.content["path"], kwargs, self.path))
                super(MyConsumer, self).connect(message, **kwargs)

            def receive(self, text=None, bytes=None, **kwargs):
                events.append(("receive", text, bytes, kwargs, self.path))
                self.send(text=text, bytes=bytes)

            def disconnect(self, message, **kwargs):
                events.append(("disconnect", message["code"], kwargs, self.path))

        with apply_routes(MyConsumer.as_route(path=r"^/chat/(?P<room>\w+)/$")):
            client = WSClient()
            client.send_and_consume("websocket.connect", path="/chat/one/")
            self.assertIsNone(client.receive())
            self.assertEqual(Group("room-one").channels(), [client.reply_channel])
            client.send_and_consume("websocket.receive", text="hello", path="/chat/one/")
            self.assertEqual(client.receive(json=False), "hello")
            client.send_and_consume("websocket.receive", {"bytes": b"\x00"}, path="/chat/one/")
            self.assertEqual(client.receive(), {"bytes": b"\x00"})
            Group("room-one").send({"text": "for all"})
            self.assertEqual(client.receive(json=False), "for all")
            client.send_and_consume("websocket.disconnect", path="/chat/one/")
            self.assertEqual(Group("room-one").channels(), [])
        room = {"room": "one"}
        self.assertEqual(
            events,
            [
                ("connect", "/chat/one/", room, "/chat/one/"),
                ("receive", "hello", None, room, "/chat/one/"),
                ("receive", None, b"\x00", room, "/chat/one/"),
                ("disconnect", 1000, room, "/chat/one/"),
            ],
        )

    def test_one_name_in_place_of_a_list_of_groups_is_refused(self):
        class Method(WebsocketConsumer):
            def connection_groups(self, **kwargs):
                return "chat"

        with apply_routes([route_class(Method)]):
            client = WSClient()
            with self.assertRaisesRegex(TypeError, r"write \['chat'\]"):
                client.send_and_consume("websocket.connect")
            Group("c").send({"text": "{}"})
            self.assertIsNone(client.receive())

    def test_groups_and_group_send(self):
        class MyConsumer(WebsocketConsumer):
            groups = ["all"]

            def receive(self, text=None, bytes=None, **kwargs):
                self.group_send("all", text=text, close=4000)
                self.close()

        with apply_routes(MyConsumer.as_route()):
            one, two = WSClient(), WSClient()
            one.send_and_consume("websocket.connect")
            two.send_and_consume("websocket.connect")
            one.send_and_consume("websocket.receive", text="bye")
            self.assertEqual(one._next_reply(), {"text": "bye", "close": 4000})
            self.assertEqual(one.receive(), {"close": True})
            self.assertEqual(two._next_reply(), {"text": "bye", "close": 4000})

    def test_close_with_status_and_empty_send(self):
        class MyConsumer(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                if text == "empty":
                    self.send(text="", close=True)
                elif text == "nothing":
                    self.send()
                else:
                    self.close(status=4001)

        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            client.send_and_consume("websocket.receive", text="empty")
            self.assertEqual(client._next_reply(), {"text": "", "close": True})
            with self.assertRaisesRegex(ValueError, "close"):
                client.send_and_consume("websocket.receive", text="nothing")
            client.send_and_consume("websocket.receive", text="x")
            self.assertEqual(client.receive(), {"close": 4001})

    def test_rejecting(self):
        class MyConsumer(WebsocketConsumer):
            def connect(self, message, **kwargs):
                self.close()

        with apply_routes(MyConsumer.as_route()):
            with self.assertRaisesRegex(AssertionError, "rejected"):
                WSClient().send_and_consume("websocket.connect")

    def test_sockets_of_another_layer_join_its_groups(self):
        class MyConsumer(WebsocketConsumer):
            groups = ["g"]

        from django.channels.asgi import channel_layers
        from django.channels.layers.memory import MemoryChannelLayer
        from django.channels.message import Message

        layer = MemoryChannelLayer()
        MyConsumer(Message({"reply_channel": "r?1", "path": "/"}, "websocket.connect", layer))
        self.assertEqual(layer.group_channels("g"), ["r?1"])
        self.assertEqual(channel_layers["default"].group_channels("g"), [])


class UnboundHandlerTests(ChannelTestCase):
    """Handlers that Python calls without the instance run as in any other class."""

    def events(self, consumer):
        """Return what the consumer's handlers noted of a socket's life."""
        with apply_routes(route_class(consumer)):
            client = WSClient()
            client.send_and_consume("websocket.connect", check_accept=False)
            client.send_and_consume("websocket.receive", {"text": "[1]"})
            client.send_and_consume("websocket.disconnect")
        return self.noted

    def setUp(self):
        self.noted = noted = []

        def note(message, **kwargs):
            noted.append(message.channel_name)

        def note_frame(text=None, bytes=None, **kwargs):
            noted.append(text)

        self.note, self.note_frame = note, note_frame

    def test_a_staticmethod_is_called_without_the_instance(self):
        class Plain(WebsocketConsumer):
            connect = disconnect = staticmethod(self.note)
            receive = staticmethod(self.note_frame)
            connection_groups = staticmethod(lambda **kwargs: ["all"])

        self.assertEqual(self.events(Plain), ["websocket.connect", "[1]", "websocket.disconnect"])

    def test_a_decorated_staticmethod_is_called_without_the_instance(self):
        class Decorated(WebsocketConsumer):
            connect = staticmethod(channel_session(self.note))
            receive = staticmethod(self.note_frame)

        self.assertEqual(self.events(Decorated), ["websocket.connect", "[1]"])

    def test_a_classmethod_is_called_with_the_class(self):
        class OfTheClass(JsonWebsocketConsumer):
            @classmethod
            def receive(cls, content, **kwargs):
                cls.noted.append(content)

            connect = disconnect = staticmethod(self.note)
            noted = self.noted

        expected = ["websocket.connect", [1], "websocket.disconnect"]
        self.assertEqual(self.events(OfTheClass), expected)

    def test_a_partial_is_called_as_this_python_calls_it(self):
        def note(*arguments, **kwargs):
            self.noted.append(len(arguments))

        class Partial(WebsocketConsumer):
            connect = functools.partial(note)

        self.assertEqual(self.events(Partial), [2 if sys.version_info >= (3, 14) else 1])

    def test_a_static_partial_and_an_object_are_called_without_the_instance(self):
        class Object:
            def __call__(_, message, **kwargs):  # noqa: N805
                self.note(message)

        class Attributes(WebsocketConsumer):
            connect = Object()
            receive = staticmethod(functools.partial(self.note_frame, bytes=None))
            disconnect = staticmethod(functools.partial(self.note))

        expected = ["websocket.connect", "[1]", "websocket.disconnect"]
        self.assertEqual(self.events(Attributes), expected)

    def test_a_staticmethod_that_lacks_the_message_is_refused(self):
        class Lacking(WebsocketConsumer):
            @staticmethod
            def connect():
                """Take nothing."""

        with self.assertRaisesRegex(InvalidRoute, "it doesn't take the message"):
            route_class(Lacking)


class UserTests(ChannelTestCase):
    def check(self, attribute):
        class MyConsumer(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                self.user_name = self.message.user.username
                self.seen = self.message.http_session.get("n")
                self.message.http_session["n"] = 2

        setattr(MyConsumer, attribute, True)
        get_user_model().objects.create_user("ada", "", "secret")
        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            self.assertTrue(client.login(username="ada", password="secret"))
            client.session["n"] = 1
            client.session.save()
            client.send_and_consume("websocket.connect")
            client._headers, cookies = {}, client.cookies
            client.cookies = type(cookies)()  # as from a gateway: no headers after the handshake
            consumer = client.send_and_consume("websocket.receive", text="x")
            self.assertEqual((consumer.user_name, consumer.seen), ("ada", 1))
            consumer = client.send_and_consume("websocket.receive", text="x")
            self.assertEqual(consumer.seen, 2)

    def test_http_user(self):
        self.check("http_user")

    def test_http_user_and_session(self):
        self.check("http_user_and_session")

    def test_http_user_reads_nothing_that_nobody_asks_for(self):
        class MyConsumer(WebsocketConsumer):
            http_user = True

        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            client.force_login(get_user_model().objects.create_user("ada"))
            client.send_and_consume("websocket.connect")
            with self.assertNumQueries(0):
                client.send_and_consume("websocket.receive", text="x")

    def test_http_user_without_one(self):
        class MyConsumer(WebsocketConsumer):
            http_user = True

            def receive(self, text=None, bytes=None, **kwargs):
                self.result = (self.message.user.pk, self.message.http_session)

        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            consumer = client.send_and_consume("websocket.receive", text="x")
            self.assertEqual(consumer.result, (None, None))


class JsonWebsocketConsumerTests(ChannelTestCase):
    def test_json_in_and_out(self):
        class MyConsumer(JsonWebsocketConsumer):
            groups = ["all"]

            def receive(self, content, **kwargs):
                self.send({"got": content, "at": datetime.date(2026, 1, 2)})
                self.group_send("all", content, close=True)

        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            client.send_and_consume("websocket.receive", text={"a": [1, "ä"]})
            self.assertEqual(client.receive(), {"got": {"a": [1, "ä"]}, "at": "2026-01-02"})
            reply = client._next_reply()
            self.assertEqual((json.loads(reply["text"]), reply["close"]), ({"a": [1, "ä"]}, True))

    def test_bad_frames(self):
        with apply_routes(JsonWebsocketConsumer.as_route()):
            client = WSClient()
            with self.assertRaises(ValueError):
                client.send_and_consume("websocket.receive", text="{not json")
            with self.assertRaisesRegex(ValueError, "binary"):
                client.send_and_consume("websocket.receive", {"bytes": b"{}"})

    def test_own_encoding(self):
        class MyConsumer(JsonWebsocketConsumer):
            @classmethod
            def decode_json(cls, text):
                return text.split(",")

            @classmethod
            def encode_json(cls, content):
                return ",".join(content)

            def receive(self, content, **kwargs):
                self.send(content[::-1])

        with apply_routes(MyConsumer.as_route()):
            client = WSClient()
            client.send_and_consume("websocket.receive", text="a,b")
            self.assertEqual(client.receive(json=False), "b,a")


class DemultiplexerTests(ChannelTestCase):
    def setUp(self):
        self.events = events = []

        class EchoConsumer(JsonWebsocketConsumer):
            groups = ["echo"]

            def connect(self, message, multiplexer, **kwargs):
                multiplexer.send({"status": "I just connected!"})

            def disconnect(self, message, multiplexer, **kwargs):
                events.append("Stream %s is closed" % multiplexer.stream)

            def receive(self, content, multiplexer, **kwargs):
                multiplexer.send({"original_message": content})
                multiplexer.group_send("echo", multiplexer.stream, "to all")
                events.append((type(multiplexer.demultiplexer), self.message.user.pk, kwargs))
                self.message.channel_session["echoed"] = True

        class AnotherConsumer(JsonWebsocketConsumer):
            def receive(self, content, multiplexer=None, **kwargs):
                events.append(("another", content, self.message.channel_session.get("echoed")))

        class Demultiplexer(WebsocketDemultiplexer):
            http_user = True
            groups = ["all"]
            consumers = {"echo": EchoConsumer, "other": AnotherConsumer}

        self.demultiplexer = Demultiplexer
        context = apply_routes(Demultiplexer.as_route(path=r"^/(?P<room>\w+)/$"))
        context.__enter__()
        self.addCleanup(context.__exit__)
        self.client = WSClient()

    def connect(self):
        self.client.send_and_consume("websocket.connect", path="/x/")

    def receive(self, content):
        self.client.send_and_consume("websocket.receive", text=content, path="/x/")

    def test_streams(self):
        self.connect()
        self.assertEqual(
            self.client.receive(), {"stream": "echo", "payload": {"status": "I just connected!"}}
        )
        self.assertIsNone(self.client.receive())
        self.receive({"stream": "echo", "payload": {"a": 1}})
        self.assertEqual(
            self.client.receive(),
            {"stream": "echo", "payload": {"original_message": {"a": 1}}},
        )
        self.assertEqual(self.client.receive(), {"stream": "echo", "payload": "to all"})
        self.receive({"stream": "other", "payload": None})
        self.client.send_and_consume("websocket.disconnect", path="/x/")
        self.assertEqual(
            self.events,
            [
                (self.demultiplexer, None, {"room": "x"}),
                ("another", None, True),
                "Stream echo is closed",
            ],
        )
        self.assertEqual(Group("echo").channels() + Group("all").channels(), [])

    def test_bad_frames(self):
        self.connect()
        for content in ([], {"stream": "echo"}, {"payload": 1}, {"stream": [], "payload": 1}):
            with self.subTest(content=content):
                with self.assertRaises(ValueError):
                    self.receive(content)
        with self.assertRaisesRegex(ValueError, "There is no stream 'nobody'.*echo, other"):
            self.receive({"stream": "nobody", "payload": 1})

    def test_send_is_not_available(self):
        class Sending(WebsocketDemultiplexer):
            def receive(self, content, **kwargs):
                self.send(content)

        with apply_routes(Sending.as_route()):
            with self.assertRaises(SendNotAvailableOnDemultiplexer):
                self.receive({"stream": "echo", "payload": 1})

    def test_send_is_refused_in_the_consumer_of_a_stream(self):
        class Plain(WebsocketConsumer):
            def receive(self, text=None, **kwargs):
                self.send(text=text)

        class Json(JsonWebsocketConsumer):
            def receive(self, content, **kwargs):
                self.send(content, close=True)

        class Streams(WebsocketDemultiplexer):
            consumers = {"plain": Plain, "json": Json}

        with apply_routes(Streams.as_route()):
            for stream in Streams.consumers:
                with self.assertRaisesRegex(SendNotAvailableOnDemultiplexer, "multiplexer.send"):
                    self.receive({"stream": stream, "payload": 1})
        self.assertIsNone(self.client.receive())

    def test_encode_and_group_send(self):
        expected = {"stream": "s", "payload": [1]}
        message = self.demultiplexer.encode("s", [1])
        self.assertEqual(json.loads(message.pop("text")), expected)
        self.assertEqual(message, {})
        self.connect()
        self.client.receive()
        self.demultiplexer.group_send("all", "s", [1])
        self.assertEqual(self.client.receive(), expected)

    def test_own_multiplexer_class(self):
        class Shouting(WebsocketMultiplexer):
            @classmethod
            def encode_json(cls, content):
                return json.dumps(content).upper()

        class Loud(self.demultiplexer):
            multiplexer_class = Shouting

        with apply_routes(Loud.as_route()):
            self.connect()
            self.assertIn("I JUST CONNECTED!", self.client.receive(json=False))

    def test_a_stream_may_refuse_the_connection(self):
        from django.channels.exceptions import DenyConnection

        class Refusing(JsonWebsocketConsumer):
            def connect(self, message, multiplexer, **kwargs):
                raise DenyConnection()

        class Both(self.demultiplexer):
            consumers = dict(self.demultiplexer.consumers, refusing=Refusing)

        with apply_routes(Both.as_route()):
            with self.assertRaisesRegex(AssertionError, "rejected"):
                self.connect()


class BadFrameTests(ChannelTestCase):
    """A client can't choose how much is logged, and its frames never become what JSON doesn't have."""

    frames = (
        "{not json",
        "",
        "NaN",
        '{"a": [Infinity, -Infinity]}',
        '{"a": 1e999}',
        '{"a": -1e999}',
        "9" * 5000,
        "[" * 100000,
        "[" * 500 + "]" * 500,
        '{"a":' * 500 + "1" + "}" * 500,
        '"\x00"',
    )

    def test_each_is_refused(self):
        for frame in self.frames:
            with self.subTest(frame=frame[:20]):
                with self.assertRaises(ValueError):
                    JsonWebsocketConsumer.decode_json(frame)
        deep = "[" * 150 + "]" * 150
        self.assertEqual(json.dumps(JsonWebsocketConsumer.decode_json(deep)), deep)
        self.assertEqual(JsonWebsocketConsumer.decode_json('[1.5, -3, "[["]'), [1.5, -3, "[["])

    def answers(self, routing, *contents):
        """Let a worker handle frames. Return its replies, and the lines that it logged."""
        layer = MemoryChannelLayer()
        layer.router = Router(routing)
        with self.assertLogs("django.channels", "WARNING") as logs:
            logging.getLogger("django.channels").warning("the first line")
            for number, content in enumerate(contents):
                content = dict(content, reply_channel="reply?1", path="/", event_id=number)
                layer.send("websocket.receive", content)
                self.assertTrue(Worker(layer, signal_handlers=False).run_once())
        replies = []
        while True:
            _, reply = layer.receive_many(["reply?1"])
            if reply is None:
                return replies, logs.records[1:]
            replies.append(reply)

    def check(self, routing, *contents):
        with mock.patch.object(consume, "_bad_frames", RateLimit(clock=lambda: 0.0)):
            replies, records = self.answers(routing, *contents)
        self.assertEqual([reply.get("error") for reply in replies], [True] * len(contents))
        self.assertEqual(len(records), 1)  # all within a second of this clock
        for record in records:
            self.assertLess(record.levelno, logging.ERROR)
            self.assertIsNone(record.exc_info)
            self.assertLess(len(record.getMessage()), 600)
            self.assertTrue(record.getMessage().isprintable())

    def test_a_json_socket_logs_one_line(self):
        contents = [{"text": frame} for frame in self.frames] + [{"bytes": b"{}"}]
        self.check([JsonWebsocketConsumer.as_route()], *contents)

    def test_a_demultiplexer_logs_one_line(self):
        class Demultiplexer(WebsocketDemultiplexer):
            consumers = {"echo": JsonWebsocketConsumer}

        contents = [{"text": frame} for frame in self.frames]
        contents += [
            {"text": json.dumps(content)}
            for content in (
                [],
                {"stream": "x" * 100000, "payload": 1},
                {"stream": "\x1b[31m\n", "payload": 1},
                {"stream": [["x"]] * 10000, "payload": 1},
                {"stream": "echo"},
            )
        ]
        self.check([Demultiplexer.as_route()], *contents)

    def test_an_error_of_the_consumer_is_logged_with_its_traceback(self):
        class Failing(JsonWebsocketConsumer):
            def receive(self, content, **kwargs):
                raise ValueError("of the site")

        replies, records = self.answers([Failing.as_route()], {"text": "1"})
        self.assertEqual(records[0].levelno, logging.ERROR)
        self.assertIsNotNone(records[0].exc_info)

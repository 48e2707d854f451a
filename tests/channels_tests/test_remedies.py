"""
Names that people look for where they aren't, and calls that look right: each ends in an error, or a line of
the log, that says what to write.
"""

import contextlib
import copy
import importlib
import io
import itertools
import sys

from django.channels import Channel, Group, include, route, route_class
from django.channels.asgi import InvalidChannelLayerError
from django.channels.binding.websockets import WebsocketBinding
from django.channels.exceptions import InvalidMessage
from django.channels.generic.async_websockets import AsyncWebsocketConsumer
from django.channels.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer
from django.channels.habits import PACKAGE
from django.channels.message import Message
from django.channels.remedies import PUBLIC, takes_instance
from django.channels.routing import InvalidRoute
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.core.exceptions import ImproperlyConfigured

from .models import Tag
from .test_silence import Lines

LOGGER = "django.channels"

_numbers = itertools.count()


def consumer(message):
    pass


class RemedyTestCase(ChannelTestCase):
    def assert_says(self, error, call, *words):
        with self.assertRaises(error) as raised:
            call()
        for word in words:
            self.assertIn(word, str(raised.exception))

    def connect(self, accepted, base=WebsocketConsumer, **attributes):
        """Run `accepted(self, message)` in `connect` of a class. Return the instance."""

        def connect(self, message, **kwargs):
            self.accept()
            accepted(self, message)

        # A name that no other test has, because the log is limited by it.
        body = dict(attributes, connect=connect, __qualname__="Made%d" % next(_numbers))
        made = type("Made", (base,), body)
        with apply_routes(made.as_route(path=r"^/(?P<room>\w+)/$")):
            return WSClient().send_and_consume("websocket.connect", path="/lobby/")


class GroupTests(RemedyTestCase):
    def test_a_group_is_no_collection(self):
        for call in (
            lambda: "x" in Group("a"),
            lambda: Group("a")[0],
            lambda: list(Group("a")),
        ):
            self.assert_says(TypeError, call, "channels()")
        self.assert_says(TypeError, lambda: Channel("a")["text"], "route(")
        self.assertTrue(Group("a"))

    def test_the_length_of_a_group(self):
        self.assert_says(
            TypeError, lambda: self.connect(lambda own, _: len(Group("a"))), "channels()"
        )
        self.assert_says(
            TypeError, lambda: self.connect(lambda own, _: list(Group("a").channels)), "channels()"
        )

    def test_methods_that_are_called_otherwise(self):
        for owner, name, word in (
            (Group("a"), "remove", "discard(channel)"),
            (Group("a"), "members", "channels()"),
            (Group("a"), "broadcast", "send({"),
            (Channel("a"), "close", '{"close": True}'),
            (Channel("a"), "accept", '{"accept": True}'),
            (Channel("a"), "receive", "route("),
        ):
            with self.subTest(name):
                self.assertFalse(hasattr(owner, name))
                self.assert_says(AttributeError, lambda: getattr(owner, name), word)  # noqa: B023

    def test_python_adds_no_other_name_to_a_remedy(self):
        message = Message({"text": "a"}, "websocket.receive", None)
        for name in ("scope", "GET", "text"):
            with self.assertRaises(AttributeError) as raised:
                getattr(message, name)
            shown = io.StringIO()
            with contextlib.redirect_stderr(shown):
                sys.__excepthook__(AttributeError, raised.exception, None)
            self.assertTrue(shown.getvalue().endswith("of the documentation.\n"), shown.getvalue())

    def test_names_that_are_missing_are_not_listed(self):
        for owner, present in (
            (Group("a"), "send"),
            (Channel("a"), "send"),
            (Message({"path": "/"}, "a", None), "content"),
        ):
            self.assertIn(present, dir(owner))
            self.assertEqual([name for name in dir(owner) if not hasattr(owner, name)], [])
        self.assertFalse(hasattr(Group, "members"))
        self.assertFalse(hasattr(Group("a").channel_layer, "group_send"))

    def test_a_missing_name_may_be_set(self):
        group = Group("a")
        group.members = ["ann"]
        self.assertEqual(group.members, ["ann"])
        message = Message({}, "a", None)
        message.user = "ann"
        self.assertEqual(message.user, "ann")
        self.assertIn("user", dir(message))

    def test_what_each_message_asks_has_no_getattr(self):
        # Python finds all attributes of a class with __getattr__ about three times more slowly.
        for owner in (Group("a"), Channel("a"), Group("a").channel_layer, Message({}, "a", None)):
            with self.subTest(owner):
                self.assertFalse(hasattr(type(owner), "__getattr__"))

    def test_a_layer_in_place_of_a_message_or_member(self):
        self.assert_says(InvalidChannelLayerError, lambda: Channel("a", {"text": "x"}), "send(")
        self.assert_says(InvalidChannelLayerError, lambda: Group("a", Channel("b")), "add(")

    def test_a_message_that_is_no_dict(self):
        for message, key in (("hello", "text"), (b"hello", "bytes"), ([1], "send_json")):
            self.assert_says(InvalidMessage, lambda: Channel("a").send(message), key)  # noqa: B023

    def test_a_call_on_the_class(self):
        def accepted(own, message):
            Group.add("room", message.reply_channel)

        self.assert_says(AttributeError, lambda: self.connect(accepted), "Group(name).add(")


class RoutingTests(RemedyTestCase):
    def test_a_route_is_no_decorator(self):
        for call in (
            lambda: route("websocket.connect"),
            lambda: route_class(path=r"^/$"),
            lambda: include(path=r"^/$"),
        ):
            self.assert_says(TypeError, call, "missing", "decorator", "channel_routing = [")

    def test_a_route_stays_what_it_was_for_introspection(self):
        made = route("own", consumer, text="a")
        self.assertEqual(copy.copy(made).channels, {"own"})
        self.assert_says(
            TypeError, lambda: route("own", consumer, 5, consumer=consumer), "consumer"
        )

    def test_a_route_in_a_route(self):
        made = WebsocketConsumer.as_route()
        for call in (
            lambda: route("websocket.connect", made),
            lambda: route_class(made),
            lambda: include({"websocket.connect": made}),
        ):
            self.assert_says(InvalidRoute, call, "is a route already", "list of routes")
        self.assert_says(InvalidRoute, lambda: include(made), "[route(…)]")


class BindingTests(RemedyTestCase):
    def test_a_binding_is_no_consumer_of_a_socket(self):
        for name in ("as_route", "as_view", "as_asgi"):
            self.assertFalse(hasattr(WebsocketBinding, name))
            self.assert_says(
                AttributeError,
                lambda: getattr(WebsocketBinding, name),  # noqa: B023
                "WebsocketBinding.consumer",
                "WebsocketDemultiplexer",
            )
        self.assert_says(AttributeError, lambda: WebsocketBinding.send, "send_messages(")
        self.assert_says(AttributeError, lambda: WebsocketBinding.other, "no attribute 'other'")

    def test_group_names_without_classmethod(self):
        def define():
            class Binding(WebsocketBinding):
                model = Tag
                stream = "items"
                fields = ["__all__"]

                def group_names(self, instance):
                    return ["items"]

        self.assert_says(ImproperlyConfigured, define, "group_names", "@classmethod")

    def test_group_names_that_takes_the_instance_alone_is_taken(self):
        self.assertTrue(takes_instance(lambda instance: ["items"]))
        self.assertFalse(takes_instance(lambda self, instance: ["items"]))


class ClassTests(RemedyTestCase):
    def test_groups_that_are_none(self):
        def accepted(own, message):
            own.groups.append("room")

        self.assert_says(AttributeError, lambda: self.connect(accepted), "connection_groups(self")

    def test_groups_that_are_changed_too_late_are_warned_of(self):
        def appended(own, message):
            own.groups.append("room")

        def assigned(own, message):
            own.groups = ["room"]

        for accepted, groups in ((appended, ["all"]), (assigned, None), (assigned, ["all"])):
            with self.subTest(accepted.__name__), Lines(LOGGER) as lines:
                own = self.connect(accepted, groups=groups)
                self.assertNotIn(own.message.reply_channel.name, Group("room").channels())
            self.assertIn("has not joined", str(lines))

    def test_groups_that_are_changed_too_late_in_async_code_are_warned_of(self):
        class Room(AsyncWebsocketConsumer):
            groups = ["all"]

            async def connect(self, message, **kwargs):
                await self.accept()
                self.groups.append("room")

        with apply_routes(Room.as_route()), Lines(LOGGER) as lines:
            WSClient().send_and_consume("websocket.connect", path="/")
        self.assertIn("has not joined", str(lines))

    def test_groups_that_are_left_alone_are_not_warned_of(self):
        with Lines(LOGGER) as lines:
            self.connect(lambda own, message: None, groups=["all"])
            self.connect(lambda own, message: None)
        self.assertEqual(lines, [])

    def test_a_switch_in_place_of_a_session_or_user(self):
        def assigned(own, message):
            own.channel_session["room"] = "a"

        self.assert_says(TypeError, lambda: self.connect(assigned), "self.message.channel_session")
        self.assert_says(
            AttributeError,
            lambda: self.connect(lambda own, _: own.http_user.username, http_user=True),
            "self.message.user",
        )

    def test_what_the_message_or_the_route_has(self):
        for name, word in (
            ("reply_channel", "self.message.reply_channel"),
            ("headers", "self.message['headers']"),
            ("room", "self.kwargs['room']"),
            ("group_add", "Group(name).add(self.message.reply_channel)"),
        ):
            with self.subTest(name):
                call = lambda: self.connect(lambda own, _: getattr(own, name))  # noqa: B023, E731
                self.assert_says(AttributeError, call, "Write " + word)
        self.assert_says(
            AttributeError,
            lambda: self.connect(lambda own, _: own.content, JsonWebsocketConsumer),
            "receive(self, content, **kwargs)",
        )

    def test_a_key_of_the_site_that_a_consumer_takes_for_an_attribute(self):
        with apply_routes([route("jobs", lambda message: message.invoice)]):
            Channel("jobs").send({"invoice": 7, "other": 8})
            self.assert_says(
                AttributeError, lambda: WSClient().consume("jobs"), "Write message['invoice']"
            )

    def test_what_a_message_has_as_keys_or_not_at_all(self):
        message = Message({"client": ["::1", 5]}, "websocket.connect", None)
        for name, word in (
            ("client", "message['client']"),
            ("data", "message['text']"),
            ("GET", "message['query_string']"),
            ("groups", "Group(name).add(message.reply_channel)"),
        ):
            with self.subTest(name):
                self.assert_says(AttributeError, lambda: getattr(message, name), word)  # noqa: B023


class ImportTests(RemedyTestCase):
    def test_a_name_of_another_module_says_which(self):
        for module, name, home in (
            ("", "WebsocketConsumer", "generic.websockets"),
            ("", "get_channel_layer", "asgi"),
            ("", "channel_session", "sessions"),
            (".generic", "JsonWebsocketConsumer", "generic.websockets"),
            (".sessions", "channel_session_user", "auth"),
            (".routing", "Group", ""),
            (".layers", "MemoryChannelLayer", "layers.memory"),
            (".binding", "WebsocketBinding", "binding.websockets"),
            (".security", "allowed_origins", "security.websockets"),
        ):
            line = "from %s%s import %s" % (PACKAGE, module, name)
            written = "from %s import %s" % ((PACKAGE + "." + home).rstrip("."), name)
            with self.subTest(line):
                self.assert_says(ImportError, lambda: exec(line), "Write: " + written)  # noqa: B023

    def test_each_name_is_where_the_table_says(self):
        for module, names in PUBLIC.items():
            found = importlib.import_module((PACKAGE + "." + module).rstrip("."))
            for name in names.split():
                with self.subTest(module + "." + name):
                    self.assertTrue(hasattr(found, name))

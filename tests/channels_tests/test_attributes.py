"""Each attribute of a class-based consumer that the documentation names, with values of the wrong type."""

import types
from unittest import mock

from django.channels import route_class
from django.channels.binding.base import BindingMetaclass
from django.channels.binding.websockets import WebsocketBindingWithMembers
from django.channels.class_checks import check_bindings
from django.channels.generic import BaseConsumer
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from django.channels.routing import InvalidRoute
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.test import SimpleTestCase
from django.utils.functional import cached_property

from .test_consumer_checks import check, made

FLAGS = ("http_user", "http_user_and_session", "channel_session_user", "channel_session")


def method(self, *args, **kwargs):
    pass


class RefusedTests(SimpleTestCase):
    def assert_refused(self, base, name, value, word):
        with self.subTest(name=name, value=value), self.assertRaises(InvalidRoute) as raised:
            made(base, **{name: value}).as_route()
        self.assertIn("Room.%s" % name, str(raised.exception))
        self.assertIn(word, str(raised.exception))

    def test_values_that_cannot_work(self):
        for name, value, word in (
            ("groups", {"chat room"}, "'chat room'"),
            ("groups", frozenset([5]), "5"),
            ("groups", {"chat room": 1}, "'chat room'"),
            ("groups", True, "a list of names, not True"),
            ("subprotocols", [5], "5 is not the name"),
            ("subprotocols", [b"chat"], "b'chat' is not the name"),
            ("subprotocols", ["chat v1"], "'chat v1' is not the name"),
            ("subprotocols", ["v1,v2"], "'v1,v2'"),
            ("allowed_origins", [5], "5"),
            ("any_origin", "no", "True or False, not 'no'"),
            ("any_origin", 1, "True or False, not 1"),
            ("any_origin", ["https://a.example"], "True or False"),
            ("login_required", "no", "3000 to 4999"),
            ("login_required", 4401.5, "3000 to 4999"),
        ):
            self.assert_refused(WebsocketConsumer, name, value, word)

    def test_a_mapping_of_methods_that_is_none(self):
        for value in (None, 5, "jobs", ["jobs"], {"jobs"}, [("jobs", "run")], method):
            for base in (BaseConsumer, WebsocketConsumer):
                self.assert_refused(base, "method_mapping", value, "a dict of channel to method")

    def test_a_class_of_multiplexers_that_is_none(self):
        for value in (None, "Multiplexer", WebsocketMultiplexer("a", None)):
            self.assert_refused(WebsocketDemultiplexer, "multiplexer_class", value, "a class")


class DoubtfulTests(SimpleTestCase):
    def assert_warned(self, base, name, value, *words):
        with self.subTest(name=name, value=value):
            room = made(base, **{name: value})
            found = [each for each in check(route_class(room)) if each.id == "channels.W025"]
            (problem,) = found
            for word in ("Room.%s is " % name,) + words:
                self.assertIn(word, problem.msg)
            self.assertTrue(problem.hint.startswith("Write "), problem.hint)

    def test_flags_that_are_neither_true_nor_false(self):
        for name in FLAGS:
            for value, word in (
                ("no", "counts as True"),
                ("False", "counts as True"),
                ("", "counts as False"),
                ([], "counts as False"),
                (2, "counts as True"),
                ({"a": 1}, "counts as True"),
                (method, "a method, so it counts as True"),
                (staticmethod(method), "a method"),
                (classmethod(method), "a method"),
            ):
                self.assert_warned(WebsocketConsumer, name, value, word)

    def test_lists_that_the_first_event_uses_up(self):
        for name in ("groups", "subprotocols", "allowed_origins"):
            self.assert_warned(WebsocketConsumer, name, (each for each in ["a"]), "uses up")
            self.assert_warned(WebsocketConsumer, name, map(str, ["a"]), "uses up")

    def test_a_method_named_login_required_is_ignored(self):
        self.assert_warned(WebsocketConsumer, "login_required", method, "ignored")

    def test_the_name_of_a_stream_that_is_a_number(self):
        several = made(WebsocketDemultiplexer, consumers={5: JsonWebsocketConsumer})
        (problem,) = check(route_class(several))
        self.assertIn("Room.consumers has the stream 5", problem.msg)

    def test_a_demultiplexer_without_streams(self):
        (problem,) = check(route_class(made(WebsocketDemultiplexer)))
        self.assertEqual(problem.id, "channels.W025")
        self.assertIn("Room.consumers is empty, so that each frame closes its socket", problem.msg)
        self.assertIn("Write {'stream': Consumer}", problem.hint)
        problems = check(route_class(made(WebsocketDemultiplexer, mapping={"a": "b"})))
        self.assertIn("'mapping', which nothing uses, and no 'consumers'", problems[0].msg)
        streams = property(lambda self: {"a": WebsocketConsumer})
        self.assertEqual(check(route_class(made(WebsocketDemultiplexer, consumers=streams))), [])

    def test_bindings(self):
        for name, value, word in (
            ("fields", 5, "is 5"),
            ("fields", True, "is True"),
            ("exclude", 5, "is 5"),
            ("exclude", (each for each in "ab"), "is an iterator"),
            ("send_members", "title", "is 'title', and not a list"),
            ("stream", 5, "is 5, and not text"),
            ("channel_session_user", "no", "is 'no', which counts as True"),
        ):
            body = {"stream": "items", "group_names": method, name: value}
            binding = made(WebsocketBindingWithMembers, __module__=__name__, **body)
            with self.subTest(name=name, value=value):
                with mock.patch.object(BindingMetaclass, "binding_classes", [binding]):
                    (problem,) = check_bindings(None)
                self.assertEqual(problem.id, "channels.W025")
                self.assertIn("Room.%s %s" % (name, word), problem.msg)

    def test_values_that_are_right(self):
        for flag in FLAGS:
            for value in (True, False, None, 0, 1, property(method), cached_property(method)):
                room = made(WebsocketConsumer, **{flag: value})
                found = [each.id for each in check(route_class(room))]
                self.assertNotIn("channels.W025", found, (flag, value))
        for body in (
            {"groups": None},
            {"groups": []},
            {"groups": {"a": 1}.keys()},
            {"groups": property(lambda self: (each for each in "ab"))},
            {"subprotocols": ("chat.v1",)},
            {"subprotocols": None},
            {"any_origin": False},
            {"login_required": None},
            {"login_required": 4401},
            {"method_mapping": types.MappingProxyType({"websocket.receive": "raw_receive"})},
        ):
            self.assertEqual(check(route_class(made(WebsocketConsumer, **body))), [], body)


class RunningTests(ChannelTestCase):
    def test_a_method_named_login_required_of_channels_1_changes_nothing(self):
        class Room(WebsocketConsumer):
            def login_required(self):
                return True

            def receive(self, text=None, bytes=None, **kwargs):
                self.send(text="%s %s" % (text, self.login_required()))

        with apply_routes([Room.as_route()]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            client.send_and_consume("websocket.receive", text="hi")
        self.assertEqual(client.receive(json=False), "hi True")

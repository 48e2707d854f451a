"""Which consumer a message goes to."""

import unittest

from django.channels import include, route, route_class
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.routing import Router, connect_consumer, null_consumer
from django.core.exceptions import ImproperlyConfigured


def first(message, **kwargs):
    pass


def second(message, **kwargs):
    pass


class ClassConsumer:
    def __init__(self, message, **kwargs):
        pass

    @classmethod
    def channel_names(cls):
        return {"websocket.connect", "websocket.receive"}


chat_routing = [
    route("websocket.connect", first, path=r"^/(?P<room>[a-z]+)/$"),
    route("websocket.receive", second),
]

not_a_routing = "text"


def match(routing, channel, defaults=False, **content):
    router = Router(routing)
    if defaults:
        router.check_default()
    return router.match(Message(content, channel, MemoryChannelLayer()))


class RoutingTests(unittest.TestCase):
    def test_a_route_takes_its_channel(self):
        routing = [route("test.one", first), route("test.two", second)]
        self.assertEqual(match(routing, "test.two"), (second, {}))
        self.assertIsNone(match(routing, "test.three"))

    def test_the_first_route_that_matches_wins(self):
        routing = [route("test", first, path="^/a"), route("test", second)]
        self.assertEqual(match(routing, "test", path="/a")[0], first)
        self.assertEqual(match(routing, "test", path="/b")[0], second)

    def test_named_groups_are_keyword_arguments(self):
        routing = [route("test", first, path=r"^/(?P<year>\d+)/", method="^(?P<verb>.*)$")]
        self.assertEqual(
            match(routing, "test", path="/2016/x", method="GET"),
            (first, {"year": "2016", "verb": "GET"}),
        )

    def test_a_filter_on_a_key_that_is_missing_does_not_match(self):
        self.assertIsNone(match([route("test", first, path="")], "test"))

    def test_filters_see_numbers_and_bytes_as_text(self):
        routing = [route("test", first, number="^7$", query=b"^a=.".decode())]
        self.assertEqual(match(routing, "test", number=7, query=b"a=1")[0], first)

    def test_a_dict_of_channel_to_consumer(self):
        routing = {"test.one": first, "test.two": __name__ + ".second"}
        self.assertEqual(match(routing, "test.one")[0], first)
        self.assertEqual(match(routing, "test.two")[0], second)

    def test_dotted_paths(self):
        self.assertEqual(
            match(__name__ + ".chat_routing", "websocket.connect", path="/lobby/"),
            (first, {"room": "lobby"}),
        )
        self.assertEqual(match([route("test", __name__ + ".first")], "test")[0], first)

    def test_include_cuts_off_what_it_matched(self):
        routing = [include(chat_routing, path=r"^/chat/(?P<version>v\d)")]
        self.assertEqual(
            match(routing, "websocket.connect", path="/chat/v2/lobby/"),
            (first, {"version": "v2", "room": "lobby"}),
        )
        self.assertIsNone(match(routing, "websocket.connect", path="/lobby/"))
        self.assertEqual(match(routing, "websocket.receive", path="/chat/v1/")[0], second)

    def test_include_by_dotted_path_without_filters(self):
        routing = [include(__name__ + ".chat_routing")]
        self.assertEqual(match(routing, "websocket.connect", path="/a/")[1], {"room": "a"})
        self.assertEqual(Router(routing).channels, {"websocket.connect", "websocket.receive"})

    def test_route_class_takes_the_channels_of_the_class(self):
        routing = [route_class(ClassConsumer, path="^/x")]
        self.assertEqual(Router(routing).channels, {"websocket.connect", "websocket.receive"})
        self.assertEqual(match(routing, "websocket.receive", path="/x"), (ClassConsumer, {}))
        with self.assertRaisesMessage("route(channel, consumer)"):
            route_class(first)

    def assertRaisesMessage(self, text):
        test = self

        class Context:
            def __enter__(self):
                return self

            def __exit__(self, kind, error, trace):
                test.assertIsNotNone(kind, "nothing was raised")
                test.assertIsInstance(error, ImproperlyConfigured)
                test.assertIn(text, str(error))
                return True

        return Context()

    def test_wrong_routing_raises_an_error_that_names_the_remedy(self):
        for routing, text in (
            ("no.such.module", "'no.such.module' cannot be imported"),
            (__name__ + ".no_such_name", "cannot be imported"),
            (__name__ + ".not_a_routing", "list of routes"),
            (7, "list of routes"),
            ([first], "use route()"),
            ({"test": "no.such.consumer"}, "'no.such.consumer' cannot be imported"),
            ({"test": 7}, "isn't callable"),
        ):
            with self.subTest(routing=routing), self.assertRaisesMessage(text):
                Router(routing)
        with self.assertRaisesMessage("a regular expression for each key"):
            route("test", first, path="(")


class DefaultRoutingTests(unittest.TestCase):
    def test_views_take_requests_that_no_route_takes(self):
        routing = [route("http.request", first, path="^/special/")]
        self.assertEqual(match(routing, "http.request", True, path="/special/")[0], first)
        consumer, _ = match(routing, "http.request", True, path="/")
        self.assertEqual(type(consumer).__name__, "ViewConsumer")

    def test_events_that_need_no_answer_are_ignored_by_default(self):
        for channel in ("http.disconnect", "websocket.disconnect", "websocket.receive"):
            self.assertEqual(match([], channel, True, path="/")[0], null_consumer)

    def test_a_socket_is_accepted_by_default_if_a_route_takes_its_frames(self):
        routing = [route("websocket.receive", first, path="^/echo/")]
        self.assertEqual(
            match(routing, "websocket.connect", True, path="/echo/")[0], connect_consumer
        )
        self.assertIsNone(match(routing, "websocket.connect", True, path="/else/"))
        self.assertIsNone(match([], "websocket.connect", True, path="/"))

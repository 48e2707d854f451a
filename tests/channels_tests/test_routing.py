"""Which consumer a message goes to."""

import re
import unittest

from django.channels import include, route, route_class
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.routing import Route, Router, connect_consumer, null_consumer
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


class OwnRoute:
    """A site's own kind of route: takes what is for one user, and keeps what it was asked."""

    def __init__(self, user, channels=("test.own",)):
        self.user, self.channels, self.asked = user, channels, []

    def channel_names(self):
        return list(self.channels)

    def match(self, message):
        self.asked.append((message.channel.name, dict(message.content)))
        if message.channel.name in self.channels and message.get("user") == self.user:
            return first, {"user": self.user}
        return None


class OnlyMatch:
    def match(self, message):
        return (second, {}) if message["path"] == "/own" else None


class UpperRoute(Route):
    def match(self, message):
        found = super().match(message)
        return found and (found[0], {name: text.upper() for name, text in found[1].items()})


class OwnRouteTests(unittest.TestCase):
    """A list of routes may have any object with `match(message)`, as in Channels 1.1."""

    def test_it_is_asked_in_its_place(self):
        own = OwnRoute("ann")
        routing = [route("test.own", second, path="^/first"), own, route("test.own", second)]
        self.assertEqual(match(routing, "test.own", user="ann", path="/first")[0], second)
        self.assertEqual(own.asked, [])
        self.assertEqual(match(routing, "test.own", user="ann"), (first, {"user": "ann"}))
        self.assertEqual(match(routing, "test.own", user="bob"), (second, {}))

    def test_its_channels_are_consumed(self):
        routing = [include([OwnRoute("ann", ["test.a", "test.b"])]), OnlyMatch()]
        self.assertEqual(Router(routing).channels, {"test.a", "test.b"})
        router = Router([])
        router.add_route(OwnRoute("ann", ["test.c"]))
        self.assertEqual(router.channels, {"test.c"})
        found = router.match(Message({"user": "ann"}, "test.c", MemoryChannelLayer()))
        self.assertEqual(found, (first, {"user": "ann"}))

    def test_it_needs_no_channel_names(self):
        self.assertEqual(match([OnlyMatch()], "http.request", path="/own")[0], second)
        self.assertIsNone(match([OnlyMatch()], "http.request", path="/"))

    def test_inside_an_include_it_sees_the_rest_of_the_value(self):
        own = OwnRoute("ann")
        routing = [include([own], path="^/(?P<area>[a-z]+)")]
        message = Message({"path": "/shop/cart", "user": "ann"}, "test.own", MemoryChannelLayer())
        self.assertEqual(Router(routing).match(message), (first, {"area": "shop", "user": "ann"}))
        self.assertEqual(own.asked, [("test.own", {"path": "/cart", "user": "ann"})])
        self.assertEqual(message["path"], "/shop/cart")

    def test_a_subclass_of_route_may_extend_match(self):
        routing = [include([UpperRoute("test", first, path="^/(?P<room>[a-z]+)")])]
        self.assertEqual(match(routing, "test", path="/lobby"), (first, {"room": "LOBBY"}))

    def test_a_subclass_of_route_may_take_other_channels(self):
        class OtherRoute(Route):
            def match(self, message):
                return second, {}

        class FoundRoute(Route):
            def find(self, channel, content, message):
                return second, {}

        for kind in (OtherRoute, FoundRoute):
            with self.subTest(kind=kind.__name__):
                self.assertEqual(match([kind("test", first)], "other")[0], second)

    def test_a_route_may_get_its_own_find(self):
        changed = route("test", first)
        changed.find = lambda channel, content, message: (second, {})
        self.assertEqual(match([changed], "other")[0], second)

    def test_a_socket_whose_frames_it_takes_is_accepted_by_default(self):
        own = OwnRoute("ann", ["websocket.receive"])
        consumer, _ = match([own], "websocket.connect", True, user="ann")
        self.assertEqual(consumer, connect_consumer)
        self.assertIn(("websocket.receive", {"user": "ann"}), own.asked)

    def test_routes_match_by_themselves(self):
        message = Message({"path": "/lobby/"}, "websocket.connect", MemoryChannelLayer())
        self.assertEqual(chat_routing[0].match(message), (first, {"room": "lobby"}))
        self.assertIsNone(chat_routing[1].match(message))
        self.assertEqual(include(chat_routing).match(message), (first, {"room": "lobby"}))
        self.assertIsNone(include(chat_routing, path="^/other").match(message))

    def test_a_route_that_is_replaced_is_not_asked_again(self):
        router = Router([route("test", first)])
        message = Message({}, "test", MemoryChannelLayer())
        self.assertEqual(router.match(message)[0], first)
        router.root.routes[0] = route("test", second)
        self.assertEqual(router.match(message)[0], second)


class FilterTests(unittest.TestCase):
    def test_positional_groups_are_refused(self):
        for pattern in (r"^/(\w+)/", r"^/(?P<room>\w+)/(\w+)", re.compile("(a)")):
            with self.subTest(pattern=pattern):
                with self.assertRaisesRegex(ImproperlyConfigured, "path=.*positional groups"):
                    route("http.request", first, path=pattern)
                with self.assertRaises(ValueError):  # as in Channels 1.1, which raised it later
                    route_class(ClassConsumer, path=pattern)
        route("http.request", first, path=r"^/(?:\w+)/(?P<room>\w+)")

    def test_an_include_may_have_positional_groups(self):
        routing = [include([route("test", first, path="^/x")], path="^/(a|b)")]
        self.assertEqual(match(routing, "test", path="/b/x"), (first, {}))

    def test_a_pattern_may_be_written_as_bytes(self):
        routing = [route("test", first, path=b"^/(?P<room>[a-z]+)")]
        self.assertEqual(match(routing, "test", path="/lobby"), (first, {"room": "lobby"}))
        self.assertEqual(match(routing, "test", path=b"/lobby"), (first, {"room": "lobby"}))

    def test_compiled_patterns_of_bytes_are_refused(self):
        for make in (
            lambda: route("test", first, path=re.compile(b"^/")),
            lambda: include([], path=re.compile(b"^/")),
        ):
            with self.assertRaisesRegex(ImproperlyConfigured, "path=.*filters see text"):
                make()


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

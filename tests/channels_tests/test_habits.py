"""
Mistakes of newcomers and of people who know Channels 2 to 4: each ends in an error that says what to write.
"""

import glob
import importlib
import importlib.util
import os
import sys
from unittest import mock

from django import channels
from django.channels import Group, checks, include, route, route_class
from django.channels.checks import check_channel_layers
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.habits import MODULES, NAMES, PACKAGE
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.routing import Router
from django.channels.sessions import channel_session
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings
from django.views.generic import View

PAGE = "from-channels-2.txt"


def made(base, **body):
    return type("Room", (base,), body)


class ImportTests(SimpleTestCase):
    def assert_refused(self, statement, *words):
        with self.assertRaises(ImportError) as raised:
            exec(statement, {})
        for word in words + (PAGE,):
            self.assertIn(word, str(raised.exception))
        return raised.exception

    def test_each_module_of_channels_4_is_refused_with_what_to_write(self):
        for name, remedy in MODULES.items():
            for statement in ("import channels.%s", "from channels.%s import anything"):
                statement = statement.replace("channels", PACKAGE) % name
                with self.subTest(statement):
                    error = self.assert_refused(statement, remedy)
                    self.assertIsInstance(error, ModuleNotFoundError)

    def test_each_name_of_channels_4_is_refused_with_what_to_write(self):
        for module, names in NAMES.items():
            for name, remedy in names.items():
                with self.subTest(module=module, name=name):
                    self.assert_refused("from %s.%s import %s" % (PACKAGE, module, name), remedy)

    def test_the_names_that_the_guides_of_channels_4_begin_with(self):
        self.assert_refused("from %s.layers import get_channel_layer" % PACKAGE, "Group(name)")
        self.assert_refused("from %s.layers import InMemoryChannelLayer" % PACKAGE, "memory")
        self.assert_refused("import %s.generic.websocket" % PACKAGE, "generic.websockets")
        self.assert_refused("from %s.db import database_sync_to_async" % PACKAGE, "ORM")

    def test_the_redis_layer_of_channels_4_is_refused(self):
        if importlib.util.find_spec("channels_redis") is not None:
            self.skipTest("channels_redis is installed here")
        self.assert_refused("from channels_redis.core import RedisChannelLayer", "asgi_redis")
        self.assertNotIn("channels_redis", sys.modules)

    def test_a_search_for_what_is_installed_finds_nothing_and_raises_nothing(self):
        for name in MODULES:
            if "." not in name:
                self.assertIsNone(importlib.util.find_spec("%s.%s" % (PACKAGE, name)))
        if "channels_redis" not in sys.modules:
            importlib.util.find_spec("channels_redis")

    def test_any_other_name_is_missing_as_ever(self):
        for module in ("layers", "routing", "auth", "exceptions", "sessions"):
            found = importlib.import_module("%s.%s" % (PACKAGE, module))
            self.assertFalse(hasattr(found, "no_such_name"))
        with self.assertRaisesRegex(ImportError, "no_such_module"):
            importlib.import_module(channels.__name__ + ".no_such_module")


class RouteTests(SimpleTestCase):
    def assert_refused(self, consumer, *words, channel="websocket.receive", **filters):
        with self.assertRaises(ImproperlyConfigured) as raised:
            route(channel, consumer, **filters)
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_a_function_that_takes_no_message(self):
        def ws_connect():
            pass

        def keywords_only(**kwargs):
            pass

        self.assert_refused(ws_connect, "ws_connect", "doesn't take the message", "(message, **")
        self.assert_refused(keywords_only, "doesn't take the message")
        self.assert_refused(channel_session(ws_connect), "ws_connect", "doesn't take the message")

    def test_a_function_without_an_argument_for_a_group_of_its_filter(self):
        def ws_receive(message):
            pass

        self.assert_refused(ws_receive, "'room'", "**kwargs", path=r"^/(?P<room>\w+)/$")
        self.assert_refused(
            channel_session(ws_receive), "ws_receive", "'room'", path=r"^/(?P<room>\w+)/$"
        )

    def test_a_generator_would_run_nothing(self):
        def ws_receive(message):
            yield message

        async def streams(message):
            yield message

        self.assert_refused(ws_receive, "ws_receive", "generator", "yield")
        self.assert_refused(streams, "generator")

    def test_an_asgi_application_is_no_consumer(self):
        async def application(scope, receive, send):
            pass

        class Application:
            async def __call__(self, scope, receive, send):
                pass

        self.assert_refused(application, "ASGI application", PAGE)
        self.assert_refused(Application(), "ASGI application", PAGE)

    def test_a_view_is_no_consumer(self):
        self.assert_refused(made(View), "view", "urls.py", channel="http.request")

    def test_a_class_of_channels_4_is_refused(self):
        class Consumer:
            def __init__(self, *args, **kwargs):
                pass

            @classmethod
            def as_asgi(cls):
                pass

        self.assert_refused(Consumer, "ASGI application", PAGE)

    def test_what_can_be_run_is_taken(self):
        async def asynchronous(message, room):
            pass

        class Instance:
            def __call__(self, message, room=None):
                pass

            def method(self, event, **kwargs):
                pass

            @classmethod
            def of_class(cls, message, room):
                pass

        def of_a_decorator(function):
            import functools

            @functools.wraps(function)
            def inner(*args, **kwargs):
                return function(*args, extra=1, **kwargs)

            return inner

        @of_a_decorator
        def decorated(message, extra, room):
            pass

        own = Instance()
        for consumer in (
            asynchronous,
            own,
            own.method,
            own.of_class,
            lambda message, **kwargs: None,
            decorated,
            made(WebsocketConsumer),
            made(JsonWebsocketConsumer),
            made(WebsocketDemultiplexer),
        ):
            route("websocket.receive", consumer, path=r"^/(?P<room>\w+)/$")


class ClassTests(SimpleTestCase):
    def assert_refused(self, base, body, *words, **filters):
        with self.assertRaises(ImproperlyConfigured) as raised:
            made(base, **body).as_route(**filters)
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_methods_with_the_arguments_of_channels_4(self):
        for base, body, words in [
            (WebsocketConsumer, {"connect": lambda self: 1}, ["Room.connect", "message"]),
            (
                WebsocketConsumer,
                {"receive": lambda self, text_data=None, bytes_data=None: 1},
                ["Room.receive", "'text_data'", "text=None, bytes=None", PAGE],
            ),
            (
                WebsocketConsumer,
                {"disconnect": lambda self, close_code: 1},
                ["Room.disconnect", "message['code']", PAGE],
            ),
            (JsonWebsocketConsumer, {"receive_json": lambda self, content: 1}, ["receive", PAGE]),
            (WebsocketConsumer, {"websocket_connect": lambda self, event: 1}, ["connect", PAGE]),
            (JsonWebsocketConsumer, {"receive": lambda self: 1}, ["Room.receive", "content"]),
        ]:
            with self.subTest(body=sorted(body)):
                self.assert_refused(base, {k: named(v, k) for k, v in body.items()}, *words)

    def test_a_method_without_an_argument_for_a_group(self):
        self.assert_refused(
            WebsocketConsumer,
            {"connect": named(lambda self, message: 1, "connect")},
            "'room'",
            path=r"^/(?P<room>\w+)/$",
        )

    def test_a_method_that_is_missing(self):
        self.assert_refused(WebsocketConsumer, {"method_mapping": {"a": "on_a"}}, "'on_a'")

    def test_as_asgi_names_as_route(self):
        with self.assertRaisesRegex(ImproperlyConfigured, r"Room.as_route\(path.*" + PAGE):
            made(WebsocketConsumer).as_asgi()

    def test_a_site_may_call_its_own_methods_as_it_likes(self):
        def raw_receive(self, message, **kwargs):
            self.receive_json(message["text"])

        made(
            WebsocketConsumer, raw_receive=raw_receive, receive=lambda self, text_data: 1
        ).as_route()
        made(
            JsonWebsocketConsumer,
            receive=lambda self, content, **kwargs: self.receive_json(content),
            receive_json=lambda self, content: 1,
        ).as_route()

    def test_attributes_of_channels_4_are_refused_by_what_is_here(self):
        consumer = made(WebsocketConsumer).__new__(made(WebsocketConsumer))
        for name, word in [
            ("scope", "self.message"),
            ("channel_name", "reply_channel.name"),
            ("channel_layer", "Group(name)"),
            ("send_json", "send(content)"),
        ]:
            with self.assertRaises(AttributeError) as raised:
                getattr(consumer, name)
            self.assertIn(word, str(raised.exception))
            self.assertIn(PAGE, str(raised.exception))
        with self.assertRaisesRegex(AttributeError, "'Room' object has no attribute 'nothing'"):
            consumer.nothing  # noqa: B018

    def test_a_message_without_a_user_says_how_to_get_one(self):
        message = Message({}, "websocket.receive", MemoryChannelLayer())
        with self.assertRaisesRegex(AttributeError, "channel_session_user_from_http"):
            message.user  # noqa: B018
        with self.assertRaisesRegex(AttributeError, "http_session"):
            message.http_session  # noqa: B018
        self.assertFalse(hasattr(message, "scope"))


def named(function, name):
    """Return `function`, a method of Room."""
    function.__qualname__ = "Room." + name
    return function


class RoutingTests(SimpleTestCase):
    def test_a_class_in_place_of_a_route(self):
        with self.assertRaisesRegex(ImproperlyConfigured, r"write Room.as_route\("):
            Router([made(WebsocketConsumer)])

    def test_a_url_pattern_in_place_of_a_route(self):
        class Pattern:
            def resolve(self, path):
                pass

        with self.assertRaisesRegex(ImproperlyConfigured, "URL pattern.*as_route.*" + PAGE):
            Router([Pattern()])

    def check(self, routing):
        layers = {
            "default": {
                "BACKEND": MemoryChannelLayer.__module__ + ".MemoryChannelLayer",
                "ROUTING": routing,
            }
        }
        with override_settings(CHANNEL_LAYERS=layers):
            return check_channel_layers(None)

    def test_check_names_an_argument_that_no_filter_gives(self):
        def ws_receive(message, room):
            pass

        (problem,) = self.check([route("websocket.receive", ws_receive)])
        self.assertEqual(problem.id, "channels.E007")
        for word in ("'default'", "ws_receive", "'room'"):
            self.assertIn(word, problem.msg)
        self.assertIn("(?P<room>", problem.hint)
        inner = [route("websocket.receive", ws_receive)]
        self.assertEqual(self.check([include(inner, path=r"^/(?P<room>\w+)")]), [])

    def test_check_names_a_group_of_an_include_that_a_consumer_does_not_take(self):
        def ws_receive(message):
            pass

        inner = [route("websocket.receive", ws_receive)]
        (problem,) = self.check([include(inner, path=r"^/(?P<room>\w+)")])
        self.assertEqual(problem.id, "channels.E007")
        self.assertIn("'room'", problem.msg)

    def test_check_looks_into_the_methods_of_a_class(self):
        def connect(self, message, room):
            Group(room).add(message.reply_channel)

        (problem,) = self.check([route_class(made(WebsocketConsumer, connect=connect))])
        self.assertEqual(problem.id, "channels.E007")
        self.assertIn("'room'", problem.msg)


class BesideTests(SimpleTestCase):
    def check(self, **versions):
        with mock.patch.object(checks, "installed_version", versions.get):
            return checks.check_channels_4(None)

    def test_distributions_of_channels_4_are_named_with_what_to_do(self):
        first, second = self.check(channels="4.2.0", channels_redis="4.3.0")
        self.assertEqual((first.id, second.id), ("channels.W011", "channels.W011"))
        self.assertIn("channels 4.2.0 is installed", first.msg)
        self.assertIn("pip uninstall channels_redis", second.hint)
        self.assertIn(PAGE, second.hint)

    def test_this_distribution_is_no_mistake(self):
        self.assertEqual(self.check(channels=channels.__version__), [])
        self.assertEqual(channels.__version__.split(".")[:2], ["1", "2"])

    def test_daphne_among_the_applications_takes_runserver_away(self):
        with override_settings():
            settings.INSTALLED_APPS = ["daphne"] + list(settings.INSTALLED_APPS)
            (problem,) = self.check()
        self.assertEqual(problem.id, "channels.W012")
        self.assertIn("runserver", problem.msg)

    def test_no_message_recommends_what_installs_something_else(self):
        folder = os.path.dirname(channels.__file__)
        for path in glob.glob(os.path.join(folder, "**", "*.py"), recursive=True):
            with open(path, encoding="utf-8") as source:
                self.assertNotRegex(
                    source.read(), r"pip install[^\n]*(channels\[|asgi_redis>)", path
                )

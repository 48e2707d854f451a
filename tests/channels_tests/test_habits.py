"""
Mistakes of newcomers and of people who know Channels 2 to 4: each ends in an error that says what to write.
"""

import ast
import asyncio
import copy
import glob
import importlib
import importlib.util
import inspect
import operator
import os
import subprocess
import sys
import warnings
from unittest import mock

from django import channels
from django.channels import Channel, Group, advice, checks, include, route, route_class
from django.channels.checks import check_channel_layers
from django.channels.consume import run_consumer
from django.channels.generic.async_websockets import AsyncWebsocketConsumer
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.habits import MODULES, NAMES, OTHER_NAME, PACKAGE
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.pages import TITLES, see
from django.channels.routing import Router
from django.channels.sessions import channel_session
from django.channels.test import WSClient
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings
from django.views.generic import View

from .support.requirements import require

PAGE = "Coming from Channels 2, 3, 4"
MEMORY = MemoryChannelLayer.__module__ + ".MemoryChannelLayer"
SETTING = "DJANGO_CHANNEL_LAYERS" if PACKAGE == OTHER_NAME else "CHANNEL_LAYERS"


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

    def test_the_parent_of_such_a_module_names_it_too(self):
        for name, remedy in MODULES.items():
            parent, _, child = (PACKAGE + "." + name).rpartition(".")
            with self.subTest(name):
                self.assert_refused("from %s import %s" % (parent, child), remedy)

    def test_hasattr_works_and_a_dot_names_the_remedy(self):
        for module, names in NAMES.items():
            found = importlib.import_module("%s.%s" % (PACKAGE, module))
            for name, remedy in names.items():
                with self.subTest(module=module, name=name):
                    self.assertFalse(hasattr(found, name))
                    self.assertIsNone(getattr(found, name, None))
                    with self.assertRaises(AttributeError) as raised:
                        getattr(found, name)
                    self.assertIn(remedy, str(raised.exception))
        self.assertFalse(hasattr(channels, "db"))

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

    def test_a_function_in_place_of_the_name_of_a_method(self):
        def run(self, message, **kwargs):
            pass

        self.assert_refused(
            WebsocketConsumer, {"method_mapping": {"a": run}}, "a function", "'run'"
        )

    def test_an_init_that_handles_no_message(self):
        def without_super(self, *args, **kwargs):
            self.users = []

        def without_message(self):
            super(WebsocketConsumer, self).__init__()

        self.assert_refused(
            WebsocketConsumer, {"__init__": without_super}, "Room.__init__", "super()", PAGE
        )
        self.assert_refused(
            WebsocketConsumer, {"__init__": without_message}, "Room.__init__", "message", PAGE
        )

    def test_an_init_that_handles_the_message_is_taken(self):
        class Room(WebsocketConsumer):
            def __init__(self, message, **kwargs):
                self.room = "lobby"
                super().__init__(message, **kwargs)

        class Other(WebsocketConsumer):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)

        for each in (Room, Other):
            each.as_route()

    def test_state_on_self_of_another_message(self):
        class Room(WebsocketConsumer):
            def connect(self, message):
                self.room_name = "lobby"
                self.accept()

            def receive(self, text=None, bytes=None):
                self.send(text=self.room_name)

        with self.assertRaises(AttributeError) as raised:
            handled(Room, "websocket.connect")
            handled(Room, "websocket.receive", text="hi")
        for word in ("'room_name'", "message.channel_session", "__init__", PAGE):
            self.assertIn(word, str(raised.exception))

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
            ("user", "http_user"),
            ("session", "http_user_and_session"),
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

    def test_what_a_message_has_elsewhere(self):
        message = Message({"text": "x"}, "websocket.receive", MemoryChannelLayer())
        for name, word in [
            ("text", "message['text']"),
            ("path", "message['path']"),
            ("send", "message.reply_channel.send({…})"),
            ("close", "message.reply_channel.send({…})"),
        ]:
            self.assertFalse(hasattr(message, name))
            with self.assertRaises(AttributeError) as raised:
                getattr(message, name)
            self.assertIn(word, str(raised.exception))
            self.assertIn('the page "Messages"', str(raised.exception))
        with self.assertRaisesRegex(AttributeError, "has no attribute 'nothing'$"):
            message.nothing  # noqa: B018


def handled(consumer, channel, **content):
    """Have `consumer` handle a message, as a worker does. Raises what it raises."""
    layer = MemoryChannelLayer()
    message = Message(dict({"reply_channel": "gateway.a!b"}, **content), channel, layer)
    result = run_consumer(message, consumer, {}, sender=None)
    if result.error is not None:
        raise result.error
    return result


class CallTests(SimpleTestCase):
    """Calls with the arguments of Channels 4, and awaited calls that aren't asynchronous."""

    def assert_hint(self, base, call, *words):
        async def asynchronous(self, message):
            await call(self)

        def synchronous(self, message):
            call(self)

        connect = asynchronous if inspect.iscoroutinefunction(call) else synchronous
        with self.assertRaises(TypeError) as raised:
            handled(made(base, connect=connect), "websocket.connect")
        for word in words + ("of the documentation",):
            self.assertIn(word, str(raised.exception))

    def test_arguments_of_channels_4(self):
        reply = operator.attrgetter("message.reply_channel")
        for call, words in [
            (lambda self: self.send(text_data="x"), ["'text_data'", "text=…", PAGE]),
            (lambda self: self.send(bytes_data=b"x"), ["'bytes_data'", "bytes=…"]),
            (lambda self: self.close(code=4000), ["'code'", "close(4000)"]),
            (lambda self: self.close(reason="x"), ["'reason'", "without a reason"]),
            (lambda self: reply(self).send(text_data="x"), ["'text_data'", '{"text": …}']),
            (lambda self: reply(self).send(bytes_data=b"x"), ["'bytes_data'", '{"bytes": …}']),
            (lambda self: Group("a").send(text_data="x"), ["'text_data'", '{"text": …}']),
            (lambda self: self.accept(headers=[]), ["'headers'", "subprotocol"]),
        ]:
            with self.subTest(words=words):
                self.assert_hint(WebsocketConsumer, call, *words)
        self.assert_hint(
            JsonWebsocketConsumer, lambda self: self.send(text_data="x"), "send(content)"
        )

    def test_arguments_of_channels_4_in_async_consumers(self):
        for call, words in [
            (awaits(lambda self: self.send(text_data="x")), ["'text_data'", "text=…", PAGE]),
            (awaits(lambda self: self.close(code=4000)), ["'code'", "close(4000)"]),
            (awaits(lambda self: Channel("a").asend(text_data="x")), ['{"text": …}']),
        ]:
            with self.subTest(words=words):
                self.assert_hint(AsyncWebsocketConsumer, call, *words)

    def test_await_of_a_synchronous_send(self):
        words = [
            "'await'" if sys.version_info < (3, 14) else "awaited",
            "asend({…})",
            "Asynchronous consumers",
        ]
        send = awaits(lambda self: self.message.reply_channel.send({"text": "x"}))
        self.assert_hint(AsyncWebsocketConsumer, send, *words)
        self.assert_hint(WebsocketConsumer, awaits(lambda self: self.send(text="x")), *words)
        self.assert_hint(WebsocketConsumer, awaits(lambda self: self.accept()), *words)

    def test_an_error_of_the_site_stays_as_it_is(self):
        def call(self):
            raise TypeError("f() got an unexpected keyword argument 'text_data'")

        with self.assertRaises(TypeError) as raised:
            handled(
                made(WebsocketConsumer, connect=lambda self, message: call(self)),
                "websocket.connect",
            )
        self.assertEqual(
            str(raised.exception), "f() got an unexpected keyword argument 'text_data'"
        )


class SendTests(SimpleTestCase):
    """Calls of Channel, Group and layer in a view, a command or a shell: no consumer runs."""

    def test_keys_of_a_message_as_keywords(self):
        for call, words in [
            (lambda: Channel("x").send(text_data="a"), ["'text_data'", '{"text": …}', PAGE]),
            (
                lambda: Group("g").send(text="a"),
                ["'text'", 'send({"text": …})', 'the page "Messages"'],
            ),
            (lambda: Group("g").send(bytes=b"a"), ["'bytes'", 'send({"bytes": …})']),
            (lambda: Channel("x").send(type="chat.message", text="a"), ['send({"text": …})']),
            (lambda: Channel("x").send(message={}), ["'message'", 'send({"text": …})']),
            (lambda: Group("g").send(close=True), ["'close'", 'send({"close": True})']),
            (lambda: run(Group("g").asend(text="a")), ["'text'", 'asend({"text": …})']),
            (lambda: run(Channel("x").asend(message={})), ["'message'", 'asend({"text": …})']),
        ]:
            with self.subTest(words=words), self.assertRaises(TypeError) as raised:
                call()
            for word in words + ["of the documentation"]:
                self.assertIn(word, str(raised.exception))

    def test_other_errors_of_a_send_have_no_hint(self):
        for call in (lambda: Group("g").send(), lambda: Group("g").send({}, nonsense=1)):
            with self.assertRaises(TypeError) as raised:
                call()
            self.assertNotIn("documentation", str(raised.exception))

    def test_sends_stay_what_they_were_for_introspection(self):
        self.assertTrue(inspect.iscoroutinefunction(Group.asend))
        self.assertTrue(inspect.iscoroutinefunction(Channel("x").asend))
        self.assertFalse(inspect.iscoroutinefunction(Group.send))
        self.assertIn("exclude", inspect.signature(Group.send).parameters)

    def test_async_to_sync_of_a_synchronous_send_sends_nothing(self):
        require("asgiref.sync")
        from asgiref.sync import async_to_sync

        for send in (Group("g").send, Channel("x").send):
            with mock.patch.object(type(send.__self__), "_deliver") as deliver:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # asgiref warns of it, too
                    with self.assertRaises(TypeError) as raised:
                        async_to_sync(send)({"text": "a"})
                deliver.assert_not_called()
            for word in ("without async_to_sync", "await asend(…)", "Asynchronous consumers"):
                self.assertIn(word, str(raised.exception))
        with mock.patch.object(Group, "_deliver") as deliver:
            async_to_sync(Group("g").asend)({"text": "a"})
            deliver.assert_called_once()

    def test_methods_of_a_layer_of_channels_4(self):
        for owner in (Group("g"), Channel("x"), MemoryChannelLayer()):
            for name, word in [
                ("group_add", "Group(name).add(channel)"),
                ("group_discard", "Group(name).discard(channel)"),
                ("group_send", "Group(name).send({…})"),
            ]:
                if callable(getattr(type(owner), name, None)):
                    continue  # a layer has them
                self.assertFalse(hasattr(owner, name))
                with self.assertRaises(AttributeError) as raised:
                    getattr(owner, name)
                for each in (name, word, PAGE):
                    self.assertIn(each, str(raised.exception))
            with self.assertRaisesRegex(AttributeError, "has no attribute 'nothing'$"):
                owner.nothing  # noqa: B018
        self.assertEqual(copy.copy(Group("g")), Group("g"))

    def test_text_that_is_a_dict_is_warned_of(self):
        client = Channel("gateway.a!b")
        for number, send in enumerate((Group("dicts").send, client.send)):
            for text in ({"a": 1}, [1]):
                with self.subTest(number=number, text=text):
                    advice._not_text = advice.RateLimitByKey(advice.INTERVAL)
                    with self.assertLogs("django.channels", "WARNING") as logged:
                        send({"text": text})
                    self.assertIn("send_json(content)", logged.output[0])
                    self.assertIn('the page "Messages"', logged.output[0])
        with mock.patch.object(advice, "_not_text") as line:
            Channel("site").send({"text": {"a": 1}})
            Group("dicts").send({"text": "a", "data": {"a": 1}})
            Group("dicts").send_json({"a": 1})
        line.log.assert_not_called()


def run(awaitable):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.close()


def awaits(call):
    """Return an asynchronous function that awaits what `call` returns."""

    async def awaiting(self):
        await call(self)

    return awaiting


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

    def test_a_pattern_of_path_in_place_of_a_regular_expression(self):
        for path, words in [
            ("chat/<str:room>/", 'r"^/chat/(?P<room>[^/]+)/$"'),
            ("/chat/<int:number>/", 'r"^/chat/(?P<number>[0-9]+)/$"'),
            ("chat/<room>/", 'r"^/chat/(?P<room>[^/]+)/$"'),
        ]:
            for refused in (route, include):
                with self.subTest(path=path), self.assertRaises(ImproperlyConfigured) as raised:
                    if refused is route:
                        route("websocket.receive", lambda message, **kwargs: None, path=path)
                    else:
                        include([], path=path)
                for word in (path, words, "path()", PAGE):
                    self.assertIn(word, str(raised.exception))
        route("websocket.receive", lambda message, **kwargs: 1, path=r"^/(?P<a>\w+)/(?<=/)(?<!x)$")
        route("websocket.receive", lambda message, **kwargs: 1, text="<b>")

    def check(self, routing):
        layers = {
            "default": {
                "BACKEND": MEMORY,
                "ROUTING": routing,
            }
        }
        with override_settings(**{SETTING: layers}):
            return check_channel_layers(None)

    def test_a_path_in_place_of_a_channel(self):
        with self.assertRaisesRegex(ImproperlyConfigured, r"is a path.*route\('websocket.receive'"):
            route("^/chat/$", lambda message: None)

    def test_arguments_of_routes_in_another_order(self):
        room = made(WebsocketConsumer)

        def receive(message):
            pass

        for call, words in [
            (lambda: room.as_route("^/chat/$"), "Room.as_route(path='^/chat/$')"),
            (lambda: route_class("^/x$", room), "route_class(Room, path='^/x$')"),
            (lambda: route_class(room, "^/x$"), "route_class(consumer, path='^/x$')"),
            (lambda: route_class("/x/"), "route_class(consumer, path='/x/')"),
            (lambda: route("^/x$", receive), "route('websocket.receive', consumer, path='^/x$')"),
            (lambda: route("/x", receive), "route('websocket.receive', consumer, path='/x')"),
            (lambda: route("websocket.receive", receive, "^/x$"), "consumer, path='^/x$')"),
            (lambda: route(receive, "websocket.receive"), "route('websocket.receive', receive)"),
            (lambda: route(room, "^/x$"), "route('websocket.receive', Room)"),
            (lambda: include("^/x", []), "include(routing, path='^/x')"),
            (lambda: include([], "^/x"), "include(routing, path='^/x')"),
        ]:
            with self.subTest(words), self.assertRaises(ImproperlyConfigured) as raised:
                call()
            for word in (words, PAGE):
                self.assertIn(word, str(raised.exception))

    def test_a_consumer_among_the_views(self):
        with self.assertRaises(ImproperlyConfigured) as raised:
            made(WebsocketConsumer).as_view()
        for word in ("Room.as_route(path=", "ROUTING", "urls.py", PAGE):
            self.assertIn(word, str(raised.exception))

    def test_check_names_a_misspelt_channel_and_a_path_without_a_slash(self):
        def consumer(message):
            pass

        (problem,) = self.check([route("websocket.recieve", consumer)])
        self.assertEqual(problem.id, "channels.W015")
        self.assertIn("'websocket.receive'", problem.hint)
        for path in ("chat/", "^chat/$"):
            (problem,) = self.check([route("websocket.receive", consumer, path=path)])
            self.assertEqual(problem.id, "channels.W015")
            self.assertIn("^/chat/", problem.hint)
        inner = [route("websocket.receive", consumer, path="^chat/$")]
        fine = [include(inner, path="^/"), route("mail.receive", consumer, path="^x")]
        for path in ("^/chat/", ".*chat", "(?:/a|/b)$", "/chat/"):
            fine.append(route("websocket.receive", consumer, path=path))
        self.assertEqual(self.check(fine), [])

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

    def test_check_says_what_a_class_gets_for_a_frame(self):
        for name, source in (
            ("content", "JsonWebsocketConsumer receive(content)"),
            ("message", "text=…"),
        ):
            scope = {}
            exec("def receive(self, %s, **kwargs): pass" % name, scope)
            (problem,) = self.check(
                [route_class(made(WebsocketConsumer, receive=scope["receive"]))]
            )
            self.assertEqual(problem.id, "channels.E007")
            self.assertIn(repr(name), problem.msg)
            self.assertIn(source, problem.hint)

    def test_check_names_a_class_without_a_channel(self):
        (problem,) = self.check([route_class(made(WebsocketConsumer, method_mapping={}))])
        self.assertEqual(problem.id, "channels.W015")
        self.assertIn("names no channel", problem.msg)
        self.assertIn("method_mapping", problem.hint)


class SettingTests(SimpleTestCase):
    """Settings that are missing, misspelt or of Channels 4."""

    def check(self, **given):
        names = [each for each in dir(settings) if each.startswith(("CHANNEL", "DJANGO_CHANNEL"))]
        with override_settings(**given):
            for name in names + ["ASGI_APPLICATION"]:
                if name not in given and hasattr(settings, name):
                    delattr(settings, name)
            return checks.check_settings(None)

    def assert_found(self, ids, *words, **given):
        problems = self.check(**given)
        self.assertEqual([each.id[-4:] for each in problems], ids)
        for word in words:
            self.assertIn(word, " ".join("%s %s" % (each.msg, each.hint) for each in problems))

    def test_no_layers_at_all(self):
        words = (SETTING + " is missing", '"ROUTING"', MEMORY, "Channels settings")
        self.assert_found(["W013"], *words)
        for empty in ({}, [], None):
            self.assert_found(["W013"], *words, **{SETTING: empty})

    def test_a_misspelt_setting(self):
        for name in (SETTING[:-1], SETTING.replace("CHANNEL_", "CHANNELS_")):
            with self.subTest(name):
                self.assert_found(["W013"], name, SETTING, "Channels settings", **{name: {}})
        layers = {SETTING: {"default": {"BACKEND": MEMORY}}}
        self.assert_found(["W013"], "CHANNEL_WS", "CHANNELS_WS", CHANNEL_WS_PROTOCOLS=[], **layers)

    def test_settings_of_the_site_with_other_names_are_left_alone(self):
        layers = {SETTING: {"default": {"BACKEND": MEMORY, "ROUTING": []}}}
        self.assert_found([], CHANNEL_ID=1, YOUTUBE_CHANNELS=[], CHANNELS_WS_PROTOCOLS=[], **layers)

    def test_an_asgi_application_without_routes(self):
        layers = {SETTING: {"default": {"BACKEND": MEMORY}}}
        found = [] if PACKAGE == OTHER_NAME else ["W014"]
        words = [PAGE, "ROUTING"] if found else []
        self.assert_found(found, *words, ASGI_APPLICATION="mysite.asgi.application", **layers)
        layers[SETTING]["default"]["ROUTING"] = "mysite.routing.channel_routing"
        self.assert_found([], ASGI_APPLICATION="mysite.asgi.application", **layers)


class BesideTests(SimpleTestCase):
    def check(self, **versions):
        if PACKAGE == OTHER_NAME:
            self.skipTest("this name runs next to Channels 4")
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
        with mock.patch.object(checks, "get_commands", lambda: {"runserver": "daphne"}):
            (problem,) = self.check()
        self.assertEqual(problem.id, "channels.W012")
        self.assertIn("runserver", problem.msg)
        self.assertIn(PAGE, problem.hint)

    def test_daphne_after_this_app_takes_nothing_away(self):
        script = """
import sys, {0}
from django.conf import settings
settings.configure(INSTALLED_APPS=sys.argv[1:], SECRET_KEY="x", MIDDLEWARE_CLASSES=[],
    DATABASES={{}}, CHANNEL_LAYERS={{"default": {{"BACKEND": {1!r}}}}})
import django
django.setup()
from {0}.checks import check_channels_4
print(" ".join(each.id for each in check_channels_4(None) if each.id == "channels.W012"))
"""
        require("daphne.apps")  # since Daphne 4
        if PACKAGE == OTHER_NAME:
            self.skipTest("this name runs next to Channels 4")
        for names, found in [
            ([PACKAGE, "daphne"], ""),
        ]:
            done = subprocess.run(
                [sys.executable, "-c", script.format(PACKAGE, MEMORY)] + names,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.assertEqual((done.returncode, done.stdout.strip()), (0, found), names)

    def test_a_layer_of_another_release_has_its_page(self):
        for backend, page in [
            ("channels_redis.core.RedisChannelLayer", PAGE),
            ("channels.layers.InMemoryChannelLayer", PAGE),
            ("asgi_ipc.IPCChannelLayer", "Coming from Channels 1.x"),
        ]:
            with override_settings(**{SETTING: {"default": {"BACKEND": backend}}}):
                (problem,) = check_channel_layers(None)
            self.assertEqual(problem.id, "channels.E002")
            self.assertIn(page, problem.msg)

    def test_no_message_recommends_what_installs_something_else(self):
        folder = os.path.dirname(channels.__file__)
        for path in glob.glob(os.path.join(folder, "**", "*.py"), recursive=True):
            with open(path, encoding="utf-8") as source:
                self.assertNotRegex(
                    source.read(), r"pip install[^\n]*(channels\[|asgi_redis>)", path
                )


class PageTests(SimpleTestCase):
    """The pages that messages name."""

    ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def test_each_page_has_the_title_by_which_messages_name_it(self):
        if not os.path.exists(os.path.join(self.ROOT, "docs", "topics", "channels")):
            self.skipTest("no documentation here")
        for page, title in TITLES.items():
            with open(os.path.join(self.ROOT, "docs", page + ".txt"), encoding="utf-8") as stream:
                self.assertIn("%s\n===" % title, stream.read(), page)
            self.assertEqual(see(page), 'See the page "%s" of the documentation.' % title)

    def test_messages_name_pages_by_this_function_alone(self):
        folder = os.path.dirname(channels.__file__)
        for path in glob.glob(os.path.join(folder, "**", "*.py"), recursive=True):
            with open(path, encoding="utf-8") as stream:
                source = stream.read()
            if "docs/" not in source or os.path.basename(path) == "pages.py":
                continue
            tree = ast.parse(source)
            docs = {
                each.body[0].value
                for each in ast.walk(tree)
                if hasattr(each, "body")
                and isinstance(each.body, list)
                and each.body
                and isinstance(each.body[0], ast.Expr)
            }
            for each in ast.walk(tree):
                text = getattr(each, "value", None) or getattr(each, "s", None)
                if isinstance(text, str) and each not in docs:
                    self.assertNotIn("docs/", text, path)


class CommunicatorTests(SimpleTestCase):
    """What tests of Channels 4 write ends in an error that names what to write in tests here."""

    def test_the_methods_of_a_communicator(self):
        client = WSClient()
        for name, word in [
            ("connect", "send_and_consume('websocket.connect'"),
            ("disconnect", "send_and_consume('websocket.disconnect'"),
            ("send_to", "send_and_consume('websocket.receive'"),
            ("send_json_to", "send_and_consume('websocket.receive'"),
            ("receive_from", "receive(json=False)"),
            ("receive_json_from", "client.receive()"),
            ("receive_nothing", "None if there is nothing"),
        ]:
            self.assertFalse(hasattr(client, name))
            with self.assertRaises(AttributeError) as raised:
                getattr(client, name)
            self.assertIn("WSClient." + name, str(raised.exception))
            self.assertIn(word, str(raised.exception))
        with self.assertRaisesRegex(AttributeError, "has no attribute 'nope'"):
            client.nope  # noqa: B018

    def test_an_attribute_error_inside_a_property_is_raised_as_itself(self):
        client = WSClient()
        with mock.patch.object(WSClient, "headers", property(lambda self: None.nope)):
            with self.assertRaisesRegex(
                AttributeError, "'NoneType' object has no attribute 'nope'"
            ):
                client.headers  # noqa: B018

    def test_a_path_or_an_application_in_the_place_of_the_alias(self):
        for arguments in (["/ws/"], [channel_session, "/ws/"], [object()]):
            with self.assertRaises(ImproperlyConfigured) as raised:
                WSClient(*arguments)
            for word in ("the alias of a layer", "path='/"):
                self.assertIn(word, str(raised.exception))

    def test_names_that_have_another_name_or_place_here(self):
        for statement, word in [
            ("from %s.test import ChannelsLiveServerTestCase", " ChannelLiveServerTestCase of"),
            ("from %s.testing import ChannelsLiveServerTestCase", " ChannelLiveServerTestCase of"),
            ("from %s.test import WebsocketCommunicator", "WSClient"),
            ("from %s.sessions import SessionMiddlewareStack", "channel_and_http_session"),
            ("from %s.http import AsgiHandler", "AsgiHandler"),
            ("from %s.staticfiles import StaticFilesWrapper", "runserver serves static files"),
        ]:
            with self.assertRaises(ImportError) as raised:
                exec(statement % PACKAGE, {})
            self.assertIn(word, str(raised.exception))

    def test_the_layer_of_channels_4_is_refused_with_the_command_that_installs_the_one_here(self):
        layers = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
        with override_settings(**{SETTING: layers}):
            (problem,) = check_channel_layers(None)
        for word in ("'asgi_redis.RedisChannelLayer'", "pip install ./asgi_redis"):
            self.assertIn(word, problem.msg)

    def test_keywords_in_place_of_a_message_get_the_one_remedy_that_fits(self):
        for name, written, other in [
            ("text", 'send({"text": …})', "send_json"),
            ("json", "send_json(…)", '"text"'),
            ("close", 'send({"close": True})', "send_json"),
        ]:
            with self.assertRaises(TypeError) as raised:
                Channel("own").send(**{name: "x"})
            self.assertIn("Write %s." % written, str(raised.exception))
            self.assertNotIn(other, str(raised.exception))

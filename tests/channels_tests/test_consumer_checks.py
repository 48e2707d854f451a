"""What manage.py check says about consumers and bindings that would do nothing, in silence."""

import functools
import os
import sys
import tempfile
import types
from unittest import mock

from django.channels import include, route, route_class
from django.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    login_required,
    transfer_user,
)
from django.channels.binding.base import Binding, BindingMetaclass
from django.channels.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from django.channels.checks import check_channel_layers
from django.channels.class_checks import check_bindings
from django.channels.generic.async_websockets import AsyncWebsocketConsumer
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.habits import PACKAGE
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.misspelt import CALLED, misspelt
from django.channels.sessions import channel_and_http_session, channel_session, http_session
from django.contrib.auth.decorators import login_required as django_login_required
from django.contrib.auth.decorators import user_passes_test
from django.test import SimpleTestCase, override_settings
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from django.views.decorators.vary import vary_on_headers

MEMORY = MemoryChannelLayer.__module__ + ".MemoryChannelLayer"


def check(*routes):
    """Return the problems of a layer with this routing."""
    layers = {"default": {"BACKEND": MEMORY, "ROUTING": list(routes)}}
    with override_settings(CHANNEL_LAYERS=layers):
        return check_channel_layers(None)


def made(base, **body):
    return type("Room", (base,), body)


def method(self, *args, **kwargs):
    pass


def consumer(message):
    pass


user_passes = user_passes_test(lambda user: True)
_gives = channel_session_user_from_http(consumer)


class MisspeltTests(SimpleTestCase):
    def test_each_name_that_is_known_exists(self):
        bases = (WebsocketDemultiplexer, WebsocketBindingWithMembers)
        for name in CALLED:
            if name not in ("any_origin", "allowed_origins"):  # marks of decorators
                self.assertTrue(any(hasattr(each, name) for each in bases), name)

    def test_a_method_that_is_misspelt(self):
        for name, meant in [
            ("recieve", "receive"),
            ("recive", "receive"),
            ("receve", "receive"),
            ("conect", "connect"),
            ("conenct", "connect"),
            ("disconect", "disconnect"),
            ("connection_group", "connection_groups"),
            ("on_message", "receive"),
            ("on_connect", "connect"),
            ("on_close", "disconnect"),
        ]:
            for base in (WebsocketConsumer, JsonWebsocketConsumer, AsyncWebsocketConsumer):
                with self.subTest(name=name, base=base.__name__):
                    (problem,) = check(route_class(made(base, **{name: method})))
                    self.assertEqual(problem.id, "channels.W016")
                    for word in ("CHANNEL_LAYERS['default']", "Room", repr(name), repr(meant)):
                        self.assertIn(word, problem.msg)
                    self.assertIn("Did you mean %r?" % meant, problem.hint)

    def test_an_attribute_that_is_misspelt(self):
        for name, value, meant in [
            ("http_usr", True, "http_user"),
            ("login_requird", True, "login_required"),
            ("channel_sesion_user", True, "channel_session_user"),
            ("group", ["chat"], "groups"),
            ("subprotocol", ["v1"], "subprotocols"),
        ]:
            with self.subTest(name=name):
                found = list(misspelt(made(WebsocketConsumer, **{name: value})))
                self.assertEqual(found, [(name, meant)])
        found = list(misspelt(made(WebsocketDemultiplexer, consumer={"a": [].sort})))
        self.assertEqual(found, [("consumer", "consumers")])

    def test_a_mixin_and_the_consumer_of_a_stream(self):
        class Mixin:
            def recieve(self, content, **kwargs):
                pass

        stream = type("Stream", (Mixin, JsonWebsocketConsumer), {})
        (problem,) = check(route_class(made(WebsocketDemultiplexer, consumers={"a": stream})))
        self.assertIn("Stream has 'recieve'", problem.msg)

    def test_a_binding_under_another_name_than_its_stream(self):
        binding = made(WebsocketBinding, stream="items", __module__=__name__)
        several = made(WebsocketDemultiplexer, consumers={"item": binding.consumer})
        (problem,) = check(route_class(several))
        self.assertEqual(problem.id, "channels.W019")
        for word in ("Room.consumers", "'item'", "'items'"):
            self.assertIn(word, problem.msg)
        self.assertIn("{'items': Room.consumer}", problem.hint)
        same = made(
            WebsocketDemultiplexer, consumers={"items": binding.consumer, "a": WebsocketConsumer}
        )
        self.assertEqual(check(route_class(same)), [])

    def test_objects_with_any_attribute_are_looked_at_from_outside(self):
        endless = {}
        endless["itself"] = endless
        room = made(WebsocketConsumer, service=mock.Mock(), recieved=mock.Mock(), table=endless)
        self.assertEqual(check(route_class(room)), [])
        self.assertEqual(check(route("websocket.receive", mock.Mock())), [])
        several = made(WebsocketDemultiplexer, consumers={"a": mock.Mock()})
        self.assertEqual(check(route_class(several)), [])

    def test_names_that_the_class_uses_in_its_own_way(self):
        def receive(self, content, **kwargs):
            getattr(self, "on_" + content["action"])()

        for body in (
            {"receive": receive, "on_connect": consumer},
            {"commands": [consumer], "recieve": consumer, "consumer": consumer},
            {"reconnect": consumer, "connected": consumer, "receiver": consumer},
        ):
            found = [name for name, _ in misspelt(made(JsonWebsocketConsumer, **body))]
            with self.subTest(body):
                self.assertEqual(found, ["recieve"] if "recieve" in body else [])

    def test_helpers_are_left_alone(self):
        class Helpers(WebsocketConsumer):
            group = "chat"
            timeout = [5]

            def receive(self, text=None, bytes=None, **kwargs):
                self.reconnect()

            def received(self):  # near `receive`, which is defined
                pass

            def reconnect(self):  # near `connect`, and called
                for name in ("connected",):
                    getattr(self, name)()

            def connected(self):
                pass

            def greet(self):
                pass

            def join_group(self, name):
                pass

            def on_chat_message(self, content):
                pass

        class Dispatches(WebsocketConsumer):
            method_mapping = dict(WebsocketConsumer.method_mapping, own="on_message")

            def on_message(self, message, **kwargs):
                pass

        for each in (Helpers, Dispatches, WebsocketConsumer, made(WebsocketConsumer)):
            self.assertEqual(list(misspelt(each)), [], each)
            self.assertEqual(check(route_class(each)), [])

    def test_a_binding(self):
        bindings = [
            made(
                WebsocketBinding,
                has_permissions=method,
                stream="a",
                group_names=method,
                __module__=__name__,
            ),
            made(
                Binding,
                group_name=method,
                created=method,
                post_change_receiver=method,
                __module__=__name__,
            ),
        ]
        with mock.patch.object(BindingMetaclass, "binding_classes", bindings):
            problems = check_bindings(None)
        self.assertEqual([each.id for each in problems], ["channels.W016"] * 2)
        self.assertIn("'has_permission'", problems[0].hint)
        self.assertIn("'group_names'", problems[1].hint)

    def test_a_binding_that_lacks_what_each_change_needs(self):
        for body, words in (
            ({"stream": "items"}, ["Room lacks group_names(cls, instance)"]),
            ({"group_names": method}, ["Room lacks stream"]),
            ({"group_names": method, "serialize": method}, []),
            ({"stream": "items", "post_change_receiver": method}, []),
        ):
            binding = made(WebsocketBinding, __module__=__name__, **body)
            with mock.patch.object(BindingMetaclass, "binding_classes", [binding]):
                problems = check_bindings(None)
            self.assertEqual([each.id for each in problems], ["channels.W028"] * len(words))
            for problem, word in zip(problems, words):
                self.assertIn(word, problem.msg)
                self.assertIn("Data binding", problem.hint)

    def test_the_bindings_that_a_routing_imports_are_found_in_any_order_of_the_checks(self):
        source = (
            "from %s.binding.base import BindingMetaclass\n"
            "from %s.binding.websockets import WebsocketBinding\n"
            "class Late(WebsocketBinding):\n"
            "    group_names = classmethod(lambda cls, instance: [])\n"
            "BindingMetaclass.binding_classes.append(Late)  # as if it had a model\n"
            "channel_routing = []\n" % (PACKAGE, PACKAGE)
        )
        layers = {"default": {"BACKEND": MEMORY, "ROUTING": "late_routing.channel_routing"}}
        self.addCleanup(sys.modules.pop, "late_routing", None)
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "late_routing.py"), "w") as file:
                file.write(source)
            with mock.patch.object(sys, "path", [folder, *sys.path]):
                with mock.patch.object(BindingMetaclass, "binding_classes", []):
                    with override_settings(CHANNEL_LAYERS=layers):
                        problems = check_bindings(None)
        self.assertEqual([each.id for each in problems], ["channels.W028"])
        self.assertIn("late_routing.Late lacks stream", problems[0].msg)


class HttpSessionTests(SimpleTestCase):
    def test_http_session_on_a_frame(self):
        for decorator in (http_session, http_session_user):
            for channel in ("websocket.receive", "websocket.disconnect"):
                (problem,) = check(route(channel, decorator(consumer)))
                self.assertEqual(problem.id, "channels.W017")
                self.assertIn("consumer has the decorator http_session", problem.msg)
                self.assertIn(channel, problem.msg)
                self.assertIn("channel_and_http_session", problem.hint)

    def test_http_session_on_a_method(self):
        room = made(WebsocketConsumer, receive=http_session(lambda self, text=None, **kwargs: None))
        (problem,) = check(route_class(room))
        self.assertEqual(problem.id, "channels.W017")

    def test_where_the_session_is_known(self):
        for channel, decorated in [
            ("websocket.connect", http_session(consumer)),
            ("http.request", http_session_user(consumer)),
            ("own", http_session(consumer)),
            (["websocket.connect", "websocket.receive"], channel_and_http_session(consumer)),
        ]:
            self.assertEqual(check(route(channel, decorated)), [])
        remembers = route("websocket.connect", channel_and_http_session(consumer))
        for decorator in (channel_session_user_from_http, channel_and_http_session_user_from_http):
            self.assertEqual(check(remembers, route("websocket.receive", decorator(consumer))), [])

    def test_a_session_that_no_handshake_remembers(self):
        reads = route("websocket.receive", channel_and_http_session(consumer))
        for connect in (http_session(consumer), channel_session_user_from_http(consumer)):
            (problem,) = check(route("websocket.connect", connect), reads)
            self.assertEqual(problem.id, "channels.W017")
            self.assertIn("consumer has the decorator channel_and_http_session", problem.msg)
        connect = channel_and_http_session_user_from_http(consumer)
        self.assertEqual(check(route("websocket.connect", connect), reads), [])

    def test_a_session_that_only_another_path_remembers(self):
        remembers, reads = channel_and_http_session(consumer), channel_and_http_session(consumer)
        (problem,) = check(
            route("websocket.connect", remembers, path=r"^/mine/"),
            route("websocket.connect", consumer, path=r"^/chat/$"),
            route("websocket.receive", reads, path=r"^/chat/$"),
        )
        self.assertEqual(problem.id, "channels.W017")


class ViewDecoratorTests(SimpleTestCase):
    def test_a_decorator_of_views_on_a_function(self):
        for decorated in (django_login_required(consumer), channel_session(user_passes(consumer))):
            (problem,) = check(route("own", decorated))
            self.assertEqual(problem.id, "channels.W021")
            self.assertIn("django.contrib.auth.decorators", problem.msg)
            self.assertIn("Use login_required of %s.auth" % PACKAGE, problem.hint)

    def test_decorators_that_need_a_request_or_a_response(self):
        for decorator in (
            require_POST,
            never_cache,
            vary_on_headers("Cookie"),
            xframe_options_deny,
        ):
            (problem,) = check(route("own", decorator(consumer)))
            self.assertEqual(problem.id, "channels.W021")
            self.assertIn("gets a message and not a request", problem.msg)
            self.assertIn("Consumers and routing", problem.hint)
        self.assertEqual(check(route("own", csrf_exempt(consumer))), [])


class UserTests(SimpleTestCase):
    def assert_anonymous(self, *routes):
        problems = check(*routes)
        self.assertEqual({each.id for each in problems}, {"channels.W018"}, problems)
        self.assertIn("always anonymous", problems[0].msg)
        self.assertIn("channel_session_user_from_http", problems[0].hint)

    def test_a_user_that_no_handshake_gives(self):
        reads = route("websocket.receive", channel_session_user(consumer))
        self.assert_anonymous(reads)
        self.assert_anonymous(route("websocket.connect", consumer), reads)
        self.assert_anonymous(route("websocket.connect", channel_session_user(consumer)))
        self.assert_anonymous(route("websocket.receive", login_required(consumer)))
        room = made(WebsocketConsumer, channel_session_user=True)
        self.assert_anonymous(route_class(room))

    def test_a_user_that_a_handshake_gives(self):
        def own_login(message):
            transfer_user({}, message.channel_session)

        reads = route("websocket.receive", channel_session_user(consumer))
        for gives in (
            channel_session_user_from_http(consumer),
            channel_session(channel_session_user_from_http(consumer)),
            channel_and_http_session_user_from_http(consumer),
            login_required(consumer),
            own_login,
        ):
            self.assertEqual(check(route("websocket.connect", gives), reads), [])
        self.assertEqual(check(route("websocket.receive", channel_session_user(own_login))), [])
        for flag in ("http_user", "http_user_and_session", "login_required"):
            room = made(WebsocketConsumer, channel_session_user=True, **{flag: True})
            self.assertEqual(check(route_class(room)), [])
        decorated = channel_session_user_from_http(lambda self, message, **kwargs: None)
        room = made(WebsocketConsumer, channel_session_user=True, connect=decorated)
        self.assertEqual(check(route_class(room)), [])

    def test_a_user_that_only_the_handshakes_of_other_paths_give(self):
        reads = channel_session_user(lambda message, **kwargs: None)
        chat = [
            route("websocket.connect", consumer, path=r"^/chat/$"),
            route("websocket.receive", reads, path=r"^/chat/$"),
        ]
        others = [
            route("websocket.connect", _gives, path=r"^/mine/$"),
            route("websocket.receive", reads, path=r"^/mine/$"),
        ]
        self.assert_anonymous(*chat + others)
        self.assert_anonymous(*others + chat)
        self.assert_anonymous(*chat + [route("websocket.connect", _gives)])  # behind it
        self.assert_anonymous(include(chat, path="^/a"), include(others, path="^/b"))
        room = made(WebsocketConsumer, http_user=True)
        self.assert_anonymous(*chat + [room.as_route(path="^/mine/$")])

        # These may take handshakes of the same path.
        self.assertEqual(check(route("websocket.connect", _gives, path="^/"), *chat), [])
        self.assertEqual(check(route("websocket.connect", _gives, path=r"^/c.+"), *chat), [])
        self.assertEqual(check(route("websocket.connect", _gives, path="^/b|/chat"), *chat), [])
        self.assertEqual(check(route("websocket.connect", _gives, path=r"^/chat/*$"), *chat), [])
        own = types.SimpleNamespace(match=lambda message: None)
        self.assertEqual(check(own, *chat), [])

    def test_the_user_of_http_on_a_later_event(self):
        for decorator in (channel_session_user_from_http, channel_and_http_session_user_from_http):
            reads = route("websocket.receive", decorator(consumer), path="^/chat/")
            self.assert_anonymous(route("websocket.connect", consumer, path="^/chat/"), reads)
            self.assertEqual(check(route("websocket.connect", _gives, path="^/chat/"), reads), [])

    def test_a_handshake_that_may_give_a_user_by_other_code(self):
        gives = channel_session_user_from_http(consumer)

        def closure(message):
            return gives(message)

        def dispatcher(message):
            return _gives(message)

        reads = route("websocket.receive", channel_session_user(consumer))
        for connects in (closure, dispatcher, functools.partial(gives), mock.Mock()):
            self.assertEqual(check(route("websocket.connect", connects), reads), [])
        logs_in = made(WebsocketConsumer, channel_session_user=True, connect=method)
        logs_in.disconnect = lambda self, message: _gives(message)
        self.assertEqual(check(route_class(logs_in)), [])
        remembers = functools.partial(channel_and_http_session(consumer))
        later = route("websocket.receive", channel_and_http_session(consumer))
        self.assertEqual(check(route("websocket.connect", remembers), later), [])

    def test_messages_of_the_site_may_have_a_user(self):
        self.assertEqual(check(route("own", channel_session_user(consumer))), [])

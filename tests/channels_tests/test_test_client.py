"""channels.test: test cases with captive layers, clients, apply_routes."""

import asyncio
import builtins
import itertools
import json
import unittest
import warnings
from contextlib import ExitStack
from types import SimpleNamespace

import django
from django.channels import Channel, Group, route
from django.channels.asgi import channel_layers
from django.channels.binding.websockets import WebsocketBinding
from django.channels.compat import async_to_sync, sync_to_async
from django.channels.exceptions import (
    ChannelFull,
    ConsumeLater,
    DenyConnection,
    InvalidMessage,
    WebsocketCloseException,
)
from django.channels.gateway.state import WRITE
from django.channels.gateway.websocket import WebSocket
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.layers.base import BaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.outbox import pending_message_store
from django.channels.protocol import ack
from django.channels.sessions import channel_session
from django.channels.signals import consumer_finished, consumer_started
from django.channels.test import (
    ChannelTestCase,
    Client,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import StreamingHttpResponse
from django.test import TestCase, override_settings

from .applications import INSTALLED
from .http_site import settings_of
from .test_binding import defined_for_a_test

User = get_user_model()

urlpatterns = []


class marker:
    """Middleware of both styles, which reads a setting when it is made."""

    def __init__(self, get_response=None):
        self.get_response, self.mark = get_response, settings.MARK

    def __call__(self, request):
        return self.process_response(request, self.get_response(request))

    def process_response(self, request, response):
        response["X-Mark"] = self.mark
        return response


class CrossingLayer(BaseChannelLayer):
    """Stands for a layer with a server, which a test must not reach."""

    def deliver(self, channel, message):
        raise AssertionError("a test reached the server")

    def receive_many(self, channels, block=False):
        raise AssertionError("a test reached the server")


LAYERS = {
    "default": {"BACKEND": __name__ + ".CrossingLayer"},
    "small": {
        "BACKEND": "asgiref.inmemory.ChannelLayer",
        "CONFIG": {"capacity": 5},
        "TEST_CONFIG": {"capacity": 2},
    },
}


@override_settings(CHANNEL_LAYERS=LAYERS)
class CaptiveLayerTests(ChannelTestCase):
    def test_every_layer_is_captive(self):
        for alias in LAYERS:
            self.assertIs(type(channel_layers[alias]), MemoryChannelLayer)
            self.assertEqual(channel_layers[alias].alias, alias)
        Channel("test").send({"n": 1})
        Channel("test", alias="small").send({"n": 2})
        self.assertEqual(self.get_next_message("test")["n"], 1)
        self.assertEqual(self.get_next_message("test", alias="small")["n"], 2)

    def test_test_config_of_a_layer_in_memory(self):
        self.assertEqual(channel_layers["small"].capacity, 2)


@override_settings(CHANNEL_LAYERS=LAYERS)
class FullChannelTests(ChannelTestCase):
    """A send that finds its channel full loses no later one. The test sees its error."""

    def run_consumer(self, consumer):
        layer = channel_layers["small"]
        for _ in range(layer.capacity):
            Channel("full", alias="small").send({})
        client = Client(alias="small")
        with apply_routes([route("work", consumer)], aliases="small"):
            with self.assertRaises(ChannelFull):
                client.send_and_consume("work")
        return self.get_next_message("later", alias="small", require=True)

    def test_after_a_send(self):
        def consumer(message):
            Channel("full", alias="small").send({})
            Channel("later", alias="small").send({"n": 1})

        self.assertEqual(self.run_consumer(consumer)["n"], 1)

    def test_before_an_awaited_send(self):
        async def consumer(message):
            Channel("full", alias="small").send({})
            Channel("later", alias="small").send({"n": 1})
            await Channel("other", alias="small").asend({"n": 2})
            self.assertEqual(self.get_next_message("other", alias="small")["n"], 2)

        self.assertEqual(self.run_consumer(consumer)["n"], 1)

    def test_by_an_awaited_send(self):
        async def consumer(message):
            Channel("later", alias="small").send({"n": 1})
            await Channel("full", alias="small").asend({})

        self.assertEqual(self.run_consumer(consumer)["n"], 1)

    def test_before_an_exception(self):
        def consumer(message):
            Channel("full", alias="small").send({})
            Channel("later", alias="small").send({"n": 1})
            raise KeyError("the consumer's own")

        with self.assertRaises(KeyError):
            self.run_consumer(consumer)

    def test_of_code_for_channels_1(self):
        for _ in range(channel_layers["small"].capacity):
            Channel("full", alias="small").send({})
        pending_message_store.prepare()
        Channel("full", alias="small").send({})
        Channel("later", alias="small").send({"n": 1})
        with self.assertRaises(ChannelFull):
            pending_message_store.send_and_flush()
        self.assertEqual(self.get_next_message("later", alias="small")["n"], 1)


@override_settings(CHANNEL_LAYERS=LAYERS)
class SomeCaptiveLayersTests(ChannelTestCase):
    test_channel_aliases = ["small"]

    def test_only_those_named(self):
        self.assertIs(type(channel_layers["small"]), MemoryChannelLayer)
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", None))
        self.assertIs(type(channel_layers["default"]), CrossingLayer)


@override_settings(CHANNEL_LAYERS=LAYERS)
class OneCaptiveLayerTests(ChannelTestCase):
    test_channel_aliases = "small"

    def test_one_alias_needs_no_list(self):
        self.assertIs(type(channel_layers["small"]), MemoryChannelLayer)


@override_settings(
    CHANNEL_LAYERS=dict(
        LAYERS,
        away={"BACKEND": "no_such_package.Layer"},
        nowhere={"BACKEND": __name__ + ".NoSuchLayer", "ROUTING": []},
        nothing={},
    )
)
class LayersThatCannotBeImportedTests(ChannelTestCase):
    def test_they_are_replaced_as_the_others(self):
        for alias in ("away", "nowhere", "nothing"):
            Channel("test", alias=alias).send({"n": 1})
            self.assertEqual(self.get_next_message("test", alias)["n"], 1)


class RowsOfTheClassTests(ChannelTestCase):
    @classmethod
    def setUpClass(cls):
        cls.undo = ExitStack()
        defined_for_a_test(
            SimpleNamespace(addCleanup=cls.undo.callback),
            "UserBinding",
            (WebsocketBinding,),
            model=User,
            stream="users",
            fields=["username"],
            group_names=classmethod(lambda cls, instance: ["users"]),
            has_permission=lambda binding, user, action, pk: False,
        )
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.undo.close()

    @classmethod
    def setUpTestData(cls):
        User.objects.create(username="first")
        Channel("test").send({}, on_commit=True)

    def setUp(self):
        # Here, because a group without members would hide what is still to be sent.
        Group("users").add("member")

    def names(self):
        messages = iter(lambda: self.get_next_message("member"), None)
        texts = [json.loads(each["text"]) for each in messages]
        return [each["payload"]["data"]["username"] for each in texts]

    def test_the_layers_are_empty_at_the_first_look(self):
        self.assertEqual(User.objects.count(), 1)
        self.assertIsNone(self.get_next_message("test"))
        self.assertEqual(self.names(), [])

    def test_the_layers_are_empty_in_a_second_test(self):
        self.assertIsNone(self.get_next_message("test"))
        User.objects.create(username="second")
        self.assertEqual(self.names(), ["second"])

    def test_a_change_does_not_reach_who_joins_after_it(self):
        User.objects.create(username="second")
        Group("users").add("late")
        Group("users").discard("member")
        User.objects.create(username="third")
        self.assertIn("second", self.get_next_message("member")["text"])
        self.assertIsNone(self.get_next_message("member"))
        self.assertIn("third", self.get_next_message("late")["text"])
        self.assertIsNone(self.get_next_message("late"))

    def test_a_change_arrives_before_what_was_sent_after_it(self):
        User.objects.create(username="second")
        Group("users").send({"text": "after"})
        self.assertIn("second", self.get_next_message("member")["text"])
        self.assertEqual(self.get_next_message("member")["text"], "after")

    def test_a_change_arrives_once_although_the_test_runs_the_hooks_of_the_commit(self):
        if not hasattr(TestCase, "captureOnCommitCallbacks"):
            self.skipTest("This Django lacks captureOnCommitCallbacks")
        others = []
        User.objects.create(username="second")
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            User.objects.create(username="third")
            transaction.on_commit(lambda: others.append("the site's own"))
        self.assertEqual((len(callbacks), others), (2, ["the site's own"]))
        self.assertEqual(self.names(), ["second", "third"])
        with self.captureOnCommitCallbacks() as callbacks:
            User.objects.create(username="fourth")
            self.assertEqual(self.names(), ["fourth"])
            transaction.on_commit(lambda: None)
        self.assertEqual(len(callbacks), 1)

    def test_a_change_in_a_transaction_of_the_test_waits_for_its_end(self):
        if not hasattr(transaction, "on_commit"):
            self.skipTest("Django 1.8 lacks a hook for commits")
        with transaction.atomic():
            User.objects.create(username="second")
            Group("users").add("late")
        self.assertEqual(self.names(), ["second"])
        self.assertIsNotNone(self.get_next_message("late"))


class LayersComeBackTests(unittest.TestCase):
    databases = {"default"}  # for a run of this class alone

    def run_case(self, body, base=ChannelTestCase, **attributes):
        case_class = type("Case", (base,), dict({"runTest": body}, **attributes))
        result = unittest.TestResult()
        unittest.TestSuite([case_class()]).run(result)
        return result

    def test_after_the_class(self):
        before = channel_layers["default"]
        seen = []
        for base in (ChannelTestCase, TransactionChannelTestCase):
            result = self.run_case(
                lambda case: seen.append(channel_layers["default"]), base, available_apps=INSTALLED
            )
            self.assertTrue(result.wasSuccessful(), result.errors)
        self.assertIs(channel_layers["default"], before)
        self.assertNotIn(before, seen)
        self.assertIsNot(seen[0], seen[1])

    def test_after_a_class_that_fails(self):
        before = channel_layers["default"]

        def setUpTestData():
            Channel("test").send({})
            raise KeyError("broken")

        result = self.run_case(
            lambda case: None, setUpTestData=staticmethod(setUpTestData), serialized_rollback=False
        )
        self.assertEqual(len(result.errors), 1)
        self.assertIs(channel_layers["default"], before)

    def test_each_test_begins_empty(self):
        def body(case):
            case.assertIsNone(case.get_next_message("test"))
            case.assertEqual(Group("g").channels(), [])
            Channel("test").send({})
            Group("g").add("member")

        case_class = type("Case", (ChannelTestCase,), {"test_one": body, "test_two": body})
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case_class).run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (2, [], []))

    def test_required_message(self):
        result = self.run_case(lambda case: case.get_next_message("test", require=True))
        self.assertEqual(len(result.failures), 1)
        self.assertIn("Expected a message on channel test", result.failures[0][1])


class DocumentedExamplesTests(ChannelTestCase):
    """As the documentation of 1.1 has them."""

    def test_consumer_by_hand(self):
        def my_consumer(message):
            Channel("result").send({"value": message["value"] ** 2})

        # Inject a message onto the channel to use in a consumer
        Channel("input").send({"value": 33})
        # Run the consumer with the new Message object
        my_consumer(self.get_next_message("input", require=True))
        # Verify there's a result and that it's accurate
        result = self.get_next_message("result", require=True)
        self.assertEqual(result["value"], 1089)

    def test_generic_consumer_by_hand(self):
        class MyConsumer(WebsocketConsumer):
            method_mapping = {"input": "handle"}

            def handle(self, message, **kwargs):
                message.reply_channel.send({"value": message["value"] ** 2})

        Channel("input").send({"value": 33, "reply_channel": "reply?1"})
        message = self.get_next_message("input", require=True)
        MyConsumer(message)
        result = self.get_next_message(message.reply_channel.name, require=True)
        self.assertEqual(result["value"], 1089)

    def test_groups(self):
        # Add a test channel to a test group
        Group("test-group").add("test-channel")
        # Send to the group
        Group("test-group").send({"value": 42})
        # Verify the message got into the destination channel
        result = self.get_next_message("test-channel", require=True)
        self.assertEqual(result["value"], 42)

    def test_session_of_messages_of_one_connection(self):
        @channel_session
        def count(message):
            message.channel_session["n"] = message.channel_session.get("n", 0) + 1

        for _ in range(2):
            Channel("input").send({"reply_channel": "reply?1"})
            message = self.get_next_message("input")
            count(message)
        self.assertEqual(message.channel_session["n"], 2)

    def test_client(self):
        def consumer(message):
            message.reply_channel.send({"all is": "done"})

        with apply_routes([route("my_internal_channel", consumer)]):
            client = Client()
            client.send_and_consume("my_internal_channel", {"value": "my_value"})
            self.assertEqual(client.receive(), {"all is": "done"})

    def rooms(self, client_class):
        class RoomConsumer(JsonWebsocketConsumer):
            http_user = True
            groups = ["rooms_watchers"]

            def receive(self, content, **kwargs):
                self.send({"rooms": self.message.http_session.get("rooms", [])})
                Channel("rooms_receive").send(
                    {"user": self.message.user.id, "message": content["message"]}
                )

        with apply_routes([RoomConsumer.as_route(path="^/rooms/$")]):
            client = client_class()
            user = get_user_model().objects.create_user(
                username="test", email="test@test.com", password="123456"
            )
            client.login(username="test", password="123456")

            client.send_and_consume("websocket.connect", path="/rooms/")
            # check that there is nothing to receive
            self.assertIsNone(client.receive())

            # test that the client in the group
            Group(RoomConsumer.groups[0]).send({"text": "ok"}, immediately=True)
            self.assertEqual(client.receive(json=False), "ok")

            client.session["rooms"] = ["test", "1"]
            client.session.save()

            client.send_and_consume("websocket.receive", text={"message": "hey"}, path="/rooms/")
            # test 'response'
            self.assertEqual(client.receive(), {"rooms": ["test", "1"]})

            self.assertEqual(
                self.get_next_message("rooms_receive").content, {"user": user.id, "message": "hey"}
            )

            # There is nothing to receive
            self.assertIsNone(client.receive())

    def test_rooms(self):
        self.rooms(WSClient)

    def test_rooms_by_http_client(self):
        self.rooms(HttpClient)


class ClientTests(ChannelTestCase):
    def test_consume_returns_what_the_consumer_returns(self):
        with apply_routes(route("test", lambda message: message["n"] + 1)):
            self.assertEqual(Client().send_and_consume("test", {"n": 1}), 2)

    def test_nothing_to_consume(self):
        client = Client()
        with self.assertRaisesRegex(AssertionError, "no message on channel test"):
            client.consume("test")
        self.assertIsNone(client.consume("test", fail_on_none=False))
        with self.assertRaisesRegex(AssertionError, "No route"):
            client.send_and_consume("unrouted")
        self.assertIsNone(client.send_and_consume("unrouted", fail_on_none=False))

    def test_get_consumer_by_channel(self):
        def consumer(message):
            pass

        with apply_routes(route("test", consumer)):
            self.assertIs(Client().get_consumer_by_channel("test"), consumer)
            self.assertIsNone(Client().get_consumer_by_channel("other"))

    def test_sends_are_held_until_the_end(self):
        seen = []

        def consumer(message):
            Channel("out").send({"n": 1})
            Channel("out").send({"n": 0}, immediately=True)
            seen.append(self.get_next_message("out")["n"])
            seen.append(self.get_next_message("out"))

        with apply_routes(route("test", consumer)):
            Client().send_and_consume("test")
        self.assertEqual(seen, [0, None])
        self.assertEqual(self.get_next_message("out")["n"], 1)

    def test_a_client_in_an_asynchronous_test(self):
        class Rooms(WebsocketDemultiplexer):
            consumers = {}

            def connection_groups(self, **kwargs):
                return ["rooms"]

        async def test():
            client = WSClient()
            client.send_and_consume("websocket.connect")
            Group("rooms").send({"text": "1"})
            return client.receive()

        with apply_routes(Rooms.as_route()):
            self.assertEqual(asyncio.run(test()), 1)

    def test_sends_on_commit_arrive_though_the_test_case_rolls_back(self):
        if not hasattr(transaction, "on_commit"):
            self.skipTest("Django 1.8 lacks hooks for commits")
        others = []
        with transaction.atomic():
            Channel("out").send({"n": 1}, on_commit=True)
            transaction.on_commit(lambda: others.append("the site's own"))
            self.assertIsNone(self.get_next_message("out"))
        self.assertEqual(self.get_next_message("out")["n"], 1)
        self.assertIsNone(self.get_next_message("out"))
        self.assertEqual(others, [])

    def test_what_a_consumer_raises(self):
        def consumer(message):
            message.reply_channel.send({"text": "before"})
            raise KeyError("broken")

        client = Client()
        with apply_routes(route("test", consumer)):
            with self.assertRaises(KeyError):
                client.send_and_consume("test")
        self.assertEqual(client.receive(), {"text": "before"})
        Channel("outside").send({})
        self.get_next_message("outside", require=True)

    def test_consume_later(self):
        tries = []

        def consumer(message):
            Channel("out").send({})
            tries.append(message["n"])
            if len(tries) == 1:
                raise ConsumeLater()

        with apply_routes(route("test", consumer)):
            client = Client()
            client.send_and_consume("test", {"n": 1})
            self.assertIsNone(self.get_next_message("out"))
            client.consume("test")
        self.assertEqual(tries, [1, 1])
        self.get_next_message("out", require=True)

    def test_exceptions_for_the_socket(self):
        def deny(message):
            message.reply_channel.send({"accept": True})
            raise DenyConnection()

        def close(message):
            raise WebsocketCloseException(4000)

        routing = [route("websocket.connect", deny), route("websocket.receive", close)]
        with apply_routes(routing):
            client = WSClient()
            client.send_and_consume("websocket.connect", check_accept=False)
            self.assertEqual(client.receive(), {"close": True})
            self.assertIsNone(client.receive())
            client.send_and_consume("websocket.receive", text="x")
            self.assertEqual(client.receive(), {"close": 4000})
            with self.assertRaises(DenyConnection):
                with apply_routes(route("websocket.receive", deny)):
                    client.send_and_consume("websocket.receive", text="x")

    def test_signals_and_connections(self):
        seen = []

        def receiver(signal, **kwargs):
            seen.append(signal)

        for signal in (consumer_started, consumer_finished):
            signal.connect(receiver)
            self.addCleanup(signal.disconnect, receiver)
        get_user_model().objects.create_user("in this transaction")
        with apply_routes(route("test", lambda message: get_user_model().objects.count())):
            self.assertEqual(Client().send_and_consume("test"), 1)
        self.assertEqual(seen, [consumer_started, consumer_finished])

    def test_session_is_what_travels(self):
        @channel_session
        def consumer(message):
            message.channel_session["list"] = message.channel_session.get("list", ()) or (1,)
            return message.channel_session["list"]

        with apply_routes(route("test", consumer)):
            client, other = Client(), Client()
            self.assertEqual(client.send_and_consume("test"), (1,))
            self.assertEqual(client.send_and_consume("test"), [1])
            self.assertEqual(other.send_and_consume("test"), (1,))

    def test_a_consumer_that_fails_or_runs_later_changes_nothing_in_the_session(self):
        errors = [KeyError("broken"), ConsumeLater(), None]

        def consumer(message):
            seen.append(message.channel_session.get("n"))
            message.channel_session["n"] = len(errors)
            error = errors.pop(0)
            if error is not None:
                raise error

        seen = []
        with apply_routes(route("test", consumer)):
            client = Client()
            with self.assertRaises(KeyError):
                client.send_and_consume("test")
            client.send_and_consume("test")
            client.consume("test")
            errors.append(None)
            client.send_and_consume("test")
        self.assertEqual(seen, [None, None, None, 1])

    def test_session_takes_nothing_that_cannot_travel(self):
        def consumer(message):
            message.channel_session["user"] = object()

        with apply_routes(route("test", consumer)):
            with self.assertRaisesRegex(InvalidMessage, "user"):
                Client().send_and_consume("test")

    def test_messages_from_outside_go_to_the_captive_layer_of_the_alias(self):
        client = Client(alias="default")
        client.join_group("g")
        Group("g").send({"n": 1})
        self.assertEqual(client.receive(), {"n": 1})
        self.assertIsNone(client.receive())


class WSClientTests(ChannelTestCase):
    def connect_with(self, consumer):
        client = WSClient()
        with apply_routes(route("websocket.connect", consumer)):
            client.send_and_consume("websocket.connect")
        return client

    def test_a_reply_that_accepts_nothing_is_shown(self):
        with self.assertRaisesRegex(AssertionError, "not accepted.*It sent {'json': 1}"):
            self.connect_with(lambda message: message.reply_channel.send({"json": 1}))

    def test_a_path_without_a_slash_is_warned_of(self):
        client = WSClient()
        with apply_routes(route("websocket.receive", lambda message: None)):
            for call in (
                lambda: client.send_and_consume("websocket.receive", "hello"),
                lambda: client.send_and_consume("websocket.receive", path="hello"),
            ):
                with self.assertWarnsRegex(
                    RuntimeWarning, "begins with a slash.*text='hello'"
                ) as caught:
                    call()
                self.assertEqual(caught.filename.rpartition("/")[2], "test_test_client.py")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                client.send_and_consume("websocket.receive", text="hello", path="/?hello")

    def test_accept_is_checked(self):
        def accept(message):
            message.reply_channel.send({"accept": True})
            message.reply_channel.send({"text": "[1]"})

        client = self.connect_with(accept)
        self.assertEqual(client.receive(), [1])
        self.assertIsNone(client.receive())

        def send(message):
            message.reply_channel.send({"text": "[2]"})

        self.assertEqual(self.connect_with(send).receive(), [2])

        for reply in (
            {"close": True},
            {"accept": False},
            {"close": 4000},
            {"accept": True, "close": 4403},
            {"accept": False, "text": "[1]"},
        ):
            with self.assertRaisesRegex(AssertionError, "rejected"):
                self.connect_with(lambda message, reply=reply: message.reply_channel.send(reply))
        with self.assertRaisesRegex(AssertionError, "not accepted"):
            self.connect_with(lambda message: None)

    def test_a_handshake_is_decided_as_by_a_gateway(self):
        values = {
            "accept": [None, True, False],
            "text": [None, "", "[1]"],
            "bytes": [None, b""],
            "close": [None, False, True, 4403],
        }
        for chosen in itertools.product(*values.values()):
            reply = {key: value for key, value in zip(values, chosen) if value is not None}
            socket = WebSocket("gateway.x!1", "/")
            socket.connect({})
            actions = socket.reply(ack(0, [reply]))
            written = [action[1]["type"] for action in actions if action[0] is WRITE]
            with self.subTest(reply=reply), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some replies have both text and bytes
                send = [lambda message, reply=reply: message.reply_channel.send(reply)]
                if "websocket.accept" in written:
                    self.connect_with(*send)
                else:
                    with self.assertRaises(AssertionError):
                        self.connect_with(*send)

    def test_accept_is_left_alone_on_request(self):
        with apply_routes(WebsocketConsumer.as_route()):
            client = WSClient()
            client.send_and_consume("websocket.connect", check_accept=False)
            self.assertEqual(client.receive(), {"accept": True})

    def test_messages_are_as_a_gateway_makes_them(self):
        client = WSClient(ordered=True)
        client.set_header("X-Test", "ä")
        client.set_cookie("a", "b")
        client.send("websocket.connect", path="/room/?x=1&y=2")
        connect = self.get_next_message("websocket.connect").content
        self.assertEqual(connect["path"], "/room/")
        self.assertEqual(connect["query_string"], b"x=1&y=2")
        self.assertEqual((connect["order"], connect["scheme"]), (0, "ws"))
        self.assertIn([b"x-test", "ä".encode()], connect["headers"])
        self.assertIn([b"cookie", b"a=b"], connect["headers"])
        client.send("websocket.receive", text={"a": 1}, path="/room/")
        client.send("websocket.receive", {"bytes": b"x"}, path="/room/")
        first, second = (self.get_next_message("websocket.receive").content for _ in range(2))
        self.assertEqual((first["order"], first["text"]), (1, '{"a": 1}'))
        self.assertEqual((second["order"], second["bytes"]), (2, b"x"))
        client.send("websocket.disconnect", {"code": 4000}, path="/room/")
        disconnect = self.get_next_message("websocket.disconnect").content
        self.assertEqual((disconnect["order"], disconnect["code"]), (3, 4000))

    def test_path_by_position(self):
        with apply_routes(WebsocketConsumer.as_route(path="^/new$")):
            WSClient().send_and_consume("websocket.connect", "/new")

    def test_login_and_logout(self):
        user = get_user_model().objects.create_user("ada", "", "secret")

        class Who(JsonWebsocketConsumer):
            http_user = True

            def connect(self, message, **kwargs):
                self.send(message.user.pk)

        with apply_routes(Who.as_route()):
            client = WSClient()
            self.assertFalse(client.login(username="ada", password="wrong"))
            self.assertTrue(client.login(username="ada", password="secret"))
            client.send_and_consume("websocket.connect")
            self.assertEqual(client.receive(), user.pk)
            client.logout()
            client.send_and_consume("websocket.connect")
            self.assertIsNone(client.receive())
            client.force_login(user)
            client.send_and_consume("websocket.connect")
            self.assertEqual(client.receive(), user.pk)

    def test_cookie_header_is_made_of_cookies(self):
        with self.assertRaisesRegex(ValueError, "set_cookie"):
            WSClient().set_header("Cookie", "a=b")

    @override_settings(ROOT_URLCONF=__name__)
    def test_http_request(self):
        client = HttpClient()
        client.send_and_consume("http.request", path="/nothing-here/?x=1")
        self.assertEqual(client.receive()["status"], 404)

    @override_settings(ROOT_URLCONF=__name__)
    def test_a_request_meets_the_middleware_and_the_settings_of_its_test(self):
        client = HttpClient()
        for names in ([], [__name__ + ".marker"], []):
            for value in ("one", "two"):
                changed = {"MIDDLEWARE": names, "MIDDLEWARE_CLASSES": names, "MARK": value}
                with self.subTest(**changed), override_settings(**changed):
                    client.send_and_consume("http.request")
                    marks = [
                        each[1] for each in client.receive()["headers"] if each[0] == b"x-mark"
                    ]
                    self.assertEqual(marks, [value.encode()] * len(names))

    def test_a_long_response_waits_for_no_gateway(self):
        made = []

        def parts(number):
            for each in range(number):
                made.append(each)
                yield b"x"

        def view(request):
            return StreamingHttpResponse(parts(int(request.GET["parts"])))

        client = HttpClient()
        with settings_of(view):
            client.send_and_consume("http.request", path="/?parts=60")
            content = [reply["content"] for reply in iter(client.receive, None)]
            self.assertEqual(b"".join(content), b"x" * 60)
            # More than fit on the channel of the client.
            with self.assertRaises(ChannelFull):
                client.send_and_consume("http.request", path="/?parts=1000")
        self.assertLess(len(made), 1000)

    @unittest.skipIf(django.VERSION < (4, 2), "Django streams asynchronous iterators from 4.2 on")
    def test_an_asynchronous_stream_is_in_the_transaction_of_the_test(self):
        names = User.objects.values_list("username", flat=True)

        async def parts(error=None):
            yield ",".join(await sync_to_async(list)(names.all())).encode()
            await sync_to_async(User.objects.create)(username="bob")
            Group("room").send({"text": "made"})
            yield b""
            yield await sync_to_async(async_to_sync(made))()
            if error is not None:
                raise error("of the stream")

        async def made():
            return await sync_to_async(lambda: b" and %d" % names.all().count())()

        async def view(request):
            name = request.path[1:]
            return StreamingHttpResponse(parts(getattr(builtins, name) if name else None))

        Group("room").add("member")
        User.objects.create(username="ada")
        client = HttpClient()
        with settings_of(view):
            for error in ("", "KeyError", "SystemExit"):
                with self.subTest(error), transaction.atomic():
                    with self.assertRaises(getattr(builtins, error)) if error else ExitStack():
                        client.send_and_consume("http.request", path="/" + error)
                    content = [reply["content"] for reply in iter(client.receive, None)]
                    self.assertEqual(content, [b"ada", b" and 2"] + [b""] * (not error))
                    self.assertEqual(self.get_next_message("member").content, {"text": "made"})
                    transaction.set_rollback(True)
                self.assertEqual(list(names.all()), ["ada"])


class ApplyRoutesTests(ChannelTestCase):
    def test_context_is_undone(self):
        before = channel_layers["default"].router
        with apply_routes([route("test", lambda message: 1)]):
            with apply_routes(route("test", lambda message: 2), aliases=["default"]):
                self.assertEqual(Client().send_and_consume("test"), 2)
            self.assertEqual(Client().send_and_consume("test"), 1)
        self.assertIs(channel_layers["default"].router, before)

    @apply_routes([route("test", lambda message: "by decorator")])
    def test_decorator(self):
        self.assertEqual(Client().send_and_consume("test"), "by decorator")


@apply_routes({"test": lambda message: "by class decorator"})
class ApplyRoutesToClassTests(ChannelTestCase):
    def test_one(self):
        self.assertEqual(Client().send_and_consume("test"), "by class decorator")

    def test_two(self):
        self.assertEqual(Client().send_and_consume("test"), "by class decorator")


class ChannelsOneTests(ChannelTestCase):
    """What tests that were written for Channels 1.1 expect of WSClient."""

    def answer(self, *replies):
        def consumer(message):
            for each in replies:
                message.reply_channel.send(each)

        return apply_routes([route("websocket.connect", consumer), route("chat", consumer)])

    def test_consume_checks_the_acceptance(self):
        for replies in ([], [{"close": True}], [{"accept": False}]):
            with self.answer(*replies):
                client = WSClient()
                client.send("websocket.connect")
                with self.assertRaises(AssertionError):
                    client.consume("websocket.connect")
                self.assertIsNone(client.receive())

    def test_consume_removes_the_acceptance(self):
        with self.answer({"accept": True}, {"text": "1"}):
            client = WSClient()
            client.send("websocket.connect")
            client.consume("websocket.connect")
        self.assertEqual(client.receive(), 1)
        self.assertIsNone(client.receive())

    def test_consume_without_the_check_leaves_the_reply(self):
        for reply in ({"accept": True}, {"close": True}):
            with self.answer(reply):
                client = WSClient()
                client.send("websocket.connect")
                client.consume("websocket.connect", check_accept=False)
            self.assertEqual(client.receive(), reply)

    def test_consume_checks_handshakes_only(self):
        with self.answer():
            client = WSClient()
            client.send_and_consume("chat")
            self.assertIsNone(client.consume("chat", fail_on_none=False, check_accept=True))

    def test_headers_may_be_text_or_bytes(self):
        client = WSClient()
        client.set_header("X-Text", "1")
        client.set_header(key="origin", value=b"http://example.com")
        client.set_header("x-number", 7)
        client.set_cookie("theme", "dark")
        client.send("websocket.connect")
        headers = self.get_next_message("websocket.connect", require=True)["headers"]
        self.assertEqual(
            sorted(headers),
            [
                [b"cookie", b"theme=dark"],
                [b"host", b"testserver"],
                [b"origin", b"http://example.com"],
                [b"x-number", b"7"],
                [b"x-text", b"1"],
            ],
        )

    def test_headers_and_cookies_are_dicts(self):
        client = WSClient()
        self.assertEqual((client.headers, client.get_cookies()), ({}, {}))
        client.set_header("X-Text", "1")
        client.set_header("origin", b"http://example.com")
        client.set_cookie("theme", "dark mode")
        self.assertEqual(client.get_cookies(), {"theme": "dark mode"})
        self.assertEqual(client.headers["x-text"], "1")
        self.assertEqual(client.headers["origin"], b"http://example.com")
        self.assertEqual(client.headers["cookie"], b'theme="dark mode"')

    def test_a_host_that_is_set_replaces_the_default(self):
        client = WSClient()
        client.set_header("Host", "example.com")
        client.send("chat")
        self.assertEqual(self.get_next_message("chat")["headers"], [[b"host", b"example.com"]])

    def test_messages_on_every_channel_have_path_and_headers(self):
        client = WSClient()
        for channel in ("websocket.receive", "websocket.disconnect", "http.request", "chat"):
            client.send(channel, {"room": "a"}, text={"x": 1}, path="/p")
            message = self.get_next_message(channel, require=True)
            self.assertEqual(message["path"], "/p")
            self.assertEqual(message["headers"], [[b"host", b"testserver"]])
            self.assertEqual((message["room"], message["text"]), ("a", '{"x": 1}'))

    def test_messages_are_numbered_if_the_client_is_ordered(self):
        channels = ("websocket.connect", "websocket.receive", "chat", "websocket.disconnect")
        for ordered in (False, True):
            client = WSClient(ordered=ordered)
            numbers = []
            for channel in channels:
                client.send(channel)
                numbers.append(self.get_next_message(channel).get("order"))
            self.assertEqual(numbers, [0, 1, 2, 3] if ordered else [None] * 4)

    def test_what_is_received(self):
        replies = [
            {"text": '{"a": 1}'},
            {"bytes": b"abc"},
            {"text": "[]", "close": True},
            {"close": True},
            {"status": 200},
        ]
        with self.answer(*replies):
            client = WSClient()
            client.send_and_consume("chat")
        received = [client.receive() for _ in range(6)]
        self.assertEqual(
            received, [{"a": 1}, {"bytes": b"abc"}, [], {"close": True}, {"status": 200}, None]
        )

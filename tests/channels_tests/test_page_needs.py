"""What a page needs: sends on commit, denials with a code, JSON, everybody but the sender, log-in."""

from django.channels import Group, route, route_class
from django.channels.auth import login_required
from django.channels.exceptions import DenyConnection
from django.channels.generic.async_websockets import AsyncJsonWebsocketConsumer
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.protocol import EXCLUDE, GROUP_MESSAGE, drop_control_keys, group_message
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.contrib.auth import get_user_model
from django.db import transaction
from django.test import SimpleTestCase, TransactionTestCase

from .applications import INSTALLED


class Room(JsonWebsocketConsumer):
    groups = ["room"]

    def receive(self, content, **kwargs):
        self.group_send("room", content, exclude=self.message.reply_channel)


class AsyncRoom(AsyncJsonWebsocketConsumer):
    groups = ["room"]

    async def receive(self, content, **kwargs):
        await self.group_send("room", content, exclude=self.message.reply_channel)


class Streams(WebsocketDemultiplexer):
    groups = ["room"]


class Denying(WebsocketConsumer):
    def connect(self, message, **kwargs):
        self.deny(4403)


class Private(WebsocketConsumer):
    login_required = True

    def receive(self, text=None, bytes=None, **kwargs):
        self.send("%s said %s" % (self.message.user.username, text))


class PrivateWithCode(Private):
    login_required = 4401


@login_required(code=4401)
def private_connect(message):
    message.reply_channel.send({"text": "hello " + message.user.username})


@login_required
async def private_receive(message):
    await message.reply_channel.asend({"text": message.user.username})


def deny(message):
    raise DenyConnection(code=4000)


class ExcludeTests(ChannelTestCase):
    def everybody_but_the_sender(self, consumer):
        with apply_routes([route_class(consumer)]):
            sender, other = WSClient(), WSClient()
            for each in (sender, other):
                each.send_and_consume("websocket.connect", check_accept=False)
                each.receive(json=False)
            sender.send_and_consume("websocket.receive", text={"line": 1})
            self.assertEqual(other.receive(), {"line": 1})
            self.assertIsNone(sender.receive())

    def test_a_synchronous_class(self):
        self.everybody_but_the_sender(Room)

    def test_an_asynchronous_class(self):
        self.everybody_but_the_sender(AsyncRoom)

    def test_a_stream(self):
        Group("room").add("one!a")
        Group("room").add("one!b")
        Streams.group_send("room", "chat", 1, exclude="one!a")
        layer = Group("room").channel_layer
        self.assertEqual(layer.receive_many(["one!"])[0], "one!b")
        self.assertEqual(layer.receive_many(["one!"]), (None, None))

    def test_the_key_reaches_nobody(self):
        Group("room").add("one!b")
        Group("room").send({"text": "x"}, exclude="one!a")
        self.assertEqual(
            Group("room").channel_layer.receive_many(["one!"]), ("one!b", {"text": "x"})
        )

    def test_a_wrong_channel_is_refused(self):
        with self.assertRaises(TypeError):
            Group("room").send({"text": "x"}, exclude="not a channel")


class ExcludeKeyTests(SimpleTestCase):
    def test_a_site_cannot_send_the_key(self):
        for name in ("room", "gateway.1!a", "websocket.receive"):
            message = {EXCLUDE: "gateway.1!b", "text": "x"}
            drop_control_keys(message, name)
            self.assertEqual(message, {"text": "x"})

    def test_a_gateway_leaves_the_member_out(self):
        from unittest import mock

        from django.channels.gateway.reader import InboxReader

        one, other = mock.Mock(channel="gateway.1!a"), mock.Mock(channel="gateway.1!b")
        reader = InboxReader("gateway.1!", mock.Mock(), {}, mock.Mock(), mock.Mock())
        reader.groups["room"] = {one: None, other: None}
        message = group_message("room", {"text": "x", EXCLUDE: "gateway.1!a"})
        reader.handle("gateway.1!", message)
        self.assertEqual(other.take_group.call_args[0][0], {"text": "x"})
        self.assertFalse(one.take_group.called)

    def test_a_gateway_gets_the_key_beside_the_message(self):
        found = group_message("room", {"text": "x", EXCLUDE: "gateway.1!a"})
        self.assertEqual((found[EXCLUDE], found[GROUP_MESSAGE]), ("gateway.1!a", {"text": "x"}))


class JsonTests(ChannelTestCase):
    def test_a_group_sends_json_by_djangos_encoder(self):
        import datetime

        Group("room").add("one!b")
        Group("room").send_json({"day": datetime.date(2026, 1, 2)})
        Group("room").send_json([1], close=True)
        layer = Group("room").channel_layer
        self.assertEqual(layer.receive_many(["one!"])[1], {"text": '{"day": "2026-01-02"}'})
        self.assertEqual(layer.receive_many(["one!"])[1], {"text": "[1]", "close": True})
        self.assertEqual(Group.encode_json({"a": 1}), {"text": '{"a": 1}'})

    def test_everybody_but_the_sender(self):
        Group("room").add("one!b")
        Group("room").send_json(1, exclude="one!b")
        self.assertEqual(Group("room").channel_layer.receive_many(["one!"]), (None, None))


class OnCommitTests(TransactionTestCase):
    available_apps = INSTALLED

    def test_a_class_sends_when_the_transaction_commits(self):
        from django.channels.asgi import channel_layers
        from django.channels.layers.memory import MemoryChannelLayer

        layer = MemoryChannelLayer()
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", layer))
        layer.group_add("room", "one!a")
        sends = [
            lambda: Room.group_send("room", 1, on_commit=True),
            lambda: Private.group_send("room", "1", on_commit=True),
            lambda: Streams.group_send("room", "s", 1, on_commit=True),
            lambda: Group("room").send_json(1, on_commit=True),
        ]
        import django

        for send in sends:
            with transaction.atomic():
                send()
                if django.VERSION >= (1, 9):
                    self.assertEqual(layer.receive_many(["one!"]), (None, None))
            self.assertEqual(layer.receive_many(["one!"])[0], "one!a")


class DenialTests(ChannelTestCase):
    def denied(self, consumer):
        with apply_routes([consumer]):
            client = WSClient()
            client.send_and_consume("websocket.connect", check_accept=False)
            return client.receive(json=False), client.receive(json=False)

    def test_a_class_denies_with_a_code(self):
        self.assertEqual(self.denied(route_class(Denying)), ({"accept": True}, {"close": 4403}))

    def test_a_function_denies_with_a_code(self):
        self.assertEqual(
            self.denied(route("websocket.connect", deny)), ({"accept": True}, {"close": 4000})
        )

    def test_a_wrong_code_is_refused(self):
        for code in (1000, 1006, 5000, True):
            with self.assertRaises(ValueError):
                DenyConnection(code=code)


class LoginTests(ChannelTestCase):
    def setUp(self):
        super().setUp()
        self.user = get_user_model().objects.create_user("ann", "ann@example.com", "secret")

    def connected(self, consumer, user=None, **options):
        client = WSClient()
        if user is not None:
            client.force_login(user)
        with apply_routes(consumer):
            client.send_and_consume("websocket.connect", check_accept=False)
            answers = []
            while True:
                answer = client.receive(json=False)
                if answer is None:
                    return client, answers
                answers.append(answer)

    def test_a_stranger_is_refused(self):
        _, answers = self.connected([route_class(Private)])
        self.assertEqual(answers, [{"close": True}])

    def test_a_stranger_gets_the_code(self):
        for routing in (
            [route_class(PrivateWithCode)],
            [route("websocket.connect", private_connect)],
        ):
            _, answers = self.connected(routing)
            self.assertEqual(answers, [{"accept": True}, {"close": 4401}])

    def test_a_user_gets_in(self):
        client, answers = self.connected([route_class(Private)], self.user)
        self.assertEqual(answers, [{"accept": True}])
        with apply_routes([route_class(Private)]):
            client.send_and_consume("websocket.receive", text={"text": "hi"})
        self.assertEqual(client.receive(json=False), 'ann said {"text": "hi"}')
        _, answers = self.connected([route("websocket.connect", private_connect)], self.user)
        self.assertEqual(answers, ["hello ann"])

    def test_an_asynchronous_consumer_gets_the_user(self):
        routing = [
            route("websocket.connect", private_connect),
            route("websocket.receive", private_receive),
        ]
        client, _ = self.connected(routing, self.user)
        with apply_routes(routing):
            client.send_and_consume("websocket.receive", text={"text": "hi"})
        self.assertEqual(client.receive(json=False), "ann")

    def test_a_user_who_is_not_active_is_refused(self):
        self.user.is_active = False
        self.user.save()
        _, answers = self.connected([route_class(Private)], self.user)
        self.assertEqual(answers, [{"close": True}])

    def test_a_later_event_without_a_user_closes_the_socket(self):
        client, _ = self.connected([route_class(PrivateWithCode)], self.user)
        self.user.delete()
        with apply_routes([route_class(PrivateWithCode)]):
            client.send_and_consume("websocket.receive", text={"text": "hi"})
        self.assertEqual(client.receive(json=False), {"close": 4401})

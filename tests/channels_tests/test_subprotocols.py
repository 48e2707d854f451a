"""Subprotocols of WebSockets: offered, chosen by the site, and seen by the test client."""

import asyncio

from django.channels import include, route, route_class
from django.channels.checks import check_subprotocols
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.test import SimpleTestCase, override_settings

from .test_gateway_application import Server, make_layer

TIMEOUT = 20


def accept(message):
    message.reply_channel.send({"accept": True})


def accept_first(message):
    offered = message.get("subprotocols", [])
    message.reply_channel.send({"accept": True, "subprotocol": offered[0], "text": "hello"})


def accept_none(message):
    message.reply_channel.send({"accept": True, "subprotocol": None})


def accept_with_data(message):
    message.reply_channel.send({"text": "hello"})


def accept_unoffered(message):
    message.reply_channel.send({"accept": True, "subprotocol": "other"})


class Chat(WebsocketConsumer):
    subprotocols = ["chat.v1", "chat.v2"]


class Own(WebsocketConsumer):
    def connect(self, message, **kwargs):
        self.accept(subprotocol=message["subprotocols"][-1])


class Legacy(JsonWebsocketConsumer):
    def connect(self, message, **kwargs):
        message.reply_channel.send({"accept": True, "subprotocol": "chat.v2"})


class Streams(WebsocketDemultiplexer):
    consumers = {}
    subprotocols = ("chat.v2",)


#: What the client offers, the consumer, CHANNELS_WS_PROTOCOLS, and what is chosen.
CASES = [
    ("a function names one", ["chat.v1", "chat.v2"], accept_first, None, "chat.v1"),
    ("a function names one despite the setting", ["a", "b"], accept_first, ["b"], "a"),
    ("None stands for none", ["a"], accept_none, ["a"], None),
    ("nothing is named", ["a"], accept, None, None),
    ("the setting has one", ["a", "b"], accept, ["b"], "b"),
    ("the client's order decides", ["a", "b"], accept, ["b", "a"], "a"),
    ("the setting names others", ["a"], accept, ["b"], None),
    ("nothing is offered", [], accept, ["b"], None),
    ("data accepts", ["a", "b"], accept_with_data, ("b",), "b"),
    ("a class has some", ["x", "chat.v2", "chat.v1"], Chat, None, "chat.v2"),
    ("a class names others", ["x"], Chat, ["x"], "x"),
    ("a class accepts with one", ["x", "y"], Own, ["x"], "y"),
    ("a class replies as in 1.1", ["x", "chat.v2"], Legacy, None, "chat.v2"),
    ("a demultiplexer has one", ["x", "chat.v2"], Streams, None, "chat.v2"),
]


def routes_of(consumer):
    if isinstance(consumer, type):
        return [route_class(consumer)]
    return [include([route("websocket.connect", consumer)])]


class GatewayTests(SimpleTestCase):
    def accepted(self, offered, consumer):
        """Open a socket at a gateway. Return the event that accepts it."""
        layer = make_layer()
        layer.routing = routes_of(consumer)

        async def main():
            server = Server()
            if offered:
                server.scope["subprotocols"] = list(offered)
            running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
            event = await asyncio.wait_for(server.sent.get(), TIMEOUT)
            await server.leave(running)
            await layer.gateway.stop()
            return event

        return asyncio.run(main())

    def test_the_handshake_is_accepted_with_the_chosen_one(self):
        for case, offered, consumer, known, chosen in CASES:
            with self.subTest(case), override_settings(CHANNELS_WS_PROTOCOLS=known):
                event = self.accepted(offered, consumer)
                expected = {"type": "websocket.accept"}
                if chosen is not None:
                    expected["subprotocol"] = chosen
                self.assertEqual(event, expected)


class ClientTests(ChannelTestCase):
    def test_the_client_sees_the_chosen_one(self):
        for case, offered, consumer, known, chosen in CASES:
            with self.subTest(case), override_settings(CHANNELS_WS_PROTOCOLS=known):
                client = WSClient(subprotocols=offered)
                with apply_routes(routes_of(consumer)):
                    client.send_and_consume("websocket.connect")
                self.assertEqual(client.subprotocol, chosen)
                says = consumer in (accept_first, accept_with_data)
                self.assertEqual(client.receive(json=False), "hello" if says else None)

    @apply_routes([route("websocket.connect", accept_first)])
    def test_they_may_be_given_with_the_message(self):
        client = WSClient()
        client.send_and_consume("websocket.connect", {"subprotocols": ["a"]})
        self.assertEqual(client.subprotocol, "a")

    @apply_routes([route("websocket.connect", accept)])
    def test_the_next_handshake_begins_without_one(self):
        client = WSClient(subprotocols=["a"])
        with override_settings(CHANNELS_WS_PROTOCOLS=["a"]):
            client.send_and_consume("websocket.connect")
        self.assertEqual(client.subprotocol, "a")
        client.send_and_consume("websocket.connect")
        self.assertIsNone(client.subprotocol)

    @apply_routes([route("websocket.connect", accept_unoffered)])
    def test_one_that_was_not_offered_fails_the_test(self):
        with self.assertRaisesRegex(AssertionError, "'other'.*didn't offer.*'a'"):
            WSClient(subprotocols=["a"]).send_and_consume("websocket.connect")

    def test_without_check_accept_the_reply_is_received(self):
        with apply_routes([route("websocket.connect", accept_first)]):
            client = WSClient(subprotocols=["a"])
            client.send_and_consume("websocket.connect", check_accept=False)
        self.assertIsNone(client.subprotocol)
        self.assertEqual(client.receive(json=False), "hello")


class CheckTests(SimpleTestCase):
    def problems(self, value):
        with override_settings(CHANNELS_WS_PROTOCOLS=value):
            return [each.id for each in check_subprotocols(None)]

    def test_the_setting_is_a_list_of_names(self):
        for value in (None, [], ["graphql-ws"], ("a", "b.v1")):
            self.assertEqual(self.problems(value), [])
        for value in ("graphql-ws", [b"graphql-ws"], ["a, b"], [""], {"a": 1}, 5):
            self.assertEqual(self.problems(value), ["channels.E005"], value)

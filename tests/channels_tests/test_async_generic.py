"""Class-based asynchronous consumers, and the decorators, with the test client and on a worker."""

import asyncio
import inspect
import threading
from importlib import import_module

from django.channels import Group, route, route_class
from django.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
)
from django.channels.compat import sync_to_async
from django.channels.coroutines import in_thread
from django.channels.exceptions import SendNotAvailableOnDemultiplexer
from django.channels.generic.async_websockets import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    AsyncWebsocketDemultiplexer,
)
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.channels.routing import InvalidRoute
from django.channels.sessions import (
    channel_and_http_session,
    channel_session,
    http_session,
    remembered_http_session,
)
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User

from .test_async_consumers import AsyncCase


class Plain(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text=None, bytes=None, **kwargs):
        await self.send(text="now " + text)
        await asyncio.sleep(0)
        self.message.reply_channel.send({"text": "at the end"})
        if text == "close":
            await self.close(3001)


class EitherKind(WebsocketConsumer):
    """Today's class, with handlers of both kinds."""

    def connect(self, message, **kwargs):
        self.accept()

    async def receive(self, text=None, bytes=None, **kwargs):
        await asyncio.sleep(0)
        self.send(text=text.upper())

    async def disconnect(self, message, **kwargs):
        await asyncio.sleep(0)
        await Group("gone").asend({"text": "gone"})


class Echo(AsyncJsonWebsocketConsumer):
    http_user = True

    async def receive(self, content, **kwargs):
        await asyncio.sleep(0)
        key = self.message.http_session[SESSION_KEY]
        await self.send({"got": content, "user": self.message.user.username, "key": key})


class FromThreads(AsyncJsonWebsocketConsumer):
    """The asynchronous class, with handlers that aren't asynchronous."""

    groups = ["threads"]

    def connect(self, message, **kwargs):
        self.accept()
        self.send("connected")

    def receive(self, content, **kwargs):
        self.group_send("threads", "to all")
        self.send({"got": content})
        self.close(3002)


class EachStep(AsyncWebsocketConsumer):
    """Overrides each step with an asynchronous method, which calls the class's own."""

    groups = ["steps"]
    http_user = True
    steps = []

    async def dispatch(self, message, **kwargs):
        await asyncio.sleep(0)
        return await super().dispatch(message, **kwargs)

    async def raw_connect(self, message, **kwargs):
        self.steps.append("raw_connect")
        await super().raw_connect(message, **kwargs)

    async def connect(self, message, **kwargs):
        self.steps.append("connect %s" % message.user.username)
        await super().connect(message, **kwargs)

    async def raw_receive(self, message, **kwargs):
        self.steps.append("raw_receive")
        await super().raw_receive(message, **kwargs)

    async def receive(self, text=None, bytes=None, **kwargs):
        self.steps.append("receive")

    async def raw_disconnect(self, message, **kwargs):
        self.steps.append("raw_disconnect")
        await super().raw_disconnect(message, **kwargs)


class ClientTests(ChannelTestCase):
    """The test client runs asynchronous consumers to their end."""

    def test_sends_joins_and_closes(self):
        with apply_routes([route_class(Plain, path="^/plain")]):
            client = WSClient()
            client.send_and_consume("websocket.connect", path="/plain")
            self.assertEqual(Group("room").channels(), [client.reply_channel])
            client.receive()
            client.send_and_consume("websocket.receive", text="close", path="/plain")
            found = [client.receive(json=False), client.receive(json=False)]
            self.assertEqual(found, ["now close", "at the end"])
            Group("room").send({"text": "to all"})
            self.assertEqual(client.get_next_message(client.reply_channel).content, {"close": 3001})
            client.send_and_consume("websocket.disconnect", path="/plain")
            self.assertEqual(Group("room").channels(), [])

    def test_each_handler_may_be_of_either_kind(self):
        Group("gone").add("listener")
        with apply_routes([route_class(EitherKind)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            client.receive()
            client.send_and_consume("websocket.receive", text="shout")
            self.assertEqual(client.receive(json=False), "SHOUT")
            client.send_and_consume("websocket.disconnect")
        self.assertEqual(self.get_next_message("listener").content, {"text": "gone"})

    def test_a_synchronous_handler_of_an_asynchronous_class_sends_without_await(self):
        with apply_routes([route_class(FromThreads)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            self.assertEqual(client.receive(), "connected")
            client.send_and_consume("websocket.receive", text="1")
            self.assertEqual([client.receive(), client.receive()], ["to all", {"got": 1}])
            closes = client.get_next_message(client.reply_channel)
            self.assertEqual(closes.content, {"close": 3002})

    def test_each_step_may_be_an_asynchronous_override_that_calls_its_class(self):
        User.objects.create_user("ada", password="secret")
        del EachStep.steps[:]
        with apply_routes([route_class(EachStep)]):
            client = WSClient()
            client.login(username="ada", password="secret")
            client.send_and_consume("websocket.connect")
            self.assertEqual(Group("steps").channels(), [client.reply_channel])
            client.send_and_consume("websocket.receive", text="x")
            client.send_and_consume("websocket.disconnect")
            self.assertEqual(Group("steps").channels(), [])
        self.assertEqual(
            EachStep.steps,
            ["raw_connect", "connect ada", "raw_receive", "receive", "raw_disconnect"],
        )

    def test_the_user_and_the_session_are_there(self):
        user = User.objects.create_user("ada", password="secret")
        with apply_routes([route_class(Echo)]):
            client = WSClient()
            client.login(username="ada", password="secret")
            client.send_and_consume("websocket.connect")
            client.receive()
            client.send_and_consume("websocket.receive", text={"a": 1})
            expected = {"got": {"a": 1}, "user": "ada", "key": str(user.pk)}
            self.assertEqual(client.receive(), expected)

    def test_what_it_raises_reaches_the_test(self):
        async def fails(message):
            await asyncio.sleep(0)
            raise KeyError("here")

        with apply_routes([route("jobs", fails)]):
            client = WSClient()
            with self.assertRaises(KeyError):
                client.send_and_consume("jobs", {})

    def test_what_is_in_a_thread_sees_the_transaction_of_the_test(self):
        User.objects.create_user("grace")

        async def counts(message):
            counts = [await in_thread(User.objects.count)]
            if sync_to_async is not None:
                counts.append(await sync_to_async(User.objects.count)())
            message.reply_channel.send({"text": str(set(counts))})

        with apply_routes([route("websocket.receive", counts)]):
            client = WSClient()
            client.send_and_consume("websocket.receive", text="")
            self.assertEqual(client.receive(json=False), "{1}")


class DecoratorTests(ChannelTestCase):
    """The decorators of sessions and users do the same around an asynchronous consumer."""

    def setUp(self):
        self.seen = []
        User.objects.create_user("ada", password="secret")
        self.client = WSClient()
        self.client.login(username="ada", password="secret")

    def consume(self, decorator, channel="websocket.connect"):
        test = self

        @decorator
        async def consumer(message):
            await asyncio.sleep(0)
            test.seen.append(message.user.username)
            if message.channel_session is not None:
                message.channel_session["count"] = message.channel_session.get("count", 0) + 1

        self.assertTrue(inspect.iscoroutinefunction(consumer))
        with apply_routes([route(channel, consumer)]):
            self.client.send_and_consume(channel, check_accept=False)
        return consumer

    def test_users(self):
        for decorator in (
            channel_session_user_from_http,
            http_session_user,
            channel_and_http_session_user_from_http,
        ):
            self.consume(decorator)
        self.consume(channel_session_user, "websocket.receive")
        self.assertEqual(self.seen, ["ada"] * 4)
        with apply_routes([]):
            self.client.send("websocket.receive")
            message = self.client.get_next_message("websocket.receive")
        self.assertEqual(message.channel_session["count"], 2)  # of the last connection

    def test_changes_of_the_http_session_are_saved(self):
        for decorator, channel in (
            (http_session, "websocket.connect"),
            (channel_and_http_session, "websocket.connect"),
            (remembered_http_session, "websocket.receive"),
        ):

            @decorator
            async def consumer(message):
                await asyncio.sleep(0)
                message.http_session[decorator.__name__] = True  # noqa: B023  (it runs in this turn)

            with apply_routes([route(channel, consumer)]):
                self.client.send_and_consume(channel, check_accept=False)
            key = self.client.get_cookies()["sessionid"]
            store = import_module(settings.SESSION_ENGINE).SessionStore(key)
            self.assertTrue(store[decorator.__name__])

    def test_a_message_without_a_connection_is_refused(self):
        @channel_session
        async def consumer(message):
            self.seen.append(1)

        with apply_routes([route("jobs", consumer)]):
            client = WSClient()
            client.channel_layer.send("jobs", {"a": 1})
            with self.assertRaises(ValueError):
                client.consume("jobs")
        self.assertEqual(self.seen, [])


class StreamConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self, message, multiplexer, **kwargs):
        await asyncio.sleep(0)
        await multiplexer.send("connected")

    async def receive(self, content, multiplexer, **kwargs):
        await asyncio.sleep(0)
        await multiplexer.send({"async": content})


class ThreadConsumer(JsonWebsocketConsumer):
    def connect(self, message, multiplexer, **kwargs):
        multiplexer.send("connected")

    def receive(self, content, multiplexer, **kwargs):
        multiplexer.send({"sync": content})
        if content == "all":
            multiplexer.group_send("everyone", "two", "from a thread")


class AsyncSplit(AsyncWebsocketDemultiplexer):
    consumers = {"one": StreamConsumer, "two": ThreadConsumer}


class SyncConsumer(JsonWebsocketConsumer):
    async def receive(self, content, multiplexer, **kwargs):
        await asyncio.sleep(0)
        multiplexer.send({"async": content})


class AwaitedSplit(AsyncSplit):
    """Its handlers run on the event loop, and call those of the class."""

    async def connect(self, message, **kwargs):
        await super().connect(message, **kwargs)

    async def receive(self, content, **kwargs):
        await super().receive(content, **kwargs)

    async def disconnect(self, message, **kwargs):
        await super().disconnect(message, **kwargs)


class Split(WebsocketDemultiplexer):
    consumers = {"one": SyncConsumer, "two": ThreadConsumer}


class DemultiplexerTests(ChannelTestCase):
    def received(self, client):
        found = []
        while True:
            message = client.receive()
            if message is None:
                return found
            found.append(message)

    def test_streams_of_both_kinds_are_handled_in_order(self):
        self.check_streams_of(AsyncSplit)

    def test_synchronous_streams_run_in_threads_if_the_demultiplexer_is_awaited(self):
        self.check_streams_of(AwaitedSplit)

    def check_streams_of(self, demultiplexer):
        with apply_routes([route_class(demultiplexer)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            self.assertEqual(
                [each for each in self.received(client) if each != {"accept": True}],
                [
                    {"stream": "one", "payload": "connected"},
                    {"stream": "two", "payload": "connected"},
                ],
            )
            for stream, kind in (("one", "async"), ("two", "sync")):
                client.send_and_consume("websocket.receive", text={"stream": stream, "payload": 1})
                self.assertEqual(client.receive(), {"stream": stream, "payload": {kind: 1}})

    def test_a_synchronous_consumer_of_the_asynchronous_class_sends_without_await(self):
        with apply_routes([route_class(AsyncSplit)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            client.join_group("everyone")
            self.received(client)
            client.send_and_consume("websocket.receive", text={"stream": "two", "payload": "all"})
            self.assertEqual(
                self.received(client),
                [
                    {"stream": "two", "payload": {"sync": "all"}},
                    {"stream": "two", "payload": "from a thread"},
                ],
            )

    def test_the_synchronous_class_takes_consumers_of_both_kinds(self):
        with apply_routes([route_class(Split)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            self.received(client)
            for stream, kind in (("one", "async"), ("two", "sync")):
                client.send_and_consume("websocket.receive", text={"stream": stream, "payload": 1})
                self.assertEqual(client.receive(), {"stream": stream, "payload": {kind: 1}})

    def test_a_frame_needs_a_stream(self):
        class Sends(AsyncJsonWebsocketConsumer):
            async def receive(self, content, multiplexer, **kwargs):
                await self.send("no stream")

        class Splits(AsyncWebsocketDemultiplexer):
            consumers = {"one": Sends}

        with apply_routes([route_class(Splits)]):
            client = WSClient()
            client.send_and_consume("websocket.connect")
            with self.assertRaises(SendNotAvailableOnDemultiplexer):
                client.send_and_consume("websocket.receive", text={"stream": "one", "payload": 1})


class RouteTests(ChannelTestCase):
    def test_a_method_whose_result_is_not_awaited_must_be_synchronous(self):
        async def method(self, *args, **kwargs):
            return []

        for name in ("connection_groups", "get_handler", "decode_json", "encode_json"):
            consumer = type("Wrong", (AsyncJsonWebsocketConsumer,), {name: method})
            with self.subTest(name=name), self.assertRaisesRegex(InvalidRoute, "write def"):
                route_class(consumer)

    def test_an_asynchronous_generator_is_refused(self):
        async def generator(message):
            yield 1

        with self.assertRaisesRegex(InvalidRoute, "asend"):
            route("websocket.receive", generator)


class WorkerTests(AsyncCase):
    def test_a_whole_connection_on_a_worker(self):
        threads = []

        class Consumer(AsyncJsonWebsocketConsumer):
            channel_session = True

            def connection_groups(self, **kwargs):
                threads.append(threading.current_thread().name)
                return ["room"]

            async def receive(self, content, **kwargs):
                threads.append(threading.current_thread().name)
                self.message.channel_session["last"] = content
                await self.send({"echo": content})

        self.start(route_class(Consumer))
        client = self.send("websocket.connect")
        answer = self.next(client)
        self.assertEqual(answer.pop("replies"), [{"accept": True}])
        self.assertEqual(self.next(client), {"ack": 7})
        self.assertEqual(self.layer.group_channels("room"), [client])
        client = self.send(text="[1, 2]")
        self.assertEqual(self.next(client)["replies"], [{"text": '{"echo": [1, 2]}'}])
        answer = self.next(client)
        self.assertEqual(answer["channel_session"], {"set": {"last": [1, 2]}, "removed": []})
        self.assertEqual(threads, ["channels-worker-1", "channels-loop"])

"""Asynchronous consumers on layers that cross processes. `make_layer` makes layers of one server."""

import asyncio
import logging
import threading
import unittest

from django.channels import Channel, Group, route
from django.channels.exceptions import LayerUnavailable
from django.channels.worker import WorkerGroup

from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase


class AsyncLayerTests:
    """A worker in this process, on a separate layer. `self.layer` is that of the gateway: the test."""

    def setUp(self):
        super().setUp()
        self.layer = self.make_layer()
        self.layer.flush()
        logger = logging.getLogger("django.channels.worker")
        logger.setLevel(logging.ERROR)  # it tells of those that wait for a place
        self.addCleanup(logger.setLevel, logging.NOTSET)
        self.gates = []
        self.seen = []

    def start(self, consumer, start=True, **options):
        layer = self.make_layer()
        layer.routing = [route("websocket.receive", consumer)]
        group = WorkerGroup(layer, **dict({"threads": 2}, **options))
        if start:
            group.start()
        self.addCleanup(group.stop, TIMEOUT)
        return group

    def send(self, number, channel="websocket.receive"):
        client = "gateway.async!%d" % number
        event = {"path": "/", "event_id": number, "reply_channel": client, "text": str(number)}
        self.layer.send(channel, event)
        return client

    def answers(self, client):
        """Return what comes for a client, up to the acknowledgement, but for notices of time."""
        found = [{}]
        while "ack" not in found[-1]:
            found.append(wait_until(lambda: self.layer.receive_many([client])[1], "an answer"))
        found[-1].pop("ran", None)
        return [each for each in found[1:] if "running" not in each]

    async def wait(self):
        """In a consumer: wait until the test calls `open`."""
        event = asyncio.Event()
        self.gates.append((asyncio.get_event_loop(), event))
        self.seen.append(threading.current_thread().name)
        await event.wait()

    def open(self):
        for loop, event in self.gates:
            loop.call_soon_threadsafe(event.set)

    def held(self):
        return self.layer.global_statistics()["messages_held"]

    def test_many_hold_their_claims_at_a_time(self):
        async def consumer(message):
            await self.wait()
            message.channel_session["seen"] = message["text"]
            message.reply_channel.send({"text": "done " + message["text"]})

        self.start(consumer)
        clients = [self.send(number) for number in range(30)]
        wait_until(lambda: len(self.seen) == 30, "all consumers to wait")
        self.assertEqual(set(self.seen), {"channels-loop"})
        self.assertEqual(self.held(), 30)
        self.open()
        for number, client in enumerate(clients):
            answer = self.answers(client)[-1]
            self.assertEqual(answer["replies"], [{"text": "done %d" % number}])
            self.assertEqual(answer["channel_session"]["set"], {"seen": str(number)})
        wait_until(lambda: not self.held(), "the claims to end")

    def test_those_without_a_place_leave_a_thread_to_synchronous_consumers(self):
        async def waits(message):
            if not is_open:
                await self.wait()

        def answers(message):
            message.reply_channel.send({"text": "now"})

        is_open = []
        group = self.start(waits, start=False, threads=3, async_concurrency=2)
        group.channel_layer.routing += [route("websocket.connect", answers)]
        group.start()
        clients = [self.send(number) for number in range(20)]
        wait_until(lambda: len(self.seen) == 2, "the places to be taken")
        for number in range(20, 24):
            (answer,) = self.answers(self.send(number, "websocket.connect"))
            self.assertEqual(answer["replies"], [{"text": "now"}])
        self.assertEqual(len(self.seen), 2)
        is_open.append(True)
        self.open()
        for number, client in enumerate(clients):
            self.assertEqual(self.answers(client), [{"ack": number}])

    def test_awaited_sends_arrive_in_order_and_before_the_acknowledgement(self):
        async def consumer(message):
            group = Group("room", channel_layer=message.channel_layer)
            await group.aadd("gateway.async!99")
            for number in range(5):
                message.reply_channel.send({"text": "noted %d" % number})
                await message.reply_channel.asend({"text": "sent %d" % number})
            await Channel("elsewhere", channel_layer=message.channel_layer).asend({"a": 1})
            self.seen.append(await group.achannels())
            await group.adiscard("gateway.async!99")

        self.start(consumer)
        answers = self.answers(self.send(1))
        texts = [each["text"] for answer in answers for each in answer.get("replies", ())]
        expected = ["%s %d" % (kind, number) for number in range(5) for kind in ("noted", "sent")]
        self.assertEqual(texts, expected)
        self.assertEqual(answers[-1], {"ack": 1})
        self.assertEqual(self.layer.receive_many(["elsewhere"])[1], {"a": 1})
        self.assertEqual(self.seen, [["gateway.async!99"]])

    def test_an_answer_waits_until_the_layer_can_be_reached(self):
        async def consumer(message):
            await self.wait()
            message.reply_channel.send({"text": "late"})

        layer = self.start(consumer).channel_layer
        client = self.send(1)
        wait_until(lambda: self.seen, "the consumer to wait")
        failures = []

        def failing(call):
            def fail(*args):
                if len(failures) == 3:
                    return call(*args)
                failures.append(args)
                raise LayerUnavailable("It does not answer.")

            return fail

        for name in ("acknowledge", "acknowledge_all"):
            setattr(layer, name, failing(getattr(layer, name)))
        self.open()
        self.assertEqual(self.answers(client)[-1]["replies"], [{"text": "late"}])
        wait_until(lambda: not self.held(), "the claim to end")
        self.assertEqual(len(failures), 3)

    def test_an_answer_makes_room_for_the_message_that_it_brings(self):
        async def consumer(message):
            self.seen.append(message["text"])

        group = self.start(consumer, async_concurrency=1, threads=1)
        layer = group.channel_layer
        next_one = []

        def followed(call):
            def answer(names):
                call(names)
                if not next_one:
                    next_one.append(self.send(2))
                    wait_until(lambda: self.seen == ["1", "2"], "the next message to be handled")

            return answer

        for name in ("acknowledge", "acknowledge_all"):
            setattr(layer, name, followed(getattr(layer, name)))
        self.assertEqual(self.answers(self.send(1))[-1]["ack"], 1)
        wait_until(lambda: next_one, "the first to be acknowledged")
        self.assertEqual(self.answers(next_one[0])[-1]["ack"], 2)
        self.assertFalse(layer.counters.values().get("async_waits"))
        wait_until(lambda: not group.loop.places.used, "the places to be given back")

    def test_a_worker_that_stops_leaves_what_waits_for_a_place_to_others(self):
        async def consumer(message):
            await self.wait()

        group = self.start(consumer, async_concurrency=1, threads=1)
        first, second = self.send(1), self.send(2)
        wait_until(lambda: group.channel_layer.counters.values().get("async_waits"), "one to wait")
        stopping = threading.Thread(target=group.stop, args=(TIMEOUT,))
        stopping.start()
        other = self.start(consumer)
        wait_until(lambda: len(self.seen) == 2, "another worker to take it")
        self.open()
        for number, client in ((1, first), (2, second)):
            self.assertEqual(self.answers(client)[-1], {"ack": number})
        stopping.join(TIMEOUT)
        wait_until(lambda: not other.loop.places.used, "the place to be given back")


class SQLiteTests(AsyncLayerTests, SQLiteCase, unittest.TestCase):
    pass


class PostgreSQLTests(AsyncLayerTests, PostgreSQLCase, unittest.TestCase):
    pass


class MariaDBTests(AsyncLayerTests, MariaDBCase, unittest.TestCase):
    pass

"""Requests of clients take turns from the first one on: a gateway and its workers, on several layers."""

import asyncio
import threading
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from django.channels import late, route
from django.channels.gateway.turns import FIRST_WINDOW
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.worker import WorkerGroup

from .support.waiting import TIMEOUT
from .test_database_layer import PostgreSQLCase, SQLiteCase

#: Seconds that hundreds of requests may take on a busy machine.
ALL_TIMEOUT = 4 * TIMEOUT


async def until(condition, message):
    deadline = time.monotonic() + ALL_TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "never: " + message
        await asyncio.sleep(0.01)


class TurnTests:
    """Consumers hold a thread until the test opens the gate. `self.began` has their clients, in order."""

    def setUp(self):
        super().setUp()
        self.began, self.gate = [], threading.Event()
        self.addCleanup(self.gate.set)

    def consumer(self, message):
        self.began.append(message["client"][0])
        self.gate.wait(ALL_TIMEOUT)
        answer = {"status": 200, "content": b"answered"}
        if message.channel.name == "websocket.connect":
            answer = {"accept": True}
        message.reply_channel.send(answer)

    def run_with(self, threads, steps):
        """Run `steps(layer)`, which returns requests, and require an answer to each."""
        layer = self.make_layer(threads)

        async def run():
            try:
                requests = await steps(layer)
                self.gate.set()
                for status in await asyncio.wait_for(asyncio.gather(*requests), ALL_TIMEOUT):
                    self.assertEqual(status, 200)
            finally:
                self.gate.set()
                await layer.gateway.stop()

        asyncio.run(run())

    def routing(self):
        return [route("http.request", self.consumer), route("websocket.connect", self.consumer)]

    def ask(self, layer, address, kind="http"):
        """Begin a request or a handshake, as a task that returns its status: 200 if it is accepted."""
        return asyncio.ensure_future(self._ask(layer, address, kind))

    async def _ask(self, layer, address, kind):
        events, sent = asyncio.Queue(), []
        first = {"type": "http.request", "body": b"", "more_body": False}
        events.put_nowait(first if kind == "http" else {"type": "websocket.connect"})

        async def send(event):
            sent.append(event)
            if event["type"] == "websocket.accept":
                events.put_nowait({"type": "websocket.disconnect", "code": 1000})

        scope = {
            "type": kind,
            "http_version": "1.1",
            "method": "GET",
            "path": "/",
            "subprotocols": [],
            "query_string": b"",
            "headers": [],
            "client": (address, 40000),
        }
        await layer(scope, events.get, send)
        return 200 if sent[0]["type"] == "websocket.accept" else sent[0]["status"]

    def test_the_first_burst_of_one_address_keeps_few_requests_before_another(self):
        self._burst("http", "http.request")

    def test_the_first_burst_of_one_address_keeps_few_handshakes_before_another(self):
        self._burst("websocket", "websocket.connect")

    def _burst(self, kind, channel):
        async def steps(layer):
            requests = [self.ask(layer, "192.0.2.1", kind) for _ in range(300)]
            await until(lambda: len(self.began) == 4, "all threads are busy")
            requests.append(self.ask(layer, "192.0.2.2", kind))
            lane = layer.gateway.events._lanes[channel]
            await until(lambda: len(lane.waiting) + lane.in_flight == 297, "the others wait")
            self.assertGreater(len(lane.waiting), 250)
            return requests

        self.run_with(4, steps)
        self.assertLessEqual(self.began.index("192.0.2.2"), 4 + 2 * FIRST_WINDOW)

    def test_requests_at_once_have_all_threads_at_once(self):
        async def steps(layer):
            requests = [self.ask(layer, "192.0.2.1") for _ in range(64)]
            await until(lambda: len(self.began) == 64, "each request has a thread")
            return requests

        self.run_with(64, steps)


class MemoryTests(TurnTests, unittest.TestCase):
    def make_layer(self, threads):
        layer = MemoryChannelLayer(threads=threads, capacity=1000)
        layer.alias = "test"
        layer.routing = self.routing()
        return layer


class CrossingTests(TurnTests):
    """Workers have another layer object than the gateway, as in another process."""

    def make_layer(self, threads):
        gateways, workers = [super(CrossingTests, self).make_layer(capacity=1000) for _ in range(2)]
        gateways.flush()
        workers.routing = self.routing()
        group = WorkerGroup(workers, threads=threads)
        group.start()
        self.addCleanup(group.stop, TIMEOUT)
        return gateways


class SQLiteTests(CrossingTests, SQLiteCase, unittest.TestCase):
    pass


class PostgreSQLTests(CrossingTests, PostgreSQLCase, unittest.TestCase):
    pass


class LateThreadsTests(unittest.TestCase):
    """Gateways learn which events run in threads. Here, workers without threads."""

    def setUp(self):
        self.told = []
        patch = mock.patch.object(late, "tell_running", self.told.append)
        patch.start()
        self.addCleanup(patch.stop)
        self.workers = [SimpleNamespace(handling=None) for _ in range(3)]
        self.late = late.LateThreads(self.workers)

    def begin(self, index, started):
        event = SimpleNamespace(started=started, is_late=False)
        self.workers[index].handling = event
        return event

    def test_it_sleeps_while_no_thread_runs_an_event(self):
        self.assertIsNone(self.late.check(100.0))

    def test_late_events_are_told_once_and_together(self):
        events = [self.begin(0, 100.0), self.begin(2, 100.01)]
        self.assertAlmostEqual(self.late.check(100.005), 0.015)
        self.assertEqual(self.told, [])
        self.assertIsNone(self.late.check(100.04))
        self.assertEqual(self.told, [events])
        self.assertIsNone(self.late.check(101.0))
        self.assertEqual(self.told, [events])

    def test_a_thread_that_runs_another_event_is_watched_again(self):
        first = self.begin(0, 100.0)
        self.late.check(100.03)
        second = self.begin(0, 100.05)
        self.assertAlmostEqual(self.late.check(100.06), 0.01)
        self.late.check(100.07)
        self.assertEqual(self.told, [[first], [second]])

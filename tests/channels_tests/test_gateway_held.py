"""An address whose asynchronous consumers take most places is held back, so that others find one."""

import asyncio
import threading
import unittest
from contextlib import suppress

from django.channels import protocol, route
from django.channels.gateway.limits import Limits
from django.channels.gateway.sender import EventSender
from django.channels.gateway.turns import FIRST_WINDOW, FairQueue
from django.channels.layers.memory import MemoryChannelLayer

from .support.waiting import wait_until
from .test_async_consumers import AsyncCase
from .test_gateway_sender import Connection, Inbox, Loop, event

GREEDY, OTHER, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"

#: The places of the worker process of these tests.
PLACES = 200

#: More than half of them that one address may get: what is on its way when it is held.
OVERSHOOT = 2 * FIRST_WINDOW

REQUEST = "http.request"


class State:
    path = "/"

    def __init__(self):
        self.in_flight = 7

    def begun(self):
        return []

    def refused(self, channel):
        self.in_flight = None
        return []


class HeldTests(unittest.TestCase):
    """A gateway's sender and a worker process, without a server and without a clock."""

    def setUp(self):
        self.layer = MemoryChannelLayer(capacity=10000)
        self.inbox, self.loop = Inbox(), Loop()
        self.sender = EventSender(self.layer, self.inbox, self.loop, Limits(session_waiting=10000))
        #: What was sent and isn't known to run, and what runs in a place.
        self.sent, self.running = [], []
        self.inbox.send = lambda channel, message, failed: self.sent.append(message["from"])

    def send(self, address, count=1, channel=REQUEST):
        connections = []
        for number in range(count):
            connection = Connection("gateway.test!%s.%d" % (address, number))
            connection.state, connection.client = State(), (address, connection)
            connections.append(connection)
            self.sender.send(connection, channel, dict(event(7), **{"from": connection}))
        return connections

    def work(self):
        """Run all that was sent, which is told when it has run for a while, until nothing more comes."""
        while self.sent:
            late, self.sent = self.sent, []
            self.running += late
            taken = min(100, 100 * len(self.running) // PLACES)
            for each in late:
                self.sender.running(each, protocol.running(7, 20, taken))

    def end(self, connection):
        """As the gateway does with the acknowledgement of an event that was told to run."""
        self.running.remove(connection)
        connection.state.in_flight = None
        self.sender.ended(connection)

    def of(self, address):
        return [each for each in self.running if each.client[0] == address]

    def fill(self, address=GREEDY, count=500):
        with suppress(AssertionError), self.assertLogs("django.channels.gateway", "WARNING"):
            self.send(address, count)
            self.work()

    def test_one_address_leaves_places_to_others(self):
        self.fill()
        self.assertGreaterEqual(len(self.running), PLACES // 2)
        self.assertLessEqual(len(self.running), PLACES // 2 + OVERSHOOT)
        others = self.send(OTHER, 10)
        self.assertEqual(self.sent, others)

    def test_it_is_counted_and_logged(self):
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            self.send(GREEDY, 500)
            self.work()
        self.assertEqual(len(logs.output), 1)
        self.assertIn(GREEDY, logs.output[0])
        self.assertEqual(self.layer.statistics()["clients_held"], 1)

    def test_an_address_that_is_alone_keeps_half_of_the_places(self):
        self.fill()
        least = len(self.running)
        for _ in range(300):
            self.end(self.running[0])
            self.work()
            least = min(least, len(self.running))
            self.assertLessEqual(len(self.running), PLACES // 2 + OVERSHOOT)
        self.assertGreaterEqual(least, PLACES // 2 - 1)

    def test_it_gets_its_places_again_after_all_have_ended_at_once(self):
        self.fill()
        for each in list(self.running):
            self.end(each)
        self.work()
        self.assertGreaterEqual(len(self.running), PLACES // 2 - OVERSHOOT)

    def test_all_is_sent_in_the_end(self):
        self.fill()
        ended = 0
        while self.running:
            self.end(self.running[0])
            ended += 1
            self.work()
        self.assertEqual(ended, 500)
        self.assertEqual(len(self.sender._lanes[REQUEST].waiting), 0)

    def test_it_yields_to_an_address_that_wants_as_many(self):
        self.fill()
        self.fill(OTHER)
        for _ in range(1000):
            # The oldest ends, and the client comes again.
            connection = self.running[0]
            self.end(connection)
            self.send(connection.client[0])
            self.work()
        share = len(self.running) // 2
        self.assertLessEqual(abs(len(self.of(GREEDY)) - share), OVERSHOOT)
        self.assertLess(len(self.running), PLACES)
        self.assertEqual(len(self.send(THIRD, 10)), len(self.sent))

    def test_an_address_with_few_is_never_held(self):
        self.fill()
        least = Limits().address_running
        for _ in range(least):
            self.send(OTHER)
            self.assertEqual(len(self.sent), 1)
            self.work()
        self.assertEqual(len(self.of(OTHER)), least)

    def test_no_address_of_many_with_few_is_held(self):
        for number in range(PLACES):
            self.send("198.51.100.%d" % number)
            self.work()
        self.assertEqual(len(self.running), PLACES)

    def test_the_address_of_a_proxy_is_one_client_with_half_of_the_places(self):
        """As where the server gives no address at all."""
        self.fill("")
        self.assertGreaterEqual(len(self.running), PLACES // 2)

    def test_other_channels_go_on(self):
        self.fill()
        for channel in ("websocket.connect", "websocket.receive"):
            with self.subTest(channel=channel):
                self.sent = []
                sockets = self.send(GREEDY, 2, channel)
                self.assertEqual(self.sent, sockets)

    def test_threads_and_streams_take_no_place(self):
        connections = self.send(GREEDY, 500)
        while self.sent:
            late, self.sent = self.sent, []
            for each in late:
                self.sender.running(each, protocol.running(7, 20, 10))
                self.sender.running(each, protocol.running(7, 20))
        # The next ones run while others have taken half of the places.
        self.send(OTHER, 20)
        self.fill(OTHER, 200)
        (more,) = self.send(GREEDY)
        self.assertEqual(self.sent, [more])
        for each in connections:
            self.sender.ended(each)

    def test_what_a_thread_began_counts_once_it_has_a_place(self):
        """A thread tells of its event before it hands the event to the loop."""
        connections = self.send(GREEDY, Limits().address_running)
        for each in connections:
            self.sender.running(each, protocol.running(7, 20))
        with self.assertLogs("django.channels.gateway", "WARNING"):
            for each in connections:
                self.sender.running(each, protocol.running(7, 40, 60))
        self.sent = []
        self.send(GREEDY)
        self.assertEqual(self.sent, [])

    def test_a_notice_of_an_event_that_has_ended_is_ignored(self):
        self.fill()
        for each in list(self.running):
            self.end(each)
            self.sender.running(each, protocol.running(7, 20, 60))
        self.assertNotEqual(self.sent, [])

    def test_events_that_end_without_an_acknowledgement_hold_no_address(self):
        self.fill()
        for each in self.running:
            each.state.in_flight = None
        self.running = []
        self.sender.check_turns()
        self.work()
        self.assertGreaterEqual(len(self.running), PLACES // 2 - OVERSHOOT)

    def test_nothing_is_kept_of_an_address_after_its_events(self):
        self.fill(count=300)
        while self.running:
            self.end(self.running[0])
            self.work()
        held = self.sender._lanes[REQUEST].held
        self.assertEqual((held._running, held._holds), ({}, {}))
        self.assertFalse(self.sender._lanes[REQUEST].waiting._held)


class HeldQueueTests(unittest.TestCase):
    def take(self, queue):
        found = []
        while queue.has_next:
            found.append(queue.pop()[1])
        return found

    def test_what_is_held_stays_and_comes_in_order_afterwards(self):
        queue = FairQueue()
        for number in range(3):
            for address in ("a", "b"):
                queue.push((address, "session"), 1, (address, number))
        queue.hold("a")
        self.assertEqual(self.take(queue), [("b", number) for number in range(3)])
        queue.push(("a", "session"), 1, ("a", 3))
        self.assertEqual((len(queue), queue.count("a"), self.take(queue)), (4, 4, []))
        queue.release("a")
        self.assertEqual(self.take(queue), [("a", number) for number in range(4)])
        self.assertEqual(len(queue), 0)

    def test_one_that_comes_while_it_is_held_waits_too(self):
        queue = FairQueue()
        queue.hold("a")
        queue.hold("a")
        queue.push(("a", "session"), 1, 1)
        self.assertEqual(self.take(queue), [])
        queue.release("a")
        queue.release("a")
        self.assertEqual(self.take(queue), [1])

    def test_what_was_held_gets_no_credit_for_it(self):
        queue = FairQueue()
        for _ in range(20):
            queue.push(("a", "session"), 1, "a")
            queue.push(("b", "session"), 1, "b")
        queue.hold("a")
        for _ in range(10):
            queue.pop() if queue.has_next else self.fail("nothing")
        queue.release("a")
        self.assertLessEqual(abs([queue.pop()[1] for _ in range(10)].count("a") - 5), 1)


class NoticeTests(AsyncCase):
    """What a worker tells."""

    def test_the_gateway_is_told_how_many_places_are_taken(self):
        gate = {}

        async def consumer(message):
            await gate.setdefault("event", asyncio.Event()).wait()

        self.start(route("websocket.receive", consumer), threads=2, async_concurrency=4)
        clients, told = [], []
        for _ in range(3):
            clients.append(self.send())
            told.append(self.received(clients[-1])["places_taken"])
        self.assertEqual(told, [25, 50, 75])
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        for client in clients:
            self.assertIn("ack", self.next(client))
        wait_until(lambda: not self.group.loop.places.used, "the places to be given back")

    def test_a_thread_that_takes_long_tells_nothing_of_places(self):
        gate = threading.Event()
        self.addCleanup(gate.set)

        def consumer(message):
            gate.wait()

        self.start(route("http.request", consumer))
        client = self.send("http.request")
        self.assertNotIn("places_taken", self.received(client))
        gate.set()

    def test_an_event_that_a_thread_began_is_told_again_when_it_has_a_place(self):
        gate, held = threading.Event(), {}
        self.addCleanup(gate.set)

        def consumer(message):
            gate.wait()
            return rest()

        async def rest():
            await held.setdefault("event", asyncio.Event()).wait()

        self.start(route("http.request", consumer), async_concurrency=1)
        client = self.send("http.request")
        self.assertNotIn("places_taken", self.received(client))
        gate.set()
        notice = self.received(client)
        self.assertEqual((notice["running"], notice["places_taken"]), (7, 100))
        self.group.loop._loop.call_soon_threadsafe(held["event"].set)
        self.assertIn("ack", self.next(client))

"""An address whose asynchronous consumers have their share of the places is held back."""

import asyncio
import unittest
from contextlib import suppress

from django.channels import protocol, route
from django.channels.exceptions import ConsumeLater
from django.channels.gateway import held
from django.channels.gateway.limits import Limits
from django.channels.gateway.sender import EventSender
from django.channels.gateway.turns import FIRST_WINDOW, FairQueue
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.places import Places

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
        self.places = Places(self.layer, PLACES)
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

    def tell(self, connection, message):
        self.sender.told_of_share(connection, message)
        self.sender.landed(connection, message)

    def work(self):
        """Run all that was sent, which is told when it has run for a while, until nothing more comes."""
        while self.sent:
            late, self.sent = self.sent, []
            for each in late:
                self.assertTrue(self.places.acquire(lambda: True, each.client[0]))
            self.running += late
            for each in late:
                self.tell(each, protocol.running(7, 20, self.over_share(each)))

    def end(self, connection):
        """Acknowledge an event that runs, as a worker does."""
        self.running.remove(connection)
        address = connection.client[0]
        self.places.leave(address)
        self.places.release(address, True)
        connection.state.in_flight = None
        self.tell(connection, protocol.ack(7, over_share=self.over_share(connection)))

    def over_share(self, connection):
        address = connection.client[0]
        return address if self.places.is_over_share(address) else None

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
        others = self.send(OTHER, 8)
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

    def test_what_other_gateways_have_of_it_counts_too(self):
        for _ in range(PLACES // 2):
            self.places.acquire(lambda: True, GREEDY)
        self.fill()
        self.assertLessEqual(len(self.running), OVERSHOOT)

    def test_what_others_have_is_not_taken_for_its_own(self):
        for _ in range(PLACES // 2):
            self.places.acquire(lambda: True, OTHER)
        for _ in range(PLACES // 8):
            self.send(GREEDY)
            self.work()
        self.assertEqual(len(self.running), PLACES // 8)

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

    def test_no_address_of_many_with_few_is_held(self):
        for number in range(PLACES):
            self.send("198.51.100.%d" % (number // 10))
            self.work()
        self.assertEqual(len(self.running), PLACES)
        self.assertFalse(self.sender._lanes[REQUEST].held)

    def test_clients_without_an_address_are_not_held(self):
        self.send("", PLACES)
        self.work()
        self.assertEqual(len(self.running), PLACES)

    def test_other_channels_go_on(self):
        self.fill()
        for channel in ("websocket.connect", "websocket.receive"):
            with self.subTest(channel=channel):
                self.sent = []
                sockets = self.send(GREEDY, 2, channel)
                self.assertEqual(self.sent, sockets)

    def test_threads_and_streams_take_no_place(self):
        for each in self.send(GREEDY, 500):
            self.tell(each, protocol.running(7, 20))
        self.assertEqual(len(self.sent), 500)

    def test_one_event_of_a_held_address_leaves_each_second(self):
        self.fill()
        running = len(self.running)
        for second in range(1, 6):
            self.loop.now += held.PROBE_INTERVAL
            self.sender.check_turns()
            self.sender.check_turns()
            self.work()
            self.assertEqual(len(self.running), running + second)

    def test_a_worker_that_tells_of_no_share_any_more_lets_the_address_go(self):
        """As after its end: the events are lost, and other workers have places."""
        for message in (protocol.lost(7), protocol.ack(7), protocol.running(7, 20)):
            with self.subTest(message):
                self.setUp()
                self.fill()
                self.assertEqual(self.sent, [])
                self.sender.told_of_share(self.running[0], message)
                self.assertNotEqual(self.sent, [])

    def test_what_runs_for_clients_that_have_left_counts_too(self):
        for _ in range(PLACES // 2):
            self.places.acquire(lambda: True, GREEDY)
        with self.assertLogs("django.channels.gateway", "WARNING"):
            self.sender.told_of_share(None, protocol.running(7, 20, GREEDY))
        self.send(GREEDY, 5)
        self.assertEqual(self.sent, [])
        self.loop.now += held.PROBE_INTERVAL
        self.sender.check_turns()
        self.assertEqual(len(self.sent), 1)

    def test_quick_events_of_a_held_address_leave_one_after_the_other(self):
        """As synchronous pages, which need no place."""
        self.fill(count=PLACES // 2)
        pages = self.send(GREEDY, 20)
        self.loop.now += held.PROBE_INTERVAL
        self.sender.check_turns()
        self.assertEqual(self.sent, pages[:1])
        for number, page in enumerate(pages[:-1], 1):
            self.tell(page, protocol.ack(7, over_share=GREEDY))
            self.assertEqual(self.sent, pages[: number + 1])

    def test_a_disconnect_lets_no_address_go(self):
        self.fill()
        connection = self.running[0]
        event = {protocol.EVENT_ID: 8, "from": connection}
        self.sender.send(connection, "websocket.disconnect", event)
        self.sent = []
        self.sender.told_of_share(connection, protocol.ack(8))
        self.assertEqual(self.sent, [])

    def test_events_of_others_leave_no_deadline_behind(self):
        self.fill()
        lane = self.sender._lanes[REQUEST]
        before = sum(map(len, lane.deadlines.values()))
        for _ in range(50):
            self.send(OTHER)
            self.tell(self.sent.pop(), protocol.ack(7))
        self.assertEqual(sum(map(len, lane.deadlines.values())), before)

    def test_replies_meanwhile_tell_nothing(self):
        self.fill()
        self.sender.told_of_share(self.running[0], protocol.replies([{"text": "x"}]))
        self.assertEqual(self.sent, [])

    def test_nothing_is_kept_of_an_address_after_its_events(self):
        self.fill(count=300)
        while self.running:
            self.end(self.running[0])
            self.work()
        lane = self.sender._lanes[REQUEST]
        self.assertFalse(lane.held)
        self.assertFalse(lane.waiting._held)

    def test_an_address_of_which_nothing_comes_any_more_is_forgotten(self):
        self.fill(count=PLACES // 2)
        lane = self.sender._lanes[REQUEST]
        self.assertTrue(lane.held)
        self.loop.now += held.LONGEST + 1
        self.sender.check_turns()
        self.assertFalse(lane.held)
        self.assertFalse(lane.waiting._held)


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

    def wait_in(self, *channels, **options):
        """Start a worker whose consumers wait until `self.go_on()`."""
        gate = {}

        async def consumer(message):
            await gate.setdefault("event", asyncio.Event()).wait()

        self.start(*(route(each, consumer) for each in channels), threads=2, **options)
        self.go_on = lambda: self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        self.addCleanup(self.go_on)

    def test_the_gateway_is_told_whether_an_address_has_its_share(self):
        self.wait_in("websocket.receive", async_concurrency=4)
        clients, told = [], []
        for address in (GREEDY, GREEDY, OTHER):
            clients.append(self.send(counts_for=address))
            told.append(self.received(clients[-1]).get(protocol.OVER_SHARE))
        self.assertEqual(told, [None, GREEDY, OTHER])
        self.go_on()
        for client in clients:
            self.assertIn("ack", self.next(client))
        wait_until(lambda: not self.group.loop.places.used, "the places to be given back")
        self.assertEqual(self.group.loop.places.shares._by_address, {})

    def test_an_acknowledgement_tells_it_too_also_of_a_thread(self):
        def quick(message):
            pass

        waits = self.wait_in
        routes = [route("websocket.connect", quick)]
        start = self.start
        self.start = lambda *more, **options: start(*more, *routes, **options)
        waits("http.request", async_concurrency=2)
        self.received(self.send("http.request", counts_for=GREEDY))
        for address, expected in ((GREEDY, GREEDY), (OTHER, None), ("", None)):
            event = {"counts_for": address} if address else {}
            ack = self.received(self.send("websocket.connect", **event))
            self.assertEqual(ack.get(protocol.OVER_SHARE), expected)

    def test_what_has_no_address_has_no_share(self):
        self.wait_in("websocket.receive", async_concurrency=1)
        self.assertNotIn(protocol.OVER_SHARE, self.received(self.send()))

    def test_a_message_that_is_handled_later_keeps_its_address(self):
        outcomes = [ConsumeLater(), None]

        def consumer(message):
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome
            return rest()

        gate = {}

        async def rest():
            await gate.setdefault("event", asyncio.Event()).wait()

        self.start(route("http.request", consumer), async_concurrency=1)
        notice = self.received(self.send("http.request", counts_for=GREEDY))
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        self.assertIn(protocol.OVER_SHARE, notice)

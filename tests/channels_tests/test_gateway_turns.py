"""Clients take turns while workers are behind: without a server, without a clock."""

import gc
import types
import unittest
import weakref
from contextlib import suppress
from unittest import mock

from django.channels import protocol
from django.channels.exceptions import ChannelFull
from django.channels.gateway import sender, turns
from django.channels.gateway.frames import MAX_BATCH_TIME
from django.channels.gateway.limits import Limits
from django.channels.gateway.sender import MIN_SEND_TIMEOUT, SEND_TIMEOUT, EventSender
from django.channels.gateway.turns import (
    UNLIMITED,
    FairQueue,
    Window,
    client_key,
    session_pattern,
)
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit

from .test_gateway_sender import Connection, Inbox, Loop, event

RECEIVE = "websocket.receive"


@types.coroutine
def pause(seconds):
    """Stands in for `asyncio.sleep`: the test says when it ends."""
    yield seconds


class WindowTests(unittest.TestCase):
    def setUp(self):
        self.window, self.now = Window(start=UNLIMITED), 100.0

    def ack(self, wait, in_flight, was_alone=False, ran=20, after=turns.INTERVAL, runs_on=False):
        self.now += after
        sent_at = self.now - wait - ran / 1000
        self.window.landed(self.now, sent_at, ran, in_flight, was_alone, runs_on)

    def test_without_a_queue_there_is_no_bound(self):
        for _ in range(50):
            self.ack(0.001, 500)
        self.assertEqual(self.window.limit, UNLIMITED)

    def test_a_queue_shortens_to_what_waits_for_the_target(self):
        self.ack(1.0, 400)
        self.assertEqual(self.window.limit, int(400 * turns.TARGET))
        self.ack(10.0, 10)
        self.assertEqual(self.window.limit, turns.MIN_WINDOW)

    def test_quick_consumers_are_not_throttled_by_a_busy_processor(self):
        for _ in range(50):
            self.ack(0.2, 100, ran=1)
        self.assertEqual(self.window.limit, turns.QUICK_WINDOW)

    def test_quick_consumers_with_slow_answers_are_throttled_until_the_answers_are_quick(self):
        each = 0.03  # seconds that the layer takes for the answers to one event
        self.window.limit = in_flight = 100
        for _ in range(10):
            self.ack(each * in_flight, in_flight, ran=0)
            in_flight = self.window.limit
        self.assertLessEqual(each * in_flight, turns.QUICK_WAIT)
        self.assertGreaterEqual(in_flight, turns.MIN_WINDOW)
        for _ in range(10):
            self.ack(0.0005 * in_flight, in_flight, ran=0)
            in_flight = self.window.limit
        self.assertGreaterEqual(in_flight, turns.QUICK_WINDOW)

    def test_the_window_of_quick_consumers_grows_in_steps(self):
        self.window = Window()
        self.ack(0.02, 4, ran=0)
        self.ack(0.001, 16, ran=0)
        self.assertEqual(self.window.limit, 2 * turns.FIRST_WINDOW)

    def test_it_grows_while_workers_keep_up_and_is_lifted_in_the_end(self):
        self.ack(1.0, 200)
        limits = []
        while self.window.limit < UNLIMITED:
            self.ack(0.001, self.window.limit)
            limits.append(self.window.limit)
            self.assertLess(len(limits), 100)
        self.assertEqual(limits, sorted(limits))

    def test_a_burst_that_passes_is_no_queue(self):
        self.ack(0.0, 10, ran=0)
        for wait in (0.5, 0.4, 0.001, 0.4):
            self.ack(wait, 100, after=0.01, ran=0)
        self.ack(0.4, 100, ran=0)
        self.assertEqual(self.window.limit, UNLIMITED)

    def test_it_is_small_at_first_and_grows_only_while_it_is_used(self):
        self.window = Window()
        self.assertEqual(self.window.limit, turns.FIRST_WINDOW)
        for ran in (0, 20):
            for _ in range(50):
                self.ack(0.001, 3, ran=ran)
            self.assertEqual(self.window.limit, turns.FIRST_WINDOW)
        self.ack(0.001, 16)
        self.assertGreater(self.window.limit, turns.FIRST_WINDOW)

    def test_the_most_in_flight_of_an_interval_counts_as_its_use(self):
        self.window = Window()
        self.ack(0.001, 1)
        for in_flight in (16, 1, 1):
            self.ack(0.001, in_flight, after=0.01)
        self.ack(0.001, 1)
        self.assertGreater(self.window.limit, turns.FIRST_WINDOW)

    def test_it_shrinks_to_its_first_size_if_it_is_not_used(self):
        self.window = Window()
        for _ in range(100):
            self.ack(0.001, self.window.limit)
        self.assertEqual(self.window.limit, UNLIMITED)
        limits = []
        while self.window.limit > turns.FIRST_WINDOW:
            self.ack(0.001, 3)
            limits.append(self.window.limit)
            self.assertLess(len(limits), 30)
        self.assertEqual(limits, sorted(limits, reverse=True))

    def test_fewer_wait_where_workers_tell_what_runs(self):
        self.ack(1.0, 400, runs_on=True)
        self.assertEqual(self.window.limit, turns.FIRST_WINDOW // 4)
        self.ack(1.0, 4, runs_on=True)
        self.assertEqual(self.window.limit, turns.MIN_WAITING)
        self.ack(0.001, 2, runs_on=True)
        self.assertEqual(self.window.limit, turns.MIN_WAITING + 1)

    def test_the_delay_of_the_layer_is_no_queue(self):
        for _ in range(50):
            self.ack(0.09, 1, was_alone=True)
        for _ in range(50):
            self.ack(0.095, 100)
        self.assertEqual(self.window.limit, UNLIMITED)


class FairQueueTests(unittest.TestCase):
    def setUp(self):
        self.queue = FairQueue()

    def push(self, address, socket, number, cost=1):
        self.queue.push((address, socket), cost, (address, socket, number))

    def pop_all(self):
        return [self.queue.pop()[1] for _ in range(len(self.queue))]

    def test_a_client_with_many_sockets_gets_no_more_turns_than_one_with_one(self):
        for number in range(200):
            self.push("greedy", number, 0)
        for number in range(5):
            self.push("other", 1, number)
        served = [address for address, _, _ in self.pop_all()]
        self.assertEqual(served[:10], ["greedy", "other"] * 5)

    def test_the_events_of_a_socket_stay_in_order(self):
        for number in range(20):
            for socket in range(3):
                self.push("a", socket, number)
        served = self.pop_all()
        for socket in range(3):
            numbers = [number for _, each, number in served if each == socket]
            self.assertEqual(numbers, list(range(20)))

    def test_sockets_of_one_address_take_turns(self):
        for number in range(10):
            self.push("a", 1, number)
        self.push("a", 2, 0)
        self.assertIn(("a", 2, 0), self.pop_all()[:2])

    def test_what_costs_more_comes_less_often(self):
        for number in range(30):
            self.push("batches", 1, number, cost=10)
            self.push("frames", 1, number)
        served = [address for address, _, _ in self.pop_all()]
        self.assertGreaterEqual(served[:22].count("frames"), 19)

    def test_a_pause_gives_no_credit(self):
        for number in range(100):
            self.push("busy", 1, number)
        for _ in range(50):
            self.queue.pop()
        for number in range(50):
            self.push("late", 1, number)
        served = [address for address, _, _ in self.pop_all()]
        self.assertLessEqual(abs(served[:40].count("late") - 20), 1)

    def test_what_is_remembered_of_clients_is_bounded(self):
        for number in range(10000):
            self.push("client %d" % number, 1, 0)
            self.queue.pop()
        self.assertLessEqual(len(self.queue._finished), turns.MAX_REMEMBERED)
        self.assertEqual(len(self.queue._children), 0)


class ClientKeyTests(unittest.TestCase):
    def key(self, client=("192.0.2.1", 1), cookies=()):
        headers = [[b"host", b"x"]] + [[b"cookie", each] for each in cookies]
        return client_key(
            {"client": client, "headers": headers}, session_pattern("sessionid"), "socket"
        )

    def test_a_client_is_its_address_and_its_session(self):
        self.assertEqual(self.key(), ("192.0.2.1", "socket"))
        first = self.key(cookies=[b"a=1; sessionid=abc; b=2"])
        self.assertEqual(first, self.key(cookies=[b"sessionid=abc"]))
        self.assertNotEqual(first, self.key(cookies=[b"sessionid=abd"]))
        self.assertNotEqual(first, self.key(("192.0.2.2", 1), [b"sessionid=abc"]))
        self.assertEqual(self.key(None), ("", "socket"))

    def test_the_session_is_that_of_the_cookie_with_exactly_its_name(self):
        for cookies in (
            [b"evilsessionid=abc"],
            [b"a=1; evilsessionid=abc"],
            [b"a=sessionid=abc"],
            [b"a b sessionid=abc"],
            [b"a,sessionid=abc"],
            [b"sessionid2=abc; sessionid-x=abc; sessionid.x=abc"],
            [b"Sessionid=abc; SESSIONID=abc"],
            [b"sessionid"],
            [b"sessionid; a=sessionid"],
            [b"$sessionid=abc", b"session", b"id=abc"],
            [b"", b";", b"=", b";=;", b"=abc; ="],
        ):
            with self.subTest(cookies):
                self.assertEqual(self.key(cookies=cookies)[1], "socket")
        for cookies in (
            [b"evilsessionid=xyz; sessionid=abc"],
            [b"sessionid=abc; evilsessionid=xyz"],
            [b"a=1;sessionid=abc;b=2"],
            [b"  sessionid = abc  ; b"],
            [b";;; ;\tsessionid\t=\tabc;"],
            [b"sessionid=xyz; sessionid=abc"],  # Django takes the last, too
            [b"a=1", b"sessionid=abc", b"b=2"],
            [b"sessionid=xyz", b"sessionid=abc", b"xsessionid=xyz"],
        ):
            with self.subTest(cookies):
                self.assertEqual(self.key(cookies=cookies), self.key(cookies=[b"sessionid=abc"]))
        self.assertNotEqual(
            self.key(cookies=[b"sessionid=a=b"]), self.key(cookies=[b"sessionid=a"])
        )
        self.assertNotEqual(self.key(cookies=[b"sessionid="])[1], "socket")

    def test_a_name_with_signs_of_a_pattern_is_taken_as_it_is(self):
        scope = {"client": None, "headers": [(b"cookie", b"sXid=abc")]}
        self.assertEqual(client_key(scope, session_pattern("s.id"), "socket"), ("", "socket"))
        scope["headers"] = [(b"cookie", b"s.id=abc")]
        self.assertNotEqual(client_key(scope, session_pattern("s.id"), "socket"), ("", "socket"))

    def test_an_ipv6_client_is_its_network(self):
        one, two = self.key(("2001:db8:1:2::3", 1)), self.key(("2001:db8:1:2:ffff::1", 1))
        self.assertEqual(one, two)
        self.assertNotEqual(one, self.key(("2001:db8:1:3::3", 1)))
        self.assertEqual(self.key(("::ffff:192.0.2.1", 1))[0], "192.0.2.1")
        self.assertEqual(self.key(("fe80::1%eth0", 1))[0], "fe80:0000:0000:0000")
        self.assertEqual(self.key(("no: address", 1))[0], "no: address")

    def test_a_port_in_the_header_of_a_proxy_makes_no_other_client(self):
        for own, forms in {
            "192.0.2.1": ["192.0.2.1:4711", "192.0.2.1:4712", "[::ffff:192.0.2.1]:1"],
            "2001:0db8:0001:0002": [
                "2001:db8:1:2::3",
                "[2001:db8:1:2::3]",
                "[2001:db8:1:2::3]:4711",
                "[2001:DB8:1:2::4%eth0]:4712",
            ],
        }.items():
            for each in forms:
                with self.subTest(each):
                    self.assertEqual(self.key((each, 1))[0], own)
        for odd in (
            "[",
            "[]",
            "[]:1",
            ":",
            ":1",
            "::",
            "1:",
            "[x]:1",
            "unknown",
            ",",
            "[::1",
            "::1:x",
        ):
            with self.subTest(odd):
                self.assertIsInstance(self.key((odd, 1))[0], str)

    def test_a_key_is_short_whatever_a_client_sends(self):
        address, session = self.key(("x" * 100000, 1), [b"sessionid=" + b"y" * 60000])
        self.assertLessEqual(len(address), 64)
        self.assertIsInstance(session, int)


class Layer(MemoryChannelLayer):
    def __init__(self):
        super().__init__(capacity=100)


class TurnTests(unittest.TestCase):
    """The sender, with a window of eight events."""

    def setUp(self):
        self.loop, self.inbox, self.layer = Loop(), Inbox(), Layer()
        limits = Limits(address_waiting=50, session_waiting=20)
        self.sender = EventSender(self.layer, self.inbox, self.loop, limits)
        for lane in self.sender._lanes.values():
            lane.limit = lane.window.limit = 8
        self.sent = []

    def send(self, number, address="192.0.2.1", channel=RECEIVE, session=None):
        connection = Connection("gateway.test!%d" % number)
        connection.client = (address, session or number)
        self.sender.send(connection, channel, event(7))
        return connection

    def test_what_exceeds_the_window_waits_and_leaves_with_the_acknowledgements(self):
        connections = [self.send(number) for number in range(20)]
        self.assertEqual(len(self.inbox.sent), 8)
        for number, connection in enumerate(connections):
            self.sender.landed(connection)
            self.assertGreaterEqual(len(self.inbox.sent), min(20, 9 + number))
        lane = self.sender._lanes[RECEIVE]
        self.assertEqual((lane.in_flight, len(lane.waiting)), (0, 0))

    def test_a_greedy_client_does_not_keep_others_waiting(self):
        greedy = [self.send(number) for number in range(200)]
        self.send(300, "192.0.2.2")
        before = len(self.inbox.sent)
        for connection in greedy[:2]:
            self.sender.landed(connection)
        self.assertEqual(len(self.inbox.sent), before + 2)
        other = [each for each in greedy[2:] if each.flight is not None]
        self.assertEqual(len(other), 7)

    def test_a_request_that_was_sent_or_refused_is_not_kept_while_others_wait(self):
        class Message(dict):
            """A dict that may have a weak reference."""

        for number in range(40):
            self.send(number, channel="http.request")
        message = Message(event(7))
        sent = weakref.ref(message)
        other = Connection("gateway.test!100")
        other.client = ("192.0.2.2", 100)
        self.sender.send(other, "http.request", message)
        del message
        lane = self.sender._lanes["http.request"]
        for _ in range(2):
            self.sender._send_next(lane)
        del self.inbox.sent[:], self.inbox.tried[:]
        gc.collect()
        self.assertGreater(len(lane.waiting), 0)
        self.assertIsNone(sent())

        message = Message(event(7))
        refused = weakref.ref(message)
        last = Connection("gateway.test!101")
        last.client = ("192.0.2.1", 101)
        self.sender.send(last, "http.request", message)
        del message
        self.loop.now += 1000
        self.sender.check_turns()
        gc.collect()
        self.assertEqual(last.performed, [("refused", "http.request")])
        self.assertIsNone(refused())

    def test_frames_wait_however_long_and_are_never_refused(self):
        connections = [self.send(number) for number in range(500)]
        for _ in range(1000):
            self.loop.now += 1
            self.sender.check_turns()
        self.assertEqual([each.performed for each in connections if each.performed], [])

    def test_one_address_has_a_bounded_number_of_requests_waiting(self):
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            requests = [self.send(number, channel="http.request") for number in range(70)]
        refused = [each for each in requests if each.performed]
        self.assertEqual(refused, requests[58:])
        self.assertEqual(refused[0].performed, [("refused", "http.request")])
        self.assertEqual(self.layer.statistics()["clients_limited"], 12)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("192.0.2.1", logs.output[0])
        other = self.send(100, "192.0.2.2", channel="http.request")
        self.assertEqual(other.performed, [])

    def test_one_session_has_a_bounded_number_of_requests_waiting(self):
        for channel in ("http.request", "websocket.connect"):
            with self.subTest(channel=channel):
                before = self.layer.statistics().get("clients_limited", 0)
                with self.assertLogs("django.channels.gateway", "WARNING") as logs:
                    events = [
                        self.send(number, channel=channel, session="one") for number in range(40)
                    ]
                    self.sender._limits._logs["session of the client"] = RateLimit()
                refused = [each for each in events if each.performed]
                self.assertEqual(refused, events[28:])
                self.assertEqual(refused[0].performed, [("refused", channel)])
                self.assertEqual(self.layer.statistics()["clients_limited"] - before, 12)
                self.assertEqual(len(logs.output), 1)
                self.assertIn("20 events of one session of the client 192.0.2.1", logs.output[0])
                self.assertEqual(self.send(100, channel=channel, session="two").performed, [])
                self.assertEqual(self.send(101, channel=channel).performed, [])
                self.sender.landed(events[0])
                self.assertEqual(self.send(102, channel=channel, session="two").performed, [])

    def test_frames_of_one_session_wait_and_are_never_refused(self):
        connections = [self.send(number, session="one") for number in range(200)]
        self.assertEqual([each for each in connections if each.performed], [])

    def test_requests_over_the_capacity_are_refused_as_if_the_channel_were_full(self):
        requests = [
            self.send(number, "192.0.2.%d" % number, "http.request") for number in range(120)
        ]
        self.loop.now += SEND_TIMEOUT + 0.1
        self.sender.check_turns()
        self.assertEqual([each for each in requests if each.performed], requests[100:])
        self.loop.now += 60
        self.sender.check_turns()
        self.assertEqual(len([each for each in requests if each.performed]), 112)
        for connection in requests[:8]:
            self.sender.landed(connection)
        self.assertEqual(len(self.inbox.sent), 8)
        self.assertEqual(self.send(200, channel="http.request").performed, [])
        self.assertEqual(len(self.inbox.sent), 9)

    def test_what_came_over_the_capacity_stays_if_there_is_room_three_seconds_later(self):
        for channel in ("http.request", "websocket.connect"):
            with self.subTest(channel=channel):
                self.setUp()
                events = [self.send(n, "192.0.2.%d" % n, channel) for n in range(140)]
                for connection in events[:30]:
                    self.sender.landed(connection)
                self.loop.now += SEND_TIMEOUT + 0.1
                self.sender.check_turns()
                refused = [each for each in events if each.performed]
                self.assertEqual(refused, events[100:110])
                for _ in range(3):
                    self.loop.now += SEND_TIMEOUT + 0.1
                    self.sender.check_turns()
                self.assertEqual([each for each in events if each.performed], refused)
                for connection in events:
                    self.sender.landed(connection)
                self.assertEqual(len(self.inbox.sent), 130)
                self.assertEqual(self.sender._lanes[channel].pending, 0)

    def test_a_client_that_fills_the_capacity_has_only_its_own_events_refused(self):
        self.sender = EventSender(self.layer, self.inbox, self.loop, Limits())
        for channel in ("http.request", "websocket.connect"):
            with self.subTest(channel=channel):
                greedy = [self.send(n, channel=channel) for n in range(150)]
                others = [self.send(n, "192.0.3.%d" % n, channel) for n in range(20)]
                self.loop.now += SEND_TIMEOUT + 0.1
                self.sender.check_turns()
                self.assertEqual([each for each in others if each.performed], [])
                self.assertEqual([each for each in greedy if each.performed], greedy[100:])

    def test_others_are_not_refused_while_all_that_is_in_flight_is_of_one_client(self):
        for limit in (16, 64, 96, 100):  # the last ones after many quick requests
            self.sender = EventSender(self.layer, self.inbox, self.loop, Limits())
            self.send(0, channel="http.request")
            lane = self.sender._lanes["http.request"]
            lane.limit = limit
            for n in range(250):
                self.send(n, channel="http.request")
            self.assertEqual(lane.in_flight, limit)
            others = [self.send(n, "192.0.3.%d" % n, "http.request") for n in range(20)]
            self.loop.now += SEND_TIMEOUT + 0.1
            self.sender.check_turns()
            self.assertEqual([each for each in others if each.performed], [])

    def test_addresses_that_all_want_too_much_are_refused_beyond_their_shares(self):
        self.sender = EventSender(self.layer, self.inbox, self.loop, Limits())
        events = [self.send(n, "192.0.2.%d" % (n % 10), "http.request") for n in range(300)]
        self.loop.now += SEND_TIMEOUT + 0.1
        self.sender.check_turns()
        self.assertEqual([each for each in events if each.performed], events[100:])

    def test_what_waits_for_its_turn_waits_no_longer_than_what_waits_for_room(self):
        """A full channel ends both, before a server gives up a handshake after five seconds."""
        for channel in ("http.request", "websocket.connect"):
            with self.subTest(channel=channel):
                self.setUp()
                self.inbox.error = ChannelFull("full")
                events, longest = [], 0.0
                for number in range(40):
                    events.append(self.send(number, "192.0.2.%d" % number, channel))
                    self.loop.now += 0.005
                with mock.patch.object(sender.asyncio, "sleep", pause):
                    while not all(each.performed for each in events) and longest < 60:
                        with suppress(StopIteration):
                            self.loop.tasks[-1].send(None)
                        self.loop.now += 0.1
                        longest += 0.1
                self.assertLess(longest, SEND_TIMEOUT + 0.3)
                for each in events:
                    self.assertEqual(each.performed, [("refused", channel)])

    def test_handshakes_that_wait_for_their_turn_hear_of_a_channel_that_others_have_filled(self):
        """They are refused before a server gives them up after five seconds."""
        lane, waited = self.sender._lanes["websocket.connect"], 0.0
        lane.limit = lane.window.limit = turns.FIRST_WINDOW
        sent = [self.send(n, channel="websocket.connect") for n in range(turns.FIRST_WINDOW)]
        self.inbox.error = ChannelFull("full")
        waiting = [self.send(n, channel="websocket.connect") for n in range(4)]
        with mock.patch.object(sender.asyncio, "sleep", pause):
            while not all(each.performed for each in waiting) and waited < 60:
                self.sender.check_turns()
                for retry in self.loop.tasks[-1:]:
                    with suppress(StopIteration):
                        retry.send(None)
                self.loop.now += 0.1
                waited += 0.1
        self.assertLess(waited, SEND_TIMEOUT + 0.5)
        for each in waiting:
            self.assertEqual(each.performed, [("refused", "websocket.connect")])
        self.assertEqual([each.performed for each in sent], [[]] * len(sent))

    def test_handshakes_wait_for_their_turn_as_long_as_their_channel_has_room(self):
        lane = self.sender._lanes["websocket.connect"]
        lane.limit = lane.window.limit = turns.FIRST_WINDOW
        events = [self.send(n, channel="websocket.connect") for n in range(40)]
        for _ in range(80):
            self.loop.now += 0.25
            self.sender.check_turns()
        self.assertEqual([each for each in events if each.performed], [])

    def test_a_handshake_has_waited_for_room_while_it_waited_for_its_turn(self):
        first = [self.send(n, channel="websocket.connect") for n in range(8)]
        late = self.send(9, channel="websocket.connect")
        self.loop.now += SEND_TIMEOUT
        self.inbox.error = ChannelFull("full")
        self.sender.landed(first[0])
        retry = self.loop.tasks[0]
        with mock.patch.object(sender.asyncio, "sleep", pause):
            retry.send(None)
            self.loop.now += MIN_SEND_TIMEOUT - 0.1
            retry.send(None)
            self.assertEqual(late.performed, [])
            self.loop.now += 0.2
            with self.assertRaises(StopIteration):
                retry.send(None)
        self.assertEqual(late.performed, [("refused", "websocket.connect")])

    def test_the_frames_of_one_gateway_never_find_their_channel_full(self):
        sender = self.sender = EventSender(self.layer, self.inbox, self.loop, Limits())
        connections = [self.send(number) for number in range(400)]
        self.assertEqual(len(self.inbox.sent), turns.FIRST_WINDOW)
        most = 0
        for connection in connections:
            self.loop.now += 0.001
            sender.landed(connection, protocol.ack(7))
            most = max(most, sender._lanes[RECEIVE].in_flight)
        self.assertEqual(most, 100)
        self.assertEqual(len(self.inbox.sent), 400)

    def test_after_a_pause_few_are_sent_again(self):
        for channel in ("http.request", RECEIVE, "websocket.connect"):
            with self.subTest(channel=channel):
                lane = self.sender._lanes[channel]
                lane.limit = lane.window.limit = 1000
                lane.landed_at = self.loop.now
                first = [self.send(number, channel=channel) for number in range(20)]
                self.assertEqual(lane.in_flight, 20)
                for connection in first:
                    self.sender.landed(connection, protocol.ack(7))
                self.loop.now += turns.PAUSE + 0.1
                for number in range(20):
                    self.send(number, channel=channel)
                few = turns.FIRST_WINDOW
                self.assertEqual((lane.in_flight, len(lane.waiting)), (few, 20 - few))

    def test_requests_that_workers_run_do_not_count(self):
        lane = self.sender._lanes["http.request"]
        lane.limit = lane.window.limit = turns.FIRST_WINDOW
        running = [self.send(number, channel="http.request") for number in range(64)]
        for connection in running[:48]:
            self.assertIsNotNone(connection.flight)
            self.sender.landed(connection, protocol.running(7, 20))
        self.assertEqual(len(self.inbox.sent), 64)

    def test_acknowledgements_that_never_come_do_not_stop_the_others(self):
        for number in range(20):
            self.send(number)
        for _ in range(100):
            self.loop.now += 0.25
            self.sender.check_turns()
        self.assertGreaterEqual(len(self.inbox.sent), 8 + 4)

    def test_an_event_that_the_layer_refuses_is_no_longer_in_flight(self):
        self.inbox.error = ValueError("a bug")
        with self.assertLogs("django.channels.gateway", "ERROR"):
            connections = [self.send(number) for number in range(20)]
        self.assertEqual(len([each for each in connections if each.performed]), 20)
        self.assertEqual(self.sender._lanes[RECEIVE].in_flight, 0)

    def test_an_event_that_finds_its_channel_full_stays_in_flight(self):
        self.inbox.error = ChannelFull("full")
        connection = self.send(1)
        self.assertEqual(self.sender._lanes[RECEIVE].in_flight, 1)
        self.assertEqual(connection.performed, [])
        self.loop.tasks[0].close()


class BatchTests(unittest.TestCase):
    def setUp(self):
        self.socket = WebSocket("gateway.test!1", "/")
        self.socket.connect({"path": "/", "root_path": ""})
        self.socket.reply(protocol.ack(0, [{"accept": True}]))

    def batch(self, ran):
        """Acknowledge the event in flight, and return how many frames go next."""
        actions = self.socket.reply(protocol.ack(self.socket.in_flight, ran=ran))
        (message,) = [action[2] for action in actions if action[0] == "send"]
        return len(message.get(protocol.FRAMES, [0]))

    def test_the_frames_of_a_slow_consumer_do_not_keep_a_worker(self):
        for number in range(60):
            self.socket.frame("%d" % number)
        self.assertEqual(self.batch(ran=10), MAX_BATCH_TIME // 10)
        self.assertEqual(self.batch(ran=10), 4)  # at most twice as many
        self.assertEqual(self.batch(ran=16), 4 * MAX_BATCH_TIME // 16)
        self.assertEqual(self.batch(ran=10 * MAX_BATCH_TIME), 1)

    def test_the_frames_of_a_quick_consumer_go_together(self):
        for number in range(60):
            self.socket.frame("%d" % number)
        self.assertEqual([self.batch(ran=0) for _ in range(4)], [8, 16, 32, 3])

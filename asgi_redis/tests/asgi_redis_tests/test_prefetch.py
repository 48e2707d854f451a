"""Prefetched messages: a quick consumer gets several, and a slow one delays no other."""

import threading
import time
import unittest

from django.channels.exceptions import LayerUnavailable

from asgi_redis import prefetch, scripts
from channels_tests.support.waiting import TIMEOUT, wait_until

from .test_recovery import start_lease
from .test_standalone import RedisLayerCase

CHANNELS = ["http.request", "websocket.connect", "websocket.receive"]


class AheadTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "ahead:", "heartbeat": 0.05, "lease": 60}

    def setUp(self):
        self.layer = self.make_layer(capacity=1000)
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        self.number = 0

    def send(self, count, channel="websocket.receive"):
        for _ in range(count):
            self.number += 1
            self.layer.send(
                channel, {"reply_channel": "gateway.a!%d" % self.number, "event_id": self.number}
            )

    def claim(self, slot="slot", layer=None):
        return (layer or self.layer).claim(slot, CHANNELS)[1]

    def finish(self, message, slot="slot"):
        self.layer.finish(slot, message["reply_channel"], {"ack": message["event_id"]})

    def prove_quick(self):
        """Have the slot earn more than one message at a time."""
        while self.layer.store.consumer("slot").wanted == 1:  # a busy machine may take its time
            self.send(1)
            self.finish(self.claim())
            self.layer.store.consumer("slot").end()
        self.assertIsNone(self.claim())
        while self.answer() is not None:
            pass

    def nobody_watches(self):
        self.layer.store._monitor._settle = lambda slot: None

    def answer(self):
        return self.layer.receive_many(["gateway.a!"])[1]

    def pending(self, channel="websocket.receive"):
        return self.layer.channel_statistics(channel)["messages_pending"]

    def test_the_first_ones_come_one_by_one(self):
        self.send(5)
        self.claim()
        self.assertEqual(self.pending(), 4)

    def test_who_is_quick_gets_several_and_answers_them_all_in_order(self):
        self.prove_quick()
        self.send(50)
        got = []
        for _ in range(50):
            message = self.claim()
            got.append(message["event_id"])
            self.finish(message)
        self.assertEqual(got, sorted(got))
        self.assertIsNone(self.claim())
        answers = []
        while len(answers) < 50:
            answers.append(self.answer()["ack"])
        self.assertEqual(answers, got)
        self.assertIsNone(self.answer())
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_slow_one_gives_back_what_it_has_ahead_and_keeps_no_answer(self):
        self.prove_quick()
        monitor = self.layer.store._monitor
        settle = monitor._settle
        self.nobody_watches()  # on a busy machine, this thread may be slow
        self.send(prefetch.LIMIT)
        first = self.claim()
        self.assertEqual(self.pending(), 0)
        self.finish(first)
        monitor._settle = settle
        slow = self.claim()  # and now it takes its time
        self.assertEqual(
            wait_until(self.answer, "the first one's answer"), {"ack": first["event_id"]}
        )
        wait_until(lambda: self.pending() == prefetch.LIMIT - 2, "the others to be given back")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        # They are another worker's now, in their order.
        got = [self.claim("other")["event_id"] for _ in range(prefetch.LIMIT - 2)]
        self.assertEqual(
            got, list(range(slow["event_id"] + 1, slow["event_id"] + prefetch.LIMIT - 1))
        )
        self.finish(slow)
        self.assertIsNone(self.claim())
        self.assertEqual(self.answer(), {"ack": slow["event_id"]})

    def test_answers_do_not_wait_for_a_long_row_of_quick_ones(self):
        self.prove_quick()
        self.nobody_watches()
        self.send(prefetch.LIMIT)
        first = self.claim()
        self.finish(first)
        self.layer.store.consumer("slot").sent_at -= 2 * prefetch.MAX_WAIT  # as if they had waited
        self.claim()
        self.assertEqual(self.answer(), {"ack": first["event_id"]})

    def test_an_answer_that_must_leave_soon_leaves_after_an_outage_too(self):
        monitor = self.layer.store._monitor
        settle = monitor._settle
        errors = [LayerUnavailable("away"), LayerUnavailable("away")]

        def settle_at_last(consumer):
            if errors:
                raise errors.pop()
            settle(consumer)

        monitor._settle = settle_at_last
        self.send(1, "http.request")
        message = self.claim()
        self.layer.finish("slot", message["reply_channel"], {"ack": 1}, soon=True)
        self.assertEqual(wait_until(self.answer, "the answer"), {"ack": 1})
        self.assertEqual(errors, [])
        # Its message is held until the next claim: the worker isn't done with it.
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        self.assertIsNone(self.claim())
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.assertIsNone(self.answer())

    def test_an_answer_to_a_message_that_is_not_held_leaves_at_once_if_it_must_leave_soon(self):
        self.send(1, "http.request")
        message = self.layer.claim("slot", [*CHANNELS, "jobs!1"])[1]  # in several partitions
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.layer.finish("slot", message["reply_channel"], {"ack": 1}, soon=True)
        self.assertEqual(self.answer(), {"ack": 1})
        self.layer.acknowledge("slot")
        self.assertIsNone(self.answer())

    def test_what_is_not_a_sockets_frame_is_claimed_one_by_one(self):
        self.prove_quick()
        self.send(5, "http.request")
        self.claim()
        self.assertEqual(self.pending("http.request"), 4)

    def test_a_worker_that_ends_gives_back_what_it_has_ahead(self):
        self.prove_quick()
        self.send(5)
        self.finish(self.claim())
        self.layer.acknowledge("slot")
        self.assertEqual(self.pending(), 4)
        self.assertIsNotNone(self.answer())
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_claim_whose_reply_got_lost_gives_the_same_again(self):
        self.prove_quick()
        self.send(5)
        call, lost = self.layer.store.servers.call, []

        def call_and_lose(command):
            reply = call(command)
            if not lost and command[1] == scripts.ALL["claim"].sha:
                lost.append(reply)
                raise self.layer.LayerUnavailable("the reply got lost")
            return reply

        self.layer.store.servers.call = call_and_lose
        with self.assertRaises(self.layer.LayerUnavailable):
            self.claim()
        self.assertEqual(len(lost), 1)
        got = [self.claim()["event_id"] for _ in range(5)]
        self.assertEqual(got, list(range(self.number - 4, self.number + 1)))
        self.assertIsNone(self.claim())

    def test_what_was_given_back_is_not_handled_twice_where_the_reply_got_lost(self):
        self.prove_quick()
        self.send(5)
        call_many, lost = self.layer.store.servers.call_many, []

        def call_and_lose(commands):
            replies = call_many(commands)
            # The lease's thread makes such calls, too.
            if not lost and threading.current_thread().name == "channels-prefetch":
                lost.append(replies)
                raise self.layer.LayerUnavailable("the reply got lost")
            return replies

        self.layer.store.servers.call_many = call_and_lose
        first = self.claim()
        wait_until(lambda: lost, "them to be given back")
        others = [self.claim("other")["event_id"] for _ in range(4)]
        self.assertEqual(others, list(range(first["event_id"] + 1, first["event_id"] + 5)))
        self.finish(first)
        self.assertIsNone(self.claim())

    def test_a_closed_layer_has_no_thread_that_sends_for_its_consumers(self):
        before = set(threading.enumerate())
        layer = self.layer = self.make_layer()
        self.prove_quick()
        self.nobody_watches()
        self.send(5)
        self.claim()
        layer.close()
        wait_until(lambda: set(threading.enumerate()) <= before, "its threads to end")

    def test_a_released_one_is_next_before_those_ahead(self):
        self.prove_quick()
        self.send(5)
        first = self.claim()
        self.layer.requeue("slot")
        self.assertEqual(self.claim("other"), first)

    def test_a_lost_worker_is_reported_for_all_that_it_had(self):
        self.prove_quick()
        self.nobody_watches()
        self.send(5)
        self.claim()
        process = "w:" + self.layer.leases.process
        self.layer.leases.stop()
        keys = self.layer.store.keys
        self.layer.store.servers.call(("ZADD", keys.leases, "XX", 1, process))  # it ran out
        other = self.make_layer()
        start_lease(other)
        lost = [
            wait_until(lambda: other.receive_many(["gateway.a!"], block=True)[1], "a report")[
                "lost"
            ]
            for _ in range(5)
        ]
        self.assertEqual(sorted(lost), list(range(self.number - 4, self.number + 1)))

    def test_many_threads_lose_and_double_nothing(self):
        total, done, lock = 2000, [], threading.Lock()

        def work(number):
            slot = "slot-%d" % number
            while len(done) < total:
                message = self.claim(slot)
                if message is None:
                    time.sleep(0.001)
                    continue
                if message["event_id"] % 97 == 0:
                    time.sleep(2 * prefetch.MAX_WAIT)
                self.finish(message, slot)
                with lock:
                    done.append(message["event_id"])
            self.layer.acknowledge(slot)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(total):
            while self.pending() > 500:
                time.sleep(0.002)
            self.send(1)
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(sorted(done), list(range(1, total + 1)))
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.assertEqual(self.pending("gateway.a!"), total)

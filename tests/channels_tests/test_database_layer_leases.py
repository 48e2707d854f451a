"""The database layer when a worker or a gateway dies, on each database: nothing is lost in silence."""

import asyncio
import logging
import os
import signal
import threading
import time
import unittest
from unittest import mock

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.database import maintenance
from django.channels.layers.engine.notices import Notices
from django.channels.layers.engine.redelivery import RedeliveryPolicy
from django.channels.layers.engine.store import Outgoing
from django.core.exceptions import ImproperlyConfigured

from .support.layers import check_abandoned_inbox_leaves
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

REQUEST = {"reply_channel": "gateway.a!7", "event_id": 0, "method": "GET", "path": "/"}


def end_threads(inbox):
    """Have the threads of an inbox end, once they have sent what was left. Its lease and its queue stay."""
    with inbox._lock:
        inbox._closed = True
        inbox._lock.notify_all()
    for thread in inbox._threads:
        thread.join(TIMEOUT)


class LeaseTests:
    """`self.layer` is a living process'; `dead_layer` gives those of processes that have died."""

    def setUp(self):
        super().setUp()
        logger = logging.getLogger("django.channels.layers")
        logger.setLevel(logging.CRITICAL)  # it tells of every death
        self.addCleanup(logger.setLevel, logging.NOTSET)
        self.layer = self.make_layer()
        self.layer.flush()
        self.dead = set()

    def make_layer(self, **config):
        return super().make_layer(**dict({"heartbeat": 0.05, "lease": 5.0}, **config))

    def doomed_layer(self, **config):
        """A layer whose process is about to die: `die(layer)`."""
        return self.make_layer(**config)

    def end_lease(self, layer, name):
        """Let the lease `name` run out now, as it would after `lease` seconds without a heartbeat."""
        layer.store.write("register", {"name": layer.store.key(name), "lease": -1.0})

    def die(self, layer):
        """Stop the heartbeats of a layer's process, and let its leases run out at once."""
        layer.leases.stop()
        for name in list(layer.leases._names):
            self.end_lease(layer, name)
            self.dead.add(name)

    def recover(self):
        """Recover what the dead held; or another process is at it, and is waited for."""

        def is_done():
            self.layer.leases.recover()
            return not any(self.is_registered(name) for name in self.dead)

        wait_until(is_done, "the end of the dead")

    def is_registered(self, name):
        store = self.layer.store
        return store.read("registered", {"name": store.key(name)})[0][0]

    def lose(self, channel, message, times=1, **config):
        """Send it, and have as many workers die with it."""
        self.layer = self.make_layer(**config)
        self.layer.send(channel, message)
        for _ in range(times):
            doomed = self.doomed_layer(**config)
            self.assertIsNotNone(self.claim(doomed, channel))
            self.die(doomed)
            self.recover()

    def claim(self, layer, channel, consumer="consumer"):
        return wait_until(lambda: layer.claim(consumer, [channel], block=True)[1], "a message")

    def receive(self, channel):
        return wait_until(lambda: self.layer.receive_many([channel], block=True)[1], "a message")

    def assertNothing(self, channel):
        self.assertEqual(self.layer.receive_many([channel]), (None, None))

    def test_leases_are_extended_after_the_database_was_away_for_all(self):
        first, second = (self.make_layer(heartbeat=1.5) for _ in range(2))
        for layer in (first, second):
            layer.claim("consumer", ["nothing"])  # takes the lease
            layer.leases.step()
            self.die(layer)
        first.leases._reached -= 5.0
        first.leases.step()
        self.assertEqual(second.leases.recover(), [])

    def test_a_process_that_has_just_reached_the_database_recovers_nobody_yet(self):
        doomed, fresh = self.make_layer(), self.make_layer(heartbeat=1.5)
        name = doomed.leases.process
        self.die(doomed)
        fresh.leases.step()
        self.assertTrue(self.is_registered(name))
        fresh.leases._reachable_since -= 1.5

        def is_recovered():
            fresh.leases.step()  # which recovers a few, and other tests left some
            return not self.is_registered(name)

        wait_until(is_recovered, "its turn")

    def test_numbers_that_begin_anew_are_found_at_once(self):
        """As after a crash of PostgreSQL, which empties unlogged tables."""
        layer = self.make_layer(heartbeat=1.5)
        layer.claim("consumer", ["test"])
        layer.leases.stop()
        layer.store.marks._marks[layer.store.key("test")] = [10**6, 10**6, 0.0]
        layer.store.marks.searched(3600.0)
        layer.store.write("unregister", {"name": layer.store.key(layer.leases.process)})
        layer.send("test", {"number": 1})
        layer.leases.step()
        self.assertEqual(layer.claim("consumer", ["test"])[1], {"number": 1})

    # Workers.

    def test_the_gateway_is_told_of_a_lost_request(self):
        self.lose("http.request", REQUEST)
        self.assertEqual(self.receive("gateway.a!7"), {"lost": 0})
        self.assertNothing("http.request")
        self.assertEqual(self.layer.dead_letters(), [])

    def test_a_safe_request_may_run_once_more(self):
        self.lose("http.request", REQUEST, retry_safe_requests=True)
        self.assertEqual(self.receive("http.request"), dict(REQUEST, redelivered=True))
        self.lose("http.request", REQUEST, times=2, retry_safe_requests=True)
        self.assertEqual(self.receive("gateway.a!7"), {"lost": 0})

    def test_a_disconnect_goes_to_another_worker_before_all_others(self):
        self.layer.send("websocket.disconnect", {"number": 1})
        doomed = self.doomed_layer()
        self.claim(doomed, "websocket.disconnect")
        self.layer.send("websocket.disconnect", {"number": 2})
        self.die(doomed)
        self.recover()
        self.assertEqual(self.receive("websocket.disconnect"), {"number": 1, "redelivered": True})
        self.assertEqual(self.receive("websocket.disconnect"), {"number": 2})

    def test_what_takes_three_workers_with_it_is_given_up(self):
        self.lose("websocket.disconnect", {"code": 1000}, times=3)
        self.assertNothing("websocket.disconnect")
        (letter,) = self.layer.dead_letters()
        self.assertEqual(letter.message, {"code": 1000})

    def test_application_messages_go_to_the_dead_letters(self):
        self.lose("orders", {"number": 1})
        self.assertNothing("orders")
        (letter,) = self.layer.dead_letters()
        self.assertEqual(
            (letter.channel, letter.message, letter.reason), ("orders", {"number": 1}, "lost")
        )
        self.assertEqual(self.layer.global_statistics()["dead_letters"], 1)
        self.assertEqual(self.layer.requeue_dead_letters([letter.id]), 1)
        self.assertEqual(self.layer.requeue_dead_letters([letter.id]), 0)
        self.assertEqual(self.receive("orders"), {"number": 1})
        self.assertEqual(self.layer.dead_letters(), [])

    def test_dead_letters_can_be_dropped(self):
        self.lose("orders", {"number": 1})
        self.lose("orders", {"number": 2})
        first, second = self.layer.dead_letters()
        self.assertEqual(self.layer.drop_dead_letters([first.id]), 1)
        self.assertEqual([each.id for each in self.layer.dead_letters()], [second.id])
        self.assertEqual(self.layer.drop_dead_letters(), 1)
        self.assertEqual(self.layer.dead_letters(), [])

    def test_a_site_may_have_its_own_messages_retried(self):
        self.lose("orders.new", {"number": 1}, lost={"orders.*": "retry"})
        self.assertEqual(self.receive("orders.new"), {"number": 1, "redelivered": True})

    def test_a_long_consumer_keeps_its_message(self):
        lease = SCALE  # a slow machine must be able to renew it in time
        busy = self.make_layer(heartbeat=0.05, lease=lease)
        self.layer.send("orders", {"number": 1})
        self.claim(busy, "orders")
        steps = busy.leases._steps + 1.5 * lease / 0.05
        wait_until(lambda: busy.leases._steps > steps, "a time far longer than the lease")
        self.assertNotIn(busy.leases.process, self.layer.leases.recover())
        busy.acknowledge("consumer")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_worker_that_was_taken_for_dead_goes_on(self):
        other = self.doomed_layer()
        self.layer.send("orders", {"number": 1})
        self.claim(other, "orders")
        self.die(other)
        self.recover()
        other.leases.step()
        self.layer.send("orders", {"number": 2})
        self.assertEqual(self.claim(other, "orders"), {"number": 2})
        self.die(other)
        self.recover()
        self.assertEqual(len(self.layer.dead_letters()), 2)

    def test_a_process_that_ends_in_order_is_not_lost(self):
        other = self.make_layer()
        self.layer.send("orders", {"number": 1})
        self.claim(other, "orders")
        process = other.leases.process
        other.acknowledge("consumer")
        other.close()
        self.assertFalse(self.is_registered(process))

    def test_a_message_of_a_process_that_ends_before_it_was_handled_is_recovered(self):
        other = self.doomed_layer()
        self.layer.send("orders", {"number": 1})
        self.claim(other, "orders")
        process = other.leases.process
        other.leave()
        self.assertTrue(self.is_registered(process))
        self.end_lease(other, process)
        self.dead.add(process)
        self.recover()
        self.assertEqual([each.message for each in self.layer.dead_letters()], [{"number": 1}])
        other.close()

    def test_a_killed_process(self):
        reader, writer = os.pipe()
        # Before a message starts the notifier: if a thread connects to PostgreSQL at that moment, libpq's
        # locks stay locked in the child.
        child = os.fork()
        if child == 0:
            try:
                layer = self.make_layer(heartbeat=0.05, lease=0.5)
                self.claim(layer, "orders")
                os.write(writer, b".")
                signal.pause()
            finally:
                os._exit(1)
        try:
            self.layer.send("orders", {"number": 1})
            self.assertEqual(os.read(reader, 1), b".")
            self.assertNothing("orders")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            os.close(writer)
        self.layer.leases.start()
        wait_until(self.layer.dead_letters, "the message among the dead letters")

    def test_each_heartbeat_looks_for_expired_events_while_that_is_quick(self):
        store = self.layer.store
        with mock.patch.object(maintenance, "LONG_POLL", 3600.0):
            with mock.patch.object(store, "many", wraps=store.many) as many:
                for _ in range(3):
                    store.heartbeat([])
        self.assertEqual([call[0][0] for call in many.call_args_list], ["poll_events"] * 3)

    def test_what_a_failed_claim_took_is_requeued_on_demand(self):
        self.layer.send("orders", {"number": 1})
        next_row = self.layer.store.next_row

        def broken(*args):
            next_row(*args)
            raise LayerUnavailable("the reply did not arrive")

        with mock.patch.object(self.layer.store, "next_row", broken):
            with self.assertRaises(LayerUnavailable):
                self.layer.claim("consumer", ["orders"])
        self.layer.requeue("consumer")
        self.assertEqual(self.claim(self.layer, "orders", "another"), {"number": 1})

    def test_a_claim_of_no_channels_acknowledges_all_the_same(self):
        self.layer.send("orders", {"number": 1})
        self.assertEqual(self.claim(self.layer, "orders"), {"number": 1})
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        self.assertEqual(self.layer.claim("consumer", []), (None, None))
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_claim_that_failed_on_the_way_loses_nothing(self):
        self.layer.send("orders", {"number": 1})
        self.layer.send("orders", {"number": 2})
        self.assertEqual(self.claim(self.layer, "orders"), {"number": 1})
        next_row = self.layer.store.next_row

        def broken(*args):
            next_row(*args)
            raise LayerUnavailable("the reply did not arrive")

        self.layer.store.next_row = broken
        with self.assertRaises(LayerUnavailable):
            self.layer.claim("consumer", ["orders"])
        del self.layer.store.next_row
        self.assertEqual(self.claim(self.layer, "orders"), {"number": 2})
        self.layer.acknowledge("consumer")
        self.assertNothing("orders")

    def test_an_inbox_whose_loop_was_closed_leaves_like_one_that_is_closed(self):
        check_abandoned_inbox_leaves(self)

    def test_of_the_dead_letters_the_newest_are_kept(self):
        other = self.make_layer(prefix="other")
        self.addCleanup(other.flush)
        other.flush()
        self.lose("orders", {"of": "other"}, prefix="other")
        with self.assertLogs("django.channels.layers", "ERROR") as logs:
            for number in range(4):
                self.lose("orders", {"number": number}, dead_letters=2)
                self.layer.share_counters()
        self.assertEqual([each.message["number"] for each in self.layer.dead_letters()], [2, 3])
        statistics = self.layer.global_statistics()
        self.assertEqual(statistics["dead_letters"], 2)
        self.assertEqual(self.counters("dead_letters_dropped", "lost_dead"), [2, 4])
        self.assertTrue(
            any("raise the layer's option dead_letters" in each for each in logs.output)
        )
        self.assertEqual(len(other.dead_letters()), 1)

    def test_there_may_be_no_dead_letters_at_all(self):
        self.lose("orders", {"number": 1}, DEAD_LETTERS=0)
        self.assertEqual(self.layer.dead_letters(), [])
        self.assertEqual(self.counters("dead_letters_dropped"), [1])

    # Events that no worker took.

    def impatient_layer(self):
        return self.make_layer(
            heartbeat=1.5,
            channel_expiry={"http.request": 0.05, "websocket.*": 0.05, "orders*": 0.05},
        )

    def wait_for_expiry(self, layer):
        def is_over():
            return not any(
                layer.channel_statistics(name)["messages_pending"]
                for name in ("http.request", "websocket.receive", "orders", "orders?abc")
            )

        wait_until(is_over, "the expiry")

    def test_the_gateway_is_told_of_an_event_that_no_worker_took(self):
        layer = self.impatient_layer()
        layer.send("http.request", REQUEST)
        layer.send("websocket.receive", {"reply_channel": "gateway.a!8", "event_id": 3, "text": ""})
        layer.send("http.request", {"of": "somebody who waits for nothing"})
        self.wait_for_expiry(layer)
        layer.store.sweep()  # does not touch events
        layer.notices = Notices(0, clock=lambda: 100.0)  # no second passes
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            layer.leases.step()
        self.assertEqual(layer.statistics()["expired"], 3)
        self.assertEqual(len(logs.output), 1)
        for text in ("http.request (2)", "websocket.receive (1)", "manage.py runworker"):
            self.assertIn(text, logs.output[0])
        # The log has one line a second, no more.
        layer.send("http.request", dict(REQUEST, reply_channel="gateway.a!9"))
        self.wait_for_expiry(layer)
        with self.assertRaises(AssertionError):
            with self.assertLogs("django.channels.layers", "WARNING"):
                layer.leases.step()
        for channel, exchange in (("gateway.a!7", 0), ("gateway.a!8", 3), ("gateway.a!9", 0)):
            self.assertEqual(self.receive(channel), {"lost": exchange})
        self.assertNothing("gateway.a!")
        self.assertNothing("http.request")

    def test_an_open_inbox_is_told_by_the_heart_of_any_process(self):
        layer = self.make_layer(channel_expiry={"http.request": 0.05})
        other = self.make_layer()

        async def live(inbox):
            layer.leases.stop()  # another process' heart beats
            inbox.send("http.request", dict(REQUEST, reply_channel="gateway.c!1"), self.fail)
            other.leases.start()
            self.assertEqual(await inbox.receive(), [("gateway.c!1", {"lost": 0})])
            await inbox.close()

        # A unique name: other tests leave a gateway behind, which a flush would tell.
        self.in_gateway(live, layer, "gateway.c!")

    def test_more_events_than_one_look_takes(self):
        layer = self.impatient_layer()
        for _ in range(2):
            body = layer.store.encode("http.request", REQUEST)
            layer.store.send([Outgoing("http.request", body, unlimited=True)] * 60)
        self.wait_for_expiry(layer)
        self.assertEqual(layer.leases.expire(), 120)
        self.assertEqual(layer.channel_statistics("gateway.a!")["messages_pending"], 120)
        self.assertFalse(layer.store._poll_events()[1])

    def test_an_event_is_not_taken_unless_its_gateway_is_told(self):
        layer = self.impatient_layer()
        layer.send("http.request", REQUEST)
        self.wait_for_expiry(layer)

        def dies(entry):
            raise RuntimeError("in the middle of it")

        with mock.patch.object(layer.recovery, "decide_expired", dies):
            with self.assertRaises(RuntimeError):
                layer.leases.expire()
        layer.leases.expire()  # unless the layer's own thread has done it meanwhile
        self.assertEqual(self.receive("gateway.a!7"), {"lost": 0})

    def test_what_no_gateway_waits_for_is_counted_and_named(self):
        layer = self.impatient_layer()
        layer.send("orders", {"number": 1})
        layer.send("orders?abc", {"number": 2})
        self.wait_for_expiry(layer)
        self.assertFalse(layer.store._poll_events()[1])
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            layer.leases.sweep()
        self.assertIn("Messages on orders (1) expired", logs.output[0])
        self.assertEqual(layer.statistics()["expired"], 1)
        self.assertEqual(layer.store.sweep(), {})

    def test_where_looking_for_them_takes_long_it_is_not_done_each_time(self):
        layer = self.impatient_layer()
        layer.send("http.request", REQUEST)
        self.wait_for_expiry(layer)
        with mock.patch.object(maintenance, "LONG_POLL", -1.0), mock.patch.object(
            maintenance, "POLL_SHARE", 1e-9
        ):
            self.assertTrue(layer.store._poll_events()[1])
            self.assertFalse(layer.store._poll_events()[1])

    # Counters.

    def counters(self, *names):
        counters = self.layer.global_statistics()["counters"]
        return [counters.get(name, 0) for name in names]

    def test_the_counters_of_all_processes_are_added_up(self):
        first, second = (self.make_layer(heartbeat=1.5) for _ in range(2))
        for layer, number in ((first, 2), (second, 3)):
            layer.count("refused", number)
            layer.leases.step()
        self.assertEqual(self.counters("refused"), [5])
        first.leases.step()  # nothing new
        self.assertEqual(self.counters("refused"), [5])
        # What is not yet shared is known in its own process.
        first.count("refused")
        self.assertEqual(first.global_statistics()["counters"]["refused"], 6)
        self.assertEqual(self.counters("refused"), [5])
        first.close()
        self.assertEqual(self.counters("refused"), [6])
        self.layer.flush()
        self.assertEqual(self.counters("refused"), [0])

    def test_what_was_sent_refused_and_expired_is_counted_for_all_processes(self):
        sender = self.make_layer(heartbeat=1.5, capacity=2, expiry=0.1)
        for _ in range(2):
            sender.send("orders", {})
        with self.assertRaises(sender.ChannelFull):
            sender.send("orders", {})
        wait_until(
            lambda: not sender.channel_statistics("orders")["messages_pending"], "the expiry"
        )
        sender.leases.sweep()
        sender.leases.step()
        statistics = self.layer.global_statistics()
        self.assertEqual(statistics["messages_count"], 2)
        self.assertEqual(statistics["channel_full_count"], 1)
        self.assertEqual(statistics["messages_expired"], 2)
        # In addition to what is lost with the processes of earlier tests.
        self.assertEqual(statistics["counters"]["full"], 1)

    def test_who_only_sends_shares_its_counters_too(self):
        sender = self.make_layer()
        channel = "orders"

        def shared():
            sender.send(channel, {})
            return self.layer.global_statistics()["messages_count"]

        wait_until(shared, "the count")
        self.assertFalse(sender.leases.runs)

    def test_counters_are_shared_by_many_at_once(self):
        layers = [self.make_layer(heartbeat=1.5) for _ in range(4)]
        names = ["a", "b", "c", "d"]

        def share(layer, order):
            for _ in range(10):
                for name in order:
                    layer.count(name)
                layer.share_counters()

        threads = [
            threading.Thread(target=share, args=(layer, names[index:] + names[:index]))
            for index, layer in enumerate(layers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * TIMEOUT)
        self.assertEqual(self.counters(*names), [40] * 4)

    def test_a_forked_process_shares_what_is_its_own(self):
        self.layer.count("refused", 2)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.layer.count("refused", 3)
                self.layer.close()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.counters("refused"), [5])

    # Gateways.

    def in_gateway(self, function, layer, name="gateway.b!"):
        """
        Run the coroutine function `function(inbox)` in the event loop of a gateway on `layer`. The gateway's
        threads then end, as those of a killed process do: they would go on reading its inbox.
        """

        async def run():
            inboxes.append(layer.open_inbox(name))
            await asyncio.wait_for(function(inboxes[0]), TIMEOUT)

        inboxes = []
        try:
            asyncio.run(run())
        finally:
            for inbox in inboxes:
                end_threads(inbox)

    def test_a_lost_gateway_leaves_its_groups_and_says_farewell(self):
        doomed = self.doomed_layer()

        async def live(inbox):
            doomed.group_add("room", "gateway.b!1")
            doomed.group_add("room", "elsewhere")
            for number in (1, 2, 3):
                farewell = {"reply_channel": "gateway.b!%d" % number, "code": 1006}
                inbox.set_will("gateway.b!%d" % number, ("websocket.disconnect", farewell))
            inbox.clear_will("gateway.b!2")
            # Sent after the others, so they have been done when it arrives.
            inbox.send("orders", {"last": True}, self.fail)

        self.in_gateway(live, doomed)
        self.receive("orders")
        self.layer.send("gateway.b!1", {"text": "the inbox is gone"})
        self.die(doomed)
        self.assertIn("gateway.b!", self.dead)
        self.recover()
        self.assertEqual(self.layer.group_channels("room"), ["elsewhere"])
        farewells = [self.receive("websocket.disconnect") for _ in range(2)]
        self.assertEqual(
            sorted(each["reply_channel"] for each in farewells), ["gateway.b!1", "gateway.b!3"]
        )
        self.assertEqual(farewells[0]["code"], 1006)
        self.assertNothing("websocket.disconnect")
        # Only what the gateway is told if it comes back.
        (ended,) = self.receive("gateway.b!").values()
        self.assertEqual(sorted(ended), ["gateway.b!1", "gateway.b!3"])
        self.assertNothing("gateway.b!")

    def test_farewells_are_said_whatever_the_capacity(self):
        doomed = self.doomed_layer(capacity=1)

        async def live(inbox):
            for number in range(5):
                inbox.set_will("gateway.b!%d" % number, ("websocket.disconnect", {"n": number}))
            inbox.send("orders", {"last": True}, self.fail)

        self.in_gateway(live, doomed)
        self.receive("orders")
        self.die(doomed)
        self.recover()
        found = {self.receive("websocket.disconnect")["n"] for _ in range(5)}
        self.assertEqual(found, set(range(5)))

    def test_a_gateway_that_was_taken_for_dead_is_told(self):
        doomed = self.doomed_layer()

        async def live(inbox):
            self.die(doomed)
            self.recover()
            doomed.leases.step()
            self.assertEqual(await inbox.receive(), [("gateway.b!", {"reset": True})])
            # It has its lease again.
            self.layer.group_add("room", "gateway.b!1")
            self.assertEqual(await inbox.receive(), [("gateway.b!1", {"group_add": "room"})])

        self.in_gateway(live, doomed)

    def test_a_flush_is_told_to_gateways(self):
        async def live(inbox):
            self.layer.flush()
            self.assertEqual(await inbox.receive(), [("gateway.b!", {"reset": True})])
            await inbox.close()

        self.in_gateway(live, self.layer)

    def test_a_gateway_that_leaves_in_order_sends_the_wills_of_open_connections(self):
        async def live(inbox):
            inbox.set_will("gateway.b!1", ("websocket.disconnect", {"number": 1}))
            inbox.set_will("gateway.b!2", ("websocket.disconnect", {"number": 2}))
            inbox.clear_will("gateway.b!1")
            self.layer.group_add("room", "gateway.b!1")
            await inbox.close()

        self.in_gateway(live, self.layer)
        self.assertFalse(self.is_registered("gateway.b!"))
        self.assertEqual(self.receive("websocket.disconnect"), {"number": 2})
        self.assertNothing("websocket.disconnect")
        self.assertEqual(self.layer.group_channels("room"), [])

    # Delay, and the sharing of a database.

    def test_a_delayed_message_of_a_process_that_died_is_sent(self):
        doomed = self.doomed_layer()
        doomed.send_later("later", {"number": 1}, 0.2)
        self.die(doomed)
        self.assertNothing("later")
        self.assertEqual(self.receive("later"), {"number": 1})

    def test_a_full_channel_drops_what_is_due_and_counts_it(self):
        self.layer = self.make_layer(capacity=1)
        self.layer.send("later", {"number": 1})
        self.layer.send_later("later", {"number": 2}, 0.0)
        self.layer.leases.start()
        wait_until(lambda: self.layer.statistics().get("delayed_full"), "the count")
        self.assertEqual(self.receive("later"), {"number": 1})
        self.assertNothing("later")

    def test_layers_with_other_prefixes_see_nothing_of_each_other(self):
        other = self.make_layer(prefix="other")
        other.send("orders", {"of": "other"})
        other.group_add("room", "orders")
        self.addCleanup(other.flush)
        self.assertNothing("orders")
        self.assertEqual(self.layer.group_channels("room"), [])
        self.layer.flush()
        self.assertEqual(other.receive_many(["orders"])[1], {"of": "other"})

    def test_names_differ_by_case(self):
        self.layer.send("Orders", {"upper": True})
        self.layer.group_add("Room", "a")
        self.assertNothing("orders")
        self.assertEqual(self.layer.group_channels("room"), [])
        self.assertEqual(self.receive("Orders"), {"upper": True})

    def test_keys_that_look_like_the_layers_own_arrive(self):
        for message in ({"\0": "YQ=="}, {"\0\0": b"b", "k": {"\0": [b"\0"]}}, {"text": '"\0'}):
            self.layer.send("orders", message)
            self.assertEqual(self.receive("orders"), message)


class SQLiteLeaseTests(LeaseTests, SQLiteCase, unittest.TestCase):
    pass


class PostgreSQLLeaseTests(LeaseTests, PostgreSQLCase, unittest.TestCase):
    def test_what_is_put_back_is_found_at_once_by_who_has_passed_it(self):
        passed, other = self.make_layer(), self.make_layer()
        passed.block_for = 0.05
        wait_until(
            lambda: (
                passed.claim("consumer", ["nothing"], block=True)[0]
                or passed.store.listener.listening
            ),
            "notifications",
        )
        passed.send("test", {"number": 1})
        self.claim(other, "test")
        # It will not search the whole queue for an hour.
        marks = passed.store.marks
        marks._marks[passed.store.key("test")] = [2**60, 2**60, 0.0]
        marks._search_at = time.monotonic() + 3600
        other.requeue("consumer")
        wait_until(lambda: passed.claim("consumer", ["test"])[0], "what was put back")


class MariaDBLeaseTests(LeaseTests, MariaDBCase, unittest.TestCase):
    pass


class PolicyTests(unittest.TestCase):
    def test_a_wrong_policy_is_told(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "again"):
            RedeliveryPolicy({"orders": "again"})

    def test_what_nobody_awaits_is_not_reported(self):
        self.assertEqual(RedeliveryPolicy().decide("http.request", {}, 1), "dead-letter")

"""The database layer when a worker or a gateway dies, on each database: nothing is lost in silence."""

import asyncio
import logging
import os
import signal
import unittest

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.lost import LostPolicy
from django.core.exceptions import ImproperlyConfigured

from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase
from .timing import TIMEOUT, wait_until

REQUEST = {"reply_channel": "gateway.a!7", "exchange": 0, "method": "GET", "path": "/"}


class LeaseTests:
    """`self.layer` is a living process'; `dead_layer` gives those of processes that have died."""

    def setUp(self):
        super().setUp()
        logger = logging.getLogger("django.channels.layers.database")
        logger.setLevel(logging.CRITICAL)  # it tells of every death
        self.addCleanup(logger.setLevel, logging.NOTSET)
        self.layer = self.make_layer()
        self.layer.flush()

    def make_layer(self, **config):
        return super().make_layer(**dict({"heartbeat": 0.05, "lease": 5.0}, **config))

    def doomed_layer(self, **config):
        """A layer whose process is about to die: `die(layer)`."""
        return self.make_layer(**config)

    def die(self, layer):
        """Its heart beats no more, and its leases run out at once, as they would after `lease` seconds."""
        layer.keeper.stop()
        with layer.keeper._lock:
            names = list(layer.keeper._names)
        for name in names:
            layer.store.register(name, -1.0)

    def lose(self, channel, message, times=1, **config):
        """Send it, and have as many workers die with it."""
        self.layer = self.make_layer(**config)
        self.layer.send(channel, message)
        for _ in range(times):
            doomed = self.doomed_layer(**config)
            self.assertIsNotNone(self.claim(doomed, channel))
            self.die(doomed)
            self.layer.keeper.reap()

    def claim(self, layer, channel, slot="slot"):
        return wait_until(lambda: layer.claim(slot, [channel], block=True)[1], "a message")

    def receive(self, channel):
        return wait_until(lambda: self.layer.receive_many([channel], block=True)[1], "a message")

    def assertNothing(self, channel):
        self.assertEqual(self.layer.receive_many([channel]), (None, None))

    def test_who_could_not_renew_since_the_database_was_away_is_not_lost(self):
        layers = [self.make_layer(heartbeat=4.0) for _ in range(2)]
        for layer in layers:
            layer.claim("slot", ["nothing"])  # takes the lease
            self.die(layer)
        first, second = layers
        first.keeper.beat()
        self.assertEqual(second.keeper.reap(), [])
        second.keeper.beat()
        self.assertEqual(first.keeper.reap(), [])
        # But while somebody is there, who is silent is lost.
        self.die(second)
        first.keeper.beat()
        names = list(second.keeper._names)
        self.assertEqual(second.store.beat(names, 5.0), names)

    def test_numbers_that_begin_anew_are_found_at_once(self):
        """As after a crash of PostgreSQL, which empties unlogged tables."""
        layer = self.make_layer(heartbeat=4.0)
        layer.claim("slot", ["test"])
        layer.store.floors._floors[layer.store.key("test")] = [10**6, 10**6, 0.0]
        layer.store.floors.searched(3600.0)
        self.die(layer)
        layer.store.write("unregister", {"name": list(layer.keeper._names)[0]})
        layer.send("test", {"number": 1})
        layer.keeper.beat()
        self.assertEqual(layer.claim("slot", ["test"])[1], {"number": 1})

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
        self.layer.keeper.reap()
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
        busy = self.make_layer(heartbeat=0.05, lease=0.4)
        self.layer.send("orders", {"number": 1})
        self.claim(busy, "orders")
        beats = busy.keeper._beats
        wait_until(lambda: busy.keeper._beats > beats + 15, "a time far longer than the lease")
        self.assertNotIn(busy.process, self.layer.keeper.reap())
        busy.acknowledge("slot")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_worker_that_was_taken_for_dead_goes_on(self):
        other = self.doomed_layer()
        self.layer.send("orders", {"number": 1})
        self.claim(other, "orders")
        self.die(other)
        self.layer.keeper.reap()
        other.keeper.beat()
        self.layer.send("orders", {"number": 2})
        self.assertEqual(self.claim(other, "orders"), {"number": 2})
        self.die(other)
        self.layer.keeper.reap()
        self.assertEqual(len(self.layer.dead_letters()), 2)

    def test_a_process_that_ends_in_order_is_not_lost(self):
        other = self.make_layer()
        self.layer.send("orders", {"number": 1})
        self.claim(other, "orders")
        process = other.process
        other.acknowledge("slot")
        other.close()
        self.assertEqual(self.layer.store.beat([process], 5.0), [process])  # there is no such lease

    def test_a_killed_process(self):
        self.layer.send("orders", {"number": 1})
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                layer = self.make_layer(heartbeat=0.05, lease=0.5)
                layer.claim("slot", ["orders"], block=True)
                os.write(writer, b".")
                signal.pause()
            finally:
                os._exit(1)
        try:
            os.read(reader, 1)
            self.assertNothing("orders")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            os.close(writer)
        self.layer.keeper.start()
        wait_until(self.layer.dead_letters, "the message among the dead letters")

    def test_a_claim_that_failed_on_the_way_loses_nothing(self):
        self.layer.send("orders", {"number": 1})
        self.layer.send("orders", {"number": 2})
        self.assertEqual(self.claim(self.layer, "orders"), {"number": 1})
        claim = self.layer.store.claim

        def broken(*args):
            claim(*args)
            raise LayerUnavailable("the answer did not arrive")

        self.layer.store.claim = broken
        with self.assertRaises(LayerUnavailable):
            self.layer.claim("slot", ["orders"])
        del self.layer.store.claim
        self.assertEqual(self.claim(self.layer, "orders"), {"number": 2})
        self.layer.acknowledge("slot")
        self.assertNothing("orders")

    # Gateways.

    def in_gateway(self, function, layer):
        """Run the coroutine function `function(inbox)` in the event loop of a gateway on `layer`."""

        async def run():
            inbox = layer.open_inbox("gateway.b!")
            await asyncio.wait_for(function(inbox), TIMEOUT)

        asyncio.run(run())

    def test_a_lost_gateway_leaves_its_groups_and_says_farewell(self):
        doomed = self.doomed_layer()

        async def live(inbox):
            doomed.group_add("room", "gateway.b!1")
            doomed.group_add("room", "elsewhere")
            for number in (1, 2, 3):
                farewell = {"reply_channel": "gateway.b!%d" % number, "code": 1006}
                inbox.hold("gateway.b!%d" % number, ("websocket.disconnect", farewell))
            inbox.drop("gateway.b!2")
            # Sent after the others, so they have been done when it arrives.
            inbox.send("orders", {"last": True}, self.fail)

        self.in_gateway(live, doomed)
        self.receive("orders")
        self.layer.send("gateway.b!1", {"text": "nobody is there"})
        self.die(doomed)
        self.assertIn(self.layer.store.key("gateway.b!"), self.layer.keeper.reap())
        self.assertEqual(self.layer.group_channels("room"), ["elsewhere"])
        farewells = [self.receive("websocket.disconnect") for _ in range(2)]
        self.assertEqual(
            sorted(each["reply_channel"] for each in farewells), ["gateway.b!1", "gateway.b!3"]
        )
        self.assertEqual(farewells[0]["code"], 1006)
        self.assertNothing("websocket.disconnect")
        self.assertNothing("gateway.b!")

    def test_farewells_are_said_whatever_the_capacity(self):
        doomed = self.doomed_layer(capacity=1)

        async def live(inbox):
            for number in range(5):
                inbox.hold("gateway.b!%d" % number, ("websocket.disconnect", {"n": number}))
            inbox.send("orders", {"last": True}, self.fail)

        self.in_gateway(live, doomed)
        self.receive("orders")
        self.die(doomed)
        self.layer.keeper.reap()
        found = {self.receive("websocket.disconnect")["n"] for _ in range(5)}
        self.assertEqual(found, set(range(5)))

    def test_a_gateway_that_was_taken_for_dead_is_told(self):
        doomed = self.doomed_layer()

        async def live(inbox):
            self.die(doomed)
            self.layer.keeper.reap()
            doomed.keeper.beat()
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

    def test_a_gateway_that_leaves_in_order_says_nothing(self):
        async def live(inbox):
            inbox.hold("gateway.b!1", ("websocket.disconnect", {}))
            self.layer.group_add("room", "gateway.b!1")
            await inbox.close()

        self.in_gateway(live, self.layer)
        self.assertNotIn(self.layer.store.key("gateway.b!"), self.layer.keeper.reap())
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
        self.layer.keeper.start()
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
    pass


class MariaDBLeaseTests(LeaseTests, MariaDBCase, unittest.TestCase):
    pass


class PolicyTests(unittest.TestCase):
    def test_a_wrong_policy_is_told(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "again"):
            LostPolicy({"orders": "again"})

    def test_what_nobody_awaits_is_not_reported(self):
        self.assertEqual(LostPolicy().decide("http.request", {}, 1), "dead-letter")

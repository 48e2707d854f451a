"""Leases and what becomes of what the dead held: policies, dead letters, farewells, lost data."""

import asyncio
import os
import signal
import time
import unittest

from django.core.exceptions import ImproperlyConfigured

from channels_tests.support.layers import check_abandoned_inbox_leaves
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import SCALE, TIMEOUT, wait_until

from .test_standalone import RedisLayerCase

QUICK = {"heartbeat": 0.05, "lease": 0.3 * SCALE}


def start_lease(layer):
    """Take the lease of this process, and have it look after the dead, as any worker does."""
    return layer.leases.process


def server_time(layer):
    """Return the server's clock, in milliseconds since 1970: leases and expiries are measured by it."""
    seconds, microseconds = layer.store.servers.call(("TIME",))
    return int(seconds) * 1000 + int(microseconds) // 1000


def wait_for_heartbeats(layers, number):
    """Wait until the lease thread of each of `layers` has sent so many more."""
    least = [layer.leases._steps + number for layer in layers]
    wait_until(
        lambda: all(layer.leases._steps >= each for layer, each in zip(layers, least)),
        "%d heartbeats" % number,
    )


class RecoveryCase(RedisLayerCase, unittest.TestCase):
    config = dict(QUICK, prefix="recovery:")

    def lease_end(self, layer):
        """Return when the lease of a layer's process ends by the server's clock."""
        score = ("ZSCORE", layer.store.keys.leases, "w:" + layer.leases.process)
        return float(self.layer.store.servers.call(score))

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.layer.flush)

    def layer_that_dies(self, **config):
        """A layer whose process stops saying that it lives."""
        layer = self.make_layer(**config)
        layer.block_for = 0.1
        return layer

    def die(self, layer):
        layer.leases.stop()

    def lose(self, channel, **message):
        """Send a message, and have a worker die with it."""
        self.layer.send(channel, message)
        self.lose_again(channel)

    def lose_again(self, channel):
        dying = self.layer_that_dies()
        found = wait_until(
            lambda: dying.claim("doomed", [channel], block=True)[1], "a message of " + channel
        )
        self.die(dying)
        return found

    def watch(self):
        """Have this process look after the dead, as any worker does."""
        start_lease(self.layer)

    def receive(self, channel, layer=None):
        return wait_until(
            lambda: (layer or self.layer).receive_many([channel], block=True)[1],
            "a message of " + channel,
        )


class LostWorkerTests(RecoveryCase):
    def test_an_event_of_a_client_is_reported_to_its_gateway(self):
        self.watch()
        for number, channel in enumerate(
            ("http.request", "websocket.connect", "websocket.receive")
        ):
            self.lose(channel, reply_channel="gateway.x!%d" % number, event_id=number)
            self.assertEqual(self.receive("gateway.x!"), {"lost": number})
            self.assertEqual(self.layer.receive_many([channel]), (None, None))
        self.assertEqual(self.layer.dead_letters(), [])

    def test_an_event_that_nobody_waits_for_is_a_dead_letter(self):
        self.watch()
        self.lose("websocket.receive", text="sent by hand")
        letter = wait_until(self.layer.dead_letters, "a dead letter")[0]
        self.assertEqual(letter.channel, "websocket.receive")

    def test_a_disconnect_goes_to_another_worker_at_the_head_and_marked(self):
        self.watch()
        self.lose("websocket.disconnect", path="/a/")
        self.layer.send("websocket.disconnect", {"path": "/b/"})
        pending = self.layer.channel_statistics
        wait_until(
            lambda: pending("websocket.disconnect")["messages_pending"] == 2, "it to be requeued"
        )
        got = [self.receive("websocket.disconnect") for _ in range(2)]
        self.assertEqual(got, [{"path": "/a/", "redelivered": True}, {"path": "/b/"}])

    def test_after_three_losses_it_is_a_dead_letter(self):
        self.watch()
        self.lose("websocket.disconnect", path="/a/")
        for _ in range(2):
            self.assertEqual(
                self.lose_again("websocket.disconnect"), {"path": "/a/", "redelivered": True}
            )
        letter = wait_until(self.layer.dead_letters, "a dead letter")[0]
        self.assertEqual(letter.reason, "lost")
        self.assertEqual(letter.message, {"path": "/a/"})

    def test_an_applications_message_is_a_dead_letter_to_list_requeue_and_drop(self):
        self.watch()
        for number in range(3):
            self.lose("work.charge-card", number=number)
            wait_until(
                lambda number=number: len(self.layer.dead_letters()) == number + 1, "the letter"
            )
        letters = self.layer.dead_letters()
        self.assertEqual([each.message["number"] for each in letters], [0, 1, 2])
        self.assertEqual({each.channel for each in letters}, {"work.charge-card"})
        self.assertLess(abs(time.time() - letters[0].time), TIMEOUT)
        self.assertEqual(self.layer.global_statistics()["dead_letters"], 3)
        self.assertEqual(self.layer.requeue_dead_letters([letters[1].id]), 1)
        self.assertEqual(self.receive("work.charge-card"), {"number": 1})
        self.assertEqual(self.layer.drop_dead_letters([letters[0].id, letters[1].id]), 1)
        self.assertEqual(self.layer.requeue_dead_letters(), 1)
        self.assertEqual(self.receive("work.charge-card"), {"number": 2})
        self.assertEqual(self.layer.dead_letters(), [])

    def test_the_policy_goes_by_pattern(self):
        self.config = dict(self.config, lost={"work.*": "retry"})
        self.layer = self.make_layer()
        self.watch()
        self.lose("work.thumbnail", number=1)
        self.assertEqual(self.receive("work.thumbnail"), {"number": 1, "redelivered": True})
        with self.assertRaisesRegex(ImproperlyConfigured, "'report', 'retry' or 'dead-letter'"):
            self.make_layer(lost={"work.*": "ignore"})

    def test_a_safe_request_may_run_once_more(self):
        # Any process may be the one that reaps: all of them have the same settings.
        self.config = dict(self.config, retry_safe_requests=True)
        self.layer = self.make_layer()
        self.watch()
        request = {"reply_channel": "gateway.x!1", "event_id": 0}
        self.lose("http.request", method="GET", **request)
        self.assertIs(self.lose_again("http.request")["redelivered"], True)
        self.assertEqual(self.receive("gateway.x!"), {"lost": 0})
        self.lose("http.request", method="POST", **request)
        self.assertEqual(self.receive("gateway.x!"), {"lost": 0})

    def test_one_of_many_processes_reaps(self):
        layers = [self.make_layer() for _ in range(4)]
        for layer in layers:
            start_lease(layer)
        for number in range(10):
            self.layer.send("work.once", {"number": number})
        dying = self.layer_that_dies()
        for number in range(10):
            self.assertIsNotNone(dying.claim("slot-%d" % number, ["work.once"], block=True)[1])
        self.die(dying)
        wait_until(lambda: len(self.layer.dead_letters()) >= 10, "ten dead letters")
        wait_for_heartbeats(layers, 4)
        numbers = [each.message["number"] for each in self.layer.dead_letters()]
        self.assertEqual(sorted(numbers), list(range(10)))

    def test_a_reaper_that_is_lost_in_the_middle_is_reaped_too(self):
        self.lose("work.twice", number=1)
        reaper = self.layer_that_dies()
        reaper.store._carry_out = lambda held, decide: ([], 0)
        start_lease(reaper)
        held = reaper.store._taken_key
        wait_until(lambda: self.layer.store.servers.call(("HLEN", held)), "the reaper to hold it")
        self.die(reaper)
        self.watch()
        self.assertEqual(wait_until(self.layer.dead_letters, "it")[0].message, {"number": 1})

    def test_what_a_process_has_taken_over_outlives_its_own_lease(self):
        self.lose("work.paused", number=1)
        reaper = self.make_layer()
        store, leases = reaper.store, reaper.leases
        carry_out, store._carry_out = store._carry_out, lambda held, decide: ([], 0)
        wait_until(leases.recover, "the lease of the dead to end")
        # As after a pause of this process that no other one has noticed.
        store.servers.call(("ZADD", store.keys.leases, 0, store._taker))
        store._carry_out = carry_out
        leases.recover()
        self.assertEqual([each.message for each in reaper.dead_letters()], [{"number": 1}])

    def test_what_is_claimed_after_the_end_of_the_lease_is_recovered_too(self):
        dying = self.layer_that_dies()
        self.assertIsNone(dying.claim("doomed", ["work.late"])[1])  # takes the lease
        self.die(dying)
        holder = "w:" + dying.leases.process
        self.layer.store.servers.call(("ZREM", self.layer.store.keys.leases, holder))
        self.layer.send("work.late", {"number": 1})
        self.assertEqual(dying.claim("doomed", ["work.late"])[1], {"number": 1})
        self.watch()
        letter = wait_until(self.layer.dead_letters, "a dead letter")[0]
        self.assertEqual(letter.message, {"number": 1})

    def test_a_long_running_consumer_keeps_its_message_while_its_process_lives(self):
        self.watch()
        worker = self.make_layer()
        self.layer.send("work.long", {})
        self.assertEqual(worker.claim("slot", ["work.long"]), ("work.long", {}))
        end = self.lease_end(worker) + 2 * 1000 * QUICK["lease"]
        wait_until(lambda: server_time(self.layer) > end, "three leases to pass")
        wait_for_heartbeats([self.layer], 1)
        self.assertEqual(self.layer.dead_letters(), [])
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        worker.acknowledge("slot")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_a_killed_process(self):
        self.watch()
        self.layer.send("work.kill", {"number": 1})
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.layer.claim("slot", ["work.kill"], block=True)
                os.write(write, b"!")
                time.sleep(60)
            finally:
                os._exit(1)
        try:
            self.assertEqual(os.read(read, 1), b"!")
            self.assertEqual(self.layer.dead_letters(), [])
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)
        self.assertEqual(wait_until(self.layer.dead_letters, "it")[0].message, {"number": 1})

    def test_when_all_were_cut_off_nobody_is_reaped(self):
        """After an outage longer than a lease, the first process that is back spares the others."""
        self.layer.leases.step()
        worker = self.layer_that_dies()
        self.layer.send("work.spared", {})
        worker.claim("slot", ["work.spared"])
        self.die(worker)
        end = max(self.lease_end(worker), server_time(self.layer) + 1000 * QUICK["lease"])
        wait_until(lambda: server_time(self.layer) > end, "both leases to end")
        self.layer.leases.step()
        self.assertEqual(self.layer.dead_letters(), [])
        # But not for ever.
        self.watch()
        wait_until(self.layer.dead_letters, "the dead letter of the process that stayed away")

    def test_dead_letters_that_a_recovery_drops_are_counted(self):
        self.config = dict(self.config, dead_letters=0)
        self.layer = self.make_layer()
        self.watch()
        self.lose("work.x", number=1)
        wait_until(lambda: self.layer.statistics().get("dead_letters_dropped") == 1, "the count")
        self.assertEqual(self.layer.dead_letters(), [])

    def test_a_process_that_ends_with_a_message_does_not_take_it_along(self):
        worker = self.make_layer()
        self.layer.send("work.x", {"number": 1})
        worker.claim("consumer", ["work.x"])
        worker.close()
        self.watch()
        self.assertEqual(wait_until(self.layer.dead_letters, "it")[0].message, {"number": 1})


class LostGatewayTests(RecoveryCase):
    def test_all_wills_of_many_connections_are_sent(self):
        self.layer = self.make_layer(capacity=10000)

        async def leave_with_many():
            inbox = self.layer.open_inbox("gateway.many!")
            for number in range(1201):
                channel = "gateway.many!%d" % number
                inbox.set_will(channel, ("websocket.disconnect", {"number": number}))
            await asyncio.sleep(0)
            await inbox.close()

        asyncio.run(leave_with_many())
        got = [self.receive("websocket.disconnect")["number"] for _ in range(1201)]
        self.assertEqual(sorted(got), list(range(1201)))

    def test_a_gateway_of_the_same_name_begins_anew_and_outlives_the_former_one(self):
        former = self.layer_that_dies()

        async def check():
            loop = asyncio.get_event_loop()
            dead = former.open_inbox("gateway.same!")
            self.layer.send("gateway.same!1", {"for": "the former"})
            self.die(former)
            inbox = self.layer.open_inbox("gateway.same!")
            self.layer.group_add("room", "gateway.same!1")
            gone = "g:" + dead.gateway
            await loop.run_in_executor(
                None,
                lambda: wait_until(
                    lambda: (
                        not self.layer.store.servers.call(
                            ("ZSCORE", self.layer.store.keys.leases, gone)
                        )
                    ),
                    "the former one's lease to end",
                ),
            )
            self.layer.leases.step()
            self.layer.send("gateway.same!1", {"for": "the new"})
            batch = []
            while len(batch) < 2:
                batch += await asyncio.wait_for(inbox.receive(), TIMEOUT)
            members = self.layer.group_channels("room")
            await inbox.close()
            return batch, members

        batch, members = asyncio.run(check())
        self.assertEqual(members, ["gateway.same!1"])
        self.assertEqual(
            batch,
            [
                ("gateway.same!1", {"group_add": "room"}),
                ("gateway.same!1", {"for": "the new"}),
            ],
        )

    def test_an_inbox_whose_loop_was_closed_leaves_like_one_that_is_closed(self):
        check_abandoned_inbox_leaves(self)

    def test_its_memberships_go_and_its_sockets_get_a_farewell(self):
        gone = self.layer_that_dies()

        async def live_and_die():
            inbox = gone.open_inbox("gateway.gone!")
            for number in range(3):
                farewell = {"reply_channel": "gateway.gone!%d" % number, "code": 1006}
                inbox.set_will("gateway.gone!%d" % number, ("websocket.disconnect", farewell))
            inbox.clear_will("gateway.gone!1")
            gone.group_add("room", "gateway.gone!0")
            for number in (3, 4):
                inbox.set_will("gateway.gone!%d" % number, ("websocket.disconnect", {}))
            await asyncio.sleep(0)
            while inbox._writing is not None or inbox._work:
                await asyncio.sleep(0.005)
            inbox.clear_will("gateway.gone!3")
            inbox.clear_will("gateway.gone!4")
            while inbox._writing is not None or inbox._work:
                await asyncio.sleep(0.005)
            wait_until(lambda: inbox.leased, "its lease")
            self.die(gone)
            await inbox._reader.close()
            await inbox._writer.close()

        asyncio.run(live_and_die())
        self.layer.group_add("room", "plain.member")
        self.assertEqual(len(self.layer.group_channels("room")), 2)
        self.watch()
        got = [self.receive("websocket.disconnect")["reply_channel"] for _ in range(2)]
        self.assertEqual(sorted(got), ["gateway.gone!0", "gateway.gone!2"])
        wait_until(lambda: self.layer.group_channels("room") == ["plain.member"], "it to go")
        self.assertEqual(self.layer.receive_many(["websocket.disconnect"]), (None, None))
        tags = self.layer.store.keys.tags
        patterns = [tag + kind + ":*" for tag in tags for kind in "gibmh"]
        wait_until(
            lambda: not [key for each in patterns for key in self.layer.store.servers.scan(each)],
            "nothing of it to be left",
        )

    def test_answers_to_it_expire(self):
        layer = self.make_layer(expiry=1)
        for _ in range(5):
            layer.deliver("gateway.gone!1", {"ack": 1})
        key = layer.store.keys.queue("gateway.gone!1")[1]
        self.assertGreater(layer.store.servers.call(("PTTL", key)), 0)
        wait_until(lambda: not layer.store.servers.call(("EXISTS", key)), "them to expire")

    def test_a_gateway_that_others_took_for_dead_is_told(self):
        async def check():
            inbox = self.layer.open_inbox("gateway.slept!")
            try:
                wait_until(lambda: inbox.leased, "its lease")
                self.layer.leases.stop()  # as if it was stopped for a while
                other = self.make_layer()
                start_lease(other)
                loop = asyncio.get_event_loop()
                register = self.layer.store.keys.inbox("gateway.slept!")[1]
                await loop.run_in_executor(
                    None,
                    lambda: wait_until(
                        lambda: not other.store.servers.call(("EXISTS", register)),
                        "it to be reaped",
                    ),
                )
                self.layer.leases.step()
                return await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(check()), [("gateway.slept!", {"reset": True})])


class PartitionedLostGatewayTests(LostGatewayTests):
    config = dict(LostGatewayTests.config, partitions=8)

    def test_a_partition_that_loses_its_data_is_noticed(self):
        """As when one node of a cluster restarts empty: the routes of some groups are gone."""

        async def check():
            inbox = self.layer.open_inbox("gateway.a!")
            try:
                wait_until(lambda: inbox.leased, "its lease")
                home = self.layer.store.keys.partition(inbox.name)
                tag = next(
                    tag
                    for number, tag in enumerate(self.layer.store.keys.tags)
                    if number not in (0, home)
                )
                for key in list(self.layer.store.servers.scan(tag + "*")):
                    self.layer.store.servers.call(("DEL", key))
                return await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(check()), [("gateway.a!", {"reset": True})])


class LostDataTests(RecoveryCase):
    """On its own server."""

    def setUp(self):
        self.server = RedisServer().start()
        self.addCleanup(self.server.stop)
        self.config = dict(QUICK, hosts=[self.server.url])
        self.layer = self.make_layer()

    def run_with_inbox(self, function):
        async def run():
            inbox = self.layer.open_inbox("gateway.a!")
            try:
                return await asyncio.wait_for(function(inbox), TIMEOUT)
            finally:
                await inbox.close()

        return asyncio.run(run())

    async def read(self, inbox):
        """The next batch, over failures, as the gateway reads."""
        while True:
            try:
                return await inbox.receive()
            except self.layer.LayerUnavailable:
                await asyncio.sleep(0.02)

    def check_reset(self, lose_data):
        async def check(inbox):
            await asyncio.get_event_loop().run_in_executor(
                None, lambda: wait_until(lambda: inbox.leased, "its lease")
            )
            self.layer.group_add("room", "gateway.a!1")
            self.layer.send("gateway.a!1", {"number": 1})
            self.assertEqual(len(await self.read(inbox)), 2)
            reading = asyncio.ensure_future(self.read(inbox))
            clients = self.server.client()
            while not any(each["cmd"] == "xread" for each in clients.client_list()):
                await asyncio.sleep(0)  # until it waits
            lose_data()
            # Twice, if the gateway's heartbeat finds it before what reads has registered again.
            self.assertEqual(dict(await reading), {"gateway.a!": {"reset": True}})
            self.assertEqual(self.layer.group_channels("room"), [])
            self.layer.group_add("room", "gateway.a!2")
            self.layer.send_group("room", {"number": 2})
            batch = []
            while len(batch) < 2:
                batch += await self.read(inbox)
            self.assertEqual(
                batch,
                [
                    ("gateway.a!2", {"group_add": "room"}),
                    ("gateway.a!", {"group": "room", "message": {"number": 2}}),
                ],
            )

        self.run_with_inbox(check)

    def restart(self):
        self.server.kill()
        self.server.start()

    def test_flushall(self):
        self.check_reset(lambda: self.server.client().flushall())

    def test_a_restart_with_nothing(self):
        self.check_reset(self.restart)

    def test_a_restart_with_old_data(self):
        def back_in_time():
            self.server.client().config_set("save", "")
            self.server.kill()
            self.server.start()

        self.server.kill()
        self.server.options["dbfilename"] = "dump.rdb"
        self.server.start()

        async def snapshot(inbox):
            self.layer.group_add("room", "gateway.a!0")
            self.server.client().save()

        # The snapshot holds the register as it was when the gateway began.
        async def check(inbox):
            await snapshot(inbox)
            await asyncio.get_event_loop().run_in_executor(
                None, lambda: wait_until(lambda: inbox._count > 3, "some beats")
            )
            self.assertEqual(await self.read(inbox), [("gateway.a!0", {"group_add": "room"})])
            back_in_time()
            batch = []
            while ("gateway.a!", {"reset": True}) not in batch:
                batch += await self.read(inbox)
            self.assertEqual(self.layer.group_channels("room"), [])

        self.run_with_inbox(check)

    def test_a_gateway_that_first_reads_after_a_restart_is_told(self):
        """It may have sent since it was opened, although the server still knows it."""

        async def check(inbox):
            self.assertTrue(inbox.leased)
            self.server.stop_with_data()
            self.server.start()
            self.assertEqual(dict(await self.read(inbox)), {"gateway.a!": {"reset": True}})

        self.run_with_inbox(check)

    def test_sends_of_a_gateway_fail_and_succeed_again(self):
        def receive():
            try:
                return self.layer.receive_many(["work.x"], block=True)[1]
            except self.layer.LayerUnavailable:
                return None  # the connection is one to the server that was killed

        async def check(inbox):
            loop = asyncio.get_event_loop()
            self.server.kill()
            failed = loop.create_future()
            inbox.send("work.x", {}, failed.set_result)
            self.assertIsInstance(await failed, self.layer.LayerUnavailable)
            self.server.start()
            inbox.send("work.x", {"number": 1}, failed.set_result)
            message = await loop.run_in_executor(None, wait_until, receive, "the message")
            self.assertEqual(message, {"number": 1})
            while True:
                batch = await self.read(inbox)
                if ("gateway.a!", {"reset": True}) in batch:
                    return

        self.run_with_inbox(check)

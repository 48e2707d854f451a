"""Messages that expire: each client is told once, they are counted, and idle workers are woken."""

import asyncio
import re
import threading
import time

from asgi_redis.consumers import to_entry
from asgi_redis.contract import RateLimit
from django.core.exceptions import ImproperlyConfigured

from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import TIMEOUT, wait_until

from .test_recovery import RecoveryCase, server_time, start_lease, wait_for_heartbeats
from .test_standalone import key

LOGGER = "django.channels.layers"


class ExpiryCase(RecoveryCase):
    def setUp(self):
        super().setUp()
        self.sender = self.make_layer(expiry=0.2, channel_expiry={"websocket.*": 0.2})

    def send(self, channel, number, **message):
        self.sender.send(
            channel, dict(reply_channel="gateway.x!%d" % number, event_id=number, **message)
        )

    def wait_for_expiry(self):
        end = server_time(self.layer) + 200
        wait_until(lambda: server_time(self.layer) > end, "what was sent to expire")

    def expired(self):
        return self.layer.statistics().get("expired", 0)

    def told(self, number):
        """The next so many messages of the gateway, sorted."""
        return sorted(self.receive("gateway.x!")["lost"] for _ in range(number))

    def nothing_is_left(self):
        # It is told first, and forgotten then.
        wait_until(lambda: not self.layer.global_statistics()["messages_held"], "it to be done")
        self.assertEqual(self.layer.receive_many(["gateway.x!"]), (None, None))
        self.assertEqual(self.layer.dead_letters(), [])


class ExpiredEventTests(ExpiryCase):
    def test_with_no_worker_at_all(self):
        others = [self.make_layer() for _ in range(3)]
        for layer in others:
            start_lease(layer)
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.watch()
            channels = ("http.request", "websocket.connect", "websocket.receive")
            for number, channel in enumerate(channels):
                self.send(channel, number)
            self.assertEqual(self.told(3), [0, 1, 2])
            layers = others + [self.layer]
            wait_until(lambda: sum(each.statistics().get("expired", 0) for each in layers) == 3)
            # Later heartbeats tell no client a second time.
            wait_for_heartbeats(layers, 4)
            # A line of the log waits until a second after the one before.
            wait_until(
                lambda: all(each in "".join(logs.output) for each in channels), "the log", TIMEOUT
            )
        self.nothing_is_left()
        self.assertEqual(self.layer.global_statistics()["messages_pending"], 0)
        # Other processes count, too, and share that with their heartbeats.
        wait_until(lambda: self.layer.global_statistics()["messages_expired"] == 3, "the count")
        text = "\n".join(logs.output)
        self.assertIn("websocket.connect (1)", text)
        self.assertIn("Start workers that consume these channels", text)

    def test_what_a_worker_finds(self):
        for number in range(3):
            self.send("http.request", number)
        self.wait_for_expiry()
        self.assertEqual(self.layer.claim("slot", ["http.request"]), (None, None))
        self.assertEqual(self.told(3), [0, 1, 2])
        wait_until(lambda: self.expired() == 3, "the count")
        self.nothing_is_left()

    def test_what_a_plain_reader_finds(self):
        self.send("http.request", 1)
        self.wait_for_expiry()
        self.assertEqual(self.layer.receive_many(["http.request"]), (None, None))
        self.watch()
        self.assertEqual(self.told(1), [1])
        self.nothing_is_left()

    def test_what_a_sender_finds_in_a_full_channel(self):
        sender = self.make_layer(capacity=2)
        self.send("http.request", 1)
        self.send("http.request", 2)
        self.wait_for_expiry()
        sender.send("http.request", {"number": 3})
        sender.send("http.request", {"number": 4})
        self.watch()
        self.assertEqual(self.told(2), [1, 2])
        self.assertEqual(self.receive("http.request"), {"number": 3})
        self.nothing_is_left()

    def test_only_what_expired_goes(self):
        self.send("http.request", 1)
        self.layer.send("http.request", {"number": 2})
        self.watch()
        self.assertEqual(self.told(1), [1])
        self.assertEqual(self.receive("http.request"), {"number": 2})
        self.nothing_is_left()

    def test_more_than_one_step_takes(self):
        sender = self.make_layer(expiry=0.2, capacity=1000)
        for number in range(450):
            sender.send("http.request", {"reply_channel": "gateway.x!1", "event_id": number})
        self.watch()
        self.assertEqual(self.told(450), list(range(450)))
        self.assertEqual(self.expired(), 450)
        self.nothing_is_left()

    def test_a_process_that_is_lost_before_it_tells(self):
        """Who reaps it tells in its place, and does not take it for a lost worker."""
        finder = self.layer_that_dies(lease=0.5)
        finder.store._carry_out = lambda held, decide: ([], 0)
        self.send("websocket.receive", 7)
        self.wait_for_expiry()
        finder.leases.step()
        self.assertNotIn("expired", finder.statistics())
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        self.die(finder)
        self.watch()
        self.assertEqual(self.told(1), [7])
        wait_until(lambda: self.expired() == 1, "the count")
        self.assertNotIn("lost_reported", self.layer.statistics())
        self.nothing_is_left()

    def test_what_has_nobody_to_be_told_is_counted(self):
        self.sender.send("websocket.disconnect", {"path": "/", "code": 1000})
        self.sender.send("http.request", {"path": "/sent/by/hand/"})
        self.watch()
        wait_until(lambda: self.expired() == 2, "the count")
        self.nothing_is_left()

    def test_an_event_that_cannot_be_read_is_a_dead_letter(self):
        stranger = self.make_layer(expiry=0.2, symmetric_encryption_keys=[key("another")])
        stranger.send("http.request", {"reply_channel": "gateway.x!1", "event_id": 1})
        self.watch()
        self.assertEqual(
            [each.reason for each in wait_until(self.layer.dead_letters, "it")], ["unreadable"]
        )


class PartitionedExpiredEventTests(ExpiredEventTests):
    config = dict(ExpiredEventTests.config, partitions=8)


class EncryptedExpiredEventTests(ExpiredEventTests):
    config = dict(ExpiredEventTests.config, symmetric_encryption_keys=[key("expiry")])


class ExpiredApplicationMessageTests(ExpiryCase):
    def test_it_is_counted_and_named_in_the_log(self):
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.watch()
            for number in range(3):
                self.sender.send("mail.nobody", {"number": number})
            wait_until(lambda: self.expired() == 3, "the count")
        self.assertIn("mail.nobody (", logs.output[0])
        self.nothing_is_left()
        tag = self.layer.store.keys.tag
        wait_until(
            lambda: not self.layer.store.servers.call(("EXISTS", tag + "queues", tag + "expired")),
            "nothing to be left to look at",
        )

    def test_one_that_is_put_back_is_looked_after_too(self):
        layer = self.make_layer(expiry=0.2, lost={"work.*": "retry"})
        layer.send("work.x", {})
        self.assertEqual(layer.claim("slot", ["work.x"]), ("work.x", {}))
        layer.store.servers.call(("DEL", layer.store.keys.queues))
        layer.requeue("slot")
        wait_until(lambda: layer.statistics().get("expired") == 1, "the count")

    def test_a_warning_a_second_at_most(self):
        start_lease(self.sender)
        with self.assertLogs(LOGGER, "WARNING") as logs:
            begin = time.monotonic()
            for _ in range(20):
                self.sender.send("mail.nobody", {})
                time.sleep(0.05)
            wait_until(lambda: self.sender.statistics().get("expired") == 20, "the count")
            wait_until(
                lambda: (
                    sum(int(re.search(r"\((\d+)\)", line)[1]) for line in self.lines(logs)) == 20
                ),
                "all of them to be named",
            )
            elapsed = time.monotonic() - begin
        self.assertLessEqual(len(self.lines(logs)), 1 + elapsed)

    def lines(self, logs):
        lines = [record.getMessage() for record in logs.records]
        return [line for line in lines if " expired " in line]


class SingleReaderExpiryTests(ExpiryCase):
    """What expired for a reader that alone could take it is neither reported nor kept."""

    config = dict(ExpiryCase.config, partitions=4)
    channels = ["test.body?%d" % number for number in range(8)]
    channels += ["test.window.%d!1" % number for number in range(8)]

    def check(self, meet):
        for channel in self.channels:
            self.sender.send(channel, {"number": 1})
        self.wait_for_expiry()
        for channel in self.channels:
            meet(channel)
        servers, keys = self.layer.store.servers, self.layer.store.keys
        kept = [tag + "expired" for tag in keys.tags]
        self.assertEqual([key for key in kept if servers.call(("EXISTS", key))], [])

    def test_what_its_reader_finds(self):
        self.check(lambda name: self.assertEqual(self.layer.receive_many([name]), (None, None)))

    def test_what_a_sender_finds_in_a_full_channel(self):
        sender = self.make_layer(capacity=1)
        self.check(lambda name: sender.send(name, {"number": 2}))


class GroupExpiryTests(RecoveryCase):
    def test_only_channels_that_one_process_reads_leave_their_groups(self):
        layer, other = self.make_layer(), self.make_layer(group_expiry=0.5)
        members = ["a.channel", "gateway.x!socket", "local!x", "reader?x"]

        def after_a_send(layer):
            layer.send_group("test", {})
            return sorted(layer.group_channels("test"))

        async def check():
            inbox = layer.open_inbox("gateway.x!")
            try:
                for channel in members:
                    layer.group_add("test", channel)
                self.assertEqual(after_a_send(layer), members)
                wait_until(lambda: after_a_send(other) == members[:2], "the others to leave")
            finally:
                await inbox.close()

        asyncio.run(check())


class StolenTokenTests(RecoveryCase):
    """A process that is killed or stopped while it waits may take the token meant for another."""

    def setUp(self):
        # Its own server: the test counts the waiting clients, and no other lease may be renewed meanwhile.
        self.server = RedisServer().start()
        self.addCleanup(self.server.stop)
        self.layer = self.make_layer(
            hosts=[self.server.url], heartbeat=3 * TIMEOUT, lease=9 * TIMEOUT
        )
        self.layer.block_for = 3 * TIMEOUT
        self.watch()
        wait_until(lambda: self.blocked() == 1, "the lease's thread to wait")

    def blocked(self):
        return self.server.client().info("clients")["blocked_clients"]

    def wait_behind_a_thief(self, function, channel):
        """Who waits first takes the next token for nothing. Returns what `function` got, in a list."""
        wake = self.layer.store.keys.queue(channel)[2]
        got = []
        for target in (
            lambda: self.layer.store.servers.call(("BLPOP", wake, 5)),
            lambda: got.append(function()),
        ):
            before = self.blocked()
            thread = threading.Thread(target=target)
            thread.start()
            self.addCleanup(thread.join)
            wait_until(lambda before=before: self.blocked() > before, "it to wait")
        self.layer.send(channel, {"number": 1})
        wait_until(lambda: not self.server.client().exists(wake), "the token to be taken")
        return got

    def check(self, channel, wake):
        got = self.wait_behind_a_thief(
            lambda: self.layer.claim("slot", [channel], block=True), channel
        )
        self.assertEqual(got, [])
        wake()
        wait_until(lambda: got, "the message")
        self.assertEqual(got, [(channel, {"number": 1})])

    def test_the_next_message_wakes_somebody(self):
        for channel in ("websocket.receive", "work.x"):
            with self.subTest(channel):
                self.check(channel, lambda c=channel: self.layer.send(c, {"number": 2}))

    def test_so_does_a_heartbeat_of_any_process(self):
        other = self.make_layer(hosts=[self.server.url])
        for channel in ("websocket.receive", "work.x"):
            with self.subTest(channel):
                self.check(channel, other.leases.step)

    def test_messages_that_arrive_together_wake_a_worker_each(self):
        got = []

        def claim(consumer):
            got.append(self.layer.claim(consumer, ["work.x"], block=True)[1])

        for consumer in ("first", "second"):
            before = self.blocked()
            thread = threading.Thread(target=claim, args=(consumer,))
            thread.start()
            self.addCleanup(thread.join)
            wait_until(lambda before=before: self.blocked() > before, "it to wait")

        async def send_together():
            inbox = self.layer.open_inbox("test.gateway!")
            for number in (1, 2):
                inbox.send("work.x", {"number": number}, self.fail)
            await asyncio.get_event_loop().run_in_executor(
                None, wait_until, lambda: len(got) == 2, "both messages"
            )
            await inbox.close()

        asyncio.run(send_together())
        self.assertEqual(sorted(each["number"] for each in got), [1, 2])

    def test_a_plain_reader_looks_around(self):
        got = self.wait_behind_a_thief(
            lambda: self.layer.receive_many(["work.x"], block=True), "work.x"
        )
        wait_until(lambda: got, "the message")
        self.assertEqual(got, [("work.x", {"number": 1})])


class DeadLetterLimitTests(RecoveryCase):
    def setUp(self):
        super().setUp()
        self.layer = self.make_layer(dead_letters=3)

    def dead_letter(self, number):
        """A dead letter that holds `number`."""
        self.layer.send("work.x", {"number": number})
        self.layer.claim("slot", ["work.x"])
        entry = to_entry(*self.layer.store.consumer("slot").current)
        self.layer.recovery.dropped(self.layer.store.dead_letter("slot", entry, "lost"))
        self.layer.acknowledge("slot")

    def numbers(self):
        return [each.message["number"] for each in self.layer.dead_letters()]

    def test_the_newest_are_kept_and_the_rest_is_counted_and_logged(self):
        for number in range(3):
            self.dead_letter(number)
        self.assertNotIn("dead_letters_dropped", self.layer.statistics())
        with self.assertLogs(LOGGER, "ERROR") as logs:
            for number in range(3, 8):
                self.dead_letter(number)
            self.assertEqual(self.numbers(), [5, 6, 7])
            self.assertEqual(self.layer.statistics()["dead_letters_dropped"], 5)
            self.layer.notices._dropped_limit = RateLimit()  # as if a second had passed
            self.layer.leases.step()
        messages = [record.getMessage() for record in logs.records]
        self.assertIn("1 dead letters were dropped: no more than 3 are kept", messages[0])
        # The four that came within the same second are in one line, unless this machine is slow.
        self.assertEqual(sum(int(each.split()[0]) for each in messages), 5)
        self.assertEqual(self.layer.global_statistics()["dead_letters"], 3)
        self.assertEqual(self.layer.global_statistics()["counters"].get("dead_letters_dropped"), 5)

    def test_those_that_cannot_be_read_count_too(self):
        stranger = self.make_layer(symmetric_encryption_keys=[key("another")])
        for number in range(5):
            stranger.send("work.x", {"number": number})
        self.assertEqual(self.layer.receive_many(["work.x"]), (None, None))
        letters = stranger.dead_letters()
        self.assertEqual([each.message["number"] for each in letters], [2, 3, 4])
        self.assertEqual(self.layer.statistics()["dead_letters_dropped"], 2)

    def test_none_may_be_kept(self):
        self.layer = self.make_layer(dead_letters=0)
        self.dead_letter(1)
        self.assertEqual(self.layer.dead_letters(), [])
        self.assertEqual(self.layer.statistics()["dead_letters_dropped"], 1)

    def test_a_wrong_number(self):
        for wrong in (-1, "many", None, 2.5):
            with self.subTest(wrong), self.assertRaisesRegex(
                ImproperlyConfigured, "how many are kept"
            ):
                self.make_layer(dead_letters=wrong)

"""What cannot be read harms no other: it becomes a dead letter, or is logged and skipped."""

import asyncio
import time
import unittest

from channels_tests.support.waiting import TIMEOUT

from .test_standalone import RedisLayerCase

#: Heads and bodies that no script of ours writes.
DAMAGED = (
    b"",
    b"x",
    b"99999999999999",
    b"99999999999999no-newline",
    b"00000000000010no-newline",  # expired
    b"99999999999999work.x\n\xc1payload",
    b"          inf0work.x\n\x80",
    b"          nan0work.x\n\x80",
    b"0x123456789ab0work.x\n\x80",
    b"\xff\xfe\x00work.x\n\x80",
)


class DamageTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "damage:", "heartbeat": 0.05, "lease": 60}

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        self.keys, self.call = self.layer.store.keys, self.layer.store.servers.call

    def step(self):
        """Recover and expire as the lease thread does; nothing may fail, and nothing may be left to do."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            self.layer.leases.step()
            beat = self.layer.store.heartbeat([])
            if not beat.lost and not beat.expired:
                return
            self.assertLess(time.monotonic(), deadline, "it never ends")

    def die(self, process):
        """Let the lease of a process run out."""
        self.call(("ZADD", self.keys.leases, 1, "w:" + process))

    def letters(self):
        return len(self.layer.dead_letters())

    def test_a_damaged_entry_of_a_queue(self):
        for raw in DAMAGED:
            for channel in ("work.x", "http.request"):
                with self.subTest(raw=raw, channel=channel):
                    self.layer.flush()
                    queue = self.keys.queue(channel).queue
                    self.call(("RPUSH", queue, raw))
                    self.call(("SADD", self.keys.queues, queue))
                    self.layer.send(channel, {"good": 1})
                    self.assertEqual(self.layer.claim("consumer", [channel])[1], {"good": 1})
                    self.layer.acknowledge("consumer")
                    self.step()
                    self.assertEqual(self.letters(), 1)
                    readable = raw.startswith(b"99999999999999work.x\n")
                    self.assertEqual(self.layer.requeue_dead_letters(), int(readable))

    def test_a_damaged_entry_of_a_queue_that_nobody_reads(self):
        for raw in DAMAGED:
            with self.subTest(raw=raw):
                self.layer.flush()
                queue = self.keys.queue("work.x").queue
                self.call(("RPUSH", queue, raw))
                self.call(("SADD", self.keys.queues, queue))
                self.step()
                left = self.call(("LLEN", queue))
                self.assertEqual(self.letters() + left, 1)

    def test_a_queue_of_another_type_stops_no_other_channel(self):
        damage = (("SET", "x"), ("HSET", "x", "x"), ("ZADD", 1, "x"), ("SADD", "x"))
        damage += (("XADD", "*", "x", "x"),)
        for command, *arguments in damage:
            with self.subTest(command=command):
                self.layer.flush()
                self.call((command, self.keys.queue("work.x").queue, *arguments))
                for number in (1, 2, 3):
                    self.layer.send("work.y", {"n": number})
                found = [self.layer.claim("consumer", ["work.x", "work.y"])[1] for _ in range(4)]
                self.assertEqual(found, [{"n": 1}, {"n": 2}, {"n": 3}, None])
                with self.assertRaises(self.layer.LayerUnavailable):
                    self.layer.send("work.x", {"n": 4})
                self.call(("DEL", self.keys.queue("work.x").queue))
                self.layer.send("work.x", {"n": 5})
                self.assertEqual(self.layer.claim("consumer", ["work.x"])[1], {"n": 5})

    def test_what_a_dead_worker_held(self):
        for raw in DAMAGED:
            for field in (b"consumer:1:0", b"\xff\xfe", b"", b"expired:x"):
                with self.subTest(raw=raw, field=field):
                    self.layer.flush()
                    held = self.keys.held("dead")
                    self.layer.send("work.x", {"good": 1})
                    entry = self.call(("LPOP", self.keys.queue("work.x").queue))
                    self.call(("HSET", held, field, raw, "consumer:2:0", entry))
                    self.die("dead")
                    self.step()
                    self.assertEqual(self.letters(), 2)  # the good one by the redelivery policy

    def test_what_a_process_had_taken_over(self):
        for field in (b"garbage", b"\xff", b"lost:x", b"expired:x"):
            with self.subTest(field=field):
                self.layer.flush()
                self.call(("HSET", self.keys.taken("dead"), field, b"damaged"))
                self.call(("ZADD", self.keys.leases, 1, "t:dead"))
                self.step()
                self.assertEqual(self.letters(), 1)

    def test_damaged_leases_and_gateways(self):
        for name in (b"", b"x", b"w:\xff", b"g:\xff\xfe", b"g:", b"t:\xff", b"g:gateway.a!"):
            with self.subTest(name=name):
                self.layer.flush()
                self.call(("HSET", self.keys.held("dead"), "consumer:1:0", b"damaged"))
                self.call(("ZADD", self.keys.leases, 1, name, 2, "w:dead"))
                self.step()
                self.assertEqual(self.letters(), 1)

    def test_a_damaged_will(self):
        good = b"60000:work.x\n" + self.layer.store.codec.pack({"good": 1})
        for will in (
            b"", b"work.x", b"60000:", b"60000:\n", b"60000:\xff\n\x80", b"9" * 400 + b":work.x\n\x80",
            b"-1:work.x\n\x80", b"60000:two words\n\x80",
        ):  # fmt: skip
            with self.subTest(will=will):
                self.layer.flush()
                for gateway in ("gateway.a!|1", "gateway.b!|2"):
                    self.call(("SADD", self.keys.gone, gateway))
                    self.call(("HSET", self.keys.wills(gateway), "one", will, "two", good))
                self.step()
                self.assertEqual(self.letters(), 2)
                for _ in range(2):
                    self.assertEqual(self.layer.receive_many(["work.x"])[1], {"good": 1})

    def test_a_damaged_delayed_message(self):
        for member in (
            b"",
            b"x",
            b"0123456789abcdef",
            b"0123456789abcdeftwo words\n\x80",
            b"\xff" * 40,
        ):
            with self.subTest(member=member):
                self.layer.flush()
                self.call(("ZADD", self.keys.delay, 0, member))
                self.layer.store.delay("work.x", self.layer.store.encode("work.x", {"good": 1}), 0)
                self.layer.leases.send_due()
                self.assertEqual(self.layer.receive_many(["work.x"])[1], {"good": 1})
                self.assertEqual(self.letters(), 1)
                self.assertEqual(self.call(("ZCARD", self.keys.delay)), 0)

    def test_damaged_group_records(self):
        async def check():
            inbox = self.layer.open_inbox("gateway.a!")
            try:
                self.layer.group_add("room", "gateway.a!1")
                keys = self.keys.group("room")
                self.call(("HSET", keys.routes, b"\xff", b"garbage", "gateway.b!", "", "x", "7:1"))
                self.call(("ZADD", keys.others, time.time(), b"\xff\xfe", time.time(), b""))
                self.call(("SADD", self.keys.members("gateway.a!", "room"), b"\xff"))
                self.layer.send_group("room", {"good": 1})
                self.assertIn("gateway.a!1", self.layer.group_channels("room"))
                found = []
                while len(found) < 2:
                    found += await asyncio.wait_for(inbox.receive(), TIMEOUT)
                return found[1][1]["message"]
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(check()), {"good": 1})

    def test_a_damaged_inbox_and_register(self):
        async def check():
            inbox = self.layer.open_inbox("gateway.a!")
            try:
                stream = self.keys.inbox("gateway.a!").stream
                self.call(("XADD", stream, "*", "other", "field"))
                self.call(("XADD", stream, "*", "e", b"\xff\xff"))
                self.call(("HSET", self.keys.inbox("gateway.a!").register, "count", "garbage"))
                self.layer.send("gateway.a!1", {"good": 1})
                self.layer.leases.step()
                self.layer.send("gateway.a!1", {"good": 2})
                found = []
                while ("gateway.a!1", {"good": 2}) not in found:
                    found += await asyncio.wait_for(inbox.receive(), TIMEOUT)
                while self.letters() < 2:
                    await asyncio.sleep(0.01)
                return found
            finally:
                await inbox.close()

        found = asyncio.run(check())
        self.assertIn(("gateway.a!1", {"good": 1}), found)
        self.assertIn(("gateway.a!", {"reset": True}), found)  # what was lost is not known

    def test_damaged_counters_sets_and_letters(self):
        self.call(("HSET", self.keys.counters, "sent", "garbage", b"\xff", "x"))
        self.layer.count("sent", 3)
        self.layer.share_counters()
        self.assertEqual(self.layer.global_statistics()["messages_count"], 3)
        other = self.keys.tag + "q:not-a-queue"
        self.call(("SET", other, "x"))
        self.call(("SADD", self.keys.queues, other, b"\xff"))
        self.step()
        self.assertEqual(self.call(("SCARD", self.keys.queues)), 0)
        self.call(("XADD", self.keys.dead, "*", "other", "field"))
        self.call(("XADD", self.keys.dead, "*", "r", b"\xff", "e", b"\xff"))
        self.assertEqual(self.letters(), 2)
        self.assertEqual(self.layer.requeue_dead_letters(), 0)
        self.assertEqual(self.layer.drop_dead_letters(), 2)

"""Encryption: keys, their rotation, and what is bound to a message."""

import asyncio
import logging
import os
import secrets
import time
import unittest
from unittest import mock

from asgi_redis.calls import MAX_WAITS
from asgi_redis.contract import Outgoing, Unreadable
from django.core.exceptions import ImproperlyConfigured

from asgi_redis import RedisChannelLayer
from channels_tests.support.waiting import TIMEOUT, wait_until

from .test_standalone import RedisLayerCase, key


class EncryptionTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "encryption:"}

    def setUp(self):
        self.layer = self.make_layer(symmetric_encryption_keys=[key("old")])
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        logger = logging.getLogger("django.channels.layers")
        logger.disabled = True
        self.addCleanup(setattr, logger, "disabled", False)

    def send_body(self, channel, body):
        self.layer.store.send([Outgoing(channel, body)])

    def test_nothing_readable_leaves_the_process(self):
        self.layer.send("test.x", {"text": "attack at dawn"})
        dump = b"".join(
            self.layer.store.servers.call(("LINDEX", key, 0))
            for key in self.layer.store.servers.scan("*encryption:*}q:*")
        )
        self.assertGreater(len(dump), 0)
        self.assertNotIn(b"dawn", dump)
        self.assertNotIn(b"text", dump)

    def test_two_messages_never_look_alike(self):
        layers = [self.layer, self.make_layer(symmetric_encryption_keys=[key("old")])]
        payloads = {layer.store.encode("test.x", {"a": 1}) for layer in layers for _ in range(100)}
        self.assertEqual(len(payloads), 200)

    def test_keys_rotate_without_losing_a_message(self):
        first, second = key("first"), key("second")
        # Step by step, as a site deploys: first every process can read the new key, then it is used.
        old, both, new_first, new = (
            self.make_layer(symmetric_encryption_keys=keys)
            for keys in ([first], [first, second], [second, first], [second])
        )
        for sender, reader in (
            (old, both),
            (both, old),
            (both, new_first),
            (new_first, both),
            (new_first, new),
            (new, new_first),
        ):
            sender.send("test.x", {"a": 1})
            self.assertEqual(reader.receive_many(["test.x"]), ("test.x", {"a": 1}))
        self.assertEqual(new.dead_letters(), [])

    def test_what_cannot_be_read_is_a_dead_letter_and_stops_nobody(self):
        strangers = [
            self.make_layer(symmetric_encryption_keys=[key("stranger")]),
            self.make_layer(),
        ]
        for stranger in strangers:
            stranger.send("test.x", {"bad": 1})
        self.layer.send("test.x", {"good": 1})
        self.assertEqual(self.layer.receive_many(["test.x"]), ("test.x", {"good": 1}))
        for stranger in strangers:
            stranger.send("test.x", {"bad": 2})
        self.layer.send("test.x", {"good": 2})
        self.assertEqual(self.layer.claim("slot", ["test.x"]), ("test.x", {"good": 2}))
        letters = self.layer.dead_letters()
        self.assertEqual(
            [(each.channel, each.message, each.reason) for each in letters],
            [("test.x", None, "unreadable")] * 4,
        )
        # Who has the key can have it again.
        self.assertEqual(strangers[0].dead_letters()[0].message, {"bad": 1})
        self.assertEqual(strangers[0].requeue_dead_letters([letters[0].id]), 1)
        self.assertEqual(strangers[0].receive_many(["test.x"]), ("test.x", {"bad": 1}))

    def test_an_inbox_goes_on_after_what_it_cannot_read(self):
        async def run():
            inbox = self.layer.open_inbox("gateway.x!")
            self.make_layer().send("gateway.x!1", {"bad": 1})
            self.layer.send("gateway.x!1", {"good": 1})
            try:
                return await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                while inbox._extra or inbox._writing is not None:
                    await asyncio.sleep(0.01)
                await inbox.close()

        self.assertEqual(asyncio.run(run()), [("gateway.x!1", {"good": 1})])
        self.assertEqual([each.channel for each in self.layer.dead_letters()], ["gateway.x!1"])

    def test_a_message_belongs_to_its_channel(self):
        """A writer without the key cannot move a message from one channel to another."""
        body = self.layer.store.encode("test.x", {"amount": 1})
        self.send_body("test.y", body.replace(b"test.x", b"test.y"))
        self.assertEqual(self.layer.receive_many(["test.y"]), (None, None))
        self.assertEqual(self.layer.dead_letters()[0].reason, "unreadable")

    def test_a_changed_message_is_not_read(self):
        body = self.layer.store.encode("test.x", {"amount": 1})
        self.send_body("test.x", body[:-1] + bytes([body[-1] ^ 1]))
        self.assertEqual(self.layer.receive_many(["test.x"]), (None, None))
        self.assertEqual(len(self.layer.dead_letters()), 1)

    def test_a_weak_key_is_refused_with_the_way_to_a_better_one(self):
        for keys in (["k"], [key("good"), "short"], list("a secret key of letters"), ["a" * 50]):
            with self.subTest(keys):
                with self.assertRaisesRegex(
                    ImproperlyConfigured, "too weak.*token_urlsafe"
                ) as caught:
                    RedisChannelLayer(prefix="x:", symmetric_encryption_keys=keys)
                self.assertNotIn("short", str(caught.exception))
        RedisChannelLayer(prefix="x:", symmetric_encryption_keys=[secrets.token_urlsafe(32)])
        RedisChannelLayer(prefix="x:", symmetric_encryption_keys=[os.urandom(32)])

    def test_what_is_no_list_of_keys_is_refused(self):
        """Also what is false: an environment variable that isn't set must not turn encryption off."""
        good = key("good")
        wrong = [
            "",
            b"",
            good,
            good.encode(),
            0,
            1,
            1.5,
            True,
            {},
            {good: 1},
            object(),
            iter([good]),
        ]
        wrong += [[""], [b""], [None], [1], [[good]], [bytearray(good.encode())], [good, ""]]
        for keys in wrong:
            with self.subTest(keys), self.assertRaisesRegex(ImproperlyConfigured, "list of text"):
                RedisChannelLayer(prefix="x:", symmetric_encryption_keys=keys)
        for keys in (None, False, [], (), set()):
            with self.subTest(keys):
                layer = RedisChannelLayer(prefix="x:", symmetric_encryption_keys=keys)
                self.assertFalse(layer.store.codec.seals)
        for keys in ([good], (good,), {good}, [good.encode()], [good, good], ["\ud800" + good]):
            with self.subTest(keys):
                layer = RedisChannelLayer(prefix="x:", symmetric_encryption_keys=keys)
                self.assertTrue(layer.store.codec.seals)


class SealTests(RedisLayerCase, unittest.TestCase):
    """What encryption protects, and what somebody with access to Redis can do all the same."""

    config = {"prefix": "seals:", "symmetric_encryption_keys": [key("seals")]}

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        logger = logging.getLogger("django.channels.layers")
        logger.disabled = True
        self.addCleanup(setattr, logger, "disabled", False)

    def later(self, seconds):
        now = time.time
        return mock.patch("asgi_redis.codec.time.time", lambda: now() + seconds)

    def receive_due(self, channel):
        """Return what comes on a channel, although another thread of the layer may be sending it."""
        found = []

        def is_there():
            self.layer.store.send_due()
            found[:] = self.layer.receive_many([channel])
            return found[0] is not None or self.layer.store.count_dead_letters()

        wait_until(is_there, "a message that is due")
        return tuple(found)

    def test_every_part_of_a_message_is_bound(self):
        store = self.layer.store
        body = store.encode("test.x", {"a": 1})
        self.assertEqual(store.decode("test.x", body), {"a": 1})
        for index in range(len(body)):
            changed = bytearray(body)
            changed[index] ^= 1
            with self.subTest(index), self.assertRaises(Unreadable):
                store.decode("test.x", bytes(changed))
        moved = b"test.y" + body[len("test.x") :]
        with self.assertRaises(Unreadable):
            store.decode("test.y", moved)

    def test_an_entry_that_is_put_back_after_its_time_is_refused(self):
        queue = self.layer.store.keys.queue("test.x").queue
        call = self.layer.store.servers.call
        self.layer.send("test.x", {"a": 1})
        copy = call(("LINDEX", queue, 0))
        self.assertEqual(self.layer.receive_many(["test.x"])[1], {"a": 1})
        copy = b"9" * 13 + copy[13:]  # its head says that it has not expired
        call(("RPUSH", queue, copy))
        with self.later(self.layer.expiry * MAX_WAITS + 1):
            self.assertEqual(self.layer.receive_many(["test.x"]), (None, None))
            letter = self.layer.dead_letters()[0]
            self.assertEqual((letter.reason, letter.message), ("unreadable", {"a": 1}))

    def test_a_message_is_readable_as_long_as_it_may_wait(self):
        self.layer.send("test.x", {"a": 1})
        with self.later(self.layer.expiry * MAX_WAITS - 1):
            self.assertEqual(self.layer.receive_many(["test.x"])[1], {"a": 1})

    def test_delayed_messages_and_wills_are_readable_when_they_are_due(self):
        year = 366 * 86400
        self.layer.send_later("test.x", {"a": 1}, year)
        call, keys = self.layer.store.servers.call, self.layer.store.keys
        for member in call(("ZRANGE", keys.delay, 0, -1)):
            call(("ZADD", keys.delay, 0, member))
        with self.later(year):
            self.assertEqual(self.receive_due("test.x")[1], {"a": 1})

        async def leave_a_will():
            inbox = self.layer.open_inbox("gateway.a!")
            inbox.set_will("gateway.a!1", ("test.x", {"will": 1}))
            await inbox.close()

        asyncio.run(leave_a_will())
        with self.later(year):
            self.assertEqual(self.layer.receive_many(["test.x"])[1], {"will": 1})

    def test_a_dead_letter_can_be_read_and_requeued_at_any_time(self):
        self.layer.claim("consumer", ["test.x"])
        self.layer.send("test.x", {"a": 1})
        entry = self.layer.store.claim("consumer", self.layer.leases.process, ["test.x"])
        self.layer.store.dead_letter("consumer", entry, "lost")
        with self.later(366 * 86400):
            self.assertEqual(self.layer.dead_letters()[0].message, {"a": 1})
            self.assertEqual(self.layer.requeue_dead_letters(), 1)
            self.assertEqual(self.layer.receive_many(["test.x"])[1], {"a": 1})
        self.assertEqual(self.layer.dead_letters(), [])

    def test_a_record_that_is_put_back_into_an_inbox_is_refused(self):
        """A membership that has ended, a reply, and a message to a group."""
        channel = "gateway.a!1"

        async def check():
            call, stream = (
                self.layer.store.servers.call,
                self.layer.store.keys.inbox("gateway.a!").stream,
            )
            inbox = self.layer.open_inbox("gateway.a!")
            found, copies = [], []

            async def read(number):
                while len(found) < number:
                    found.extend(await asyncio.wait_for(inbox.receive(), TIMEOUT))

            # Records are copied before the inbox, which reads in this loop, removes them.
            def send():
                self.layer.group_add("room", channel)
                self.layer.send_group("room", {"n": 1})
                self.layer.send(channel, {"n": 2})
                self.layer.group_discard("room", channel)
                copies.extend(call(("XRANGE", stream, "-", "+")))

            try:
                send()
                await read(4)
                for _, fields in copies:
                    call(("XADD", stream, "*") + tuple(fields))
                self.layer.send(channel, {"last": True})
                await read(5)
            finally:
                await inbox.close()
            return len(copies), found

        copies, found = asyncio.run(check())
        self.assertEqual((copies, len(found)), (4, 5))
        self.assertEqual(found[-1], (channel, {"last": True}))
        self.assertEqual(self.layer.statistics()["replayed"], 4)

    def test_the_memory_of_records_is_bounded(self):
        async def check():
            inbox = self.layer.open_inbox("gateway.a!")
            try:
                for _ in range(10):
                    self.assertTrue(inbox._is_first({}, self.layer.store.encode("a!", {})))
                return [len(each) for each in inbox._seen]
            finally:
                await inbox.close()

        with mock.patch("asgi_redis.inbox.REMEMBERED", 4):
            self.assertEqual(asyncio.run(check()), [4, 0])

    def test_a_message_belongs_to_the_prefix_of_its_layer(self):
        """Two sites, or two copies of one, may share a key and a Redis."""
        other = self.make_layer(prefix="other-seals:")
        self.addCleanup(other.flush)
        call = self.layer.store.servers.call
        self.layer.send("test.x", {"a": 1})
        entry = call(("LPOP", self.layer.store.keys.queue("test.x").queue))
        call(("RPUSH", other.store.keys.queue("test.x").queue, entry))
        self.assertEqual(other.receive_many(["test.x"]), (None, None))
        self.assertEqual([each.reason for each in other.dead_letters()], ["unreadable"])
        self.layer.group_add("room", "work.a")
        (member,) = call(("ZRANGE", self.layer.store.keys.group("room").others, 0, -1))
        call(("ZADD", other.store.keys.group("room").others, int(time.time()), member))
        self.assertEqual(self.layer.group_channels("room"), ["work.a"])
        self.assertEqual(other.group_channels("room"), [])

    def test_a_group_sends_to_no_member_that_the_layer_did_not_add(self):
        """Otherwise a writer without the key could read with any socket it opens."""
        call, others = self.layer.store.servers.call, self.layer.store.keys.group("room").others
        self.layer.group_add("room", "work.a")
        self.layer.group_add("hall", "work.b")
        (of_a,) = call(("ZRANGE", others, 0, -1))
        (of_b,) = call(("ZRANGE", self.layer.store.keys.group("hall").others, 0, -1))
        mac = of_a.partition(b"\n")[2]
        forged = [
            b"work.b",
            b"work.b\n" + mac,
            of_b,
            of_b[:-1],
            b"gateway.x!7",
            b"",
            b"\n",
            b"\xff",
        ]
        forged += [of_a + b"0", of_a[:-1], of_a.upper(), of_a + b"\n" + mac]
        for member in forged:
            call(("ZADD", others, int(time.time()), member))
        self.layer.send_group("room", {"secret": 1})
        self.assertEqual(self.layer.receive_many(["work.a"]), ("work.a", {"secret": 1}))
        self.assertEqual(self.layer.receive_many(["work.a", "work.b"]), (None, None))
        self.assertEqual(self.layer.receive_many(["gateway.x!"]), (None, None))
        self.assertEqual(self.layer.group_channels("room"), ["work.a"])
        self.assertEqual(self.layer.statistics()["unreadable_members"], 2 * len(forged))

    def test_members_stay_while_keys_rotate(self):
        first, second = key("first"), key("second")
        old, both, new_first, new = (
            self.make_layer(symmetric_encryption_keys=keys)
            for keys in ([first], [first, second], [second, first], [second])
        )
        for layer in (old, both, new_first):
            layer.group_add("room", "work.a")
        for layer in (both, new_first, new):
            layer.send_group("room", {"n": 1})
            self.assertEqual(layer.receive_many(["work.a"]), ("work.a", {"n": 1}))
            self.assertEqual(layer.receive_many(["work.a"]), (None, None))
            self.assertEqual(layer.group_channels("room"), ["work.a"])
        new_first.group_discard("room", "work.a")
        for layer in (old, both, new):
            self.assertEqual(layer.group_channels("room"), [])

    def test_members_of_an_encrypted_layer_are_not_those_of_a_plain_one(self):
        plain = self.make_layer(symmetric_encryption_keys=None)
        plain.group_add("room", "work.a")
        self.layer.group_add("room", "work.b")
        self.assertEqual(plain.group_channels("room"), ["work.a"])
        self.assertEqual(self.layer.group_channels("room"), ["work.b"])

    def test_what_is_moved_or_sent_early_is_what_it_was(self):
        """The documentation says that this isn't refused. The channel and the content stay."""
        call, keys = self.layer.store.servers.call, self.layer.store.keys
        self.layer.send("test.x", {"a": 1})
        entry = call(("LPOP", keys.queue("test.x").queue))
        call(("RPUSH", keys.queue("test.y").queue, entry))
        self.assertEqual(self.layer.receive_many(["test.y"]), ("test.x", {"a": 1}))
        entry = b"9" * 14 + entry[14:]  # it expires never, and nine workers were lost with it
        call(("RPUSH", keys.queue("test.x").queue, entry))
        self.assertEqual(
            self.layer.receive_many(["test.x"]), ("test.x", {"a": 1, "redelivered": True})
        )
        self.layer.send_later("test.x", {"b": 1}, 3600)
        (member,) = call(("ZRANGE", keys.delay, 0, -1))
        for _ in range(2):
            call(("ZADD", keys.delay, 0, b"%016x" % time.monotonic_ns() + member[16:]))
            self.assertEqual(self.receive_due("test.x"), ("test.x", {"b": 1}))
        call(("ZADD", keys.delay, 0, member.replace(b"test.x", b"test.y")))
        self.assertEqual(self.receive_due("test.y"), (None, None))
        self.assertEqual([each.reason for each in self.layer.dead_letters()], ["unreadable"])


class SealPartitionsTests(SealTests):
    """The same with keys in many partitions, as on a cluster."""

    config = {**SealTests.config, "prefix": "parted-seals:", "partitions": 8}

"""A gateway's end of a layer on the engine: pending work, and the inbox of two threads."""

import asyncio
import functools
import threading
import time
import unittest
from unittest import mock

from django.channels.exceptions import ChannelFull, LayerUnavailable, MessageTooLarge, NotSent
from django.channels.layers import base
from django.channels.layers.engine import inbox as engine_inbox
from django.channels.layers.engine import pending
from django.channels.layers.engine.pending import PendingWork, Send
from django.channels.layers.engine.store import Entry, Heartbeat, Outgoing, Will

from .fake_store import FakeLayer
from .support.waiting import TIMEOUT, wait_until

LOGGER = "django.channels.layers"


def entries(*messages, first=1):
    """Return an Entry for each (channel, body), numbered from `first`."""
    return [Entry(number, *message) for number, message in enumerate(messages, first)]


def send(number, body=b"", failed=None):
    return Send("work", body or number, False, failed)


class PendingWorkTests(unittest.TestCase):
    def setUp(self):
        self.work = PendingWork()

    def fill(self, count):
        for number in range(1, count + 1):
            self.work.send(send(number))

    def test_sends_leave_in_order_and_no_more_than_the_limit_at_once(self):
        self.fill(5)
        found = [[each.body for each in self.work.take(2).sends] for _ in range(4)]
        self.assertEqual(found, [[1, 2], [3, 4], [5], []])
        self.assertFalse(self.work)

    def test_a_batch_ends_with_the_message_that_passes_its_size(self):
        for _ in range(4):
            self.work.send(send(0, b"x" * 60))
        self.assertEqual([len(self.work.take(10, 100).sends) for _ in range(3)], [2, 2, 0])

    def test_a_body_of_the_greatest_size_is_encoded_and_a_longer_one_refused(self):
        store = FakeLayer().store
        frame = len(store.encode("work", {"text": ""}))
        message = {"text": "x" * (pending.MAX_BODY - frame)}
        self.assertEqual(len(pending.encode(store, "work", message)), pending.MAX_BODY)
        message["text"] += "x"
        with self.assertRaises(MessageTooLarge):
            pending.encode(store, "work", message)

    def test_only_the_last_will_of_a_connection_counts(self):
        self.work.set_will("a", 1)
        self.work.set_will("b", 2)
        self.work.set_will("a", 3)
        self.assertEqual(self.work.take(9).wills, {"a": 3, "b": 2})
        self.assertFalse(self.work)

    def test_a_will_that_the_store_has_not_heard_of_is_cleared_here(self):
        self.work.set_will("a", 1)
        self.work.clear_will("a")
        self.work.clear_will("b")
        self.assertFalse(self.work)

    def test_a_will_that_the_store_has_is_cleared_there_once(self):
        self.work.set_will("a", 1)
        self.work.done(self.work.take(9))
        self.work.clear_will("a")
        batch = self.work.take(9)
        self.assertEqual((batch.wills, batch.cleared), ({}, ["a"]))
        self.work.done(batch)
        self.work.clear_will("a")
        self.assertFalse(self.work)

    def test_a_will_is_not_cleared_ahead_of_the_messages_before_it(self):
        self.work.set_will("a", 1)
        self.work.done(self.work.take(9))
        self.fill(3)
        self.work.clear_will("a")
        self.assertEqual([self.work.take(2).cleared for _ in range(3)], [[], ["a"], []])

    def test_a_failed_batch_is_put_back_without_its_messages(self):
        self.fill(1)
        self.work.set_will("a", 1)
        self.work.set_will("b", 1)
        self.work.discard("room", "a")
        self.work.put_back(self.work.take(9))
        self.work.set_will("b", 2)
        self.work.discard("room", "b")
        batch = self.work.take(9)
        self.assertEqual(batch.wills, {"a": 1, "b": 2})
        self.assertEqual(batch.discards, [("room", "a"), ("room", "b")])
        self.assertEqual(batch.sends, [])

    def test_what_the_loop_wanted_meanwhile_overrides_what_is_put_back(self):
        self.work.set_will("a", 1)
        self.work.set_will("b", 1)
        batch = self.work.take(9)
        self.work.set_will("a", 2)
        self.work.clear_will("b")  # the store may have it
        self.work.put_back(batch)
        batch = self.work.take(9)
        self.assertEqual((batch.wills, batch.cleared), ({"a": 2}, ["b"]))

    def test_a_clearing_that_failed_is_tried_again(self):
        self.work.set_will("a", 1)
        self.work.done(self.work.take(9))
        self.work.clear_will("a")
        self.work.put_back(self.work.take(9))
        self.assertEqual(self.work.take(9).cleared, ["a"])


def in_loop(test):
    """Run a coroutine test in an event loop, and close its inbox in the same one."""

    @functools.wraps(test)
    def run(self):
        async def main():
            try:
                await test(self)
            finally:
                if self.inbox is not None and not self.inbox._closed:
                    await self.inbox.close()

        asyncio.run(main())

    return run


class ThreadedInboxTests(unittest.TestCase):
    def setUp(self):
        self.layer = FakeLayer()
        self.store = self.layer.store
        self.inbox = None
        self.failures = []

    def open(self):
        self.inbox = self.layer.open_inbox("gateway.a!")
        return self.inbox

    async def until(self, condition):
        async def wait():
            while not condition():
                await asyncio.sleep(0.002)

        await asyncio.wait_for(wait(), TIMEOUT)

    def batches(self):
        """(wills, cleared, discards, sends) of each batch that the store got."""
        return [call[1:] for call in self.store.named("gateway_batch")]

    def sent(self):
        return [item.body for batch in self.batches() for item in batch[3]]

    # What comes in.

    def read_only_when_asked(self):
        patch = mock.patch.object(engine_inbox, "READ_INTERVAL", 10 * TIMEOUT)
        patch.start()
        self.addCleanup(patch.stop)

    @in_loop
    async def test_a_store_is_read_without_a_notification_before_a_silence_is_long(self):
        # A silent server is noticed by a statement. What waits for an answer must learn it in a few seconds.
        self.layer.block_for = 10 * TIMEOUT
        self.open()
        await self.until(lambda: len(self.store.named("receive_inbox")) >= 2)

    @in_loop
    async def test_what_was_there_before_is_read_at_once_and_in_order(self):
        self.store.answers["receive_inbox"] = [
            entries(("gateway.a!1", '{"n": 1}'), ("gateway.a!2", '{"n": 2}')),
            entries(("gateway.a!1", '{"n": 3}'), first=3),
        ]
        self.open()
        found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(found, [("gateway.a!1", {"n": 1}), ("gateway.a!2", {"n": 2})])
        ((name, changed),) = self.store.named("subscribe")
        self.assertEqual(name, "gateway.a!")
        changed()
        found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(found, [("gateway.a!1", {"n": 3})])

    @in_loop
    async def test_what_was_passed_on_is_acknowledged_until_a_read_succeeds(self):
        self.read_only_when_asked()
        self.store.answers["receive_inbox"] = [
            entries(
                ("gateway.a!1", '{"n": 1}'), ("gateway.a!2", "{damaged"), ("gateway.a!3", "{}")
            ),
            LayerUnavailable("the reply got lost"),
        ]
        self.store.answers["dead_letter"] = [LayerUnavailable("away")]
        with self.assertLogs(LOGGER, "ERROR"), mock.patch.object(
            engine_inbox, "RETRY_INTERVAL", 0.01
        ):
            self.open()
            await self.until(lambda: len(self.store.named("receive_inbox")) >= 3)
        acked = [call[1] for call in self.store.named("receive_inbox")[:3]]
        self.assertEqual(acked, [[], [1, 3], [1, 3]])

    @in_loop
    async def test_a_full_batch_is_followed_by_another_read(self):
        self.read_only_when_asked()
        full = entries(*[("gateway.a!1", "{}")] * engine_inbox.READ_BATCH)
        last = entries(("gateway.a!1", '{"last": 1}'), first=9999)
        self.store.answers["receive_inbox"] = [full, last]
        self.open()
        found = []
        while not found or found[-1][1] == {}:
            found += await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(len(found), len(full) + 1)

    @in_loop
    async def test_a_read_that_is_cancelled_loses_nothing(self):
        self.open()
        reading = asyncio.ensure_future(self.inbox.receive())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        self.inbox._arrived([("gateway.a!1", {"n": 1})])
        found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(found, [("gateway.a!1", {"n": 1})])

    @in_loop
    async def test_a_store_that_is_away_is_told_once_a_read_and_read_again(self):
        self.store.answers["receive_inbox"] = [
            LayerUnavailable("away"),
            entries(("gateway.a!1", '{"n": 1}')),
        ]
        self.open()
        with self.assertRaisesRegex(LayerUnavailable, "away"):
            await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(found, [("gateway.a!1", {"n": 1})])

    @in_loop
    async def test_an_inbox_tells_since_when_its_reads_fail(self):
        away, reads = LayerUnavailable("away"), []
        self.store.answers["receive_inbox"] = [away, away, entries(("gateway.a!1", "{}"))]
        receive_inbox, is_open = self.store.receive_inbox, threading.Event()

        def read(*args):
            is_open.wait(TIMEOUT)
            reads.append(self.inbox.failing_since)
            return receive_inbox(*args)

        self.store.receive_inbox = read
        began = time.monotonic()
        self.open()
        is_open.set()
        for _ in range(2):
            with self.assertRaises(LayerUnavailable):
                await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertIsNone(reads[0])
        self.assertGreaterEqual(reads[1], began)
        self.assertEqual(reads[2], reads[1], "the first failure in a row counts")
        self.assertIsNone(self.inbox.failing_since)

    @in_loop
    async def test_a_reader_is_told_that_nothing_can_be_sent_for_long(self):
        """The disk is full, for example: no answer can be stored either."""
        away = [LayerUnavailable("the disk is full")] * 3
        self.store.answers["gateway_batch"] = list(away)
        with mock.patch.object(base, "UNSENT_TIMEOUT", 0.0):
            self.open().set_will("gateway.a!1", ("websocket.disconnect", {}))
            with self.assertRaisesRegex(LayerUnavailable, "disk is full"):
                await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
            self.assertIsNone(self.inbox.failing_since)
            await self.until(lambda: len(self.batches()) > len(away))
            await self.until(lambda: self.inbox.unsent_since is None)

    @in_loop
    async def test_an_outage_ends_although_nothing_is_left_to_send(self):
        self.store.answers["gateway_batch"] = [LayerUnavailable("away")]
        self.open().send("work", {}, self.failures.append)
        await self.until(lambda: self.store.named("heartbeat"))
        await self.until(lambda: self.inbox.unsent_since is None)
        self.assertEqual((len(self.batches()), len(self.failures)), (1, 1))

    @in_loop
    async def test_a_reader_that_sends_nothing_is_told_that_no_lease_can_be_renewed(self):
        """The disk is full, for example, and a request waits for its answer."""
        self.layer = FakeLayer(starts=True, heartbeat=0.05)
        self.store = self.layer.store
        self.store.usual["heartbeat"] = LayerUnavailable("the disk is full")
        try:
            with mock.patch.object(base, "UNSENT_TIMEOUT", 0.0), self.assertLogs(LOGGER, "WARNING"):
                with self.assertRaisesRegex(LayerUnavailable, "disk is full"):
                    await asyncio.wait_for(self.open().receive(), TIMEOUT)
                self.assertIsNone(self.inbox.failing_since)
                self.store.usual["heartbeat"] = Heartbeat([])
                await self.until(lambda: self.inbox.unsent_since is None)
            self.assertEqual(self.batches(), [])
            await self.inbox.close()
            self.assertEqual(self.layer.leases._doubting, {})
        finally:
            self.layer.leases.stop()

    @in_loop
    async def test_an_unreadable_message_becomes_a_dead_letter_and_the_others_arrive(self):
        batch = entries(
            ("gateway.a!1", '{"n": 1}'), ("gateway.a!2", "{damaged"), ("gateway.a!3", "{}")
        )
        for dead_letter in (0, LayerUnavailable("away")):
            with self.subTest(dead_letter=dead_letter):
                self.store.answers["receive_inbox"] = [list(batch)]
                self.store.answers["dead_letter"] = [dead_letter]
                with self.assertLogs(LOGGER, "ERROR"):
                    self.open()
                    found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
                self.assertEqual([each[0] for each in found], ["gateway.a!1", "gateway.a!3"])
                consumer, entry, reason = self.store.named("dead_letter")[-1]
                self.assertEqual((consumer, reason), ("gateway.a!", "unreadable"))
                self.assertEqual(entry[1:3], ("gateway.a!2", "{damaged"))
                await self.inbox.close()
        self.assertEqual(self.layer.statistics()["unreadable"], 1)

    @in_loop
    async def test_a_lost_lease_resets_the_gateway(self):
        self.open()
        self.layer.leases._names["gateway.a!"]()
        found = await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
        self.assertEqual(found, [("gateway.a!", {"reset": True})])

    @in_loop
    async def test_after_an_outage_a_gateway_learns_of_lost_data_before_it_reads(self):
        """Workers that got no reply send again, to a server that has forgotten that their answers left."""
        await self.lose_data_in_an_outage(lambda: None)

    @in_loop
    async def test_also_if_it_sees_its_new_lease_before_it_is_told_of_the_old_one(self):
        def reply_late():
            seen = len(self.store.named("heartbeat"))
            wait_until(lambda: len(self.store.named("heartbeat")) > seen + 2)

        await self.lose_data_in_an_outage(reply_late)

    async def lose_data_in_an_outage(self, reply):
        """Have the store forget the gateway in an outage. `reply()` is called when it has the lease again."""
        again = entries(("gateway.a!1", '{"n": 1}'))
        self.store.answers["receive_inbox"] = [LayerUnavailable("away"), again]
        is_registered = threading.Event()

        def register(name):
            is_registered.set()
            reply()

        self.store.answers["register"] = [None, register]
        self.store.usual["heartbeat"] = lambda names: Heartbeat(
            [] if is_registered.is_set() else ["gateway.a!"]
        )
        with mock.patch.object(engine_inbox, "RETRY_INTERVAL", 0.005):
            self.open()
            await self.until(lambda: len(self.store.named("heartbeat")) > 3)
            self.assertEqual(len(self.store.named("receive_inbox")), 1)
            self.layer.leases.step()
            found = []
            while len(found) < 2:
                try:
                    found += await asyncio.wait_for(self.inbox.receive(), TIMEOUT)
                except LayerUnavailable:
                    pass
        self.assertEqual(found, [("gateway.a!", {"reset": True}), ("gateway.a!1", {"n": 1})])

    # What goes out.

    @in_loop
    async def test_after_a_batch_that_fails_by_a_bug_messages_leave_one_by_one(self):
        def take(name, wills, cleared, discards, sends):
            if any("bad" in each.body for each in sends):
                raise RuntimeError("a bug about one of them")
            return ()

        gate, refused = threading.Event(), []
        self.store.answers["gateway_batch"] = [lambda *args: gate.wait(TIMEOUT) and ()] + [take] * 5
        self.open()
        self.inbox.send("work", {"n": 0}, self.failures.append)
        await self.until(lambda: len(self.batches()) == 1)

        def send(message):
            def failed(error):
                refused.append((message, type(error)))
                if isinstance(error, LayerUnavailable):
                    send(message)

            self.inbox.send("work", message, failed)

        for message in ({"n": 1}, {"bad": 2}, {"n": 3}):
            send(message)
        with self.assertLogs(LOGGER, "ERROR"):
            gate.set()
            await self.until(lambda: refused[-1:] == [({"bad": 2}, RuntimeError)])
            await self.until(lambda: len(self.batches()) == 5)
        self.assertEqual(len(refused), 4)
        self.assertEqual(self.sent()[-3:], ['{"n": 1}', '{"bad": 2}', '{"n": 3}'])
        # After these three, messages share batches again: those that come while one is on its way.
        gate.clear()
        self.store.answers["gateway_batch"] = [lambda *args: gate.wait(TIMEOUT) and ()]
        self.inbox.send("work", {"n": 4}, self.failures.append)
        await self.until(lambda: len(self.batches()) == 6)
        for number in (5, 6):
            self.inbox.send("work", {"n": number}, self.failures.append)
        gate.set()
        await self.until(lambda: '{"n": 6}' in self.sent())
        self.assertEqual(len(self.batches()), 7)

    @in_loop
    async def test_the_last_of_a_failed_batch_leaves_without_what_came_later(self):
        def take(name, wills, cleared, discards, sends):
            if any("bad" in each.body for each in sends):
                raise RuntimeError("a bug about one of them")
            return ()

        refused = []

        def failed(error):
            refused.append(type(error))
            if isinstance(error, LayerUnavailable):
                self.inbox.send("work", {"bad": 1}, failed)
                self.inbox.send("work", {"n": 2}, self.failures.append)

        self.store.answers["gateway_batch"] = [take] * 3
        self.open()
        with self.assertLogs(LOGGER, "ERROR"):
            self.inbox.send("work", {"bad": 1}, failed)
            await self.until(lambda: self.sent()[-1:] == ['{"n": 2}'])
            await self.until(lambda: len(refused) == 2)
        self.assertEqual((refused, self.failures), ([LayerUnavailable, RuntimeError], []))
        self.assertEqual(len(self.batches()), 3)

    async def hold_first_batch(self):
        """Open the inbox and send one message. Return the event that lets its batch end."""
        gate = threading.Event()
        self.store.answers["gateway_batch"] = [lambda *args: gate.wait(TIMEOUT) and ()]
        self.open()
        self.inbox.send("work", {"n": 1}, self.failures.append)
        await self.until(lambda: len(self.batches()) == 1)
        return gate

    @in_loop
    async def test_what_one_turn_wants_leaves_in_one_batch(self):
        gate = await self.hold_first_batch()
        self.inbox.set_will("gateway.a!1", ("websocket.disconnect", {"code": 1006}))
        self.inbox.group_discard("room", "gateway.a!1")
        self.inbox.send("work", {"n": 2}, self.failures.append)
        self.inbox.send("gateway.b!1", {"ack": 3}, self.failures.append)
        gate.set()
        await self.until(lambda: len(self.batches()) == 2)
        wills, cleared, discards, sends = self.batches()[1]
        will = Will("gateway.a!1", "websocket.disconnect", '{"code": 1006}')
        self.assertEqual((wills, cleared), ([will], []))
        self.assertEqual(discards, [("room", "gateway.a!1")])
        expected = [Outgoing("work", '{"n": 2}'), Outgoing("gateway.b!1", '{"ack": 3}', True)]
        self.assertEqual(sends, expected)
        self.inbox.clear_will("gateway.a!1")
        await self.until(lambda: len(self.batches()) == 3)
        self.assertEqual(self.batches()[2], ([], ["gateway.a!1"], [], []))
        self.inbox.clear_will("gateway.a!1")  # the store has forgotten it
        self.inbox.group_discard("room", "gateway.a!1")
        await self.until(lambda: len(self.batches()) == 4)
        self.assertEqual(self.batches()[3], ([], [], [("room", "gateway.a!1")], []))
        self.assertEqual(self.failures, [])
        self.assertEqual(self.layer.statistics(), {"sent": 3})

    @in_loop
    async def test_work_of_every_kind_wakes_the_sender_by_itself(self):
        self.open()
        for number, wish in enumerate(
            (
                lambda: self.inbox.send("work", {}, self.failures.append),
                lambda: self.inbox.set_will("gateway.a!1", ("websocket.disconnect", {})),
                lambda: self.inbox.clear_will("gateway.a!1"),
                lambda: self.inbox.group_discard("room", "gateway.a!1"),
            ),
            1,
        ):
            wish()
            await self.until(lambda number=number: len(self.batches()) == number)
            await self.until(lambda: not self.inbox._sending)

    @in_loop
    async def test_a_full_channel_is_reported_to_its_own_sender_only(self):
        failures = {}
        self.store.answers["gateway_batch"] = [[0]]
        self.open()
        self.inbox.send("work", {"n": 1}, lambda error: failures.setdefault(1, error))
        await self.until(lambda: 1 in failures)
        self.assertIsInstance(failures[1], ChannelFull)
        self.inbox.send("work", {"n": 2}, lambda error: failures.setdefault(2, error))
        await self.until(lambda: len(self.batches()) == 2)
        self.assertEqual(list(failures), [1])
        await self.until(lambda: self.layer.statistics() == {"full": 1, "sent": 1})

    @in_loop
    async def test_after_an_outage_wills_and_discards_are_done_and_messages_reported(self):
        self.store.answers["gateway_batch"] = [LayerUnavailable("away")]
        self.open()
        with mock.patch.object(engine_inbox.logger, "exception") as log:
            with self.inbox._lock:  # so that all of it is one batch
                self.inbox.set_will("gateway.a!1", ("websocket.disconnect", {}))
                self.inbox.group_discard("room", "gateway.a!2")
                self.inbox.send("work", {}, self.failures.append)
            await self.until(lambda: len(self.batches()) == 2)
        log.assert_not_called()  # the sender is told, and has its own words
        self.assertIsInstance(self.failures[0], LayerUnavailable)
        wills, _, discards, sends = self.batches()[1]
        self.assertEqual([will.connection for will in wills], ["gateway.a!1"])
        self.assertEqual((discards, sends), ([("room", "gateway.a!2")], []))

    @in_loop
    async def test_in_an_outage_only_what_was_given_to_the_store_may_have_been_sent(self):
        gate = threading.Event()

        def lose(*args):
            gate.wait(TIMEOUT)
            raise LayerUnavailable("the answer got lost")

        failed = {}
        self.store.answers["gateway_batch"] = [lose]
        self.store.usual["reach"] = LayerUnavailable("away")
        self.open()

        def send(number):
            self.inbox.send("work", {"n": number}, lambda error: failed.update({number: error}))

        send(1)
        await self.until(lambda: self.batches())
        send(2)
        self.inbox.set_will("gateway.a!1", ("websocket.disconnect", {}))
        gate.set()
        await self.until(lambda: len(failed) == 2)
        self.assertNotIsInstance(failed[1], NotSent)
        self.assertIsInstance(failed[2], NotSent)
        send(3)  # while the server can't be reached
        await self.until(lambda: 3 in failed)
        self.assertIsInstance(failed[3], NotSent)
        self.assertEqual(len(self.batches()), 1)
        self.store.usual["reach"] = None
        send(4)
        await self.until(lambda: len(self.batches()) > 1)
        await self.until(lambda: self.sent()[-1] == '{"n": 4}')
        self.assertEqual([will.connection for will in self.batches()[1][0]], ["gateway.a!1"])
        self.assertNotIn(4, failed)

    @in_loop
    async def test_what_waits_is_withdrawn_at_once(self):
        gate = await self.hold_first_batch()
        self.inbox.send("work", {"n": 2}, self.failures.append)
        self.inbox.withdraw()
        self.assertEqual([type(error) for error in self.failures], [NotSent])
        gate.set()
        self.inbox.send("work", {"n": 3}, self.failures.append)
        await self.until(lambda: len(self.batches()) == 2)
        self.assertEqual(self.sent(), ['{"n": 1}', '{"n": 3}'])

    @in_loop
    async def test_a_will_that_cannot_be_stored_harms_no_other_work(self):
        self.open()
        with self.assertLogs(LOGGER, "ERROR") as logs:
            with self.inbox._lock:
                self.inbox.set_will("gateway.a!1", ("websocket.disconnect", {"bad": object()}))
                self.inbox.set_will("gateway.a!2", ("websocket.disconnect", {}))
                self.inbox.send("work", {"n": 1}, self.failures.append)
            await self.until(lambda: self.sent())
        # A mail to the admins shows the variables of a traceback: minutes of work for a large message.
        self.assertEqual([record.exc_info for record in logs.records], [None])
        wills = self.batches()[0][0]
        self.assertEqual([will.connection for will in wills], ["gateway.a!2"])
        self.assertEqual(self.failures, [])

    @in_loop
    async def test_a_message_that_cannot_be_stored_harms_no_other(self):
        self.open()
        with self.inbox._lock:
            self.inbox.send("work", {"bad": object()}, self.failures.append)
            self.inbox.send("work", {"n": 1}, self.failures.append)
        await self.until(lambda: self.sent() and self.failures)
        self.assertEqual(self.sent(), ['{"n": 1}'])
        self.assertIsInstance(self.failures[0], TypeError)

    @in_loop
    async def test_a_bug_of_the_store_is_reported_to_the_senders(self):
        self.store.answers["gateway_batch"] = [ZeroDivisionError("a bug")]
        self.open()
        with self.assertLogs(LOGGER, "ERROR"):
            self.inbox.send("work", {}, self.failures.append)
            await self.until(lambda: self.failures)
        self.assertIsInstance(self.failures[0], LayerUnavailable)
        self.inbox.send("work", {"n": 2}, self.failures.append)
        await self.until(lambda: len(self.batches()) == 2)
        self.assertEqual(len(self.failures), 1)

    # The lease, and the end.

    @in_loop
    async def test_a_lease_that_could_not_be_taken_is_taken_before_anything_leaves(self):
        self.store.answers["register"] = [LayerUnavailable("away")]
        with self.assertLogs(LOGGER, "WARNING"):
            self.open()
        self.inbox.send("work", {}, self.failures.append)
        await self.until(lambda: self.batches())
        names = [call[0] for call in self.store.calls]
        self.assertEqual(names.count("register"), 2)
        self.assertLess(
            len(names) - names[::-1].index("register"), names.index("gateway_batch") + 1
        )

    @in_loop
    async def test_closing_sends_what_is_left_and_then_leaves(self):
        self.open()
        self.inbox.send("work", {"n": 1}, self.failures.append)
        await self.inbox.close()
        names = [call[0] for call in self.store.calls]
        self.assertLess(names.index("gateway_batch"), names.index("leave"))
        self.assertEqual(self.store.named("leave"), [("gateway.a!",)])
        self.assertEqual(self.store.named("unsubscribe"), [("gateway.a!",)])
        self.assertNotIn("gateway.a!", self.layer.leases._names)

    @in_loop
    async def test_closing_without_the_store_is_logged_and_raises_nothing(self):
        self.store.answers["leave"] = [LayerUnavailable("away")]
        self.open()
        with self.assertLogs(LOGGER, "WARNING") as logs:
            await self.inbox.close()
        self.assertIn("could not leave the channel layer: away", logs.output[0])

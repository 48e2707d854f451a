"""The in-memory layer keeps the contract of a channel layer."""

import asyncio
import gc
import os
import threading
import unittest
import weakref
from types import SimpleNamespace
from unittest import mock

from django.channels.exceptions import ChannelFull
from django.channels.layers import memory, memory_inbox
from django.channels.layers.engine import notices
from django.channels.layers.engine.options import MAX_SECONDS
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test.conformance import LayerConformance
from django.core.exceptions import ImproperlyConfigured

from .support.waiting import TIMEOUT, wait_until


class MemoryLayerConformanceTests(LayerConformance, unittest.TestCase):
    shortest_expiry = 0.2

    def make_layer(self, **config):
        return MemoryChannelLayer(**config)


class WaitingReaderTests(unittest.TestCase):
    def test_two_readers_of_a_process_local_channel_are_both_woken(self):
        self.check("local.x!a")

    def test_two_readers_of_a_whole_inbox_are_both_woken(self):
        self.check("local.x!")

    def test_a_reader_that_ctrl_c_interrupts_takes_no_wake_up_of_another(self):
        class Interrupted:
            """A lock in whose acquisition with a time-out Ctrl-C comes."""

            def acquire(self, timeout=-1):
                if timeout != -1:
                    raise KeyboardInterrupt

            def release(self):
                pass

        layer = MemoryChannelLayer()
        layer.block_for = 10 * TIMEOUT
        with mock.patch.object(memory, "threading", SimpleNamespace(Lock=Interrupted)):
            with self.assertRaises(KeyboardInterrupt):
                layer.receive_many(["work"], block=True)
        layer.send("work", {"number": 1})  # with it, the reader that has gone would be woken
        self.assertEqual(layer.receive_many(["work"]), ("work", {"number": 1}))
        found = []

        def read():
            found.append(layer.receive_many(["work"], block=True)[1])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        wait_until(lambda: layer._readers, "another reader to wait")
        layer.send("work", {"number": 2})
        reader.join(TIMEOUT)
        self.assertEqual(found, [{"number": 2}])

    def check(self, wanted):
        layer = MemoryChannelLayer()
        layer.block_for = 10 * TIMEOUT
        found = []

        def read():
            found.append(layer.receive_many([wanted], block=True)[1])

        readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
        for reader in readers:
            reader.start()
        wait_until(lambda: len(layer._readers) == 2)
        with layer._lock:  # both, before the first reader looks
            layer._put("local.x!a", {"number": 1})
            layer._put("local.x!a", {"number": 2})
        for reader in readers:
            reader.join(TIMEOUT)
        self.assertEqual(sorted(each["number"] for each in found), [1, 2])


class ExpiryTests(unittest.TestCase):
    def test_events_of_sockets_outlast_a_time_without_workers(self):
        layer = MemoryChannelLayer(expiry=60)
        for channel in ("http.request", "websocket.receive", "websocket.disconnect"):
            layer.deliver(channel, {"channel": channel})
        later = memory.time.monotonic() + 3600
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            for channel in ("websocket.receive", "websocket.disconnect"):
                self.assertEqual(layer.receive_many([channel])[0], channel)
            self.assertEqual(layer.receive_many(["http.request"]), (None, None))

    def test_an_expired_event_is_reported_to_its_gateway(self):
        async def received():
            layer = MemoryChannelLayer(channel_expiry={"websocket.*": 60})
            inbox = layer.open_inbox("gateway.test!")
            event = {"reply_channel": "gateway.test!7", "event_id": 3}
            layer.deliver("websocket.receive", event)
            layer.deliver("websocket.receive", {"text": "of no connection"})
            with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
                self.assertEqual(layer.receive_many(["websocket.receive"]), (None, None))
            self.assertEqual(layer.statistics()["expired"], 2)
            return await asyncio.wait_for(inbox.receive(), TIMEOUT)

        later = memory.time.monotonic() + 61
        self.assertEqual(asyncio.run(received()), [("gateway.test!7", {"lost": 3})])

    def test_expired_messages_are_logged_by_channel_outside_of_the_lock(self):
        layer = MemoryChannelLayer(expiry=60)
        layer.deliver("thumbnails", {})
        layer.deliver("thumbnails", {})
        layer.deliver("gateway.gone!7", {})  # of one process, which has gone

        def log(*args):
            self.assertFalse(layer._lock.locked())

        later = memory.time.monotonic() + 61
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            with self.assertLogs("django.channels.layers", "WARNING") as logs:
                with mock.patch.object(notices, "time", mock.Mock(monotonic=log)):
                    layer.drop_expired()
        self.assertEqual(len(logs.output), 1)
        self.assertIn("Messages on thumbnails (2) expired before", logs.output[0])
        self.assertEqual(layer.statistics()["expired"], 2)

    def test_expired_messages_do_not_count_as_pending(self):
        layer = MemoryChannelLayer(expiry=60)
        layer.deliver("thumbnails", {})
        later = memory.time.monotonic() + 61
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            self.assertEqual(layer.channel_statistics("thumbnails")["messages_pending"], 0)
        self.assertEqual(layer.global_statistics()["messages_expired"], 1)

    def test_a_message_behind_an_expired_one_is_received(self):
        layer = MemoryChannelLayer(expiry=60)
        now = memory.time.monotonic()
        for seconds in (0, 30):
            with mock.patch.object(
                memory, "time", SimpleNamespace(monotonic=lambda seconds=seconds: now + seconds)
            ):
                layer.deliver("work", {"at": seconds})
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: now + 61)):
            self.assertEqual(layer.receive_many(["work"]), ("work", {"at": 30}))

    def test_sends_drop_what_expired_on_a_channel_that_nobody_reads(self):
        layer = MemoryChannelLayer(channel_expiry={"unread": 60})
        layer.deliver("unread", {})
        later = memory.time.monotonic() + 61
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            with mock.patch.object(memory, "SWEEP_INTERVAL", 4):
                for expected in (0, 0, 1):  # the second, third and fourth message
                    layer.deliver("work", {})
                    self.assertEqual(layer.statistics().get("expired", 0), expected)

    def test_a_message_whose_reply_channel_is_not_text_harms_no_reader(self):
        layer = MemoryChannelLayer(channel_expiry={"websocket.*": 60})
        layer.deliver("websocket.receive", {"event_id": 1, "reply_channel": 5})
        layer.deliver("websocket.receive", {"event_id": 1})
        later = memory.time.monotonic() + 61
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            self.assertEqual(layer.receive_many(["websocket.receive"]), (None, None))


class OptionTests(unittest.TestCase):
    def test_options_may_be_written_in_capitals(self):
        layer = MemoryChannelLayer(THREADS=2, INBOX_CAPACITY=7, CAPACITY=3)
        self.assertEqual((layer.threads, layer.inbox_capacity, layer.capacity), (2, 7, 3))

    def test_an_unknown_option_is_refused_with_the_nearest_name(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "Did you mean 'capacity'"):
            MemoryChannelLayer(capasity=3)

    def test_options_out_of_range_are_refused_by_name(self):
        for name, value in (("threads", -1), ("threads", "4"), ("inbox_capacity", 0)):
            with self.subTest(name=name, value=value):
                with self.assertRaisesRegex(ImproperlyConfigured, name):
                    MemoryChannelLayer(**{name: value})


class InboxTests(unittest.TestCase):
    """Each test runs in an event loop, with a layer and the inbox of one gateway."""

    def run_with_inbox(self, test, **config):
        async def main():
            layer = MemoryChannelLayer(**config)
            inbox = layer.open_inbox("gateway.a!")
            try:
                await test(layer, inbox)
            finally:
                await inbox.close()

        asyncio.run(main())

    def test_an_inbox_has_room_for_all_that_came_before_it(self):
        async def test(layer, inbox):
            for number in range(3):
                layer.send("gateway.b!1", {"number": number})
            other = layer.open_inbox("gateway.b!")
            self.assertEqual([each["number"] for _, each in other.take()], [0, 1, 2])
            await other.close()

        self.run_with_inbox(test, inbox_capacity=1)

    def test_an_idle_gateway_hears_of_expired_events_again_and_again(self):
        async def test(layer, inbox):
            for number in (1, 2, 3):
                event = {"reply_channel": "gateway.a!7", "event_id": number}
                layer.deliver("http.request", event)
                found = await asyncio.wait_for(inbox.receive(), TIMEOUT)
                self.assertEqual(found, [("gateway.a!7", {"lost": number})])

        with mock.patch.object(memory_inbox, "EXPIRY_INTERVAL", 0.02):
            self.run_with_inbox(test, expiry=0.05)

    def test_what_an_inbox_sends_when_its_loop_is_closed_arrives(self):
        async def open_inbox():
            return layer.open_inbox("gateway.a!")

        layer, loop = MemoryChannelLayer(), asyncio.new_event_loop()
        inbox = loop.run_until_complete(open_inbox())
        loop.close()
        inbox.send("work", {"number": 1}, self.fail)
        self.assertEqual(layer.receive_many(["work"]), ("work", {"number": 1}))

    def test_a_closed_inbox_leaves_nothing_in_its_loop(self):
        async def test(layer, inbox):
            other = layer.open_inbox("gateway.b!")
            await other.close()
            reference = weakref.ref(other)
            del other
            gc.collect()
            self.assertIsNone(reference())

        self.run_with_inbox(test)

    def test_closing_one_inbox_keeps_the_memberships_of_others(self):
        async def test(layer, inbox):
            other = layer.open_inbox("gateway.b!")
            layer.group_add("room", "gateway.a!1")
            layer.group_add("room", "gateway.b!1")
            await other.close()
            self.assertEqual(layer.group_channels("room"), ["gateway.a!1"])

        self.run_with_inbox(test)

    def test_closing_a_replaced_inbox_keeps_the_memberships_of_its_successor(self):
        async def test(layer, inbox):
            successor = layer.open_inbox("gateway.a!")
            layer.group_add("room", "gateway.a!1")
            await inbox.close()
            self.assertEqual(layer.group_channels("room"), ["gateway.a!1"])
            await successor.close()
            self.assertEqual(layer.group_channels("room"), [])

        self.run_with_inbox(test)

    def test_two_gateways_get_equal_group_messages_that_share_nothing(self):
        async def test(layer, inbox):
            other = layer.open_inbox("gateway.b!")
            layer.group_add("room", "gateway.a!1")
            layer.group_add("room", "gateway.b!1")
            layer.send_group("room", {"list": [1]})
            first, second = inbox.take()[-1][1], other.take()[-1][1]
            self.assertEqual(first, {"group": "room", "message": {"list": [1]}})
            self.assertEqual(first, second)
            first["message"]["list"].append(2)
            self.assertEqual(second["message"]["list"], [1])
            await other.close()

        self.run_with_inbox(test)

    def test_a_client_is_told_once_of_a_group_that_it_joins_twice(self):
        async def test(layer, inbox):
            for _ in range(2):
                layer.group_add("room", "gateway.a!1")
            self.assertEqual(inbox.take(), [("gateway.a!1", {"group_add": "room"})])

        self.run_with_inbox(test)

    def test_a_client_that_leaves_a_group_leaves_the_others_in_it(self):
        async def test(layer, inbox):
            for channel in ("gateway.a!1", "outside"):
                layer.group_add("room", channel)
            layer.group_discard("room", "gateway.a!1")
            self.assertEqual(layer.group_channels("room"), ["outside"])
            layer.group_discard("room", "outside")
            self.assertEqual(layer._groups, {})  # an empty group takes no memory

        self.run_with_inbox(test)

    def test_flush_drops_what_an_open_inbox_has_not_read(self):
        async def test(layer, inbox):
            layer.send("gateway.a!1", {"text": "old"})
            layer.flush()
            self.assertEqual(inbox.take(), [("gateway.a!", {"reset": True})])

        self.run_with_inbox(test)

    def test_unread_messages_of_an_inbox_are_pending(self):
        async def test(layer, inbox):
            layer.send("gateway.a!1", {})
            layer.send("gateway.a!2", {})
            self.assertEqual(layer.channel_statistics("gateway.a!")["messages_pending"], 2)
            statistics = layer.global_statistics()
            self.assertEqual(statistics["messages_pending"], 2)
            self.assertEqual(statistics["messages_count"], 2)
            self.assertGreater(statistics["messages_max_age"], 0)
            self.assertLess(statistics["messages_max_age"], TIMEOUT)

        self.run_with_inbox(test)

    def test_a_full_inbox_takes_acknowledgements_and_notices_only(self):
        async def test(layer, inbox):
            for number in range(2):
                layer.send("gateway.a!1", {"number": number})
            with self.assertRaises(ChannelFull):
                layer.send("gateway.a!1", {"number": 2})
            self.assertEqual(layer.statistics()["full"], 1)
            layer.group_add("room", "gateway.a!1")
            layer.send_group("room", {})
            self.assertEqual(layer.statistics()["group_full"], 1)
            layer.send("gateway.a!1", {"ack": 4})
            layer.send("gateway.a!1", {"lost": 5})
            found = [message for _, message in inbox.take()]
            expected = [{"number": 0}, {"number": 1}, {"group_add": "room"}]
            self.assertEqual(found, expected + [{"ack": 4}, {"lost": 5}])

        self.run_with_inbox(test, inbox_capacity=2)


class ForkTests(unittest.TestCase):
    @unittest.skipUnless(hasattr(os, "fork"), "this system cannot fork")
    def test_a_child_process_begins_empty_and_can_use_the_layer(self):
        layer = MemoryChannelLayer()
        layer.send("work", {"of": "parent"})
        layer._lock.acquire()  # as another thread may hold it
        try:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    layer.send("work", {"of": "child"})
                    found = [layer.receive_many(["work"])[1] for _ in range(2)]
                    code = 0 if found == [{"of": "child"}, None] else 2
                finally:
                    os._exit(code)
        finally:
            layer._lock.release()
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(layer.receive_many(["work"])[1], {"of": "parent"})


class DelayTests(unittest.TestCase):
    def test_a_delayed_message_comes_after_one_that_nothing_can_deliver(self):
        layer = MemoryChannelLayer()
        deliver = layer.deliver

        def fail_once(channel, message):
            layer.deliver = deliver
            raise ZeroDivisionError("a bug")

        layer.deliver = fail_once
        with self.assertLogs("django.channels.layers", "ERROR"):
            layer.send_later("later", {"number": 1}, 0)
            layer.send_later("later", {"number": 2}, 0)
            wait_until(lambda: layer._queues.get("later"))
        self.assertEqual(layer.receive_many(["later"])[1], {"number": 2})

    def test_no_delay_ends_the_thread(self):
        layer = MemoryChannelLayer()
        for delay in (MAX_SECONDS, threading.TIMEOUT_MAX, -1, 0, 0.0):
            delay = min(delay, MAX_SECONDS)
            layer.send_later("later", {"delay": repr(delay)}, delay)
        wait_until(lambda: len(layer._queues.get("later", ())) == 3)
        found = [layer.receive_many(["later"])[1]["delay"] for _ in range(3)]
        self.assertEqual(sorted(found), ["-1", "0", "0.0"])
        layer.flush()
        wait_until(lambda: layer._delay._thread is None)

    def test_a_delayed_message_that_finds_its_channel_full_is_counted(self):
        layer = MemoryChannelLayer(capacity=1)
        layer.send("later", {"number": 1})
        layer.send_later("later", {"number": 2}, 0)
        wait_until(lambda: layer.statistics().get("delayed_full") == 1)
        self.assertEqual(layer.receive_many(["later"])[1], {"number": 1})
        self.assertEqual(layer.receive_many(["later"]), (None, None))


class MessageSizeTests(unittest.TestCase):
    def test_messages_in_a_list_count_towards_the_size(self):
        layer = MemoryChannelLayer()
        with self.assertRaises(layer.MessageTooLarge):
            layer.send("work", {"replies": [{"text": "x" * 1024} for _ in range(1024)]})
        with self.assertRaises(layer.MessageTooLarge):
            layer.send("work", {"replies": [b"x" * (1024 * 1024)]})

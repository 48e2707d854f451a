"""
A reply that gets lost, or comes twice: at the n-th call for each n, on the worker's and the gateway's side.

The double runs the command and then loses its reply, as a connection that is cut does. Each message must be
exactly one of: handled, waiting, unacknowledged, dead-lettered.
"""

import asyncio
import time
import unittest
from collections import Counter
from unittest import mock

from asgi_redis.contract import Outgoing
from asgi_redis.direct import LATE
from asgi_redis.scripts import run
from django.channels import outbox
from django.channels.delay.consumers import delay_message
from django.channels.message import Message

from asgi_redis import entry, prefetch
from channels_tests.support.ports import free_port
from channels_tests.support.proxy import Proxy
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import SCALE, TIMEOUT, wait_until

from .test_standalone import RedisLayerCase

CHANNELS = ["websocket.receive", "work.x"]


class Fault:
    """At the `number`-th call (from 1) the reply is lost, or the command runs twice."""

    def __init__(self, number, kind):
        self.number, self.kind = number, kind
        self.calls = 0

    @property
    def has_happened(self):
        return self.calls >= self.number

    def is_next(self):
        self.calls += 1
        return self.calls == self.number


class LossyServers:
    """The servers of a layer, with one Fault on its blocking calls."""

    def __init__(self, servers, fault, unavailable):
        self._servers, self._fault, self._unavailable = servers, fault, unavailable
        self.where = servers.where

    def __getattr__(self, name):
        return getattr(self._servers, name)

    def call(self, command):
        return self._run(lambda: self._servers.call(command))

    def call_many(self, commands):
        if self._fault.kind == "cut" and self._fault.is_next():
            # The first command was sent before the connection broke, the rest was not.
            self._servers.call(commands[0])
            raise self._unavailable("the connection was cut")
        return self._run(lambda: self._servers.call_many(commands))

    def _run(self, call):
        if self._fault.kind == "cut" or not self._fault.is_next():
            return call()
        call()
        if self._fault.kind == "twice":
            return call()
        raise self._unavailable("the reply was lost")


class WorkerTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "lossy:", "heartbeat": 20, "lease": 60}
    total = 24

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.layer.flush)

    def make_worker(self, fault):
        worker = self.make_layer()
        self.take_lease(worker)
        worker.store._monitor._settle = lambda consumer: None
        consumer = worker.store.consumer("consumer")
        consumer.quick = prefetch.QUICK_RUNS
        worker.store.servers = LossyServers(worker.store.servers, fault, worker.LayerUnavailable)
        return worker

    def take_lease(self, worker):
        """Have the lease taken and its thread ended: the test alone makes calls."""
        worker.claim("consumer", ["work.none"])
        worker.leases.stop()

    def insist(self, worker, call, *args):
        """Call until it succeeds, as a worker does."""
        while True:
            try:
                return call(*args)
            except worker.LayerUnavailable:
                continue

    def work(self, worker):
        """Handle most messages, requeue some, and end with some prefetched. Return a Counter of ids."""
        handled = Counter()
        requeued = set()
        while sum(handled.values()) < self.total - 4:
            _, message = self.insist(worker, worker.claim, "consumer", CHANNELS)
            if message is None:
                break
            number = message["event_id"]
            if number % 7 == 0 and number not in requeued:
                requeued.add(number)
                self.insist(worker, worker.requeue, "consumer")
                worker.store.consumer("consumer").quick = prefetch.QUICK_RUNS
                continue
            handled[number] += 1
            worker.finish("consumer", message["reply_channel"], {"ack": number})
        self.insist(worker, worker.acknowledge, "consumer")
        return handled

    def rest(self):
        """The ids of what is waiting, unacknowledged, or dead-lettered now."""
        store = self.layer.store
        found = Counter()
        for key in store.servers.scan(store.keys.patterns("f")[0]):
            reply = store.servers.call(("HGETALL", key))
            for field, raw in zip(reply[::2], reply[1::2]):
                if not field.startswith(b"#"):
                    found[self.exchange(raw)] += 1
        for key in store.servers.scan(store.keys.patterns("q")[0]):
            if b"gateway" not in key:
                for raw in store.servers.call(("LRANGE", key, 0, -1)):
                    found[self.exchange(raw)] += 1
        found.update(letter.message["event_id"] for letter in self.layer.dead_letters())
        return found

    def exchange(self, raw):
        body = entry.parse(raw)[1]
        return self.layer.store.codec.unpack(entry.split_body(body)[1], b"")["event_id"]

    def replies(self):
        found = set()
        while True:
            message = self.layer.receive_many(["gateway.a!"])[1]
            if message is None:
                return found
            found.add(message["ack"])

    def check(self, kind):
        number, fault = 0, None
        while fault is None or fault.has_happened:
            number += 1
            fault = Fault(number, kind)
            with self.subTest(kind=kind, call=number):
                self.layer.flush()
                worker = self.make_worker(fault)
                for each in range(1, self.total + 1):
                    channel = "work.x" if each % 5 == 0 else "websocket.receive"
                    self.layer.send(
                        channel, {"reply_channel": "gateway.a!%d" % each, "event_id": each}
                    )
                handled = self.work(worker)
                self.assertEqual(
                    handled + self.rest(), Counter(range(1, self.total + 1)), "all, each once"
                )
                self.assertEqual(self.replies(), set(handled))
                self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
                worker.close()
        self.assertGreater(number, 5)  # the scenario makes that many calls

    def test_a_lost_reply_loses_and_doubles_no_message(self):
        self.check("lost")

    def test_a_command_that_runs_twice_loses_and_doubles_no_message(self):
        self.check("twice")

    def test_a_batch_of_which_only_the_first_command_ran_loses_and_doubles_no_message(self):
        self.check("cut")

    def claim_arguments(self, worker):
        """Have the worker's claims recorded."""
        sent, call = [], worker.store.servers.call

        def record(command):
            sent.append(command)
            return call(command)

        worker.store.servers.call = record
        return sent

    def test_a_claim_that_comes_late_claims_nothing(self):
        worker = self.make_layer()
        self.take_lease(worker)
        sent = self.claim_arguments(worker)
        for number in (1, 2, 3):
            self.layer.send("work.x", {"event_id": number})
        worker.claim("consumer", ["work.x"])
        late = sent[-1]
        worker.claim("consumer", ["work.x"])  # acknowledges the first
        reply = self.layer.store.servers.call(late)
        self.assertEqual(reply, [2])
        self.assertEqual(self.rest(), Counter([2, 3]))

    def test_a_worker_that_ends_after_a_lost_reply_requeues_what_it_never_saw(self):
        worker = self.make_worker(Fault(1, "lost"))
        self.layer.send("work.x", {"event_id": 1})
        with self.assertRaises(worker.LayerUnavailable):
            worker.claim("consumer", ["work.x"])
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        worker.acknowledge("consumer")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.assertEqual(self.layer.receive_many(["work.x"])[1], {"event_id": 1})

    def test_a_claim_that_never_arrived_cannot_arrive_after_the_worker_has_ended(self):
        worker = self.make_layer()
        self.take_lease(worker)
        call, late = worker.store.servers.call, []

        def drop(command):
            late.append(command)
            raise worker.LayerUnavailable("it did not arrive")

        worker.store.servers.call = drop
        with self.assertRaises(worker.LayerUnavailable):
            worker.claim("consumer", ["work.x"])
        worker.store.servers.call = call
        worker.acknowledge("consumer")
        self.layer.send("work.x", {"event_id": 1})
        call(late[0])
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.assertEqual(self.rest(), Counter([1]))

    def test_the_reply_to_another_claim_is_refused(self):
        worker = self.make_layer()
        self.take_lease(worker)
        call, old = worker.store.servers.call, []

        def repeat(command):
            if not old:
                old.append(call(command))
                return old[0]
            return old[0]

        self.layer.send("work.x", {"event_id": 1})
        self.layer.send("work.x", {"event_id": 2})
        worker.store.servers.call = repeat
        self.assertEqual(worker.claim("consumer", ["work.x"])[1], {"event_id": 1})
        with self.assertRaisesRegex(worker.LayerUnavailable, "reply to another"):
            worker.claim("consumer", ["work.x"])
        worker.store.servers.call = call
        self.assertEqual(worker.claim("consumer", ["work.x"])[1], {"event_id": 2})


class SendIdTests(RedisLayerCase, unittest.TestCase):
    """What is sent again with its id arrives once, whichever reply was lost."""

    def check(self, kind, **config):
        layer = self.make_layer(prefix="send-ids:", heartbeat=20, lease=60, **config)
        self.assertTrue(layer.remembers_sends)
        inboxes = ["gateway.%d!" % each for each in range(6)]
        plain = ["work.x", "reader?a", "other!b"]

        async def check(fault):
            layer.flush()
            opened = [layer.open_inbox(name) for name in inboxes]
            for name in inboxes:
                layer.group_add("room", name + "a")
            for name in plain:
                layer.group_add("room", name)
            found = {}
            for inbox in opened:  # the notice that it has joined
                await asyncio.wait_for(inbox.receive(), TIMEOUT)
            sender = self.make_layer(prefix="send-ids:", **config)
            sender.leases.start = lambda: None  # the test alone makes calls
            sender.store.servers = LossyServers(sender.store.servers, fault, layer.LayerUnavailable)
            for call in (
                lambda: sender.deliver("work.y", {"n": 1}, send_id="one"),
                lambda: sender.deliver("gateway.0!a", {"n": 1}, send_id="two"),
                lambda: sender.deliver("other!c", {"n": 1}, send_id="three"),
                lambda: sender.deliver_group("room", {"n": 1}, send_id="four"),
                lambda: sender.send_later("work.z", {"n": 1}, 0.0, send_id="five" * 8),
            ):
                while True:
                    try:
                        call()
                        break
                    except layer.LayerUnavailable:
                        pass
            for name in inboxes:
                layer.send(name + "a", {"last": True})
            for inbox in opened:
                got = []
                while not got or got[-1][1] != {"last": True}:
                    got += await asyncio.wait_for(inbox.receive(), TIMEOUT)
                found[inbox.name] = len(got) - 1
                await inbox.close()
            layer.leases.send_due()
            # The layer's own thread may be sending what is due.
            wait_until(lambda: layer.receive_many(["work.z"])[0], "the delayed message")
            for name in plain + ["work.y", "work.z", "other!c"]:
                found[name] = int(name == "work.z")
                while layer.receive_many([name])[0] is not None:
                    found[name] += 1
            return found

        expected = dict.fromkeys(inboxes + plain + ["work.y", "work.z", "other!c"], 1)
        expected["gateway.0!"] = 2
        number, fault = 0, None
        while fault is None or fault.has_happened:
            number += 1
            fault = Fault(number, kind)
            with self.subTest(kind=kind, call=number):
                self.assertEqual(asyncio.run(check(fault)), expected)
        self.assertGreater(number, 2)

    def test_on_one_partition(self):
        self.check("lost")
        self.check("twice")

    def test_on_several_partitions(self):
        self.check("lost", partitions=8)
        self.check("cut", partitions=8)

    def test_a_pending_send_is_tried_again_and_arrives_once(self):
        layer = self.make_layer(prefix="send-ids:")
        for kind in ("lost", "twice"):
            layer.flush()
            layer.group_add("room", "work.x")
            sender = self.make_layer(prefix="send-ids:")
            sender.leases.start = lambda: None
            fault = Fault(1, kind)
            sender.store.servers = LossyServers(sender.store.servers, fault, layer.LayerUnavailable)
            outbox.PendingSend(sender, outbox.TO_GROUP, "room", {"n": 1}).deliver_once()
            fault.calls = 0
            outbox.PendingSend(sender, outbox.TO_CHANNEL, "work.y", {"n": 2}).deliver_once()
            fault.calls = 0
            delayed = {"channel": "work.z", "content": {"n": 3}, "delay": 0}
            delay_message(Message(delayed, "asgi.delay", sender))
            layer.leases.send_due()
            for channel, n in (("work.x", 1), ("work.y", 2), ("work.z", 3)):
                self.assertEqual(layer.receive_many([channel])[1], {"n": n})
                self.assertIsNone(layer.receive_many([channel])[0])

    def test_only_the_first_of_many_pending_sends_waits_for_a_layer_that_is_away(self):
        layer = self.make_layer(hosts=[("127.0.0.1", free_port())])
        send = outbox.PendingSend(layer, outbox.TO_CHANNEL, "work.x", {})
        attempts = []
        deliver = layer.deliver

        def counted(*args, **kwargs):
            attempts.append(kwargs["send_id"])
            deliver(*args, **kwargs)

        layer.deliver = counted
        with mock.patch.object(outbox, "SEND_TIMEOUT", 0.2):
            with self.assertRaises(layer.LayerUnavailable):
                send.deliver_once()
        self.assertGreater(len(attempts), 1)
        self.assertEqual(len(set(attempts)), 1)
        del attempts[:]
        with self.assertRaises(layer.LayerUnavailable):
            send.deliver_once()
        self.assertEqual(len(attempts), 1)

    def test_a_refused_message_is_not_remembered(self):
        layer = self.make_layer(prefix="send-ids:", channel_capacity={"work.*": 1})
        layer.flush()
        layer.send("work.x", {"n": 0})
        with self.assertRaises(layer.ChannelFull):
            layer.deliver("work.x", {"n": 1}, send_id="again")
        self.assertEqual(layer.receive_many(["work.x"])[1], {"n": 0})
        layer.deliver("work.x", {"n": 1}, send_id="again")
        self.assertEqual(layer.receive_many(["work.x"])[1], {"n": 1})

    def test_a_delayed_message_that_is_sent_twice_arrives_once(self):
        layer = self.make_layer(prefix="send-ids:")
        layer.flush()
        layer.store.delay("work.x", layer.store.encode("work.x", {"n": 1}), 0)
        call = layer.store.servers.call

        def lose_removals(command):
            if command[0] == "ZREM":
                raise layer.LayerUnavailable("it did not arrive")
            return call(command)

        layer.store.servers.call = lose_removals
        with self.assertRaises(layer.LayerUnavailable):
            layer.store.send_due()
        layer.store.servers.call = call
        self.make_due(layer)
        layer.store.send_due()
        self.assertEqual(layer.receive_many(["work.x"])[1], {"n": 1})
        self.assertIsNone(layer.receive_many(["work.x"])[0])

    def make_due(self, layer):
        """Make all that is delayed due now."""
        call, key = layer.store.servers.call, layer.store.keys.delay
        for member in call(("ZRANGE", key, 0, -1)):
            call(("ZADD", key, 0, member))

    def test_a_delayed_message_whose_process_dies_before_it_is_sent_is_sent_by_another(self):
        dying, other = self.make_layer(prefix="send-ids:"), self.make_layer(prefix="send-ids:")
        dying.flush()
        dying.store.delay("work.x", dying.store.encode("work.x", {"n": 1}), 0)
        away = dying.LayerUnavailable("the process died")
        with mock.patch.object(dying.store, "send", side_effect=away):
            with self.assertRaises(dying.LayerUnavailable):
                dying.store.send_due()
        other.store.send_due()
        self.assertIsNone(other.receive_many(["work.x"])[0])  # it may still be on its way
        self.make_due(other)
        other.store.send_due()
        self.assertEqual(other.receive_many(["work.x"])[1], {"n": 1})


class LossyLink:
    """An event loop's connection, with one Fault. An old reply takes the place of a new one."""

    def __init__(self, link, fault, unavailable):
        self._link, self._fault, self._unavailable = link, fault, unavailable
        self._old = None

    def __getattr__(self, name):
        return getattr(self._link, name)

    async def call(self, commands, seconds=None):
        if self._fault.is_next():
            if self._fault.kind == "old" and self._old is not None:
                return self._old
            if self._fault.kind == "unsent":
                raise self._unavailable("the connection was cut before")
            if self._fault.kind != "old":
                await self._link.call(commands, seconds)
                await self._link.close()
                raise self._unavailable("the reply was lost")
        reply = await self._link.call(commands, seconds)
        if seconds is not None:
            self._old = reply
        return reply


class LostPath:
    """A gateway's sending connection that is lost at the next call; `late` has what was on its way then."""

    def __init__(self, inbox, layer):
        self._inbox, self._layer, self._call = inbox, layer, inbox._writer.call
        self.late, self.answers = [], 0

    async def lose(self, commands, seconds=None):
        """Run the commands, and lose their replies, but for the first `answers` calls."""
        replies = await self._call(commands, seconds)
        if self.answers:
            self.answers -= 1
            return replies
        await self.drop(commands)

    async def drop(self, commands, seconds=None):
        """Lose the commands. The next call finds a new connection."""
        self.late.extend(commands)
        self._inbox._writer.call = self._call
        await self._inbox._writer.close()
        raise self._layer.LayerUnavailable("no reply")

    async def run_late(self):
        """Have the commands run that were on their way. The store may only refuse them as too late."""
        loop = asyncio.get_event_loop()
        for command in self.late:
            try:
                await loop.run_in_executor(None, self._layer.store.servers.call, command)
            except self._layer.LayerUnavailable as error:
                if "sent again" not in str(error):
                    raise


class GatewayTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "lossy-gateway:", "heartbeat": 20, "lease": 60}
    total = 8

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.layer.flush)

    async def read(self, inbox, number):
        """The next so many messages, over failures, as the gateway reads."""
        batch = []
        while len(batch) < number:
            try:
                batch += await asyncio.wait_for(inbox.receive(), TIMEOUT)
            except self.layer.LayerUnavailable:
                pass
        return batch

    def check_reader(self, kind):
        async def check(fault):
            inbox = self.layer.open_inbox("gateway.a!")
            inbox._reader = LossyLink(inbox._reader, fault, self.layer.LayerUnavailable)
            try:
                got = []
                for number in range(self.total):
                    self.layer.send("gateway.a!1", {"number": number})
                    got += await self.read(inbox, 1)
                self.layer.send("gateway.a!1", {"last": True})
                got += await self.read(inbox, 1)
                return got
            finally:
                await inbox.close()

        expected = [("gateway.a!1", {"number": number}) for number in range(self.total)]
        expected.append(("gateway.a!1", {"last": True}))
        number, fault = 0, None
        while fault is None or fault.has_happened:
            number += 1
            fault = Fault(number, kind)
            with self.subTest(kind=kind, call=number):
                self.assertEqual(asyncio.run(check(fault)), expected)
        self.assertGreater(number, self.total)

    def test_a_lost_reply_to_a_read_loses_and_doubles_no_message(self):
        self.check_reader("lost")

    def test_an_old_reply_to_a_read_is_not_taken_twice(self):
        self.check_reader("old")

    def test_a_lost_reply_to_a_batch_is_reported_and_keeps_wills(self):
        """What a gateway sends is taken, or reported; its wills and discards are sent again."""

        async def check(fault):
            loop = asyncio.get_event_loop()
            inbox = self.layer.open_inbox("gateway.a!")
            self.layer.group_add("room", "gateway.a!1")
            inbox._writer = LossyLink(inbox._writer, fault, self.layer.LayerUnavailable)
            failed = []
            try:
                for number in range(4):
                    inbox.set_will(
                        "gateway.a!%d" % number, ("websocket.disconnect", {"number": number})
                    )
                    if number == 2:
                        inbox.clear_will("gateway.a!0")
                        inbox.group_discard("room", "gateway.a!1")
                    inbox.send(
                        "work.x", {"number": number}, lambda error, n=number: failed.append(n)
                    )
                    await self.idle(inbox)
                inbox.send("work.x", {"number": 4}, lambda error: failed.append(4))
                await self.idle(inbox)
                key = self.layer.store.keys.wills(inbox.gateway)
                wills = await loop.run_in_executor(
                    None, self.layer.store.servers.call, ("HKEYS", key)
                )
            finally:
                await inbox.close()
            return failed, wills

        number, fault = 0, None
        while fault is None or fault.has_happened:
            number += 1
            fault = Fault(number, "lost")
            with self.subTest(call=number):
                self.layer.flush()
                failed, wills = asyncio.run(check(fault))
                self.assertEqual(sorted(wills), [b"gateway.a!1", b"gateway.a!2", b"gateway.a!3"])
                self.assertEqual(len(failed), 1 if fault.has_happened else 0)
                self.assertEqual(self.layer.group_channels("room"), [])
                sent = []
                while True:
                    message = self.layer.receive_many(["work.x"])[1]
                    if message is None:
                        break
                    sent.append(message["number"])
                self.assertEqual(sent, [0, 1, 2, 3, 4])  # the double lets each command run
        self.assertGreater(number, 4)

    def test_what_never_arrived_is_sent_again_or_reported(self):
        async def check(fault):
            loop = asyncio.get_event_loop()
            inbox = self.layer.open_inbox("gateway.a!")
            self.layer.group_add("room", "gateway.a!1")
            inbox._writer = LossyLink(inbox._writer, fault, self.layer.LayerUnavailable)
            self.layer.store.send([Outgoing("gateway.a!1", b"gateway.a!1\n\xc1damaged")])
            self.layer.send("gateway.a!1", {"good": 1})
            failed = []
            try:
                while ("gateway.a!1", {"good": 1}) not in await self.read(inbox, 1):
                    pass
                inbox.set_will("gateway.a!2", ("websocket.disconnect", {}))
                inbox.group_discard("room", "gateway.a!1")
                inbox.send("work.x", {"number": 1}, failed.append)
                await self.idle(inbox)
                inbox.send("work.x", {"number": 2}, failed.append)
                await self.idle(inbox)
                key = self.layer.store.keys.wills(inbox.gateway)
                wills = await loop.run_in_executor(
                    None, self.layer.store.servers.call, ("HKEYS", key)
                )
                return len(failed), wills, self.layer.group_channels("room")
            finally:
                await inbox.close()

        for number in (1, 2):
            with self.subTest(call=number):
                self.layer.flush()
                failed, wills, members = asyncio.run(check(Fault(number, "unsent")))
                self.assertEqual((wills, members), ([b"gateway.a!2"], []))
                letters = self.layer.dead_letters()
                self.assertEqual([letter.reason for letter in letters], ["unreadable"])
                self.assertEqual(
                    failed + self.layer.channel_statistics("work.x")["messages_pending"], 2
                )

    def check_retries(self, before, after, partitions):
        """
        Have a batch run, or not, before its connection is lost, and have what is late run at the end. The
        gateway sends its events again. Return the set of whether the copies that arrive have the mark.
        """
        channels = ["work.x"] + ["reader?%d" % number for number in range(8)]

        async def check(layer):
            inbox = layer.open_inbox("gateway.a!")
            path, failed = LostPath(inbox, layer), []

            async def send(numbers, will, **more):
                for number in numbers:
                    event = {"reply_channel": "gateway.a!%d" % number, "event_id": number}
                    inbox.send(channels[number], dict(event, **more), failed.append)
                if will:
                    inbox.set_will("gateway.a!1", ("websocket.disconnect", {}))
                await self.idle(inbox)

            try:
                await send([], True)
                inbox._writer.call = path.lose if before else path.drop
                await send(range(len(channels)), True)
                self.assertEqual(len(failed), len(channels))
                # The reply to the question what was done is lost, too.
                inbox._writer.call = path.lose
                await send([0], False, redelivered="maybe")
                self.assertEqual(len(failed), len(channels) + 1)
                # And that to the batch which follows the answer: what was done is reported no more.
                del failed[:]
                path.answers = 1
                inbox._writer.call = path.lose
                await send(range(len(channels)), True, redelivered="maybe")
                self.assertEqual(len(failed), 0 if before else len(channels))
                inbox.clear_will("gateway.a!1")
                await send(range(len(failed)), False, redelivered="maybe")
                if after:
                    await path.run_late()
                wills = layer.store.keys.wills(inbox.gateway)
                self.assertEqual(layer.store.servers.call(("HLEN", wills)), 0)
            finally:
                await inbox.close()

        layer = self.make_layer(prefix="late:", partitions=partitions, heartbeat=20, lease=60)
        layer.flush()
        self.addCleanup(layer.flush)
        asyncio.run(check(layer))
        found = set()
        for channel in channels:
            found.add("redelivered" in layer.receive_many([channel])[1])
            self.assertIsNone(layer.receive_many([channel])[1])
        return found

    def test_an_event_that_is_sent_again_arrives_once(self):
        for partitions in (1, 4):
            with self.subTest("the reply was lost", partitions=partitions):
                self.assertEqual(self.check_retries(True, False, partitions), {False})
            with self.subTest("the command was lost", partitions=partitions):
                self.assertEqual(self.check_retries(False, False, partitions), {True})
            with self.subTest("the command came late", partitions=partitions):
                self.assertEqual(self.check_retries(False, True, partitions), {True})
            with self.subTest("the command came twice", partitions=partitions):
                self.assertEqual(self.check_retries(True, True, partitions), {False})

    def test_a_batch_that_was_reported_as_lost_is_refused_when_it_arrives(self):
        layer = self.make_layer(prefix="send-ids:")
        layer.flush()
        store, place = layer.store, layer.store.place("work.x")
        batch = store.keys.batch(place.partition, "gateway.a!|test")
        keys = [*store.keys.sending[place.partition], place.queue, place.wake]
        body = store.encode("work.x", {"n": 1})
        self.assertIsNone(store.servers.call(run("settle_batch", [batch], [1])))
        arguments = (batch, 1, -1, place.expiry, place.kind, "", body)
        with self.assertRaisesRegex(Exception, "sent again"):
            store.servers.call(run("send", keys, arguments))
        self.assertIsNone(layer.receive_many(["work.x"])[0])

    def test_an_event_that_a_full_channel_refused_is_sent_again(self):
        async def check(layer):
            inbox = layer.open_inbox("gateway.a!")
            failed = []

            async def send():
                for number in range(3):
                    event = {"reply_channel": "gateway.a!%d" % number, "event_id": 1}
                    inbox.send("work.x", event, failed.append)
                await self.idle(inbox)

            try:
                inbox._writer.call = LostPath(inbox, layer).lose
                await send()
                self.assertEqual(len(failed), 3)
                # Two were taken. One of them is handled now, so the third finds room.
                loop = asyncio.get_event_loop()
                await loop.run_in_executor(None, layer.receive_many, ["work.x"])
                await send()
                self.assertEqual(len(failed), 3)
            finally:
                await inbox.close()

        layer = self.make_layer(prefix="late:", channel_capacity={"work.*": 2})
        layer.flush()
        self.addCleanup(layer.flush)
        asyncio.run(check(layer))
        replies = [layer.receive_many(["work.x"])[1]["reply_channel"] for _ in range(2)]
        self.assertEqual(replies, ["gateway.a!1", "gateway.a!2"])

    async def idle(self, inbox):
        deadline = time.monotonic() + TIMEOUT
        while inbox._writing is not None:
            self.assertLess(time.monotonic(), deadline)
            await asyncio.sleep(0.001)


class SilentReaderTests(RedisLayerCase, unittest.TestCase):
    """A server that accepts, answers the greeting, and then says nothing more."""

    def test_a_read_without_a_reply_raises_at_its_deadline(self):
        layer = self.make_layer()
        link = layer.store.servers.link(blocks=True)

        async def check():
            try:
                with self.assertRaisesRegex(layer.LayerUnavailable, "no reply"):
                    # Redis waits longer than the reader: its reply is late.
                    await link.call([("BLPOP", "nothing-comes", 30)], 0.2 - LATE)
                self.assertIsNone(link._connection)
                # The next call is on a new connection, and gets its own reply.
                self.assertEqual(await link.call([("ECHO", "hello")]), [b"hello"])
                # An empty reply in time is not an error.
                self.assertEqual(await link.call([("BLPOP", "nothing-comes", 0.01)], 0.01), [None])
            finally:
                await link.close()

        asyncio.run(check())


class StalledServerTests(RedisLayerCase, unittest.TestCase):
    """A path that lets nothing pass, and closes nothing."""

    def setUp(self):
        self.proxy = Proxy(RedisServer.shared().port)
        self.addCleanup(self.proxy.close)
        self.layer = self.make_layer(
            hosts=["redis://127.0.0.1:%d" % self.proxy.port],
            prefix="stalled:",
            socket_timeout=0.5 * SCALE,
            socket_connect_timeout=0.5 * SCALE,
        )
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        self.addCleanup(self.proxy.resume)

    def test_no_reply_is_taken_for_another_one(self):
        for replies_only in (False, True):
            with self.subTest(replies_only=replies_only):
                self.layer.send("work.x", {"n": 1})
                self.proxy.stall(requests=not replies_only)
                for _ in range(3):
                    with self.assertRaises(self.layer.LayerUnavailable):
                        self.layer.claim("consumer", ["work.x"])
                self.proxy.resume()
                self.layer.send("work.x", {"n": 2})
                for n in (1, 2):
                    self.assertEqual(self.layer.claim("consumer", ["work.x"])[1], {"n": n})
                self.assertEqual(self.layer.claim("consumer", ["work.x"])[0], None)

    def test_idle_connections_are_given_up_with_the_one_that_was_lost(self):
        servers = self.layer.store.servers
        wires = [servers._take() for _ in range(4)]
        for wire in wires:
            servers._give(wire)
        self.proxy.stall()
        with self.assertRaises(self.layer.LayerUnavailable):
            self.layer.send("work.x", {})
        self.proxy.resume()
        self.layer.send("work.x", {})
        taken = servers._take()
        self.addCleanup(taken.connection.disconnect)
        self.assertNotIn(taken, wires)

    def test_a_silent_read_tells_since_when(self):
        async def check():
            inbox, ends = self.layer.open_inbox("gateway.a!"), []
            try:
                with mock.patch("asgi_redis.inbox.WAIT", 0.1), mock.patch(
                    "asgi_redis.direct.LATE", 0.2
                ):
                    self.layer.send("gateway.a!1", {"n": 1})
                    await inbox.receive()
                    self.assertIsNone(inbox.failing_since)
                    await asyncio.get_event_loop().run_in_executor(None, self.proxy.stall)
                    for _ in range(2):
                        with self.assertRaises(self.layer.LayerUnavailable):
                            await inbox.receive()
                        ends.append(time.monotonic())
                    self.assertLess(inbox.failing_since, ends[0])  # the first of the failures
                    self.proxy.resume()
                    self.layer.send("gateway.a!1", {"n": 2})
                    while inbox.failing_since is not None:
                        try:
                            await inbox.receive()
                        except self.layer.LayerUnavailable:
                            pass
            finally:
                await inbox.close()

        asyncio.run(asyncio.wait_for(check(), 3 * TIMEOUT))

    def test_what_waits_behind_a_silent_batch_fails_with_it(self):
        async def check():
            inbox = self.layer.open_inbox("gateway.a!")
            failed = []
            try:
                inbox.send("work.x", {"n": 0}, failed.append)
                while inbox._writing is not None:
                    await asyncio.sleep(0.001)
                self.proxy.stall()
                inbox.send("work.x", {"n": 1}, failed.append)
                await asyncio.sleep(0)  # the batch is on its way
                inbox.send("work.x", {"n": 2}, failed.append)
                inbox.set_will("gateway.a!1", ("work.x", {"will": 1}))
                while not failed:
                    await asyncio.sleep(0.001)
                count = len(failed)
                self.proxy.resume()
                inbox._schedule()
                while inbox._work:
                    await asyncio.sleep(0.001)
                return count
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(asyncio.wait_for(check(), TIMEOUT)), 2)

    def test_a_stalled_reader_gets_each_message_once_in_order(self):
        async def check():
            loop = asyncio.get_event_loop()
            sender = self.make_layer(prefix="stalled:")
            inbox = self.layer.open_inbox("gateway.a!")
            found = []
            with mock.patch("asgi_redis.inbox.WAIT", 0.1), mock.patch(
                "asgi_redis.direct.LATE", 0.2
            ):
                try:
                    for number in range(20):
                        if number in (5, 12):
                            await loop.run_in_executor(None, self.proxy.stall, number == 5)
                        sender.send("gateway.a!1", {"n": number})
                        if number in (8, 15):
                            await self.fails(inbox)
                            await loop.run_in_executor(None, self.proxy.resume)
                    while len(found) < 20:
                        try:
                            found += await inbox.receive()
                        except self.layer.LayerUnavailable:
                            pass
                finally:
                    await inbox.close()
            return [message["n"] for _, message in found]

        self.assertEqual(asyncio.run(asyncio.wait_for(check(), 3 * TIMEOUT)), list(range(20)))

    async def fails(self, inbox):
        """Read until a read fails. What was read before goes back."""
        before = []
        while True:
            try:
                before += await inbox.receive()
            except self.layer.LayerUnavailable:
                inbox._ready = before + inbox._ready
                return

    def test_a_server_that_is_no_primary_any_more_is_left(self):
        server, other = RedisServer().start(), RedisServer().start()
        self.addCleanup(server.stop)
        self.addCleanup(other.stop)
        layer = self.make_layer(hosts=[server.url])
        layer.send("work.x", {})
        wire = layer.store.servers._take()
        layer.store.servers._give(wire)

        async def check():
            link = layer.store.servers.link(blocks=True)
            try:
                await link.connect()
                waiting = asyncio.ensure_future(link.call([("BLPOP", "nothing", 60)], 60))
                client = server.client()
                while not any(each["cmd"] == "blpop" for each in client.client_list()):
                    await asyncio.sleep(0.01)
                client.replicaof("127.0.0.1", other.port)
                with self.assertRaises(layer.LayerUnavailable):
                    await asyncio.wait_for(waiting, TIMEOUT)
                self.assertIsNone(link._connection)
            finally:
                await link.close()

        asyncio.run(check())
        with self.assertRaisesRegex(layer.LayerUnavailable, "read-only replica"):
            layer.send("work.x", {})
        self.assertIsNone(wire.connection._sock)


class RedisPyWayTests(StalledServerTests):
    """The same where redis-py sends and reads itself: without hiredis, or for Sentinel."""

    def setUp(self):
        without = mock.patch("asgi_redis.wire.pack_command", None)
        without.start()
        self.addCleanup(without.stop)
        super().setUp()

"""
The conformance suite of channel layers: a test for each promise of `layers/base.py`.

For people who write a layer: inherit `LayerConformance` beside `unittest.TestCase`, and define
`make_layer`. Tests of extensions that the layer does not declare are skipped.
"""

import asyncio
import os
import threading
import time

from ..exceptions import ChannelFull, InvalidChannelName, InvalidMessage, MessageTooLarge
from ..layers.names import MAX_NAME_LENGTH
from ..protocol import EVENT_ID

#: Seconds within which what must happen has happened; scaled for slow machines.
TIMEOUT = 10 * float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

#: Seconds in which what must not happen is given a chance to.
MOMENT = 0.05


class LayerConformance:
    """Tests to inherit, beside `unittest.TestCase`. `self.layer` is empty before each of them."""

    #: What `expiry` the layer can tell apart, in seconds.
    shortest_expiry = 1

    #: Config with which the layer does soon what it else does with its heartbeat.
    busy = {}

    def make_layer(self, **config):
        """A new layer over the same store, with `config` (those of BaseChannelLayer) besides."""
        raise NotImplementedError("Define make_layer(**config) to return a layer.")

    def setUp(self):
        super().setUp()
        self.layer = self.make_layer()
        if "flush" in self.layer.extensions:
            self.layer.flush()

    def need(self, extension):
        if extension not in self.layer.extensions:
            self.skipTest("%s has no %r" % (type(self.layer).__name__, extension))

    def receive(self, *channels, layer=None):
        """The next message of `channels`, waited for; fails without one."""
        found = until(lambda: _something((layer or self.layer).receive_many(channels, block=True)))
        self.assertIsNotNone(found, "nothing came on %s" % ", ".join(channels))
        return found

    def assertNothing(self, *channels):
        self.assertEqual(self.layer.receive_many(list(channels)), (None, None))

    # Sending and receiving.

    def test_a_message_comes_out_as_it_went_in(self):
        message = {
            "text": "gr\u00fc\u00df dich \U0001f600",
            "bytes": b"\x00\xff\xfe",
            "number": 42,
            "negative": -(2**63),
            "large": 2**63 - 1,
            "float": 1.5,
            "true": True,
            "false": False,
            "none": None,
            "list": [1, [b"two", "three"], {}],
            "dict": {"a": {"b": []}},
            "empty": "",
        }
        self.layer.send("test.types", message)
        channel, received = self.receive("test.types")
        self.assertEqual(channel, "test.types")
        self.assertEqual(received, message)
        self.assertIs(type(received["bytes"]), bytes)
        self.assertIs(received["true"], True)

    def test_a_tuple_becomes_a_list(self):
        self.layer.send("test.types", {"pair": (1, (2, 3))})
        self.assertEqual(self.receive("test.types")[1], {"pair": [1, [2, 3]]})

    def test_nothing_there_is_told_by_none(self):
        self.assertNothing("test.empty")
        self.assertEqual(self.layer.receive(["test.empty"]), (None, None))

    def test_messages_of_a_channel_come_in_order_and_once(self):
        for number in range(50):
            self.layer.send("test.order", {"number": number})
        numbers = [self.receive("test.order")[1]["number"] for _ in range(50)]
        self.assertEqual(numbers, list(range(50)))
        self.assertNothing("test.order")

    def test_the_sender_may_change_its_message_afterwards(self):
        message = {"list": [1]}
        self.layer.send("test.copy", message)
        message["list"].append(2)
        self.assertEqual(self.receive("test.copy")[1], {"list": [1]})

    def test_a_blocking_receive_is_woken(self):
        found = []
        thread = threading.Thread(
            target=lambda: found.append(self.receive("test.other", "test.wake"))
        )
        thread.start()
        self.layer.send("test.wake", {"hello": "there"})
        thread.join(TIMEOUT)
        self.assertEqual(found, [("test.wake", {"hello": "there"})])

    def test_a_blocking_receive_ends_by_itself(self):
        self.layer.block_for = MOMENT
        self.assertEqual(self.layer.receive_many(["test.empty"], block=True), (None, None))

    def test_no_channel_starves(self):
        for _ in range(30):
            self.layer.send("test.loud", {})
        self.layer.send("test.quiet", {})
        seen = [self.receive("test.loud", "test.quiet")[0] for _ in range(10)]
        self.assertIn("test.quiet", seen)

    def test_many_readers_get_each_message_once(self):
        total, seen, lock = 200, [], threading.Lock()
        layer = self.make_layer(capacity=total)

        def read():
            while True:
                _, message = layer.receive_many(["test.shared"], block=True)
                if message is None or "stop" in message:
                    return
                with lock:
                    seen.append(message["number"])

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(total):
            self._send_when_there_is_room(layer, "test.shared", {"number": number})
        for _ in readers:
            self._send_when_there_is_room(layer, "test.shared", {"stop": True})
        for reader in readers:
            reader.join(TIMEOUT)
        self.assertEqual(sorted(seen), list(range(total)))

    def test_many_senders_lose_nothing(self):
        def send(sender):
            for number in range(25):
                self.layer.send("test.senders", {"sender": sender, "number": number})

        senders = [threading.Thread(target=send, args=(each,)) for each in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(TIMEOUT)
        received = [self.receive("test.senders")[1] for _ in range(100)]
        for sender in range(4):
            numbers = [each["number"] for each in received if each["sender"] == sender]
            self.assertEqual(numbers, list(range(25)))

    def _send_when_there_is_room(self, layer, channel, message):
        def send():
            try:
                layer.send(channel, message)
            except ChannelFull:
                return False
            return True

        self.assertTrue(until(send), "no room on %s" % channel)

    # What is refused.

    def test_what_is_no_message_is_refused_by_the_name_of_its_key(self):
        for message, key in (
            ({"when": object()}, "when"),
            ({"numbers": {1, 2}}, "numbers"),
            ({"outer": {"inner": [1, object()]}}, "outer.inner[1]"),
            ({"big": 2**63}, "big"),
            ({"surrogate": "\ud800"}, "surrogate"),
            ({"outer": {7: "text"}}, "outer"),
        ):
            with self.subTest(key=key):
                with self.assertRaises(InvalidMessage) as caught:
                    self.layer.send("test.bad", message)
                self.assertIn(key, str(caught.exception))
        with self.assertRaises(InvalidMessage):
            self.layer.send("test.bad", ["not", "a", "dict"])
        self.assertNothing("test.bad")

    def test_a_message_over_a_megabyte_is_refused(self):
        self.layer.send("test.large", {"text": "x" * (1000 * 1000)})
        for message in ({"text": "x" * (1024 * 1024 + 1)}, {"bytes": b"x" * (1024 * 1024 + 1)}):
            with self.assertRaises(MessageTooLarge):
                self.layer.send("test.large", message)
        self.assertEqual(len(self.receive("test.large")[1]["text"]), 1000 * 1000)
        self.assertNothing("test.large")

    def test_bad_channel_names_are_refused(self):
        bad = ("", "with space", "slash/slash", "umlaut.\u00fc", "two!two!", "one!two?")
        for name in bad + ("x" * (MAX_NAME_LENGTH + 1), b"bytes", None, "new\n"):
            with self.subTest(name=name):
                with self.assertRaises(InvalidChannelName):
                    self.layer.send(name, {})
                with self.assertRaises(InvalidChannelName):
                    self.layer.receive_many([name])
        self.layer.send("x" * MAX_NAME_LENGTH, {})
        self.receive("x" * MAX_NAME_LENGTH)

    # Capacity and expiry.

    def test_a_full_channel_is_told(self):
        layer = self.make_layer(capacity=3)
        for _ in range(3):
            layer.send("test.capacity", {})
        with self.assertRaises(ChannelFull):
            layer.send("test.capacity", {})
        with self.assertRaises(layer.ChannelFull):
            layer.send("test.capacity", {})
        layer.send("test.other", {})
        self.receive("test.capacity", layer=layer)
        layer.send("test.capacity", {})

    def test_capacity_goes_by_name_pattern(self):
        layer = self.make_layer(capacity=5, channel_capacity={"test.s*": 1})
        layer.send("test.small", {})
        with self.assertRaises(ChannelFull):
            layer.send("test.small", {})
        layer.send("test.large", {})
        layer.send("test.large", {})

    def test_messages_expire(self):
        layer = self.make_layer(
            expiry=self.shortest_expiry, channel_expiry={"test.kept": 60}, capacity=1
        )
        layer.send("test.expiry", {"old": True})
        layer.send("test.kept", {"kept": True})
        # Room for another is there when the first has expired, and not before.
        with self.assertRaises(ChannelFull):
            layer.send("test.expiry", {"new": True})
        self._send_when_there_is_room(layer, "test.expiry", {"new": True})
        self.assertEqual(self.receive("test.expiry", layer=layer)[1], {"new": True})
        self.assertEqual(self.receive("test.kept", layer=layer)[1], {"kept": True})

    # Process-local and single-reader channels.

    def test_new_channels_have_new_names(self):
        for pattern in ("test.local!", "test.single?", "prefix.x!"):
            names = {self.layer.new_channel(pattern) for _ in range(20)}
            self.assertEqual(len(names), 20)
            for name in names:
                self.assertTrue(name.startswith(pattern) and len(name) > len(pattern), name)
        for pattern in ("test.plain", "test!x", ""):
            with self.assertRaises(InvalidChannelName):
                self.layer.new_channel(pattern)

    def test_a_single_reader_channel_carries_messages(self):
        name = self.layer.new_channel("test.single?")
        self.layer.send(name, {"part": 1})
        self.layer.send(name, {"part": 2})
        self.assertEqual(self.receive(name), (name, {"part": 1}))
        self.assertEqual(self.receive(name), (name, {"part": 2}))

    def test_process_local_channels_are_received_by_their_prefix(self):
        first, second = (self.layer.new_channel("test.local!") for _ in range(2))
        self.layer.send(first, {"number": 1})
        self.layer.send(second, {"number": 2})
        self.assertEqual(self.receive("test.local!"), (first, {"number": 1}))
        self.assertEqual(self.receive("test.local!"), (second, {"number": 2}))
        self.assertNothing("test.local!")

    # Groups.

    def test_a_group_reaches_its_members(self):
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        self.layer.group_add("test-group", "test.two")
        self.assertEqual(sorted(self.layer.group_channels("test-group")), ["test.one", "test.two"])
        self.layer.send_group("test-group", {"value": "orange"})
        self.assertEqual(self.receive("test.one")[1], {"value": "orange"})
        self.assertEqual(self.receive("test.two")[1], {"value": "orange"})
        self.assertNothing("test.one", "test.two")

    def test_who_left_a_group_gets_nothing(self):
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        self.layer.group_discard("test-group", "test.one")
        self.layer.group_discard("test-group", "test.never")
        self.layer.group_discard("no-group", "test.one")
        self.layer.send_group("test-group", {})
        self.receive("test.two")
        self.assertNothing("test.one")
        self.assertEqual(self.layer.group_channels("test-group"), ["test.two"])
        self.assertEqual(self.layer.group_channels("no-group"), [])

    def test_a_full_member_holds_up_nobody(self):
        self.need("groups")
        layer = self.make_layer(capacity=1)
        layer.group_add("test-group", "test.full")
        layer.group_add("test-group", "test.free")
        layer.send("test.full", {"first": True})
        layer.send_group("test-group", {"second": True})
        self.assertEqual(self.receive("test.free", layer=layer)[1], {"second": True})
        self.assertEqual(self.receive("test.full", layer=layer)[1], {"first": True})
        self.assertNothing("test.full")
        self.assertEqual(layer.statistics().get("group_full"), 1)

    def test_a_bad_group_send_is_refused(self):
        self.need("groups")
        for name in ("", "with space", "bang!", "question?", "x" * (MAX_NAME_LENGTH + 1), None):
            with self.subTest(name=name):
                with self.assertRaises(InvalidChannelName):
                    self.layer.send_group(name, {})
                with self.assertRaises(InvalidChannelName):
                    self.layer.group_add(name, "test.one")
        with self.assertRaises(InvalidMessage):
            self.layer.send_group("test-group", {"bad": object()})
        with self.assertRaises(MessageTooLarge):
            self.layer.send_group("test-group", {"text": "x" * (1024 * 1024 + 1)})

    # Flush and statistics.

    def test_flush_empties_the_layer(self):
        self.need("flush")
        self.layer.send("test.flush", {})
        if "groups" in self.layer.extensions:
            self.layer.group_add("test-group", "test.flush")
        self.layer.flush()
        self.assertNothing("test.flush")
        if "groups" in self.layer.extensions:
            self.assertEqual(self.layer.group_channels("test-group"), [])

    def test_statistics_tell_what_waits(self):
        self.need("statistics")
        self.layer.send("test.statistics", {})
        self.layer.send("test.statistics", {})
        self.layer.send("test.others", {})
        self.assertEqual(self.layer.channel_statistics("test.statistics")["messages_pending"], 2)
        self.assertEqual(self.layer.channel_statistics("test.none")["messages_pending"], 0)
        everything = self.layer.global_statistics()
        self.assertEqual(everything["messages_pending"], 3)
        self.assertGreaterEqual(everything["messages_max_age"], 0)

    # Acknowledgement.

    def test_what_is_claimed_is_nobody_elses(self):
        self.need("acknowledgement")
        self.layer.send("test.claim", {"number": 1})
        self.layer.send("test.claim", {"number": 2})
        self.assertEqual(self._claim("slot-a"), {"number": 1})
        self.assertEqual(self._claim("slot-b"), {"number": 2})
        self.assertEqual(self.layer.claim("slot-c", ["test.claim"]), (None, None))
        self.layer.acknowledge("slot-a")
        self.layer.acknowledge("slot-a")
        self.layer.requeue("slot-a")
        self.assertEqual(self.layer.claim("slot-c", ["test.claim"]), (None, None))

    def test_the_next_claim_acknowledges_the_last(self):
        self.need("acknowledgement")
        self.layer.send("test.claim", {"number": 1})
        self._claim("slot-a")
        self.assertEqual(self.layer.claim("slot-a", ["test.claim"]), (None, None))
        self.layer.requeue("slot-a")
        self.assertNothing("test.claim")

    def test_a_released_message_is_the_next(self):
        self.need("acknowledgement")
        for number in (1, 2):
            self.layer.send("test.claim", {"number": number})
        self._claim("slot-a")
        self.layer.requeue("slot-a")
        self.assertEqual(self._claim("slot-b")["number"], 1)
        self.assertEqual(self._claim("slot-b")["number"], 2)

    def test_a_waiting_claim_can_be_woken(self):
        self.need("acknowledgement")
        self.layer.block_for = TIMEOUT
        ended = threading.Event()

        def claim():
            self.layer.claim("slot-a", ["test.claim"], block=True)
            ended.set()

        thread = threading.Thread(target=claim)
        thread.start()
        self.layer.wake("slot-a")
        self.assertTrue(ended.wait(TIMEOUT))
        thread.join()

    def _claim(self, slot):
        return until(lambda: self.layer.claim(slot, ["test.claim"], block=True)[1])

    # Delay.

    def test_a_message_can_be_sent_later(self):
        self.need("delay")
        began = time.monotonic()
        self.layer.send_later("test.delay", {"number": 2}, 0.3)
        self.layer.send_later("test.delay", {"number": 1}, 0.1)
        self.assertNothing("test.delay")
        self.assertEqual(self.receive("test.delay")[1], {"number": 1})
        self.assertGreaterEqual(time.monotonic() - began, 0.1)
        self.assertEqual(self.receive("test.delay")[1], {"number": 2})
        self.assertGreaterEqual(time.monotonic() - began, 0.3)

    # The inbox.

    def run_in_inbox(self, function):
        """Run the coroutine function `function(inbox)` in an event loop, with an open inbox."""
        self.need("inbox")

        async def run():
            inbox = self.layer.open_inbox("test.inbox!")
            try:
                return await asyncio.wait_for(function(inbox), TIMEOUT)
            finally:
                await inbox.close()

        return asyncio.run(run())

    async def read(self, inbox, number):
        """The next `number` entries of the inbox."""
        entries = []
        while len(entries) < number:
            entries += await asyncio.wait_for(inbox.receive(), TIMEOUT)
        self.assertEqual(len(entries), number, entries)
        return entries

    def test_an_inbox_gives_what_was_sent_in_order(self):
        async def check(inbox):
            sent = [("test.inbox!%d" % (number % 3), {"number": number}) for number in range(50)]
            for channel, message in sent:
                self.layer.send(channel, message)
            self.assertEqual(await self.read(inbox, 50), sent)

        self.run_in_inbox(check)

    def test_an_inbox_is_woken_from_another_thread(self):
        async def check(inbox):
            thread = threading.Timer(MOMENT, self.layer.send, ("test.inbox!a", {"from": "afar"}))
            thread.start()
            self.assertEqual(await self.read(inbox, 1), [("test.inbox!a", {"from": "afar"})])
            thread.join()

        self.run_in_inbox(check)

    def test_a_cancelled_read_of_an_inbox_loses_nothing(self):
        async def check(inbox):
            for number in range(20):
                read = asyncio.ensure_future(inbox.receive())
                await asyncio.sleep(0)
                if number % 2:
                    await asyncio.sleep(0.005)
                self.layer.send("test.inbox!a", {"number": number})
                read.cancel()
                try:
                    entries = await read
                except asyncio.CancelledError:
                    entries = await self.read(inbox, 1)
                self.assertEqual(entries, [("test.inbox!a", {"number": number})])

        self.run_in_inbox(check)

    def test_a_repeated_read_of_an_inbox_gives_each_message_once(self):
        async def check(inbox):
            reads = [asyncio.ensure_future(inbox.receive()) for _ in range(2)]
            await asyncio.sleep(MOMENT)
            self.layer.send("test.inbox!a", {"number": 1})
            done, pending = await asyncio.wait(
                reads, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            self.layer.send("test.inbox!a", {"number": 2})
            await asyncio.wait(pending, timeout=TIMEOUT)
            entries = [entry for read in reads for entry in read.result()]
            self.assertEqual(sorted(entry[1]["number"] for entry in entries), [1, 2])

        self.run_in_inbox(check)

    def test_an_inbox_sends(self):
        async def check(inbox):
            failures = []
            for number in range(3):
                inbox.send("test.out", {"number": number}, failures.append)
            loop = asyncio.get_event_loop()
            for number in range(3):
                _, message = await loop.run_in_executor(None, self.receive, "test.out")
                self.assertEqual(message, {"number": number})
            self.assertEqual(failures, [])

        self.run_in_inbox(check)

    def test_an_inbox_is_told_of_a_full_channel(self):
        self.layer = self.make_layer(capacity=1)

        async def check(inbox):
            failed = asyncio.get_event_loop().create_future()
            inbox.send("test.full", {}, failed.set_result)
            inbox.send("test.full", {}, failed.set_result)
            error = await asyncio.wait_for(failed, TIMEOUT)
            self.assertIsInstance(error, ChannelFull)

        self.run_in_inbox(check)

    def test_an_inbox_is_told_of_a_request_that_expires_unread(self):
        self.layer = self.make_layer(expiry=self.shortest_expiry, **self.busy)

        async def check(inbox):
            failures = []
            for number in (1, 2):
                request = {"reply_channel": "test.inbox!%d" % number, EVENT_ID: 0}
                inbox.send("http.request", request, failures.append)
            told = [("test.inbox!%d" % number, {"lost": 0}) for number in (1, 2)]
            self.assertEqual(sorted(await self.read(inbox, 2)), told)
            self.assertEqual(failures, [])
            self.assertNothing("http.request")

        self.run_in_inbox(check)

    def test_an_inbox_gets_a_group_message_once_however_many_members(self):
        self.need("groups")

        async def check(inbox):
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.group_add("test-group", "test.inbox!b")
            self.layer.group_add("test-group", "test.outside")
            self.layer.send_group("test-group", {"hello": "all"})
            self.assertEqual(
                await self.read(inbox, 3),
                [
                    ("test.inbox!a", {"group_add": "test-group"}),
                    ("test.inbox!b", {"group_add": "test-group"}),
                    ("test.inbox!", {"group": "test-group", "message": {"hello": "all"}}),
                ],
            )
            self.assertEqual(
                sorted(self.layer.group_channels("test-group")),
                ["test.inbox!a", "test.inbox!b", "test.outside"],
            )
            self.assertEqual(self.receive("test.outside")[1], {"hello": "all"})

        self.run_in_inbox(check)

    def test_leaving_a_group_stands_in_the_inbox_in_its_place(self):
        self.need("groups")

        async def check(inbox):
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.send_group("test-group", {"number": 1})
            self.layer.group_discard("test-group", "test.inbox!a")
            self.layer.send_group("test-group", {"number": 2})
            self.layer.send("test.inbox!a", {"last": True})
            self.assertEqual(
                await self.read(inbox, 4),
                [
                    ("test.inbox!a", {"group_add": "test-group"}),
                    ("test.inbox!", {"group": "test-group", "message": {"number": 1}}),
                    ("test.inbox!a", {"group_discard": "test-group"}),
                    ("test.inbox!a", {"last": True}),
                ],
            )

        self.run_in_inbox(check)

    def test_a_gateway_takes_its_members_out_of_groups(self):
        self.need("groups")

        async def check(inbox):
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.group_add("test-group", "test.inbox!b")
            inbox.group_discard("test-group", "test.inbox!a")
            await self._until(lambda: self.layer.group_channels("test-group") == ["test.inbox!b"])

        self.run_in_inbox(check)
        self.assertEqual(self.layer.group_channels("test-group"), [])

    async def _until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it did not come about")
            await asyncio.sleep(0.005)

    # Processes.

    def test_a_forked_process_sends(self):
        if not self.layer.crosses_processes:
            self.skipTest("%s lives in one process" % type(self.layer).__name__)
        self.layer.send("test.fork", {"from": "parent"})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.layer.send("test.fork", {"from": "child"})
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.receive("test.fork")[1], {"from": "parent"})
        self.assertEqual(self.receive("test.fork")[1], {"from": "child"})


def until(condition):
    """The first true result of `condition()` within TIMEOUT seconds, or the last, false, one."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        result = condition()
        if result or time.monotonic() > deadline:
            return result
        time.sleep(0.005)


def _something(found):
    return found if found[1] is not None else None

"""The conformance suite's tests of sending and receiving, of names, capacity and expiry."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import ChannelFull, InvalidChannelName, InvalidMessage, MessageTooLarge
from ...layers.names import MAX_NAME_LENGTH
from ...protocol import EVENT_CHANNELS, EVENT_ID, HTTP_REQUEST, REPLY_CHANNEL, ack, lost
from .case import MOMENT, LayerCase

if TYPE_CHECKING:
    from ...layers.base import Message

#: The id of a consumer.
CONSUMER = "test-consumer"


class MessageTests(LayerCase):
    """Messages arrive once, in order and unchanged; what no layer carries is refused."""

    def test_a_message_comes_out_as_it_went_in(self) -> None:
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

    def test_a_tuple_becomes_a_list(self) -> None:
        self.layer.send("test.types", {"pair": (1, (2, 3))})
        self.assertEqual(self.receive("test.types")[1], {"pair": [1, [2, 3]]})

    def test_an_empty_channel_gives_none(self) -> None:
        self.assertNothing("test.empty")
        self.assertEqual(self.layer.receive(["test.empty"]), (None, None))

    def test_messages_of_a_channel_come_in_order_and_once(self) -> None:
        for number in range(50):
            self.layer.send("test.order", {"number": number})
        numbers = [self.receive("test.order")[1]["number"] for _ in range(50)]
        self.assertEqual(numbers, list(range(50)))
        self.assertNothing("test.order")

    def test_several_messages_are_delivered_at_once(self) -> None:
        self.layer.deliver_all([("test.%d" % (n % 2), {"number": n}) for n in range(6)])
        for channel in range(2):
            numbers = [self.receive("test.%d" % channel)[1]["number"] for _ in range(3)]
            self.assertEqual(numbers, [channel, channel + 2, channel + 4])

    def test_the_sender_may_change_its_message_afterwards(self) -> None:
        message = {"list": [1]}
        self.layer.send("test.copy", message)
        message["list"].append(2)
        self.assertEqual(self.receive("test.copy")[1], {"list": [1]})

    def test_a_blocking_receive_is_woken(self) -> None:
        self.layer.block_for = 4 * self.timeout
        found: list[Any] = []
        channels = ["test.other", "test.wake"]
        thread = self.start_reader(
            lambda: found.append(self.layer.receive_many(channels, block=True))
        )
        self.layer.send("test.wake", {"hello": "there"})
        thread.join(self.timeout)
        self.assertEqual(found, [("test.wake", {"hello": "there"})])

    def test_a_blocking_receive_waits_and_ends_by_itself(self) -> None:
        self.layer.block_for = MOMENT
        began = time.monotonic()
        self.assertEqual(self.layer.receive_many(["test.empty"], block=True), (None, None))
        self.assertGreater(time.monotonic() - began, MOMENT / 2)

    def test_a_reader_that_gave_up_takes_no_wake_up_of_another(self) -> None:
        layer = self.make_patient_layer()
        patience, layer.block_for = layer.block_for, 0.01
        self.assertEqual(layer.receive_many(["test.wake"], block=True), (None, None))
        layer.send("test.wake", {"number": 1})
        self.assertEqual(self.receive("test.wake", layer=layer)[1], {"number": 1})
        layer.block_for = patience
        found: list[Any] = []
        thread = self.start_reader(
            lambda: found.append(layer.receive_many(["test.wake"], block=True))
        )
        layer.send("test.wake", {"number": 2})
        thread.join(self.timeout)
        self.assertEqual(found, [("test.wake", {"number": 2})])

    def test_no_channel_starves(self) -> None:
        for _ in range(30):
            self.layer.send("test.loud", {})
        self.layer.send("test.quiet", {})
        seen = [self.receive("test.loud", "test.quiet")[0] for _ in range(10)]
        self.assertIn("test.quiet", seen)

    def test_many_readers_get_each_message_once(self) -> None:
        total, seen, lock = 200, [], threading.Lock()
        layer = self.make_layer(capacity=total)

        def read() -> None:
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
            self.send_when_there_is_room(layer, "test.shared", {"number": number})
        for _ in readers:
            self.send_when_there_is_room(layer, "test.shared", {"stop": True})
        for reader in readers:
            reader.join(self.timeout)
        self.assertEqual(sorted(seen), list(range(total)))

    def test_many_senders_lose_nothing(self) -> None:
        def send(sender: int) -> None:
            for number in range(25):
                self.layer.send("test.senders", {"sender": sender, "number": number})

        senders = [threading.Thread(target=send, args=(each,)) for each in range(4)]
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join(self.timeout)
        received = [self.receive("test.senders")[1] for _ in range(100)]
        for sender in range(4):
            numbers = [each["number"] for each in received if each["sender"] == sender]
            self.assertEqual(numbers, list(range(25)))

    # What is refused.

    def test_an_invalid_message_is_refused_with_the_name_of_its_key(self) -> None:
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
        not_a_dict: Any = ["not", "a", "dict"]
        with self.assertRaises(InvalidMessage):
            self.layer.send("test.bad", not_a_dict)
        self.assertNothing("test.bad")

    def test_a_message_over_a_megabyte_is_refused(self) -> None:
        self.layer.send("test.large", {"text": "x" * (1000 * 1000)})
        for message in ({"text": "x" * (1024 * 1024 + 1)}, {"bytes": b"x" * (1024 * 1024 + 1)}):
            with self.assertRaises(MessageTooLarge):
                self.layer.send("test.large", message)
        self.assertEqual(len(self.receive("test.large")[1]["text"]), 1000 * 1000)
        self.assertNothing("test.large")

    def test_bad_channel_names_are_refused(self) -> None:
        bad: Any = ("", "with space", "slash/slash", "umlaut.\u00fc", "two!two!", "one!two?")
        for name in bad + ("x" * (MAX_NAME_LENGTH + 1), b"bytes", None, "new\n"):
            with self.subTest(name=name):
                with self.assertRaises(InvalidChannelName):
                    self.layer.send(name, {})
                for read in self.readers():
                    with self.assertRaises(InvalidChannelName):
                        read([name])
        self.layer.send("x" * MAX_NAME_LENGTH, {})
        self.receive("x" * MAX_NAME_LENGTH)

    def readers(self) -> list[Callable[[Any], Any]]:
        """Return the calls that take a list of channels."""
        return [
            self.layer.receive_many,
            lambda channels: self.layer.claim(CONSUMER, channels),
        ]

    def test_a_name_of_another_type_is_refused_by_every_call_that_takes_one(self) -> None:
        layer = self.layer
        calls: list[Callable[[Any], Any]] = [
            lambda name: layer.send(name, {}),
            lambda name: layer.receive_many([name]),
            lambda name: layer.claim(CONSUMER, [name]),
            layer.new_channel,
        ]
        if "statistics" in layer.extensions:
            calls.append(layer.channel_statistics)
        if "delay" in layer.extensions:
            calls.append(lambda name: layer.send_later(name, {}, 1))
        if "groups" in layer.extensions:
            calls += [
                lambda name: layer.group_add(name, "test.a"),
                lambda name: layer.group_add("test", name),
                lambda name: layer.group_discard(name, "test.a"),
                lambda name: layer.group_discard("test", name),
                lambda name: layer.send_group(name, {}),
                layer.group_channels,
            ]
        names: Any = (None, 1, True, 1.5, b"a", [], ["a"], {}, {"a"}, ("a",), 10**5000, object())
        for number, call in enumerate(calls):
            for name in names:
                with self.subTest(call=number, name=type(name)):
                    self.assertRaises(InvalidChannelName, call, name)

    def test_what_is_not_a_list_of_channels_is_refused(self) -> None:
        self.layer.send("t", {})
        for read in self.readers():
            for channels in ("t", "test", b"test", None, 1, object()):
                with self.subTest(channels=channels):
                    with self.assertRaisesRegex(InvalidChannelName, "list of names"):
                        read(channels)
            self.assertEqual(read([]), (None, None))
        self.assertEqual(self.receive("t"), ("t", {}))

    # Process-local and single-reader channels.

    def test_new_channels_have_new_names(self) -> None:
        for pattern in ("test.local!", "test.single?", "prefix.x!"):
            names = {self.layer.new_channel(pattern) for _ in range(20)}
            self.assertEqual(len(names), 20)
            for name in names:
                self.assertTrue(name.startswith(pattern) and len(name) > len(pattern), name)
        for pattern in ("test.plain", "test!x", ""):
            with self.assertRaises(InvalidChannelName):
                self.layer.new_channel(pattern)

    def test_a_single_reader_channel_carries_messages(self) -> None:
        name = self.layer.new_channel("test.single?")
        self.layer.send(name, {"part": 1})
        self.layer.send(name, {"part": 2})
        self.assertEqual(self.receive(name), (name, {"part": 1}))
        self.assertEqual(self.receive(name), (name, {"part": 2}))

    def test_process_local_channels_are_received_by_their_prefix(self) -> None:
        first, second = (self.layer.new_channel("test.local!") for _ in range(2))
        self.layer.send(first, {"number": 1})
        self.layer.send(second, {"number": 2})
        self.assertEqual(self.receive("test.local!"), (first, {"number": 1}))
        self.assertEqual(self.receive("test.local!"), (second, {"number": 2}))
        self.assertNothing("test.local!")

    def test_one_process_local_channel_is_received_by_its_full_name(self) -> None:
        first, second = (self.layer.new_channel("test.local!") for _ in range(2))
        self.layer.send(first, {"number": 1})
        self.layer.send(second, {"number": 2})
        self.assertEqual(self.receive(second), (second, {"number": 2}))
        self.assertNothing(second)
        self.assertEqual(self.receive(first), (first, {"number": 1}))


class ExpiryTests(LayerCase):
    """A channel holds as many messages as its capacity, each until it expires."""

    def test_a_full_channel_refuses_messages(self) -> None:
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

    def test_capacity_goes_by_name_pattern(self) -> None:
        layer = self.make_layer(capacity=5, channel_capacity={"test.s*": 1})
        layer.send("test.small", {})
        with self.assertRaises(ChannelFull):
            layer.send("test.small", {})
        layer.send("test.large", {})
        layer.send("test.large", {})

    def test_options_out_of_range_are_refused_by_name(self) -> None:
        no_number: list[Any] = [float("nan"), float("inf"), 0, -1, True, "5", 10**400, []]
        for name, bad in (
            ("expiry", [*no_number, None]),
            ("group_expiry", [*no_number, None]),
            ("capacity", [*no_number[:6], None, 2.5]),
            ("channel_expiry", [[], 5, {"test.*": 0}, {"test.*": float("nan")}, {5: 5}]),
            ("channel_capacity", [[], 5, {"test.*": 0}, {"test.*": 2.5}, {None: 5}]),
        ):
            for value in bad:
                with self.assertRaisesRegex(ImproperlyConfigured, name, msg=repr(value)):
                    self.make_layer(**{name: value})

    def test_messages_expire(self) -> None:
        layer = self.make_layer(
            expiry=self.shortest_expiry, channel_expiry={"test.kept": 60}, capacity=1
        )
        layer.send("test.kept", {"kept": True})

        def renewed() -> Message | None:
            self.send_when_there_is_room(layer, "test.expiry", {"old": True})
            # The channel has room when the first message has expired.
            self.send_when_there_is_room(layer, "test.expiry", {"new": True})
            return layer.receive_many(["test.expiry"])[1]

        # On a slow machine, the new message may also have expired before it is received.
        self.assertEqual(self.until(renewed), {"new": True})
        with self.assertRaises(ChannelFull):
            layer.send("test.kept", {"kept": False})
        self.assertEqual(self.receive("test.kept", layer=layer)[1], {"kept": True})

    def test_messages_of_a_single_reader_expire(self) -> None:
        layer = self.make_layer(expiry=self.shortest_expiry, capacity=1)
        channels = ["test.reader?abc", "test.process!abc"]
        for channel in channels:
            layer.send(channel, {"old": True})
        # They have expired when the last message has.
        layer.send("test.expiry", {})
        self.send_when_there_is_room(layer, "test.expiry", {})
        for channel in channels + ["test.process!"]:
            self.assertNothing(channel, layer=layer)

    def test_a_full_channel_is_counted(self) -> None:
        layer = self.make_layer(capacity=1)
        layer.send("test.capacity", {})
        for _ in range(2):
            with self.assertRaises(ChannelFull):
                layer.send("test.capacity", {})
        self.assertEqual(layer.statistics().get("full"), 2)

    def test_a_full_channel_takes_acknowledgements_and_notices_of_loss(self) -> None:
        layer = self.make_layer(capacity=1)
        layer.send("test.local!a", {"first": True})
        layer.deliver("test.local!a", ack(1))
        layer.deliver("test.local!a", lost(2))
        found = [self.receive("test.local!", layer=layer)[1] for _ in range(3)]
        self.assertEqual(found, [{"first": True}, ack(1), lost(2)])

    def test_events_of_open_connections_outlast_other_messages(self) -> None:
        layer = self.make_layer(expiry=self.shortest_expiry, capacity=1)
        events = sorted(EVENT_CHANNELS - {HTTP_REQUEST})
        for channel in events:
            layer.send(channel, {EVENT_ID: 1, REPLY_CHANNEL: "test.nobody!1"})
        layer.send("test.expiry", {"old": True})
        self.send_when_there_is_room(layer, "test.expiry", {"new": True})
        for channel in events:
            self.assertEqual(self.receive(channel, layer=layer)[1][EVENT_ID], 1)
            # Not with a minute or an hour either.
            self.assertGreaterEqual(layer.expiries[channel], 86400)

    def test_expired_messages_are_counted(self) -> None:
        self.need("statistics")
        layer = self.make_layer(expiry=self.shortest_expiry, capacity=1, **self.busy)
        layer.send("test.expiry", {})
        layer.send("test.expiry.other", {})

        def count() -> int:
            layer.claim("consumer-a", ["test.quiet"])
            return int(layer.global_statistics()["messages_expired"])

        self.assertTrue(self.until(lambda: count() == 2), layer.global_statistics())

    def test_only_messages_that_a_worker_takes_are_counted_as_expired(self) -> None:
        self.need("statistics")
        layer = self.make_layer(expiry=self.shortest_expiry, capacity=1, **self.busy)
        # Their readers have gone. Both expire before the other one.
        layer.send("test.reader?abc", {})
        layer.send("test.process.gone!abc", {})
        layer.send("test.expiry", {})

        def count() -> int:
            layer.claim("consumer-a", ["test.quiet"])
            return int(layer.global_statistics()["messages_expired"])

        self.assertTrue(self.until(count), layer.global_statistics())
        self.assertEqual(count(), 1)
        # What is sent to them now finds the old message expired, and room.
        for channel in ("test.reader?abc", "test.process.gone!abc"):
            self.send_when_there_is_room(layer, channel, {})
        self.assertEqual(count(), 1)

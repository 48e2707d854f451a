"""The conformance suite's tests of flush and statistics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...exceptions import ChannelFull
from .case import LayerCase

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer


class FlushTests(LayerCase):
    """`flush` removes messages and memberships. (That inboxes are told: see inbox.py.)"""

    def test_flush_empties_the_layer(self) -> None:
        self.need("flush")
        self.layer.send("test.flush", {})
        if "groups" in self.layer.extensions:
            self.layer.group_add("test-group", "test.flush")
        self.layer.flush()
        self.assertNothing("test.flush")
        if "groups" in self.layer.extensions:
            self.assertEqual(self.layer.group_channels("test-group"), [])

    def test_flush_removes_messages_of_all_kinds(self) -> None:
        self.need("flush")
        names = ["test.flush", self.layer.new_channel("test.single?"), "test.local!a"]
        for name in names:
            self.layer.send(name, {})
        self.layer.flush()
        self.assertNothing(*names)
        self.layer.send("test.flush", {"new": True})
        self.assertEqual(self.receive("test.flush")[1], {"new": True})

    def test_flush_removes_delayed_messages(self) -> None:
        self.need("flush", "delay")
        delay, taken = 0.05, 1.0
        while taken >= delay:  # one that comes due meanwhile may arrive
            delay *= 2
            began = time.monotonic()
            self.layer.send_later("test.delay", {"flushed": True}, delay)
            self.layer.flush()
            taken = time.monotonic() - began
        self.layer.flush()
        self.layer.send_later("test.delay", {"kept": True}, 2 * delay)
        self.assertEqual(self.receive("test.delay")[1], {"kept": True})


class StatisticsTests(LayerCase):
    """The statistics have every key of the contract, and count."""

    def test_statistics_count_pending_messages(self) -> None:
        self.need("statistics")
        self.layer.send("test.statistics", {})
        self.layer.send("test.statistics", {})
        self.layer.send("test.others", {})
        self.assertEqual(self.layer.channel_statistics("test.statistics")["messages_pending"], 2)
        self.assertEqual(self.layer.channel_statistics("test.none")["messages_pending"], 0)
        everything = self.layer.global_statistics()
        self.assertEqual(everything["messages_pending"], 3)
        self.assertGreaterEqual(everything["messages_max_age"], 0)

    def test_statistics_have_every_key(self) -> None:
        self.need("statistics")
        keys = {"messages_count", "messages_pending", "messages_max_age", "channel_full_count"}
        keys |= {"messages_held"}
        if "dead_letters" in self.layer.extensions:
            keys |= {"messages_expired", "dead_letters", "counters"}
        self.assertEqual(keys - set(self.layer.global_statistics()), set())
        keys = {"messages_pending", "messages_max_age"}
        self.assertEqual(keys - set(self.layer.channel_statistics("test.none")), set())

    def test_the_age_of_the_oldest_message_grows(self) -> None:
        self.need("statistics")
        self.assertEqual(self.layer.global_statistics()["messages_max_age"], 0)
        self.layer.send("test.age", {})
        for read in (
            self.layer.global_statistics,
            lambda: self.layer.channel_statistics("test.age"),
        ):
            first = read()["messages_max_age"]
            self.assertLess(first, self.timeout)
            self.assertTrue(self.until(lambda: read()["messages_max_age"] > first + 0.02))  # noqa: B023
        self.layer.send("test.age", {})
        self.receive("test.age")
        self.receive("test.age")
        self.assertEqual(self.layer.channel_statistics("test.age")["messages_max_age"], 0)

    def test_sent_and_refused_messages_are_counted(self) -> None:
        self.need("statistics")
        layer = self.make_layer(capacity=2)
        before = layer.global_statistics()
        for _ in range(2):
            layer.send("test.count", {})
        with self.assertRaises(ChannelFull):
            layer.send("test.count", {})
        after = layer.global_statistics()
        for key, number in (("messages_count", 2), ("channel_full_count", 1)):
            self.assertEqual(after[key] - before[key], number, key)

    def test_unacknowledged_messages_are_counted(self) -> None:
        self.need("statistics", "acknowledgement")
        self.layer.send("test.held", {"number": 1})
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
        self.assertIsNotNone(
            self.until(lambda: self.layer.claim("consumer-a", ["test.held"], block=True)[1])
        )
        self.assertEqual(self.layer.global_statistics()["messages_held"], 1)
        self.assertEqual(self.layer.global_statistics()["messages_pending"], 0)
        self.layer.acknowledge("consumer-a")
        self.assertEqual(self.layer.global_statistics()["messages_held"], 0)

    def test_statistics_add_up_what_all_processes_counted(self) -> None:
        self.need("statistics")
        if not self.layer.crosses_processes:
            self.skipTest("%s lives in one process" % type(self.layer).__name__)

        def work(layer: BaseChannelLayer) -> None:
            layer.send("test.count", {})
            layer.count("test_counter", 3)
            layer.close()

        before = self.counter()
        self.start_process(work)
        self.assertEqual(self.counter() - before, 3)
        self.layer.count("test_counter", 2)
        self.assertEqual(self.counter() - before, 5)

    def counter(self) -> int:
        return int(self.layer.global_statistics()["counters"].get("test_counter", 0))

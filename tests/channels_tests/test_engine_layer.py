"""What a layer on the engine does around its store: reads, counts, dead letters, and the end of a process."""

import unittest
from types import SimpleNamespace
from unittest import mock

from django.channels import protocol
from django.channels.exceptions import ChannelFull, LayerUnavailable
from django.channels.layers.engine import layer as engine_layer
from django.channels.layers.engine import process
from django.channels.layers.engine.layer import EngineLayer
from django.channels.layers.engine.options import Options
from django.channels.layers.engine.store import Entry

from .fake_store import FakeLayer


class LayerCase(unittest.TestCase):
    """Time stands still unless a test moves it."""

    def setUp(self):
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        patch = mock.patch.object(engine_layer, "time", clock)
        patch.start()
        self.addCleanup(patch.stop)
        self.layer = FakeLayer()
        self.store = self.layer.store


class ReceiveTests(LayerCase):
    def test_without_a_message_there_is_no_channel_either(self):
        self.assertEqual(self.layer.receive_many(["work"]), (None, None))

    def test_an_unreadable_message_is_passed_over_for_the_next(self):
        self.store.answers["take"] = [
            Entry(1, "work", "{damaged"),
            Entry(2, "work", '{"n": 2}'),
        ]
        with self.assertLogs("django.channels.layers", "ERROR"):
            self.assertEqual(self.layer.receive_many(["work"]), ("work", {"n": 2}))

    def test_a_message_is_marked_if_it_was_handled_or_may_have_been(self):
        for losses, doubtful, mark in (
            (0, False, None),
            (0, True, protocol.MAYBE),
            (1, False, True),
            (1, True, True),
        ):
            self.store.answers["claim"] = [Entry(1, "work", "{}", losses, doubtful)]
            with self.subTest(losses=losses, doubtful=doubtful):
                _, message = self.layer.claim("worker", ["work"])
                self.assertIs(message.get(protocol.REDELIVERED), mark)


class CounterTests(LayerCase):
    def shared(self):
        return [call[0] for call in self.store.named("add_counters")]

    def test_an_answer_that_goes_with_an_ack_counts_as_sent_or_as_full(self):
        self.store.answers["send"] = [(), [0]]
        self.layer.finish("worker", "gateway.a!1", {"ack": 1})
        self.assertEqual(self.layer.statistics(), {"sent": 1})
        with self.assertRaises(ChannelFull):
            self.layer.finish("worker", "gateway.a!1", {"ack": 2})
        self.assertEqual(self.layer.statistics(), {"sent": 1, "full": 1})

    def test_a_process_that_only_sends_shares_its_counters_once_a_heartbeat(self):
        for seconds, expected in ((4.5, []), (0.5, [2]), (4.5, [2]), (0.5, [2, 2])):
            self.now += seconds
            self.layer.deliver("work", {})
            self.assertEqual([each["sent"] for each in self.shared()], expected)

    def test_a_process_with_a_lease_thread_leaves_the_sharing_to_it(self):
        self.now += 5.1
        self.layer.leases._thread = mock.Mock(is_alive=lambda: True)
        self.layer.deliver("work", {})
        self.assertEqual(self.shared(), [])

    def test_leaving_shares_what_was_counted(self):
        self.layer.count("full", 3)
        self.layer.leave()
        self.assertEqual(self.shared(), [{"full": 3}])


class DeadLetterTests(LayerCase):
    def setUp(self):
        super().setUp()
        self.store.usual.update(
            dead_letters=[(id, "work", "{}", "lost", 0.0) for id in ("7", "8")],
            requeue_dead_letter=True,
            drop_dead_letters=2,
        )

    def test_all_of_them_or_those_that_are_named_are_requeued(self):
        self.assertEqual(self.layer.requeue_dead_letters(), 2)
        self.assertEqual(self.layer.requeue_dead_letters([9]), 1)
        self.assertEqual(self.store.named("requeue_dead_letter"), [("7",), ("8",), ("9",)])

    def test_all_of_them_or_those_that_are_named_are_dropped(self):
        self.layer.drop_dead_letters()
        self.layer.drop_dead_letters([9])
        self.assertEqual(self.store.named("drop_dead_letters"), [(["7", "8"],), (["9"],)])


class EndTests(unittest.TestCase):
    def test_a_layer_that_was_never_used_is_left_without_a_store(self):
        class Unused(EngineLayer):
            def make_store(self):
                raise AssertionError("a store was made")

        layer = Unused(Options())
        layer.leave()
        layer.close()

    def test_a_closed_layer_can_be_used_again(self):
        layer = FakeLayer(starts=True)
        self.addCleanup(layer.close)
        layer.leases.start()
        layer.close()
        layer.leases.start()
        self.assertTrue(layer.leases.runs)

    def test_closing_a_layer_ends_the_lease_of_its_process(self):
        layer = FakeLayer()
        store, process_name = layer.store, layer.leases.process
        layer.close()
        self.assertEqual(store.named("leave"), [(process_name,)])

    def test_at_the_exit_every_layer_is_left_although_one_fails(self):
        def fail():
            raise LayerUnavailable("away")

        left = []
        layers = [SimpleNamespace(leave=fail), SimpleNamespace(leave=lambda: left.append(1))]
        with mock.patch.object(process, "_layers", layers):
            process.leave_all()
        self.assertEqual(left, [1])

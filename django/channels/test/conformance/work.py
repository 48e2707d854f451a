"""The conformance suite's tests of claims and acknowledgement, of delay, and of forked processes."""

from __future__ import annotations

import datetime
import os
import threading
import time
from decimal import Decimal
from typing import Any, Callable

from ...exceptions import InvalidChannelName, InvalidMessage, MessageTooLarge
from .case import LayerCase


class AcknowledgementTests(LayerCase):
    """A claimed message belongs to its consumer until it is acknowledged."""

    def test_a_claimed_message_goes_to_no_other_consumer(self) -> None:
        self.need("acknowledgement")
        self.layer.send("test.claim", {"number": 1})
        self.layer.send("test.claim", {"number": 2})
        self.assertEqual(self.claim("consumer-a"), {"number": 1})
        self.assertEqual(self.claim("consumer-b"), {"number": 2})
        self.assertEqual(self.layer.claim("consumer-c", ["test.claim"]), (None, None))
        self.layer.acknowledge("consumer-a")
        self.layer.acknowledge("consumer-a")
        self.layer.requeue("consumer-a")
        self.assertEqual(self.layer.claim("consumer-c", ["test.claim"]), (None, None))

    def test_the_next_claim_acknowledges_the_last(self) -> None:
        self.need("acknowledgement")
        self.layer.send("test.claim", {"number": 1})
        self.claim("consumer-a")
        self.assertEqual(self.layer.claim("consumer-a", ["test.claim"]), (None, None))
        self.layer.requeue("consumer-a")
        self.assertNothing("test.claim")

    def test_a_requeued_message_is_the_next(self) -> None:
        self.need("acknowledgement")
        for number in (1, 2):
            self.layer.send("test.claim", {"number": number})
        self.claim("consumer-a")
        self.layer.requeue("consumer-a")
        self.assertEqual(self.claim("consumer-b")["number"], 1)
        self.assertEqual(self.claim("consumer-b")["number"], 2)

    def test_a_requeued_message_wakes_a_claim_that_waits(self) -> None:
        self.need("acknowledgement")
        layer = self.make_patient_layer()
        layer.send("test.claim", {"number": 1})
        layer.claim("consumer-a", ["test.claim"])
        found: list[Any] = []
        thread = self.start_reader(
            lambda: found.append(layer.claim("consumer-b", ["test.claim"], block=True))
        )
        layer.requeue("consumer-a")
        thread.join(self.timeout)
        woken = list(found)
        layer.wake("consumer-b")  # so that the thread ends in any case
        thread.join(self.timeout)
        layer.acknowledge("consumer-b")
        self.assertEqual(woken, [("test.claim", {"number": 1})])

    def test_a_requeued_message_has_its_whole_time_again(self) -> None:
        self.need("acknowledgement")
        layer = self.make_layer(expiry=self.shortest_expiry, capacity=1)

        def requeued() -> Any:
            self.send_when_there_is_room(layer, "test.claim", {"number": 1})
            layer.claim("consumer-a", ["test.claim"])
            # It would have expired when this one has.
            layer.send("test.expiry", {})
            self.send_when_there_is_room(layer, "test.expiry", {})
            layer.requeue("consumer-a")
            found = layer.claim("consumer-b", ["test.claim"])[1]
            layer.acknowledge("consumer-b")
            layer.receive_many(["test.expiry"])
            return found

        # On a slow machine, it may expire once more.
        self.assertEqual(self.until(requeued), {"number": 1})

    def test_a_consumer_claims_on_while_another_id_holds_what_it_had(self) -> None:
        self.need("acknowledgement")
        for number in (1, 2, 3):
            self.layer.send("test.claim", {"number": number})
        self.claim("consumer-a")
        holding, claiming = self.layer.split("consumer-a", "consumer-b")
        self.assertEqual({holding, claiming}, {"consumer-a", "consumer-b"})
        self.assertEqual(self.claim(claiming)["number"], 2)
        self.layer.requeue(holding)
        self.assertEqual(self.claim("consumer-c")["number"], 1)
        self.assertEqual(self.claim(claiming)["number"], 3)
        self.layer.acknowledge_all([holding, claiming, "consumer-c"])
        for consumer in (holding, claiming, "consumer-c"):
            self.layer.requeue(consumer)
        self.assertNothing("test.claim")

    def claim(self, consumer: str) -> Any:
        return self.until(lambda: self.layer.claim(consumer, ["test.claim"], block=True)[1])

    def test_a_claim_finds_a_message_once(self) -> None:
        self.need("acknowledgement")
        for number in (1, 2):
            self.layer.send("test.claim", {"number": number})
        self.assertEqual(self.claim("consumer-a"), {"number": 1})
        self.assertEqual(self.claim("consumer-a"), {"number": 2})
        self.layer.acknowledge("consumer-a")
        self.assertNothing("test.claim")

    def test_a_waiting_claim_can_be_woken(self) -> None:
        self.need("acknowledgement")
        self.layer.block_for = 4 * self.timeout
        ended = threading.Event()

        def claim() -> None:
            self.layer.claim("consumer-a", ["test.claim"], block=True)
            ended.set()

        thread = threading.Thread(target=claim, daemon=True)
        thread.start()
        self.layer.wake("consumer-a")
        woken = ended.wait(self.timeout)
        self.layer.send("test.claim", {})  # so that the thread ends in any case
        thread.join(self.timeout)
        self.assertTrue(woken)

    def test_a_waiting_claim_is_woken_by_each_of_its_channels(self) -> None:
        self.need("acknowledgement")
        layer = self.make_patient_layer()
        channels = ["test.wake.%d" % number for number in range(4)]
        for channel in channels:
            found: list[Any] = []

            def claim(found: list[Any] = found) -> None:
                found.append(layer.claim("consumer-a", channels, block=True))

            thread = self.start_reader(claim)
            layer.send(channel, {"a": 1})
            thread.join(self.timeout)
            if thread.is_alive():
                layer.wake("consumer-a")
                thread.join(self.timeout)
            layer.acknowledge("consumer-a")
            self.assertEqual(found, [(channel, {"a": 1})])

    def test_a_waiting_claim_gets_what_another_process_sends(self) -> None:
        self.need("acknowledgement", "leases")
        here, there = self.make_patient_layer(), self.make_patient_layer()
        answers: list[Any] = []

        def echo() -> None:
            for _ in range(5):
                message = there.claim("consumer-b", ["test.there"], block=True)[1]
                if message is None:
                    return  # woken, because the test has failed
                there.send("test.here", message)

        def ask() -> None:
            while len(answers) < 5 and None not in answers:
                here.send("test.there", {"number": len(answers)})
                answers.append(here.claim("consumer-a", ["test.here"], block=True)[1])

        threads = [threading.Thread(target=each, daemon=True) for each in (echo, ask)]
        for thread in threads:
            thread.start()
        threads[1].join(self.timeout)
        if threads[1].is_alive():
            here.wake("consumer-a")
            there.wake("consumer-b")
        for thread in threads:
            thread.join(self.timeout)
        self.assertEqual(answers, [{"number": number} for number in range(5)])

    def test_a_waiting_reader_gets_what_another_process_sends(self) -> None:
        self.need("leases")
        here, there = self.make_layer(), self.make_layer()
        here.block_for = 4 * self.timeout  # so that only the message ends the wait in time
        for name in ("test.shared", "test.local!1", here.new_channel("test.random?")):
            found: list[Any] = []

            def read(name: str = name, found: list[Any] = found) -> None:
                found.append(here.receive_many([name], block=True))

            thread = self.start_reader(read)
            there.send(name, {"a": 1})
            thread.join(self.timeout)
            self.assertEqual(found, [(name, {"a": 1})])

    def test_the_last_reply_leaves_with_the_acknowledgement(self) -> None:
        self.need("acknowledgement")
        self.layer.send("test.claim", {"number": 1})
        self.claim("consumer-a")
        self.layer.finish("consumer-a", "test.reply", {"reply": 1})
        self.layer.acknowledge("consumer-a")
        self.assertEqual(self.receive("test.reply"), ("test.reply", {"reply": 1}))
        self.assertNothing("test.reply")

    def test_the_last_reply_leaves_with_the_next_claim(self) -> None:
        self.need("acknowledgement")
        for number in (1, 2):
            self.layer.send("test.claim", {"number": number})
            self.layer.send("test.claim", {"number": number})
        for number in (1, 2):
            self.claim("consumer-a")
            self.layer.finish("consumer-a", "test.local!a", {"reply": number})
        self.claim("consumer-a")
        replies = [self.receive("test.local!")[1]["reply"] for _ in range(2)]
        self.assertEqual(replies, [1, 2])

    def test_a_last_reply_that_must_leave_soon_waits_for_no_claim(self) -> None:
        self.need("acknowledgement")
        for number in (1, 2):  # twice, because the first one may come before a wait begins
            self.layer.send("test.claim", {"number": number})
            self.claim("consumer-a")
            self.layer.finish("consumer-a", "test.local!a", {"reply": number}, soon=True)
            self.assertEqual(self.receive("test.local!")[1], {"reply": number})
        self.assertNothing("test.claim")
        self.layer.acknowledge("consumer-a")
        self.assertNothing("test.local!")


class DelayTests(LayerCase):
    """A delayed message is sent when it is due, by the rules of `send`."""

    def test_a_message_can_be_sent_later(self) -> None:
        self.need("delay")
        began = time.monotonic()
        self.layer.send_later("test.delay", {"number": 3}, 60.0)
        self.layer.send_later("test.delay", {"number": 1}, 0.1)
        self.layer.send_later("test.delay", {"number": 2}, 0.3)
        self.assertEqual(self.receive("test.delay")[1], {"number": 1})
        self.assertGreaterEqual(time.monotonic() - began, 0.1)
        self.assertEqual(self.receive("test.delay")[1], {"number": 2})
        self.assertGreaterEqual(time.monotonic() - began, 0.3)

    def test_a_delayed_message_is_checked_and_copied(self) -> None:
        self.need("delay")
        with self.assertRaises(InvalidChannelName):
            self.layer.send_later("no channel", {}, 0.0)
        with self.assertRaises(InvalidMessage):
            self.layer.send_later("test.delay", {"bad": object()}, 0.0)
        with self.assertRaises(MessageTooLarge):
            self.layer.send_later("test.delay", {"text": "x" * (1024 * 1024 + 1)}, 0.0)
        message = {"list": [1]}
        self.layer.send_later("test.delay", message, 0.05)
        message["list"].append(2)
        self.assertEqual(self.receive("test.delay")[1], {"list": [1]})

    def test_a_delay_that_is_no_number_of_seconds_is_refused(self) -> None:
        self.need("delay")
        inf = float("inf")
        bad: list[Any] = [float("nan"), inf, 1e300, 10**400, True, "1", None, [], 1j]
        bad += [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), datetime.timedelta(1)]
        bad += [datetime.datetime(2026, 1, 1), datetime.date(2026, 1, 1)]
        for delay in bad:
            with self.assertRaises(ValueError, msg=repr(delay)):
                self.layer.send_later("test.delay", {"bad": True}, delay)
        self.layer.send_later("test.delay", {"far": True}, 3650 * 86400)  # ten years, the longest
        now: list[Any] = [0, 0.0, -1, -1e300, Decimal("0.01"), Decimal("-5")]
        for delay in now:
            self.layer.send_later("test.delay", {"text": str(delay)}, delay)
            self.assertEqual(self.receive("test.delay")[1], {"text": str(delay)})

    def test_a_message_that_is_due_for_a_full_channel_is_dropped_and_counted(self) -> None:
        self.need("delay")
        layer = self.make_layer(capacity=1, **self.busy)
        layer.block_for = 0.05
        layer.send("test.delay", {"number": 1})
        layer.send_later("test.delay", {"number": 2}, 0.0)

        def count() -> int:
            layer.receive_many(["test.quiet"], block=True)
            return layer.statistics().get("delayed_full", 0)

        self.assertEqual(self.until(count), 1)
        self.assertEqual(self.receive("test.delay", layer=layer)[1], {"number": 1})
        self.assertNothing("test.delay", layer=layer)

    def test_a_full_channel_does_not_refuse_what_is_not_due_yet(self) -> None:
        self.need("delay")
        layer = self.make_layer(capacity=1, **self.busy)
        layer.send("test.delay", {"number": 1})
        layer.send_later("test.delay", {"number": 2}, 60.0)
        self.assertNotIn("delayed_full", layer.statistics())
        self.assertEqual(self.receive("test.delay", layer=layer)[1], {"number": 1})
        layer.send_later("test.delay", {"number": 3}, 0.05)  # there is room when it is due
        self.assertEqual(self.receive("test.delay", layer=layer)[1], {"number": 3})


class ProcessTests(LayerCase):
    """The layer works in a forked process; what it does not support, it refuses with a clear error."""

    def test_a_forked_process_sends(self) -> None:
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

    def test_a_forked_process_uses_groups_and_claims(self) -> None:
        if not self.layer.crosses_processes:
            self.skipTest("%s lives in one process" % type(self.layer).__name__)
        self.need("acknowledgement", "groups")
        self.layer.claim("consumer-a", ["test.fork"])
        self.layer.send("test.fork", {"number": 1})

        def work(_: Any) -> None:
            assert self.layer.claim("consumer-child", ["test.fork"], block=True)[1] == {"number": 1}
            self.layer.group_add("test-group", "test.member")
            self.layer.requeue("consumer-child")

        self.start_process(work)
        self.assertEqual(self.layer.group_channels("test-group"), ["test.member"])
        self.assertEqual(self.receive("test.fork")[1], {"number": 1})

    def test_an_extension_that_is_not_declared_is_refused_by_name(self) -> None:
        layer = self.layer
        calls: dict[str, Callable[[], object]] = {
            "delay": lambda: layer.send_later("test.x", {}, 0.0),
            "groups": lambda: layer.send_group("test-group", {}),
            "dead_letters": layer.dead_letters,
            "flush": layer.flush,
            "statistics": layer.global_statistics,
            "inbox": lambda: layer.open_inbox("test.inbox!"),
        }
        for extension, call in calls.items():
            if extension not in layer.extensions:
                with self.subTest(extension=extension):
                    with self.assertRaisesRegex(NotImplementedError, extension):
                        call()

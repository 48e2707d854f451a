"""
A model of a store whose replies get lost: whatever is lost, and when, each message is handled once, waits, or
is a dead letter, and is never in two of these places or in none.

The engine and the store (the example of the guide) are real. Its calls fail before or after they happened.
"""

import shutil
import tempfile
import unittest
from collections import Counter

try:
    import hypothesis
    from hypothesis import stateful
    from hypothesis import strategies as st
except ImportError:
    hypothesis = None

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.engine.store import Unreadable

from .example_layer import DirectoryChannelLayer, DirectoryStore
from .support.layers import run_model
from .support.requirements import require

CONSUMERS = ["consumer-1", "consumer-2"]
BEFORE, AFTER = "before", "after"


if DirectoryChannelLayer is not None:

    class LossyStore(DirectoryStore):
        """Loses the request or the reply of the calls that `faults` (one each, None: neither) says."""

        def __init__(self, directory):
            super().__init__(directory)
            self.faults = []

        def transaction(self, work):
            fault = self.faults.pop(0) if self.faults else None
            if fault == BEFORE:
                raise LayerUnavailable("the request got lost")
            result = super().transaction(work)
            if fault == AFTER:
                raise LayerUnavailable("the reply got lost")
            return result

        def decode(self, channel, body):
            message = super().decode(channel, body)
            if message.get("damaged"):
                raise Unreadable("a test")
            return message

    class LossyLayer(DirectoryChannelLayer):
        def make_store(self):
            return LossyStore(self.directory)


if hypothesis is not None and DirectoryChannelLayer is not None:
    FAULTS = st.sampled_from(
        [[], [BEFORE], [AFTER], [None, BEFORE], [None, AFTER], [BEFORE, AFTER], [AFTER, BEFORE]]
    )

    class Messages(stateful.RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.directory = tempfile.mkdtemp(prefix="channels-lost-replies-")
            self.layer = LossyLayer(directory=self.directory, capacity=1000, lease=3600)
            self.layer.leases.start = lambda: None  # no heartbeats: they would take the faults
            self.layer.leases.process  # noqa: B018  its lease is taken before the first fault
            self.sent = Counter()  # number to how often it was sent
            self.maybe = set()  # those of which one more may have been sent
            self.damaged = set()
            self.handled = Counter()
            self.current = {}  # consumer to the number that it works on

        def teardown(self):
            try:
                self.check()
            finally:
                self.layer.close()
                shutil.rmtree(self.directory, ignore_errors=True)

        def call(self, function, *args):
            """Call `function`; return None if its request or its reply got lost."""
            try:
                return function(*args)
            except LayerUnavailable:
                return None

        @stateful.rule(damaged=st.booleans(), faults=FAULTS)
        def send(self, damaged, faults):
            number = len(self.sent) + 1
            message = dict({"number": number}, **({"damaged": True} if damaged else {}))
            if damaged:
                self.damaged.add(number)
            self.layer.store.faults = faults[:1]
            try:
                self.layer.send("work", message)
                self.sent[number] = 1
            except LayerUnavailable:
                self.sent[number] = 0
                self.maybe.add(number)

        @stateful.rule(consumer=st.sampled_from(CONSUMERS), faults=FAULTS)
        def claim(self, consumer, faults):
            self.finish(consumer)
            self.layer.store.faults = list(faults)
            found = self.call(self.layer.claim, consumer, ["work"])
            if found is not None and found[1] is not None:
                self.current[consumer] = found[1]["number"]

        @stateful.rule(consumer=st.sampled_from(CONSUMERS), faults=FAULTS)
        def acknowledge(self, consumer, faults):
            self.finish(consumer)
            self.layer.store.faults = faults[:1]
            self.call(self.layer.acknowledge, consumer)

        @stateful.rule(consumer=st.sampled_from(CONSUMERS), faults=FAULTS)
        def requeue(self, consumer, faults):
            if self.current.pop(consumer, None) is None:
                return
            self.layer.store.faults = list(faults)
            while self.layer.store.faults:
                try:
                    self.layer.requeue(consumer)
                    break
                except LayerUnavailable:
                    continue
            else:
                self.layer.requeue(consumer)

        def finish(self, consumer):
            number = self.current.pop(consumer, None)
            if number is not None:
                self.handled[number] += 1

        def check(self):
            """Let the consumers handle what is left; then each message was handled, or is a dead letter."""
            self.layer.store.faults = []
            for consumer in CONSUMERS:
                while True:
                    self.finish(consumer)
                    found = self.layer.claim(consumer, ["work"])[1]
                    if found is None:
                        break
                    self.current[consumer] = found["number"]
            state = self.layer.store.look()
            self.assert_equal(state["claims"], {}, "something stays unacknowledged")
            self.assert_equal(state["queues"].get("work", []), [], "something stays waiting")
            dead = Counter(
                DirectoryStore.decode(self.layer.store, "work", each[2])["number"]
                for each in state["dead"]
            )
            for number, count in self.sent.items():
                found = (dead if number in self.damaged else self.handled)[number]
                if number in self.maybe:
                    assert found <= 1, "message %d was there %d times" % (number, found)
                else:
                    self.assert_equal(found, count, "message %d" % number)
                other = (self.handled if number in self.damaged else dead)[number]
                self.assert_equal(other, 0, "message %d is in the wrong place" % number)

        @staticmethod
        def assert_equal(found, expected, what):
            assert found == expected, "%s: %r, not %r" % (what, found, expected)


@unittest.skipIf(DirectoryChannelLayer is None, "the example locks files with fcntl")
class LostRepliesTests(unittest.TestCase):
    def test_each_message_is_handled_or_dead_once_whatever_gets_lost(self):
        require("hypothesis.stateful")
        with self.assertLogs("django.channels.layers", "ERROR"):  # of the damaged messages
            # To shrink a failure takes minutes.
            run_model(Messages, 60, 25, phases=[hypothesis.Phase.generate])

"""A process runs messages that were lost with a worker before one at a time."""

import threading
import unittest

from django.channels import route
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.worker import WorkerGroup

from .support.waiting import TIMEOUT, wait_until


class RedeliveredTests(unittest.TestCase):
    def setUp(self):
        self.layer = MemoryChannelLayer()
        self.layer.alias = "test"
        self.lock = threading.Lock()
        self.running, self.ended, self.most = set(), [], 0
        self.go_on = threading.Event()
        self.layer.routing = [route("job", self.job)]

    def job(self, message):
        with self.lock:
            self.running.add(message["n"])
            if message.get("redelivered"):
                self.most = max(self.most, sum(n < 10 for n in self.running))
        self.go_on.wait(TIMEOUT)
        with self.lock:
            self.running.discard(message["n"])
            self.ended.append(message["n"])

    def start(self):
        workers = WorkerGroup(self.layer, threads=4)
        workers.start()
        self.addCleanup(workers.stop)
        self.addCleanup(self.go_on.set)

    def test_they_run_one_at_a_time_and_each_of_them_runs(self):
        for n in range(3):
            self.layer.send("job", {"n": n, "redelivered": True})
        self.start()
        wait_until(lambda: self.running, "the first to run")
        # Another process can claim the requeued messages.
        wait_until(
            lambda: self.layer.channel_statistics("job")["messages_pending"] == 2, "the others"
        )
        self.go_on.set()
        wait_until(lambda: len(self.ended) == 3, "all of them to end")
        self.assertEqual(self.most, 1)
        self.assertEqual(sorted(self.ended), [0, 1, 2])

    def test_other_messages_run_beside_one(self):
        self.layer.send("job", {"n": 0, "redelivered": True})
        for n in (10, 11):
            self.layer.send("job", {"n": n})
        self.start()
        wait_until(lambda: self.running == {0, 10, 11}, "all three to run")

    def test_messages_that_may_have_been_sent_twice_run_together(self):
        for n in range(3):
            self.layer.send("job", {"n": n, "redelivered": "maybe"})
        self.start()
        wait_until(lambda: self.running == {0, 1, 2}, "all three to run")

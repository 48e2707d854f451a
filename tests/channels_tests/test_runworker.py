"""`manage.py runworker` as a real process."""

import signal

from django.test import SimpleTestCase

from .servers import Project

# A layer that says it crosses processes; what is to be worked on, the worker's process sends itself.
FILES = {
    "mysite/layers.py": """
from {channels}.layers.memory import MemoryChannelLayer

class CrossingLayer(MemoryChannelLayer):
    crosses_processes = True
""",
    "mysite/routing.py": """
import threading
import time
from {channels} import Channel, route
from {channels}.signals import worker_process_ready

together = threading.Barrier(3)

def work(message):
    print("work %s" % message["number"], flush=True)

def other(message):
    print("other %s" % message["number"], flush=True)

def meet(message):
    together.wait()
    print("met", flush=True)

def slow(message):
    print("slow began", flush=True)
    time.sleep(0.5)
    print("slow ended", flush=True)

def begin(sender, **kwargs):
    layer = sender.channel_layer
    Channel("other", channel_layer=layer).send({"number": 1})
    Channel("work", channel_layer=layer).send({"number": 2})
    for _ in range(3):
        Channel("meet", channel_layer=layer).send({})
    Channel("slow", channel_layer=layer).send({})

worker_process_ready.connect(begin, weak=False)

channel_routing = [
    route("work", work), route("other", other), route("meet", meet), route("slow", slow)
]
""",
}
SETTINGS = """
CHANNEL_LAYERS["second"] = dict(
    CHANNEL_LAYERS["default"], BACKEND="mysite.layers.CrossingLayer"
)
"""
#: The channels on which every thread may work without waiting for another.
PLAIN = ["--only-channels", "work", "--only-channels", "other"]


class RunworkerTestCase(SimpleTestCase):
    def start(self, *args):
        project = Project(FILES, SETTINGS)
        self.addCleanup(project.close)
        process = project.manage("runworker", *args)
        self.addCleanup(process.kill)
        return process


class WorkingTests(RunworkerTestCase):
    def test_works_until_sigterm(self):
        process = self.start("--layer", "second", *PLAIN)
        process.wait_for_output("other 1")
        process.wait_for_output("work 2")
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)
        self.assertIn("Worker of 4 threads on the channel layer second", process.output)

    def test_ctrl_c(self):
        process = self.start("--layer", "second", *PLAIN)
        process.wait_for_output("work 2")
        self.assertEqual(process.interrupt(), 0, process.output)
        self.assertNotIn("Traceback", process.output)

    def test_only_channels(self):
        process = self.start("--layer", "second", "--threads", "1", "--only-channels", "w?rk")
        process.wait_for_output("work 2")
        self.assertIn("Channels: work\n", process.output)
        self.assertEqual(process.stop(), 0, process.output)
        self.assertNotIn("other", process.output)

    def test_exclude_channels(self):
        process = self.start(
            "--layer",
            "second",
            "--exclude-channels",
            "http.*",
            "--exclude-channels",
            "web*",
            "--exclude-channels",
            "work",
            "--exclude-channels",
            "meet",
        )
        process.wait_for_output("other 1")
        self.assertIn("Channels: other, slow\n", process.output)

    def test_threads(self):
        # Three consumers that wait for one another need three threads.
        process = self.start("--layer", "second", "--threads", "3", "--only-channels", "meet")
        process.wait_for_output(r"(?s)(met.*){3}")

    def test_a_consumer_that_runs_may_end(self):
        process = self.start("--layer", "second", "--only-channels", "slow")
        process.wait_for_output("slow began")
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)
        self.assertIn("slow ended", process.output)


class ErrorTests(RunworkerTestCase):
    def assert_refused(self, args, *texts):
        process = self.start(*args)
        self.assertEqual(process.wait(), 1, process.output)
        for text in texts:
            self.assertIn(text, process.output)
        self.assertNotIn("Traceback", process.output)

    def test_a_layer_in_memory(self):
        self.assert_refused([], "lives in one process", "BACKEND that processes share")

    def test_an_unknown_layer(self):
        self.assert_refused(
            ["--layer", "chat"], "CHANNEL_LAYERS has no 'chat'; it has: 'default', 'second'."
        )

    def test_no_channel_left(self):
        self.assert_refused(
            ["--layer", "second", "--only-channels", "nothing.*"], "No channel is left", "work"
        )

    def test_no_thread(self):
        self.assert_refused(["--layer", "second", "--threads", "0"], "at least 1")

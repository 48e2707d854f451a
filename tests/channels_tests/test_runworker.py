"""`manage.py runworker` as a real process, alone and as the supervisor of several."""

import os
import re
import signal

from django.core.management import CommandError, call_command
from django.test import SimpleTestCase

from .support.sites import Project
from .support.waiting import START_TIMEOUT, wait_until

# A layer that says it crosses processes; the worker's process itself sends the messages to work on.
FILES = {
    "mysite/layers.py": """
from {channels}.layers.memory import MemoryChannelLayer

class CrossingLayer(MemoryChannelLayer):
    crosses_processes = True
""",
    "mysite/routing.py": """
import asyncio
import os
import threading
import time
from {channels} import Channel, route
from {channels}.signals import worker_process_ready

together = threading.Barrier(3)

def work(message):
    print("work %s in %d" % (message["number"], os.getpid()), flush=True)

def other(message):
    print("other %s" % message["number"], flush=True)

def meet(message):
    together.wait()
    print("met", flush=True)

def slow(message):
    print("slow began", flush=True)
    while not os.path.exists("go-on"):
        time.sleep(0.01)
    print("slow ended", flush=True)

def for_ever(message):
    print("for ever", flush=True)
    time.sleep(600)

def in_a_thread(text):
    print(text, flush=True)
    time.sleep(600)

async def threads(message):
    await asyncio.get_event_loop().run_in_executor(None, in_a_thread, "threads run")

async def leaves_a_thread(message):
    asyncio.get_event_loop().run_in_executor(None, in_a_thread, "a thread runs")

def begin(sender, **kwargs):
    layer = sender.channel_layer
    Channel("other", channel_layer=layer).send({"number": 1})
    Channel("work", channel_layer=layer).send({"number": 2})
    for _ in range(3):
        Channel("meet", channel_layer=layer).send({})
    Channel("slow", channel_layer=layer).send({})
    for name in ("for-ever", "threads", "leaves-a-thread"):
        Channel(name, channel_layer=layer).send({})

worker_process_ready.connect(begin, weak=False)

channel_routing = [
    route("work", work),
    route("other", other),
    route("meet", meet),
    route("slow", slow),
    route("for-ever", for_ever),
    route("threads", threads),
    route("leaves-a-thread", leaves_a_thread),
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
        self.project = Project(FILES, SETTINGS)
        self.addCleanup(self.project.close)
        process = self.project.manage("runworker", *args)
        self.addCleanup(process.kill)
        return process

    def stop_while_slow_runs(self, process, number):
        """Send a signal, let the consumer `slow` end only then, and return the exit status."""
        process.popen.send_signal(number)
        process.wait_for_output("got %s and ends" % signal.Signals(number).name)
        self.project.write("go-on", "")
        return process.wait()


class WorkingTests(RunworkerTestCase):
    def test_works_until_sigterm(self):
        process = self.start("--layer", "second", *PLAIN)
        process.wait_for_output("other 1")
        process.wait_for_output("work 2")
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)
        self.assertIn("Worker of 4 threads on the channel layer second", process.output)
        pid = process.popen.pid
        for line in (
            r"\[%d\] Worker process %d started: 4 threads, 2 channels, on the channel layer second",
            r"\[%d\] Worker process %d got SIGTERM and ends: \d of 4 threads run a consumer",
        ):
            time_of_day = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ "
            self.assertRegex(process.output, time_of_day + line % (pid, pid))

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
            "--exclude-channels",
            "for-ever",
        )
        process.wait_for_output("other 1")
        self.assertIn("Channels: leaves-a-thread, other, slow, threads\n", process.output)

    def test_threads(self):
        # Three consumers that wait for one another need three threads.
        process = self.start("--layer", "second", "--threads", "3", "--only-channels", "meet")
        process.wait_for_output(r"(?s)(met.*){3}")

    def test_a_consumer_that_runs_may_end(self):
        process = self.start("--layer", "second", "--only-channels", "slow")
        process.wait_for_output("slow began")
        self.assertEqual(self.stop_while_slow_runs(process, signal.SIGTERM), 0, process.output)
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

    def test_no_grace(self):
        for seconds in ("-1", "nan", "inf"):
            self.assert_refused(["--layer", "second", "--grace", seconds], "a number of seconds")

    def test_no_process(self):
        self.assert_refused(["--layer", "second", "--processes", "0"], "at least 1")


class GraceTests(RunworkerTestCase):
    def test_a_consumer_that_does_not_end(self):
        process = self.start("--layer", "second", "--only-channels", "for-ever", "--grace", "0.2")
        process.wait_for_output("for ever")
        self.assertEqual(process.stop(signal.SIGTERM), 1, process.output)
        self.assertIn("still running 0.2 s after", process.output)

    def test_threads_of_executors_do_not_keep_the_process(self):
        for channel, said in (("threads", "threads run"), ("leaves-a-thread", "a thread runs")):
            process = self.start("--layer", "second", "--only-channels", channel, "--grace", "0.2")
            process.wait_for_output(said)
            self.assertEqual(process.stop(signal.SIGTERM), 1, process.output)
            self.assertIn("ends without them", process.output)

    def test_sighup_ends_a_worker_that_is_not_supervised(self):
        process = self.start("--layer", "second", "--only-channels", "slow")
        process.wait_for_output("slow began")
        self.assertEqual(self.stop_while_slow_runs(process, signal.SIGHUP), 0, process.output)
        self.assertRegex(
            process.output, r"Worker process \d+ got SIGHUP and ends: 1 of \d+ threads run"
        )
        self.assertIn("slow ended", process.output)


class SupervisorTests(RunworkerTestCase):
    def start(self, *args):
        self.project = Project(FILES, SETTINGS)
        self.addCleanup(self.project.close)
        process = self.project.manage(
            "runworker", "--layer", "second", "--processes", "2", "--only-channels", *args
        )
        self.addCleanup(process.kill)
        return process

    def started(self, process, count):
        """The process ids of the first `count` children, once all of them work."""
        pattern = r"work 2 in (\d+)"
        wait_until(
            lambda: len(re.findall(pattern, process.output)) >= count,
            "children that work",
            START_TIMEOUT,
        )
        return [int(pid) for pid in re.findall(pattern, process.output)][:count]

    def test_sigterm_ends_all(self):
        process = self.start("work")
        first, second = self.started(process, 2)
        self.assertNotIn(process.popen.pid, (first, second))
        self.assertNotEqual(first, second)
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)
        self.assertFalse(process.group_is_alive())
        self.assertIn("2 workers of 4 threads each on the channel layer second", process.output)
        self.assertEqual(process.output.count("Channels: work"), 1, process.output)

    def test_ctrl_c(self):
        process = self.start("work")
        self.started(process, 2)
        self.assertEqual(process.interrupt(), 0, process.output)
        self.assertNotIn("Traceback", process.output)

    def test_consumers_that_run_may_end(self):
        process = self.start("slow")
        process.wait_for_output("(?s)slow began.*slow began")
        self.assertEqual(self.stop_while_slow_runs(process, signal.SIGTERM), 0, process.output)
        self.assertEqual(process.output.count("slow ended"), 2, process.output)

    def test_consumers_that_do_not_end(self):
        process = self.start("for-ever", "--grace", "0.2")
        process.wait_for_output("(?s)for ever.*for ever")
        self.assertEqual(process.stop(signal.SIGTERM), 1, process.output)
        self.assertFalse(process.group_is_alive())

    def test_one_that_dies_is_replaced(self):
        process = self.start("work")
        first, _ = self.started(process, 2)
        os.kill(first, signal.SIGKILL)
        pids = self.started(process, 3)
        self.assertEqual(len(set(pids)), 3)
        process.wait_for_output("saw process %d end by signal 9" % first)
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)

    def test_sighup_takes_in_new_code(self):
        process = self.start("work")
        old = self.started(process, 2)
        routing = FILES["mysite/routing.py"].replace("work %s in", "new work %s in")
        self.project.write("mysite/routing.py", routing)
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_output("(?s)new work 2.*new work 2")
        wait_until(lambda: not any(map(is_alive, old)), "the old processes to end")
        self.assertIsNone(process.popen.poll())
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)

    def test_new_code_that_does_not_start(self):
        process = self.start("work")
        old = self.started(process, 2)
        self.project.write("mysite/routing.py", "a mistake")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_output("the old ones stay")
        self.assertTrue(all(map(is_alive, old)))
        self.assertEqual(process.stop(signal.SIGTERM), 0, process.output)

    def test_children_leave_when_the_supervisor_was_killed(self):
        process = self.start("slow")
        process.wait_for_output("(?s)slow began.*slow began")
        process.popen.kill()
        self.project.write("go-on", "")
        process.wait_for_output("(?s)slow ended.*slow ended")
        wait_until(lambda: not process.group_is_alive(), "the children to end")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


#: As those of the other tests, with requests instead: their replies are printed.
STATIC_FILES = {
    "mysite/layers.py": FILES["mysite/layers.py"],
    "static/style.css": "p { color: red }\n",
    "mysite/routing.py": """
import threading
from {channels} import Channel, route
from {channels}.signals import worker_process_ready

def begin(sender, **kwargs):
    layer = sender.channel_layer
    for path in ("/static/style.css", "/"):
        Channel("http.request", channel_layer=layer).send({
            "reply_channel": "test.reply?a", "path": path, "method": "GET",
            "headers": [[b"host", b"localhost"]],
            "query_string": b"", "body": b"",
        })
    threading.Thread(target=show, args=(layer,), daemon=True).start()

def show(layer):
    while True:
        message = layer.receive_many(["test.reply?a"], block=True)[1]
        if message is not None:
            # In one piece: the log writes to the same file.
            line = "reply %s %r\\n" % (message.get("status"), message.get("content"))
            print(line, end="", flush=True)

worker_process_ready.connect(begin, weak=False)

channel_routing = []
""",
}
STATIC_SETTINGS = (
    SETTINGS
    + """
INSTALLED_APPS += ["django.contrib.staticfiles"]
STATICFILES_DIRS = [os.path.join(BASE_DIR, "static")]
"""
)


class HabitTests(SimpleTestCase):
    def test_names_of_channels_end_in_an_error_that_names_the_option(self):
        with self.assertRaisesMessage(CommandError, "--only-channels jobs") as caught:
            call_command("runworker", "jobs")
        self.assertIn("Coming from Channels 2, 3, 4", str(caught.exception))


class DevelopmentTests(SimpleTestCase):
    def start(self, settings, *args):
        project = Project(STATIC_FILES, settings)
        self.addCleanup(project.close)
        process = project.manage("runworker", "--layer", "second", "--threads", "1", *args)
        self.addCleanup(process.kill)
        return process

    def test_static_files_are_served_under_debug(self):
        process = self.start(STATIC_SETTINGS)
        process.wait_for_output("reply 200 b'hello'")
        self.assertEqual(process.stop(), 0, process.output)
        self.assertIn("p { color: red }", process.output)

    def test_static_files_are_not_served_without_debug(self):
        process = self.start(STATIC_SETTINGS + "DEBUG = False\n")
        process.wait_for_output("reply 200 b'hello'")
        self.assertEqual(process.stop(), 0, process.output)
        self.assertIn("reply 404", process.output)

    def test_a_site_without_staticfiles_is_served_as_before(self):
        process = self.start(SETTINGS)
        process.wait_for_output("reply 200 b'hello'")
        self.assertEqual(process.stop(), 0, process.output)

    def test_verbosity_2_logs_each_consumer(self):
        process = self.start(STATIC_SETTINGS, "-v", "2")
        process.wait_for_output("reply 200 b'hello'")
        self.assertEqual(process.stop(), 0, process.output)
        for path in ("/static/style.css", "/"):
            self.assertRegex(process.output, r"http\.request %s: \S*StaticFilesConsumer" % path)

    def test_verbosity_1_logs_none(self):
        process = self.start(STATIC_SETTINGS)
        process.wait_for_output("reply 200 b'hello'")
        self.assertEqual(process.stop(), 0, process.output)
        self.assertNotIn("StaticFilesConsumer", process.output)

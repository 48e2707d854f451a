"""No thread of a layer ends by what a site passes or raises."""

import asyncio
import functools
import threading
import unittest
from unittest import mock

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.delay import Delay
from django.channels.layers.engine import threads
from django.channels.layers.engine.store import Entry, Heartbeat
from django.channels.layers.engine.threads import start_thread

from .fake_store import FakeLayer
from .support.waiting import TIMEOUT, wait_until

LOGGER = "django.channels.layers"


class UserError(BaseException):
    """An error that is not an Exception."""


ERRORS = (UserError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, ValueError)


class ThreadCase(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.multiple(threads, RESTART_INTERVAL=0.001, MAX_RESTART_INTERVAL=0.002)
        patch.start()
        self.addCleanup(patch.stop)


class StartThreadTests(ThreadCase):
    def run_with(self, errors):
        """Run work that raises `errors`, one each time, and then ends."""
        left, done = list(errors), threading.Event()

        def work():
            if left:
                raise left.pop(0)
            done.set()

        thread = start_thread("channels-test", work)
        self.assertTrue(done.wait(TIMEOUT))
        thread.join(TIMEOUT)
        self.assertFalse(thread.is_alive())

    def test_whatever_is_raised_the_work_starts_again(self):
        for error in ERRORS:
            with self.assertLogs(LOGGER, "ERROR") as logs:
                self.run_with([error("first")])
            self.assertIn("The thread channels-test failed; it continues.", logs.output[0])
            self.assertIn("Traceback", logs.output[0])

    def test_work_that_is_over_does_not_start_again_after_a_failure(self):
        calls, over = [], iter([False, True])

        def work():
            calls.append(1)
            raise ValueError("again")

        with self.assertLogs(LOGGER, "ERROR"):
            thread = start_thread("channels-test", work, lambda: next(over))
            thread.join(TIMEOUT)
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(calls), 2)

    def test_many_failures_are_one_line(self):
        with self.assertLogs(LOGGER, "ERROR") as logs:
            self.run_with([ValueError("again")] * 20)
        self.assertLess(len(logs.output), 20)

    def test_a_failing_log_handler_does_not_end_it(self):
        with mock.patch.object(threads.logger, "exception", side_effect=UserError):
            self.run_with([ValueError("first"), UserError("second")])


class LayerThreadTests(ThreadCase):
    def test_the_lease_thread_survives_every_error_of_the_store(self):
        layer = FakeLayer(starts=True, heartbeat=0.01, lease=60)
        self.addCleanup(layer.leases.stop)
        layer.store.answers["heartbeat"] = [_raise(error) for error in ERRORS]
        with self.assertLogs(LOGGER, "ERROR"):
            layer.leases.start()
            wait_until(lambda: len(layer.store.named("heartbeat")) > len(ERRORS) + 2)
        self.assertTrue(layer.leases.runs)

    def test_an_owner_that_raises_keeps_no_other_from_being_told(self):
        layer, told = FakeLayer(), []
        layer.leases.acquire("a", _raise(UserError))
        layer.leases.acquire("b", lambda: told.append("b"))
        layer.store.answers["heartbeat"] = [Heartbeat(["a", "b"])]
        with self.assertLogs(LOGGER, "ERROR"):
            layer.leases.step()
        self.assertEqual(told, ["b"])

    def test_the_delay_thread_survives_every_error(self):
        delivered = []

        def deliver(item):
            if isinstance(item, type):
                raise item
            delivered.append(item)

        delay = Delay(deliver)
        with self.assertLogs(LOGGER, "ERROR") as logs:
            for error in ERRORS:
                delay.add(0.0, error)
            delay.add(0.0, "last")
            wait_until(lambda: delivered == ["last"])
        self.assertEqual(len(logs.output), len(ERRORS))

    def test_the_threads_of_an_inbox_survive_every_error(self):
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(self.use_inbox())

    async def use_inbox(self):
        layer = FakeLayer()
        store = layer.store
        store.answers["receive_inbox"] = [_raise(error) for error in ERRORS]
        store.usual["receive_inbox"] = lambda *args: [Entry(1, "gateway.a!1", '{"x": 1}')]
        store.answers["gateway_batch"] = [_raise(error) for error in ERRORS]
        failed = []
        with self.assertLogs(LOGGER, "ERROR"), mock.patch(
            "django.channels.layers.engine.inbox.RETRY_INTERVAL", 0.001
        ):
            inbox = store.open_inbox("gateway.a!")
            found = await asyncio.wait_for(inbox.receive(), TIMEOUT)
            self.assertEqual(found[0], ("gateway.a!1", {"x": 1}))
            for number in range(len(ERRORS)):
                inbox.send("work", {}, failed.append)
                await _until(functools.partial(_has_more, failed, number))
            inbox.send("work", {"sent": True}, failed.append)
            await _until(lambda: len(store.named("gateway_batch")) > len(ERRORS))
        store.usual["receive_inbox"] = ()
        # A batch that failed by a bug is tried once more message by message, and then the error is told.
        self.assertIsInstance(failed[0], LayerUnavailable)
        self.assertEqual(len(failed), len(ERRORS))
        await inbox.close()

    def test_a_message_that_cannot_be_decoded_by_a_bug_harms_no_other(self):
        layer = FakeLayer()
        store = layer.store
        bodies = ["bad", '{"x": 1}']
        decode = store.decode

        def decode_or_fail(channel, body):
            if body == "bad":
                raise RecursionError("too deep")
            return decode(channel, body)

        store.decode = decode_or_fail
        store.answers["take"] = [Entry(number, "work", body) for number, body in enumerate(bodies)]
        with self.assertLogs(LOGGER, "ERROR"):
            self.assertEqual(layer.receive_many(["work"]), ("work", {"x": 1}))
        self.assertEqual(len(store.named("dead_letter")), 1)


def _raise(error):
    def call(*args):
        raise error("a test")

    return call


def _has_more(items, number):
    return len(items) > number


async def _until(condition):
    end = asyncio.get_event_loop().time() + TIMEOUT
    while not condition():
        if asyncio.get_event_loop().time() > end:
            raise AssertionError("the condition did not come true")
        await asyncio.sleep(0.001)

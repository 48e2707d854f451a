"""The event loop of an in-memory layer waits for the answers of quick consumers, and for no others."""

import asyncio
import threading
import unittest
from types import SimpleNamespace
from unittest import mock

from django.channels.layers import memory_inbox
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.layers.memory_inbox import MAX_SKIPS, MIN_SKIPS, Watch

from .support.waiting import TIMEOUT, wait_until


class WatchTests(unittest.TestCase):
    """Each test runs in an event loop, with a layer, a gateway's inbox, and threads that claim."""

    def run_with_readers(self, test, handlers):
        """Run `await test(layer, inbox)` while a thread for each of `handlers` calls it with its claims."""

        async def main():
            layer = MemoryChannelLayer()
            layer.block_for = 10 * TIMEOUT  # so that a reader which nothing wakes comes too late
            inbox = layer.open_inbox("gateway.a!")
            threads = [
                threading.Thread(target=self.claim, args=(layer, "reader-%d" % index, handler))
                for index, handler in enumerate(handlers)
            ]
            self.stopping = False
            try:
                for thread in threads:
                    thread.start()
                wait_until(lambda: len(layer._readers) == len(handlers), "the readers to wait")
                await asyncio.wait_for(test(layer, inbox), TIMEOUT)
            finally:
                self.stopping = True
                for index, thread in enumerate(threads):
                    layer.wake("reader-%d" % index)
                    thread.join(TIMEOUT)
                await inbox.close()

        asyncio.run(main())

    def claim(self, layer, consumer, handler):
        while not self.stopping:
            _, message = layer.claim(consumer, ["test"], block=True)
            if message is not None:
                handler(layer, message)

    @staticmethod
    def answer(layer, message):
        layer.deliver("gateway.a!1", {"answer": message["text"]})

    @staticmethod
    def send(inbox, *texts):
        for text in texts:
            inbox.send("test", {"text": text}, print)

    async def receive(self, inbox, count):
        found = []
        while len(found) < count:
            found += [message["answer"] for _, message in await inbox.receive()]
        return sorted(found)

    def test_answers_of_quick_consumers_wake_the_loop_without_a_system_call(self):
        async def test(layer, inbox):
            loop = asyncio.get_running_loop()
            answers = asyncio.ensure_future(self.receive(inbox, 2))
            with mock.patch.object(loop, "call_soon_threadsafe") as wake:
                await asyncio.sleep(0)
                self.send(inbox, "a", "b")
                self.assertEqual(await answers, ["a", "b"])
            wake.assert_not_called()

        with mock.patch.object(memory_inbox, "WATCH_TIMEOUT", TIMEOUT):
            self.run_with_readers(test, [self.answer])

    def test_an_answer_that_comes_after_the_wait_wakes_the_loop(self):
        is_over = threading.Event()

        def answer_late(layer, message):
            is_over.wait(TIMEOUT)
            self.answer(layer, message)

        async def test(layer, inbox):
            answers = asyncio.ensure_future(self.receive(inbox, 1))
            await asyncio.sleep(0)
            self.send(inbox, "a")
            while inbox._watch._to_skip == 0:
                await asyncio.sleep(0)
            is_over.set()
            self.assertEqual(await answers, ["a"])

        self.run_with_readers(test, [answer_late])

    def test_what_a_reader_leaves_is_handled_by_another_while_the_first_waits(self):
        other_has_come = threading.Barrier(2)

        def meet(layer, message):
            other_has_come.wait(TIMEOUT)
            self.answer(layer, message)

        async def test(layer, inbox):
            self.send(inbox, "a", "b")
            self.assertEqual(await self.receive(inbox, 2), ["a", "b"])

        self.run_with_readers(test, [meet, meet])

    def test_a_loop_that_is_interrupted_while_it_waits_still_gets_its_answers(self):
        class Interrupted:
            """A lock in whose acquisition with a time-out Ctrl-C comes."""

            def acquire(self, timeout=-1):
                if timeout != -1:
                    raise KeyboardInterrupt

            def release(self):
                pass

        async def test(layer, inbox):
            inbox._sent_to = {"test": None}
            with mock.patch.object(memory_inbox, "threading", SimpleNamespace(Lock=Interrupted)):
                with self.assertRaises(KeyboardInterrupt):
                    inbox._wake_and_watch()
            self.assertEqual(layer._watches, [])
            answers = asyncio.ensure_future(self.receive(inbox, 1))
            await asyncio.sleep(0)
            self.send(inbox, "a")
            self.assertEqual(await answers, ["a"])

        self.run_with_readers(test, [self.answer])

    def test_consumers_that_wait_are_waited_for_ever_more_rarely(self):
        watch, skipped = Watch(), []
        self.assertTrue(watch.begin())
        for _ in range(10):
            watch.end(answers=0)
            skipped.append(0)
            while not watch.begin():
                skipped[-1] += 1
        self.assertEqual(skipped[:3], [MIN_SKIPS, 2 * MIN_SKIPS, 4 * MIN_SKIPS])
        self.assertEqual(skipped[-1], MAX_SKIPS)

    def test_consumers_that_compute_count_as_quick(self):
        for computed, is_quick in ((0.09, True), (0.01, False)):
            with self.subTest(computed=computed), mock.patch.object(memory_inbox, "time") as clock:
                clock.monotonic.side_effect = [0.0, 0.1]
                clock.process_time.side_effect = [0.0, computed]
                watch = Watch()
                watch.begin()
                watch.end(answers=1)
                self.assertEqual(watch._to_skip == 0, is_quick)

"""What waits in a gateway for slow clients: its bounds, its file, and the clients that are cut off."""

import asyncio
import logging
import threading
import time
import unittest
from unittest import mock

from django.channels.gateway import backlog as backlog_module
from django.channels.gateway import response
from django.channels.gateway.backlog import PIECE, READY, Backlog, ResponseStore
from django.channels.gateway.limits import Limits
from django.channels.gateway.state import WRITE
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message

from .support.waiting import TIMEOUT

START = {"type": "http.response.start", "status": 200, "headers": []}


def content(body, more=True):
    return (WRITE, {"type": "http.response.body", "body": body, "more_body": more}, "content")


class StoreCase(unittest.TestCase):
    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.layer = MemoryChannelLayer()
        self.changes, self.cuts = [], []

    def store(self, **limits):
        store = ResponseStore(self.layer, self.loop, Limits()._replace(**limits))
        self.addCleanup(store.end)
        return store

    def backlog(self, store, is_stream=True, name="x", address="192.0.2.1"):
        def cut():
            self.cuts.append(name)
            found.clear()

        found = Backlog(store, name, lambda: self.changes.append(name), cut, lambda: address)
        found.is_stream = is_stream
        return found

    def settle(self, store):
        """Let the thread write all that it was given."""

        async def settle():
            if store.file._thread is not None:
                await self.loop.run_in_executor(store.file._thread, int)
            await asyncio.sleep(0)

        self.loop.run_until_complete(settle())

    def take(self, backlog):
        """Take everything, as a Connection does. Return the events."""

        async def take():
            events = []
            while backlog:
                _, event, _ = backlog.popleft()
                events.append(event if isinstance(event, dict) else await event)
            return events

        return self.loop.run_until_complete(take())


class BacklogTests(StoreCase):
    def test_everything_comes_out_in_order(self):
        for memory in (2**30, 1):
            for size in (1, 1000, PIECE, 3 * PIECE + 7):
                for is_stream in (True, False):
                    store = self.store(responses_memory=memory)
                    backlog = self.backlog(store, is_stream)
                    backlog.append((WRITE, START, None))
                    parts = [bytes([number]) * size for number in range(20)]
                    for number, part in enumerate(parts):
                        backlog.append(content(part, number < 19))
                    if size > 1000:
                        self.settle(store)
                    first, *events = self.take(backlog)
                    self.settle(store)
                    self.assertEqual(first, START)
                    self.assertEqual(b"".join(each["body"] for each in events), b"".join(parts))
                    mores = [each["more_body"] for each in events]
                    self.assertEqual(mores, [True] * (len(mores) - 1) + [False])
                    self.assertLessEqual(max(len(each["body"]) for each in events), PIECE)
                    self.assertEqual((backlog.waiting, backlog.memory), (0, 0))
                    self.assertEqual((store.memory, store.stored), (0, 0))

    def test_small_parts_of_a_stream_are_joined_while_they_wait(self):
        store = self.store(responses_memory=1)
        backlog = self.backlog(store)
        for _ in range(READY // 16):
            backlog.append(content(b"0123456789abcdef"))
        self.assertEqual(len(self.take(backlog)), READY // PIECE)

    def test_memory_is_bounded_and_the_rest_is_in_the_file(self):
        store = self.store()
        backlog = self.backlog(store)
        for _ in range(20):
            backlog.append(content(b"x" * 4 * PIECE))
        self.settle(store)
        self.assertEqual(backlog.waiting, 80 * PIECE)
        self.assertLessEqual(backlog.memory, READY)
        self.assertEqual(store.memory + store.stored, 80 * PIECE)
        self.assertTrue(self.changes)
        backlog.clear()
        self.assertEqual((store.memory, store.stored, backlog.waiting), (0, 0, 0))

    def test_blocks_are_used_again(self):
        store = self.store(responses_memory=1)
        one, two = self.backlog(store), self.backlog(store)
        one.append(content(b"1" * PIECE))
        for _ in range(5):
            two.append(content(b"2" * PIECE))
            self.settle(store)
            self.take(two)
        self.assertEqual(store.file.size, 2)
        self.assertEqual([each["body"][:1] for each in self.take(one)], [b"1"])

    def test_what_is_dropped_while_it_is_written_frees_its_block(self):
        store = self.store(responses_memory=1)
        backlog = self.backlog(store)
        backlog.append(content(b"x" * PIECE))
        backlog.clear()
        self.settle(store)
        self.assertEqual((store.memory, store.stored), (0, 0))

    def test_what_is_read_for_a_client_that_leaves_frees_its_block(self):
        store = self.store(responses_memory=1)
        backlog = self.backlog(store)
        for _ in range(2):
            backlog.append(content(b"x" * PIECE))
            self.settle(store)

        async def leave():
            reading = asyncio.ensure_future(backlog.popleft()[1])
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
            store.close(backlog)

        self.loop.run_until_complete(leave())
        self.assertEqual((store.memory, store.stored, store.file.used), (0, 0, 0))

    def test_a_full_disk_keeps_responses_in_memory(self):
        store = self.store(responses_memory=2 * PIECE)
        backlog = self.backlog(store)
        with mock.patch.object(store.file, "_write", side_effect=OSError("no space left")):
            with self.assertLogs("django.channels.gateway", "ERROR") as logs:
                for _ in range(4):
                    backlog.append(content(b"x" * PIECE))
                self.settle(store)
        self.assertEqual(len(logs.records), 1)
        self.assertIn("no space left", logs.output[0])
        self.assertFalse(store.has_room(backlog, 1))
        self.assertGreater(self.layer.statistics()["responses_not_stored"], 0)
        self.assertEqual(len(self.take(backlog)), 4)
        self.assertEqual((store.memory, store.stored), (0, 0))


class RoomTests(StoreCase):
    def fill(self, store, backlog, size):
        for _ in range(size // PIECE):
            backlog.append(content(b"x" * PIECE))
        self.settle(store)

    def test_a_response_up_to_the_bound_has_room_although_nothing_is_read(self):
        store = self.store(response_size=100 * PIECE)
        backlog = self.backlog(store)
        self.fill(store, backlog, 100 * PIECE)
        self.assertTrue(store.has_room(backlog, 100 * PIECE))

    def test_a_larger_response_has_room_only_for_a_client_that_reads(self):
        store = self.store(response_size=100 * PIECE)
        backlog = self.backlog(store)
        self.assertTrue(store.has_room(backlog, 101 * PIECE))
        self.fill(store, backlog, READY)
        self.assertFalse(store.has_room(backlog, 101 * PIECE))
        backlog.popleft()
        self.assertTrue(store.has_room(backlog, 101 * PIECE))

    def assert_memory_bounds(self, store):
        """A worker that asks before each part stops at the bound of one response, far below that of all."""
        backlog, other = self.backlog(store), self.backlog(store)
        for _ in range(100):
            if not store.has_room(backlog, 1):
                break
            backlog.append(content(b"x" * PIECE))
        self.assertFalse(store.has_room(backlog, 1))
        self.assertEqual(backlog.memory, READY + 3 * PIECE)
        self.assertTrue(store.has_room(other, 1), "others are not held up by it")
        backlog.popleft()
        self.assertTrue(store.has_room(backlog, 1), "its client reads on")

    def test_one_response_in_memory_is_bounded_if_the_file_has_no_room(self):
        self.assert_memory_bounds(self.store(responses_file=0))

    def test_one_response_in_memory_is_bounded_if_the_disk_is_slow(self):
        store = self.store()
        written = threading.Event()
        self.addCleanup(written.set)
        backlog = self.backlog(store)
        for _ in range(1 + READY // PIECE):
            backlog.append(content(b"x" * PIECE))
        store.file._thread.submit(written.wait, TIMEOUT)
        self.assert_memory_bounds(store)
        written.set()
        self.settle(store)
        self.assertLess(store.memory, 2 * READY)

    def test_the_total_in_memory_is_bounded(self):
        store = self.store(responses_memory=4 * PIECE, responses_file=0)
        full, other = self.backlog(store), self.backlog(store)
        self.fill(store, full, 4 * PIECE)
        other.append(content(b"x"))
        self.assertFalse(store.has_room(other, 1))
        self.take(other)
        # Or it would wait for ever.
        self.assertTrue(store.has_room(other, 1))


class SlowTests(StoreCase):
    def test_a_client_for_which_a_worker_waits_must_read_at_the_least_rate(self):
        store = self.store(response_rate=2**20)
        backlogs = {name: self.backlog(store, name=name) for name in ("slow", "fast", "free")}
        for name, backlog in backlogs.items():
            backlog.append(content(b"x" * PIECE))
            if name != "free":  # a worker waits for no response by itself
                backlog.awaited = True
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            store.check_rates()
            self.assertEqual(self.cuts, [])
            backlogs["fast"].taken += 11 * 2**20
            store.check_rates()
        self.assertEqual(self.cuts, ["slow"])
        self.assertIn("1048576 bytes a second", logs.output[0])
        store.check_rates()
        self.assertEqual(self.cuts, ["slow", "fast"])

    def test_the_log_has_one_line_for_many(self):
        store = self.store(response_rate=2**20)
        for number in range(100):
            backlog = self.backlog(store, name=number)
            backlog.append(content(b"x" * PIECE))
            backlog.awaited = True
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            store.check_rates()
            store.check_rates()
        self.assertEqual((len(self.cuts), len(logs.records)), (100, 1))

    def test_a_client_that_stops_reading_is_cut_off(self):
        store = self.store()
        backlog = self.backlog(store)
        backlog.append(content(b"x" * PIECE, more=False))
        store.check_rates()
        self.assertEqual(self.cuts, [])
        with mock.patch.object(backlog_module, "READ_TIMEOUT", -1):
            with self.assertLogs("django.channels.gateway", "WARNING"):
                store.check_rates()
            store.check_rates()
        self.assertEqual(self.cuts, ["x"], "it is cut off once")

    def test_a_client_that_reads_on_is_not_cut_off(self):
        store = self.store()
        backlogs = [self.backlog(store, name=name) for name in ("stopped", "reading")]
        for each in backlogs:
            each.append(content(b"x" * 3 * PIECE, more=False))
            each.popleft()
            each.taken_at = time.monotonic() - 2 * backlog_module.READ_TIMEOUT
        backlogs[1].popleft()  # the server has taken the one before
        with self.assertLogs("django.channels.gateway", "WARNING"):
            store.check_rates()
        self.assertEqual(self.cuts, ["stopped"])

    def test_a_full_file_costs_the_client_that_read_nothing_for_longest(self):
        store = self.store(responses_memory=1, responses_file=3 * PIECE)
        for name in "abc":
            backlog = self.backlog(store, name=name)
            backlog.append(content(b"x" * PIECE))
            backlog.taken_at = time.monotonic() + (name == "a")
            self.settle(store)
        newest = self.backlog(store, name="d")
        with self.assertLogs("django.channels.gateway", "WARNING"):
            newest.append(content(b"y" * PIECE))
        self.assertEqual(self.cuts, ["b"])
        self.settle(store)
        self.assertEqual([each["body"][:1] for each in self.take(newest)], [b"y"])

    def test_a_full_file_costs_the_address_that_has_most_in_it(self):
        """It doesn't matter who needs the room, and whose client has read nothing for longest."""
        for newest in ("greedy", "other"):
            with self.subTest(newest=newest):
                self.cuts = []
                store = self.store(responses_memory=1, responses_file=8 * PIECE)
                for number in range(8):
                    name = "other" if number == 0 else "greedy %d" % number
                    backlog = self.backlog(store, name=name, address=name.partition(" ")[0])
                    backlog.append(content(b"x" * PIECE))
                    backlog.taken_at = time.monotonic() + number
                    self.settle(store)
                backlog = self.backlog(store, name="newest", address=newest)
                with self.assertLogs("django.channels.gateway", "WARNING"):
                    for _ in range(3):
                        backlog.append(content(b"y" * PIECE))
                        backlog.taken_at = time.monotonic() + 100
                        self.settle(store)
                self.assertEqual(self.cuts, ["greedy 1", "greedy 2", "greedy 3"])

    def test_the_room_of_a_client_that_was_cut_off_is_used_for_the_next(self):
        store = self.store(responses_memory=1, responses_file=3 * PIECE)
        for name in "abc":
            backlog = self.backlog(store, name=name)
            backlog.cut = backlog.clear
            backlog.append(content(b"x" * PIECE))
            self.settle(store)
        newest = self.backlog(store, name="d")
        with self.assertLogs("django.channels.gateway", "WARNING"):
            newest.append(content(b"y" * PIECE))
        self.settle(store)
        self.assertEqual((newest.waiting, newest.memory), (PIECE, 0), "it is in the file")
        self.assertEqual([each["body"][:1] for each in self.take(newest)], [b"y"])


class GatewayTests(unittest.TestCase):
    """A whole gateway on the in-memory layer, under a server whose client doesn't read."""

    PARTS, SIZE = 24, 256 * 1024

    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.layer = MemoryChannelLayer(threads=1)
        self.sent, self.ended, self.transport = [], threading.Event(), mock.Mock()
        self.layer.routing = {"http.request": self.consumer}

    def consumer(self, message: Message):
        """Stream as the views' consumer does."""
        from django.channels import handler

        parts = [{"content": b"x" * self.SIZE, "more_content": True} for _ in range(self.PARTS)]
        parts[0]["status"] = 200
        parts.append({"content": b"", "more_content": False})
        try:
            handler.ViewConsumer()._stream(message, parts[0], iter(parts[1:]))
        finally:
            self.ended.set()

    def run_client(self, client):
        """Run `client(send_task, take)` next to the application, and stop the gateway."""

        async def main():
            reading, self.leaving = asyncio.Event(), asyncio.Event()

            class Cycle:
                """What uvicorn has for each request."""

                transport = self.transport

                async def send(cycle, event):
                    await reading.wait()
                    self.sent.append(event)

            async def receive():
                if received:
                    await self.leaving.wait()
                    return {"type": "http.disconnect"}
                received.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}

            received = []
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            scope.update(query_string=b"", http_version="1.1", scheme="http")
            task = asyncio.ensure_future(self.layer(scope, receive, Cycle().send))
            try:
                await client(task, reading)
            finally:
                task.cancel()
                await asyncio.wait([task])
                await self.layer.gateway.stop()

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT))

    async def until(self, condition):
        while not condition():
            await asyncio.sleep(0.005)

    def test_the_worker_ends_although_its_client_reads_nothing(self):
        async def client(task, reading):
            await self.until(self.ended.is_set)
            self.assertEqual(self.sent, [])
            reading.set()
            await task

        self.run_client(client)
        bodies = [each["body"] for each in self.sent[1:]]
        self.assertEqual(sum(map(len, bodies)), self.PARTS * self.SIZE)
        self.assertFalse(self.sent[-1]["more_body"])

    def test_nothing_waits_for_a_server_that_goes_on_taking_what_a_client_has_left(self):
        for size in (1, Limits().response_size):  # a worker waits, or has ended
            with self.subTest(size=size), mock.patch.object(response, "CLOSE_TIMEOUT", 0.01):
                self.ended.clear()

                async def client(task, reading, size=size):
                    gateway = self.layer.gateway
                    limits = gateway.responses.limits
                    gateway.responses.limits = limits._replace(response_size=size)
                    backlogs = gateway.responses._backlogs
                    await self.until(
                        lambda: self.ended.is_set() or any(each.awaited for each in backlogs)
                    )
                    self.leaving.set()
                    await task
                    await self.until(lambda: not gateway.connections and self.ended.is_set())

                self.run_client(client)
                self.assertEqual(self.sent, [])

    def test_a_response_above_the_bound_waits_and_its_client_is_cut(self):
        async def client(task, reading):
            store = self.layer.gateway.responses
            store.limits = store.limits._replace(response_size=1)
            await self.until(lambda: any(each.awaited for each in store._backlogs))
            self.assertFalse(self.ended.is_set())
            # Other requests don't wait for its turn to end.
            self.assertEqual(self.layer.gateway.events._lanes["http.request"].in_flight, 0)
            store.check_rates()
            store.check_rates()
            await task
            await self.until(self.ended.is_set)
            self.assertEqual((store.memory, store._backlogs), (0, {}))
            await self.until(lambda: not store.stored)  # what was being written is written first

        self.run_client(client)
        self.assertEqual(self.layer.statistics()["slow_clients"], 1)
        self.assertEqual(self.sent, [])
        # Uvicorn alone would wait until everything is written.
        self.transport.abort.assert_called_once_with()

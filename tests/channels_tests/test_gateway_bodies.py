"""Bodies of requests in the gateway: from a server that says when, over the in-memory layer."""

import asyncio
import collections
import contextlib
import os
import re
import threading
import time
import unittest
from unittest import mock

from django.channels import route
from django.channels.exceptions import RequestAborted
from django.channels.gateway import upload
from django.channels.handler import read_body
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.protocol import BODY_CHANNEL
from django.channels.shares import Shares

from .support.waiting import TIMEOUT, wait_until

PART = 64 * 1024


class Events:
    """What a client does, for one reader. Unlike asyncio.Queue on Python 3.7, it is made without a loop."""

    def __init__(self):
        self._events = collections.deque()
        self._reader = None

    def put(self, event):
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def empty(self):
        return not self._events

    async def get(self):
        while not self._events:
            self._reader = asyncio.get_event_loop().create_future()
            await self._reader
        return self._events.popleft()


class Server:
    """The server's side of one request: `send` and `receive` as an application calls them."""

    def __init__(self, *headers, method="POST", path="/", client=None):
        self.scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        self.scope["client"] = client and [client, 1000]
        self.events = Events()
        self.receive = self.events.get
        self.sent = []
        self.wait = None
        self.ended = False

    def body(self, *parts, more=False):
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts) and not more
            self.events.put({"type": "http.request", "body": part, "more_body": not is_last})
        return self

    def leave(self):
        self.events.put({"type": "http.disconnect"})
        return self

    async def send(self, event):
        self.sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            self.ended = True

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def content(self):
        return b"".join(event.get("body", b"") for event in self.sent)

    async def run(self, layer):
        await asyncio.wait_for(layer(self.scope, self.receive, self.send), TIMEOUT)
        return self


class BodyCase(unittest.TestCase):
    """A site with one consumer, `self.consume(message)`, on `self.layer`."""

    def setUp(self):
        self.messages = []
        self.layer = MemoryChannelLayer(threads=2)
        self.layer.alias = "test"
        self.layer.routing = [
            route("http.request", lambda message: self.consume(message)),
            route("http.disconnect", self.messages.append),
        ]

    def consume(self, message):
        """Answer without reading the body."""
        self.messages.append(message)
        message.reply_channel.send({"status": 200, "headers": [], "content": b"done"})

    def serve(self, function):
        """Run the coroutine function `function()` in an event loop with a gateway."""

        async def main():
            try:
                return await asyncio.wait_for(function(), 5 * TIMEOUT)
            finally:
                await self.layer.gateway.stop()

        return asyncio.run(main())


class UnreadBodyTests(BodyCase):
    def test_an_unread_body_goes_with_its_request(self):
        async def upload():
            for _ in range(5):
                await Server().body(*[b"x" * PART] * 40).run(self.layer)
            count = self.layer.global_statistics
            await asyncio.get_event_loop().run_in_executor(
                None, wait_until, lambda: count()["messages_pending"] == 0, "the bodies to go"
            )

        self.serve(upload)

    def test_expired_messages_go_without_any_traffic(self):
        self.layer.expiries.default = 0.01

        async def send():
            self.assertFalse(self.layer.gateway.stopped)
            self.layer.send("test.nobody?reads", {"text": "this"})
            await asyncio.get_event_loop().run_in_executor(
                None, wait_until, lambda: not self.layer._queues, "the message to go"
            )

        self.serve(send)


class SharesTests(unittest.TestCase):
    def fill(self, address, limit=120, least=1):
        """Let an address take as much as it may, one by one. Return how much that is."""
        while self.shares.allows(address, 1, limit, least):
            self.shares.take(address, 1)
            self.assertLessEqual(self.shares.of(address), limit)
        return self.shares.of(address)

    def setUp(self):
        self.shares = Shares()

    def test_each_address_leaves_as_much_as_it_takes(self):
        self.assertEqual(self.fill("first"), 60)
        self.assertEqual(self.fill("second"), 30)
        self.assertEqual(self.fill("third"), 15)
        self.assertEqual(self.fill("first"), 60)

    def test_an_address_may_take_what_one_client_needs(self):
        self.assertEqual(self.fill("first", least=100), 100)
        self.assertEqual(self.fill("second", least=100), 20)
        self.assertEqual(self.shares.used, 120)

    def test_an_address_that_takes_nothing_is_forgotten(self):
        self.fill("first")
        self.shares.take("first", -60)
        self.shares.take("second", 0)
        self.assertEqual((self.shares.used, self.shares._by_address), (0, {}))


class UploadCase(BodyCase):
    """A site that reads bodies, with a gateway that streams those of /stream."""

    streams = "^/stream"

    def setUp(self):
        super().setUp()
        self.failures = []
        self.reads = True

    def run_one(self, server, **limits):
        """Serve one request with these limits, and check that nothing of its body is left."""

        async def run():
            self.limit(**limits)
            if server.wait is None:
                await server.run(self.layer)
            else:
                await asyncio.gather(server.run(self.layer), server.wait())
            room = self.layer.gateway.room
            self.assertEqual((room.memory.used, room.disk.used), (0, 0))
            return server

        return self.serve(run)

    def limit(self, **limits):
        gateway = self.layer.gateway
        limits["stream_paths"] = (re.compile(self.streams),)
        gateway.limits = gateway.room.limits = gateway.limits._replace(**limits)

    def consume(self, message):
        self.messages.append(message)
        rest = read_body(message) if self.reads and BODY_CHANNEL in message else ()
        try:
            self.content = message["body"] + b"".join(rest)
        except Exception as error:
            self.failures.append(error)
            raise
        message.reply_channel.send({"status": 200, "headers": [], "content": b"done"})

    async def until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("waited %g s for what a test expects" % TIMEOUT)
            await asyncio.sleep(0)

    def channels(self):
        return [each.channel.name for each in self.messages]


class GatheredBodyTests(UploadCase):
    """A request is sent to the workers when its body is there."""

    def refused(self, server, status, counter, **limits):
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            self.run_one(server, **limits)
        self.assertEqual(server.status, status)
        self.assertEqual(self.messages, [])
        self.assertEqual(self.layer.statistics().get(counter), 1)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertEqual(server.content.count(b"<h1>"), 1)
        return logs.output[0]

    def test_a_small_body_in_parts_is_sent_with_its_request(self):
        server = self.run_one(Server().body(b"a", b"b", b"c", b""))
        self.assertEqual((server.content, self.content), (b"done", b"abc"))
        (message,) = self.messages
        self.assertEqual(message["body"], b"abc")
        self.assertNotIn(BODY_CHANNEL, message)

    def test_a_request_without_a_body_is_sent_at_its_first_event(self):
        for method in ("GET", "HEAD", "POST"):
            del self.messages[:]
            self.run_one(Server(method=method).body(b""))
            self.assertEqual([each["body"] for each in self.messages], [b""])

    def test_a_body_on_a_get_arrives(self):
        server = self.run_one(Server(method="GET").body(b"a", b"b", b"c"))
        self.assertEqual((server.content, self.content), (b"done", b"abc"))

    def test_a_large_body_arrives_whole_from_memory_and_from_a_file(self):
        content = bytes(range(256)) * 8192  # 2 MB
        parts = [content[at : at + 50000] for at in range(0, len(content), 50000)]
        for limits in ({}, {"body_memory": 300000}, {"body_memory": 1}, {"bodies_memory": 100000}):
            with self.subTest(limits=limits):
                del self.messages[:]
                server = self.run_one(Server().body(*parts), **limits)
                self.assertEqual(server.status, 200)
                self.assertTrue(self.content == content)
                self.assertEqual(len(self.messages[0]["body"]), 256 * 1024)

    def test_a_body_in_one_event_arrives_whole(self):
        content = bytes(range(256)) * 8192
        server = self.run_one(Server().body(content))
        self.assertEqual(server.status, 200)
        self.assertTrue(self.content == content)

    def test_slow_clients_hold_no_thread(self):
        async def run():
            servers = [Server().body(b"x", more=True) for _ in range(20)]
            uploads = [asyncio.ensure_future(server.run(self.layer)) for server in servers]
            await asyncio.sleep(0)
            # The site has two threads.
            server = await Server(method="GET").body(b"").run(self.layer)
            self.assertEqual(server.status, 200)
            self.assertEqual(len(self.messages), 1)
            for each in servers:
                each.body(b"y")
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            self.assertEqual([each["body"] for each in self.messages[1:]], [b"xy"] * 20)

        self.serve(run)

    def test_a_body_that_stops_is_answered_with_408(self):
        server = Server((b"content-length", b"5")).body(b"x", more=True)
        line = self.refused(server, 408, "bodies_slow", body_grace=0.05)
        self.assertIn("more slowly", line)

    def test_a_body_that_never_begins_is_answered_with_408(self):
        server = Server((b"content-length", b"5"))
        self.refused(server, 408, "bodies_slow", body_grace=0.05)

    def test_the_time_for_a_body_does_not_begin_again_with_each_byte(self):
        server = Server((b"transfer-encoding", b"chunked"))

        async def receive():
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}

        server.receive = receive
        self.refused(server, 408, "bodies_slow", body_grace=0.1)

    def test_a_body_gets_no_more_than_its_time_however_fast_it_comes(self):
        server = Server()

        async def receive():
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

        server.receive = receive
        self.refused(server, 408, "bodies_slow", body_time=0.1, body_rate=1)

    def test_a_body_that_comes_at_the_least_rate_is_taken(self):
        # The first part gives it 100 seconds, and it takes longer than `body_grace`.
        server = Server().body(b"x" * 100, more=True)

        async def go_on():
            for _ in range(10):
                await asyncio.sleep(0.01)
                server.body(b"x", more=True)
            server.body(b"y")

        server.wait = go_on
        self.run_one(server, body_grace=0.01, body_rate=1)
        self.assertEqual((server.content, self.content), (b"done", b"x" * 110 + b"y"))

    def test_a_content_length_over_the_limit_is_refused_before_the_body_is_read(self):
        server = Server((b"content-length", b"1001")).body(b"x" * 1001)
        self.assertIn("body_size", self.refused(server, 413, "bodies_too_large", body_size=1000))
        self.assertTrue(server.events.empty(), "the body was not read to its end")

    def test_a_body_that_its_client_holds_back_is_not_asked_for(self):
        server = Server((b"content-length", b"1001"), (b"expect", b"100-continue"))
        server.receive = None  # it is not called
        self.refused(server, 413, "bodies_too_large", body_size=1000)

    def test_a_chunked_body_over_the_limit_is_refused(self):
        server = Server((b"transfer-encoding", b"chunked")).body(*[b"x" * 100] * 20)
        self.refused(server, 413, "bodies_too_large", body_size=1000)
        self.assertTrue(server.events.empty(), "the body was not read to its end")

    def test_a_body_for_which_there_is_no_room_is_refused(self):
        server = Server().body(*[b"x" * 1000] * 20)
        self.refused(server, 503, "bodies_refused", body_memory=1000, bodies_disk=5000)

    def test_a_full_disk_is_logged_and_its_requests_refused(self):
        full = mock.patch("tempfile.TemporaryFile", side_effect=OSError(28, "No space left"))
        with full, self.assertLogs("django.channels.gateway", "WARNING") as logs:
            server = self.run_one(Server().body(b"x" * 5000, b"y"), body_memory=1000)
        self.assertEqual((server.status, self.messages), (503, []))
        self.assertIn("No space left", logs.output[0])

    def test_a_client_that_leaves_sends_no_request(self):
        for parts in ([], [b"x"], [b"x" * 5000] * 3):
            server = Server((b"content-length", b"99999"))
            server.body(*parts, more=True).leave()
            self.run_one(server, body_memory=1000)
            self.assertEqual((server.sent, self.messages), ([], []))

    def test_a_server_that_stops_its_application_leaves_nothing(self):
        async def run():
            self.limit(body_memory=1000)
            room = self.layer.gateway.room
            server = Server().body(b"x" * 5000, b"x" * 500, more=True)
            running = asyncio.ensure_future(self.layer(server.scope, server.receive, server.send))
            await self.until(lambda: room.disk.used)
            running.cancel()
            await asyncio.wait({running})
            self.assertEqual((room.memory.used, room.disk.used), (0, 0))

        self.serve(run)
        self.assertEqual(self.messages, [])

    def test_bodies_beyond_the_memory_of_all_wait_in_files(self):
        async def run():
            self.limit(bodies_memory=100000)
            room = self.layer.gateway.room
            servers = [Server().body(*[b"x" * 1000] * 50, more=True) for _ in range(10)]
            uploads = [asyncio.ensure_future(server.run(self.layer)) for server in servers]
            while room.memory.used + room.disk.used < 500000:
                self.assertLess(room.memory.used, 100000 + 10 * 5000)
                await asyncio.sleep(0)
            for each in servers:
                each.body(b"y")
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            self.assertEqual(self.content, b"x" * 50000 + b"y")
            self.assertEqual((room.memory.used, room.disk.used), (0, 0))

        self.serve(run)

    def test_bodies_in_files_take_one_descriptor_together(self):
        # A process has 1,024 by default, and each connection takes one.
        async def run():
            self.limit(body_memory=1000)
            room = self.layer.gateway.room
            before = len(os.listdir("/dev/fd"))
            servers = [Server().body(b"%04d" % n * 500, more=True) for n in range(50)]
            uploads = [asyncio.ensure_future(server.run(self.layer)) for server in servers]
            await self.until(lambda: room.disk.used == 50 * 2000)
            self.assertLess(len(os.listdir("/dev/fd")), before + 10)
            for each in servers:
                each.body(b"")
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            bodies = sorted(each["body"] for each in self.messages)
            self.assertTrue(bodies == [b"%04d" % n * 500 for n in range(50)])
            self.assertEqual((room.memory.used, room.disk.used, room.file.used), (0, 0, 0))

        self.serve(run)

    def test_one_address_does_not_take_the_room_of_others_in_files(self):
        async def run():
            self.limit(bodies_memory=1000, bodies_disk=100000, body_size=10000)
            room = self.layer.gateway.room
            servers = [Server(client="10.0.0.1").body(b"x" * 9000, more=True) for _ in range(12)]
            with self.assertLogs("django.channels.gateway", "WARNING"):
                uploads = [asyncio.ensure_future(each.run(self.layer)) for each in servers]
                await self.until(lambda: any(each.status == 503 for each in servers))
            self.assertLessEqual(room.disk.used, 60000)
            other = await Server(client="10.0.0.2").body(b"x" * 9000).run(self.layer)
            self.assertEqual(other.status, 200)
            for each in servers:
                each.leave()
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            self.assertEqual((room.memory.used, room.disk.used), (0, 0))

        self.serve(run)

    def test_one_address_does_not_take_the_room_of_others_in_memory(self):
        async def run():
            self.limit(bodies_memory=100000, body_memory=10000)
            room = self.layer.gateway.room
            servers = [Server(client="10.0.0.1").body(b"x" * 9000, more=True) for _ in range(12)]
            uploads = [asyncio.ensure_future(each.run(self.layer)) for each in servers]
            await self.until(lambda: room.memory.used + room.disk.used == 12 * 9000)
            self.assertLessEqual(room.memory.used, 60000)
            other = Server(client="10.0.0.2").body(b"x" * 9000, more=True)
            uploads.append(asyncio.ensure_future(other.run(self.layer)))
            await self.until(lambda: room.memory.of("10.0.0.2") == 9000)
            for each in (*servers, other):
                each.leave()
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)

        self.serve(run)


class WaitingRequestTests(UploadCase):
    """What goes along with requests that wait for a worker is bounded."""

    def consume(self, message):
        self.messages.append(message)
        self.go_on.wait(TIMEOUT)
        message.reply_channel.send({"status": 200, "headers": [], "content": b"done"})

    def test_a_body_too_many_is_refused_until_others_were_answered(self):
        self.go_on = threading.Event()

        async def run():
            self.limit(bodies_memory=25000)
            room = self.layer.gateway.room
            servers = [Server().body(b"x" * 10000) for _ in range(2)]
            uploads = [asyncio.ensure_future(each.run(self.layer)) for each in servers]
            await self.until(lambda: len(self.messages) == 2)
            with self.assertLogs("django.channels.gateway", "WARNING"):
                refused = await Server().body(b"x" * 10000).run(self.layer)
            self.assertEqual(refused.status, 503)
            self.assertEqual(self.layer.statistics().get("bodies_refused"), 1)
            self.go_on.set()
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            taken = await Server().body(b"x" * 10000).run(self.layer)
            self.assertEqual([each.status for each in (*servers, taken)], [200] * 3)
            self.assertEqual(room.waiting.used, 0)

        self.serve(run)

    def test_one_address_does_not_take_the_room_of_others(self):
        self.go_on = threading.Event()

        async def run():
            self.limit(bodies_memory=100000, body_in_message=10000)
            servers = [Server(client="10.0.0.1").body(b"x" * 10000) for _ in range(10)]
            with self.assertLogs("django.channels.gateway", "WARNING"):
                uploads = [asyncio.ensure_future(each.run(self.layer)) for each in servers]
                await self.until(lambda: any(each.status == 503 for each in servers))
            other = Server(client="10.0.0.2").body(b"x" * 10000)
            uploads.append(asyncio.ensure_future(other.run(self.layer)))
            await self.until(lambda: self.layer.gateway.room.waiting.of("10.0.0.2") == 10000)
            self.go_on.set()
            await asyncio.wait_for(asyncio.gather(*uploads), TIMEOUT)
            statuses = [each.status for each in servers]
            self.assertEqual((statuses.count(200), statuses.count(503)), (5, 5))
            self.assertEqual(other.status, 200)
            self.assertEqual(self.layer.gateway.room.waiting.used, 0)

        self.serve(run)

    def test_nothing_counts_of_a_request_that_ends_after_its_client_has_left(self):
        self.go_on = threading.Event()

        async def run():
            room = self.layer.gateway.room
            for _ in range(4):  # of which two wait for a thread
                server = Server().body(b"x" * 10000)
                running = asyncio.ensure_future(server.run(self.layer))
                await self.until(server.events.empty)
                server.leave()
                await asyncio.wait_for(running, TIMEOUT)
            self.assertGreaterEqual(room.waiting.used, 20000)
            self.go_on.set()
            await self.until(lambda: not self.layer.gateway.connections)
            self.assertEqual((room.waiting.used, room._sent), (0, {}))

        self.serve(run)

    def test_requests_whose_clients_have_left_count_until_a_worker_has_taken_them(self):
        self.go_on = threading.Event()

        async def run():
            self.limit(bodies_memory=25000)
            for _ in range(2):
                server = Server().body(b"x" * 10000)
                running = asyncio.ensure_future(server.run(self.layer))
                await self.until(server.events.empty)
                server.leave()
                await asyncio.wait_for(running, TIMEOUT)
            with self.assertLogs("django.channels.gateway", "WARNING"):
                refused = await Server().body(b"x" * 10000).run(self.layer)
            self.assertEqual(refused.status, 503)
            self.go_on.set()
            await self.until(lambda: len(self.messages) == 4)
            taken = await Server().body(b"x" * 10000).run(self.layer)
            self.assertEqual(taken.status, 200)

        self.serve(run)


class StreamedBodyTests(UploadCase):
    """On a path of the option stream_paths, the view gets the body as it comes."""

    streams = "^/stream"

    def test_the_view_begins_before_the_body_ends_and_gets_all_of_it(self):
        for limits in ({}, {"body_memory": 1}, {"bodies_memory": 1}, {"bodies_disk": 1}):
            with self.subTest(limits=limits):
                del self.messages[:]
                server = Server(path="/stream").body(b"first", more=True)
                server.wait = lambda server=server: self.until_consumed(server)
                self.run_one(server, **limits)
                self.assertEqual(self.messages[0]["body"], b"first")
                self.assertEqual(self.content, b"first" + b"x" * 300000 + b"last")

    async def until_consumed(self, server):
        await self.until(lambda: self.messages)
        server.body(*[b"x" * 1000] * 300, b"last")

    def test_other_paths_are_gathered(self):
        server = self.run_one(Server(path="/other/stream").body(b"first", b"last"))
        self.assertEqual(self.messages[0]["body"], b"firstlast")
        self.assertEqual(server.status, 200)

    def test_a_body_that_stops_is_answered_with_408_and_ends_the_view(self):
        server = Server(path="/stream").body(b"x", more=True)
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            self.run_one(server, body_grace=0.05)
        self.assertEqual((server.status, len(logs.output)), (408, 1))
        wait_until(lambda: self.failures, "the view to be told")
        self.assertIsInstance(self.failures[0], RequestAborted)
        self.assertEqual(self.layer.statistics().get("bodies_slow"), 1)

    def test_a_client_that_leaves_ends_the_view_and_is_told(self):
        server = Server(path="/stream").body(b"x", more=True)

        async def leave():
            await self.until(lambda: self.messages)
            server.leave()

        server.wait = leave
        self.run_one(server)
        self.assertIsInstance(self.failures[0], RequestAborted)
        self.assertEqual(self.channels(), ["http.request", "http.disconnect"])

    def test_an_answer_ends_when_the_rest_of_the_body_is_read(self):
        self.reads = False
        server = Server(path="/stream").body(b"x" * 300000, more=True)

        async def go_on():
            await self.until(lambda: server.content)
            for number in range(40):
                self.assertFalse(server.ended, "the answer ended before the body")
                # granian has events without content now and then.
                server.body(b"x" * 50000 * (number < 20), more=number < 39)
                await self.until(server.events.empty)

        server.wait = go_on
        self.run_one(server)
        self.assertEqual(server.content, b"done")

    def test_an_answer_of_one_part_is_complete_for_its_client_before_the_body(self):
        # A proxy that sends no more of the body once an answer has begun would wait for its end.
        self.reads = False
        for method, expected in (("POST", [b"4"]), ("HEAD", [])):
            server = Server(method=method, path="/stream").body(b"x", more=True)

            async def look(server=server, method=method):
                await self.until(lambda: server.content or method == "HEAD" and server.sent)
                self.assertFalse(server.ended)
                server.body(b"x")

            server.wait = look
            self.run_one(server)
            headers = server.sent[0]["headers"]
            found = [value for name, value in headers if name == b"content-length"]
            self.assertEqual(found, expected)

    def test_an_answer_does_not_wait_for_a_body_that_does_not_come(self):
        self.reads = False
        server = Server(path="/stream").body(b"x", more=True)
        with mock.patch("%s.LINGER_TIMEOUT" % upload.__name__, 0.05):
            self.run_one(server)
        self.assertEqual(server.content, b"done")
        self.assertTrue(server.ended)

    def answer_in_parts(self, server, may_answer, **bounds):
        """
        Let a consumer answer `server` in two parts, without a length, when the event `may_answer` is set. It
        doesn't read the body.
        """

        def consume(message):
            may_answer.wait(TIMEOUT)
            message.reply_channel.send({"status": 200, "content": b"a", "more_content": True})
            message.reply_channel.send({"content": b"b"})

        self.consume = consume
        with contextlib.ExitStack() as stack:
            for name, value in dict(bounds, LINGER_TIMEOUT=10 * TIMEOUT).items():
                stack.enter_context(mock.patch("%s.%s" % (upload.__name__, name), value))
            self.run_one(server)
        self.assertEqual((server.content, server.ended), (b"ab", True))

    def test_the_end_of_an_answer_is_not_kept_from_a_proxy_that_waits_for_it(self):
        # nginx sends no more of the body once an answer has begun.
        server = Server(path="/stream").body(b"x" * 300000, more=True)
        may_answer = threading.Event()
        may_answer.set()
        self.answer_in_parts(server, may_answer, PROXY_TIMEOUT=0.05)

    def test_a_client_whose_body_comes_with_pauses_is_not_taken_for_such_a_proxy(self):
        server = Server(path="/stream").body(b"x", more=True)
        may_answer = threading.Event()

        async def go_on():
            for _ in range(2):
                await asyncio.sleep(0.05)
                server.body(b"x", more=True)
                await self.until(server.events.empty)
            may_answer.set()
            await self.until(lambda: server.content == b"ab")
            await asyncio.sleep(0.2)
            self.assertFalse(server.ended, "the answer ended before the body")
            server.body(b"x")

        server.wait = go_on
        self.answer_in_parts(server, may_answer, PROXY_TIMEOUT=0.01, PAUSES=100000)

    def test_a_consumer_that_reads_on_after_its_answer_is_told_at_once(self):
        def consume(message):
            message.reply_channel.send({"status": 200, "content": b""}, immediately=True)
            try:
                list(read_body(message))
            except Exception as error:
                self.failures.append(error)

        self.consume = consume
        with mock.patch("%s.LINGER_TIMEOUT" % upload.__name__, 0.05):
            self.run_one(Server(path="/stream").body(b"x", more=True))
        wait_until(lambda: self.failures, "the consumer to be told")
        self.assertIsInstance(self.failures[0], RequestAborted)


class LeavingClientTests(UploadCase):
    """A client that leaves is noticed, however much of its body the view has left unread."""

    def test_http_disconnect_is_sent_whatever_the_body(self):
        for path in ("/gathered", "/stream"):
            for parts in ([b"x"], [b"x" * PART] * 40, [b"x" * PART] * 200):
                with self.subTest(path=path, parts=len(parts)):
                    del self.messages[:]
                    self.leave(Server(path=path).body(*parts))
                    self.assertEqual(self.channels(), ["http.request", "http.disconnect"])

    def leave(self, server):
        started, left = threading.Event(), threading.Event()

        def consume(message):
            self.messages.append(message)
            started.set()
            left.wait(TIMEOUT)

        self.consume = consume

        async def wait():
            await asyncio.get_event_loop().run_in_executor(None, started.wait, TIMEOUT)
            server.leave()
            while not server.events.empty():
                await asyncio.sleep(0)
            left.set()

        server.wait = wait
        self.run_one(server)
        self.assertEqual(server.sent, [])

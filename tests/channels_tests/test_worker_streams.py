"""Streams that wait, on a whole worker: asynchronous ones on its event loop, others on few of its threads."""

import asyncio
import logging
import threading
import time
from unittest import mock, skipIf

import django
from django import http
from django.channels import Channel, Group, eventloop, handler, replies
from django.channels.compat import SynchronousOnlyOperation, sync_to_async
from django.channels.exceptions import ConsumeLater
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.outbox import outbox
from django.channels.streams import StreamThreads
from django.channels.worker import WorkerGroup
from django.core import signals
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings
from django.utils import timezone

from . import http_site
from .http_messages import Received, Sent
from .support.contexts import enter
from .support.layers import next_message, next_reply, replies_on
from .support.waiting import TIMEOUT, wait_until


class SiteCase(SimpleTestCase):
    """A site of one view, on a layer and a group of workers. The test is its gateway."""

    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.layer = MemoryChannelLayer(capacity=5000)
        self.layer.routing = []
        self.group = None
        self.number = 0
        self.log = []

    def start(self, view, threads=1):
        enter(self, http_site.settings_of(view))
        self.group = WorkerGroup(self.layer, threads=threads)
        self.group.start()
        self.addCleanup(self.group.stop, TIMEOUT)

    def ask(self, path="/", **changes):
        """Send a request. Return its reply channel."""
        self.number += 1
        channel = "gateway.test%d!1" % self.number
        message = Sent("GET", path).message(reply_channel=channel, **changes)
        self.layer.send("http.request", dict(message, event_id=0))
        return channel

    def next(self, channel):
        return next_reply(self.layer, channel)

    def answers(self, channel):
        """Return all messages to a client, up to the acknowledgement."""
        found = [self.next(channel)]
        while "ack" not in found[-1]:
            found.append(self.next(channel))
        found[-1].pop("ran", None)  # how long it took
        return found

    def response(self, answers):
        found = []
        for answer in answers:
            found += answer.get("replies", [answer] if "content" in answer else [])
        return Received.from_replies(found)

    def close(self, first):
        """The client has gone, whose first message this is."""
        self.layer.send(first["window_channel"], {"closed": True})


@skipIf(django.VERSION < (4, 2), "Django streams asynchronous iterators from 4.2 on")
class AsyncTests(SiteCase):
    async def waiting(self, count=0):
        try:
            for each in range(count):
                yield str(each)
            self.log.append("waits")
            await asyncio.Event().wait()
        finally:
            self.log.append("closed")

    def view(self, count=0):
        def view(request):
            if "stream" not in request.path:
                return http.HttpResponse("hello")
            return http.StreamingHttpResponse(self.waiting(count))

        return view

    def serve(self, make):
        """Answer with the asynchronous iterator that `make()` returns."""
        self.start(lambda request: http.StreamingHttpResponse(make()))

    def test_the_gateway_is_told_once_of_a_stream_that_runs_on(self):
        """Then other requests take its turn."""
        self.start(self.view(2))
        channel, messages = self.ask("/stream"), [{}]

        def is_there(key):
            return any(key in each for each in messages)

        while not (is_there("running") and is_there("window_channel")):
            messages.append(next_message(self.layer, channel))
        self.close([each for each in messages if "window_channel" in each][0])
        while not is_there("ack"):
            messages.append(next_message(self.layer, channel))
        self.assertEqual(len([each for each in messages if "running" in each]), 1)

    def test_streams_that_wait_hold_no_thread(self):
        self.start(self.view())
        channels = [self.ask("/stream") for _ in range(50)]
        firsts = [self.next(channel) for channel in channels]
        self.assertEqual([each["status"] for each in firsts], [200] * 50)
        wait_until(lambda: self.log == ["waits"] * 50, "the streams to wait")
        for _ in range(3):
            self.assertEqual(self.response(self.answers(self.ask("/"))).body, b"hello")
        for first in firsts:
            self.close(first)
        for channel in channels:
            self.assertEqual(self.answers(channel), [{"ack": 0}])
        self.assertEqual(self.log, ["waits"] * 50 + ["closed"] * 50)

    def test_each_stream_keeps_its_claim_until_it_ends(self):
        self.start(self.view())
        channels = [self.ask("/stream") for _ in range(3)]
        firsts = [self.next(channel) for channel in channels]
        self.answers(self.ask("/"))  # which acknowledges what the thread itself had claimed
        held = [message["reply_channel"] for _, message in self.layer._unacknowledged.values()]
        self.assertEqual(set(channels) - set(held), set())
        for first in firsts:
            self.close(first)
        wait_until(lambda: len(self.layer._unacknowledged) <= 1, "the claims of the streams to end")

    def test_consumer_ids_are_used_again(self):
        """Layers keep something for each of them."""
        self.start(self.view())
        ids = set()
        for _ in range(5):
            channel = self.ask("/stream")
            self.close(self.next(channel))
            self.answers(channel)
            wait_until(lambda: not self.group.loop._streams.used, "the end of the event")
            ids.add(self.group.workers[0].consumer_id)
        self.assertLessEqual(len(ids), 2)

    def test_a_client_that_leaves_before_the_first_part_is_noticed(self):
        """The head goes ahead, so that its gateway knows whom to tell."""
        self.start(self.view())
        channel = self.ask("/stream")
        first = self.next(channel)
        self.assertEqual((first["status"], first["content"]), (200, b""))
        began = time.monotonic()
        self.close(first)
        self.answers(channel)
        self.assertEqual(self.log, ["waits", "closed"])
        self.assertLess(time.monotonic() - began, 5 * TIMEOUT)

    def test_an_iterator_that_never_waits_ends_when_its_client_has_gone(self):
        async def swallows():
            try:
                yield b"first"
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            while True:
                yield b"x"

        async def swallows_and_gives_nothing():
            async for each in swallows():
                yield each if each != b"x" else b""

        async def gives_nothing():
            yield b"first"
            while True:
                yield b""

        makers = {"/a": swallows, "/b": swallows_and_gives_nothing, "/c": gives_nothing}
        self.start(lambda request: http.StreamingHttpResponse(makers[request.path]()))
        for path in makers:
            with self.subTest(path):
                channel = self.ask(path)
                self.close(self.next(channel))
                self.assertEqual(self.answers(channel)[-1]["ack"], 0)

    def test_what_it_sends_leaves_with_each_part(self):
        seen = []

        async def parts():
            for number in range(3):
                Group("g", channel_layer=self.layer).send({"number": number})
                self.assertEqual(len(outbox.pending), 1)
                yield b"%d" % number
                seen.append(self.layer.receive_many(["member"])[1]["number"])
            Channel("other", channel_layer=self.layer).send({"last": True})

        Group("g", channel_layer=self.layer).add("member")
        self.serve(parts)
        self.assertEqual(self.response(self.answers(self.ask())).body, b"012")
        self.assertEqual(seen, [0, 1, 2])
        self.assertEqual(self.layer.receive_many(["other"])[1], {"last": True})

    def test_it_stays_in_its_window(self):
        made = []

        async def parts():
            for number in range(30):
                made.append(number)
                yield b"%d " % number

        self.serve(parts)
        channel = self.ask()
        first = self.next(channel)
        received = [first] + [self.next(channel) for _ in range(handler.RESPONSE_WINDOW - 1)]
        wait_until(lambda: len(made) == handler.RESPONSE_WINDOW + 1, "the window to be full")
        self.assertEqual(replies_on(self.layer, channel), [])
        while "ack" not in received[-1]:
            self.layer.send(first["window_channel"], {"written": 1})
            received.append(self.next(channel))
        body = self.response(received).body
        self.assertEqual(body, b"".join(b"%d " % number for number in range(30)))

    def test_a_client_that_takes_nothing_is_given_up(self):
        closed = threading.Event()

        async def parts():
            try:
                while True:
                    yield b"x"
            finally:
                closed.set()

        with mock.patch.object(handler, "STREAM_TIMEOUT", 0.05):
            self.serve(parts)
            answers = self.answers(self.ask())
        self.assertEqual(answers[-1], {"ack": 0})
        self.assertTrue(closed.is_set())

    def test_an_error_is_answered_and_ends_nothing_else(self):
        from . import async_site

        errors = (KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)
        made = iter([async_site.Failing(error) for error in errors] + [self.waiting(1)])
        self.serve(lambda: next(made))
        for error in errors:
            answers = self.answers(self.ask())
            self.assertEqual((answers[-1]["ack"], answers[-1].get("error")), (0, True), error)
            self.assertEqual(answers[-1]["replies"][0]["status"], 500, error)
        self.assertEqual(self.next(self.ask())["content"], b"0")

    def test_one_that_raises_consume_later_breaks_off_and_is_not_made_again(self):
        made = []

        async def parts():
            made.append(1)
            yield b"part"
            raise ConsumeLater()

        self.serve(parts)
        answers = self.answers(self.ask())
        self.assertEqual([each["content"] for each in answers[:-1]], [b"part"])
        self.assertTrue(answers[-1]["error"])
        self.assertEqual(self.next(self.ask())["content"], b"part")
        self.assertEqual(len(made), 2)

    def test_what_closes_coroutines_loses_no_send_and_no_end_of_the_response(self):
        def receiver(**kwargs):
            self.log.append("finished")

        def fail():
            raise GeneratorExit("in a thread")

        def parts():
            Group("g", channel_layer=self.layer).send({"last": True})
            yield b"part"
            Group("g", channel_layer=self.layer).send({"last": True})
            fail()

        async def async_parts():
            Group("g", channel_layer=self.layer).send({"last": True})
            yield b"part"
            Group("g", channel_layer=self.layer).send({"last": True})
            try:
                await sync_to_async(fail)()
            finally:  # not where its garbage is collected
                self.log.append("closed")

        async def view(request):
            return http.StreamingHttpResponse({"/a": parts, "/b": async_parts}[request.path]())

        signals.request_finished.connect(receiver)
        self.addCleanup(signals.request_finished.disconnect, receiver)
        Group("g", channel_layer=self.layer).add("member")
        self.start(view)
        for path in ("/a", "/b"):
            with self.subTest(path):
                answers = self.answers(self.ask(path))
                self.assertEqual(answers[0]["content"], b"part")
                self.assertTrue(answers[-1]["error"])
                for _ in range(2):
                    self.assertEqual(next_message(self.layer, "member"), {"last": True})
                wait_until(lambda: "finished" in self.log, "request_finished")
                self.assertEqual(self.log.count("closed"), 1 if path == "/b" else 0)
                del self.log[:]

    def test_it_may_not_block_the_event_loop_whether_its_view_is_asynchronous_or_not(self):
        group = Group("g", channel_layer=self.layer)
        calls = [
            lambda: group.send({}, immediately=True),
            lambda: group.add("member"),
            lambda: group.discard("member"),
            group.channels,
        ]

        async def parts(call):
            try:
                call()
            except SynchronousOnlyOperation:
                self.log.append("refused")
            await group.aadd("member")
            yield b"x"

        def stream(request):
            return http.StreamingHttpResponse(parts(calls[int(request.path[1:])]))

        async def asynchronous(request):
            return stream(request)

        for view in (stream, asynchronous):
            with self.subTest(view=view):
                self.start(view)
                for number in range(len(calls)):
                    self.assertEqual(
                        self.response(self.answers(self.ask("/%d" % number))).body, b"x"
                    )
                self.assertEqual(self.log, ["refused"] * len(calls))
                del self.log[:]
                self.assertTrue(self.group.stop(TIMEOUT))

    def test_a_bug_at_its_end_leaves_no_client_without_an_answer(self):
        self.start(self.view())
        add = replies.Replies.add

        def fail_for_the_rest(self, message, result):
            if result.rest is None and "stream" in message["path"]:
                raise KeyError("a bug")
            add(self, message, result)

        with mock.patch.object(replies.Replies, "add", fail_for_the_rest):
            channel = self.ask("/stream")
            self.close(self.next(channel))
            self.assertEqual(self.answers(channel), [{"ack": 0, "error": True}])
        self.assertEqual(self.response(self.answers(self.ask("/"))).body, b"hello")

    def test_the_content_length_holds(self):
        async def parts():
            yield b"abc"
            yield b"def"

        def view(request):
            response = http.StreamingHttpResponse(parts())
            response["Content-Length"] = request.path[1:]
            return response

        self.start(view)
        self.assertEqual(self.response(self.answers(self.ask("/4"))).body, b"abcd")
        self.assertEqual(self.response(self.answers(self.ask("/6"))).body, b"abcdef")
        self.assertTrue(self.answers(self.ask("/7"))[-1]["error"])

    def test_the_response_is_closed_in_the_end(self):
        def receiver(**kwargs):
            self.log.append("finished")

        signals.request_finished.connect(receiver)
        self.addCleanup(signals.request_finished.disconnect, receiver)
        self.serve(lambda: self.waiting(1))
        channel = self.ask()
        self.close(self.next(channel))
        self.answers(channel)
        wait_until(lambda: "finished" in self.log, "request_finished")
        self.assertEqual(self.log, ["waits", "closed", "finished"])

    def test_it_runs_in_the_time_zone_of_its_view(self):
        async def parts():
            yield timezone.get_current_timezone_name()

        def view(request):
            hours = int(request.path[1:])
            timezone.activate(timezone.get_fixed_timezone(60 * hours))
            return http.StreamingHttpResponse(parts())

        self.start(view)
        for hours, name in ((2, b"+0200"), (3, b"+0300")):
            self.assertEqual(self.response(self.answers(self.ask("/%d" % hours))).body, name)

    def test_a_thread_that_it_calls_blocks_no_other_stream(self):
        """Even when the stream is cancelled meanwhile."""
        from asgiref.sync import sync_to_async

        go_on = threading.Event()

        async def blocking():
            await sync_to_async(go_on.wait)(TIMEOUT)
            yield b"late"

        async def quick():
            yield b"quick"

        def view(request):
            return http.StreamingHttpResponse(blocking() if "block" in request.path else quick())

        self.start(view)
        blocked = self.ask("/block")
        first = self.next(blocked)
        self.assertEqual(self.response(self.answers(self.ask())).body, b"quick")
        self.close(first)
        self.assertEqual(self.response(self.answers(self.ask())).body, b"quick")
        go_on.set()
        self.answers(blocked)

    def test_tasks_that_it_started_end_with_it(self):
        from . import async_site

        self.serve(lambda: async_site.parts_beside_a_task(self.log))
        self.answers(self.ask())
        self.assertEqual(self.log, ["started", "cancelled"])

    def test_their_number_is_bounded_and_one_address_leaves_as_many_as_it_has(self):
        enter(self, override_settings(CHANNEL_ASYNC_STREAMS=3))
        self.start(self.view())
        clients = {name: ["10.0.0.%s" % name, 1] for name in "123"}
        firsts = [self.next(self.ask("/stream", client=clients["1"])) for _ in range(2)]
        self.refuses(clients["1"])
        self.next(self.ask("/stream", client=clients["2"]))
        self.refuses(clients["3"])
        self.assertEqual(self.layer.statistics()["streams_refused"], 2)
        for first in firsts:
            self.close(first)
        wait_until(lambda: self.log.count("closed") == 2, "the streams to end")
        wait_until(lambda: self.group.loop._streams.used == 1, "the streams to be forgotten")
        self.next(self.ask("/stream", client=clients["3"]))

    def refuses(self, client):
        (answer,) = self.answers(self.ask("/stream", client=client))
        self.assertEqual(answer["replies"][0]["status"], 503)
        self.assertIn([b"retry-after", b"1"], answer["replies"][0]["headers"])

    def test_a_worker_that_stops_cancels_what_waits(self):
        self.start(self.view(1))
        channels = [self.ask("/stream") for _ in range(3)]
        for channel in channels:
            self.next(channel)
        wait_until(lambda: self.log.count("waits") == 3, "all streams to wait")
        with mock.patch.object(eventloop, "STOP_IDLE", 0):
            self.assertTrue(self.group.stop(TIMEOUT))
        self.assertEqual(self.log[-3:], ["closed"] * 3)
        for channel in channels:
            # A status in the middle of a response has the gateway break it off.
            (answer,) = self.answers(channel)
            self.assertEqual((answer["ack"], answer["replies"][0]["status"]), (0, 503))

    def test_a_worker_that_stops_lets_a_busy_stream_end(self):
        go_on = threading.Event()

        async def parts():
            yield b"a"
            while not go_on.is_set():
                await asyncio.sleep(0.005)
            yield b"b"

        self.serve(parts)
        channel = self.ask()
        answers = [self.next(channel)]
        stopping = threading.Thread(target=self.group.stop, args=(TIMEOUT,))
        stopping.start()
        wait_until(lambda: self.group.loop.is_stopping, "the group to stop")
        go_on.set()
        answers += self.answers(channel)
        stopping.join(TIMEOUT)
        self.assertEqual(self.response(answers).body, b"ab")


class ThreadsTests(SiteCase):
    def view(self, request):
        if "stream" not in request.path:
            return http.HttpResponse("hello")

        def parts():
            yield b"a"
            self.go_on.acquire()
            yield b"b"

        return http.StreamingHttpResponse(parts())

    def test_streams_that_wait_never_take_the_last_thread(self):
        self.go_on = threading.Semaphore(0)
        self.start(self.view, threads=3)
        streams = [self.ask("/stream") for _ in range(2)]
        for channel in streams:
            self.assertEqual(self.next(channel)["content"], b"a")
        for _ in range(5):
            (answer,) = self.answers(self.ask("/stream"))
            self.assertEqual(answer["replies"][0]["status"], 503)
            self.assertIn([b"retry-after", b"1"], answer["replies"][0]["headers"])
        self.assertEqual(self.layer.statistics()["streams_refused"], 5)
        self.assertEqual(self.response(self.answers(self.ask())).body, b"hello")
        # When one has ended, there is room again.
        self.go_on.release()
        wait_until(
            lambda: self.group.stream_threads._held == 1, "a stream to end and release its thread"
        )
        self.assertEqual(self.next(self.ask("/stream"))["content"], b"a")
        for _ in range(2):
            self.go_on.release()

    def test_the_setting_bounds_them(self):
        self.assertEqual([StreamThreads(number).limit for number in (1, 2, 8)], [1, 1, 7])
        with override_settings(CHANNEL_STREAM_THREADS=2):
            self.assertEqual(StreamThreads(8).limit, 2)
        for value in (0, -1, "2", True, 1.5):
            with override_settings(CHANNEL_STREAM_THREADS=value, CHANNEL_ASYNC_STREAMS=value):
                for make in (lambda: StreamThreads(8), lambda: eventloop.ConsumerLoop(self.layer)):
                    with self.assertRaises(ImproperlyConfigured) as caught:
                        make()
                    self.assertIn("CHANNEL_", str(caught.exception))

    def test_files_and_pages_that_a_gateway_accepts_immediately_are_not_counted(self):
        for view in (http_site.file, http_site.big, http_site.hello, http_site.file_small):
            with self.subTest(view.__name__):
                self.start(view)
                with mock.patch.object(StreamThreads, "acquire", return_value=False):
                    self.assertEqual(self.response(self.answers(self.ask())).status, 200)
                self.group.stop(TIMEOUT)

    def test_a_larger_page_is_counted(self):
        self.layer.gateway_options = {"response_size": 1000}
        self.start(http_site.big)
        with mock.patch.object(StreamThreads, "acquire", return_value=False):
            self.assertEqual(self.response(self.answers(self.ask())).status, 503)

"""What threads send, and change, whose await was cancelled while they run. The test is the gateway."""

import asyncio
import contextvars
import threading
from unittest import mock, skipIf

import django
from django import http
from django.channels import Channel, Group, eventloop
from django.channels.compat import sync_to_async
from django.channels.exceptions import ConsumeLater
from django.channels.handler import ViewConsumer
from django.channels.routing import route
from django.channels.sessions import channel_session

from . import http_site
from .support.contexts import enter
from .support.waiting import TIMEOUT, wait_until
from .test_async_consumers import AsyncCase


async def in_default_thread(function):
    """Do as `asyncio.to_thread`, which Python 3.8 lacks."""
    context = contextvars.copy_context()
    return await asyncio.get_event_loop().run_in_executor(None, context.run, function)


async def in_site_thread(function):
    return await sync_to_async(function)()


async def in_other_thread(function):
    return await sync_to_async(function, thread_sensitive=False)()


ROADS = [in_default_thread]
if sync_to_async is not None:
    ROADS += [in_site_thread, in_other_thread]


class LeftThreadCase(AsyncCase):
    def setUp(self):
        super().setUp()
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.addCleanup(self.go_on.set)  # before the group ends, which waits for its threads

    def tell(self, text):
        Group("all", channel_layer=self.layer).send({"text": text})

    def work(self):
        """Send something, wait, and send more: in a thread, until the test says."""
        self.tell("first of the thread")
        self.begun.set()
        self.go_on.wait(TIMEOUT)
        self.tell("last of the thread")

    def join(self):
        self.layer.group_add("all", "gateway.member!1")

    def told(self, number):
        """Return the texts of the next `number` messages to the group."""
        return [self.next("gateway.member!1")["text"] for _ in range(number)]

    def start(self, *routes, **options):
        super().start(*routes, **options)
        self.addCleanup(self.go_on.set)
        self.join()

    async def leave(self, road):
        """Call `work` by `road`, and leave it while it runs."""
        task = asyncio.ensure_future(road(self.work))
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])


class ConsumerTests(LeftThreadCase):
    def client_of_a_left_thread(self):
        """Return the client of a consumer that has sent something and ended, while its thread runs."""

        async def consumer(message):
            await self.leave(ROADS[-1])
            message.reply_channel.send({"text": "too slow"})

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        self.assertEqual(self.next(client), {"replies": [{"text": "too slow"}]})
        return client

    def test_what_the_thread_sends_keeps_its_place_before_the_next_event(self):
        async def consumer(message):
            self.tell("of the consumer")
            await self.leave(road)

        for road in ROADS:
            with self.subTest(road.__name__):
                LeftThreadCase.setUp(self)
                self.start(route("websocket.receive", consumer))
                client = self.send(text="x")
                # What was sent before leaves although the thread runs on.
                self.assertEqual(self.told(2), ["of the consumer", "first of the thread"])
                self.assert_nothing_more(client)
                self.go_on.set()
                self.assertEqual(self.told(1), ["last of the thread"])
                self.assertEqual(self.next(client), {"ack": 7})

    def test_the_client_gets_what_was_sent_before_at_once(self):
        client = self.client_of_a_left_thread()
        self.go_on.set()
        self.assertEqual(self.next(client), {"ack": 7})

    def test_a_message_that_is_handed_on_has_the_changed_session(self):
        @channel_session
        async def consumer(message):
            message.channel_session["room"] = "new"
            work = {"reply_channel": message.reply_channel.name}
            Channel("work", channel_layer=self.layer).send(work)
            await self.leave(in_default_thread)

        @channel_session
        def work(message):
            self.seen.append(message.channel_session["room"])

        self.start(route("websocket.receive", consumer), route("work", work), threads=2)
        with mock.patch.object(eventloop, "THREADS_TIMEOUT", 0.1):
            with self.assertLogs("django.channels.worker", "WARNING"):  # the thread runs on
                client = self.send(text="x", channel_session={"room": "old"})
                self.assertEqual(self.next(client)["ack"], 7)
        wait_until(lambda: self.seen, "the work to be done")
        self.assertEqual(self.seen, ["new"])

    def test_an_answer_to_a_handshake_waits_for_the_thread(self):
        """Others' messages would reach a client that the thread refuses."""

        async def consumer(message):
            def refuse():
                self.work()
                message.reply_channel.send({"close": True})

            message.reply_channel.send({"accept": True})
            task = asyncio.ensure_future(in_default_thread(refuse))
            while not self.begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()

        self.start(route("websocket.connect", consumer))
        client = self.send("websocket.connect")
        self.assertTrue(self.begun.wait(TIMEOUT))
        self.go_on.set()
        self.assertEqual(
            self.next(client), {"ack": 7, "replies": [{"accept": True}, {"close": True}]}
        )

    def test_what_the_thread_changes_in_the_session_is_saved(self):
        @channel_session
        async def consumer(message):
            def change():
                self.work()
                message.channel_session["by"] = "the thread"

            task = asyncio.ensure_future(in_default_thread(change))
            while not self.begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        self.assertEqual(self.told(1), ["first of the thread"])
        self.go_on.set()
        answer = self.next(client)
        self.assertEqual(answer["channel_session"]["set"], {"by": "the thread"})

    def test_nothing_is_sent_if_the_consumer_asks_for_later(self):
        async def consumer(message):
            if self.seen:
                return
            self.seen.append(1)
            await self.leave(ROADS[-1])
            self.go_on.set()
            raise ConsumeLater()

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        self.assertEqual(self.next(client), {"ack": 7})
        self.assertEqual(self.layer.group_channels("all"), ["gateway.member!1"])
        self.assert_nothing_more("gateway.member!1")

    def test_a_thread_that_runs_on_for_too_long_is_named_in_the_log(self):
        async def consumer(message):
            await self.leave(ROADS[-1])

        with mock.patch.object(eventloop, "THREADS_TIMEOUT", 0.05):
            self.start(route("websocket.receive", consumer))
            with self.assertLogs("django.channels.worker", "WARNING") as logged:
                self.assertEqual(self.next(self.send(text="x")), {"ack": 7})
        (line,) = logged.output
        for word in ("consumer has ended", "thread still runs", "overtake", "time-out"):
            self.assertIn(word, line)
        self.go_on.set()
        self.assertEqual(self.told(2), ["first of the thread", "last of the thread"])

    def test_a_worker_that_stops_does_not_wait_for_the_thread(self):
        client = self.client_of_a_left_thread()
        with self.assertLogs("django.channels.worker", "WARNING"):
            self.assertTrue(self.group.stop(2.0))
        self.assertEqual(self.next(client), {"ack": 7})

    def test_a_thread_that_the_consumer_does_not_await_holds_nothing_up(self):
        async def consumer(message):
            asyncio.get_event_loop().run_in_executor(None, self.work)

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7})

    @skipIf(sync_to_async is None, "needs asgiref")
    def test_a_call_that_is_cancelled_before_it_runs_never_runs(self):
        async def consumer(message):
            first = asyncio.ensure_future(in_site_thread(self.work))
            while not self.begun.is_set():
                await asyncio.sleep(0.001)
            second = asyncio.ensure_future(in_site_thread(lambda: self.seen.append("ran")))
            await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.wait([second])
            self.go_on.set()
            await first

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7})
        self.assertEqual(self.seen, [])


@skipIf(django.VERSION < (4, 2), "Asynchronous views and streams run on the loop with Django 4.2")
class RequestTests(LeftThreadCase):
    """Clients that leave while a view or stream awaits a thread."""

    def serve(self, view):
        enter(self, http_site.settings_of(view))
        self.start(route("http.request", ViewConsumer()))

    def client_leaves(self):
        """Ask for "/", and leave when the thread runs. Return the client's reply channel."""
        client = self.send(
            "http.request", path="/", method="GET", headers=[[b"host", b"testserver"]]
        )
        first = self.next(client)
        while "window_channel" not in first:
            first = self.next(client)
        self.assertTrue(self.begun.wait(TIMEOUT))
        self.layer.send(first["window_channel"], {"closed": True})
        return client

    def check(self, client):
        self.assertEqual(self.told(3), ["of the event", "first of the thread", "of the cleaning"])
        self.assert_nothing_more(client)
        self.go_on.set()
        self.assertEqual(self.told(1), ["last of the thread"])
        answer = self.next(client)
        while "ack" not in answer:
            answer = self.next(client)

    def test_what_the_thread_of_a_view_sends_comes_in_its_order(self):
        for road in ROADS:

            async def view(request, road=road):
                self.tell("of the event")
                try:
                    await road(self.work)
                finally:
                    self.tell("of the cleaning")

            with self.subTest(road.__name__):
                LeftThreadCase.setUp(self)
                self.serve(view)
                self.check(self.client_leaves())

    @skipIf(sync_to_async is None, "asgiref is missing")
    def test_a_stream_whose_closing_fails_waits_for_its_thread_no_longer_than_others(self):
        async def parts():
            try:
                while True:
                    yield "a part"
            finally:
                await asyncio.wait_for(in_site_thread(self.work), 0.01)

        with mock.patch.object(eventloop, "THREADS_TIMEOUT", 0.1):
            self.serve(lambda request: http.StreamingHttpResponse(parts()))
            client = self.send(
                "http.request", path="/", method="GET", headers=[[b"host", b"testserver"]]
            )
            first = self.next(client)
            while "window_channel" not in first:
                first = self.next(client)
            with self.assertLogs("django.channels.worker", "WARNING"):
                self.layer.send(first["window_channel"], {"closed": True})
                answer = self.next(client)
                while "ack" not in answer:  # it comes while the thread still runs
                    answer = self.next(client)
        self.assertFalse(self.go_on.is_set())

    def test_what_the_thread_of_a_stream_sends_comes_in_its_order(self):
        for road in ROADS:

            async def parts(road=road):
                yield "a part"
                self.tell("of the event")
                try:
                    await road(self.work)
                finally:
                    self.tell("of the cleaning")

            with self.subTest(road.__name__):
                LeftThreadCase.setUp(self)
                self.serve(lambda request, parts=parts: http.StreamingHttpResponse(parts()))
                self.check(self.client_leaves())

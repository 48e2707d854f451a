"""What a consumer sends arrives in the order of its calls, by whatever thread or event loop it sends."""

import asyncio
import contextvars
import functools
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.channels import Channel, Group, awaited, route
from django.channels.compat import async_to_sync, sync_to_async
from django.channels.coroutines import in_thread
from django.channels.outbox import TO_CHANNEL, Held, PendingSend, Slot, outbox
from django.channels.worker import Worker
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings

from .http_site import re_path
from .support.layers import waiting_on
from .support.waiting import TIMEOUT
from .test_async_consumers import AsyncCase


def by_run(call, *args, **kwargs):
    """`asyncio.run`, which Python has since 3.7."""
    return asyncio.run(call(*args, **kwargs))


def by_own_loop(call, *args, **kwargs):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(call(*args, **kwargs))
    finally:
        loop.close()


def in_copied_context(function, *args):
    """Call `function` in another thread, in a copy of this context."""
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, function, *args).result()


def by_thread(call, *args, **kwargs):
    return in_copied_context(lambda: by_run(call, *args, **kwargs))


def by_asgiref(call, *args, **kwargs):
    return async_to_sync(call)(*args, **kwargs)


def by_asgiref_in_thread(call, *args, **kwargs):
    return in_copied_context(lambda: by_asgiref(call, *args, **kwargs))


ROADS = [by_run, by_own_loop, by_thread]
if async_to_sync is not None:
    ROADS += [by_asgiref, by_asgiref_in_thread]


class OrderCase(AsyncCase):
    def answers(self, client):
        """Return what the client is sent, in order, until its event is acknowledged."""
        found = []
        while True:
            message = self.next(client)
            found += message.get("replies", [])
            if "ack" in message:
                self.assertNotIn("failed", message)
                return [each.get("text", each) for each in found]


class SynchronousConsumerTests(OrderCase):
    def consumer(self, message):
        """Send to the client, a channel and a group, by both kinds of calls."""
        road, number = self.road, 0
        for target in self.targets(message):
            for _ in range(2):
                target.send({"text": str(number)})
                road(target.asend, {"text": str(number + 1)})
                road(target.asend_json, number + 2)
                number += 3
            target.send({"text": str(number)})
            number += 1

    def targets(self, message):
        return [
            message.reply_channel,
            self.channel("elsewhere"),
            Group("room", channel_layer=self.layer),
            message.reply_channel,
        ]

    def check(self, client):
        numbers = [str(number) for number in range(28)]
        self.assertEqual(self.answers(client), numbers[:7] + numbers[21:])
        others = waiting_on(self.layer, "elsewhere")
        self.assertEqual([each["text"] for each in others], numbers[7:14])
        others = waiting_on(self.layer, "member")
        self.assertEqual([each["text"] for each in others], numbers[14:21])

    def test_an_awaited_send_does_not_overtake_earlier_sends(self):
        self.start(route("websocket.receive", self.consumer))
        self.layer.group_add("room", "member")
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                self.check(self.send(text="x"))

    def test_nor_in_a_worker_without_an_event_loop(self):
        self.layer.routing = [route("websocket.receive", self.consumer)]
        self.layer.group_add("room", "member")
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                client = self.send(text="x")
                self.assertTrue(Worker(self.layer).run_once())
                self.check(client)

    def test_nor_those_of_earlier_frames_of_a_batch(self):
        def consumer(message):
            message.reply_channel.send({"text": message["text"] + "1"})
            if message["text"] != "a":
                self.road(message.reply_channel.asend, {"text": message["text"] + "2"})
            message.reply_channel.send({"text": message["text"] + "3"})

        self.start(route("websocket.receive", consumer))
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                client = self.send(frames=[{"text": each} for each in "abc"])
                expected = ["a1", "a3", "b1", "b2", "b3", "c1", "c2", "c3"]
                self.assertEqual(self.answers(client), expected)

    def test_nor_the_acceptance(self):
        def consumer(message):
            message.reply_channel.send({"accept": True})
            self.road(message.reply_channel.asend, {"text": "one"})
            message.reply_channel.send({"text": "two"})

        self.start(route("websocket.connect", consumer))
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                answers = self.answers(self.send("websocket.connect"))
                self.assertEqual(answers, [{"accept": True}, "one", "two"])

    def test_a_thread_in_a_copied_context_sends_in_order_too(self):
        def consumer(message):
            message.reply_channel.send({"text": "one"})
            in_copied_context(message.reply_channel.send, {"text": "two"})
            message.reply_channel.send({"text": "three"})

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.answers(self.send(text="x")), ["one", "two", "three"])

    def test_awaited_sends_of_one_loop_leave_in_the_order_of_their_calls(self):
        async def many(message):
            await asyncio.gather(
                *[message.reply_channel.asend({"text": str(each)}) for each in range(30)]
            )

        def consumer(message):
            self.road(many, message)

        self.start(route("websocket.receive", consumer))
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                answers = self.answers(self.send(text="x"))
                self.assertEqual(answers, [str(each) for each in range(30)])

    def test_threads_that_outlive_the_consumer_lose_and_double_nothing(self):
        """Each send of each thread leaves once, in the thread's order, before or after the end."""

        def sender(channel, name, done):
            for number in range(60):
                content = {"from": name, "number": number}
                if number % 3:
                    channel.send(content)
                else:
                    by_run(channel.asend, content)
            done.release()

        def consumer(message):
            for name in range(4):
                context = contextvars.copy_context()
                threading.Thread(
                    target=context.run, args=(sender, message.reply_channel, name, done)
                ).start()

        self.start(route("websocket.receive", consumer))
        for _ in range(5):
            done = threading.Semaphore(0)
            client = self.send(text="x")
            for _ in range(4):
                self.assertTrue(done.acquire(timeout=30))
            answers = []
            acknowledged = False
            while len(answers) < 240 or not acknowledged:
                message = self.next(client)
                acknowledged = acknowledged or "ack" in message
                answers += message.get("replies", [] if "ack" in message else [message])
            for name in range(4):
                numbers = [each["number"] for each in answers if each["from"] == name]
                self.assertEqual(numbers, list(range(60)))


class AsynchronousConsumerTests(OrderCase):
    async def call(self, function):
        """Call `function` in a thread by each means that an asynchronous consumer has."""
        if self.means == "in_thread":
            await in_thread(function)
        elif self.means == "sync_to_async":
            await sync_to_async(function)()
        else:  # as asyncio.to_thread, which Python has since 3.9
            context = contextvars.copy_context()
            loop = asyncio.get_event_loop()
            await loop.run_in_executor(None, context.run, function)

    def test_its_threads_send_in_order(self):
        async def consumer(message):
            client = message.reply_channel

            def in_a_thread():
                client.send({"text": "2"})
                self.road(client.asend, {"text": "3"})
                client.send({"text": "4"})

            client.send({"text": "1"})
            await self.call(in_a_thread)
            await client.asend({"text": "5"})
            await self.call(in_a_thread)
            client.send({"text": "6"})

        self.start(route("websocket.receive", consumer))
        means = ["in_thread", "executor"] + ["sync_to_async"] * (sync_to_async is not None)
        for self.road in ROADS:
            for self.means in means:
                with self.subTest(self.road.__name__, means=self.means):
                    self.assertEqual(self.answers(self.send(text="x")), list("12345" + "2346"))

    def test_what_its_first_part_starts_belongs_to_it(self):
        """A consumer that returns a coroutine may have started a thread before."""

        def consumer(message):
            client = message.reply_channel
            client.send({"text": "1"})
            go = threading.Event()
            context = contextvars.copy_context()

            def late():
                go.wait(30)
                client.send({"text": "2"})
                by_run(client.asend, {"text": "3"})

            async def rest():
                go.set()
                await in_thread(thread.join)
                client.send({"text": "4"})

            thread = threading.Thread(target=context.run, args=(late,))
            thread.start()
            return rest()

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.answers(self.send(text="x")), list("1234"))

    def test_a_thread_that_sends_ahead_at_the_end_does_not_block_the_event_loop(self):
        gate, ahead = threading.Event(), threading.Event()
        deliver = self.layer.deliver

        def slow(name, *args, **kwargs):
            if name == "slow":
                ahead.set()
                gate.wait()
            return deliver(name, *args, **kwargs)

        def consumer(message):
            if message["text"] == "first":
                send = functools.partial(by_run, self.channel("slow").asend, {"text": "1"})
                context = contextvars.copy_context()
                threading.Thread(target=context.run, args=(send,)).start()
                ahead.wait(TIMEOUT)
            return answer(message)

        async def answer(message):
            await message.reply_channel.asend({"text": "2"})

        self.start(route("websocket.receive", consumer), threads=2)
        self.addCleanup(gate.set)
        with mock.patch.object(self.layer, "deliver", slow):
            first = self.send(text="first")
            self.assertTrue(ahead.wait(TIMEOUT))
            self.assertEqual(self.answers(self.send(text="second")), ["2"])
            gate.set()
            self.assertEqual(self.answers(first), ["2"])
        self.assertEqual(self.next("slow")["text"], "1")

    def test_a_consumer_without_a_place_leaves_no_thread_waiting(self):
        """It is handed on, and what its threads send leaves by itself."""
        outbox.open()
        context = contextvars.copy_context()
        outbox.leave()
        context.run(outbox.give_up)
        context.run(by_run, self.channel("elsewhere").asend, {"text": "1"})
        self.assertEqual(self.next("elsewhere")["text"], "1")

    def test_the_frame_after_one_that_was_awaited_is_no_exception(self):
        async def slow(message):
            message.reply_channel.send({"text": "1"})
            await asyncio.sleep(0)
            await message.reply_channel.asend({"text": "2"})
            message.reply_channel.send({"text": "3"})

        def consumer(message):
            if message["text"] == "a":
                return slow(message)
            message.reply_channel.send({"text": "4"})
            self.road(message.reply_channel.asend, {"text": "5"})
            message.reply_channel.send({"text": "6"})

        self.start(route("websocket.receive", consumer))
        for self.road in ROADS:
            with self.subTest(self.road.__name__):
                client = self.send(frames=[{"text": "a"}, {"text": "b"}])
                self.assertEqual(self.answers(client), list("123456"))


def _tell(road, number):
    channel = Channel(_view_of.channel, channel_layer=_view_of.layer)
    channel.send({"number": number})
    road(channel.asend, {"number": number + 1})
    channel.send({"number": number + 2})


class _view_of:
    """What the views below send to."""

    layer, channel, road = None, "elsewhere", None


def view(request):
    _tell(_view_of.road, 0)
    return HttpResponse("done")


def stream(request):
    def parts():
        for number in (0, 3):
            _tell(_view_of.road, number)
            yield "part"

    return StreamingHttpResponse(parts())


urlpatterns = [re_path(r"^view$", view), re_path(r"^stream$", stream)]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], MIDDLEWARE_CLASSES=[])
class ViewTests(AsyncCase):
    def check(self, path, count):
        self.start()
        _view_of.layer = self.layer
        for _view_of.road in ROADS:
            with self.subTest(_view_of.road.__name__):
                self.send(
                    "http.request", path=path, method="GET", query_string=b"", body=b"", client=None
                )
                numbers = [self.next("elsewhere")["number"] for _ in range(count)]
                self.assertEqual(numbers, list(range(count)))

    def test_a_view_sends_in_order(self):
        self.check("/view", 3)

    def test_a_stream_sends_in_order(self):
        self.check("/stream", 6)


class EndedTests(unittest.TestCase):
    def test_what_another_loop_sends_leaves_by_itself_once_the_consumer_has_ended(self):
        """It was asked for before the end, and the consumer's loop comes to it after the end."""
        slot, event, delivered = Slot(Held([], []), None, None), mock.Mock(), []
        slot.held = None
        send = PendingSend(mock.Mock(), TO_CHANNEL, "work", {})
        asyncio.run(awaited._send_on_loop(slot, event, send, lambda: delivered.append(send)))
        self.assertEqual(delivered, [send])
        self.assertEqual(event.replies.method_calls, [])

"""Asynchronous consumers on a whole worker in this process. The test is the gateway."""

import asyncio
import contextvars
import functools
import threading
from unittest import mock

from django.channels import Channel, Group, awaited, consume, protocol, route, windows, worker
from django.channels.compat import SynchronousOnlyOperation, get_script_prefix
from django.channels.coroutines import (
    Stepped,
    check_may_block,
    in_thread,
    is_async,
    run_here,
)
from django.channels.eventloop import ConsumerLoop
from django.channels.exceptions import (
    ClientDisconnected,
    ConsumeLater,
    DenyConnection,
    WebsocketCloseException,
)
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.places import PAUSED_PER_PLACE, Places
from django.channels.protocol import TURN_CHANNELS
from django.channels.sessions import channel_session
from django.channels.signals import consumer_finished, consumer_started
from django.channels.thread_state import current_state
from django.channels.windows import Window
from django.channels.worker import Worker, WorkerGroup
from django.test import SimpleTestCase, override_settings
from django.utils import timezone, translation

from .support.layers import next_message, next_reply, replies_on
from .support.untimed import leave_out_run_times
from .support.waiting import TIMEOUT, wait_until


class AsyncCase(SimpleTestCase):
    """A layer in memory, and a group of workers. The test is its gateway."""

    def setUp(self):
        leave_out_run_times(self)
        self.layer = MemoryChannelLayer(capacity=5000)
        self.layer.alias = "test"
        self.number = 0
        self.seen = []

    def start(self, *routes, **options):
        self.layer.routing = list(routes)
        options.setdefault("threads", 1)
        self.group = WorkerGroup(self.layer, **options)
        self.group.start()
        self.addCleanup(self.group.stop, TIMEOUT)

    def channel(self, name):
        return Channel(name, channel_layer=self.layer)

    def send(self, channel="websocket.receive", **content):
        """Send an event of a new connection. Return its reply channel."""
        self.number += 1
        name = "gateway.test%d!1" % self.number
        event = dict({"path": "/", "event_id": 7, "reply_channel": name, "headers": []}, **content)
        self.layer.send(channel, event)
        return name

    def next(self, channel):
        return next_reply(self.layer, channel)

    def assert_nothing_more(self, channel):
        """Check that no message to a client is there, but for notices of time."""
        self.assertEqual(replies_on(self.layer, channel), [])

    def received(self, channel):
        return next_message(self.layer, channel)


class KindTests(SimpleTestCase):
    def test_an_asynchronous_callable_is_known_in_every_wrapping(self):
        class Callable:
            async def __call__(self, message):
                pass

        async def function(message, more=None):
            pass

        for each in (function, Callable()):
            once = functools.partial(each, more=1)
            for wrapped in (each, once, functools.partial(once, more=2)):
                self.assertTrue(is_async(wrapped), wrapped)
        for each in (print, functools.partial(print), Callable, object()):
            self.assertFalse(is_async(each), each)


class SteppedTests(SimpleTestCase):
    """How what is awaited keeps its language on Django before 3.0."""

    def run_with(self, resume):
        """Return what a Stepped returned whose future `resume` ended, and what it saw."""
        seen = []

        async def work(future):
            seen.append(translation.get_language())
            translation.activate("es")
            try:
                seen.append(await future)
            except KeyError as error:
                seen.append(error.args[0])
            seen.append(translation.get_language())
            return 7

        async def run():
            future = asyncio.get_event_loop().create_future()
            with translation.override("de"):
                stepped = Stepped(work(future), current_state())
            with translation.override("fr"):
                task = asyncio.ensure_future(stepped)
                await asyncio.sleep(0)
                seen.append(translation.get_language())
                resume(future)
                return await task

        return asyncio.run(run()), seen

    def test_it_does_what_its_awaitable_does_in_its_language(self):
        for resume, value in (
            (lambda future: future.set_result("value"), "value"),
            (lambda future: future.set_exception(KeyError("raised")), "raised"),
        ):
            self.assertEqual(self.run_with(resume), (7, ["de", "fr", value, "es"]))


class RunHereTests(SimpleTestCase):
    """`run_here`, by which the test client runs asynchronous consumers."""

    def test_no_loop_stays_open_on_which_one_ran(self):
        async def consumer():
            return asyncio.get_event_loop()

        async def run():
            return run_here(consumer()), asyncio.get_event_loop()

        inner, outer = asyncio.run(run())
        self.assertIsNot(inner, outer)
        self.assertTrue(inner.is_closed() and outer.is_closed())
        self.assertTrue(run_here(consumer()).is_closed())

    def test_what_follows_may_block_a_loop_of_its_own(self):
        async def refused():
            with self.assertRaises(SynchronousOnlyOperation):
                check_may_block("It", "Nothing.")

        async def allowed():
            check_may_block("It", "Nothing.")

        def run():
            run_here(refused())
            asyncio.run(allowed())

        contextvars.copy_context().run(run)


class FunctionTests(AsyncCase):
    def test_what_it_sends_leaves_with_the_acknowledgement(self):
        async def consumer(message):
            message.reply_channel.send({"text": "one"})
            await asyncio.sleep(0)
            message.reply_channel.send({"text": message["text"] * 2})

        self.start(route("websocket.receive", consumer))
        self.assertEqual(
            self.next(self.send(text="x")),
            {"ack": 7, "replies": [{"text": "one"}, {"text": "xx"}]},
        )

    def test_many_wait_at_a_time_on_one_loop(self):
        gate = {}

        async def consumer(message):
            event = gate.setdefault("event", asyncio.Event())
            self.seen.append(threading.current_thread())
            await event.wait()
            message.reply_channel.send({"text": "done"})

        self.start(route("websocket.receive", consumer))
        clients = [self.send(text="x") for _ in range(60)]
        wait_until(lambda: len(self.seen) == 60, "all consumers to wait")
        self.assertEqual({each.name for each in self.seen}, {"channels-loop"})
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        for client in clients:
            self.assertEqual(self.next(client)["replies"], [{"text": "done"}])
        wait_until(lambda: len(self.layer._unacknowledged) <= 1, "the claims to end")

    def test_code_on_its_loop_outside_of_its_context_may_not_block_either(self):
        def send():
            try:
                self.channel("other").send({})
            except SynchronousOnlyOperation as error:
                self.seen.append(error)

        async def consumer(message):
            contextvars.Context().run(asyncio.get_event_loop().call_soon, send)

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7})
        wait_until(lambda: self.seen, "the send to be refused")
        self.assertIsNone(self.layer.receive_many(["other"])[0])

    def test_what_a_call_in_a_thread_raises_is_answered(self):
        def fail(error):
            raise error("in a thread")

        async def consumer(message):
            await in_thread(fail, self.error)

        self.start(route("websocket.receive", consumer))
        for error in (KeyError, GeneratorExit, SystemExit, asyncio.CancelledError):
            self.error = error
            with self.assertLogs("django.channels.worker", "ERROR"):
                self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "error": True})

    def test_it_may_go_on_whatever_a_call_in_a_thread_raises(self):
        def fail(error):
            raise error("in a thread")

        async def numbers():
            try:
                yield 1
                await in_thread(fail, self.error)
            except self.error:
                yield 2
            finally:
                await asyncio.sleep(0)
                self.seen.append("closed")

        async def consumer(message):
            async for number in numbers():
                await message.reply_channel.asend({"text": str(number)})
            self.seen.append("ended")

        self.start(route("websocket.receive", consumer))
        for self.error in (KeyError, GeneratorExit, SystemExit, asyncio.CancelledError):
            client = self.send(text="x")
            for text in "12":
                self.assertEqual(self.next(client)["replies"], [{"text": text}])
            self.assertEqual(self.next(client), {"ack": 7})
            self.assertEqual(self.seen, ["closed", "ended"])
            del self.seen[:]

    def test_what_it_sent_before_a_call_that_closes_it_leaves(self):
        def fail():
            raise GeneratorExit("in a thread")

        async def consumer(message):
            self.channel("other").send({"number": 1})
            message.reply_channel.send({"text": "before"})
            await in_thread(fail)

        finished = []

        def receiver(**kwargs):
            finished.append(1)

        consumer_finished.connect(receiver)
        self.addCleanup(consumer_finished.disconnect, receiver)
        self.start(route("websocket.receive", consumer))
        with self.assertLogs("django.channels.worker", "ERROR"):
            replies = [self.next(self.send(text="x"))]
            while "ack" not in replies[-1]:
                replies.append(next_reply(self.layer, "gateway.test1!1"))
        self.assertIn({"text": "before"}, replies + replies[-1].get("replies", []))
        self.assertTrue(replies[-1]["error"])
        self.assertEqual(self.received("other"), {"number": 1})
        self.assertEqual(finished, [1])

    def test_what_it_returns_to_be_awaited_is_awaited(self):
        class Answers(WebsocketConsumer):
            async def receive(self, text=None, bytes=None, **kwargs):
                await asyncio.sleep(0)
                self.send(text="from the class")

        async def answer(message):
            await asyncio.sleep(0)
            message.reply_channel.send({"text": "awaited"})

        async def without_await(message):
            await asyncio.sleep(0)
            return answer(message)

        async def twice(message):
            return without_await(message)

        @channel_session
        async def decorated(message):
            message.channel_session["seen"] = True
            return answer(message)

        async def task(message):
            return asyncio.ensure_future(answer(message))

        async def of_a_class(message):
            return Answers(message)

        async def of_a_class_that_is_awaited(message):
            return await Answers(message)

        async def generator(message):
            async def parts():
                yield message.reply_channel.send({"text": "never"})

            return parts()

        texts = dict.fromkeys((without_await, twice, decorated, task), "awaited")
        texts.update(dict.fromkeys((of_a_class, of_a_class_that_is_awaited), "from the class"))
        routes = [route("websocket.receive", each, path="^%s$" % each.__name__) for each in texts]
        self.start(*routes, route("websocket.receive", generator))
        for each, text in texts.items():
            with self.subTest(each.__name__):
                answered = self.next(self.send(path=each.__name__, text="x"))
                self.assertEqual(answered["replies"], [{"text": text}])
        with self.assertLogs("django.channels.worker", "ERROR") as logged:
            self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "error": True})
        self.assertIn("asend", logged.output[0])

    def test_what_tasks_send_at_its_end_comes_after_what_it_has_sent(self):
        for call in ("asend", "send"):

            async def last(message, call=call):
                try:
                    await asyncio.sleep(3600)
                finally:
                    sent = getattr(message.reply_channel, call)({"text": "of the task"})
                    if sent is not None:
                        await sent

            async def consumer(message, last=last):
                asyncio.ensure_future(last(message))
                await asyncio.sleep(0)
                message.reply_channel.send({"text": "of the consumer"})

            with self.subTest(call):
                self.layer = MemoryChannelLayer(capacity=5000)
                self.layer.alias = "test"
                self.start(route("websocket.receive", consumer))
                client, texts = self.send(text="x"), []
                answer = {}
                with self.assertLogs("django.channels.worker", "WARNING"):
                    while "ack" not in answer:
                        answer = self.next(client)
                        texts += [each["text"] for each in answer.get("replies", ())]
                self.assertEqual(texts, ["of the consumer", "of the task"])

    def test_tasks_that_outlive_their_consumer_are_cancelled_with_a_line(self):
        async def ticks():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise

        async def consumer(message):
            self.task = asyncio.ensure_future(ticks())
            message.reply_channel.send({"accept": True})

        self.start(route("websocket.connect", consumer))
        with self.assertLogs("django.channels.worker", "WARNING") as logged:
            self.assertEqual(self.next(self.send("websocket.connect"))["ack"], 7)
        self.assertEqual(self.seen, ["cancelled"])
        (line,) = logged.output
        for word in (
            "consumer has ended",
            "1 tasks",
            "create_task",
            "Await them",
            "Asynchronous consumers",
        ):
            self.assertIn(word, line)

    def test_it_ends_as_its_exception_asks(self):
        async def denies(message):
            message.reply_channel.send({"accept": True})
            await asyncio.sleep(0)
            raise DenyConnection()

        async def closes(message):
            message.reply_channel.send({"text": "bye"})
            await asyncio.sleep(0)
            raise WebsocketCloseException(3001)

        async def fails(message):
            message.reply_channel.send({"text": "so far"})
            await asyncio.sleep(0)
            raise {"exit": SystemExit, "key": KeyError}[message["text"]]("asked for")

        self.start(
            route("websocket.connect", denies),
            route("websocket.disconnect", closes),
            route("websocket.receive", fails),
        )
        self.assertEqual(
            self.next(self.send("websocket.connect")), {"ack": 7, "replies": [{"close": True}]}
        )
        self.assertEqual(
            self.next(self.send("websocket.disconnect")),
            {"ack": 7, "replies": [{"text": "bye"}, {"close": 3001}]},
        )
        for kind in ("exit", "key"):
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                answer = self.next(self.send(text=kind))
            self.assertEqual(answer, {"ack": 7, "replies": [{"text": "so far"}], "error": True})
            self.assertIn("Error processing message with consumer", logs.output[0])
            self.assertIn("fails", logs.output[0])

    def test_an_exception_whose_text_raises_is_answered(self):
        class Unprintable(TypeError):
            def __str__(self):
                raise Unprintable("again")

        async def consumer(message):
            raise Unprintable("x")

        self.start(route("websocket.receive", consumer))
        with self.assertLogs("django.channels.worker", "ERROR"):
            self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "error": True})

    def test_a_task_factory_of_the_site_harms_no_other_consumer(self):
        async def consumer(message):
            asyncio.get_event_loop().set_task_factory(None)
            if message["text"] == "fail":
                asyncio.get_event_loop().set_task_factory(lambda *args, **kwargs: 1 / 0)

        self.start(route("websocket.receive", consumer))
        for text in ("fail", "next"):
            self.assertEqual(self.next(self.send(text=text)), {"ack": 7})

    def test_no_call_of_site_code_ends_the_loop(self):
        def leave():
            raise SystemExit("a callback")

        async def leaves():
            raise SystemExit("a task")

        async def consumer(message):
            loop = asyncio.get_event_loop()
            if message["text"] == "stop":
                loop.stop()
            elif message["text"] == "callback":
                loop.call_soon(leave)
            elif message["text"] == "task":
                loop.create_task(leaves())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            message.reply_channel.send({"text": "done"})

        self.start(route("websocket.receive", consumer))
        done = {"ack": 7, "replies": [{"text": "done"}]}
        for text, words in [
            ("stop", "Site code stopped the event loop"),
            ("callback", "ended by this error"),
            ("task", "ended by this error"),
        ]:
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                self.assertEqual(self.next(self.send(text=text)), done)
                self.assertEqual(self.next(self.send(text="next")), done)
            self.assertIn(words, logs.output[0])

    def test_consume_later_requeues_it_and_drops_what_it_sent(self):
        async def consumer(message):
            self.seen.append(message.get("__retries__", 0))
            message.reply_channel.send({"text": "try %d" % len(self.seen)})
            await asyncio.sleep(0)
            if len(self.seen) < 3:
                raise ConsumeLater()

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "replies": [{"text": "try 3"}]})
        self.assertEqual(self.seen, [0, 1, 2])

    def test_consume_later_ends_after_the_retries_of_the_worker(self):
        async def consumer(message):
            self.seen.append(1)
            raise ConsumeLater()

        self.start(route("websocket.receive", consumer), message_retries=2)
        with self.assertLogs("django.channels.worker", "ERROR"):
            self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "error": True})
        self.assertEqual(len(self.seen), 3)

    def test_its_session_changes_leave_with_the_acknowledgement(self):
        async def consumer(message):
            await asyncio.sleep(0)
            message.channel_session["count"] = message.channel_session.get("count", 0) + 1

        self.start(route("websocket.receive", consumer))
        answer = self.next(self.send(text="x", channel_session={"count": 4}))
        self.assertEqual(answer["channel_session"], {"set": {"count": 5}, "removed": []})

    def test_frames_of_a_batch_run_in_order_whatever_their_consumers_are(self):
        async def waits(message):
            await asyncio.sleep(0.01)
            self.seen.append(message["text"])
            message.channel_session["seen"] = list(self.seen)
            message.reply_channel.send({"text": "async " + message["text"]})

        def runs(message):
            self.seen.append(message["text"])
            message.reply_channel.send(
                {"text": "%s of %s" % (message["text"], message.channel_session["seen"])}
            )

        self.start(route("websocket.receive", waits, text="^a"), route("websocket.receive", runs))
        names = ["a1", "a2", "s1", "a3", "s2", "s3"]
        client = self.send(frames=[{"text": name, "order": 1} for name in names])
        answers = [self.next(client)]
        while "ack" not in answers[-1]:
            answers.append(self.next(client))
        texts = [each["text"] for answer in answers for each in answer.get("replies", ())]
        self.assertEqual(self.seen, names)
        self.assertEqual(
            texts,
            ["async a1", "async a2", "s1 of ['a1', 'a2']", "async a3"]
            + ["%s of %s" % (name, names[:4]) for name in ("s2", "s3")],
        )

    def test_a_batch_is_requeued_from_the_frame_that_asks_for_it(self):
        async def consumer(message):
            self.seen.append(message["text"])
            await asyncio.sleep(0)
            if self.seen.count("two") == 1 and message["text"] == "two":
                raise ConsumeLater()

        self.start(route("websocket.receive", consumer))
        client = self.send(frames=[{"text": name} for name in ("one", "two", "three")])
        self.assertEqual(self.next(client), {"ack": 7})
        self.assertEqual(self.seen, ["one", "two", "two", "three"])

    def test_signals_are_sent_around_it_and_never_on_the_loop(self):
        def started(**kwargs):
            self.seen.append(("started", threading.current_thread().name))

        def finished(**kwargs):
            self.seen.append(("finished", threading.current_thread().name))

        consumer_started.connect(started, sender=Worker)
        consumer_finished.connect(finished, sender=Worker)
        self.addCleanup(consumer_started.disconnect, started, Worker)
        self.addCleanup(consumer_finished.disconnect, finished, Worker)

        async def consumer(message):
            await asyncio.sleep(0)
            self.seen.append(("runs", threading.current_thread().name))

        self.start(route("websocket.receive", consumer))
        self.next(self.send(text="x"))
        self.assertEqual([each for each, _ in self.seen], ["started", "runs", "finished"])
        self.assertEqual(self.seen[1][1], "channels-loop")
        self.assertNotIn("channels-loop", (self.seen[0][1], self.seen[2][1]))

    def test_each_has_its_own_language_time_zone_and_prefix(self):
        gate = {}

        async def consumer(message):
            translation.activate(message["text"])
            timezone.activate(timezone.get_fixed_timezone(int(message["path"][1:])))
            self.seen.append(1)
            await gate.setdefault("event", asyncio.Event()).wait()
            zone = timezone.get_current_timezone_name()
            text = " ".join([translation.get_language(), zone, get_script_prefix()])
            message.reply_channel.send({"text": text})

        self.start(route("websocket.receive", consumer))
        clients = [
            self.send(text=name, path="/%d" % number, root_path="/" + name)
            for number, name in enumerate(["de", "fr", "ja"], 1)
        ]
        wait_until(lambda: len(self.seen) == 3, "all to wait")
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        texts = [self.next(client)["replies"][0]["text"] for client in clients]
        self.assertEqual(texts, ["de +0001 /de/", "fr +0002 /fr/", "ja +0003 /ja/"])

    def test_what_it_calls_in_a_thread_has_its_language(self):
        async def consumer(message):
            translation.activate("de")
            await asyncio.sleep(0)
            self.seen.append(await in_thread(translation.get_language))

        self.start(route("websocket.receive", consumer))
        self.next(self.send(text="x"))
        self.assertEqual(self.seen, ["de"])

    def test_what_blocks_names_what_to_write(self):
        async def consumer(message):
            group = Group("g", channel_layer=self.layer)
            for call in (
                lambda: self.channel("c").send({"a": 1}, immediately=True),
                lambda: group.send({"a": 1}, immediately=True),
                lambda: group.add(message.reply_channel),
                lambda: group.discard(message.reply_channel),
                lambda: group.channels(),
            ):
                try:
                    call()
                except SynchronousOnlyOperation as error:
                    self.seen.append(str(error).rpartition("Write: ")[2])

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7})
        self.assertEqual(
            self.seen,
            [
                "await channel.asend(…)",
                "await group.asend(…)",
                "await group.aadd(…)",
                "await group.adiscard(…)",
                "await group.achannels(…)",
            ],
        )

    def test_one_without_a_place_waits(self):
        gate = {}

        async def consumer(message):
            self.seen.append(message["text"])
            await gate.setdefault("event", asyncio.Event()).wait()

        self.start(route("websocket.receive", consumer), threads=2, async_concurrency=2)
        clients = [self.send(text="x") for _ in range(5)]
        wait_until(lambda: self.layer.counters.values().get("async_waits"), "one to wait")
        wait_until(lambda: len(self.seen) >= 2, "the two before it")
        self.assertEqual(len(self.seen), 2)
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        for client in clients:
            self.assertEqual(self.next(client), {"ack": 7})

    def test_those_without_a_place_leave_a_thread_to_synchronous_consumers(self):
        gate = {}

        async def waits(message):
            self.seen.append(message["text"])
            await gate.setdefault("event", asyncio.Event()).wait()

        def answers(message):
            message.reply_channel.send({"text": "now"})

        for threads in (2, 4):
            del self.seen[:]
            gate.clear()
            self.start(
                route("websocket.receive", waits),
                route("websocket.connect", answers),
                threads=threads,
                async_concurrency=2,
            )
            clients = [self.send(text="x") for _ in range(12)]
            wait_until(lambda: len(self.seen) == 2, "the places to be taken")
            for _ in range(5):
                client = self.send("websocket.connect")
                self.assertEqual(self.next(client)["replies"], [{"text": "now"}])
            self.assertEqual(len(self.seen), 2)
            self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
            for client in clients:
                self.assertEqual(self.next(client), {"ack": 7})
            self.group.stop(TIMEOUT)

    def test_a_thread_that_claimed_before_the_kind_was_known_counts_as_one_that_waits(self):
        gate, is_claimed, goes_on = {}, threading.Event(), threading.Event()

        async def waits(message):
            self.seen.append(message["text"])
            await gate.setdefault("event", asyncio.Event()).wait()

        def answers(message):
            message.reply_channel.send({"text": "now"})

        handle = Worker.handle

        def late(worker, channel, content):
            if content.get("text") == "late":
                is_claimed.set()
                goes_on.wait(TIMEOUT)
            handle(worker, channel, content)

        patch = mock.patch.object(Worker, "handle", late)
        patch.start()
        self.addCleanup(patch.stop)
        self.start(
            route("websocket.receive", waits),
            route("websocket.connect", answers),
            threads=2,
            async_concurrency=2,
        )
        clients = [self.send(text="late")]
        self.assertTrue(is_claimed.wait(TIMEOUT))
        clients += [self.send(text="x") for _ in range(4)]
        wait_until(lambda: len(self.seen) == 2, "the places to be taken")
        goes_on.set()
        for _ in range(3):
            client = self.send("websocket.connect")
            self.assertEqual(self.next(client)["replies"], [{"text": "now"}])
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        for client in clients:
            self.assertEqual(self.next(client), {"ack": 7})

    def test_what_was_prefetched_for_a_thread_that_may_not_wait_is_requeued(self):
        class Layer(MemoryChannelLayer):
            def claim(self, consumer_id, channels, block=False):
                return super().claim(consumer_id, ["slow"], block)

        layer = Layer()
        layer.routing = [route("slow", self.seen.append), route("quick", self.seen.append)]
        loop = ConsumerLoop(layer, 1)
        worker, other = (Worker(layer, signal_handlers=False, loop=loop) for _ in range(2))
        other.may_wait, loop.places.max_waiting = True, 1
        loop.places.saw("slow", True)
        self.assertTrue(loop.places.acquire(lambda: True))
        layer.send("slow", {})
        self.assertFalse(worker.run_once())
        self.assertEqual(layer.channel_statistics("slow")["messages_pending"], 1)
        self.assertEqual(self.seen, [])

    def test_one_without_a_place_is_handled_at_the_end_if_no_other_process_could(self):
        """A layer in memory ends with the process, and so would what is requeued."""
        gate = {}

        async def waits(message):
            await gate.setdefault("event", asyncio.Event()).wait()

        def polls():
            return self.layer.counters.values().get("async_waits", 0)

        def pending():
            return self.layer.channel_statistics("websocket.receive")["messages_pending"]

        self.start(route("websocket.receive", waits), async_concurrency=1)
        clients = [self.send(text="x") for _ in range(2)]
        wait_until(polls, "one to wait")
        self.group.workers[0].stop()
        before = polls()
        wait_until(lambda: polls() > before + 1 or pending(), "it to wait on, or to give up")
        self.assertEqual(pending(), 0)
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        for client in clients:
            self.assertEqual(self.next(client), {"ack": 7})

    def test_the_gateway_is_told_of_one_that_takes_long(self):
        """Then other events take its turn, on each channel where events wait for one."""
        gate = {}

        async def consumer(message):
            await gate.setdefault("event", asyncio.Event()).wait()

        self.start(*[route(channel, consumer) for channel in sorted(TURN_CHANNELS)])
        for channel in sorted(TURN_CHANNELS):
            with self.subTest(channel=channel):
                gate.clear()
                client = self.send(channel)
                self.assertEqual(self.received(client).get("running"), 7)
                self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
                self.assertEqual(self.next(client)["ack"], 7)

    def test_the_gateway_is_told_of_a_request_that_holds_a_thread_for_long(self):
        gate = threading.Event()
        self.addCleanup(gate.set)

        def consumer(message):
            if message["path"] == "/slow":
                gate.wait(TIMEOUT)

        self.start(*[route(channel, consumer) for channel in sorted(TURN_CHANNELS)], threads=4)
        for channel in ("http.request", "websocket.connect"):
            with self.subTest(channel=channel):
                gate.clear()
                slow = [self.send(channel, path="/slow") for _ in range(3)]
                for client in slow:
                    self.assertEqual(self.received(client).get("running"), 7)
                gate.set()
                for client in slow:
                    self.assertEqual(self.received(client)["ack"], 7)
        for _ in range(3):
            wait_until(lambda: self.group._late.is_asleep, "nothing to be watched")
            self.assertIn("ack", self.next(self.send("http.request")))

    def test_it_runs_to_its_end_where_there_is_no_loop(self):
        async def consumer(message):
            await asyncio.sleep(0)
            message.reply_channel.send({"text": translation.get_language()})

        self.layer.routing = [route("websocket.receive", consumer)]
        client = self.send(text="x")
        with override_settings(LANGUAGE_CODE="sv"):
            self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.next(client), {"ack": 7, "replies": [{"text": "sv"}]})
        self.assertEqual(consume.outbox.slot, None)


class SendTests(AsyncCase):
    def test_awaited_sends_leave_at_once_in_the_order_of_all_sends(self):
        gate = {}

        async def consumer(message):
            gate["event"] = asyncio.Event()
            message.reply_channel.send({"text": "one"})
            self.channel("elsewhere").send({"first": 1})
            await message.reply_channel.asend({"text": "two"})
            self.seen.append(1)
            await gate["event"].wait()
            message.reply_channel.send({"text": "three"})
            await self.channel("elsewhere").asend({"second": 2})

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        wait_until(lambda: self.seen, "the consumer to wait")
        before = [self.next(client), self.next(client)]
        self.assertEqual(
            [message["replies"] for message in before], [[{"text": "one"}], [{"text": "two"}]]
        )
        self.group.loop._loop.call_soon_threadsafe(gate["event"].set)
        self.assertEqual(self.next(client)["replies"], [{"text": "three"}])
        self.assertEqual(self.next(client), {"ack": 7})
        self.assertEqual(self.next("elsewhere"), {"first": 1})
        self.assertEqual(self.next("elsewhere"), {"second": 2})

    def test_it_waits_while_its_client_is_behind(self):
        async def consumer(message):
            for number in range(100):
                await message.reply_channel.asend({"text": str(number)})
                self.seen.append(number)

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        wait_until(lambda: len(self.seen) == awaited.SOCKET_WINDOW, "the window to be full")
        sent = [self.next(client) for _ in range(awaited.SOCKET_WINDOW)]
        self.assert_nothing_more(client)
        window = sent[0]["window_channel"]
        self.layer.send(window, {"written": 8})
        sent += [self.next(client) for _ in range(8)]
        self.assert_nothing_more(client)
        self.layer.send(window, {"written": 1000})
        sent += [self.next(client) for _ in range(32)]
        self.layer.send(window, {"written": 1000})
        sent += [self.next(client) for _ in range(100 - len(sent))]
        self.assertEqual([each["replies"][0]["text"] for each in sent], list(map(str, range(100))))
        self.assertEqual(self.next(client), {"ack": 7})

    def test_clients_that_read_nothing_keep_no_other_consumer_from_running(self):
        async def talkative(message):
            for _ in range(100):
                await message.reply_channel.asend({"text": "x"})

        async def asynchronous(message):
            self.seen.append("asynchronous")

        def synchronous(message):
            self.seen.append("synchronous")

        self.start(
            route("websocket.receive", talkative),
            route("one", asynchronous),
            route("other", synchronous),
            async_concurrency=2,
        )
        clients = [self.send(text="x") for _ in range(6)]
        sent = [self.next(client) for client in clients for _ in range(awaited.SOCKET_WINDOW)]
        self.send("one")
        self.send("other")
        wait_until(lambda: len(self.seen) == 2, "the other consumers")
        # One of them goes on when its client has read.
        self.layer.send(sent[0]["window_channel"], {"written": 1000})
        for _ in range(awaited.SOCKET_WINDOW):
            self.next(clients[0])
        for message in sent[:: awaited.SOCKET_WINDOW]:
            self.layer.send(message["window_channel"], {"closed": True})
        places = self.group.loop.places
        wait_until(lambda: not places.used, "the places to be given back")
        self.assertEqual((places.taken, places.paused, places.leaving), (0, 0, 0))

    def test_no_more_wait_for_their_clients_without_a_place_than_the_bound(self):
        places = Places(self.layer, 1)
        waits = []
        for _ in range(PAUSED_PER_PLACE + 1):
            self.assertTrue(places.acquire(lambda: True))
            waits.append(places.waiting_for_client())
            waits[-1].__enter__()
        self.assertEqual((places.taken, places.paused), (1, PAUSED_PER_PLACE))
        self.assertFalse(places.acquire(lambda: True))
        for each in waits:
            each.__exit__(None, None, None)
        self.assertEqual((places.taken, places.paused), (PAUSED_PER_PLACE + 1, 0))

    def test_it_learns_that_its_client_has_gone(self):
        async def consumer(message):
            try:
                while True:
                    await message.reply_channel.asend({"text": "token"})
            except ClientDisconnected:
                self.seen.append("gone")
                raise

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        self.layer.send(self.next(client)["window_channel"], {"closed": True})
        answer = self.next(client)
        while "ack" not in answer:
            answer = self.next(client)
        self.assertEqual(answer, {"ack": 7})
        self.assertEqual(self.seen, ["gone"])

    def test_a_cancellation_that_comes_with_a_notice_of_the_client_is_kept(self):
        async def cancelled_after(steps):
            window = Window("window", mock.Mock(), mock.Mock())
            window.ahead = 1
            task = asyncio.ensure_future(window.below(1, TIMEOUT))
            await asyncio.sleep(0.01)
            window.notice(protocol.written(1))
            for _ in range(steps):
                await asyncio.sleep(0)
            was_cancelled = task.cancel()
            await asyncio.wait([task])
            return was_cancelled, task.cancelled()

        for steps in range(6):
            with self.subTest(steps):
                was_cancelled, has_ended_so = asyncio.run(cancelled_after(steps))
                self.assertEqual(was_cancelled, has_ended_so)

    def test_a_gateway_that_answers_before_the_question_has_returned_is_not_lost(self):
        asked = []

        async def wait_for_client():
            event = mock.Mock()
            window = Window("window", event, mock.Mock())
            window.ahead = 1

            async def call(question):
                result = question()
                asked.append(1)
                # The thread that reads notices is faster than the one that asks.
                window.notice(protocol.written(len(asked) // 10))
                return result

            event.loop.call = call
            return await window.below(1, TIMEOUT), window.is_closed

        with mock.patch.object(windows, "ASK_INTERVAL", 0.01):
            self.assertEqual(asyncio.run(wait_for_client()), (True, False))
        self.assertEqual(len(asked), 10)

    def test_a_send_that_is_cancelled_twice_keeps_its_place_before_the_next(self):
        gate = threading.Event()
        self.addCleanup(gate.set)

        async def consumer(message):
            task = asyncio.ensure_future(message.reply_channel.asend({"text": "one"}))
            while not self.seen:
                await asyncio.sleep(0)
            for _ in range(2):
                task.cancel()
                await asyncio.sleep(0.01)
            asyncio.get_event_loop().call_later(0.1, gate.set)
            await message.reply_channel.asend({"text": "two"})

        deliver = self.layer.deliver

        def slowly(channel, content, **options):
            if {"text": "one"} in content.get("replies", ()):
                self.seen.append(1)
                gate.wait(TIMEOUT)
            deliver(channel, content, **options)

        self.layer.deliver = slowly
        self.start(route("websocket.receive", consumer))
        client, texts = self.send(text="x"), []
        answer = {}
        while "ack" not in answer:
            answer = self.next(client)
            texts += [each["text"] for each in answer.get("replies", ())]
        self.assertEqual(texts, ["one", "two"])

    def test_groups_are_joined_and_sent_to(self):
        async def consumer(message):
            group = Group("room", channel_layer=self.layer)
            await group.aadd("member")
            self.seen.append(await group.achannels())
            await group.asend({"text": "hello"})
            await group.adiscard("member")
            self.seen.append(await group.achannels())

        self.start(route("websocket.receive", consumer))
        self.assertEqual(self.next(self.send(text="x")), {"ack": 7})
        self.assertEqual(self.seen, [["member"], []])
        self.assertEqual(self.next("member"), {"text": "hello"})

    def test_other_asynchronous_code_sends_too(self):
        asyncio.run(self.channel("c").asend({"a": 1}))
        self.assertEqual(self.next("c"), {"a": 1})


class RequestTests(AsyncCase):
    def ask(self):
        return self.send("http.request", method="GET", query_string=b"", body=b"")

    def test_it_answers_a_request(self):
        async def consumer(message):
            await asyncio.sleep(0)
            message.reply_channel.send({"status": 200, "headers": [], "content": b"hello"})

        self.start(route("http.request", consumer))
        replies = self.next(self.ask())["replies"]
        self.assertEqual(replies, [{"status": 200, "headers": [], "content": b"hello"}])

    def test_parts_wait_for_the_client(self):
        async def consumer(message):
            head = {"status": 200, "headers": []}
            for number in range(20):
                part = {"content": b"%d" % number, "more_content": True}
                await message.reply_channel.asend(dict(head, **part))
                head = {}
                self.seen.append(number)
            message.reply_channel.send({"content": b"end"})

        self.start(route("http.request", consumer))
        client = self.ask()
        first = self.next(client)
        wait_until(lambda: len(self.seen) == awaited.RESPONSE_WINDOW, "the window to be full")
        self.layer.send(first["window_channel"], {"written": 20})
        wait_until(lambda: len(self.seen) == 2 * awaited.RESPONSE_WINDOW, "the next window")
        self.layer.send(first["window_channel"], {"written": 20})
        parts = [first] + [self.next(client) for _ in range(19)]
        self.assertEqual(
            [each["replies"][0]["content"] for each in parts], [b"%d" % n for n in range(20)]
        )
        self.assertEqual(self.next(client), {"ack": 7, "replies": [{"content": b"end"}]})

    def test_it_ends_quietly_if_the_client_has_gone(self):
        async def consumer(message):
            await message.reply_channel.asend({"status": 200, "headers": [], "more_content": True})
            while True:
                await message.reply_channel.asend({"content": b"x", "more_content": True})

        self.start(route("http.request", consumer))
        client = self.ask()
        self.layer.send(self.next(client)["window_channel"], {"closed": True})
        answer = self.next(client)
        while "ack" not in answer:
            answer = self.next(client)
        self.assertEqual(answer, {"ack": 7})


class StopTests(AsyncCase):
    def test_one_that_ends_in_time_is_answered(self):
        async def consumer(message):
            self.seen.append(1)
            while not self.group.loop.is_stopping:
                await asyncio.sleep(0.01)
            message.reply_channel.send({"text": "in time"})

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        wait_until(lambda: self.seen, "the consumer to run")
        self.assertTrue(self.group.stop(TIMEOUT))
        self.assertEqual(self.next(client), {"ack": 7, "replies": [{"text": "in time"}]})

    def test_one_that_does_not_is_cancelled_and_counts_as_lost(self):
        async def consumer(message):
            try:
                self.seen.append("runs")
                await asyncio.Event().wait()
            finally:
                self.seen.append("cleared up")

        self.start(route("websocket.receive", consumer))
        client = self.send(text="x")
        wait_until(lambda: self.seen, "the consumer to run")
        self.assertIn("running", self.received(client))
        self.assertFalse(self.group.stop(1.2))
        self.assertEqual(self.seen, ["runs", "cleared up"])
        self.assert_nothing_more(client)
        self.assertEqual(len(self.layer._unacknowledged), 1)

    def test_one_that_was_cancelled_otherwise_has_failed(self):
        async def consumer(message):
            raise asyncio.CancelledError()

        self.start(route("websocket.receive", consumer))
        with self.assertLogs("django.channels.worker", "ERROR"):
            self.assertEqual(self.next(self.send(text="x")), {"ack": 7, "error": True})


class RedeliveredTests(AsyncCase):
    def test_one_that_lost_a_worker_runs_alone(self):
        running = []

        async def consumer(message):
            running.append(1)
            self.seen.append(len(running))
            await asyncio.sleep(0.01)
            running.pop()

        with mock.patch.object(worker, "REDELIVERED_DELAY", 0.0):
            self.start(route("websocket.receive", consumer), threads=3)
            clients = [self.send(text="x", redelivered=True) for _ in range(5)]
            for client in clients:
                self.assertEqual(self.next(client), {"ack": 7})
        self.assertEqual(self.seen, [1] * 5)

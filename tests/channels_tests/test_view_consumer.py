"""ViewConsumer over the in-memory layer: bodies in chunks, streams in a window, clients that go away."""

import logging
import threading
from unittest import mock, skipUnless

import django
from django import http
from django.channels import handler
from django.channels.exceptions import ChannelFull, ResponseLater
from django.channels.handler import AsgiHandler, AsgiRequest, ViewConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.routing import route
from django.channels.worker import Worker, WorkerGroup
from django.core import signals
from django.test import SimpleTestCase

from . import http_site
from .http_messages import Received, Sent
from .support.contexts import enter
from .support.layers import next_reply, waiting_on
from .support.untimed import leave_out_run_times
from .support.waiting import TIMEOUT, wait_until

REPLY = "gateway.test!1"
BODY = "http.request.body?test"


class ViewConsumerCase(SimpleTestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.layer = MemoryChannelLayer(capacity=1000)
        self.layer.routing = []

    def serve(self, view):
        """`view` answers everything until the test ends."""
        enter(self, http_site.settings_of(view))

    def message(self, sent=None, **changes):
        content = (sent or Sent()).message(**changes)
        return Message(content, "http.request", self.layer)

    def consume(self, view, *args, **changes):
        """Run `view` as the consumer of a request, and return all that was sent to the client."""
        self.serve(view)
        ViewConsumer()(self.message(*args, **changes))
        return self.sent()

    def start(self, view, *args, **changes):
        """Do what `consume` does in another thread, which `join` waits for."""
        self.serve(view)
        message = self.message(*args, **changes)

        def run():
            try:
                ViewConsumer()(message)
            except Exception as error:
                self.raised = error

        self.raised = None
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def join(self):
        self.thread.join(TIMEOUT)
        self.assertFalse(self.thread.is_alive(), "the consumer has not ended")

    def finished(self):
        """A list that holds a True for every `request_finished` from now on."""
        finished = []

        def receiver(**kwargs):
            finished.append(True)

        signals.request_finished.connect(receiver)
        self.addCleanup(signals.request_finished.disconnect, receiver)
        return finished

    def sent(self):
        return waiting_on(self.layer, REPLY)

    def next(self, key="content"):
        """Return the next message to the client that isn't a notice of time. Check that it has `key`."""
        message = next_reply(self.layer, REPLY)
        self.assertIn(key, message)
        return message


class ResponseTests(ViewConsumerCase):
    def test_one_message(self):
        (reply,) = self.consume(lambda request: http.HttpResponse("hello"))
        self.assertEqual((reply["status"], reply["content"]), (200, b"hello"))
        self.assertFalse(reply["more_content"])
        self.assertNotIn("window_channel", reply)

    def test_keyword_arguments_of_a_route_are_welcome(self):
        self.serve(http_site.hello)
        ViewConsumer()(self.message(), room="kitchen")
        self.assertEqual(len(self.sent()), 1)

    def test_request_leads_to_its_message(self):
        def view(request):
            self.assertEqual(request.reply_channel.name, REPLY)
            self.assertIs(request.message.channel_layer, self.layer)
            return http.HttpResponse(type(request).__name__)

        (reply,) = self.consume(view)
        self.assertEqual(reply["content"], b"AsgiRequest")

    def test_response_later(self):
        def view(request):
            raise AsgiRequest.ResponseLater()

        finished = self.finished()
        self.assertEqual(self.consume(view), [])
        self.assertEqual(finished, [True])

    def test_response_later_passes_the_middleware(self):
        def view(request):
            raise ResponseLater()

        self.serve(view)
        middleware = [
            "django.middleware.common.CommonMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
        ]
        with self.settings(MIDDLEWARE=middleware, MIDDLEWARE_CLASSES=middleware):
            ViewConsumer()(self.message())
        self.assertEqual(self.sent(), [])

    def test_encode_response(self):
        (reply,) = AsgiHandler.encode_response(http.HttpResponse("hello", status=202))
        self.assertEqual((reply["status"], reply["content"]), (202, b"hello"))

    def test_handler_calls_by_hand(self):
        self.serve(http_site.hello)
        got = Received.from_replies(AsgiHandler()(self.message()))
        self.assertEqual(got.body, b"hello world")


class StreamTests(ViewConsumerCase):
    def parts(self, count):
        self.made, self.closed = 0, threading.Event()

        def parts():
            try:
                for _ in range(count):
                    self.made += 1
                    yield b"%d " % self.made
            finally:
                self.closed.set()

        return http.StreamingHttpResponse(parts())

    def test_short_stream_does_not_wait(self):
        replies = self.consume(lambda request: self.parts(5))
        self.assertEqual(
            [reply["content"] for reply in replies], [b"1 ", b"2 ", b"3 ", b"4 ", b"5 ", b""]
        )
        self.assertIn("?", replies[0]["window_channel"])
        self.assertTrue(all("window_channel" not in reply for reply in replies[1:]))

    def test_stays_in_the_window(self):
        self.start(lambda request: self.parts(30))
        first = self.next()
        window = first["window_channel"]
        received = [first] + [self.next() for _ in range(handler.RESPONSE_WINDOW - 1)]
        wait_until(lambda: self.made > handler.RESPONSE_WINDOW, "the next part to be made")
        self.assertEqual(self.made, handler.RESPONSE_WINDOW + 1)
        self.assertEqual(self.sent(), [])
        self.layer.send(window, {"written": 3})
        received += [self.next() for _ in range(3)]
        wait_until(lambda: self.made == handler.RESPONSE_WINDOW + 4, "the window to be full again")
        self.assertEqual(self.sent(), [])
        while received[-1]["more_content"]:
            self.layer.send(window, {"written": 1})
            received.append(self.next())
        self.join()
        self.assertEqual(
            b"".join(reply["content"] for reply in received),
            b"".join(b"%d " % number for number in range(1, 31)),
        )

    def test_client_goes_away(self):
        finished = self.finished()
        self.start(lambda request: self.parts(1000000))
        self.layer.send(self.next()["window_channel"], {"closed": True})
        self.join()
        self.assertTrue(self.closed.is_set())
        self.assertIsNone(self.raised)
        self.assertEqual(finished, [True])
        self.assertLess(self.made, 20)

    def test_unhurried_stream_notices_that_the_client_goes_away(self):
        go_on = threading.Semaphore(2)
        closed = threading.Event()

        def parts():
            try:
                while True:
                    go_on.acquire()
                    yield b"tick "
            finally:
                closed.set()

        with mock.patch.object(handler, "WINDOW_POLL_INTERVAL", 0.0):
            self.start(lambda request: http.StreamingHttpResponse(parts()))
            first = self.next()
            self.layer.send(first["window_channel"], {"closed": True})
            go_on.release()
            go_on.release()
            self.join()
        self.assertTrue(closed.is_set())

    def test_stream_of_empty_parts_notices_that_the_client_goes_away(self):
        for first in (b"first", b""):
            closed = threading.Event()

            def parts(first=first, closed=closed):
                try:
                    yield first
                    while True:
                        yield b""
                finally:
                    closed.set()

            with self.subTest(first=first):
                self.start(lambda request, parts=parts: http.StreamingHttpResponse(parts()))
                self.layer.send(self.next()["window_channel"], {"closed": True})
                self.join()
                self.assertTrue(closed.is_set())
                self.sent()

    def test_client_that_takes_nothing_is_given_up(self):
        self.layer.block_for = 0.01
        with mock.patch.object(handler, "STREAM_TIMEOUT", 0.05):
            self.start(lambda request: self.parts(100))
            self.join()
        self.assertTrue(self.closed.is_set())
        self.assertIsNone(self.raised)

    def test_full_channel_is_tried_again(self):
        refused = []
        deliver = self.layer.deliver

        def deliver_later(channel, message):
            if channel == REPLY and len(refused) < 5:
                refused.append(message)
                raise ChannelFull("Not now.")
            deliver(channel, message)

        with mock.patch.object(self.layer, "deliver", deliver_later):
            replies = self.consume(lambda request: self.parts(2))
        self.assertEqual([reply["content"] for reply in replies], [b"1 ", b"2 ", b""])
        self.assertEqual(len(refused), 5)

    def test_failing_stream(self):
        def parts():
            yield b"a"
            raise KeyError("the view")

        self.serve(lambda request: http.StreamingHttpResponse(parts()))
        with self.assertRaises(KeyError):
            ViewConsumer()(self.message())
        self.assertEqual([reply["content"] for reply in self.sent()], [b"a"])

    def test_large_file(self):
        self.serve(http_site.file)
        replies = self.consume(http_site.file)
        self.assertEqual(b"".join(reply["content"] for reply in replies), http_site.FILE_CONTENT)
        self.assertEqual(len(replies), 4)

    @skipUnless(django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on")
    def test_asynchronous_stream(self):
        from . import async_site

        log = []
        self.start(lambda request: http.StreamingHttpResponse(async_site.parts(log)))
        self.layer.send(self.next()["window_channel"], {"closed": True})
        self.join()
        self.assertEqual(log[-1], "closed")

    @skipUnless(django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on")
    def test_an_asynchronous_stream_that_waits_ends_when_its_client_goes(self):
        """Before its first part, and after it."""
        from . import async_site

        for count in (0, 2):
            log = []
            self.start(
                lambda request, log=log, count=count: http.StreamingHttpResponse(
                    async_site.waiting(log, count)
                )
            )
            first = self.next()
            self.assertEqual(first["status"], 200)
            wait_until(lambda log=log: log == ["waits"], "the stream to wait")
            self.layer.send(first["window_channel"], {"closed": True})
            self.join()
            self.assertEqual(log, ["waits", "CancelledError", "closed"])
            self.assertIsNone(self.raised)
            content = first["content"] + b"".join(each["content"] for each in self.sent())
            self.assertEqual(content, b"01"[:count])

    @skipUnless(django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on")
    def test_a_waiting_stream_ends_when_its_worker_is_told_to_stop(self):
        from . import async_site

        log = []
        self.serve(lambda request: http.StreamingHttpResponse(async_site.waiting(log, 1)))
        self.layer.send("http.request", dict(Sent().message(), event_id=0))
        group = WorkerGroup(self.layer, threads=1)
        group.start()
        self.next()
        wait_until(lambda: log == ["waits"], "the stream to wait")
        self.assertTrue(group.stop(TIMEOUT))
        self.assertEqual(log[-1], "closed")
        # A status in the middle of a response has the gateway break it off.
        (answer,) = [each for each in self.sent() if "running" not in each]
        self.assertEqual((answer["ack"], answer["replies"][0]["status"]), (0, 503))


class BodyTests(ViewConsumerCase):
    def chunk(self, content, more=True):
        self.layer.send(BODY, {"content": content, "more_content": more})

    def upload(self, view, first=b"a", **changes):
        self.start(view, Sent("POST"), body=first, body_channel=BODY, **changes)

    def test_credits(self):
        self.upload(http_site.raw_body)
        for content in (b"b", b"c"):
            self.chunk(content)
            self.assertEqual(self.next("body_credit"), {"body_credit": 1})
        self.chunk(b"d", more=False)
        reply = self.next()
        self.join()
        self.assertEqual(reply["content"], b"abcd")
        self.assertEqual(self.sent(), [])

    def test_no_credit_for_what_nobody_reads(self):
        self.chunk(b"b")
        self.upload(lambda request: http.HttpResponse("not interested"))
        self.assertEqual(self.next()["content"], b"not interested")
        self.join()
        self.assertEqual(self.sent(), [])

    def test_answer_while_the_body_comes(self):
        def view(request):
            return http.StreamingHttpResponse(iter(lambda: request.read(2), b""))

        self.upload(view, b"ab")
        self.assertEqual(self.next()["content"], b"ab")
        self.chunk(b"cd")
        self.next("body_credit")
        self.assertEqual(self.next()["content"], b"cd")
        self.chunk(b"ef", more=False)
        self.assertEqual(self.next()["content"], b"ef")
        self.assertEqual(self.next()["more_content"], False)
        self.join()

    def test_client_goes_away(self):
        self.upload(http_site.raw_body)
        self.layer.send(BODY, {"closed": True})
        self.join()
        self.assertIsNone(self.raised)
        self.assertEqual(self.sent(), [])

    def test_client_says_nothing(self):
        self.layer.block_for = 0.01
        with mock.patch.object(handler, "BODY_TIMEOUT", 0.05):
            self.upload(http_site.raw_body)
            self.join()
        (reply,) = self.sent()
        self.assertEqual((reply["status"], reply["more_content"]), (408, False))

    def test_broken_body_of_a_view_that_streams(self):
        def view(request):
            return http.StreamingHttpResponse(iter(lambda: request.read(1), b""))

        self.upload(view)
        self.assertEqual(self.next()["content"], b"a")
        self.layer.send(BODY, {"closed": True})
        self.join()
        self.assertIsInstance(self.raised, OSError)


class WorkerTests(ViewConsumerCase):
    """With the worker around it, as the gateway sees it."""

    def work(self, view, **changes):
        leave_out_run_times(self)
        self.serve(view)
        self.layer.send("http.request", dict(Sent().message(**changes), event_id=0))
        self.assertTrue(Worker(self.layer).run_once())
        return self.sent()

    def test_response_leaves_with_done(self):
        (answer,) = self.work(http_site.hello)
        self.assertEqual(answer["ack"], 0)
        self.assertEqual(Received.from_replies(answer["replies"]).body, b"hello world")

    def test_stream_leaves_before_done(self):
        answers = self.work(http_site.stream)
        self.assertEqual(Received.from_replies(answers[:-1]).body, "ab\u00fccccccccccc".encode())
        self.assertEqual(answers[-1], {"ack": 0})

    def test_error_page_of_a_view(self):
        (answer,) = self.work(http_site.error)
        self.assertNotIn("error", answer)
        self.assertEqual(answer["replies"][0]["status"], 500)

    def test_error_page_of_a_consumer(self):
        def consumer(message):
            raise RuntimeError("the consumer failed")

        self.layer.routing = [route("http.request", consumer)]
        (answer,) = self.work(http_site.hello)
        self.assertTrue(answer["error"])
        self.assertEqual(answer["replies"][0]["status"], 500)
        self.assertIn(b"Server Error (500)", answer["replies"][0]["content"])

    def test_stream_that_fails_at_once(self):
        def parts():
            raise RuntimeError("the view failed")
            yield

        (answer,) = self.work(lambda request: http.StreamingHttpResponse(parts()))
        self.assertTrue(answer["error"])
        self.assertEqual(answer["replies"][0]["status"], 500)

    def test_view_in_a_consumer(self):
        """The way that Channels 1.1 documents for a consumer with a response of Django's."""

        def consumer(message):
            for reply in AsgiHandler.encode_response(http.HttpResponse("by hand")):
                message.reply_channel.send(reply)

        self.layer.routing = [route("http.request", consumer)]
        (answer,) = self.work(http_site.hello)
        self.assertEqual(Received.from_replies(answer["replies"]).body, b"by hand")

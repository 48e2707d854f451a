"""Requests on a worker: transactions, when a response leaves, ResponseLater, lengths, state of threads."""

import contextvars
import datetime
import logging
import tempfile
import threading
from contextlib import contextmanager
from unittest import mock, skipUnless

import django
from django import http
from django.channels import Channel, Group, route
from django.channels import outbox as outbox_module
from django.channels import worker as worker_module
from django.channels.exceptions import ChannelFull, ConsumeLater, LayerUnavailable, ResponseLater
from django.channels.handler import AsgiHandler, ViewConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.outbox import outbox
from django.channels.signals import consumer_finished, consumer_started
from django.channels.test import ChannelTestCase, HttpClient
from django.channels.worker import Worker
from django.conf import settings
from django.contrib.auth.models import Group as Row
from django.core import mail, signals
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.utils import timezone, translation

from . import http_site
from .http_messages import Received, Sent
from .support.contexts import enter
from .support.layers import waiting_on
from .support.untimed import leave_out_run_times
from .support.waiting import wait_until

try:
    from django.urls import reverse, set_urlconf
except ImportError:  # Django 1.8 and 1.9
    from django.core.urlresolvers import reverse, set_urlconf

REPLY = "gateway.test!1"
LOGGERS = ("django", "django.request", "django.channels.worker")
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


SOCKET = {"reply_channel": REPLY, "path": "/", "text": "x", "headers": []}


class OddError(BaseException):
    """An error that isn't an Exception or an exit."""


ERRORS = (KeyError, OddError, GeneratorExit, SystemExit, KeyboardInterrupt, StopIteration)


class Site:
    """A site of one view, on the in-memory layer. The test handles each request."""

    def setUp(self):
        self.layer = MemoryChannelLayer(capacity=1000)
        self.layer.alias = "test"
        self.layer.routing = []
        self.worker = Worker(self.layer)
        self.events = []
        leave_out_run_times(self)

    def serve(self, view, middleware=()):
        enter(
            self,
            override_settings(
                ROOT_URLCONF=type(
                    "URLconf", (), {"urlpatterns": [http_site.re_path(r"^", view, name="all")]}
                ),
                MIDDLEWARE=list(middleware),
                MIDDLEWARE_CLASSES=list(middleware),
                ALLOWED_HOSTS=["testserver"],
            ),
        )

    def route(self, channel, consumer):
        self.layer.routing = [route(channel, consumer)]
        self.layer.router = None

    def request(self, **changes):
        """Handle a request. Return what came back on the reply channel."""
        self.layer.send("http.request", dict(Sent().message(**changes), event_id=0))
        self.assertTrue(self.worker.run_once())
        return self.sent()

    def sent(self, channel=REPLY):
        return waiting_on(self.layer, channel)

    def response(self, answers):
        replies = []
        for answer in answers:
            replies += answer.get("replies", [answer] if "content" in answer else [])
        return Received.from_replies(replies)

    @contextmanager
    def logs(self):
        """As assertLogs. Each error counts once, whatever loggers it passes. Django 1.8 cuts their tree."""
        seen = mock.Mock(records=[], output=[])

        class Handler(logging.Handler):
            def emit(self, record):
                if record.levelno >= logging.ERROR and record not in seen.records:
                    seen.records.append(record)
                    seen.output.append(self.format(record))

        handler, loggers = Handler(), [logging.getLogger(name) for name in LOGGERS]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield seen
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
        self.assertTrue(seen.records, "no error was logged")

    def on(self, signal, receiver):
        signal.connect(receiver)
        self.addCleanup(signal.disconnect, receiver)


class OpenTransactions:
    """A connection that would be closed by every look at it, as one with CONN_MAX_AGE 0."""

    def setUp(self):
        super().setUp()
        self.closed = []
        patch = mock.patch.object(
            connection, "close", lambda: self.closed.append(connection.in_atomic_block)
        )
        patch.start()
        self.addCleanup(patch.stop)

    def assert_closed_only_outside(self):
        self.assertNotIn(True, self.closed)


class TransactionTests(OpenTransactions, Site, TransactionTestCase):
    available_apps = None

    def names(self):
        return list(Row.objects.values_list("name", flat=True))

    def test_a_response_that_is_encoded_in_a_transaction_keeps_it(self):
        @transaction.atomic
        def consumer(message):
            Row.objects.create(name="kept")
            for reply in AsgiHandler.encode_response(http.HttpResponse("x")):
                message.reply_channel.send(reply)
            Row.objects.create(name="later")

        self.route("http.request", consumer)
        self.assertEqual(self.response(self.request()).body, b"x")
        self.assertEqual(sorted(self.names()), ["kept", "later"])
        self.assert_closed_only_outside()

    def test_a_view_that_is_called_in_a_transaction_keeps_it(self):
        def view(request):
            Row.objects.create(name="kept")
            return http.HttpResponse("x")

        self.serve(view)

        @transaction.atomic
        def consumer(message):
            for reply in AsgiHandler()(message):
                message.reply_channel.send(reply)
            Row.objects.create(name="later")

        self.route("http.request", consumer)
        self.assertEqual(self.response(self.request()).body, b"x")
        self.assertEqual(sorted(self.names()), ["kept", "later"])
        self.assert_closed_only_outside()

    def test_outside_a_consumer_too(self):
        with transaction.atomic():
            Row.objects.create(name="kept")
            list(AsgiHandler.encode_response(http.HttpResponse("x")))
            Row.objects.create(name="later")
        self.assertEqual(sorted(self.names()), ["kept", "later"])
        self.assert_closed_only_outside()

    def test_a_view_under_atomic_requests_that_answers_another_request(self):
        def view(request):
            Row.objects.create(name="kept")
            for reply in AsgiHandler.encode_response(http.HttpResponse("x")):
                Channel("other", channel_layer=self.layer).send(reply)
            Row.objects.create(name="later")
            return http.HttpResponse("y")

        self.serve(view)
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            self.assertEqual(self.response(self.request()).body, b"y")
        self.assertEqual(sorted(self.names()), ["kept", "later"])
        self.assert_closed_only_outside()

    def test_response_later_commits_under_atomic_requests(self):
        def view(request):
            Row.objects.create(name="kept")
            raise ResponseLater()

        self.serve(view)
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            self.assertEqual(self.request(), [{"ack": 0}])
        self.assertEqual(self.names(), ["kept"])

    def test_any_other_exception_rolls_back_under_atomic_requests(self):
        def view(request):
            Row.objects.create(name="gone")
            raise KeyError("x")

        self.serve(view)
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            with self.logs():
                self.assertEqual(self.response(self.request()).status, 500)
        self.assertEqual(self.names(), [])

    def test_an_on_commit_hook_that_raises_is_a_500(self):
        if django.VERSION < (1, 9):
            self.skipTest("Django 1.8 lacks on_commit")
        for error in ERRORS:

            def fail(error=error):
                raise error("hook")

            def consumer(message, fail=fail):
                with transaction.atomic():
                    Row.objects.create(name=fail.__defaults__[0].__name__)
                    transaction.on_commit(fail)

            self.route("http.request", consumer)
            with self.logs():
                (answer,) = self.request()
            self.assertTrue(answer["error"])
        self.assertEqual(len(self.names()), len(ERRORS))


class ConnectionTests(OpenTransactions, Site, TransactionTestCase):
    available_apps = None

    def work(self, consumer):
        self.route("test", consumer)
        self.layer.send("test", {})
        self.assertTrue(Worker(self.layer).run_once())

    def test_a_connection_that_is_too_old_is_closed_after_the_consumer(self):
        self.addCleanup(setattr, connection, "close_at", connection.close_at)

        def consumer(message):
            Row.objects.count()
            connection.close_at = 0
            del self.closed[:]

        self.work(consumer)
        self.assertEqual(self.closed, [False])

    def test_with_debug_the_queries_of_a_consumer_are_forgotten_after_it(self):
        seen = []

        def consumer(message):
            Row.objects.count()
            seen.append(len(connection.queries))

        with override_settings(DEBUG=True):
            self.work(consumer)
            seen.append(len(connection.queries))
        self.assertEqual(seen, [1, 0])


class TestCaseTests(OpenTransactions, Site, ChannelTestCase):
    """A test case that runs in a transaction keeps its connection."""

    def test_a_request_in_a_test_case(self):
        def view(request):
            Row.objects.create(name="x")
            return http.HttpResponse("x")

        self.serve(view)
        client = HttpClient()
        client.send_and_consume("http.request")
        self.assertEqual(client.receive()["content"], b"x")
        self.assertTrue(Row.objects.exists())
        self.assert_closed_only_outside()


def note_old_style(events):
    """Return a middleware class of both styles, which notes what it sees in `events`."""

    class Middleware:
        def __init__(self, get_response=None):
            self.get_response = get_response

        def __call__(self, request):
            return self.process_response(request, self.get_response(request))

        def process_response(self, request, response):
            events.append(response.status_code)
            return response

        def process_exception(self, request, exception):
            events.append(type(exception).__name__)

    return Middleware


#: What the middleware below saw.
noted = []
Noting = note_old_style(noted)


class ResponseLaterTests(Site, TestCase):
    def view(self, request):
        request.session["seen"] = 1
        self.key = request.session
        raise ResponseLater()

    def setUp(self):
        super().setUp()
        del noted[:]
        mail.outbox = []

    def test_it_is_an_ordinary_and_silent_end(self):
        enter(
            self,
            override_settings(
                ADMINS=[("a", "a@example.com")],
                SESSION_ENGINE="django.contrib.sessions.backends.db",
            ),
        )
        self.serve(self.view, [__name__ + ".Noting", SESSIONS])
        records = []
        handler = logging.Handler()
        handler.emit = records.append
        for name in ("", "django", "django.request", "django.channels"):
            logging.getLogger(name).addHandler(handler)
            self.addCleanup(logging.getLogger(name).removeHandler, handler)
        self.assertEqual(self.request(), [{"ack": 0}])
        self.assertEqual(noted, [202])
        self.assertEqual([record.getMessage() for record in records], [])
        self.assertEqual(mail.outbox, [])
        store = type(self.key)(self.key.session_key)
        self.assertEqual(store["seen"], 1)

    def test_a_template_response_may_be_answered_later(self):
        class Later(http.HttpResponse):
            def render(self):
                raise ResponseLater()

        self.serve(lambda request: Later(), [__name__ + ".Noting"])
        self.assertEqual(self.request(), [{"ack": 0}])
        self.assertEqual(noted, [202])

    @skipUnless(django.VERSION >= (3, 1), "Django runs asynchronous views from 3.1 on")
    def test_an_asynchronous_view_may_be_answered_later(self):
        from . import async_site

        self.serve(async_site.later, [__name__ + ".Noting"])
        self.assertEqual(self.request(), [{"ack": 0}])
        self.assertEqual(noted, [202])


class LeavingTests(Site, SimpleTestCase):
    """A response leaves before it is closed."""

    def note(self, name):
        def receiver(**kwargs):
            self.events.append((name, bool(self.sent())))

        return receiver

    def test_a_response_leaves_before_request_finished(self):
        self.on(signals.request_finished, self.note("finished"))

        def view(request):
            response = http.HttpResponse("x")
            close = response.close

            def note_close():
                self.events.append(("close", len(self.layer.receive_many([REPLY])[1]["replies"])))
                close()

            response.close = note_close
            return response

        self.serve(view)
        self.request()
        self.assertEqual(self.events, [("close", 1), ("finished", False)])

    def test_connections_are_released_before_the_consumer_and_after_the_reply(self):
        def note():
            self.events.append(bool(self.sent()))

        self.serve(lambda request: http.HttpResponse("x"))
        with mock.patch.object(worker_module, "release_connections", note):
            self.request()
        self.assertEqual(self.events, [False, True])

    def test_a_streaming_view_sends_with_each_part(self):
        seen = []

        def parts():
            for number in range(3):
                Group("g", channel_layer=self.layer).send({"number": number})
                yield b"%d" % number
                seen.append([each["number"] for each in self.sent("member")])

        Group("g", channel_layer=self.layer).add("member")
        self.serve(lambda request: http.StreamingHttpResponse(parts()))
        self.request()
        self.assertEqual(seen, [[0], [1], [2]])

    def test_a_stream_that_raises_consume_later_breaks_off_and_is_not_made_again(self):
        made = []

        def parts(number):
            made.append(number)
            yield from [b"part"] * number
            raise ConsumeLater()

        for number in (0, 1, 2):
            with self.subTest(parts=number):
                del made[:]
                self.serve(lambda request, n=number: http.StreamingHttpResponse(parts(n)))
                with self.logs() as logs:
                    answers = self.request()
                self.assertIn("Only a consumer may raise ConsumeLater", logs.output[0])
                self.assertEqual(len([each for each in answers if each.get("content")]), number)
                self.assertTrue(answers[-1]["error"])
                self.assertFalse(self.worker.run_once())
                self.assertEqual(made, [number])

    def test_what_a_close_raises_harms_no_reply(self):
        for error in ERRORS:

            def view(request, error=error):
                response = http.HttpResponse("x")
                response.close = mock.Mock(side_effect=error("close"))
                return response

            self.serve(view)
            with self.logs():
                answers = self.request()
            self.assertEqual(self.response(answers).body, b"x")
            self.assertNotIn("error", answers[-1])


class ErrorTests(Site, SimpleTestCase):
    """What the site raises, of any class, ends no worker and leaves no client without an answer."""

    def assert_answered(self, status=500):
        with self.logs() as logs:
            answers = self.request()
        self.assertEqual(answers[-1]["ack"], 0)
        replies = [each for answer in answers for each in answer.get("replies", ())]
        self.assertTrue(answers[-1].get("error") or replies[0]["status"] == status, answers)
        self.assertEqual(len(logs.records), 1, logs.output)
        # And the thread works on.
        self.serve(http_site.hello)
        self.layer.routing, self.layer.router = [], None
        self.assertEqual(self.response(self.request()).body, b"hello world")

    def raising(self, error, name="x"):
        def fail(*args, **kwargs):
            raise error(name)

        return fail

    def test_a_view(self):
        for error in ERRORS:
            self.serve(self.raising(error))
            self.assert_answered()

    def test_a_consumer(self):
        for error in ERRORS:
            self.route("http.request", self.raising(error))
            self.assert_answered()

    def test_a_client_does_not_choose_the_length_of_the_line(self):
        self.route("http.request", self.raising(OddError))
        with self.logs() as logs:
            self.request(path="/\nERROR " + "p" * 5000)
        (record,) = logs.records
        self.assertTrue(record.getMessage().isprintable())
        self.assertLess(len(record.getMessage()), 300)

    def test_the_render_of_a_template_response(self):
        for error in ERRORS:

            def view(request, error=error):
                response = http.HttpResponse()
                response.render = self.raising(error)
                return response

            self.serve(view)
            self.assert_answered()

    def test_a_stream(self):
        for error in ERRORS:

            class Parts:
                fail = staticmethod(self.raising(error))

                def __iter__(self):
                    return self

                def __next__(self):
                    self.fail()

            if error is StopIteration:
                continue  # the end of a stream
            self.serve(lambda request: http.StreamingHttpResponse(Parts()))
            self.assert_answered()

    def test_receivers_of_signals(self):
        for signal in (consumer_started, consumer_finished, signals.request_started):
            for error in ERRORS:
                self.serve(http_site.hello)
                receiver = self.raising(error)
                signal.connect(receiver)
                try:
                    with self.logs():
                        answers = self.request()
                finally:
                    signal.disconnect(receiver)
                self.assertEqual(answers[-1]["ack"], 0)

    def test_handlers_and_filters_of_the_log(self):
        for error in (KeyError, OddError, GeneratorExit):
            fail = self.raising(error)
            handler = logging.Handler()
            handler.emit = fail
            for name in ("django.channels", "django.channels.worker", "django.request"):
                logger = logging.getLogger(name)
                for add, remove, what in (
                    (logger.addHandler, logger.removeHandler, handler),
                    (logger.addFilter, logger.removeFilter, fail),
                ):
                    if django.VERSION < (1, 9) and what is handler and name == "django.channels":
                        continue  # Django 1.8 cuts the tree of loggers
                    add(what)
                    try:
                        with mock.patch("sys.stderr"):
                            for consumer in (self.raising(KeyError), ViewConsumer()):
                                self.route("http.request", consumer)
                                self.serve(self.raising(KeyError))
                                answers = self.request()
                                self.assertEqual(answers[-1]["ack"], 0)
                            self.route("websocket.receive", self.raising(KeyError))
                            self.layer.send("websocket.receive", dict(SOCKET, event_id=3))
                            self.assertTrue(self.worker.run_once())
                            self.assertEqual(self.sent(), [{"ack": 3, "error": True}])
                    finally:
                        remove(what)

    def test_the_callback_of_a_worker(self):
        for error in ERRORS:
            self.worker = Worker(self.layer, callback=self.raising(error))
            with self.logs():
                answers = self.request()
            self.assertEqual(answers, [{"ack": 0, "error": True}])

    @skipUnless(django.VERSION >= (4, 2), "Django streams asynchronous iterators from 4.2 on")
    def test_an_asynchronous_stream(self):
        import asyncio

        from . import async_site

        for error in ERRORS + (asyncio.CancelledError,):
            self.serve(
                lambda request, error=error: http.StreamingHttpResponse(async_site.Failing(error))
            )
            self.assert_answered()

    @skipUnless(django.VERSION >= (3, 1), "Django runs asynchronous views from 3.1 on")
    def test_an_asynchronous_view(self):
        import asyncio

        from . import async_site

        for error in (KeyError, OddError, asyncio.CancelledError, GeneratorExit):
            self.serve(async_site.raising(error))
            self.assert_answered()

    def test_the_loop_continues_after_any_error_of_the_layer(self):
        for error in (KeyError, OddError, GeneratorExit, SystemExit):
            claims = []

            def claim(*args, error=error, claims=claims, workers=self.events):
                claims.append(1)
                if len(claims) == 1:
                    raise error("a bug")
                workers[-1].stopping = True
                return None, None

            worker = Worker(self.layer, signal_handlers=False)
            self.events.append(worker)
            with mock.patch.object(self.layer, "claim", claim):
                with mock.patch.object(worker_module, "RECONNECT_INTERVAL", 0):
                    with self.assertLogs("django.channels.worker", "ERROR"):
                        thread = threading.Thread(target=worker.run)
                        thread.start()
                        thread.join()
            self.assertEqual(len(claims), 2)

    def test_a_worker_thread_that_ends_by_a_bug_starts_again(self):
        runs = []

        class Broken(Worker):
            def run(self):
                runs.append(1)
                if len(runs) < 3:
                    raise OddError("a bug")

        with mock.patch.object(worker_module, "Worker", Broken):
            group = worker_module.WorkerGroup(self.layer, threads=1)
        with self.assertLogs("django.channels.layers", "ERROR") as logs:
            group.start()
            wait_until(lambda: len(runs) == 3, "the thread to start again")
            self.assertTrue(group.stop())
        self.assertIn("The thread channels-worker-1 failed", logs.output[0])
        self.assertEqual(self.layer.statistics()["threads_restarted"], 2)


class LengthTests(Site, SimpleTestCase):
    def length(self, response, length):
        response["Content-Length"] = str(length)
        return response

    def responses(self, content):
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(content)
        file.seek(0)
        yield lambda: http.HttpResponse(content)
        yield lambda: http.StreamingHttpResponse(iter([content]))
        yield lambda: http.StreamingHttpResponse(iter([content[:3], content[3:]]))
        yield lambda: http.StreamingHttpResponse(iter([content[:5], content[5:]]))
        yield lambda: http.FileResponse(file)

    def test_a_content_that_is_longer_is_cut_and_logged_once(self):
        for make in self.responses(b"0123456789"):
            self.serve(lambda request, make=make: self.length(make(), 5))
            with self.logs() as logs:
                answers = self.request()
            self.assertEqual(self.response(answers).body, b"01234")
            self.assertEqual(len(logs.records), 1)
            self.assertNotIn("error", answers[-1])

    def test_a_content_that_is_shorter_breaks_off_and_is_logged_once(self):
        for make in self.responses(b"0123456789"):
            self.serve(lambda request, make=make: self.length(make(), 11))
            with self.logs() as logs:
                answers = self.request()
            self.assertTrue(answers[-1]["error"])
            self.assertTrue(all(each.get("more_content", True) for each in answers[:-1]))
            self.assertEqual(len(logs.records), 1)
            self.assertIn("11", logs.output[0])

    def test_the_right_length(self):
        for make in self.responses(b"0123456789"):
            self.serve(lambda request, make=make: self.length(make(), 10))
            self.assertEqual(self.response(self.request()).body, b"0123456789")

    def test_no_content_is_expected_where_none_is_sent(self):
        self.serve(lambda request: self.length(http.HttpResponse(), 10))
        self.assertEqual(self.response(self.request(method="HEAD")).body, b"")
        self.serve(lambda request: self.length(http.HttpResponse(status=304), 10))
        self.assertEqual(self.response(self.request()).status, 304)

    def test_a_generator_that_raises_is_one_mail(self):
        enter(self, override_settings(ADMINS=[("a", "a@example.com")]))

        def parts():
            yield b"a"
            raise KeyError("x")

        logger = logging.getLogger("django")
        from django.utils.log import AdminEmailHandler

        handler = AdminEmailHandler()
        handler.setLevel("ERROR")
        enter(self, mock.patch.object(logger, "handlers", [handler]))
        mail.outbox = []
        self.serve(lambda request: http.StreamingHttpResponse(parts()))
        answers = self.request()
        self.assertTrue(answers[-1]["error"])
        self.assertEqual(len(mail.outbox), 1)


class UnavailableTests(Site, SimpleTestCase):
    """The layer is unreachable for a while."""

    def away(self, name, times, exception=LayerUnavailable):
        """Have the method `name` of the layer raise `times` times. Return the ids that sends came with."""
        ids, original = [], getattr(self.layer, name)

        def call(*args, **options):
            if name != "receive_many":
                ids.append(options.pop("send_id", None))
            if len(ids) <= times or name == "receive_many":
                raise exception("the disk is full")
            return original(*args, **options)

        patch = mock.patch.object(self.layer, name, call)
        patch.start()
        self.addCleanup(patch.stop)
        return ids

    def remember(self):
        patch = mock.patch.object(type(self.layer), "remembers_sends", True)
        patch.start()
        self.addCleanup(patch.stop)

    def send(self, message):
        Group("g", channel_layer=self.layer).send({"text": "x"})

    def work(self):
        self.route("test", self.send)
        self.layer.send("test", {})
        Group("g", channel_layer=self.layer).add("member")
        Worker(self.layer).run_once()

    def test_a_pending_send_is_tried_again_with_the_same_id(self):
        self.remember()
        ids = self.away("deliver_group", 3)
        self.work()
        self.assertEqual(len(ids), 4)
        self.assertEqual(len(set(ids)), 1)
        self.assertIsNotNone(ids[0])
        self.assertEqual(self.sent("member"), [{"text": "x"}])

    def test_a_pending_send_that_is_given_up_is_counted(self):
        self.remember()
        ids = self.away("deliver_group", 1000)
        with mock.patch.object(outbox_module, "SEND_TIMEOUT", 0.05), self.logs() as logs:
            self.work()
        self.assertGreater(len(ids), 1)
        self.assertIn("the disk is full. Send with immediately=True", logs.output[0])
        self.assertEqual(self.layer.statistics()["sends_dropped"], 1)

    def test_once_a_pending_send_was_given_up_the_next_ones_are_tried_once(self):
        self.remember()
        ids, now = self.away("deliver_group", 1000), [1000.0]

        def sleep(seconds):
            now[0] += seconds

        def send(message):
            for _ in range(3):
                self.send(message)

        clock = mock.Mock(monotonic=lambda: now[0], sleep=sleep)
        self.route("test", send)
        self.layer.send("test", {})
        Group("g", channel_layer=self.layer).add("member")
        with mock.patch.object(outbox_module, "time", clock), self.logs():
            Worker(self.layer).run_once()
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual([ids.count(each) for each in ids[-2:]], [1, 1])
        self.assertGreater(len(ids), 10)
        self.assertEqual(self.layer.statistics()["sends_dropped"], 3)

    def test_a_layer_that_does_not_remember_is_asked_once(self):
        ids = self.away("deliver_group", 1000)
        with self.logs():
            self.work()
        self.assertEqual(ids, [None])

    def test_a_full_channel_is_tried_once(self):
        self.remember()
        ids = self.away("deliver_group", 1000, ChannelFull)
        with self.logs():
            self.work()
        self.assertEqual(len(ids), 1)

    def consume(self, view, **changes):
        """Run the view while the layer is unreachable. Return the replies that are sent when it is back."""
        self.serve(view)
        outbox.open()
        content = Sent("POST").message(**changes)
        with self.assertLogs("django.channels.worker", "WARNING") as logs:
            logging.getLogger("django.request").addFilter(never)
            try:
                ViewConsumer()(Message(content, "http.request", self.layer))
            finally:
                logging.getLogger("django.request").removeFilter(never)
        self.assertIn("the disk is full", logs.output[0])
        return [each.message for each in outbox.close().sends]

    def test_a_view_that_reads_a_body_ends_in_503(self):
        self.away("receive_many", 1)
        (reply,) = self.consume(http_site.raw_body, body_channel="http.request.body?test")
        self.assertEqual((reply["status"], reply["more_content"]), (503, False))
        self.assertIn([b"retry-after", b"1"], reply["headers"])

    def test_a_view_that_streams_ends_in_503(self):
        self.away("deliver", 1)
        (reply,) = self.consume(lambda request: http.StreamingHttpResponse(iter([b"a", b"b"])))
        self.assertEqual((reply["status"], reply["more_content"]), (503, False))


def never(record):
    """A filter of a logger."""
    return False


class StateTests(Site, SimpleTestCase):
    """Language, time zone, prefix and URLconf of one visitor are not those of the next."""

    def look(self):
        return (
            translation.get_language(),
            timezone.get_current_timezone_name(),
            reverse("all"),
        )

    def change(self):
        translation.activate("de")
        timezone.activate(datetime.timezone.utc)
        set_urlconf("channels_tests.http_site")

    def consumer(self, error=None, changes=True):
        def consume(message):
            self.events.append(self.look())
            if changes:
                self.change()
            if error is not None:
                raise error

        return consume

    def work(self, consumer, **content):
        self.route("test", consumer)
        self.worker = Worker(self.layer)
        self.layer.send("test", content)
        self.assertTrue(self.worker.run_once())

    def setUp(self):
        super().setUp()
        self.serve(http_site.hello)

    @override_settings(LANGUAGE_CODE="fr", TIME_ZONE="Europe/Paris", USE_TZ=True)
    def test_a_consumer_starts_with_the_defaults_and_leaves_nothing(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

        def in_a_thread():
            for error in (None, KeyError("x"), ConsumeLater(), SystemExit(), OddError()):
                self.work(self.consumer(error))
                self.events.append(self.look())
                self.layer.flush()

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        zone = timezone.get_default_timezone_name()
        self.assertEqual(set(self.events), {("fr", zone, "/")})
        self.assertEqual(len(self.events), 10)

    def test_a_context_variable_whose_value_cannot_be_compared_harms_no_consumer(self):
        class Value:
            def __eq__(self, other):
                raise OddError("x")

            __hash__ = None

        def consume(message):
            variable.set(Value())
            self.events.append(outbox.pending)

        variable = contextvars.ContextVar("variable")
        # In a separate context, because the variable stays in that of the thread.
        for _ in range(2):
            context = contextvars.copy_context()
            for _ in range(3):
                context.run(self.work, consume)
        self.assertEqual(self.events, [[]] * 6)
        self.assertIsNone(outbox.pending)

    def test_what_a_test_has_set_is_there_again(self):
        with translation.override("de"):
            self.work(self.consumer(changes=False))
            self.assertEqual(translation.get_language(), "de")
        self.assertEqual(self.events[0][0], settings.LANGUAGE_CODE)

    def test_a_consumer_has_the_prefix_of_the_server(self):
        for root_path in ("/app", "/app/", "", "/app"):
            self.work(self.consumer(), root_path=root_path)
        self.work(self.consumer())
        self.assertEqual([each[2] for each in self.events], ["/app/", "/app/", "/", "/app/", "/"])

    def test_a_consumer_has_the_forced_prefix(self):
        for name in ("/forced", "/forced/"):
            with override_settings(FORCE_SCRIPT_NAME=name):
                self.work(self.consumer(), root_path="/app")
        self.assertEqual([each[2] for each in self.events], ["/forced/", "/forced/"])

    def test_a_view_starts_with_the_defaults_and_leaves_nothing(self):
        def view(request):
            self.events.append(self.look())
            self.change()
            request.urlconf = "channels_tests.http_site"
            return http.HttpResponse()

        self.serve(http_site.hello)
        with override_settings(
            ROOT_URLCONF=type(
                "URLconf", (), {"urlpatterns": [http_site.re_path(r"^", view, name="all")]}
            )
        ):
            self.request(root_path="/app", path="/app/")
            self.work(self.consumer(changes=False))
            self.layer.routing, self.layer.router = [], None
            self.worker = Worker(self.layer)
            self.request()
        self.assertEqual([each[2] for each in self.events], ["/app/", "/", "/"])
        self.assertEqual({each[0] for each in self.events}, {settings.LANGUAGE_CODE})

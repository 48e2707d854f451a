"""Each consumer and view runs in its own context: the site's variables don't reach the next one."""

import contextvars
import decimal
import threading
from unittest import mock, skipUnless

from django import http
from django.channels import channel_layers, route, thread_state
from django.channels.coroutines import in_thread
from django.channels.handler import ViewConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.signals import consumer_finished, consumer_started
from django.channels.test import ChannelTestCase, Client
from django.channels.thread_state import IN_CONTEXT_VARIABLES, starting_context
from django.channels.worker import Worker, WorkerGroup
from django.core.cache import caches
from django.core.signals import request_finished
from django.db import connection
from django.test import SimpleTestCase, TestCase, override_settings

from . import http_site
from .http_messages import Sent
from .support.layers import next_reply
from .support.untimed import leave_out_run_times
from .support.waiting import TIMEOUT

try:
    from asgiref.local import Local
except ImportError:  # Django 1.8 to 2.2
    Local = None

variable = contextvars.ContextVar("variable", default="default")
local = Local() if IN_CONTEXT_VARIABLES else threading.local()
needs_locals = skipUnless(IN_CONTEXT_VARIABLES, "Locals aren't context variables here.")


def look():
    """Return what the site's variables have here."""
    found = [variable.get(), decimal.getcontext().prec]
    if IN_CONTEXT_VARIABLES:
        found.append(getattr(local, "value", "default"))
    return found


def change():
    variable.set("changed")
    decimal.getcontext().prec = 5
    if IN_CONTEXT_VARIABLES:
        local.value = "changed"


class ContextCase(SimpleTestCase):
    """A layer in memory. The test is its gateway."""

    def setUp(self):
        leave_out_run_times(self)
        self.layer = MemoryChannelLayer(capacity=1000)
        self.layer.alias = "test"
        self.seen = []
        self.defaults = contextvars.Context().run(look)

    def look_and_change(self, *args, **kwargs):
        self.seen.append(look())
        change()

    def done(self, message):
        message.reply_channel.send({"text": "done"})

    def work(self, *channels, **options):
        """Have the only thread of a group handle an event on each of `channels`, one after the other."""
        group = WorkerGroup(self.layer, threads=1, **options)
        group.start()
        self.addCleanup(group.stop, TIMEOUT)
        self.handle(*channels)
        return group

    def handle(self, *channels):
        """Have the thread of the group that runs handle these."""
        for number, channel in enumerate(channels):
            name = "gateway.test%d!1" % number
            content = (
                Sent().message() if channel == "http.request" else {"path": "/", "headers": []}
            )
            self.layer.send(channel, dict(content, reply_channel=name, event_id=7))
            self.assertIsNotNone(next_reply(self.layer, name))


class WorkerTests(ContextCase):
    def consumer(self, message):
        self.look_and_change()
        self.done(message)

    def test_a_consumer_sees_nothing_that_the_last_one_has_set(self):
        self.layer.routing = [route("test", self.consumer)]
        self.work("test", "test", "test")
        self.assertEqual(self.seen, [self.defaults] * 3)

    def test_nor_what_one_has_set_that_failed(self):
        def consumer(message):
            self.consumer(message)
            raise KeyError("x")

        self.layer.routing = [route("test", consumer)]
        with self.assertLogs("django.channels.worker", "ERROR"):
            self.work("test", "test")
        self.assertEqual(self.seen, [self.defaults] * 2)

    def test_nor_does_an_asynchronous_consumer(self):
        async def asynchronous(message):
            self.look_and_change()
            await in_thread(change)
            self.done(message)

        self.layer.routing = [route("test", self.consumer), route("async", asynchronous)]
        self.work("test", "async", "async", "test")
        self.assertEqual(self.seen, [self.defaults] * 4)

    def test_receivers_of_signals_share_the_context_of_their_consumer(self):
        def started(**kwargs):
            self.seen.append(variable.get())
            variable.set("started")

        def finished(**kwargs):
            self.seen.append(variable.get())

        consumer_started.connect(started)
        self.addCleanup(consumer_started.disconnect, started)
        consumer_finished.connect(finished)
        self.addCleanup(consumer_finished.disconnect, finished)

        def consumer(message):
            self.seen.append(variable.get())
            variable.set("consumer")
            self.done(message)

        self.layer.routing = [route("test", consumer)]
        self.work("test", "test")
        self.assertEqual(self.seen, ["default", "started", "consumer"] * 2)

    def test_a_callback_shares_the_context_of_its_consumer(self):
        def callback(channel, message):
            self.seen.append(variable.get())
            variable.set("callback")

        def consumer(message):
            self.seen.append(variable.get())
            self.done(message)

        self.layer.routing = [route("test", consumer)]
        self.work("test", "test", callback=callback)
        self.assertEqual(self.seen, ["default", "callback"] * 2)

    def test_what_the_process_has_set_before_is_seen(self):
        self.layer.routing = [route("test", self.consumer)]

        def begin():
            variable.set("process")
            decimal.getcontext().prec = 9
            self.work("test", "test")
            return look()

        here = contextvars.copy_context().run(begin)
        # As in Python, each thread has its own decimals.
        self.assertEqual(self.seen, [["process"] + self.defaults[1:]] * 2)
        self.assertEqual(here, ["process", 9] + self.defaults[2:])


class ViewTests(ContextCase):
    def serve(self, view):
        self.layer.routing = [route("http.request", ViewConsumer())]
        patterns = [http_site.re_path(r"^", view)]
        settings = override_settings(ROOT_URLCONF=type("URLconf", (), {"urlpatterns": patterns}))
        settings.enable()
        self.addCleanup(settings.disable)

    def test_a_view_sees_nothing_that_the_last_one_has_set(self):
        def view(request):
            self.look_and_change()
            return http.HttpResponse()

        self.serve(view)
        self.work("http.request", "http.request", "http.request")
        self.assertEqual(self.seen, [self.defaults] * 3)

    def test_the_end_of_a_response_shares_the_context_of_its_view(self):
        class Response(http.HttpResponse):
            def close(response):
                self.seen.append(variable.get())
                variable.reset(response.token)
                super().close()

        def finished(**kwargs):
            self.seen.append(variable.get())

        request_finished.connect(finished)
        self.addCleanup(request_finished.disconnect, finished)

        def view(request):
            self.seen.append(variable.get())
            response = Response()
            response.token = variable.set("view")
            return response

        self.serve(view)
        group = self.work("http.request", "http.request")
        group.stop(TIMEOUT)
        self.assertEqual(self.seen, ["default", "view", "default"] * 2)

    def test_a_generator_of_a_view_shares_its_context_to_the_end(self):
        def parts():
            token = variable.set("stream")
            try:
                for _ in range(3):
                    self.seen.append(variable.get())
                    yield b"x"
            finally:
                variable.reset(token)
                self.seen.append(variable.get())

        def view(request):
            variable.set("view")
            return http.StreamingHttpResponse(parts())

        self.serve(view)
        group = self.work("http.request", "http.request")
        group.stop(TIMEOUT)
        self.assertEqual(self.seen, (["stream"] * 3 + ["view"]) * 2)


@needs_locals
class CacheTests(ContextCase):
    """What Django opens once for each thread is not opened for each consumer."""

    def opened(self):
        return caches["default"]

    def consumer(self, message):
        self.seen.append(self.opened())
        self.done(message)

    def test_a_thread_uses_its_caches_again(self):
        self.layer.routing = [route("test", self.consumer)]
        self.work("test", "test", "test")
        self.assertEqual(len({id(each) for each in self.seen}), 1)

    def test_also_if_a_callback_is_called_with_each_message(self):
        self.layer.routing = [route("test", self.consumer)]
        self.work("test", "test", "test", callback=lambda channel, message: None)
        self.assertEqual(len({id(each) for each in self.seen}), 1)

    def test_also_those_of_settings_that_changed_meanwhile(self):
        self.layer.routing = [route("test", self.consumer)]
        self.work("test")
        backend = "django.core.cache.backends.locmem.LocMemCache"
        with override_settings(
            CACHES={"default": {"BACKEND": backend}, "other": {"BACKEND": backend}}
        ):
            self.handle("test", "test")
        first, second, third = self.seen
        self.assertIsNot(first, second)
        self.assertIs(second, third)

    def test_a_thread_does_not_get_the_caches_of_another(self):
        self.layer.routing = [route("test", self.consumer)]
        context = contextvars.copy_context()
        here = context.run(self.opened)
        context.run(self.work, "test")
        self.assertIsNot(self.seen[0], here)
        self.assertIs(context.run(self.opened), here)

    def test_nor_does_an_asynchronous_consumer(self):
        async def asynchronous(message):
            self.consumer(message)

        self.layer.routing = [route("test", self.consumer), route("async", asynchronous)]
        self.work("test", "async", "test")
        first, second, third = self.seen
        self.assertIsNot(first, second)
        self.assertIs(first, third)

    def test_a_wrong_setting_harms_no_consumer_that_uses_no_cache(self):
        self.layer.routing = [route("test", self.done)]
        with override_settings(CACHES={"other": {"BACKEND": "missing"}}):
            self.work("test", "test")

    def test_a_starting_context_leaves_the_caches_of_this_one_alone(self):
        def begin():
            here = self.opened()
            self.assertIsNot(starting_context().run(self.opened), here)
            self.assertIs(self.opened(), here)

        contextvars.copy_context().run(begin)


@needs_locals
class SharedLocalTests(ContextCase):
    """With asgiref 3.8, a copy of a context shares the dict of each Local that was set before."""

    def test_a_consumer_changes_no_local_of_its_thread(self):
        shared = contextvars.ContextVar("asgiref.local")

        def consumer(message):
            self.seen.append(dict(shared.get()))
            shared.get()["language"] = "de"
            self.done(message)

        def begin():
            shared.set({"language": "en"})
            with mock.patch.object(thread_state, "SHARES_LOCALS", True):
                self.work("test", "test", "test")
            return shared.get()

        self.layer.routing = [route("test", consumer)]
        self.assertEqual(contextvars.copy_context().run(begin), {"language": "en"})
        self.assertEqual(self.seen, [{"language": "en"}] * 3)


class ConnectionTests(TestCase):
    def test_consumers_of_a_thread_use_its_database_connection(self):
        seen = []

        def consumer(message):
            connection.ensure_connection()
            seen.append((connection.alias, connection.connection, connection.in_atomic_block))

        layer = MemoryChannelLayer(capacity=1000)
        layer.alias = "test"
        layer.routing = [route("test", consumer)]
        worker = Worker(layer)
        for _ in range(3):
            worker.handle("test", {})
        self.assertEqual(seen, [("default", connection.connection, True)] * 3)


class ClientTests(ChannelTestCase):
    """Consumers under the test client."""

    def consumers(self, channel="test"):
        self.seen = []

        def consumer(message):
            self.seen.append(variable.get())
            variable.set("consumer")

        channel_layers["default"].router.add_route(route(channel, consumer))

    def test_a_consumer_sees_what_the_test_has_set_and_leaves_nothing(self):
        def begin():
            variable.set("test")
            client = Client()
            client.send_and_consume("test", {})
            client.send_and_consume("test", {})
            return variable.get()

        self.consumers()
        self.assertEqual(contextvars.copy_context().run(begin), "test")
        self.assertEqual(self.seen, ["test", "test"])

    def test_a_consumer_sees_the_object_that_was_set_last_and_not_an_equal_one(self):
        def begin():
            for _ in range(2):
                variable.set([])
                Client().send_and_consume("object", {})
            return variable.get()

        self.consumers("object")
        last = contextvars.copy_context().run(begin)
        self.assertIs(self.seen[1], last)

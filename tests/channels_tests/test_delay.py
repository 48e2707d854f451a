"""channels.delay: messages for later."""

import io
import os
import signal
import threading

from django.channels import Channel
from django.channels.asgi import channel_layers
from django.channels.delay.consumers import delay_message
from django.channels.delay.models import DelayedMessage
from django.channels.delay.worker import Worker
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test import ChannelTestCase, TransactionChannelTestCase
from django.core.management import CommandError, call_command
from django.utils import timezone

from .applications import INSTALLED
from .support.waiting import TIMEOUT, wait_until


class WithoutDelay(MemoryChannelLayer):
    """A layer as those of Channels 1.x are: it cannot deliver later by itself."""

    extensions = tuple(set(MemoryChannelLayer.extensions) - {"delay"})


class WithoutDelayMixin:
    def setUp(self):
        self.layer = WithoutDelay()
        former = channel_layers.set("default", self.layer)
        self.addCleanup(channel_layers.set, "default", former)
        self.worker = Worker(self.layer, signal_handlers=False, database_sleep_duration=0)

    def ask(self, **content):
        Channel("asgi.delay").send(content, immediately=True)


class DelayedMessageTests(WithoutDelayMixin, ChannelTestCase):
    def make(self, **kwargs):
        delayed = DelayedMessage(channel_name="test", **kwargs)
        delayed.message = {"x": 1}
        delayed.save()
        return delayed

    def test_is_due(self):
        now = self.make()
        later = self.make()
        later.delay = 10 * 1000
        later.save()
        self.assertEqual(list(DelayedMessage.objects.is_due()), [now])
        self.assertTrue(9000 < later.delay <= 10000)
        self.assertTrue(later.due_date > timezone.now())

    def test_send(self):
        delayed = self.make()
        self.assertTrue(delayed.send())
        self.assertEqual(self.get_next_message("test", require=True).content, {"x": 1})
        self.assertEqual(DelayedMessage.objects.count(), 0)

    def test_two_processes_send_it_once(self):
        one = self.make()
        other = DelayedMessage.objects.get(pk=one.pk)
        self.assertEqual([one.send(), other.send()], [True, False])
        self.get_next_message("test", require=True)
        self.assertIsNone(self.get_next_message("test"))

    def test_full_channel_puts_it_off(self):
        delayed = self.make()
        for _ in range(100):
            Channel("test").send({})
        self.assertFalse(delayed.send(requeue_delay=60000))
        again = DelayedMessage.objects.get(pk=delayed.pk)
        self.assertTrue(again.delay > 50000)

    def test_content_that_json_cannot_hold(self):
        with self.assertRaises(TypeError):
            DelayedMessage(channel_name="test").message = {"x": b"bytes"}


class WorkerTests(WithoutDelayMixin, ChannelTestCase):
    def test_request_waits_in_the_database(self):
        self.ask(channel="test", content={"x": 1}, delay=10 * 1000)
        self.assertTrue(self.worker.run_once())
        self.assertIsNone(self.get_next_message("test"))
        delayed = DelayedMessage.objects.get()
        self.assertEqual((delayed.channel_name, delayed.message), ("test", {"x": 1}))
        DelayedMessage.objects.update(due_date=timezone.now())
        self.assertTrue(self.worker.run_once())
        self.assertEqual(self.get_next_message("test", require=True).content, {"x": 1})
        self.assertFalse(self.worker.run_once())

    def test_bad_requests_are_dropped_and_logged(self):
        for content in (
            {},
            {"channel": "test", "content": {}},
            {"channel": "test", "content": {}, "delay": "1"},
            {"channel": "test", "content": {}, "delay": -1},
            {"channel": "test", "content": {}, "delay": True},
            {"channel": "test", "content": [], "delay": 1},
            {"channel": "bad name", "content": {}, "delay": 1},
            {"channel": "test", "content": {"x": b""}, "delay": 1},
        ):
            with self.subTest(content=content):
                self.ask(**content)
                with self.assertLogs("django.channels.delay", "ERROR"):
                    self.assertTrue(self.worker.run_once())
        self.assertEqual(DelayedMessage.objects.count(), 0)

    def test_database_is_looked_into_at_intervals(self):
        self.worker.database_sleep_duration = 60
        self.worker.run_once()
        self.ask(channel="test", content={}, delay=0)
        with self.assertNumQueries(1):
            self.worker.run_once()

    def test_layer_that_delays_by_itself(self):
        layer = MemoryChannelLayer()
        channel_layers.set("default", layer)
        self.ask(channel="test", content={"x": 1}, delay=1)
        Worker(layer, signal_handlers=False).run_once()
        self.assertEqual(DelayedMessage.objects.count(), 0)
        name, message = wait_until(
            lambda: [each for each in [layer.receive_many(["test"])] if each[0]]
        )[0]
        self.assertEqual(message, {"x": 1})

    def test_as_a_routed_consumer(self):
        from django.channels import route
        from django.channels.test import Client, apply_routes

        with apply_routes(route("asgi.delay", delay_message)):
            Client().send_and_consume(
                "asgi.delay", {"channel": "test", "content": {}, "delay": 1000}
            )
        self.assertEqual(DelayedMessage.objects.count(), 1)


class RunTests(WithoutDelayMixin, TransactionChannelTestCase):
    available_apps = INSTALLED

    def test_run_until_stopped(self):
        self.ask(channel="test", content={"x": 1}, delay=0)
        stopped = []
        original = self.worker.send_due

        def send_due():
            sent = original()
            if sent:
                self.worker.stop()
                stopped.append(True)
            return sent

        self.worker.send_due = send_due
        timer = threading.Timer(TIMEOUT, self.worker.stop)
        timer.start()
        self.worker.run()
        timer.cancel()
        self.assertEqual(stopped, [True])
        self.assertEqual(self.get_next_message("test", require=True).content, {"x": 1})


class CommandTests(ChannelTestCase):
    def test_layer_in_memory_is_refused(self):
        with self.assertRaisesRegex(CommandError, "one process"):
            call_command("rundelay")

    def test_from_request_to_message_until_a_signal_comes(self):
        class Crossing(WithoutDelay):
            crosses_processes = True

            def deliver(self, channel, message):
                super().deliver(channel, message)
                if channel == "test":
                    os.kill(os.getpid(), signal.SIGTERM)

        layer = Crossing()
        former = channel_layers.set("default", layer)
        self.addCleanup(channel_layers.set, "default", former)
        handler = signal.getsignal(signal.SIGTERM)
        Channel("asgi.delay").send({"channel": "test", "content": {"x": 1}, "delay": 1})
        out = io.StringIO()
        call_command("rundelay", sleep=0.01, stdout=out)
        self.assertEqual(layer.receive_many(["test"]), ("test", {"x": 1}))
        self.assertIs(signal.getsignal(signal.SIGTERM), handler)
        self.assertIn("asgi.delay", out.getvalue())

    def test_migration_is_up_to_date(self):
        out = io.StringIO()
        call_command("makemigrations", "channels_delay", dry_run=True, stdout=out)
        self.assertIn("No changes", out.getvalue())

    def test_unknown_layer(self):
        with self.assertRaisesRegex(CommandError, "nowhere"):
            call_command("rundelay", layer="nowhere")

    def test_bad_sleep(self):
        with self.assertRaisesRegex(CommandError, "greater than 0"):
            call_command("rundelay", sleep=0)

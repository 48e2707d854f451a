"""channels.delay: messages for later."""

import io
import os
import signal
import threading
from unittest import mock

from django.channels import Channel
from django.channels.asgi import channel_layers
from django.channels.delay import worker as delay_worker
from django.channels.delay.consumers import delay_message
from django.channels.delay.models import DelayedMessage
from django.channels.delay.worker import Worker
from django.channels.exceptions import ChannelFull, LayerUnavailable
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test import ChannelTestCase, TransactionChannelTestCase
from django.core.management import CommandError, call_command
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.db.models.signals import pre_save
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
            {"channel": "test", "content": {}, "delay": 0.5},
            {"channel": "test", "content": {}, "delay": None},
            {"channel": "test", "content": [], "delay": 1},
            {"channel": "bad name", "content": {}, "delay": 1},
            {"channel": "test", "content": {"x": b""}, "delay": 1},
        ):
            with self.subTest(content=content):
                self.ask(**content)
                with self.assertLogs("django.channels.delay", "ERROR"):
                    self.assertTrue(self.worker.run_once())
        self.assertEqual(DelayedMessage.objects.count(), 0)

    def test_a_whole_number_may_be_a_float(self):
        for delay in (60000, 60000.0, 6e4, 100000 * 0.6, 1e6):
            with self.subTest(delay=delay):
                self.ask(channel="test", content={}, delay=delay)
                self.assertTrue(self.worker.run_once())
                DelayedMessage.objects.get().delete()

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


class Unusual(BaseException):
    """What no `except Exception` catches."""


class SturdinessTests(WithoutDelayMixin, TransactionChannelTestCase):
    """No value and no error ends the loop of rundelay."""

    available_apps = INSTALLED

    def setUp(self):
        super().setUp()
        self.worker = Worker(self.layer, database_sleep_duration=0.001)
        patch = mock.patch.object(delay_worker, "RETRY_AFTER", 0.001)
        patch.start()
        self.addCleanup(patch.stop)

    def run_until_good(self):
        """Run the loop until the message {"good": 1} was sent."""
        self.ask(channel="test", content={"good": 1}, delay=0)
        deliver = self.layer.deliver

        def watch(channel, message):
            deliver(channel, message)
            if message == {"good": 1}:
                self.worker.stop()

        timer = threading.Timer(TIMEOUT, self.worker.stop)
        timer.start()
        try:
            with mock.patch.object(self.layer, "deliver", watch):
                with self.assertLogs("django.channels.delay", "INFO") as logs:
                    self.worker.run()
        finally:
            timer.cancel()
        return [record for record in logs.records if record.levelname != "INFO"]

    def sent(self):
        return [each.content for each in iter(lambda: self.get_next_message("test"), None)]

    def on_save(self, errors):
        """Raise the next of `errors` when a message with "bad" in it is stored, and none afterwards."""

        def receiver(instance, **kwargs):
            if "bad" in instance.message and errors:
                raise errors.pop(0)

        pre_save.disconnect(sender=DelayedMessage, dispatch_uid="test_delay")
        pre_save.connect(receiver, sender=DelayedMessage, weak=False, dispatch_uid="test_delay")
        self.addCleanup(pre_save.disconnect, sender=DelayedMessage, dispatch_uid="test_delay")

    def test_whatever_the_sites_receivers_raise_one_request_is_dropped(self):
        for error in (
            KeyError("x" * 5000),
            RecursionError(),
            SystemExit(1),
            Unusual("a"),
            DataError(),
        ):
            with self.subTest(error=type(error)):
                self.worker._stopped = False
                self.on_save([error])
                self.ask(channel="test", content={"bad": 1}, delay=0)
                (record,) = self.run_until_good()
                self.assertIn("was dropped: " + type(error).__name__, record.getMessage())
                self.assertLess(len(record.getMessage()), 400)
                self.assertEqual(self.sent(), [{"good": 1}])

    def test_a_request_that_the_database_or_layer_does_not_take_now_is_tried_again(self):
        for error in (OperationalError("away"), IntegrityError(), InterfaceError(), ChannelFull()):
            with self.subTest(error=type(error)):
                self.worker._stopped = False
                self.on_save([error])
                self.ask(channel="test", content={"bad": 1}, delay=0)
                self.run_until_good()
                self.worker.run_once()
                self.assertCountEqual(self.sent(), [{"good": 1}, {"bad": 1}])

    def test_a_request_that_cannot_be_put_back_is_not_lost(self):
        self.on_save([OperationalError("away")])
        self.ask(channel="test", content={"bad": 1}, delay=0)
        with mock.patch.object(self.layer, "send", side_effect=ChannelFull("full")):
            with self.assertRaises(OperationalError):
                self.worker.run_once()
        self.assertTrue(self.worker.run_once())
        self.worker._next_poll = 0
        self.worker.run_once()
        self.assertEqual(self.sent(), [{"bad": 1}])

    def test_a_request_that_never_works_keeps_no_stored_message_waiting(self):
        self.on_save([OperationalError("away")] * 1000)
        DelayedMessage.objects.create(channel_name="test", content='{"good": 1}')
        self.ask(channel="test", content={"bad": 1}, delay=0)
        with self.assertRaises(OperationalError):
            self.worker.run_once()
        self.assertEqual(self.sent(), [{"good": 1}])

    def test_stored_messages_that_cannot_be_sent_are_dropped(self):
        for name, content in [
            ("test", '{"x": "%s"}' % ("x" * 2000000)),  # MessageTooLarge
            ("test", "[" * 100000),
            ("test", "not JSON"),
            ("test", "[1]"),
            ("test", '{"x": 1e999}'),
            ("no channel", "{}"),
        ]:
            DelayedMessage.objects.create(channel_name=name, content=content)
        records = self.run_until_good()
        self.assertTrue(all("was dropped" in each.getMessage() for each in records))
        self.assertLessEqual(len(records), 6)
        self.assertIn({"good": 1}, self.sent())
        self.assertEqual(DelayedMessage.objects.count(), 0)

    def test_a_layer_that_raises_anything_is_tried_again(self):
        errors = [LayerUnavailable("away"), KeyError("a bug"), Unusual()]
        receive = self.layer.receive_many

        def failing(channels, block=False):
            if errors:
                raise errors.pop()
            return receive(channels, block)

        with mock.patch.object(self.layer, "receive_many", failing):
            self.run_until_good()
        self.assertEqual(self.sent(), [{"good": 1}])

    def test_without_signal_handlers_ctrl_c_ends_it(self):
        self.worker.signal_handlers = False
        with mock.patch.object(self.layer, "receive_many", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.worker.run()


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
        for seconds in (float("nan"), float("inf"), -1.0):
            with self.assertRaisesRegex(CommandError, "greater than 0"):
                call_command("rundelay", sleep=seconds)

"""What would be lost in silence is logged: once for each kind, at a limited rate, and at once with DEBUG."""

import glob
import logging
import os
import re
import threading
from unittest import mock

from django import channels
from django.channels import Channel, Group, advice, busy, route, serving
from django.channels.asgi import channel_layers
from django.channels.gateway import connection, sockets
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit, RateLimitByKey
from django.channels.protocol import ack, group_added, lost, session_patch
from django.channels.routing import Router
from django.channels.worker import WorkerGroup
from django.test import SimpleTestCase, override_settings

from .support.waiting import TIMEOUT


def consumer(message, **kwargs):
    pass


class Lines(logging.Handler):
    """The lines that a logger gets inside `with`."""

    def __init__(self, name):
        super().__init__()
        self.logger, self.lines = logging.getLogger(name), []
        self.arrived = threading.Event()

    def emit(self, record):
        self.lines.append(record.getMessage())
        self.arrived.set()

    def __enter__(self):
        self.former_level = self.logger.level
        self.logger.setLevel(logging.WARNING)  # Django's own runner asks for errors alone
        self.logger.addHandler(self)
        return self.lines

    def __exit__(self, *error):
        self.logger.removeHandler(self)
        self.logger.setLevel(self.former_level)


class SendTests(SimpleTestCase):
    def setUp(self):
        self.layer = MemoryChannelLayer()
        self.layer.routing = [route("mail.send", consumer)]
        self.layer.alias = "default"
        patch = mock.patch.object(advice, "is_test", lambda: False)
        patch.start()
        self.addCleanup(patch.stop)
        for each in (advice._unrouted, advice._unserved):
            each.clear()
            self.addCleanup(each.clear)

    def sent(self, *targets):
        with Lines("django.channels") as lines:
            for target in targets:
                target.send({"text": "x"})
        return lines

    def channel(self, name):
        return Channel(name, channel_layer=self.layer)

    def test_a_channel_that_no_route_takes(self):
        self.layer.is_served = True
        (line,) = self.sent(self.channel("mial.send"))
        for word in ("mial.send", "no route takes", "route('mial.send', consumer)", "default"):
            self.assertIn(word, line)

    def test_what_has_a_reader_is_sent_without_a_word(self):
        self.layer.is_served = True
        self.assertEqual(
            self.sent(
                self.channel("mail.send"),
                self.channel("gateway.1!abc"),
                self.channel("http.request.body?abc"),
                Group("chat", channel_layer=self.layer),
            ),
            [],
        )

    def test_a_delayed_message_that_rundelay_cannot_see_needs_a_route(self):
        self.layer.is_served = True
        (line,) = self.sent(self.channel("asgi.delay"))
        self.assertIn("channels.delay.consumers.delay_message'", line)

    def test_a_delayed_message_without_the_app_that_delays_it(self):
        self.layer.crosses_processes = True
        delay = advice.__package__ + ".delay"
        with mock.patch.object(advice.apps, "is_installed", {delay: False}.get):
            (line,) = self.sent(self.channel("asgi.delay"))
            for word in (repr(delay), "INSTALLED_APPS", "migrate", "rundelay"):
                self.assertIn(word, line)
            self.layer.routing = [route("asgi.delay", consumer)]
            self.layer.router = Router(self.layer.routing)
            self.assertEqual(self.sent(self.channel("asgi.delay")), [])

    def test_a_delayed_message_with_the_app_that_delays_it(self):
        self.layer.crosses_processes = True
        with mock.patch.object(advice.apps, "is_installed", lambda name: True):
            self.assertEqual(self.sent(self.channel("asgi.delay")), [])

    def test_one_line_for_each_channel_in_a_minute(self):
        self.layer.is_served = True
        lines = self.sent(self.channel("a"), self.channel("a"), self.channel("b"))
        self.assertEqual(len(lines), 2)

    def test_with_debug_each_message_gets_a_line(self):
        self.layer.is_served = True
        with override_settings(DEBUG=True):
            self.assertEqual(len(self.sent(self.channel("a"), self.channel("a"))), 2)

    def test_a_send_on_the_in_memory_layer_outside_the_server(self):
        for target in (Group("chat", channel_layer=self.layer), self.channel("mail.send")):
            (line,) = self.sent(target)
            for word in (target.name, "without a server", "one process", "DatabaseChannelLayer"):
                self.assertIn(word, line)

    def test_a_send_under_the_runserver_of_django_names_the_missing_app(self):
        with mock.patch.object(advice.apps, "is_installed", lambda name: False):
            (line,) = self.sent(Group("chat", channel_layer=self.layer))
        for word in ("Add %r to INSTALLED_APPS" % channels.__name__, "runserver is Django's"):
            self.assertIn(word, line)

    def test_a_server_without_the_app_says_so_when_it_starts(self):
        with mock.patch.object(serving, "is_test", lambda: False), mock.patch.object(
            serving.atexit, "register"
        ), Lines(serving.process_logger.name) as lines:
            serving.log_start(self.layer)
            self.assertEqual([line for line in lines if "INSTALLED_APPS" in line], [])
            with mock.patch.object(serving.apps, "is_installed", lambda name: False):
                serving.log_start(self.layer)
        line = lines[-1]
        for word in (
            "%r isn't in INSTALLED_APPS" % channels.__name__,
            "WebSocket with 404",
            "Add it",
        ):
            self.assertIn(word, line)

    def test_a_process_that_serves_or_works_is_not_warned(self):
        from django.channels.asgi import get_channel_layer
        from django.channels.worker import Worker

        Worker(self.layer)
        self.assertEqual(self.sent(Group("chat", channel_layer=self.layer)), [])
        former = channel_layers.set("default", MemoryChannelLayer())
        try:
            self.assertTrue(get_channel_layer().is_served)
        finally:
            channel_layers.set("default", former)

    def test_a_routing_that_cannot_be_imported_is_left_to_the_check(self):
        self.layer.is_served = True
        self.layer.routing = "no.such.routing"
        self.assertEqual(self.sent(self.channel("a")), [])

    def test_tests_are_not_warned(self):
        with mock.patch.object(advice, "is_test", lambda: True):
            self.assertEqual(self.sent(self.channel("a")), [])


class SocketTests(SimpleTestCase):
    def opened(self):
        state = WebSocket("gateway.1!a", "/chat/")
        state.connect({})
        state.reply(ack(state.in_flight, [{"accept": True}]))
        self.assertEqual(state.phase, "open")
        return state

    def lines(self, actions):
        return [each[2] % each[3:] for each in actions if each[0] == "log"]

    def test_a_message_to_a_group_without_anything_for_its_client(self):
        (line,) = self.lines(self.opened().group({"message": "hi", "room": 1}))
        for word in ("/chat/", "lacks text, bytes and close", "message, room", "{'text': …}"):
            self.assertIn(word, line)

    def test_a_type_is_of_channels_4(self):
        (line,) = self.lines(self.opened().group({"type": "chat.message"}))
        self.assertIn("Coming from Channels 2, 3, 4", line)

    def test_a_reply_without_anything_is_logged_too(self):
        self.assertEqual(len(self.lines(self.opened().reply({"data": "x"}))), 1)
        self.assertEqual(len(self.lines(self.opened().reply({"text": None}))), 1)

    def test_control_messages_are_no_mistake(self):
        for message in (
            lost(7),
            group_added("chat"),
            session_patch({"set": {}, "removed": []}),
            {"accept": True},
            {"close": False},
            {"text": ""},
            {"bytes": b""},
        ):
            self.assertEqual(self.lines(self.opened().reply(message)), [], message)

    def test_a_thousand_members_are_one_line(self):
        made = connection.Connection.__new__(connection.Connection)
        made.gateway = mock.Mock(lines=RateLimitByKey(60))
        action = self.opened().group({"message": "hi"})[0]
        with Lines("django.channels.gateway") as lines:
            for _ in range(1000):
                made._perform_rare(action)
        self.assertEqual(len(lines), 1)

    def test_a_handshake_that_daphne_gave_up(self):
        loop = mock.Mock()
        loop.time.return_value = 105.1
        made = mock.Mock()
        made.state.phase, made.state.path, made.gateway.loop = "connecting", "/chat/", loop
        made.deadline.when.return_value = 130.0
        with mock.patch.object(sockets, "_unanswered", sockets.RateLimit(60)):
            with Lines("django.channels.gateway") as lines:
                sockets.SocketConnection._log_unanswered(made)
                made.state.phase = "open"
                sockets.SocketConnection._log_unanswered(made)
                made.state.phase, loop.time.return_value = "connecting", 101
                sockets.SocketConnection._log_unanswered(made)
        (line,) = lines
        for word in ("/chat/", "5.1 s", "--websocket_connect_timeout", "30 s"):
            self.assertIn(word, line)

    def test_a_handshake_that_no_worker_has_handled(self):
        state = WebSocket("gateway.1!a", "/chat/")
        state.connect({})
        (line,) = self.lines(state.timeout())
        for word in ("/chat/", "30 s", "No worker", "manage.py runworker"):
            self.assertIn(word, line)

    def test_a_connect_consumer_that_neither_accepts_nor_closes(self):
        state = WebSocket("gateway.1!a", "/chat/")
        state.connect({})
        state.reply(ack(state.in_flight, []))
        (line,) = self.lines(state.timeout())
        for word in ("/chat/", "30 s", "ended without an answer", '{"accept": True}', "close()"):
            self.assertIn(word, line)


class StuckWorker:
    """What a BusyWatch sees of a worker."""

    thread_id = None

    def __init__(self, layer, since=None):
        self.channel_layer = layer
        self.running = None if since is None else (consumer, "http.request", since)


class BusyTests(SimpleTestCase):
    def watch(self, *since):
        layer = MemoryChannelLayer()
        layer.alias = "default"
        return busy.BusyWatch([StuckWorker(layer, each) for each in since], threading.Event())

    def looked(self, watch, *times):
        with Lines("django.channels.worker") as lines:
            for now in times:
                watch.check(now)
        return [each for each in lines if each.startswith("All ")]

    def test_all_threads_busy_for_ten_seconds(self):
        watch = self.watch(100, 101)
        self.assertEqual(self.looked(watch, 102, 110.9), [])
        (line,) = self.looked(watch, 111, 112)
        for word in ("All 2 worker threads", "test_silence.consumer", "http.request", "for 11.0 s"):
            self.assertIn(word, line)
        for word in ("messages wait for one", "'threads'", "async def"):
            self.assertIn(word, line)

    def test_an_idle_thread_is_enough(self):
        self.assertEqual(self.looked(self.watch(100, None), 111, 200), [])

    def test_the_time_begins_again_when_a_thread_was_idle(self):
        watch = self.watch(100)
        self.assertEqual(self.looked(watch, 105), [])
        watch._workers[0].running = None
        self.looked(watch, 106)
        watch._workers[0].running = (consumer, "a", 107)
        self.assertEqual(self.looked(watch, 112), [])

    def test_a_slow_consumer_is_logged_once_with_its_stack(self):
        is_waiting, layer = threading.Event(), MemoryChannelLayer()

        class Release(threading.Event):
            def wait(self, timeout=None):
                is_waiting.set()
                return super().wait(timeout)

        release = Release()

        def waits_for_a_slow_service(message):
            release.wait(30)

        layer.routing = [route("slow", waits_for_a_slow_service)]
        handler = Lines("django.channels.worker")
        group = WorkerGroup(layer, threads=1)
        with mock.patch.object(busy, "WATCH_INTERVAL", 0.01):
            with override_settings(CHANNEL_SLOW_CONSUMER=None), handler:
                group.start()
                try:
                    layer.send("slow", {})
                    self.assertTrue(is_waiting.wait(TIMEOUT))
                    # Earlier, the stack could be that of a thread which is about to call the consumer.
                    with override_settings(CHANNEL_SLOW_CONSUMER=0.05):
                        self.assertTrue(handler.arrived.wait(TIMEOUT))
                finally:
                    release.set()
                    group.stop()
        (line,) = handler.lines
        for word in ("waits_for_a_slow_service", "channel slow", "CHANNEL_SLOW_CONSUMER (0.05 s)"):
            self.assertIn(word, line)
        self.assertIn("release.wait(30)", line)

    def test_none_and_zero_switch_it_off(self):
        for value in (None, 0):
            with override_settings(CHANNEL_SLOW_CONSUMER=value):
                with Lines("django.channels.worker") as lines:
                    self.watch(1, None).check(100)
                self.assertEqual(lines, [])


class LimitTests(SimpleTestCase):
    def test_suppressed_lines_are_counted_in_the_same_words_everywhere(self):
        for kind, key in [(RateLimit, ()), (RateLimitByKey, ("a",))]:
            limit, logged = kind(60, iter([0, 1, 2, 70]).__next__), []

            def write(text, *values, logged=logged):
                logged.append(text % values)

            for number in range(4):
                limit.log(*key, write, "%d happened.", number)
            self.assertEqual(
                logged,
                ["0 happened.", "3 happened. (And 2 more like this since the last such line.)"],
            )

    def test_no_other_place_words_it(self):
        folder = os.path.dirname(channels.__file__)
        for path in glob.glob(os.path.join(folder, "**", "*.py"), recursive=True):
            with open(path, encoding="utf-8") as stream:
                words = re.findall(r"[^\n]*%[^\n]*since the last[^\n]*", stream.read())
            expected = 1 if path.endswith(os.sep + "log.py") else 0
            self.assertEqual(len(words), expected, "%s: %s" % (path, words))

    def test_the_keys_are_bounded(self):
        limit = RateLimitByKey(60)
        for number in range(2000):
            limit.allow(str(number))
        self.assertLessEqual(len(limit._limits), 1000)

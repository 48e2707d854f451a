"""What a worker does with a message, one step at a time: messages in, messages out."""

import signal
import threading
import unittest
from unittest import mock

from django.channels import Channel, Group, consume, protocol, route
from django.channels import worker as worker_module
from django.channels.eventloop import ConsumerLoop
from django.channels.exceptions import (
    ChannelFull,
    ChannelSocketException,
    ConsumeLater,
    DenyConnection,
    InvalidMessage,
    WebsocketCloseException,
)
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit
from django.channels.message import Message, pending_message_store
from django.channels.outbox import outbox
from django.channels.signals import (
    consumer_finished,
    consumer_started,
    worker_process_ready,
    worker_ready,
)
from django.channels.worker import Worker, WorkerGroup
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from .support.layers import waiting_on
from .support.untimed import leave_out_run_times
from .support.waiting import TIMEOUT, wait_until

REPLY = "gateway.test!1"


class WorkerTestCase(SimpleTestCase):
    def setUp(self):
        self.layer = MemoryChannelLayer()
        self.layer.alias = "test"
        self.seen = []
        leave_out_run_times(self)
        # On a busy machine, two consumers can take longer than the default.
        patch = mock.patch.object(worker_module, "BATCH_FLUSH_INTERVAL", 60.0)
        patch.start()
        self.addCleanup(patch.stop)

    def work(self, consumer, channel="test", **content):
        """Have `consumer` handle one message. Return what came back on the reply channel (a list)."""
        self.layer.routing = [route(channel, consumer)]
        self.layer.router = None
        if channel.startswith(("websocket", "http")):
            content = dict(
                {"reply_channel": REPLY, "event_id": 1, "path": "/", "headers": []}, **content
            )
        self.layer.send(channel, content)
        self.assertTrue(Worker(self.layer).run_once())
        return self.received(REPLY)

    def received(self, channel):
        return waiting_on(self.layer, channel)

    def group(self, name):
        return Group(name, channel_layer=self.layer)

    def channel(self, name):
        return Channel(name, channel_layer=self.layer)


class ConsumerTests(WorkerTestCase):
    def test_a_consumer_is_called_with_the_message(self):
        def consumer(message, **kwargs):
            self.seen.append((message.content, message.channel.name, message["value"], kwargs))

        self.work(consumer, value=7)
        self.assertEqual(self.seen, [({"value": 7}, "test", 7, {})])

    def test_nothing_to_do(self):
        self.layer.routing = [route("test", lambda message: None)]
        self.assertFalse(Worker(self.layer).run_once())

    def test_the_replies_leave_in_one_message_with_the_ack(self):
        def consumer(message):
            message.reply_channel.send({"text": "one"})
            message.reply_channel.send({"text": "two"})

        self.assertEqual(
            self.work(consumer, "websocket.receive"),
            [{"ack": 1, "replies": [{"text": "one"}, {"text": "two"}]}],
        )

    def test_a_consumer_that_sends_nothing_is_acknowledged(self):
        self.assertEqual(self.work(lambda message: None, "websocket.receive"), [{"ack": 1}])

    def test_what_a_consumer_sends_is_pending_until_it_ends(self):
        self.group("g").add("member")

        def consumer(message):
            self.channel("other").send({"number": 1})
            self.group("g").send({"number": 2})
            self.seen.append(self.received("other") + self.received("member"))
            self.channel("other").send({"number": 3}, immediately=True)
            self.seen.append(self.received("other"))

        self.work(consumer)
        self.assertEqual(self.seen, [[], [{"number": 3}]])
        self.assertEqual(self.received("other"), [{"number": 1}])
        self.assertEqual(self.received("member"), [{"number": 2}])

    def test_everything_arrives_in_the_order_it_was_sent(self):
        self.group("g").add(REPLY)

        def consumer(message):
            message.reply_channel.send({"text": "1"})
            self.group("g").send({"text": "2"})
            message.reply_channel.send({"text": "3"})

        self.assertEqual(
            self.work(consumer, "websocket.receive"),
            [{"replies": [{"text": "1"}]}, {"text": "2"}, {"ack": 1, "replies": [{"text": "3"}]}],
        )

    def test_a_message_is_what_it_was_when_it_was_sent(self):
        def consumer(message):
            content = {"list": [1]}
            self.channel("other").send(content)
            content["list"].append(2)

        self.work(consumer)
        self.assertEqual(self.received("other"), [{"list": [1]}])

    def test_a_bad_send_fails_in_the_consumer(self):
        def consumer(message):
            try:
                self.channel("other").send({"bad": object()})
            except InvalidMessage as error:
                self.seen.append(str(error))

        self.work(consumer)
        self.assertIn("'bad'", self.seen[0])

    def test_a_pending_send_to_a_full_channel_is_logged_and_counted(self):
        self.layer = MemoryChannelLayer(capacity=1)

        def consumer(message):
            self.channel("other").send({})
            self.channel("other").send({})
            with self.assertRaises(ChannelFull):
                self.channel("full").send({}, immediately=True)
                self.channel("full").send({}, immediately=True)

        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            self.work(consumer)
        self.assertIn("the channel other was not sent", logs.output[0])
        self.assertEqual(self.layer.statistics()["sends_dropped"], 1)

    def test_many_that_were_not_sent_are_one_line_a_second(self):
        self.layer = MemoryChannelLayer(capacity=1)

        def consumer(message):
            for _ in range(101):
                self.channel("other").send({})

        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            self.work(consumer)
        lines = [line for line in logs.output if "the channel other was not sent" in line]
        self.assertLess(len(lines), 10)  # 1, except on a machine that stands still
        self.assertEqual(self.layer.statistics()["sends_dropped"], 100)

    def test_a_line_says_how_many_were_held_back_before_it(self):
        now = [5.0]
        limit = RateLimit(clock=lambda: now[0])
        self.assertEqual([limit.allow() for _ in range(3)], [0, None, None])
        now[0] += 1
        self.assertEqual([limit.allow() for _ in range(2)], [2, None])

    def test_a_batch_runs_the_consumer_once_a_frame(self):
        def consumer(message):
            self.seen.append((message["order"], message.get("text"), message.get("bytes")))
            message.reply_channel.send({"text": "answer %d" % message["order"]})

        frames = [{"text": "a", "order": 3}, {"bytes": b"b", "order": 4}]
        answers = self.work(consumer, "websocket.receive", frames=frames, event_id=4)
        self.assertEqual(self.seen, [(3, "a", None), (4, None, b"b")])
        self.assertEqual(
            answers, [{"ack": 4, "replies": [{"text": "answer 3"}, {"text": "answer 4"}]}]
        )

    def test_nothing_of_a_batch_is_handled_after_a_close_or_an_error(self):
        frames = [{"text": str(number), "order": number} for number in (1, 2, 3)]

        def close(message):
            self.seen.append(message["order"])
            if message["order"] == 2:
                message.reply_channel.send({"close": True})

        answers = self.work(close, "websocket.receive", frames=frames, event_id=3)
        self.assertEqual((self.seen, answers), ([1, 2], [{"ack": 3, "replies": [{"close": True}]}]))
        del self.seen[:]

        def fail(message):
            self.seen.append(message["order"])
            raise RuntimeError("on purpose")

        with self.assertLogs("django.channels.worker", "ERROR"):
            answers = self.work(fail, "websocket.receive", frames=frames, event_id=3)
        self.assertEqual(self.seen, [1])
        self.assertEqual(answers, [{"ack": 3, "error": True}])

    def test_signals_go_around_each_consumer(self):
        def started(**kwargs):
            self.seen.append("started")

        def finished(**kwargs):
            self.seen.append("finished")

        consumer_started.connect(started)
        consumer_finished.connect(finished)
        self.addCleanup(consumer_started.disconnect, started)
        self.addCleanup(consumer_finished.disconnect, finished)
        self.work(lambda message: self.seen.append("consumer"))
        self.assertEqual(self.seen, ["started", "consumer", "finished"])

    def test_a_callback_sees_each_message(self):
        self.layer.routing = {"test": lambda message: None}
        self.layer.send("test", {"value": 1})
        worker = Worker(self.layer, callback=lambda *args: self.seen.append(args))
        worker.run_once()
        self.assertEqual(self.seen[0][0], "test")
        self.assertEqual(self.seen[0][1].content, {"value": 1})


class ExceptionTests(WorkerTestCase):
    def raising(self, error):
        def consumer(message):
            message.reply_channel.send({"text": "before"})
            raise error

        return consumer

    def test_a_consumer_that_raises_is_logged_with_its_traceback(self):
        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            answers = self.work(self.raising(RuntimeError("on purpose")), "websocket.receive")
        self.assertIn("RuntimeError: on purpose", logs.output[0])
        self.assertEqual(answers, [{"ack": 1, "replies": [{"text": "before"}], "error": True}])

    def test_an_exit_in_a_consumer_does_not_end_the_worker(self):
        with self.assertLogs("django.channels.worker", "ERROR"):
            answers = self.work(self.raising(SystemExit(3)), "websocket.receive")
        self.assertTrue(answers[0]["error"])

    def test_an_exception_whose_text_raises_ends_its_event_as_any_other(self):
        for base in (Exception, TypeError):

            class Unprintable(base):
                def __str__(self):
                    raise Unprintable("again")

            consumer = self.raising(Unprintable("x"))
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                answers = self.work(consumer, "websocket.receive")
            self.assertIn("Error processing message with consumer", logs.output[0])
            self.assertEqual(answers, [{"ack": 1, "replies": [{"text": "before"}], "error": True}])
            # Otherwise, what this thread sends between two consumers would never leave.
            self.assertIsNone(outbox.pending)

    def test_a_request_whose_consumer_raises_gets_djangos_500(self):
        def consumer(message):
            raise RuntimeError("secret detail")

        with self.assertLogs("django.request", "ERROR") as logs:
            (answer,) = self.work(
                consumer,
                "http.request",
                method="GET",
                query_string=b"",
                root_path="",
                body=b"",
                client=["127.0.0.1", 1],
                server=["testserver", 80],
            )
        self.assertEqual(answer["replies"][0]["status"], 500)
        self.assertNotIn(b"secret", answer["replies"][0]["content"])
        self.assertEqual(len(logs.records), 1)  # so that ADMINS get one mail
        self.assertIn("secret detail", logs.output[0])

    def test_deny_connection(self):
        def consumer(message):
            raise DenyConnection()

        answers = self.work(consumer, "websocket.connect", event_id=0)
        self.assertEqual(answers, [{"ack": 0, "replies": [{"close": True}]}])

    def test_deny_connection_elsewhere_is_an_error(self):
        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            answers = self.work(self.raising(DenyConnection()), "websocket.receive")
        self.assertIn("WebsocketCloseException", logs.output[0])
        self.assertTrue(answers[0]["error"])

    def test_a_socket_exception_answers_itself(self):
        class Answer(ChannelSocketException):
            def run(self, message):
                message.reply_channel.send({"text": "sorry"})

        self.assertEqual(
            self.work(self.raising(Answer()), "websocket.receive"),
            [{"ack": 1, "replies": [{"text": "before"}, {"text": "sorry"}]}],
        )

    def test_websocket_close_exception(self):
        (answer,) = self.work(self.raising(WebsocketCloseException(4000)), "websocket.receive")
        self.assertEqual(answer["replies"][-1], {"close": 4000})
        (answer,) = self.work(self.raising(WebsocketCloseException()), "websocket.receive")
        self.assertEqual(answer["replies"][-1], {"close": True})
        with self.assertRaises(ValueError):
            WebsocketCloseException(1006)

    def test_consume_later_requeues_the_message_and_leaves_the_event_in_flight(self):
        outcomes = [ConsumeLater(), None]

        def consumer(message):
            message.reply_channel.send({"text": "try %d" % len(outcomes)})
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome

        self.assertEqual(self.work(consumer, "websocket.receive", text="x"), [])
        Worker(self.layer).run_once()
        self.assertEqual(self.received(REPLY), [{"ack": 1, "replies": [{"text": "try 1"}]}])

    def test_what_a_view_left_to_close_is_closed_although_the_consumer_asks_for_later(self):
        def consumer(message):
            outbox.call_afterwards(lambda: self.seen.append("closed"))
            raise ConsumeLater()

        self.work(consumer, "websocket.receive", text="x")
        self.assertEqual(self.seen, ["closed"])

    def test_consume_later_is_given_up_after_its_retries(self):
        def consumer(message):
            self.seen.append(message.get("text"))
            raise ConsumeLater()

        self.layer.routing = [route("websocket.receive", consumer)]
        self.layer.send("websocket.receive", {"reply_channel": REPLY, "event_id": 1, "text": "x"})
        worker = Worker(self.layer, message_retries=3)
        with self.assertLogs("django.channels.worker", "ERROR"):
            while worker.run_once():
                pass
        self.assertEqual(self.seen, ["x"] * 4)
        self.assertEqual(self.received(REPLY), [{"ack": 1, "error": True}])

    def test_an_unknown_path_is_denied_and_logged_once(self):
        self.layer.routing = [route("websocket.connect", lambda message: None, path="^/known/$")]
        self.layer.send(
            "websocket.connect",
            {"reply_channel": REPLY, "event_id": 0, "path": "/unknown/", "headers": []},
        )
        with self.assertLogs("django.channels.worker", "WARNING") as logs:
            Worker(self.layer).run_once()
        self.assertEqual(len(logs.output), 1)
        self.assertIn("/unknown/", logs.output[0])
        self.assertEqual(self.received(REPLY), [{"ack": 0, "replies": [{"close": True}]}])

    def test_a_message_no_route_takes_is_logged(self):
        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            self.layer.routing = [route("test", lambda message: None, key="^x")]
            self.layer.send("test", {"key": "y"})
            Worker(self.layer).run_once()
        self.assertIn("check the ROUTING", logs.output[0])

    def test_an_event_no_route_takes_is_an_error_for_its_client(self):
        self.layer.routing = [route("websocket.receive", lambda message: None, path="^/x")]
        del self.layer.router.root.routes[1:]  # without Django's own handling
        event = {protocol.REPLY_CHANNEL: REPLY, protocol.EVENT_ID: 2, "path": "/"}
        self.layer.send("websocket.receive", event)
        with self.assertLogs("django.channels.worker", "ERROR"):
            Worker(self.layer).run_once()
        self.assertEqual(self.received(REPLY), [protocol.ack(2, error=True)])

    def test_a_page_of_another_site_is_denied(self):
        headers = [[b"host", b"testserver"], [b"origin", b"https://evil.example"]]
        with self.settings(ALLOWED_HOSTS=["testserver"]):
            limit = mock.patch.object(consume, "_refused_origins", RateLimit())
            with limit, self.assertLogs("django.channels.worker", "WARNING") as logs:
                answers = self.work(self.seen.append, "websocket.connect", headers=headers)
        text = "its Origin https://evil.example is not http://testserver, the site's own"
        self.assertIn(text, logs.output[0])
        self.assertIn("allowed_origins", logs.output[0])
        self.assertEqual(self.seen, [])
        self.assertEqual(answers[0]["replies"], [{"close": True}])


class SessionTests(WorkerTestCase):
    def test_what_changed_in_the_session_goes_back_with_the_ack(self):
        def consumer(message):
            self.assertEqual(message.channel_session["old"], 1)
            message.channel_session["new"] = [2]
            del message.channel_session["gone"]

        answers = self.work(consumer, "websocket.receive", channel_session={"old": 1, "gone": 1})
        self.assertEqual(
            answers, [{"ack": 1, "channel_session": {"set": {"new": [2]}, "removed": ["gone"]}}]
        )

    def test_frames_of_a_batch_see_each_others_changes(self):
        def consumer(message):
            message.channel_session["count"] = message.channel_session.get("count", 0) + 1

        frames = [{"text": "x", "order": number} for number in (1, 2, 3)]
        answers = self.work(consumer, "websocket.receive", frames=frames, event_id=3)
        self.assertEqual(answers[0]["channel_session"]["set"], {"count": 3})

    def test_a_message_handed_on_for_the_same_client_takes_the_session_along(self):
        def receive(message):
            message.channel_session["user"] = "ada"
            self.channel("chat.receive").send(
                {"text": message["text"], "reply_channel": message.reply_channel.name}
            )

        self.work(receive, "websocket.receive", text="hi")

        def chat(message):
            self.seen.append(message.channel_session["user"])
            message.channel_session["rooms"] = [1]
            self.assertNotIn("channel_session", message.content)

        self.layer.routing = [route("chat.receive", chat)]
        self.layer.router = None
        Worker(self.layer).run_once()
        self.assertEqual(self.seen, ["ada"])
        self.assertEqual(
            self.received(REPLY), [{"channel_session": {"set": {"rooms": [1]}, "removed": []}}]
        )


class ChannelsOfAWorkerTests(WorkerTestCase):
    def test_only_and_exclude(self):
        self.layer.routing = {"a.one": len, "a.two": len, "b.one": len}
        self.layer.router = None
        self.assertEqual(Worker(self.layer, only_channels=["a.*"]).channels, ["a.one", "a.two"])
        excluding = Worker(self.layer, only_channels=["a.*"], exclude_channels=["*.two"])
        self.assertEqual(excluding.channels, ["a.one"])
        channels = Worker(self.layer, exclude_channels=["http.*", "websocket.*"]).channels
        self.assertEqual(channels, ["a.one", "a.two", "b.one"])


class OutboxTests(WorkerTestCase):
    def test_outside_a_consumer_a_send_leaves_at_once(self):
        self.channel("test").send({"value": 1})
        self.assertEqual(self.received("test"), [{"value": 1}])

    def test_another_thread_is_not_held(self):
        def consumer(message):
            thread = threading.Thread(target=self.channel("other").send, args=({"value": 1},))
            thread.start()
            thread.join()
            self.seen.append(self.received("other"))

        self.work(consumer)
        self.assertEqual(self.seen, [[{"value": 1}]])

    def test_code_that_runs_a_consumer_by_itself_can_hold_too(self):
        pending_message_store.prepare()
        self.assertTrue(pending_message_store.active)
        self.channel("test").send({"value": 1})
        self.assertEqual(self.received("test"), [])
        pending_message_store.send_and_flush()
        self.assertFalse(pending_message_store.active)
        self.assertEqual(self.received("test"), [{"value": 1}])

    def test_a_message_is_a_mapping(self):
        message = Message({"path": "/", "reply_channel": REPLY}, "test", self.layer)
        self.assertEqual(message.reply_channel, self.channel(REPLY))
        self.assertEqual(sorted(message), ["path", "reply_channel"])
        self.assertEqual(dict(message.items()), message.content)
        copy = message.copy()
        copy["path"] = "/other"
        self.assertEqual(message["path"], "/")
        self.assertIsNone(Message({}, "test", self.layer).reply_channel)


class ControlKeyTests(WorkerTestCase):
    """A consumer may pass on what a client sent it, whatever keys the client has thought of."""

    FORGED = {
        "__retries__": "many",
        "body_credit": 1000,
        "channel_session": {"set": {"_auth_user_id": "1"}},
        "ack": 1,
        "error": True,
        "event_id": 7,
        "frames": 5,
        "group": "staff",
        "group_add": "staff",
        "group_discard": "staff",
        "lost": 1,
        "replies": [],
        "reset": True,
        "window_channel": "elsewhere",
    }

    def test_a_client_cannot_speak_to_the_gateway(self):
        self.channel(REPLY).send(dict(self.FORGED, text="x"))
        (message,) = self.received(REPLY)
        self.assertEqual(message, {"text": "x", "__retries__": "many", "event_id": 7, "frames": 5})

    def test_a_client_cannot_speak_to_a_worker_on_the_channels_of_events(self):
        self.channel("websocket.receive").send(dict(self.FORGED, text="x"))
        (message,) = self.received("websocket.receive")
        for key in ("__retries__", "channel_session", "event_id", "frames"):
            self.assertNotIn(key, message)

    def test_a_site_has_these_keys_on_its_own_channels(self):
        mine = {"event_id": "NYSE", "frames": 5, "ack": False, "error": "x", "group": "g"}

        def consumer(message):
            self.seen.append(message.content)

        self.layer.routing = [route("trade", consumer)]
        self.channel("trade").send(mine)
        self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.seen, [mine])

    def test_a_client_cannot_give_itself_a_session(self):
        def consumer(message):
            self.seen.append(dict(message.channel_session.items()))
            raise ConsumeLater()

        self.layer.routing = [route("chat.receive", consumer)]
        forged = {"_auth_user_id": "1", "set": {"_auth_user_id": "1"}}
        content = dict(self.FORGED, reply_channel=REPLY, channel_session=forged)
        self.channel("chat.receive").send(content)
        self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.seen, [{}])
        self.assertEqual(self.received("chat.receive")[0]["__retries__"], 1)
        self.group("room").add("chat.receive")
        self.group("room").send(content)
        self.assertNotIn("channel_session", self.received("chat.receive")[0])


class SturdinessTests(WorkerTestCase):
    """If something fails around one message, its client is told, and the thread claims the next."""

    def test_consume_later_in_a_batch_loses_none_of_its_frames(self):
        def consumer(message):
            if message["order"] == 2 and "__retries__" not in message:
                raise ConsumeLater()
            self.seen.append(message["order"])

        frames = [{"text": "x", "order": order} for order in (1, 2, 3)]
        self.assertEqual(self.work(consumer, "websocket.receive", frames=frames), [])
        self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.seen, [1, 2, 3])
        self.assertEqual(self.received(REPLY), [{"ack": 1}])

    def test_control_keys_that_a_consumer_takes_from_a_client_are_not_requeued(self):
        forged = {
            protocol.SESSION: {"admin": True},
            protocol.RETRIES: "many",
            protocol.REDELIVERED: True,
            protocol.EVENT_ID: 9,
            protocol.FRAMES: [{"text": "forged"}],
        }

        def consumer(message):
            self.seen.append((message["text"], message.channel_session.get("admin")))
            if len(self.seen) == 1:
                message.content.update(forged)
                raise ConsumeLater()

        for content in ({"text": "x"}, {protocol.FRAMES: [{"text": "x", "order": 1}]}):
            with self.subTest(content=content):
                del self.seen[:]
                self.assertEqual(self.work(consumer, "websocket.receive", **content), [])
                self.assertTrue(Worker(self.layer).run_once())
                self.assertEqual(self.received(REPLY), [{"ack": 1}])
                self.assertEqual(self.seen, [("x", None)] * 2)

    def test_what_the_batch_changed_in_the_session_before_consume_later_is_kept(self):
        def consumer(message):
            if message["order"] == 2:
                raise ConsumeLater()
            message.channel_session["seen"] = message["order"]

        frames = [{"text": "x", "order": order} for order in (1, 2)]
        self.assertEqual(
            self.work(consumer, "websocket.receive", frames=frames),
            [{"channel_session": {"set": {"seen": 1}, "removed": []}}],
        )

    def test_consume_later_that_finds_no_room_is_an_error(self):
        self.layer = MemoryChannelLayer(capacity=1)
        self.layer.alias = "test"

        def consumer(message):
            self.layer.send("websocket.receive", {"text": "somebody else's"})
            raise ConsumeLater()

        with self.assertLogs("django.channels.worker", "ERROR"):
            answers = self.work(consumer, "websocket.receive")
        self.assertEqual(answers, [{"ack": 1, "error": True}])

    def test_a_receiver_of_consumer_finished_that_raises(self):
        def receiver(**kwargs):
            raise RuntimeError("broken receiver")

        consumer_finished.connect(receiver)
        try:
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                answers = self.work(
                    lambda message: message.reply_channel.send({"text": "x"}), "websocket.receive"
                )
        finally:
            consumer_finished.disconnect(receiver)
        self.assertEqual(answers, [{"ack": 1, "replies": [{"text": "x"}]}])
        self.assertIn("broken receiver", logs.output[0])
        self.assertFalse(pending_message_store.active)

    def test_a_callback_a_route_or_an_error_page_that_raises(self):
        def callback(channel, message):
            raise RuntimeError("broken callback")

        class BrokenRoute:
            def channel_names(self):
                return {"websocket.receive"}

            def match(self, message):
                raise RuntimeError("broken route")

        for worker, routing in (
            (Worker(self.layer, callback=callback), []),
            (Worker(self.layer), [BrokenRoute()]),
        ):
            self.layer.routing = routing
            self.layer.router = None
            self.layer.send("websocket.receive", {"reply_channel": REPLY, "event_id": 4})
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                self.assertTrue(worker.run_once())
            self.assertEqual(self.received(REPLY), [{"ack": 4, "error": True}])
            self.assertIn("RuntimeError: broken", logs.output[0])

    def test_an_answer_that_the_layer_refuses_does_not_end_the_thread(self):
        self.layer.routing = [route("websocket.receive", lambda message: self.seen.append(message))]
        for reply_channel in ("not a name", 5, REPLY):
            self.layer.deliver("websocket.receive", {"reply_channel": reply_channel, "event_id": 1})
        deliver = self.layer.deliver

        def refuse(channel, message):
            if channel != REPLY:
                raise InvalidMessage("refused")
            deliver(channel, message)

        self.layer.deliver = refuse
        group = WorkerGroup(self.layer, threads=1)
        with self.assertLogs("django.channels.worker", "ERROR"):
            group.start()
            wait_until(lambda: len(self.seen) == 3)
            self.assertTrue(group.stop(grace=TIMEOUT))
        self.assertEqual(self.received(REPLY), [{"ack": 1}])

    def test_heavy_replies_leave_in_several_messages(self):
        part = "x" * 300000

        def consumer(message):
            for _ in range(5):
                message.reply_channel.send({"text": part})

        answers = self.work(consumer, "websocket.receive")
        self.assertEqual(sum(len(each["replies"]) for each in answers), 5)
        self.assertTrue(all(len(each["replies"]) <= 4 for each in answers))
        self.assertEqual([each for each in answers if "ack" in each], answers[-1:])

    @override_settings(ALLOWED_HOSTS=["testserver"])
    def test_a_client_does_not_choose_the_length_of_a_line(self):
        self.layer.routing = []
        for origin in (None, b"http://evil.example", b"http://" + b"e" * 5000, b"\x1b\xff" * 5000):
            headers = [[b"origin", origin]] if origin else []
            event = {"path": "/" + "\x1b" * 5000, "reply_channel": REPLY, "event_id": 0}
            self.layer.send("websocket.connect", dict(event, headers=headers))
            limit = mock.patch.object(consume, "_refused_origins", RateLimit())
            with limit, self.assertLogs("django.channels.worker", "WARNING") as logs:
                self.assertTrue(Worker(self.layer).run_once())
            (line,) = [line for line in logs.output if "denied" in line]
            self.assertLess(len(line), 800)
            self.assertIn("…", line)
            self.assertTrue(line.isprintable())
            self.layer.routing = [route("websocket.connect", lambda message: None)]
            self.layer.router = None

    @override_settings(ALLOWED_HOSTS=["testserver"])
    def test_refused_origins_get_one_line_a_second_with_their_number(self):
        now = [100.0]
        limit = RateLimit(clock=lambda: now[0])
        headers = [[b"origin", b"http://evil.example"]]

        def refuse(number):
            for _ in range(number):
                self.work(lambda message: None, "websocket.connect", headers=headers)

        with mock.patch.object(consume, "_refused_origins", limit):
            with self.assertLogs("django.channels.worker", "WARNING") as logs:
                refuse(5)
                now[0] += 1.5
                refuse(1)
        lines = [line for line in logs.output if "denied" in line]
        self.assertEqual(len(lines), 2)
        self.assertIn("(And 4 more like this since the last such line.)", lines[1])

    @override_settings(ALLOWED_HOSTS=["testserver"])
    def test_a_path_cannot_write_lines_of_its_own_into_the_log(self):
        self.layer.routing = []
        for headers in ([], [[b"origin", b"http://evil.example"]]):
            event = {"path": "/x\nERROR forged", "reply_channel": REPLY, "event_id": 0}
            self.layer.send("websocket.connect", dict(event, headers=headers))
            limit = mock.patch.object(consume, "_refused_origins", RateLimit())
            with limit, self.assertLogs("django.channels.worker", "WARNING") as logs:
                self.assertTrue(Worker(self.layer).run_once())
            # Anywhere in it: a thread that an earlier test left behind may log in between.
            self.assertIn("/x\\nERROR forged", " ".join(logs.output))
            self.layer.routing = [route("websocket.connect", lambda message: None)]
            self.layer.router = None


class WorkerGroupTests(unittest.TestCase):
    def test_threads_share_the_work_and_stop(self):
        layer = MemoryChannelLayer()
        layer.alias = "test"
        together = threading.Barrier(3, timeout=TIMEOUT)
        handled = []

        def consumer(message):
            together.wait()
            handled.append(message)

        layer.routing = {"test": consumer}
        group = WorkerGroup(layer, threads=3)
        for _ in range(3):
            layer.send("test", {})
        group.start()
        wait_until(lambda: len(handled) == 3)
        self.assertTrue(group.stop(grace=TIMEOUT))
        self.assertEqual(layer.global_statistics()["messages_held"], 0)

    def test_the_site_is_told_of_each_worker_and_then_of_the_process(self):
        layer, told = MemoryChannelLayer(), []
        for each in (worker_ready, worker_process_ready):

            def receiver(sender, **kwargs):
                told.append((kwargs["signal"], sender))

            each.connect(receiver, weak=False, dispatch_uid="test")
            self.addCleanup(each.disconnect, dispatch_uid="test")
        group = WorkerGroup(layer, threads=2)
        group.start()
        self.assertTrue(group.stop(grace=TIMEOUT))
        expected = [(worker_ready, each) for each in group.workers]
        self.assertEqual(told, expected + [(worker_process_ready, group)])

    def test_a_wrong_routing_fails_at_the_start(self):
        layer = MemoryChannelLayer()
        layer.routing = "no.such.routing"
        with self.assertRaises(ImproperlyConfigured):
            WorkerGroup(layer, threads=1).start()

    def run_until(self, number, workers, layer):
        """Run `workers` until a consumer calls the handler that they set for a signal."""
        handlers = {}

        def consumer(message):
            handlers[number](number, None)

        layer.routing = {"test": consumer}
        layer.send("test", {})
        with mock.patch.object(signal, "signal", handlers.__setitem__):
            workers.run()
        self.assertEqual(sorted(handlers), sorted([signal.SIGTERM, signal.SIGINT]))

    def test_a_signal_ends_a_group_and_a_worker_after_the_consumer_that_runs(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            layer = MemoryChannelLayer()
            group = WorkerGroup(layer, threads=2, signal_handlers=True)
            self.run_until(number, group, layer)
            self.assertTrue(all(worker.stopping for worker in group.workers))
            layer = MemoryChannelLayer()
            self.run_until(number, Worker(layer), layer)
            self.assertEqual(layer.global_statistics()["messages_pending"], 0)

    def test_a_worker_without_signal_handlers_sets_none(self):
        layer = MemoryChannelLayer()
        worker = Worker(layer, signal_handlers=False)
        worker.stopping = True
        with mock.patch.object(signal, "signal") as set_handler:
            worker.run()
        set_handler.assert_not_called()

    def test_a_worker_that_ends_closes_its_database_connections(self):
        worker = Worker(MemoryChannelLayer(), signal_handlers=False)
        worker.stopping = True
        with mock.patch.object(worker_module.connections, "close_all") as close_all:
            worker.run()
        close_all.assert_called_once_with()

    def test_stop_wakes_a_worker_that_waits_for_a_message(self):
        claims = threading.Event()

        class Layer(MemoryChannelLayer):
            block_for = 10 * TIMEOUT

            def claim(self, *args):
                claims.set()
                return super().claim(*args)

        group = WorkerGroup(Layer(), threads=1)
        group.start()
        self.assertTrue(claims.wait(TIMEOUT))
        self.assertTrue(group.stop(grace=TIMEOUT))


class StepTests(WorkerTestCase):
    """What `run_once` does around a consumer."""

    def test_a_step_outside_of_run_lets_no_answer_wait_for_the_next_claim(self):
        class Layer(MemoryChannelLayer):
            def finish(self, consumer, channel, message, soon=False):
                held.append(message)

        held = []
        self.layer = Layer()
        self.layer.alias = "test"
        answers = self.work(
            lambda message: message.reply_channel.send({"text": "x"}), "websocket.receive", text="a"
        )
        self.assertEqual(held, [])
        self.assertEqual([answer["replies"] for answer in answers], [[{"text": "x"}]])

    def test_a_thread_with_a_synchronous_consumer_does_not_count_as_one_that_waits(self):
        loop = ConsumerLoop(self.layer, 1)
        places = loop.places
        places.max_waiting = 1
        places.saw("slow", True)
        places.saw("test", False)
        self.assertTrue(places.acquire(lambda: True))  # the last place
        another = Worker(self.layer, loop=loop)

        def consumer(message):
            # Another thread may claim what needs a place.
            self.seen.append(places.enter(another, ["slow", "test"]))

        self.layer.routing = [route("test", consumer)]
        self.layer.send("test", {})
        self.assertTrue(Worker(self.layer, loop=loop).run_once())
        self.assertEqual(self.seen, [()])

    def test_a_thread_that_a_bug_has_ended_is_counted_and_runs_again_until_the_worker_stops(self):
        worker = Worker(self.layer)
        self.assertFalse(worker.failed())
        worker.stop()
        self.assertTrue(worker.failed())
        self.assertEqual(self.layer.statistics()["threads_restarted"], 2)

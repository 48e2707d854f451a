"""A worker sends what a consumer sent: replies together with the ack, in order, without a loss."""

import contextvars
import functools
from unittest import mock

from django.channels import Channel, consume, protocol, replies, worker
from django.channels.consume import FAILED, HANDLED, LATER, run_consumer
from django.channels.exceptions import (
    ChannelFull,
    ConsumeLater,
    DenyConnection,
    LayerUnavailable,
)
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit
from django.channels.message import Message
from django.channels.outbox import TO_CHANNEL, PendingSend, outbox, pending_message_store
from django.channels.routing import route
from django.channels.signals import consumer_finished, consumer_started
from django.channels.worker import Worker
from django.test import SimpleTestCase, override_settings

from .support.layers import waiting_on
from .support.untimed import leave_out_run_times
from .support.waiting import TIMEOUT
from .test_worker import REPLY, WorkerTestCase


class RefusingLayer(MemoryChannelLayer):
    """A layer that refuses the first `refusals` deliveries to `REPLY` with `error`."""

    refusals, error = 0, ChannelFull

    def deliver(self, channel, message):
        if channel == REPLY and self.refusals > 0:
            self.refusals -= 1
            raise self.error("no room")
        super().deliver(channel, message)


class DeliveryTests(WorkerTestCase):
    def setUp(self):
        super().setUp()
        self.layer = RefusingLayer()
        self.layer.alias = "test"

    def answer(self, message):
        message.reply_channel.send({"text": "answer"})

    def test_an_answer_that_finds_no_room_waits_for_it(self):
        for error in (ChannelFull, LayerUnavailable):
            self.layer.refusals, self.layer.error = 4, error
            answers = self.work(self.answer, "websocket.receive")
            self.assertEqual(answers, [protocol.ack(1, [{"text": "answer"}])])

    def test_replies_ahead_of_the_ack_wait_for_room_too(self):
        self.layer.refusals = 2
        self.group("g").add("member")

        def consumer(message):
            self.answer(message)
            self.group("g").send({"text": "news"})

        answers = self.work(consumer, "websocket.receive")
        self.assertEqual(answers, [protocol.replies([{"text": "answer"}]), protocol.ack(1)])

    def test_the_pauses_between_attempts_grow_up_to_a_bound(self):
        self.layer.refusals = 9
        pauses = []
        with mock.patch.object(replies.time, "sleep", pauses.append):
            self.work(self.answer, "websocket.receive")
        first, most = replies.RETRY_INTERVAL, replies.MAX_RETRY_INTERVAL
        self.assertEqual(pauses, [min(first * 2**number, most) for number in range(9)])

    def test_an_answer_without_room_for_too_long_is_logged_and_lost(self):
        self.layer.refusals = 10**6
        with mock.patch.object(replies, "REPLY_TIMEOUT", 0.02):
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                self.assertEqual(self.work(self.answer, "websocket.receive"), [])
        self.assertIn(REPLY, logs.output[0])
        self.assertIn("is lost", logs.output[0])

    def test_the_last_answer_of_a_worker_waits_until_the_layer_is_there(self):
        self.layer.refusals, self.layer.error = 3, LayerUnavailable
        with mock.patch.object(replies, "REPLY_TIMEOUT", -1):
            kept = replies.Replies(self.layer, "websocket.receive", {"event_id": 1}, "consumer")
            kept.reply_channel = REPLY
            kept.finish()
        self.assertEqual(self.received(REPLY), [protocol.ack(1)])

    def test_an_answer_that_is_lost_ahead_of_the_ack_fails_the_event(self):
        self.layer.refusals, self.layer.error = 1, LayerUnavailable
        with mock.patch.object(replies, "REPLY_TIMEOUT", -1):
            lossy = replies.Replies(self.layer, "websocket.receive", {"event_id": 1}, "consumer")
            lossy.reply_channel = REPLY
            lossy._add_reply({"text": "lost"})
            with self.assertLogs("django.channels.worker", "ERROR"):
                lossy.flush()
            lossy.finish()
        self.assertEqual(self.received(REPLY), [protocol.ack(1, error=True)])

    def test_what_leaves_with_the_ack_is_kept_and_nothing_else(self):
        def own(text="own"):
            return PendingSend(self.layer, TO_CHANNEL, REPLY, {"text": text})

        other = PendingSend(self.layer, TO_CHANNEL, "other", {})
        most, longest = replies.MAX_REPLIES, replies.MAX_REPLIES_LENGTH
        for channel, content, sends, expected in (
            ("websocket.receive", {"event_id": 1}, [], True),
            ("websocket.receive", {"event_id": 1}, [own()] * most, True),
            ("websocket.receive", {"event_id": 1}, [own()] * (most + 1), False),
            ("websocket.receive", {"event_id": 1}, [own("x" * longest)], True),
            ("websocket.receive", {"event_id": 1}, [own("x" * longest), own("x")], False),
            ("websocket.receive", {"event_id": 1}, [own(), other], False),
            ("work", {}, [own()], False),  # of no event, so no ack will carry it
        ):
            found = replies.Replies(self.layer, channel, dict(content, reply_channel=REPLY), "id")
            self.assertEqual(found.keeps(sends), expected, (channel, len(sends)))
            if expected:
                for send in sends:
                    found._add_reply(send.message)
                self.assertEqual(self.received(REPLY), [])

    def test_what_goes_ahead_of_the_ack_is_sent_again_with_one_id(self):
        sent = []

        class Remembering(RefusingLayer):
            remembers_sends = True

            def deliver(self, channel, message, send_id=""):
                sent.append(send_id)
                super().deliver(channel, message)

        layer = Remembering()
        layer.refusals, layer.error = 2, LayerUnavailable
        ahead = replies.Replies(layer, "websocket.receive", {"event_id": 1}, "consumer")
        ahead.reply_channel = REPLY
        ahead._add_reply({"text": "ahead"})
        ahead.flush()
        self.assertEqual((len(sent), len(set(sent))), (3, 1))
        self.assertTrue(sent[0])

    def test_a_line_about_dropped_sends_says_how_many_were_not_logged(self):
        def limit():
            return RateLimit(60, iter([0, 1, 61]).__next__)

        layer = MemoryChannelLayer(capacity=1)
        layer.deliver("other", {})
        send = PendingSend(layer, TO_CHANNEL, "other", {})
        with mock.patch.object(replies, "RateLimit", limit):
            with self.assertLogs("django.channels.worker", "ERROR") as logs:
                sent = [replies.deliver_or_log(send) for _ in range(3)]
        self.assertEqual(sent, [False] * 3)
        self.assertEqual(len(logs.output), 2)
        self.assertTrue(logs.output[0].endswith("in the consumer."))
        self.assertTrue(logs.output[1].endswith("(And 1 more like this since the last such line.)"))


class OrderTests(WorkerTestCase):
    def test_many_replies_leave_in_messages_of_a_bounded_number(self):
        def consumer(message):
            for _ in range(2 * replies.MAX_REPLIES + 1):
                message.reply_channel.send({"text": "x"})

        answers = self.work(consumer, "websocket.receive")
        lengths = [len(each[protocol.REPLIES]) for each in answers]
        self.assertEqual(lengths, [replies.MAX_REPLIES, replies.MAX_REPLIES, 1])
        self.assertEqual([protocol.ACK in each for each in answers], [False, False, True])

    def test_replies_of_every_kind_count_by_length(self):
        half = replies.MAX_REPLIES_LENGTH // 2
        for content in ({"text": "x" * half}, {"bytes": b"x" * half}, {"content": b"x" * half}):

            def consumer(message, content=content):
                for _ in range(3):
                    message.reply_channel.send(content)

            answers = self.work(consumer, "websocket.receive")
            self.assertEqual([len(each[protocol.REPLIES]) for each in answers], [2, 1])

    def test_a_reply_after_a_flush_counts_from_zero(self):
        part = "x" * (replies.MAX_REPLIES_LENGTH // 2 + 1)

        def consumer(message):
            for _ in range(2):
                message.reply_channel.send({"text": part})
                self.channel("other").send({})

        answers = self.work(consumer, "websocket.receive")
        self.assertEqual([len(each.get(protocol.REPLIES, ())) for each in answers], [1, 1, 0])

    def test_replies_after_a_flush_that_fit_exactly_leave_together(self):
        def consumer(message):
            message.reply_channel.send({"text": "x"})
            self.channel("other").send({})
            for _ in range(2):
                message.reply_channel.send({"text": "x" * (replies.MAX_REPLIES_LENGTH // 2)})

        answers = self.work(consumer, "websocket.receive")
        self.assertEqual([len(each[protocol.REPLIES]) for each in answers], [1, 2])

    def test_replies_of_a_slow_batch_leave_ahead_of_its_end(self):
        def consumer(message):
            message.reply_channel.send({"text": "answer"})

        frames = [{"text": "x", "order": order} for order in (1, 2)]
        for interval, expected in ((-1, [[1, 1], False]), (TIMEOUT, [[2], True])):
            with mock.patch.object(worker, "BATCH_FLUSH_INTERVAL", interval):
                answers = self.work(
                    consumer, "websocket.receive", **{protocol.FRAMES: frames, protocol.EVENT_ID: 2}
                )
            lengths = [len(each[protocol.REPLIES]) for each in answers if protocol.REPLIES in each]
            self.assertEqual([lengths, protocol.REPLIES in answers[-1]], expected)
            self.assertEqual(answers[-1][protocol.ACK], 2)

    def test_the_answers_of_a_handshake_that_ends_the_socket_leave_with_the_ack_alone(self):
        """Otherwise the socket is open for a while, and messages of others reach its client first."""
        self.group("g").add("member")

        def consumer(message):
            message.reply_channel.send({"accept": True})
            self.group("g").send({"text": "news"})
            message.reply_channel.send({"close": 4000})

        answers = self.work(consumer, "websocket.connect")
        self.assertEqual(answers, [protocol.ack(1, [{"accept": True}, {"close": 4000}])])
        self.assertEqual(self.received("member"), [{"text": "news"}])

    def test_a_message_to_another_client_does_not_take_the_session_along(self):
        def consumer(message):
            message.channel_session["user"] = "ada"
            self.channel("other").send({"reply_channel": "gateway.test!2"})
            self.channel("third").send({})
            self.group("g").send({"reply_channel": REPLY})

        self.group("g").add("member")
        self.work(consumer, "websocket.receive")
        for channel in ("other", "third", "member"):
            (message,) = self.received(channel)
            self.assertNotIn(protocol.SESSION, message)

    def test_a_reply_to_a_message_without_an_event_leaves_as_it_is(self):
        def consumer(message):
            message.reply_channel.send({"text": "x"})

        answers = self.work(consumer, "chat.receive", reply_channel=REPLY)
        self.assertEqual(answers, [{"text": "x"}])

    def test_a_reply_through_another_layer_is_not_taken_for_one_of_this_event(self):
        other = MemoryChannelLayer()

        def consumer(message):
            self.layer, layer = other, self.layer
            self.channel(REPLY).send({"text": "elsewhere"})
            self.layer = layer

        self.assertEqual(self.work(consumer, "websocket.receive"), [protocol.ack(1)])
        self.assertEqual(other.receive_many([REPLY])[1], {"text": "elsewhere"})

    def test_a_send_to_a_group_of_the_clients_name_is_not_a_reply(self):
        name = "chat"
        self.group(name).add("member")
        self.layer.routing = [
            route("websocket.receive", lambda message: self.group(name).send({"text": "x"}))
        ]
        self.layer.send("websocket.receive", {"reply_channel": name, protocol.EVENT_ID: 1})
        Worker(self.layer).run_once()
        self.assertEqual(self.received("member"), [{"text": "x"}])
        self.assertEqual(self.received(name), [protocol.ack(1)])


class OutboxTests(SimpleTestCase):
    def test_what_is_flushed_by_hand_leaves_whole_and_the_first_error_is_raised(self):
        layer = MemoryChannelLayer(capacity=1)
        pending_message_store.prepare()
        self.assertTrue(pending_message_store.active)
        for name in ("one", "one", "two", "two", "three"):
            Channel(name, channel_layer=layer).send({})
        with self.assertRaisesRegex(ChannelFull, "one"):
            pending_message_store.send_and_flush()
        self.assertFalse(pending_message_store.active)
        for name in ("one", "two", "three"):
            self.assertEqual(waiting_on(layer, name), [{}])
        pending_message_store.prepare()
        pending_message_store.send_and_flush()

    def test_only_a_consumer_that_runs_can_be_continued(self):
        with self.assertRaisesRegex(RuntimeError, "No consumer runs"):
            outbox.continue_with(None, None)
        self.assertIsNone(outbox.pending)


class ConsumeLaterTests(WorkerTestCase):
    def frames(self, *orders):
        return [{"text": "x", "order": order} for order in orders]

    def batch(self, consumer, *orders):
        values = {protocol.FRAMES: self.frames(*orders), protocol.EVENT_ID: orders[-1]}
        return self.work(consumer, "websocket.receive", **values)

    def test_the_answers_of_a_batch_before_consume_later_are_sent(self):
        def consumer(message):
            message.reply_channel.send({"text": "answer %d" % message["order"]})
            if message["order"] == 3 and protocol.RETRIES not in message:
                raise ConsumeLater()

        answers = self.batch(consumer, 1, 2, 3, 4)
        self.assertEqual(answers, [protocol.replies([{"text": "answer 1"}, {"text": "answer 2"}])])
        self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(
            self.received(REPLY),
            [protocol.ack(4, [{"text": "answer 3"}, {"text": "answer 4"}])],
        )

    def test_the_frames_after_it_are_requeued_as_they_were(self):
        def consumer(message):
            if message["order"] == 1 and protocol.RETRIES not in message:
                raise ConsumeLater()
            self.seen.append(dict(message.content))

        frames = [{"text": "x", "order": 1}, {"bytes": b"y", "order": 2}]
        values = {protocol.FRAMES: frames, protocol.EVENT_ID: 2}
        self.work(consumer, "websocket.receive", **values)
        self.assertTrue(Worker(self.layer).run_once())
        every = {protocol.REPLY_CHANNEL: REPLY, "path": "/", "headers": []}
        retried = dict(every, text="x", order=1, **{protocol.RETRIES: 1})
        self.assertEqual(self.seen, [retried, dict(every, bytes=b"y", order=2)])

    def test_a_message_of_the_sites_own_is_requeued_with_the_count_alone_added(self):
        def consumer(message):
            raise ConsumeLater()

        self.layer.routing = [route("test", consumer)]
        self.layer.send("test", {"text": "x"})
        Worker(self.layer).run_once()
        self.assertEqual(self.received("test"), [{"text": "x", protocol.RETRIES: 1}])

    def test_a_message_that_was_lost_with_a_worker_is_requeued_as_one(self):
        """Otherwise it could crash one process after the other, together with other messages."""

        def consumer(message):
            raise ConsumeLater()

        marks = {protocol.REDELIVERED: True}
        with mock.patch.object(worker, "REDELIVERED_DELAY", 0):
            self.work(consumer, "websocket.receive", text="x", **marks)
        (requeued,) = self.received("websocket.receive")
        self.assertEqual((requeued[protocol.REDELIVERED], requeued[protocol.RETRIES]), (True, 1))

    def test_two_changes_of_the_session_in_a_batch_go_back_as_one(self):
        def consumer(message):
            session = message.channel_session
            if message["order"] == 1:
                session["a"], session["b"] = 1, 1
            elif message["order"] == 2:
                del session["a"]
                session["c"] = 2
            else:
                session["a"] = 3

        (answer,) = self.batch(consumer, 1, 2)
        self.assertEqual(answer[protocol.SESSION], {"set": {"b": 1, "c": 2}, "removed": ["a"]})
        (answer,) = self.batch(consumer, 1, 2, 3)
        self.assertEqual(answer[protocol.SESSION], {"set": {"a": 3, "b": 1, "c": 2}, "removed": []})

    def test_a_requeued_message_keeps_its_session_and_its_event(self):
        def consumer(message):
            self.seen.append((message.channel_session.get("a"), message.get(protocol.RETRIES)))
            if len(self.seen) < 3:
                raise ConsumeLater()

        values = {protocol.SESSION: {"a": 1}, "text": "x"}
        self.assertEqual(self.work(consumer, "websocket.receive", **values), [])
        for _ in range(2):
            self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.seen, [(1, None), (1, 1), (1, 2)])
        self.assertEqual(self.received(REPLY), [protocol.ack(1)])

    def test_a_change_of_the_session_before_consume_later_is_dropped(self):
        def consumer(message):
            self.seen.append(message.channel_session.get("a"))
            message.channel_session["a"] = 1
            if len(self.seen) == 1:
                raise ConsumeLater()

        self.assertEqual(self.work(consumer, "websocket.receive"), [])
        self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.seen, [None, None])

    def test_retries_are_bounded_exactly(self):
        def consumer(message):
            self.seen.append(message.get(protocol.RETRIES, 0))
            raise ConsumeLater()

        self.layer.routing = [route("test", consumer)]
        self.layer.send("test", {})
        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            while Worker(self.layer, message_retries=2).run_once():
                pass
        self.assertEqual(self.seen, [0, 1, 2])
        self.assertIn("3 times on test", logs.output[0])


class RunConsumerTests(WorkerTestCase):
    """`run_consumer` sends nothing itself: the result has what the caller must send."""

    def run_one(self, consumer, channel="test", **options):
        message = Message({"reply_channel": REPLY, "headers": []}, channel, self.layer)
        options.setdefault("sender", None)
        return run_consumer(message, consumer, {}, **options)

    def test_a_consumer_that_ends_in_order(self):
        def consumer(message):
            message.reply_channel.send({"text": "x"})
            message.channel_session["a"] = 1
            return 7

        result = self.run_one(consumer)
        self.assertEqual((result.outcome, result.error, result.returned), (HANDLED, None, 7))
        self.assertEqual(
            [(each.name, each.message) for each in result.sends], [(REPLY, {"text": "x"})]
        )
        self.assertEqual(result.session_patch, {"set": {"a": 1}, "removed": []})
        self.assertEqual(self.received(REPLY), [])

    def test_a_consumer_that_raises(self):
        for error in (KeyError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()):

            def consumer(message, error=error):
                message.channel_session["a"] = 1
                message.reply_channel.send({"text": "x"})
                raise error

            result = self.run_one(consumer)
            self.assertEqual((result.outcome, result.error), (FAILED, error))
            self.assertEqual((len(result.sends), result.session_patch), (1, None))
        self.assertIsNone(outbox.pending)

    def test_a_consumer_that_is_to_run_later(self):
        def consumer(message):
            message.channel_session["a"] = 1
            message.reply_channel.send({"text": "x"})
            raise ConsumeLater()

        result = self.run_one(consumer)
        self.assertEqual((result.outcome, result.sends, result.session_patch), (LATER, [], None))

    def test_what_a_consumer_that_is_given_up_has_started_sends_at_once(self):
        started = []

        async def wait():
            pass

        def consumer(message):
            message.reply_channel.send({"text": "dropped"})
            started.append(contextvars.copy_context())
            return wait()

        result = self.run_one(consumer, may_wait=True)
        slot = started[0].run(lambda: outbox.slot)
        # Until it is continued, nothing may leave ahead of it.
        self.assertTrue(slot.sending.locked())
        consume.close_waiting(result.rest)
        self.assertFalse(slot.sending.locked())
        for how in ({}, {"immediately": True}):
            started[0].run(functools.partial(self.channel(REPLY).send, {"text": "x"}, **how))
            self.assertEqual(self.received(REPLY), [{"text": "x"}])

    def test_an_error_page_may_be_added_to_what_was_sent(self):
        def consumer(message):
            raise KeyError("x")

        def answer_error(message, error):
            message.reply_channel.send({"text": repr(error)})

        result = self.run_one(consumer, answer_error=answer_error)
        self.assertEqual([each.message for each in result.sends], [{"text": "KeyError('x')"}])

        def fail(message, error):
            raise RuntimeError("the error page failed")

        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            result = self.run_one(consumer, answer_error=fail)
        self.assertEqual((result.outcome, type(result.error)), (FAILED, KeyError))
        self.assertIn("the error page failed", logs.output[0])

    def test_an_error_leaves_no_reference_cycle(self):
        import gc
        import weakref

        class Error(Exception):
            pass

        def consumer(message):
            raise Error()

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        result = self.run_one(consumer)
        error = weakref.ref(result.error)
        del result
        self.assertIsNone(error())

    def test_signals_name_their_sender_and_an_empty_environment(self):
        def receiver(sender, signal, **kwargs):
            self.seen.append((sender, kwargs))

        for signal in (consumer_started, consumer_finished):
            signal.connect(receiver)
            self.addCleanup(signal.disconnect, receiver)
        self.run_one(lambda message: None, sender="me")
        self.assertEqual(self.seen, [("me", {"environ": {}}), ("me", {})])

    def test_a_consumer_inside_another_has_an_outbox_of_its_own(self):
        def outer(message):
            message.reply_channel.send({"text": "outer"})
            inner = self.run_one(lambda message: message.reply_channel.send({"text": "inner"}))
            self.assertEqual([each.message for each in inner.sends], [{"text": "inner"}])

        result = self.run_one(outer)
        self.assertEqual([each.message for each in result.sends], [{"text": "outer"}])

    def test_a_denied_handshake_withdraws_the_accept_and_nothing_else(self):
        def consumer(message):
            message.reply_channel.send({"accept": True})
            self.channel("other").send({"text": "x"})
            raise DenyConnection()

        result = self.run_one(consumer, "websocket.connect")
        self.assertEqual(
            [(each.name, each.message) for each in result.sends],
            [("other", {"text": "x"}), (REPLY, {"close": True})],
        )
        self.assertEqual((result.outcome, result.returned), (HANDLED, None))

    def test_denying_elsewhere_says_what_to_do_and_where_it_was_raised(self):
        def consumer(message):
            raise DenyConnection("original")

        result = self.run_one(consumer, "websocket.receive")
        self.assertIsInstance(result.error, DenyConnection)
        self.assertIn("WebsocketCloseException", str(result.error))
        self.assertEqual(str(result.error.__cause__), "original")

    @override_settings(ALLOWED_HOSTS=["testserver"])
    def test_the_origin_is_checked_in_the_handshake_alone(self):
        headers = [[b"host", b"testserver"], [b"origin", b"https://evil.example"]]
        for channel, seen in (("websocket.connect", 0), ("websocket.receive", 1)):
            del self.seen[:]
            content = {"reply_channel": REPLY, "headers": headers, "path": "/x"}
            message = Message(content, channel, self.layer)
            limit = mock.patch.object(consume, "_refused_origins", RateLimit())
            with limit, self.assertLogs("django.channels.worker", "WARNING") as logs:
                run_consumer(message, self.seen.append, {}, sender=None)
                replies.logger.warning("end")
            self.assertEqual((len(self.seen), len(logs.output)), (seen, 2 - seen))


class ExitTests(WorkerTestCase):
    REQUEST = {
        "method": "GET",
        "query_string": b"",
        "root_path": "",
        "body": b"",
        "client": ["127.0.0.1", 1],
        "server": ["testserver", 80],
    }

    def test_an_exit_in_a_request_is_an_error_and_does_not_end_the_worker(self):
        def consumer(message):
            raise SystemExit(3)

        with self.assertLogs("django.request", "ERROR") as logs:
            (answer,) = self.work(consumer, "http.request", **self.REQUEST)
        self.assertEqual((answer["ack"], answer["error"]), (1, True))
        self.assertEqual(answer["replies"][0]["status"], 500)
        self.assertEqual(len(logs.records), 1)

    def test_a_request_that_no_gateway_sent_gets_no_error_page(self):
        def consumer(message):
            raise KeyError("x")

        self.layer.routing = [route("http.request", consumer)]
        content = dict(self.REQUEST, path="/", headers=[], reply_channel=REPLY)
        self.layer.send("http.request", content)
        with self.assertLogs("django.channels.worker", "ERROR"):
            self.assertTrue(Worker(self.layer).run_once())
        self.assertEqual(self.received(REPLY), [])


class LoopTests(SimpleTestCase):
    """The claim loop, with a layer that answers each claim from a script."""

    def setUp(self):
        super().setUp()
        leave_out_run_times(self)

    def run_worker(self, *script, **options):
        test = self

        class Layer(MemoryChannelLayer):
            def claim(self, consumer, channels, block=False):
                test.calls.append("claim")
                step = test.script.pop(0) if test.script else "stop"
                if step == "stop":
                    worker_.stopping = True
                    return None, None
                if isinstance(step, Exception):
                    raise step
                return step

            def acknowledge(self, consumer):
                test.calls.append("acknowledge")
                test.assertEqual(consumer, worker_.consumer_id)
                if test.acknowledge_error is not None:
                    raise test.acknowledge_error

            def finish(self, consumer, channel, message, soon=False):
                test.calls.append(("finish soon" if soon else "finish", channel, message))
                test.assertEqual(consumer, worker_.consumer_id)

        self.script, self.calls, self.pauses = list(script), [], []
        layer = Layer()
        layer.alias = "test"
        layer.routing = [route("websocket.receive", self.consumer)]
        worker_ = Worker(layer, signal_handlers=False, **options)
        with mock.patch.object(worker.time, "sleep", self.pauses.append):
            worker_.run()
        return worker_

    acknowledge_error = None

    def consumer(self, message):
        pass

    def event(self, event_id=1, **more):
        content = {protocol.REPLY_CHANNEL: REPLY, protocol.EVENT_ID: event_id}
        return "websocket.receive", dict(content, **more)

    def test_the_ack_goes_with_the_next_claim_and_the_last_one_by_itself(self):
        self.run_worker(self.event())
        finish = ("finish", REPLY, protocol.ack(1))
        self.assertEqual(self.calls, ["claim", finish, "claim", "acknowledge"])

    def test_the_ack_leaves_soon_if_the_thread_has_something_left_to_do(self):
        def consumer(message):
            outbox.call_afterwards(lambda: self.calls.append("close"))

        self.consumer = consumer
        self.run_worker(self.event())
        finish = ("finish soon", REPLY, protocol.ack(1))
        self.assertEqual(self.calls, ["claim", finish, "close", "claim", "acknowledge"])

    def test_only_the_ack_may_wait_for_the_next_claim(self):
        def consumer(message):
            message.reply_channel.send({"text": "x"})
            message.reply_channel.send({"text": "y"}, immediately=True)
            Channel("other", channel_layer=message.channel_layer).send({})

        self.consumer = consumer
        layer = self.run_worker(self.event()).channel_layer
        self.assertIn(("finish", REPLY, protocol.ack(1)), self.calls)
        left = [layer.receive_many([REPLY])[1] for _ in range(2)]
        self.assertEqual(left, [{"text": "y"}, protocol.replies([{"text": "x"}])])

    def test_an_unavailable_layer_is_tried_again_in_growing_intervals(self):
        errors = [LayerUnavailable("gone") for _ in range(6)]
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            self.run_worker(*errors)
        self.assertEqual(self.pauses, [0.1, 0.2, 0.4, 0.8, 1.6, worker.MAX_RECONNECT_INTERVAL])
        self.assertEqual(len([line for line in logs.output if "cannot" in line]), 1)
        self.assertRegex(logs.output[0], "The channel layer test .* cannot be reached: gone")

    def test_an_interval_is_short_again_after_a_claim(self):
        error = LayerUnavailable("gone")
        with self.assertLogs("django.channels.layers", "WARNING"):
            self.run_worker(error, error, self.event(), error)
        self.assertEqual(self.pauses, [0.1, 0.2, 0.1])

    def test_a_bug_of_the_layer_does_not_end_the_thread(self):
        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            self.run_worker(RuntimeError("a bug"), self.event())
        self.assertIn("a bug", logs.output[0])
        self.assertEqual(self.pauses, [0.1])
        self.assertIn(("finish", REPLY, protocol.ack(1)), self.calls)

    def test_a_last_message_that_cannot_be_acknowledged_is_logged(self):
        self.acknowledge_error = LayerUnavailable("gone")
        with self.assertLogs("django.channels.worker", "WARNING") as logs:
            self.run_worker(self.event())
        self.assertIn("could not be acknowledged", logs.output[0])

    def test_a_worker_that_drains_handles_what_waits_at_the_end(self):
        for drain, left in ((True, 0), (False, 2)):
            self.run_worker("stop", self.event(1), self.event(2), drain=drain)
            self.assertEqual(len(self.script), left)

    def test_a_redelivered_message_is_acknowledged_before_the_next_claim(self):
        self.run_worker(self.event(**{protocol.REDELIVERED: True}))
        finish = ("finish", REPLY, protocol.ack(1))
        self.assertEqual(self.calls, ["claim", finish, "acknowledge", "claim", "acknowledge"])
        self.assertEqual(self.pauses, [worker.REDELIVERED_DELAY])
        self.assertFalse(worker._redelivered_lock.locked())

    def test_a_message_sent_twice_is_not_delayed(self):
        self.run_worker(self.event(**{protocol.REDELIVERED: protocol.MAYBE}))
        self.assertEqual(self.pauses, [])

"""The states of a WebSocket, without a server: events in, actions out."""

import unittest

from django.channels import protocol
from django.channels.gateway import frames, handshake, websocket
from django.channels.gateway.websocket import CLOSED, CLOSING, CONNECTING, OPEN, WebSocket

from .recorder import Recorder


class Socket(Recorder):
    """A WebSocket whose actions are kept."""

    def __init__(self, **handshake):
        super().__init__(WebSocket("gateway.test!1", "/path"))
        self.do(self.state.connect(dict(handshake, path="/path")))

    def opened(self):
        """Answer the handshake, and forget what was sent and written for it."""
        self.done({"accept": True})
        del self.sent[:], self.written[:]
        return self

    def frame(self, text=None, data=None):
        return self.do(self.state.frame(text, data))

    def read(self, sender=websocket.OWN):
        """The client reads everything that was written."""
        written, self.written = self.written, []
        for event in written:
            self.do(self.state.written(event, sender))
        return self

    @property
    def types(self):
        return [event["type"] for event in self.written]


def texts_of(message):
    """The texts of the frames in a `websocket.receive` event."""
    return [frame["text"] for frame in message.get(protocol.FRAMES) or [message]]


class HandshakeTests(unittest.TestCase):
    def test_connect_goes_out_first(self):
        socket = Socket()
        self.assertEqual(
            socket.sent,
            [
                (
                    "websocket.connect",
                    {
                        "path": "/path",
                        "order": 0,
                        protocol.REPLY_CHANNEL: "gateway.test!1",
                        protocol.EVENT_ID: 0,
                    },
                )
            ],
        )
        self.assertEqual(socket.state.phase, CONNECTING)

    def test_accept(self):
        socket = Socket().answer(accept=True)
        self.assertEqual(socket.written, [{"type": "websocket.accept"}])
        self.assertEqual(socket.state.phase, OPEN)

    def test_accept_with_a_subprotocol(self):
        socket = Socket(subprotocols=["chat.v1", "chat.v2"])
        socket.answer(accept=True, subprotocol="chat.v2")
        self.assertEqual(socket.written, [{"type": "websocket.accept", "subprotocol": "chat.v2"}])

    def test_a_subprotocol_that_was_not_offered_is_left_out(self):
        for subprotocol in ("chat.v2", "chat\r\nset-cookie: admin=1", 5, ["chat"]):
            with self.subTest(subprotocol=subprotocol):
                socket = Socket(subprotocols=["chat"])
                socket.answer(accept=True, subprotocol=subprotocol)
                self.assertEqual(socket.written, [{"type": "websocket.accept"}])
                self.assertIn("the client did not offer it", socket.logged[0])

    def test_data_accepts(self):
        socket = Socket().answer(text="")
        self.assertEqual(
            socket.written, [{"type": "websocket.accept"}, {"type": "websocket.send", "text": ""}]
        )

    def test_data_and_close_accept_send_and_close(self):
        socket = Socket().done({"bytes": b"x", "close": 4001})
        self.assertEqual(socket.types, ["websocket.accept", "websocket.send", "websocket.close"])
        self.assertEqual(socket.written[-1]["code"], 4001)

    def test_close_and_accept_false_deny_the_handshake(self):
        for reply in ({"close": True}, {"accept": False}, {"accept": False, "text": "x"}):
            with self.subTest(reply=reply):
                socket = Socket().done(reply)
                self.assertEqual(socket.types, ["websocket.close"])
                self.assertTrue(socket.finished)
                self.assertEqual(socket.counted, ["denied"])
                # The site denied the socket, so it gets no disconnect.
                socket.do(socket.state.gone(1006))
                self.assertEqual(len(socket.sent), 1)
                self.assertEqual(socket.state.phase, CLOSED)

    def test_the_answer_may_come_after_the_consumer_has_ended(self):
        socket = Socket().done()
        self.assertEqual(socket.written, [])
        socket.reply(accept=True)
        self.assertEqual(socket.types, ["websocket.accept"])

    def test_a_group_message_does_not_accept_a_handshake(self):
        socket = Socket()
        socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.written, [])
        socket.done({"accept": True})
        self.assertEqual(socket.types, ["websocket.accept", "websocket.send"])
        denied = Socket()
        denied.do(denied.state.group({"text": "news"}))
        denied.done({"close": True})
        self.assertEqual(denied.types, ["websocket.close"])

    def test_a_handshake_without_an_answer_is_denied_after_a_time(self):
        socket = Socket().done()
        socket.do(socket.state.timeout())
        self.assertEqual(socket.types, ["websocket.close"])
        self.assertTrue(socket.finished)
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")
        self.assertEqual(Socket().opened().state.timeout(), [])

    def test_a_consumer_that_raises_in_connect(self):
        socket = Socket().done(error=True)
        self.assertEqual(socket.types, ["websocket.close"])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_gone_before_the_answer(self):
        socket = Socket()
        socket.do(socket.state.gone(1006))
        self.assertEqual(len(socket.sent), 1)
        socket.done({"accept": True})
        self.assertEqual(socket.written, [])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")


class OtherSendersTests(unittest.TestCase):
    """Other code sends to the reply channel of a socket whose handshake is not answered."""

    ACCEPT = {"type": "websocket.accept"}

    def sent(self, *texts):
        return [{"type": "websocket.send", "text": text} for text in texts]

    def test_their_messages_wait_for_the_own_consumer(self):
        for message in (
            {"text": "a"},
            {"bytes": b"a"},
            {"accept": True},
            {"accept": True, "text": "a"},
        ):
            with self.subTest(message=message):
                self.assertEqual(Socket().reply(**message).written, [])
                self.assertEqual(
                    Socket().reply(**message).done({"close": True}).types, ["websocket.close"]
                )
                self.assertEqual(
                    Socket().reply(**message).done(error=True).types, ["websocket.close"]
                )
                socket = Socket(subprotocols=["chat"]).reply(**message)
                socket.done({"accept": True, "subprotocol": "chat"})
                self.assertEqual(socket.written[0], dict(self.ACCEPT, subprotocol="chat"))
                self.assertEqual(len(socket.written), 1 + handshake.has_data(message))

    def test_their_messages_are_delivered_in_order_with_those_of_groups(self):
        socket = Socket().reply(text="a")
        socket.do(socket.state.group({"text": "b"}))
        socket.reply(accept=True, text="c").reply(text="d")
        socket.done({"accept": True})
        self.assertEqual(socket.written, [self.ACCEPT, *self.sent("a", "b", "c", "d")])

    def test_a_close_waits_for_the_own_consumer(self):
        socket = Socket().reply(text="a").reply(close=4001).reply(text="b")
        self.assertEqual(socket.written, [])
        socket.done({"accept": True})
        self.assertEqual(socket.written[:-1], [self.ACCEPT, *self.sent("a")])
        self.assertEqual(socket.written[-1]["code"], 4001)
        self.assertEqual(socket.channels[-1], "websocket.disconnect")

    def test_data_does_not_answer_after_the_own_consumer_has_ended(self):
        socket = Socket().done().reply(text="a")
        self.assertEqual(socket.written, [])
        socket.reply(accept=True, text="b")
        self.assertEqual(socket.written, [self.ACCEPT, *self.sent("a", "b")])

    def test_an_explicit_answer_that_came_early_decides_if_the_own_consumer_does_not(self):
        for answer in ({"close": True}, {"accept": False}, {"accept": True, "close": 4403}):
            for early in (True, False):
                with self.subTest(answer=answer, early=early):
                    socket = Socket().reply(text="a")
                    socket = (
                        socket.reply(**answer).done() if early else socket.done().reply(**answer)
                    )
                    self.assertEqual(
                        (socket.types, socket.counted), (["websocket.close"], ["denied"])
                    )
        socket = Socket(subprotocols=["chat"]).reply(accept=True, subprotocol="chat")
        socket.reply(close=4001).done()
        self.assertEqual(socket.types, ["websocket.accept", "websocket.close"])
        self.assertEqual(socket.written[0]["subprotocol"], "chat")
        self.assertEqual(socket.channels, ["websocket.connect", "websocket.disconnect"])

    def test_the_own_consumer_answers_at_once(self):
        socket = Socket().reply(text="b").answer(accept=True, text="a")
        self.assertEqual(socket.written, [self.ACCEPT, *self.sent("a", "b")])
        self.assertEqual(Socket().answer(close=True).types, ["websocket.close"])

    def test_an_id_of_another_event_does_not_make_a_sender_the_own_consumer(self):
        socket = Socket().reply(**protocol.during(7, {"accept": True}))
        self.assertEqual(socket.written, [])
        late = Socket().done().reply(**protocol.during(0, {"text": "x"}))
        self.assertEqual(late.written, [])

    def test_what_waits_is_bounded_and_has_room_for_an_answer(self):
        socket = Socket()
        for number in range(handshake.MAX_BUFFERED + 2):
            socket.reply(text=str(number))
        self.assertEqual(socket.counted, ["handshake_full"] * 2)
        socket.reply(accept=True, text="answer").reply(accept=True).done()
        texts = [event.get("text") for event in socket.written]
        expected = [str(each) for each in range(handshake.MAX_BUFFERED)]
        self.assertEqual(texts, [None, *expected, "answer"])
        self.assertEqual(socket.state.phase, OPEN)

    def test_what_waits_is_bounded_in_length(self):
        socket = Socket()
        for _ in range(5):
            socket.reply(text="x" * (handshake.MAX_BUFFERED_LENGTH // 4))
        self.assertEqual(socket.counted, ["handshake_full"] * 2)
        self.assertEqual(len(socket.done({"accept": True}).written), 4)

    def test_messages_that_do_nothing_take_no_room(self):
        socket = Socket()
        for _ in range(handshake.MAX_BUFFERED + 1):
            socket.reply().reply(**protocol.session_patch({"set": {"a": 1}, "removed": []}))
        self.assertEqual((socket.counted, socket.state.session), ([], {"a": 1}))

    def test_nothing_is_kept_after_the_end(self):
        ends = {
            "client": lambda state: state.gone(1006),
            "time-out": lambda state: state.timeout(),
            "full channel": lambda state: state.refused("websocket.connect"),
            "reset": lambda state: state.reset(),
            "loss": lambda state: state.reply(protocol.lost(0)),
        }
        for name, end in ends.items():
            with self.subTest(end=name):
                socket = Socket().reply(text="a").reply(accept=True, text="b")
                socket.do(end(socket.state)).done()
                self.assertNotIn("websocket.send", socket.types)
                self.assertFalse(socket.state._buffered)


class EndsBeforeAcceptanceTests(unittest.TestCase):
    """Each end before the handshake is answered: the disconnect has the path and the session."""

    PATCH = {"set": {"room": "a"}, "removed": []}

    def disconnects(self, socket):
        self.assertTrue(socket.state.over)
        return [message for channel, message in socket.sent if channel == "websocket.disconnect"]

    def check(self, socket, code, session):
        (message,) = self.disconnects(socket)
        self.assertEqual((message["path"], message["code"], message["order"]), ("/path", code, 1))
        self.assertEqual(message["root_path"], "/prefix")
        self.assertEqual(message.get(protocol.SESSION), session)

    def socket(self):
        return Socket(root_path="/prefix")

    def test_a_consumer_that_raises_changes_nothing_in_the_session(self):
        self.check(self.socket().done(error=True), 1011, None)
        # An earlier consumer of the same event did, before this one was run.
        socket = self.socket().reply(**protocol.session_patch(self.PATCH))
        self.check(socket.done(error=True), 1011, {"room": "a"})

    def test_a_client_that_leaves_while_the_consumer_runs(self):
        socket = self.socket()
        socket.do(socket.state.gone(1001))
        socket.done({"accept": True}, **protocol.session_patch(self.PATCH))
        self.check(socket, 1001, {"room": "a"})

    def test_a_client_that_leaves_after_a_consumer_that_did_not_answer(self):
        socket = self.socket().done(**protocol.session_patch(self.PATCH))
        self.check(socket.do(socket.state.gone(1001)), 1001, {"room": "a"})

    def test_a_time_out_before_or_after_the_consumer_has_ended(self):
        socket = self.socket().done(**protocol.session_patch(self.PATCH))
        self.check(socket.do(socket.state.timeout()), 1006, {"room": "a"})
        socket = self.socket()
        socket.do(socket.state.timeout())
        socket.done({"accept": True}, **protocol.session_patch(self.PATCH))
        self.check(socket, 1006, {"room": "a"})

    def test_a_lost_worker(self):
        self.check(self.socket().lost(0), 1011, None)

    def test_a_reset_after_the_consumer_has_ended(self):
        socket = self.socket().done(**protocol.session_patch(self.PATCH))
        self.check(socket.do(socket.state.reset()), 1012, {"room": "a"})

    def test_a_gateway_that_is_killed(self):
        socket = self.socket().done(**protocol.session_patch(self.PATCH))
        (_, channel, message) = socket.wills[-1]
        self.assertEqual(channel, "websocket.disconnect")
        self.assertEqual((message["path"], message["code"]), ("/path", 1006))
        self.assertEqual(
            (message["root_path"], message[protocol.SESSION]), ("/prefix", {"room": "a"})
        )

    def test_who_asks_whether_the_client_is_there_gets_an_answer(self):
        socket, question = self.socket(), protocol.told_on("window")
        socket.do(socket.state.reply(question))
        self.assertEqual(socket.sent[-1], ("window", protocol.written(0)))
        socket.do(socket.state.gone(1006))
        socket.do(socket.state.reply(question))
        self.assertEqual(socket.sent[-1], ("window", protocol.closed()))

    def test_no_disconnect_for_a_socket_that_the_site_denied(self):
        self.assertEqual(self.disconnects(self.socket().done({"close": True})), [])
        self.assertEqual(self.disconnects(self.socket().done().reply(accept=False)), [])


class OrderTests(unittest.TestCase):
    def test_one_event_at_a_time(self):
        socket = Socket().opened().frame("a").frame("b")
        self.assertEqual([message["text"] for _, message in socket.sent], ["a"])
        socket.done()
        self.assertEqual([message["text"] for _, message in socket.sent], ["a", "b"])
        self.assertEqual([message["order"] for _, message in socket.sent], [1, 2])

    def test_frames_that_come_with_the_handshake_wait_for_connect(self):
        socket = Socket().answer(accept=True)
        socket.frame("early")
        self.assertEqual(len(socket.sent), 1)
        socket.done()
        self.assertEqual(socket.sent[1][1]["text"], "early")

    def test_what_waits_goes_out_together_in_order(self):
        socket = Socket().opened().frame("a").frame("b").frame(None, b"c").frame("d")
        socket.done()
        _, message = socket.sent[-1]
        self.assertEqual(
            message["frames"],
            [
                {"text": "b", "order": 2},
                {"bytes": b"c", "order": 3},
                {"text": "d", "order": 4},
            ],
        )
        self.assertEqual(message[protocol.EVENT_ID], 4)
        self.assertNotIn("text", message)
        socket.done()
        socket.frame("e")
        self.assertEqual(socket.sent[-1][1]["order"], 5)

    def test_a_batch_has_a_bound(self):
        socket = Socket().opened().frame("a")
        for _ in range(3):
            socket.frame("x" * 300 * 1024)
        socket.done()
        self.assertEqual(socket.sent[-1][1]["order"], 2)
        self.assertNotIn("frames", socket.sent[-1][1])

    def test_disconnect_comes_after_the_last_frame(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.do(socket.state.gone(1001))
        self.assertEqual(socket.state.phase, CLOSING)
        socket.done()
        self.assertEqual(socket.sent[-1][1]["text"], "b")
        socket.done()
        channel, message = socket.sent[-1]
        self.assertEqual(channel, "websocket.disconnect")
        self.assertEqual((message["code"], message["order"], message["path"]), (1001, 3, "/path"))
        self.assertTrue(socket.state.over)
        socket.do(socket.state.gone(1006))
        self.assertEqual(len(socket.sent), 3)

    def test_an_answer_to_another_event_changes_nothing(self):
        socket = Socket().opened().frame("a").frame("b")
        for other in (0, 7):
            socket.do(socket.state.reply(protocol.ack(other, [{"text": "late"}])))
        self.assertEqual((len(socket.sent), socket.written), (1, []))

    def test_the_session_travels(self):
        socket = Socket()
        socket.done({"accept": True}, channel_session={"set": {"a": 1, "b": 2}, "removed": []})
        socket.frame("x")
        self.assertEqual(socket.sent[-1][1]["channel_session"], {"a": 1, "b": 2})
        # A consumer on another channel changes it meanwhile.
        socket.reply(channel_session={"set": {"c": 3}, "removed": ["a"]})
        socket.done(channel_session={"set": {"b": 4}, "removed": []})
        socket.do(socket.state.gone(1000))
        self.assertEqual(socket.sent[-1][1]["channel_session"], {"b": 4, "c": 3})


class BoundTests(unittest.TestCase):
    def test_a_socket_is_not_read_while_too_much_waits(self):
        socket = Socket().opened().frame("first")
        while socket.state.reading:
            socket.frame("more")
        self.assertEqual(len(socket.state._frames.waiting), frames.MAX_WAITING)
        socket.done()
        self.assertTrue(socket.state.reading)

    def test_a_socket_that_its_server_has_closed_is_read_to_its_end(self):
        socket = Socket().opened().frame("first")
        while socket.state.reading:
            socket.frame("more")
        waiting = len(socket.state._frames.waiting)
        socket.state.read_to_end()
        self.assertTrue(socket.state.reading)
        socket.frame("last")
        self.assertEqual(len(socket.state._frames.waiting), waiting + 1)

    def test_heavy_frames_count_by_weight(self):
        socket = Socket().opened().frame("first")
        socket.frame("x" * 600 * 1024)
        self.assertTrue(socket.state.reading)
        socket.frame("x" * 600 * 1024)
        self.assertFalse(socket.state.reading)

    def test_a_frame_that_fits_no_message_closes_the_socket(self):
        for frame in (("x" * 10 * 1024 * 1024, None), (None, b"x" * 10 * 1024 * 1024)):
            socket = Socket().opened().frame(*frame)
            self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1009}])
            self.assertEqual(socket.counted, ["frames_too_big"])
            self.assertEqual([channel for channel, _ in socket.sent], ["websocket.disconnect"])

    def test_a_client_that_does_not_read_others_messages_is_closed(self):
        socket = Socket().opened()
        for _ in range(websocket.MAX_UNREAD):
            socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.counted, [])
        socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.counted, ["slow_clients"])
        self.assertEqual(socket.written[-1], {"type": "websocket.close", "code": 1013})
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_client_that_reads_is_not_closed(self):
        socket = Socket().opened()
        for _ in range(3 * websocket.MAX_UNREAD):
            socket.do(socket.state.group({"text": "news"}))
            socket.do(socket.state.written(socket.written.pop(), websocket.OTHERS))
        self.assertEqual(socket.counted, [])

    def test_a_client_that_does_not_read_its_answers_gets_no_more_frames_handled(self):
        for answers in (
            [{"text": "answer"}] * websocket.MAX_UNREAD,
            [{"bytes": b"x" * websocket.MAX_UNREAD_WEIGHT}],
        ):
            socket = Socket().opened().frame("a")
            socket.done(*answers)
            socket.frame("b").frame("c")
            self.assertEqual(len(socket.sent), 1)
            socket.read()
            sent = [text for _, message in socket.sent[1:] for text in texts_of(message)]
            self.assertEqual(sent[0], "b")
            socket.done().done()
            sent = [text for _, message in socket.sent[1:] for text in texts_of(message)]
            self.assertEqual(sent, ["b", "c"])

    def test_one_answer_less_does_not_stop_a_client(self):
        for answers in (
            [{"text": "answer"}] * (websocket.MAX_UNREAD - 1),
            [{"bytes": b"x" * (websocket.MAX_UNREAD_WEIGHT - 1)}],
        ):
            socket = Socket().opened().frame("a")
            socket.done(*answers)
            socket.frame("b")
            self.assertEqual(len(socket.sent), 2)

    def test_reading_what_others_sent_does_not_continue_a_stopped_client(self):
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "answer"}] * websocket.MAX_UNREAD)
        socket.frame("b")
        socket.do(socket.state.group({"text": "news"}))
        socket.do(socket.state.written({"text": "news"}, websocket.OTHERS))
        self.assertEqual(len(socket.sent), 1)

    def test_a_client_that_leaves_with_unread_answers_gets_its_disconnect(self):
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "answer"}] * (websocket.MAX_UNREAD + 1))
        socket.do(socket.state.gone(1001))
        self.assertEqual(socket.channels, ["websocket.receive", "websocket.disconnect"])
        self.assertTrue(socket.discarded)
        self.assertTrue(socket.finished)
        self.assertTrue(socket.state.over)

    def test_its_waiting_frames_are_handled_before_that_disconnect(self):
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "answer"}] * websocket.MAX_UNREAD)
        socket.frame("b")
        socket.do(socket.state.gone(1001))
        self.assertEqual(socket.channels, ["websocket.receive"] * 2)
        socket.done()
        self.assertEqual(socket.channels[-1], "websocket.disconnect")

    def test_frames_of_a_client_that_takes_nothing_more_are_handled_and_answers_dropped(self):
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "answer"}] * websocket.MAX_UNREAD)
        for number in range(frames.MAX_WAITING):
            socket.frame(str(number))
        self.assertFalse(socket.state.reading)
        del socket.written[:]
        socket.do(socket.state.cut_off())
        self.assertTrue(socket.state.reading)
        socket.frame("the last")
        while texts_of(socket.sent[-1][1])[-1] != "the last":
            self.assertGreater(len(socket.sent), 1)
            socket.done(*[{"text": "answer"}] * 2 * websocket.MAX_UNREAD)
        handled = [text for _, message in socket.sent for text in texts_of(message)]
        self.assertEqual(handled, ["a", *map(str, range(frames.MAX_WAITING)), "the last"])
        socket.do(socket.state.group({"text": "news"})).reply(text="other code")
        self.assertEqual((socket.written, socket.counted), ([], []))
        socket.do(socket.state.gone(1006)).done()
        self.assertEqual(socket.channels[-1], "websocket.disconnect")

    def test_a_consumer_that_awaits_its_sends_learns_that_nothing_more_is_taken(self):
        for before in (False, True):
            with self.subTest(before=before):
                socket = Socket().opened().frame("a")
                send = {protocol.WINDOW_CHANNEL: "window", protocol.REPLIES: [{"text": "x"}]}
                if before:
                    socket.do(socket.state.cut_off())
                socket.do(socket.state.reply(send))
                if not before:
                    socket.do(socket.state.cut_off())
                self.assertEqual(socket.sent[-1], ("window", protocol.closed()))

    def test_unread_messages_of_others_are_bounded_by_weight_too(self):
        socket = Socket().opened()
        half = "x" * (websocket.MAX_UNREAD_WEIGHT // 2)
        for text in (half, half[1:], "x"):
            socket.do(socket.state.group({"text": text}))
        self.assertEqual(socket.counted, [])
        socket.do(socket.state.group({"bytes": b"one more"}))
        self.assertEqual(socket.counted, ["slow_clients"])
        self.assertTrue(socket.discarded)

    def test_weight_that_was_read_no_longer_counts(self):
        socket = Socket().opened()
        for _ in range(5):
            socket.do(socket.state.group({"bytes": b"x" * (websocket.MAX_UNREAD_WEIGHT // 2)}))
            socket.read(websocket.OTHERS)
        self.assertEqual(socket.counted, [])

    def test_the_answers_of_its_own_consumers_never_close_a_socket(self):
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "x" * 10000}] * (3 * websocket.MAX_UNREAD))
        self.assertEqual((socket.counted, socket.state.phase), ([], OPEN))
        self.assertEqual(len(socket.written), 3 * websocket.MAX_UNREAD)

    def test_messages_of_others_and_answers_are_counted_apart(self):
        socket = Socket().opened().frame("a")
        for _ in range(websocket.MAX_UNREAD - 1):
            socket.do(socket.state.group({"text": "news"}))
        socket.done(*[{"text": "answer"}] * (websocket.MAX_UNREAD - 1))
        socket.frame("b")
        self.assertEqual((socket.counted, len(socket.sent)), ([], 2))

    def test_the_heaviest_frame_that_fits_is_handled(self):
        text = "x" * (frames.MAX_FRAME - 2)  # two bytes more, as JSON would weigh it
        self.assertEqual(Socket().opened().frame(text).channels, ["websocket.receive"])
        self.assertEqual(Socket().opened().frame(text + "x").counted, ["frames_too_big"])

    def test_a_batch_fills_its_bound_exactly(self):
        half = "x" * (frames.MAX_BATCH_WEIGHT // 2 - 2)
        socket = Socket().opened().frame("a").frame(half).frame(half).frame("z")
        socket.done()
        batch = socket.sent[-1][1][protocol.FRAMES]
        self.assertEqual([frame["order"] for frame in batch], [2, 3])
        socket.done()
        self.assertEqual(socket.sent[-1][1]["text"], "z")

    def test_frames_that_were_sent_make_room_by_their_weight(self):
        socket = Socket().opened().frame("a")
        socket.frame("x" * 600 * 1024).frame("x" * 600 * 1024)
        self.assertFalse(socket.state.reading)
        socket.done()
        self.assertTrue(socket.state.reading)

    def test_a_close_makes_room(self):
        for frame in ("b", "x" * 600 * 1024):
            socket = Socket().opened().frame("a")
            while socket.state.reading:
                socket.frame(frame)
            socket.reply(close=True)
            self.assertTrue(socket.state.reading)

    def test_a_socket_is_not_read_once_the_weight_is_reached(self):
        socket = Socket().opened().frame("a")
        half = "x" * (frames.MAX_WAITING_WEIGHT // 2 - 2)
        self.assertTrue(socket.frame(half).state.reading)
        self.assertFalse(socket.frame(half).state.reading)

    def test_each_message_that_is_read_makes_room_for_one(self):
        socket = Socket().opened()
        for _ in range(websocket.MAX_UNREAD):
            socket.do(socket.state.group({"text": "news"}))
        socket.do(socket.state.written({"type": "websocket.accept"}, None))
        socket.do(socket.state.written(socket.written[0], websocket.OTHERS))
        socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.counted, [])
        socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.counted, ["slow_clients"])

    def test_group_messages_before_the_handshake_are_bounded_and_in_order(self):
        socket = Socket()
        for number in range(handshake.MAX_BUFFERED + 2):
            socket.do(socket.state.group({"text": str(number)}))
        self.assertEqual(socket.counted, ["group_full"] * 2)
        socket.done({"accept": True})
        texts = [event.get("text") for event in socket.written]
        self.assertEqual(texts, [None] + [str(each) for each in range(handshake.MAX_BUFFERED)])
        self.assertEqual(socket.state.phase, OPEN)

    def test_a_full_channel(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.refused("websocket.receive"))
        self.assertEqual(socket.counted, ["refused"])
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1013}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_full_channel_in_the_handshake(self):
        socket = Socket()
        socket.do(socket.state.refused("websocket.connect"))
        self.assertEqual(
            socket.written,
            [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1013}],
        )
        # The site got no connect event, so it gets no disconnect.
        self.assertEqual(len(socket.sent), 1)


class EndTests(unittest.TestCase):
    def test_close_from_the_site(self):
        for close, code in ((True, 1000), (4321, 4321)):
            socket = Socket().opened().reply(close=close)
            self.assertEqual(socket.written, [{"type": "websocket.close", "code": code}])
            self.assertTrue(socket.finished)
            self.assertEqual(socket.sent[-1][1]["code"], code)

    def test_after_a_close_nothing_is_written_or_handled(self):
        socket = Socket().opened().frame("a").frame("never")
        socket.done({"text": "bye", "close": True}, {"text": "late"})
        self.assertEqual(socket.types, ["websocket.send", "websocket.close"])
        self.assertEqual(
            [channel for channel, _ in socket.sent], ["websocket.receive", "websocket.disconnect"]
        )
        socket.frame("later").reply(text="later").reply(close=True)
        socket.done()
        socket.frame("later")
        self.assertEqual((len(socket.written), len(socket.sent)), (2, 2))

    def test_frames_before_the_handshake_is_answered_are_ignored(self):
        socket = Socket().done()
        socket.frame("early")
        self.assertEqual(socket.channels, ["websocket.connect"])

    def test_a_consumer_that_raises_closes_with_1011(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.done({"text": "before"}, error=True)
        self.assertEqual(socket.written[-1], {"type": "websocket.close", "code": 1011})
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_lost_worker_closes_with_1011(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.lost(1)
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1011}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")
        self.assertEqual(socket.counted, ["lost"])
        # An answer that comes after all is too late.
        socket.do(socket.state.reply(protocol.ack(1, [{"text": "late"}])))
        self.assertEqual(len(socket.written), 1)

    def test_a_layer_that_lost_its_data_closes_with_1012(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.reset())
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1012}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_reply_of_the_wrong_type_is_logged_and_not_sent(self):
        socket = Socket().opened().frame("a").done({"text": b"bytes"}, {"text": "fine"})
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "fine"}])
        self.assertIn("must be str", socket.logged[0])

    def test_a_close_code_that_cannot_be_sent_is_logged_and_1011_goes_out(self):
        for code in ("4000", 999, 1004, 1005, 1006, 1015, 2000, 5000, 4000.0, [1]):
            with self.subTest(code=code):
                socket = Socket().opened().done({"close": code})
                self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1011}])
                self.assertIn("isn't a close code", socket.logged[0])

    def test_unknown_keys_are_ignored(self):
        socket = Socket().opened().reply(unknown=1).reply(text="x", other=2)
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "x"}])

    def test_every_code_that_may_be_sent_is_sent(self):
        for code in [*range(1000, 1004), *range(1007, 1015), 3000, 4000, 4999]:
            with self.subTest(code=code):
                socket = Socket().opened().frame("a").done({"close": code})
                self.assertEqual(socket.written, [{"type": "websocket.close", "code": code}])
                self.assertEqual(socket.logged, [])
                self.assertEqual(socket.sent[-1][1]["code"], code)

    def test_a_stale_loss_closes_nothing(self):
        socket = Socket().opened().frame("a")
        socket.done()
        socket.lost(1)  # of the frame that was handled
        socket.frame("b").lost(1)
        self.assertEqual((socket.written, socket.counted), ([], []))
        self.assertEqual(socket.channels, ["websocket.receive"] * 2)
        socket.done()
        self.assertEqual(socket.state.phase, OPEN)

    def test_a_loss_while_no_event_is_in_flight_closes_nothing(self):
        socket = Socket().opened()
        socket.lost(0)
        self.assertEqual((socket.state.phase, socket.counted), (OPEN, []))

    def test_a_loss_after_the_client_has_gone_is_followed_by_the_disconnect(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.gone(1001))
        socket.lost(1)
        self.assertEqual(socket.written, [])
        self.assertEqual(
            (socket.channels[-1], socket.sent[-1][1]["code"]), ("websocket.disconnect", 1001)
        )
        self.assertTrue(socket.state.over)

    def test_a_loss_in_the_handshake_denies_it_and_is_followed_by_the_disconnect(self):
        socket = Socket().lost(0)
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1011}])
        self.assertEqual(socket.channels, ["websocket.connect", "websocket.disconnect"])

    def test_a_reset_in_the_handshake_denies_it_without_a_disconnect(self):
        socket = Socket()
        socket.do(socket.state.reset())
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1000}])
        self.assertEqual(socket.counted, ["denied"])
        self.assertTrue(socket.finished and socket.state.over)
        socket.do(socket.state.reply(protocol.ack(0, [{"accept": True}])))
        socket.do(socket.state.gone(1006))
        socket.do(socket.state.reply(protocol.session_patch({"set": {"a": 1}, "removed": []})))
        socket.lost(0)
        self.assertEqual((len(socket.written), socket.channels), (1, ["websocket.connect"]))
        self.assertEqual((socket.wills, socket.counted), ([], ["denied"]))

    def test_a_reset_after_the_last_will_was_sent_sends_no_second_disconnect(self):
        for texts in ((), ("a", "b")):
            socket = Socket().opened()
            for text in texts:
                socket.frame(text)
            del socket.sent[:]
            socket.do(socket.state.reset(True))
            self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1012}])
            socket.do(socket.state.gone(1006))
            self.assertEqual((socket.sent, socket.state.over), ([], True))

    def test_a_reset_after_the_close_is_followed_by_the_disconnect(self):
        socket = Socket().opened().frame("a").reply(close=True)
        socket.do(socket.state.reset())
        self.assertEqual(socket.types, ["websocket.close"])
        self.assertEqual(socket.sent[-1][1]["code"], 1000)
        self.assertTrue(socket.state.over)

    def test_a_handshake_that_timed_out_is_logged_and_its_disconnect_says_1006(self):
        socket = Socket().done()
        socket.do(socket.state.timeout())
        self.assertIn("/path was not accepted in time", socket.logged[0])
        self.assertEqual(socket.sent[-1][1]["code"], 1006)
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1000}])
        socket.reply(accept=True)
        self.assertEqual(len(socket.written), 1)

    def test_a_timeout_waits_for_the_connect_event_in_flight(self):
        socket = Socket()
        socket.do(socket.state.timeout())
        self.assertEqual(socket.channels, ["websocket.connect"])
        socket.done({"accept": True})
        self.assertEqual(socket.channels[-1], "websocket.disconnect")
        self.assertEqual(socket.types, ["websocket.close"])

    def test_an_end_without_a_code_says_1006(self):
        socket = Socket().opened()
        socket.do(socket.state.gone())
        self.assertEqual(socket.sent[-1][1]["code"], 1006)

    def test_an_end_after_the_close_keeps_the_code_of_the_close(self):
        socket = Socket().opened().frame("a").reply(close=4000)
        socket.do(socket.state.gone(1001))
        socket.done()
        self.assertEqual(socket.sent[-1][1]["code"], 4000)
        self.assertFalse(socket.discarded)

    def test_the_end_of_a_client_discards_what_it_has_not_read(self):
        socket = Socket().opened()
        socket.do(socket.state.gone(1001))
        self.assertTrue(socket.discarded and socket.finished)

    def test_text_wins_over_bytes(self):
        socket = Socket().opened().reply(text="x", bytes=b"y")
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "x"}])

    def test_a_reply_without_data_to_an_open_socket_writes_nothing(self):
        self.assertEqual(Socket().opened().reply(accept=True).reply(text=None).written, [])

    def test_a_refused_frame_is_not_handled_when_the_client_has_gone(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.gone(1001))
        socket.do(socket.state.refused("websocket.receive"))
        self.assertEqual((socket.written, socket.sent[-1][1]["code"]), ([], 1001))


class ReplyTests(unittest.TestCase):
    def test_replies_ahead_of_the_ack_are_written_and_leave_the_event_in_flight(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.do(socket.state.reply(protocol.replies([{"text": "early"}])))
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "early"}])
        self.assertEqual(len(socket.sent), 1)
        socket.done()
        self.assertEqual(len(socket.sent), 2)

    def test_replies_come_before_the_error_that_follows_them(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.reply(protocol.ack(1, [{"text": "x"}], error=True)))
        self.assertEqual(socket.types, ["websocket.send", "websocket.close"])

    def test_an_ack_without_replies_lets_the_next_event_go(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.do(socket.state.reply(protocol.ack(1)))
        self.assertEqual([message.get("text") for _, message in socket.sent], ["a", "b"])

    def test_each_event_has_the_path_the_reply_channel_and_its_number(self):
        socket = Socket().opened().frame("a")
        expected = {"path": "/path", "text": "a", "order": 1}
        expected.update({protocol.REPLY_CHANNEL: "gateway.test!1", protocol.EVENT_ID: 1})
        self.assertEqual(socket.sent, [("websocket.receive", expected)])
        socket.done()
        socket.do(socket.state.gone(1000))
        expected = {"path": "/path", "code": 1000, "order": 2}
        expected.update({protocol.REPLY_CHANNEL: "gateway.test!1", protocol.EVENT_ID: 2})
        self.assertEqual(socket.sent[-1], ("websocket.disconnect", expected))

    def test_an_event_has_its_own_copy_of_the_session(self):
        patch = {"set": {"a": 1}, "removed": []}
        socket = Socket()
        socket.done({"accept": True}, **protocol.session_patch(patch))
        socket.frame("x")
        sent = socket.sent[-1][1][protocol.SESSION]
        socket.do(socket.state.reply(protocol.session_patch({"set": {"b": 2}, "removed": ["a"]})))
        self.assertEqual((sent, socket.state.session), ({"a": 1}, {"b": 2}))

    def test_a_session_that_is_empty_does_not_travel(self):
        self.assertNotIn(protocol.SESSION, Socket().opened().frame("x").sent[0][1])

    def test_the_last_will_follows_each_change_of_the_session(self):
        socket = Socket()
        socket.done({"accept": True}, **protocol.session_patch({"set": {"a": 1}, "removed": []}))
        socket.do(socket.state.reply(protocol.session_patch({"set": {}, "removed": ["a"]})))
        name, channel, message = socket.wills[0]
        self.assertEqual((name, channel), ("gateway.test!1", "websocket.disconnect"))
        self.assertEqual(message[protocol.SESSION], {"a": 1})
        self.assertNotIn(protocol.SESSION, socket.wills[1][2])
        socket.reply(text="x")
        self.assertEqual(len(socket.wills), 2)

    def test_a_socket_without_a_connect_event_leaves_no_will(self):
        socket = Recorder(WebSocket("gateway.test!1", "/path"))
        socket.do(socket.state.reply(protocol.session_patch({"set": {"a": 1}, "removed": []})))
        self.assertEqual(socket.wills, [])

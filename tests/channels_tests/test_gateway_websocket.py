"""The states of a WebSocket, without a server: events in, actions out."""

import unittest

from django.channels.gateway import websocket
from django.channels.gateway.websocket import CLOSED, CLOSING, CONNECTING, OPEN, WebSocket

from .recorder import Recorder


class Socket(Recorder):
    """A WebSocket whose actions are kept, sorted by what they ask for."""

    def __init__(self, **handshake):
        super().__init__(WebSocket("gateway.test!1", "/path"))
        self.do(self.state.connect(dict(handshake, path="/path")))

    def opened(self):
        """With the handshake answered, and nothing kept of it."""
        self.do(self.state.reply({"replies": [{"accept": True}], "done": 0}))
        del self.sent[:], self.written[:]
        return self

    def frame(self, text=None, data=None):
        return self.do(self.state.frame(text, data))

    @property
    def types(self):
        return [event["type"] for event in self.written]


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
                        "reply_channel": "gateway.test!1",
                        "exchange": 0,
                    },
                )
            ],
        )
        self.assertEqual(socket.state.phase, CONNECTING)

    def test_accept(self):
        socket = Socket().reply(accept=True)
        self.assertEqual(socket.written, [{"type": "websocket.accept"}])
        self.assertEqual(socket.state.phase, OPEN)

    def test_accept_with_a_subprotocol(self):
        socket = Socket(subprotocols=["chat.v1", "chat.v2"])
        socket.reply(accept=True, subprotocol="chat.v2")
        self.assertEqual(socket.written, [{"type": "websocket.accept", "subprotocol": "chat.v2"}])

    def test_a_subprotocol_that_was_not_offered_is_left_out(self):
        for subprotocol in ("chat.v2", "chat\r\nset-cookie: admin=1", 5, ["chat"]):
            with self.subTest(subprotocol=subprotocol):
                socket = Socket(subprotocols=["chat"])
                socket.reply(accept=True, subprotocol=subprotocol)
                self.assertEqual(socket.written, [{"type": "websocket.accept"}])
                self.assertIn("the client did not offer it", socket.logged[0])

    def test_data_accepts(self):
        socket = Socket().reply(text="")
        self.assertEqual(
            socket.written, [{"type": "websocket.accept"}, {"type": "websocket.send", "text": ""}]
        )

    def test_data_and_close_accept_send_and_close(self):
        socket = Socket().done({"bytes": b"x", "close": 4001})
        self.assertEqual(socket.types, ["websocket.accept", "websocket.send", "websocket.close"])
        self.assertEqual(socket.written[-1]["code"], 4001)

    def test_close_and_accept_false_deny(self):
        for reply in ({"close": True}, {"accept": False}, {"accept": False, "text": "x"}):
            with self.subTest(reply=reply):
                socket = Socket().done(reply)
                self.assertEqual(socket.types, ["websocket.close"])
                self.assertTrue(socket.finished)
                self.assertEqual(socket.counted, ["denied"])
                # Who was denied was never there: no disconnect is owed.
                socket.do(socket.state.gone(1006))
                self.assertEqual(len(socket.sent), 1)
                self.assertEqual(socket.state.phase, CLOSED)

    def test_the_answer_may_come_after_the_consumer_has_ended(self):
        socket = Socket().done()
        self.assertEqual(socket.written, [])
        socket.reply(accept=True)
        self.assertEqual(socket.types, ["websocket.accept"])

    def test_a_group_message_accepts_nobody(self):
        socket = Socket()
        socket.do(socket.state.group({"text": "news"}))
        self.assertEqual(socket.written, [])
        socket.done({"accept": True})
        self.assertEqual(socket.types, ["websocket.accept", "websocket.send"])
        denied = Socket()
        denied.do(denied.state.group({"text": "news"}))
        denied.done({"close": True})
        self.assertEqual(denied.types, ["websocket.close"])

    def test_nobody_answers(self):
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


class OrderTests(unittest.TestCase):
    def test_one_event_at_a_time(self):
        socket = Socket().opened().frame("a").frame("b")
        self.assertEqual([message["text"] for _, message in socket.sent], ["a"])
        socket.done()
        self.assertEqual([message["text"] for _, message in socket.sent], ["a", "b"])
        self.assertEqual([message["order"] for _, message in socket.sent], [1, 2])

    def test_frames_that_come_with_the_handshake_wait_for_connect(self):
        socket = Socket().reply(accept=True)
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
        self.assertEqual(message["exchange"], 4)
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
        socket.reply(done=0).reply(done=7)
        self.assertEqual(len(socket.sent), 1)

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
        self.assertEqual(len(socket.state._waiting), websocket.MAX_WAITING)
        socket.done()
        self.assertTrue(socket.state.reading)

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
        socket = Socket().opened().frame("a")
        socket.done(*[{"text": "answer"}] * (websocket.MAX_UNREAD + 1))
        socket.frame("b").frame("c")
        self.assertEqual(len(socket.sent), 1)
        for event in socket.written:
            socket.do(socket.state.written(event, websocket.OWN))
        self.assertEqual([frame["text"] for frame in socket.sent[1][1]["frames"]], ["b", "c"])

    def test_a_full_channel(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.refused("websocket.receive"))
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1013}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_full_channel_in_the_handshake(self):
        socket = Socket()
        socket.do(socket.state.refused("websocket.connect"))
        self.assertEqual(
            socket.written,
            [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1013}],
        )
        # The site never heard of it, so it hears of no end either.
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
        self.assertEqual(len(socket.written), 2)

    def test_a_consumer_that_raises_closes_with_1011(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.done({"text": "before"}, error=True)
        self.assertEqual(socket.written[-1], {"type": "websocket.close", "code": 1011})
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_lost_worker_closes_with_1011(self):
        socket = Socket().opened().frame("a").frame("b")
        socket.reply(lost=1)
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1011}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")
        self.assertEqual(socket.counted, ["lost"])
        # Its answer, should it come all the same, is too late.
        socket.reply(done=1, replies=[{"text": "late"}])
        self.assertEqual(len(socket.written), 1)

    def test_a_layer_that_lost_its_data_closes_with_1012(self):
        socket = Socket().opened().frame("a")
        socket.do(socket.state.reset())
        self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1012}])
        self.assertEqual(socket.sent[-1][0], "websocket.disconnect")

    def test_a_reply_of_the_wrong_type_is_logged_and_harms_nobody(self):
        socket = Socket().opened().frame("a").done({"text": b"bytes"}, {"text": "fine"})
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "fine"}])
        self.assertIn("must be str", socket.logged[0])

    def test_a_close_code_that_cannot_be_sent_is_logged_and_1011_goes_out(self):
        for code in ("4000", 999, 1005, 1006, 1015, 2000, 5000, 4000.0, [1]):
            with self.subTest(code=code):
                socket = Socket().opened().done({"close": code})
                self.assertEqual(socket.written, [{"type": "websocket.close", "code": 1011}])
                self.assertIn("isn't a close code", socket.logged[0])

    def test_unknown_keys_are_ignored(self):
        socket = Socket().opened().reply(unknown=1).reply(text="x", other=2)
        self.assertEqual(socket.written, [{"type": "websocket.send", "text": "x"}])

"""The states of an HTTP request, without a server: events in, actions out."""

import unittest

from django.channels.gateway import http
from django.channels.gateway.http import Request

from .recorder import Recorder

OK = {"status": 200, "headers": [[b"X-Test", b"yes"]], "content": b"hello", "more_content": False}


class Client(Recorder):
    """A Request whose actions are kept, sorted by what they ask for."""

    def __init__(self, more_body=False):
        super().__init__(Request("gateway.test!1", "/path"))
        self.do(self.state.request({"path": "/path", "body": b""}, more_body, lambda: "body?x"))

    def write(self, event, note):
        self.written.append((event, note))

    def drain(self):
        """The server takes everything that was written."""
        written, self.written = self.written, []
        for event, note in written:
            self.do(self.state.written(event, note))
        return self

    @property
    def status(self):
        return self.written[0][0]["status"] if self.written else None

    @property
    def body(self):
        return b"".join(event.get("body", b"") for event, _ in self.written)


class ResponseTests(unittest.TestCase):
    def test_the_request_goes_out_as_an_exchange(self):
        client = Client()
        channel, message = client.sent[0]
        self.assertEqual(channel, "http.request")
        self.assertEqual(message["reply_channel"], "gateway.test!1")
        self.assertEqual(message["exchange"], 0)
        self.assertNotIn("body_channel", message)

    def test_a_response_in_one_message(self):
        client = Client().done(OK)
        self.assertEqual(
            [event for event, _ in client.written],
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"x-test", b"yes")]},
                {"type": "http.response.body", "body": b"hello", "more_body": False},
            ],
        )
        self.assertTrue(client.finished)
        self.assertTrue(client.state.over)
        client.reply(**OK)
        self.assertEqual(len(client.written), 2)

    def test_a_response_in_parts(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.reply(content=b"b", more_content=True)
        self.assertFalse(client.finished)
        client.reply(content=b"c")
        self.assertEqual(client.body, b"abc")
        self.assertTrue(client.finished)

    def test_a_long_poll_is_answered_after_its_consumer(self):
        client = Client().done()
        self.assertFalse(client.finished)
        client.reply(**OK)
        self.assertTrue(client.finished)

    def test_a_group_message_answers_a_long_poll(self):
        client = Client().done()
        client.do(client.state.group(OK))
        self.assertEqual(client.body, b"hello")

    def test_a_group_message_is_an_answer_and_nothing_else(self):
        client = Client()
        client.do(client.state.group({"done": 0, "lost": 0, "error": True, "body_credit": 9}))
        client.do(client.state.group({"channel_session": {"set": {"_auth_user_id": "1"}}}))
        self.assertEqual(
            (client.state.in_flight, client.state.session, client.written), (0, {}, [])
        )
        client.do(client.state.group(dict(OK, window_channel="window?x")))
        client.drain()
        self.assertEqual(len(client.sent), 1)

    def test_a_window_is_told_what_was_written(self):
        client = Client()
        client.reply(status=200, content=b"a", more_content=True, window_channel="window?x")
        client.reply(content=b"b", more_content=True)
        del client.sent[:]
        client.drain()
        self.assertEqual(client.sent, [("window?x", {"written": 1})] * 2)
        client.reply(content=b"c").drain()
        self.assertEqual(len(client.sent), 2)

    def test_bad_heads_are_told_in_the_log_and_answered_with_500(self):
        for reply, text in (
            ({"content": b"no status"}, "has no 'status'"),
            ({"status": "200"}, "has the status '200'"),
            ({"status": 99}, "has the status 99"),
            ({"status": 200, "headers": [("text", "text")]}, "isn't a [name, value] of bytes"),
            ({"status": 200, "headers": [[b"lonely"]]}, "isn't a [name, value] of bytes"),
            ({"status": 101}, "has the status 101"),
            ({"status": 200, "headers": 5}, "they must be a list"),
        ):
            with self.subTest(reply=reply):
                client = Client().done(reply)
                self.assertEqual(client.status, 500)
                self.assertIn(text, client.logged[0])
                self.assertNotIn(b"status'", client.body)

    def test_no_header_becomes_two(self):
        for name, value in (
            (b"location", b"/\r\nset-cookie: admin=1"),
            (b"location", b"/\nset-cookie: admin=1"),
            (b"location", b"/\0"),
            (b"x: y\r\nset-cookie", b"admin=1"),
            (b"x y", b""),
            (b"x:", b""),
            (b"", b"x"),
        ):
            with self.subTest(name=name, value=value):
                client = Client().done({"status": 302, "headers": [[name, value]]})
                self.assertEqual(client.status, 500)
                self.assertNotIn(b"admin", repr(client.written).encode())
                self.assertIn("a character that no header may have", client.logged[0])
        client = Client().done({"status": 200, "headers": [[b"X-\x60'9", "caf\xe9\t".encode()]]})
        self.assertEqual(client.status, 200)

    def test_content_that_is_no_bytes_cuts_the_response(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.reply(content="text", more_content=True)
        self.assertIn("must be bytes", client.logged[0])
        self.assertTrue(client.finished)
        self.assertEqual(client.body, b"a")


class BodyTests(unittest.TestCase):
    def test_the_rest_of_a_body_has_a_channel(self):
        client = Client(more_body=True)
        self.assertEqual(client.sent[0][1]["body_channel"], "body?x")
        client.do(client.state.body(b"more", True)).do(client.state.body(b"last", False))
        self.assertEqual(
            client.sent[1:],
            [
                ("body?x", {"content": b"more", "more_content": True}),
                ("body?x", {"content": b"last", "more_content": False}),
            ],
        )

    def test_no_more_of_a_body_is_read_than_its_window(self):
        client = Client(more_body=True)
        for _ in range(http.BODY_WINDOW):
            self.assertTrue(client.state.reading)
            client.do(client.state.body(b"x", True))
        self.assertFalse(client.state.reading)
        client.reply(body_credit=1)
        self.assertTrue(client.state.reading)

    def test_a_body_that_nobody_needs_is_not_sent(self):
        client = Client(more_body=True).done(OK)
        del client.sent[:]
        client.do(client.state.body(b"late", True))
        self.assertEqual(client.sent, [])


class EndTests(unittest.TestCase):
    def test_gone_before_the_answer(self):
        client = Client(more_body=True)
        client.do(client.state.gone())
        self.assertEqual(client.sent[1:], [("body?x", {"closed": True})])
        self.assertFalse(client.state.over)
        client.done(OK)
        self.assertEqual(client.written, [])
        self.assertEqual(
            client.sent[-1],
            (
                "http.disconnect",
                {"path": "/path", "reply_channel": "gateway.test!1", "exchange": 1},
            ),
        )
        self.assertTrue(client.state.over)

    def test_gone_in_a_stream(self):
        client = Client()
        client.reply(status=200, content=b"a", more_content=True, window_channel="window?x")
        client.do(client.state.gone())
        self.assertIn(("window?x", {"closed": True}), client.sent)
        client.done()
        self.assertEqual(client.sent[-1][0], "http.disconnect")

    def test_gone_after_the_answer_is_nothing(self):
        client = Client().done(OK)
        client.do(client.state.gone())
        self.assertEqual(len(client.sent), 1)

    def test_a_lost_worker(self):
        client = Client().reply(lost=0)
        self.assertEqual(client.status, 502)
        self.assertEqual(client.counted, ["lost"])
        client.done(OK)
        self.assertEqual(len(client.written), 2)

    def test_a_lost_worker_in_a_stream_cuts_it(self):
        client = Client().reply(status=200, content=b"a", more_content=True).reply(lost=0)
        self.assertEqual(client.body, b"a")
        self.assertTrue(client.written[-1][0]["more_body"])
        self.assertTrue(client.finished)

    def test_an_error_after_the_page_of_the_site(self):
        client = Client().done({"status": 500, "content": b"sorry"}, error=True)
        self.assertEqual(client.body, b"sorry")

    def test_an_error_without_a_page(self):
        client = Client().done(error=True)
        self.assertEqual(client.status, 500)

    def test_an_error_page_does_not_land_in_a_stream(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.done({"status": 500, "content": b"sorry"}, error=True)
        self.assertEqual(client.body, b"a")
        self.assertTrue(client.finished)

    def test_a_full_channel(self):
        client = Client()
        client.do(client.state.refused("http.request"))
        self.assertEqual(client.status, 503)
        self.assertIn((b"retry-after", b"1"), client.written[0][0]["headers"])
        self.assertEqual(client.counted, ["refused"])

    def test_a_request_whose_client_left_before_there_was_room_is_forgotten(self):
        for event in (lambda state: state.refused("http.request"), lambda state: state.reset()):
            client = Client()
            client.do(client.state.gone())
            self.assertFalse(client.state.over)
            client.do(event(client.state))
            self.assertTrue(client.state.over)
            self.assertEqual([channel for channel, _ in client.sent], ["http.request"])

    def test_a_body_that_finds_no_room_does_not_end_the_exchange(self):
        client = Client(more_body=True)
        client.do(client.state.gone())
        client.do(client.state.refused("body?x"))
        client.done()
        self.assertEqual(client.sent[-1][0], "http.disconnect")
        self.assertTrue(client.state.over)

    def test_a_layer_that_lost_its_data(self):
        client = Client()
        client.do(client.state.reset())
        self.assertEqual(client.status, 502)

    def test_nobody_reads_a_stream_without_a_window(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        for _ in range(http.MAX_UNREAD):
            client.reply(content=b"a", more_content=True)
        self.assertEqual(client.counted, ["slow_clients", "responses_cut"])
        self.assertTrue(client.finished)

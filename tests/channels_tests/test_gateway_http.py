"""The states of an HTTP request, without a server: events in, actions out."""

import unittest

from django.channels import protocol
from django.channels.gateway import http
from django.channels.gateway.http import Request

from .recorder import Recorder

OK = {"status": 200, "headers": [[b"X-Test", b"yes"]], "content": b"hello", "more_content": False}


def with_lengths(*values):
    """Return the first message of a response with these headers Content-Length."""
    return {"status": 200, "headers": [[b"Content-Length", each] for each in values]}


class Client(Recorder):
    """A Request whose actions are kept."""

    def __init__(self, more_body=False, method="GET"):
        super().__init__(Request("gateway.test!1", "/path"))
        message = {"method": method, "path": "/path", "body": b""}
        self.do(self.state.request(message, more_body, lambda: "body?x"))

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
    def test_the_request_is_an_event_in_flight(self):
        client = Client()
        channel, message = client.sent[0]
        self.assertEqual(channel, "http.request")
        self.assertEqual(message[protocol.REPLY_CHANNEL], "gateway.test!1")
        self.assertEqual(message[protocol.EVENT_ID], 0)
        self.assertNotIn(protocol.BODY_CHANNEL, message)
        self.assertEqual((client.state.in_flight, client.state.over), (0, False))

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

    def test_a_long_poll_is_answered_after_its_consumer_has_ended(self):
        client = Client().done()
        self.assertFalse(client.finished)
        client.reply(**OK)
        self.assertTrue(client.finished)

    def test_a_group_message_answers_a_long_poll(self):
        client = Client().done()
        client.do(client.state.group(dict(OK, more_content=True)))
        client.do(client.state.group({"content": b" world"}))
        self.assertEqual(client.body, b"hello world")
        self.assertTrue(client.finished)

    def test_a_group_message_is_an_answer_and_nothing_else(self):
        client = Client()
        control = {protocol.LOST: 0, protocol.BODY_CREDIT: 9}
        client.do(client.state.group(dict(protocol.ack(0, error=True), **control)))
        patch = {"set": {"_auth_user_id": "1"}, "removed": []}
        client.do(client.state.group(protocol.session_patch(patch)))
        self.assertEqual(
            (client.state.in_flight, client.state.session, client.written), (0, {}, [])
        )
        client.do(client.state.group(dict(OK, window_channel="window?x")))
        client.drain()
        self.assertEqual(len(client.sent), 1)

    def test_a_window_learns_what_may_follow(self):
        """In the middle of the window, so that the worker need not wait."""
        client = Client()
        client.reply(status=200, content=b"a", more_content=True, window_channel="window?x")
        del client.sent[:]
        client.drain().do(client.state.credit())
        self.assertEqual((client.state.owed, client.sent), (1, []))
        for _ in range(4):
            client.reply(content=b"b", more_content=True)
        self.assertEqual((client.state.owed, client.sent), (5, []))
        client.do(client.state.credit())
        self.assertEqual((client.state.owed, client.sent), (0, [("window?x", {"written": 5})]))
        client.reply(content=b"c", more_content=True).reply(content=b"d")
        client.do(client.state.credit())
        self.assertEqual((client.state.owed, len(client.sent)), (0, 1))

    def test_a_response_tells_its_size(self):
        client = Client()
        head = {"status": 200, "headers": [[b"Content-Length", b"4"]]}
        window = {"window_channel": "window?x", "more_content": True}
        client.reply(content=b"ab", **head, **window)
        self.assertEqual(client.state.size, 4)
        client = Client()
        client.reply(status=200, content=b"ab", **window).reply(content=b"cde", more_content=True)
        self.assertEqual(client.state.size, 5)

    def test_a_client_that_is_too_slow_is_cut_off(self):
        """Also if its worker has finished, and the rest waits here."""
        for more in (True, False):
            client = Client()
            client.reply(status=200, content=b"a", more_content=True, window_channel="window?x")
            client.reply(content=b"b", more_content=more)
            client.do(client.state.too_slow())
            self.assertEqual(client.counted, ["slow_clients", "responses_cut"])
            self.assertTrue(client.discarded and client.aborted and client.finished)
            self.assertEqual(("window?x", protocol.closed()) in client.sent, more)

    def test_a_bad_head_is_logged_and_answered_with_500(self):
        for reply, text in (
            ({"content": b"no status"}, "has no 'status'"),
            ({"status": "200"}, "has the status '200'"),
            ({"status": 99}, "has the status 99"),
            ({"status": 200, "headers": [("text", "text")]}, "isn't a [name, value] of bytes"),
            ({"status": 200, "headers": [[b"lonely"]]}, "isn't a [name, value] of bytes"),
            ({"status": 101}, "has the status 101"),
            (with_lengths(b"abc"), "has the Content-Length 'abc'"),
            (with_lengths(b"-1"), "has the Content-Length '-1'"),
            (with_lengths(b"+5"), "has the Content-Length '+5'"),
            (with_lengths(b"\xb2"), "has the Content-Length '\xb2'"),
            (with_lengths(b""), "has the Content-Length ''"),
            (with_lengths(b"1", b"2"), "has the Content-Length '1, 2'"),
            (with_lengths(b"9" * 19), "isn't one number"),
            ({"status": 200, "headers": 5}, "they must be a list"),
        ):
            with self.subTest(reply=reply):
                client = Client().done(reply)
                self.assertEqual(client.status, 500)
                self.assertIn(text, client.logged[0])
                self.assertNotIn(b"status'", client.body)

    def test_a_header_cannot_become_two(self):
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

    def test_content_that_is_not_bytes_is_answered_with_500(self):
        for content in ("text", None, 5, [b"x"]):
            client = Client().done({"status": 200, "content": content})
            self.assertEqual(client.status, 500)
            self.assertIn("must be bytes", client.logged[0])

    def test_no_more_leaves_than_the_content_length(self):
        head = {"status": 200, "headers": [[b"content-length", b" 3 "]]}
        whole = [dict(head, content=b"abcdef")]
        parts = [dict(head, content=b"ab", more_content=True), {"content": b"cdef"}]
        endless = parts[:1] + [{"content": b"cdef", "more_content": True}, {"content": b"g"}]
        for replies in (whole, parts, endless):
            client = Client(more_body=True)
            for each in replies:
                client.reply(**each)
            self.assertEqual(client.body, b"abc")
            self.assertTrue(client.finished)
            self.assertEqual(len(client.logged), 1)
            self.assertIn("longer than its Content-Length", client.logged[0])
            self.assertIn(("body?x", protocol.closed()), client.sent)

    def test_a_stream_longer_than_its_content_length_is_told_to_stop(self):
        client = Client()
        window = {protocol.WINDOW_CHANNEL: "window?x"}
        client.reply(content=b"ab", more_content=True, **with_lengths(b"3"), **window)
        client.reply(content=b"cdef", more_content=True, **window)
        self.assertEqual((client.body, client.finished), (b"abc", True))
        self.assertEqual(client.sent[1:], [("window?x", protocol.closed())])

    def test_less_than_the_content_length_is_an_error(self):
        head = {"status": 200, "headers": [[b"content-length", b"9"]]}
        client = Client().done(dict(head, content=b"abc"))
        self.assertEqual(client.status, 500)
        self.assertIn("shorter than its Content-Length", client.logged[0])
        client = Client().reply(content=b"abc", more_content=True, **head).reply(content=b"def")
        self.assertTrue(client.aborted and client.finished)
        self.assertEqual(client.body, b"abc")
        self.assertIn("shorter than its Content-Length", client.logged[0])

    def test_no_content_leaves_where_none_may_follow(self):
        length = [[b"content-length", b"9"]]
        for method, status, left in (("HEAD", 200, 1), ("GET", 304, 0), ("GET", 204, 0)):
            for content in (b"", b"x"):
                client = Client(method=method)
                client.done({"status": status, "headers": length, "content": content})
                self.assertEqual((client.status, client.body, client.logged), (status, b"", []))
                self.assertEqual(len(client.written[0][0]["headers"]), left)

    def test_the_server_alone_says_how_a_body_is_framed(self):
        client = Client().done(dict(OK, headers=[[b"Transfer-Encoding", b"chunked"]]))
        self.assertEqual(client.written[0][0]["headers"], [])

    def test_content_that_is_not_bytes_cuts_the_response(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.reply(content="text", more_content=True)
        self.assertIn("must be bytes", client.logged[0])
        self.assertTrue(client.finished)
        self.assertEqual(client.body, b"a")

    def test_a_reply_for_a_socket_does_not_end_a_response_that_has_begun(self):
        for reply in ({"close": True}, {"text": "x"}, {"bytes": b"x"}, {"accept": True}):
            with self.subTest(reply=reply):
                client = Client().reply(status=200, content=b"a", more_content=True).done(reply)
                self.assertIn("for WebSockets", client.logged[0])
                self.assertEqual((client.finished, client.counted), (True, ["responses_cut"]))
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
        for _ in range(http.FIRST_BODY_WINDOW):
            self.assertTrue(client.state.reading)
            client.do(client.state.body(b"x", True))
        self.assertFalse(client.state.reading)
        client.reply(body_credit=1)
        for _ in range(http.BODY_WINDOW):
            self.assertTrue(client.state.reading)
            client.do(client.state.body(b"x", True))
        self.assertFalse(client.state.reading)
        client.reply(body_credit=1)
        self.assertTrue(client.state.reading)

    def test_a_body_is_not_sent_after_the_response(self):
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
                {
                    "path": "/path",
                    protocol.REPLY_CHANNEL: "gateway.test!1",
                    protocol.EVENT_ID: 1,
                },
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

    def test_gone_before_the_first_part_of_a_stream(self):
        client = Client()
        client.do(client.state.gone())
        client.reply(status=200, content=b"a", more_content=True, window_channel="window?x")
        self.assertIn(("window?x", {"closed": True}), client.sent)
        self.assertIn("window?x", client.state.channels)  # which the gateway drops at the end
        self.assertEqual(client.written, [])

    def test_an_end_after_the_answer_sends_no_disconnect(self):
        client = Client().done(OK)
        client.do(client.state.gone())
        self.assertEqual(len(client.sent), 1)

    def test_a_lost_worker(self):
        client = Client().lost(0)
        self.assertEqual(client.status, 502)
        self.assertEqual(client.counted, ["lost"])
        client.done(OK)
        self.assertEqual(len(client.written), 2)

    def test_a_layer_that_is_away_too_long_answers_502_and_a_late_answer_is_dropped(self):
        client = Client()
        client.do(client.state.unreachable())
        self.assertEqual((client.status, client.finished), (502, True))
        written = list(client.written)
        client.done(OK)
        self.assertEqual(client.written, written)
        self.assertEqual(client.state.unreachable(), [])

    def test_a_layer_that_is_away_cuts_no_stream_and_ends_no_long_poll(self):
        client = Client().done()  # its consumer has ended without an answer
        self.assertEqual(client.state.unreachable(), [])
        client = Client()
        client.do(client.state.reply(dict(OK, more_content=True)))
        self.assertEqual(client.state.unreachable(), [])

    def test_a_lost_worker_in_a_stream_cuts_it(self):
        client = Client().reply(status=200, content=b"a", more_content=True).lost(0)
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

    def test_a_body_part_that_finds_no_room_leaves_the_request_in_flight(self):
        client = Client(more_body=True)
        client.do(client.state.gone())
        client.do(client.state.refused("body?x"))
        self.assertEqual(client.state.in_flight, 0)
        client.done()
        self.assertEqual(client.sent[-1][0], "http.disconnect")
        self.assertTrue(client.state.over)

    def test_a_layer_that_lost_its_data(self):
        client = Client()
        client.do(client.state.reset())
        self.assertEqual(client.status, 502)

    def test_a_client_that_reads_no_part_of_a_long_poll_is_cut_off(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        for _ in range(http.MAX_UNREAD):
            client.reply(content=b"a", more_content=True)
        self.assertEqual(client.counted, ["slow_clients", "responses_cut"])
        self.assertTrue(client.finished)

    def test_a_stale_ack_leaves_the_request_in_flight(self):
        client = Client()
        client.do(client.state.gone())
        client.do(client.state.reply(protocol.ack(7)))
        self.assertEqual(client.channels, ["http.request"])
        client.do(client.state.reply(protocol.ack(0)))
        self.assertEqual(client.channels, ["http.request", "http.disconnect"])

    def test_a_stale_loss_answers_nothing(self):
        client = Client().lost(7)
        self.assertEqual((client.written, client.counted, client.state.in_flight), ([], [], 0))
        client.done()
        client.lost(0)
        self.assertEqual((client.written, client.counted), ([], []))

    def test_a_loss_after_the_client_has_gone_is_followed_by_the_disconnect(self):
        client = Client()
        client.do(client.state.gone())
        client.lost(0)
        self.assertEqual((client.written, client.counted), ([], ["lost"]))
        self.assertEqual(client.channels[-1], "http.disconnect")

    def test_the_end_of_a_gateway_is_told_to_a_site_that_may_know_of_the_client(self):
        ways = {
            "it runs": lambda client: client.do(client.state.begun()),
            "it answers later": lambda client: client.done(),
            "it streams": lambda client: client.reply(status=200, content=b"a", more_content=True),
            "its client has gone": lambda client: client.do(
                client.state.gone() + client.state.begun()
            ),
        }
        for name, begin in ways.items():
            with self.subTest(name):
                client = Client()
                client.state.root_path = "/prefix"
                self.assertEqual(client.wills, [])
                begin(client)
                ((will, channel, message),) = client.wills
                self.assertEqual((will, channel), ("gateway.test!1", "http.disconnect"))
                expected = {
                    "reply_channel": "gateway.test!1",
                    "path": "/path",
                    "root_path": "/prefix",
                }
                self.assertEqual(message, expected)
                client.do(client.state.begun())
                self.assertEqual(len(client.wills), 1)

    def test_a_request_that_is_answered_at_once_leaves_no_last_will(self):
        client = Client().reply(**OK).done()
        client.do(client.state.begun())
        self.assertEqual(client.wills, [])
        self.assertEqual(Client().done(OK).wills, [])

    def test_a_changed_session_is_in_the_last_will(self):
        client = Client()
        client.do(client.state.begun())
        client.done(**protocol.session_patch({"set": {"a": 1}, "removed": []}))
        self.assertEqual(client.wills[-1][2][protocol.SESSION], {"a": 1})

    def test_a_layer_that_lost_the_last_will_brings_the_disconnect_once(self):
        for told in (False, True):
            with self.subTest(told=told):
                client = Client().done()
                client.do(client.state.reset(told))
                self.assertEqual(client.status, 502)
                client.do(client.state.gone())
                self.assertEqual(client.channels[1:], [] if told else ["http.disconnect"])
                self.assertTrue(client.state.over)

    def test_who_asks_whether_the_client_is_there_gets_an_answer(self):
        client, question = Client(), protocol.told_on("window?x")
        client.do(client.state.reply(question))
        self.assertEqual(client.channels, ["http.request"])  # the first one names the channel
        client.do(client.state.reply(question))
        self.assertEqual(client.sent[-1], ("window?x", protocol.written(0)))
        client.do(client.state.gone())
        client.do(client.state.reply(question))
        self.assertEqual(client.sent[-1], ("window?x", protocol.closed()))

    def test_the_session_travels_to_the_disconnect(self):
        client = Client()
        client.do(client.state.gone())
        client.done(**protocol.session_patch({"set": {"a": 1}, "removed": []}))
        self.assertEqual(client.sent[-1][1][protocol.SESSION], {"a": 1})

    def test_the_end_of_a_client_discards_what_it_has_not_read(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.do(client.state.gone())
        self.assertTrue(client.discarded and client.finished)
        self.assertFalse(client.aborted)

    def test_a_refused_part_of_a_body_answers_503_and_closes_the_body(self):
        client = Client(more_body=True)
        client.do(client.state.refused("body?x"))
        self.assertEqual((client.status, client.counted), (503, ["refused"]))
        self.assertEqual(client.sent[-1], ("body?x", protocol.closed()))

    def test_a_cut_response_is_aborted_and_its_writer_told(self):
        client = Client()
        window = {protocol.WINDOW_CHANNEL: "window?x"}
        client.reply(status=200, content=b"a", more_content=True, **window)
        client.reply(**{protocol.ERROR: True})
        self.assertTrue(client.aborted and client.finished)
        self.assertEqual(client.counted, ["responses_cut"])
        self.assertEqual(client.sent[-1], ("window?x", protocol.closed()))
        client.reply(**{protocol.ERROR: True})
        self.assertEqual(client.counted, ["responses_cut"])

    def test_an_error_page_is_complete(self):
        for fail, status in (
            (lambda client: client.done(error=True), 500),
            (lambda client: client.lost(0), 502),
            (lambda client: client.do(client.state.refused("http.request")), 503),
            (lambda client: client.do(client.state.reset()), 502),
        ):
            client = Client()
            fail(client)
            (start, start_note), (body, body_note) = client.written
            self.assertEqual((start["type"], start["status"]), ("http.response.start", status))
            self.assertIn((b"content-type", b"text/html; charset=utf-8"), start["headers"])
            self.assertEqual((b"retry-after", b"1") in start["headers"], status == 503)
            self.assertEqual((body["type"], body["more_body"]), ("http.response.body", False))
            self.assertIn(str(status).encode(), body["body"])
            self.assertEqual((start_note, body_note), (None, None))
            self.assertTrue(client.finished and not client.aborted)
            counted = list(client.counted)
            # Later replies and losses change nothing.
            client.reply(**OK).reply(content=b"late", more_content=True).lost(0)
            self.assertEqual((len(client.written), client.counted), (2, counted))
            self.assertTrue(client.state.over)


class BoundTests(unittest.TestCase):
    def test_statuses_from_200_to_999_are_sent(self):
        for status, sent in ((199, 500), (200, 200), (999, 999), (1000, 500), (True, 500)):
            self.assertEqual(Client().done({"status": status}).status, sent)

    def test_a_client_that_reads_is_never_cut_off(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        for _ in range(http.MAX_UNREAD - 1):
            client.reply(content=b"a", more_content=True)
        self.assertFalse(client.finished)
        client.drain()
        for _ in range(http.MAX_UNREAD):
            client.reply(content=b"a", more_content=True)
        self.assertEqual((client.counted, client.discarded), ([], False))
        client.reply(content=b"a", more_content=True)
        self.assertEqual(client.counted, ["slow_clients", "responses_cut"])
        self.assertTrue(client.discarded and client.aborted)

    def test_a_stream_with_a_window_is_bounded_by_its_window_alone(self):
        client = Client()
        window = {protocol.WINDOW_CHANNEL: "window?x"}
        client.reply(status=200, content=b"a", more_content=True, **window)
        for _ in range(http.MAX_UNREAD + 1):
            client.reply(content=b"a", more_content=True)
        self.assertEqual(client.counted, [])

    def test_a_credit_allows_so_many_parts(self):
        client = Client(more_body=True)
        for _ in range(http.BODY_WINDOW):
            client.do(client.state.body(b"x", True))
        client.reply(unknown=1)
        self.assertFalse(client.state.reading)
        client.do(client.state.reply(protocol.body_credit(2)))
        for reading in (True, True, False):
            self.assertEqual(client.state.reading, reading)
            client.do(client.state.body(b"x", True))

    def test_replies_ahead_of_the_ack_leave_the_request_in_flight(self):
        client = Client()
        client.do(client.state.reply(protocol.replies([{"status": 200, "more_content": True}])))
        self.assertEqual((client.status, client.state.in_flight), (200, 0))

    def test_only_the_first_message_of_a_response_names_its_window(self):
        client = Client().reply(status=200, content=b"a", more_content=True)
        client.reply(content=b"b", more_content=True, **{protocol.WINDOW_CHANNEL: "window?x"})
        client.drain()
        self.assertEqual(client.channels, ["http.request"])
        self.assertEqual([will[0] for will in client.wills], ["gateway.test!1"])

    def test_the_end_is_told_to_who_reads_the_body_and_writes_the_stream(self):
        client = Client(more_body=True)
        window = {protocol.WINDOW_CHANNEL: "window?x"}
        client.reply(status=200, content=b"a", more_content=True, **window)
        wills = [will[0] for will in client.wills]
        self.assertEqual(wills, ["body?x", "window?x", "gateway.test!1"])
        client.do(client.state.gone())
        closed = [("body?x", protocol.closed()), ("window?x", protocol.closed())]
        self.assertEqual(client.sent[-2:], closed)
        client.do(client.state.gone())
        self.assertEqual(len(client.sent), 3)

    def test_a_message_that_is_not_an_answer_writes_nothing(self):
        client = Client().reply(unknown=1)
        self.assertEqual((client.written, client.logged), ([], []))

"""Test clients warn of replies that a gateway would not pass on; channels.test.refused decides."""

import warnings

from django.channels import route
from django.channels.gateway.http import Request
from django.channels.gateway.state import LOG, WRITE
from django.channels.gateway.websocket import WebSocket
from django.channels.test import ChannelTestCase, WSClient, apply_routes

WELL = [
    {"text": "x"},
    {"text": ""},
    {"bytes": b"x"},
    {"text": "x", "close": True},
    {"close": True},
    {"close": 1000},
    {"close": 4403},
    {"close": False},
    {"other": "of a consumer that isn't for sockets"},
]

REFUSED = [
    {"text": 5},
    {"text": {"a": 1}},
    {"text": b"x"},
    {"bytes": "x"},
    {"bytes": [1]},
    {"text": "x", "bytes": b"x"},
    {"close": 99},
    {"close": 1006},
    {"close": "4000"},
    {"close": 5000},
    {"text": "x", "close": 2000},
]

RESPONSES = [
    {"status": 200, "content": b"x", "headers": []},
    {"status": 204},
    {"content": b"x", "more_content": True},
    {"status": 200, "headers": [[b"content-length", b"1"]], "content": b"x"},
]

REFUSED_RESPONSES = [
    {"status": "200", "content": b""},
    {"status": 100},
    {"status": 200, "content": "x"},
    {"status": 200, "headers": [["a", "b"]]},
    {"status": 200, "headers": {"a": "b"}},
    {"status": 200, "headers": [[b"a", b"b\r\nc: d"]]},
    {"status": 200, "headers": [[b"content-length", b"x"]]},
    {"content": "x"},
]


def is_error(actions):
    return any(action[:2] == (LOG, "error") for action in actions)


class RefusedReplyTests(ChannelTestCase):
    def warnings_of(self, channel, reply):
        """Return what is warned of when a client receives `reply`, and check that it gets it anyway."""
        with apply_routes(route(channel, lambda message: message.reply_channel.send(reply))):
            client = WSClient()
            client.send_and_consume(channel, path="/chat/")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.assertEqual(client.receive(json=False), reply.get("text", reply))
        return [each for each in caught if issubclass(each.category, RuntimeWarning)]

    def check(self, channel, reply, is_refused):
        with self.subTest(reply=reply):
            found = self.warnings_of(channel, reply)
            self.assertEqual(bool(found), is_refused, [str(each.message) for each in found])
            for each in found:
                self.assertIn("/chat/", str(each.message))
                self.assertEqual(each.filename, __file__)

    def test_frames_are_judged_as_by_a_gateway(self):
        for reply in WELL + REFUSED:
            socket = WebSocket("gateway.x!1", "/")
            socket.connect({})
            socket.reply({"accept": True, "replies": [{"accept": True}]})
            self.assertEqual(is_error(socket.reply({"replies": [reply]})), reply in REFUSED)
            self.check("websocket.receive", reply, reply in REFUSED)

    def test_responses_are_judged_as_by_a_gateway(self):
        for reply in RESPONSES + REFUSED_RESPONSES:
            request = Request("gateway.x!1", "/")
            if "status" not in reply:
                request.reply({"status": 200, "content": b"", "more_content": True})
            refused = reply in REFUSED_RESPONSES
            self.assertEqual(is_error(request.reply(dict(reply))), refused, reply)
            self.check("http.request", reply, refused)

    def test_what_follows_a_close_is_warned_of(self):
        for replies, late in (
            ([{"close": True}, {"text": "x"}], 1),
            ([{"text": "x", "close": 4000}, {"bytes": b"x"}, {"text": "x"}], 2),
            ([{"close": 4403}, {"close": True}], 0),
            ([{"close": False}, {"text": "x"}], 0),
            ([{"text": "x"}, {"close": True}], 0),
        ):
            with self.subTest(replies=replies):
                # The gateway doesn't write them.
                socket = WebSocket("gateway.x!1", "/")
                socket.connect({})
                actions = socket.reply({"accept": True, "replies": [{"accept": True}] + replies})
                frames = sum("text" in each or "bytes" in each for each in replies)
                written = [each[1]["type"] for each in actions if each[0] == WRITE]
                self.assertEqual(written.count("websocket.send"), frames - late)

                def consumer(message, replies=replies):
                    for each in replies:
                        message.reply_channel.send(each)

                client = WSClient()
                with apply_routes(route("websocket.receive", consumer)):
                    client.send_and_consume("websocket.receive", path="/chat/")
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    for each in replies:
                        self.assertEqual(client.receive(json=False), each.get("text", each))
                found = [
                    each for each in caught if "after the one that closes" in str(each.message)
                ]
                self.assertEqual(len(found), late)
                self.assertEqual({each.filename for each in found}, {__file__} if late else set())

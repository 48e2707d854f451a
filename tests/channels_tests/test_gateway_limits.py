"""What a gateway refuses before it reaches the layer, whatever the server lets pass."""

import asyncio
import unittest

from django.channels import route
from django.channels.gateway.advice import Advice
from django.channels.gateway.limits import Limits, make_limits
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.routing import null_consumer
from django.core.exceptions import ImproperlyConfigured

from .support.waiting import TIMEOUT
from .test_silence import Lines

HUGE = b"x" * (20 * 1024 * 1024)


def accept(message):
    message.reply_channel.send({"accept": True})


def answer(message):
    message.reply_channel.send({"status": 200, "content": b"served"})


class Recorder(MemoryChannelLayer):
    """A layer that notes the channel of each event."""

    def __init__(self, **options):
        super().__init__(threads=1)
        self.alias = "test"
        self.routing = [route("websocket.connect", accept), route("http.request", answer)]
        self.routing += [route("websocket.receive", null_consumer)]
        self.gateway_options = options
        self.events = []

    def _put(self, channel, message, *args, **kwargs):
        if "!" not in channel:
            self.events.append(channel)
        return super()._put(channel, message, *args, **kwargs)


def scope_of(kind, path="/", **keys):
    scope = {"type": kind, "path": path, "headers": [], "query_string": b"", "client": ["::1", 1]}
    if kind == "http":
        scope["method"] = "GET"
    return dict(scope, **keys)


async def visit(layer, scope):
    """Open a connection, and return what the server is told first."""
    events, sent = asyncio.Queue(), asyncio.Queue()
    first = "http.request" if scope["type"] == "http" else "websocket.connect"
    events.put_nowait({"type": first})

    async def send(event):
        sent.put_nowait(event)

    running = asyncio.ensure_future(layer(scope, events.get, send))
    event = await asyncio.wait_for(sent.get(), TIMEOUT)
    kind = "http" if scope["type"] == "http" else "websocket"
    events.put_nowait({"type": kind + ".disconnect"})
    await asyncio.wait_for(running, TIMEOUT)
    return event


def first_events(layer, *scopes):
    async def main():
        try:
            return [await visit(layer, scope) for scope in scopes]
        finally:
            await layer.gateway.stop()

    return asyncio.run(main())


class HeadTests(unittest.TestCase):
    def statuses(self, layer, *scopes):
        return [event.get("status", event["type"]) for event in first_events(layer, *scopes)]

    def test_large_headers_are_refused_with_431_and_reach_no_layer(self):
        layer = Recorder()
        many = [(b"x-%d" % n, b"y" * 60) for n in range(800)]
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            found = self.statuses(
                layer,
                scope_of("http", headers=[(b"x", HUGE)]),
                scope_of("http", headers=[(HUGE, b"x")]),
                scope_of("http", headers=[(b"x", b"y" * 65536)]),
                scope_of("http", headers=many),
                scope_of("http", headers=[(b"", b"")] * 3000),
            )
        self.assertEqual(found, [431] * 5)
        self.assertEqual(layer.events, [])
        self.assertEqual(layer.statistics()["requests_too_large"], 5)
        self.assertEqual(len(logs.output), 1)
        self.assertLess(len(logs.output[0]), 1000)

    def test_a_head_of_exactly_the_bounds_is_served_and_one_byte_more_is_not(self):
        def scopes(more):
            yield scope_of("http", "/" + "x" * (8191 + more))
            yield scope_of("http", "/" + "x" * (8191 + more), root_path="/site")
            yield scope_of("http", "/xxx", query_string=b"q" * (8188 + more))
            yield scope_of("http", "/", raw_path=b"/" + b"x" * (8191 + more))
            yield scope_of("http", "/" + "\u00e9" * 4000, query_string=b"q" * (191 + more))
            yield scope_of("http", headers=[(b"x-1", b"y" * (65501 + more))])
            yield scope_of("http", headers=[(b"x-1", b"y" * 32733), (b"x", b"y" * (32735 + more))])
            yield scope_of("http", method="M" * (8192 + more))

        with self.assertLogs("django.channels.gateway", "WARNING"):
            for more, expected in (
                (-1, [200] * 8),
                (0, [200] * 8),
                (1, [414] * 5 + [431] * 2 + [414]),
            ):
                with self.subTest(more=more):
                    self.assertEqual(self.statuses(Recorder(), *scopes(more)), expected)

    def test_a_long_path_or_query_is_refused_with_414(self):
        layer = Recorder()
        text = "/" + "x" * 8192
        with self.assertLogs("django.channels.gateway", "WARNING"):
            found = self.statuses(
                layer,
                scope_of("http", text),
                scope_of("http", "/" + "é" * 4100),
                scope_of("http", query_string=b"q" * 8200),
                scope_of("http", "/" + "x" * 5000, query_string=b"q" * 5000),
                scope_of("http", "/", raw_path=b"/." * 5000),
                scope_of("http", root_path=text),
                scope_of("http", method=text),
            )
        self.assertEqual(found, [414] * 7)
        self.assertEqual(layer.events, [])

    def test_a_handshake_gets_the_status_where_the_server_can_send_one(self):
        layer = Recorder()
        extensions = {"websocket.http.response": {}}
        large = [(b"cookie", HUGE)]
        with self.assertLogs("django.channels.gateway", "WARNING"):
            found = first_events(
                layer,
                scope_of("websocket", headers=large),
                scope_of("websocket", headers=large, extensions=extensions),
                scope_of("websocket", query_string=b"q" * 9000, extensions=extensions),
            )
        self.assertEqual(
            [(event["type"], event.get("status")) for event in found],
            [
                ("websocket.close", None),
                ("websocket.http.response.start", 431),
                ("websocket.http.response.start", 414),
            ],
        )
        self.assertEqual(layer.events, [])

    def test_what_is_within_the_bounds_is_served(self):
        layer = Recorder()
        found = self.statuses(
            layer,
            scope_of("http", headers=[(b"cookie", b"c" * 60000)]),
            scope_of("http", "/" + "x" * 4000, query_string=b"q" * 4000),
            scope_of("websocket", headers=[(b"cookie", b"c" * 60000)]),
        )
        self.assertEqual(found, [200, 200, "websocket.accept"])

    def test_the_bounds_are_options(self):
        layer = Recorder(headers_size=1000, target_size=100)
        with self.assertLogs("django.channels.gateway", "WARNING"):
            found = self.statuses(
                layer,
                scope_of("http", headers=[(b"cookie", b"c" * 1000)]),
                scope_of("http", "/" + "x" * 100),
            )
        self.assertEqual(found, [431, 414])


class IdleTests(unittest.TestCase):
    def test_a_silent_socket_is_closed_and_one_that_sends_is_not(self):
        layer = Recorder(idle_time=1000)

        async def main():
            sent, queues = [[], []], [asyncio.Queue(), asyncio.Queue()]
            visits = []
            for events, said in zip(queues, sent):
                events.put_nowait({"type": "websocket.connect"})

                async def send(event, said=said):
                    said.append(event["type"])

                coroutine = layer(scope_of("websocket"), events.get, send)
                visits.append(asyncio.ensure_future(coroutine))
            gateway = layer.gateway
            while not all(sent):
                await asyncio.sleep(0.001)
            gateway.idle.check()
            for connection in gateway.idle._heard_at:
                gateway.idle._heard_at[connection] -= 2000
            queues[0].put_nowait({"type": "websocket.receive", "text": "here"})
            while (
                any(each.state.in_flight is not None for each in gateway.connections.values())
                or layer.events.count("websocket.receive") < 1
            ):
                await asyncio.sleep(0.001)
            gateway.idle.check()
            while len(sent[1]) < 2:
                await asyncio.sleep(0.001)
            self.assertEqual(sent[1], ["websocket.accept", "websocket.close"])
            self.assertEqual(sent[0], ["websocket.accept"])
            self.assertEqual(layer.statistics()["silent"], 1)
            for events in queues:
                events.put_nowait({"type": "websocket.disconnect"})
            await asyncio.wait(visits)
            await gateway.stop()

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))


class OptionTests(unittest.TestCase):
    def test_no_options_are_the_defaults(self):
        self.assertEqual(make_limits(None), Limits())
        self.assertEqual(make_limits({}), Limits())

    def test_stream_paths_are_regular_expressions(self):
        (pattern,) = make_limits({"stream_paths": ["^/ingest/"]}).stream_paths
        self.assertTrue(pattern.search("/ingest/7"))
        self.assertFalse(pattern.search("/other/ingest/"))

    def test_an_option_that_is_unknown_or_out_of_range_is_refused(self):
        for options in (
            {"header_size": 1},
            {"headers_size": 0},
            {"headers_size": -1},
            {"headers_size": "1"},
            {"headers_size": True},
            {"headers_size": None},
            {"body_in_message": 800 * 1024},
            {"body_rate": 0},
            {"stream_paths": "^/"},
            {"stream_paths": ["("]},
            {"stream_paths": [1]},
            {1: 2},
            [1],
        ):
            with self.subTest(options=options), self.assertRaises(ImproperlyConfigured):
                make_limits(options)


class LostUpgradeTests(unittest.TestCase):
    """A handshake that arrives as a plain request is logged, with what lost its Upgrade."""

    def lines(self, path, *headers, times=1):
        layer = MemoryChannelLayer()
        layer.routing = [route("websocket.connect", lambda message: None, path="^/chat/$")]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        scope["headers"] = [(b"host", b"a")] + [(name, b"x") for name in headers]
        with Lines("django.channels.gateway") as lines:
            advice = Advice()
            for _ in range(times):
                advice.check_request(scope, layer)
        return lines

    def test_a_proxy_that_drops_the_upgrade_is_logged_once_a_minute(self):
        (line,) = self.lines("/chat/", b"sec-websocket-key", b"connection", times=3)
        for word in ("/chat/", "dropped the Upgrade header", "nginx in front of Django"):
            self.assertIn(word, line)

    def test_a_server_without_websockets(self):
        (line,) = self.lines("/chat/", b"sec-websocket-key", b"upgrade")
        self.assertIn("pip install websockets", line)

    def test_other_requests_are_not_logged(self):
        self.assertEqual(self.lines("/other/", b"sec-websocket-key"), [])
        self.assertEqual(self.lines("/chat/", b"connection"), [])

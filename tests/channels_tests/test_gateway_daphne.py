"""Flow control behind Daphne, without Daphne: when a producer is registered, waited for and forgotten."""

import asyncio
import functools
import unittest
from unittest import mock

from django.channels.gateway.application import Gateway
from django.channels.gateway.daphne import correct_scope, with_flow_control
from django.channels.gateway.handshake import ACCEPT_TIMEOUT
from django.test import SimpleTestCase, override_settings


class Server:
    """What Daphne's looks like to the gateway: `send` is a partial of its method."""

    __module__ = "daphne.server"
    root_path = ""

    def __init__(self):
        self.events = []

    async def handle_reply(self, protocol, event):
        self.events.append(event)


class Request:
    """A producer's consumer that refuses a second one, as Twisted's does, and can lose its connection."""

    producer = None
    lost = False
    channel = None

    def registerProducer(self, producer, streaming):
        if self.producer is not None:
            raise ValueError("registering a producer before the previous one was unregistered")
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def loseConnection(self):
        self.lost = True


class Stream:
    """That of a request over HTTP/2."""

    aborted = False

    def abortConnection(self):
        self.aborted = True


def body(content, more=True):
    return {"type": "http.response.body", "body": content, "more_body": more}


class Transport:
    pass


class TLSTransport:
    def getPeerCertificate(self):
        return None


class Socket:
    """The protocol of a WebSocket."""

    def __init__(self, transport, client_scheme=None):
        self.transport = transport
        self.client_scheme = client_scheme


class HandshakeTests(SimpleTestCase):
    def waits(self, seconds):
        """Return how long Daphne waits for a handshake, after one, if its option says `seconds`."""
        server = Server()
        server.websocket_connect_timeout = seconds
        send = functools.partial(server.handle_reply, Socket(Transport()))
        correct_scope({"type": "websocket"}, send)
        return server.websocket_connect_timeout

    def test_daphne_waits_as_long_as_the_gateway(self):
        for default in (5, 20):  # of its command, and of its Server
            self.assertGreater(self.waits(default), ACCEPT_TIMEOUT)

    def test_an_option_of_daphne_counts(self):
        for seconds in (1, 6, 60):
            self.assertEqual(self.waits(seconds), seconds)


class ScopeTests(SimpleTestCase):
    def corrected(self, protocol=None, own="", **scope):
        """Return the scope of Daphne, whose --root-path is `own`, after its correction."""
        server = Server()
        server.root_path = own
        scope = dict({"type": "http"}, **scope)
        correct_scope(scope, functools.partial(server.handle_reply, protocol or Request()))
        return scope

    def test_a_client_does_not_choose_script_name(self):
        for path in ("/evil", "javascript:alert(1)//", "//evil.example", "x", "/"):
            for own in ("", "/shop"):
                self.assertEqual(self.corrected(own=own, root_path=path)["root_path"], own)

    @override_settings(CHANNEL_DAPHNE_ROOT_PATH=True)
    def test_a_proxy_may_choose_a_path_if_the_site_says_so(self):
        for path in ("/shop", "/caf\u00e9/shop", ""):
            self.assertEqual(self.corrected(own="/own", root_path=path)["root_path"], path)
        for path in ("javascript:alert(1)//", "//evil.example", "/\\evil.example", "x", "/a\r\nb"):
            self.assertEqual(self.corrected(own="/own", root_path=path)["root_path"], "/own")

    def test_a_scope_without_a_root_path_has_that_of_the_server(self):
        for own in ("", "/shop"):
            self.assertEqual(self.corrected(own=own)["root_path"], own)

    def test_a_websocket_has_its_scheme(self):
        for protocol, scheme in (
            (Socket(Transport()), "ws"),
            (Socket(TLSTransport()), "wss"),
            (Socket(Transport(), "https"), "wss"),
            (Socket(Transport(), "http"), "ws"),
        ):
            self.assertEqual(self.corrected(protocol, type="websocket")["scheme"], scheme)

    def test_frames_are_limited_if_daphne_does_not_limit_them(self):
        for limit, expected in ((0, 1048576), (1000, 1000), (10**7, 10**7)):
            protocol = Socket(Transport())
            protocol.maxFramePayloadSize = protocol.maxMessagePayloadSize = limit
            self.corrected(protocol, type="websocket")
            self.assertEqual(protocol.maxFramePayloadSize, expected)
            self.assertEqual(protocol.maxMessagePayloadSize, expected)

    def test_the_scope_of_another_server_is_left_alone(self):
        async def send(event):
            pass

        scope = {"type": "websocket", "root_path": "/shop"}
        correct_scope(scope, send)
        self.assertEqual(scope, {"type": "websocket", "root_path": "/shop"})


class PausedTransport:
    """What a socket's transport does about reading."""

    def __init__(self):
        self.calls = []

    def pauseProducing(self):
        self.calls.append("pause")

    def resumeProducing(self):
        self.calls.append("resume")


class PingedSocket:
    """Daphne's protocol of a WebSocket."""

    last_ping = 5.0
    cancelled = False

    def __init__(self):
        self.transport = PausedTransport()
        self.autoPingTimeoutCall = self

    def cancel(self):
        self.cancelled = True


class PausedReadingTests(unittest.TestCase):
    def test_nothing_is_read_and_no_answer_to_a_ping_is_awaited_meanwhile(self):
        socket = PingedSocket()

        async def run():
            send = with_flow_control(functools.partial(Server().handle_reply, socket))
            with send.paused_reading():
                self.assertEqual(socket.transport.calls, ["pause"])
                self.assertEqual(socket.last_ping, float("inf"))
                self.assertTrue(socket.cancelled)
            self.assertEqual(socket.transport.calls, ["pause", "resume"])
            self.assertLess(socket.last_ping, float("inf"))
            with send.paused_reading():  # without a ping
                pass

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(run())


class RecordingGateway(Gateway):
    """A gateway whose requests are told, and end when `finish` has their path."""

    def __init__(self):
        self.begun = []
        self.finish = {path: asyncio.Event() for path in ("/slow", "/fast", "/other", "/gone")}

    async def _http(self, scope, receive, send):
        self.begun.append(scope["path"])
        await self.finish[scope["path"]].wait()
        if scope["path"] == "/gone":
            raise OSError("the client has gone")


class CloseTests(unittest.TestCase):
    def test_a_client_has_seconds_to_answer_a_close(self):
        # Autobahn rounds the moment down to a whole second: a second may be none.
        socket = Socket(Transport())

        async def open_socket():  # on old Pythons, an Event needs a loop
            with_flow_control(functools.partial(Server().handle_reply, socket))

        asyncio.run(open_socket())
        self.assertGreaterEqual(socket.closeHandshakeTimeout, 2)


class PipelineTests(unittest.TestCase):
    def run_requests(self, function):
        async def run():
            self.gateway, server = RecordingGateway(), Server()
            pipeline, other = object.__new__(Stream), object.__new__(Stream)

            def start(path, channel):
                request = Request()
                request.channel = channel
                send = functools.partial(server.handle_reply, request)
                scope = {"type": "http", "path": path}
                return asyncio.ensure_future(self.gateway(scope, None, send))

            await function(lambda path: start(path, pipeline), lambda path: start(path, other))

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(run())

    async def begun(self):
        for _ in range(10):
            await asyncio.sleep(0)
        return self.gateway.begun

    def test_requests_of_one_connection_are_handled_one_at_a_time(self):
        async def go(start, start_other):
            tasks = [start("/slow"), start("/gone"), start("/fast"), start_other("/other")]
            self.assertEqual(await self.begun(), ["/slow", "/other"])
            for path, begun in (("/slow", "/gone"), ("/gone", "/fast")):
                self.gateway.finish[path].set()
                self.assertEqual((await self.begun())[-1], begun)
            self.gateway.finish["/fast"].set()
            self.gateway.finish["/other"].set()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run_requests(go)


class FlowControlTests(unittest.TestCase):
    def setUp(self):
        self.server, self.request = Server(), Request()

    def run_with_send(self, function):
        async def run():
            await function(
                with_flow_control(functools.partial(self.server.handle_reply, self.request))
            )

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(run())

    def test_another_servers_send_is_left_alone(self):
        async def send(event):
            pass

        self.assertIs(with_flow_control(send), send)

    def test_a_part_waits_for_the_client(self):
        async def go(send):
            await send(body(b"1"))
            self.request.producer.pauseProducing()
            second = asyncio.ensure_future(send(body(b"2")))
            for _ in range(10):
                await asyncio.sleep(0)
            self.assertFalse(second.done())
            self.request.producer.resumeProducing()
            await second
            await send(body(b"", more=False))
            self.assertIsNone(self.request.producer)

        self.run_with_send(go)
        self.assertEqual([event["body"] for event in self.server.events], [b"1", b"2", b""])

    def test_what_is_written_after_the_client_has_gone_registers_nothing(self):
        async def go(send):
            await send(body(b"1"))
            self.request.producer.stopProducing()
            await send(body(b"2"))
            await send(body(b"", more=False))

        self.run_with_send(go)
        self.assertEqual(len(self.server.events), 3)

    def test_a_cut_loses_the_connection_and_over_http_2_the_stream(self):
        async def go(send):
            await send(body(b"1"))
            send.cut()

        self.run_with_send(go)
        self.assertTrue(self.request.lost)
        self.request = Request()
        self.request.channel = Stream()
        self.run_with_send(go)
        self.assertTrue(self.request.channel.aborted)
        self.assertFalse(self.request.lost)

    def test_a_cut_at_once_drops_what_the_client_has_not_read(self):
        async def go(send):
            await send(body(b"1"))
            send.cut(at_once=True)

        self.request.channel = mock.Mock(spec=["transport"])
        self.run_with_send(go)
        self.request.channel.transport.abortConnection.assert_called_once_with()
        self.assertFalse(self.request.lost)

"""A layer that is unavailable or full, clients that never read, and the last will of a gateway."""

import asyncio
import threading
import time
import unittest
from unittest import mock

from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.gateway import application, connection, reader, sender
from django.channels.gateway.http import Request
from django.channels.gateway.state import SET_WILL, WRITE
from django.channels.gateway.websocket import MAX_UNREAD, WebSocket
from django.channels.layers.memory import MemoryChannelLayer, MemoryInbox

from .support.waiting import TIMEOUT


def wills(actions):
    return [action[1:] for action in actions if action[0] == SET_WILL]


class LastWillTests(unittest.TestCase):
    """What the layer sends for a gateway that was lost."""

    def test_the_end_of_a_socket_has_its_session(self):
        socket = WebSocket("gateway.test!1", "/path")
        message = {"reply_channel": "gateway.test!1", "path": "/path", "code": 1006}
        self.assertEqual(
            socket.last_will(), (SET_WILL, "gateway.test!1", "websocket.disconnect", message)
        )
        socket.connect({"path": "/path"})
        actions = socket.reply(
            {
                "replies": [{"accept": True}],
                "ack": 0,
                "channel_session": {"set": {"name": "ann"}, "removed": []},
            }
        )
        expected = dict(message, channel_session={"name": "ann"})
        self.assertEqual(wills(actions), [("gateway.test!1", "websocket.disconnect", expected)])
        self.assertEqual(wills(socket.frame("text")), [])

    def test_who_reads_a_body_or_writes_a_stream_is_told(self):
        request = Request("gateway.test!1", "/path")
        actions = request.request({"path": "/path", "body": b""}, True, lambda: "body?x")
        self.assertEqual(wills(actions), [("body?x", "body?x", {"closed": True})])
        actions = request.reply(
            {"status": 200, "content": b"", "more_content": True, "window_channel": "window?x"}
        )
        self.assertIn(("window?x", "window?x", {"closed": True}), wills(actions))

    def test_a_short_request_leaves_nothing(self):
        request = Request("gateway.test!1", "/path")
        actions = request.request({"path": "/path", "body": b""}, False, None)
        actions += request.reply({"replies": [{"status": 200, "content": b""}], "ack": 0})
        self.assertEqual(wills(actions), [])


class TwiceTests(unittest.TestCase):
    def test_an_answer_that_comes_twice_is_written_once(self):
        socket = WebSocket("gateway.test!1", "/path")
        socket.connect({"path": "/path"})
        socket.reply({"replies": [{"accept": True}], "ack": 0})
        socket.frame("text")
        answer = {"replies": [{"text": "answer"}], "ack": 1}
        first = socket.reply(dict(answer))
        self.assertEqual([action[0] for action in first], [WRITE])
        self.assertEqual(socket.reply(dict(answer)), [])


class FlakyInbox(MemoryInbox):
    """Refuses messages with `error` unless that is None; `tried` counts the attempts."""

    error, tried = None, 0

    def __init__(self, *args):
        super().__init__(*args)
        self.left = []

    def group_discard(self, group, channel):
        self.left.append(group)
        super().group_discard(group, channel)

    def send(self, channel, message, failed):
        self.tried += 1
        if self.error is not None:
            failed(self.error)
        else:
            super().send(channel, message, failed)


class FlakyLayer(MemoryChannelLayer):
    def open_inbox(self, name):
        with self._lock:
            inbox = self._inboxes[name] = FlakyInbox(self, name)
        return inbox


class Server:
    """An ASGI 3 server's end of one connection; `stuck` is a client that reads nothing."""

    def __init__(self, gateway, scope):
        self.events, self.written = asyncio.Queue(), []
        self.stuck = False
        scope = dict(
            {"path": "/path", "headers": [], "query_string": b"", "method": "GET"}, **scope
        )
        self.task = asyncio.ensure_future(gateway(scope, self.events.get, self.send))

    async def send(self, event):
        if self.stuck:
            await asyncio.Event().wait()
        self.written.append(event)

    async def until_written(self, count):
        await until(lambda: len(self.written) >= count)


async def until(condition):
    deadline = asyncio.get_event_loop().time() + TIMEOUT
    while not condition():
        if asyncio.get_event_loop().time() > deadline:
            raise AssertionError("the condition did not come true in time")
        await asyncio.sleep(0.005)


class GatewayCase(unittest.TestCase):
    def run_with(self, scenario):
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(asyncio.wait_for(self._run(scenario), 3 * TIMEOUT))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _run(self, scenario):
        self.layer = FlakyLayer(threads=0)
        self.gateway = self.layer.gateway
        self.inbox = self.gateway.inbox
        try:
            with mock.patch.object(sender, "SEND_TIMEOUT", 0.05):
                await scenario()
        finally:
            with mock.patch.object(application, "SHUTDOWN_TIMEOUT", 0):
                await self.gateway.stop()

    def claim(self, channel):
        return self.layer.receive_many([channel])[1]

    async def opened(self):
        """A socket whose handshake was answered."""
        server = Server(self.gateway, {"type": "websocket"})
        server.events.put_nowait({"type": "websocket.connect"})
        await until(lambda: self.layer._queues.get("websocket.connect"))
        message = self.claim("websocket.connect")
        self.reply_channel = message["reply_channel"]
        self.layer.deliver(self.reply_channel, {"replies": [{"accept": True}], "ack": 0})
        await server.until_written(1)
        return server


class DamagedNoticeTests(GatewayCase):
    def test_a_membership_without_the_name_of_a_group_is_not_kept(self):
        """The gateway would leave that group in a batch with other messages, and the batch would fail."""
        damaged = [None, True, 1, 1.5, b"room", [], ["room"], {}, {"a": 1}]
        damaged += ["", "a b", "a!b", "\ud800", "\0", "a" * 100]

        async def scenario():
            server = await self.opened()
            with self.assertLogs("django.channels.gateway", "ERROR") as logs:
                for channel in (self.reply_channel, self.gateway.name + "gone"):
                    for group in damaged:
                        self.layer.deliver(channel, {"group_add": group})
                        self.layer.deliver(channel, {"group_discard": group})
                self.layer.deliver(self.reply_channel, {"group_add": "room"})
                await until(lambda: "room" in self.gateway.reader.groups)
            self.assertEqual(len(logs.output), 4 * len(damaged))
            self.assertIn("is not a group name", logs.output[0])
            server.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await until(lambda: not self.gateway.reader.groups)
            self.assertEqual(self.inbox.left, ["room"])
            server.task.cancel()

        self.run_with(scenario)


class FileTests(GatewayCase):
    def test_no_file_of_a_gateway_and_no_thread_for_it_outlives_the_gateway(self):
        def check(end):
            async def scenario():
                before = set(threading.enumerate())
                files = [self.gateway.room.file, self.gateway.responses.file]
                for file in files:
                    file.write([(file.take(), 0, 1)], b"x").result(TIMEOUT)
                opened = [file._file for file in files]
                threads = set(threading.enumerate()) - before
                self.assertGreaterEqual(len(threads), 2)
                ended = end(self.gateway)
                if ended is not None:
                    await ended
                for thread in threads:
                    thread.join(TIMEOUT)
                self.assertEqual([each for each in threads if each.is_alive()], [])
                self.assertTrue(all(each.closed for each in opened))

            self.run_with(scenario)

        check(lambda gateway: gateway.stop())
        check(lambda gateway: gateway.abandon())  # after its loop was closed


class MembershipTests(GatewayCase):
    def test_a_client_that_has_gone_joins_no_group_while_its_last_event_is_handled(self):
        async def scenario():
            server = await self.opened()
            server.events.put_nowait({"type": "websocket.receive", "text": "x"})
            await until(lambda: self.layer._queues.get("websocket.receive"))
            self.claim("websocket.receive")
            server.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await until(lambda: self.gateway.connections[self.reply_channel].detached)
            self.layer.deliver(self.reply_channel, {"group_add": "room"})
            await until(lambda: self.inbox.left or self.gateway.reader.groups)
            self.assertEqual((self.inbox.left, self.gateway.reader.groups), (["room"], {}))
            server.task.cancel()

        self.run_with(scenario)


class OutageTests(GatewayCase):
    def test_an_open_socket_outlives_an_outage(self):
        async def scenario():
            server = await self.opened()
            self.inbox.error = LayerUnavailable("away")
            tried = self.inbox.tried
            server.events.put_nowait({"type": "websocket.receive", "text": "hello"})
            # Far more attempts than fit into SEND_TIMEOUT.
            await until(lambda: self.inbox.tried > tried + 10)
            self.inbox.error = None
            await until(lambda: self.layer._queues.get("websocket.receive"))
            message = self.claim("websocket.receive")
            self.assertEqual(message["text"], "hello")
            # The layer may have taken the first attempt.
            self.assertEqual(message["redelivered"], "maybe")
            self.assertEqual(len(server.written), 1)
            server.task.cancel()

        self.run_with(scenario)

    def test_a_request_is_answered_in_an_outage(self):
        async def scenario():
            self.inbox.error = NotSent("away")
            server = Server(self.gateway, {"type": "http"})
            server.events.put_nowait({"type": "http.request"})
            with self.assertLogs("django.channels.gateway", "WARNING") as logs:
                await server.until_written(2)
            self.assertEqual(server.written[0]["status"], 503)
            self.assertIn("rejected with 503 or 1013: 1", logs.output[0])
            await server.task

        self.run_with(scenario)

    def test_a_request_in_flight_is_answered_in_a_long_outage(self):
        self.check_outage("failing_since")

    def test_a_request_in_flight_is_answered_if_nothing_can_be_sent_for_long(self):
        self.check_outage("unsent_since")

    def check_outage(self, since):
        """`since` is the attribute of the inbox that tells when the outage began."""

        async def scenario():
            server = Server(self.gateway, {"type": "http"})
            server.events.put_nowait({"type": "http.request"})
            await until(lambda: self.layer._queues.get("http.request"))
            socket = await self.opened()

            tried = []

            async def fail():
                tried.append(1)
                await asyncio.sleep(0)
                raise LayerUnavailable("away")

            self.gateway.reader.inbox.receive = fail
            self.gateway._reading.cancel()
            with mock.patch.object(reader, "RECONNECT_INTERVAL", 0.001):
                self.gateway._reading = asyncio.ensure_future(self.gateway.reader.run())
                with self.assertLogs("django.channels.layers", "WARNING") as logs:
                    setattr(self.inbox, since, time.monotonic())  # a short outage ends no request
                    await until(lambda: len(tried) > 3)
                    self.assertEqual(server.written, [])
                    setattr(self.inbox, since, time.monotonic() - reader.ANSWER_TIMEOUT)
                    await server.until_written(2)
            self.assertEqual(server.written[0]["status"], 502)
            self.assertEqual(len(logs.output), 1)  # however often it was tried
            self.assertEqual(len(socket.written), 1)  # it outlives the outage
            socket.task.cancel()

        self.run_with(scenario)

    def test_a_request_is_answered_while_a_layer_stays_silent(self):
        async def scenario():
            failures = [LayerUnavailable("silent")]

            async def fail_once_and_hang():
                if failures:
                    raise failures.pop()
                await asyncio.Event().wait()

            self.gateway.reader.inbox.receive = fail_once_and_hang
            self.gateway._reading.cancel()
            self.inbox.failing_since = time.monotonic() + TIMEOUT  # nothing is given up yet
            self.gateway._reading = asyncio.ensure_future(self.gateway.reader.run())
            await until(lambda: not failures)
            server = Server(self.gateway, {"type": "http"})
            server.events.put_nowait({"type": "http.request"})
            await until(lambda: self.layer._queues.get("http.request"))
            self.inbox.failing_since = time.monotonic() - reader.ANSWER_TIMEOUT
            await server.until_written(2)
            self.assertEqual(server.written[0]["status"], 502)

        self.run_with(scenario)

    def test_a_request_in_flight_outlives_an_outage_in_which_something_was_not_sent(self):
        """The layer can be read again, and nothing has been sent since then."""

        async def scenario():
            server = Server(self.gateway, {"type": "http"})
            server.events.put_nowait({"type": "http.request"})
            await until(lambda: self.layer._queues.get("http.request"))
            for each in self.gateway.connections.values():
                each.tried_at = float("-inf")  # it was sent long ago
            looks = []

            class Recovered(type(self.inbox)):
                unsent_since = time.monotonic() - 2 * reader.ANSWER_TIMEOUT

                @property
                def failing_since(self):
                    looks.append(1)
                    return None if len(looks) > 1 else time.monotonic()

            self.inbox.__class__ = Recovered
            self.gateway.reader.inbox.receive = asyncio.Event().wait
            self.gateway._reading.cancel()
            with mock.patch.object(reader, "GIVE_UP_INTERVAL", 0.001):
                self.gateway._reading = asyncio.ensure_future(self.gateway.reader.run())
                await until(lambda: len(looks) > 10)
            self.assertEqual(server.written, [])
            server.task.cancel()

        self.run_with(scenario)

    def test_turning_away_is_logged_now_and_then(self):
        async def scenario():
            with self.assertLogs("django.channels.gateway", "WARNING") as logs:
                for _ in range(50):
                    self.gateway.events.rejected.count()
                self.assertEqual(len(logs.output), 1)
                self.gateway.events.rejected.log()  # a second has passed
            self.assertEqual([each.rpartition(" ")[2] for each in logs.output], ["1", "49"])

        self.run_with(scenario)

    def test_a_client_that_never_reads_is_let_go(self):
        async def scenario():
            server = await self.opened()
            server.stuck = True
            with mock.patch.object(connection, "CLOSE_TIMEOUT", 0.02):
                for _ in range(MAX_UNREAD + 2):
                    self.layer.deliver(self.reply_channel, {"text": "x"})
                # Its end is told at once, and the server gets the socket back soon.
                await until(lambda: self.layer._queues.get("websocket.disconnect"))
                self.assertEqual(self.claim("websocket.disconnect")["code"], 1013)
                await asyncio.wait_for(server.task, TIMEOUT)
            self.assertEqual(self.layer.statistics()["slow_clients"], 1)

        self.run_with(scenario)

"""The gateway's life: its event loops, its threads, and what it does about errors around it."""

import asyncio
import re
import threading
import unittest
from unittest import mock

from django.channels import Channel, protocol, route
from django.channels.exceptions import DenyConnection
from django.channels.gateway import connection
from django.channels.gateway.application import Gateway
from django.channels.gateway.connection import Connection
from django.channels.gateway.http import Request
from django.channels.gateway.response import ResponseConnection
from django.channels.gateway.websocket import MAX_UNREAD_WEIGHT, WebSocket
from django.channels.layers.memory import MemoryChannelLayer, MemoryInbox
from django.channels.signals import worker_process_ready, worker_ready
from django.core.exceptions import ImproperlyConfigured

from .support.waiting import TIMEOUT, wait_until


class Server:
    """The server's side of one WebSocket: `send` and `receive` as an application calls them."""

    def __init__(self, path="/"):
        self.scope = {"type": "websocket", "path": path, "headers": []}
        self.events = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.sent = asyncio.Queue()
        self.receive = self.events.get

    async def send(self, event):
        self.sent.put_nowait(event)

    async def leave(self, running):
        self.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(running, TIMEOUT)


def accept(message):
    message.reply_channel.send({"accept": True})


def make_layer(threads=1, **config):
    layer = MemoryChannelLayer(threads=threads, **config)
    layer.alias = "test"
    layer.routing = [route("websocket.connect", accept)]
    return layer


async def visit(layer, server=None):
    """One WebSocket from its opening to its end."""
    server = server or Server()
    running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
    event = await asyncio.wait_for(server.sent.get(), TIMEOUT)
    await server.leave(running)
    return event


def worker_threads():
    return [each for each in threading.enumerate() if each.name.startswith("channels-worker-")]


class LoopTests(unittest.TestCase):
    def test_each_loop_has_one_gateway_however_they_alternate(self):
        layer, gateways = make_layer(), []
        loops = [asyncio.new_event_loop() for _ in range(2)]
        try:
            for loop in loops * 3:
                self.assertEqual(
                    loop.run_until_complete(visit(layer)), {"type": "websocket.accept"}
                )

                async def current():
                    return layer.gateway

                gateways.append(loop.run_until_complete(current()))
            self.assertEqual(len(set(gateways)), 2)
            self.assertEqual(gateways[:2], gateways[4:])
        finally:
            for loop, gateway in zip(loops, gateways):
                loop.run_until_complete(gateway.stop())
                loop.close()

    def test_the_threads_of_a_loop_that_was_closed_end(self):
        before = len(worker_threads())
        layer = make_layer(threads=2)
        asyncio.run(visit(layer))
        asyncio.run(visit(layer))
        wait_until(lambda: len(worker_threads()) == before + 2, "the first loop's threads to end")

        async def stop():
            await layer.gateway.stop()

        asyncio.run(stop())
        wait_until(lambda: len(worker_threads()) == before, "the others to end")

    def test_what_a_closed_loop_has_spooled_ends_with_it(self):
        before, layer = threading.active_count(), make_layer(threads=1)

        async def spool():
            gateway = layer.gateway
            for file in (gateway.responses.file, gateway.room.file):
                await asyncio.wrap_future(file.write([(file.take(), 0, 3)], b"abc"))

        async def stop():
            await layer.gateway.stop()

        asyncio.run(spool())
        asyncio.run(stop())
        wait_until(lambda: threading.active_count() <= before, "all threads to end")
        self.assertEqual(layer._inboxes, {})

    def test_receivers_of_worker_ready_may_use_the_database(self):
        # Django refuses to where an event loop runs.
        loops = []

        def receiver(**kwargs):
            loops.append(asyncio._get_running_loop())

        worker_ready.connect(receiver)
        worker_process_ready.connect(receiver)
        self.addCleanup(worker_ready.disconnect, receiver)
        self.addCleanup(worker_process_ready.disconnect, receiver)

        async def main():
            await make_layer(threads=2).gateway.stop()

        asyncio.run(main())
        self.assertEqual(loops, [None] * 3)

    def test_a_wrong_routing_leaves_nothing_behind(self):
        layer = make_layer()
        layer.routing = "no.such.routing"

        async def main():
            server = Server()
            await layer(server.scope, server.receive, server.send)

        with self.assertRaises(ImproperlyConfigured):
            asyncio.run(main())
        self.assertEqual(layer._inboxes, {})


class LifespanTests(unittest.TestCase):
    def test_startup_and_shutdown_are_answered_and_the_inbox_closed(self):
        async def main():
            layer, sent = make_layer(), []
            events = iter(["lifespan.startup", "lifespan.shutdown"])

            async def receive():
                return {"type": next(events)}

            async def send(event):
                gateway = layer.gateway
                sent.append((event["type"], gateway.inbox.name in layer._inboxes))

            await layer.gateway({"type": "lifespan"}, receive, send)
            return [name for name, _ in sent], sent[-1][1]

        names, is_open = asyncio.run(asyncio.wait_for(main(), TIMEOUT))
        self.assertEqual(names, ["lifespan.startup.complete", "lifespan.shutdown.complete"])
        self.assertFalse(is_open)

    def test_other_kinds_of_connections_are_refused(self):
        async def main():
            await make_layer().gateway({"type": "mqtt"}, None, None)

        with self.assertRaisesRegex(ValueError, "lifespan, not 'mqtt'"):
            asyncio.run(main())


class ErrorTests(unittest.TestCase):
    def test_an_error_in_the_inbox_ends_no_gateway(self):
        class BrokenInbox(MemoryInbox):
            errors = [RuntimeError("broken inbox")]

            async def receive(self):
                if self.errors:
                    raise self.errors.pop()
                return await super().receive()

        class Layer(MemoryChannelLayer):
            def open_inbox(self, name):
                inbox = self._inboxes[name] = BrokenInbox(self, name)
                return inbox

        layer = Layer(threads=1)
        layer.routing = [route("websocket.connect", accept)]

        async def main():
            gateway = layer.gateway
            self.assertEqual(await visit(layer), {"type": "websocket.accept"})
            self.assertIs(layer.gateway, gateway)
            await gateway.stop()

        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            asyncio.run(main())
        self.assertIn("broken inbox", logs.output[0])

    def test_what_a_server_refuses_is_logged(self):
        layer, timeout = make_layer(), connection.CLOSE_TIMEOUT
        connection.CLOSE_TIMEOUT = 0.01
        self.addCleanup(setattr, connection, "CLOSE_TIMEOUT", timeout)

        async def main():
            server = Server("/x\nforged")

            async def refuse(event):
                raise RuntimeError("refused event")

            await asyncio.wait_for(layer(server.scope, server.receive, refuse), TIMEOUT)
            await layer.gateway.stop()

        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            asyncio.run(main())
        self.assertIn("refused event", logs.output[0])
        self.assertIn("WebSocket /x\\nforged:", logs.output[0])

    def test_frames_of_a_client_that_has_left_are_handled_however_long_they_wait(self):
        layer, gate, numbers = make_layer(), threading.Event(), []

        def receive(message):
            numbers.append(int(message["text"]))
            message.reply_channel.send({"text": "heard"})
            if len(numbers) > 1:
                gate.wait(TIMEOUT)

        def disconnect(message):
            numbers.append("disconnect")

        layer.routing += [
            route("websocket.receive", receive),
            route("websocket.disconnect", disconnect),
        ]

        async def main():
            server = Server()

            async def send(event):
                if event["type"] == "websocket.send":
                    raise OSError("the client has gone")
                await server.send(event)

            running = asyncio.ensure_future(layer(server.scope, server.receive, send))
            await asyncio.wait_for(server.sent.get(), TIMEOUT)
            for number in range(200):  # more than two batches
                server.events.put_nowait({"type": "websocket.receive", "text": str(number)})
            asyncio.get_event_loop().call_later(20 * connection.CLOSE_TIMEOUT, gate.set)
            await server.leave(running)
            await layer.gateway.stop()

        with mock.patch.object(connection, "CLOSE_TIMEOUT", 0.01):
            asyncio.run(main())
        self.assertEqual(numbers, list(range(200)) + ["disconnect"])

    def test_a_client_that_leaves_with_unread_answers_ends_however_many_frames_wait(self):
        """The gateway had stopped reading it until it would read its answers."""
        layer, numbers = make_layer(), []

        def receive(message):
            numbers.append(int(message["text"]))
            message.reply_channel.send({"text": "x" * (MAX_UNREAD_WEIGHT // 8)})

        def disconnect(message):
            numbers.append("disconnect")

        layer.routing += [
            route("websocket.receive", receive),
            route("websocket.disconnect", disconnect),
        ]

        async def main():
            server, left = Server(), asyncio.Event()

            async def send(event):
                if event["type"] == "websocket.send":
                    await left.wait()  # the client reads nothing
                    raise OSError("the client has gone")
                await server.send(event)

            running = asyncio.ensure_future(layer(server.scope, server.receive, send))
            await asyncio.wait_for(server.sent.get(), TIMEOUT)
            for number in range(200):
                server.events.put_nowait({"type": "websocket.receive", "text": str(number)})
            (client,) = layer.gateway.connections.values()
            while client.state.reading or client.state.in_flight is not None:
                await asyncio.sleep(0.005)
            self.assertLess(len(numbers), 100)
            left.set()
            await server.leave(running)
            self.assertEqual(layer.gateway.unread.used, 0)
            await layer.gateway.stop()

        asyncio.run(asyncio.wait_for(main(), 2 * TIMEOUT))
        self.assertEqual(numbers, list(range(200)) + ["disconnect"])

    def test_a_path_cannot_write_lines_of_its_own_into_the_log(self):
        async def main():
            gateway = Gateway(make_layer(threads=0))
            state = WebSocket(gateway.name + "1", "/x\nforged")
            Connection(gateway, state, None).perform(state.timeout())
            await gateway.stop()

        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            asyncio.run(main())
        self.assertIn("/x\\nforged was not accepted", " ".join(logs.output))


class ConnectionTests(unittest.TestCase):
    def write(self, refuse, code):
        """Close a socket with `code` on a server whose `send` raises `refuse(event)`; return the events."""
        events = []

        async def send(event):
            error = refuse(event)
            if error is not None:
                raise error
            events.append(event)

        async def main():
            gateway = Gateway(make_layer(threads=0))
            state = WebSocket(gateway.name + "1", "/x")
            client = Connection(gateway, state, send)
            client.perform(state.connect({}))
            client.perform(state.reply(protocol.ack(0, [{"accept": True}, {"close": code}])))
            try:
                await client.write()
            finally:
                await gateway.stop()

        asyncio.run(main())
        return events

    def test_a_close_code_that_the_server_refuses_is_sent_as_one_of_a_sites(self):
        def refuse(event):
            return RuntimeError("refused") if 1000 < event.get("code", 0) < 3000 else None

        self.assertEqual(self.write(refuse, 1011)[-1]["code"], 4011)
        self.assertEqual(self.write(refuse, 1000)[-1]["code"], 1000)
        self.assertEqual(self.write(lambda event: None, 1011)[-1]["code"], 1011)

    def test_another_refusal_is_an_error(self):
        for refused in (1000, 4000):

            def refuse(event, refused=refused):
                return RuntimeError("refused") if event.get("code") == refused else None

            with self.assertRaises(RuntimeError):
                self.write(refuse, refused)
        with self.assertRaises(OSError):
            self.write(lambda event: OSError("the client has gone"), 1011)

    def answer(self, is_closing):
        """Write a response to a server such as uvicorn, on a transport that raises as uvloop's does."""

        class Cycle:
            transport = mock.Mock()

            async def send(self, event):
                raise RuntimeError("unable to perform operation; the handler is closed")

        Cycle.transport.is_closing.return_value = is_closing

        async def main():
            gateway = Gateway(make_layer(threads=0))
            state = Request(gateway.name + "1", "/x")
            client = ResponseConnection(gateway, state, Cycle().send)
            client.perform(state.request({"path": "/x", "root_path": ""}, False, None))
            client.perform(state.reply(protocol.ack(0, [{"status": 200, "content": b"x"}])))
            try:
                await client.write()
            finally:
                await gateway.stop()

        asyncio.run(main())

    def test_a_transport_that_is_closed_already_is_no_error_of_a_response(self):
        self.answer(is_closing=True)
        with self.assertRaises(RuntimeError):
            self.answer(is_closing=False)

    def test_wills_are_cleared_once_the_last_event_of_a_client_is_handled(self):
        async def main():
            layer = make_layer()
            gateway, cleared = layer.gateway, []
            gateway.inbox.clear_will = cleared.append
            await visit(layer)
            (channel,) = gateway.connections or [gateway.name + "1"]
            deadline = gateway.loop.time() + TIMEOUT
            while gateway.connections and gateway.loop.time() < deadline:
                await asyncio.sleep(0.005)
            self.assertEqual((cleared, gateway.connections), ([channel], {}))
            await gateway.stop()

        asyncio.run(main())


class HandshakeTests(unittest.TestCase):
    def visit(self, connect, subprotocols=("chat",)):
        """Run `connect` as the consumer of a handshake. Return the two first events to the server."""
        layer = make_layer()
        layer.routing = [route("websocket.connect", connect)]

        async def main():
            server = Server()
            server.scope["subprotocols"] = list(subprotocols)
            running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
            events = [await asyncio.wait_for(server.sent.get(), TIMEOUT)]
            if events[0]["type"] == "websocket.accept":
                events.append(await asyncio.wait_for(server.sent.get(), TIMEOUT))
            await server.leave(running)
            await layer.gateway.stop()
            return events

        return asyncio.run(main())

    def send_from_other_code(self, message, content):
        other = threading.Thread(target=message.reply_channel.send, args=(content,))
        other.start()
        other.join()

    def test_only_the_own_consumer_accepts_while_it_runs(self):
        def connect(message):
            self.send_from_other_code(message, {"accept": True, "text": "news"})
            message.reply_channel.send({"accept": True, "subprotocol": "chat"}, immediately=True)

        accept = {"type": "websocket.accept", "subprotocol": "chat"}
        self.assertEqual(self.visit(connect), [accept, {"type": "websocket.send", "text": "news"}])

    def test_other_code_sends_nothing_to_a_client_that_is_refused(self):
        def connect(message):
            self.send_from_other_code(message, {"text": "secret"})
            raise DenyConnection("no")

        self.assertEqual([event["type"] for event in self.visit(connect)], ["websocket.close"])

    def test_what_the_own_consumer_sends_at_once_arrives_while_it_runs(self):
        ended = threading.Event()

        def connect(message):
            message.reply_channel.send({"text": "hello"}, immediately=True)
            ended.wait(TIMEOUT)

        layer = make_layer()
        layer.routing = [route("websocket.connect", connect)]

        async def main():
            server = Server()
            running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
            try:
                types = [
                    (await asyncio.wait_for(server.sent.get(), TIMEOUT))["type"] for _ in range(2)
                ]
                self.assertFalse(ended.is_set())
            finally:
                ended.set()
            self.assertEqual(types, ["websocket.accept", "websocket.send"])
            await server.leave(running)
            await layer.gateway.stop()

        asyncio.run(main())

    def test_the_consumer_that_a_handshake_was_handed_to_answers_it(self):
        def connect(message):
            content = {"reply_channel": message.reply_channel.name}
            Channel("site.connect", channel_layer=message.channel_layer).send(content)

        def decide(message):
            message.reply_channel.send({"accept": True, "subprotocol": "chat"})
            message.reply_channel.send({"text": "hello"})

        layer = make_layer()
        layer.routing = [route("websocket.connect", connect), route("site.connect", decide)]

        async def main():
            server = Server()
            server.scope["subprotocols"] = ["chat"]
            running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
            events = [await asyncio.wait_for(server.sent.get(), TIMEOUT) for _ in range(2)]
            self.assertEqual(events[0], {"type": "websocket.accept", "subprotocol": "chat"})
            self.assertEqual(events[1]["text"], "hello")
            await server.leave(running)
            await layer.gateway.stop()

        asyncio.run(main())


class PathTests(unittest.TestCase):
    """All events of a connection have one form of its path, whatever the server makes of the raw path."""

    #: (the server's path, its raw path or None, the path of the events)
    PATHS = [
        ("/room/\ufffd", b"/room/%FF", "/room/%FF"),
        ("/room/\udcff", b"/room/%FF", "/room/%FF"),
        ("/room/\udcff", None, "/room/%FF"),
        ("/room/\ud800", None, "/room/%ED%A0%80"),
        ("/room/\ufffd", None, "/room/\ufffd"),
        ("/room/\u00e9", b"/room/%C3%A9", "/room/\u00e9"),
        ("/room/\u00e9\ufffd", b"/room/%C3%A9%FF", "/room/\u00e9%FF"),
        ("/room/\0", b"/room/%00", "/room/\0"),
        ("/room/a\nb", b"/room/a%0Ab", "/room/a\nb"),
        ("//room//", b"//room//", "//room//"),
        ("/room/%2F", b"/room/%252F", "/room/%2F"),
        ("/inner/\ufffd", b"/prefix/inner/%FF", "/inner/\ufffd"),
    ]

    def scope(self, path, raw_path, **more):
        scope = dict(more, path=path, root_path="/prefix", headers=[])
        if raw_path is not None:
            scope["raw_path"] = raw_path
        return scope

    def test_of_a_websocket(self):
        for path, raw_path, expected in self.PATHS:
            with self.subTest(path=path, raw_path=raw_path):
                seen, wills = self.visit(self.scope(path, raw_path, type="websocket"), expected)
                channels = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
                self.assertEqual(seen, [(each, expected, "/prefix") for each in channels])
                # The last will is the disconnect of a gateway that is killed.
                self.assertEqual(
                    [(each["path"], each["root_path"]) for each in wills], [seen[2][1:]]
                )

    def visit(self, scope, expected):
        layer, seen, wills = make_layer(), [], []

        def consume(message):
            seen.append((message.channel_name, message["path"], message["root_path"]))
            if message.channel_name != "websocket.disconnect":
                message.reply_channel.send({"text": "x"})

        path = "^%s\\Z" % re.escape(expected)
        channels = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
        layer.routing = [route(channel, consume, path=path) for channel in channels]

        async def main():
            server = Server()
            server.scope = scope
            with mock.patch.object(
                MemoryInbox, "set_will", lambda inbox, name, will: wills.append(will[1])
            ):
                running = asyncio.ensure_future(layer(scope, server.receive, server.send))
                for _ in range(2):  # accept, and the answer to connect
                    await asyncio.wait_for(server.sent.get(), TIMEOUT)
            server.events.put_nowait({"type": "websocket.receive", "text": "x"})
            await asyncio.wait_for(server.sent.get(), TIMEOUT)
            await server.leave(running)
            await layer.gateway.stop()

        asyncio.run(main())
        return seen, wills

    def test_of_a_request(self):
        for path, raw_path, expected in self.PATHS:
            with self.subTest(path=path, raw_path=raw_path):
                layer, seen, began = make_layer(), [], threading.Event()

                def consume(message, seen=seen, began=began):
                    seen.append((message.channel_name, message["path"], message["root_path"]))
                    began.set()

                channels = ["http.request", "http.disconnect"]
                layer.routing = [route(channel, consume) for channel in channels]
                scope = self.scope(path, raw_path, type="http", method="GET")

                async def main(layer=layer, scope=scope, began=began, seen=seen):
                    server = Server()
                    server.events = asyncio.Queue()
                    server.events.put_nowait({"type": "http.request"})
                    running = asyncio.ensure_future(layer(scope, server.events.get, server.send))
                    loop = asyncio.get_event_loop()
                    self.assertTrue(await loop.run_in_executor(None, began.wait, TIMEOUT))
                    server.events.put_nowait({"type": "http.disconnect"})
                    await asyncio.wait_for(running, TIMEOUT)
                    await layer.gateway.stop()

                asyncio.run(main())
                self.assertEqual(seen, [(each, expected, "/prefix") for each in channels])


class ClientsTests(unittest.TestCase):
    def test_a_client_cannot_join_a_group_by_what_is_passed_on(self):
        layer = make_layer()

        def say(message):
            forged = {"text": "x", "group_add": "staff"}
            message.reply_channel.send(dict(forged, channel_session={"set": {"admin": True}}))
            message.reply_channel.send(dict(forged, ack=1), immediately=True)

        layer.routing = [route("websocket.connect", accept), route("websocket.receive", say)]

        async def main():
            server = Server()
            running = asyncio.ensure_future(layer(server.scope, server.receive, server.send))
            await asyncio.wait_for(server.sent.get(), TIMEOUT)
            server.events.put_nowait({"type": "websocket.receive", "text": "x"})
            for _ in range(2):
                await asyncio.wait_for(server.sent.get(), TIMEOUT)
            (client,) = layer.gateway.connections.values()
            self.assertEqual((client.groups, client.state.session), (set(), {}))
            await server.leave(running)
            await layer.gateway.stop()

        asyncio.run(main())

"""Each line of the page "Coming from Channels 1.x", tried out.

A test names its line with `@says`. The last class compares these names with the page: a line without a test
fails, and so does a test whose line is gone. It is as long as the page, which is one list.
"""

import asyncio
import importlib
import inspect
import os
import re
import subprocess
import sys
import threading
import unittest
import warnings
from io import StringIO
from unittest import mock

from django import channels
from django.apps import apps
from django.channels import Channel, Group, consume, route
from django.channels.asgi import ChannelLayerManager
from django.channels.backends import InvalidChannelLayerError
from django.channels.exceptions import (
    ConsumeLater,
    InvalidMessage,
    MessageTooLarge,
)
from django.channels.gateway import application, websocket
from django.channels.generic.websockets import WebsocketDemultiplexer
from django.channels.handler import AsgiRequest
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.log import RateLimit
from django.channels.management.commands import runserver, runworker
from django.channels.sessions import (
    channel_session,
    enforce_ordering,
    http_session,
    session_for_reply_channel,
)
from django.channels.test import (
    ChannelLiveServerTestCase,
    ChannelTestCase,
    Client,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)
from django.channels.wsgi import LayerApplication, get_wsgi_application
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.contrib.staticfiles import finders
from django.core.management import find_commands
from django.db import transaction
from django.test import override_settings

from . import test_old_names
from .applications import INSTALLED
from .models import IntegerValue
from .support.requirements import require
from .support.waiting import TIMEOUT
from .test_binding import WithBinding
from .test_gateway_application import Server, accept, make_layer
from .test_gateway_bodies import Server as HttpServer
from .test_gateway_websocket import Socket

PACKAGE = channels.__name__
PAGE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    "docs/topics/channels/from-channels-1.txt",
)

#: The beginnings of the lines that have a test.
tested = set()


def says(line):
    """Decorate a test with the beginning of its line of the page."""
    tested.add(line)
    return lambda test: test


def lines_of_page(text):
    """Return the first line of each step, list item and definition of the page."""
    steps = re.findall(r"^(?:\d\. |\* )(.*)$", text, re.M)
    differences = text.partition("What differs, and why\n===")[2]
    return steps + re.findall(r"^([^\s=*].*)\n    \S", differences, re.M)


class Visit:
    """One WebSocket on a gateway, with the consumers of `routes` as its site."""

    def __init__(self, routes, frames=(), scope=(), until=None, threads=2):
        self.layer = make_layer(threads=threads)
        self.layer.routing = routes
        self.frames, self.scope, self.until = frames, dict(scope), until
        asyncio.run(self._run())

    async def _run(self):
        server = Server()
        server.scope.update(self.scope)
        self.events = []
        running = asyncio.ensure_future(self.layer(server.scope, server.receive, server.send))
        self.events.append(await asyncio.wait_for(server.sent.get(), TIMEOUT))
        if self.types == ["websocket.accept"]:
            for text in self.frames:
                server.events.put_nowait({"type": "websocket.receive", "text": text})
            while self.until is not None and not self.until(self):
                self.events.append(await asyncio.wait_for(server.sent.get(), TIMEOUT))
        await server.leave(running)
        await self.layer.gateway.stop()

    @property
    def types(self):
        return [event["type"] for event in self.events]

    @property
    def texts(self):
        return [event["text"] for event in self.events if "text" in event]

    @property
    def is_refused(self):
        return self.types == ["websocket.close"]


def closed(visit):
    return visit.types[-1] == "websocket.close"


def request(consumer, *headers, body=b"", **options):
    """Return the server's side of a request that `consumer` answers."""
    layer = MemoryChannelLayer(threads=1, **options)
    layer.routing = [route("http.request", consumer)]

    async def main():
        server = HttpServer(*headers).body(body)
        await server.run(layer)
        await layer.gateway.stop()
        return server

    return asyncio.run(main())


class StepTests(unittest.TestCase):
    @says("Use Python 3.7 or newer")
    def test_python(self):
        self.assertGreaterEqual(sys.version_info, (3, 7))
        self.assertTrue(apps.is_installed(PACKAGE))

    @says("Keep ``asgi.py``")
    def test_asgi(self):
        asgi = importlib.import_module(PACKAGE + ".asgi")
        # An ASGI 3 application: one coroutine function of three arguments.
        self.assertTrue(inspect.iscoroutinefunction(asgi.get_channel_layer().__call__))

    @says('Keep ``"asgiref.inmemory.ChannelLayer"``')
    def test_the_layer_in_memory(self):
        layers = {"default": {"BACKEND": "asgiref.inmemory.ChannelLayer"}}
        with override_settings(CHANNEL_LAYERS=layers):
            self.assertIsInstance(ChannelLayerManager()["default"], MemoryChannelLayer)


class SameTests(unittest.TestCase):
    @says("``CHANNEL_LAYERS`` with ``BACKEND``")
    def test_channel_layers(self):
        entry = {
            "BACKEND": "asgiref.inmemory.ChannelLayer",
            "ROUTING": [route("websocket.receive", accept)],
            "CONFIG": {"expiry": 3, "capacity": 4, "group_expiry": 5},
            "TEST_CONFIG": {"expiry": 6},
        }
        with override_settings(CHANNEL_LAYERS={"default": entry}):
            manager = ChannelLayerManager()
            layer, test = manager["default"], manager.make_test_backend("default")
            self.assertIn("websocket.receive", layer.router.channels)
        self.assertEqual((layer.expiry, layer.capacity, test.expiry), (3, 4, 6))

    @says("``channels.Channel``, ``Group``")
    def test_names_and_modules(self):
        for name in ("Channel", "Group", "route", "route_class", "include"):
            self.assertTrue(callable(getattr(channels, name)))
        names = "asgi auth binding delay exceptions generic handler message routing"
        names += " security.websockets sessions signals staticfiles test worker"
        for name in names.split():
            importlib.import_module("%s.%s" % (PACKAGE, name))

    @says("The messages, by channel and key")
    def test_messages(self):
        seen = {}

        def consume(message):
            seen[message.channel.name] = set(message.content)
            if message.channel.name != "websocket.disconnect":
                message.reply_channel.send({"text": "x"})

        names = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
        Visit(
            [route(name, consume) for name in names],
            ["x"],
            until=lambda visit: len(visit.texts) > 1,
        )
        common = {"reply_channel", "path", "order"}
        self.assertLessEqual(
            common | {"scheme", "query_string", "headers", "client", "server", "root_path"},
            seen["websocket.connect"],
        )
        self.assertLessEqual(common | {"text"}, seen["websocket.receive"])
        self.assertLessEqual(common | {"code"}, seen["websocket.disconnect"])

    @says("``channels/js/websocketbridge.js``")
    def test_the_script(self):
        self.assertTrue(finders.find("channels/js/websocketbridge.js"))

    @says("Old names:")
    def test_old_names(self):
        cases = unittest.defaultTestLoader.getTestCaseNames(test_old_names.OldNamesTests)
        self.assertGreaterEqual(len(cases), 6)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(channels.DEFAULT_CHANNEL_LAYER, "default")
        self.assertIs(caught[0].category, DeprecationWarning)

    @says("``runserver``, ``runworker`` and ``rundelay``")
    def test_commands(self):
        for package, names in (("", {"runserver", "runworker"}), (".delay", {"rundelay"})):
            folder = os.path.dirname(importlib.import_module(PACKAGE + package).__file__)
            self.assertLessEqual(names, set(find_commands(os.path.join(folder, "management"))))


class HandshakeTests(unittest.TestCase):
    @says("Pages of other sites are refused")
    def test_pages_of_other_sites(self):
        routes = [route("websocket.connect", accept)]
        headers = [(b"host", b"example.com"), (b"origin", b"https://evil.example")]
        with override_settings(ALLOWED_HOSTS=["example.com"]):
            # Another test's line may be the last one that is allowed for now.
            with mock.patch.object(consume, "_refused_origins", RateLimit()):
                with self.assertLogs("django", "WARNING"):
                    self.assertTrue(Visit(routes, scope={"headers": headers}).is_refused)
            headers[1] = (b"origin", b"http://example.com")
            self.assertEqual(Visit(routes, scope={"headers": headers}).types, ["websocket.accept"])

    @says("Unknown paths are refused")
    def test_unknown_paths(self):
        routes = [route("websocket.connect", accept, path="^/known/$")]
        self.assertTrue(Visit(routes).is_refused)
        self.assertFalse(Visit(routes, scope={"path": "/known/"}).is_refused)
        frames = [route("websocket.receive", accept, path="^/$")]
        self.assertFalse(Visit(frames).is_refused)

    @says("A handshake that nothing answers ends")
    def test_a_handshake_without_an_answer(self):
        self.assertEqual(application.ACCEPT_TIMEOUT, 30)
        with mock.patch.object(application, "ACCEPT_TIMEOUT", 0.05):
            self.assertTrue(Visit([route("websocket.connect", lambda message: None)]).is_refused)

    @says("A message to a group accepts no handshake")
    def test_groups_and_handshakes(self):
        def visit(answer):
            def connect(message):
                Group("all", channel_layer=message.channel_layer).add(message.reply_channel)
                group = Group("all", channel_layer=message.channel_layer)
                group.send({"text": "news"}, immediately=True)
                message.reply_channel.send({"accept": answer})

            routes = [route("websocket.connect", connect)]
            return Visit(routes, until=lambda visit: len(visit.events) == 2)

        self.assertTrue(visit(False).is_refused)
        self.assertEqual(visit(True).texts, ["news"])

    @says("Subprotocols are chosen by every server")
    def test_subprotocols(self):
        routes = [route("websocket.connect", accept)]
        with override_settings(CHANNELS_WS_PROTOCOLS=["b"]):
            visit = Visit(routes, scope={"subprotocols": ["a", "b"]})
        self.assertEqual(visit.events[0]["subprotocol"], "b")

    @says("Paths that aren't UTF-8")
    def test_invalid_bytes_in_paths(self):
        seen = []

        def connect(message):
            seen.append(message["path"])
            message.reply_channel.send({"accept": True})

        Visit(
            [route("websocket.connect", connect)],
            scope={"path": "/\ufffd", "raw_path": b"/%FF"},
        )
        self.assertEqual(seen, ["/%FF"])

    @says("Names of reply channels")
    def test_names_of_reply_channels(self):
        seen = []

        def connect(message):
            seen.append(message.reply_channel.name)
            message.reply_channel.send({"accept": True})

        def respond(message):
            seen.append(message.reply_channel.name)
            message.reply_channel.send({"status": 200, "headers": [], "content": b""})

        Visit([route("websocket.connect", connect)])
        request(respond)
        for name in seen:
            self.assertRegex(name, r"^gateway\.[^!]+![^!]+$")
        self.assertEqual(len(seen), 2)

    @says("Messages have more keys")
    def test_keys_of_gateway_and_worker_are_not_seen(self):
        seen = {}

        def connect(message):
            seen.update(message.content)
            message.channel_session["x"] = 1
            message.reply_channel.send({"accept": True})

        Visit([route("websocket.connect", connect)])
        self.assertFalse({"event_id", "channel_session", "ack"} & set(seen))


class EventTests(unittest.TestCase):
    @says("Events are always in order")
    def test_events_are_in_order(self):
        running, seen = threading.Lock(), []

        def receive(message):
            self.assertTrue(running.acquire(False), "two events of a socket at the same time")
            seen.append(message["text"])
            running.release()
            if message["text"] == "9":
                message.reply_channel.send({"text": "done"})

        routes = [
            route("websocket.connect", accept),
            route("websocket.receive", enforce_ordering(slight=True)(receive)),
            route("websocket.disconnect", lambda message: seen.append("left")),
        ]
        Visit(routes, "0123456789", until=lambda visit: visit.texts)
        self.assertEqual(seen, [*"0123456789", "left"])

    @says("After a close, no more frames are handled")
    def test_frames_after_a_close(self):
        seen = []

        def receive(message):
            seen.append(message["text"])
            message.reply_channel.send({"close": True})

        routes = [
            route("websocket.connect", accept),
            route("websocket.receive", receive),
            route("websocket.disconnect", lambda message: seen.append("left")),
        ]
        Visit(routes, "123", until=closed)
        self.assertEqual(seen, ["1", "left"])

    @says("Consumers that raise close the socket")
    def test_consumers_that_raise(self):
        def fail(message):
            raise KeyError("a bug")

        routes = [route("websocket.connect", accept), route("websocket.receive", fail)]
        with self.assertLogs("django.channels", "ERROR"):
            visit = Visit(routes, ["x"], until=closed)
        self.assertEqual(visit.events[-1]["code"], 1011)
        with self.assertLogs("django.request", "ERROR"):
            self.assertEqual(request(fail).status, 500)

    @says("Slow clients are disconnected")
    def test_slow_clients(self):
        socket = Socket().opened()
        for number in range(websocket.MAX_UNREAD + 2):
            socket.reply(text=str(number))
        self.assertEqual(socket.written[-1], {"type": "websocket.close", "code": 1013})
        # No gap: what was written is the beginning of what was sent.
        texts = [event["text"] for event in socket.written[:-1]]
        self.assertEqual(texts, [str(number) for number in range(len(texts))])

    @says("Losses are always reported")
    def test_losses(self):
        def receive(message):
            channel = Channel("full", channel_layer=message.channel_layer)
            for _ in range(message.channel_layer.capacity + 1):
                channel.send({})
            message.reply_channel.send({"text": "done"})

        routes = [route("websocket.connect", accept), route("websocket.receive", receive)]
        with self.assertLogs("django.channels", "ERROR") as logs:
            Visit(routes, ["x"], until=lambda visit: visit.texts)
        self.assertIn("full", " ".join(logs.output))

    @says("Workers run four messages at a time")
    def test_threads_of_a_worker(self):
        parser = runworker.Command().create_parser("manage.py", "runworker")
        self.assertEqual(parser.parse_args([]).threads, 4)
        self.assertEqual(parser.parse_args(["--threads", "1"]).threads, 1)

    @says("Time-outs of ``runserver`` have no effect")
    def test_options_of_runserver(self):
        options = {
            "--http_timeout": "--http_timeout",
            "--http-timeout": "--http_timeout",
            "--websocket_handshake_timeout": "--websocket_handshake_timeout",
        }
        for option, named in options.items():
            command = runserver.Command(stderr=StringIO(), no_color=True)
            options = command.create_parser("manage.py", "runserver").parse_args([option, "5"])
            with mock.patch.object(runserver.WSGICommand, "handle") as handle:
                command.handle(**dict(vars(options), asgi=False))
            handle.assert_called_once()
            said = command.stderr.getvalue()
            self.assertEqual(said.count(named + " has no effect"), 1, said)


class RequestTests(unittest.TestCase):
    @says("Bodies of requests have limits")
    def test_bodies(self):
        def consumer(message):
            body = AsgiRequest(message).read()
            message.reply_channel.send(
                {"status": 200, "headers": [], "content": str(len(body)).encode()}
            )

        body = b"x" * 400000  # more than what comes with the request
        length = (b"content-length", str(len(body)).encode())
        self.assertEqual(request(consumer, length, body=body).content, b"400000")
        too_long = (b"content-length", str(2**30 + 1).encode())
        self.assertEqual(request(consumer, too_long).status, 413)

    @says("HTTP/2 server pushes aren't sent")
    def test_server_pushes(self):
        def consumer(message):
            pushed = {"method": "GET", "path": "/style.css", "headers": []}
            message.reply_channel.send({"request": pushed})
            message.reply_channel.send({"status": 200, "headers": [], "content": b""})

        with self.assertLogs("django.channels", "ERROR"):
            self.assertEqual(request(consumer).status, 500)

    @says("``asgiref.wsgi.WsgiToAsgiAdapter`` is gone")
    def test_wsgi(self):
        try:
            import asgiref.wsgi
        except ImportError:  # Django before 3.0 doesn't bring it
            pass
        else:
            self.assertFalse(hasattr(asgiref.wsgi, "WsgiToAsgiAdapter"))
        self.assertIsInstance(get_wsgi_application(), LayerApplication)


class ConsumerTests(ChannelTestCase):
    @says("Channel sessions travel instead of being stored")
    def test_channel_sessions(self):
        seen = []

        def receive(message):
            seen.append(message.channel_session["items"])

        @channel_session
        def connect(message):
            message.reply_channel.send({"accept": True})
            message.channel_session["items"] = [b"bytes", {"a": None}]

        routes = [route("websocket.connect", connect), route("websocket.receive", receive)]
        client = WSClient()
        with apply_routes(routes), override_settings(CHANNEL_SESSION_ENGINE="no.such.engine"):
            client.send_and_consume("websocket.connect")
            client.send_and_consume("websocket.receive", text="x")
        self.assertEqual(seen, [[b"bytes", {"a": None}]])
        self.assertFalse(Session.objects.exists())
        self.assertEqual(list(session_for_reply_channel(client.reply_channel).keys()), [])

    @says("``Group.add`` acts at once")
    def test_group_add(self):
        def connect(message):
            Group("all").add(message.reply_channel)
            Group("all").send({"text": "hello"}, immediately=True)
            message.reply_channel.send({"accept": True})

        client = WSClient()
        with apply_routes([route("websocket.connect", connect)]):
            client.send_and_consume("websocket.connect", check_accept=False)
        self.assertEqual(client.receive(json=False), "hello")
        self.assertEqual(MemoryChannelLayer(group_expiry=1).expiry, 60)

    @says("What a consumer sends leaves when the consumer ends")
    def test_consume_later(self):
        tries = []

        def consumer(message):
            tries.append(message)
            message.reply_channel.send({"number": len(tries)})
            self.assertIsNone(client.receive())
            if len(tries) == 1:
                raise ConsumeLater()

        client = Client()
        with apply_routes([route("work", consumer)]):
            client.send("work", {"reply_channel": client.reply_channel})
            client.consume("work", fail_on_none=False)
            client.consume("work", fail_on_none=False)
        self.assertEqual(client.receive(), {"number": 2})
        self.assertIsNone(client.receive())

    @says("``session_key`` in a query string is ignored")
    def test_session_key(self):
        seen = []

        @http_session
        def connect(message):
            seen.append(message.http_session)
            message.reply_channel.send({"accept": True})

        member, stranger = WSClient(), WSClient()
        member.force_login(get_user_model().objects.create_user("ada"))
        path = "/?session_key=" + member.session.session_key
        with apply_routes([route("websocket.connect", connect)]):
            stranger.send_and_consume("websocket.connect", path=path)
            with override_settings(CHANNEL_SESSION_KEY_IN_QUERY=True):
                stranger.send_and_consume("websocket.connect", path=path)
        self.assertIsNone(seen[0])
        self.assertEqual(seen[1].session_key, member.session.session_key)

    @says("What is sent is checked at once")
    def test_what_is_sent_is_checked(self):
        with self.assertRaises(InvalidMessage):
            Channel("work").send({"value": object()})
        with self.assertRaises(MessageTooLarge):
            Channel("work").send({"value": "x" * (2**20 + 1)})
        socket = Socket().opened().frame("x" * (2**20 + 1))
        self.assertEqual(socket.written[-1]["code"], 1009)

    @says("Routes that could never work are refused")
    def test_routes(self):
        for pattern in ("^/(room)/$", re.compile(b"^/room/$")):
            with self.assertRaises(Exception) as caught:
                route("websocket.connect", accept, path=pattern)
            self.assertNotIsInstance(caught.exception, AssertionError)
        route("websocket.connect", lambda message, room: None, path="^/(?P<room>room)/$")

    @says("The test client sends headers as servers do")
    def test_headers_of_the_test_client(self):
        seen = []

        def connect(message):
            seen.append((message["headers"], message["query_string"]))
            message.reply_channel.send({"accept": True})

        client = WSClient()
        client.set_header("x-name", "value")
        with apply_routes([route("websocket.connect", connect)]):
            client.send_and_consume("websocket.connect", path="/?a=b")
        headers, query_string = seen[0]
        self.assertIn([b"x-name", b"value"], [list(each) for each in headers])
        self.assertEqual(query_string, b"a=b")
        self.assertEqual(client.headers["x-name"], "value")

    @says("Layers of other packages are refused")
    def test_layers_of_other_packages(self):
        layers = {"default": {"BACKEND": "asgi_ipc.IPCChannelLayer"}}
        with override_settings(CHANNEL_LAYERS=layers):
            with self.assertRaisesRegex(InvalidChannelLayerError, "BACKEND"):
                ChannelLayerManager()["default"]

    @says("The app of delayed messages has another label")
    def test_the_label_of_the_app_of_delayed_messages(self):
        (config,) = [each for each in apps.get_app_configs() if each.name.endswith(".delay")]
        self.assertEqual(config.label, "channels_delay")


class BindingTests(WithBinding, ChannelTestCase):
    @says("Data bindings write no primary keys, and validate")
    def test_inbound(self):
        class Streams(WebsocketDemultiplexer):
            http_user = True
            consumers = {"intval": self.binding.consumer}

        client = WSClient()
        client.force_login(get_user_model().objects.create_user("ada"))
        with apply_routes([Streams.as_route()]):
            client.send_and_consume("websocket.connect", path="/")
            for data in ({"id": 77, "name": "a", "value": 1}, {"name": "b", "value": "many"}):
                payload = {"action": "create", "data": data}
                client.send_and_consume(
                    "websocket.receive", path="/", text={"stream": "intval", "payload": payload}
                )
        (value,) = IntegerValue.objects.all()
        self.assertEqual((value.name, value.pk == 77), ("a", False))
        answer = client.receive()["payload"]
        self.assertEqual((answer["action"], list(answer["errors"])), ("error", ["value"]))


class CommitTests(WithBinding, TransactionChannelTestCase):
    available_apps = INSTALLED

    @says("Data bindings send after the commit")
    def test_outbound(self):
        with self.assertRaises(KeyError), transaction.atomic():
            IntegerValue.objects.create(name="never", value=1)
            raise KeyError
        IntegerValue.objects.create(name="kept", value=1)
        received = self.anybody.receive()["payload"]["data"]["name"]
        if hasattr(transaction, "on_commit"):  # not on Django 1.8
            self.assertEqual(received, "kept")


class PageTests(unittest.TestCase):
    @says("The page's script doesn't reconnect after 1000 and 1008")
    def test_the_script_after_a_close(self):
        script = finders.find("channels/js/websocketbridge.js")
        code = """
        const {WebSocketBridge} = require(%r);
        const made = [];
        class Socket { constructor() { made.push(this); } close() {} }
        for (const code of [1000, 1008, 1006, 4000]) {
          const bridge = new WebSocketBridge();
          const options = {WebSocket: Socket, minReconnectionDelay: 0, connectionTimeout: 1};
          bridge.connect("ws://x/", undefined, options);
          const before = made.length;
          made[before - 1].onclose({code});
          console.log(code, bridge.socket.readyState);
        }
        process.exit();
        """
        said = subprocess.check_output([require("node"), "-e", code % script], timeout=TIMEOUT)
        # 3: closed for good. 0: it connects again.
        self.assertEqual(said.split(), b"1000 3 1008 3 1006 0 4000 0".split())


@override_settings(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "asgiref.inmemory.ChannelLayer",
            "ROUTING": [route("websocket.connect", accept)],
        }
    }
)
class LiveServerTests(ChannelLiveServerTestCase):
    available_apps = INSTALLED

    @classmethod
    def setUpClass(cls):
        require("daphne")
        super().setUpClass()

    @says("Live server tests run in one process")
    def test_the_live_server_is_a_thread(self):
        names = [thread.name for thread in threading.enumerate()]
        self.assertIn("channels-live-server", names)


class CoverageTests(unittest.TestCase):
    def test_each_line_of_the_page_has_a_test(self):
        if not os.path.exists(PAGE):
            raise unittest.SkipTest("the page is for the add-on")
        with open(PAGE, encoding="utf-8") as stream:
            lines = lines_of_page(stream.read())
        self.assertGreater(len(lines), 30)
        without = [line for line in lines if not line.startswith(tuple(tested))]
        self.assertEqual(without, [], "write a test for each of these lines of from-channels-1.txt")
        gone = [each for each in tested if not any(line.startswith(each) for line in lines)]
        self.assertEqual(gone, [], "from-channels-1.txt no longer has these lines")

    def test_a_line_without_a_test_is_noticed(self):
        text = "What differs, and why\n===\n\nA new line\n    It differs.\n\n* A step\n"
        self.assertEqual(lines_of_page(text), ["A step", "A new line"])
        self.assertFalse("A new line".startswith(tuple(tested)))

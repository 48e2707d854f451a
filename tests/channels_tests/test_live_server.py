"""ChannelLiveServerTestCase: a real Daphne in front of the site under test."""

import json
import unittest
import urllib.error
import urllib.request

from django.channels import Group, route
from django.channels.asgi import channel_layers
from django.channels.exceptions import LayerUnavailable
from django.channels.generic.websockets import JsonWebsocketConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test import ChannelLiveServerTestCase, WSClient
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import override_settings

from .applications import INSTALLED
from .models import IntegerValue
from .support.requirements import require
from .support.waiting import TIMEOUT, wait_until

try:
    from django.urls import re_path
except ImportError:  # Django 1.8 and 1.9
    from django.conf.urls import url as re_path


def index(request):
    return HttpResponse(
        ", ".join(IntegerValue.objects.order_by("pk").values_list("name", flat=True))
    )


urlpatterns = [re_path(r"^$", index)]


class Values(JsonWebsocketConsumer):
    groups = ["values"]

    def receive(self, content, **kwargs):
        value = IntegerValue.objects.create(name=content["name"], value=self.count())
        self.group_send("values", {"pk": value.pk, "name": value.name, "value": value.value})

    def count(self):
        count = self.message.channel_session.get("count", 0) + 1
        self.message.channel_session["count"] = count
        return count


def disconnected(message):
    left.append(IntegerValue.objects.count())


#: For each socket of /watched/ that has gone: how many values there were in the database then.
left = []

channel_routing = [
    route("websocket.disconnect", disconnected, path="^/watched/"),
    Values.as_route(),
]


class LiveServerBase(ChannelLiveServerTestCase):
    available_apps = INSTALLED

    @classmethod
    def setUpClass(cls):
        require("daphne", "websocket")
        super().setUpClass()

    def open(self, path="/", **kwargs):
        import websocket

        socket = websocket.create_connection(
            self.live_server_ws_url + path, timeout=TIMEOUT, **kwargs
        )
        self.addCleanup(socket.close)
        return socket


@override_settings(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["testserver"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "asgiref.inmemory.ChannelLayer",
            "ROUTING": __name__ + ".channel_routing",
        }
    },
)
class LiveServerTests(LiveServerBase):
    def setUp(self):
        # Deliberately without super().setUp().
        IntegerValue.objects.create(name="set up", value=0)

    def get(self, path="/"):
        with urllib.request.urlopen(self.live_server_url + path, timeout=TIMEOUT) as response:
            return response.read().decode()

    def check(self):
        self.assertEqual(self.get(), "set up")
        one, two = self.open(), self.open()
        for number in (1, 2):
            one.send(json.dumps({"name": "from one %d" % number}))
            for each in (one, two):
                self.assertEqual(json.loads(each.recv())["value"], number)
        self.assertEqual(self.get(), "set up, from one 1, from one 2")
        self.assertEqual(IntegerValue.objects.count(), 3)
        Group("values").send({"text": "from the test"})
        self.assertEqual(two.recv(), "from the test")
        two.close()
        wait_until(lambda: len(Group("values").channels()) == 1, "the socket to leave its group")

    def test_one(self):
        self.check()

    def test_two_sees_nothing_of_one(self):
        self.assertEqual(Group("values").channels(), [])
        self.check()

    def test_page_of_another_site(self):
        import websocket

        with self.assertRaises(websocket.WebSocketBadStatusException):
            self.open(origin="https://evil.example")
        self.open(origin=self.live_server_url).ping()

    def test_url_and_static_files(self):
        self.assertRegex(self.live_server_url, r"^http://localhost:\d+$")
        self.assertRegex(self.live_server_ws_url, r"^ws://localhost:\d+$")
        self.assertIn("{", self.get("/static/admin/css/base.css"))
        with self.assertRaises(urllib.error.HTTPError):
            self.get("/static/nothing")


@override_settings(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "asgiref.inmemory.ChannelLayer",
            "ROUTING": "channels_tests.test_channels1_project.multichat_routing",
        }
    },
)
class MultichatTests(LiveServerBase):
    """Frames that are handed on to an application channel find the session of their connection."""

    def open_as(self, name):
        client = WSClient()
        client.force_login(get_user_model().objects.create_user(name))
        return self.open("/chat/stream/", cookie=client.headers["cookie"].decode())

    def command(self, socket, **content):
        socket.send(json.dumps(content))

    def receive(self, *sockets):
        return [json.loads(each.recv()) for each in sockets]

    def test_multichat(self):
        ada, bob = self.open_as("ada"), self.open_as("bob")
        self.command(ada, command="join", room="1")
        self.assertEqual(self.receive(ada), [{"joined": "ada", "room": "1"}])
        self.command(bob, command="join", room="1")
        self.assertEqual(self.receive(ada, bob), [{"joined": "bob", "room": "1"}] * 2)
        self.command(bob, command="send", room="1", message="hi")
        self.assertEqual(self.receive(ada, bob), [{"from": "bob", "message": "hi"}] * 2)
        self.command(bob, command="send", room="2", message="psst")
        self.assertEqual(self.receive(bob), [{"error": "ROOM_ACCESS_DENIED"}])
        self.command(bob, command="leave", room="1")
        self.assertEqual(self.receive(bob), [{"left": "1"}])
        self.assertEqual(len(Group("room-1").channels()), 1)
        ada.close()
        wait_until(lambda: not Group("room-1").channels(), "the group to be empty")


class CrossingLayer(MemoryChannelLayer):
    """Stands for a layer with a server: workers are started next to the gateway."""

    crosses_processes = True


class AwayLayer(CrossingLayer):
    """Stands for a layer whose server cannot be reached."""

    def flush(self):
        raise LayerUnavailable("away")


CROSSING = {"BACKEND": __name__ + ".CrossingLayer", "ROUTING": __name__ + ".channel_routing"}


@override_settings(CHANNEL_LAYERS={"default": dict(CROSSING, TEST_CONFIG={"capacity": 7})})
class CrossingLayerTests(LiveServerBase):
    def test_workers(self):
        self.assertEqual(channel_layers["default"].capacity, 7)
        socket = self.open()
        socket.send(json.dumps({"name": "one"}))
        self.assertEqual(json.loads(socket.recv())["name"], "one")


class EndOfTestTests(unittest.TestCase):
    databases = {"default"}  # for a run of this class alone

    def test_what_a_test_leaves_open_is_closed_before_its_data_goes(self):
        require("daphne", "websocket")
        import websocket

        class LeavesOpen(LiveServerTests):
            def leave_open(self):
                self.socket = self.open("/watched/")
                self._cleanups = []

        case, result = LeavesOpen("leave_open"), unittest.TestResult()
        del left[:]
        unittest.TestSuite([case]).run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (1, [], []))
        self.assertEqual(left, [1])
        frame = case.socket.recv_frame()
        self.assertEqual((frame.opcode, frame.data[:2]), (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe8"))
        case.socket.shutdown()

    def test_layer_without_test_config(self):
        require("daphne", "websocket")
        layers = {"default": CROSSING}
        case_class = override_settings(CHANNEL_LAYERS=layers)(
            type("Case", (LiveServerBase,), {"runTest": lambda case: None})
        )
        result = unittest.TestResult()
        before = MemoryChannelLayer()  # one that the change of the setting leaves alone
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", before))
        unittest.TestSuite([case_class()]).run(result)
        self.assertEqual((result.testsRun, len(result.errors)), (0, 1))
        for word in (
            "lacks TEST_CONFIG",
            "another database or prefix",
            "test.runner.ChannelTestRunner'",
        ):
            self.assertIn(word, result.errors[0][1])
        self.assertIs(channel_layers["default"], before)

    def test_layer_whose_server_is_away(self):
        require("daphne", "websocket")

        before = MemoryChannelLayer()  # one that the change of the setting leaves alone
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", before))
        layers = {"default": {"BACKEND": __name__ + ".AwayLayer", "TEST_CONFIG": {}}}
        case_class = override_settings(CHANNEL_LAYERS=layers)(
            type("Case", (LiveServerBase,), {"runTest": lambda case: None})
        )
        result = unittest.TestResult()
        unittest.TestSuite([case_class()]).run(result)
        self.assertEqual(len(result.errors), 1)
        self.assertIn("LayerUnavailable: away", result.errors[0][1])
        self.assertIs(channel_layers["default"], before)


class AnotherClass(LiveServerTests):
    """The same server serves the next test case."""

    serve_static = False

    def test_url_and_static_files(self):
        with self.assertRaises(urllib.error.HTTPError):
            self.get("/static/admin/css/base.css")

"""websocketbridge.js: its unit tests under Node, and a page in Chromium that uses it on a live server."""

import os
import shutil
import subprocess
import tempfile
import unittest

from django import channels
from django.channels import Group, route
from django.channels.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer
from django.channels.test import ChannelLiveServerTestCase
from django.contrib.staticfiles import finders
from django.http import HttpResponse
from django.test import override_settings

from .applications import INSTALLED
from .support.chromium import start_chromium
from .support.requirements import require
from .support.waiting import TIMEOUT, wait_until

try:
    from django.urls import re_path
except ImportError:  # Django 1.8 and 1.9
    from django.conf.urls import url as re_path

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = "channels/js/websocketbridge.js"

PAGE = """<!DOCTYPE html><title>bridge</title><link rel="icon" href="data:,">
<script src="/static/channels/js/websocketbridge.js"></script>
<script>
const seen = [], opened = [];
const bridge = new channels.WebSocketBridge();
bridge.connect("/streams/", undefined, {minReconnectionDelay: 10});
bridge.listen((action, stream) => seen.push(["listen", action, stream]));
bridge.demultiplex("echo", (action, stream) => seen.push(["echo", action, stream]));
bridge.socket.addEventListener("open", () => opened.push(true));
bridge.stream("echo").send({early: true});
</script>"""


def page(request):
    return HttpResponse(PAGE)


urlpatterns = [re_path(r"^$", page)]


class Echo(JsonWebsocketConsumer):
    def receive(self, content, multiplexer=None, **kwargs):
        multiplexer.send(content)


class Streams(WebsocketDemultiplexer):
    consumers = {"echo": Echo}
    groups = ["everybody"]

    def connection_groups(self, **kwargs):
        return self.groups


channel_routing = [Streams.as_route(path=r"^/streams/$"), route("unused", page)]


class NodeTests(unittest.TestCase):
    def test_the_script_does_what_its_documentation_says(self):
        node = require("node")
        script = os.path.join(os.path.dirname(channels.__file__), "static", *SCRIPT.split("/"))
        result = subprocess.run(
            [node, "--test", os.path.join(HERE, "js")],
            env=dict(os.environ, BRIDGE=script),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=6 * TIMEOUT,
        )
        self.assertEqual(result.returncode, 0, result.stdout.decode("utf-8", "replace"))


class StaticFileTests(unittest.TestCase):
    def test_the_script_is_found_as_a_static_file(self):
        self.assertTrue(finders.find(SCRIPT))


@override_settings(
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "asgiref.inmemory.ChannelLayer",
            "ROUTING": __name__ + ".channel_routing",
        }
    },
)
class BrowserTests(ChannelLiveServerTestCase):
    available_apps = INSTALLED

    @classmethod
    def setUpClass(cls):
        require("daphne", "selenium")
        require("chromium", "chromedriver")
        super().setUpClass()

    def setUp(self):
        profile = tempfile.mkdtemp(prefix="chromium-")
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.driver = start_chromium(profile)
        self.addCleanup(self.driver.quit)

    def wait(self, script, expected):
        wait_until(
            lambda: self.driver.execute_script("return " + script) == expected,
            "%s to become %r" % (script, expected),
        )

    def test_a_page_that_was_left_has_no_socket_until_it_is_shown_again(self):
        def wait_for_members(number):
            wait_until(lambda: len(Group("everybody").channels()) == number, "%d members" % number)

        self.driver.get(self.live_server_url + "/")
        wait_for_members(1)
        self.driver.execute_script("location.href = '/another-page/'")
        wait_for_members(0)
        self.driver.back()
        wait_for_members(1)

    def test_a_page_uses_streams_and_comes_back_after_its_socket_was_closed(self):
        self.driver.get(self.live_server_url + "/")
        first = ["echo", {"early": True}, "echo"]
        self.wait("seen", [first])
        Group("everybody").send({"text": '{"hello": 1}'})
        second = ["listen", {"hello": 1}, None]
        self.wait("seen", [first, second])
        Group("everybody").send({"close": 1012})
        self.wait("opened.length", 2)
        self.driver.execute_script('bridge.stream("echo").send(2)')
        self.wait("seen", [first, second, ["echo", 2, "echo"]])
        self.driver.execute_script("bridge.socket.close()")
        wait_until(lambda: not Group("everybody").channels(), "the socket to leave its group")
        severe = [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
        self.assertEqual(severe, [])

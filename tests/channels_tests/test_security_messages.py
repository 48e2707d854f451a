"""Attacks by way of messages, sessions and names. SECURITY.md lists these tests and the others."""

import ast
import json
import os
import re
import subprocess
import sys
import unittest

import django.channels
from django.channels import Channel, Group, protocol, route
from django.channels.asgi import channel_layers
from django.channels.exceptions import InvalidChannelName
from django.channels.gateway.state import WRITE
from django.channels.gateway.websocket import WebSocket
from django.channels.generic import json_text
from django.channels.layers.engine import codec
from django.channels.sessions import http_session
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.test import SimpleTestCase

from .support.waiting import START_TIMEOUT

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: What a client would send to speak for a gateway, a worker or a layer, if the site passes its JSON on.
FORGED = {
    protocol.ACK: 1,
    protocol.REPLIES: [{"text": "forged"}],
    protocol.ERROR: True,
    protocol.DURING: 1,
    protocol.LOST: 1,
    protocol.RESET: True,
    protocol.GROUP: "staff",
    protocol.GROUP_ADD: "staff",
    protocol.GROUP_DISCARD: "staff",
    protocol.SESSION: {"set": {"_auth_user_id": "1"}, "removed": []},
    protocol.BODY_CREDIT: 10**9,
    protocol.WINDOW_CHANNEL: "gateway.other!1",
    protocol.EVENT_ID: 1,
    protocol.REDELIVERED: True,
    protocol.FRAMES: [{"text": "forged"}],
    protocol.RAN: 1,
    protocol.RUNNING: 1,
    protocol.OVER_SHARE: "192.0.2.1",
    protocol.COUNTS_FOR: "192.0.2.1",
    protocol.RETRIES: 1,
    protocol.EXCLUDE: "gateway.a!1",
}

#: Those of them that mean something in a message to a worker, but not in a reply to a gateway.
OF_EVENTS = {
    protocol.EVENT_ID,
    protocol.COUNTS_FOR,
    protocol.REDELIVERED,
    protocol.FRAMES,
    protocol.RETRIES,
}

#: Control keys that a site may send, by name: those with which it can't speak for others, and values of keys.
ALLOWED = {"REPLY_CHANNEL", "BODY_CHANNEL", "MAYBE", "WRITTEN", "CLOSED", "GROUP_MESSAGE"}


class ForgedKeyTests(ChannelTestCase):
    def received(self, channel):
        layer = channel_layers["default"]
        name, message = layer.receive_many([channel])
        self.assertIsNotNone(name)
        return message

    def open_socket(self):
        """Return the state of an open socket with a session, and an event in flight."""
        state = WebSocket("gateway.a!1", "/")
        state.connect({"path": "/"})
        state.reply(protocol.ack(state.in_flight, [{"accept": True}]))
        state.session = {"name": "ada"}
        state.frame("a frame")
        return state

    def assert_only_written(self, state, actions, event_id):
        """The socket wrote the text, and nothing else of it changed."""
        written = [action[1] for action in actions if action[0] == WRITE]
        self.assertEqual(written, [{"type": "websocket.send", "text": "mine"}])
        self.assertEqual(len(actions), 1, actions)
        self.assertEqual((state.session, state.in_flight), ({"name": "ada"}, event_id))

    def test_no_control_key_reaches_a_gateway(self):
        state = self.open_socket()
        event_id = state.in_flight
        Channel("gateway.a!1").send(dict(FORGED, ack=event_id, lost=event_id, text="mine"))
        found = self.received("gateway.a!1")
        self.assertEqual(set(found) - OF_EVENTS, {"text"})
        self.assert_only_written(state, state.reply(found), event_id)

    def test_no_control_key_reaches_the_members_of_a_group(self):
        state = self.open_socket()
        event_id = state.in_flight
        actions = state.group(dict(FORGED, ack=event_id, lost=event_id, text="mine"))
        self.assert_only_written(state, actions, event_id)

    def test_no_control_key_reaches_a_worker_as_an_event(self):
        Channel("websocket.receive").send(dict(FORGED, text="mine"))
        found = self.received("websocket.receive")
        for key in OF_EVENTS | {protocol.SESSION, protocol.EXCLUDE}:
            self.assertNotIn(key, found)
        self.assertIsNone(protocol.reply_address(dict(found, reply_channel="gateway.a!1")))

    def test_no_control_key_reaches_another_consumer_as_its_session(self):
        Channel("own-channel").send(dict(FORGED, text="mine"))
        found = self.received("own-channel")
        for key in (protocol.SESSION, protocol.REDELIVERED, protocol.RETRIES, protocol.EXCLUDE):
            self.assertNotIn(key, found)

    def test_each_control_key_is_tried(self):
        """A site may set the keys of the ASGI specification: reply_channel and body_channel."""
        with open(protocol.__file__, encoding="utf-8") as source:
            begin, end = "# Control keys of events", "# What a site may not send"
            keys = re.findall(r"^([A-Z_]+) = \"", source.read().split(begin)[1].split(end)[0], re.M)
        for key in keys:
            value = getattr(protocol, key)
            if key not in ALLOWED:
                self.assertIn(value, FORGED, key)
        self.assertGreater(len(keys), 20)


class DeserialisationTests(unittest.TestCase):
    FORBIDDEN = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "jsonpickle"}

    def sources(self):
        tops = [os.path.dirname(django.channels.__file__)]
        tops.append(os.path.join(ROOT, "asgi_redis", "asgi_redis"))
        for top in tops:
            for folder, _, names in os.walk(top):
                for name in names:
                    if name.endswith(".py"):
                        yield os.path.join(folder, name)

    def test_nothing_reads_a_format_that_can_hold_code(self):
        count = 0
        for path in self.sources():
            with open(path, encoding="utf-8") as source:
                tree = ast.parse(source.read())
            for node in ast.walk(tree):
                names = []
                if isinstance(node, ast.Import):
                    names = [each.name for each in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    self.assertNotIn(node.func.id, ("eval", "exec"), path)
                self.assertFalse(self.FORBIDDEN.intersection(names), path)
            count += 1
        self.assertGreater(count, 50)


#: Decodes text that is nested too deeply while the garbage collector runs, whose exceptions Python ignores.
DEEP = """
import gc, sys
from importlib import import_module
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes"])
import django
django.setup()

def descend(levels):
    return levels and descend(levels - 1)

class Garbage:
    def __init__(self):
        self.myself = self
    def __del__(self):
        Garbage()
        descend(60)

decode = getattr(import_module(sys.argv[1]), sys.argv[2])
gc.set_threshold(3)
Garbage()
try:
    decode(sys.argv[3] * 20000)
except ValueError as error:
    print("refused:", error)
"""


class NestingTests(unittest.TestCase):
    def test_no_depth_of_json_ends_the_process(self):
        for decode in (json_text.decode_json, codec.decode):
            for text in ("[", '{"a":', '[{"a":', '["\\"", {"[": '):
                with self.subTest(decode=decode.__module__, text=text):
                    done = subprocess.run(
                        [sys.executable, "-c", DEEP, decode.__module__, decode.__name__, text],
                        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
                        capture_output=True,
                        timeout=START_TIMEOUT,
                    )
                    self.assertIn(b"refused: It is nested more than", done.stdout, done.stderr)
                    self.assertEqual(done.returncode, 0)

    def test_brackets_inside_strings_are_not_levels(self):
        for value in ("[" * 500, ['\\"' + "{" * 500, "\\"], [[]] * 500, {"[" * 500: {"{": "}"}}):
            with self.subTest(value=value):
                self.assertEqual(json_text.decode_json(json.dumps(value)), value)

    def test_text_that_does_not_end_is_refused_at_once(self):
        for text in ('"' + '\\"' * 200000, '["' * 100000, '"' + "[" * 200000, '\\"' * 200000):
            with self.subTest(text=text[:10]), self.assertRaises(ValueError):
                json_text.decode_json("[" + text + "[" * 201)


class SessionTests(ChannelTestCase):
    def test_a_url_names_no_session(self):
        visitor = WSClient()
        visitor.session["name"] = "ada"
        visitor.session.save()
        seen = []

        @http_session
        def connect(message):
            session = message.http_session
            seen.append(None if session is None else session.get("name"))
            message.reply_channel.send({"accept": True})

        with apply_routes([route("websocket.connect", connect)]):
            path = "/?session_key=" + visitor.session.session_key
            WSClient().send_and_consume("websocket.connect", path=path)
            visitor.send_and_consume("websocket.connect")
        self.assertEqual(seen, [None, "ada"])


class NameTests(SimpleTestCase):
    def test_no_client_makes_up_a_name_that_reaches_others(self):
        for name in (
            "",
            "a b",
            "../a",
            "a\n",
            "a\0",
            "a!b!c",
            "caf\u00e9",
            "x" * 100,
            "a*",
            "{a}",
            None,
            5,
            ["a"],
            {"a": 1},
            b"a",
        ):
            with self.subTest(name=name):
                with self.assertRaises((InvalidChannelName, ValueError)):
                    Group(name)

    def test_an_error_about_a_name_is_short(self):
        for name in ("x" * 1000000, ["x"] * 100000):
            with self.assertRaises(InvalidChannelName) as caught:
                Group(name)
            self.assertLess(len(str(caught.exception)), 500)


class TableTests(unittest.TestCase):
    def test_the_table_names_tests_that_exist(self):
        path = os.path.join(ROOT, "SECURITY.md")
        if not os.path.exists(path):
            self.skipTest("SECURITY.md is not here, as in the patched Django")
        with open(path, encoding="utf-8") as page:
            named = set(re.findall(r"`(test_\w+)(?:\.(\w+))?`", page.read()))
        self.assertGreater(len(named), 20)
        here = os.path.dirname(os.path.abspath(__file__))
        of_redis = os.path.join(ROOT, "asgi_redis", "tests", "asgi_redis_tests")
        for module, name in sorted(named):
            place = here if os.path.exists(os.path.join(here, module + ".py")) else of_redis
            with open(os.path.join(place, module + ".py"), encoding="utf-8") as source:
                classes = {
                    node.name
                    for node in ast.parse(source.read()).body
                    if isinstance(node, ast.ClassDef)
                }
            self.assertTrue(not name or name in classes, "%s.%s" % (module, name))

    def test_the_table_names_each_class_of_these_tests(self):
        """A class whose tests run in a subclass is named by the subclass; a module named alone has all."""
        path = os.path.join(ROOT, "SECURITY.md")
        if not os.path.exists(path):
            self.skipTest("SECURITY.md is not here, as in the patched Django")
        with open(path, encoding="utf-8") as page:
            named = set(re.findall(r"`(test_\w+(?:\.\w+)?)`", page.read()))
        here = os.path.dirname(os.path.abspath(__file__))
        count = 0
        for file_name in os.listdir(here):
            module = file_name[:-3]
            if not re.match(r"test_security\w*\.py$", file_name) or module in named:
                continue
            with open(os.path.join(here, file_name), encoding="utf-8") as source:
                classes = [n for n in ast.parse(source.read()).body if isinstance(n, ast.ClassDef)]
            for each in classes:
                has_tests = any(getattr(part, "name", "").startswith("test_") for part in each.body)
                if has_tests and each.name != type(self).__name__:
                    heirs = [
                        n.name
                        for n in classes
                        for b in n.bases
                        if getattr(b, "id", "") == each.name
                    ]
                    places = {"%s.%s" % (module, name) for name in [each.name, *heirs]}
                    self.assertTrue(places & named, "%s.%s" % (module, each.name))
                    count += 1
        self.assertGreater(count, 10)

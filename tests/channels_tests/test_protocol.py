"""The keys that gateways, workers and layers exchange: their types, their accessors, session patches."""

import re
import unittest
from pathlib import Path

import django.channels
from django.channels import protocol
from django.channels.gateway import scopes
from django.channels.layers.messages import clean

PACKAGE = Path(django.channels.__file__).parent

#: The control keys that no site uses by itself, so that no other module may write them as a literal.
CONTROL_KEYS = [
    protocol.EVENT_ID,
    protocol.SESSION,
    protocol.FRAMES,
    protocol.REDELIVERED,
    protocol.BODY_CHANNEL,
    protocol.RETRIES,
    protocol.COUNTS_FOR,
    protocol.OVER_SHARE,
    protocol.ACK,
    protocol.REPLIES,
    protocol.BODY_CREDIT,
    protocol.WINDOW_CHANNEL,
    protocol.WRITTEN,
]


def keys_of(type_):
    return {key for each in type_.__mro__ for key in vars(each).get("__annotations__", ())} or set(
        type_.__annotations__
    )


class TypeTests(unittest.TestCase):
    def test_the_types_name_the_control_keys(self):
        event = {protocol.REPLY_CHANNEL, protocol.EVENT_ID, protocol.SESSION, protocol.REDELIVERED}
        self.assertEqual(keys_of(protocol.Event), event | {"root_path", protocol.COUNTS_FOR})
        reply = {protocol.ACK, protocol.REPLIES, protocol.SESSION, protocol.ERROR}
        self.assertEqual(keys_of(protocol.Reply), reply | {protocol.RAN, protocol.OVER_SHARE})
        self.assertIn(protocol.FRAMES, keys_of(protocol.WebSocketReceive))
        self.assertIn(protocol.BODY_CHANNEL, keys_of(protocol.HttpRequest))
        self.assertIn(protocol.WINDOW_CHANNEL, keys_of(protocol.HttpReply))
        self.assertIn(protocol.CLOSED, keys_of(protocol.BodyPart))

    def test_the_types_name_every_key_that_the_gateway_sets(self):
        scope = {"path": "/", "headers": [], "method": "GET", "subprotocols": ["chat"]}
        self.assertLessEqual(set(scopes.request_event(scope)), keys_of(protocol.HttpRequest))
        self.assertLessEqual(set(scopes.connect_event(scope)), keys_of(protocol.WebSocketConnect))

    def test_what_no_layer_can_carry_of_a_scope_does_not_get_into_an_event(self):
        lone = "a\ud800"
        scope = {"path": lone, "headers": [], "method": "GET", "root_path": lone}
        scope.update(subprotocols=["chat", lone], client=(lone, 1), server=(lone, None))
        event = scopes.connect_event(scope)
        self.assertEqual(event["subprotocols"], ["chat", "a?"])
        self.assertEqual((event["client"], event["server"]), (["a?", 1], ["a?", None]))
        for each in (event, scopes.request_event(scope)):
            clean(each)


class AccessorTests(unittest.TestCase):
    def test_an_ack_has_only_what_there_is_to_say(self):
        self.assertEqual(protocol.ack(3), {protocol.ACK: 3})
        self.assertEqual(protocol.ack(3, []), {protocol.ACK: 3})
        patch = {"set": {}, "removed": ["a"]}
        self.assertEqual(
            protocol.ack(0, [{}], patch, True),
            {
                protocol.ACK: 0,
                protocol.REPLIES: [{}],
                protocol.SESSION: patch,
                protocol.ERROR: True,
            },
        )

    def test_only_an_event_has_a_reply_address(self):
        event = {protocol.REPLY_CHANNEL: "gateway.x!1", protocol.EVENT_ID: 0}
        self.assertEqual(protocol.reply_address(event), ("gateway.x!1", 0))
        for key in event:
            self.assertIsNone(protocol.reply_address({key: event[key]}))

    def test_acks_losses_and_flow_control_ignore_capacity(self):
        for message in (
            protocol.ack(0),
            protocol.lost(0),
            protocol.written(1),
            protocol.closed(),
        ):
            self.assertTrue(protocol.ignores_capacity(message))
        for message in ({"text": "x"}, protocol.replies([{}]), protocol.session_patch({})):
            self.assertFalse(protocol.ignores_capacity(message))

    def test_a_message_that_may_have_been_sent_twice_has_not_lost_a_worker(self):
        self.assertTrue(protocol.lost_a_worker({protocol.REDELIVERED: True}))
        self.assertFalse(protocol.lost_a_worker({protocol.REDELIVERED: protocol.MAYBE}))
        self.assertFalse(protocol.lost_a_worker({}))


class SessionPatchTests(unittest.TestCase):
    def merge(self, first, second):
        return protocol.merge_patches(first, second)

    def test_merging_with_none_is_the_patch(self):
        patch = {"set": {"a": 1}, "removed": ["b"]}
        self.assertEqual(self.merge(None, patch), patch)

    def test_merging_does_what_both_patches_do(self):
        for first, second in (
            ({"set": {"a": 1, "b": 1}, "removed": []}, {"set": {"b": 2, "c": 3}, "removed": []}),
            ({"set": {"a": 1}, "removed": []}, {"set": {}, "removed": ["a"]}),
            ({"set": {}, "removed": ["a"]}, {"set": {"a": 2}, "removed": []}),
            ({"set": {}, "removed": ["a"]}, {"set": {}, "removed": ["old", "a"]}),
            ({"set": {"a": 1}, "removed": ["old"]}, {"set": {"a": 2}, "removed": []}),
        ):
            with self.subTest(first=first, second=second):
                one_by_one, at_once = {"old": 0, "a": 0}, {"old": 0, "a": 0}
                protocol.apply_patch(one_by_one, first)
                protocol.apply_patch(one_by_one, second)
                merged = self.merge(first, second)
                protocol.apply_patch(at_once, merged)
                self.assertEqual(at_once, one_by_one)
                self.assertEqual(set(merged["set"]) & set(merged["removed"]), set())

    def test_applying_says_whether_there_was_a_patch(self):
        session = {"a": 1}
        self.assertFalse(protocol.apply_patch(session, None))
        self.assertTrue(protocol.apply_patch(session, {"set": {"b": 2}, "removed": ["a", "none"]}))
        self.assertEqual(session, {"b": 2})

    def test_a_patch_has_what_is_gone(self):
        patch = protocol.make_patch({"a": 1, "b": 2}, {"c": 3}, {"a": 1, "c": 3})
        self.assertEqual(patch, {"set": {"c": 3}, "removed": ["b"]})


class LiteralTests(unittest.TestCase):
    def test_no_other_module_writes_a_control_key(self):
        pattern = re.compile("[\"'](%s)[\"']" % "|".join(CONTROL_KEYS))
        found = []
        for path in sorted(PACKAGE.rglob("*.py")):
            if path.name == "protocol.py":
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                if pattern.search(line):
                    found.append("%s:%d: %s" % (path.relative_to(PACKAGE), number, line.strip()))
        self.assertEqual(found, [])

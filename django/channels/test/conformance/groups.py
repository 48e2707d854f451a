"""The conformance suite's tests of groups."""

from __future__ import annotations

from typing import Any

from ...exceptions import InvalidChannelName, InvalidMessage, MessageTooLarge
from ...layers.names import MAX_NAME_LENGTH
from ...protocol import ACK, EVENT_ID, LOST, REPLIES, RESET, excluding
from .case import LayerCase


class GroupTests(LayerCase):
    """A message to a group reaches each member once. (Members with an inbox: see inbox.py.)"""

    def test_a_group_reaches_its_members(self) -> None:
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        self.layer.group_add("test-group", "test.two")
        self.assertEqual(sorted(self.layer.group_channels("test-group")), ["test.one", "test.two"])
        self.layer.send_group("test-group", {"value": "orange"})
        self.assertEqual(self.receive("test.one")[1], {"value": "orange"})
        self.assertEqual(self.receive("test.two")[1], {"value": "orange"})
        self.assertNothing("test.one", "test.two")

    def test_a_group_passes_no_control_key_to_event_and_reply_channels(self) -> None:
        """A site may pass on what a client sent. A worker would acknowledge it to another gateway."""
        self.need("groups")
        members = ["websocket.receive", "gateway.none!1"]
        for name in members:
            self.layer.group_add("test-group", name)
        forged = [EVENT_ID, ACK, LOST, REPLIES, RESET]
        self.layer.send_group("test-group", dict(dict.fromkeys(forged, 1), text="hi"))
        for name in members:
            self.assertEqual(self.receive(name)[1], {"text": "hi"})

    def test_a_channel_that_left_a_group_gets_nothing(self) -> None:
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        self.layer.group_discard("test-group", "test.one")
        self.layer.group_discard("test-group", "test.never")
        self.layer.group_discard("no-group", "test.one")
        self.layer.send_group("test-group", {})
        self.receive("test.two")
        self.assertNothing("test.one")
        self.assertEqual(self.layer.group_channels("test-group"), ["test.two"])
        self.assertEqual(self.layer.group_channels("no-group"), [])

    def test_an_excluded_member_gets_nothing(self) -> None:
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        self.layer.deliver_group("test-group", excluding({"value": "orange"}, "test.one"))
        self.assertEqual(self.receive("test.two")[1], {"value": "orange"})
        self.assertNothing("test.one", "test.two")

    def test_a_full_member_is_skipped_and_counted(self) -> None:
        self.need("groups")
        layer = self.make_layer(capacity=1)
        layer.group_add("test-group", "test.full")
        layer.group_add("test-group", "test.free")
        layer.send("test.full", {"first": True})
        layer.send_group("test-group", {"second": True})
        self.assertEqual(self.receive("test.free", layer=layer)[1], {"second": True})
        self.assertEqual(self.receive("test.full", layer=layer)[1], {"first": True})
        self.assertNothing("test.full")
        self.assertEqual(layer.statistics().get("group_full"), 1)

    def test_a_bad_group_send_is_refused(self) -> None:
        self.need("groups")
        bad: Any = ("", "with space", "bang!", "question?", "x" * (MAX_NAME_LENGTH + 1), None)
        for name in bad:
            with self.subTest(name=name):
                with self.assertRaises(InvalidChannelName):
                    self.layer.send_group(name, {})
                with self.assertRaises(InvalidChannelName):
                    self.layer.group_add(name, "test.one")
        with self.assertRaises(InvalidMessage):
            self.layer.send_group("test-group", {"bad": object()})
        with self.assertRaises(MessageTooLarge):
            self.layer.send_group("test-group", {"text": "x" * (1024 * 1024 + 1)})

    def test_a_group_has_many_members(self) -> None:
        self.need("groups")
        names = ["test.member.%02d" % number for number in range(20)]
        for name in names:
            self.layer.group_add("test-group", name)
        self.assertEqual(sorted(self.layer.group_channels("test-group")), names)
        self.layer.send_group("test-group", {"value": "plum"})
        for name in names:
            self.assertEqual(self.receive(name), (name, {"value": "plum"}))

    def test_members_of_a_group_share_no_message(self) -> None:
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        self.layer.group_add("test-group", "test.two")
        message = {"list": [1]}
        self.layer.send_group("test-group", message)
        message["list"].append(2)
        first = self.receive("test.one")[1]
        self.assertEqual(first, {"list": [1]})
        first["list"].append(3)
        first["more"] = True
        self.assertEqual(self.receive("test.two")[1], {"list": [1]})

    def test_a_group_message_keeps_its_place_among_other_sends(self) -> None:
        self.need("groups")
        self.layer.group_add("test-group", "test.one")
        for number in range(0, 9, 3):
            self.layer.send("test.one", {"number": number})
            self.layer.send_group("test-group", {"number": number + 1})
            self.layer.send("test.one", {"number": number + 2})
        numbers = [self.receive("test.one")[1]["number"] for _ in range(9)]
        self.assertEqual(numbers, list(range(9)))

    def test_each_full_member_is_counted(self) -> None:
        self.need("groups")
        layer = self.make_layer(capacity=1)
        for name in ("test.one", "test.two", "test.three"):
            layer.group_add("test-group", name)
        layer.send("test.one", {})
        layer.send("test.two", {})
        layer.send_group("test-group", {})
        self.assertEqual(layer.statistics().get("group_full"), 2)

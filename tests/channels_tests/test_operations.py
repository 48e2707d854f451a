"""`manage.py layerstats` and `manage.py deadletters`, on a layer that keeps dead letters in a list."""

import io
import json
from unittest import mock

from django.channels.asgi import channel_layers
from django.channels.exceptions import LayerUnavailable
from django.channels.layers.base import DeadLetter
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.management.commands.layerstats import table
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import SimpleTestCase

NAN = float("nan")


class LettersLayer(MemoryChannelLayer):
    """It says that it crosses processes, which the commands ask for."""

    extensions = MemoryChannelLayer.extensions + ("dead_letters",)
    crosses_processes = True
    away = False

    def __init__(self, **config):
        super().__init__(**config)
        self.letters = []

    def global_statistics(self):
        if self.away:
            raise LayerUnavailable("nobody there")
        return dict(
            super().global_statistics(), dead_letters=len(self.letters), counters={"lost": 3}
        )

    def dead_letters(self):
        if self.away:
            raise LayerUnavailable("nobody there")
        return list(self.letters)

    def requeue_dead_letters(self, ids=None):
        chosen = [each for each in self.letters if ids is None or each.id in ids]
        for each in chosen:
            self.send(each.channel, each.message)
        return self.drop_dead_letters(ids)

    def drop_dead_letters(self, ids=None):
        before = len(self.letters)
        self.letters = [each for each in self.letters if ids is not None and each.id not in ids]
        return before - len(self.letters)


class CommandTestCase(SimpleTestCase):
    def setUp(self):
        self.layer = LettersLayer()
        self.put(self.layer)
        self.layer.letters = [
            DeadLetter("1-0", "mail.send", {"to": "ann"}, "lost", 1500000000.0),
            DeadLetter("2-0", "thumbs", {"image": b"\xff", "n": NAN}, "lost", 1500000001.0),
            DeadLetter("3-0", "mail.send", None, "unreadable", 1500000002.0),
        ]

    def put(self, layer):
        layer.alias, layer.routing = "default", []
        former = channel_layers.set("default", layer)
        self.addCleanup(channel_layers.set, "default", former)

    def run_command(self, *args, **options):
        out = io.StringIO()
        call_command(*args, stdout=out, **options)
        return out.getvalue()


class DeadLettersTests(CommandTestCase):
    def test_control_characters_are_escaped(self):
        evil = "\x1b[2J\r\x07\u202e\u2028"
        self.layer.letters = [
            DeadLetter(
                "1" + evil, "mail" + evil, {"to" + evil: [evil]}, "lost" + evil, 1500000000.0
            )
        ]
        for arguments in (["list"], ["show"]):
            for line in self.run_command("deadletters", *arguments).split("\n"):
                self.assertTrue(line.isprintable(), repr(line))
        self.assertIn("mail\\x1b[2J\\r", self.run_command("deadletters", "list"))

    def test_control_characters_are_escaped_in_layerstats(self):
        statistics = {"counters": {"lost\x1b[2J": 1}, "some\r\x07": 2}
        with mock.patch.object(self.layer, "global_statistics", lambda: statistics):
            output = self.run_command("layerstats")
        self.assertTrue(all(line.isprintable() for line in output.split("\n")), output)
        self.assertIn("lost\\x1b[2J", output)

    def test_list(self):
        output = self.run_command("deadletters")
        lines = output.splitlines()
        self.assertEqual(len(lines), 4, output)
        self.assertIn("1-0", lines[0])
        self.assertIn("mail.send", lines[0])
        self.assertIn("unreadable", lines[2])
        self.assertEqual(lines[3], "3 dead letters")
        self.assertNotIn("ann", output)

    def test_list_of_a_channel(self):
        output = self.run_command("deadletters", "list", channel="thumb*")
        self.assertIn("2-0", output)
        self.assertNotIn("1-0", output)

    def test_show(self):
        output = self.run_command("deadletters", "show", "1-0", "3-0")
        self.assertIn("{'to': 'ann'}", output)
        self.assertIn("(cannot be read)", output)
        self.assertNotIn("2-0", output)

    def test_json(self):
        lines = self.run_command("deadletters", json=True).splitlines()
        first = json.loads(lines[0])
        self.assertEqual(first["id"], "1-0")
        self.assertEqual(first["message"], {"to": "ann"})
        self.assertEqual(len(lines), 3)
        # Bytes, and NaN, which JSON lacks.
        self.assertIsNone(json.loads(lines[1], parse_constant=self.fail)["message"]["n"])

    def test_requeue(self):
        output = self.run_command("deadletters", "requeue", "1-0")
        self.assertIn("Put back on their channels: 1", output)
        self.assertEqual(self.layer.receive_many(["mail.send"]), ("mail.send", {"to": "ann"}))
        self.assertEqual([each.id for each in self.layer.letters], ["2-0", "3-0"])

    def test_drop_by_channel(self):
        output = self.run_command("deadletters", "drop", channel="mail.*")
        self.assertIn("Dropped: 2", output)
        self.assertEqual([each.id for each in self.layer.letters], ["2-0"])

    def test_drop_all(self):
        self.run_command("deadletters", "drop", every=True)
        self.assertEqual(self.layer.letters, [])

    def test_nothing_is_changed_without_saying_what(self):
        for action in ("requeue", "drop"):
            with self.assertRaisesMessage(CommandError, "or give --channel or --all"):
                self.run_command("deadletters", action)
        self.assertEqual(len(self.layer.letters), 3)

    def test_a_pattern_that_none_matches_changes_nothing(self):
        self.assertIn("Dropped: 0", self.run_command("deadletters", "drop", channel="x"))
        self.assertEqual(len(self.layer.letters), 3)

    def test_an_unknown_id(self):
        with self.assertRaisesMessage(CommandError, "No dead letter has the id 9-9"):
            self.run_command("deadletters", "drop", "1-0", "9-9")
        self.assertEqual(len(self.layer.letters), 3)

    def test_a_layer_without_them(self):
        self.put(MemoryChannelLayer())
        with self.assertRaisesMessage(CommandError, "keeps no dead letters"):
            self.run_command("deadletters")

    def test_a_layer_that_is_away(self):
        self.layer.away = True
        with self.assertRaisesMessage(CommandError, "nobody there"):
            self.run_command("deadletters")


class LayerStatsTests(CommandTestCase):
    def test_the_table(self):
        self.layer.send("http.request", {"a": 1})
        output = self.run_command("layerstats")
        self.assertRegex(output, r"Messages waiting +1\n")
        self.assertRegex(output, r"Dead letters +3\n")
        self.assertRegex(output, r"lost +3\n")
        self.assertRegex(output, r"http\.request +1 ")

    def test_channels_by_name(self):
        self.layer.send("mail.send", {"a": 1})
        output = self.run_command("layerstats", "mail.send")
        self.assertRegex(output, r"mail\.send +1 ")
        self.assertNotIn("http.request", output)

    def test_json(self):
        self.layer.send("mail.send", {"a": 1})
        figures = json.loads(self.run_command("layerstats", "mail.send", json=True))
        self.assertEqual(figures["layer"]["messages_pending"], 1)
        self.assertEqual(figures["counters"], {"lost": 3})
        self.assertEqual(figures["channels"]["mail.send"]["messages_pending"], 1)

    def test_rates_between_two_looks(self):
        first = {"time": 10.0, "layer": {"messages_count": 5}, "counters": {}, "channels": {}}
        second = {"time": 12.0, "layer": {"messages_count": 2005}, "counters": {}, "channels": {}}
        self.assertIn("2,005  (1,000.0/s)", "\n".join(table("x", second, first)))

    def test_watch_ends_at_ctrl_c(self):
        looks = []

        def interrupted():
            looks.append(1)
            if len(looks) == 3:
                raise KeyboardInterrupt()
            return {"messages_pending": len(looks)}

        self.layer.global_statistics = interrupted
        output = self.run_command("layerstats", watch=0.001)
        self.assertEqual(output.count("Messages waiting"), 2)

    def test_a_wrong_interval(self):
        with self.assertRaisesMessage(CommandError, "--watch is 0"):
            self.run_command("layerstats", watch=0.0)
        for seconds in (float("nan"), float("inf")):
            with self.assertRaisesMessage(CommandError, "--watch is "):
                self.run_command("layerstats", watch=seconds)

    def test_a_layer_that_is_away(self):
        self.layer.away = True
        with self.assertRaisesMessage(CommandError, "nobody there"):
            self.run_command("layerstats")

    def test_a_layer_of_one_process(self):
        self.put(MemoryChannelLayer())
        with self.assertRaisesMessage(CommandError, "lives in the server's process"):
            self.run_command("layerstats")

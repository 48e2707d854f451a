"""
Worker processes that are killed, or told to end, while asynchronous consumers run. The test is the gateway.
"""

import re
import signal
import unittest

from django.db import connections

from .support.aliases import MARIADB_SETTINGS
from .support.sites import Project
from .support.waiting import SCALE, START_TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

ROUTING = """
import asyncio
import os

from {channels} import route

WAITS = os.environ.get("WAITS")


async def receive(message):
    print("begun %s" % message["text"], flush=True)
    if WAITS:
        try:
            await asyncio.sleep(3600)
        finally:
            await message.reply_channel.asend({"text": "ends"})
    await asyncio.sleep(0.01)
    await message.reply_channel.asend({"text": "one"})
    message.reply_channel.send({"text": "two"})


channel_routing = [route("websocket.receive", receive)]
"""

#: The options of the layer: what is lost is found after a second. On a busy machine, a process may take as
#: long to renew its lease.
CONFIG = {"heartbeat": 0.2, "lease": SCALE, "prefix": "killed", "capacity": 200}


DATABASE = """
INSTALLED_APPS += ["{channels}.layers.database"]
DATABASES["default"] = %r
CHANNEL_LAYERS["default"]["BACKEND"] = "{channels}.layers.database.DatabaseChannelLayer"
CHANNEL_LAYERS["default"]["CONFIG"] = %r
"""


class KilledTests:
    """`layer_settings` returns those of the layer with a CONFIG, and `make_layer` makes one for the test."""

    def setUp(self):
        super().setUp()
        self.layer = self.make_layer(**CONFIG)
        self.layer.flush()
        #: By client: what came for it.
        self.seen = {}

    def worker(self, *args, **env):
        worker = self.project.manage("runworker", "--threads", "3", *args, **env)
        self.addCleanup(worker.kill)
        worker.wait_for_output("Quit with")
        return worker

    def begin(self, count):
        """Send `count` events, each of another connection."""
        for number in range(count):
            client = "gateway.killed!%d" % number
            event = {"path": "/", "event_id": 7, "reply_channel": client, "text": str(number)}
            self.layer.send("websocket.receive", event)
            self.seen[client] = []

    def begun(self, worker):
        return [int(each) for each in re.findall(r"begun (\d+)", worker.output)]

    def read(self):
        """Read what has come for the clients. Return whether each got the end of its event."""
        client, message = self.layer.receive_many(list(self.seen))
        while message is not None:
            if "running" not in message:
                for key in ("ran", "window_channel"):
                    message.pop(key, None)
                self.seen[client].append(message)
            client, message = self.layer.receive_many(list(self.seen))
        return all(
            any("ack" in each or "lost" in each for each in seen) for seen in self.seen.values()
        )

    def check(self, concurrency, count, retries):
        config = dict(CONFIG, lost={"websocket.receive": "retry"}) if retries else CONFIG
        self.project = Project({"mysite/routing.py": ROUTING}, self.layer_settings(config))
        self.addCleanup(self.project.close)
        args = ("--async-concurrency", str(concurrency))
        first = self.worker(*args, WAITS="1")
        self.begin(count)
        most = min(count, concurrency)
        wait_until(lambda: len(self.begun(first)) >= most, "the places to be taken", START_TIMEOUT)
        first.kill()
        begun = self.begun(first)
        second = self.worker(*args)
        wait_until(self.read, "each client to be told", START_TIMEOUT)
        self.assertEqual(len(begun), most)
        done = [{"replies": [{"text": "one"}]}, {"ack": 7, "replies": [{"text": "two"}]}]
        lost = {client for client, seen in self.seen.items() if seen != done}
        again = self.begun(second)
        self.assertEqual(len(again), len(set(again)), "one ran twice")
        if retries:
            self.assertEqual(lost, set(), self.seen)
            self.assertEqual(sorted(again), list(range(count)))
        else:
            self.assertEqual({str(self.seen[each]) for each in lost}, {"[{'lost': 7}]"})
            self.assertLessEqual(set(begun), {int(each.partition("!")[2]) for each in lost})
            self.assertEqual(len(again), count - len(lost))
        # A client is told before the claim of its event ends.
        wait_until(lambda: not self.layer.global_statistics()["messages_held"], "the claims to end")
        self.assertEqual(second.stop(signal.SIGTERM), 0, second.output)
        self.read()
        self.assertEqual(sum(map(len, self.seen.values())), len(lost) + 2 * (count - len(lost)))

    def test_each_of_many_is_reported_once(self):
        self.check(100, 12, retries=False)

    def test_each_of_many_is_redelivered_once(self):
        self.check(100, 8, retries=True)  # they run one at a time

    def test_one_at_a_time_is_reported_once(self):
        self.check(1, 8, retries=False)

    def test_one_at_a_time_is_redelivered_once(self):
        self.check(1, 8, retries=True)


class OnDatabase:
    """Settings of a project on the database of a DatabaseLayerCase."""

    def layer_settings(self, config):
        found = connections.databases[self.alias]
        keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
        preamble = MARIADB_SETTINGS if "mysql" in found["ENGINE"] else ""
        return preamble + DATABASE % (
            {key: found[key] for key in keys if key in found},
            dict(config, DATABASE="default"),
        )

    def stored_wills(self, channel):
        """Return how many last wills on a channel the layer has."""
        query = "SELECT queue FROM channels_database_will"
        rows = self.layer.store.connections.statement(lambda each: each.rows(query))
        return sum(queue.endswith(":" + channel) for (queue,) in rows)


class SQLiteTests(KilledTests, OnDatabase, SQLiteCase, unittest.TestCase):
    pass


class PostgreSQLTests(KilledTests, OnDatabase, PostgreSQLCase, unittest.TestCase):
    pass


class MariaDBTests(KilledTests, OnDatabase, MariaDBCase, unittest.TestCase):
    pass

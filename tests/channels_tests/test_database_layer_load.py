"""
The database layer with several processes, with broken connections, and without connections
luck.
"""

import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.database import DatabaseChannelLayer, claiming
from django.channels.layers.database.sending import NO_GATEWAY
from django.channels.layers.engine.store import Outgoing
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as site_connection
from django.db import connections

from .support.aliases import add_alias, postgresql_alias
from .support.databases import PostgreSQL
from .support.processes import python_environment
from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

#: Claims what it finds, and prints its numbers; ends when a message says so.
CLAIMER = """
import json, sys
sys.path.insert(0, {tests!r})
if {package!r} == "channels":
    import runtests_addon
    sys.meta_path.insert(0, runtests_addon.AliasFinder())
from django.conf import settings
settings.configure(DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3"}}}})
import django
django.setup()
from channels_tests.support.aliases import add_alias
from channels_tests.support.databases import mysql_driver
if "mysql" in {settings!r}["ENGINE"]:
    mysql_driver()
add_alias("layer", {settings!r})
from django.channels.layers.database import DatabaseChannelLayer
layer = DatabaseChannelLayer(database="layer")
layer.send("ready", {{"ready": True}})
while True:
    channel, message = layer.claim(sys.argv[1], ["work", "work.end"], block=True)
    if channel == "work":
        print(message["number"])
    elif channel:
        layer.acknowledge(sys.argv[1])
        break
"""


class ExactlyOnceTests:
    """8 processes claim from one channel."""

    total = 800

    def test_each_message_is_handled_exactly_once(self):
        layer = self.make_layer(capacity=self.total)
        layer.flush()
        for number in range(self.total // 2):
            layer.send("work", {"number": number})
        code = CLAIMER.format(
            package=DatabaseChannelLayer.__module__.rpartition(".layers")[0],
            tests=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            settings={
                key: value
                for key, value in connections.databases[self.alias].items()
                if key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
            },
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, "slot-%d" % number],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=python_environment(),
            )
            for number in range(8)
        ]
        try:
            for _ in processes:
                wait_until(
                    lambda: layer.receive_many(["ready"], block=True)[0],
                    "the processes",
                    timeout=6 * TIMEOUT,
                )
            for number in range(self.total // 2, self.total):
                layer.send("work", {"number": number})
            wait_until(
                lambda: not layer.channel_statistics("work")["messages_pending"],
                "an empty channel",
                timeout=3 * TIMEOUT,
            )
            for _ in processes:
                layer.send("work.end", {})
            results = [process.communicate(timeout=3 * TIMEOUT) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        numbers = [int(number) for output, _ in results for number in output.split()]
        errors = b"".join(error for _, error in results).decode()
        self.assertEqual(sorted(numbers), list(range(self.total)), errors[-2000:])
        self.assertNotIn("locked", errors)
        statistics = layer.global_statistics()
        self.assertEqual(statistics["messages_held"], 0)
        # Each process added what it sent, one message, as it ended.
        self.assertEqual(statistics["messages_count"], self.total + 2 * len(processes))


class SQLiteLoadTests(ExactlyOnceTests, SQLiteCase, unittest.TestCase):
    def test_a_reader_is_woken_by_a_send_of_its_own_process(self):
        layer = self.make_layer()
        layer.flush()
        layer.block_for = 4 * TIMEOUT
        layer.store.poll_interval = 10 * TIMEOUT  # a poll would come too late
        for number in range(3):
            arrived = []

            def read(arrived=arrived):
                arrived.append(layer.receive_many(["wake"], block=True)[1])

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            wait_until(lambda: layer.store.waiters._waiters, "the reader")
            layer.send("wake", {"number": number})
            thread.join(TIMEOUT)
            self.assertEqual(arrived, [{"number": number}])

    def test_the_layer_keeps_a_file_of_its_own(self):
        layer = self.make_layer()
        layer.send("work", {})
        layer.flush()
        self.assertTrue(os.path.exists(os.path.join(self.folder, "site-channels.sqlite3")))
        self.assertFalse(os.path.exists(os.path.join(self.folder, "site.sqlite3")))

    def test_a_writer_that_dawdles_outside_is_waited_for(self):
        layer = self.make_layer()
        layer.flush()
        path = os.path.join(self.folder, "site-channels.sqlite3")
        outside = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        outside.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, outside.execute, ["COMMIT"])
        timer.start()
        layer.send("work", {"late": True})
        timer.join()
        outside.close()
        self.assertEqual(layer.receive_many(["work"])[1], {"late": True})

    def test_another_file_may_be_named(self):
        path = os.path.join(self.folder, "elsewhere.sqlite3")
        layer = self.make_layer(FILE=path)
        layer.send("work", {"number": 1})
        self.assertTrue(os.path.exists(path))
        self.assertEqual(layer.receive_many(["work"])[1], {"number": 1})

    def test_a_lost_file_is_made_anew(self):
        path = os.path.join(self.folder, "lost.sqlite3")
        layer = self.make_layer(FILE=path)
        layer.send("work", {"number": 1})
        layer.close()
        for end in ("", "-wal", "-shm"):
            if os.path.exists(path + end):
                os.unlink(path + end)
        layer.send("work", {"number": 2})
        self.assertEqual(layer.receive_many(["work"])[1], {"number": 2})

    def test_what_cannot_be_opened_is_told(self):
        layer = self.make_layer(FILE=os.path.join(self.folder, "no", "such", "folder.sqlite3"))
        with self.assertRaises(LayerUnavailable):
            layer.send("work", {})


class MariaDBLoadTests(ExactlyOnceTests, MariaDBCase, unittest.TestCase):
    pass


class PostgreSQLLoadTests(ExactlyOnceTests, PostgreSQLCase, unittest.TestCase):
    def wait(self, layer, threads=4):
        """Have as many threads claim, until the test ends."""
        stop = threading.Event()

        def claim(slot):
            while not stop.is_set():
                layer.claim(slot, ["work.a", "work.b"], block=True)

        started = [threading.Thread(target=claim, args=("slot-%d" % n,)) for n in range(threads)]

        def end():
            stop.set()
            for number in range(threads):
                layer.wake("slot-%d" % number)
            for thread in started:
                thread.join(TIMEOUT)

        self.addCleanup(end)
        for thread in started:
            thread.start()
        wait_until(
            lambda: layer.store.listener.listening, "the proof that notifications come through"
        )

    def test_who_waits_asks_for_nothing(self):
        self.use_seldom_looks(3600.0)
        layer, claims, queries = self.counting_layer()
        wait_until(lambda: len(claims) > 60, "claims of four threads")
        self.assertEqual(queries, [])

    def test_now_and_then_one_looks_for_all_who_wait(self):
        self.use_seldom_looks(0.3)
        layer, claims, queries = self.counting_layer()
        began = time.monotonic()
        del queries[:]  # those before it, if this thread had to wait
        wait_until(lambda: len(claims) > 60, "claims of four threads")
        looks = len(queries)
        self.assertLessEqual(looks, (time.monotonic() - began) / 0.3 + 1)
        self.assertGreater(looks, 1)

    def test_what_came_without_a_notification_is_found_by_all(self):
        self.use_seldom_looks(3600.0)
        layer, claims, _ = self.counting_layer()
        layer.block_for = 10 * TIMEOUT
        del claims[:]
        wait_until(
            lambda: len(set(claims)) == 4 and len(layer.store.waiters._waiters) == 4,
            "four threads that wait for long",
        )
        # As many rows as threads, without a notification; each thread keeps what it found.
        bodies = [layer.store.encode("work.a", {"number": number}) for number in range(4)]
        queue = layer.store.queue("work.a")
        rows = [layer.store.row(queue, Outgoing("work.a", body)) for body in bodies]
        layer.store.insert(rows, [], NO_GATEWAY)
        self.use_seldom_looks(0.0)
        layer.wake("slot-0")  # only this thread looks
        wait_until(
            lambda: layer.channel_statistics("work.a")["messages_pending"] == 0, "the claims"
        )

    def use_seldom_looks(self, seconds):
        patch = mock.patch.object(claiming, "EMPTY_LIFETIME", seconds)
        patch.start()
        self.addCleanup(patch.stop)

    def counting_layer(self):
        """A layer that four threads wait on, and lists that get longer with its claims and queries."""
        layer = self.make_layer(heartbeat=60.0, lease=180.0)
        layer.flush()
        layer.block_for = 0.1
        claims, queries = [], []
        claim, lend = layer.claim, layer.store.connections._get
        layer.claim = lambda *args, **kwargs: (claims.append(args[0]), claim(*args, **kwargs))[1]
        self.wait(layer)

        def is_known_empty():
            return all(
                known[0] == layer.store.waiters.version for known in layer.store._empty.values()
            )

        # What is looked at once more, as notifications are found to come through, has been.
        wait_until(lambda: layer.store._empty and is_known_empty(), "the last look")
        del claims[:]
        wait_until(
            lambda: all(claims.count("slot-%d" % number) > 2 for number in range(4)),
            "claims that began after it",
        )
        layer.store.connections._get = lambda: (queries.append(None), lend())[1]
        return layer, claims, queries

    def test_an_idle_reader_is_woken_by_a_notification(self):
        layer = self.make_layer()
        layer.flush()
        layer.block_for = TIMEOUT
        layer.store.poll_interval = 10 * TIMEOUT  # a poll would come too late
        other = self.make_layer()
        for number in range(9):
            arrived = []

            def read(arrived=arrived):
                arrived.append(layer.receive_many(["wake"], block=True)[1])

            thread = threading.Thread(target=read)
            thread.start()
            wait_until(
                lambda: layer.store.listener.listening and layer.store.waiters._waiters,
                "the reader",
            )
            other.send("wake", {"number": number})
            thread.join(TIMEOUT)
            self.assertEqual(arrived, [{"number": number}])

    def test_an_open_transaction_elsewhere_does_not_slow_it_to_a_crawl(self):
        layer = self.make_layer(capacity=10000)
        layer.flush()

        def work(number):
            began = time.monotonic()
            for _ in range(number):
                layer.send("work", {"text": "x" * 100})
                self.assertIsNotNone(layer.claim("slot", ["work"], block=True)[0])
            return time.monotonic() - began

        work(50)
        fresh = work(200)
        server = PostgreSQL.shared()
        elsewhere = server.connect()
        try:
            cursor = elsewhere.cursor()
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM channels_database_message")
            # 30,000 messages come and go; what remains of them cannot be cleared away.
            other = server.connect()
            other.autocommit = True
            other.cursor().execute(
                "INSERT INTO channels_database_message (queue, channel, body, expires) "
                "SELECT 'channels:work', 'work', '{}', 1e12 FROM generate_series(1, 30000)"
            )
            other.cursor().execute(
                "DELETE FROM channels_database_message WHERE queue = 'channels:work'"
            )
            other.close()
            work(50)
            # A busy machine may stand still during a measurement, but not during each of them.
            wait_until(
                lambda: work(200) < 4 * fresh + 0.2, "as many messages in about the same time"
            )
        finally:
            elsewhere.close()
        layer.acknowledge("slot")

    def test_without_its_tables_it_says_what_to_do(self):
        settings = PostgreSQL.shared().settings(NAME="postgres")
        layer = DatabaseChannelLayer(database=add_alias("channels_bare", settings))
        self.addCleanup(layer.close)
        with self.assertRaisesRegex(ImproperlyConfigured, "migrate --database=channels_bare"):
            layer.send("work", {})

    def test_a_server_that_is_away_is_told(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            settings = PostgreSQL.shared().settings(PORT=str(taken.getsockname()[1]))
            layer = DatabaseChannelLayer(database=add_alias("channels_away", settings))
            with self.assertRaises(LayerUnavailable):
                layer.send("work", {})
            layer.close()

    def test_a_crash_of_the_server_is_told_to_gateways(self):
        import asyncio
        import signal

        logging.getLogger("django.channels.layers").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("django.channels.layers").setLevel, logging.NOTSET)
        server = PostgreSQL.shared()
        layer = self.make_layer(heartbeat=0.1, lease=30.0)
        layer.flush()
        layer.send_later("later", {"kept": True}, 3600)

        async def run():
            inbox = layer.open_inbox("gateway.c!")
            await asyncio.get_event_loop().run_in_executor(None, crash)
            while True:
                try:
                    messages = await asyncio.wait_for(inbox.receive(), 3 * TIMEOUT)
                except LayerUnavailable:
                    continue
                break
            await inbox.close()
            return messages

        def crash():
            server.stop(signal.SIGQUIT)
            server.start()

        self.assertEqual(asyncio.run(run()), [("gateway.c!", {"reset": True})])
        # What is to survive has survived.
        self.assertGreater(layer.store.read("next_due", layer.store.range)[0][0], 3000)
        layer.flush()


class SiteInMemoryTests(unittest.TestCase):
    """The test runner's own database, in memory: the layer keeps a temporary file, and no request's
    connection."""

    def test_the_layer_never_uses_the_sites_connection(self):
        if site_connection.vendor != "sqlite":
            self.skipTest("the site's database is %s" % site_connection.vendor)
        layer = DatabaseChannelLayer()
        self.addCleanup(layer.close)
        layer.flush()
        before = list(getattr(site_connection, "queries", []))
        layer.send("work", {"number": 1})
        self.assertEqual(layer.receive_many(["work"])[1], {"number": 1})
        self.assertEqual(list(getattr(site_connection, "queries", [])), before)

    def test_options_that_make_no_sense_are_told(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "at least 3 heartbeats"):
            DatabaseChannelLayer(heartbeat=5, lease=5)
        with self.assertRaisesRegex(ImproperlyConfigured, "0 or more"):
            DatabaseChannelLayer(dead_letters=-1)
        with self.assertRaisesRegex(ImproperlyConfigured, "Did you mean 'prefix'"):
            DatabaseChannelLayer(prefx="mysite")
        with self.assertRaisesRegex(ImproperlyConfigured, "is for SQLite"):
            DatabaseChannelLayer(database=postgresql_alias(), file="/tmp/x").send("work", {})

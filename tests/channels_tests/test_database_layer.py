"""The database layer by the conformance suite of all layers, on each database."""

import os
import shutil
import tempfile
import threading
import unittest
from unittest import mock

from django.channels.layers.database import DatabaseChannelLayer, capacity
from django.channels.layers.database.listener import topic
from django.channels.layers.engine.store import Outgoing, Unreadable
from django.channels.test.conformance import LayerConformance

from .support.aliases import add_alias, mariadb_alias, postgresql_alias
from .support.waiting import wait_until


class DatabaseLayerCase:
    """Makes layers on `alias`, and ends their threads and connections with the test."""

    shortest_expiry = 0.1
    busy = {"heartbeat": 0.05, "lease": 60}

    def make_layer(self, **config):
        layer = DatabaseChannelLayer(database=self.alias, **config)
        self.addCleanup(layer.close)
        return layer


class SQLiteCase(DatabaseLayerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = "channels_" + cls.__name__  # Django keeps an alias' connection for good
        cls.folder = tempfile.mkdtemp(prefix="channels-test-")
        add_alias(
            cls.alias,
            {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.path.join(cls.folder, "site.sqlite3"),
            },
        )

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)
        super().tearDownClass()


class PostgreSQLCase(DatabaseLayerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = postgresql_alias()


class MariaDBCase(DatabaseLayerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = mariadb_alias()


class SQLiteConformanceTests(SQLiteCase, LayerConformance, unittest.TestCase):
    pass


class UnreadableBodyTests(SQLiteCase, unittest.TestCase):
    def test_any_body_that_is_no_message_is_unreadable_and_never_another_error(self):
        layer = self.make_layer()
        for body in ("", "{", "[1]", "null", "[" * 100000, '{"a": ' * 100000, "\x00", "NaN"):
            with self.subTest(body[:10]), self.assertRaises(Unreadable):
                layer.store.decode("work", body)


class PostgreSQLConformanceTests(PostgreSQLCase, LayerConformance, unittest.TestCase):
    def test_close_ends_every_thread(self):
        layer = self.make_layer()
        before = set(threading.enumerate())
        for number in range(50):
            layer.send("test.threads", {"number": number})
        layer.group_add("test-group", "test.threads")
        started = set(threading.enumerate()) - before
        notifiers = [thread for thread in started if thread.name == "channels-notifier"]
        self.assertTrue(notifiers)
        layer.close()
        self.assertEqual([thread for thread in notifiers if thread.is_alive()], [])
        wait_until(lambda: not any(thread.is_alive() for thread in started), "the threads to end")


class PostgreSQLNotificationTests(PostgreSQLCase, unittest.TestCase):
    def setUp(self):
        self.layer = self.make_layer()
        self.store = self.layer.store
        self.listening = self.store.connections.open()
        self.addCleanup(self.listening.close)
        self.topic = topic(self.store.prefix, "work")
        self.listening.listen(self.topic)

    def wait_for_notification(self):
        wait_until(lambda: self.topic in self.listening.topics(), "the notification")

    def test_a_send_notifies_in_the_statement_that_inserts(self):
        with mock.patch.object(self.store, "notify") as notify:
            self.layer.send("test.notified", {})
            self.wait_for_notification()
        notify.assert_not_called()

    def test_a_send_soon_after_another_one_is_notified_too(self):
        with mock.patch.object(self.store.notifier, "due", return_value=[]):
            self.layer.send("test.notified", {})
            self.wait_for_notification()


class PostgreSQLInboxTests(PostgreSQLCase, unittest.TestCase):
    """Reading an inbox begins at its low-water mark, and from time to time at its very beginning."""

    name = "gateway.marked!"

    def setUp(self):
        self.layer = self.make_layer()
        self.store = self.layer.store
        self.queue = self.store.key(self.name)
        self.now = 1000.0
        patch = mock.patch.object(capacity, "time", mock.Mock(monotonic=lambda: self.now))
        patch.start()
        self.addCleanup(patch.stop)

    def pass_messages(self):
        """Receive and acknowledge messages, so that there is a mark. Return an entry below it."""
        entries = []
        for number in range(3):
            self.layer.send(self.name + "client", {"number": number})
            entries += self.receive(entries[-1:])
        self.receive(entries[-1:])
        return entries[0]

    def put_below(self, entry):
        row = self.store.row(self.queue, Outgoing(entry.channel, entry.body))
        self.store.write("requeue", dict(row, id=entry.id, losses=0))

    def receive(self, acked=()):
        """Receive what waits, a moment later."""
        self.now += 0.2
        return self.store.receive_inbox(self.name, [entry.id for entry in acked], 10)

    def test_what_was_acknowledged_is_not_searched_again(self):
        below = self.pass_messages()
        self.put_below(below)
        self.assertEqual(self.receive(), [])
        self.assertGreater(self.store.marks.of([self.queue])[0], below.id)

    def test_a_message_below_the_mark_is_found_however_often_the_inbox_is_read(self):
        below = self.pass_messages()
        self.put_below(below)
        begun = self.now
        while self.now < begun + 2 * capacity.SEARCH_MAX_INTERVAL:
            found = self.receive()
            if found:
                break
        self.assertEqual([entry.id for entry in found], [below.id])


class MariaDBConformanceTests(MariaDBCase, LayerConformance, unittest.TestCase):
    pass

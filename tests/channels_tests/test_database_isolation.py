"""The database layer on a server whose defaults for each session aren't those that the layer needs."""

import logging
import threading
import unittest

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.engine.store import Will
from django.db import connections, transaction

from .support.aliases import add_alias_like, mariadb_alias, postgresql_alias, remove_alias
from .support.waiting import TIMEOUT
from .test_database_layer import DatabaseLayerCase


class SerializableTests(DatabaseLayerCase, unittest.TestCase):
    level = "serializable"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = add_alias_like(
            postgresql_alias(), options="-c default_transaction_isolation=" + cls.level
        )

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()

    def test_competing_claims_and_sends_raise_nothing_and_lose_nothing(self):
        count, threads = 300, 6
        for number in range(count):
            if number % 100 == 0:
                channel = "work.%d" % (number // 100)
            self.layer.send(channel, {"number": number})
        found, errors = [], []

        def claim(slot):
            try:
                while True:
                    channel, message = self.layer.claim(slot, ["work.0", "work.1", "work.2"])
                    if channel is None:
                        return
                    found.append(message["number"])
                    self.layer.group_add("group-%d" % (len(found) % 5), slot)
                    self.layer.send_group("group-1", {"number": message["number"]})
            except BaseException as error:
                errors.append(error)

        started = [threading.Thread(target=claim, args=("slot-%d" % n,)) for n in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join(TIMEOUT)
        self.assertEqual(errors, [])
        self.assertEqual(sorted(found), list(range(count)))


class RepeatableReadTests(SerializableTests):
    level = "repeatable read"

    @classmethod
    def setUpClass(cls):
        cls.level = cls.level.replace(" ", "\\ ")
        super().setUpClass()


class SessionDefaultsTests:
    """The site, its database or its user may have set them for the site's own statements."""

    variants = ()

    @classmethod
    def alias_with(cls, setting):
        raise NotImplementedError

    def work(self):
        layer, store = self.layer, self.layer.store
        text = "a'b\"c\\d \u20ac %s"
        for number in range(6):
            layer.send("work", {"number": number, "text": text})
        found = [layer.claim("consumer", ["work"])[1] for _ in range(6)]
        self.assertEqual(found, [{"number": number, "text": text} for number in range(6)])
        layer.requeue("consumer")
        store.register("gateway.a!")
        will = Will("gateway.a!1", "goodbye", store.encode("goodbye", {"n": 1}))
        store.gateway_batch("gateway.a!", [will], [], [], [])
        layer.group_add("room", "gateway.a!1")
        layer.group_add("room", "member")
        layer.send_group("room", {"n": 2})
        joined_and_sent = store.receive_inbox("gateway.a!", [], 10)
        self.assertEqual(len(joined_and_sent), 2)
        for _ in range(2):
            layer.deliver("once", {"n": 3}, send_id="one")
        layer.send_later("later", {"n": 4}, 0)
        layer.leases.send_due()
        store.heartbeat(["gateway.a!"])
        layer.send("bad", {"n": 5})
        layer.dead_letter(None, store.take(["bad"]), ValueError("a test"))
        self.assertEqual(layer.requeue_dead_letters(), 1)
        layer.count("counted")
        layer.share_counters()
        layer.global_statistics()
        store.sweep()
        layer.leases.recover()
        layer.leases.expire()
        store.leave("gateway.a!")
        for channel, n in (("goodbye", 1), ("member", 2), ("once", 3), ("later", 4), ("bad", 5)):
            self.assertEqual(layer.receive_many([channel])[1], {"n": n})
            self.assertIsNone(layer.receive_many([channel])[1])

    def test_everything_works_whatever_a_session_has_by_default(self):
        logger = logging.getLogger("django.channels.layers")
        logger.setLevel(logging.CRITICAL)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        for setting in self.variants:
            with self.subTest(setting=setting):
                self.alias = self.alias_with(setting)
                self.addCleanup(remove_alias, self.alias)
                self.layer = self.make_layer(heartbeat=20.0, lease=60.0)
                self.layer.leases.start = lambda: None
                self.layer.flush()
                self.work()
                self.layer.close()


class PostgreSQLDefaultsTests(SessionDefaultsTests, DatabaseLayerCase, unittest.TestCase):
    variants = (
        "default_transaction_read_only=on",
        "default_transaction_isolation=serializable -c default_transaction_read_only=on",
        "default_transaction_deferrable=on",
        "standard_conforming_strings=off",
        "client_encoding=LATIN1",
        "TimeZone=Asia/Kolkata",
        "bytea_output=escape",
    )

    @classmethod
    def alias_with(cls, setting):
        return add_alias_like(postgresql_alias(), options="-c " + setting)

    def test_a_lock_that_is_not_got_in_time_raises_no_error_of_the_driver(self):
        self.alias = self.alias_with("lock_timeout=20")
        self.addCleanup(remove_alias, self.alias)
        self.layer = self.make_layer()
        self.layer.leases.start = lambda: None
        blocker = connections[postgresql_alias()]
        self.addCleanup(blocker.close)
        self.layer.group_add("room", "member")
        with transaction.atomic(blocker.alias):
            blocker.cursor().execute("LOCK TABLE channels_database_message")
            with self.assertRaises(LayerUnavailable):
                self.layer.send("work", {"n": 1})
            with self.assertRaises(LayerUnavailable):
                self.layer.send_group("room", {"n": 1})
            with self.assertRaises(LayerUnavailable):
                self.layer.receive_many(["work"])
        self.layer.send("work", {"n": 2})
        self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 2})


class MariaDBDefaultsTests(SessionDefaultsTests, DatabaseLayerCase, unittest.TestCase):
    variants = (
        "tx_read_only = 1",
        "sql_mode = 'ANSI_QUOTES'",
        "sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "sql_mode = 'ORACLE'",
        "sql_mode = ''",
        "sql_safe_updates = 1",
        "autocommit = 0",
        "tx_isolation = 'SERIALIZABLE'",
        "completion_type = 1",
        "max_join_size = 1",
    )

    @classmethod
    def alias_with(cls, setting):
        return add_alias_like(mariadb_alias(), init_command="SET SESSION " + setting)

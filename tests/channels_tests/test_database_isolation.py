"""The database layer on a PostgreSQL database whose default isolation level is stricter than its own."""

import threading
import unittest

from django.db import connections

from .support.aliases import add_alias, postgresql_alias
from .support.waiting import TIMEOUT
from .test_database_layer import DatabaseLayerCase


class SerializableTests(DatabaseLayerCase, unittest.TestCase):
    level = "serializable"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        settings = dict(connections.databases[postgresql_alias()])
        settings["OPTIONS"] = dict(
            settings["OPTIONS"], options="-c default_transaction_isolation=" + cls.level
        )
        cls.alias = add_alias("channels_" + cls.__name__, settings)

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

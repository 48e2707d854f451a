"""The database layer behind a real PgBouncer in transaction mode: it keeps the contract, and polls."""

import threading
import unittest
from unittest import mock

from django.channels.layers.database import listener
from django.channels.test.conformance import LayerConformance

from .support.aliases import pgbouncer_alias
from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import DatabaseLayerCase


class PgBouncerCase(DatabaseLayerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = pgbouncer_alias()


class PgBouncerConformanceTests(PgBouncerCase, LayerConformance, unittest.TestCase):
    pass


class PgBouncerTests(PgBouncerCase, unittest.TestCase):
    def test_it_finds_out_says_so_and_goes_on(self):
        layer = self.make_layer()
        layer.flush()
        layer.block_for = TIMEOUT
        found = []
        with mock.patch.object(listener, "PROOF_TIMEOUT", 0.5), self.assertLogs(
            "django.channels.layers", "WARNING"
        ) as logs:
            thread = threading.Thread(
                target=lambda: found.append(layer.receive_many(["polled"], block=True))
            )
            thread.start()
            wait_until(lambda: any("pooler" in line for line in logs.output), "the warning")
            self.make_layer().send("polled", {"number": 1})
            thread.join(TIMEOUT)
        self.assertEqual(found, [("polled", {"number": 1})])
        self.assertFalse(layer.store.listener.listening)

"""Which connections the database layer keeps."""

import unittest
from unittest import mock

from django.channels.layers.database.connections import Connection, Connections
from django.channels.layers.database.layer import DatabaseChannelLayer
from django.channels.layers.engine.layer import EngineLayer
from django.db import connections as aliases


class FakeConnections(Connections):
    vendor = "postgresql"

    def open(self):
        return Connection(mock.Mock(), mock.Mock())

    def is_alive(self, connection):
        return True


class TemporaryDatabaseTests(unittest.TestCase):
    def setUp(self):
        self.connections = FakeConnections("default")
        self.settings = aliases["default"].settings_dict

    def renamed(self):
        return mock.patch.dict(self.settings, {"NAME": "a clone"})

    def lend(self):
        with self.connections.lend() as connection:
            return connection

    def test_a_connection_is_used_again(self):
        with mock.patch.dict("django.channels.layers.database.connections._names", clear=True):
            self.assertIs(self.lend(), self.lend())

    def test_an_alias_whose_name_was_changed_keeps_no_connection(self):
        with mock.patch.dict("django.channels.layers.database.connections._names", clear=True):
            self.connections.name()
            with self.renamed():
                connection = self.lend()
                connection.raw.close.assert_called_once_with()
                self.assertEqual(self.connections._idle, [])

    def test_a_process_does_not_take_its_leave_in_another_database(self):
        layer = DatabaseChannelLayer()
        layer._store = mock.Mock(connections=self.connections)
        with mock.patch.object(EngineLayer, "leave") as leave:
            with self.renamed():
                self.lend()
            layer.leave()
            leave.assert_not_called()
            self.lend().close()
            self.connections._idle.clear()
            self.lend()
            layer.leave()
            leave.assert_called_once_with()

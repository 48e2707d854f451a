"""Which connections the database layer keeps."""

import unittest
from unittest import mock

from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.layers.database.connections import Conflict, Connection, Connections
from django.channels.layers.database.layer import DatabaseChannelLayer
from django.channels.layers.database.mysql import MySQLConnections
from django.channels.layers.database.postgresql import PostgreSQLConnections
from django.channels.layers.database.refusals import TablesMissing
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

    def used(self):
        """Return the connection that a statement is executed on."""
        return self.connections.statement(lambda connection: connection)

    def test_a_connection_is_used_again(self):
        with mock.patch.dict("django.channels.layers.database.connections._names", clear=True):
            self.assertIs(self.used(), self.used())

    def test_an_alias_whose_name_was_changed_keeps_no_connection(self):
        with mock.patch.dict("django.channels.layers.database.connections._names", clear=True):
            self.connections.name()
            with self.renamed():
                connection = self.used()
                connection.raw.close.assert_called_once_with()
                self.assertEqual(self.connections._idle, [])

    def test_a_process_does_not_take_its_leave_in_another_database(self):
        layer = DatabaseChannelLayer()
        layer._store = mock.Mock(connections=self.connections)
        with mock.patch.object(EngineLayer, "leave") as leave:
            with self.renamed():
                self.used()
            layer.leave()
            leave.assert_not_called()
            self.used().close()
            self.connections._idle.clear()
            self.used()
            layer.leave()
            leave.assert_called_once_with()


class PostgreSQLErrorTests(unittest.TestCase):
    """What becomes of the errors of both drivers: psycopg 3 names the state `sqlstate`, psycopg2 `pgcode`."""

    def explain(self, **attributes):
        error = type("DataError", (Exception,), attributes)("an error")
        return error, PostgreSQLConnections("default").explain(error)

    def check(self, states, expected):
        for attribute in ("sqlstate", "pgcode"):
            for state in states:
                with self.subTest(state, attribute=attribute):
                    _, explained = self.explain(**{attribute: state})
                    self.assertIs(type(explained), expected)
                    self.assertIn("an error", str(explained))

    def test_a_deadlock_and_a_serialization_failure_make_the_transaction_run_again(self):
        self.check(["40P01", "40001"], Conflict)

    def test_a_missing_table_or_function_tells_to_migrate(self):
        self.check(["42P01", "42883"], TablesMissing)

    def test_a_server_that_cannot_be_reached_or_refuses_makes_the_layer_unavailable(self):
        self.check(["08006", "57P01", None], LayerUnavailable)

    def test_a_statement_that_a_running_server_refuses_has_done_nothing(self):
        self.check(["53300", "25P03", "3D000", "28P01"], NotSent)

    def test_a_standby_and_a_refused_user_make_the_layer_unavailable(self):
        self.check(["25006", "0A000", "42501"], NotSent)

    def test_an_error_of_the_servers_disk_or_of_itself_makes_the_layer_unavailable(self):
        self.check(["58030", "XX000", "XX001", "XX002"], LayerUnavailable)

    def test_a_lock_that_was_not_got_in_time_makes_the_transaction_run_again(self):
        self.check(["55P03"], Conflict)

    def test_an_error_of_a_subclass_of_operational_error_makes_the_layer_unavailable(self):
        operational = type("OperationalError", (Exception,), {})
        error = type("AdminShutdown", (operational,), {"sqlstate": "99999"})("an error")
        explained = PostgreSQLConnections("default").explain(error)
        self.assertIs(type(explained), LayerUnavailable)

    def test_an_operational_error_makes_the_layer_unavailable_whatever_its_state(self):
        for name in ("OperationalError", "InterfaceError"):
            error = type(name, (Exception,), {"sqlstate": "XX000"})("")
            explained = PostgreSQLConnections("default").explain(error)
            self.assertIs(type(explained), LayerUnavailable)
            self.assertIn(name, str(explained))  # the error is without text

    def test_a_mistake_of_the_layer_itself_is_raised_as_it_is(self):
        for state in ("22P02", "23505", "42601"):
            error, explained = self.explain(sqlstate=state)
            self.assertIs(explained, error)


class MySQLErrorTests(unittest.TestCase):
    def explain(self, name, *args):
        error = type(name, (Exception,), {})(*args)
        return error, MySQLConnections("default").explain(error)

    def test_a_deadlock_and_a_lock_that_was_not_got_make_the_transaction_run_again(self):
        for number in (1020, 1205, 1213):
            _, explained = self.explain("OperationalError", number, "an error")
            self.assertIs(type(explained), Conflict)

    def test_a_missing_table_tells_to_migrate(self):
        _, explained = self.explain("ProgrammingError", 1146, "an error")
        self.assertIs(type(explained), TablesMissing)

    def test_a_server_that_cannot_be_reached_or_refuses_makes_the_layer_unavailable(self):
        for name in ("OperationalError", "InterfaceError", "InternalError"):
            for args in ((2006, "an error"), ("an error",)):
                _, explained = self.explain(name, *args)
                self.assertIs(type(explained), LayerUnavailable)
                self.assertIn("an error", str(explained))
        self.assertIs(type(self.explain("InterfaceError")[1]), LayerUnavailable)

    def test_a_statement_that_a_running_server_refuses_has_done_nothing(self):
        for number in (1021, 1114, 1142, 1290, 1792, 1836):
            _, explained = self.explain("OperationalError", number, "an error")
            self.assertIs(type(explained), NotSent)

    def test_a_mistake_of_the_layer_itself_is_raised_as_it_is(self):
        error, explained = self.explain("IntegrityError", 1062, "an error")
        self.assertIs(explained, error)

"""
channels.binding: values that only a real server or its driver refuses.

These tests add the alias of a server to the settings, where it stays. So this module doesn't run with tests
of Django's own: some write the settings of a project, and the alias with them.
"""

import contextlib
import json
import unittest

from django.channels import route
from django.channels.binding import fields, site_code
from django.channels.binding.websockets import WebsocketBinding
from django.channels.test import WSClient, apply_routes
from django.core.exceptions import ValidationError
from django.db import DatabaseError, OperationalError, connections, transaction
from django.test.utils import override_settings

from .models import Attachment, Document, Restaurant
from .support.aliases import add_alias_like, mariadb_alias, postgresql_alias, remove_alias
from .support.databases import MariaDB, PostgreSQL
from .test_binding import defined_for_a_test


class ToPostgreSQL:
    """A database router."""

    def db_for_write(self, model, **hints):
        return postgresql_alias()


class PostgreSQLValueTests(unittest.TestCase):
    """The drivers of PostgreSQL look at a value only when the row is saved."""

    def setUp(self):
        self.addCleanup(connections[postgresql_alias()].close)

    @override_settings(DATABASE_ROUTERS=[ToPostgreSQL()])
    def test_bytes_are_the_only_values_of_a_binary_field(self):
        for value in (True, 5, 1.5, [1], {"a": 1}):
            with self.subTest(value), self.assertRaises(ValidationError) as caught:
                fields.assign(Attachment(), ["content"], {"content": value}, creating=False)
            self.assertEqual(list(caught.exception.message_dict), ["content"])
        row = Attachment()
        fields.assign(row, ["content"], {"content": "YWJj"}, creating=False)
        self.assertEqual(bytes(row.content), b"abc")

    @override_settings(DATABASE_ROUTERS=[ToPostgreSQL()], USE_TZ=True)
    def test_a_time_that_could_not_be_read_again_is_refused(self):
        for value in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
            with self.subTest(value):
                with self.assertRaises(ValidationError) as caught:
                    fields.assign(Restaurant(), ["at"], {"at": value}, creating=False)
                self.assertEqual(list(caught.exception.message_dict), ["at"])
        row = Restaurant()
        fields.assign(row, ["at"], {"at": "0001-01-02T00:00:00+14:00"}, creating=False)
        self.assertEqual(row.at.year, 1)


class Conflicts:
    """Another connection holds the lock of a row that a client changes, and the server stops waiting."""

    def setUp(self):
        self.alias = add_alias_like(self.server_alias(), **self.options)
        self.addCleanup(remove_alias, self.alias)
        connection = connections[self.alias]
        with connection.schema_editor() as editor:
            editor.create_model(Document)
        self.addCleanup(self.drop)

        class Router:
            def db_for_write(router, model, **hints):
                return self.alias if model is Document else None

            db_for_read = db_for_write

        settings = override_settings(DATABASE_ROUTERS=[Router()])
        settings.enable()
        self.addCleanup(settings.disable)
        Document.objects.create(slug="a", title="old")
        self.binding = defined_for_a_test(
            self,
            "ConflictBinding",
            (WebsocketBinding,),
            model=Document,
            stream="documents",
            fields=["title"],
            channel_session_user=False,
            group_names=classmethod(lambda cls, row: []),
            has_permission=lambda self, user, action, pk: True,
        )

    def drop(self):
        with connections[self.alias].schema_editor() as editor:
            editor.delete_model(Document)

    def update(self):
        client = WSClient()
        with apply_routes(route("websocket.receive", self.binding.consumer)):
            text = json.dumps({"action": "update", "pk": "a", "data": {"title": "new"}})
            client.send_and_consume("websocket.receive", text=text, path="/")
        return client.receive()

    @contextlib.contextmanager
    def locked(self):
        other = self.server.shared().connect()
        try:
            other.cursor().execute("UPDATE channels_tests_document SET title = 'locked'")
            yield
        finally:
            other.rollback()  # now: after `close`, a server may hold the lock for a while
            other.close()

    def test_the_client_is_told_to_try_again(self):
        with self.locked():
            told = self.update()
        self.assertEqual(
            told["payload"]["errors"], {"__all__": ["Another change came first. Try again."]}
        )
        self.assertEqual(Document.objects.get().title, "old")
        self.assertIsNone(self.update())
        self.assertEqual(Document.objects.get().title, "new")

    def test_a_transaction_around_the_change_does_not_go_on(self):
        with self.locked(), self.assertRaises(OperationalError), transaction.atomic(self.alias):
            Document.objects.create(slug="b")
            self.update()
        self.assertEqual(Document.objects.count(), 1)


class PostgreSQLConflictTests(Conflicts, unittest.TestCase):
    server, server_alias = PostgreSQL, staticmethod(postgresql_alias)
    options = {"options": "-c lock_timeout=100ms"}


class MariaDBConflictTests(Conflicts, unittest.TestCase):
    server, server_alias = MariaDB, staticmethod(mariadb_alias)
    options = {"init_command": "SET SESSION innodb_lock_wait_timeout = 1"}


class MariaDBValueTests(unittest.TestCase):
    """For the drivers of MariaDB, a value that the server refuses may be a failure of the server."""

    REFUSED = (
        ("int", "'abc'"),
        ("int", "99999999999"),
        ("decimal(5, 2)", "100000"),
        ("datetime", "'2021-13-45'"),
        ("datetime", "'10000-01-01 00:00:00'"),
        ("time", "'900:00:00'"),
        ("varchar(3)", "'abcd'"),
        ("varchar(9) CHARACTER SET latin1", "_utf8mb4 X'F09F9880'"),
        ("json", "'{'"),
        ("enum('a')", "'b'"),
        ("int NOT NULL", "NULL"),
        ("int UNIQUE", "1), (1"),
        ("int CHECK (value > 5)", "1"),
    )

    def test_what_the_server_refuses_is_told_from_its_failures(self):
        connection = connections[mariadb_alias()]
        self.addCleanup(connection.close)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES'")
            for column, value in self.REFUSED:
                cursor.execute("CREATE OR REPLACE TEMPORARY TABLE refused (value %s)" % column)
                with self.subTest(column, value=value), self.assertRaises(DatabaseError) as raised:
                    cursor.execute("INSERT INTO refused VALUES (%s)" % value)
                self.assertTrue(site_code.refuses_values(raised.exception), raised.exception)
            for statement in ("SELECT * FROM no_such_table", "nonsense"):
                with self.assertRaises(DatabaseError) as raised:
                    cursor.execute(statement)
                self.assertFalse(site_code.refuses_values(raised.exception), raised.exception)

    def test_text_that_a_column_cannot_hold_is_told_from_failures_when_rows_are_looked_for(self):
        """A unique field, or a primary key that is text, is looked for before anything is written."""
        connection = connections[add_alias_like(mariadb_alias(), charset="utf8mb4")]
        self.addCleanup(remove_alias, connection.alias)
        with connection.cursor() as cursor:
            for charset in ("latin1", "utf8"):
                cursor.execute(
                    "CREATE OR REPLACE TEMPORARY TABLE refused (value varchar(9)) CHARACTER SET "
                    + charset
                )
                for condition in (
                    "= %s",
                    "IN (%s, 'a')",
                    "IN (%s, 'a', 'b')",
                    "LIKE concat(%s, '')",
                ):
                    statement = "SELECT * FROM refused WHERE value " + condition
                    with self.subTest(statement, charset=charset):
                        with self.assertRaises(DatabaseError) as raised:
                            cursor.execute(statement, ["\N{GRINNING FACE}"])
                        self.assertTrue(
                            site_code.refuses_values(raised.exception), raised.exception
                        )

    def test_text_that_the_connection_cannot_send_is_told_from_failures(self):
        connection = connections[add_alias_like(mariadb_alias(), charset="latin1")]
        self.addCleanup(remove_alias, connection.alias)
        with connection.cursor() as cursor:
            try:
                cursor.execute("SELECT %s", ["\N{GRINNING FACE}"])
            except UnicodeEncodeError as error:  # `assertRaises` would take its traceback
                self.assertTrue(site_code.refuses_values(error))
            else:
                self.fail("the driver sent it")

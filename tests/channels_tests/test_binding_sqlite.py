"""
channels.binding: on SQLite, a bound row is changed while other connections write.

These tests add an alias to the settings and remove it. So this module doesn't run with tests of Django's own:
some write the settings of a project.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import unittest

from django.channels import route
from django.channels.binding.websockets import WebsocketBinding
from django.channels.test import WSClient, apply_routes
from django.db import connections, transaction
from django.db.models.signals import m2m_changed, post_init, pre_delete, pre_save
from django.test.utils import override_settings

from .models import IntegerValue, Tag
from .support.aliases import add_alias, remove_alias
from .test_binding import defined_for_a_test

ALIAS = "channels_sqlite"


class Router:
    """A database router: the bound model is in the file."""

    def db_for_read(self, model, **hints):
        return ALIAS if model in (IntegerValue, Tag) else None

    db_for_write = db_for_read


class OtherWriterTests(unittest.TestCase):
    """
    Another connection tries to write just before Django writes, at once or not at all. SQLite refuses the
    write of a transaction that has read before another one wrote.
    """

    def setUp(self):
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = os.path.join(directory, "db.sqlite3")
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("PRAGMA journal_mode = wal")
        other.execute("CREATE TABLE other (id integer)")
        add_alias(ALIAS, {"ENGINE": "django.db.backends.sqlite3", "NAME": path})
        self.addCleanup(remove_alias, ALIAS)
        connection = connections[ALIAS]
        with connection.schema_editor() as editor:
            editor.create_model(Tag)
            editor.create_model(IntegerValue)
        settings = override_settings(DATABASE_ROUTERS=[Router()])
        settings.enable()
        self.addCleanup(settings.disable)
        self.other, self.tried = other, []
        self.binding = defined_for_a_test(
            self,
            "SQLiteBinding",
            (WebsocketBinding,),
            model=IntegerValue,
            stream="values",
            fields=["name", "value", "tags"],
            channel_session_user=False,
            group_names=classmethod(lambda cls, row: ["values"]),
            has_permission=lambda self, user, action, pk: True,
        )

    def write_at(self, signal, sender=IntegerValue):
        """Have the other connection try to write when `signal` is sent, after the binding received it."""
        signal.connect(self.write, sender=sender)
        self.addCleanup(signal.disconnect, self.write, sender=sender)

    def write(self, **kwargs):
        self.tried.append(True)
        try:
            self.other.execute("INSERT INTO other VALUES (1)")
        except sqlite3.OperationalError:
            pass

    def act(self, action, pk):
        """Have a client ask for a change. Return what it is told."""
        client = WSClient()
        with apply_routes(route("websocket.receive", self.binding.consumer)):
            text = json.dumps({"action": action, "pk": pk, "data": {"name": "row", "value": 5}})
            client.send_and_consume("websocket.receive", text=text, path="/")
        return client.receive()

    def row(self):
        return IntegerValue.objects.create(name="row")

    def test_a_deletion_needs_no_second_try(self):
        row = self.row()
        self.write_at(pre_delete)
        row.delete()
        self.assertEqual((self.tried, IntegerValue.objects.count()), ([True], 0))

    def test_a_save_in_a_transaction_needs_no_second_try(self):
        row = self.row()
        self.write_at(pre_save)
        with transaction.atomic(ALIAS):
            row.save()
        self.assertEqual(self.tried, [True])

    def test_a_change_of_a_relation_needs_no_second_try(self):
        row, tag = self.row(), Tag.objects.create(name="tag")
        row.tags.add(tag)
        self.write_at(m2m_changed, IntegerValue.tags.through)
        row.tags.clear()
        self.assertEqual((self.tried, row.tags.count()), ([True, True], 0))

    def test_text_that_the_sites_own_code_cannot_encode_is_no_refusal_of_the_database(self):
        def run_action(binding, action, pk, data):
            "\xe9".encode("ascii")

        self.binding.run_action = run_action
        with self.assertRaises(UnicodeEncodeError):
            self.act("update", self.row().pk)

    def test_a_change_by_a_client_needs_no_second_try(self):
        row = self.row()
        self.write_at(post_init)
        for action in ("update", "delete"):
            self.assertIsNone(self.act(action, row.pk))
        self.assertTrue(self.tried)
        self.assertEqual(IntegerValue.objects.count(), 0)

    def test_a_change_whose_permission_is_read_needs_no_second_try(self):
        def has_permission(binding, user, action, pk):
            IntegerValue.objects.exists()
            self.write()
            return True

        row = self.row()
        self.binding.has_permission = has_permission
        for action in ("update", "delete", "create"):
            self.assertIsNone(self.act(action, row.pk))
        self.assertEqual(self.tried, [True] * 3)
        self.assertEqual([each.value for each in IntegerValue.objects.all()], [5])

    def test_an_action_of_the_site_that_reads_first_needs_no_second_try(self):
        def run_action(binding, action, pk, data):
            row = IntegerValue.objects.get(pk=pk)
            self.write()
            IntegerValue.objects.filter(pk=pk).update(value=row.value + 1)

        row = self.row()
        self.binding.run_action = run_action
        before = row.value or 0
        IntegerValue.objects.filter(pk=row.pk).update(value=before)
        self.assertIsNone(self.act("increase", row.pk))
        self.assertEqual(self.tried, [True])
        self.assertEqual(IntegerValue.objects.get().value, before + 1)

    def test_the_lock_costs_no_query_that_a_test_of_the_site_counts(self):
        row = self.row()
        connection = connections[ALIAS]
        connection.force_debug_cursor = True
        self.addCleanup(setattr, connection, "force_debug_cursor", False)
        with transaction.atomic(ALIAS):
            before = len(connection.queries)
            row.save()
            queries = [each["sql"] for each in connection.queries[before:]]
        self.assertTrue(any("UPDATE" in each for each in queries), queries)
        self.assertFalse(any("DELETE" in each for each in queries), queries)

"""The table of delayed messages that Channels 1.1 made: `migrate` takes it over with its rows."""

import io
import unittest
from importlib import import_module

from django.channels.delay.models import DelayedMessage
from django.channels.layers.memory import MemoryChannelLayer
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import TransactionTestCase
from django.utils import timezone

from .applications import INSTALLED

APP = "channels_delay"
OURS, THEIRS = (APP, "0001_initial"), ("channels.delay", "0001_initial")

#: What `migrate` of Channels 1.1.8 ran on SQLite, with Django 1.11.
TABLE = """
CREATE TABLE "channels.delay_delayedmessage" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,
"due_date" datetime NOT NULL, "channel_name" varchar(512) NOT NULL, "content" text NOT NULL)
"""
INDEX = """
CREATE INDEX "channels.delay_delayedmessage_due_date_702552e5"
ON "channels.delay_delayedmessage" ("due_date")
"""
ROW = """
INSERT INTO "channels.delay_delayedmessage" (due_date, channel_name, content) VALUES (%s, %s, %s)
"""


def tables():
    with connection.cursor() as cursor:
        return connection.introspection.table_names(cursor)


def records():
    """The rows of django_migrations about this app, under both labels."""
    applied = MigrationRecorder(connection).applied_migrations()
    return {key for key in applied if key in (OURS, THEIRS)}


def migrate():
    call_command("migrate", APP, verbosity=0, interactive=False)


@unittest.skipUnless(connection.vendor == "sqlite", "the table was recorded with SQLite")
class UpgradeTests(TransactionTestCase):
    available_apps = INSTALLED

    def setUp(self):
        # The tests' database has the table already: begin without it and its records.
        self.drop()
        self.addCleanup(self.restore)

    def drop(self):
        recorder = MigrationRecorder(connection)
        with connection.cursor() as cursor:
            if DelayedMessage._meta.db_table in tables():
                cursor.execute('DROP TABLE "%s"' % DelayedMessage._meta.db_table)
        for key in records():
            recorder.record_unapplied(*key)

    def restore(self):
        self.drop()
        migrate()

    def make_table_of_channels_1(self):
        with connection.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute(INDEX)
            now = (
                connection.ops.adapt_datetimefield_value
                if hasattr(connection.ops, "adapt_datetimefield_value")
                else connection.ops.value_to_db_datetime
            )
            cursor.execute(ROW, [now(timezone.now()), "later", '{"x": 1}'])
        MigrationRecorder(connection).record_applied(*THEIRS)

    def test_messages_are_kept_and_sent(self):
        self.make_table_of_channels_1()
        migrate()
        (delayed,) = DelayedMessage.objects.is_due()
        layer = MemoryChannelLayer()
        self.assertTrue(delayed.send(channel_layer=layer))
        self.assertEqual(layer.receive_many(["later"]), ("later", {"x": 1}))
        self.assertFalse(DelayedMessage.objects.exists())

    def test_nothing_is_left_to_migrate(self):
        self.make_table_of_channels_1()
        executor = MigrationExecutor(connection)
        self.assertEqual(executor.migration_plan([OURS]), [])
        migrate()
        self.assertIn(THEIRS, records())  # so that a step back to 1.1 finds its migration applied

    def test_a_new_site_gets_the_table(self):
        migrate()
        DelayedMessage.objects.create(channel_name="later", content="{}")
        self.assertEqual(DelayedMessage.objects.count(), 1)
        self.assertEqual(MigrationExecutor(connection).migration_plan([OURS]), [])

    def test_the_model_needs_no_further_migration(self):
        migrate()
        out = io.StringIO()
        call_command("makemigrations", APP, dry_run=True, interactive=False, stdout=out)
        self.assertIn("No changes detected", out.getvalue())

    def test_migrations_of_a_site_may_depend_on_that_of_channels_1(self):
        class SiteLoader(MigrationLoader):
            """With a migration of the site, as it was written for Channels 1.1."""

            def load_disk(self):
                super().load_disk()
                migration = import_module("django.db.migrations").Migration("0001_site", "site")
                migration.dependencies = [THEIRS]
                self.disk_migrations["site", "0001_site"] = migration
                self.migrated_apps.add("site")

        for make in (lambda: None, self.make_table_of_channels_1):
            make()
            plan = SiteLoader(connection).graph.forwards_plan(("site", "0001_site"))
            self.assertEqual(plan, [OURS, ("site", "0001_site")])

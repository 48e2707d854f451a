"""What the database layer says if its server, its database or its role is missing: what to do."""

import socket
from unittest import TestCase

from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.layers.database import DatabaseChannelLayer
from django.channels.layers.database.refusals import unreachable, unusable_file
from django.channels.layers.engine.threads import start_thread
from django.channels.worker import Worker
from django.core.exceptions import ImproperlyConfigured

from .support.aliases import add_alias, remove_alias
from .support.databases import MariaDB, PostgreSQL
from .support.waiting import TIMEOUT, wait_until
from .test_silence import Lines


class RefusalTests(TestCase):
    def assert_remedy(self, settings, *words):
        alias = add_alias("channels_refused", settings)
        layer = DatabaseChannelLayer(database=alias)
        try:
            with self.assertRaises(LayerUnavailable) as raised:
                layer.send("work", {})
        finally:
            layer.close()
            remove_alias(alias)
        text = str(raised.exception)
        self.assertNotIn("\n", text)
        for word in words + ("'channels_refused' in DATABASES",):
            self.assertIn(word, text)

    def test_postgresql(self):
        server = PostgreSQL.shared()
        self.assert_remedy(server.settings(NAME="nowhere"), "createdb nowhere", "correct NAME")
        self.assert_remedy(server.settings(USER="nobody_here"), "createuser nobody_here", "USER")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = str(taken.getsockname()[1])
            self.assert_remedy(server.settings(PORT=port), "Start the server", "HOST and PORT")
        self.assert_remedy(server.settings(HOST="/nowhere"), "Start the server", "HOST and PORT")

    def test_missing_tables_are_waited_for_as_a_server_that_is_away(self):
        server = PostgreSQL.shared()
        alias = add_alias("channels_refused", server.settings(NAME="postgres"))
        layer = DatabaseChannelLayer(database=alias)
        for error in (LayerUnavailable, ImproperlyConfigured):
            with self.assertRaisesRegex(error, "migrate --database=channels_refused$"):
                layer.send("work", {})
        worker = Worker(layer)
        with Lines("django.channels.layers") as lines, Lines("django.channels.worker") as others:
            thread = start_thread("worker", worker.run, lambda: worker.stopping)
            wait_until(lambda: lines, "the line")
            worker.stop()
            thread.join(TIMEOUT)
            layer.close()
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("migrate --database=channels_refused. This process tries again", lines[0])
        self.assertEqual(others, [])
        remove_alias(alias)

    def test_mariadb(self):
        server = MariaDB.shared()
        self.assert_remedy(server.settings(NAME="nowhere"), "CREATE DATABASE nowhere")
        self.assert_remedy(
            server.settings(USER="nobody_here", PASSWORD="x"), "Correct USER and PASSWORD"
        )

    def test_what_servers_with_passwords_say(self):
        for said, remedy in (
            (
                'connection failed: FATAL:  password authentication failed for user "a"',
                "Correct USER and PASSWORD of 'default' in DATABASES",
            ),
            ('FATAL:  Peer authentication failed for user "a"', "Set HOST to 'localhost'"),
            ("fe_sendauth: no password supplied", "Correct USER and PASSWORD"),
            ('no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf of the server"),
            ("server closed the connection\n\tunexpectedly", "the connection unexpectedly"),
        ):
            text = str(unreachable("PostgreSQL", "default", OSError(said)))
            self.assertIn(remedy, text)
            self.assertTrue(text.startswith("PostgreSQL (database 'default'): "), text)

    def test_what_only_refuses_to_write_can_be_read(self):
        """Then the log tells the end of the outage when writes work again, and not after a read."""
        for said, is_readable in (
            ("database or disk is full", True),
            ("attempt to write a readonly database", True),
            ("[Errno 28] No space left on device", True),
            ('could not extend file "base/1/2": No space left on device\nHINT: Check', True),
            ("cannot execute INSERT in a read-only transaction", True),
            ("(1114, \"The table 'channels_database_message' is full\")", True),
            ("(1021, 'Disk full (/tmp/#sql); waiting for someone to free some space')", True),
            ("(1290, 'The MariaDB server is running with the --read-only option')", True),
            ("disk I/O error", False),
            ("Connection refused", False),
            ("server closed the connection unexpectedly", False),
        ):
            for error in (
                unreachable("PostgreSQL", "default", OSError(said)),
                unreachable("MySQL", "default", OSError(said), refused=True),
                unusable_file("/site/db.sqlite3", OSError(said)),
            ):
                with self.subTest(str(error)):
                    self.assertIs(error.is_readable, is_readable)
                    self.assertIs(NotSent.because_of(error).is_readable, is_readable)

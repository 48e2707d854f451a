"""The database layer behind a real PgBouncer in transaction mode: it keeps the contract, and polls."""

import os
import signal
import socket
import threading
import unittest
from unittest import mock

from django.channels.layers.database import watcher
from django.channels.test.conformance import LayerConformance

from .database_servers import PostgreSQL, Server, add_alias, missing, postgresql_alias, program
from .servers import wait_until
from .test_database_layer import DatabaseLayerCase
from .timing import TIMEOUT

CONFIGURATION = """
[databases]
channels = host=127.0.0.1 port={server.port} dbname=channels user={server.login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
"""


class PgBouncer(Server):
    """In front of the tests' PostgreSQL."""

    name = "PgBouncer"
    user = PostgreSQL.user
    login = PostgreSQL.login
    engine = PostgreSQL.engine
    stop_signal = signal.SIGTERM  # at once: SIGINT waits for its clients

    def __init__(self):
        self.binary = program("pgbouncer", "/usr/sbin/pgbouncer")
        if self.binary is None:
            missing("PgBouncer is not installed here")
        self.server = PostgreSQL.shared()
        super().__init__()

    def prepare(self):
        postgresql_alias()  # makes the tables, once
        self.file = os.path.join(self.folder, "pgbouncer.ini")
        with open(self.file, "w") as file:
            file.write(CONFIGURATION.format(server=self.server, port=self.port))
        os.chmod(self.file, 0o644)

    def command(self):
        return [self.binary, self.file]

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True


class PgBouncerCase(DatabaseLayerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alias = add_alias("channels_pgbouncer", PgBouncer.shared().settings())


class PgBouncerConformanceTests(PgBouncerCase, LayerConformance, unittest.TestCase):
    pass


class PgBouncerTests(PgBouncerCase, unittest.TestCase):
    def test_it_finds_out_says_so_and_goes_on(self):
        layer = self.make_layer()
        layer.flush()
        layer.block_for = TIMEOUT
        found = []
        with mock.patch.object(watcher, "PROOF_TIMEOUT", 0.5), self.assertLogs(
            "django.channels.layers.database", "WARNING"
        ) as logs:
            thread = threading.Thread(
                target=lambda: found.append(layer.receive_many(["polled"], block=True))
            )
            thread.start()
            wait_until(lambda: any("pooler" in line for line in logs.output), "the warning")
            self.make_layer().send("polled", {"number": 1})
            thread.join(TIMEOUT)
        self.assertEqual(found, [("polled", {"number": 1})])
        self.assertFalse(layer.watcher.listening)

"""
Real database servers for tests, each started once a run on a free port, and stopped by its process id.

PostgreSQL and MariaDB refuse to run as root: as root they are started as the user that their
package made. `alias_for` gives Django an alias on one of them; its tables are made there by the
app's own migration.
"""

import atexit
import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import django
from django.channels.layers.database import statements
from django.db import connections

from .timing import SCALE

#: Seconds that a server gets to start.
START = 60 * SCALE


def missing(reason):
    """Skip on a laptop, fail in CI."""
    if os.environ.get("CI") == "true":
        raise AssertionError(reason + " (a test whose server is missing fails in CI)")
    raise unittest.SkipTest(reason)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def program(name, *patterns):
    """
    The path of a program on PATH or where a pattern finds it (the last one, of the newest version);
    or None.
    """
    found = shutil.which(name)
    if found:
        return os.path.realpath(found)
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))
        if paths:
            return paths[-1]
    return None


def importable(*names):
    for name in names:
        try:
            __import__(name)
            return name
        except ImportError:
            pass
    return None


def open_folder():
    """Where other users get to: the temporary folder of Django's own test runner is for its user alone."""
    folder = tempfile.gettempdir()
    while not os.stat(folder).st_mode & stat.S_IXOTH:
        folder = os.path.dirname(folder)
    return folder


class Server:
    """A database server of its own, with its data in a temporary folder."""

    user = None
    running = None

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="channels-test-", dir=open_folder())
        self.port = free_port()
        self.process = None
        self.ids = None
        if os.getuid() == 0:
            try:
                entry = pwd.getpwnam(self.user)
            except KeyError:
                missing("root cannot run %s, and there is no user %r" % (self.name, self.user))
            self.ids = (entry.pw_uid, entry.pw_gid)
            os.chown(self.folder, *self.ids)
        self.owner = os.getpid()
        atexit.register(self.remove)

    @classmethod
    def shared(cls):
        """The server of this run; SkipTest (in CI AssertionError) where there is none."""
        if cls.running is None:
            server = cls()
            server.prepare()
            server.start()
            cls.running = server
        return cls.running

    def _become(self):
        os.setsid()
        if self.ids is not None:
            os.setgroups([])
            os.setgid(self.ids[1])
            os.setuid(self.ids[0])

    def environment(self):
        return dict(os.environ, TMPDIR=self.folder)  # as for open_folder()

    def run(self, *command):
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=self._become,
            cwd=self.folder,
            env=self.environment(),
            timeout=START,
        )
        if result.returncode:
            raise AssertionError(
                "%s failed:\n%s" % (command[0], result.stdout.decode(errors="replace")[-2000:])
            )

    def start(self):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(
            self.command(),
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=self._become,
            cwd=self.folder,
            env=self.environment(),
        )
        deadline = time.monotonic() + START
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "log"), errors="replace") as log:
                    raise AssertionError("%s did not start:\n%s" % (self.name, log.read()[-2000:]))
            time.sleep(0.05)

    def stop(self, number=None):
        """Stop it by its process id; with SIGKILL it crashes."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number or self.stop_signal)
            self.process.wait(START)
            self.log.close()

    def remove(self):
        if os.getpid() == self.owner:
            self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, **changes):
        settings = {
            "ENGINE": self.engine,
            "NAME": "channels",
            "USER": self.login,
            "PASSWORD": "",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPTIONS": {},
        }
        settings.update(changes)
        return settings


class PostgreSQL(Server):
    name = "PostgreSQL"
    user = "postgres"
    login = "postgres"
    engine = "django.db.backends.postgresql"
    if django.VERSION < (1, 9):
        engine += "_psycopg2"
    stop_signal = signal.SIGINT  # "fast": it ends its sessions

    def __init__(self):
        self.binary = program(
            "postgres", "/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"
        )
        if self.binary is None:
            missing("PostgreSQL is not installed here")
        if not importable("psycopg2", "psycopg"):
            missing("Neither psycopg nor psycopg2 is installed here")
        super().__init__()

    def prepare(self):
        data = os.path.join(self.folder, "data")
        self.run(
            os.path.join(os.path.dirname(self.binary), "initdb"),
            "--pgdata", data, "--username", self.login, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip

    def command(self):
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        command = [self.binary, "-D", os.path.join(self.folder, "data")]
        for name, value in options.items():
            command += ["-c", "%s=%s" % (name, value)]
        return command

    def answers(self):
        try:
            connection = self.connect("postgres")
        except Exception:
            return False
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'channels'")
            if not cursor.fetchall():
                cursor.execute("CREATE DATABASE channels")
        finally:
            connection.close()
        return True

    def connect(self, name="channels"):
        """A connection of the driver, apart from Django and the layer."""
        driver = __import__(importable("psycopg", "psycopg2"))
        return driver.connect(
            host="127.0.0.1", port=self.port, user=self.login, dbname=name, connect_timeout=5
        )


class MariaDB(Server):
    name = "MariaDB"
    user = "mysql"
    login = "root"
    engine = "django.db.backends.mysql"
    stop_signal = signal.SIGTERM

    def __init__(self):
        self.binary = program(
            "mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/sbin/mysqld"
        )
        self.installer = program(
            "mariadb-install-db", "/usr/bin/mariadb-install-db", "/usr/bin/mysql_install_db"
        )
        if self.binary is None or self.installer is None:
            missing("MariaDB is not installed here")
        if not mysql_driver():
            missing("Neither mysqlclient nor PyMySQL is installed here")
        super().__init__()

    def prepare(self):
        self.run(
            self.installer,
            "--no-defaults", "--datadir=" + os.path.join(self.folder, "data"),
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
        )  # fmt: skip

    def command(self):
        return [
            self.binary,
            "--no-defaults",
            "--datadir=" + os.path.join(self.folder, "data"),
            "--socket=" + os.path.join(self.folder, "socket"),
            "--pid-file=" + os.path.join(self.folder, "pid"),
            "--bind-address=127.0.0.1",
            "--port=%d" % self.port,
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--skip-name-resolve",
        ]

    def answers(self):
        try:
            connection = self.connect(None)
        except Exception:
            return False
        try:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS channels")
        finally:
            connection.close()
        return True

    def connect(self, name="channels"):
        import MySQLdb

        options = {"database": name} if name else {}
        return MySQLdb.connect(
            host="127.0.0.1", port=self.port, user=self.login, connect_timeout=5, **options
        )


def mysql_driver():
    """
    Whether there is a driver for Django's MySQL back end; PyMySQL takes the place of mysqlclient.
    """
    if importable("MySQLdb"):
        return True
    if not importable("pymysql"):
        return False
    import pymysql

    # Django asks for a version of mysqlclient that offers what PyMySQL does.
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
    return True


def add_alias(alias, settings):
    """Give Django the alias: a dict as in DATABASES."""
    defaults = {
        "ATOMIC_REQUESTS": False,
        "AUTOCOMMIT": True,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "OPTIONS": {},
        "TIME_ZONE": None,
        "NAME": "",
        "USER": "",
        "PASSWORD": "",
        "HOST": "",
        "PORT": "",
        "TEST": {"CHARSET": None, "COLLATION": None, "MIGRATE": True, "MIRROR": None, "NAME": None},
    }
    connections.databases[alias] = dict(defaults, **settings)
    with contextlib.suppress(AttributeError):
        del connections[alias]  # an earlier test class had its own database under this name
    return alias


def make_tables(server):
    """The layer's tables on a server that has none."""
    vendor = {"PostgreSQL": "postgresql", "MariaDB": "mysql"}[server.name]
    connection = server.connect()
    try:
        cursor = connection.cursor()
        for statement in statements.schema(vendor):
            cursor.execute(statement)
        connection.commit()
    finally:
        connection.close()


def postgresql_alias():
    """The alias "channels_postgresql", with the layer's tables."""
    return _shared_alias(PostgreSQL, "channels_postgresql")


def mariadb_alias():
    """The alias "channels_mariadb", with the layer's tables."""
    return _shared_alias(MariaDB, "channels_mariadb")


def _shared_alias(server_class, alias):
    server = server_class.shared()
    if alias not in connections.databases:
        make_tables(server)
        add_alias(alias, server.settings())
    return alias


def python_environment():
    """The environment of a process that imports what this one does."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))

"""Real database servers: PostgreSQL, PgBouncer in front of it, and MariaDB.

PostgreSQL and MariaDB refuse to run as root: root starts them as the user that their package made.
`aliases.py` gives Django an alias on one of them.
"""

import os
import signal

from .requirements import find_program, first_importable, missing
from .servers import Server


class Database(Server):
    """A database server, with a database `channels`."""

    login = None
    engine = None

    def settings(self, **changes):
        """Return the server's entry for Django's DATABASES."""
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


class PostgreSQL(Database):
    """`options` are settings of postgresql.conf. By default it is quick, and loses data in a power cut."""

    name = "PostgreSQL"
    user = login = "postgres"
    stop_signal = signal.SIGINT  # "fast": it ends its sessions
    fast = {"fsync": "off", "full_page_writes": "off"}

    def __init__(self, **options):
        self.binary = find_program(
            "postgres", "/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"
        )
        if self.binary is None:
            missing("PostgreSQL is not installed here")
        if not first_importable("psycopg2", "psycopg"):
            missing("psycopg and psycopg2 are not installed here")
        super().__init__()
        self.data = os.path.join(self.directory, "data")
        self.options = dict(self.fast, max_connections=200, **options)

    @property
    def engine(self):
        import django

        suffix = "_psycopg2" if django.VERSION < (1, 9) else ""
        return "django.db.backends.postgresql" + suffix

    def prepare(self):
        self.run(
            os.path.join(os.path.dirname(self.binary), "initdb"),
            "--pgdata", self.data, "--username", self.login, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip

    def command(self):
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
        }
        options.update(self.options)
        command = [self.binary, "-D", self.data]
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
        """Return a connection of the driver, independent of Django and the layer."""
        driver = __import__(first_importable("psycopg", "psycopg2"))
        return driver.connect(
            host="127.0.0.1", port=self.port, user=self.login, dbname=name, connect_timeout=5
        )


class PgBouncer(Database):
    """PgBouncer in transaction mode, in front of the PostgreSQL `server`."""

    name = "PgBouncer"
    user = PostgreSQL.user
    login = PostgreSQL.login
    stop_signal = signal.SIGTERM  # at once: SIGINT waits for its clients

    configuration = """
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

    def __init__(self, server=None):
        self.binary = find_program("pgbouncer", "/usr/sbin/pgbouncer")
        if self.binary is None:
            missing("PgBouncer is not installed here")
        self.server = server or PostgreSQL.shared()
        self.engine = self.server.engine
        super().__init__()

    def prepare(self):
        self.file = os.path.join(self.directory, "pgbouncer.ini")
        with open(self.file, "w") as file:
            file.write(self.configuration.format(server=self.server, port=self.port))
        os.chmod(self.file, 0o644)

    def command(self):
        return [self.binary, self.file]


class MariaDB(Database):
    name = "MariaDB"
    user = "mysql"
    login = "root"
    engine = "django.db.backends.mysql"
    stop_signal = signal.SIGTERM

    def __init__(self):
        self.binary = find_program(
            "mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/sbin/mysqld"
        )
        self.installer = find_program(
            "mariadb-install-db", "/usr/bin/mariadb-install-db", "/usr/bin/mysql_install_db"
        )
        if self.binary is None or self.installer is None:
            missing("MariaDB is not installed here")
        if not mysql_driver():
            missing("mysqlclient and PyMySQL are not installed here")
        super().__init__()

    def prepare(self):
        self.run(
            self.installer,
            "--no-defaults", "--datadir=" + os.path.join(self.directory, "data"),
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
        )  # fmt: skip

    def settings(self, **changes):
        if not first_importable("_mysql", "MySQLdb._mysql"):
            # PyMySQL reads all certificates of the machine for each connection.
            changes["OPTIONS"] = dict(changes.get("OPTIONS", {}), ssl_disabled=True)
        return super().settings(**changes)

    def command(self):
        return [
            self.binary,
            "--no-defaults",
            "--datadir=" + os.path.join(self.directory, "data"),
            "--socket=" + os.path.join(self.directory, "socket"),
            "--pid-file=" + os.path.join(self.directory, "pid"),
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
        """Return a connection of the driver, independent of Django and the layer."""
        import MySQLdb

        options = {"database": name} if name else {}
        return MySQLdb.connect(
            host="127.0.0.1", port=self.port, user=self.login, connect_timeout=5, **options
        )


def mysql_driver():
    """Return whether there is a driver for MySQL; PyMySQL takes the place of mysqlclient."""
    if first_importable("MySQLdb"):
        return True
    if not first_importable("pymysql"):
        return False
    import pymysql

    # Django asks for a version of mysqlclient that offers what PyMySQL does.
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
    return True

"""Give Django an alias on one of the servers of databases.py, with the database layer's tables in it."""

import contextlib
import itertools

from django.channels.layers.database import statements
from django.db import connections

from .databases import MariaDB, PgBouncer, PostgreSQL

_numbers = itertools.count(1)


def add_alias(alias, settings):
    """Add `alias` to Django's databases, with an entry as in DATABASES, and return it."""
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


def add_alias_like(alias, **options):
    """Add an alias for the database of another one, with these OPTIONS besides, and return it."""
    settings = dict(connections.databases[alias])
    settings["OPTIONS"] = dict(settings["OPTIONS"], **options)
    return add_alias("%s_%d" % (alias, next(_numbers)), settings)


def remove_alias(alias):
    """
    Remove what `add_alias` added, when its server ends. Before Django 2.2, each TestCase connects to every
    MySQL alias that there is.
    """
    connections[alias].close()
    del connections[alias]
    del connections.databases[alias]


def make_tables(server):
    """Make the layer's tables on a server that has none."""
    vendor = {"PostgreSQL": "postgresql", "MariaDB": "mysql"}[server.name]
    connection = server.connect()
    try:
        cursor = connection.cursor()
        for statement in statements.schema(vendor):
            cursor.execute(statement)
        connection.commit()
    finally:
        connection.close()


def empty_tables(server):
    """Delete what earlier tests left in the tables, such as the lease of a gateway that was cut off."""
    connection = server.connect()
    try:
        cursor = connection.cursor()
        for table in statements.TABLES:
            cursor.execute("DELETE FROM " + table)
        connection.commit()
    finally:
        connection.close()


def postgresql_alias():
    """Return the alias "channels_postgresql", with the layer's tables, which are empty."""
    return _shared_alias(PostgreSQL, "channels_postgresql")


def mariadb_alias():
    """Return the alias "channels_mariadb", with the layer's tables, which are empty."""
    return _shared_alias(MariaDB, "channels_mariadb")


def pgbouncer_alias():
    """Return the alias "channels_pgbouncer": PgBouncer before the database of `postgresql_alias`."""
    postgresql_alias()
    return add_alias("channels_pgbouncer", PgBouncer.shared().settings())


def _shared_alias(server_class, alias):
    server = server_class.shared()
    if alias not in connections.databases:
        make_tables(server)
        add_alias(alias, server.settings())
    # An earlier test may have left it open, and its server was restarted.
    if not connections[alias].in_atomic_block:
        connections[alias].close()
    empty_tables(server)
    return alias


#: What the settings of a project on MariaDB begin with.
MARIADB_SETTINGS = """
DEBUG = False  # with it, Django 2.2 wants bytes that PyMySQL does not give

try:
    import MySQLdb
except ImportError:
    import pymysql

    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
"""

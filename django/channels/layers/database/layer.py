"""
DatabaseChannelLayer: the engine over the tables of a Django database.

Here are its options and the choice of a store. The store is store.py; SQL is in sql/.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.db import connections as aliases

from ...exceptions import InvalidChannelName
from ..engine import options
from ..engine.layer import EngineLayer
from ..engine.options import Options
from ..names import check_group_name
from .connections import SOCKET_TIMEOUT

if TYPE_CHECKING:
    from .store import DatabaseStore


class DatabaseChannelLayer(EngineLayer):
    """
    A layer in the database of Django's alias `database`.

    On PostgreSQL, MariaDB and MySQL the app of this package makes the tables there (`manage.py migrate`). On
    SQLite the layer keeps them in `file`, by default a file next to the site's. Layers with different
    `prefix` share a database and see nothing of each other. The other options are those of `Options` and of
    BaseChannelLayer; each may be written in capitals, as in CONFIG.
    """

    sends_on_commit = True

    _store: DatabaseStore | None

    #: The options of this layer alone, with their defaults.
    OWN = {"database": "default", "file": None, "prefix": "channels", "socket_timeout": None}

    def __init__(self, **config: Any) -> None:
        own, shared, common = options.split(config, self.OWN)
        self.database: str = own["database"]
        self.file = own["file"]
        if not isinstance(self.database, str):
            raise options.refusal("database", "an alias of DATABASES", self.database)
        if self.file is not None and (
            not self.file or not isinstance(self.file, (str, os.PathLike))
        ):
            raise options.refusal("file", "the path of a file", self.file)
        self.socket_timeout = own["socket_timeout"]
        if self.socket_timeout is not None:
            options.check_seconds("socket_timeout", self.socket_timeout)
        try:
            self.prefix: str = check_group_name(own["prefix"])
        except InvalidChannelName as error:
            what = "up to 99 ASCII letters, digits, hyphens, underscores and periods"
            raise options.refusal("prefix", what, own["prefix"]) from error
        super().__init__(Options(**shared), **common)

    def leave(self) -> None:
        # A test runner has put the site's own NAME back: what was counted in its database stays there.
        if self._store is None or not self._store.connections.has_moved():
            super().leave()

    def is_of_tests(self) -> bool:
        store = cast("DatabaseStore", self.store)
        return self.file is None and store.connections.has_other_name()

    def required_app(self) -> str:
        # On SQLite the layer makes its tables itself.
        return "" if aliases[self.database].vendor == "sqlite" else __package__

    def make_store(self) -> DatabaseStore:
        vendor = aliases[self.database].vendor
        if vendor == "sqlite" and self.socket_timeout is not None:
            raise ImproperlyConfigured(
                "The channel layer's option socket_timeout is for servers, and the database %r is SQLite: "
                "remove it from CONFIG." % self.database
            )
        if vendor == "sqlite":
            from .sqlite import SQLiteStore

            return SQLiteStore(self.database, self.prefix, file=self.file)
        if self.file is not None:
            raise ImproperlyConfigured(
                "The channel layer's option file is for SQLite, and the database %r is not SQLite: "
                "remove it from CONFIG." % self.database
            )
        timeout = self.socket_timeout or SOCKET_TIMEOUT
        if vendor == "postgresql":
            from .postgresql import PostgreSQLStore

            return PostgreSQLStore(self.database, self.prefix, timeout=timeout)
        if vendor == "mysql":
            from .mysql import MySQLStore

            return MySQLStore(self.database, self.prefix, timeout=timeout)
        raise ImproperlyConfigured(
            "The channel layer works on PostgreSQL, MariaDB, MySQL and SQLite; the database %r is "
            "%s." % (self.database, vendor)
        )

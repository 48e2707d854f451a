"""
The layer's own connections: opened as the Django alias says, in autocommit, and never a request's.

`Connections` lends them out, one to a thread at a time, and outlives a restart of the server and a
fork. What differs between databases is in postgresql.py, mysql.py and sqlite.py.
"""

import asyncio
import os
import select
import threading
import time
from contextlib import contextmanager

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.db import connections as aliases
from django.db.utils import load_backend

from ...exceptions import LayerUnavailable

#: A transaction that lost against another one (a deadlock) is run this often.
TRIES = 10

#: Seconds for which a connection that was just used is taken for alive.
FRESH = 0.02

#: Idle connections that are kept.
MOST_IDLE = 16


#: A parent's connections, in a process forked from it: kept, for some drivers close what is let go of.
_inherited = []


class Conflict(Exception):
    """The transaction lost against another one, and was rolled back: run it again."""


class Connection:
    """
    One connection of the driver, with the cursor that everything runs on. For one thread at a time.
    """

    def __init__(self, raw, cursor):
        self.raw = raw
        self.cursor = cursor
        self.used = 0.0

    def run(self, statement, parameters=()):
        """Execute; returns the number of rows it changed."""
        self.cursor.execute(statement, parameters)
        return self.cursor.rowcount

    def rows(self, statement, parameters=()):
        """Execute; returns the rows, a list of tuples."""
        self.cursor.execute(statement, parameters)
        return self.cursor.fetchall()

    def close(self):
        try:
            self.raw.close()
        except Exception:  # noqa: S110  (it is broken already)
            pass


class Connections:
    """
    Connections to one database; a subclass says how one is opened and what its driver's errors mean.

    `alias` names the entry of DATABASES; it is read anew for each connection, so that a test runner may
    change it.
    """

    vendor = None
    begin = "BEGIN"

    def __init__(self, alias):
        self.alias = alias
        self.errors = ()  # the driver's, once it has been loaded
        self._reset()

    def _reset(self):
        self._pid = os.getpid()
        self._idle = []
        self._lock = threading.Lock()

    def after_fork(self):
        """In the child: the parent's connections are the parent's, and are not even closed here."""
        _inherited.append(self._idle)
        self._reset()

    # For a subclass.

    def open(self):
        """A new Connection. Raises the driver's errors."""
        raise NotImplementedError

    def is_alive(self, connection):
        """Whether an idle connection is still there, told without asking the server."""
        return not readable(connection.raw.fileno())

    def explain(self, error):
        """The exception to raise for one of the driver's `errors`."""
        raise NotImplementedError

    def lock(self):
        """Before each transaction that writes; `unlock` follows."""

    def unlock(self):
        """After each transaction that writes."""

    # Use.

    @contextmanager
    def lend(self):
        """
        A connection, in autocommit, for the block. Raises LayerUnavailable, Conflict or
        ImproperlyConfigured.
        """
        connection = None
        try:
            connection = self._get()
            yield connection
        except BaseException as error:
            self._give_up(connection, error)
        self._put(connection)

    def transaction(self, work, single=False):
        """
        `work(connection)` between BEGIN and COMMIT, or, being a `single` statement, as it is; run again
        where it lost against another one.
        """
        attempt = 0
        while True:
            try:
                return self._transaction(work, single)
            except Conflict as error:
                attempt += 1
                if attempt == TRIES:
                    raise LayerUnavailable(
                        "A transaction lost against others %d times: %s" % (TRIES, error)
                    ) from error
                time.sleep(0.002 * attempt)

    def _transaction(self, work, single):
        connection, locked = None, False
        try:
            connection = self._get()
            self.lock()
            locked = True
            if single:
                result = work(connection)
            else:
                connection.run(self.begin)
                result = work(connection)
                connection.run("COMMIT")
        except BaseException as error:
            if locked:
                self.unlock()
            self._give_up(connection, error)
        self.unlock()
        self._put(connection)
        return result

    def _give_up(self, connection, error):
        """Close what failed, and raise `error` as callers know it."""
        if connection is not None:
            connection.close()
        if isinstance(error, self.errors):
            explained = self.explain(error)
            if isinstance(explained, LayerUnavailable):
                self.close_idle()
            raise explained from error
        raise error

    def _get(self):
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._open()
            if time.monotonic() - connection.used < FRESH or self.is_alive(connection):
                return connection
            connection.close()

    def _put(self, connection):
        connection.used = time.monotonic()
        with self._lock:
            if len(self._idle) < MOST_IDLE and not self._is_passing():
                self._idle.append(connection)
                return
        connection.close()

    def _is_passing(self):
        """Whether the database is a test runner's, which cannot drop it while somebody is connected."""
        return hasattr(mail, "outbox") and str(
            aliases[self.alias].settings_dict["NAME"]
        ).startswith("test_")

    def _open(self):
        """
        Open one; apart from the event loop, if one runs in this thread, as Django's back ends
        insist.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.open()
        result = []

        def work():
            try:
                result.append((self.open(), None))
            except BaseException as error:
                result.append((None, error))

        thread = threading.Thread(target=work, name="channels-connect")
        thread.start()
        thread.join()
        connection, error = result[0]
        if error is not None:
            raise error
        return connection

    def close_idle(self):
        """Close what is not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def wrapper(self):
        """
        Django's own connection object for a copy of the alias: only to open connections by its
        settings.
        """
        settings = dict(aliases[self.alias].settings_dict)
        settings["OPTIONS"] = dict(settings.get("OPTIONS") or {})
        # A pool of Django's is for requests; these connections are kept here.
        settings["OPTIONS"].pop("pool", None)
        return load_backend(settings["ENGINE"]).DatabaseWrapper(settings, self.alias)


def readable(descriptor, timeout=0.0):
    """Whether there is something to read, a closed end included, within `timeout` seconds."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLPRI)
        return bool(poll.poll(timeout * 1000))
    return bool(select.select([descriptor], [], [], timeout)[0])


def not_migrated(alias, error):
    """What to raise where the tables are missing."""
    return ImproperlyConfigured(
        "The database %r has no tables of the channel layer (%s): add %r to INSTALLED_APPS and run "
        "manage.py migrate --database=%s."
        % (alias, str(error).strip().split("\n")[0], __package__, alias)
    )

"""
The signals of channels, and the release of database connections around each consumer, as Django does
it around a request.
"""

import threading

from django.conf import settings
from django.db import close_old_connections, reset_queries
from django.db.backends.signals import connection_created
from django.dispatch import Signal

#: Around each consumer, in its thread; `environ` is an empty dict, kept from Channels 1.1.
consumer_started = Signal()
consumer_finished = Signal()

#: Once a worker thread is ready to claim (`sender` is the Worker).
worker_ready = Signal()

#: Once a worker process (its threads included) is ready.
worker_process_ready = Signal()


class _Thread(threading.local):
    #: Whether it has ever opened a database connection.
    connected = False


_thread = _Thread()


def _note_connection(**kwargs):
    _thread.connected = True


connection_created.connect(_note_connection)


def release_connections():
    """
    Close this thread's database connections that are too old or unusable; with DEBUG, forget the
    queries that Django keeps. Costs nothing in a thread that uses no database.
    """
    if _thread.connected:
        if settings.DEBUG:
            reset_queries()
        close_old_connections()

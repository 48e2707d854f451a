"""
The signals of channels, and the release of database connections around each consumer.
"""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings
from django.db import close_old_connections, reset_queries
from django.db.backends.signals import connection_created
from django.dispatch import Signal

#: Sent before and after each consumer, in its thread. `environ` is an empty dict, kept from Channels 1.1.
consumer_started = Signal()
consumer_finished = Signal()

#: Sent when a worker thread is ready to claim (`sender` is the Worker).
worker_ready = Signal()

#: Sent when a worker process, its threads included, is ready.
worker_process_ready = Signal()


class _Thread(threading.local):
    #: Whether this thread has ever opened a database connection.
    connected = False


this_thread = _Thread()


def _note_connection(**kwargs: Any) -> None:
    this_thread.connected = True


connection_created.connect(_note_connection)


def release_connections() -> None:
    """
    Close this thread's database connections that are too old or unusable, as Django does around a request.

    With DEBUG, also forget the queries that Django keeps. Costs nothing in a thread that uses no database.
    """
    if this_thread.connected:
        if settings.DEBUG:
            reset_queries()
        close_old_connections()

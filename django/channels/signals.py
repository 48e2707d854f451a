"""
The signals of channels. Database connections are released around every consumer by them, as
Django does around a request.
"""

from django.db import close_old_connections, reset_queries
from django.dispatch import Signal

#: Around each consumer, in its thread; `environ` is an empty dict, kept from Channels 1.1.
consumer_started = Signal()
consumer_finished = Signal()

#: Once a worker thread is ready to claim (`sender` is the Worker).
worker_ready = Signal()

#: Once a worker process (its threads included) is ready.
worker_process_ready = Signal()

consumer_started.connect(reset_queries)
consumer_started.connect(close_old_connections)
consumer_finished.connect(close_old_connections)

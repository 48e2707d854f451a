"""
The signals of channels. Database connections are released around every consumer by them, as
Django does around a request.
"""

from django.conf import settings
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal


class ConsumerSignal(Signal):
    """Caches its receivers by sender; sends without one, as tests written for 1.1 do, are allowed."""

    def __init__(self):
        super().__init__(use_caching=True)

    def send(self, sender, **named):
        return super().send(ConsumerSignal if sender is None else sender, **named)


#: Around each consumer, in its thread; `environ` is an empty dict, kept from Channels 1.1.
consumer_started = ConsumerSignal()
consumer_finished = ConsumerSignal()

#: Once a worker thread is ready to claim (`sender` is the Worker).
worker_ready = Signal()

#: Once a worker process (its threads included) is ready.
worker_process_ready = Signal()


def forget_queries(**kwargs):
    """With DEBUG, Django keeps every query: those of the last event are forgotten."""
    if settings.DEBUG:
        reset_queries()


consumer_started.connect(forget_queries)
consumer_started.connect(close_old_connections)
consumer_finished.connect(close_old_connections)

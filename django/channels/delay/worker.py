"""The loop of `manage.py rundelay`: takes requests from `asgi.delay`, sends what is due."""

import logging
import signal
import time

from django.db import OperationalError, close_old_connections

from ..message import Message
from .consumers import DELAY_CHANNEL, delay_message
from .models import DelayedMessage

logger = logging.getLogger("django.channels.delay")

#: How long to wait for the layer's server to come back, in seconds.
RETRY_AFTER = 1.0


class Worker:
    """
    Serves `channel_layer` until `stop`. Looks into the database every `database_sleep_duration`
    seconds (float). Several may run at once.
    """

    def __init__(self, channel_layer, signal_handlers=True, database_sleep_duration=1):
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.database_sleep_duration = database_sleep_duration
        self.slot = None
        self._stopped = False
        self._next_look = 0

    def stop(self, *signal_arguments):
        """End `run` after its current step."""
        self._stopped = True

    def run(self):
        """Repeat `run_once` until stopped; with `signal_handlers`, by SIGTERM and SIGINT too."""
        former = {}
        if self.signal_handlers:
            for number in (signal.SIGTERM, signal.SIGINT):
                former[number] = signal.signal(number, self.stop)
        logger.info("Listening on %s", DELAY_CHANNEL)
        try:
            self._repeat()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _repeat(self):
        while not self._stopped:
            try:
                busy = self.run_once()
            except (self.channel_layer.LayerUnavailable, OperationalError) as error:
                logger.warning("Layer or database out of reach (%s); trying again.", error)
                busy = False
                time.sleep(RETRY_AFTER)
            if not busy and not self._stopped:
                # Short, so that a signal and a new request are noticed soon.
                time.sleep(min(0.1, self.database_sleep_duration))

    def run_once(self):
        """Take one request if there is one, and send what is due. Whether it did anything."""
        close_old_connections()
        try:
            return bool(self.take_request()) | bool(self.send_due())
        finally:
            close_old_connections()

    def take_request(self):
        """Keep the next message of `asgi.delay`, if any; a bad one is logged and dropped."""
        name, content = self.channel_layer.receive_many([DELAY_CHANNEL])
        if name is None:
            return False
        message = Message(content, name, self.channel_layer)
        try:
            delay_message(message)
        except (TypeError, ValueError) as error:
            logger.error("A message on %s was dropped: %s", DELAY_CHANNEL, error)
        except Exception:
            # The database refused it: the request goes back, to be taken again.
            self.channel_layer.send(name, content)
            raise
        return True

    def send_due(self):
        """Send what is due, unless it is not yet time to look again. Returns how many were sent."""
        if time.monotonic() < self._next_look:
            return 0
        self._next_look = time.monotonic() + self.database_sleep_duration
        sent = 0
        for delayed in DelayedMessage.objects.is_due():
            try:
                sent += delayed.send(channel_layer=self.channel_layer)
            except (TypeError, ValueError) as error:
                logger.error("The delayed message %s was dropped: %s", delayed, error)
                delayed.delete()
        return sent

"""The loop of `manage.py rundelay`: takes requests from `asgi.delay`, and sends what is due."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any

from django.db import OperationalError, close_old_connections

from ..message import Message
from .consumers import DELAY_CHANNEL, delay_message
from .models import DelayedMessage

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.delay")

#: How long to wait for the layer's server to come back, in seconds.
RETRY_AFTER = 1.0


class Worker:
    """
    Serve `channel_layer` until `stop`. The database is polled every `database_sleep_duration` seconds
    (float). Several processes may run at once. Belongs to one thread; a signal handler may call `stop`.
    """

    def __init__(
        self,
        channel_layer: BaseChannelLayer,
        signal_handlers: bool = True,
        database_sleep_duration: float = 1,
    ) -> None:
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.database_sleep_duration = database_sleep_duration
        self._stopped = False
        self._next_poll = 0.0

    def stop(self, *signal_arguments: Any) -> None:
        """End `run` after its current step."""
        self._stopped = True

    def run(self) -> None:
        """Repeat `run_once` until stopped. With `signal_handlers`, SIGTERM and SIGINT stop it too."""
        former: dict[int, Any] = {}
        if self.signal_handlers:
            for number in (signal.SIGTERM, signal.SIGINT):
                former[number] = signal.signal(number, self.stop)
        logger.info("Listening on %s", DELAY_CHANNEL)
        try:
            self._repeat()
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)

    def _repeat(self) -> None:
        while not self._stopped:
            try:
                busy = self.run_once()
            except (self.channel_layer.LayerUnavailable, OperationalError) as error:
                logger.warning(
                    "The layer or the database cannot be reached (%s). Trying again.", error
                )
                busy = False
                time.sleep(RETRY_AFTER)
            if not busy and not self._stopped:
                # Short, so that a signal and a new request are noticed soon.
                time.sleep(min(0.1, self.database_sleep_duration))

    def run_once(self) -> bool:
        """Take one request if there is one, and send what is due. Return whether it did anything."""
        close_old_connections()
        try:
            return bool(self.take_request()) | bool(self.send_due())
        finally:
            close_old_connections()

    def take_request(self) -> bool:
        """Store the next message of `asgi.delay`, if any. A bad one is logged and dropped."""
        name, content = self.channel_layer.receive_many([DELAY_CHANNEL])
        if name is None or content is None:
            return False
        message = Message(content, name, self.channel_layer)
        try:
            delay_message(message)
        except (TypeError, ValueError) as error:
            logger.error("A message on %s was dropped: %s", DELAY_CHANNEL, error)
        except Exception:
            # The database refused it: requeue the request, and try again later.
            self.channel_layer.send(name, content)
            raise
        return True

    def send_due(self) -> int:
        """Send what is due, unless it isn't time to poll yet. Return how many were sent."""
        if time.monotonic() < self._next_poll:
            return 0
        self._next_poll = time.monotonic() + self.database_sleep_duration
        sent = 0
        for delayed in DelayedMessage.objects.is_due():
            try:
                sent += delayed.send(channel_layer=self.channel_layer)
            except (TypeError, ValueError) as error:
                logger.error("The delayed message %s was dropped: %s", delayed, error)
                delayed.delete()
        return sent

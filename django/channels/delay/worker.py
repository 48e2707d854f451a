"""The loop of `manage.py rundelay`: takes requests from `asgi.delay`, and sends what is due."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any

from django.db import (
    DatabaseError,
    DataError,
    InterfaceError,
    OperationalError,
    close_old_connections,
)

from ..exceptions import ChannelFull, LayerUnavailable
from ..log import shown
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

    No request, no stored message and no receiver of the site's signals ends it. What can never be stored or
    sent is logged and dropped; after any other error, it tries again.
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
        #: A request that could not be stored or requeued, or None.
        self._kept: tuple[str, dict[str, Any]] | None = None

    def stop(self, *signal_arguments: Any) -> None:
        """End `run` after its current step."""
        self._stopped = True

    def run(self) -> None:
        """Repeat `run_once` until stopped. With `signal_handlers`, SIGTERM and SIGINT stop it too."""
        previous: dict[int, Any] = {}
        if self.signal_handlers:
            for number in (signal.SIGTERM, signal.SIGINT):
                previous[number] = signal.signal(number, self.stop)
        logger.info("Listening on %s", DELAY_CHANNEL)
        try:
            self._repeat()
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)

    def _repeat(self) -> None:
        while not self._stopped:
            try:
                did_something = self.run_once()
            except (ChannelFull, LayerUnavailable, OperationalError) as error:
                logger.warning(
                    "The layer or the database cannot be reached, or is full (%s). Trying again.",
                    shown(error),
                )
                did_something = False
                time.sleep(RETRY_AFTER)
            except BaseException as error:
                if self._ends_the_process(error):
                    raise
                logger.exception("rundelay continues after this error:")
                did_something = False
                time.sleep(RETRY_AFTER)
            if not did_something and not self._stopped:
                # Short, so that a signal and a new request are noticed soon.
                time.sleep(min(0.1, self.database_sleep_duration))

    def run_once(self) -> bool:
        """Take one request if there is one, and send what is due. Return whether it did anything."""
        close_old_connections()
        taken, sent = False, 0
        try:
            try:
                taken = self.take_request()
            finally:  # a request that cannot be stored now keeps no message waiting
                sent = self.send_due()
        finally:
            close_old_connections()
        return taken or bool(sent)

    def take_request(self) -> bool:
        """Store the next message of `asgi.delay`, if any. A bad one is logged and dropped."""
        name, content = self._kept or self.channel_layer.receive_many([DELAY_CHANNEL])
        self._kept = None
        if name is None or content is None:
            return False
        try:
            delay_message(Message(dict(content), name, self.channel_layer))
        except BaseException as error:
            if not self._is_temporary(error):
                self._log_dropped("A message on %s" % DELAY_CHANNEL, error)
                return True
            try:
                self.channel_layer.send(name, content)
            except Exception:
                self._kept = name, content
            raise
        return True

    def _ends_the_process(self, error: BaseException) -> bool:
        """Return whether `error` is how this process is told to end. By signal, `stop` is."""
        return isinstance(error, (KeyboardInterrupt, SystemExit)) and not self.signal_handlers

    def _is_temporary(self, error: BaseException) -> bool:
        """Return whether the same message can be stored or sent later, in spite of `error`."""
        if isinstance(error, DataError):
            return False
        temporary = (ChannelFull, LayerUnavailable, DatabaseError, InterfaceError)
        return isinstance(error, temporary) or self._ends_the_process(error)

    def _log_dropped(self, what: str, error: BaseException) -> None:
        """Log that a message was dropped: with a traceback, unless the text says it all."""
        expected = isinstance(error, (TypeError, ValueError))
        logger.error(
            "%s was dropped: %s: %s",
            what,
            type(error).__name__,
            shown(error),
            exc_info=None if expected else error,
        )

    def send_due(self) -> int:
        """Send what is due, unless it isn't time to poll yet. Return how many were sent."""
        if time.monotonic() < self._next_poll:
            return 0
        self._next_poll = time.monotonic() + self.database_sleep_duration
        sent = 0
        for delayed in DelayedMessage.objects.is_due():
            try:
                sent += delayed.send(channel_layer=self.channel_layer)
            except BaseException as error:
                if self._is_temporary(error):
                    raise
                self._log_dropped("The delayed message %s" % shown(delayed), error)
                delayed.delete()
        return sent

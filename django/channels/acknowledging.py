"""
How the events of an event loop are acknowledged: those that end while others are acknowledged, together.
"""

from __future__ import annotations

import contextvars
import logging
import time
from typing import TYPE_CHECKING

from .exceptions import LayerUnavailable
from .signals import release_connections

if TYPE_CHECKING:
    from .continued import Continued
    from .eventloop import ConsumerLoop

logger = logging.getLogger("django.channels.worker")

#: Seconds between two attempts while the layer is unavailable, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.1, 2.0


class Acknowledger:
    """Acknowledges events of one ConsumerLoop, and ends them. Belongs to that event loop."""

    def __init__(self, loop: ConsumerLoop) -> None:
        self._loop = loop
        self._events: list[Continued] = []
        self._runs = False

    def add(self, event: Continued) -> None:
        """Acknowledge an event soon."""
        self._events.append(event)
        if not self._runs:
            self._runs = True
            # Not in the context of the event.
            contextvars.Context().run(event.loop.start, self._run())

    async def _run(self) -> None:
        try:
            while self._events:
                events, self._events = self._events, []
                names = [event.consumer_id for event in events]
                if self._loop.layer.crosses_processes:
                    await self._loop.call(self._acknowledge, names)
                else:
                    self._acknowledge(names)
                for event in events:
                    self._loop.end(event)
        finally:
            self._runs = False

    def _acknowledge(self, names: list[str]) -> None:
        """Acknowledge what is claimed under these ids. While the layer is unavailable, try again."""
        layer, interval = self._loop.layer, RETRY_INTERVAL
        while True:
            began = time.monotonic()
            try:
                layer.acknowledge_all(names)
                self._loop.spare_ids.extend(names)
                return
            except LayerUnavailable as error:
                layer.reachability.failed(error, began)
                if self._loop.is_stopping:
                    logger.warning(
                        "%d messages could not be acknowledged. The layer will treat them as lost: %s",
                        len(names),
                        error,
                    )
                    return
            except Exception:
                if len(names) == 1:
                    logger.exception(
                        "A message could not be acknowledged. It is lost when this process ends:"
                    )
                    return
                for name in names:  # the others need not share its fate
                    self._acknowledge([name])
                return
            finally:
                release_connections()
            time.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)

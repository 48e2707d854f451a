"""
Which addresses get no further places for asynchronous consumers for now. Pure: no I/O, no clock.

A worker process has a number of places for asynchronous consumers (places.py). One client could take all of
them with requests that wait for long, and the requests of others would wait for their end. So a worker tells
with each asynchronous consumer that runs for a while how many of the places are taken. An address is held
back when it has as many of them as are free, by the rule of shares.py. Its next event then waits for the end
of another one. So an address that is alone has half of the places.

A gateway doesn't know where an event runs. It takes what runs of an address, of all that it knows to run, for
the part of the places that the address has in each process.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..log import RateLimit, shown

if TYPE_CHECKING:
    from .connection import Connection
    from .turns import FairQueue

logger = logging.getLogger("django.channels.gateway")

HELD = (
    "%d%% of the places for asynchronous consumers are taken, and the client %s has as many as are free (%d "
    "of its events run). The next ones wait until others of its own have ended. If it is a proxy, have the "
    "server trust its header. Otherwise, start more workers or raise --async-concurrency."
)


class _Hold:
    """What an address may have while it is held."""

    __slots__ = ("allowed", "sent")

    def __init__(self) -> None:
        #: How many of its events may run.
        self.allowed = 0
        #: The connections whose event was sent since, and isn't known to run or to have ended.
        self.sent: set[Connection] = set()


class HeldAddresses:
    """
    The addresses whose events stay in `queue`, because theirs take many of the workers' places. An address
    is never held while fewer than `least` of its events run. Belongs to the event loop of its gateway.
    """

    __slots__ = ("_holds", "_log", "_queue", "_running", "least")

    def __init__(self, queue: FairQueue, least: int) -> None:
        self._queue, self._log = queue, RateLimit(60.0)
        self.least = least
        #: The connections whose asynchronous consumer runs, by address.
        self._running: dict[Any, set[Connection]] = {}
        self._holds: dict[Any, _Hold] = {}

    def __bool__(self) -> bool:
        """Whether an address is held."""
        return bool(self._holds)

    def note(self, connection: Connection, taken: int | None) -> bool:
        """
        Note that a worker runs the event of `connection`, in one of the places of its process, of which
        `taken` percent are taken; or not in one of them, if it is None. Return whether the address is held
        from now on.
        """
        if taken is None:
            self.ended(connection)
            return False
        address = connection.client[0]
        running = self._running.setdefault(address, set())
        running.add(connection)
        # What is free, in events of this gateway.
        free = (100 - taken) * sum(map(len, self._running.values())) // max(taken, 1)
        hold, is_new = self._holds.get(address), False
        if len(running) < max(self.least, free):
            self._release(address)
        else:
            if hold is None:
                hold, is_new = self._holds.setdefault(address, _Hold()), True
                self._log.log(logger.warning, HELD, taken, shown(address), len(running))
            hold.allowed = max(self.least, (len(running) + free) // 2)
        if hold is not None:
            hold.sent.discard(connection)
            self._check(address)
        return is_new

    def sent(self, connection: Connection) -> None:
        """Note that the event of `connection` was sent."""
        hold = self._holds.get(connection.client[0])
        if hold is not None:
            hold.sent.add(connection)
            self._check(connection.client[0])

    def ended(self, connection: Connection) -> None:
        """Note that no event of `connection` is on its way, or runs in a place."""
        address = connection.client[0]
        running, hold = self._running.get(address), self._holds.get(address)
        if running is not None:
            running.discard(connection)
            if not running:
                del self._running[address]
                self._release(address)
                return
        if hold is not None:
            hold.sent.discard(connection)
            self._check(address)

    def _check(self, address: Any) -> None:
        """Hold the events of an address that is held, or let another one leave."""
        hold = self._holds.get(address)
        if hold is not None:
            if len(self._running.get(address, ())) + len(hold.sent) < hold.allowed:
                self._queue.release(address)
            else:
                self._queue.hold(address)

    def _release(self, address: Any) -> None:
        if self._holds.pop(address, None) is not None:
            self._queue.release(address)

    def lost(self) -> list[Connection]:
        """Return the connections whose event ended without an acknowledgement, as after an outage."""
        return [
            connection
            for running in self._running.values()
            for connection in running
            if connection.place is None or connection.state.in_flight != connection.place[1]
        ]

"""
Which addresses get no further places for asynchronous consumers for now. Pure: no I/O, no clock.

A worker process has a number of places for asynchronous consumers (places.py). One client could take all of
them with requests that wait for long, and the requests of others would wait for their end. So with what a
worker tells of an event, it tells whether the event's address has its share of the places: as many as are
free. Then the address is held back: its next events stay in the gateway. It is let go when a worker tells of
an event of the address and doesn't say so, or when such an event is lost. An address that is alone has half
of the places.

Only what was told last counts, so that nothing is held for long by what isn't so any more. While an address
is held, one of its events leaves each second, so that a worker tells again; and one more for each that ends
quickly, because it took no place.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ..log import RateLimit, shown
from ..protocol import ACK, LOST, OVER_SHARE, RUNNING

if TYPE_CHECKING:
    from .connection import Connection
    from .turns import FairQueue

logger = logging.getLogger("django.channels.gateway")

#: Seconds after which one event of an address that is held leaves all the same.
PROBE_INTERVAL = 1.0

#: Seconds after which an address of which nothing waits, and a worker told nothing more, is let go.
LONGEST = 5.0

HELD = (
    "Asynchronous consumers for the client %s take as many places of a worker process as are free. Its next "
    "events wait until some of these have ended. If it is a proxy, have the server trust its header. "
    "Otherwise, start more workers or raise --async-concurrency."
)


#: The keys of the messages about an event that tell of the share of its address, with OVER_SHARE or without.
_TELLING = frozenset([ACK, RUNNING, LOST])


class Told(NamedTuple):
    """What a message tells of an address."""

    address: Any
    over_share: bool
    #: Whether an event has ended that no worker has told to run: it had no place.
    was_quick: bool = False


def told_by(message: dict[str, Any], connection: Connection | None) -> Told | None:
    """
    Return what `message` tells about the share of an address, or None. `connection` is that of its event, or
    None if it is over.
    """
    address = message.get(OVER_SHARE)
    if connection is None:
        return None if address is None else Told(address, True)
    if connection.lane is None or not _TELLING.intersection(message):
        return None
    was_quick = ACK in message and connection.flight is not None
    return Told(address or connection.client[0], address is not None, was_quick)


class HeldAddresses:
    """The addresses whose events stay in `queue`. Belongs to the event loop of its gateway."""

    __slots__ = ("_log", "_probed_at", "_queue", "_told_at")

    def __init__(self, queue: FairQueue) -> None:
        self._queue, self._log = queue, RateLimit(60.0)
        #: When (monotonic) a worker has told that an address has its share, by address.
        self._told_at: dict[Any, float] = {}
        self._probed_at = 0.0

    def __bool__(self) -> bool:
        """Whether an address is held."""
        return bool(self._told_at)

    def note(self, told: Told, now: float) -> bool:
        """
        Note what was told at the time `now`. Return whether its address is held from now on, and was not
        before.
        """
        address = told.address
        if not told.over_share:
            self._let_go(address)
            return False
        is_new = address not in self._told_at
        self._told_at[address] = now
        if told.was_quick and not is_new:
            self._queue.release(address)  # until one of its events is `sent`
        else:
            self._queue.hold(address)
        if is_new:
            self._log.log(logger.warning, HELD, shown(address))
        return is_new

    def sent(self, address: Any) -> None:
        """Note that an event of `address` has left the queue: if it is held, no other one leaves."""
        if address in self._told_at:
            self._queue.hold(address)

    def probe(self, now: float) -> None:
        """Let one event of each address leave, if it is time."""
        if now - self._probed_at < PROBE_INTERVAL:
            return
        self._probed_at = now
        for address, told_at in list(self._told_at.items()):
            if self._queue.count(address):
                self._queue.release(address)
            elif now - told_at > LONGEST:
                self._let_go(address)

    def _let_go(self, address: Any) -> None:
        if self._told_at.pop(address, None) is not None:
            self._queue.release(address)

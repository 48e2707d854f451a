"""
Take messages out of the tables of a database store, acknowledge them, and requeue them.

How the next message is taken differs: `take_first` in mysql.py, `next_row` in postgresql.py.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, List, Sequence, Tuple

from ...exceptions import LayerUnavailable
from ..engine.store import Entry, Outgoing
from ..engine.waiting import CHANGED, TIMEOUT
from ..names import shares_queue
from . import rows as values
from .connections import Connection
from .sending import Sending

#: Seconds for which other threads rely on a poll that found nothing, while notifications come through.
EMPTY_LIFETIME = 4.0

#: Kinds of readers, by the channels that they read, of which something is remembered.
MAX_KINDS = 1000

#: (queue, channel or "") of each channel that a reader reads, in the order to poll. Channels of an inbox
#: share its queue: the reader gets only the messages of the named channel, or with "" all of the queue.
Wanted = List[Tuple[str, str]]


class Claiming(Sending):
    """The part of DatabaseStore that claims. Thread-safe."""

    #: Whether the statement "take" removes a message and returns its row.
    takes_at_once = True

    #: Whether the last call of `next_row` found a message. Only a hint, because threads share it.
    last_found = False

    def _begin(self) -> None:
        super()._begin()
        #: Consumers whose last claim raised LayerUnavailable: the database may have carried it out.
        self._unsure: set[str] = set()
        #: Consumer to the turn of its last claim, until that is acknowledged.
        self._turns: dict[str, int] = {}
        #: Queues to the version of `waiters` at which a poll found nothing, and when (monotonic).
        self._empty: dict[tuple[str, ...], tuple[int, float]] = {}
        self._wanted = lru_cache(maxsize=MAX_KINDS)(self._make_wanted)

    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        return self._next(channels, None, "", block)

    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        self._requeue_unsure(consumer)
        return self._next(channels, consumer, self.key(process), block)

    def _next(
        self, channels: Sequence[str], consumer: str | None, process: str, block: bool
    ) -> Entry | None:
        wanted, queues = self._wanted(tuple(channels))
        local = self._local
        woken, local.woken = getattr(local, "woken", False), False
        local.version = self.waiters.version
        known = self._known_empty(queues, local.version) if block and not woken else None
        if known or not wanted:
            if consumer is not None:
                self.acknowledge(consumer)
            return None
        try:
            row = self._take_row(wanted, consumer, process)
        except LayerUnavailable:
            self._empty.pop(queues, None)
            raise
        if row is None:
            if len(self._empty) >= MAX_KINDS:
                self._empty.clear()
            self._empty[queues] = (local.version, time.monotonic())
            return None
        if known is False:
            # Other threads were waiting for this result; wake them.
            self._empty.pop(queues, None)
            self.changed(queues)
        elif woken:
            self.waiters.found(queues)
        number, _, channel, body, losses = row
        return values.entry_of(number, channel, body, losses)

    def _make_wanted(self, channels: tuple[str, ...]) -> tuple[Wanted, tuple[str, ...]]:
        """Return what a reader of `channels` wants, and the queues for whose changes it waits."""
        wanted = [
            (self.queue(channel), channel if shares_queue(channel) else "") for channel in channels
        ]
        return wanted, tuple(queue for queue, _ in wanted)

    def _known_empty(self, queues: tuple[str, ...], version: int) -> bool | None:
        """
        Return whether a recent poll found nothing, and no notification has come since. False: that poll was
        some time ago, so the caller must poll, for all threads that wait. None: nothing is known.
        """
        now = time.monotonic()
        with self._lock:
            if not self.listener.listening:
                return None
            known = self._empty.get(queues)
            if known is None or known[0] != version:
                return None
            if now - known[1] < EMPTY_LIFETIME:
                return True
            self._empty[queues] = (version, now)
            return False

    def _take_row(self, wanted: Wanted, consumer: str | None, process: str) -> Any:
        """Return the row of the next message, or None. A `consumer` claims it."""
        wanted = self.turned(wanted)
        if consumer is None:
            return self.next_row(wanted, None, "", 0)
        turn = self.next_turn()
        try:
            row = self.next_row(wanted, consumer, process, turn)
        except LayerUnavailable:
            # The claim may have happened. What it took is requeued by the next call, not acknowledged.
            self._unsure.add(consumer)
            raise
        if row is None:
            self.acknowledge(consumer)
        else:
            self._seen[consumer], self._turns[consumer] = row[0], turn
        return row

    def next_row(self, wanted: Wanted, consumer: str | None, process: str, turn: int) -> Any:
        """
        Take (id, queue, channel, body, losses) of the next message of `wanted`, or return None.

        With a `consumer`, make it the consumer's claim; after None, an earlier claim stays. If the consumer's
        row has a later `turn`, this call arrived late, and must do nothing.
        """
        single = consumer is None and self.takes_at_once
        if not (self.last_found and len(wanted) == 1):
            # This query locks nothing, and most channels are empty most of the time.
            waiting = self.peek([queue for queue, _ in wanted])
            wanted = [each for each in wanted if each[0] in waiting]

        def work(connection: Connection) -> Any:
            for queue, channel in wanted:
                rows = self.take_first(connection, queue, channel, single)
                if rows:
                    if consumer is not None:
                        self.put_claim(connection, consumer, process, rows[0], turn)
                    return rows[0]
            return None

        row = self.connections.transaction(work, single) if wanted else None
        self.last_found = row is not None
        return row

    def take_first(
        self, connection: Connection, queue: str, channel: str, single: bool
    ) -> list[Any]:
        """Take the row of the next message of one queue, as a `single` statement or as several."""
        return connection.rows(self.sql["take"], {"queue": queue, "channel": channel})

    def put_claim(
        self, connection: Connection, consumer: str, process: str, row: Any, turn: int
    ) -> None:
        """Make the message `row` the claim of `consumer`, in place of one with an earlier turn."""
        number, queue, channel, body, losses = row
        parameters = {"consumer": consumer, "process": process, "id": number, "queue": queue}
        parameters.update(channel=channel, body=body, losses=losses, turn=turn)
        if not self.write_claim(connection, parameters):
            raise LayerUnavailable("A claim of %s arrived late." % consumer)

    def write_claim(self, connection: Connection, parameters: dict[str, Any]) -> int:
        """Write the row of a claim. Return 0 if there is one with a later turn."""
        return connection.run(self.sql["set_claim"], parameters)

    def wait(self, consumer: str | None, channels: Sequence[str], seconds: float) -> bool:
        self.start_polling()
        queues = self._wanted(tuple(channels))[1]
        version = getattr(self._local, "version", self.waiters.version)
        # Only the gateway of an inbox listens for what comes to it. Another reader polls.
        polls = self.notifies and any(queue.endswith("!") for queue in queues)
        pause = min(seconds, self.poll_interval) if polls else seconds
        result = self.waiters.wait(queues, version, pause, consumer)
        woken: bool = result == CHANGED or (result == TIMEOUT and pause < seconds)
        self._local.woken = woken
        return woken

    # Acknowledging.

    def acknowledge(self, consumer: str) -> None:
        self._requeue_unsure(consumer)
        if consumer in self._seen:
            self.write("acknowledge", {"consumer": consumer, "turn": self._turns[consumer]})
            self.forget(consumer)

    def forget(self, consumer: str) -> None:
        super().forget(consumer)
        self._turns.pop(consumer, None)

    def requeue(self, consumer: str) -> None:
        self._requeue_unsure(consumer)
        if consumer in self._seen:
            self.forget(consumer)
            self._unsure.add(consumer)  # until the database has confirmed it
            self._requeue_unsure(consumer)

    def _requeue_unsure(self, consumer: str) -> None:
        """After a claim whose reply was lost: requeue what it took, if it took anything."""
        if consumer in self._unsure:
            self.transaction(lambda connection: self.release_claim(connection, consumer))
            self._unsure.discard(consumer)
            self.forget(consumer)

    def release_claim(self, connection: Connection, consumer: str) -> None:
        # The earlier call may be on its way yet. It must find a later turn.
        fence = {"consumer": consumer, "process": "", "queue": self.range["low"]}
        connection.run(self.sql["fence"], dict(fence, turn=self.next_turn()))
        super().release_claim(connection, consumer)

    def put_first(self, connection: Connection, entry: Entry) -> None:
        """Put an entry back at the head of its queue, under the number that it had."""
        row = self.row(self.queue(entry.channel), Outgoing(entry.channel, entry.body))
        if not connection.run(self.sql["requeue"], dict(row, id=entry.id, losses=entry.losses)):
            self.insert_on(connection, [row])  # a damaged row has its number
        connection.changed.add(row["queue"])
        connection.below = True

    def take_claim(self, connection: Connection, consumer: str) -> Entry | None:
        rows = connection.rows(self.sql["claim_of"], {"consumer": consumer})
        if not rows:
            return None
        connection.run(self.sql["release"], {"consumer": consumer})
        number, _, channel, body, losses = rows[0]
        return values.entry_of(number, channel, body, losses)

"""
Whose event is sent next: clients take turns, and what is in flight is kept short. Pure: no I/O, no clock.

A layer's channel is first come, first served: one client with many sockets would fill it, and every other
client would wait behind. So the gateway measures how long events wait for a worker, and sends no more of
them than wait for about TARGET seconds (`Window`). The others wait in the gateway, where clients take turns
(`FairQueue`). As long as workers keep up, no event waits here.

An event is in flight until it is acknowledged, or until a worker tells that it has run for a while
(`late.py`). What was sent can't be taken back. So the window begins small, grows only while it is used, and
is small again after a pause.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from heapq import heappop, heappush
from typing import Any, Mapping, Tuple

from ..protocol import FRAMES
from ..shares import client_address
from .held import HeldAddresses

#: Seconds for which events may wait for a worker, before fewer are sent.
TARGET = 0.01

#: Seconds over which the shortest wait is measured. A burst that passes isn't a queue.
INTERVAL = 0.1

#: Events that may always be in flight on a channel, so that no worker runs out of work.
MIN_WINDOW = 4

#: The same while workers tell of most events that they run: those do not count as in flight.
MIN_WAITING = 2

#: The same while consumers run for less than QUICK milliseconds on average. Such events wait because the
#: processor is busy, and each costs more of it if few are in flight.
QUICK_WINDOW, QUICK = 100, 2

#: Seconds for which such events may wait. If they wait for longer, what is slow is not the consumers but the
#: answers, which the layer carries: fewer are in flight then.
QUICK_WAIT = 0.25

#: Events in flight before anything is known of the workers: at first, and after PAUSE seconds without one.
FIRST_WINDOW, PAUSE = 16, 1.0

#: A bound of events in flight that is reached is lifted, and the value for "unbounded".
MAX_WINDOW, UNLIMITED = 10000, sys.maxsize

#: Seconds without an acknowledgement after which one more event is sent. The others may have got lost.
STALL_TIMEOUT = 5.0

#: The same for handshakes, which a server may give up after five seconds: the handshake that is sent tells in
#: time whether others have filled the channel.
HANDSHAKE_STALL_TIMEOUT = 2.0

#: The longest wait (seconds) that counts as the layer's own delay, where only one event is in flight.
MAX_DELAY = 0.1

#: Clients without a waiting event whose share is remembered.
MAX_REMEMBERED = 1000

#: (address, session or socket): the client that an event counts for. Both are short, whatever it sends.
ClientKey = Tuple[Any, ...]


class Window:
    """How many events of one channel may be in flight. Belongs to the event loop of its gateway."""

    __slots__ = (
        "delay",
        "limit",
        "most",
        "start",
        "_begun",
        "_count",
        "_least",
        "_peak",
        "_ran",
        "_until",
        "_waited",
    )

    def __init__(self, most: int = UNLIMITED, start: int = FIRST_WINDOW) -> None:
        self.most = most
        #: The limit at first. Only events that wait make it smaller.
        self.start = self.limit = min(most, start)
        #: The layer's own delay, in seconds.
        self.delay = 0.0
        # Of the events of this interval: the shortest wait, all waits, how long they ran, how many they are,
        # how many of them run on, and the most that were in flight.
        self._least = float("inf")
        self._ran = self._count = self._begun = self._peak = 0
        self._until = self._waited = 0.0

    def landed(
        self,
        now: float,
        sent_at: float,
        ran: int,
        in_flight: int,
        was_alone: bool,
        runs_on: bool = False,
    ) -> None:
        """
        Learn from an event that was sent at `sent_at`, landed `now` (seconds), and ran for `ran`
        milliseconds. `in_flight` events are in flight, itself included. `was_alone`: no other was, when it
        was sent. `runs_on`: it isn't acknowledged, but a worker told that it runs.
        """
        wait = now - sent_at - ran / 1000
        self._ran += ran
        self._count += 1
        self._begun += runs_on
        self._waited += wait
        if in_flight > self._peak:
            self._peak = in_flight
        if was_alone:
            self.delay += (min(max(wait, 0.0), MAX_DELAY) - self.delay) / 8
        if wait < self._least:
            self._least = wait
        if now >= self._until:
            self._until = now + INTERVAL
            self._decide(in_flight)

    def _decide(self, in_flight: int) -> None:
        """Set the limit by the events of an interval, and begin the next one."""
        is_quick = self._ran < QUICK * self._count
        smallest = MIN_WAITING if 2 * self._begun >= self._count else MIN_WINDOW
        is_used = 2 * self._peak >= self.limit
        # Of slow consumers, some events may run at once while others wait behind what a worker has taken.
        least = (self._least if is_quick else self._waited / self._count) - self.delay
        self._least, self._waited = float("inf"), 0.0
        self._ran = self._count = self._begun = self._peak = 0
        if least > TARGET and in_flight > smallest:
            if is_quick:
                smallest = max(smallest, min(QUICK_WINDOW, int(in_flight * QUICK_WAIT / least)))
            self.limit = min(self.most, max(smallest, int(in_flight * TARGET / least)))
        elif not is_used:
            # Whether workers would keep up with more isn't known.
            if self.limit > self.start:
                self.limit = max(self.start, min(self.limit, MAX_WINDOW) * 3 // 4)
        elif is_quick and self.limit < QUICK_WINDOW and least < QUICK_WAIT / 2:
            # Step by step: with many more, one learns only after all of them what each takes.
            self.limit = min(self.most, QUICK_WINDOW, 2 * self.limit)
        elif least < TARGET / 2 and self.limit < self.most:
            self.limit += 1 + self.limit // 4
            if self.limit > min(MAX_WINDOW, self.most):
                self.limit = self.most


class FairQueue:
    """
    Items by key, where the key that has got least comes first. A key is a tuple: those with the same first
    part share the turn of it, and take turns among themselves. Items of one key stay in order.

    A key that comes back after a pause gets no credit for the pause. Belongs to one event loop.
    """

    __slots__ = ("_children", "_finished", "_heap", "_held", "_number", "size", "_virtual")

    def __init__(self) -> None:
        self._children: dict[Any, Any] = {}
        self._heap: list[tuple[float, int, Any]] = []
        #: What each key has got, on a common scale that begins where the last turn was.
        self._finished: dict[Any, float] = {}
        #: First parts whose items are not to leave, and where their turn was; None if that isn't known.
        self._held: dict[Any, float | None] | None = None
        self._virtual = 0.0
        self._number = self.size = 0

    def __len__(self) -> int:
        return self.size

    def count(self, *parts: Any) -> int:
        """Return how many items wait whose key begins with `parts`."""
        found: Any = self
        for part in parts:
            found = found._children.get(part)
            if found is None:
                return 0
        return len(found)

    @property
    def parts(self) -> int:
        """How many different first parts the keys of the items have."""
        return len(self._children)

    def push(self, key: ClientKey, cost: float, item: Any) -> None:
        """Add an item, which takes `cost` of its key's share."""
        self.size += 1
        part, rest = key[0], key[1:]
        child: Any = self._children.get(part)
        if child is None:
            child = self._children[part] = FairQueue() if rest else deque()
            self._enter(part, max(self._virtual, self._finished.pop(part, 0.0)))
        if rest:
            child.push(rest, cost, item)
        else:
            child.append((cost, item))

    def hold(self, part: Any) -> None:
        """Let no item leave whose key begins with `part`, until `release`."""
        if self._held is None:
            self._held = {}
        self._held.setdefault(part, None)

    def release(self, part: Any) -> None:
        """Let the items of `part` take their turns again."""
        start = self._held.pop(part, None) if self._held else None
        if start is not None:
            self._enter(part, max(start, self._virtual))

    @property
    def has_next(self) -> bool:
        """Whether an item may leave."""
        heap = self._heap
        while self._held and heap and heap[0][2] in self._held:
            start, _, part = heappop(heap)
            self._held[part] = start
        return bool(heap)

    def pop(self) -> tuple[float, Any]:
        """Remove and return (cost, item) of the key whose turn it is. Only if `has_next`."""
        self.size -= 1
        self._virtual, _, part = heappop(self._heap)
        child = self._children[part]
        cost, item = child.pop() if isinstance(child, FairQueue) else child.popleft()
        if child:
            self._enter(part, self._virtual + cost)
        else:
            del self._children[part]
            self._remember(part, self._virtual + cost)
        return cost, item

    def _enter(self, part: Any, start: float) -> None:
        self._number += 1
        heappush(self._heap, (start, self._number, part))

    def _remember(self, part: Any, finished: float) -> None:
        if len(self._finished) >= MAX_REMEMBERED:
            now = self._virtual
            self._finished = {each: end for each, end in self._finished.items() if end > now}
            if len(self._finished) >= MAX_REMEMBERED:
                self._finished.clear()
        self._finished[part] = finished


class Lane:
    """The events of one channel: how many are in flight, and those that wait for their turn."""

    __slots__ = (
        "acks",
        "channel",
        "deadlines",
        "held",
        "in_flight",
        "landed_at",
        "limit",
        "refused",
        "stall_timeout",
        "waiting",
        "window",
    )

    def __init__(self, channel: str, most: int = UNLIMITED) -> None:
        self.channel = channel
        #: Seconds without an acknowledgement after which one more event is sent.
        self.stall_timeout = STALL_TIMEOUT
        self.window = Window(most)
        #: How many may be in flight: that of the window.
        self.limit = self.window.limit
        self.in_flight = 0
        #: How many events were acknowledged.
        self.acks = 0
        #: When an event was last acknowledged, or let through because none was.
        self.landed_at = 0.0
        self.waiting = FairQueue()
        #: The addresses whose events stay there, because their consumers take many places.
        self.held = HeldAddresses(self.waiting)
        #: How many of those that wait were refused, and stay there until it is their turn.
        self.refused = 0
        #: The events that are refused if they wait too long, by the seconds they may wait, in order.
        self.deadlines: dict[float, deque[Waiting]] = {}

    @property
    def pending(self) -> int:
        """How many events are in flight, or wait for their turn."""
        return self.in_flight + self.waiting.size - self.refused

    def is_over(self, capacity: int, address: Any) -> bool:
        """
        Return whether an event of `address` that will wait is one too many: as many are pending as the
        channel takes, and as many of this address as its share of them.
        """
        if self.pending < capacity:
            return False
        own = self.waiting.count(address)
        addresses = self.waiting.parts + (not own)
        # What is in flight may all be another's.
        room = max(capacity - self.in_flight, capacity // 2)
        return (own + 1) * addresses > room

    def set_deadline(self, entry: Waiting, now: float, seconds: float) -> None:
        """Let an event wait for `seconds` at most."""
        entry.deadline = now + seconds
        self.deadlines.setdefault(seconds, deque()).append(entry)

    def learn(self, now: float, sent_at: float, ran: int, was_alone: bool, runs_on: bool) -> None:
        """Learn from an event that has landed: see `Window.landed`."""
        self.landed_at = now
        self.window.landed(now, sent_at, ran, self.in_flight, was_alone, runs_on)
        self.limit = self.window.limit

    def begin(self) -> None:
        """Let no more be in flight than at first: after a pause, what was learned may be wrong."""
        self.limit = self.window.limit = min(self.limit, self.window.start)


class Waiting:
    """An event that waits for its turn."""

    __slots__ = ("connection", "deadline", "is_over", "message", "since")

    def __init__(self, connection: Any, message: dict[str, Any], since: float) -> None:
        #: None once the event was sent or refused.
        self.connection = connection
        self.message = message
        #: When it began to wait.
        self.since = since
        self.deadline = float("inf")
        #: Whether it came while as many events were pending as its channel takes, beyond its address's share.
        self.is_over = False

    def take(self) -> tuple[Any, dict[str, Any]]:
        """Return the connection and the message, and forget both: the entry itself may wait for longer."""
        connection, message = self.connection, self.message
        self.connection, self.message = None, {}
        return connection, message


def cost_of(message: Mapping[str, Any]) -> int:
    """Return what an event costs: the number of its frames."""
    return len(message.get(FRAMES) or ()) or 1


def session_pattern(name: str) -> re.Pattern[bytes]:
    """
    Return the pattern of the cookie `name`, to be found in a Cookie header. Spaces around a name don't count,
    as in Django.
    """
    cookie = re.escape(name.encode("latin-1", "replace"))
    return re.compile(rb"(?:^|;)\s*" + cookie + rb"\s*=\s*([^;]*)")


def client_key(scope: Mapping[str, Any], session: re.Pattern[bytes], socket: Any) -> ClientKey:
    """
    Return whom the events of a connection count for: its address, and there its session, or `socket` (the
    connection itself) without one. `session` is the `session_pattern` of the session cookie, of which Django
    takes the last.
    """
    key = None
    for name, value in scope["headers"]:
        if name == b"cookie":
            for each in session.findall(value):
                key = hash(each.rstrip())
    return client_address(scope), socket if key is None else key

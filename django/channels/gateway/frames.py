"""
The frames of sockets that workers have not handled: those of one socket, and what all take together. Pure: no
I/O, no clock.

Reading from a socket pauses while too much of it waits, or too much of all sockets of its address, or of the
gateway. So a gateway needs a bounded amount of memory, however many sockets send to a slow consumer.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Callable

#: Frames, and their weight in bytes, that wait for a worker before the gateway stops reading the socket.
MAX_WAITING = 64
MAX_WAITING_WEIGHT = 1024 * 1024

#: The heaviest frame that fits into a message, with room for the other keys.
MAX_FRAME = 1024 * 1024 - 16 * 1024

#: Frames that wait may go to the worker together, up to this weight in bytes.
MAX_BATCH_WEIGHT = 512 * 1024

#: Milliseconds of a worker's time for which frames may go together, by how long the last ones took. So a
#: client that sends much to a slow consumer doesn't keep a worker from others.
MAX_BATCH_TIME = 25

#: Bytes of answers for which frames may go together, by what the last ones got. The time of a worker doesn't
#: tell what it takes to send the answers.
MAX_BATCH_ANSWERS = 128 * 1024

#: How many frames go together at first. It may double with each event that has ended: a hundred clients that
#: begin with 64 frames each would keep workers from others for long.
FIRST_BATCH = 8

#: The weight up to which a frame that is sent at once isn't counted.
SMALL_FRAME = 4096

#: The length of answers that each client may have unread, whatever others have; and as much of messages of
#: other code.
MIN_UNREAD_WEIGHT = 64 * 1024

#: How often the limit of a room may be exceeded by the first frames of sockets that have none.
HARD_LIMIT = 2


class FrameRoom:
    """
    What the frames of several sockets take: `used` of `limit` bytes. A room may be part of another.

    Belongs to the event loop of its gateway.
    """

    __slots__ = ("full_rooms", "limit", "outer", "used", "_waiters")

    def __init__(self, limit: int, outer: FrameRoom | None = None) -> None:
        self.limit = limit
        self.outer = outer
        self.used = 0
        #: Of the outermost room: how many rooms in it, itself included, have reached their limit.
        self.full_rooms = 0
        self._waiters: dict[Callable[[], Any], None] = {}

    @property
    def outermost(self) -> FrameRoom:
        """The room that isn't part of another."""
        return self if self.outer is None else self.outer.outermost

    def take(self, weight: int) -> None:
        """Count `weight` bytes."""
        used, self.used = self.used, self.used + weight
        if used < self.limit <= self.used:
            self.outermost.full_rooms += 1
        if self.outer is not None:
            self.outer.take(weight)

    def give(self, weight: int) -> None:
        """Count `weight` bytes less, and call those who wait for room."""
        used, self.used = self.used, self.used - weight
        if self.used < self.limit <= used:
            self.outermost.full_rooms -= 1
        if self._waiters:
            self._call_waiters()
        if self.outer is not None:
            self.outer.give(weight)

    def allows(self, has_frames: bool) -> bool:
        """
        Return whether a socket may be read. One without frames may exceed the limit, so that it doesn't
        wait for others, but not HARD_LIMIT times the limit.
        """
        limit = self.limit if has_frames else self.limit * HARD_LIMIT
        return self.used < limit and (self.outer is None or self.outer.allows(has_frames))

    def call_when_free(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` once when there may be room again."""
        room: FrameRoom | None = self
        while room is not None:
            if room.used >= room.limit:
                room._waiters[callback] = None
            room = room.outer

    def forget(self, callback: Callable[[], Any], is_leaving: bool = False) -> None:
        """
        Don't call `callback`, which may have been called already. With `is_leaving`, it takes nothing of the
        room that it was called for, so others are called in its place.
        """
        self._waiters.pop(callback, None)
        if is_leaving and self._waiters:
            self._call_waiters()
        if self.outer is not None:
            self.outer.forget(callback, is_leaving)

    def _call_waiters(self) -> None:
        # Not all at once, because each of them may add a frame.
        number = (self.limit - self.used) // MAX_FRAME + 1 if self.used < self.limit else 0
        for callback in list(self._waiters)[:number]:
            del self._waiters[callback]
            callback()


class UnreadRoom:
    """
    What clients have not read: `used` of `limit` characters or bytes. The room of one address is part of
    another (`outer`), and may have as much as it leaves free there: see `Shares`.

    Belongs to the event loop of its gateway.
    """

    __slots__ = ("limit", "outer", "used")

    def __init__(self, limit: int, outer: Any = None) -> None:
        self.limit = limit
        self.outer = outer
        self.used = 0

    @property
    def is_full(self) -> bool:
        """Whether all clients leave too much unread, or those of this address more than their share."""
        outer = self.outer
        return self.used >= (self.limit if outer is None else outer.limit - outer.used)

    def add(self, length: int) -> None:
        """Count `length` more, or less if it is negative."""
        self.used += length
        if self.outer is not None:
            self.outer.used += length


class SharedRoom(UnreadRoom):
    """
    What the messages of groups and of other code take that clients have not read. A text that waits for
    several clients is in memory once, and counts once; in the room of each address, too.
    """

    __slots__ = ("_numbers",)

    def __init__(self, limit: int, outer: SharedRoom | None = None) -> None:
        super().__init__(limit, outer)
        #: By the id of each value that waits: for how many clients, or addresses.
        self._numbers: dict[int, int] = {}

    def take(self, value: Any) -> None:
        """Count `value` (text or bytes). Keep a reference to it until `give`."""
        number = self._numbers.get(id(value), 0)
        self._numbers[id(value)] = number + 1
        if not number:
            self.used += len(value)
            if self.outer is not None:
                self.outer.take(value)

    def give(self, value: Any) -> None:
        """Count that one client less waits for `value`."""
        number = self._numbers.pop(id(value)) - 1
        if number:
            self._numbers[id(value)] = number
        else:
            self.used -= len(value)
            if self.outer is not None:
                self.outer.give(value)


class AddressRooms:
    """The rooms that the sockets of one address share: each is part of the same one of all sockets."""

    __slots__ = (
        "frames of_others sockets unread".split()
    )  # one text: only protocol.py writes control keys

    def __init__(self, limit: int, frames: FrameRoom, unread: UnreadRoom, of_others: SharedRoom):
        self.frames = FrameRoom(limit, frames)
        self.unread = UnreadRoom(unread.limit, unread)
        self.of_others = SharedRoom(of_others.limit, of_others)
        #: How many sockets the address has.
        self.sockets = 0


#: For sockets that no gateway has.
UNLIMITED, UNLIMITED_UNREAD = FrameRoom(sys.maxsize), UnreadRoom(sys.maxsize)


class FrameQueue:
    """
    The frames of one socket: those that wait for a worker, and those of the event in flight.

    Belongs to the event loop of its gateway.
    """

    __slots__ = (
        "all",
        "answered",
        "room",
        "sent",
        "waiting",
        "_batch_size",
        "_in_flight",
        "_weight",
    )

    def __init__(self, room: FrameRoom) -> None:
        self.room = room
        self.all = room.outermost
        #: (weight, frame) of each that waits. An empty deque takes 600 bytes, and most sockets are idle.
        self.waiting: deque[tuple[int, dict[str, Any]]] | tuple[()] = ()
        self._weight = 0
        #: How many frames the event in flight has, if they are counted.
        self.sent = 0
        #: The bytes of the answers to them.
        self.answered = 0
        self._in_flight = 0  # their weight
        self._batch_size = FIRST_BATCH

    @property
    def has_room(self) -> bool:
        """Whether the socket may be read."""
        waiting = self.waiting
        if len(waiting) >= MAX_WAITING or self._weight >= MAX_WAITING_WEIGHT:
            return False
        return self.room.allows(bool(waiting or self._in_flight))

    def add(self, weight: int, frame: dict[str, Any]) -> None:
        """Let a frame wait."""
        if isinstance(self.waiting, tuple):
            self.waiting = deque()
        self.waiting.append((weight, frame))
        self._weight += weight
        self.room.take(weight)

    def send(self, weight: int) -> None:
        """Count a frame that is sent without waiting. A small one need not be counted."""
        self.sent, self._in_flight, self.answered = 1, weight, 0
        self.room.take(weight)

    def take_batch(self, most: int = MAX_WAITING) -> list[dict[str, Any]]:
        """
        Take as many of the waiting frames as may go out together, at least one, and no more than `most`. They
        are in flight.
        """
        most = min(most, self._batch_size)
        frames: list[dict[str, Any]] = []
        total = 0
        waiting = self.waiting
        while not isinstance(waiting, tuple) and waiting:
            weight, frame = waiting[0]
            if frames and (total + weight > MAX_BATCH_WEIGHT or len(frames) >= most):
                break
            waiting.popleft()
            total += weight
            frames.append(frame)
        if not waiting:
            self.waiting = ()
        self._weight -= total
        self.sent, self._in_flight, self.answered = len(frames), total, 0
        return frames

    def landed(self, ran: int | None = None) -> None:
        """
        Count that the event in flight has ended. If its consumers ran for `ran` milliseconds, that bounds how
        many frames go together next, and so do their answers.
        """
        if ran is not None:
            sent = self.sent or 1
            size = MAX_BATCH_TIME * sent // ran if ran > 0 else MAX_WAITING
            if self.answered > MAX_BATCH_ANSWERS // MAX_WAITING:
                size = min(size, MAX_BATCH_ANSWERS * sent // self.answered)
            self._batch_size = max(1, min(MAX_WAITING, size, max(self._batch_size, 2 * sent)))
        if self.sent:
            weight, self._in_flight, self.sent = self._in_flight, 0, 0
            self.room.give(weight)

    def clear(self) -> None:
        """Forget the frames that wait."""
        weight, self._weight = self._weight, 0
        self.waiting = ()
        if weight:
            self.room.give(weight)

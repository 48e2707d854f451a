"""
What waits for clients that read more slowly than workers write: in memory up to a bound, then in a file.

A worker must not wait for a client. So a gateway takes a response up to a size as fast as the worker makes
it, and keeps it here. `ResponseStore` has the bounds of all responses of a gateway, and `Backlog` the parts
of one response. The file is that of blocks.py.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from ..log import RateLimit, shown
from ..shares import Shares
from .blocks import BLOCK, BlockFile
from .state import WRITE, Action

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ..layers.base import BaseChannelLayer
    from .limits import Limits

logger = logging.getLogger("django.channels.gateway")

#: Bytes that the server gets at a time, so that a client's progress can be seen.
PIECE = BLOCK

#: Bytes of a response that stay in memory although its client is behind.
READY = 256 * 1024

#: Bytes of a response of one part that is too small to be counted.
SMALL = 8 * 1024

#: Parts of a piece after which they are joined: each small one costs more than its bytes.
MAX_BODIES = 256

#: The type of the event that carries a part.
CONTENT = "http.response.body"

#: Seconds between two measurements of how fast clients read.
RATE_INTERVAL = 10.0

#: Seconds in which a client must take something of a response that its worker has finished (and http2.py).
READ_TIMEOUT = 300.0


class _Piece:
    """Bytes of a response: in memory, in a block of the file, or on their way there."""

    __slots__ = ("block", "bodies", "dropped", "more", "note", "size", "stored")

    def __init__(self, body: bytes, more: bool, note: Any) -> None:
        self.bodies = [body]
        self.size = len(body)
        self.more, self.note = more, note
        self.block: Any = None  # its number
        self.stored = False  # whether the block has the bytes, and memory doesn't
        self.dropped = False

    def add(self, body: bytes, more: bool, note: Any) -> None:
        """Add a part that follows."""
        self.bodies.append(body)
        if len(self.bodies) > MAX_BODIES:
            self.bodies = [b"".join(self.bodies)]
        self.size += len(body)
        self.more, self.note = more, note

    @property
    def body(self) -> bytes:
        """The bytes, which are in memory."""
        if len(self.bodies) > 1:
            self.bodies = [b"".join(self.bodies)]
        return self.bodies[0]

    def event(self, body: bytes) -> dict[str, Any]:
        """Return the ASGI 3 event with `body`."""
        return {"type": CONTENT, "body": body, "more_body": self.more}


class Backlog:
    """
    What is not yet written of one response, in order: the deque of write actions that a Connection needs.

    A response of one small part isn't counted. If `is_stream`, all that follows is: small parts are joined,
    so that they can be moved to the file. `changed()` is called when there may be room again, and `cut()` if
    the client is too slow. `address()` returns the address of the client.

    Belongs to the event loop of its gateway.
    """

    __slots__ = (
        "address",
        "awaited",
        "changed",
        "cut",
        "is_stream",
        "mark",
        "memory",
        "path",
        "taken",
        "taken_at",
        "waiting",
        "_pieces",
        "_popped",
        "_store",
        "_tail",
    )

    def __init__(
        self,
        store: ResponseStore,
        path: str,
        changed: Callable[[], None],
        cut: Callable[[], None],
        address: Callable[[], Any],
    ) -> None:
        self.path, self.changed, self.cut, self.address = path, changed, cut, address
        self.is_stream = False
        #: Whether a worker waits until there is room.
        self.awaited = False
        #: The bytes that wait, and those of them that are in memory.
        self.waiting = self.memory = 0
        #: The bytes that the server has taken, and when (monotonic) it last took some.
        self.taken, self.taken_at = 0, 0.0
        #: `taken` at the last measurement of the rate, or None if no worker waited then.
        self.mark: int | None = None
        self._store = store
        self._pieces: deque[Any] = deque()  # write actions, and _Piece if it is counted
        self._popped = 0
        self._tail: _Piece | None = None  # the last piece, if more fits into it

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def append(self, action: Action) -> None:
        """Add a write action."""
        event, note = action[1], action[2]
        body = event.get("body")
        if body is None or (len(body) <= SMALL and not self.is_stream):
            self._pieces.append(action)
            return
        if not self.waiting:
            self.taken_at = time.monotonic()
        more = event["more_body"]
        for start in range(0, len(body) or 1, PIECE):
            end = start + PIECE
            part = body if len(body) <= PIECE else body[start:end]
            if end < len(body):
                self._add(part, True, None)
            else:
                self._add(part, more, note)

    def _add(self, body: bytes, more: bool, note: Any) -> None:
        self.waiting += len(body)
        self.memory += len(body)
        self._store.memory += len(body)
        tail = self._tail
        if tail is not None and self.is_stream and tail.size + len(body) <= PIECE:
            tail.add(body, more, note)
        else:
            if tail is not None:
                self._store.added(self, tail)
            tail = self._tail = _Piece(body, more, note)
            self._pieces.append(tail)
        if tail.size >= PIECE or not more:
            self._tail = None
            self._store.added(self, tail)

    def popleft(self) -> Action:
        """
        Remove and return the first action; the server has taken the one before. In the place of an event in
        the file is an awaitable of it.
        """
        if self._popped:
            self.taken, self._popped = self.taken + self._popped, 0
            self.taken_at = time.monotonic()
        piece = self._pieces.popleft()
        if not isinstance(piece, _Piece):
            return piece  # type: ignore[no-any-return]
        if piece is self._tail:
            self._tail = None
        self._popped = piece.size
        if piece.stored:
            return (WRITE, self._load(piece), piece.note)
        self._drop(piece)
        if self.is_stream:
            self.changed()
        return (WRITE, piece.event(piece.body), piece.note)

    async def _load(self, piece: _Piece) -> dict[str, Any]:
        try:
            body = await self._store.read(piece)
        finally:
            self._drop(piece)  # also if the task was cancelled: its client has gone
        if self.is_stream:
            self.changed()
        return piece.event(body)

    def clear(self) -> None:
        """Forget everything."""
        pieces, self._pieces = self._pieces, deque()
        self._tail = None
        for piece in pieces:
            if isinstance(piece, _Piece):
                self._drop(piece)

    def _drop(self, piece: _Piece) -> None:
        piece.dropped = True
        self.waiting -= piece.size
        if not piece.stored:
            self.memory -= piece.size
        self._store.dropped(piece)


class ResponseStore:
    """
    The backlogs of one gateway, with the bounds of all together.

    Belongs to the event loop of the gateway.
    """

    def __init__(self, layer: BaseChannelLayer, loop: AbstractEventLoop, limits: Limits) -> None:
        self.limits = limits
        #: The bytes of all backlogs in memory, and those of the blocks of the file that are used.
        self.memory = self.stored = 0
        self._layer = layer
        self._loop = loop
        self._backlogs: dict[Backlog, None] = {}
        self.file = BlockFile(thread_name="channels-responses")
        self._timer: Any = None
        self._too_slow, self._failed = RateLimit(), RateLimit()

    def close(self, backlog: Backlog) -> None:
        """Forget `backlog`, whose response has ended."""
        if backlog.waiting:
            backlog.clear()
        self._backlogs.pop(backlog, None)

    def has_room(self, backlog: Backlog, size: int) -> bool:
        """Return whether its worker may send more of a response that has at least `size` bytes."""
        if not backlog.waiting:
            return True
        if backlog.memory > READY + 2 * PIECE or self.memory >= self.limits.responses_memory:
            return False
        return size <= self.limits.response_size or backlog.waiting < READY

    # Where pieces are.

    def added(self, backlog: Backlog, piece: _Piece) -> None:
        """Move a complete piece to the file, if memory is short."""
        if backlog not in self._backlogs:
            self._backlogs[backlog] = None
            if self._timer is None:
                self._timer = self._loop.call_later(RATE_INTERVAL, self.check_rates)
        is_short = backlog.memory > READY or self.memory > self.limits.responses_memory // 2
        if not is_short or piece.dropped:
            return
        if self.stored + PIECE > self.limits.responses_file:
            self._make_room()
            if piece.dropped or self.stored + PIECE > self.limits.responses_file:
                return  # it stays in memory, which soon has its worker wait
        self._move(backlog, piece)

    def dropped(self, piece: _Piece) -> None:
        """Count that a piece has gone."""
        if not piece.stored:
            self.memory -= piece.size
        else:
            self._release(piece)

    def _release(self, piece: _Piece) -> None:
        self.file.release(piece.block)
        piece.block = None
        self.stored -= PIECE

    def _move(self, backlog: Backlog, piece: _Piece) -> None:
        piece.block = self.file.take()
        self.stored += PIECE
        body = piece.body
        future = asyncio.wrap_future(
            self.file.write([(piece.block, 0, len(body))], body), loop=self._loop
        )
        future.add_done_callback(lambda future: self._moved(backlog, piece, future))

    def _moved(self, backlog: Backlog, piece: _Piece, future: Any) -> None:
        """Forget the body in memory of a piece that was written."""
        error = None if future.cancelled() else future.exception()
        if piece.dropped or error is not None or future.cancelled():
            self._release(piece)
            if error is not None:
                self._layer.count("responses_not_stored")
                self._failed.log(
                    logger.error,
                    "A response could not be put into a temporary file, and waits in memory: %s. "
                    "Free space in %s, or name another folder with TMPDIR.",
                    error,
                    tempfile.gettempdir(),
                )
            return
        piece.stored, piece.bodies = True, []
        self.memory -= piece.size
        backlog.memory -= piece.size
        backlog.changed()

    async def read(self, piece: _Piece) -> bytes:
        """Return the body of a piece that is in the file."""
        return await asyncio.wrap_future(
            self.file.read([(piece.block, 0, piece.size)]), loop=self._loop
        )

    # Clients that are too slow.

    def _make_room(self) -> None:
        """Of the address that has most in the file, cut off the client that has read nothing for longest."""
        shares = Shares()
        waiting = [each for each in self._backlogs if each.waiting > each.memory]
        for each in waiting:
            shares.take(each.address(), each.waiting - each.memory)
        if waiting:
            slowest = min(waiting, key=lambda each: (-shares.of(each.address()), each.taken_at))
            self._cut(slowest, "the file for responses is full")

    def check_rates(self) -> None:
        """Cut off clients for which a worker waits and that read too slowly, and those that have stopped."""
        least, now = max(1, self.limits.response_rate * RATE_INTERVAL - PIECE), time.monotonic()
        for backlog in list(self._backlogs):
            mark, backlog.mark = backlog.mark, None
            if not backlog.waiting:
                continue
            if backlog.awaited and mark is not None and backlog.taken - mark < least:
                self._cut(
                    backlog, "it read less than %d bytes a second" % self.limits.response_rate
                )
            elif now - backlog.taken_at > READ_TIMEOUT:
                self._cut(backlog, "it read nothing for %g seconds" % READ_TIMEOUT)
            elif backlog.awaited:
                backlog.mark = backlog.taken
        self._timer = None
        if self._backlogs:
            self._timer = self._loop.call_later(RATE_INTERVAL, self.check_rates)

    def _cut(self, backlog: Backlog, reason: str) -> None:
        self._backlogs.pop(backlog, None)
        self._too_slow.log(
            logger.warning,
            "The response to %s was cut, because its client is too slow: %s.",
            shown(backlog.path),
            reason,
        )
        backlog.cut()

    def end(self) -> None:
        """End the thread, and with it the file."""
        if self._timer is not None:
            self._timer.cancel()
        self.file.end()

"""
Where bodies of requests wait in the gateway: in memory up to a bound, then in a temporary file, which all
bodies share (blocks.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Iterator

from django.conf import settings

from ..shares import Shares
from .blocks import BLOCK, BlockFile, Place

if TYPE_CHECKING:
    from .http import Request
    from .limits import Limits

#: Bytes that are written to a file at a time.
WRITE_SIZE = 256 * 1024

#: Bytes that each body may keep in memory although the bodies of the gateway have used up their share.
MIN_WRITE_SIZE = 4096


class SpoolFull(Exception):
    """The temporary file of the gateway is as large as it may be."""


class SpoolRoom:
    """
    What all bodies of one gateway take, in bytes of memory and of disk: those that are gathered (`memory`,
    `disk`), and those whose requests wait for a worker (`waiting`). One address has a share of each.

    Belongs to the event loop of its gateway.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.loop = asyncio.get_event_loop()
        self.memory, self.disk, self.waiting = Shares(), Shares(), Shares()
        #: The address, and the size of what went with it.
        self._sent: dict[Request, tuple[str, int]] = {}
        self.file = BlockFile(thread_name="channels-bodies", folder=settings.FILE_UPLOAD_TEMP_DIR)

    def admit(self, request: Request, address: str, size: int) -> bool:
        """
        Return whether `request` of `address` may wait for a worker with `size` bytes of its body; alone, it
        may.
        """
        if size <= MIN_WRITE_SIZE:
            return True
        if not self._has_room(address, size):
            for each in [each for each in self._sent if not each.waits]:
                self.release(each)
            if self._sent and not self._has_room(address, size):
                return False
        self._sent[request] = address, size
        self.waiting.take(address, size)
        return True

    def _has_room(self, address: str, size: int) -> bool:
        limits = self.limits
        return self.waiting.allows(address, size, limits.bodies_memory, limits.body_in_message)

    def release(self, request: Request) -> None:
        """Forget a request that doesn't wait any more."""
        if request in self._sent:
            address, size = self._sent.pop(request)
            self.waiting.take(address, -size)


class Spool:
    """
    The bytes of one body that have come and were not taken yet, first in, first out.

    `put` and `take` may wait at the same time. Belongs to the event loop.
    """

    __slots__ = (
        "_address",
        "_blocks",
        "_closed",
        "_lock",
        "_newest",
        "_read_to",
        "_room",
        "_written_to",
    )

    def __init__(self, room: SpoolRoom, address: str) -> None:
        self._room = room
        self._address = address  # of its client
        self._newest = bytearray()  # what has come after the bytes in the file
        #: The blocks of the file that it has, and what is in them: from `_read_to` to `_written_to`.
        self._blocks: deque[int] = deque()
        self._read_to = self._written_to = 0
        self._lock: asyncio.Lock | None = None
        self._closed = False

    def __len__(self) -> int:
        return self._written_to - self._read_to + len(self._newest)

    async def put(self, data: bytes) -> None:
        """Add `data`. Raises SpoolFull, and OSError if the file cannot be written."""
        limits, room = self._room.limits, self._room
        self._newest += data
        room.memory.take(self._address, len(data))
        allowed = min(limits.body_memory, WRITE_SIZE) if self._blocks else limits.body_memory
        if not room.memory.allows(self._address, 0, limits.bodies_memory, limits.body_memory):
            allowed = min(allowed, MIN_WRITE_SIZE)
        if len(self._newest) > allowed:
            await self._move_to_file()

    async def take(self, size: int) -> bytes:
        """Return up to `size` bytes, and nothing only if there are none. Raises OSError."""
        if self._lock is None:
            return self._take_newest(size)
        async with self._lock:
            if self._read_to == self._written_to:
                return self._take_newest(size)
            end = min(self._read_to + size, self._written_to)
            data = await asyncio.wrap_future(self._room.file.read(self._places(self._read_to, end)))
            if self._closed:
                return b""
            self._room.disk.take(self._address, -len(data))
            self._read_to = end
            self._release(end if end == self._written_to else end - end % BLOCK)
            return data

    def close(self) -> None:
        """Forget everything."""
        room, self._closed = self._room, True
        room.memory.take(self._address, -len(self._newest))
        room.disk.take(self._address, self._read_to - self._written_to)
        self._newest = bytearray()
        self._read_to = self._written_to
        self._release(self._written_to)

    def _take_newest(self, size: int) -> bytes:
        data = bytes(self._newest[:size])
        del self._newest[:size]
        self._room.memory.take(self._address, -len(data))
        return data

    async def _move_to_file(self) -> None:
        room, limits = self._room, self._room.limits
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            size = len(self._newest)
            if self._closed:
                return
            if not room.disk.allows(self._address, size, limits.bodies_disk, limits.body_size):
                raise SpoolFull()
            start, data = self._written_to, self._take_newest(size)
            self._written_to += size
            while len(self._blocks) * BLOCK < self._written_to:
                self._blocks.append(room.file.take())
            room.disk.take(self._address, size)
            await asyncio.wrap_future(room.file.write(self._places(start, self._written_to), data))

    def _places(self, start: int, end: int) -> Iterator[Place]:
        """Yield where the bytes from `start` to `end` are."""
        while start < end:
            index, offset = divmod(start, BLOCK)
            size = min(BLOCK - offset, end - start)
            yield self._blocks[index], offset, size
            start += size

    def _release(self, end: int) -> None:
        """Give back the blocks of the bytes up to `end`: whole blocks, or all."""
        is_all = end == self._written_to
        for _ in range(len(self._blocks) if is_all else end // BLOCK):
            self._room.file.release(self._blocks.popleft())
        self._read_to -= end
        self._written_to -= end

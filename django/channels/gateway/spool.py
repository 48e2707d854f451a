"""
Where bodies of requests wait in the gateway: in memory up to a bound, then in a temporary file.

A file is read and written by the thread "channels-spool", so that a slow disk doesn't stop the event loop.
"""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable

from django.conf import settings

from ..shares import Shares

if TYPE_CHECKING:
    from .http import Request
    from .limits import Limits

#: Bytes that are written to a file at a time.
WRITE_SIZE = 256 * 1024

#: Bytes that each body may keep in memory although the bodies of the gateway have used up their share.
MIN_WRITE_SIZE = 4096


class SpoolFull(Exception):
    """The temporary files of the gateway are as large as they may be."""


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
        self._thread: ThreadPoolExecutor | None = None

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

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return a future of `function(*args)`, which the thread calls after what it was given before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="channels-spool")
        return self._thread.submit(function, *args)

    def close(self) -> None:
        """End the thread after what it was given."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)


class Spool:
    """
    The bytes of one body that have come and were not taken yet, first in, first out.

    `put` and `take` may wait at the same time. Belongs to the event loop; the methods named `_file_…` to the
    thread of `room`.
    """

    __slots__ = (
        "_address",
        "_closed",
        "_file",
        "_has_file",
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
        self._has_file = False
        self._file: Any = None
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
        allowed = min(limits.body_memory, WRITE_SIZE) if self._has_file else limits.body_memory
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
            data: bytes = await asyncio.wrap_future(
                self._room.run(self._file_read, self._read_to, size, self._written_to)
            )
            if self._closed:
                return b""
            if not data:
                raise OSError("A temporary file of a request's body is shorter than it was.")
            self._read_to += len(data)
            if self._read_to == self._written_to:
                self._room.disk.take(self._address, -self._written_to)
                self._read_to = self._written_to = 0
            return data

    def close(self) -> None:
        """Forget everything, and remove the file."""
        room, self._closed = self._room, True
        room.memory.take(self._address, -len(self._newest))
        room.disk.take(self._address, -self._written_to)
        self._newest = bytearray()
        self._read_to = self._written_to = 0
        if self._has_file:
            self._has_file = False
            try:
                # After what the thread was given, whose task may have been cancelled.
                room.run(self._file_close)
            except RuntimeError:  # the gateway has ended its thread
                self._file_close()

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
            if not room.disk.allows(self._address, size, limits.bodies_disk, limits.body_size):
                raise SpoolFull()
            position, data = self._written_to, self._take_newest(size)
            self._has_file = True
            self._written_to += size
            room.disk.take(self._address, size)
            await asyncio.wrap_future(room.run(self._file_write, position, data))

    # In the thread.

    def _file_write(self, position: int, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(
                prefix="channels-body.", dir=settings.FILE_UPLOAD_TEMP_DIR
            )
        self._file.seek(position)
        self._file.write(data)
        self._file.flush()  # a full disk is noticed here

    def _file_read(self, position: int, size: int, end: int) -> bytes:
        self._file.seek(position)
        data: bytes = self._file.read(size)
        if position + len(data) == end:
            self._file.truncate(0)
        return data

    def _file_close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

"""
An unnamed temporary file that many connections share, in blocks.

So it takes one file descriptor, however many clients are slow. By default, a process has 1,024 of them, and
each connection takes one.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterable, Tuple

#: Bytes of a block.
BLOCK = 64 * 1024

#: Where bytes are: a block, the offset in it, and their number.
Place = Tuple[int, int, int]


class BlockFile:
    """
    Blocks of a temporary file. `thread_name` is the name of its thread, and part of the name of the file;
    `folder` is where the file is, or None for the usual folder.

    Call it from one thread. Its own thread reads and writes, because a disk may be slow, in the order of the
    calls. So a block may be released while it is read or written: the next owner's bytes come later.
    """

    def __init__(self, thread_name: str, folder: Any = None) -> None:
        #: The blocks that are used, and those that the file has.
        self.used = self.size = 0
        self._name, self._folder = thread_name, folder
        self._free: list[int] = []
        self._thread: ThreadPoolExecutor | None = None
        self._file: Any = None

    def take(self) -> int:
        """Return the number of a block that isn't used."""
        self.used += 1
        if self._free:
            return self._free.pop()
        self.size += 1
        return self.size - 1

    def release(self, block: int) -> None:
        """Let others have a block. The file gives back its space when no block is used."""
        self.used -= 1
        self._free.append(block)
        if not self.used:
            self._free, self.size = [], 0
            if self._thread is not None:
                self._thread.submit(self._truncate)

    def write(self, places: Iterable[Place], data: bytes) -> Future[None]:
        """Write `data` to `places`. The future may have an OSError."""
        future: Future[None] = self._submit(self._write, list(places), data)
        return future

    def read(self, places: Iterable[Place]) -> Future[bytes]:
        """Read what was written to `places`. The future may have an OSError."""
        future: Future[bytes] = self._submit(self._read, list(places))
        return future

    def end(self) -> None:
        """End the thread, after what it was given, and with it the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._close)
            thread.shutdown(wait=False)

    def _submit(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread.submit(function, *args)

    # In the thread.

    def _write(self, places: list[Place], data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(
                prefix=self._name + ".", buffering=0, dir=self._folder
            )
        rest = memoryview(data)
        for block, offset, size in places:
            self._file.seek(block * BLOCK + offset)
            end = len(rest) - size
            while len(rest) > end:
                rest = rest[self._file.write(rest[: len(rest) - end]) :]

    def _read(self, places: list[Place]) -> bytes:
        parts = []
        for block, offset, size in places:
            self._file.seek(block * BLOCK + offset)
            while size:
                part = self._file.read(size)
                if not part:
                    raise OSError("The temporary file %s is shorter than it was." % self._name)
                parts.append(part)
                size -= len(part)
        return b"".join(parts)

    def _truncate(self) -> None:
        if self._file is not None:
            self._file.truncate(0)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

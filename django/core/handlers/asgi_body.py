"""The body of a request as a file, for the HTTP handler of channels (`asgi.py`)."""

from __future__ import annotations

import sys
from io import BufferedIOBase
from typing import Iterable


class BodyStream(BufferedIOBase):
    """
    A request's body as a file to read from: the first chunk, then the chunks of an iterable.

    An exception of the iterable is raised as an OSError, by this and every later read, because Django
    expects that of a broken connection. `failure` keeps the exception. Belongs to one thread.
    """

    __slots__ = ("_at", "_buffer", "_chunks", "_left", "failure", "length", "size")

    def __init__(
        self, first: bytes, chunks: Iterable[bytes] | None = None, length: int | None = None
    ) -> None:
        self._buffer = first
        self._at = 0  # the buffer was read up to here; to cut that off at each read is slow
        self._chunks = chunks if chunks is None else iter(chunks)
        self._left = length
        self.failure: Exception | None = None
        #: The Content-Length in bytes, or None if the client sent none.
        self.length = length
        #: The largest possible length of the body in bytes. It is exact unless there are more chunks.
        self.size = (
            length if length is not None else sys.maxsize if chunks is not None else len(first)
        )

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = None) -> bytes:
        """Return `size` bytes, or the rest without a size. Only the end of the body gives fewer."""
        if size is None or size < 0:
            size = sys.maxsize
        self._fill(size)
        return self._take(size)

    def readline(self, size: int | None = None) -> bytes:
        """Return one line with its newline, or `size` bytes of it; `b""` at the end of the body."""
        limit = sys.maxsize if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", self._at + searched) + 1
            searched = len(self._buffer) - self._at
            if end or searched >= limit or not self._fill(searched + 1):
                return self._take(min(end - self._at if end else searched, limit))

    def close(self) -> None:
        """Drop what is buffered. Call it when nothing more will be read."""
        self._chunks, self._buffer, self._at = None, b"", 0
        super().close()

    def exceeds(self, limit: int) -> bool:
        """Return whether more than `limit` bytes are unread. Buffers up to one chunk more than that."""
        self._fill(limit + 1)
        held = len(self._buffer) - self._at
        return (held if self._left is None else min(held, self._left)) > limit

    def _fill(self, size: int) -> bool:
        """Read chunks until the buffer holds `size` bytes. Return whether it does."""
        held = len(self._buffer) - self._at
        if held < size and self._chunks is not None and (self._left is None or held < self._left):
            parts = [self._buffer[self._at :]]
            try:
                while held < size and (self._left is None or held < self._left):
                    chunk = self._next_chunk()
                    if chunk is None:
                        break
                    parts.append(chunk)
                    held += len(chunk)
            finally:
                self._buffer, self._at = b"".join(parts), 0
        return held >= size

    def _next_chunk(self) -> bytes | None:
        if self.failure is None and self._chunks is not None:
            try:
                return next(self._chunks, None)
            except Exception as error:
                self.failure = error
        # Every later read raises too, so that an incomplete body never looks complete.
        raise OSError(f"The request's body could not be read: {self.failure!r}") from self.failure

    def _take(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
        taken = self._buffer[self._at : self._at + size]
        self._at += len(taken)
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        if self._left is not None:
            self._left -= len(taken)
        return taken

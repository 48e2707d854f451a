"""
The content of a response as the parts that replies carry, for the HTTP handler of channels (`asgi.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, AsyncIterator, Iterable, Iterator, Tuple

from django.http import HttpResponse

logger = logging.getLogger("django.request")

#: The largest content of one reply, in bytes.
CHUNK_SIZE = 256 * 1024

#: Seconds without a chunk of an asynchronous stream until an empty part: until the first, and between others.
HEAD_INTERVAL, IDLE_INTERVAL = 0.1, 1.0

#: Seconds that tasks which a view started next to an asynchronous stream may run on after its end.
TASKS_TIMEOUT = 0.1

#: A part of a content, and whether it is the last one.
Part = Tuple[bytes, bool]


class ResponseTooShort(Exception):
    """The content of a response ended before its Content-Length. The client must see that it breaks off."""


def without_signal(response: HttpResponse) -> HttpResponse:
    """Return `response`, which won't send `request_finished`: another response of its request does."""

    def close() -> None:
        calls = getattr(response, "_resource_closers", None)
        if calls is None:  # where it has its first name
            calls = [each.close for each in response._closable_objects]
        for call in calls:
            with suppress(Exception):
                call()

    response.close = close
    return response


def contents_of(response: HttpResponse) -> Iterable[Part]:
    """
    Return `(part, last)` pairs of the content of `response`, each of at most CHUNK_SIZE bytes, and together
    of no more bytes than its Content-Length. Raises ResponseTooShort in the place of an end that comes early.

    A server trusts the length: the client would read more bytes as the beginning of the next response, and
    wait for fewer until a timeout. Close the result of a streaming response to close the iterator behind it.
    """
    if response.streaming:
        return _parts_of(response)
    length = _length_of(response)
    content = response.content
    if length is not None and length != len(content):
        _check_end(response, length, len(content))
        content = content[:length]
    return split(content)


def _length_of(response: HttpResponse) -> int | None:
    """Return the Content-Length of a response, or None without one."""
    declared = response.get("Content-Length", "").strip()
    return int(declared) if declared.isdecimal() else None


class Cut:
    """Cut the parts of a streaming response at its Content-Length."""

    def __init__(self, response: HttpResponse) -> None:
        self.length = _length_of(response)
        #: The bytes so far.
        self.size = 0
        self._response = response

    def next(self, part: bytes) -> Part:
        """Return what may be sent of the next part, and whether it is the last one."""
        self.size += len(part)
        if self.length is None or self.size <= self.length:
            return part, False
        _check_end(self._response, self.length, self.size)
        return part[: len(part) - (self.size - self.length)], True

    def end(self) -> None:
        """Raise ResponseTooShort if bytes are missing."""
        if self.length is not None and self.size < self.length:
            _check_end(self._response, self.length, self.size)


def _check_end(response: HttpResponse, length: int, size: int) -> None:
    """Log a content of at least `size` bytes that is longer than `length`; raise for one that is shorter."""
    if size < length:
        raise ResponseTooShort(
            "The content of a response ended after %d bytes; its Content-Length is %d."
            % (size, length)
        )
    logger.error(
        "The content of a response (%s) is longer than its Content-Length of %d bytes, and was cut there. "
        "Don't set the header, or set it to the length.",
        type(response).__name__,
        length,
    )


def split(content: bytes) -> Iterable[Part]:
    """Return `(part, last)` pairs of a whole content, each of at most CHUNK_SIZE bytes."""
    end = len(content)
    if end <= CHUNK_SIZE:
        return ((content, True),)
    return (
        (content[start : start + CHUNK_SIZE], start + CHUNK_SIZE >= end)
        for start in range(0, end, CHUNK_SIZE)
    )


def _parts_of(response: HttpResponse) -> Iterator[Part]:
    """
    Yield the parts of a streaming response as soon as it gives them.

    Only the last part may be empty, with one exception: a stream that waits or gives empty chunks has empty
    parts from time to time, so that the head can leave and the caller can close the stream.
    """
    chunks: Iterator[bytes | None]
    file = getattr(response, "file_to_stream", None)
    if file is not None:
        chunks = _file_chunks(response, file)
    elif getattr(response, "is_async", False):
        chunks = _run_async_iterator(response.streaming_content)
    else:
        chunks = iter(response)
    cut = Cut(response)
    empty_at = time.monotonic()
    try:
        for chunk in chunks:
            if chunk is None or (not chunk and time.monotonic() > empty_at + HEAD_INTERVAL):
                empty_at = time.monotonic()
                yield b"", False
            for part, _ in split(chunk) if chunk else ():
                part, is_last = cut.next(part)
                if cut.size == cut.length and file is not None:
                    # The last part says that it is the last, so that a small file needs one message.
                    surplus = next(chunks, None)
                    if surplus:
                        cut.next(surplus)
                    is_last = True
                yield part, is_last
                if is_last:
                    return
        cut.end()
        yield b"", True
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _file_chunks(response: HttpResponse, file: Any) -> Iterator[bytes]:
    """Yield the file of a FileResponse in larger blocks than the response would read."""
    while True:
        chunk = file.read(CHUNK_SIZE)
        if not chunk:
            return
        yield response.make_bytes(chunk)


def _run_async_iterator(iterator: AsyncIterator[bytes]) -> Iterator[bytes | None]:
    """
    Yield the chunks of an asynchronous iterator, each as soon as it exists, and None after an interval
    without one. Close the generator to cancel the iterator, also while it waits.

    The iterator runs in an event loop for this thread, in one task throughout, while the caller waits for a
    chunk. Django's way without an event loop collects all chunks first, and so never returns for an endless
    stream.
    """
    loop = asyncio.new_event_loop()
    handover, interval = _Handover(loop), HEAD_INTERVAL
    task = loop.create_task(_produce(iterator, handover))
    try:
        while True:
            loop.run_until_complete(asyncio.wait([handover.ready], timeout=interval))
            if not handover.ready.done():
                interval = IDLE_INTERVAL
                yield None
                continue
            chunk, error = handover.ready.result()
            if error is not None:
                raise error
            if chunk is None:
                return
            handover.ready = loop.create_future()
            yield chunk
            handover.resume.set_result(None)
    finally:
        try:
            if not handover.ready.done() or not handover.resume.done():
                task.cancel()
            _end(loop, task)
        finally:
            loop.close()


class _Handover:
    """How the task of an asynchronous iterator gives a chunk to the thread that runs its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        #: Gets (the next chunk, or None at the end, and the exception of the iterator or None). A future's
        #: own exception can't be of every class.
        self.ready: asyncio.Future[tuple[bytes | None, BaseException | None]]
        self.ready = loop.create_future()
        #: Done when the caller wants the next chunk.
        self.resume: asyncio.Future[None] = loop.create_future()


async def _produce(iterator: AsyncIterator[bytes], handover: _Handover) -> None:
    from asgiref.sync import ThreadSensitiveContext, sync_to_async
    from django.db import connections

    loop = asyncio.get_event_loop()
    # What the iterator passes to sync_to_async runs in a separate thread, with separate database connections.
    async with ThreadSensitiveContext():
        try:
            async for chunk in iterator:
                handover.resume = loop.create_future()
                handover.ready.set_result((chunk, None))
                await handover.resume
            handover.ready.set_result((None, None))
        except BaseException as error:
            if not handover.ready.done():
                handover.ready.set_result((None, error))
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
            await loop.shutdown_asyncgens()
            await sync_to_async(connections.close_all)()


def _end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Wait for the task of an iterator, then end the tasks that the view left in the loop."""
    loop.run_until_complete(asyncio.wait([task]))
    if not task.cancelled() and task.exception() is not None:
        logger.error("Closing a streaming response failed.", exc_info=task.exception())
    # Abandoned generators are closed by tasks, which get a moment. Other tasks end with the stream.
    loop.run_until_complete(asyncio.sleep(0))
    tasks = asyncio.all_tasks(loop)
    if tasks:
        wait = asyncio.wait(tasks, timeout=TASKS_TIMEOUT)
        _, tasks = loop.run_until_complete(wait)
    for each in tasks:
        each.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))

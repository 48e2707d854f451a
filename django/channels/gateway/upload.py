"""
The body of one request, from the server to a worker: gathered, bounded, and read to its end.

No worker waits for a client: a request is sent when its body is complete, or, for a path of the option
`stream_paths`, when its first part is there. The gateway goes on reading whatever the view does. So it
notices that the client leaves, and no server resets a connection under the response because of an unread
body.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Mapping, MutableMapping

from ..log import RateLimit, shown
from ..shares import client_address
from .limits import BODY_TOO_LARGE
from .scopes import path_of
from .spool import Spool, SpoolFull, SpoolRoom
from .watch import Watch, receives_in_any_task

if TYPE_CHECKING:
    from .connection import Connection
    from .response import ResponseConnection

logger = logging.getLogger("django.channels.gateway")

#: Bytes of a request's body that go into one message, at most, after those that went with the request.
BODY_PART = 256 * 1024

#: Seconds that an answer waits for the rest of the body: for the next part of it, and in all.
LINGER_TIMEOUT, LINGER_TIME = 5.0, 30.0

#: Seconds that it waits for the next part, at least, if a proxy may wait for the end of the answer. A client
#: whose parts came with longer pauses gets PAUSES times its longest one, at most LINGER_TIMEOUT.
PROXY_TIMEOUT, PAUSES = 1.0, 3

#: The statuses of a body that comes too slowly, and of one for which memory and disk are too full.
TOO_SLOW, NO_ROOM = 408, 503

#: Events that a server has ready and that are read before other tasks get their turn.
EVENTS_AT_A_TIME = 64

_disk_errors = RateLimit()


def has_body(scope: Mapping[str, Any]) -> bool:
    """Return whether a body may follow the head of a request, so that reading it may take long."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return scope["method"] not in ("GET", "HEAD")


class Upload:
    """
    Reads the body of one request from its server. Make it in the task that serves the request, and `close`
    it there. Belongs to the event loop of its gateway.

    `problem` becomes the status with which to answer a body that cannot be taken. `gone` says that the client
    has left. Both are told to `connection` once there is one.
    """

    __slots__ = (
        "complete",
        "connection",
        "gone",
        "problem",
        "_changed",
        "_discards",
        "_feeder",
        "_first",
        "_has_body",
        "_longest_pause",
        "_loop",
        "_reader",
        "_receive",
        "_received",
        "_received_at",
        "_room",
        "_scope",
        "_spool",
        "_started",
        "_task",
        "_timer",
    )

    def __init__(
        self,
        room: SpoolRoom,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    ) -> None:
        self._loop = room.loop
        self._room = room
        self._scope = scope
        self._receive = receive
        self._has_body = has_body(scope)
        self._first = b""  # the whole body, if it came at once and is small
        self._spool: Spool | None = None
        self._received = 0
        self._received_at: float | None = None
        self._longest_pause = 0.0
        self._discards = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: Any = None  # serves the request, while it waits for the first event
        self._reader: Any = None  # a task, or a Watch
        self._feeder: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self.complete = self.gone = False
        self.problem: int | None = None
        self.connection: ResponseConnection | None = None

    @property
    def method(self) -> str:
        """The method of the request."""
        method: str = self._scope["method"]
        return method

    # Before the request is sent.

    async def gather(self) -> None:
        """Wait until the request can be sent, or must be refused, or its client has gone."""
        if self._has_body:
            self._started = self._loop.time()
            self._check_pace()
            event = await self._first_event()
            if event is None:
                return
        else:
            event = await self._receive()
        if event["type"] == "http.request" and not event.get("more_body"):
            data = event.get("body", b"")
            limits = self._room.limits
            if len(data) <= min(limits.body_in_message, limits.body_size):
                self._first = data
                self._end_body()
                return
        await self._take(event)
        if self._timer is None:
            self._has_body = True
            self._started = self._loop.time()
            self._check_pace()
        paths, path = self._room.limits.stream_paths, path_of(self._scope)
        is_stream = any(each.search(path) for each in paths)
        while not (self.complete or self.problem or self.gone or (is_stream and self._received)):
            self._start()
            await self._changes()

    async def _first_event(self) -> Any:
        """Return the first event. None: it took too long. Most bodies come with it, so it needs no task."""
        self._task = asyncio.current_task()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if self.problem is None:
                raise
            if hasattr(self._task, "uncancel"):  # from Python 3.11
                self._task.uncancel()
            return None
        finally:
            self._task = None

    async def first_part(self) -> bytes:
        """Return what goes with the request."""
        if self._spool is None:
            first, self._first = self._first, b""
            return first
        try:
            return await self._spool.take(self._room.limits.body_in_message)
        except OSError as error:
            self._disk_failed(error)
            return b""

    @property
    def unfinished(self) -> bool:
        """Whether there is, or will be, more of the body than was taken."""
        return not self.complete or bool(self._spool)

    # When the request was sent.

    def follow(self, connection: ResponseConnection) -> None:
        """Tell `connection` from now on of the rest of the body, and of the client's end."""
        self.connection = connection
        if self.complete and receives_in_any_task(self._receive):
            self._reader = Watch(self._receive(), self._take_last)
        else:
            self._start()
        if self.unfinished:
            self._feeder = self._loop.create_task(self._feed(connection))

    def watch(self) -> None:
        """Read on, also without a body, so that `gone` tells of the client's end."""
        self._start()

    async def wait_until_gone(self) -> None:
        """Wait until the client has gone. Call `watch` first."""
        assert self._reader is not None
        await asyncio.wait({self._reader})

    async def next_part(self) -> bytes:
        """Return what follows of the body, at most BODY_PART bytes, and nothing only at its end."""
        while True:
            data = await self._spool.take(BODY_PART) if self._spool is not None else b""
            if data or self.complete:
                return data
            if self.problem is not None or self.gone:
                raise OSError("The body of the request does not come, or cannot be kept.")
            await self._changes()

    async def drain(self, proxy_waits: bool = False) -> None:
        """
        Drop the rest of the body, up to LINGER_TIME seconds. A server that gets an answer before that would
        end the connection, and the answer might be lost with it.

        With `proxy_waits`, a proxy may have stopped sending the body when the answer began, as nginx does
        without request buffering, and wait for its end. So the rest is not waited for if it stops.
        """
        self._drop()
        if not self._has_body or self._client_waits() or self.problem == TOO_SLOW:
            return
        self._start()
        deadline = self._loop.time() + LINGER_TIME
        while not (self.complete or self.gone) and self._loop.time() < deadline:
            # Not whether more was received: granian has events without content now and then.
            timeout = self._stop_timeout() if proxy_waits else LINGER_TIMEOUT
            done, _ = await asyncio.wait({self._changes()}, timeout=timeout)
            if not done:
                return

    def _stop_timeout(self) -> float:
        """Return after how many seconds without a part the client seems to have stopped sending."""
        return min(max(PROXY_TIMEOUT, PAUSES * self._longest_pause), LINGER_TIMEOUT)

    def close(self) -> None:
        """Stop reading, and drop what was read."""
        for each in (self._timer, self._reader, self._feeder):
            if each is not None:
                each.cancel()
        self._drop()

    def _drop(self) -> None:
        self._discards = True
        if self._spool is not None:
            self._spool.close()

    def _end_body(self) -> None:
        self.complete = True
        if self._timer is not None:
            self._timer.cancel()

    # The reader.

    def _start(self) -> None:
        if self._reader is None:
            self._reader = self._loop.create_task(self._read())

    async def _read(self) -> None:
        """Read the body, then wait for the client's end."""
        events = 0
        try:
            while not self.gone:
                await self._take(await self._receive())
                events += 1
                if events % EVENTS_AT_A_TIME == 0:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:  # an Exception until Python 3.7 goes
            raise
        except Exception:
            text = "The server failed while it read the request %s:"
            logger.exception(text, shown(self._scope["path"]))
            await self._take({"type": "http.disconnect"})

    def _take_last(self, event: Mapping[str, Any] | None) -> None:
        """Take in what follows a complete body: the client's end. None: a task must find out what it is."""
        if event is None or event["type"] != "http.disconnect":
            self._reader = None
            self._start()
        else:
            self._client_left()

    def _client_left(self) -> None:
        self.gone = True
        if self.connection is not None:
            self.connection.client_left()

    async def _take(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the server."""
        if event["type"] == "http.disconnect":
            self._client_left()
        elif not self.complete:
            data = event.get("body", b"")
            if data:
                self._note_pause()
            self._received += len(data)
            if data and not self._discards:
                await self._put(data)
            if not event.get("more_body", False):
                self._end_body()
        self._wake()

    def _note_pause(self) -> None:
        now = self._loop.time()
        if self._received_at is not None:
            self._longest_pause = max(self._longest_pause, now - self._received_at)
        self._received_at = now

    async def _put(self, data: bytes) -> None:
        if self._received > self._room.limits.body_size:
            self._fail(BODY_TOO_LARGE)
            return
        if self._spool is None:
            self._spool = Spool(self._room, client_address(self._scope))
        try:
            await self._spool.put(data)
        except SpoolFull:
            self._fail(NO_ROOM)
        except OSError as error:
            self._disk_failed(error)

    def _check_pace(self) -> None:
        """Refuse a body that comes too slowly; check again when it would."""
        limits = self._room.limits
        allowed = min(limits.body_grace + self._received / limits.body_rate, limits.body_time)
        remaining = self._started + allowed - self._loop.time()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._check_pace)
        else:
            self._fail(TOO_SLOW)

    def _fail(self, status: int) -> None:
        """Drop the body, and have its client told."""
        if self.problem is None:
            self.problem = status
            self._drop()
            if self._timer is not None:
                self._timer.cancel()
            if self._task is not None:
                self._task.cancel()
            if self.connection is not None:
                self.connection.gateway.refusals.note(self._scope, status)
                self.connection.perform(self.connection.state.body_failed(status))
            self._wake()

    def _disk_failed(self, error: OSError) -> None:
        text = "The body of %s cannot be kept in a temporary file: %s."
        _disk_errors.log(logger.error, text, shown(self._scope["path"]), error)
        self._fail(NO_ROOM)

    def _client_waits(self) -> bool:
        """Return whether the client waits for the server to ask for the body, which wasn't done."""
        return self._reader is None and any(name == b"expect" for name, _ in self._scope["headers"])

    # The feeder.

    async def _feed(self, connection: Connection) -> None:
        """Send the rest of the body to the worker, as it comes and as fast as the view reads it."""
        state = connection.state
        while not state.answered:
            await connection.may_read()
            try:
                data = b"" if self._spool is None else await self._spool.take(BODY_PART)
            except OSError as error:
                self._disk_failed(error)
                return
            if data or self.complete:
                connection.perform(state.body(data, self.unfinished))
                if not self.unfinished:
                    return
            else:
                # Shielded, because `drain` may wait for the same.
                await asyncio.shield(self._changes())

    # Waiting. One task waits at a time: the one that serves the request, or the feeder, or `drain`.

    def _changes(self) -> asyncio.Future[None]:
        if self._changed is None or self._changed.done():
            self._changed = self._loop.create_future()
        return self._changed

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

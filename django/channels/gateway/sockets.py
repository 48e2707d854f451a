"""
Connect the state machine of a WebSocket to its server: read events in the server's task, and write events.

The servers that prepared.py knows accept most events without waiting. For them, the gateway runs `send` as
far as it goes, in the code that has the event. It makes a task only if `send` waits. That task finishes
the `send`, and then sends the events that came meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Generator, Iterable, MutableMapping

from ..log import RateLimit, shown
from . import codes, connection
from .buffers import transport_of
from .connection import Connection, ServerSend
from .handshake import ACCEPT_TIMEOUT
from .prepared import Frame, accepts_immediately, direct_writer
from .state import SEND, WRITE, Action
from .websocket import CONNECTING, OPEN, OTHERS

if TYPE_CHECKING:
    from .application import Gateway

logger = logging.getLogger("django.channels.gateway")

#: Seconds that a handshake must have waited before its end is logged. A client that leaves earlier is nothing
#: unusual. Servers wait for 5 seconds or more.
UNANSWERED_FLOOR = 4.5

_unanswered = RateLimit(10.0)

ServerReceive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Suspended:
    """Await the rest of a coroutine that has begun and now waits for `future`."""

    __slots__ = ("_coroutine", "_future")

    def __init__(self, coroutine: Any, future: Any) -> None:
        self._coroutine = coroutine
        self._future = future

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._future
        while True:
            try:
                result, error = (yield waits_for), None
            except BaseException as raised:
                result, error = None, raised
            try:
                if error is None:
                    waits_for = self._coroutine.send(result)
                else:
                    waits_for = self._coroutine.throw(error)
            except StopIteration:
                return


class SocketConnection(Connection):
    """
    Carry out the actions of a WebSocket's state machine. `serve` reads until the socket has ended.

    Belongs to the event loop of its gateway.
    """

    __slots__ = (
        "deadline",
        "error",
        "transport",
        "_direct",
        "_has_ended",
        "_is_cut",
        "_is_writing",
        "_steps",
        "_timer",
    )

    def __init__(self, gateway: Gateway, state: Any, send: ServerSend) -> None:
        super().__init__(gateway, state, send)
        # A list, because an empty deque takes 600 bytes. Few events wait for a client, and mostly none.
        self._outgoing = []
        #: The timer that ends a handshake without an answer.
        self.deadline: asyncio.TimerHandle | None = None
        #: The exception that `send` raised. After it, nothing more is written.
        self.error: BaseException | None = None
        #: Whether the server's `send` may be called outside a new task.
        self._steps = accepts_immediately(send)
        #: The transport, for `WriteBuffers`.
        self.transport = transport_of(send)
        #: The writer for frames that the gateway encodes, or None.
        self._direct = direct_writer(send) if gateway.limits.share_frames else None
        #: Whether a caller or a task is already writing, and also writes what is added to `_outgoing`.
        self._is_writing = False
        #: Whether nothing more is written; whether `serve` was interrupted.
        self._has_ended = self._is_cut = False
        #: The timer that ends the reading if the server doesn't end a connection that the gateway closed.
        self._timer: asyncio.TimerHandle | None = None

    # Reading.

    async def serve(self, receive: ServerReceive) -> None:
        """
        Read until the client has gone, or the server had time to end a connection that this side has closed.
        """
        task: Any = asyncio.current_task()
        if task is None:  # a server may call the gateway outside a task
            task = asyncio.ensure_future(self.serve(receive))
            try:
                await task
            finally:
                task.cancel()
            return
        self.reader = task
        state, idle = self.state, self.gateway.idle
        try:
            while not self.is_gone:
                if not state.reading:
                    await self.may_read()
                self._hear(await receive(), idle)
        except asyncio.CancelledError:
            if not self._is_cut:
                raise
            if hasattr(task, "uncancel"):  # from Python 3.11
                task.uncancel()
        finally:
            self._has_ended = self._is_writing = True
            for each in (self._timer, self.deadline, self.overdue, self.writer):
                if each is not None:
                    each.cancel()

    def _hear(self, event: MutableMapping[str, Any], idle: Any) -> None:
        """Take in an event of the client."""
        if idle is not None:
            idle.heard(self)
        if event["type"] == "websocket.receive":
            self.perform(self.state.frame(event.get("text"), event.get("bytes")))
        elif event["type"] == "websocket.disconnect":
            self.is_gone = True
            self._log_unanswered()
            self.perform(self.state.gone(event.get("code") or codes.GONE))

    def read_to_end(self) -> None:
        """Read on, although workers are behind: the server has closed the connection, and reads no more."""
        self.state.read_to_end()
        self._check_again()

    def _log_unanswered(self) -> None:
        """
        Log a handshake that ended while no consumer had answered it for long. Daphne says nothing of it.
        """
        if self.state.phase != CONNECTING or self.deadline is None:
            return
        seconds = ACCEPT_TIMEOUT - (self.deadline.when() - self.gateway.loop.time())
        if seconds < UNANSWERED_FLOOR:
            return
        _unanswered.log(
            logger.warning,
            "WebSocket %s ended after %.1f s, because no consumer had answered its handshake. Look for a "
            "consumer of websocket.connect that doesn't accept or close, or for busy or missing workers. ("
            "The gateway waits %g s. The client, or the server's own limit, came first: Daphne's is "
            "--websocket_connect_timeout.)",
            shown(self.state.path),
            seconds,
            ACCEPT_TIMEOUT,
        )

    def _end_reading(self, pauses: int) -> None:
        """
        Interrupt `serve`, unless it was paused again after `pauses` pauses: the reader may still have frames
        of a client that has left. While it is paused because workers are busy, the time starts again.
        """
        if self._paused is not None or self._pauses != pauses:
            self._await_end()
        elif not self.is_gone:
            self._is_cut = True
            self.reader.cancel()

    def _await_end(self) -> None:
        loop, seconds = self.gateway.loop, connection.CLOSE_TIMEOUT
        self._timer = loop.call_later(seconds, self._end_reading, self._pauses)

    def give_up_handshake(self) -> None:
        """Deny a handshake that isn't answered yet."""
        self.deadline = None
        self.perform(self.state.timeout())

    # Writing.

    def perform(self, actions: Iterable[Action]) -> None:
        outgoing = self._outgoing
        for action in actions:
            verb = action[0]
            if verb is WRITE:
                outgoing.append(action)
            elif verb is SEND:
                self.gateway.send_event(self, action[1], action[2])
            else:
                self._perform_rare(action)
        if (outgoing or self._finished) and not self._is_writing:
            self._write()
        if self._finished and self.writer is not None and self.overdue is None:
            # A client that reads nothing will not take its close either.
            self.overdue = self.gateway.loop.call_later(
                connection.CLOSE_TIMEOUT, self.writer.cancel
            )
        if self._paused is not None or self.detached:
            super().perform(())

    def take_group(self, message: dict[str, Any], frame: Frame | None) -> None:
        if frame is None or self._is_writing or not self._steps or self.state.phase != OPEN:
            self.perform(self.state.group(message))
            return
        direct = self._direct
        self._is_writing = True
        try:
            if direct is None or not direct.write(frame):
                self._step(frame.event, OTHERS)
        except Exception as error:
            self._fail(error)
            return
        if self.writer is None:
            self._is_writing = False
        else:
            self.state.wait_for_client(frame.event)

    def _step(self, event: dict[str, Any], note: Any) -> None:
        """Give the server an event. A task is left with the rest if the server waits."""
        coroutine = self._send(event)
        try:
            future = coroutine.send(None)
        except StopIteration:
            return
        self._continue(Suspended(coroutine, future), event, note)

    def _write(self) -> None:
        """Give the server what waits, as long as it takes it at once."""
        outgoing, direct = self._outgoing, self._direct
        self._is_writing = True
        while outgoing and self.writer is None:
            _, event, note = outgoing[0]
            if not self._steps or event["type"] == "websocket.close":
                self._continue()
                break
            del outgoing[0]
            try:
                # `note` is None for an event that isn't a frame.
                if direct is None or note is None or not direct.write(Frame(event), False):
                    self._step(event, note)
            except Exception as error:
                self._fail(error)
                return
            if self.writer is None:
                actions = self.state.written(event, note)
                if actions:
                    self.perform(actions)
        if self.writer is None:
            self._is_writing = False
            if self._finished:
                self._end()

    def _continue(self, suspended: Any = None, event: Any = None, note: Any = None) -> None:
        """Have a task write what waits, after an event that the server has not taken yet."""
        # Not by the loop's task factory. An eager one would run it now, and it might end before `writer` is
        # set, which would then never be None again.
        rest = self._write_on(suspended, event, note)
        self.writer = asyncio.Task(rest, loop=self.gateway.loop)

    async def _write_on(self, suspended: Any, event: Any, note: Any) -> None:
        try:
            if suspended is not None:
                await suspended
                self.perform(self.state.written(event, note))
            while self._outgoing:
                _, event, note = self._outgoing.pop(0)
                await self._give(event)
                actions = self.state.written(event, note)
                if actions:
                    self.perform(actions)
        except asyncio.CancelledError:  # an Exception until Python 3.7 goes
            self.writer = None
            if self.overdue is None:
                raise
            self._end()
        except Exception as error:
            self.writer = None
            self._fail(error)
        else:
            self.writer, self._is_writing = None, False
            if self._finished:
                self._end()

    def _fail(self, error: BaseException) -> None:
        """Write nothing more: the server refused an event, as it does when the client has gone."""
        self.error = error
        self._end()
        self.perform(self.state.cut_off())

    def _end(self) -> None:
        """Give the server its time to end the connection. Nothing more is written."""
        self._is_writing = True
        if not self._has_ended:
            self._has_ended = True
            if not self.is_gone:
                self._await_end()

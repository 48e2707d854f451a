"""
A connection: carries out the actions of one state, and writes to the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, Iterable

from ..log import shown
from .state import ABORT, COUNT, DISCARD, FINISH, LOG, SEND, SET_WILL, WRITE, Action

if TYPE_CHECKING:
    from .application import Gateway
    from .prepared import Frame
    from .turns import ClientKey, Lane

logger = logging.getLogger("django.channels.gateway")

#: Seconds that a server gets to end a connection that this side has closed.
CLOSE_TIMEOUT = 10.0

#: An empty set takes 200 bytes, and many sockets are in no group.
NO_GROUPS: frozenset[str] = frozenset()

#: ASGI 3's `send`.
ServerSend = Callable[[Dict[str, Any]], Awaitable[None]]


class Connection:
    """
    Carries out the actions of one state. What it writes waits here until the server takes it.

    Belongs to the event loop of its gateway.
    """

    __slots__ = (
        "channel",
        "client",
        "detached",
        "flight",
        "gateway",
        "groups",
        "is_gone",
        "lane",
        "overdue",
        "reader",
        "state",
        "tried_at",
        "wills",
        "writer",
        "_finished",
        "_is_aborted",
        "_outgoing",
        "_paused",
        "_pauses",
        "_send",
        "_wakeup",
        "__weakref__",
    )

    def __init__(self, gateway: Gateway, state: Any, send: ServerSend) -> None:
        self.channel: str = state.reply_channel
        self.gateway = gateway
        self.state = state
        #: A set as soon as it is in one.
        self.groups: Any = NO_GROUPS
        #: Whom its events count for (see turns.py).
        self.client: ClientKey = ("", state.reply_channel)
        #: Of the event in flight: its lane, its id, when it was sent, and whether no other was in flight.
        self.flight: tuple[Lane, int, float, bool] | None = None
        #: The lane of its last event, if that takes turns.
        self.lane: Lane | None = None
        #: When its last event was given to the inbox, on the clock of the loop; 0 if that has failed.
        self.tried_at = 0.0
        #: True once the client has gone. The gateway forgets the connection when its state is over.
        self.detached = False
        #: Whether the server has told that its client has gone.
        self.is_gone = False
        #: Of a WebSocket: the task that reads, and the one that writes while the server has it wait. The
        #: timer that ends the one that writes after the state has finished.
        self.reader: Any = None
        self.writer: Any = None
        self.overdue: Any = None
        #: The names under which the inbox keeps a last will of this connection.
        self.wills: tuple[str, ...] = ()
        self._send: Any = send
        self._outgoing: Any = deque()  # of actions; a response has another kind
        self._finished = False
        self._is_aborted = False
        self._wakeup: Any = None
        self._paused: Any = None
        self._pauses = 0

    def perform(self, actions: Iterable[Action]) -> None:
        """Carry out `actions`."""
        for action in actions:
            verb = action[0]
            if verb is WRITE:
                self._outgoing.append(action)
            elif verb is SEND:
                self.gateway.send_event(self, action[1], action[2])
            else:
                self._perform_rare(action)
        if self._wakeup is not None and (self._outgoing or self._finished):
            _wake(self._wakeup)
            self._wakeup = None
        if self._paused is not None and (self.state.reading or self._finished):
            _wake(self._paused)
            self._paused = None
            self._pauses += 1  # the reader goes on: it gets its time again
        if self.detached:
            self.gateway.forget(self)

    def _perform_rare(self, action: Action) -> None:
        """Carry out an action that most events don't ask for."""
        verb = action[0]
        if verb is SET_WILL:
            if action[1] not in self.wills:
                self.wills += (action[1],)
            self.gateway.inbox.set_will(action[1], action[2:])
        elif verb is COUNT:
            self.gateway.layer.count(action[1])
            if action[1] == "refused":
                self.gateway.events.rejected.count()
        elif verb is DISCARD:
            self._outgoing.clear()
        elif verb is LOG:
            write = getattr(logger, action[1])
            self.gateway.lines.log(action[2], write, action[2], *map(shown, action[3:]))
        elif verb is FINISH:
            self._finished = True
        elif verb is ABORT:
            self._is_aborted = True

    def take_group(self, message: dict[str, Any], frame: Frame | None) -> None:
        """Take a message to a group. `frame` is the same, if it is nothing but a frame."""
        self.perform(self.state.group(message))

    async def write(self) -> None:
        """Give the server what there is to write, until the state has finished."""
        while True:
            while self._outgoing:
                _, event, note = self._outgoing.popleft()
                if not isinstance(event, dict):
                    event = await event  # a part of a response that waits in a file
                await self._give(event)
                actions = self.state.written(event, note)
                if actions:
                    self.perform(actions)
            if self._finished:
                if self._is_aborted and hasattr(self._send, "cut"):
                    self._send.cut()  # others abort an unfinished response by themselves
                return
            self._wakeup = self.gateway.loop.create_future()
            await self._wakeup

    async def _give(self, event: dict[str, Any]) -> None:
        try:
            await self._send(event)
        except (OSError, asyncio.CancelledError):  # (an Exception on Python 3.7)
            raise  # the client has gone
        except Exception:
            # Daphne (autobahn) refuses the protocol's own close codes except 1000. It gets 4011 for 1011.
            if event["type"] != "websocket.close" or not 1000 < event["code"] < 2000:
                raise
            await self._send(dict(event, code=event["code"] + 3000))

    async def may_read(self) -> None:
        """Wait until the state wants more from the client. Meanwhile, the server must not read either."""
        if self.state.reading or self._finished:
            return
        state = self.state
        try:
            with getattr(self._send, "paused_reading", nullcontext)():
                while not state.reading and not self._finished:
                    self._paused = self.gateway.loop.create_future()
                    state.call_when_free(self._check_again)
                    await self._paused
        except BaseException:
            # Cancelled, or the transport is gone. The room that it was woken for is another's now.
            state.stop_waiting(self._check_again, is_leaving=True)
            raise
        else:
            state.stop_waiting(self._check_again)
        finally:
            self._paused = None

    def _check_again(self) -> None:
        """Let the reader check whether it may read. Other connections may have taken the room again."""
        if self._paused is not None:
            _wake(self._paused)
            self._pauses += 1


def _wake(future: Any) -> None:
    if not future.done():
        future.set_result(None)

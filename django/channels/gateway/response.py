"""
The connection of a request: what waits for a client that reads slowly is kept in a Backlog.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Iterable

from .backlog import Backlog
from .connection import CLOSE_TIMEOUT, Connection, ServerSend
from .state import ABORT, Action

if TYPE_CHECKING:
    from .application import Gateway


class ResponseConnection(Connection):
    """
    Carries out the actions of a Request. Lets the worker go on while there is room for what it sends.

    Belongs to the event loop of its gateway.
    """

    __slots__ = ("_task",)

    def __init__(self, gateway: Gateway, state: Any, send: ServerSend) -> None:
        super().__init__(gateway, state, send)
        self._outgoing = Backlog(gateway.responses, state.path, self._pay, self._cut, self._address)
        self._task: Any = None

    def _address(self) -> Any:
        return self.client[0]

    def perform(self, actions: Iterable[Action]) -> None:
        super().perform(actions)
        if self.state.owed:
            self._outgoing.is_stream = True
            if self.flight is not None:
                # A stream may stay for hours: other requests must not wait for its turn to end.
                self.gateway.events.landed(self)
            self._pay()

    def _pay(self) -> None:
        """Let the worker send more, if there is room."""
        state, backlog = self.state, self._outgoing
        backlog.awaited = False
        if state.owed:
            if self.gateway.responses.has_room(backlog, state.size):
                super().perform(state.credit())
            else:
                backlog.awaited = True

    def _cut(self) -> None:
        """End the connection of a client that is too slow."""
        self.perform(self.state.too_slow())
        if self._task is not None:
            self._task.cancel()

    def _perform_rare(self, action: Action) -> None:
        super()._perform_rare(action)
        if action[0] is ABORT:
            self._limit_write()

    def client_left(self) -> None:
        """Handle that the server has told of the client's end."""
        self.is_gone = True
        self.perform(self.state.gone())
        self._limit_write()

    def _limit_write(self) -> None:
        """Stop writing after CLOSE_TIMEOUT: the server waits for the client, which may never read."""
        if self._task is not None and self.overdue is None:
            self.overdue = self.gateway.loop.call_later(CLOSE_TIMEOUT, self._task.cancel)

    async def write(self) -> None:
        """Give the server what there is to write, until the state has finished or the client is too slow."""
        self._task = asyncio.current_task()
        try:
            await super().write()
        except asyncio.CancelledError:
            if self._is_aborted:
                self._break_off()
            elif not self.is_gone:
                raise
        except RuntimeError:
            # uvicorn doesn't tell pipelined requests that their client has gone, and uvloop then raises.
            if not self._is_closed():
                raise
        finally:
            self._task = None
            if self.overdue is not None:
                self.overdue.cancel()
            self.gateway.responses.close(self._outgoing)

    def _break_off(self) -> None:
        """Close the connection at once. What its client hasn't read would keep it open."""
        if hasattr(self._send, "cut"):
            self._send.cut(at_once=True)
            return
        # Uvicorn closes a connection only when everything is written.
        if hasattr(self._transport, "abort"):
            self._transport.abort()

    def _is_closed(self) -> bool:
        """Return whether the connection to the client has ended, if the server is uvicorn."""
        return hasattr(self._transport, "is_closing") and bool(self._transport.is_closing())

    @property
    def _transport(self) -> Any:
        """The transport of uvicorn, or None."""
        return getattr(getattr(self._send, "__self__", None), "transport", None)

"""
Flow control: tell a consumer that awaits its sends which frames the server has written. No I/O, no clock.
"""

from __future__ import annotations

from typing import Any

from .. import protocol
from .state import SEND, WRITE, Action

#: Units (see `protocol.window_units`) of which one notice tells.
OWED_BATCH = 8


class SocketWindow:
    """
    The window of one socket. `name` is the channel that is told, or None while no consumer awaits its sends.

    Belongs to the event loop of its gateway.
    """

    __slots__ = ("name", "owed")

    def __init__(self) -> None:
        self.name: str | None = None
        #: Units that were written, and that the consumer has not been told of.
        self.owed = 0

    def open(self, name: str) -> None:
        """Tell the channel `name` from now on."""
        if name != self.name:
            self.name, self.owed = name, 0

    def mark(self, actions: list[Action]) -> list[Action]:
        """Return `actions` with the window as the note of each frame."""
        return [
            (WRITE, action[1], self.name)
            if action[0] is WRITE and action[2] is not None
            else action
            for action in actions
        ]

    def written(self, name: str, event: dict[str, Any]) -> list[Action]:
        """Handle that a frame of the window `name` was written."""
        if name != self.name:
            return []
        self.owed += protocol.window_units(event)
        if self.owed < OWED_BATCH:
            return []
        owed, self.owed = self.owed, 0
        return [(SEND, name, protocol.written(owed))]

    def end(self) -> list[Action]:
        """Tell the consumer, if there is one, that nothing is written any more."""
        name, self.name = self.name, None
        return [] if name is None else [(SEND, name, protocol.closed())]

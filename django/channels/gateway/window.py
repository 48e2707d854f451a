"""
Flow control: tell a consumer that awaits its sends which frames the server has written. No I/O, no clock.
"""

from __future__ import annotations

from typing import Any

from .. import protocol
from .state import SEND, SET_WILL, WRITE, Action

#: Units (see `protocol.window_units`) of which one notice tells.
OWED_BATCH = 8


class SocketWindow:
    """
    The window of one socket. `name` is the channel that is told, or None while no consumer awaits its sends.

    Belongs to the event loop of its gateway.
    """

    __slots__ = ("name", "owed", "_has_will", "_will")

    def __init__(self, reply_channel: str) -> None:
        self.name: str | None = None
        #: The name of its last will, the same for each window of the socket, so that one replaces the other.
        self._will = reply_channel + ".window"
        self._has_will = False
        #: Units that were written, and that the consumer has not been told of.
        self.owed = 0

    def open(self, name: str) -> list[Action]:
        """
        Tell the channel `name` from now on. From the second message of the same consumer on, it is also told
        if this gateway is lost. (Most consumers send only one, and should not pay for that.)
        """
        if name != self.name:
            self.name, self.owed, self._has_will = name, 0, False
            return []
        if self._has_will:
            return []
        self._has_will = True
        return [(SET_WILL, self._will, name, protocol.closed())]

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

"""
What the states of both protocols share: the actions they ask for, and one event in flight at a time.

A connection's event (its connect, a frame, its end) is sent to a worker. The next event is not sent before
the worker has acknowledged this one; until then it is *in flight*. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Any, Callable, Tuple

from ..protocol import EVENT_ID, REPLY_CHANNEL, SESSION, apply_patch

#: What a state asks its connection to do: a tuple that begins with one of the constants below.
Action = Tuple[Any, ...]

SEND = "send"  # (SEND, channel, message): send it through the layer
WRITE = "write"  # (WRITE, event, note): give this ASGI 3 event to the server, then call written(event, note)
DISCARD = "discard"  # (DISCARD,): forget what is not written yet
FINISH = "finish"  # (FINISH,): nothing more will be written, and the connection can end
ABORT = (
    "abort"  # (ABORT,): end the connection so that the client sees that the response is incomplete
)
SET_WILL = (
    "set will"  # (SET_WILL, name, channel, message): if this gateway is lost, the layer sends that
)
COUNT = "count"  # (COUNT, name): add one to a counter of the layer
LOG = "log"  # (LOG, "warning" or "error", text, *values): log a line, each value cut and escaped


class ConnectionState:
    """
    The event of one connection that is in flight, and the session that travels with each event.

    Belongs to the event loop of its gateway.
    """

    def __init__(self, reply_channel: str, path: str) -> None:
        self.reply_channel = reply_channel
        self.path = path
        self.session: dict[str, Any] = {}
        #: The prefix of the site's URLs, which each event has if it isn't empty.
        self.root_path = ""
        #: Channels that only this connection sends to. They go with it, and whatever waits on them.
        self.channels: tuple[str, ...] = ()
        #: The id of the event in flight, or None.
        self.in_flight: int | None = None
        #: Whether a worker has told that it runs an event of this connection. A request has only one that
        #: tells it.
        self.has_begun = False

    def event(self, channel: str, event_id: int, message: dict[str, Any]) -> Action:
        """Return the action that sends an event. It is in flight from now on."""
        self.in_flight = event_id
        message[REPLY_CHANNEL] = self.reply_channel
        message[EVENT_ID] = event_id
        if "root_path" in message:  # the first event of a connection describes it
            self.root_path = message["root_path"]
        elif self.root_path:
            message["root_path"] = self.root_path
        if self.session:
            message[SESSION] = self.session.copy()
        return (SEND, channel, message)

    def will(self, channel: str, message: dict[str, Any]) -> Action:
        """
        Return the action that has the layer send `message`, which tells the end of this connection, if its
        gateway is lost.
        """
        message.update({REPLY_CHANNEL: self.reply_channel, "path": self.path})
        if self.root_path:
            message["root_path"] = self.root_path
        if self.session:
            message[SESSION] = self.session.copy()
        return (SET_WILL, self.reply_channel, channel, message)

    def begun(self) -> list[Action]:
        """Handle that a worker has run the event in flight for a while, and runs it for longer."""
        self.has_begun = True
        return []

    def unreachable(self, was_sent: bool = True) -> list[Action]:
        """
        Handle that the layer has been unavailable for a while, so that the answer to an event does not come.
        `was_sent` tells whether the event may have reached a worker.
        """
        return []

    def silent(self) -> list[Action]:
        """Handle that nothing has come from the client for too long."""
        return []

    def call_when_free(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` when there may be room that other connections take now."""

    def stop_waiting(self, callback: Callable[[], Any], is_leaving: bool = False) -> None:
        """Forget a callback of `call_when_free`. With `is_leaving`, others may have the room at once."""

    def release(self) -> None:
        """Give back what the connection takes of the room that it shares: its gateway forgets it."""

    def merge(self, patch: Any) -> bool:
        """Apply what a consumer changed in the session. Return False if `patch` is None."""
        return apply_patch(self.session, patch)

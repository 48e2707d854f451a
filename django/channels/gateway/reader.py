"""
The reader: takes everything that comes out of the gateway's inbox to the connection it is for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from ..exceptions import LayerUnavailable
from ..layers.names import check_group_name
from ..protocol import (
    EXCLUDE,
    GROUP,
    GROUP_ADD,
    GROUP_DISCARD,
    GROUP_MESSAGE,
    OVER_SHARE,
    RESET,
    RUNNING,
)
from .connection import NO_GROUPS
from .prepared import Frame

if TYPE_CHECKING:
    from ..layers.base import Inbox
    from ..log import Reachability
    from .connection import Connection
    from .sender import EventSender

logger = logging.getLogger("django.channels.gateway")

#: Messages handled in one go, before other tasks get their turn. One to a group counts for each member.
BATCH_SIZE = 256

#: Seconds between two attempts to reach a layer that is unavailable, at first and at most.
RECONNECT_INTERVAL, MAX_RECONNECT_INTERVAL = 0.1, 2.0


#: Seconds for which a request whose answer is awaited outlives an outage of the layer; and between two looks
#: at them while the layer is silent.
ANSWER_TIMEOUT, GIVE_UP_INTERVAL = 3.0, 0.5


class InboxReader:
    """
    Reads one gateway's inbox, and knows which of its connections are in which group.

    Belongs to the gateway's event loop.
    """

    def __init__(
        self,
        name: str,
        inbox: Inbox,
        connections: dict[str, Connection],
        events: EventSender,
        reachability: Reachability,
    ) -> None:
        self.name = name
        self.reachability = reachability
        self.inbox = inbox
        self.connections = connections  # by reply channel; shared with the gateway
        self.events = events
        self.groups: dict[str, dict[Connection, None]] = {}  # the members of each, in order

    async def run(self) -> None:
        """Read until cancelled. An error of the inbox, or of one message, is logged and does not end it."""
        interval = RECONNECT_INTERVAL
        while True:
            began = time.monotonic()
            try:
                messages = await self._receive()
            except asyncio.CancelledError:  # an Exception until Python 3.7 goes
                raise
            except Exception as error:
                if isinstance(error, LayerUnavailable):
                    self.reachability.failed(error, began)
                else:
                    logger.exception(
                        "The gateway's inbox could not be read; trying again in %.1f s:", interval
                    )
                self._give_up_requests()
                await asyncio.sleep(interval)
                interval = min(interval * 2, MAX_RECONNECT_INTERVAL)
                continue
            interval = RECONNECT_INTERVAL
            work = 0
            for channel, message in messages:
                try:
                    work += self.handle(channel, message)
                except Exception:
                    logger.exception("A message on %s could not be handled:", channel)
                if work >= BATCH_SIZE:
                    work = 0
                    await asyncio.sleep(0)

    async def _receive(self) -> list[tuple[str, dict[str, Any]]]:
        """
        Return what the inbox receives. In an outage, a try can take as long as a silent server is given for
        its answer: what waits is given up meanwhile.
        """
        if self.inbox.failing_since is None:
            return await self.inbox.receive()
        receiving = asyncio.ensure_future(self.inbox.receive())
        try:
            while not (await asyncio.wait([receiving], timeout=GIVE_UP_INTERVAL))[0]:
                if self.inbox.failing_since is not None:
                    self._give_up_requests()
        finally:
            receiving.cancel()  # nothing, if it is done
        return receiving.result()

    def _give_up_requests(self) -> None:
        """Answer the requests in flight if the layer has been unavailable for ANSWER_TIMEOUT."""
        since = self.inbox.failing_since or self.inbox.unsent_since
        if since is not None and time.monotonic() - since > ANSWER_TIMEOUT:
            self.inbox.withdraw()
            held = self.events.held()
            for connection in list(self.connections.values()):
                was_sent = connection.flight is not None and connection not in held
                if connection.state.has_begun:
                    was_sent = True
                elif was_sent and self.events.is_tried(connection):
                    continue  # soon it is known whether the layer has it
                connection.perform(connection.state.unreachable(was_sent))

    def handle(self, channel: str, message: dict[str, Any]) -> int:
        """
        Handle one message: a reply, a message to a group, or a notice of the layer. Return for how many
        connections it was.
        """
        if channel == self.name:
            if GROUP in message:
                return self._handle_group(
                    message[GROUP], message[GROUP_MESSAGE], message.get(EXCLUDE)
                )
            if RESET in message:
                self._reset(message[RESET])
            return 1
        connection = self.connections.get(channel)
        if OVER_SHARE in message or (connection is not None and self.events.holds):
            self.events.told_of_share(connection, message)
        if GROUP_ADD in message:
            # A damaged name would fail the batch in which the gateway leaves the group.
            group = check_group_name(message[GROUP_ADD])
            if connection is None or connection.detached:
                self.inbox.group_discard(group, channel)
            else:
                connection.groups = connection.groups or set()
                connection.groups.add(group)
                self.groups.setdefault(group, {})[connection] = None
        elif GROUP_DISCARD in message:
            group = check_group_name(message[GROUP_DISCARD])
            if connection is not None:
                if connection.groups:
                    connection.groups.discard(group)
                self._leave(group, connection)
        elif RUNNING in message:
            if connection is not None and connection.flight is not None:
                if connection.flight[1] == message[RUNNING]:
                    self.events.landed(connection, message)
                    connection.perform(connection.state.begun())
        elif connection is not None:
            state, flight = connection.state, connection.flight
            actions = state.reply(message)
            if flight is not None and state.in_flight != flight[1]:
                self.events.landed(connection, message)
            connection.perform(actions)
        return 1

    def _handle_group(self, group: str, message: dict[str, Any], exclude: str | None) -> int:
        members = list(self.groups.get(group, ()))
        if exclude is not None:
            members = [each for each in members if each.channel != exclude]
        frame = Frame.of(message)
        for member in members:
            try:
                member.take_group(message, frame)
            except Exception:
                logger.exception("A message to a group could not be handled on %s:", member.channel)
        return len(members) or 1

    def leave_all(self, connection: Connection) -> None:
        """Remove a connection from its groups, here and in the layer."""
        for group in connection.groups:
            self._leave(group, connection)
            self.inbox.group_discard(group, connection.channel)
        connection.groups = NO_GROUPS

    def _leave(self, group: str, connection: Connection) -> None:
        members = self.groups.get(group)
        if members is not None:
            members.pop(connection, None)
            if not members:
                del self.groups[group]

    def _reset(self, ended: Any) -> None:
        """Begin anew. `ended` is what `protocol.reset` was given, or True."""
        told = frozenset(() if ended is True else ended)
        logger.warning(
            "The channel layer lost its data: closing %d connections.", len(self.connections)
        )
        resets = []
        # First all states: an event that waits is not sent in place of another one that has ended.
        for connection in list(self.connections.values()):
            connection.groups = NO_GROUPS
            resets.append((connection, connection.state.reset(connection.channel in told)))
        for connection, actions in resets:
            if connection.flight is not None:
                self.events.landed(connection)
            connection.perform(actions)
        self.groups.clear()

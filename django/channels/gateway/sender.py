"""
The sender: sends events to the workers, in turn for each client, and tries again what the layer refuses.

While workers are behind, events wait here for their turn (turns.py): frames as long as it takes, because
their socket isn't read meanwhile, requests and handshakes for a bounded time.

An event that finds its channel full, or the layer unavailable, waits here. The disconnect of a connection
is always delivered, however late. Any other event is given up after SEND_TIMEOUT, and its client gets a
503 or 1013; but an open socket outlives an outage of the layer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Dict, Tuple

from ..exceptions import LayerUnavailable, NotSent
from ..log import shown
from ..protocol import (
    ACK,
    COUNTS_FOR,
    DISCONNECT_CHANNELS,
    EVENT_ID,
    HTTP_REQUEST,
    MAYBE,
    RAN,
    REDELIVERED,
    RUNNING,
    TURN_CHANNELS,
    WEBSOCKET_CONNECT,
    WEBSOCKET_RECEIVE,
)
from .held import told_by
from .rejected import RejectedClients, WaitingLimits
from .turns import HANDSHAKE_STALL_TIMEOUT, PAUSE, Lane, Waiting, cost_of
from .untaken import UntakenWatch

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer, Inbox
    from .connection import Connection
    from .limits import Limits

logger = logging.getLogger("django.channels.gateway")

#: Seconds for which an event waits for room on a full channel before its client is rejected. Daphne gives
#: up a handshake after 5 seconds (--websocket_connect_timeout), without an answer.
SEND_TIMEOUT = 3.0

#: Seconds for which a handshake waits for room at least, if it has waited for its turn before.
MIN_SEND_TIMEOUT = 1.0

#: The deadline of an event that waits as long as the layer is unavailable.
NEVER = float("inf")

#: Seconds between two attempts while channels are full, at first and at most.
RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.005, 0.1

#: Seconds without a refusal after which the interval is short again.
RETRY_RESET_AFTER = 1.0

#: Seconds between two checks for events that have waited too long for their turn.
TURN_CHECK_INTERVAL = 0.25

#: Seconds within which the layer usually has taken or refused an event.
TRY_TIMEOUT = 3.0

#: Events of one channel that are tried again at a time.
RETRY_BATCH = 100

#: (deadline, connection, message) of a refused event.
_Refused = Tuple[float, Any, Dict[str, Any]]


def _is_due(connection: Connection, channel: str, message: dict[str, Any]) -> bool:
    """
    Return whether an event that has waited here is still to be sent. It isn't if its connection was reset or
    forgotten meanwhile: no acknowledgement would come to it. A disconnect always is.
    """
    return channel in DISCONNECT_CHANNELS or connection.state.in_flight == message[EVENT_ID]


class EventSender:
    """
    Sends events and parts of bodies through the inbox of one gateway.

    Belongs to the gateway's event loop.
    """

    def __init__(
        self,
        layer: BaseChannelLayer,
        inbox: Inbox,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
    ) -> None:
        self._layer = layer
        self._limits = WaitingLimits(layer, limits)
        # Of frames, no more than the channel takes: the layer would refuse one, and its socket be closed.
        # Here they can wait, because their sockets are not read meanwhile.
        frames = layer.capacities[WEBSOCKET_RECEIVE]
        self._lanes = {channel: Lane(channel) for channel in TURN_CHANNELS}
        self._lanes[WEBSOCKET_RECEIVE] = Lane(WEBSOCKET_RECEIVE, frames)
        self._lanes[WEBSOCKET_CONNECT].stall_timeout = HANDSHAKE_STALL_TIMEOUT
        #: Whether an address is held.
        self.holds = False
        self._turn_timer: Any = None
        self._untaken: UntakenWatch | None = None
        if layer.crosses_processes:
            self._untaken = UntakenWatch(layer, loop, self._lanes.values())
        self._inbox = inbox
        self._loop = loop
        self._refused: dict[str, deque[_Refused]] = {}  # by channel, the next to try first
        self._retry_task: Any = None
        self._retried_at, self._retry_interval = 0.0, RETRY_INTERVAL
        self.rejected = RejectedClients(layer, loop)

    def send(self, connection: Connection, channel: str, message: dict[str, Any]) -> None:
        """Send one event, or one part of a body, of a connection."""
        now = self._loop.time()
        lane = self._lanes.get(channel)
        if lane is not None:
            connection.lane, address = lane, connection.client[0]
            if address:
                message[COUNTS_FOR] = address
            if not lane.in_flight and now - lane.landed_at > PAUSE:
                lane.begin()
            if lane.in_flight >= lane.limit or lane.waiting.size or lane.held:
                entry = self._wait(lane, connection, message, now)
                self._fill(lane)  # if only the events of other addresses are held
                if entry is not None and entry.connection is not None:
                    expiry = self._layer.expiries[HTTP_REQUEST]
                    lane.set_deadline(entry, now, SEND_TIMEOUT if entry.is_over else expiry)
                return
            self._depart(lane, connection, message, now)
        elif channel in DISCONNECT_CHANNELS:
            connection.lane = None  # what is told of this event says nothing of shares
        deadline = now + SEND_TIMEOUT
        refused = self._refused.get(channel)
        if refused and EVENT_ID in message:
            refused.append((deadline, connection, message))
        else:
            self._send(connection, channel, message, deadline)

    # Turns.

    def _depart(
        self, lane: Lane, connection: Connection, message: dict[str, Any], now: float
    ) -> None:
        """Note that an event is in flight from now on."""
        connection.flight = (lane, message[EVENT_ID], now, not lane.in_flight)
        lane.in_flight += 1
        if self._untaken is not None and self._untaken.timer is None:
            self._untaken.start()

    def landed(self, connection: Connection, message: dict[str, Any] | None = None) -> None:
        """
        Note that the event of `connection` doesn't wait for a worker any more, and send others. `message` is
        the one that acknowledged it, or told that it runs, if one did.
        """
        flight, connection.flight = connection.flight, None
        if flight is None:
            return
        lane = flight[0]
        lane.acks += 1
        # While nothing waits here, a quarter of the events is enough to learn from.
        if lane.waiting.size or lane.acks & 3 == 0:
            if message is not None and (ACK in message or RUNNING in message):
                now, ran = self._loop.time(), message.get(RAN, 0)
                lane.learn(now, flight[2], ran, flight[3], RUNNING in message)
        lane.in_flight -= 1
        if lane.waiting.size:
            self._fill(lane)

    def told_of_share(self, connection: Connection | None, message: dict[str, Any]) -> None:
        """Hold the next events of an address, or send them, if `message` tells something of its share."""
        told = told_by(message, connection)
        if told is None:
            return
        lane = (connection and connection.lane) or self._lanes[HTTP_REQUEST]
        if lane.held.note(told, self._loop.time()):
            self._layer.count("clients_held")
            self._check_turns_soon()
        self.holds = any(each.held for each in self._lanes.values())
        self._fill(lane)

    def _fill(self, lane: Lane) -> None:
        """Send the events whose turn it is, while more of them may be in flight."""
        while lane.in_flight < lane.limit and lane.waiting.has_next:
            self._send_next(lane)

    def _send_next(self, lane: Lane) -> None:
        """Send the event whose turn it is, but none that was refused or isn't due any more."""
        while lane.waiting.has_next:
            entry: Waiting = lane.waiting.pop()[1]
            connection, message = entry.take()
            if connection is None:
                lane.refused -= 1
                continue
            if not _is_due(connection, lane.channel, message):
                continue
            now = self._loop.time()
            self._depart(lane, connection, message, now)
            if lane.held:
                lane.held.sent(connection.client[0])
            deadline = now + SEND_TIMEOUT
            if lane.channel == WEBSOCKET_CONNECT:
                # A server may give up a handshake five seconds after it came.
                deadline = max(entry.since + SEND_TIMEOUT, now + MIN_SEND_TIMEOUT)
            refused = self._refused.get(lane.channel)
            if refused:
                refused.append((deadline, connection, message))
            else:
                self._send(connection, lane.channel, message, deadline)
            return

    def _wait(
        self, lane: Lane, connection: Connection, message: dict[str, Any], now: float
    ) -> Waiting | None:
        """Let an event wait for its turn, or refuse it. Return what waits, if not for as long as it takes."""
        entry = Waiting(connection, message, now)
        if lane.channel != WEBSOCKET_RECEIVE:
            if self._limits.are_exceeded(lane, *connection.client):
                connection.perform(connection.state.refused(lane.channel))
                return None
            capacity = self._layer.capacities[lane.channel]
            entry.is_over = lane.is_over(capacity, connection.client[0])
        if not lane.waiting.size:
            lane.landed_at = now
        lane.waiting.push(connection.client, cost_of(message), entry)
        self._check_turns_soon()
        return None if lane.channel == WEBSOCKET_RECEIVE else entry

    def _check_turns_soon(self) -> None:
        if self._turn_timer is None:
            self._turn_timer = self._loop.call_later(TURN_CHECK_INTERVAL, self.check_turns)

    def check_turns(self) -> None:
        """
        Refuse the requests and handshakes that have waited too long for their turn. Send one more event where
        nothing was acknowledged for the lane's `stall_timeout`.
        """
        now, remain = self._loop.time(), False
        for lane in self._lanes.values():
            self._refuse_waiting(lane, now)
            if lane.held:
                lane.held.probe(now)
                self._fill(lane)
            remain = remain or any(lane.deadlines.values())
            if lane.waiting.size and now - lane.landed_at > lane.stall_timeout:
                lane.landed_at = now
                self._send_next(lane)
            remain = remain or len(lane.waiting) > 0
        self._turn_timer = None
        self.holds = any(lane.held for lane in self._lanes.values())
        if remain or self.holds:
            self._check_turns_soon()

    def _refuse_waiting(self, lane: Lane, now: float, longest: float = NEVER) -> None:
        """
        Refuse what waits in `lane` past its deadline, or for more than `longest` seconds. An event that came
        while as many were pending as the channel takes stays, if it would have found room since.
        """
        capacity, expiry = self._layer.capacities[lane.channel], self._layer.expiries[HTTP_REQUEST]
        for entries in list(lane.deadlines.values()):
            while entries and (
                entries[0].connection is None
                or entries[0].deadline < now
                or entries[0].since < now - longest
            ):
                entry = entries.popleft()
                if entry.connection is None:
                    continue
                if entry.is_over and entry.since >= now - longest and lane.pending <= capacity:
                    entry.is_over = False
                    lane.set_deadline(entry, now, expiry - SEND_TIMEOUT)
                    continue
                lane.refused += 1
                connection, message = entry.take()
                if _is_due(connection, lane.channel, message):
                    connection.perform(connection.state.refused(lane.channel))

    # The layer.

    def _refuse(self, connection: Connection, channel: str, was_sent: bool = False) -> None:
        """Tell a connection that its event, or a part of a body, was not sent, or may not have been."""
        if was_sent and channel == HTTP_REQUEST:
            actions = connection.state.unreachable()
        else:
            actions = connection.state.refused(channel)
        if connection.flight is not None and connection.flight[0].channel == channel:
            self.landed(connection)
        connection.perform(actions)

    def _send(
        self, connection: Connection, channel: str, message: dict[str, Any], deadline: float
    ) -> None:
        connection.tried_at = self._loop.time()
        self._inbox.send(
            channel, message, partial(self._not_sent, connection, channel, message, deadline)
        )

    def _not_sent(
        self,
        connection: Connection,
        channel: str,
        message: dict[str, Any],
        deadline: float,
        error: Exception,
    ) -> None:
        """Let an event wait for a while. Of a body or a window no part may be missing, so that one fails."""
        is_unavailable = isinstance(error, LayerUnavailable)
        connection.tried_at = 0.0
        if EVENT_ID not in message:
            self._refuse(connection, channel)
        elif not _is_due(connection, channel, message):
            return
        elif is_unavailable or isinstance(error, self._layer.ChannelFull):
            if is_unavailable and not isinstance(error, NotSent):
                # The layer may have taken it all the same.
                message[REDELIVERED] = MAYBE
            if channel == WEBSOCKET_RECEIVE:
                # An open socket outlives an outage; only a layer that is there and full closes it.
                if is_unavailable:
                    deadline = NEVER
                elif deadline == NEVER:
                    deadline = self._loop.time() + SEND_TIMEOUT
            self._refused.setdefault(channel, deque()).append((deadline, connection, message))
            if self._retry_task is None or self._retry_task.done():
                self._retry_task = self._loop.create_task(self._retry())
        else:
            logger.error("An event of %s was not sent: %s", shown(connection.state.path), error)
            self._refuse(connection, channel)

    async def _retry(self) -> None:
        """While channels are full: try a few events again, and reject clients that have waited too long."""
        if self._loop.time() > self._retried_at + RETRY_RESET_AFTER:
            self._retry_interval = RETRY_INTERVAL
        while self._refused:
            await asyncio.sleep(self._retry_interval)
            self._retry_interval = min(self._retry_interval * 1.5, MAX_RETRY_INTERVAL)
            now = self._retried_at = self._loop.time()
            for channel, refused in list(self._refused.items()):
                again = [refused.popleft() for _ in range(min(RETRY_BATCH, len(refused)))]
                while refused and refused[0][0] < now:
                    again.append(refused.popleft())
                if not refused:
                    del self._refused[channel]
                for each in again:
                    self._try_again(channel, now, *each)
        self._retry_task = None

    def _try_again(
        self,
        channel: str,
        now: float,
        deadline: float,
        connection: Connection,
        message: dict[str, Any],
    ) -> None:
        try:
            if not _is_due(connection, channel, message):
                return
            if deadline < now and channel not in DISCONNECT_CHANNELS:
                if channel in self._lanes:
                    # Those that have waited about as long for their turn wouldn't find room, either.
                    self._refuse_waiting(
                        self._lanes[channel], now, SEND_TIMEOUT - TURN_CHECK_INTERVAL
                    )
                self._refuse(connection, channel, REDELIVERED in message)
            else:
                self._send(connection, channel, message, deadline)
        except Exception:
            logger.exception(
                "An event of %s could not be sent again:", shown(connection.state.path)
            )

    def is_tried(self, connection: Connection) -> bool:
        """Return whether the event of `connection` is on its way: the layer is about to take or refuse it."""
        return self._loop.time() - connection.tried_at < TRY_TIMEOUT

    def held(self) -> set[Connection]:
        """Return the connections whose event waits here, and has never reached the layer."""
        return {
            connection
            for refused in self._refused.values()
            for _, connection, message in refused
            if REDELIVERED not in message
        }

    def close(self) -> None:
        """Stop trying again, and stop the timers."""
        if self._untaken is not None:
            self._untaken.close()
        self.rejected.close()
        for task in (self._retry_task, self._turn_timer):
            if task is not None:
                task.cancel()

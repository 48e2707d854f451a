"""
The gateway's I/O: an ASGI 3 application over a layer's inbox, in one event loop.

Each connection is a state (websocket.py, http.py) and what carries out its actions. Events go out
through the inbox's `send`; everything comes back through its `receive`, in one task, `_pump`.
"""

import asyncio
import atexit
import logging
import random
import string
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ..exceptions import LayerUnavailable
from ..log import visible
from ..protocol import GATEWAY_PREFIX
from . import websocket
from .daphne import with_flow_control
from .exchanges import COUNT, CUT, DISPATCH, DROP, FINISH, HOLD, LOG, WRITE
from .http import Request
from .scopes import connect_message, request_message
from .websocket import WebSocket

logger = logging.getLogger("django.channels.gateway")

#: Seconds for which an event waits for room on a full channel before its client is turned away. Daphne
#: gives up a handshake after 5 seconds (--websocket_connect_timeout), without an answer.
PATIENCE = 3.0

#: The deadline of what waits as long as the layer is away.
NEVER = float("inf")

#: Seconds between two lines in the log about clients that were turned away.
LOG_EVERY = 1.0

#: Seconds in which somebody has to accept or deny a WebSocket.
ACCEPT_TIMEOUT = 30.0

#: Seconds that a server gets to end a connection which this side has closed.
CLOSE_TIMEOUT = 10.0

#: Seconds that events under way get when the server shuts down.
SHUTDOWN_GRACE = 10.0

#: Bytes of a request's body that go into one message at the most.
BODY_PART = 256 * 1024

#: Messages taken from the inbox before the connections' writers get their turn.
TURN = 256

#: Seconds between two tries to reach a layer that is away, at the most.
MAX_PAUSE = 2.0

#: Seconds between two tries while channels are full, at first and at most.
RETRY_FIRST, RETRY_MOST = 0.005, 0.1

#: Events that are tried again at a time while their channel is full.
RETRY_BATCH = 100

_random = random.SystemRandom()


class Gateway:
    """
    The gateway of one event loop. Made in a running loop; as an application it serves the protocols
    "http", "websocket" and "lifespan".
    """

    def __init__(self, layer):
        self.layer = layer
        self.loop = asyncio.get_event_loop()
        token = "".join(_random.choice(string.ascii_letters + string.digits) for _ in range(12))
        self.name = GATEWAY_PREFIX + token + "!"
        self._workers = None
        if not layer.crosses_processes and layer.threads:
            from ..worker import WorkerGroup

            # First: where the site's routing is wrong, nothing is left behind.
            self._workers = WorkerGroup(layer, threads=layer.threads, drain=True)
            # In a thread: receivers of worker_ready may use the database, and Django lets nobody do
            # so where an event loop runs.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._workers.start).result()
            atexit.register(self._at_exit)
        self.inbox = layer.open_inbox(self.name)
        self.connections = {}  # by reply channel
        self.groups = {}  # group to {connection: None}
        self._number = 0
        self._refused = {}  # channel to a deque of (deadline, connection, message)
        self._retrying = None
        self._retried_at, self._retry_pause = 0.0, RETRY_FIRST
        self._turned_away = 0
        self._telling = None
        self._pumping = self.loop.create_task(self._pump())

    @property
    def stopped(self):
        return self._pumping.done()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise ValueError(
                "The gateway serves http, websocket and lifespan, not %r." % scope["type"]
            )

    # The protocols.

    async def _lifespan(self, receive, send):
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope, receive, send):
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        connection = self._open(Request, scope["path"], send)
        message = request_message(scope)
        body, more = event.get("body", b""), event.get("more_body", False)
        message["body"] = body[:BODY_PART]
        rest = body[BODY_PART:]
        connection.perform(
            connection.state.request(
                message, more or bool(rest), lambda: self.layer.new_channel("http.request.body?")
            )
        )
        reader = self.loop.create_task(self._read_request(connection, receive, rest, more))
        try:
            await connection.write()
        except OSError:
            pass  # the client has gone; the state is told below
        finally:
            reader.cancel()
            connection.perform(connection.state.gone())
            self._detach(connection)

    async def _read_request(self, connection, receive, rest, more):
        """The rest of the body, as far as its reader keeps up, and then the client's going."""
        state = connection.state
        while True:
            while rest:
                await connection.may_read()
                part, rest = rest[:BODY_PART], rest[BODY_PART:]
                connection.perform(state.body(part, more or bool(rest)))
            if more:
                await connection.may_read()
            event = await receive()
            if event["type"] == "http.disconnect":
                connection.perform(state.gone())
                return
            if not more:
                continue
            rest, more = event.get("body", b""), event.get("more_body", False)
            if not rest:
                connection.perform(state.body(b"", more))

    async def _websocket(self, scope, receive, send):
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        connection = self._open(WebSocket, scope["path"], send)
        state = connection.state
        connection.perform([state.farewell()])
        connection.perform(state.connect(connect_message(scope)))
        connection.reader = asyncio.ensure_future(self._read_frames(connection, receive))
        writer = connection.writer = self.loop.create_task(connection.write())
        deadline = self.loop.call_later(ACCEPT_TIMEOUT, lambda: connection.perform(state.timeout()))
        try:
            # The reader ends when the client has gone; a writer that ends first has closed the
            # socket, or has failed since the client has gone.
            await asyncio.wait({connection.reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if not connection.reader.done():
                await asyncio.wait({connection.reader}, timeout=CLOSE_TIMEOUT)
        finally:
            deadline.cancel()
            client_has_gone = connection.reader.done()
            connection.writer = None
            if connection.overdue is not None:
                connection.overdue.cancel()
            for task in (connection.reader, writer):
                task.cancel()
            connection.perform(state.gone(websocket.GONE))
            self._detach(connection)
            if writer.done() and not writer.cancelled():
                # Servers raise an OSError, or what they like, once the client has gone.
                error = writer.exception()
                if error is not None and not client_has_gone:
                    text = "What was written to the WebSocket %s was refused by the server:"
                    logger.error(text, visible(state.path), exc_info=error)

    async def _read_frames(self, connection, receive):
        state = connection.state
        while True:
            if not state.reading:
                await connection.may_read()
            event = await receive()
            if event["type"] == "websocket.receive":
                connection.perform(state.frame(event.get("text"), event.get("bytes")))
            elif event["type"] == "websocket.disconnect":
                connection.perform(state.gone(event.get("code") or websocket.GONE))
                return

    # Connections.

    def _open(self, state_class, path, send):
        self._number += 1
        channel = "%s%d" % (self.name, self._number)
        connection = Connection(self, state_class(channel, path), with_flow_control(send))
        self.connections[channel] = connection
        return connection

    def _detach(self, connection):
        """Its client is gone: it leaves its groups, and stays known only while its events are under way."""
        connection.detached = True
        for group in connection.groups:
            self._leave(group, connection)
            self.inbox.group_discard(group, connection.channel)
        connection.groups.clear()
        self._forget(connection)

    def _forget(self, connection):
        if connection.detached and connection.state.over:
            if self.connections.pop(connection.channel, None) is not None:
                for name in connection.holds:
                    self.inbox.clear_will(name)

    def _leave(self, group, connection):
        members = self.groups.get(group)
        if members is not None:
            members.pop(connection, None)
            if not members:
                del self.groups[group]

    # What goes out.

    def dispatch(self, connection, channel, message):
        """Send one event, or one part of a body, of a connection."""
        refused = self._refused.get(channel)
        if refused and "exchange" in message:
            refused.append((self.loop.time() + PATIENCE, connection, message))
        else:
            self._send(connection, channel, message, self.loop.time() + PATIENCE)

    def _send(self, connection, channel, message, deadline):
        self.inbox.send(
            channel, message, partial(self._not_sent, connection, channel, message, deadline)
        )

    def _not_sent(self, connection, channel, message, deadline, error):
        """An event waits its turn for a while; of a body or a window nothing can be left out."""
        if "exchange" not in message:
            connection.perform(connection.state.full(channel))
        elif isinstance(error, (self.layer.ChannelFull, LayerUnavailable)):
            if isinstance(error, LayerUnavailable):
                # Nobody knows whether it was taken.
                message["redelivered"] = "maybe"
            if channel == "websocket.receive":
                # An open socket outlives an outage; only a layer that is there and full closes it.
                away = isinstance(error, LayerUnavailable)
                if away or deadline == NEVER:
                    deadline = NEVER if away else self.loop.time() + PATIENCE
            self._refused.setdefault(channel, deque()).append((deadline, connection, message))
            if self._retrying is None or self._retrying.done():
                self._retrying = self.loop.create_task(self._retry())
        else:
            logger.error("An event of %s was not sent: %s", visible(connection.state.path), error)
            connection.perform(connection.state.full(channel))

    async def _retry(self):
        """While channels are full: send a few again, and turn away who has waited too long."""
        if self.loop.time() > self._retried_at + 1.0:
            self._retry_pause = RETRY_FIRST
        while self._refused:
            await asyncio.sleep(self._retry_pause)
            self._retry_pause = min(self._retry_pause * 1.5, RETRY_MOST)
            now = self._retried_at = self.loop.time()
            for channel, refused in list(self._refused.items()):
                again = [refused.popleft() for _ in range(min(RETRY_BATCH, len(refused)))]
                while refused and refused[0][0] < now:
                    again.append(refused.popleft())
                if not refused:
                    del self._refused[channel]
                for deadline, connection, message in again:
                    # The end of a connection is owed to the site, however late.
                    if deadline < now and not channel.endswith(".disconnect"):
                        connection.perform(connection.state.full(channel))
                    else:
                        self._send(connection, channel, message, deadline)
        self._retrying = None

    def turned_away(self):
        """One more client got a 503 or a 1013: a line in the log says how many, now and then."""
        self._turned_away += 1
        if self._telling is None:
            self._tell_turned_away()

    def _tell_turned_away(self):
        count, self._turned_away = self._turned_away, 0
        self._telling = self.loop.call_later(LOG_EVERY, self._tell_turned_away) if count else None
        if count:
            logger.warning(
                "A channel is full, or the layer is away: turned away with 503 or 1013: %d", count
            )

    # What comes back.

    async def _pump(self):
        pause = 0.1
        while True:
            try:
                messages = await self.inbox.receive()
            except LayerUnavailable as error:
                logger.warning("The channel layer cannot be reached (%s); trying again.", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE)
                continue
            except asyncio.CancelledError:  # an Exception until Python 3.7 goes
                raise
            except Exception:
                logger.exception("The inbox of the gateway could not be read; trying again.")
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE)
                continue
            pause = 0.1
            for index, (channel, message) in enumerate(messages, 1):
                try:
                    self._take(channel, message)
                except Exception:
                    logger.exception("A message on %s could not be handled", channel)
                if index % TURN == 0:
                    await asyncio.sleep(0)

    def _take(self, channel, message):
        if channel == self.name:
            if "group" in message:
                content = message["message"]
                for connection in list(self.groups.get(message["group"], ())):
                    connection.perform(connection.state.group(content))
            elif "reset" in message:
                self._reset()
            return
        connection = self.connections.get(channel)
        if "group_add" in message:
            group = message["group_add"]
            if connection is None or connection.detached:
                self.inbox.group_discard(group, channel)
            else:
                connection.groups.add(group)
                self.groups.setdefault(group, {})[connection] = None
        elif "group_discard" in message:
            if connection is not None:
                connection.groups.discard(message["group_discard"])
                self._leave(message["group_discard"], connection)
        elif connection is not None:
            connection.perform(connection.state.reply(message))

    def _reset(self):
        logger.warning(
            "The channel layer lost its data: closing %d connections.", len(self.connections)
        )
        for connection in list(self.connections.values()):
            connection.groups.clear()
            connection.perform(connection.state.reset())
        self.groups.clear()

    # The end.

    async def stop(self):
        """Let what is under way end (up to SHUTDOWN_GRACE seconds), then leave the layer."""
        deadline = time.monotonic() + SHUTDOWN_GRACE
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._workers is not None:
            await self.loop.run_in_executor(None, self._workers.stop, SHUTDOWN_GRACE)
            atexit.unregister(self._at_exit)
        for task in (self._pumping, self._retrying, self._telling):
            if task is not None:
                task.cancel()
        await self.inbox.close()

    def abandon(self):
        """Its loop was closed without `stop`: its threads end, each after what it handles."""
        if self._workers is not None:
            self._workers.stop(grace=0)
            atexit.unregister(self._at_exit)

    def _at_exit(self):
        """
        The process ends, and the server has not said so by `lifespan` (Daphne does not): the site is
        told of the sockets that end with it. The loop runs no more, so this is done without one.
        """
        for connection in list(self.connections.values()):
            connection.perform(connection.state.gone())
            self._detach(connection)
        deadline = time.monotonic() + SHUTDOWN_GRACE
        while self.connections and time.monotonic() < deadline:
            for channel, message in self.inbox.take():
                self._take(channel, message)
            time.sleep(0.01)
        self._workers.stop(max(0.0, deadline - time.monotonic()))


class Connection:
    """Carries out the actions of one state: what it writes waits here for the server to take it."""

    __slots__ = (
        "channel",
        "detached",
        "groups",
        "gateway",
        "holds",
        "overdue",
        "reader",
        "state",
        "writer",
        "_finished",
        "_is_cut",
        "_outgoing",
        "_paused",
        "_send",
        "_wakeup",
    )

    def __init__(self, gateway, state, send):
        self.channel = state.reply_channel
        self.gateway = gateway
        self.state = state
        self.groups = set()
        self.detached = False
        self.reader = None
        self.writer = None  # of a WebSocket: the task that writes
        self.overdue = None  # and what ends it, some time after the state has finished
        self.holds = ()  # names under which the inbox holds a farewell
        self._send = send
        self._outgoing = deque()
        self._finished = False
        self._is_cut = False
        self._wakeup = None
        self._paused = None

    def perform(self, actions):
        """Carry out `actions`; called in the event loop only."""
        for action in actions:
            verb = action[0]
            if verb is WRITE:
                self._outgoing.append(action)
            elif verb is DISPATCH:
                self.gateway.dispatch(self, action[1], action[2])
            elif verb is HOLD:
                if action[1] not in self.holds:
                    self.holds += (action[1],)
                self.gateway.inbox.set_will(action[1], action[2:])
            elif verb is COUNT:
                self.gateway.layer.count(action[1])
                if action[1] == "refused":
                    self.gateway.turned_away()
            elif verb is DROP:
                self._outgoing.clear()
            elif verb is LOG:
                getattr(logger, action[1])(visible(action[2]))
            elif verb is FINISH:
                self._finished = True
                if self.writer is not None and self.overdue is None:
                    # A client that reads nothing will not take its close either.
                    self.overdue = self.gateway.loop.call_later(CLOSE_TIMEOUT, self.writer.cancel)
            elif verb is CUT:
                self._is_cut = True
        if self._wakeup is not None and (self._outgoing or self._finished):
            _wake(self._wakeup)
            self._wakeup = None
        if self._paused is not None and (self.state.reading or self._finished):
            _wake(self._paused)
            self._paused = None
        if self.detached:
            self.gateway._forget(self)

    async def write(self):
        """Give the server what there is to write, until the state has finished."""
        while True:
            while self._outgoing:
                _, event, note = self._outgoing.popleft()
                await self._give(event)
                actions = self.state.written(event, note)
                if actions:
                    self.perform(actions)
            if self._finished:
                if self._is_cut and hasattr(self._send, "cut"):
                    self._send.cut()  # other servers see that the application has returned
                return
            self._wakeup = self.gateway.loop.create_future()
            await self._wakeup

    async def _give(self, event):
        try:
            await self._send(event)
        except (OSError, asyncio.CancelledError):  # the latter an Exception until Python 3.7 goes
            raise  # the client has gone
        except Exception:
            # Daphne (autobahn) sends no close code of the protocol's own but 1000: from it, 1011
            # goes out as 4011.
            if event["type"] != "websocket.close" or not 1000 < event["code"] < 2000:
                raise
            await self._send(dict(event, code=event["code"] + 3000))

    async def may_read(self):
        """Wait until the state wants more from the client."""
        while not self.state.reading and not self._finished:
            self._paused = self.gateway.loop.create_future()
            await self._paused


def _wake(future):
    if not future.done():
        future.set_result(None)

"""
The gateway as an ASGI 3 application: serves HTTP, WebSocket and lifespan in front of a layer's inbox.

Each connection has a state (websocket.py, http.py) and a Connection that carries out its actions
(connection.py). Events go out through `sender.py`; everything comes back through `reader.py`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import string
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, MutableMapping

from django.conf import settings

from ..compat import iscoroutinefunction
from ..log import RateLimitByKey, shown
from ..protocol import GATEWAY_PREFIX
from ..serving import log_end, watch_end
from ..subprotocols import known_subprotocols
from . import codes
from .advice import Advice
from .backlog import ResponseStore
from .buffers import WriteBuffers
from .connection import Connection, ServerSend
from .daphne import bound_frames, correct_scope, response_lock, with_flow_control
from .early import SendAfterUpload
from .frames import AddressRooms, FrameRoom, SharedRoom, UnreadRoom
from .handshake import ACCEPT_TIMEOUT
from .http import Request
from .idle import IdleSockets
from .limits import TOO_MANY_REQUESTS, check_head, check_request, make_limits
from .pipelines import has_too_many
from .reader import InboxReader
from .refusal import Refusals
from .response import ResponseConnection
from .scopes import connect_event, correct_path, request_event
from .sender import EventSender
from .servers import bound_servers
from .sockets import ServerReceive, SocketConnection
from .spool import SpoolRoom
from .turns import client_key, session_pattern
from .upload import NO_ROOM, Upload
from .websocket import WebSocket

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer
    from ..wsgi.in_gateway import WSGIRunner

logger = logging.getLogger("django.channels.gateway")

#: Seconds that events in flight get when the server shuts down, and between two polls for their end.
SHUTDOWN_TIMEOUT, SHUTDOWN_POLL_INTERVAL = 10.0, 0.02

Scope = MutableMapping[str, Any]

_random = random.SystemRandom()


def _correct(scope: Scope, send: Any) -> None:
    """Set in `scope` what servers leave out or do differently."""
    correct_scope(scope, send)
    correct_path(scope)


def _is_asgi(application: Any) -> bool:
    """Return whether an application is one of ASGI 3, which is a coroutine function, and not of WSGI."""
    return any(map(iscoroutinefunction, (application, type(application).__call__)))


class Gateway:
    """
    The gateway of one event loop. Make it in a running loop. As an application it serves the protocols
    "http", "websocket" and "lifespan".

    Everything here belongs to that loop, except `abandon`, which runs after the loop was closed.
    """

    def __init__(self, layer: BaseChannelLayer) -> None:
        self.layer = layer
        self.limits = make_limits(layer.gateway_options)
        self.room = SpoolRoom(self.limits)
        self.refusals = Refusals(layer)
        bound_servers(self.limits, self.refusals)
        #: The lines that connections log: each kind once a second.
        self.lines = RateLimitByKey(1.0)
        self.loop = asyncio.get_event_loop()
        token = "".join(_random.choice(string.ascii_letters + string.digits) for _ in range(12))
        self.name = GATEWAY_PREFIX + token + "!"
        # First, so that nothing is left behind if the site's routing is wrong.
        self._workers = self._start_workers()
        self.inbox = layer.open_inbox(self.name)
        self.connections: dict[str, Connection] = {}  # by reply channel
        self.events = EventSender(layer, self.inbox, self.loop, self.limits)
        self.send_event = self.events.send
        self.reader = InboxReader(
            self.name, self.inbox, self.connections, self.events, layer.reachability
        )
        self.responses = ResponseStore(layer, self.loop, self.limits)
        self._session_cookie = session_pattern(settings.SESSION_COOKIE_NAME)
        self._advice = Advice()
        #: Ends sockets from which nothing comes, if the site wants that.
        self.idle = IdleSockets(self) if self.limits.idle_time else None
        self.buffers = WriteBuffers(self)
        #: What the frames of all sockets take, and the answers that their clients have not read; and the
        #: rooms in these of each address.
        self.frames = FrameRoom(self.limits.frames_memory)
        self.unread = UnreadRoom(self.limits.unread_memory)
        self.unread_of_others = SharedRoom(self.limits.unread_memory)
        self._rooms: dict[str, AddressRooms] = {}
        self._wsgi: WSGIRunner | None = None  # made for the first request of a WSGI application
        self._number = 0
        self._reading = self.loop.create_task(self.reader.run())
        watch_end(self)

    def _start_workers(self) -> Any:
        """Start worker threads on a layer that ends with this process, and return their WorkerGroup."""
        if self.layer.crosses_processes or not self.layer.threads:
            return None
        from ..worker import WorkerGroup

        workers = WorkerGroup(
            self.layer,
            threads=self.layer.threads,
            async_concurrency=self.layer.async_concurrency,
            drain=True,
        )
        # In a thread, because receivers of worker_ready may use the database, which Django refuses where
        # an event loop runs.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(workers.start).result()
        atexit.register(self._at_exit)
        return workers

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, so that the loop needs another gateway."""
        return self._reading.done()

    async def __call__(self, scope: Scope, receive: ServerReceive, send: ServerSend) -> None:
        if scope["type"] == "http":
            lock = response_lock(send)
            if lock is None:
                await self._http(scope, receive, send)
            else:
                async with lock:
                    await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise ValueError(
                "The gateway serves http, websocket and lifespan, not %r." % scope["type"]
            )

    async def _lifespan(self, receive: ServerReceive, send: ServerSend) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # HTTP.

    async def _http(self, scope: Scope, receive: ServerReceive, send: ServerSend) -> None:
        http = self.layer.http_application
        if has_too_many(receive):
            await self.refusals.refuse(scope, send, TOO_MANY_REQUESTS)
            return
        self._advice.check_request(scope, self.layer)
        if http is not None and _is_asgi(http):
            _correct(scope, send)
            try:
                await http(scope, receive, send)
            except SystemExit as error:
                # It would end the server, with all its sockets.
                raise RuntimeError("The HTTP application asked for an exit.") from error
            return
        upload = Upload(self.room, scope, receive)
        _correct(scope, send)
        status = check_request(self.limits, scope)
        try:
            if status is None:
                await upload.gather()
                if upload.gone:
                    return
                part = await upload.first_part()
                status = upload.problem
            if status is not None:
                await self.refusals.refuse(scope, SendAfterUpload(send, upload), status)
                return
            if http is not None:
                await self._run_wsgi(http, scope, upload, part, send)
                return
            message = request_event(scope)
            message["body"] = part
            await self._answer(scope, message, upload, send)
        finally:
            upload.close()

    async def _answer(
        self, scope: Scope, message: dict[str, Any], upload: Upload, send: ServerSend
    ) -> None:
        """Send a request to the workers, with what follows of its body, and write the response."""
        connection = self._open(Request, message, send, ResponseConnection, upload)
        state = connection.state
        if self.room.admit(state, connection.client[0], len(message["body"])):
            connection.perform(state.request(message, upload.unfinished, self._new_body_channel))
            upload.follow(connection)
        else:
            self.refusals.note(scope, NO_ROOM)
            connection.perform(state.body_failed(NO_ROOM))
        try:
            await connection.write()
        except OSError:
            pass  # the client has gone; the state is told below
        finally:
            connection.perform(state.gone())
            self._detach(connection)
            if not state.waits:
                self.room.release(state)

    async def _run_wsgi(
        self, application: Any, scope: Scope, upload: Upload, first: bytes, send: ServerSend
    ) -> None:
        """Have a WSGI application of this process answer a request."""
        if self._wsgi is None:
            # Not at the top: that module uses the handler, and the handler uses the gateway's limits.
            from ..wsgi.in_gateway import WSGIRunner

            self._wsgi = WSGIRunner(application)
        send = with_flow_control(send)
        await self._wsgi(scope, upload, first, SendAfterUpload(send, upload))

    def _new_body_channel(self) -> str:
        return self.layer.new_channel("http.request.body?")

    # WebSocket.

    async def _websocket(self, scope: Scope, receive: ServerReceive, send: ServerSend) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        _correct(scope, send)
        status = check_head(self.limits, scope)
        if status is not None:
            await self.refusals.refuse(scope, send, status)
            return
        bound_frames(scope, send, self.refusals.note_frames)
        connection = self._open_websocket(scope, send)
        try:
            await connection.serve(receive)
        finally:
            self._end_websocket(connection)

    def _open_websocket(self, scope: Scope, send: ServerSend) -> SocketConnection:
        message = connect_event(scope)
        connection: SocketConnection = self._open(WebSocket, message, send, SocketConnection)
        state = connection.state
        state.known_subprotocols = known_subprotocols()
        rooms = self._enter_rooms(connection)
        state.use_rooms(rooms.frames, rooms.unread, rooms.of_others)
        connection.deadline = self.loop.call_later(ACCEPT_TIMEOUT, connection.give_up_handshake)
        self.buffers.start()
        connection.perform([state.last_will()])
        connection.perform(state.connect(message))
        return connection

    def _end_websocket(self, connection: SocketConnection) -> None:
        state = connection.state
        client_has_gone = connection.is_gone
        connection.perform(state.gone(codes.GONE))
        self._detach(connection)
        self.buffers.watch_end(connection.transport)
        # Once the client has gone, servers raise an OSError, or other exceptions.
        if connection.error is not None and not client_has_gone:
            text = "The server refused what was written to the WebSocket %s:"
            logger.error(text, shown(state.path), exc_info=connection.error)

    # Connections.

    def _open(
        self,
        state_class: Callable[[str, str], Any],
        message: dict[str, Any],
        send: Any,
        connection_class: Any,
        upload: Upload | None = None,
    ) -> Any:
        """Return a new connection. Its first event, `message`, has the path that all its events have."""
        self._number += 1
        channel = "%s%d" % (self.name, self._number)
        state = state_class(channel, message["path"])
        # Before the event, because the last will is set before it and has this, too.
        state.root_path = message["root_path"]
        send = with_flow_control(send)
        if upload is not None and not upload.complete:
            send = SendAfterUpload(send, upload)
        connection = connection_class(self, state, send)
        connection.client = client_key(message, self._session_cookie, channel)
        self.connections[channel] = connection
        return connection

    def _enter_rooms(self, connection: Connection) -> AddressRooms:
        """Return the rooms of this socket, which all sockets of its address share."""
        address = connection.client[0]
        rooms = self._rooms.get(address)
        if rooms is None:
            limit = self.limits.address_frames
            rooms = AddressRooms(limit, self.frames, self.unread, self.unread_of_others)
            self._rooms[address] = rooms
        rooms.sockets += 1
        return rooms

    def _leave_rooms(self, connection: Connection) -> None:
        if isinstance(connection.state, WebSocket):
            address = connection.client[0]
            rooms = self._rooms[address]
            rooms.sockets -= 1
            if not rooms.sockets:
                del self._rooms[address]

    def _detach(self, connection: Connection) -> None:
        """Its client has gone: it leaves its groups, and stays known only while an event is in flight."""
        connection.detached = True
        self.reader.leave_all(connection)
        self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """Forget a detached connection, its last wills and channels, if no event of it is in flight."""
        if connection.detached and connection.state.over:
            if self.connections.pop(connection.channel, None) is not None:
                if connection.flight is not None:
                    self.events.landed(connection)
                connection.state.in_flight = None  # an event that still waits is not sent
                connection.state.release()
                self._leave_rooms(connection)
                self.room.release(connection.state)
                for name in connection.wills:
                    self.inbox.clear_will(name)
                for channel in connection.state.channels:
                    # Other windows of the same worker process share the queue of a local one.
                    if "!" not in channel:
                        self.inbox.drop_channel(channel)

    # The end.

    async def stop(self) -> None:
        """Let events in flight end (up to SHUTDOWN_TIMEOUT seconds), then leave the layer."""
        log_end()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(SHUTDOWN_POLL_INTERVAL)
        if self._workers is not None:
            await self.loop.run_in_executor(None, self._workers.stop, SHUTDOWN_TIMEOUT)
            atexit.unregister(self._at_exit)
        self._reading.cancel()
        self.events.close()
        if self.idle is not None:
            self.idle.close()
        self.buffers.close()
        self.responses.end()
        self.room.file.end()
        if self._wsgi is not None:
            self._wsgi.close()
        await self.inbox.close()

    def abandon(self) -> None:
        """End the threads of a loop that was closed without `stop`, each after its message."""
        self.responses.end()
        self.room.file.end()
        if self._wsgi is not None:
            self._wsgi.close()
        if self._workers is not None:
            self._workers.stop(grace=0)
            atexit.unregister(self._at_exit)
        self.inbox.abandon()

    def _at_exit(self) -> None:
        """
        Tell the site of the sockets that end with this process.

        The server has not called `stop` by `lifespan` (Daphne doesn't), and the loop no longer runs, so
        this works without one.
        """
        for connection in list(self.connections.values()):
            connection.is_gone = True
            connection.perform(connection.state.gone())
            self._detach(connection)
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        while self.connections and time.monotonic() < deadline:
            for channel, message in self.inbox.take():
                self.reader.handle(channel, message)
            time.sleep(SHUTDOWN_POLL_INTERVAL)
        self._workers.stop(max(0.0, deadline - time.monotonic()))

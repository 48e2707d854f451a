"""
The gateway's end, in its event loop: two connections, one that waits for the inbox, one that sends.

This is how it reads and registers; sending.py is how it sends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from . import entry
from .contract import (
    Entry,
    LayerUnavailable,
    Message,
    Unreadable,
    protocol,
    start_thread,
)
from .failures import takes_no_writes, unavailable
from .scripts import Command
from .sending import SendingInbox, Step

if TYPE_CHECKING:
    from .store import RedisStore

logger = logging.getLogger("django.channels.layers")

#: Seconds for which one read of the inbox waits. With direct.LATE: how long a silence goes unnoticed.
WAIT = 1.0

#: Seconds between two questions whether the server takes writes.
ASK_INTERVAL = 1.0

#: Records that one read takes at most.
READ_BATCH = 200

#: Encrypted records that are remembered, so that each is taken once: of memberships; of all others.
REMEMBERED = 65536

#: Seconds that `close` waits until everything is sent.
CLOSE_TIMEOUT = 5.0


class RedisInbox(SendingInbox):
    """The inbox of one gateway. `register` is called by the lease thread, all else in the event loop."""

    def __init__(self, store: RedisStore, name: str) -> None:
        super().__init__(store, name)
        self._stream = store.keys.inbox(name).stream
        # What the register knows, and how far the stream was read: (milliseconds, sequence).
        self._count = 0
        self._last = (0, 0)
        self._trimmed = (0, 0)
        self._seen: tuple[OrderedDict[bytes, None], ...] = (OrderedDict(), OrderedDict())
        self._lost_at: float | None = None
        #: Whether the lease thread has registered this gateway, and so its lease.
        self.leased = False
        self._reader = store.servers.link(blocks=True)
        self._registered = 0
        self._run_id: bytes | None = None
        self._ready: list[tuple[str, Message]] = []
        self._error: Exception | None = None
        self._asked_at = 0.0  # when (monotonic) the server was asked whether it takes writes
        self._reading: asyncio.Task[None] | None = None
        self._left, self._leaving = False, threading.Lock()
        store.attach(self)
        # Registered at once, so that a member that is added now counts as this gateway's. If the server
        # is unreachable, the first read does it.
        try:
            self._layer.leases.acquire(name, self._lost)
            # If another one answers the first read, it may lack what was sent in between.
            self._run_id = store.servers.run_id
        except LayerUnavailable as error:
            logger.warning("The gateway %s starts without its channel layer: %s", name, error)
            self._layer.leases.renew(name, self._lost)

    # Registration.

    def register(self, lost: bool) -> None:
        """Say that the gateway is there; `lost`: the server has forgotten it. Raises LayerUnavailable."""
        with self._leaving:
            if self._left:
                return
            reply = self._store.servers.call(self._register_command(lost and self.leased))
            self.leased = True
            for group in self._take_registration(reply):
                self._store.remove_route(group, self.name)

    def _lost(self) -> None:
        """The lease had run out: `register` has told it. This also tells the engine whose lease it was."""

    @property
    def has_lost(self) -> bool:
        """Whether the gateway was told within the last lease that data was lost."""
        since = self._lost_at
        return since is not None and time.monotonic() - since <= self._layer.options.lease

    def _register_command(self, lost: bool) -> Command:
        # The lease thread and the reader notice the same loss, one after the other: it is told once.
        lost = lost and not self.has_lost and self._count > 0
        return self._store.register_command(self.name, self._count, self._last, lost, self._token)

    def _take_registration(self, reply: Any) -> list[str]:
        """Take in the reply of register.lua; return the groups whose routes must be removed."""
        count, lost, *groups = reply
        self._count = max(self._count, count)
        if lost:
            self._lost_at = time.monotonic()
        return [group.decode("utf-8", "replace") for group in groups]

    # Reading.

    async def receive(self) -> list[tuple[str, Message]]:
        while True:
            if self._ready:
                ready, self._ready = self._ready, []
                return ready
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._reading is None:
                self._reading = self._loop.create_task(self._read())
            # Shielded: a read that is under way goes on for the next caller.
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        began = time.monotonic()
        try:
            await self._read_once()
            self.failing_since = None
        except Exception as error:
            if not isinstance(error, LayerUnavailable):
                logger.exception("The inbox %s could not be read.", self.name)
                error = LayerUnavailable(str(error))
            self._error = error
            self.failing_since = self.failing_since or began
        finally:
            self._reading = None

    async def _read_once(self) -> None:
        link = self._reader
        await link.connect()
        if link.generation != self._registered:
            await self._register_connection()
        commands: list[Command] = []
        if self._trimmed != self._last:
            through = "%d-%d" % (self._last[0], self._last[1] + 1)
            commands.append(("XTRIM", self._stream, "MINID", through))
        commands.append(
            ("XREAD", "COUNT", READ_BATCH, "BLOCK", int(WAIT * 1000))
            + ("STREAMS", self._stream, "%d-%d" % self._last)
        )
        if self.failing_since is not None or time.monotonic() - self._asked_at >= ASK_INTERVAL:
            self._asked_at = time.monotonic()
            # It does nothing, because the key doesn't exist, and is refused where any answer would be.
            commands.insert(0, ("SET", self._stream + ":none", "1", "XX"))
        last = self._last
        replies = await link.call(commands, WAIT)
        reply = replies[-1]
        if isinstance(reply, Exception):
            raise unavailable(reply, self._store.servers.where)
        if commands[0][0] == "SET":
            self._note_answer(replies[0])
        self._trimmed = last
        taken = self._take_records(reply[0][1]) if reply else []
        try:
            if any(protocol.RESET in message for _, message in taken):
                taken = await self._tell_ended(taken)
        finally:
            self._ready += taken

    def _note_answer(self, answer: Any) -> None:
        """Take in whether the server takes writes. Without memory it takes none, and can still be read."""
        if not takes_no_writes(answer):
            self.unsent_since = None
        elif self.note_unsent():
            self._error = unavailable(answer, self._store.servers.where)

    async def _register_connection(self) -> None:
        """Register over a new connection, and find out whether the server is another one than before."""
        link = self._reader
        # A server that has restarted, or a replica that became the primary, may have lost the last
        # messages: events, or replies that a client would wait for.
        another = None not in (self._run_id, link.run_id) and self._run_id != link.run_id
        reply = (await link.call([self._register_command(another)]))[0]
        if isinstance(reply, Exception):
            raise unavailable(reply, self._store.servers.where)
        for group in self._take_registration(reply):
            self._extra.append(Step(self._store.remove_route_command(group, self.name)))
        self._registered = link.generation
        self._run_id = link.run_id or self._run_id
        self._schedule()

    async def _tell_ended(self, taken: list[tuple[str, Message]]) -> list[tuple[str, Message]]:
        """Add to a reset the connections whose will was sent: their end must not be told twice."""
        key = self._store.keys.wills_sent(self.gateway)
        reply = (await self._reader.call([("SMEMBERS", key)]))[0]
        ended = [] if isinstance(reply, Exception) else [each.decode() for each in reply]
        return [
            (channel, protocol.reset(ended) if protocol.RESET in message else message)
            for channel, message in taken
        ]

    def _take_records(self, records: Any) -> list[tuple[str, Message]]:
        taken = []
        for raw_id, fields in records:
            milliseconds, _, sequence = raw_id.partition(b"-")
            record_id = (int(milliseconds), int(sequence))
            if record_id <= self._last:
                continue  # an old reply, or the same once more
            self._last = record_id
            body = entry.record_body(fields)
            channel = entry.split_body(body)[0] or self.name
            try:
                message = self._store.decode(channel, body)
                if self._is_first(message, body):
                    taken.append((channel, message))
            except Unreadable as error:
                self._dead_letter(channel, body, error)
        return taken

    def _is_first(self, message: Message, body: bytes) -> bool:
        """Return whether a record was not taken before. One that was put back into Redis is counted."""
        if not self._store.codec.seals:
            return True  # unsealed, so without a nonce to know it by
        nonce = self._store.codec.nonce(entry.split_body(body)[1])
        if not nonce:
            return True
        seen = self._seen[protocol.GROUP_ADD in message or protocol.GROUP_DISCARD in message]
        if nonce in seen:
            self._layer.count("replayed")
            return False
        seen[nonce] = None
        if len(seen) > REMEMBERED:
            seen.popitem(last=False)
        return True

    def _dead_letter(self, channel: str, body: bytes, error: Unreadable) -> None:
        if body.startswith(b"\n"):
            body = channel.encode() + body
        raw = entry.make_expired(body)

        def after(reply: Any) -> None:
            if isinstance(reply, int):
                self._layer.recovery.unreadable(Entry(None, channel, body), error, reply)

        command = self._store.dead_letter_command("", "", "unreadable", raw)
        self._extra.append(Step(command, after))
        self._schedule()

    # The end.

    async def close(self) -> None:
        if self._closed:
            return
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=CLOSE_TIMEOUT)
        self._closed = True
        self._layer.leases.release(self.name)
        for task in (self._reading, self._writing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self._reader.close()
        await self._writer.close()
        await self._loop.run_in_executor(None, self._leave)

    def abandon(self) -> None:
        if not self._closed:
            self._closed = True
            self._layer.leases.release(self.name)
            start_thread("channels-leave", self._leave)

    def _leave(self) -> None:
        """Memberships, and what is still in the inbox, go; wills of open connections are sent."""
        with self._leaving:  # the lease thread may be about to register
            self._left = True
        self._layer.leases.leave_gateway(self.name)
        self._store.detach(self)

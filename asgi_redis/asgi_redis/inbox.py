"""
The gateway's end, in its event loop: two connections, one that waits for the inbox, one that sends.

What one turn of the loop sends leaves together; while a batch is on its way the next one gathers.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import uuid
from collections import OrderedDict, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from . import entry
from .contract import (
    UNSENDABLE,
    WILL_EXPIRY,
    WILL_REFUSED,
    Batch,
    Entry,
    Inbox,
    LayerUnavailable,
    Message,
    Outgoing,
    PendingWork,
    Send,
    Unreadable,
    encode,
    protocol,
)
from .failures import unavailable
from .scripts import Command, run

if TYPE_CHECKING:
    from .store import RedisStore

logger = logging.getLogger("django.channels.layers")

#: Seconds for which one read of the inbox waits. With direct.LATE: how long a silence goes unnoticed.
WAIT = 1.0

#: Records that one read takes at most.
READ_BATCH = 200

#: Messages, and bytes, that leave in one batch at most.
SEND_BATCH, SEND_BYTES = 200, 2 * 1024 * 1024

#: Seconds for which an encrypted will can be read: longer than any connection is open.
WILL_LIFE = 10 * 366 * 86400.0

#: Encrypted records that are remembered, so that none is taken twice: of memberships; of all others.
REMEMBERED = 65536

#: Seconds that `close` waits until everything is sent.
CLOSE_TIMEOUT = 5.0


class Step(NamedTuple):
    """A command of a batch, and what is done with its reply, which may be an exception."""

    command: Command
    after: Callable[[Any], None] | None = None


class RedisInbox(Inbox):
    """The inbox of one gateway. `register` is called by the lease thread, all else in the event loop."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self.name = name
        self._store, self._layer = store, store.layer
        self._loop = asyncio.get_event_loop()
        self._token = uuid.uuid4().hex[:12]
        #: This gateway, and no former one of that name.
        self.gateway = "%s|%s" % (name, self._token)
        self._stream = store.keys.inbox(name).stream
        self._wills_key = store.keys.wills(self.gateway)
        # What the register knows, and how far the stream was read: (milliseconds, sequence).
        self._count = 0
        self._last = (0, 0)
        self._trimmed = (0, 0)
        self._seen: tuple[OrderedDict[bytes, None], ...] = (OrderedDict(), OrderedDict())
        self._lost_at: float | None = None
        #: Whether the lease thread has registered this gateway, and so its lease.
        self.leased = False
        self._reader = store.servers.link(blocks=True)
        self._writer = store.servers.link(blocks=False)
        self._registered = 0
        self._run_id: bytes | None = None
        self._ready: list[tuple[str, Message]] = []
        self._error: Exception | None = None
        self._reading: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._work = PendingWork()
        # Batches and changes of wills have numbers. By partition, those that may have been sent, and have no
        # reply; and of those that were done, the events.
        self._batches = self._changes = 0
        self._unsure: dict[int, tuple[int, list[Send]]] = {}
        self._taken: set[Any] = set()
        self._extra: list[Step] = []
        self._closed = False
        self._left, self._leaving = False, threading.Lock()
        store.attach(self)
        # Registered at once, so that a member that is added now counts as this gateway's. If the server
        # is away, the first read does it.
        try:
            self._layer.leases.acquire(name, self._lost)
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
        count, lost, groups = self._store.registered(reply)
        self._count = max(self._count, count)
        if lost:
            self._lost_at = time.monotonic()
        return groups

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
        except LayerUnavailable as error:
            self._error = error
        except Exception as error:
            logger.exception("The inbox %s could not be read.", self.name)
            self._error = LayerUnavailable(str(error))
        finally:
            if self._error is not None:
                self.failing_since = self.failing_since or began
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
        last = self._last
        reply = (await link.call(commands, WAIT))[-1]
        if isinstance(reply, Exception):
            raise LayerUnavailable(str(reply))
        self._trimmed = last
        taken = self._take_records(reply[0][1]) if reply else []
        try:
            if any(protocol.RESET in message for _, message in taken):
                taken = await self._tell_ended(taken)
        finally:
            self._ready += taken

    async def _register_connection(self) -> None:
        """Register over a new connection, and find out whether the server is another one than before."""
        link = self._reader
        # A server that has restarted, or a replica that became the primary, may have lost the last
        # messages: events, or replies that a client would wait for.
        another = None not in (self._run_id, link.run_id) and self._run_id != link.run_id
        reply = (await link.call([self._register_command(another)]))[0]
        if isinstance(reply, Exception):
            raise LayerUnavailable(str(reply))
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

    # Sending.

    def send(self, channel: str, message: Message, failed: Callable[[Exception], None]) -> None:
        try:
            body = encode(self._store, channel, message)
        except UNSENDABLE as error:
            self._loop.call_soon(failed, error)
            return
        event = protocol.event_key(message)
        self._work.send(Send(channel, body, protocol.ignores_capacity(message), failed, event))
        self._schedule()

    def group_discard(self, group: str, channel: str) -> None:
        self._work.discard(group, channel)
        self._schedule()

    def drop_channel(self, channel: str) -> None:
        self._work.drop(channel)
        self._schedule()

    def set_will(self, channel: str, will: tuple[str, Message]) -> None:
        target, message = will
        expiry = int(max(self._layer.expiries[target], WILL_EXPIRY) * 1000)
        try:
            body = encode(self._store, target, message)
        except UNSENDABLE as error:
            logger.error(WILL_REFUSED, channel, error)
            return
        # It must be readable for as long as the connection is open.
        body = self._store.renewed(target, body, WILL_LIFE)
        self._work.set_will(channel, b"%d:" % expiry + body)
        self._schedule()

    def clear_will(self, channel: str) -> None:
        self._work.clear_will(channel)
        self._schedule()

    def _schedule(self) -> None:
        if self._writing is None and not self._closed:
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._work or self._extra:
                if not await self._write_once():
                    return
        except Exception:
            logger.exception("The gateway %s could not send.", self.name)
        finally:
            self._writing = None

    async def _write_once(self) -> bool:
        """Send one batch; return whether the server took it."""
        batch = self._work.take(SEND_BATCH, SEND_BYTES)
        extra, self._extra = self._extra, []
        try:
            await self._writer.connect()
            await self._settle()
            steps = self._will_steps(batch) + self._send_steps(batch.sends)
            steps += [self._discard_step(*each) for each in batch.discards] + extra
            for place in map(self._store.place, batch.dropped):
                steps.append(Step(("DEL", place.queue, place.wake)))
            commands = [step.command for step in steps]
            replies = await self._writer.call(commands) if steps else []
        except LayerUnavailable as error:
            self._work.put_back(batch)
            # What came meanwhile has waited as well. Its senders must not wait as long once more.
            others = self._work.take(sys.maxsize)
            self._work.put_back(others)
            self._extra = extra + self._extra
            for each in batch.sends + others.sends:
                each.failed(error)
            return False
        self._unsure = {}
        self._work.done(batch)
        for reply, step in zip(replies, steps):
            if step.after is not None:
                step.after(reply)
        return True

    async def _settle(self) -> None:
        """Find out which batches without a reply were done. The others are never done, and are sent again."""
        if not self._unsure:
            return
        keys, unsure = self._store.keys, self._unsure
        self._taken = set()
        replies = await self._writer.call(
            [
                run("settle_batch", [keys.batch(partition, self.gateway)], [number])
                for partition, (number, _) in unsure.items()
            ]
        )
        for (_, sends), refused in zip(unsure.values(), replies):
            if isinstance(refused, Exception):
                raise unavailable(refused, self._store.servers.where)
            if refused is not None:
                numbers = set(refused.decode().split(","))
                taken = [each for n, each in enumerate(sends, 1) if str(n) not in numbers]
                self._taken.update(each.event for each in taken if each.event is not None)
                self._layer.count("sent", len(taken))
        self._unsure = {}

    def _is_new(self, send: Send) -> bool:
        """Return whether a message is to be sent: not one that was reported, and was taken all the same."""
        if send.event not in self._taken:
            return True
        self._taken.discard(send.event)
        return False

    def _will_steps(self, batch: Batch) -> list[Step]:
        wills = dict(batch.wills, **dict.fromkeys(batch.cleared, b""))
        if not wills:
            return []
        self._changes += 1
        fields = tuple(part for item in wills.items() for part in item)
        keys = (self._wills_key, self._store.keys.wills_changed(self.gateway))
        return [Step(run("set_wills", keys, (self._changes,) + fields))]

    def _send_steps(self, sends: list[Send]) -> list[Step]:
        """Return one step for all queues of a partition, and one for each message to an inbox."""
        store, steps = self._store, []
        queued: dict[int, tuple[list[str], list[Any], list[Send]]] = defaultdict(
            lambda: ([], [], [])
        )
        for each in filter(self._is_new, sends) if self._taken else sends:
            channel, body, unlimited = each[:3]
            if "!" in channel:
                command = store.send_command(Outgoing(channel, body, unlimited))
                steps.append(Step(command, partial(self._sent, [each])))
                continue
            place = store.place(channel)
            keys, arguments, items = queued[place.partition]
            keys += (place.queue, place.wake)
            arguments += (-1 if unlimited else place.capacity, place.expiry, place.kind, "", body)
            items.append(each)
        for partition, (keys, arguments, items) in queued.items():
            self._batches += 1
            keys = list(store.keys.sending[partition]) + keys
            head = (store.keys.batch(partition, self.gateway), self._batches)
            command = run("send", keys, head + tuple(arguments))
            self._unsure[partition] = self._batches, items
            steps.append(Step(command, partial(self._sent, items)))
        return steps

    def _sent(self, sends: list[Send], reply: Any) -> None:
        """Take in the reply to some sends: 0, the numbers (from 1) of those refused, or an exception."""
        if isinstance(reply, Exception):
            for each in sends:
                each.failed(unavailable(reply, self._store.servers.where))
            return
        refused = reply or ()
        if len(refused) < len(sends):
            self._layer.count("sent", len(sends) - len(refused))
        for number in refused:
            send = sends[number - 1]
            send.failed(self._layer.channel_full(send.channel))

    def _discard_step(self, group: str, channel: str) -> Step:
        keys, command = self._store.keys, self._store.discard_command(group, channel)
        if keys.partition(self.name) == keys.group(group).partition:
            return Step(command)

        def after(reply: Any) -> None:
            # The route lies in another partition, and so takes another script.
            if isinstance(reply, int) and reply > 0:
                self._extra.append(Step(self._store.remove_route_command(group, self.name, reply)))

        return Step(command, after)

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

    def _leave(self) -> None:
        """Memberships, and what is still in the inbox, go; wills of open connections are sent."""
        with self._leaving:  # the lease thread may be about to register
            self._left = True
        try:
            self._store.leave(self.name)
        except LayerUnavailable as error:
            logger.warning(
                "The gateway %s could not leave the channel layer: %s. Its lease will run out.",
                self.name,
                error,
            )
        self._store.detach(self)

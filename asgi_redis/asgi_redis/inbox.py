"""
The gateway's end, in its event loop: two connections, one that waits for the inbox, one that sends.

What one turn of the loop sends leaves together; while a batch is on its way the next one gathers.
"""

import asyncio
import threading
import time
import uuid
from asyncio import get_event_loop, shield
from collections import OrderedDict, defaultdict, deque

from . import entry
from .contract import ChannelFull, Inbox, LayerUnavailable, protocol
from .failures import unavailable
from .recovery import logger
from .scripts import run

#: Seconds for which one read of the inbox waits.
WAIT = 10.0

#: Records that one read takes at the most.
READ = 200

#: Messages, and bytes, that leave in one batch at the most.
BATCH, BATCH_BYTES = 200, 2 * 1024 * 1024

#: Seconds that `close` gives what was sent last.
LAST_WORDS = 5.0


class RedisInbox(Inbox):
    """Of one gateway on one RedisChannelLayer. Made in a running event loop."""

    def __init__(self, layer, name):
        self.name = name
        self._layer = layer
        self._loop = get_event_loop()
        self._token = uuid.uuid4().hex[:12]
        #: This gateway, and no former one of that name.
        self.gateway = "%s|%s" % (name, self._token)
        self._stream = layer.keys.inbox(name)[2]
        self._store = layer.store
        self._wills_key = layer.keys.wills(self.gateway)
        # What the register knows, and how far the stream was read: (milliseconds, sequence).
        self._count = 0
        self._last = (0, 0)
        self._trimmed = (0, 0)
        self._lost_at = None
        #: Whether its lease has been taken.
        self.leased = False
        self._reader, self._writer = layer.servers.link(), layer.servers.link()
        self._attended, self._run_id = 0, None
        self._ready, self._error, self._reading = [], None, None
        self._outgoing, self._writing = deque(), None
        self._wills = OrderedDict()  # channel to farewell, or None: what the server is to be told
        self._told = set()  # channels that it has been told of
        self._chores = []
        self._closed = False
        self._left, self._leaving = False, threading.Lock()
        # Said at once, so that a member that is added now counts as this gateway's. Only where the
        # server is away the first read says it.
        try:
            self.attend(False)
        except LayerUnavailable as error:
            logger.warning("The gateway starts without its channel layer: %s", error)
        layer.leases.attach(self)

    # Being there: `attend` is called by the lease's thread too.

    def attend(self, lost):
        """Say that the gateway is there; `lost`: the server has forgotten it. Raises LayerUnavailable."""
        with self._leaving:
            if self._left:
                return
            reply = self._layer.servers.call(self._attend_command(lost))
            for group in self._attended_with(reply):
                self._store.remove_route(group, self.name)

    def _attend_command(self, lost):
        # Lease and reader notice the same loss, one after the other: it is told once.
        if lost and self._lost_at is not None:
            lost = time.monotonic() - self._lost_at > self._layer.leases.lease
        lost = lost and self._count > 0
        return self._store.register_command(self.name, self._count, self._last, lost, self._token)

    def _attended_with(self, reply):
        """Take in the answer of attend.lua; returns the groups whose routes are to go."""
        count, lost, groups = self._store.registered(reply)
        self._count = max(self._count, count)
        if lost:
            self._lost_at = time.monotonic()
        return groups

    # Reading.

    async def receive(self):
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
            await shield(self._reading)

    async def _read(self):
        try:
            await self._read_once()
        except LayerUnavailable as error:
            self._error = error
        except Exception as error:
            logger.exception("The inbox %s could not be read", self.name)
            self._error = LayerUnavailable(str(error))
        finally:
            self._reading = None

    async def _read_once(self):
        link = self._reader
        await link.connect()
        if link.generation != self._attended:
            # A server that has restarted, or a replica that was made the primary, may have lost the
            # last things it was told: an event, or an answer that somebody would wait for in vain.
            another = None not in (self._run_id, link.run_id) and self._run_id != link.run_id
            reply = (await link.call([self._attend_command(another)]))[0]
            if isinstance(reply, Exception):
                raise LayerUnavailable(str(reply))
            self._chores += [("unroute", group) for group in self._attended_with(reply)]
            self._attended = link.generation
            self._run_id = link.run_id or self._run_id
            self._schedule()
        commands = []
        if self._trimmed != self._last:
            through = "%d-%d" % (self._last[0], self._last[1] + 1)
            commands.append(("XTRIM", self._stream, "MINID", through))
        commands.append(
            ("XREAD", "COUNT", READ, "BLOCK", int(WAIT * 1000))
            + ("STREAMS", self._stream, "%d-%d" % self._last)
        )
        last = self._last
        reply = (await link.call(commands, WAIT))[-1]
        if isinstance(reply, Exception):
            raise LayerUnavailable(str(reply))
        self._trimmed = last
        if reply:
            self._take(reply)

    def _take(self, reply):
        for raw_id, fields in reply[0][1]:
            milliseconds, _, sequence = raw_id.partition(b"-")
            record_id = (int(milliseconds), int(sequence))
            if record_id <= self._last:
                continue  # an old reply, or the same once more
            self._last = record_id
            body = fields[b"e"] if isinstance(fields, dict) else fields[1]
            channel = entry.split_body(body)[0]
            message = self._layer.read_body(channel, body)
            if message is None:
                body = body if channel else self.name.encode() + body
                self._chores.append(("bury", entry.make_expired(body)))
                self._schedule()
                continue
            self._ready.append((channel or self.name, message))

    # Sending.

    def send(self, channel, message, failed):
        body = self._layer.store.encode(channel, message)
        self._outgoing.append((channel, body, protocol.ignores_capacity(message), failed))
        self._schedule()

    def group_discard(self, group, channel):
        self._chores.append(("discard", group, channel))
        self._schedule()

    def set_will(self, channel, will):
        target, message = will
        expiry = int(self._layer.expiries[target] * 1000)
        self._wills[channel] = b"%d:" % expiry + self._store.encode(target, message)
        self._schedule()

    def clear_will(self, channel):
        if channel in self._told:
            self._wills[channel] = None
            self._schedule()
        else:
            self._wills.pop(channel, None)

    def _schedule(self):
        if self._writing is None and not self._closed:
            self._writing = self._loop.create_task(self._write())

    async def _write(self):
        try:
            while self._outgoing or self._chores or self._wills:
                if not await self._write_once():
                    return
        except Exception:
            logger.exception("The gateway %s could not send", self.name)
        finally:
            self._writing = None

    async def _write_once(self):
        """Send one batch; returns whether the server took it."""
        commands, afterwards = [], []
        batch = self._take_batch()
        holds, self._wills = self._wills, OrderedDict()
        chores, self._chores = self._chores, []
        self._add_holds(commands, afterwards, holds)
        self._add_messages(commands, afterwards, batch)
        self._add_chores(commands, afterwards, chores)
        try:
            replies = await self._writer.call(commands)
        except LayerUnavailable as error:
            for _, _, _, failed in batch:
                failed(error)
            # What the server is to be told of connections that live on, it is told later.
            holds.update(self._wills)
            self._wills = holds
            self._chores = chores + self._chores
            return False
        for reply, after in zip(replies, afterwards):
            if after is not None:
                after(reply)
        return True

    def _take_batch(self):
        batch, size = [], 0
        while self._outgoing and len(batch) < BATCH and size < BATCH_BYTES:
            batch.append(self._outgoing.popleft())
            size += len(batch[-1][1])
        return batch

    def _add_messages(self, commands, afterwards, batch):
        """One script for all queues of a partition; one each for what goes to an inbox."""
        store = self._store
        queued = defaultdict(lambda: ([], [], []))
        for item in batch:
            channel, body, unlimited, _ = item
            if "!" in channel:
                commands.append(store.send_command(channel, body, unlimited))
                afterwards.append(lambda reply, item=item: self._sent(reply, [item]))
                continue
            partition, queue, wake, capacity, expiry, kind, _ = store.place(channel)
            keys, arguments, items = queued[partition]
            keys += (queue, wake)
            arguments += (-1 if unlimited else capacity, expiry, kind, body)
            items.append(item)
        for partition, (keys, arguments, items) in queued.items():
            commands.append(run("send", store.keys.sending[partition] + tuple(keys), arguments))
            afterwards.append(lambda reply, items=items: self._sent(reply, items))

    def _sent(self, reply, items):
        if isinstance(reply, Exception):
            for item in items:
                self._failed(reply, item)
            return
        refused = reply or ()
        self._layer.count("sent", len(items) - len(refused))
        for number in refused:
            self._failed(None, items[number - 1])

    def _failed(self, error, item):
        channel, _, _, failed = item
        if error is None:
            self._layer.count("full")
            failed(ChannelFull("The channel %r is full." % channel))
        else:
            failed(unavailable(error, self._layer.servers.where))

    def _add_holds(self, commands, afterwards, holds):
        told = [item for item in holds.items() if item[1] is not None]
        dropped = [channel for channel, farewell in holds.items() if farewell is None]
        if told:
            fields = tuple(part for item in told for part in item)
            commands.append(("HSET", self._wills_key) + fields)
            afterwards.append(None)
            self._told.update(channel for channel, _ in told)
        if dropped:
            commands.append(("HDEL", self._wills_key) + tuple(dropped))
            afterwards.append(None)
            self._told.difference_update(dropped)

    def _add_chores(self, commands, afterwards, chores):
        for chore in chores:
            after = None
            if chore[0] == "discard":
                command = self._store.discard_command(chore[1], chore[2])
                after = self._unroute_after(chore[1])
            elif chore[0] == "unroute":
                number = chore[2] if len(chore) > 2 else -1
                command = self._store.remove_route_command(chore[1], self.name, number)
            else:
                command = self._store.dead_letter_command("", "unreadable", chore[1])
                after = self._buried
            commands.append(command)
            afterwards.append(after)

    def _buried(self, reply):
        if isinstance(reply, int):
            self._layer.dropped(reply)

    def _unroute_after(self, group):
        """Where the route lies in another partition, it takes another script."""
        keys = self._layer.keys
        if keys.partition(self.name) == keys.group(group).partition:
            return None

        def after(reply):
            if isinstance(reply, int) and reply > 0:
                self._chores.append(("unroute", group, reply))

        return after

    # The end.

    async def close(self):
        if self._closed:
            return
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=LAST_WORDS)
        self._closed = True
        self._layer.leases.detach(self)
        for task in (self._reading, self._writing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self._reader.close()
        await self._writer.close()
        await self._loop.run_in_executor(None, self._leave)

    def _leave(self):
        """Memberships, and what is still in the inbox, go; connections still held get their farewell."""
        with self._leaving:  # the lease's thread may be about to say that it is there
            self._left = True
        try:
            self._store.leave(self.gateway)
        except LayerUnavailable as error:
            logger.warning("The gateway could not take its leave; its lease will end: %s", error)

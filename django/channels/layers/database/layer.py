"""
DatabaseChannelLayer: the contract of `layers/base.py` over the tables of store.py.

Here are names, capacities and codecs; SQL is in sql/, who waits and who is woken in watcher.py,
leases in keeper.py.
"""

import atexit
import logging
import os
import threading
import time
import uuid
import weakref
from collections import Counter

from django.core.exceptions import ImproperlyConfigured
from django.db import connections as aliases

from ...exceptions import ChannelFull, LayerUnavailable
from ..base import BaseChannelLayer
from ..lost import REPORT, RETRY, DeadLetter, LostPolicy
from ..messages import clean
from ..names import check_channel_name, check_group_name, inbox_of
from .codec import decode, encode
from .keeper import Keeper
from .watcher import Notifier, Watcher, topic

logger = logging.getLogger("django.channels.layers.database")

#: Seconds for which a look into a channel's fill is relied on; and the share of the room that it gave.
ROOM_FOR = 1.0
ROOM_SHARE = 4

#: Seconds for which a gateway is told of a lost event, at least: nobody would tell it again.
REPORT_EXPIRY = 3600

#: Seconds for which a look that found nothing spares others, while notifications come through.
EMPTY_FOR = 4.0


class DatabaseChannelLayer(BaseChannelLayer):
    """
    A layer in the database of Django's alias `database`.

    On PostgreSQL, MariaDB and MySQL the app of this package makes the tables there (`manage.py
    migrate`); on SQLite the layer keeps them in `file`, or by default in a file beside the site's.
    Layers with different `prefix` share a database and see nothing of each other. `inbox_capacity`
    is how many messages a gateway may be behind; `heartbeat` and `lease` are the seconds between
    two signs of life of a process, and after which it is taken for dead; `lost` maps channel
    patterns to what becomes of a dead worker's message (see `layers/lost.py`); of the dead letters
    the `dead_letters` newest are kept. Every option may be written in capitals, as in CONFIG.
    """

    extensions = (
        "groups",
        "flush",
        "statistics",
        "inbox",
        "acknowledgement",
        "delay",
        "leases",
        "dead_letters",
    )
    sends_on_commit = True

    def __init__(
        self,
        database="default",
        file=None,
        prefix="channels",
        inbox_capacity=20000,
        heartbeat=5.0,
        lease=15.0,
        lost=None,
        retry_safe_requests=False,
        dead_letters=10000,
        **options,
    ):
        known = {
            "database": database,
            "file": file,
            "prefix": prefix,
            "inbox_capacity": inbox_capacity,
            "heartbeat": heartbeat,
            "lease": lease,
            "lost": lost,
            "retry_safe_requests": retry_safe_requests,
            "dead_letters": dead_letters,
        }
        for key in list(options):
            if key.isupper():
                value = options.pop(key)
                (known if key.lower() in known else options)[key.lower()] = value
        super().__init__(**options)
        if known["lease"] <= known["heartbeat"]:
            raise ImproperlyConfigured(
                "The layer's lease (%s s) must be longer than its heartbeat (%s s); three times is good."
                % (known["lease"], known["heartbeat"])
            )
        if not isinstance(known["dead_letters"], int) or known["dead_letters"] < 0:
            raise ImproperlyConfigured(
                "The layer's option dead_letters is how many of them are kept, 0 or more, not %r."
                % (known["dead_letters"],)
            )
        check_group_name(known["prefix"])
        self.database = known["database"]
        self.file = known["file"]
        self.prefix = known["prefix"]
        self.inbox_capacity = known["inbox_capacity"]
        self.heartbeat = known["heartbeat"]
        self.lease = known["lease"]
        self.lost_policy = LostPolicy(known["lost"], known["retry_safe_requests"])
        self.most_dead_letters = known["dead_letters"]
        self._lock = threading.RLock()
        self._store = None
        self._begin()
        _layers.add(self)

    def _begin(self):
        """The state that belongs to one process."""
        self._watcher = self._keeper = self._notifier = None
        self._process = None
        self._turn = 0
        self._rooms = {}  # queue to _Room
        self._held = {}  # slot to the number of the message that it holds
        self._unsure = set()  # slots whose last claim failed on the way
        self._empty = {}  # queues to (watcher's version, time) of a look that found nothing
        #: When (monotonic) a process in which no keeper runs shares its counters.
        self._share_at = time.monotonic() + self.heartbeat

    def _after_fork(self):
        """In the child: connections and threads are the parent's."""
        self._lock = threading.RLock()
        self.counters.after_fork()
        if self._store is not None:
            self._store.connections.after_fork()
            self._store.floors = type(self._store.floors)()
        self._gateways = {}
        self._begin()

    # The parts, each made when it is first needed.

    @property
    def store(self):
        if self._store is None:
            with self._lock:
                if self._store is None:
                    self._counted_in = self._database_name()
                    self._store = self._make_store()
        return self._store

    def _database_name(self):
        return aliases[self.database].settings_dict["NAME"]

    def _make_store(self):
        vendor = aliases[self.database].vendor
        if vendor == "sqlite":
            from .sqlite import SQLiteStore

            return SQLiteStore(self.database, self.prefix, file=self.file)
        if self.file is not None:
            raise ImproperlyConfigured(
                "The channel layer's option file is for SQLite; the database %r is not."
                % self.database
            )
        if vendor == "postgresql":
            from .postgresql import PostgreSQLStore

            return PostgreSQLStore(self.database, self.prefix)
        if vendor == "mysql":
            from .mysql import MySQLStore

            return MySQLStore(self.database, self.prefix)
        raise ImproperlyConfigured(
            "The channel layer works on PostgreSQL, MariaDB, MySQL and SQLite; the database %r is "
            "%s." % (self.database, vendor)
        )

    @property
    def watcher(self):
        if self._watcher is None:
            store = self.store
            with self._lock:
                if self._watcher is None:
                    watcher = Watcher(store)
                    watcher.subscribe("", self.keeper.poke)
                    self._watcher = watcher
        return self._watcher

    @property
    def keeper(self):
        if self._keeper is None:
            self.store  # noqa: B018
            with self._lock:
                if self._keeper is None:
                    self._keeper = Keeper(self)
        return self._keeper

    @property
    def notifier(self):
        if self._notifier is None:
            store = self.store
            with self._lock:
                if self._notifier is None:
                    self._notifier = Notifier(store)
        return self._notifier

    @property
    def process(self):
        """The lease of this process' workers; taken with the first claim."""
        if self._process is None:
            with self._lock:
                if self._process is None:
                    name = self.store.key("%s.%d" % (uuid.uuid4().hex[:12], os.getpid()))
                    self.keeper.hold(name)
                    self._process = name
        return self._process

    @property
    def due_every(self):
        """Seconds between two looks for what is due, at the least."""
        return 0.0 if self.store.notifies else 0.05

    @property
    def due_patience(self):
        """Seconds after which to look for what is due though nothing told of it."""
        watcher = self._watcher
        if watcher is not None and (watcher.listening or self.store.sees_changes):
            return self.heartbeat
        return 0.5

    def close(self):
        """
        End this process' threads and connections; the layer can be used again. For tests, and at
        exit.
        """
        for part in (self._watcher, self._keeper):
            if part is not None:
                part.stop()
        try:
            self._leave()
        except LayerUnavailable:
            pass  # its lease will run out
        with self._lock:
            self._begin()
            if self._store is not None:
                self._store.connections.close_idle()
                self._store = None

    def _leave(self):
        if self._notifier is not None:
            self._notifier.flush()
        process, self._process = self._process, None
        if process is not None:
            self.keeper.let_go(process)
            if not self._held:
                self.store.leave(process)
        # Unless it was counted in the database of a test runner, which has put back the site's.
        if self._store is not None and self._database_name() == self._counted_in:
            self.share()

    # Telling who waits.

    def topic(self, queue):
        """What is notified when something comes to `queue`; None where nobody is told."""
        if not self.store.notifies:
            return None
        name = self.store.name(queue)
        return topic(self.prefix, queue if name.endswith("!") else "work")

    def tell(self, queues, back=False):
        """Something has come to `queues`, apart from `deliver`; or has been put `back` at their heads."""
        if queues:
            topics = {self.topic(queue) for queue in queues} - {None}
            if back and topics:
                topics.add(topic(self.prefix, "back"))
            self.notifier.tell(topics)
            self.sent([{"queue": queue} for queue in queues])

    def sent(self, rows):
        """Rows have been committed: who waits in this process need not wait for the watcher."""
        watcher = self._watcher
        if watcher is not None and rows and not watcher.listening:
            watcher.changed({row["queue"] for row in rows})

    # Sending.

    def row(self, channel, message, pending=None):
        """
        (None, the row that puts `message` on `channel`), or (the ChannelFull to raise, None).
        `pending`, a Counter, keeps account of the rows of one batch by queue.
        """
        queue = self.store.key(inbox_of(channel) or channel)
        exempt = "!" in channel and "done" in message
        if not exempt and not self._has_room(queue, channel, pending):
            self.count("full")
            return ChannelFull("The channel %r is full." % channel), None
        return None, self._row(queue, channel, encode(message))

    def _row(self, queue, channel, body):
        return {
            "queue": queue,
            "channel": channel,
            "body": body,
            "expiry": self.expiries[channel],
        }

    def _has_room(self, queue, channel, pending=None):
        """
        Whether there is room for one more, beside those of `pending`. A look at the queue counts
        for some of the room that it found, so the bound is exact for one sender, and may be passed
        by a share of it where several send at once.
        """
        room = self._take_room(queue, channel, pending[queue] if pending is not None else 0)
        if room and pending is not None:
            pending[queue] += 1
        return room

    def _take_room(self, queue, channel, pending, connection=None):
        now = time.monotonic()
        with self._lock:
            room = self._rooms.get(queue)
            if room is None:
                if len(self._rooms) > 5000:
                    self._rooms.clear()
                room = self._rooms[queue] = _Room()
            if room.credit > 0 and now < room.until:
                room.credit -= 1
                return True
        capacity = self.capacities[channel]
        local = "!" in queue
        limit = max(capacity, self.inbox_capacity) if local else capacity
        count, gateway, first = self.store.room(queue, limit, room.floor, connection)
        count += pending
        if gateway:
            capacity = self.inbox_capacity
        with self._lock:
            if first is not None:
                room.floor = first - 1
            room.credit = max(0, (capacity - count) // ROOM_SHARE - 1)
            room.until = now + ROOM_FOR
        return count < capacity

    def deliver(self, channel, message):
        error, row = self.row(channel, message)
        if error is None:
            self._insert([row])
        self._share_now_and_then()
        if error is not None:
            raise error

    def _insert(self, rows):
        topics = {self.topic(row["queue"]) for row in rows} - {None}
        now = self.notifier.due(topics) if topics else ()
        self.store.insert(rows, now)
        if len(now) < len(topics):
            self.notifier.tell(topics.difference(now))
        self.count("sent", len(rows))
        self.sent(rows)

    # Receiving.

    def receive_many(self, channels, block=False):
        for channel in channels:
            check_channel_name(channel)
        return self._receive(channels, block, None)

    def claim(self, slot, channels, block=False):
        return self._receive(channels, block, slot)

    def _receive(self, channels, block, slot):
        store = self.store
        wanted = []
        for channel in channels:
            inbox = inbox_of(channel)
            name = channel if inbox is not None and inbox != channel else ""
            wanted.append((store.key(inbox or channel), name))
        if not wanted:
            return None, None
        if slot is not None:
            self._settle(slot)
        queues = tuple(queue for queue, _ in wanted)
        if not block:
            self.keeper.send_due()
            return self._look(wanted, slot)
        deadline = time.monotonic() + self.block_for
        watcher = self.watcher
        self.keeper.start()
        why = None
        while True:
            version = watcher.version
            known = None if why == "changed" else self._known_empty(watcher, queues, version)
            if not known:
                try:
                    found = self._look(wanted, slot)
                except LayerUnavailable:
                    self._empty.pop(queues, None)
                    raise
                if found[0] is not None:
                    if known is False:
                        # Those for whom this thread looked have gone to wait.
                        self._empty.pop(queues, None)
                        watcher.changed(set(queues))
                    elif why == "changed":
                        watcher.found(queues)
                    return found
                self._empty[queues] = (version, time.monotonic())
            elif slot is not None:
                self.acknowledge(slot)
            why = watcher.wait(queues, version, max(0.0, deadline - time.monotonic()), slot)
            if why != "changed":
                return None, None

    def _known_empty(self, watcher, queues, version):
        """
        Whether a look just now found nothing, and no notification has come since. False: it was some time
        ago, so the caller is to look, and does so for all; None: nothing is known.
        """
        now = time.monotonic()
        with self._lock:
            if len(self._empty) > 1000:
                self._empty.clear()
            if not watcher.listening:
                return None
            known = self._empty.get(queues)
            if known is None or known[0] != version:
                return None
            if now - known[1] < EMPTY_FOR:
                return True
            self._empty[queues] = (version, now)
            return False

    def _look(self, wanted, slot):
        """One look: each of the channels in turn, whichever stood first last time."""
        self._turn += 1
        turn = self._turn % len(wanted)
        wanted = wanted[turn:] + wanted[:turn]
        if slot is None:
            found = self.store.take(wanted)
        else:
            found = self._claim(slot, wanted)
        if found is None:
            return None, None
        _, _, channel, body, losses = found
        message = decode(body)
        if losses:
            message["redelivered"] = True
        return channel, message

    def _claim(self, slot, wanted):
        try:
            found = self.store.claim(slot, self.process, wanted)
        except LayerUnavailable:
            # The claim may have been carried out: what it took goes back, and is not taken as done.
            self._unsure.add(slot)
            raise
        if found is None:
            self.acknowledge(slot)
        else:
            self._held[slot] = found[0]
        return found

    def _settle(self, slot):
        """After a claim of which nobody knows how it ended: put back what it took, if anything."""
        if slot in self._unsure:
            queue = self.store.release(slot, self._held.get(slot), self.expiries.__getitem__)
            self._unsure.discard(slot)
            self._held.pop(slot, None)
            if queue is not None:
                self.tell([queue], back=True)

    # Acknowledgement.

    def acknowledge(self, slot):
        self._settle(slot)
        if slot in self._held:
            self.store.acknowledge(slot)
            self._held.pop(slot, None)

    def requeue(self, slot):
        self._settle(slot)
        if self._held.pop(slot, None) is not None:
            queue = self.store.release(slot, None, self.expiries.__getitem__)
            if queue is not None:
                self.tell([queue], back=True)

    def wake(self, slot):
        self.watcher.wake(slot)

    def judge(self, channel, body, losses):
        """What becomes of a dead worker's message: for `Store.reap`."""
        message = decode(body)
        losses += 1
        policy = self.lost_policy.decide(channel, message, losses)
        if policy == REPORT:
            self.count("lost_reported")
            return [("insert", self._report(message))]
        if policy == RETRY:
            self.count("lost_retried")
            expiry = self.expiries[channel]
            return [("back", {"body": body, "losses": losses, "expiry": expiry})]
        self.count("lost_dead")
        logger.error(
            "A worker was lost with a message of %s: it is among the dead letters.", channel
        )
        return [("bury", {"body": body, "losses": losses, "reason": "lost"})]

    def report_expired(self, body):
        """
        The row that tells the gateway of an event that it expired, or None if no gateway waits: for
        `Store.expire`.
        """
        message = decode(body)
        if "exchange" not in message or "reply_channel" not in message:
            return None
        return self._report(message)

    def _report(self, message):
        reply_channel = message["reply_channel"]
        queue = self.store.key(inbox_of(reply_channel) or reply_channel)
        row = self._row(queue, reply_channel, encode({"lost": message["exchange"]}))
        return dict(row, expiry=max(row["expiry"], REPORT_EXPIRY))

    # Dead letters.

    def dead_letters(self):
        """A list of DeadLetter, the oldest first: messages that were lost with their workers."""
        return [
            DeadLetter(str(number), channel, decode(body), reason, died)
            for number, channel, body, reason, died in self.store.dead()
        ]

    def requeue_dead_letters(self, ids=None):
        """
        Send dead letters (all, or those of `ids`) again, whatever the capacity. Returns how many.
        """
        queues = [
            self.store.requeue_dead(number, self.expiries.__getitem__)
            for number in self._dead_ids(ids)
        ]
        queues = [queue for queue in queues if queue is not None]
        self.tell(set(queues))
        return len(queues)

    def drop_dead_letters(self, ids=None):
        """Remove dead letters (all, or those of `ids`). Returns how many."""
        return sum(self.store.drop_dead(number) for number in self._dead_ids(ids))

    def _dead_ids(self, ids):
        return self.store.dead_ids() if ids is None else [int(each) for each in ids]

    # Delay.

    def send_later(self, channel, message, delay):
        check_channel_name(channel)
        body = encode(clean(message))
        self.store.delay(self.store.key(inbox_of(channel) or channel), channel, body, delay)
        self.keeper.expect(delay)
        if self.store.notifies:
            self.notifier.tell({topic(self.prefix, "delay")})

    def accept_due(self, channel, body, connection):
        """The row that puts a delayed message on its channel, or None where that is full."""
        queue = self.store.key(inbox_of(channel) or channel)
        if not self._take_room(queue, channel, 0, connection):
            self.count("delayed_full")
            return None
        return self._row(queue, channel, body)

    # Groups.

    def group_add(self, group, channel):
        self._change_group(self.store.group_add, "group_add", group, channel)

    def group_discard(self, group, channel):
        self._change_group(self.store.group_discard, "group_discard", group, channel)

    def _change_group(self, change, verb, group, channel):
        check_group_name(group)
        inbox = inbox_of(check_channel_name(channel))
        gateway = self.store.key(inbox) if inbox else ""
        record = self._row(gateway, channel, encode({verb: group})) if gateway else None
        if change(self.store.key(group), gateway, channel, record):
            self.tell([gateway])

    def group_channels(self, group):
        return self.store.group_channels(self.store.key(check_group_name(group)))

    def deliver_group(self, group, message):
        key = self.store.key(group)
        gateways, members = self.store.group_routes(key)
        rows, pending = [], Counter()
        if gateways:
            body = encode({"group": group, "message": message})
            for queue in gateways:
                name = self.store.name(queue)
                if self._has_room(queue, name, pending):
                    rows.append(self._row(queue, name, body))
                else:
                    self.count("group_full", self.store.group_members(key, queue))
        if members:
            body = encode(message)
            for channel in members:
                queue = self.store.key(inbox_of(channel) or channel)
                if self._has_room(queue, channel, pending):
                    rows.append(self._row(queue, channel, body))
                else:
                    self.count("group_full")
        if rows:
            self._insert(rows)
        self._share_now_and_then()

    # Flush and statistics.

    def flush(self):
        def reset(queue):
            return self._row(queue, self.store.name(queue), encode({"reset": True}))

        gateways = self.store.flush(reset)
        self.counters.reset_shared()
        with self._lock:
            self._rooms.clear()
        self.tell(gateways)

    def global_statistics(self):
        """
        As the ASGI 1.0 specification names them: messages_count, messages_pending, messages_max_age,
        channel_full_count; and messages_held (by workers), messages_expired, dead_letters; "counters" is a
        dict of what the `statistics` of all processes count, as of their last heartbeats.
        """
        statistics = self._describe(self.store.pending())
        counters = self._counters_of_all()
        statistics["messages_count"] = counters.pop("sent", 0)
        statistics["messages_held"] = self.store.count_held()
        statistics["messages_expired"] = counters.pop("expired", 0)
        statistics["dead_letters"] = self.store.count_dead()
        statistics["channel_full_count"] = counters.get("full", 0)
        statistics["counters"] = counters
        return statistics

    def _counters_of_all(self):
        return self.counters.total(self.store.counters)

    def share(self):
        """
        Add what this process counted since it last did to the counters of all processes; the keeper does
        so with each beat.
        """
        self.counters.share(self.store.add_counters)

    def _share_now_and_then(self):
        """For a process that sends and no more, so that no keeper runs."""
        now = time.monotonic()
        if now < self._share_at or (self._keeper is not None and self._keeper.runs):
            return
        self._share_at = now + self.heartbeat
        try:
            self.share()
        except LayerUnavailable as error:
            logger.debug("The counters were not shared: %s", error)

    def channel_statistics(self, channel):
        check_channel_name(channel)
        queue = self.store.key(inbox_of(channel) or channel)
        return self._describe([each for each in self.store.pending() if each[0] == queue])

    def _describe(self, pending):
        ages = [self.expiries[self.store.name(queue)] - seconds for queue, _, seconds in pending]
        return {
            "messages_pending": sum(count for _, count, _ in pending),
            "messages_max_age": max(ages + [0.0]),
        }

    # The gateway's end.

    def open_inbox(self, name):
        from .inbox import DatabaseInbox

        return DatabaseInbox(self, check_channel_name(name))


class _Room:
    """What is known of the room on one queue."""

    __slots__ = ("credit", "floor", "until")

    def __init__(self):
        self.credit = 0
        self.floor = 0
        self.until = 0.0


_layers = weakref.WeakSet()


def _forked():
    for layer in list(_layers):
        layer._after_fork()


def _at_exit():
    """What is owed to readers is told; and a worker process that holds nothing leaves in order."""
    for layer in list(_layers):
        try:
            layer._leave()
        except Exception:
            logger.debug("The layer %s was left without a word", layer, exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
atexit.register(_at_exit)

"""
RedisChannelLayer: the contract's calls for any thread, each a script or two. What lies under which key is
told in keys.py; the gateway's end is in inbox.py.
"""

import os
import time
import uuid
import weakref
from collections import defaultdict
from functools import lru_cache

from . import recovery
from .codec import Unreadable, make_codec
from .contract import (
    BaseChannelLayer,
    ChannelFull,
    DeadLetter,
    LayerUnavailable,
    LostPolicy,
    check_channel_name,
    check_group_name,
    clean,
    inbox_of,
)
from .inbox import RedisInbox
from .keys import Keys
from .leases import Leases
from .recovery import logger
from .scripts import run
from .servers import make_servers
from .slots import CHANNEL as SEVERAL
from .slots import Slot, Watch

#: Bytes before the channel in an entry: when it expires, and how often its worker was lost.
HEAD = 14

#: Keys, or members, that one command names at the most.
BATCH = 200

#: Seconds between two looks where nothing can wake the reader: at several partitions at once.
GLANCE = 0.1

#: Seconds between two looks of a plain reader, woken or not: the token that was to wake it may have gone to
#: a process that was killed, or stopped, as it waited. (For workers, each heartbeat looks after that.)
LOOK = 2.0


class RedisChannelLayer(BaseChannelLayer):
    """
    The channel layer on Redis 6.2 or newer, or Valkey. Making one connects to nothing.

    `hosts` is a list with one URL (`redis://`, `rediss://`, `unix://`) or (host, port); with `cluster`, of
    some nodes of a Redis Cluster. `sentinels`, a list of (host, port), and `service` take its place.
    `prefix` begins every key; layers of one site share it. `partitions` (1; on a cluster 16) must be the
    same in all processes. `symmetric_encryption_keys`: see codec.py. `heartbeat` and `lease` are in seconds;
    `lost` maps channel patterns to what becomes of a dead worker's message ("report", "retry" or
    "dead-letter"), and `retry_safe_requests` lets a GET or HEAD run once more; `dead_letters` is how many
    are kept, the newest. `inbox_capacity` is how many messages a gateway may be behind. `socket_timeout`,
    `socket_connect_timeout` (seconds), `pool_size` (idle connections kept), `connection_kwargs` and
    `sentinel_kwargs` go to redis-py. The rest is BaseChannelLayer's.
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
    crosses_processes = True
    #: A worker is woken when it has to end, so it need not look around often.
    block_for = 10.0

    def __init__(
        self,
        hosts=None,
        prefix="asgi:",
        symmetric_encryption_keys=None,
        cluster=False,
        sentinels=None,
        service=None,
        partitions=None,
        inbox_capacity=20000,
        heartbeat=5.0,
        lease=15.0,
        lost=None,
        retry_safe_requests=False,
        dead_letters=10000,
        socket_timeout=10.0,
        socket_connect_timeout=5.0,
        pool_size=64,
        connection_kwargs=None,
        sentinel_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.servers = make_servers(
            hosts,
            cluster,
            sentinels,
            service,
            sentinel_kwargs,
            connection_kwargs,
            socket_timeout,
            socket_connect_timeout,
            pool_size,
        )
        self.keys = Keys(prefix, partitions or (16 if cluster else 1))
        self.codec = make_codec(symmetric_encryption_keys)
        self.inbox_capacity = inbox_capacity
        self.policy = LostPolicy(lost, retry_safe_requests)
        if not isinstance(dead_letters, int) or dead_letters < 0:
            raise ValueError(
                "dead_letters is how many are kept, 0 or more, not %r." % (dead_letters,)
            )
        self.dead_letters_kept = dead_letters
        self.notices = recovery.Notices(dead_letters)
        self.leases = Leases(self, heartbeat, lease)
        self._turn = 0
        self._slots = {}
        self._watch = Watch(self._settle_slot)
        self.place = lru_cache(maxsize=1024)(self._place)
        self._claim_keys = lru_cache(maxsize=64)(self._make_claim_keys)
        _layers.add(self)

    def _forked(self):
        """In a child process: no connection, lease or lock of the parent's is used."""
        self.counters.after_fork()
        self.servers.forked()
        self.leases.forked()
        self.codec.forked()
        self.notices = recovery.Notices(self.dead_letters_kept)
        self._slots = {}
        self._watch.forked()
        self._gateways = {}
        self._claim_keys.cache_clear()

    def close(self):
        """Close the connections and end the lease's thread. A later call opens them again."""
        self.leases.stop()
        self.leases.forked()
        self._claim_keys.cache_clear()
        self.servers.close()

    # Sending.

    def _place(self, channel):
        """(partition, queue, wake list, capacity, milliseconds to expiry, kind, inbox or None) of it."""
        return self.keys.queue(channel) + (
            self.capacities[channel],
            int(self.expiries[channel] * 1000),
            self.keys.kind(channel),
            inbox_of(channel),
        )

    def encode(self, channel, message):
        """What is sent: channel, newline, payload. A group's or an inbox's own channel is ""."""
        name = channel.encode()
        return name + b"\n" + self.codec.pack(message, name)

    def decode(self, body):
        """(channel, message or None) of what `encode` made; logs what cannot be read."""
        name, _, payload = body.partition(b"\n")
        channel = name.decode("ascii", "replace")
        try:
            return channel, self.codec.unpack(payload, name)
        except Unreadable as error:
            self.count("unreadable")
            logger.error(
                "A message on %s cannot be read: %s. It is put among the dead letters.",
                channel or "an inbox",
                error,
            )
            return channel, None

    def read_entry(self, entry):
        """(channel, message or None, times its worker was lost) of an entry of a queue."""
        channel, message = self.decode(entry[HEAD:])
        losses = int(entry[HEAD - 1 : HEAD])
        if losses and message is not None:
            message["redelivered"] = True
        return channel, message, losses

    def deliver(self, channel, message):
        forced = "done" in message or "lost" in message
        self._deliver(channel, self.encode(channel, message), forced)

    def deliver_raw(self, body):
        """Send what `encode` made before."""
        self._deliver(body.partition(b"\n")[0].decode(), body, False)

    def _deliver(self, channel, body, forced):
        command = self.send_command(channel, body, forced)
        reply = self.servers.call(command)
        if reply != (1 if "!" in channel else 0):
            self.refuse(channel)

    def send_command(self, channel, body, forced=False):
        """The command that sends `body`; one that is `forced` finds no channel full."""
        partition, queue, wake, capacity, expiry, kind, inbox = (
            self.place(channel)
            if "!" not in channel and "?" not in channel
            else self._place(channel)
        )
        if inbox is None:
            keys = self.keys.sending[partition] + (queue, wake)
            return run("send", keys, (-1 if forced else capacity, expiry, kind, body))
        stat = self.keys.tags[partition] + "stat"
        _, register, stream, _ = self.keys.inbox(inbox)
        return run(
            "tell",
            (stat, register, stream, queue, wake),
            (
                -1 if forced else self.inbox_capacity,
                -1 if forced else capacity,
                expiry,
                body,
            ),
        )

    def refuse(self, channel):
        """Count and raise ChannelFull."""
        self.count("full")
        raise ChannelFull("The channel %r is full." % channel)

    # Receiving.

    def receive_many(self, channels, block=False):
        for channel in channels:
            check_channel_name(channel)
        plan = self._receive_plan(channels)
        # The tokens of a wake list that channels share may go to another channel's reader.
        alone = len(plan) == 1 and not any(plan[0][2])
        deadline = time.monotonic() + self.block_for
        while True:
            found = self._receive_once(plan)
            if found is not None:
                return found
            remaining = deadline - time.monotonic()
            if not block or remaining <= 0 or not plan:
                return None, None
            if not alone:
                remaining = min(remaining, GLANCE)
            remaining = max(0.01, min(remaining, LOOK))
            _, _, _, wakes = plan[self._turn % len(plan)]
            self.servers.wait(("BLPOP",) + wakes + (remaining,), remaining)

    def _receive_plan(self, channels):
        """By partition: (own keys, queues and wake lists, the channel wanted of each or "", wake lists)."""
        parts = {}
        for channel in channels:
            partition, queue, wake = self.keys.queue(channel)
            inbox = inbox_of(channel)
            wanted = channel if inbox and inbox != channel else ""
            part = parts.setdefault(partition, ([], [], []))
            part[0].extend((queue, wake))
            part[1].append(wanted)
            part[2].append(wake)
        return [
            (
                self.keys.sending[partition][:2],
                tuple(keys),
                wanted,
                tuple(dict.fromkeys(wakes)),
            )
            for partition, (keys, wanted, wakes) in parts.items()
        ]

    def _receive_once(self, plan):
        self._turn += 1
        for step in range(len(plan)):
            own, keys, wanted, _ = plan[(self._turn + step) % len(plan)]
            while True:
                entry = self.servers.call(
                    run("receive", own + keys, [self._turn % len(wanted)] + wanted)
                )
                if entry is None:
                    break
                channel, message, _ = self.read_entry(entry)
                if message is not None:
                    return channel, message
                self.bury_entry(entry)
        return None

    # Acknowledgement.

    def claim(self, slot, channels, block=False):
        made = self._claim_keys(tuple(channels))
        if made is None:
            return self._claim_apart(slot, channels, block)
        keys, wakes, several = made
        state = self._slot(slot)
        state.end()
        self.leases.ensure()
        deadline = time.monotonic() + self.block_for
        if state.is_late:
            self._send_answers(state)
        while True:
            entry = state.begin()
            if entry is None and self._claim_more(state, keys, several):
                entry = state.begin()
            if entry is not None:
                channel, message, _ = self.read_entry(entry)
                if message is not None:
                    state.channel = channel
                    return channel, message
                self.bury(state.current, "unreadable")
                state.end()
                continue
            remaining = deadline - time.monotonic()
            if not block or remaining <= 0:
                return None, None
            remaining = max(0.01, remaining)
            wake = self.keys.wake(slot)
            token = self.servers.wait(("BLPOP",) + wakes + (wake, remaining), remaining)
            if token is None or token[0] == wake.encode():
                return None, None

    def _slot(self, name):
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = Slot(name)
        return slot

    def _claim_more(self, state, keys, several):
        """One round trip: what was answered and done goes, what is next comes. Returns whether any came."""
        self._turn += 1
        commands = self._answer_commands(state.answers) + self._return_commands(state.returned)
        commands.append(
            run(
                "claim",
                keys,
                [state.name, self.leases.holder, self.leases.milliseconds, self._turn]
                + [several, state.wanted]
                + state.done,
            )
        )
        if len(commands) == 1:
            entries = self.servers.call(commands[0])
        else:
            entries = self.servers.call_many(commands)[-1]
        with state.lock:
            state.took(entries or ())
            if len(state.ahead) > 1:
                self._watch.over(state)
        return bool(entries)

    def _send_answers(self, state):
        """What was answered has waited long enough: it goes now, and what was claimed ahead stays."""
        commands = self._answer_commands(state.answers) + self._return_commands(state.returned)
        commands.append(("HDEL", self.keys.held(self.leases.process)) + tuple(state.done))
        self.servers.call_many(commands)
        with state.lock:
            state.sent()

    def _answer_commands(self, answers):
        """The commands that send last answers: one for each gateway."""
        bodies = {}
        for channel, body in answers:
            bodies.setdefault(inbox_of(channel) or channel, []).append((channel, body))
        commands = []
        for name, several in bodies.items():
            if name[-1] != "!":
                commands += [self.send_command(*each, forced=True) for each in several]
                continue
            partition, queue, wake, _, expiry, _, _ = self._place(several[0][0])
            _, register, stream, _ = self.keys.inbox(name)
            stat = self.keys.tags[partition] + "stat"
            commands.append(
                run(
                    "answer",
                    (stat, register, stream, queue, wake),
                    [expiry] + [body for _, body in several],
                )
            )
        return commands

    def _settle_slot(self, state):
        """Send what was answered, acknowledge what is done, give back what was claimed ahead."""
        # If the reply gets lost it is not known who has what was given back: not this thread.
        state.give_back()
        commands = self._answer_commands(state.answers) + self._return_commands(state.returned)
        if state.done:
            commands.append(("HDEL", self.keys.held(self.leases.process)) + tuple(state.done))
        if commands:
            self.servers.call_many(commands)
        state.sent()

    def _return_commands(self, returned):
        """The commands that put back what was claimed ahead; for what is back already they do nothing."""
        held = self.keys.held(self.leases.process)
        commands = []
        for field, entry in returned:
            channel = entry[HEAD:].partition(b"\n")[0].decode()
            commands.append(self._release_command(held, field, channel))
        return commands

    def _make_claim_keys(self, channels):
        """
        (keys of claim.lua, wake lists, which channel, from 1, gives several messages; 0: none), or None where
        the channels lie in several partitions.
        """
        keys, wakes = [], []
        for channel in channels:
            check_channel_name(channel)
            partition, queue, wake = self.keys.queue(channel)
            if partition or inbox_of(channel) not in (None, channel):
                return None
            keys += [queue, wake]
            wakes.append(wake)
        first = [self.keys.held(self.leases.process), self.keys.leases]
        first += self.keys.sending[0][:2]
        several = channels.index(SEVERAL) + 1 if SEVERAL in channels else 0
        return tuple(first + keys), tuple(wakes), several

    def _claim_apart(self, slot, channels, block):
        """Of channels in several partitions, a message is forgotten as it is handed out."""
        self.acknowledge(slot)
        return self.receive_many(list(channels), block)

    def finish(self, slot, channel, message):
        """It leaves with the next claim that goes to the server, or after slots.PATIENCE."""
        state = self._slot(slot)
        with state.lock:
            state.answers.append((channel, self.encode(channel, message)))

    def acknowledge(self, slot):
        state = self._slot(slot)
        state.end()
        self._settle_slot(state)

    def requeue(self, slot):
        state = self._slot(slot)
        with state.lock:
            field, state.current = state.current, None
        self._settle_slot(state)
        if field is not None:
            self.put_back(field, state.channel)

    def put_back(self, slot, channel, losses=0):
        """What `slot` holds goes back to the head of `channel`, having lost so many more workers."""
        held = self.keys.held(self.leases.process)
        self.servers.call(self._release_command(held, slot, channel, losses))

    def _release_command(self, held, slot, channel, losses=0):
        _, queue, wake, _, expiry, _, _ = self.place(channel)
        return run("release", (held, queue, wake, self.keys.queues), (slot, losses, expiry))

    def wake(self, slot):
        key = self.keys.wake(slot)
        try:
            self.servers.call_many([("RPUSH", key, "1"), ("PEXPIRE", key, 60000)])
        except LayerUnavailable:
            pass  # then a claim that waits has ended already

    # Dead letters.

    def forget(self, slot):
        """What `slot` holds, for a worker that was lost, is dealt with."""
        self.servers.call(("HDEL", self.keys.held(self.leases.process), slot))

    def bury(self, slot, reason):
        """Move what `slot` holds to the dead letters."""
        keys = (self.keys.held(self.leases.process), self.keys.dead)
        self.buried(self.servers.call(run("bury", keys, (slot, reason, self.dead_letters_kept))))

    def bury_entry(self, entry):
        self.buried(self.servers.call(self.bury_command(entry)))

    def bury_command(self, entry):
        """The command that puts what cannot be read among the dead letters; `buried` takes its answer."""
        keys = (self.keys.held(self.leases.process), self.keys.dead)
        return run("bury", keys, ("", "unreadable", self.dead_letters_kept, entry))

    def buried(self, dropped):
        """So many dead letters were dropped for a newer one."""
        if dropped:
            self.count("dead_letters_dropped", dropped)
            self.notices.dropped(dropped)

    def _letters(self):
        """(id, reason, entry) of each dead letter, the oldest first."""
        start = "-"
        while True:
            found = self.servers.call(run("letters", (self.keys.dead,), (start, BATCH)))
            for index in range(0, len(found), 3):
                yield found[index].decode(), found[index + 1].decode(), found[index + 2]
            if len(found) < 3 * BATCH:
                return
            start = found[-3].decode()

    def dead_letters(self):
        """A list of DeadLetter, the oldest first: messages whose workers died, or that nobody can read."""
        letters = []
        for number, reason, entry in self._letters():
            name, _, payload = entry[HEAD:].partition(b"\n")
            try:
                message = self.codec.unpack(payload, name)
            except Unreadable:
                message = None
            seconds = int(number.partition("-")[0]) / 1000.0
            letters.append(
                DeadLetter(number, name.decode("ascii", "replace"), message, reason, seconds)
            )
        return letters

    def requeue_dead_letters(self, ids=None):
        """
        Put the dead letters of these ids (a list; without it all) back on their channels, at the end and
        as new. Returns how many.
        """
        count = 0
        for number, _, entry in list(self._letters()):
            channel = entry[HEAD:].partition(b"\n")[0].decode("ascii", "replace")
            if (ids is not None and number not in ids) or not channel:
                continue
            partition, queue, wake, _, expiry, _, _ = self._place(channel)
            if partition:
                self.deliver_raw(entry[HEAD:])
                count += self.drop_dead_letters([number])
            else:
                count += self.servers.call(
                    run(
                        "requeue",
                        (self.keys.dead, queue, wake, self.keys.queues),
                        (number, expiry),
                    )
                )
        return count

    def drop_dead_letters(self, ids=None):
        """Remove the dead letters of these ids (a list; without it all). Returns how many."""
        ids = [number for number, _, _ in self._letters()] if ids is None else list(ids)
        count = 0
        for index in range(0, len(ids), BATCH):
            count += self.servers.call(("XDEL", self.keys.dead) + tuple(ids[index : index + BATCH]))
        return count

    # Delay.

    def send_later(self, channel, message, delay):
        body = self.encode(check_channel_name(channel), clean(message))
        self.servers.call(
            run(
                "later",
                (self.keys.delay, self.keys.delay_wake),
                (max(0, int(delay * 1000)), uuid.uuid4().hex[:16].encode() + body),
            )
        )
        # Somebody has to look at the time: if there is no worker and no gateway, this process.
        self.leases.ensure()

    # Groups.

    def group_add(self, group, channel):
        check_group_name(group)
        inbox = inbox_of(check_channel_name(channel))
        partition, routes, others = self.keys.group(group)
        if inbox is not None:
            home, register, stream, groups = self.keys.inbox(inbox)
            number = self.servers.call(
                run(
                    "group_add",
                    [register, stream, self.keys.members(inbox, group), groups]
                    + [routes] * (home == partition),
                    [channel, group, self.encode(channel, {"group_add": group}), inbox, home],
                )
            )
            if number >= 0:
                if home != partition:
                    self.servers.call(run("route", [routes], [inbox, home, number]))
                return
        self.servers.call(("ZADD", others, int(time.time()), channel))

    def group_discard(self, group, channel):
        check_group_name(group)
        inbox = inbox_of(check_channel_name(channel))
        partition, routes, others = self.keys.group(group)
        if inbox is not None:
            record = self.encode(channel, {"group_discard": group})
            number = self.servers.call(self.discard_command(group, channel, record))
            if number > 0 and self.keys.partition(inbox) != partition:
                self.servers.call(run("unroute", [routes], [inbox, number]))
            if number >= 0:
                return
        self.servers.call(("ZREM", others, channel))

    def discard_command(self, group, channel, record=b""):
        """The command that takes a gateway's channel out of a group."""
        inbox = inbox_of(channel)
        partition, routes, _ = self.keys.group(group)
        home, register, stream, groups = self.keys.inbox(inbox)
        return run(
            "group_discard",
            [register, stream, self.keys.members(inbox, group), groups]
            + [routes] * (home == partition),
            [channel, group, record, inbox],
        )

    def unroute(self, group, inbox):
        """The gateway has no members of `group` any more."""
        self.servers.call(run("unroute", [self.keys.group(group)[1]], [inbox, -1]))

    def group_channels(self, group):
        check_group_name(group)
        _, routes, others = self.keys.group(group)
        inboxes, plain = self.servers.call_many([("HKEYS", routes), ("ZRANGE", others, 0, -1)])
        found = [name.decode() for name in plain]
        for inbox in inboxes:
            members = self.servers.call(("SMEMBERS", self.keys.members(inbox.decode(), group)))
            found += [name.decode() for name in members]
        return found

    def deliver_group(self, group, message):
        partition, routes, others = self.keys.group(group)
        tag = self.keys.tags[partition]
        record = self.encode("", {"group": group, "message": message})
        skipped, elsewhere, plain = self.servers.call(
            run(
                "group_send",
                (routes, others, tag + "stat"),
                (record, tag, partition, self.inbox_capacity, group, int(self.group_expiry)),
            )
        )
        if elsewhere:
            skipped += self._scatter(group, record, [name.decode() for name in elsewhere[1::2]])
        if plain:
            skipped += self._send_to_all([name.decode() for name in plain], message)
        if skipped:
            self.count("group_full", skipped)

    def _scatter(self, group, record, inboxes):
        """Into inboxes of other partitions than the group's. Returns how many members were skipped."""
        parts = defaultdict(list)
        for inbox in inboxes:
            home, register, stream, _ = self.keys.inbox(inbox)
            parts[home] += [register, stream, self.keys.members(inbox, group)]
        return sum(
            self.servers.call_many(
                [run("scatter", keys, (record, self.inbox_capacity)) for keys in parts.values()]
            )
        )

    def _send_to_all(self, channels, message):
        """To members that no gateway holds. Returns how many were full."""
        skipped = 0
        for start in range(0, len(channels), BATCH):
            some = channels[start : start + BATCH]
            commands = [self.send_command(each, self.encode(each, message)) for each in some]
            replies = self.servers.call_many(commands)
            skipped += sum(
                reply != (1 if "!" in channel else 0) for channel, reply in zip(some, replies)
            )
        return skipped

    # Flush and statistics.

    def flush(self):
        """Remove every message and membership of this prefix; open gateways are told, leases stay."""
        kept = tuple(
            (tag + kind).encode()
            for tag in self.keys.tags
            for kind in ("leases", "seen", "epoch", "g:", "i:")
        )
        for pattern in self.keys.patterns():
            doomed = defaultdict(list)
            for key in self.servers.scan(pattern):
                if not key.startswith(kept):
                    doomed[key.partition(b"}")[0]].append(key)
            for keys in doomed.values():
                for start in range(0, len(keys), BATCH):
                    self.servers.call(("UNLINK",) + tuple(keys[start : start + BATCH]))
        for holder in self.servers.call(("ZRANGE", self.keys.leases, 0, -1)):
            if holder.startswith(b"g:"):
                inbox = holder[2:].partition(b"|")[0].decode()
                self.servers.call(("XTRIM", self.keys.inbox(inbox)[2], "MAXLEN", 0))
                self.servers.call(self.attend_command(inbox, 1, (0, 0), True))

    def attend_command(self, inbox, beat, last, lost, token=""):
        """The command that says that a gateway is there, as attend.lua tells."""
        home, register, stream, groups = self.keys.inbox(inbox)
        _, queue, wake = self.keys.queue(inbox)
        record = self.encode("", {"reset": True})
        return run(
            "attend",
            (register, stream, groups, queue, wake),
            (
                beat,
                last[0],
                last[1],
                record,
                "1" if lost else "",
                self.keys.tags[home],
                inbox,
                token,
            ),
        )

    def global_statistics(self):
        """
        As the ASGI 1.0 specification names them: messages_count, messages_pending, messages_max_age,
        channel_full_count; and messages_held (by workers), messages_expired, dead_letters; "counters" is a
        dict of what the `statistics` of all processes count, as of their last heartbeats.
        """
        found = defaultdict(list)
        for pattern in self.keys.patterns(("q", "i")):
            for key in self.servers.scan(pattern):
                found[key.partition(b"}")[0]].append(key)
        pending, age = 0, 0.0
        for keys in found.values():
            for start in range(0, len(keys), BATCH):
                some = self._describe(keys[start : start + BATCH])
                pending, age = pending + some[0], max(age, some[1])
        held = 0
        for pattern in self.keys.patterns(("f",))[:1]:
            for key in self.servers.scan(pattern):
                held += self.servers.call(("HLEN", key))
        counts = defaultdict(int)
        for tag in self.keys.tags:
            names = ("sent", "full", "expired")
            for name, value in zip(names, self.servers.call(("HMGET", tag + "stat") + names)):
                counts[name] += int(value or 0)
        return {
            "messages_count": counts["sent"],
            "messages_pending": pending,
            "messages_max_age": age,
            "messages_held": held,
            "messages_expired": counts["expired"],
            "channel_full_count": counts["full"],
            "dead_letters": self.servers.call(("XLEN", self.keys.dead)),
            "counters": self._counters_of_all(),
        }

    def add_to_counters(self, counts):
        """Add what this process counted to the counters of all processes, under "+NAME" in the statistics."""
        self.servers.call_many(
            [("HINCRBY", self.keys.stat, "+" + name, number) for name, number in counts.items()]
        )

    def _counters_of_all(self):
        reply = self.servers.call(("HGETALL", self.keys.stat))
        # A cluster's client makes a dict of it.
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        return {name[1:].decode(): int(value) for name, value in pairs if name[:1] == b"+"}

    def channel_statistics(self, channel):
        check_channel_name(channel)
        keys = [self.keys.queue(channel)[1]]
        inbox = inbox_of(channel)
        if inbox is not None:
            keys.append(self.keys.inbox(inbox)[2])
        pending, age = self._describe(keys)
        return {"messages_pending": pending, "messages_max_age": age}

    def _describe(self, keys):
        """(messages, seconds that the oldest has waited) in queues and inboxes of one partition."""
        now, *rows = self.servers.call(run("describe", keys))
        pending, age = 0, 0.0
        for count, stamp, channel in zip(rows[::3], rows[1::3], rows[2::3]):
            pending += count
            if not stamp:
                continue
            came = int(stamp)
            if channel:
                came -= int(self.expiries[channel.decode("ascii", "replace")] * 1000)
            age = max(age, (now - came) / 1000.0)
        return pending, age

    # The gateway's end.

    def open_inbox(self, name):
        check_channel_name(name)
        if not name.endswith("!"):
            raise ValueError("An inbox has a process-local name, which ends in '!', not %r." % name)
        return RedisInbox(self, name)


_layers = weakref.WeakSet()


def _after_fork():
    for layer in list(_layers):
        layer._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

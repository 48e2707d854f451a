"""RedisChannelLayer: the contract's calls for any thread, over the primitives of store.py."""

import os
import time
import weakref

from . import entry, recovery
from .codec import Unreadable, make_codec
from .contract import (
    BaseChannelLayer,
    ChannelFull,
    DeadLetter,
    LostPolicy,
    check_channel_name,
    check_group_name,
    clean,
    protocol,
)
from .inbox import RedisInbox
from .keys import Keys
from .leases import Leases
from .recovery import logger
from .servers import make_servers
from .store import RedisStore


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
        if not isinstance(dead_letters, int) or dead_letters < 0:
            raise ValueError(
                "dead_letters is how many are kept, 0 or more, not %r." % (dead_letters,)
            )
        self.store = RedisStore(
            make_servers(
                hosts,
                cluster,
                sentinels,
                service,
                sentinel_kwargs,
                connection_kwargs,
                socket_timeout,
                socket_connect_timeout,
                pool_size,
            ),
            Keys(prefix, partitions or (16 if cluster else 1)),
            make_codec(symmetric_encryption_keys),
            self.capacities,
            self.expiries,
            inbox_capacity,
            dead_letters,
        )
        self.store.group_expiry = self.group_expiry
        self.policy = LostPolicy(lost, retry_safe_requests)
        self.notices = recovery.Notices(dead_letters)
        self.leases = Leases(self, heartbeat, lease)
        _layers.add(self)

    @property
    def servers(self):
        return self.store.servers

    @property
    def keys(self):
        return self.store.keys

    def _forked(self):
        """In a child process: no connection, lease or lock of the parent's is used."""
        self.counters.after_fork()
        self.store.after_fork()
        self.leases.forked()
        self.notices = recovery.Notices(self.store.dead_letters_kept)
        self._gateways = {}

    def close(self):
        """Close the connections and end the lease's thread. A later call opens them again."""
        self.leases.stop()
        self.leases.forked()
        self.store.close()

    # Sending.

    def read_body(self, channel, body):
        """Return the message, or None for what can't be read, and log that."""
        try:
            return self.store.decode(body)
        except Unreadable as error:
            self.count("unreadable")
            logger.error(
                "A message on %s cannot be read: %s. It is put among the dead letters.",
                channel or "an inbox",
                error,
            )
            return None

    def read_entry(self, raw):
        """(channel, message or None, times its worker was lost) of an entry of a queue."""
        losses, channel, body = entry.parse(raw)
        message = self.read_body(channel, body)
        if losses and message is not None:
            message[protocol.REDELIVERED] = True
        return channel, message, losses

    def deliver(self, channel, message):
        body = self.store.encode(channel, message)
        self._deliver(channel, body, protocol.ignores_capacity(message))

    def _deliver(self, channel, body, unlimited):
        if not self.store.send(channel, body, unlimited):
            self.count("full")
            raise ChannelFull("The channel %r is full." % channel)
        self.count("sent")

    # Receiving.

    def receive_many(self, channels, block=False):
        for channel in channels:
            check_channel_name(channel)
        deadline = time.monotonic() + self.block_for
        while True:
            raw = self.store.take(channels)
            while raw is not None:
                channel, message, _ = self.read_entry(raw)
                if message is not None:
                    return channel, message
                self.dropped(self.store.dead_letter_entry(raw))
                raw = self.store.take(channels)
            remaining = deadline - time.monotonic()
            if not block or remaining <= 0 or not channels:
                return None, None
            self.store.wait_to_take(channels, remaining)

    # Acknowledgement.

    def claim(self, slot, channels, block=False):
        channels = tuple(channels)
        if not self.store.can_claim(channels):
            # Of channels in several partitions, a message is forgotten as it is handed out.
            self.acknowledge(slot)
            return self.receive_many(list(channels), block)
        self.leases.ensure()
        deadline = time.monotonic() + self.block_for
        while True:
            held = self.store.claim(slot, channels)
            if held is not None:
                channel, message, _ = self.read_entry(held.entry)
                if message is not None:
                    return channel, message
                self.dropped(self.store.dead_letter(held.field, "unreadable"))
                continue
            remaining = deadline - time.monotonic()
            if not block or remaining <= 0:
                return None, None
            if not self.store.wait_to_claim(slot, channels, max(0.01, remaining)):
                return None, None

    def finish(self, slot, channel, message):
        """It leaves with the next claim that goes to the server, or after prefetch.MAX_WAIT."""
        self.store.finish(slot, channel, self.store.encode(channel, message))
        self.count("sent")

    def acknowledge(self, slot):
        self.store.acknowledge(slot)

    def requeue(self, slot):
        self.store.requeue(slot)

    def wake(self, slot):
        self.store.wake(slot)

    # Dead letters.

    def dropped(self, number):
        """So many dead letters were dropped for a newer one."""
        if number:
            self.count("dead_letters_dropped", number)
            self.notices.dropped(number)

    def dead_letters(self):
        """A list of DeadLetter, the oldest first: messages whose workers died, or that nobody can read."""
        letters = []
        for letter in self.store.letters():
            _, channel, body = entry.parse(letter.entry)
            try:
                message = self.store.decode(body)
            except Unreadable:
                message = None
            seconds = int(letter.id.partition("-")[0]) / 1000.0
            letters.append(DeadLetter(letter.id, channel, message, letter.reason, seconds))
        return letters

    def requeue_dead_letters(self, ids=None):
        """
        Put the dead letters of these ids (a list; without it all) back on their channels, at the end and
        as new. Returns how many.
        """
        return self.store.requeue_dead_letters(ids)

    def drop_dead_letters(self, ids=None):
        """Remove the dead letters of these ids (a list; without it all). Returns how many."""
        ids = [letter.id for letter in self.store.letters()] if ids is None else list(ids)
        return self.store.drop_dead_letters(ids)

    # Delay.

    def send_later(self, channel, message, delay):
        body = self.store.encode(check_channel_name(channel), clean(message))
        self.store.delay(body, delay)
        # Somebody has to look at the time: if there is no worker and no gateway, this process.
        self.leases.ensure()

    # Groups.

    def group_add(self, group, channel):
        self.store.group_add(check_group_name(group), check_channel_name(channel))

    def group_discard(self, group, channel):
        self.store.group_discard(check_group_name(group), check_channel_name(channel))

    def group_channels(self, group):
        return self.store.group_channels(check_group_name(group))

    def deliver_group(self, group, message):
        skipped = self.store.send_group(group, message)
        self.count("sent")
        if skipped:
            self.count("group_full", skipped)

    # Flush and statistics.

    def flush(self):
        """Remove every message and membership of this prefix; open gateways are told, leases stay."""
        self.store.flush()

    def global_statistics(self):
        """
        As the ASGI 1.0 specification names them: messages_count, messages_pending, messages_max_age,
        channel_full_count; and messages_held (by workers), messages_expired, dead_letters; "counters" is a
        dict of what the `statistics` of all processes count, as of their last heartbeats.
        """
        pending, age = self.store.pending()
        counters = self.store.counters()
        return {
            "messages_count": counters.get("sent", 0),
            "messages_pending": pending,
            "messages_max_age": age,
            "messages_held": self.store.count_unacknowledged(),
            "messages_expired": counters.get("expired", 0),
            "channel_full_count": counters.get("full", 0),
            "dead_letters": self.store.count_dead_letters(),
            "counters": counters,
        }

    def channel_statistics(self, channel):
        pending, age = self.store.pending(check_channel_name(channel))
        return {"messages_pending": pending, "messages_max_age": age}

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

"""
The primitives of a channel layer on Redis, each a script or two. keys.py tells what lies under which key;
the asynchronous inbox is in inbox.py.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Iterator, NamedTuple, Sequence

from . import entry
from .calls import BATCH
from .consumers import ConsumerCalls
from .contract import ChannelFull, inbox_of
from .gateways import GatewayCalls
from .groups import GroupCalls
from .scripts import run

#: Seconds between two polls where nothing can wake the reader: at several partitions at once.
POLL_INTERVAL = 0.1

#: Seconds between two polls of a plain reader, woken or not: the token that was to wake it may have gone
#: to a process that was killed, or stopped, as it waited. (For workers, each heartbeat looks after that.)
RECHECK_INTERVAL = 2.0

#: Delayed messages that are sent before the lease thread looks at the time again.
DUE_BATCH = 100

#: Milliseconds after which another process sends what one has taken and not sent.
PUT_OFF = 15000


class Letter(NamedTuple):
    """A dead letter as it is kept."""

    id: str
    reason: str
    entry: bytes


class Part(NamedTuple):
    """The queues of one partition that are read together: arguments of receive.lua."""

    keys: tuple[str, ...]
    wanted: list[str]  # of each queue the one channel wanted, or ""
    wakes: tuple[str, ...]


class RedisStore(ConsumerCalls, GroupCalls, GatewayCalls):
    """The store. Thread-safe as its parts tell; call `after_fork` in a child process."""

    def after_fork(self) -> None:
        """Use no connection, lock or consumer of the parent process."""
        self.servers.forked()
        self.codec.forked()
        self._monitor.forked()

    # Sending and receiving.

    def send(self, channel: str, body: bytes, unlimited: bool = False) -> bool:
        """Put `body` on `channel`; return whether there was room."""
        return bool(self.servers.call(self.send_command(channel, body, unlimited)) == 0)

    def _parts(self, channels: Sequence[str]) -> list[Part]:
        parts: dict[int, tuple[list[str], list[str], list[str]]] = {}
        for channel in channels:
            partition, queue, wake = self.keys.queue(channel)
            inbox = inbox_of(channel)
            keys, wanted, wakes = parts.setdefault(partition, ([], [], []))
            keys += [queue, wake]
            wanted.append(channel if inbox and inbox != channel else "")
            wakes.append(wake)
        return [
            Part(self.keys.sending[number][:1] + tuple(keys), wanted, tuple(dict.fromkeys(wakes)))
            for number, (keys, wanted, wakes) in parts.items()
        ]

    def take(self, channels: Sequence[str]) -> bytes | None:
        """Take the next entry of `channels` for good, in turn."""
        parts = self._parts(channels)
        self._turn += 1
        for step in range(len(parts)):
            part = parts[(self._turn + step) % len(parts)]
            arguments = [self._turn % len(part.wanted)] + part.wanted
            found: bytes | None = self.servers.call(run("receive", part.keys, arguments))
            if found is not None:
                return found
        return None

    def wait_to_take(self, channels: Sequence[str], seconds: float) -> None:
        """Wait until `take` may find something, for `seconds` at most."""
        parts = self._parts(channels)
        # The tokens of a wake list that channels share may go to another channel's reader.
        alone = len(parts) == 1 and not any(parts[0].wanted)
        seconds = max(0.01, min(seconds, RECHECK_INTERVAL if alone else POLL_INTERVAL))
        wakes = parts[self._turn % len(parts)].wakes
        self.servers.wait(("BLPOP",) + wakes + (seconds,), seconds)

    # Dead letters.

    def dead_letter(self, field: str, reason: str) -> int:
        """Dead-letter what is held under `field`; return how many letters were dropped for it."""
        return int(self.servers.call(self.dead_letter_command(field, reason)))

    def dead_letter_entry(self, unheld: bytes) -> int:
        """Dead-letter an entry that can't be read and that no process holds."""
        return int(self.servers.call(self.dead_letter_command("", "unreadable", unheld)))

    def letters(self) -> Iterator[Letter]:
        """Yield the dead letters, the oldest first."""
        start = "-"
        while True:
            found = self.servers.call(run("list_dead_letters", (self.keys.dead,), (start, BATCH)))
            for index in range(0, len(found), 3):
                number, reason, letter = found[index : index + 3]
                yield Letter(number.decode(), reason.decode(), letter)
            if len(found) < 3 * BATCH:
                return
            start = found[-3].decode()

    def requeue_dead_letters(self, ids: Sequence[str] | None) -> int:
        """Put dead letters back on their channels, at the end and as new; return how many."""
        count = 0
        for letter in list(self.letters()):
            channel, body = entry.parse(letter.entry)[1:]
            if (ids is not None and letter.id not in ids) or not channel:
                continue
            place = self.make_place(channel)
            if place.partition:
                if not self.send(channel, body):
                    raise ChannelFull("The channel %r is full." % channel)
                count += self.drop_dead_letters([letter.id])
            else:
                keys = (self.keys.dead, place.queue, place.wake, self.keys.queues)
                count += self.servers.call(
                    run("requeue_dead_letter", keys, (letter.id, place.expiry))
                )
        return count

    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        count = 0
        for index in range(0, len(ids), BATCH):
            count += self.servers.call(("XDEL", self.keys.dead) + tuple(ids[index : index + BATCH]))
        return count

    def count_dead_letters(self) -> int:
        return int(self.servers.call(("XLEN", self.keys.dead)))

    # Delay.

    def delay(self, body: bytes, seconds: float) -> None:
        """Send `body` in so many seconds."""
        keys = (self.keys.delay, self.keys.delay_wake)
        milliseconds = max(0, int(seconds * 1000))
        self.servers.call(run("send_later", keys, (milliseconds, entry.make_delayed(body))))

    def send_due(self) -> tuple[int, float | None]:
        """Send what is due; return how many found no room, and the seconds until the next is due."""
        key, dropped = self.keys.delay, 0
        while True:
            pause, *due = self.servers.call(run("take_due", [key], [PUT_OFF, DUE_BATCH]))
            for member in due:
                body = entry.delayed_body(member)
                dropped += not self.send(entry.split_body(body)[0], body)
                self.servers.call(("ZREM", key, member))
            if len(due) < DUE_BATCH:
                return dropped, None if pause < 0 else pause / 1000.0

    def wait_due(self, seconds: float) -> bool:
        """Wait for `seconds`; return at once, and True, when a message is due before all others."""
        seconds = max(0.01, seconds)
        return self.servers.wait(("BLPOP", self.keys.delay_wake, seconds), seconds) is not None

    def wake_due(self) -> None:
        """Pass a token of `wait_due` on to another process."""
        self.servers.call(("RPUSH", self.keys.delay_wake, "1"))

    # Counters, statistics and flush.

    def add_counters(self, counts: dict[str, int]) -> None:
        """Add to the counters of all processes."""
        arguments = [each for item in counts.items() for each in item]
        self.servers.call(run("add_counters", (self.keys.counters,), arguments))

    def counters(self) -> dict[str, int]:
        reply = self.servers.call(("HGETALL", self.keys.counters))
        # A cluster's client makes a dict of it.
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        return {name.decode(): int(value) for name, value in pairs}

    def count_unacknowledged(self) -> int:
        """Return how many messages all workers hold."""
        count = 0
        for key in self.servers.scan(self.keys.patterns("f")[0]):
            fields = self.servers.call(("HKEYS", key))
            count += sum(not field.startswith(b"#") for field in fields)
        return count

    def pending(self, channel: str | None = None) -> tuple[int, float]:
        """Return how many messages wait on `channel` or on all, and how many seconds the oldest has."""
        found: dict[object, list[str | bytes]] = defaultdict(list)
        if channel is not None:
            found[channel].append(self.keys.queue(channel).queue)
            inbox = inbox_of(channel)
            if inbox is not None:
                found[channel].append(self.keys.inbox(inbox).stream)
        else:
            for pattern in self.keys.patterns("qi"):
                for key in self.servers.scan(pattern):
                    found[key.partition(b"}")[0]].append(key)
        count, age = 0, 0.0
        for keys in found.values():
            for start in range(0, len(keys), BATCH):
                some = self._describe(keys[start : start + BATCH])
                count, age = count + some[0], max(age, some[1])
        return count, age

    def _describe(self, keys: Sequence[str | bytes]) -> tuple[int, float]:
        """Return `pending` of queues and inboxes of one partition."""
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

    def flush(self) -> None:
        """Remove every message and membership; tell open gateways; keep leases and counters."""
        kept = tuple(
            (tag + kind).encode()
            for tag in self.keys.tags
            for kind in ("leases", "seen", "epoch", "g:", "i:")
        )
        for pattern in self.keys.patterns():
            doomed: dict[bytes, list[bytes]] = defaultdict(list)
            for key in self.servers.scan(pattern):
                if not key.startswith(kept):
                    doomed[key.partition(b"}")[0]].append(key)
            for keys in doomed.values():
                for start in range(0, len(keys), BATCH):
                    self.servers.call(("UNLINK",) + tuple(keys[start : start + BATCH]))
        for holder in self.servers.call(("ZRANGE", self.keys.leases, 0, -1)):
            if holder.startswith(b"g:"):
                inbox = holder[2:].partition(b"|")[0].decode()
                self.servers.call(("XTRIM", self.keys.inbox(inbox).stream, "MAXLEN", 0))
                self.servers.call(self.register_command(inbox, 1, (0, 0), True))

    def close(self) -> None:
        self.servers.close()

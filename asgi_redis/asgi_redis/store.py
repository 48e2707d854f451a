"""
RedisStore: the primitives of a channel layer on Redis, each a script or two. keys.py tells what lies under
which key. Here are delay, dead letters, statistics and flush; consumers.py, groups.py and gateways.py have
the rest, inbox.py the asynchronous inbox.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Iterator, Sequence

from . import entry
from .calls import BATCH, in_batches, pairs
from .contract import (
    NUMBER_LIFETIME,
    Due,
    Entry,
    Inbox,
    Outgoing,
    Pending,
    check_channel_name,
    inbox_of,
)
from .gateways import GatewayCalls
from .groups import GroupCalls
from .inbox import RedisInbox
from .scripts import run

#: Delayed messages that are sent before the lease thread checks the time again.
DUE_BATCH = 100

#: Milliseconds after which another process sends what one has taken and not sent.
PUT_OFF = 15000

#: Seconds between two polls for due messages. A process that delays a message also wakes another one.
DUE_INTERVAL = 60.0


#: The id of a dead letter, as Redis gives it.
IS_LETTER = re.compile(r"[0-9]{1,19}-[0-9]{1,19}\Z")


class RedisStore(GatewayCalls, GroupCalls):
    """The store. Thread-safe."""

    def after_fork(self) -> None:
        super().after_fork()
        self.servers.forked()
        self.codec.forked()

    def close(self) -> None:
        super().close()
        self.servers.close()

    def open_inbox(self, name: str) -> Inbox:
        return RedisInbox(self, name)

    # Delay.

    def delay(self, channel: str, body: bytes, seconds: float, id: str = "") -> None:
        keys = (self.keys.delay, self.keys.delay_wake, self.keys.project)
        body = self.renewed(channel, body, seconds)
        member = entry.make_delayed(body, id)
        self.servers.call(run("send_later", keys, (int(seconds * 1000), member)))

    def send_due(self) -> Due:
        key = self.keys.delay
        pause, *due = self.servers.call(run("take_due", [key], [PUT_OFF, DUE_BATCH]))
        full = 0
        for member in due:
            full += self._send_delayed(entry.delayed_id(member), entry.delayed_body(member))
            self.servers.call(("ZREM", key, member))
        if len(due) == DUE_BATCH:
            return Due(full, 0.0)
        return Due(full, None if pause < 0 else pause / 1000.0)

    def _send_delayed(self, id: str, body: bytes) -> int:
        """Send a delayed message, once only for each `id`. Return 1 if its channel was full, else 0."""
        channel = entry.split_body(body)[0]
        try:
            check_channel_name(channel)
        except TypeError as error:
            found = Entry(None, channel, body)
            dropped = self.dead_letter(None, found, "unreadable")
            self.layer.recovery.unreadable(found, error, dropped)
            return 0
        return len(self.send([Outgoing(channel, body, id=id)]))

    def due_interval(self) -> float:
        return DUE_INTERVAL

    def wait_due(self, seconds: float) -> bool:
        if seconds <= 0:
            return False
        seconds = max(0.01, seconds)
        keys = (self.keys.delay_wake, self.keys.wake(self._taker))
        return self.servers.wait(("BLPOP",) + keys + (seconds,), seconds) is not None

    def wake_due(self) -> None:
        self.wake(self._taker)

    # Dead letters.

    def dead_letters(self) -> Iterator[tuple[str, str, bytes, str, float]]:
        start = "-"
        while True:
            found = self.servers.call(run("list_dead_letters", (self.keys.dead,), (start, BATCH)))
            for number, reason, raw in zip(found[::3], found[1::3], found[2::3]):
                id = number.decode()
                channel, body, _ = entry.parse(raw)
                body = self.renewed(channel, body)
                died = int(id.partition("-")[0]) / 1000.0
                yield id, channel, body, reason.decode("utf-8", "replace"), died
            if len(found) < 3 * BATCH:
                return
            start = found[-3].decode()

    def requeue_dead_letter(self, id: str) -> bool:
        if not IS_LETTER.match(id):
            return False  # Redis would refuse it
        found = self.servers.call(("XRANGE", self.keys.dead, id, id))
        if not found:
            return False
        channel, body, _ = entry.parse(entry.record_body(found[0][1]))
        if not channel:
            return False
        body = self.renewed(channel, body)
        self.send([Outgoing(channel, body, unlimited=True, id="letter:" + id)])
        return self.drop_dead_letters([id]) == 1

    def drop_dead_letters(self, ids: Sequence[str]) -> int:
        count = 0
        for some in in_batches([id for id in ids if IS_LETTER.match(id)]):
            count += self.servers.call(("XDEL", self.keys.dead) + tuple(some))
        return count

    def count_dead_letters(self) -> int:
        return int(self.servers.call(("XLEN", self.keys.dead)))

    # Counters, statistics and flush.

    def add_counters(self, increments: dict[str, int], process: str, number: int) -> None:
        arguments: list[Any] = [number, NUMBER_LIFETIME]
        arguments += [each for item in increments.items() for each in item]
        keys = (self.keys.counters, self.keys.counted(process))
        self.servers.call(run("add_counters", keys, arguments))

    def counters(self) -> dict[str, int]:
        reply = self.servers.call(("HGETALL", self.keys.counters))
        # A cluster's client makes a dict of it.
        found = reply.items() if isinstance(reply, dict) else pairs(reply)
        return {
            name.decode("utf-8", "replace"): int(value)
            for name, value in found
            if value.lstrip(b"-").isdigit()
        }

    def count_unacknowledged(self) -> int:
        count = 0
        for pattern in self.keys.patterns("ft")[:2]:
            for key in self.servers.scan(pattern):
                fields = self.servers.call(("HKEYS", key))
                count += sum(not field.startswith(b"#") for field in fields)
        return count

    def pending(self, channel: str | None = None) -> list[Pending]:
        found: dict[object, list[str]] = defaultdict(list)
        if channel is not None:
            found[channel].append(self.keys.queue(channel).queue)
            inbox = inbox_of(channel)
            if inbox is not None:
                found[channel].append(self.keys.inbox(inbox).stream)
        else:
            for pattern in self.keys.patterns("qi"):
                for key in self.servers.scan(pattern):
                    found[key.partition(b"}")[0]].append(key.decode())
        return [
            each
            for keys in found.values()
            for some in in_batches(keys)
            for each in self._describe(some)
        ]

    def _describe(self, keys: Sequence[str]) -> Iterator[Pending]:
        """Yield what waits in queues and inboxes of one partition."""
        now, *rows = self.servers.call(run("describe", keys))
        for key, count, stamp, head in zip(keys, rows[::3], rows[1::3], rows[2::3]):
            if not count:
                continue
            came = int(stamp)
            if head:  # a queue's entry tells when it expires, an inbox's when it came
                came -= int(self.layer.expiries[head.decode("ascii", "replace")] * 1000)
            yield Pending(key.partition("}")[2][2:], count, max(0.0, (now - came) / 1000.0))

    def flush(self) -> None:
        kept = tuple(
            (tag + kind).encode()
            for tag in self.keys.tags
            for kind in ("leases", "gone", "epoch", "project", "g:", "h:", "i:")
        )
        for pattern in self.keys.patterns():
            doomed: dict[bytes, list[bytes]] = defaultdict(list)
            for key in self.servers.scan(pattern):
                if not key.startswith(kept):
                    doomed[key.partition(b"}")[0]].append(key)
            for keys in doomed.values():
                for some in in_batches(keys):
                    self.servers.call(("UNLINK",) + tuple(some))
        for holder in self.servers.call(("ZRANGE", self.keys.leases, 0, -1)):
            if holder.startswith(b"g:"):
                inbox = holder[2:].partition(b"|")[0].decode()
                self.servers.call(("XTRIM", self.keys.inbox(inbox).stream, "MAXLEN", 0))
                self.servers.call(self.register_command(inbox, 1, (0, 0), True))

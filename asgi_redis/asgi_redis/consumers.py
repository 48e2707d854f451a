"""What workers do: claim, reply, acknowledge, requeue."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Sequence

from . import entry
from .calls import Calls, in_batches
from .contract import Entry, LayerUnavailable, Outgoing, check_channel_name, queue_of, shares_queue
from .prefetch import CHANNEL, Consumer, Held, PrefetchMonitor, Reply
from .scripts import Command, run

#: Seconds between two polls where nothing can wake the reader: at several partitions at once.
POLL_INTERVAL = 0.1

#: Seconds between two polls of a plain reader, woken or not: the token that should wake it may have gone
#: to a process that was killed, or stopped, as it waited. (For workers, each heartbeat checks this.)
RECHECK_INTERVAL = 2.0


class Part(NamedTuple):
    """The queues of one partition that are read together: arguments of receive.lua."""

    keys: tuple[str, ...]
    wanted: list[str]  # of each queue the one channel wanted, or ""
    wakes: tuple[str, ...]


class ClaimKeys(NamedTuple):
    """How claim.lua is called: the command's start, the wake lists, which channel gives several (0: none)."""

    start: Command
    wakes: tuple[str, ...]
    several: int


def to_entry(id: Any, raw: bytes) -> Entry:
    """Return an entry for the engine, held as `id`."""
    return Entry(id, *entry.parse(raw))


class ConsumerCalls(Calls):
    """Each call but `finish` and `wake` is made by the thread of the consumer it names."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._monitor = PrefetchMonitor(self._settle)
        self._turn = 0
        self._claim_keys = lru_cache(maxsize=64)(self._make_claim_keys)
        self._parts = lru_cache(maxsize=256)(self._make_parts)
        self._set_process("")

    def _set_process(self, process: str) -> None:
        """Claim for the process of this name from now on."""
        self._process, self._holder = process, "w:" + process
        self._held_key = self.keys.held(process)
        self._consumers: dict[str, Consumer] = {}
        self._claim_keys.cache_clear()

    def close(self) -> None:
        super().close()
        self._monitor.close()

    def after_fork(self) -> None:
        super().after_fork()
        self._monitor.forked()
        self._set_process("")

    def consumer(self, name: str) -> Consumer:
        """Return what is known here of the consumer `name`."""
        consumer = self._consumers.get(name)
        if consumer is None:
            consumer = self._consumers[name] = Consumer(name)
        return consumer

    # Claiming.

    def _make_claim_keys(self, channels: tuple[str, ...]) -> ClaimKeys | None:
        """Return None if the channels lie in several partitions."""
        keys: list[str] = []
        for channel in channels:
            check_channel_name(channel)
            partition, queue, wake = self.keys.queue(channel)
            if partition or shares_queue(channel):
                return None
            keys += [queue, wake]
        several = channels.index(CHANNEL) + 1 if CHANNEL in channels else 0
        first = (self._held_key, self.keys.leases, self.keys.expired)
        return ClaimKeys(run("claim", first + tuple(keys)), tuple(keys[1::2]), several)

    def claim(
        self, consumer: str, process: str, channels: Sequence[str], block: bool = False
    ) -> Entry | None:
        """One round trip, or none where a message was prefetched."""
        if process != self._process:
            self._set_process(process)
        found = self.consumer(consumer)
        claim_keys = self._claim_keys(tuple(channels))
        if claim_keys is None:
            # Of channels in several partitions, a message is forgotten as it is handed out.
            self.acknowledge(consumer)
            return self.take(channels)
        found.end()
        if found.is_late:
            self._settle(found, requeue=False)
        held = found.begin()
        if held is None:
            if self._claim_more(found, claim_keys.start, claim_keys.several, found.wanted):
                held = found.begin()
        if held is None:
            return None
        found_entry = to_entry(held.field, held.entry)
        doubted = self.servers.doubted
        if doubted and entry.expires(held.entry) - self.place(found_entry.channel).expiry < doubted:
            return found_entry._replace(doubtful=True)
        return found_entry

    def _claim_more(self, consumer: Consumer, start: Command, several: int, wanted: int) -> bool:
        """Make one round trip; with 0 `wanted`, only ask for what a claim without a reply has given."""
        self._turn += 1
        commands = self._settling_commands(consumer)
        arguments: Command = (consumer.name, consumer.number, self._holder, self.lease_milliseconds)
        arguments += (self._turn, several, wanted)
        commands.append(start + arguments + tuple(consumer.acked))
        consumer.is_unsure = True
        if len(commands) == 1:
            number, *entries = self.servers.call(commands[0])
        else:
            number, *entries = self.servers.call_many(commands)[-1]
        with consumer.lock:
            if number != consumer.number:
                consumer.number = max(number, consumer.number)
                raise LayerUnavailable(
                    "Redis at %s answered a claim with the reply to another one."
                    % self.servers.where
                )
            consumer.claimed(entries, used_up=not wanted)
            if len(consumer.prefetched) > 1:
                self._monitor.watch(consumer)
        return bool(entries)

    def _settling_commands(self, consumer: Consumer) -> list[Command]:
        """Return the commands that send replies and requeue messages."""
        if not consumer.replies and not consumer.returned:
            return []
        return self._reply_commands(consumer.replies) + self._requeue_commands(consumer.returned)

    def _reply_commands(self, replies: list[Reply]) -> list[Command]:
        """Return the commands that send replies: one for each gateway."""
        bodies: dict[str, list[Reply]] = {}
        for reply in replies:
            bodies.setdefault(queue_of(reply.channel), []).append(reply)
        commands = []
        for name, several in bodies.items():
            if name[-1] != "!":
                commands += [
                    self.send_command(Outgoing(*reply, unlimited=True)) for reply in several
                ]
                continue
            place = self.make_place(several[0].channel)
            _, register, stream, _ = self.keys.inbox(name)
            commands.append(
                run(
                    "send_replies",
                    (register, stream, place.queue, place.wake),
                    [place.expiry] + [reply.body for reply in several],
                )
            )
        return commands

    def _requeue_commands(self, returned: list[Held]) -> list[Command]:
        """Return the commands that requeue messages, the last of them first in its channel."""
        by_channel: dict[str, list[str]] = {}
        for held in returned:
            by_channel.setdefault(entry.parse(held.entry)[0], []).append(held.field)
        damaged = by_channel.pop("", ())
        return [
            self.requeue_command(self._held_key, channel, 0, *fields)
            for channel, fields in by_channel.items()
        ] + [self.dead_letter_command(self._held_key, field, "unreadable") for field in damaged]

    def _settle(self, consumer: Consumer, requeue: bool = True) -> None:
        """Send replies, acknowledge what was handled, and requeue what was prefetched."""
        if requeue:
            # If the reply gets lost, it is not known whose they are: not this consumer's.
            consumer.give_back()
        commands = self._settling_commands(consumer)
        if consumer.acked:
            commands.append(("HDEL", self._held_key) + tuple(consumer.acked))
        if commands:
            self.servers.call_many(commands)
        consumer.sent()

    def _leave(self, consumer: Consumer) -> None:
        """Settle for a consumer that may not claim again."""
        if consumer.is_unsure:
            keys = (self._held_key, self.keys.leases, self.keys.expired)
            self._claim_more(consumer, run("claim", keys), 0, 0)
        self._settle(consumer)

    def finish(self, consumer: str, channel: str, body: bytes, soon: bool = False) -> bool:
        """
        Keep the reply until the next claim that goes to the server, or for about prefetch.MAX_WAIT: if
        something is prefetched, or with `soon`. With `soon`, send it now if the consumer holds nothing.
        """
        found = self.consumer(consumer)
        with found.lock:
            found.replies.append(Reply(channel, body))
        if soon and found.current is not None:
            self._monitor.watch(found)
        elif soon:  # the message was taken for good: the monitor does nothing for such a consumer
            try:
                self._settle(found, requeue=False)
            except LayerUnavailable:
                pass  # the next claim sends it
        return True

    def acknowledge(self, consumer: str) -> None:
        """Besides, requeue what was prefetched."""
        found = self.consumer(consumer)
        found.end()
        self._leave(found)

    def acknowledge_all(self, consumers: Sequence[str]) -> None:
        """Make one round trip for up to BATCH of them."""
        for names in in_batches(consumers):
            simple = []
            for name in names:
                found = self.consumer(name)
                if found.is_unsure or found.prefetched or found.returned:
                    self.acknowledge(name)
                else:
                    found.end()
                    simple.append(found)
            commands = self._reply_commands([reply for each in simple for reply in each.replies])
            acked = tuple(field for each in simple for field in each.acked)
            if acked:
                commands.append(("HDEL", self._held_key) + acked)
            if commands:
                self.servers.call_many(commands)
            for each in simple:
                each.sent()

    keeps_answers = True

    def split(self, consumer: str, spare: str) -> tuple[str, str]:
        """What was prefetched stays with `consumer`."""
        self.consumer(consumer).hand_over(self.consumer(spare))
        return spare, consumer

    def requeue(self, consumer: str) -> None:
        """Besides, requeue what was prefetched, behind it."""
        found = self.consumer(consumer)
        with found.lock:
            found.give_back()
            if found.current is not None:
                found.returned.append(found.current)
                found.current = None
        self._leave(found)

    def dead_letter(self, consumer: str | None, entry_: Entry, reason: str) -> int:
        if entry_.id is None:
            raw = entry.make_expired(entry_.body)
            return int(self.servers.call(self.dead_letter_command("", "", reason, raw)))
        return int(self.servers.call(self.dead_letter_command(self._held_key, entry_.id, reason)))

    # Taking for good, and waiting.

    def _make_parts(self, channels: tuple[str, ...]) -> list[Part]:
        parts: dict[int, tuple[list[str], list[str], list[str]]] = {}
        for channel in channels:
            partition, queue, wake = self.keys.queue(channel)
            keys, wanted, wakes = parts.setdefault(partition, ([], [], []))
            keys += [queue, wake]
            wanted.append(channel if shares_queue(channel) else "")
            wakes.append(wake)
        return [
            Part(self.keys.sending[number][:1] + tuple(keys), wanted, tuple(dict.fromkeys(wakes)))
            for number, (keys, wanted, wakes) in parts.items()
        ]

    def take(self, channels: Sequence[str], block: bool = False) -> Entry | None:
        parts = self._parts(tuple(channels))
        self._turn += 1
        for step in range(len(parts)):
            part = parts[(self._turn + step) % len(parts)]
            arguments = [self._turn % len(part.wanted)] + part.wanted
            raw = self.servers.call(run("receive", part.keys, arguments))
            if raw is not None:
                return to_entry(None, raw)
        return None

    def wait(self, consumer: str | None, channels: Sequence[str], seconds: float) -> bool:
        seconds = max(0.01, seconds)
        claim_keys = None if consumer is None else self._claim_keys(tuple(channels))
        if consumer is not None and claim_keys is not None:
            wake = self.keys.wake(consumer)
            token = self.servers.wait(("BLPOP",) + claim_keys.wakes + (wake, seconds), seconds)
            return token is not None and token[0] != wake.encode()
        parts = self._parts(tuple(channels))
        # The tokens of a wake list that channels share may go to another channel's reader.
        alone = len(parts) == 1 and not any(parts[0].wanted)
        seconds = min(seconds, RECHECK_INTERVAL if alone else POLL_INTERVAL)
        wakes = parts[self._turn % len(parts)].wakes
        self.servers.wait(("BLPOP",) + wakes + (seconds,), seconds)
        return True

    def wake(self, consumer: str) -> None:
        key = self.keys.wake(consumer)
        try:
            self.servers.call_many([("RPUSH", key, "1"), ("PEXPIRE", key, 60000)])
        except LayerUnavailable:
            pass  # then a claim that waits has ended already

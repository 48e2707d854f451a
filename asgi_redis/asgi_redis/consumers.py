"""What workers do: claim, reply, acknowledge, requeue."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from . import entry
from .calls import Calls
from .contract import LayerUnavailable, check_channel_name, inbox_of
from .prefetch import CHANNEL, Consumer, Held, PrefetchMonitor, Reply
from .scripts import Command, run


class ClaimKeys(NamedTuple):
    """For claim.lua: its keys, the wake lists, and which channel, from 1, gives several; 0: none."""

    keys: tuple[str, ...]
    wakes: tuple[str, ...]
    several: int


class ConsumerCalls(Calls):
    """Each call but `finish` and `wake` is made by the thread of the consumer it names."""

    #: Milliseconds that a lease lasts.
    lease = 15000

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.forget_consumers()
        self._monitor = PrefetchMonitor(self._settle)
        self._turn = 0
        self._claim_keys = lru_cache(maxsize=64)(self._make_claim_keys)

    def forget_consumers(self) -> None:
        self._consumers: dict[str, Consumer] = {}

    def set_process(self, process: str) -> None:
        super().set_process(process)
        self.forget_consumers()
        self._claim_keys.cache_clear()

    def consumer(self, name: str) -> Consumer:
        """Return what is known here of the consumer `name`."""
        consumer = self._consumers.get(name)
        if consumer is None:
            consumer = self._consumers[name] = Consumer(name)
        return consumer

    def _make_claim_keys(self, channels: tuple[str, ...]) -> ClaimKeys | None:
        """Return None if the channels lie in several partitions."""
        keys: list[str] = []
        for channel in channels:
            check_channel_name(channel)
            partition, queue, wake = self.keys.queue(channel)
            if partition or inbox_of(channel) not in (None, channel):
                return None
            keys += [queue, wake]
        several = channels.index(CHANNEL) + 1 if CHANNEL in channels else 0
        first = (self.held_key, self.keys.leases, self.keys.expired)
        return ClaimKeys(first + tuple(keys), tuple(keys[1::2]), several)

    def can_claim(self, channels: tuple[str, ...]) -> bool:
        """Return whether one script can claim from all of `channels`: they lie in the first partition."""
        return self._claim_keys(channels) is not None

    def claim(self, name: str, channels: tuple[str, ...]) -> Held | None:
        """
        Acknowledge what the consumer `name` has handled, send its replies, and claim its next message.
        One round trip, or none where a message was prefetched.
        """
        consumer = self.consumer(name)
        consumer.end()
        if consumer.is_late:
            self._settle(consumer, requeue=False)
        held = consumer.begin()
        if held is None:
            claim_keys = self._claim_keys(channels)
            assert claim_keys is not None
            if self._claim_more(consumer, claim_keys.keys, claim_keys.several, consumer.wanted):
                held = consumer.begin()
        return held

    def _claim_more(
        self, consumer: Consumer, keys: tuple[str, ...], several: int, wanted: int
    ) -> bool:
        """Make one round trip; with 0 `wanted`, only ask for what a claim without a reply has given."""
        self._turn += 1
        commands = self._reply_commands(consumer.replies) + self._requeue_commands(
            consumer.returned
        )
        commands.append(
            run(
                "claim",
                keys,
                [consumer.name, consumer.number, "w:" + self.process, self.lease, self._turn]
                + [several, wanted]
                + consumer.acked,
            )
        )
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

    def _reply_commands(self, replies: list[Reply]) -> list[Command]:
        """Return the commands that send replies: one for each gateway."""
        bodies: dict[str, list[Reply]] = {}
        for reply in replies:
            bodies.setdefault(inbox_of(reply.channel) or reply.channel, []).append(reply)
        commands = []
        for name, several in bodies.items():
            if name[-1] != "!":
                commands += [self.send_command(*reply, unlimited=True) for reply in several]
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

    def _requeue_commands(self, returned: list[Held], losses: int = 0) -> list[Command]:
        """Return the commands that requeue messages, the last of them first in its channel."""
        by_channel: dict[str, list[str]] = {}
        for held in returned:
            by_channel.setdefault(entry.parse(held.entry).channel, []).append(held.field)
        commands = []
        for channel, fields in by_channel.items():
            place = self.place(channel)
            keys = (self.held_key, place.queue, place.wake, self.keys.queues)
            commands.append(run("requeue", keys, [losses, place.expiry] + fields))
        return commands

    def _settle(self, consumer: Consumer, requeue: bool = True) -> None:
        """Send replies, acknowledge what was handled, and requeue what was prefetched."""
        if requeue:
            # If the reply gets lost, it is not known whose they are: not this consumer's.
            consumer.give_back()
        commands = self._reply_commands(consumer.replies) + self._requeue_commands(
            consumer.returned
        )
        if consumer.acked:
            commands.append(("HDEL", self.held_key) + tuple(consumer.acked))
        if commands:
            self.servers.call_many(commands)
        consumer.sent()

    def _leave(self, consumer: Consumer) -> None:
        """Settle for a consumer that may not claim again."""
        if consumer.is_unsure:
            keys = (self.held_key, self.keys.leases, self.keys.expired)
            self._claim_more(consumer, keys, 0, 0)
        self._settle(consumer)

    def finish(self, name: str, channel: str, body: bytes) -> None:
        """Keep the last reply until the next claim that goes to the server, or for prefetch.MAX_WAIT."""
        consumer = self.consumer(name)
        with consumer.lock:
            consumer.replies.append(Reply(channel, body))

    def acknowledge(self, name: str) -> None:
        """Acknowledge what the consumer has handled, and requeue what was prefetched for it."""
        consumer = self.consumer(name)
        consumer.end()
        self._leave(consumer)

    def requeue(self, name: str) -> None:
        """Requeue the message that the consumer has, and what was prefetched for it behind it."""
        consumer = self.consumer(name)
        with consumer.lock:
            consumer.give_back()
            if consumer.current is not None:
                consumer.returned.append(consumer.current)
                consumer.current = None
        self._leave(consumer)

    def wait_to_claim(self, name: str, channels: tuple[str, ...], seconds: float) -> bool:
        """Wait for a message; return whether to claim again, False after `wake` or `seconds`."""
        claim_keys = self._claim_keys(channels)
        assert claim_keys is not None
        wake = self.keys.wake(name)
        token = self.servers.wait(("BLPOP",) + claim_keys.wakes + (wake, seconds), seconds)
        return token is not None and token[0] != wake.encode()

    def wake(self, name: str) -> None:
        """Have a claim that waits return at once."""
        key = self.keys.wake(name)
        try:
            self.servers.call_many([("RPUSH", key, "1"), ("PEXPIRE", key, 60000)])
        except LayerUnavailable:
            pass  # then a claim that waits has ended already

    # What was taken over from dead processes.

    def forget(self, field: str) -> None:
        """Acknowledge what is held under `field`."""
        self.servers.call(("HDEL", self.held_key, field))

    def put_back(self, held: Held, losses: int) -> None:
        """Requeue what a dead process held, which has lost so many more workers."""
        self.servers.call_many(self._requeue_commands([held], losses))

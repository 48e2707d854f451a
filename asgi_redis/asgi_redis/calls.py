"""What all parts of the store share: the servers, keys, codec, and the commands that send."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Iterable, Iterator, NamedTuple, Sequence, TypeVar

from .codec import Codec
from .contract import EngineLayer, Message, Outgoing, Store, Unreadable, inbox_of
from .keys import Keys
from .scripts import Command, run
from .servers import Servers

#: Keys, members or commands in one round trip at most.
BATCH = 200

Item = TypeVar("Item")

#: How often a message can wait for its expiry: at first, and after each of nine losses. An expiry below
#: MIN_EXPIRY seconds counts as that, because clocks differ.
MAX_WAITS, MIN_EXPIRY = 10, 60.0


def in_batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield `items` in parts of up to BATCH."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def pairs(reply: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    """Return the pairs of a reply that has them one after the other."""
    return zip(reply[::2], reply[1::2])


class Place(NamedTuple):
    """Where the messages of a channel go, and for how long: `expiry` is in milliseconds."""

    partition: int
    queue: str
    wake: str
    capacity: int
    expiry: int
    kind: int
    inbox: str | None


class Calls(Store):
    """
    The part of the store that its other parts use. A body is bytes: channel, newline, payload (entry.py).
    Thread-safe.
    """

    remembers_sends = True

    def __init__(self, servers: Servers, keys: Keys, codec: Codec, check_project: Command) -> None:
        super().__init__()
        self.servers = servers
        self.check_project = check_project
        self.keys = keys
        self.codec = codec
        self._cached_place = lru_cache(maxsize=1024)(self.make_place)

    def bind(self, layer: EngineLayer) -> None:
        super().bind(layer)
        self.lease_milliseconds = int(layer.options.lease * 1000)

    def make_place(self, channel: str) -> Place:
        return Place(
            *self.keys.queue(channel),
            self.layer.capacities[channel],
            int(self.layer.expiries[channel] * 1000),
            self.keys.kind(channel),
            inbox_of(channel),
        )

    def place(self, channel: str) -> Place:
        """Return where messages of `channel` go. Names that are used once aren't kept."""
        if "!" in channel or "?" in channel:
            return self.make_place(channel)
        return self._cached_place(channel)

    def encode(self, channel: str, message: Message, extra: float = 0.0) -> bytes:
        """Return the body. If it is encrypted, it can be read for MAX_WAITS times its expiry, and `extra`."""
        name, life = channel.encode(), 0.0
        if self.codec.seals:
            expiry = self.layer.expiries[channel] if channel else self.layer.expiry
            life = MAX_WAITS * max(expiry, MIN_EXPIRY) + extra
        return name + b"\n" + self.codec.pack(message, name, life)

    def decode(self, channel: str, body: bytes, late: bool = False) -> Message:
        if not channel:
            raise Unreadable("its head is damaged")
        name, _, payload = body.partition(b"\n")
        return self.codec.unpack(payload, name, late)

    def renewed(self, channel: str, body: bytes, extra: float = 0.0) -> bytes:
        """Return a body that can be read as long as a new one, and `extra` seconds."""
        if not self.codec.seals:
            return body
        try:
            return self.encode(channel, self.decode(channel, body, late=True), extra)
        except Unreadable:
            return body

    def send_command(self, item: Outgoing) -> Command:
        """Return the command that sends `item`. Its reply is 0, or the numbers of what was refused."""
        place = self.place(item.channel)
        capacity = -1 if item.unlimited else place.capacity
        expiry = place.expiry if item.expiry is None else int(item.expiry * 1000)
        sent = self.keys.sent(place.partition, item.id)
        if place.inbox is None:
            keys = self.keys.sending[place.partition] + (place.queue, place.wake)
            return run("send", keys, ("", 0, capacity, expiry, place.kind, sent, item.body))
        inbox_capacity = -1 if item.unlimited else self.layer.options.inbox_capacity
        _, register, stream, _ = self.keys.inbox(place.inbox)
        keys = (register, stream, place.queue, place.wake)
        return run("send_inbox", keys, (inbox_capacity, capacity, expiry, item.body, sent))

    def remove_route_command(self, group: str, inbox: str, number: int = -1) -> Command:
        """Return the command that removes a route, unless a change later than `number` put it there."""
        return run("remove_route", [self.keys.group(group).routes], [inbox, number])

    def send(self, items: Sequence[Outgoing]) -> Sequence[int]:
        if len(items) == 1:
            return [0] if self.servers.call(self.send_command(items[0])) else []
        if not items:
            return []
        replies = self.servers.call_many([self.send_command(item) for item in items])
        return [index for index, reply in enumerate(replies) if reply]

    def requeue_command(
        self, held_key: str, channel: str, losses: int, *fields: str | bytes
    ) -> Command:
        """Return the command that requeues what is held, the last field first in its channel."""
        place = self.place(channel)
        keys = (held_key, place.queue, place.wake, self.keys.queues)
        return run("requeue", keys, (losses, place.expiry) + fields)

    def dead_letter_command(
        self, held_key: str, field: str | bytes, reason: str, *unheld: bytes
    ) -> Command:
        """Return the command that dead-letters what is held under `field`, or an entry that isn't."""
        arguments = (field, reason, self.layer.options.dead_letters) + unheld
        # Not "" as a key: on a cluster it lies elsewhere, and an ACL forbids it.
        return run("dead_letter", (held_key or self.keys.dead, self.keys.dead), arguments)

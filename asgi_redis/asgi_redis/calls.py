"""What all parts of the store share: the servers, keys, codec, and the commands that send."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from . import entry
from .codec import Codec
from .contract import ByName, inbox_of
from .keys import Keys
from .scripts import Command, run
from .servers import Servers

#: Keys, or members, that one command names at most.
BATCH = 200


class Place(NamedTuple):
    """Where the messages of a channel go, and for how long: `expiry` is in milliseconds."""

    partition: int
    queue: str
    wake: str
    capacity: int
    expiry: int
    kind: int
    inbox: str | None


class Calls:
    """The part of the store that its other parts use. Thread-safe."""

    def __init__(
        self,
        servers: Servers,
        keys: Keys,
        codec: Codec,
        capacities: ByName,
        expiries: ByName,
        inbox_capacity: int,
        dead_letters: int,
    ) -> None:
        self.servers = servers
        self.keys = keys
        self.codec = codec
        self.capacities = capacities
        self.expiries = expiries
        self.inbox_capacity = inbox_capacity
        self.dead_letters_kept = dead_letters
        self.cached_place = lru_cache(maxsize=1024)(self.make_place)

    def make_place(self, channel: str) -> Place:
        return Place(
            *self.keys.queue(channel),
            self.capacities[channel],
            int(self.expiries[channel] * 1000),
            self.keys.kind(channel),
            inbox_of(channel),
        )

    def place(self, channel: str) -> Place:
        """Return where messages of `channel` go. Names that are used once aren't kept."""
        if "!" in channel or "?" in channel:
            return self.make_place(channel)
        return self.cached_place(channel)

    def encode(self, channel: str, message: dict[str, Any]) -> bytes:
        """Return the body of `message`. The channel of a group's message and of an inbox itself is ""."""
        return entry.make_body(channel, self.codec.pack(message, channel.encode()))

    def decode(self, body: bytes) -> dict[str, Any]:
        """Return the message of a body. Raises Unreadable."""
        name, _, payload = body.partition(b"\n")
        return self.codec.unpack(payload, name)

    def send_command(self, channel: str, body: bytes, unlimited: bool = False) -> Command:
        """Return the command that sends `body`. Its reply is 0, or the numbers of what was refused."""
        partition, queue, wake, capacity, expiry, kind, inbox = self.place(channel)
        if unlimited:
            capacity = -1
        if inbox is None:
            keys = self.keys.sending[partition] + (queue, wake)
            return run("send", keys, (capacity, expiry, kind, body))
        _, register, stream, _ = self.keys.inbox(inbox)
        return run(
            "send_inbox",
            (register, stream, queue, wake),
            (-1 if unlimited else self.inbox_capacity, capacity, expiry, body),
        )

    def dead_letter_command(self, field: str, reason: str, *unheld: bytes) -> Command:
        """Return the command that dead-letters what is held under `field`, or an entry that isn't."""
        keys = (self.held_key, self.keys.dead)
        return run("dead_letter", keys, (field, reason, self.dead_letters_kept) + unheld)

    #: The name of this process, new in each child process, and the key of what it holds.
    process = ""
    held_key = ""

    def set_process(self, process: str) -> None:
        self.process = process
        self.held_key = self.keys.held(process)

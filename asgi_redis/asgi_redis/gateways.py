"""Leases, and what gateways leave: heartbeats, registers, last wills."""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from .calls import Calls
from .contract import protocol
from .prefetch import Held
from .scripts import Command, run

#: Fields of what expired begin so (lua/heartbeat.lua); those of what dead processes held, with "lost:".
EXPIRED = "expired:"


class Heartbeat(NamedTuple):
    """What a heartbeat found. Times are in seconds."""

    missing: set[str]  # gateways of this process whose lease had ended
    held: list[Held]  # what dead processes held, and events that expired: this process's now
    gone: list[str]  # gateways to clear up after
    expired: dict[str, int]  # messages, by channel
    next_end: float  # until the next lease ends, if it isn't renewed; 0: more has expired
    next_due: float | None  # until something delayed is due


class Registered(NamedTuple):
    """The reply of register.lua."""

    count: int
    lost: bool
    groups: list[str]  # groups whose routes are to be removed


class GatewayCalls(Calls):
    """Thread-safe, but for `look_at_partitions`, which is the lease thread's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._epochs: dict[str, bytes] = {}

    def heartbeat(self, gateways: list[str], lease: float) -> Heartbeat:
        """Renew the leases of this process and of its gateways; take over what dead processes held."""
        keys = self.keys
        due, missing, held, gone, ending, expired = self.servers.call(
            run(
                "heartbeat",
                [keys.leases, keys.seen, keys.gone, self.held_key, keys.delay] + keys.expiring,
                ["w:" + self.process, int(lease * 1000), keys.tag] + gateways,
            )
        )
        return Heartbeat(
            {name.decode() for name in missing},
            [Held(field.decode(), entry) for field, entry in zip(held[::2], held[1::2])],
            [name.decode() for name in gone],
            {
                channel.decode("ascii", "replace"): number
                for channel, number in zip(expired[::2], expired[1::2])
            },
            ending / 1000.0,
            None if due < 0 else due / 1000.0,
        )

    def partition_lost_data(self) -> bool:
        """
        Return whether one of several partitions lost its data, and with it routes of groups: a cluster's
        node did. (The register of an inbox tells it of a single partition.)
        """
        tags = self.keys.tags
        if len(tags) == 1:
            return False
        lost = False
        epochs = self.servers.call_many([("GET", tag + "epoch") for tag in tags])
        for tag, epoch in zip(tags, epochs):
            if epoch is None:
                self.servers.call(("SET", tag + "epoch", uuid.uuid4().hex, "NX"))
                epoch = self.servers.call(("GET", tag + "epoch"))
            lost = lost or self._epochs.get(tag, epoch) != epoch
            self._epochs[tag] = epoch
        return lost

    def register_command(
        self, inbox: str, count: int, last: tuple[int, int], lost: bool, token: str = ""
    ) -> Command:
        """Return the command that says that a gateway is there; `registered` reads its reply."""
        home, register, stream, groups = self.keys.inbox(inbox)
        _, queue, wake = self.keys.queue(inbox)
        return run(
            "register",
            (register, stream, groups, queue, wake),
            (
                count,
                last[0],
                last[1],
                self.encode("", protocol.reset()),
                "1" if lost else "",
                self.keys.tags[home],
                inbox,
                token,
            ),
        )

    @staticmethod
    def registered(reply: list[Any]) -> Registered:
        count, lost, *groups = reply
        return Registered(count, bool(lost), [group.decode() for group in groups])

    def remove_route(self, group: str, inbox: str) -> None:
        """The gateway has no members of `group` any more."""
        self.servers.call(run("remove_route", [self.keys.group(group).routes], [inbox, -1]))

    def leave(self, gateway: str) -> None:
        """End the lease of a gateway, and clear up after it."""
        keys = self.keys
        self.servers.call_many(
            [("SADD", keys.gone, gateway), ("ZREM", keys.leases, "g:" + gateway)]
        )
        self.clear_up(gateway)

    def clear_up(self, gateway: str) -> None:
        """Send the last wills of a gateway, each once, and remove the rest; twice does no harm."""
        keys, call = self.keys, self.servers.call
        inbox, _, token = gateway.partition("|")
        while call(run("send_wills", [keys.wills(gateway)], [keys.tag])):
            pass
        partition, register, stream, groups = keys.inbox(inbox)
        tag = keys.tags[partition]
        for group in call(run("unregister", [register, stream, groups], [tag, inbox, token])):
            self.remove_route(group.decode(), inbox)
        call(("SREM", keys.gone, gateway))

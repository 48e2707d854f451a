"""Leases, recovery and expiry; and what gateways leave: registers and last wills."""

from __future__ import annotations

import logging
import os
import uuid
from typing import TYPE_CHECKING, Any, Callable, Sequence

from .calls import in_batches, pairs
from .consumers import ConsumerCalls, to_entry
from .contract import (
    DEAD_LETTER,
    DROP,
    REQUEUE,
    Action,
    Entry,
    Heartbeat,
    LayerUnavailable,
    Outgoing,
    Recovered,
    Unreadable,
    protocol,
)
from .entry import split_body
from .scripts import Command, run

if TYPE_CHECKING:
    from .inbox import RedisInbox

logger = logging.getLogger("django.channels.layers")


def _to_reader(gateway: str, connection: bytes, will: bytes) -> Outgoing:
    """
    Return a last will for a single reader or a process-local channel as it is sent: once, although several
    processes may try.
    """
    expiry, _, body = will.partition(b":")
    id = "will:%s:%s" % (gateway, connection.decode("utf-8", "replace"))
    return Outgoing(split_body(body)[0], body, True, int(expiry) / 1000.0, id)


class GatewayCalls(ConsumerCalls):
    """Thread-safe; `heartbeat`, `recover` and `expire` are called by the lease thread alone."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._begin()

    def _begin(self) -> None:
        """Take a new name: this process's, for messages that it takes over from the dead."""
        name = "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())
        self._taker, self._taken_key = "t:" + name, self.keys.taken(name)
        self._inboxes: dict[str, RedisInbox] = {}
        self._epochs: dict[str, bytes] = {}
        self._runs: dict[str, str] = {}
        self._data_lost = False  # and not all inboxes have been told

    def after_fork(self) -> None:
        super().after_fork()
        self._begin()

    # Leases.

    def attach(self, inbox: RedisInbox) -> None:
        """Register the gateway of `inbox` with each heartbeat, if the engine renews its lease."""
        self._inboxes[inbox.name] = inbox

    def detach(self, inbox: RedisInbox) -> None:
        self._inboxes.pop(inbox.name, None)

    def _holder_of(self, name: str) -> str:
        if not name.endswith("!"):
            return "w:" + name
        inbox = self._inboxes.get(name)
        return "g:" + (name if inbox is None else inbox.gateway)

    def register(self, name: str) -> None:
        holder = self._holder_of(name)
        arguments = (holder, self.lease_milliseconds)
        self.servers.call(run("take_lease", [self.keys.leases], arguments))
        inbox = self._inboxes.get(name)
        if inbox is not None:
            if not self._epochs:
                self._partition_lost_data()
            # A lease that others have recovered took the memberships and wills with it. What wills are left
            # is sent now, because the inbox learns which were sent.
            if inbox.leased and not inbox.has_lost:
                self._send_wills(inbox.gateway)
                self.servers.call(("SREM", self.keys.gone, inbox.gateway))
            inbox.register(inbox.leased)

    def heartbeat(self, names: Sequence[str]) -> Heartbeat:
        keys = self.keys
        holders = {name: self._holder_of(name) for name in names}
        beat = run(
            "heartbeat",
            [keys.leases, keys.gone, self._taken_key] + keys.expiring,
            [self.lease_milliseconds, keys.tag, self._taker] + list(holders.values()),
        )
        missing, lost, expired, ending = self.servers.call_many([self.check_project, beat])[-1]
        inboxes = [
            inbox
            for inbox in list(self._inboxes.values())
            if inbox.name in holders and holders[inbox.name].encode() not in missing
        ]
        if inboxes and self._partition_lost_data():
            self._data_lost = True
        for inbox in inboxes:
            inbox.register(self._data_lost)
        self._data_lost = False
        return Heartbeat(
            [name for name, holder in holders.items() if holder.encode() in missing],
            bool(lost),
            bool(expired),
            None if ending < 0 else ending / 1000.0,
        )

    def _read_epochs(self) -> dict[str, bytes]:
        """Return the epoch of each partition, if there are several. One that has none gets a new one."""
        tags = self.keys.tags
        if len(tags) == 1:
            return {}
        epochs = dict(zip(tags, self.servers.call_many([("GET", tag + "epoch") for tag in tags])))
        for tag in [tag for tag in tags if epochs[tag] is None]:
            self.servers.call(("SET", tag + "epoch", uuid.uuid4().hex, "NX"))
            epochs[tag] = self.servers.call(("GET", tag + "epoch"))
        return epochs

    def _partition_lost_data(self) -> bool:
        """
        Return whether one of several partitions lost data since the last call, and with it routes of groups,
        events or replies: a cluster's node lost all, or another one took over what it had received of it.
        (The register of an inbox, and the run of its server, tell it of a single partition.)
        """
        epochs = self._read_epochs()
        lost = any(self._epochs.get(tag, epoch) != epoch for tag, epoch in epochs.items())
        owners = self.servers.owners(self.keys.tags, set(self._runs.values()))
        if owners is not None:
            # A run that is still a primary has passed the partition on, with all that was in it.
            runs, primaries = owners
            lost = lost or not set(self._runs.values()) <= primaries
            self._runs.update(runs)
        self._epochs.update(epochs)
        return lost

    def extend_leases(self) -> None:
        self.servers.call(run("extend_leases", [self.keys.leases], [self.lease_milliseconds]))

    def leave(self, name: str) -> None:
        keys, holder = self.keys, self._holder_of(name)
        if holder.startswith("g:"):
            gateway = holder[2:]
            self.servers.call_many([("SADD", keys.gone, gateway), ("ZREM", keys.leases, holder)])
            self._clear_up(gateway)
            return
        held_key = keys.held(name)
        if all(field.startswith(b"#") for field in self.servers.call(("HKEYS", held_key))):
            self.servers.call_many([("DEL", held_key), ("ZREM", keys.leases, holder)])

    # Recovery and expiry.

    def recover(self, decide: Callable[[Entry], Action]) -> Recovered:
        keys = self.keys
        holders, held, gone = self.servers.call(
            run(
                "recover",
                (keys.leases, keys.gone, self._taken_key),
                (self._taker, self.lease_milliseconds, keys.tag),
            )
        )
        decisions, dropped = self._carry_out(held, decide)
        self._clear_up_all(gone)
        names = [holder.decode("utf-8", "replace")[2:].partition("|")[0] for holder in holders]
        return Recovered(names, decisions, dropped)

    def expire(self, decide: Callable[[Entry], Action]) -> Recovered:
        """Besides events, take what has expired on other channels: of those, report the number."""
        keys = self.keys
        held, counted = self.servers.call(
            run(
                "expire",
                [keys.leases, self._taken_key] + keys.expiring,
                [self._taker, self.lease_milliseconds, keys.tag, uuid.uuid4().hex],
            )
        )
        decisions, dropped = self._carry_out(held, decide)
        for channel, number in pairs(counted):
            decisions += [(channel.decode("ascii", "replace"), DROP)] * number
        return Recovered([], decisions, dropped)

    def _carry_out(
        self, held: list[bytes], decide: Callable[[Entry], Action]
    ) -> tuple[list[tuple[str, str]], int]:
        """Do with messages that this process has taken over as `decide` says. Twice does no harm."""
        decisions: list[tuple[str, str]] = []
        dropped = 0
        entries = [to_entry(field, raw) for field, raw in pairs(held)]
        for some in in_batches(entries):
            actions = [(entry, decide(entry)) for entry in some]
            # What a gateway is told is sent before the message is forgotten.
            self.send([action.notice for _, action in actions if action.notice is not None])
            replies = self.servers.call_many([self._action_command(*each) for each in actions])
            for (entry, action), reply in zip(actions, replies):
                decisions.append((entry.channel, action.kind))
                if action.kind == DEAD_LETTER:
                    dropped += reply
        return decisions, dropped

    def _action_command(self, entry: Entry, action: Action) -> Command:
        if action.kind == REQUEUE:
            return self.requeue_command(self._taken_key, entry.channel, 1, entry.id)
        if action.kind == DEAD_LETTER:
            return self.dead_letter_command(self._taken_key, entry.id, action.reason)
        return ("HDEL", self._taken_key, entry.id)

    # Gateways.

    def register_command(
        self, inbox: str, count: int, last: tuple[int, int], lost: bool, token: str = ""
    ) -> Command:
        """Return the command that says that a gateway is there."""
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

    def remove_route(self, group: str, inbox: str) -> None:
        """Remove the route of a group to a gateway in which no member of it is left."""
        self.servers.call(self.remove_route_command(group, inbox))

    def _clear_up_all(self, gateways: Sequence[bytes]) -> None:
        """Clear up after each of some gateways, although it fails after another."""
        failed: LayerUnavailable | None = None
        for gateway in gateways:
            try:
                self._clear_up(gateway.decode())
            except UnicodeDecodeError:
                logger.error("A gateway's name in Redis is damaged, and is removed: %r", gateway)
                self.servers.call(("SREM", self.keys.gone, gateway))
            except LayerUnavailable as error:
                failed = error
        if failed is not None:
            raise failed

    def _send_wills(self, gateway: str) -> None:
        """Send the last wills of a gateway, each once. Twice does no harm."""
        keys = self.keys
        send_wills = run(
            "send_wills",
            [keys.wills(gateway), keys.wills_sent(gateway), keys.dead],
            [keys.tag, self.layer.options.dead_letters],
        )
        left, sent = 1, ()
        while left:
            left, unreadable, single = self.servers.call(send_wills + sent)
            for body in unreadable:
                error = Unreadable("it isn't a last will")
                self.layer.recovery.unreadable(Entry(None, "", body), error, 0)
            self.send([_to_reader(gateway, *each) for each in pairs(single)])
            sent = tuple(single[::2])

    def _clear_up(self, gateway: str) -> None:
        """Send the last wills of a gateway, and remove the rest. Twice does no harm."""
        keys, call = self.keys, self.servers.call
        inbox, _, token = gateway.partition("|")
        self._send_wills(gateway)
        partition, register, stream, groups = keys.inbox(inbox)
        tag = keys.tags[partition]
        for group in call(run("unregister", [register, stream, groups], [tag, inbox, token])):
            self.remove_route(group.decode("utf-8", "replace"), inbox)
        call(("SREM", keys.gone, gateway))

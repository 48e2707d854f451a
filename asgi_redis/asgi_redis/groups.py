"""Groups: one record for each gateway that has members, and one send for each other member."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict

from .calls import Calls, in_batches
from .contract import Message, Outgoing, RateLimit, inbox_of, protocol
from .scripts import Command, run

logger = logging.getLogger("django.channels.layers")

_unreadable = RateLimit()


class GroupCalls(Calls):
    """Thread-safe."""

    def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member: in its inbox first, then in the group's routes."""
        inbox = inbox_of(channel)
        partition, routes, others = self.keys.group(group)
        if inbox is not None:
            home, register, stream, groups = self.keys.inbox(inbox)
            record = self.encode(channel, protocol.group_added(group))
            number = self.servers.call(
                run(
                    "group_add",
                    [register, stream, self.keys.members(inbox, group), groups]
                    + [routes] * (home == partition),
                    [channel, group, record, inbox, home],
                )
            )
            if number >= 0:
                if home != partition:
                    self.servers.call(run("add_route", [routes], [inbox, home, number]))
                return
        member = self.codec.members(group.encode(), channel.encode())[0]
        self.servers.call(("ZADD", others, int(time.time()), member))

    def group_discard(self, group: str, channel: str) -> None:
        """Remove `channel` from the group, and the route if it was the last member there."""
        inbox = inbox_of(channel)
        partition, routes, others = self.keys.group(group)
        if inbox is not None:
            record = self.encode(channel, protocol.group_discarded(group))
            number = self.servers.call(self.discard_command(group, channel, record))
            if number > 0 and self.keys.partition(inbox) != partition:
                self.servers.call(self.remove_route_command(group, inbox, number))
            if number >= 0:
                return
        members = self.codec.members(group.encode(), channel.encode())
        self.servers.call(("ZREM", others) + tuple(members))

    def discard_command(self, group: str, channel: str, record: bytes = b"") -> Command:
        """Return the command that takes a gateway's channel out of a group."""
        inbox = inbox_of(channel)
        assert inbox is not None
        partition, routes, _ = self.keys.group(group)
        home, register, stream, groups = self.keys.inbox(inbox)
        return run(
            "group_discard",
            [register, stream, self.keys.members(inbox, group), groups]
            + [routes] * (home == partition),
            [channel, group, record, inbox],
        )

    def group_channels(self, group: str) -> list[str]:
        _, routes, others = self.keys.group(group)
        inboxes, plain = self.servers.call_many([("HKEYS", routes), ("ZRANGE", others, 0, -1)])
        found = self._names(group, plain)
        for inbox in inboxes:
            members = self.servers.call(
                ("SMEMBERS", self.keys.members(inbox.decode("utf-8", "replace"), group))
            )
            found += [name.decode("utf-8", "replace") for name in members]
        return found

    def _names(self, group: str, members: list[bytes]) -> list[str]:
        """Return the names of members that no gateway holds. Count and log forged ones."""
        # Without duplicates: a member may be there under two encryption keys.
        names: dict[str, None] = {}
        for member in members:
            name = self.codec.member_name(group.encode(), member)
            if name is not None:
                names[name.decode("utf-8", "replace")] = None
                continue
            self.layer.count("unreadable_members")
            _unreadable.log(
                logger.error,
                "A member of the group %s gets no messages: it was added without encryption, or under a key "
                "that is not in symmetric_encryption_keys. Add it again. Its name in Redis: %r",
                group,
                member[:200],
            )
        return list(names)

    def send_group(self, group: str, message: Message, id: str = "") -> int:
        partition, routes, others = self.keys.group(group)
        record = self.encode("", protocol.group_message(group, message))
        skipped, elsewhere, plain = self.servers.call(
            run(
                "send_group",
                (routes, others),
                (record, self.keys.tags[partition], partition, self.layer.options.inbox_capacity)
                + (group, math.ceil(self.layer.group_expiry), self.keys.sent(partition, id)),
            )
        )
        if elsewhere:
            inboxes = [name.decode("utf-8", "replace") for name in elsewhere[1::2]]
            skipped += self._send_remote(group, record, inboxes, id)
        if plain:
            names = self._names(group, plain)
            inner, names = protocol.for_members(message, names)
            skipped += self._send_to_all(names, inner, id)
        return int(skipped)

    def _send_remote(self, group: str, record: bytes, inboxes: list[str], id: str) -> int:
        """Send to inboxes of other partitions than the group's; return how many members were skipped."""
        parts: dict[int, list[str]] = defaultdict(list)
        for inbox in inboxes:
            home, register, stream, _ = self.keys.inbox(inbox)
            parts[home] += [register, stream, self.keys.members(inbox, group)]
        arguments = (record, self.layer.options.inbox_capacity)
        commands = [
            run("send_remote", keys, arguments + (self.keys.sent(home, id),))
            for home, keys in parts.items()
        ]
        return sum(self.servers.call_many(commands))

    def _send_to_all(self, channels: list[str], message: Message, id: str) -> int:
        """Send to members that no gateway holds; return how many were full."""
        skipped = 0
        for some in in_batches(channels):
            items = [
                Outgoing(each, self.encode(each, message), id=id and "%s:%s" % (id, each))
                for each in some
            ]
            skipped += len(self.send(items))
        return skipped

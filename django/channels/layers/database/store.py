"""
DatabaseStore: the primitives of engine/store.py over tables.

Each part is a class over the one before: tables.py (statements, keys, notifications), sending.py,
claiming.py, maintenance.py (leases, recovery, delay, dead letters, statistics), and here groups and what
gateways call.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Sequence

from ..engine.store import Entry, Outgoing, Will
from ..names import inbox_of
from . import rows as values
from .connections import Connection
from .maintenance import Maintenance
from .sending import NO_GATEWAY


class DatabaseStore(Maintenance):
    """The storage of one layer in a database. Each database has a subclass. Thread-safe."""

    # Groups.

    def add_member(self, connection: Connection, group: str, channel: str, gateway: str) -> bool:
        member = {"grp": self.key(group), "gateway": gateway and self.key(gateway)}
        return bool(connection.run(self.sql["group_add"], dict(member, channel=channel)))

    def remove_member(self, connection: Connection, group: str, channel: str) -> bool:
        inbox = inbox_of(channel)
        member = {"grp": self.key(group), "gateway": inbox and self.key(inbox), "channel": channel}
        if inbox and connection.run(self.sql["group_discard"], member):
            return True
        connection.run(self.sql["group_discard"], dict(member, gateway=""))
        return False

    def group_channels(self, group: str) -> list[str]:
        rows = self.read("group_channels", {"grp": self.key(group)})
        return [row[0] for row in rows if values.is_text(row[0])]

    def group_routes(self, group: str) -> tuple[list[str], list[str]]:
        routes = self.read("group_routes", {"grp": self.key(group)})
        routes = [row for row in routes if values.is_text(row[0]) and values.is_text(row[1])]
        gateways = [self.name(gateway) for gateway, _ in routes if gateway.startswith(self.key(""))]
        return gateways, [channel for gateway, channel in routes if not gateway]

    def count_members(self, group: str, gateway: str) -> int:
        member = {"grp": self.key(group), "gateway": self.key(gateway)}
        return int(self.read("group_members", member)[0][0])

    # A gateway's end.

    def receive_inbox(self, name: str, acked: Sequence[Any], limit: int) -> list[Entry]:
        # Two statements need no transaction: each may be repeated.
        if acked:
            self.connections.transaction(
                partial(self.drop_from, inbox=name, ids=acked), single=True
            )
        rows = self.read("inbox", {"queue": self.key(name), "limit": limit})
        return [Entry(*row) for row in rows]

    def drop_from(self, connection: Connection, inbox: str, ids: Sequence[Any]) -> int:
        statement, parameters = self.many("drop_many", "number", [{"id": each} for each in ids])
        return connection.run(statement, dict(parameters, queue=self.key(inbox)))

    def gateway_batch(
        self,
        inbox: str,
        wills: Sequence[Will],
        cleared: Sequence[str],
        discards: Sequence[tuple[str, str]],
        sends: Sequence[Outgoing],
    ) -> Sequence[int]:
        gateway = self.key(inbox)
        sender = gateway, self.next_turn()
        refused, rows = self._fitting(sends)
        if not (wills or cleared or discards):
            if rows:
                self._insert(rows, sender)
            return refused
        topics = self._topics(rows)
        at_once = self.notifier.due(topics)
        will_rows = [{"channel": self.key(each.connection), "gateway": gateway} for each in wills]
        for row, each in zip(will_rows, wills):
            row.update(queue=self.key(each.channel), body=each.body)

        def work(connection: Connection) -> None:
            self.pass_fence(connection, sender)
            for part in self.parts(will_rows):
                connection.run(*self.many("set_wills", "will_row", part))
            for name in cleared:
                connection.run(self.sql["clear_will"], {"channel": self.key(name)})
            for group, channel in discards:
                member = {"grp": self.key(group), "gateway": gateway, "channel": channel}
                connection.run(self.sql["group_discard"], member)
            self.insert_from(connection, rows, at_once, NO_GATEWAY)

        self.connections.transaction(work)
        self._inserted(rows, topics, at_once)
        return refused

    def drop_channels(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self.write("drop_queue", {"queue": self.queue(channel)})

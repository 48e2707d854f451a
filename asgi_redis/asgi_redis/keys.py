"""
What lies under which key, and in which partition. No I/O and no state.

A key is `{PREFIX#PARTITION}KIND:NAME`. The braces are Redis Cluster's hash tag, so that a partition
lies in one place and a script may use all of it:

    q:CHANNEL      queue: list of entries (lua/prelude.lua)
    w:CHANNEL      its wake list: a token while it holds anything
    g:INBOX        register of a gateway, a hash (lua/register.lua)
    i:INBOX        its inbox, a stream (lua/send_inbox.lua)
    b:INBOX        the groups of which it has members, a set
    m:INBOX:GROUP  a group's members there, a set
    r:GROUP        routes of a group, a hash (lua/add_route.lua)
    p:GROUP        its members that no gateway holds, a sorted set (codec.py)
    s:ID           exists while a message that was sent with this id must not be sent again
    n:INBOX|TOKEN  the last batch that a gateway has sent (lua/send.lua)
    epoch          a random id: a different value means that the partition lost its data

and only in the first partition:

    f:PROCESS            what a worker process holds, a hash (lua/claim.lua)
    t:PROCESS            what a process has taken over, a hash (lua/recover.lua)
    k:CONSUMER           wake list of one consumer
    h:INBOX|TOKEN        last wills of a gateway, a hash (lua/send_wills.lua)
    c:INBOX|TOKEN        the number of its last change of them (lua/set_wills.lua)
    e:INBOX|TOKEN        its connections whose will was sent, a set (lua/send_wills.lua)
    expired              expired entries that no process has taken, a list (lua/expire.lua)
    queues               queues that may hold what expires, a set (lua/heartbeat.lua)
    leases, gone         leases (lua/heartbeat.lua)
    delay, delay-wake    what is due later (lua/send_later.lua)
    dead                 dead letters, a stream (lua/dead_letter.lua)
    counters             what all processes counted, a hash
    a:PROCESS            the number under which a process last added to them (lua/add_counters.lua)
    project              which project this is (lua/check_project.lua)

Shared channels lie in the first partition, all of them: a worker claims from any of them, and a recovery
moves what a dead worker held, in one script each. Inboxes, groups and single readers' channels are
what there is much of, and are spread over all partitions.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from .contract import inbox_of, is_count, protocol, queue_of, refusal
from .project import default_prefix, is_name

#: Kinds of channels for lua/send.lua: a single reader's, of a connection's events, another shared one.
SINGLE, EVENTS, SHARED = 0, 1, 2


class QueueKeys(NamedTuple):
    partition: int
    queue: str
    wake: str


class InboxKeys(NamedTuple):
    partition: int
    register: str
    stream: str
    groups: str


class GroupKeys(NamedTuple):
    partition: int
    routes: str
    others: str  # members that no gateway holds


class Keys:
    """The keys of one layer."""

    def __init__(self, prefix: str | None, partitions: int) -> None:
        if prefix is None:
            prefix = default_prefix()
        if not is_name(prefix) or set("{}") & set(prefix):
            raise refusal("prefix", "text without braces, such as 'mysite:'", prefix)
        if not is_count(partitions) or not 1 <= partitions <= 1024:
            raise refusal("partitions", "a number from 1 to 1024", partitions)
        self.prefix, self.partitions = prefix, partitions
        self.tags = ["{%s#%d}" % (prefix, number) for number in range(partitions)]
        #: The first partition's.
        self.tag = self.tags[0]
        self.counters = self.tag + "counters"
        self.leases = self.tag + "leases"
        self.gone = self.tag + "gone"
        self.delay = self.tag + "delay"
        self.delay_wake = self.tag + "delay-wake"
        self.dead = self.tag + "dead"
        self.expired = self.tag + "expired"
        self.queues = self.tag + "queues"
        self.project = self.tag + "project"
        #: By partition, the keys of send.lua before the queues.
        self.sending = [(tag + "expired", tag + "queues") for tag in self.tags]
        #: Where heartbeat.lua and expire.lua find what expired.
        self.expiring = [self.expired, self.queues]
        self.expiring += [self.queue(channel).queue for channel in sorted(protocol.EVENT_CHANNELS)]

    def partition(self, name: str) -> int:
        """Return the partition of an inbox or a channel."""
        if self.partitions == 1:
            return 0
        inbox = inbox_of(name)
        if inbox is None and "?" not in name:
            return 0
        return crc32((inbox or name).encode()) % self.partitions

    def queue(self, channel: str) -> QueueKeys:
        """Return the keys of a channel's queue; a process-local channel shares its prefix's."""
        number = self.partition(channel)
        name = queue_of(channel)
        tag = self.tags[number]
        return QueueKeys(number, "%sq:%s" % (tag, name), "%sw:%s" % (tag, name))

    def kind(self, channel: str) -> int:
        """Return SINGLE, EVENTS or SHARED."""
        if "?" in channel or "!" in channel:
            return SINGLE
        return EVENTS if channel in protocol.EVENT_CHANNELS else SHARED

    def held(self, process: str) -> str:
        return "%sf:%s" % (self.tag, process)

    def taken(self, process: str) -> str:
        return "%st:%s" % (self.tag, process)

    def sent(self, partition: int, id: str) -> str:
        """Return the key that remembers a message of this id, "" for one without."""
        return id and "%ss:%s" % (self.tags[partition], id)

    def counted(self, process: str) -> str:
        return "%sa:%s" % (self.tag, process)

    def wake(self, consumer: str) -> str:
        return "%sk:%s" % (self.tag, consumer)

    def wills(self, gateway: str) -> str:
        return "%sh:%s" % (self.tag, gateway)

    def wills_sent(self, gateway: str) -> str:
        return "%se:%s" % (self.tag, gateway)

    def wills_changed(self, gateway: str) -> str:
        return "%sc:%s" % (self.tag, gateway)

    def batch(self, partition: int, gateway: str) -> str:
        return "%sn:%s" % (self.tags[partition], gateway)

    def inbox(self, inbox: str) -> InboxKeys:
        """Return the keys of an inbox."""
        number = self.partition(inbox)
        tag = self.tags[number]
        return InboxKeys(
            number, "%sg:%s" % (tag, inbox), "%si:%s" % (tag, inbox), "%sb:%s" % (tag, inbox)
        )

    def members(self, inbox: str, group: str) -> str:
        return "%sm:%s:%s" % (self.tags[self.partition(inbox)], inbox, group)

    def group(self, group: str) -> GroupKeys:
        """Return the keys of a group."""
        number = crc32(group.encode()) % self.partitions
        tag = self.tags[number]
        return GroupKeys(number, "%sr:%s" % (tag, group), "%sp:%s" % (tag, group))

    def patterns(self, kinds: str = "") -> list[str]:
        """Return globs for SCAN: of all keys of this layer, or of those of some kinds, by partition."""
        found = []
        for tag in self.tags:
            literal = "".join("\\" + each if each in "*?[]\\^" else each for each in tag)
            found += [literal + kind + ":*" for kind in kinds] if kinds else [literal + "*"]
        return found

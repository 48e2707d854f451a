"""
What lies under which key, and in which partition. No I/O and no state.

A key is `{PREFIX#PARTITION}KIND:NAME`. The braces are Redis Cluster's hash tag, so that a partition
lies in one place and a script may use all of it:

    q:CHANNEL      queue: list of entries (lua/send.lua)
    w:CHANNEL      its wake list: a token while it holds anything
    g:INBOX        register of a gateway, a hash (lua/attend.lua)
    i:INBOX        its inbox, a stream (lua/tell.lua)
    b:INBOX        the groups of which it has members, a set
    m:INBOX:GROUP  a group's members there, a set
    r:GROUP        routes of a group, a hash (lua/route.lua)
    p:GROUP        its members that no gateway holds, a sorted set
    stat           counters, a hash
    expired        what expired and nobody has looked at, a list (lua/beat.lua)
    queues         queues that may hold what expires, a set (lua/beat.lua)
    epoch          what nobody changes: where it has, the partition lost its data

and only in the first partition:

    f:PROCESS            what a worker process holds, a hash (lua/claim.lua)
    k:SLOT               wake list of one worker thread
    h:INBOX|TOKEN        connections of a gateway, a hash (lua/farewell.lua)
    leases, seen, gone   leases (lua/beat.lua)
    delay, delay-wake    what is due later (lua/later.lua)
    dead                 dead letters, a stream (lua/bury.lua)

Shared channels lie in the first partition, all of them: a worker claims from any of them, and reaping
moves what a dead worker held, in one script each. Inboxes, groups and single readers' channels are
what there is much of, and are spread over all partitions.
"""

from zlib import crc32

from .contract import EVENT_CHANNELS, inbox_of

#: Kinds of channels for lua/send.lua: a single reader's, of a connection's events, another shared one.
SINGLE, EVENTS, SHARED = 0, 1, 2


class Keys:
    """The keys of one layer."""

    def __init__(self, prefix, partitions):
        if not isinstance(prefix, str) or set("{}") & set(prefix):
            raise ValueError(
                "prefix is text without braces, such as 'mysite:', not %r." % (prefix,)
            )
        if not isinstance(partitions, int) or not 1 <= partitions <= 1024:
            raise ValueError("partitions is a number from 1 to 1024, not %r." % (partitions,))
        self.partitions = partitions
        self.tags = ["{%s#%d}" % (prefix, number) for number in range(partitions)]
        #: The first partition's.
        self.tag = self.tags[0]
        self.stat = self.tag + "stat"
        self.leases = self.tag + "leases"
        self.seen = self.tag + "seen"
        self.gone = self.tag + "gone"
        self.delay = self.tag + "delay"
        self.delay_wake = self.tag + "delay-wake"
        self.dead = self.tag + "dead"
        self.queues = self.tag + "queues"
        #: By partition, the keys of send.lua before the queues.
        self.sending = [(tag + "stat", tag + "expired", tag + "queues") for tag in self.tags]
        #: What beat.lua looks at for what expired.
        self.expiring = [self.stat, self.tag + "expired", self.queues]
        self.expiring += [self.queue(channel)[1] for channel in sorted(EVENT_CHANNELS)]

    def partition(self, name):
        """The partition of an inbox, a group or a channel."""
        if self.partitions == 1:
            return 0
        inbox = inbox_of(name)
        if inbox is None and "?" not in name:
            return 0
        return crc32((inbox or name).encode()) % self.partitions

    def partition_of_group(self, group):
        return crc32(group.encode()) % self.partitions

    def queue(self, channel):
        """(partition, queue, wake list) of a channel; a process-local one shares its prefix's."""
        number = self.partition(channel)
        name = inbox_of(channel) or channel
        tag = self.tags[number]
        return number, "%sq:%s" % (tag, name), "%sw:%s" % (tag, name)

    def kind(self, channel):
        """SINGLE, EVENTS or SHARED."""
        if "?" in channel or "!" in channel:
            return SINGLE
        return EVENTS if channel in EVENT_CHANNELS else SHARED

    def held(self, process):
        return "%sf:%s" % (self.tag, process)

    def wake(self, slot):
        return "%sk:%s" % (self.tag, slot)

    def holds(self, gateway):
        return "%sh:%s" % (self.tag, gateway)

    def inbox(self, inbox):
        """(partition, register, stream, groups) of an inbox."""
        number = self.partition(inbox)
        tag = self.tags[number]
        return number, "%sg:%s" % (tag, inbox), "%si:%s" % (tag, inbox), "%sb:%s" % (tag, inbox)

    def members(self, inbox, group):
        return "%sm:%s:%s" % (self.tags[self.partition(inbox)], inbox, group)

    def group(self, group):
        """(partition, routes, members that no gateway holds) of a group."""
        number = self.partition_of_group(group)
        tag = self.tags[number]
        return number, "%sr:%s" % (tag, group), "%sp:%s" % (tag, group)

    def patterns(self, kinds=None):
        """For SCAN: globs of all keys of this layer, or of those of some kinds, by partition."""
        found = []
        for tag in self.tags:
            literal = "".join("\\" + each if each in "*?[]\\^" else each for each in tag)
            found += [literal + "*"] if kinds is None else [literal + kind + ":*" for kind in kinds]
        return found

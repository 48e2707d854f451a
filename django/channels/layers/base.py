"""
The contract of a channel layer: what each call promises to the gateway, the worker and the site.

A layer knows no server and no settings. Of the rest of the package it uses the exceptions, and
`__call__` hands an ASGI 3 server over to the gateway. The mechanics (`send`, `receive_many`,
`new_channel`, groups, flush, statistics) follow the ASGI 1.0 specification; inbox, acknowledgement
and delay are this project's extensions. The conformance suite in `test/conformance.py` holds a test
for each promise made here.
"""

import random
import string
import threading
from asyncio import get_event_loop
from collections import Counter

from .. import exceptions
from ..protocol import EVENT_CHANNELS
from .messages import MAX_WEIGHT, clean
from .names import ByName, check_channel_name, check_group_name

_LETTERS = string.ascii_letters + string.digits
_random = random.SystemRandom()

#: Seconds for which what follows on a connection waits for a worker, whatever `expiry` says: the gateway
#: goes on with the connection when it is done, so it must not vanish while no worker runs. (A request
#: may: nobody wants it handled when its client has long given up.)
EVENT_EXPIRY = 86400

_EXPIRIES = dict.fromkeys(EVENT_CHANNELS - {"http.request"}, EVENT_EXPIRY)


class Inbox:
    """
    One gateway's end of the layer, used from its event loop only; no call blocks the loop.

    The inbox is a process-local channel: what anyone sends to a channel that begins with `name` comes
    out of `receive`. Made by `BaseChannelLayer.open_inbox`.
    """

    #: The process-local channel, ending in "!".
    name = None

    async def receive(self):
        """
        Wait for messages; return a non-empty list of `(channel, message)` in the order they were sent.

        A read that is cancelled, or repeated, loses nothing. Beside messages as they were sent, these
        arrive, each of them in its place in that order:

        * `(channel, {"group_add": group})`, `(channel, {"group_discard": group})`: the membership of
          one of this gateway's channels changed;
        * `(name, {"group": group, "message": message})`: for each member of the group here.

        Where the layer lost its data, `(name, {"reset": True})` says so. Raises LayerUnavailable when
        its server is lost: call again, and it reconnects.
        """
        raise NotImplementedError

    def send(self, channel, message, failed):
        """
        Send without waiting. The gateway's own messages are taken as they are: neither checked nor copied.

        `failed(exception)` is called in the event loop, at once or later, if the message was not
        taken: ChannelFull, MessageTooLarge or LayerUnavailable.
        """
        raise NotImplementedError

    def group_discard(self, group, channel):
        """Forget one of this gateway's memberships; no record of it comes back. Never raises."""
        raise NotImplementedError

    def set_will(self, channel, will):
        """
        Say that this gateway holds the connection of `channel`. Should the gateway be lost, the layer
        sends `farewell`, a `(channel, message)` pair, in its place.
        """

    def clear_will(self, channel):
        """The connection of `channel` has ended in order: no farewell is due."""

    async def close(self):
        """Leave the layer: memberships go, and what is still in the inbox with them."""
        raise NotImplementedError


class BaseChannelLayer:
    """
    What every layer shares: names, capacities, expiry, checks, counters, and the contract.

    `expiry` is in seconds, `capacity` in messages a channel; `channel_expiry` and `channel_capacity`
    map name patterns (globs or compiled regular expressions) to numbers that replace them. Events of
    sockets wait for a day (EVENT_EXPIRY) unless `channel_expiry` names them.
    `group_expiry` is accepted for settings written for Channels 1.x; memberships end with their
    connection, so nothing needs it here.

    A subclass defines `deliver`, `receive_many`, the group calls and what its `extensions` name.
    """

    #: What the layer can do beyond `send` and `receive_many`: "groups", "flush", "statistics", "inbox",
    #: "acknowledgement", "delay", "leases".
    extensions = ()

    #: Whether other processes on the same settings see the same channels.
    crosses_processes = True

    #: Whether `Channel.send` and `Group.send` wait for the transaction they are made in by default.
    sends_on_commit = False

    #: Seconds after which a blocking receive or claim returns empty-handed.
    block_for = 5.0

    #: Where the layer stands in CHANNEL_LAYERS, and its routing: set by `channels.asgi`.
    alias = None
    routing = None

    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = exceptions.MessageTooLarge
    LayerUnavailable = exceptions.LayerUnavailable

    def __init__(
        self,
        expiry=60,
        group_expiry=86400,
        capacity=100,
        channel_capacity=None,
        channel_expiry=None,
    ):
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self.capacities = ByName(capacity, channel_capacity)
        self.expiries = ByName(expiry, channel_expiry, _EXPIRIES)
        self._counters, self._shared = Counter(), Counter()
        self._counters_lock = threading.Lock()
        self._gateways = {}  # by event loop
        self._router = None

    # Sending and receiving.

    def send(self, channel, message):
        """
        Put `message` (dict) on `channel` (text). Never waits for a reader; atomic; may be called from any
        thread, with or without an event loop, also in a process forked since.

        Raises ChannelFull at capacity, MessageTooLarge over a megabyte, InvalidMessage or
        InvalidChannelName for what no layer carries, LayerUnavailable when its server cannot be
        reached. In each case nothing was sent. Unlike `Channel.send`, it sends every key, those of gateways
        and workers too: not for what a client wrote.
        """
        self.deliver(check_channel_name(channel), clean(message))

    def deliver(self, channel, message):
        """`send` of what is known to be a valid name and a clean message that nobody else changes."""
        raise NotImplementedError

    def check_message(self, message):
        """A clean copy of `message`, fit for `deliver`; raises what `send` would of a bad one."""
        return clean(message, MAX_WEIGHT)

    def receive_many(self, channels, block=False):
        """
        Take the next message of any of `channels` (a list of names): `(channel, message)`, or `(None, None)`
        if there is none.

        With `block`, waits up to `block_for` seconds for one. Each message is returned once, to one
        caller; messages of a channel come in the order they were sent, and no channel of the list
        starves behind another. For a process-local channel, name the part up to the "!" to receive all
        of it, or a full name. Thread-safe. Raises LayerUnavailable when its server cannot be reached.
        """
        raise NotImplementedError

    def receive(self, channels, block=False):
        """`receive_many` under the name it has in ASGI 1.1."""
        return self.receive_many(channels, block)

    def new_channel(self, pattern):
        """
        A new channel name nobody has: `pattern`, which ends in "!" (process-local) or "?" (a single
        reader), and twelve random letters. Nothing is made in the layer.
        """
        check_channel_name(pattern)
        if pattern[-1] not in "!?":
            raise exceptions.InvalidChannelName(
                "new_channel takes a pattern that ends in '!' (process-local) or '?' (single "
                "reader), not %r." % pattern
            )
        return check_channel_name(pattern + "".join(_random.choice(_LETTERS) for _ in range(12)))

    # Acknowledgement: a message is a worker's until it is done.

    def claim(self, slot, channels, block=False):
        """
        Acknowledge what `slot` (text, one per worker thread) holds, and claim the next message as
        `receive_many` does. What is claimed stays with the slot until it is acknowledged, by the next
        claim or by `acknowledge`, so that a worker's loss is noticed by layers that keep leases.

        A layer without the extension forgets a message as it hands it out.
        """
        return self.receive_many(channels, block)

    def acknowledge(self, slot):
        """What `slot` holds is done."""

    def finish(self, slot, channel, message):
        """
        `deliver` the last answer to what `slot` holds. The layer may keep it until the slot's next `claim`
        or `acknowledge`, which must follow at once, and send it with that.
        """
        self.deliver(channel, message)

    def requeue(self, slot):
        """Put what `slot` holds back at the head of its channel, for another worker."""

    def wake(self, slot):
        """Have a claim that waits for `slot` return at once, where the layer can."""

    # Delay.

    def send_later(self, channel, message, delay):
        """`send`, `delay` seconds (float) from now. At that time a full channel drops it, and counts that."""
        raise NotImplementedError

    # Groups.

    def group_add(self, group, channel):
        """
        Make `channel` a member of `group`; once more does no harm. When it returns, every later
        `send_group` reaches the channel.
        """
        raise NotImplementedError

    def group_discard(self, group, channel):
        """Remove `channel` from `group`; one that is no member does no harm."""
        raise NotImplementedError

    def group_channels(self, group):
        """The members of `group`: a list of names in no particular order."""
        raise NotImplementedError

    def send_group(self, group, message):
        """
        Send `message` to every member of `group`, in the order of this caller's other sends. Full
        members are skipped, and counted as "group_full". Raises as `send` does of a bad message.
        """
        self.deliver_group(check_group_name(group), clean(message))

    def deliver_group(self, group, message):
        """`send_group` of a valid name and a clean message that nobody else changes."""
        raise NotImplementedError

    # Flush and statistics.

    def flush(self):
        """Remove every message and every membership of this layer, and nothing else."""
        raise NotImplementedError

    def global_statistics(self):
        """The statistics of all channels together, a dict as the ASGI 1.0 specification names it."""
        raise NotImplementedError

    def channel_statistics(self, channel):
        """The statistics of one channel, a dict as the ASGI 1.0 specification names it."""
        raise NotImplementedError

    def statistics(self):
        """Every counter of this layer in this process: a dict of name to number since it started."""
        with self._counters_lock:
            return dict(self._counters)

    def count(self, name, number=1):
        """Add to one counter of `statistics`. Thread-safe."""
        with self._counters_lock:
            self._counters[name] += number

    def share_counters(self, share):
        """
        Call `share(counts)` with what was counted here since the last time that it raised nothing: a layer
        adds it to the "counters" of `global_statistics`, those of all processes. One thread's business.
        """
        with self._counters_lock:
            now = self._counters.copy()
        new = now - self._shared
        if new:
            share(dict(new))
            self._shared = now

    # The gateway's end.

    def open_inbox(self, name):
        """The Inbox of a gateway, under a process-local `name` that ends in "!". For its event loop only."""
        raise NotImplementedError

    # The layer as an ASGI 3 application.

    async def __call__(self, scope, receive, send):
        """ASGI 3: `daphne mysite.asgi:channel_layer` and any other server's like."""
        await self.gateway(scope, receive, send)

    @property
    def gateway(self):
        """The gateway of the running event loop."""
        loop = get_event_loop()
        gateway = self._gateways.get(loop)
        if gateway is None or gateway.stopped:
            from ..gateway import Gateway

            for each in [each for each in self._gateways if each.is_closed()]:
                self._gateways.pop(each).abandon()
            gateway = self._gateways[loop] = Gateway(self)
        return gateway

    @property
    def router(self):
        """The Router of `routing` (a dotted path, a list or a dict), with Django's own handling last."""
        if self._router is None:
            from ..routing import Router

            router = Router([] if self.routing is None else self.routing)
            router.check_default()
            self._router = router  # only once it is whole: other threads use it
        return self._router

    @router.setter
    def router(self, router):
        self._router = router

    def __str__(self):
        return "%s (%s.%s)" % (self.alias, type(self).__module__, type(self).__qualname__)

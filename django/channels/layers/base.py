"""
The contract of a channel layer: what each call promises to gateway, worker, commands and site.

Every call that the rest of the package makes on a layer or an inbox is named here. A layer knows no server
and no settings. `send`, `receive_many`, `new_channel`, groups, flush and statistics follow the ASGI 1.0
specification; the inbox, acknowledgement, delay, leases, wills and dead letters are this project's
extensions. The conformance suite (`test/conformance/`) has a test for each promise made here.

What may not be here: anything that only some layers do. Rules that layers share are in `engine/`. The file
is a little over 400 lines because it is the whole contract.
"""

from __future__ import annotations

import random
import string
import time
from abc import ABC, abstractmethod
from asyncio import get_event_loop
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional, Tuple

from .. import exceptions
from ..habits import Missing
from ..log import Reachability
from ..protocol import EVENT_CHANNELS, HTTP_REQUEST
from .engine.counters import Counters
from .engine.options import check_common
from .messages import MAX_WEIGHT, clean
from .names import ByName, check_channel_name, check_group_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..gateway import Gateway
    from ..routing import Router

#: A message: text keys, and the types that `messages.clean` lets through.
Message = Dict[str, Any]

#: What a receive or a claim returns: (channel, message), or (None, None) where there is none.
Received = Tuple[Optional[str], Optional[Message]]

_LETTERS = string.ascii_letters + string.digits
_random = random.SystemRandom()

#: Seconds for which the events of an open connection wait for a worker, whatever `expiry` says. The gateway
#: continues a connection only after its event has been handled, so such an event must not vanish while
#: workers restart. (A request may: its client gives up long before.)
EVENT_EXPIRY = 86400

_EXPIRIES = dict.fromkeys(EVENT_CHANNELS - {HTTP_REQUEST}, EVENT_EXPIRY)


class DeadLetter(NamedTuple):
    """A message that the layer gave up, and keeps for an operator to examine."""

    id: str
    channel: str
    #: None if it cannot be read.
    message: Message | None
    #: "lost": its worker died; "unreadable".
    reason: str
    #: When it was given up, in seconds since 1970.
    time: float


#: Seconds for which sending fails before the gateway is told, although it can read.
UNSENT_TIMEOUT = 3.0


class Inbox(ABC):
    """
    One gateway's end of the layer. Made by `BaseChannelLayer.open_inbox`.

    An inbox is a process-local channel: whatever is sent to a channel that begins with `name` comes out of
    `receive`. It belongs to the thread of one event loop. No call blocks that loop.
    """

    #: The process-local channel, ending in "!".
    name: str

    #: When (monotonic) the first of the reads began that have failed one after the other; None if the last
    #: one has not.
    failing_since: float | None = None

    #: When (monotonic) sending began to fail, or None. A layer whose disk is full can still be read. The
    #: inbox tries until it succeeds, also if nothing waits to be sent.
    unsent_since: float | None = None

    def note_unsent(self) -> bool:
        """
        Note that the layer has taken nothing now. Return whether it has been so for UNSENT_TIMEOUT: no answer
        can be stored either, and the gateway must not wait for it.
        """
        now = time.monotonic()
        self.unsent_since = self.unsent_since or now
        return now - self.unsent_since >= UNSENT_TIMEOUT

    @abstractmethod
    async def receive(self) -> list[tuple[str, Message]]:
        """
        Wait for messages; return a non-empty list of `(channel, message)` in the order they were sent.

        A read that is cancelled or repeated loses nothing. Besides messages as they were sent, these
        notices arrive (see `protocol.py`), each in its place in that order:

        * on one of this gateway's channels, that it has joined or left a group;
        * on `name`, a message to a group, once for all members here;
        * on `name`, that the layer lost its data (reset).

        Raises LayerUnavailable when the layer cannot be reached; the next call tries again.
        """

    @abstractmethod
    def send(self, channel: str, message: Message, failed: Callable[[Exception], None]) -> None:
        """
        Send without waiting. The gateway's messages are not checked or copied.

        `failed(exception)` is called in the event loop, at once or later, if the message was not taken:
        ChannelFull, MessageTooLarge or LayerUnavailable. After LayerUnavailable it may have been taken,
        but not after NotSent, which is one.
        """

    def withdraw(self) -> None:
        """
        Call `failed(NotSent)` now for each message that waits here and has not begun to leave. Called while
        the layer is unavailable.
        """

    @abstractmethod
    def group_discard(self, group: str, channel: str) -> None:
        """Remove one of this gateway's channels from `group`; no notice of it comes back. Never raises."""

    @abstractmethod
    def drop_channel(self, channel: str) -> None:
        """
        Remove what waits on a single-reader channel, once everything before it was sent. Never raises.

        Only this gateway sends to the channel, and it sends nothing more. If the layer is unavailable, the
        messages may stay until they expire.
        """

    def set_will(self, channel: str, will: tuple[str, Message]) -> None:
        """
        Store the last will of the connection of `channel`: a `(channel, message)` pair that the layer sends
        if this gateway dies. A later will replaces it. A layer without the extension "wills" ignores it.
        """

    def clear_will(self, channel: str) -> None:
        """Delete the last will of a connection that has ended in order."""

    def take(self) -> list[tuple[str, Message]]:
        """
        Return what has arrived, maybe nothing, without waiting and without the event loop.

        Called only at the end of the process, when the loop has stopped, and only on layers that do not
        cross processes.
        """
        return []

    @abstractmethod
    async def close(self) -> None:
        """
        Leave the layer: memberships of this gateway's channels end, and what is unread is dropped. The wills
        of connections that are still open are sent.
        """

    def abandon(self) -> None:
        """Leave the layer soon, as `close` does, after the event loop was closed. Must not block."""


class BaseChannelLayer(ABC):
    """
    What every layer shares: names, capacities, expiry, checks, counters, and the contract.

    `expiry` is in seconds, `capacity` in messages for each channel; `channel_expiry` and `channel_capacity`
    map name patterns (globs or compiled regular expressions) to numbers that replace them. Events of open
    connections wait for EVENT_EXPIRY seconds unless `channel_expiry` names them. `group_expiry` is accepted
    for settings written for Channels 1.x; a membership ends with its connection. (Redis applies it to members
    that no gateway holds.) Raises ImproperlyConfigured for an option that is out of range.

    Thread-safe: every call may come from any thread, unless its docstring says otherwise.
    """

    #: What the layer can do besides `send` and `receive_many`: "groups", "flush", "statistics", "inbox",
    #: "acknowledgement", "delay", "leases", "wills", "dead_letters".
    extensions: tuple[str, ...] = ()

    #: Whether other processes with the same settings see the same channels.
    crosses_processes = True

    #: Whether `Channel.send` and `Group.send` wait by default for the transaction they are made in.
    sends_on_commit = False

    #: Seconds after which a blocking receive or claim returns without a message.
    block_for: float = 5.0

    #: Whether this process is a server, or has a worker, of the layer: see `advice.py`.
    is_served: bool = False

    #: How many worker threads a gateway starts in its own process, on a layer that does not cross processes.
    threads = 0

    #: How many asynchronous consumers run at a time besides these threads.
    async_concurrency = 200

    #: The name of the layer in CHANNEL_LAYERS, and its routing. Set by `channels.asgi`.
    alias: str | None = None
    routing: Any = None

    #: The options of its gateways: the "GATEWAY" of CHANNEL_LAYERS. See `gateway.limits.Limits`.
    gateway_options: dict[str, Any] | None = None

    #: The WSGI or ASGI application that answers requests in its gateways' processes. None: the workers do.
    http_application: Any = None

    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = exceptions.MessageTooLarge
    LayerUnavailable = exceptions.LayerUnavailable

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: dict[Any, int] | None = None,
        channel_expiry: dict[Any, float] | None = None,
    ) -> None:
        check_common(expiry, group_expiry, capacity, channel_capacity, channel_expiry)
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self.capacities: ByName = ByName(capacity, channel_capacity)
        self.expiries: ByName = ByName(expiry, channel_expiry, _EXPIRIES)
        self.counters: Counters = Counters()
        self.reachability: Reachability = Reachability(self)
        self._gateways: dict[Any, Gateway] = {}  # by event loop
        self._router: Router | None = None

    # Sending and receiving.

    def send(self, channel: str, message: Message) -> None:
        """
        Put `message` on `channel`. Atomic; never waits for a reader; works in a forked process.

        Raises ChannelFull if the channel holds as many messages as its capacity allows, MessageTooLarge for
        more than a megabyte, InvalidMessage or InvalidChannelName for what no layer carries, and
        LayerUnavailable if the layer cannot be reached. Only after LayerUnavailable may the message have
        been sent. Unlike `Channel.send`, it sends control keys too: do not call it with a client's message.
        """
        self.deliver(check_channel_name(channel), clean(message))

    @property
    def remembers_sends(self) -> bool:
        """
        Whether `deliver`, `deliver_group` and `send_later` take a `send_id`: text of 32 hexadecimal digits
        that is used for one message alone. They may then be called again with it after LayerUnavailable, for
        a minute: the message arrives once.
        """
        return False

    @abstractmethod
    def deliver(self, channel: str, message: Message) -> None:
        """
        Do as `send` for a valid name and a clean message that is not changed afterwards.

        A reply that `protocol.ignores_capacity` finds no channel full.
        """

    def deliver_all(self, items: Sequence[tuple[str, Message]]) -> None:
        """
        Do as `deliver` for each (channel, message), in one step if the layer can. Those that find no room are
        dropped.
        """
        for channel, message in items:
            try:
                self.deliver(channel, message)
            except exceptions.ChannelFull:
                pass

    def check_message(self, message: Message) -> Message:
        """Return a clean copy of `message`, fit for `deliver`; raise as `send` does for a bad one."""
        return clean(message, MAX_WEIGHT)

    @abstractmethod
    def receive_many(self, channels: Sequence[str], block: bool = False) -> Received:
        """
        Take the next message of any of `channels`: `(channel, message)`, or `(None, None)` if there is none.

        With `block`, wait up to `block_for` seconds for one. Each message is returned once, to one caller.
        Messages of a channel come in the order they were sent, and no channel of the list starves behind
        another. For a process-local channel, name the part up to the "!" to receive all of it, or a full
        name. Raises InvalidChannelName for what isn't a list of names, and LayerUnavailable if the layer
        cannot be reached.
        """

    def receive(self, channels: Sequence[str], block: bool = False) -> Received:
        """Do as `receive_many`, under the name it has in ASGI 1.1."""
        return self.receive_many(channels, block)

    def new_channel(self, pattern: str) -> str:
        """
        Return a new channel name that is not in use: `pattern`, which ends in "!" (process-local) or "?" (a
        single reader), and twelve random letters. Nothing is stored. Raises InvalidChannelName.
        """
        check_channel_name(pattern)
        if pattern[-1] not in "!?":
            raise exceptions.InvalidChannelName(
                "new_channel takes a pattern that ends in '!' (process-local) or '?' (single "
                "reader), not %r." % pattern
            )
        return check_channel_name(pattern + "".join(_random.choice(_LETTERS) for _ in range(12)))

    # Acknowledgement ("acknowledgement"). A claimed message belongs to a consumer until it is acknowledged.

    def claim(self, consumer: str, channels: Sequence[str], block: bool = False) -> Received:
        """
        Acknowledge what `consumer` holds, and claim the next message as `receive_many` does.

        `consumer` is the id of one worker thread; its calls come from one thread at a time. The message
        stays unacknowledged until the next `claim` or `acknowledge` of this consumer. If its process dies
        before, a layer with "leases" applies the redelivery policy to the message; a redelivered message
        has the key `redelivered`. A layer without the extension forgets a message as it hands it out.
        """
        return self.receive_many(channels, block)

    def acknowledge(self, consumer: str) -> None:
        """Acknowledge what `consumer` holds: it has been handled. Without a message, do nothing."""

    def acknowledge_all(self, consumers: Sequence[str]) -> None:
        """Do as `acknowledge` for each of `consumers`, in one step if the layer can."""
        for consumer in consumers:
            self.acknowledge(consumer)

    #: Whether `finish` keeps the reply, so that it doesn't wait and doesn't raise LayerUnavailable.
    keeps_answers = False

    def split(self, consumer: str, spare: str) -> tuple[str, str]:
        """
        Go on to claim while what `consumer` holds is still handled. Return two ids: that which holds it now,
        and that for the next claims. They are the two that are given, in either order; `spare` holds nothing.
        """
        return consumer, spare

    def finish(self, consumer: str, channel: str, message: Message, soon: bool = False) -> None:
        """
        `deliver` the last reply to what `consumer` holds.

        The layer may keep the reply until the consumer's next `claim` or `acknowledge`, and send it with
        that; the caller must make one of these calls at once. With `soon`, the caller does something first
        that may take long: the layer keeps the reply for a few milliseconds at most.
        """
        self.deliver(channel, message)

    def requeue(self, consumer: str) -> None:
        """Put what `consumer` holds back at the head of its channel, with a new expiry."""

    def wake(self, consumer: str) -> None:
        """Make a claim that waits for `consumer`, or its next one, return at once, if the layer can."""

    # Delay ("delay").

    def send_later(self, channel: str, message: Message, delay: float) -> None:
        """
        Send `message` in `delay` seconds. Raises as `send` does, except for ChannelFull: if the channel is
        full at that time, the message is dropped and counted as "delayed_full". Raises ValueError for a
        delay that is not a number up to ten years. A negative one is 0.
        """
        raise self._unsupported("delay")

    # Groups ("groups").

    def group_add(self, group: str, channel: str) -> None:
        """
        Make `channel` a member of `group`. Adding a member again does nothing. When the call returns, every
        later `send_group` reaches the channel.
        """
        raise self._unsupported("groups")

    def group_discard(self, group: str, channel: str) -> None:
        """Remove `channel` from `group`. Removing a channel that is not a member does nothing."""
        raise self._unsupported("groups")

    def group_channels(self, group: str) -> list[str]:
        """Return the members of `group`, in no particular order."""
        raise self._unsupported("groups")

    def send_group(self, group: str, message: Message) -> None:
        """
        Send `message` to every member of `group`, in order with the caller's other sends. Members whose
        channel or inbox is full are skipped, and counted as "group_full". Raises as `send` does.
        """
        self.deliver_group(check_group_name(group), clean(message))

    def deliver_group(self, group: str, message: Message) -> None:
        """Do as `send_group` for a valid name and a clean message that is not changed afterwards."""
        raise self._unsupported("groups")

    # Dead letters ("dead_letters").

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that were given up, the oldest first."""
        raise self._unsupported("dead_letters")

    def requeue_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        """
        Send dead letters again: those with these ids, or all. They go to the end of their channels, whatever
        the capacity, and count as new. Return how many were sent.
        """
        raise self._unsupported("dead_letters")

    def drop_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters: those with these ids, or all. Return how many were deleted."""
        raise self._unsupported("dead_letters")

    # Flush and statistics ("flush", "statistics").

    def flush(self) -> None:
        """
        Remove every message, delayed ones included, and every membership of this layer, and nothing else.
        Open gateways are told (reset).
        """
        raise self._unsupported("flush")

    def global_statistics(self) -> dict[str, Any]:
        """
        Return the statistics of all channels together, under the names of the ASGI 1.0 specification:
        messages_count, messages_pending, messages_max_age (seconds), channel_full_count. Besides these:
        messages_held (unacknowledged), and for layers that have them messages_expired, dead_letters and
        "counters", a dict of what all processes have counted as of their last heartbeats.
        """
        raise self._unsupported("statistics")

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        """Return messages_pending and messages_max_age (seconds) of one channel."""
        raise self._unsupported("statistics")

    def statistics(self) -> dict[str, int]:
        """Return what this layer has counted in this process since it started, by name."""
        return self.counters.values()

    def count(self, name: str, number: int = 1) -> None:
        """Add `number` to the counter `name` of `statistics`."""
        self.counters.add(name, number)

    def channel_full(self, channel: str) -> exceptions.ChannelFull:
        """Count that `channel` is full. Return the exception that says so."""
        self.count("full")
        return exceptions.ChannelFull("The channel %r is full." % channel)

    # The gateway's end ("inbox").

    def open_inbox(self, name: str) -> Inbox:
        """
        Return the inbox of a gateway under a process-local `name` that ends in "!".

        Called in a running event loop, which owns the inbox. Messages that were sent to `name` before come
        out of it first.
        """
        raise self._unsupported("inbox")

    def is_of_tests(self) -> bool:
        """Return whether what is sent here stays in this test run, as in the database that it has made."""
        return False

    def required_app(self) -> str:
        """Return the app whose migrations make the layer's tables, or ""."""
        return ""

    def close(self) -> None:
        """End the layer's threads and connections in this process. A later call opens them again."""

    # The layer as an ASGI 3 application.

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve as an ASGI 3 application: `daphne mysite.asgi:channel_layer`, or any other server."""
        await self.gateway(scope, receive, send)

    @property
    def gateway(self) -> Gateway:
        """The gateway of the running event loop."""
        loop = get_event_loop()
        gateway = self._gateways.get(loop)
        if gateway is None or gateway.stopped:
            from ..gateway import Gateway

            for each in [each for each in self._gateways if each.is_closed()]:
                self._gateways.pop(each).abandon()
            gateway = self._gateways[loop] = Gateway(self)
            self.is_served = True
        return gateway

    @property
    def router(self) -> Router:
        """The Router of `routing` (a dotted path, a list or a dict), with Django's own handling last."""
        if self._router is None:
            from ..routing import Router

            router = Router([] if self.routing is None else self.routing)
            router.check_default()
            self._router = router  # only when it is complete, because other threads use it
        return self._router

    @router.setter
    def router(self, router: Router) -> None:
        self._router = router

    if not TYPE_CHECKING:
        group_send = Missing("group_send")

    def _unsupported(self, extension: str) -> NotImplementedError:
        return NotImplementedError(
            "The channel layer %s does not support %r. Configure one that does in CHANNEL_LAYERS, for "
            "example the in-memory, database or Redis layer." % (self, extension)
        )

    def __str__(self) -> str:
        return "%s (%s.%s)" % (self.alias, type(self).__module__, type(self).__qualname__)

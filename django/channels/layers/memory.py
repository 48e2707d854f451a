"""
The layer that lives in one process: queues in a dict, under one lock.

The gateway and the worker threads share the process, so the layer needs no server and no leases, and is not
built on the engine: a claim takes one lock, and bodies are not encoded. Options, counters, log lines and
what happens after a fork are the engine's. It is the layer of development, of tests, and of small sites that
run as one process. The file is a little over 400 lines because all that needs the lock is in one class.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Deque, Dict, Tuple

from .. import protocol
from ..exceptions import ChannelFull
from ..log import Reachability
from .base import BaseChannelLayer
from .delay import Delay
from .engine import process
from .engine.counters import with_statistics
from .engine.notices import Notices
from .engine.options import COMMON, check_capacity, fold, is_count, refusal, seconds_of
from .memory_inbox import MemoryInbox
from .messages import clean
from .names import (
    check_channel_name,
    check_channel_names,
    check_group_name,
    check_inbox_name,
    inbox_of,
    is_shared,
    queue_of,
)

if TYPE_CHECKING:
    from typing import Iterable, Sequence

    from .base import Message, Received

#: Sends between two searches for expired messages on channels without readers.
SWEEP_INTERVAL = 4096

#: More worker threads than this are a mistake.
MAX_THREADS = 10000

#: Asynchronous consumers at a time, besides the worker threads.
ASYNC_CONCURRENCY = 200

#: A waiting reader: its channels, a lock that is released to wake it, and its consumer id.
_Reader = Tuple["Sequence[str]", Any, "str | None"]

#: When a message expires (monotonic), its channel, and the message.
_Queue = Deque[Tuple[float, str, Dict[str, Any]]]


class MemoryChannelLayer(BaseChannelLayer):
    """
    A layer in memory. Thread-safe: `_lock` guards all that it holds.

    `threads` is how many worker threads a gateway starts, `async_concurrency` how many asynchronous consumers
    run besides them at a time, and `inbox_capacity` how many messages an event loop
    may be behind before senders get ChannelFull. The other options are those of BaseChannelLayer. Options
    may be written in capitals, as in CONFIG. Raises ImproperlyConfigured for unknown ones.
    """

    extensions = ("groups", "flush", "statistics", "inbox", "acknowledgement", "delay")
    crosses_processes = False

    def __init__(
        self,
        threads: int = 4,
        inbox_capacity: int = 20000,
        async_concurrency: int = ASYNC_CONCURRENCY,
        **config: Any,
    ) -> None:
        options = fold(config, COMMON + ("threads", "inbox_capacity", "async_concurrency"))
        self.threads = options.pop("threads", threads)
        self.async_concurrency = options.pop("async_concurrency", async_concurrency)
        self.inbox_capacity = options.pop("inbox_capacity", inbox_capacity)
        super().__init__(**options)
        if not is_count(self.threads) or self.threads > MAX_THREADS:
            raise refusal(
                "threads", "a number of threads, from 0 to %d" % MAX_THREADS, self.threads
            )
        if not is_count(self.async_concurrency) or not self.async_concurrency:
            raise refusal("async_concurrency", "a positive number", self.async_concurrency)
        check_capacity("inbox_capacity", self.inbox_capacity)
        self._begin()
        process.register(self)

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        self._lock = threading.Lock()
        self._turn = 0
        self._sent = 0
        self._readers: list[_Reader] = []
        self._waking: list[_Reader] = []  # readers that were woken and have not polled yet
        self._woken: set[str] = set()  # consumers that `wake` was called for
        self._expired: Counter[str] = Counter()  # not logged yet
        self._inboxes: dict[str, MemoryInbox] = {}
        #: A lock of each event loop that waits for answers. A reader without more work releases them.
        self._watches: list[Any] = []
        #: Channels on which a reader left messages while these loops waited.
        self._rest: list[Sequence[str]] = []
        self._delay = Delay(self._deliver_delayed)
        self._notices = Notices(0)
        self._clear()

    def _clear(self) -> None:
        self._queues: dict[str, _Queue] = {}  # by channel, or by inbox
        self._unacknowledged: dict[str, tuple[str, Message]] = {}  # by consumer
        #: group to {inbox, or None for members without one: {channel: None}}
        self._groups: dict[str, dict[str | None, dict[str, None]]] = {}

    def after_fork(self) -> None:
        """Begin empty in a child process: what is here is handled by the parent."""
        self._begin()
        self.counters.after_fork()
        self.reachability = Reachability(self)
        self._gateways = {}

    def leave(self) -> None:
        """Do nothing at the end of the process: it holds no leases."""

    # Sending and receiving.

    def deliver(self, channel: str, message: Message) -> None:
        with self._lock:
            self._put(channel, message)

    def _put(self, channel: str, message: Message, wake: bool = True) -> None:
        """Queue a message, and wake a reader. The lock is held."""
        key = channel
        if "!" in channel:
            key = channel[: channel.index("!") + 1]  # as `inbox_of`, without a call for each reply
            inbox = self._inboxes.get(key)
            if inbox is not None:
                inbox.put(channel, message)
                self._sent += 1
                return
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        now = time.monotonic()
        if len(queue) >= self.capacities[channel]:
            self._drop_expired(key, queue, now)
            if len(queue) >= self.capacities[channel] and not protocol.ignores_capacity(message):
                raise self.channel_full(channel)
            self._queues[key] = queue
        queue.append((now + self.expiries[channel], channel, message))
        if wake:
            self._wake_reader(channel, key)
        self._sent += 1
        if self._sent % SWEEP_INTERVAL == 0:
            for name, each in list(self._queues.items()):
                self._drop_expired(name, each, now)

    def _wake_reader(self, channel: str, key: str) -> None:
        """Wake one waiting reader of `channel`, if `_take_reader` finds one. The lock is held."""
        wakeup = self._take_reader(channel, key)
        if wakeup is not None:
            wakeup.release()

    def _take_reader(self, channel: str, key: str) -> Any:
        """
        Return the lock to release to wake a waiting reader of `channel`. None: there is none, or another one
        is about to poll. A reader that takes a message wakes the next if there are more: so an event loop
        that sends pays for one thread, and short work stays with few threads. The layer's lock is held.
        """
        for reader in self._waking:
            if key in reader[0] or channel in reader[0]:
                return None
        readers = self._readers
        # Whoever began to wait last is woken first: its stack and caches are warm.
        for index in range(len(readers) - 1, -1, -1):
            reader = readers[index]
            if key in reader[0] or channel in reader[0]:
                self._waking.append(reader)
                del readers[index]
                return reader[1]
        return None

    def _wake_others(self, channels: Sequence[str]) -> None:
        """Wake readers for what a reader of `channels` has left. The lock is held."""
        if self._queues:
            for channel in channels:
                key = queue_of(channel)
                if key in self._queues:
                    self._wake_reader(channel, key)

    def _wake_for_rest(self) -> None:
        """Wake readers for what others have left while a loop waited for answers. The lock is held."""
        rest, self._rest = self._rest, []
        for channels in rest:
            self._wake_others(channels)

    def _drop_expired(self, key: str, queue: _Queue, now: float) -> None:
        """Drop the expired messages of a queue; report events to their gateways. The lock is held."""
        dropped = 0
        while queue and queue[0][0] <= now:
            _, channel, message = queue.popleft()
            if is_shared(channel):
                dropped += 1
                self._expired[channel] += 1
            address = (
                protocol.reply_address(message) if channel in protocol.EVENT_CHANNELS else None
            )
            if address is not None and isinstance(address[0], str):
                inbox = self._inboxes.get(inbox_of(address[0]) or "")
                if inbox is not None:
                    # Without it the connection would wait for an acknowledgement forever.
                    inbox.put(address[0], protocol.lost(address[1]))
        if dropped:
            self.count("expired", dropped)
        if not queue:
            self._queues.pop(key, None)

    def drop_expired(self, channels: Iterable[str] | None = None) -> None:
        """Drop the expired messages of `channels`, or of all. Log what expired since the last call."""
        with self._lock:
            now = time.monotonic()
            for key in list(self._queues) if channels is None else channels:
                queue = self._queues.get(key)
                if queue:
                    self._drop_expired(key, queue, now)
            expired, self._expired = self._expired, Counter()
        # Not under the lock: a log handler may send to this layer.
        self._notices.expired(expired)

    def receive_many(self, channels: Sequence[str], block: bool = False) -> Received:
        return self._take(list(check_channel_names(channels)), block, None)

    def _take(self, channels: Sequence[str], block: bool, consumer: str | None) -> Received:
        deadline = reader = None
        while True:
            with self._lock:
                if consumer is not None:
                    self._unacknowledged.pop(consumer, None)
                found = self._pop(channels)
                if reader is not None:
                    self._end_wait(reader)
                if found is not None:
                    if consumer is not None:
                        self._unacknowledged[consumer] = found
                    return found
                if not block or (consumer is not None and consumer in self._woken):
                    if consumer is not None:
                        self._woken.discard(consumer)
                    return None, None
                reader = (channels, threading.Lock(), consumer)
                reader[1].acquire()
                self._readers.append(reader)
                watches = self._watches
                if watches:
                    self._watches = []
            now = time.monotonic()
            if deadline is None:
                deadline = now + self.block_for
            seconds = max(0, deadline - now)
            for done in watches:
                done.release()
            try:
                # When the time is up, poll once more: a message may have come just now.
                block = reader[1].acquire(timeout=seconds)
            except BaseException:  # Ctrl-C in the thread that waits
                with self._lock:
                    self._end_wait(reader)
                raise

    def _end_wait(self, reader: _Reader) -> None:
        """
        Forget a reader that waited; wake others for what it left. While a loop waits for answers, it is the
        one that wakes them, a moment later: mostly this reader takes the rest. The lock is held.
        """
        if reader in self._waking:
            self._waking.remove(reader)
            if self._watches:
                self._rest.append(reader[0])
            else:
                self._wake_others(reader[0])
        elif reader in self._readers:
            self._readers.remove(reader)

    def _pop(self, channels: Sequence[str]) -> tuple[str, Message] | None:
        """Return the next message of `channels`, each of them being the first in turn. The lock is held."""
        if not self._queues:
            return None
        count = len(channels)
        self._turn += 1
        for index in range(self._turn, self._turn + count):
            channel = channels[index % count]
            queue = self._queues.get(channel)
            if queue is None:
                if channel[-1] == "!" or "!" not in channel:
                    continue
                found = self._pop_local(channel)
                if found is not None:
                    return found
                continue
            if queue[0][0] <= time.monotonic():
                self._drop_expired(channel, queue, time.monotonic())
                if not queue:
                    continue
            _, name, message = queue.popleft()
            if not queue:
                del self._queues[channel]
            return name, message
        return None

    def _pop_local(self, channel: str) -> tuple[str, Message] | None:
        """Return a message of one process-local channel, from the queue it shares with others."""
        key = queue_of(channel)
        queue = self._queues.get(key)
        if queue is None:
            return None
        now = time.monotonic()
        for entry in queue:
            if entry[1] == channel and entry[0] > now:
                queue.remove(entry)
                if not queue:
                    del self._queues[key]
                return entry[1], entry[2]
        return None

    # Acknowledgement.

    def claim(self, consumer: str, channels: Sequence[str], block: bool = False) -> Received:
        return self._take(check_channel_names(channels), block, consumer)

    def acknowledge(self, consumer: str) -> None:
        with self._lock:
            self._unacknowledged.pop(consumer, None)

    def requeue(self, consumer: str) -> None:
        with self._lock:
            held = self._unacknowledged.pop(consumer, None)
            if held is None:
                return
            channel, message = held
            key = queue_of(channel)
            entry = (time.monotonic() + self.expiries[channel], channel, message)
            self._queues.setdefault(key, deque()).appendleft(entry)
            self._wake_reader(channel, key)

    def wake(self, consumer: str) -> None:
        with self._lock:
            for reader in self._readers:
                if reader[2] == consumer:
                    self._readers.remove(reader)
                    reader[1].release()
                    break
            self._woken.add(consumer)

    # Delay.

    def send_later(self, channel: str, message: Message, delay: float) -> None:
        item = (check_channel_name(channel), clean(message))
        self._delay.add(seconds_of(delay), item)

    def _deliver_delayed(self, item: tuple[str, Message]) -> None:
        try:
            self.deliver(*item)
        except ChannelFull:
            self.count("delayed_full")

    # Groups.

    def group_add(self, group: str, channel: str) -> None:
        check_group_name(group)
        inbox_name = inbox_of(check_channel_name(channel))
        with self._lock:
            inbox = self._inboxes.get(inbox_name or "")
            members = self._groups.setdefault(group, {}).setdefault(
                inbox.name if inbox else None, {}
            )
            if channel not in members:
                members[channel] = None
                if inbox is not None:
                    inbox.put(channel, protocol.group_added(group), control=True)

    def group_discard(self, group: str, channel: str) -> None:
        check_group_name(group)
        inbox_name = inbox_of(check_channel_name(channel))
        with self._lock:
            inbox = self._inboxes.get(inbox_name or "")
            if self._discard(group, inbox.name if inbox else None, channel) and inbox is not None:
                inbox.put(channel, protocol.group_discarded(group), control=True)

    def _discard(self, group: str, inbox_name: str | None, channel: str) -> bool:
        inboxes = self._groups.get(group, {})
        members = inboxes.get(inbox_name, {})
        if channel not in members:
            return False
        del members[channel]
        if not members:
            del inboxes[inbox_name]
            if not inboxes:
                del self._groups[group]
        return True

    def group_channels(self, group: str) -> list[str]:
        check_group_name(group)
        with self._lock:
            return [name for members in self._groups.get(group, {}).values() for name in members]

    def deliver_group(self, group: str, message: Message) -> None:
        with self._lock:
            copy = None  # no two gateways, and no two members, share one dict
            for inbox_name, members in self._groups.get(group, {}).items():
                if inbox_name is None:
                    self._send_to_each(*protocol.for_members(message, members))
                    continue
                copy = message if copy is None else clean(message)
                try:
                    self._inboxes[inbox_name].put(inbox_name, protocol.group_message(group, copy))
                    self._sent += 1
                except ChannelFull:
                    self.count("group_full", len(members))

    def _send_to_each(self, message: Message, channels: Iterable[str]) -> None:
        for channel in channels:
            try:
                self._put(channel, clean(message))
            except ChannelFull:
                self.count("group_full")

    # Flush and statistics.

    def flush(self) -> None:
        with self._lock:
            self._clear()
            self._delay.clear()
            for inbox in self._inboxes.values():
                inbox.clear()
                inbox.put(inbox.name, protocol.reset(), control=True)

    def statistics(self) -> dict[str, int]:
        counters = self.counters.values()
        if self._sent:
            counters["sent"] = self._sent
        return counters

    def global_statistics(self) -> dict[str, Any]:
        self.drop_expired()
        counters = self.statistics()
        with self._lock:
            found = self._describe(list(self._queues.values()), self._inboxes.values())
            found["messages_held"] = len(self._unacknowledged)
        return with_statistics(counters, found)

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        key = queue_of(check_channel_name(channel))
        self.drop_expired([key])
        with self._lock:
            queue, inbox = self._queues.get(key), self._inboxes.get(key)
            return self._describe([queue] if queue else [], [inbox] if inbox else [])

    def _describe(self, queues: Sequence[_Queue], inboxes: Iterable[MemoryInbox]) -> dict[str, Any]:
        now = time.monotonic()
        ages = [now - (queue[0][0] - self.expiries[queue[0][1]]) for queue in queues]
        unread = [inbox for inbox in inboxes if inbox.unread]
        return {
            "messages_pending": sum(map(len, queues)) + sum(each.unread for each in unread),
            "messages_max_age": max(ages + [now - each.since for each in unread], default=0.0),
        }

    # The gateway's end.

    def open_inbox(self, name: str) -> MemoryInbox:
        check_inbox_name(name)
        with self._lock:
            inbox = self._inboxes[name] = MemoryInbox(self, name)
            for _, channel, message in self._queues.pop(name, ()):
                inbox.put(channel, message, control=True)
        return inbox

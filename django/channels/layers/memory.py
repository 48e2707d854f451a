"""
The layer that lives in one process: a dict of queues under one lock.

Gateway and worker threads share the process, so it needs no server and no leases. It is the layer
of development, of tests, and of small sites that run as one process.
"""

import heapq
import itertools
import threading
import time
from asyncio import get_event_loop
from collections import deque

from ..exceptions import ChannelFull
from ..protocol import EVENT_CHANNELS
from .base import BaseChannelLayer, Inbox
from .messages import clean
from .names import check_channel_name, check_group_name, inbox_of

#: Sends between two looks for expired messages on channels that nobody reads.
SWEEP_EVERY = 4096

#: Seconds between two looks of a gateway for its events among them.
LOOK_EVERY = 1.0


class MemoryChannelLayer(BaseChannelLayer):
    """
    A layer in memory. `threads` is how many worker threads a gateway starts on it; `inbox_capacity` how many
    messages an event loop may be behind before senders are told ChannelFull.
    """

    extensions = ("groups", "flush", "statistics", "inbox", "acknowledgement", "delay")
    crosses_processes = False

    def __init__(self, threads=4, inbox_capacity=20000, **kwargs):
        super().__init__(**kwargs)
        self.threads = threads
        self.inbox_capacity = inbox_capacity
        self._lock = threading.Lock()
        self._turn = 0
        self._sends = 0
        self._waiters = []  # (channels, lock to release, slot) of each blocked reader
        self._waking = []  # those of them that were released and have not looked yet
        self._woken = set()
        self._inboxes = {}
        self._clock = _Clock(self)
        self._clear()

    def _clear(self):
        self._queues = {}  # channel, or inbox, to a deque of (expires, channel, message)
        self._held = {}  # slot to (channel, message)
        self._groups = {}  # group to {inbox, or None: {channel: None}}

    # Sending and receiving.

    def deliver(self, channel, message):
        with self._lock:
            self._put(channel, message)

    def _put(self, channel, message, wake=True):
        """Queue it, and wake a reader. The lock is held."""
        key = channel
        if "!" in channel:
            key = inbox_of(channel)
            inbox = self._inboxes.get(key)
            if inbox is not None:
                inbox.put(channel, message)
                return
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        now = time.monotonic()
        if len(queue) >= self.capacities[channel]:
            self._drop_expired(key, queue, now)
            if len(queue) >= self.capacities[channel]:
                self.count("full")
                raise ChannelFull("The channel %r is full." % channel)
            self._queues[key] = queue
        queue.append((now + self.expiries[channel], channel, message))
        if wake:
            self._wake(channel, key)
        self._sends += 1
        if self._sends % SWEEP_EVERY == 0:
            for name, each in list(self._queues.items()):
                self._drop_expired(name, each, now)

    def _wake(self, channel, key):
        """
        Have one waiting reader of `channel` look, unless one is about to: whoever takes a message
        wakes the next if there are more. So an event loop that sends pays for one thread, and short
        work stays with few.
        """
        for waiter in self._waking:
            if key in waiter[0] or channel in waiter[0]:
                return
        waiters = self._waiters
        for index in range(len(waiters) - 1, -1, -1):  # who began to wait last is the warmest
            waiter = waiters[index]
            if key in waiter[0] or channel in waiter[0]:
                self._waking.append(waiter)
                del waiters[index]
                waiter[1].release()
                return

    def _drop_expired(self, key, queue, now):
        dropped = 0
        while queue and queue[0][0] <= now:
            _, channel, message = queue.popleft()
            dropped += 1
            if channel in EVENT_CHANNELS and "exchange" in message:
                # Its connection waits for an answer before it goes on.
                reply_channel = message["reply_channel"]
                inbox = self._inboxes.get(inbox_of(reply_channel))
                if inbox is not None:
                    inbox.put(reply_channel, {"lost": message["exchange"]}, control=True)
        if dropped:
            self.count("expired", dropped)
        if not queue:
            self._queues.pop(key, None)

    def receive_many(self, channels, block=False):
        for channel in channels:
            check_channel_name(channel)
        return self._take(list(channels), block, None)

    def _take(self, channels, block, slot):
        deadline = waiter = None
        while True:
            with self._lock:
                if slot is not None:
                    self._held.pop(slot, None)
                found = self._pop(channels)
                if waiter is not None:
                    self._end_wait(waiter)
                if found is not None:
                    if slot is not None:
                        self._held[slot] = found
                    return found
                if not block or (slot is not None and slot in self._woken):
                    self._woken.discard(slot)
                    return None, None
                waiter = (channels, threading.Lock(), slot)
                waiter[1].acquire()
                self._waiters.append(waiter)
            if deadline is None:
                deadline = time.monotonic() + self.block_for
            try:
                # Once the time is up, one more look: a message may have come just now.
                block = waiter[1].acquire(timeout=max(0, deadline - time.monotonic()))
            except BaseException:  # Ctrl-C in the thread that waits
                with self._lock:
                    self._end_wait(waiter)
                raise

    def _end_wait(self, waiter):
        """Forget a reader that waited; others look at what was left to it. The lock is held."""
        if waiter in self._waking:
            self._waking.remove(waiter)
            if self._queues:
                for channel in waiter[0]:
                    key = channel if "!" not in channel else inbox_of(channel)
                    if key in self._queues:
                        self._wake(channel, key)
        elif waiter in self._waiters:
            self._waiters.remove(waiter)

    def _pop(self, channels):
        """The next message of `channels`, each of them in turn. The lock is held."""
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

    def _pop_local(self, channel):
        """One full process-local name out of the queue it shares with others."""
        key = inbox_of(channel)
        queue = self._queues.get(key, ())
        now = time.monotonic()
        for entry in queue:
            if entry[1] == channel and entry[0] > now:
                queue.remove(entry)
                if not queue:
                    del self._queues[key]
                return entry[1], entry[2]
        return None

    # Acknowledgement.

    def claim(self, slot, channels, block=False):
        return self._take(channels, block, slot)

    def acknowledge(self, slot):
        with self._lock:
            self._held.pop(slot, None)

    def requeue(self, slot):
        with self._lock:
            held = self._held.pop(slot, None)
            if held is None:
                return
            channel, message = held
            key = inbox_of(channel) or channel
            entry = (time.monotonic() + self.expiries[channel], channel, message)
            self._queues.setdefault(key, deque()).appendleft(entry)
            self._wake(channel, key)

    def wake(self, slot):
        with self._lock:
            for waiter in self._waiters:
                if waiter[2] == slot:
                    self._waiters.remove(waiter)
                    waiter[1].release()
                    break
            self._woken.add(slot)

    # Delay.

    def send_later(self, channel, message, delay):
        self._clock.add(time.monotonic() + delay, check_channel_name(channel), clean(message))

    # Groups.

    def group_add(self, group, channel):
        check_group_name(group)
        inbox_name = inbox_of(check_channel_name(channel))
        with self._lock:
            inbox = self._inboxes.get(inbox_name)
            members = self._groups.setdefault(group, {}).setdefault(inbox and inbox_name, {})
            if channel not in members:
                members[channel] = None
                if inbox is not None:
                    inbox.put(channel, {"group_add": group}, control=True)

    def group_discard(self, group, channel):
        check_group_name(group)
        inbox_name = inbox_of(check_channel_name(channel))
        with self._lock:
            inbox = self._inboxes.get(inbox_name)
            if self._leave(group, inbox and inbox_name, channel) and inbox is not None:
                inbox.put(channel, {"group_discard": group}, control=True)

    def _leave(self, group, inbox_name, channel):
        gateways = self._groups.get(group, {})
        members = gateways.get(inbox_name, {})
        if channel not in members:
            return False
        del members[channel]
        if not members:
            del gateways[inbox_name]
            if not gateways:
                del self._groups[group]
        return True

    def group_channels(self, group):
        check_group_name(group)
        with self._lock:
            return [
                channel for members in self._groups.get(group, {}).values() for channel in members
            ]

    def deliver_group(self, group, message):
        with self._lock:
            for inbox_name, members in self._groups.get(group, {}).items():
                if inbox_name is not None:
                    try:
                        self._inboxes[inbox_name].put(
                            inbox_name, {"group": group, "message": message}
                        )
                    except ChannelFull:
                        self.count("group_full", len(members))
                    continue
                for channel in members:
                    try:
                        self._put(channel, clean(message))
                    except ChannelFull:
                        self.count("group_full")

    # Flush and statistics.

    def flush(self):
        with self._lock:
            self._clear()
            self._clock.clear()
            for inbox in self._inboxes.values():
                inbox.put(inbox.name, {"reset": True}, control=True)

    def global_statistics(self):
        with self._lock:
            queues = list(self._queues.values())
            return self._describe(queues, self.statistics().get("full", 0))

    def channel_statistics(self, channel):
        check_channel_name(channel)
        with self._lock:
            queue = self._queues.get(inbox_of(channel) or channel)
            return self._describe([queue] if queue else [], None)

    def _describe(self, queues, full):
        now = time.monotonic()
        ages = [now - (queue[0][0] - self.expiries[queue[0][1]]) for queue in queues if queue]
        statistics = {
            "messages_pending": sum(map(len, queues)),
            "messages_max_age": max(ages, default=0.0),
        }
        if full is not None:
            statistics["messages_count"] = self._sends
            statistics["messages_held"] = len(self._held)
            statistics["channel_full_count"] = full
        return statistics

    # The gateway's end.

    def open_inbox(self, name):
        check_channel_name(name)
        with self._lock:
            inbox = self._inboxes[name] = MemoryInbox(self, name)
            for _, channel, message in self._queues.pop(name, ()):
                inbox.put(channel, message)
        return inbox


class MemoryInbox(Inbox):
    """The inbox of an event loop in the same process."""

    def __init__(self, layer, name):
        self.name = name
        self._layer = layer
        self._loop = get_event_loop()
        self._messages = []
        self._waiting = []
        self._sent_to = {}  # channels whose readers are to be woken
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self):
        """Drop events that have expired, and tell their connections, though nobody reads."""
        with self._layer._lock:
            now = time.monotonic()
            for channel in EVENT_CHANNELS:
                queue = self._layer._queues.get(channel)
                if queue:
                    self._layer._drop_expired(channel, queue, now)
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def put(self, channel, message, control=False):
        """Append, and wake the loop once for all that comes before it looks. The layer's lock is held."""
        if (
            len(self._messages) >= self._layer.inbox_capacity
            and not control
            and "done" not in message
        ):
            self._layer.count("full")
            raise ChannelFull("The inbox %r is full: its event loop is behind." % self.name)
        self._messages.append((channel, message))
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                self._loop.call_soon_threadsafe(_wake, waiting)
            except RuntimeError:  # the loop has ended, and with it the gateway
                pass

    async def receive(self):
        while True:
            with self._layer._lock:
                if self._messages:
                    messages, self._messages = self._messages, []
                    return messages
                waiting = self._loop.create_future()
                self._waiting.append(waiting)
            await waiting

    def take(self):
        """
        What is there now: a list as that of `receive`, maybe empty. For the end of the process, when the
        loop runs no more.
        """
        self._wake_readers()
        with self._layer._lock:
            messages, self._messages = self._messages, []
            return messages

    def send(self, channel, message, failed):
        try:
            with self._layer._lock:
                self._layer._put(channel, message, wake=False)
        except ChannelFull as error:
            failed(error)
            return
        # Readers are woken when this turn of the loop is over: until then they would only take
        # turns with it, a thread switch at each of its system calls.
        self._sent_to[channel] = None
        if len(self._sent_to) == 1:
            try:
                self._loop.call_soon(self._wake_readers)
            except RuntimeError:  # closed: the process is about to end
                self._wake_readers()

    def _wake_readers(self):
        sent_to, self._sent_to = self._sent_to, {}
        with self._layer._lock:
            for channel in sent_to:
                self._layer._wake(channel, inbox_of(channel) or channel)

    def group_discard(self, group, channel):
        with self._layer._lock:
            self._layer._leave(group, self.name, channel)

    async def close(self):
        self._timer.cancel()
        with self._layer._lock:
            if self._layer._inboxes.get(self.name) is self:
                del self._layer._inboxes[self.name]
            for group, gateways in list(self._layer._groups.items()):
                if gateways.pop(self.name, None) is not None and not gateways:
                    del self._layer._groups[group]


def _wake(futures):
    for future in futures:
        if not future.done():
            future.set_result(None)


class _Clock:
    """Delivers what `send_later` was given, from one daemon thread that lives while anything is due."""

    def __init__(self, layer):
        self._layer = layer
        self._due = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread = None

    def add(self, when, channel, message):
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), channel, message))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="channels-clock", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def clear(self):
        with self._changed:
            del self._due[:]
            self._changed.notify()

    def _run(self):
        while True:
            with self._changed:
                if not self._due:
                    self._thread = None
                    return
                wait = self._due[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, channel, message = heapq.heappop(self._due)
            try:
                self._layer.deliver(channel, message)
            except ChannelFull:
                self._layer.count("delayed_full")

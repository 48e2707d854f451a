"""
A channel layer over a directory that all processes of a site share: the example of the guide "Write a layer".

Everything is in one file, `state.json`, which is replaced as a whole. A process changes it while it holds the
lock of the file `lock`, so each primitive is atomic. It is slow, and meant to be read.
"""

import fcntl
import json
import os
import threading
import time

from django.channels import protocol
from django.channels.exceptions import LayerUnavailable
from django.channels.layers.database import codec
from django.channels.layers.engine import options, recovery
from django.channels.layers.engine.layer import EngineLayer
from django.channels.layers.engine.store import (
    Due,
    Entry,
    Heartbeat,
    Outgoing,
    Pending,
    Recovered,
    Store,
    Unreadable,
)
from django.channels.layers.engine.waiting import CHANGED, Waiters
from django.channels.layers.names import inbox_of


class DirectoryChannelLayer(EngineLayer):
    """The layer of CHANNEL_LAYERS. `directory` is a path; the other options are those of every layer."""

    def __init__(self, **config):
        own, shared, common = options.split(config, {"directory": None})
        if own["directory"] is None:
            raise options.refusal("directory", "the path of a directory", None)
        self.directory = own["directory"]
        super().__init__(options.Options(**shared), **common)

    def make_store(self):
        return DirectoryStore(self.directory)


EMPTY = {
    "number": 0,  # the last one given to a message
    "queues": {},  # queue to a list of [number, channel, body, sent, expires, losses]
    "claims": {},  # consumer to [process, message]
    "leases": {},  # process or gateway to the time when its lease ends
    "wills": {},  # connection to [gateway, channel, body]
    "groups": {},  # group to {channel: gateway or ""}
    "delayed": [],  # [due, channel, body]
    "dead": [],  # [number, channel, body, reason, died]
    "counters": {},
}


class DirectoryStore(Store):
    POLL_INTERVAL = 0.02

    def __init__(self, directory):
        super().__init__()
        self.path = os.path.join(directory, "state.json")
        self.lock_path = os.path.join(directory, "lock")
        self._begin()

    def _begin(self):
        self.waiters = Waiters()
        self._local = threading.local()
        self._seen = {}  # consumer to the number of the message that its last claim returned
        self._subscribers = {}
        self._thread = None
        self._closed = threading.Event()

    def after_fork(self):
        super().after_fork()
        self._begin()

    def close(self):
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._begin()

    # The file.

    def _read(self):
        try:
            with open(self.path, encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return json.dumps(EMPTY)

    def look(self, work):
        """Return `work(state)`, which changes nothing."""
        try:
            return work(json.loads(self._read()))
        except OSError as error:
            raise LayerUnavailable("%s: %s" % (self.path, error)) from error

    def change(self, work):
        """Return `work(state)`, which may change the state, as one step among all processes."""
        try:
            with open(self.lock_path, "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    before, after, result = self._rewrite(work)
                finally:
                    # Closing the file isn't enough: a process that was forked meanwhile has it open, too.
                    fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError as error:
            raise LayerUnavailable("%s: %s" % (self.path, error)) from error
        if after != before:
            self._wake()
        return result

    def _rewrite(self, work):
        before = self._read()
        state = json.loads(before)
        result = work(state)
        after = json.dumps(state)
        if after != before:
            with open(self.path + ".new", "w", encoding="ascii") as file:
                file.write(after)
            os.replace(self.path + ".new", self.path)
        return before, after, result

    def _wake(self):
        """Wake every reader of this process: it looks whether there is something for it."""
        self.waiters.changed()
        for callback in list(self._subscribers.values()):
            callback()
        self.wake_due()

    def _poll(self):
        """Look out for changes that other processes make."""
        last = None
        while not self._closed.wait(self.POLL_INTERVAL):
            try:
                status = os.stat(self.path)
            except OSError:
                continue
            if (status.st_ino, status.st_mtime_ns) != last:
                last = (status.st_ino, status.st_mtime_ns)
                self._wake()

    def _start(self):
        if self._thread is None:
            self._thread = threading.Thread(target=self._poll, name="directory-poll", daemon=True)
            self._thread.start()

    # Bodies.

    def encode(self, channel, message):
        return codec.encode(message)

    def decode(self, channel, body):
        try:
            return codec.decode(body)
        except (ValueError, TypeError) as error:
            raise Unreadable(str(error)) from error

    # Messages.

    def send(self, items):
        return self.change(lambda state: self._put(state, items))

    def _put(self, state, items):
        """Put messages on their queues; return the indexes of those that find them full."""
        refused, now = [], time.time()
        for index, item in enumerate(items):
            queue = inbox_of(item.channel) or item.channel
            waiting = state["queues"].setdefault(queue, [])
            capacity = self.layer.capacities[item.channel]
            if queue in state["leases"]:  # a gateway's inbox
                capacity = self.layer.inbox_capacity
            if not item.unlimited and sum(each[4] > now for each in waiting) >= capacity:
                refused.append(index)
                continue
            expiry = self.layer.expiries[item.channel] if item.expiry is None else item.expiry
            waiting.append(self._number(state, item.channel, item.body, now, now + expiry))
        return refused

    def _number(self, state, channel, body, sent, expires, losses=0):
        state["number"] += 1
        return [state["number"], channel, body, sent, expires, losses]

    def _pop(self, state, channels):
        now = time.time()
        self._turn = getattr(self, "_turn", 0) + 1
        for step in range(len(channels)):
            channel = channels[(self._turn + step) % len(channels)]
            waiting = state["queues"].get(inbox_of(channel) or channel, [])
            for message in waiting:
                wanted = message[1] == channel or channel.endswith("!")
                if message[4] > now and wanted:
                    waiting.remove(message)
                    return message
        return None

    def take(self, channels, block=False):
        self._local.version = self.waiters.version
        return self._entry(self.change(lambda state: self._pop(state, channels)))

    def claim(self, consumer, process, channels, block=False):
        self._local.version = self.waiters.version

        def work(state):
            self._acknowledge(state, consumer)
            message = self._pop(state, channels)
            if message is not None:
                state["claims"][consumer] = [process, message]
            return message

        message = self.change(work)
        self._seen[consumer] = message and message[0]
        return self._entry(message)

    def _acknowledge(self, state, consumer):
        """Forget what the consumer holds; but requeue what a claim took whose reply got lost."""
        _, message = state["claims"].pop(consumer, (None, None))
        if message is not None and message[0] != self._seen.get(consumer):
            self._requeue(state, message)

    def _entry(self, message):
        return message and Entry(message[0], message[1], message[2], message[5])

    def acknowledge(self, consumer):
        self.change(lambda state: self._acknowledge(state, consumer))

    def requeue(self, consumer):
        def work(state):
            _, message = state["claims"].pop(consumer, (None, None))
            if message is not None:
                self._requeue(state, message)

        self.change(work)

    def _requeue(self, state, message, losses=0):
        channel, now = message[1], time.time()
        queue = state["queues"].setdefault(inbox_of(channel) or channel, [])
        expires, losses = now + self.layer.expiries[channel], message[5] + losses
        # Under a new number: each is used for one claim only.
        queue.insert(0, self._number(state, channel, message[2], now, expires, losses))

    def dead_letter(self, consumer, entry, reason):
        def work(state):
            if consumer is not None:
                if state["claims"].get(consumer, (None, [None]))[1][0] != entry.id:
                    return 0  # it was done, and the reply got lost
                del state["claims"][consumer]
            return self._bury(state, entry.channel, entry.body, reason)

        return self.change(work)

    def _bury(self, state, channel, body, reason):
        state["dead"].append(self._number(state, channel, body, reason, time.time())[:5])
        surplus = max(0, len(state["dead"]) - self.layer.options.dead_letters)
        del state["dead"][:surplus]
        return surplus

    def wait(self, consumer, channels, seconds):
        self._start()
        version = self._local.version
        return self.waiters.wait(tuple(channels), version, seconds, consumer) == CHANGED

    def wake(self, consumer):
        self.waiters.wake(consumer)

    # Leases.

    def register(self, name):
        end = time.time() + self.layer.options.lease
        self.change(lambda state: state["leases"].update({name: end}))

    def heartbeat(self, names):
        events = list(protocol.EVENT_CHANNELS)

        def work(state):
            now, leases = time.time(), state["leases"]
            missing = [name for name in names if name not in leases]
            leases.update(
                (name, now + self.layer.options.lease) for name in names if name in leases
            )
            ends = sorted(leases.values())
            heads = [message for name in events for message in state["queues"].get(name, [])[:1]]
            expired = any(message[4] <= now for message in heads)
            lost = bool(ends) and ends[0] <= now
            return Heartbeat(missing, lost, expired, ends[0] - now if ends and not lost else None)

        return self.change(work)

    def extend_leases(self):
        end = time.time() + self.layer.options.lease
        self.change(lambda state: state["leases"].update(dict.fromkeys(state["leases"], end)))

    def recover(self, decide):
        def work(state):
            now, decisions, dropped = time.time(), [], 0
            names = [name for name, end in state["leases"].items() if end <= now]
            for consumer, (process, message) in list(state["claims"].items()):
                if process in names:
                    del state["claims"][consumer]
                    dropped += self._act(state, message, decide, decisions)
            for name in names:
                self._end(state, name)
            return Recovered(names, decisions, dropped)

        return self.change(work)

    def _act(self, state, message, decide, decisions):
        """Do with a message as `decide` says. Return how many dead letters were dropped."""
        action = decide(self._entry(message))
        decisions.append((message[1], action.kind))
        if action.kind == recovery.REQUEUE:
            self._requeue(state, message, losses=1)
        elif action.kind == recovery.NOTIFY:
            self._put(state, [action.notice])
        elif action.kind == recovery.BURY:
            return self._bury(state, message[1], message[2], action.reason)
        return 0

    def _end(self, state, name):
        """End a lease: send the wills, remove memberships and inbox."""
        state["leases"].pop(name, None)
        for connection, (gateway, channel, body) in list(state["wills"].items()):
            if gateway == name:
                del state["wills"][connection]
                expiry = max(self.layer.expiries[channel], recovery.WILL_EXPIRY)
                self._put(state, [Outgoing(channel, body, unlimited=True, expiry=expiry)])
        for members in state["groups"].values():
            for channel in [each for each, gateway in members.items() if gateway == name]:
                del members[channel]
        if name.endswith("!"):
            state["queues"].pop(name, None)

    def leave(self, name):
        self.change(lambda state: self._end(state, name))

    # Expiry and delay.

    def expire(self, decide):
        def work(state):
            now, decisions, dropped = time.time(), [], 0
            for name in protocol.EVENT_CHANNELS:
                waiting = state["queues"].get(name, [])
                for message in [each for each in waiting if each[4] <= now]:
                    waiting.remove(message)
                    dropped += self._act(state, message, decide, decisions)
            return Recovered([], decisions, dropped)

        return self.change(work)

    def sweep(self):
        def work(state):
            now, counts = time.time(), {}
            for name, waiting in state["queues"].items():
                if name not in protocol.EVENT_CHANNELS:
                    for message in [each for each in waiting if each[4] <= now]:
                        waiting.remove(message)
                        counts[message[1]] = counts.get(message[1], 0) + 1
            state["queues"] = {name: each for name, each in state["queues"].items() if each}
            return counts

        return self.change(work)

    def delay(self, channel, body, seconds):
        due = time.time() + seconds
        self.change(lambda state: state["delayed"].append([due, channel, body]))

    def send_due(self):
        def work(state):
            now = time.time()
            due = sorted(each for each in state["delayed"] if each[0] <= now)
            state["delayed"] = [each for each in state["delayed"] if each[0] > now]
            full = self._put(state, [Outgoing(channel, body) for _, channel, body in due])
            following = min([each[0] for each in state["delayed"]], default=None)
            return Due(len(full), None if following is None else following - now)

        return self.change(work)

    # Groups.

    def group_add(self, group, channel):
        def work(state):
            members = state["groups"].setdefault(group, {})
            gateway = inbox_of(channel) if inbox_of(channel) in state["leases"] else ""
            if gateway and channel not in members:
                self._tell(state, channel, protocol.group_added(group))
            members[channel] = gateway

        self.change(work)

    def group_discard(self, group, channel):
        def work(state):
            if state["groups"].get(group, {}).pop(channel, None):
                self._tell(state, channel, protocol.group_discarded(group))

        self.change(work)

    def _tell(self, state, channel, message):
        self._put(state, [Outgoing(channel, self.encode(channel, message), unlimited=True)])

    def group_channels(self, group):
        return self.look(lambda state: list(state["groups"].get(group, {})))

    def send_group(self, group, message):
        def work(state):
            members = state["groups"].get(group, {})
            gateways = sorted(set(members.values()) - {""})
            shared = self.encode("", protocol.group_message(group, message))
            plain = [channel for channel, gateway in members.items() if not gateway]
            items = [Outgoing(gateway, shared) for gateway in gateways]
            items += [Outgoing(channel, self.encode(channel, message)) for channel in plain]
            skipped = [items[index].channel for index in self._put(state, items)]
            return sum(max(1, list(members.values()).count(channel)) for channel in skipped)

        return self.change(work)

    # Dead letters, counters and statistics.

    def dead_letters(self):
        letters = self.look(lambda state: state["dead"])
        return [(str(number), *rest) for number, *rest in letters]

    def requeue_dead_letter(self, id):
        def work(state):
            found = [each for each in state["dead"] if str(each[0]) == id]
            for letter in found:
                state["dead"].remove(letter)
                self._put(state, [Outgoing(letter[1], letter[2], unlimited=True)])
            return bool(found)

        return self.change(work)

    def drop_dead_letters(self, ids):
        def work(state):
            kept = [each for each in state["dead"] if str(each[0]) not in ids]
            dropped, state["dead"] = len(state["dead"]) - len(kept), kept
            return dropped

        return self.change(work)

    def count_dead_letters(self):
        return self.look(lambda state: len(state["dead"]))

    def add_counters(self, increments):
        def work(state):
            for name, number in increments.items():
                state["counters"][name] = state["counters"].get(name, 0) + number

        self.change(work)

    def counters(self):
        return self.look(lambda state: state["counters"])

    def pending(self, channel=None):
        def work(state):
            now, found = time.time(), []
            for name, waiting in state["queues"].items():
                ages = [now - message[3] for message in waiting if message[4] > now]
                if ages and channel in (None, name):
                    found.append(Pending(name, len(ages), max(ages)))
            return found

        return self.look(work)

    def count_unacknowledged(self):
        return self.look(lambda state: len(state["claims"]))

    def flush(self):
        def work(state):
            kept = {"leases": state["leases"], "wills": state["wills"], "number": state["number"]}
            state.update(json.loads(json.dumps(EMPTY)), **kept)
            for name in [each for each in state["leases"] if each.endswith("!")]:
                self._tell(state, name, protocol.reset())

        self.change(work)

    # A gateway's end.

    def receive_inbox(self, name, limit):
        def work(state):
            waiting, now = state["queues"].get(name, []), time.time()
            found = [[message[1], message[2]] for message in waiting[:limit] if message[4] > now]
            del waiting[:limit]
            return found

        return self.change(work)

    def gateway_batch(self, inbox, wills, cleared, discards, sends):
        def work(state):
            for will in wills:
                state["wills"][will.connection] = [inbox, will.channel, will.body]
            for connection in cleared:
                state["wills"].pop(connection, None)
            for group, channel in discards:
                state["groups"].get(group, {}).pop(channel, None)
            return self._put(state, sends)

        return self.change(work)

    def subscribe(self, name, callback):
        self._subscribers[name] = callback
        self._start()

    def unsubscribe(self, name):
        self._subscribers.pop(name, None)

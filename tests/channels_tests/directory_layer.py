"""
A channel layer over a directory that all processes of a site share: slow, and meant to be
read. All is in `state.json`. A process replaces it while it holds the lock of `lock`.
"""

import fcntl
import json
import os
import time
import uuid

from channels import protocol
from channels.exceptions import LayerUnavailable
from channels.layers.engine import options
from channels.layers.engine.layer import EngineLayer
from channels.layers.engine.store import Entry, Heartbeat, Outgoing, Pending, Will
from channels.layers.engine.transactions import TransactionStore
from channels.layers.names import queue_of


class DirectoryChannelLayer(EngineLayer):
    """The layer. `directory` is a path; the other options are those of every layer."""

    def __init__(self, **config):
        own, shared, common = options.split(config, {"directory": None})
        if own["directory"] is None:
            raise options.refusal("directory", "the path of a directory", None)
        self.directory = own["directory"]
        super().__init__(options.Options(**shared), **common)

    def make_store(self):
        return DirectoryStore(self.directory)


EMPTY = {
    "queues": {},  # queue to a list of [id, channel, body, losses, sent, expires]
    "claims": {},  # consumer to [process, id, channel, body, losses]
    "leases": {},  # process or gateway to the time when its lease ends
    "wills": {},  # connection to [gateway, channel, body]
    "groups": {},  # group to {channel: gateway or ""}
    "delayed": [],  # [due, channel, body]
    "dead": [],  # [id, channel, body, reason, died]
    "counters": {},
}


def new_id():
    """Return an id that is used once: a message gets a new one whenever it is queued."""
    return uuid.uuid4().hex


class DirectoryStore(TransactionStore):
    poll_interval = 0.02

    def __init__(self, directory):
        super().__init__()
        self.path = os.path.join(directory, "state.json")
        self.lock_path = os.path.join(directory, "lock")

    # The file.

    def _read(self):
        try:
            with open(self.path, encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return json.dumps(EMPTY)
        except OSError as error:
            raise LayerUnavailable("%s: %s" % (self.path, error)) from error

    def look(self):
        """Return the state, to look at."""
        return json.loads(self._read())

    def transaction(self, work):
        try:
            with open(self.lock_path, "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    before = self._read()
                    state = json.loads(before)
                    result = work(state)
                    after = json.dumps(state)
                    if after != before:
                        with open(self.path + ".new", "w", encoding="ascii") as file:
                            file.write(after)
                        os.replace(self.path + ".new", self.path)
                finally:
                    # A process that was forked meanwhile has it open, too, so unlock it.
                    fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError as error:
            raise LayerUnavailable("%s: %s" % (self.path, error)) from error
        if after != before:
            self.changed()
        return result

    def version(self):
        if not os.path.exists(self.path):
            return None
        status = os.stat(self.path)
        return status.st_ino, status.st_mtime_ns

    # Queues.

    def put(self, state, items):
        refused, now = [], time.time()
        for index, item in enumerate(items):
            waiting = state["queues"].setdefault(queue_of(item.channel), [])
            if sum(each[5] > now for each in waiting) >= self.capacity_of(state, item):
                refused.append(index)
            else:
                expires = now + self.expiry_of(item)
                waiting.append([new_id(), item.channel, item.body, 0, now, expires])
        return refused

    def put_first(self, state, entry):
        _, channel, body, losses = entry[:4]
        now, expiry = time.time(), self.layer.expiries[channel]
        message = [new_id(), channel, body, losses, now, now + expiry]
        state["queues"].setdefault(queue_of(channel), []).insert(0, message)

    def take_next(self, state, channels):
        now = time.time()
        for channel in channels:
            waiting = state["queues"].get(queue_of(channel), [])
            for message in waiting:
                if message[5] > now and (message[1] == channel or channel.endswith("!")):
                    waiting.remove(message)
                    return Entry(*message[:4])
        return None

    def take_expired(self, state, events=True):
        found, now = [], time.time()
        for name, waiting in state["queues"].items():
            if (name in protocol.EVENT_CHANNELS) == events:
                found += [Entry(*message[:4]) for message in waiting if message[5] <= now]
                waiting[:] = [message for message in waiting if message[5] > now]
        return found

    def peek_inbox(self, state, inbox, limit):
        now = time.time()
        waiting = [each for each in state["queues"].get(inbox, []) if each[5] > now]
        return [Entry(*message[:4]) for message in waiting[:limit]]

    def drop_from(self, state, inbox, ids):
        waiting = state["queues"].get(inbox, [])
        kept = [message for message in waiting if message[0] not in ids]
        dropped, waiting[:] = len(waiting) - len(kept), kept
        return dropped

    # Claims.

    def set_claim(self, state, consumer, process, entry):
        state["claims"][consumer] = [process, *entry]

    def take_claim(self, state, consumer):
        claim = state["claims"].pop(consumer, None)
        return claim and Entry(*claim[1:])

    def claims_of(self, state, process):
        claims = state["claims"].items()
        return [(key, Entry(*claim[1:])) for key, claim in claims if claim[0] == process]

    # Leases and wills.

    def register(self, name):
        end = time.time() + self.layer.options.lease
        self.transaction(lambda state: state["leases"].update({name: end}))

    def heartbeat(self, names):
        def work(state):
            now, leases = time.time(), state["leases"]
            missing = [name for name in names if name not in leases]
            end = now + self.layer.options.lease
            leases.update((name, end) for name in names if name in leases)
            events = [state["queues"].get(name, []) for name in protocol.EVENT_CHANNELS]
            expired = any(message[5] <= now for waiting in events for message in waiting)
            following = min(leases.values(), default=None)
            lost = following is not None and following <= now
            wait = None if lost or following is None else following - now
            return Heartbeat(missing, lost, expired, wait)

        return self.transaction(work)

    def extend_leases(self):
        end = time.time() + self.layer.options.lease
        self.transaction(
            lambda state: state["leases"].update((name, end) for name in state["leases"])
        )

    def has_lease(self, state, name):
        return name in state["leases"]

    def ended_leases(self, state):
        now = time.time()
        return [name for name, end in state["leases"].items() if end <= now]

    def end_lease(self, state, name):
        state["leases"].pop(name, None)
        for members in state["groups"].values():
            for channel in [each for each, gateway in members.items() if gateway == name]:
                del members[channel]
        if name.endswith("!"):
            state["queues"].pop(name, None)

    def set_will(self, state, gateway, will):
        state["wills"][will.connection] = [gateway, will.channel, will.body]

    def clear_will(self, state, connection):
        state["wills"].pop(connection, None)

    def take_wills(self, state, gateway):
        mine = [key for key, will in state["wills"].items() if will[0] == gateway]
        return [Will(key, *state["wills"].pop(key)[1:]) for key in mine]

    # Delay.

    def delay(self, channel, body, seconds):
        item = [time.time() + seconds, channel, body]
        self.transaction(lambda state: state["delayed"].append(item))

    def next_due(self):
        due = min([each[0] for each in self.look()["delayed"]], default=None)
        return None if due is None else due - time.time()

    def take_due(self, state):
        now = time.time()
        due = sorted(each for each in state["delayed"] if each[0] <= now)
        state["delayed"] = [each for each in state["delayed"] if each[0] > now]
        return [Outgoing(channel, body) for _, channel, body in due]

    # Groups.

    def add_member(self, state, group, channel, gateway):
        members = state["groups"].setdefault(group, {})
        is_new = channel not in members
        members[channel] = gateway
        return is_new

    def remove_member(self, state, group, channel):
        return bool(state["groups"].get(group, {}).pop(channel, None))

    def group_channels(self, group):
        return list(self.look()["groups"].get(group, {}))

    def group_routes(self, group):
        members = self.look()["groups"].get(group, {})
        gateways = sorted(set(members.values()) - {""})
        return gateways, [channel for channel, gateway in members.items() if not gateway]

    def count_members(self, group, gateway):
        return list(self.look()["groups"].get(group, {}).values()).count(gateway)

    # Dead letters, counters and statistics.

    def add_dead(self, state, entry, reason):
        letter = [new_id(), entry.channel, entry.body, reason, time.time()]
        state["dead"].append(letter)
        surplus = max(0, len(state["dead"]) - self.layer.options.dead_letters)
        del state["dead"][:surplus]
        return surplus

    def take_dead(self, state, id):
        for letter in state["dead"]:
            if letter[0] == id:
                state["dead"].remove(letter)
                return Outgoing(letter[1], letter[2])
        return None

    def dead_letters(self):
        return self.look()["dead"]

    def count_dead_letters(self):
        return len(self.look()["dead"])

    def add_counters(self, increments, process, number):
        def work(state):
            for name, number in increments.items():
                state["counters"][name] = state["counters"].get(name, 0) + number

        self.transaction(work)

    def counters(self):
        return self.look()["counters"]

    def pending(self, channel=None):
        now, found = time.time(), []
        for name, waiting in self.look()["queues"].items():
            ages = [now - message[4] for message in waiting if message[5] > now]
            if ages and channel in (None, name):
                found.append(Pending(name, len(ages), max(ages)))
        return found

    def count_unacknowledged(self):
        return len(self.look()["claims"])

    def clear(self, state):
        kept = {name: state[name] for name in ("leases", "wills")}
        state.update(json.loads(json.dumps(EMPTY)), **kept)
        return [name for name in state["leases"] if name.endswith("!")]

"""
How readers wait: one thread a process notices that something was sent, and wakes those it may concern.

On PostgreSQL it LISTENs, and asks nothing while nothing comes; where notifications do not come through
(behind a pooler), and on the other databases, it looks at short intervals. The second half of this file,
`Notifier`, is the sender's side.
"""

import hashlib
import logging
import select
import socket
import threading
import time
import uuid

from ...exceptions import LayerUnavailable
from .connections import readable

logger = logging.getLogger("django.channels.layers.database")

#: Seconds in which a notification sent to oneself must have arrived; and between two such proofs.
PROOF_TIMEOUT = 3.0
PROOF_EVERY = 60.0

#: Seconds between two notifications of one topic by one process; and while it sends so much (messages
#: between two of them) that its readers are at work anyway.
NOTIFY_EVERY = 0.003
NOTIFY_EVERY_BUSY = 0.010
BUSY = 5

#: Seconds between two tries to reach a database that is away.
PAUSE = 0.5

#: Seconds of looking between two tries to LISTEN, once it has failed.
LISTEN_AGAIN = 60.0


def topic(prefix, name):
    """The name that PostgreSQL notifies under: letters and digits, whatever the prefix is."""
    return "channels_" + hashlib.sha256((prefix + ":" + name).encode()).hexdigest()[:32]


class Watcher:
    """
    Wakes readers of queues (`wait`) and calls back on inboxes and delays (`subscribe`). Thread-safe; the
    thread starts with the first who waits.
    """

    def __init__(self, store):
        self.store = store
        #: Changes whenever there may be something new: read it, look, and wait on it.
        self.version = 0
        #: Whether notifications come through, so that nobody needs to look unasked.
        self.listening = False
        self._lock = threading.Lock()
        self._waiters = []
        self._woken = set()
        self._subscribers = {}  # queue or "" (delays) to callback
        self._thread = None
        self._pipe = None
        self._stopped = False
        self._work_topic = topic(store.prefix, "work")
        self._back_topic = topic(store.prefix, "back")

    # Waiting.

    def wait(self, queues, version, timeout, slot=None):
        """
        Wait until something may have come to one of `queues` (a tuple) since `version`; up to `timeout`
        seconds. Returns "changed", "woken" (by `wake`) or "timeout".
        """
        with self._lock:
            if slot is not None and slot in self._woken:
                self._woken.discard(slot)
                return "woken"
            if self.version != version:
                return "changed"
            waiter = _Waiter(queues, slot)
            self._waiters.append(waiter)
            self._start()
        waiter.ready.acquire(timeout=timeout)
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if slot is not None and slot in self._woken:
                self._woken.discard(slot)
                if waiter.why == "changed":
                    self._wake_one(queues)  # it will not look; another one must
                return "woken"
        return waiter.why

    def wake(self, slot):
        """End the wait of `slot`, or its next one."""
        with self._lock:
            self._woken.add(slot)
            for waiter in self._waiters:
                if waiter.slot == slot:
                    self._release(waiter, "woken")
                    break

    def found(self, queues):
        """A reader of `queues` found something: another one that waits for the same may, too."""
        with self._lock:
            self._wake_one(queues)

    def changed(self, queues=None, everyone_waits=False):
        """
        Something may have come to `queues`, or with None, to any; with `everyone_waits`, to any
        queue that somebody waits for.
        """
        with self._lock:
            self.version += 1
            seen = set()
            for waiter in list(reversed(self._waiters)):
                # One reader of a kind is woken; if it finds something, it wakes the next.
                if waiter.queues not in seen and (
                    everyone_waits or queues is None or not queues.isdisjoint(waiter.queues)
                ):
                    seen.add(waiter.queues)
                    self._release(waiter, "changed")
            callbacks = [
                callback
                for queue, callback in self._subscribers.items()
                if queues is None or queue in queues
            ]
        for callback in callbacks:
            callback()

    def _wake_one(self, queues):
        for waiter in reversed(self._waiters):
            if waiter.queues == queues:
                self._release(waiter, "changed")
                return

    def _release(self, waiter, why):
        self._waiters.remove(waiter)
        waiter.why = why
        waiter.ready.release()

    def subscribe(self, queue, callback):
        """
        Call `callback()` in the watcher's thread whenever something may have come to `queue` ("": a
        delay).
        """
        with self._lock:
            self._subscribers[queue] = callback
            self._start()
        self._interrupt()

    def unsubscribe(self, queue):
        with self._lock:
            self._subscribers.pop(queue, None)
        self._interrupt()

    # The thread.

    def _start(self):
        if self._thread is None and not self._stopped:
            self._pipe = socket.socketpair()  # not a pipe: Windows cannot wait for one
            self._pipe[1].setblocking(False)
            self._thread = threading.Thread(target=self._run, name="channels-watcher", daemon=True)
            self._thread.start()

    def _interrupt(self):
        pipe = self._pipe
        if pipe is not None:
            try:
                pipe[1].send(b".")
            except OSError:
                pass

    def stop(self):
        self._stopped = True
        self._interrupt()
        self.changed()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)
            if not thread.is_alive():
                pair, self._pipe = self._pipe, None
                for end in pair or ():
                    end.close()

    def _run(self):
        watch = _listen if self.store.notifies else _look
        while not self._stopped:
            try:
                watch(self)
            except LayerUnavailable as error:
                self.listening = False
                logger.debug("The watcher lost the database: %s", error)
                self._sleep(PAUSE)
                # Who waits tries by itself, and learns that the database is away.
                self.changed()
            except Exception:
                self.listening = False
                logger.exception("The watcher of the database layer failed; it starts again.")
                self._sleep(PAUSE)

    def _sleep(self, seconds):
        pipe = self._pipe
        if pipe is not None and readable(pipe[0].fileno(), seconds):
            pipe[0].recv(4096)

    def _wanted(self):
        with self._lock:
            queues = {queue for waiter in self._waiters for queue in waiter.queues}
            queues.update(queue for queue in self._subscribers if queue)
            return queues

    def topics(self):
        """What to LISTEN to: a dict of topic to the queues it means (None: all that are shared)."""
        found = {self._work_topic: None, self._back_topic: None}
        with self._lock:
            for queue in self._subscribers:
                found[topic(self.store.prefix, queue or "delay")] = {queue}
        return found


class _Waiter:
    __slots__ = ("queues", "ready", "slot", "why")

    def __init__(self, queues, slot):
        self.queues = queues
        self.slot = slot
        self.why = "timeout"
        self.ready = threading.Lock()
        self.ready.acquire()


def _listen(watcher):
    """
    LISTEN until the watcher stops; where notifications do not come through, look for a while
    instead.
    """
    store = watcher.store
    listener = store.listener()
    try:
        proof = topic(store.prefix, "proof." + uuid.uuid4().hex)
        listener.listen(proof)
        heard = {proof: set()}
        proven, asked, deadline = False, False, time.monotonic() + PROOF_TIMEOUT
        next_look = 0.0
        while not watcher._stopped:
            wanted = watcher.topics()
            for name in wanted:
                if name not in heard:
                    listener.listen(name)
            for name in list(heard):
                if name not in wanted and name != proof:
                    listener.unlisten(name)
            new = set(wanted) - set(heard)
            heard = dict(wanted, **{proof: set()})
            if new:
                watcher.changed()  # what came before this LISTEN
            now = time.monotonic()
            if not asked:
                asked, deadline = True, now + PROOF_TIMEOUT
                store.notify([proof])
            if not proven and now >= next_look:
                _look_once(watcher)  # until it is proven that there is no need to
                next_look = now + store.poll_every
            if now > deadline:
                if asked and not proven:
                    watcher.listening = False
                    logger.warning(
                        "PostgreSQL's notifications do not come through (is there a pooler in "
                        "transaction mode before the database %r?): looking for messages every "
                        "%d ms instead.",
                        store.connections.alias,
                        store.poll_every * 1000,
                    )
                    listener.close()
                    _look(watcher, until=now + LISTEN_AGAIN)
                    return
                # Time for another proof, lest a dead connection is taken for a quiet one.
                proven = asked = False
                continue
            timeout = deadline - now if proven else min(deadline - now, store.poll_every)
            _wait(listener.fileno(), watcher._pipe[0], timeout)
            topics = listener.topics()
            if watcher._back_topic in topics:
                store.floors.clear()  # there is something below them
            if proof in topics and not proven:
                proven, deadline = True, time.monotonic() + PROOF_EVERY
                watcher.listening = True
            subscribed, shared = set(), False
            for name in topics:
                meaning = heard.get(name, subscribed)
                if meaning is None:
                    shared = True
                else:
                    subscribed |= meaning
            if shared or subscribed:
                watcher.changed(subscribed, everyone_waits=shared)
    finally:
        watcher.listening = False
        listener.close()


def _wait(descriptor, pair, timeout):
    """Until the descriptor or the socket `pair` is readable; what the latter holds is read."""
    pipe = pair.fileno()
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLPRI)
        poll.register(pipe, select.POLLIN)
        ready = [each for each, _ in poll.poll(max(timeout, 0) * 1000)]
    else:
        ready = select.select([descriptor, pipe], [], [], max(timeout, 0))[0]
    if pipe in ready:
        pair.recv(4096)


def _look(watcher, until=None):
    """Look at intervals, until the time `until` or until the watcher stops."""
    store = watcher.store
    counter = store.change_counter() if store.sees_changes else None
    last = None
    while not watcher._stopped and (until is None or time.monotonic() < until):
        if counter is None:
            _look_once(watcher)
        else:
            value = counter()
            if value != last:
                last = value
                _look_once(watcher, bump=True)
        watcher._sleep(store.poll_every)


def _look_once(watcher, bump=False):
    queues = watcher._wanted()
    hot = watcher.store.peek(queues)
    if hot or bump:
        watcher.changed(hot | {""} if bump else hot)


class Notifier:
    """
    Notifies a topic at most once in a few milliseconds: the first send carries its notification
    itself (`due` says so), those that follow closely share one, which a thread sends. Thread-safe.
    """

    def __init__(self, store):
        self.store = store
        self._lock = threading.Condition()
        self._last = {}
        self._owed = set()
        self._count = 0
        self._every = NOTIFY_EVERY
        self._thread = None

    def due(self, topics):
        """Those of `topics` that the caller's statement is to notify."""
        now = time.monotonic()
        with self._lock:
            if len(self._last) > 1000:
                self._last.clear()
            found = [each for each in topics if now - self._last.get(each, 0) >= self._every]
            self._last.update((each, now) for each in found)
        return found

    def tell(self, topics):
        """
        Notify `topics` soon; for what the caller's statement did not. Called after the commit.
        """
        if not topics:
            return
        with self._lock:
            self._owed.update(topics)
            self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="channels-notifier", daemon=True
                )
                self._thread.start()
            self._lock.notify()

    def flush(self):
        """Send what is owed, now: at the end of a process."""
        with self._lock:
            owed, self._owed = self._owed, set()
        if owed:
            try:
                self.store.notify(owed)
            except LayerUnavailable:
                pass

    def _run(self):
        while True:
            with self._lock:
                while not self._owed:
                    self._lock.wait()
            time.sleep(self._every)
            with self._lock:
                owed, self._owed = self._owed, set()
                self._every = NOTIFY_EVERY if self._count < BUSY else NOTIFY_EVERY_BUSY
                self._count = 0
                now = time.monotonic()
                self._last.update((each, now) for each in owed)
            try:
                self.store.notify(owed)
            except LayerUnavailable:
                pass  # those who wait have lost the database as well, and look when it is back
            except Exception:
                logger.exception("A notification failed")

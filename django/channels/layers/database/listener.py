"""
How readers learn that something was sent: one thread a process, "channels-listener", wakes them.

On PostgreSQL it LISTENs, and runs no query while nothing comes. On the other databases, and where
notifications do not come through (behind a pooler), it polls. `Notifier`, at the end, is the sender's side.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Iterable

from ...exceptions import LayerUnavailable
from ..engine.threads import start_thread
from .deadlines import readable

if TYPE_CHECKING:
    from .tables import Tables

logger = logging.getLogger("django.channels.layers")

#: Seconds in which a notification sent to oneself must arrive; and between two such proofs.
PROOF_TIMEOUT = 3.0
PROOF_INTERVAL = 60.0

#: Seconds between two notifications of one topic by one process; and while it sends so many messages between
#: two of them that its readers are at work anyway.
NOTIFY_INTERVAL = 0.003
NOTIFY_INTERVAL_BUSY = 0.010
BUSY = 5

#: Seconds between two tries to reach a database that cannot be reached.
RETRY_INTERVAL = 0.5

#: Seconds of polling between two tries to LISTEN, after it has failed.
LISTEN_INTERVAL = 60.0


def topic(prefix: str, name: str) -> str:
    """Return the name that PostgreSQL notifies under: letters and digits, whatever the prefix is."""
    return "channels_" + hashlib.sha256((prefix + ":" + name).encode()).hexdigest()[:32]


class NotificationListener:
    """
    Tells a store when something may have come for its readers, its inboxes or its delays (`store.changed`).
    Thread-safe; the thread starts with the first reader that waits.
    """

    def __init__(self, store: Tables) -> None:
        self.store = store
        #: Whether notifications come through, so that polling is not needed.
        self.listening = False
        self.stopped = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pair: tuple[socket.socket, socket.socket] | None = None

    # The thread.

    @property
    def runs(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self.stopped:
                self._pair = socket.socketpair()  # not a pipe, which Windows cannot wait for
                self._pair[1].setblocking(False)
                self._thread = start_thread("channels-listener", self._run)

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self.stopped = True
        self.interrupt()
        self.store.waiters.changed()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)
            if not thread.is_alive():
                pair, self._pair = self._pair, None
                for end in pair or ():
                    end.close()

    def interrupt(self) -> None:
        """Have the thread look at once at what is subscribed, and whether it must stop."""
        pair = self._pair
        if pair is not None:
            try:
                pair[1].send(b".")
            except OSError:
                pass  # full, so it will wake anyway; or closed

    def _run(self) -> None:
        while not self.stopped:
            try:
                with self.store.connections.explaining():
                    if self.store.notifies:
                        _Session(self).run()
                    else:
                        self.poll()
            except LayerUnavailable as error:
                logger.debug("The listener cannot reach the database: %s", error)
                self.sleep(RETRY_INTERVAL)
                # Each waiting reader tries by itself, and learns that the database cannot be reached.
                self.store.changed()
            finally:
                self.listening = False

    def sleep(self, seconds: float, descriptor: int | None = None) -> None:
        """Wait until `descriptor` is readable or somebody interrupts, for `seconds` at most."""
        if self._pair is None:
            return
        own = self._pair[0]
        watched = [own.fileno()] if descriptor is None else [own.fileno(), descriptor]
        if own.fileno() in readable(*watched, timeout=max(0.0, seconds)):
            own.recv(4096)

    # Polling.

    def poll(self, until: float | None = None) -> None:
        """Poll at intervals, until the time `until` (monotonic) or the end."""
        store = self.store
        counter = store.change_counter() if store.sees_changes else None
        last: Any = None
        while not self.stopped and (until is None or time.monotonic() < until):
            if counter is None:
                self.poll_once()
            else:
                value = counter()
                if value != last:
                    last = value
                    self.store.changed(self._found() | {""})
            self.sleep(store.poll_interval)

    def poll_once(self) -> None:
        """Poll once the queues that readers wait for, and wake the readers of those with messages."""
        found = self._found()
        if found:
            self.store.changed(found)

    def _found(self) -> set[str]:
        queues = self.store.waiters.wanted().union(list(self.store.subscribers))
        found: set[str] = self.store.peek(sorted(queues - {""}))
        return found

    def topics(self) -> dict[str, set[str] | None]:
        """Return what to LISTEN to: by topic, the queues it means (None: all that are shared)."""
        prefix = self.store.prefix
        found: dict[str, set[str] | None] = {
            topic(prefix, "work"): None,
            topic(prefix, "back"): None,
        }
        for queue in list(self.store.subscribers):
            found[topic(prefix, queue or "delay")] = {queue}
        return found


class _Session:
    """
    One LISTEN connection, until it breaks or the listener stops. For the listener's thread.

    From time to time it notifies itself: a *proof* that notifications come through. Until it has arrived, the
    session polls as well.
    """

    def __init__(self, listener: NotificationListener) -> None:
        self._listener = listener
        self._store = listener.store
        self._proof = topic(self._store.prefix, "proof." + uuid.uuid4().hex)
        self._back = topic(self._store.prefix, "back")
        self._meanings: dict[str, set[str] | None] = {}
        self._proven = self._asked = False
        self._deadline = time.monotonic() + PROOF_TIMEOUT
        self._poll_at = 0.0

    def run(self) -> None:
        connection: Any = self._store.connections.open()
        try:
            connection.listen(self._proof)
            while not self._listener.stopped:
                self._follow_subscriptions(connection)
                now = time.monotonic()
                self._prove(now)
                if now > self._deadline and not self._proven:
                    self._give_up(connection, now)
                    return
                if now > self._deadline:
                    # Another proof, because a dead connection looks like a quiet one.
                    self._proven = self._asked = False
                    continue
                timeout = self._deadline - now
                if not self._proven:
                    timeout = min(timeout, self._store.poll_interval)
                self._listener.sleep(timeout, connection.descriptor)
                self._hear(connection.topics())
        finally:
            self._listener.listening = False
            connection.close()

    def _follow_subscriptions(self, connection: Any) -> None:
        """LISTEN to what is subscribed now, and to nothing else."""
        wanted = self._listener.topics()
        new = set(wanted) - set(self._meanings)
        for name in new:
            connection.listen(name)
        for name in set(self._meanings) - set(wanted):
            connection.unlisten(name)
        self._meanings = wanted
        if new:
            self._store.changed()  # what came before this LISTEN

    def _prove(self, now: float) -> None:
        """Notify oneself if that is due; until the proof has arrived, poll."""
        if not self._asked:
            self._asked, self._deadline = True, now + PROOF_TIMEOUT
            self._store.notify([self._proof])
        if not self._proven and now >= self._poll_at:
            self._listener.poll_once()
            self._poll_at = now + self._store.poll_interval

    def _give_up(self, connection: Any, now: float) -> None:
        """Poll for a while: notifications do not come through."""
        self._listener.listening = False
        logger.warning(
            "PostgreSQL's notifications do not come through (is there a pooler in transaction mode before "
            "the database %r?). The layer polls every %d ms instead.",
            self._store.connections.alias,
            self._store.poll_interval * 1000,
        )
        connection.close()
        self._listener.poll(until=now + LISTEN_INTERVAL)

    def _hear(self, topics: set[str]) -> None:
        """Wake those whom the notifications of `topics` concern."""
        if self._back in topics:
            self._store.marks.clear()
        if self._proof in topics and not self._proven:
            self._proven, self._deadline = True, time.monotonic() + PROOF_INTERVAL
            self._listener.listening = True
        meanings = [self._meanings[name] for name in topics if name in self._meanings]
        if meanings:
            queues: set[str] = set()
            for meaning in meanings:
                # A shared topic does not tell which queue: any that somebody waits for.
                queues |= self._store.waiters.wanted() if meaning is None else meaning
            self._store.changed(queues)


class Notifier:
    """
    Notifies a topic at most once in a few milliseconds. Thread-safe.

    The first send carries its notification itself (`due`). Those that follow closely share one, which the
    thread "channels-notifier" sends (`notify`).
    """

    def __init__(self, store: Tables) -> None:
        self.store = store
        self._lock = threading.Condition()
        self._last: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._count = 0
        self._interval = NOTIFY_INTERVAL
        self._thread: threading.Thread | None = None

    def due(self, topics: Iterable[str]) -> list[str]:
        """Return those of `topics` that the caller's statement must notify."""
        now = time.monotonic()
        with self._lock:
            if len(self._last) > 1000:
                self._last.clear()
            found = [each for each in topics if now - self._last.get(each, 0) >= self._interval]
            self._last.update((each, now) for each in found)
        return found

    def notify(self, topics: Iterable[str]) -> None:
        """Notify `topics` soon. Called after the commit."""
        topics = set(topics)
        if not topics:
            return
        with self._lock:
            self._waiting |= topics
            self._count += 1
            if self._thread is None:
                self._thread = start_thread("channels-notifier", self._run)
            self._lock.notify()

    def flush(self) -> None:
        """Notify what still waits, now, and end the thread. A later send starts another."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
            thread, self._thread = self._thread, None
            self._lock.notify()
        if thread is not None:
            thread.join(5)  # it may be using a connection, which the caller will then close
        if waiting:
            try:
                self.store.notify(sorted(waiting))
            except LayerUnavailable:
                pass  # readers poll again when the database is back

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._waiting:
                    if self._thread is not threading.current_thread():
                        return
                    self._lock.wait()
            time.sleep(self._interval)
            with self._lock:
                waiting, self._waiting = self._waiting, set()
                self._interval = NOTIFY_INTERVAL if self._count < BUSY else NOTIFY_INTERVAL_BUSY
                self._count = 0
                now = time.monotonic()
                self._last.update((each, now) for each in waiting)
            try:
                if waiting:
                    self.store.notify(sorted(waiting))
            except LayerUnavailable:
                pass  # waiting readers have lost the database as well, and poll when it is back

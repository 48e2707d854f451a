"""
Leases: each process that claims or has an inbox open says every few seconds that it lives, and clears up
after those that have stopped saying so. The same thread sends what is due later.
"""

import logging
import os
import threading
import time
import uuid
import weakref

from . import recovery
from .contract import LayerUnavailable

logger = logging.getLogger("django.channels.redis")

#: Seconds after the end of a lease at which it is looked for.
AFTER_END = 0.01


class Leases:
    """The leases of one process on one layer. `heartbeat` and `lease` are in seconds."""

    def __init__(self, layer, heartbeat, lease):
        if heartbeat <= 0 or lease < 3 * heartbeat:
            raise ValueError(
                "lease is %r s and heartbeat %r s: a lease lasts three heartbeats or more."
                % (lease, heartbeat)
            )
        self._layer = weakref.ref(layer)
        self.heartbeat = heartbeat
        self.lease = lease
        self.forked()

    def forked(self):
        """In a new process: another name, and no thread."""
        self.process = "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())
        layer = self._layer()
        if layer is not None:
            layer.store.set_process(self.process)
            layer.store.lease = int(self.lease * 1000)
        self._lock = threading.Lock()
        self._thread = None
        self._stopped = threading.Event()
        self._inboxes = {}
        self._due = None

    def ensure(self):
        """Take the lease and start the thread, unless that is done. Raises LayerUnavailable."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self.beat()
                self._start()

    def _start(self):
        self._thread = threading.Thread(
            target=_keep,
            args=(weakref.ref(self), self._stopped, self.heartbeat),
            name="channels-lease",
            daemon=True,
        )
        self._thread.start()

    def attach(self, inbox):
        """Keep the lease of `inbox` too, from now on, whether or not the server can be reached now."""
        self._inboxes[inbox.gateway] = inbox
        with self._lock:
            if self._thread is None:
                self._start()

    def detach(self, inbox):
        self._inboxes.pop(inbox.gateway, None)

    def stop(self):
        """End the thread, within one heartbeat."""
        self._stopped.set()

    # One step.

    def beat(self):
        """
        Renew, reap, clear up. Returns after how many seconds the next lease ends, should its holder be dead;
        0 where more has expired than one step takes.
        Raises LayerUnavailable; what was not finished is done by the next beat.
        """
        layer = self._layer()
        store = layer.store
        inboxes = dict(self._inboxes)
        found = store.heartbeat(list(inboxes), self.lease)
        self._set_due(found.next_due)
        lost_some = bool(inboxes) and store.partition_lost_data()
        for gateway, inbox in inboxes.items():
            # A lease that others have reaped took the memberships with it.
            inbox.attend((gateway in found.missing or lost_some) and inbox.leased)
            inbox.leased = True
        for channel, number in found.expired.items():
            layer.count("expired", number)
            layer.notices.expired(channel, number)
        layer.notices.log()
        for held in found.held:
            recovery.settle(layer, held)
        for name in found.gone:
            self.clear_up(name)
        layer.counters.share(store.add_counters)
        return found.next_end

    def _set_due(self, seconds):
        self._due = None if seconds is None else time.monotonic() + seconds

    def clear_up(self, gateway):
        """Remove what a gateway left. Each part may be done twice; wills are sent once."""
        logger.info("Clearing up after the gateway %s.", gateway.partition("|")[0])
        self._layer().store.clear_up(gateway)

    def send_due(self):
        """Send what is due; sets when the next is. Raises LayerUnavailable."""
        layer = self._layer()
        dropped, seconds = layer.store.send_due()
        if dropped:
            layer.count("delayed_full", dropped)
        self._set_due(seconds)

    def wait(self, seconds):
        """Wait until something is due, or a new message is due before it; for `seconds` at the most."""
        if self._due is not None:
            seconds = min(seconds, self._due - time.monotonic())
        store = self._layer().store
        if seconds > 0 and store.wait_due(seconds):
            if self._stopped.is_set():
                store.wake_due()
            self._due = time.monotonic()
        return self._due is not None and self._due <= time.monotonic() + 0.002


def _keep(reference, stopped, heartbeat):
    """The thread: until the leases, or their layer, are gone."""
    following = time.monotonic()
    pause, complained = 0.1, False
    while not stopped.is_set():
        leases = reference()
        if leases is None or leases._layer() is None:
            return
        try:
            if time.monotonic() >= following:
                # Who is silent is noticed as its lease ends, not up to a heartbeat later.
                following = time.monotonic() + min(heartbeat, leases.beat() + AFTER_END)
            if leases.wait(following - time.monotonic()) and not stopped.is_set():
                leases.send_due()
            if complained:
                logger.warning("The channel layer can be reached again.")
            pause, complained = 0.1, False
        except LayerUnavailable as error:
            if stopped.is_set():
                return
            if not complained:
                logger.warning("The lease cannot be renewed: %s", error)
            complained = True
            del leases
            stopped.wait(pause)
            pause = min(pause * 2, heartbeat)
        except Exception:
            if stopped.is_set() or leases._layer() is None:
                return
            logger.exception("The lease thread failed; it goes on")
            stopped.wait(heartbeat)

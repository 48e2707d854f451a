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
from .contract import ChannelFull, LayerUnavailable
from .scripts import run

logger = logging.getLogger("django.channels.redis")

#: Messages due that are sent before the thread looks at the time again.
DUE_BATCH = 100

#: Seconds after the end of a lease at which it is looked for.
AFTER_END = 0.01

#: Milliseconds after which another process sends what one has taken and not sent.
PUT_OFF = 15000


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
        self.milliseconds = int(lease * 1000)
        self.forked()

    def forked(self):
        """In a new process: another name, and no thread."""
        self.process = "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())
        self.holder = "w:" + self.process
        self._lock = threading.Lock()
        self._thread = None
        self._stopped = threading.Event()
        self._inboxes = {}
        self._due = None
        self._epochs = {}

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
        keys = layer.keys
        inboxes = dict(self._inboxes)
        due, missing, lost, gone, ending, expired = layer.servers.call(
            run(
                "beat",
                [keys.leases, keys.seen, keys.gone, keys.held(self.process), keys.delay]
                + keys.expiring,
                [self.holder, self.milliseconds, keys.tag] + list(inboxes),
            )
        )
        self._due = None if due < 0 else time.monotonic() + due / 1000.0
        missing = {name.decode() for name in missing}
        lost_some = self._look_at_partitions()
        for gateway, inbox in inboxes.items():
            # A lease that others have reaped took the memberships with it.
            inbox.attend((gateway in missing or lost_some) and inbox.leased)
            inbox.leased = True
        for channel, number in zip(expired[::2], expired[1::2]):
            layer.count("expired", number)
            layer.notices.expired(channel.decode("ascii", "replace"), number)
        layer.notices.log()
        for slot, entry in zip(lost[::2], lost[1::2]):
            recovery.settle(layer, slot.decode(), entry)
        for name in gone:
            self.clear_up(name.decode())
        layer.counters.share(layer.add_to_counters)
        return ending / 1000.0

    def _look_at_partitions(self):
        """
        Whether one of several partitions lost its data, and with it routes of groups: a cluster's node
        did. (Of a single partition, the register of the inbox tells.)
        """
        layer = self._layer()
        tags = layer.keys.tags
        if len(tags) == 1 or not self._inboxes:
            return False
        lost = False
        epochs = layer.servers.call_many([("GET", tag + "epoch") for tag in tags])
        for tag, epoch in zip(tags, epochs):
            if epoch is None:
                layer.servers.call(("SET", tag + "epoch", uuid.uuid4().hex, "NX"))
                epoch = layer.servers.call(("GET", tag + "epoch"))
            lost = lost or self._epochs.get(tag, epoch) != epoch
            self._epochs[tag] = epoch
        return lost

    def clear_up(self, gateway):
        """Remove what a gateway left. Each part may be done twice; farewells are sent once."""
        layer = self._layer()
        keys, call = layer.keys, layer.servers.call
        inbox, _, token = gateway.partition("|")
        logger.info("Clearing up after the gateway %s.", inbox)
        while call(run("farewell", [keys.holds(gateway), keys.stat], [keys.tag])):
            pass
        partition, register, stream, groups = keys.inbox(inbox)
        tag = keys.tags[partition]
        for group in call(run("retire", [register, stream, groups], [tag, inbox, token])):
            layer.unroute(group.decode(), inbox)
        call(("SREM", keys.gone, gateway))

    def send_due(self):
        """Send what is due; sets when the next is. Raises LayerUnavailable."""
        layer = self._layer()
        key = layer.keys.delay
        while True:
            pause, *due = layer.servers.call(run("due", [key], [PUT_OFF, DUE_BATCH]))
            for member in due:
                # The member begins with 16 digits that make it unique.
                try:
                    layer.deliver_raw(member[16:])
                except ChannelFull:
                    layer.count("delayed_full")
                layer.servers.call(("ZREM", key, member))
            if len(due) < DUE_BATCH:
                self._due = None if pause < 0 else time.monotonic() + pause / 1000.0
                return

    def wait(self, seconds):
        """Wait until something is due, or a new message is due before it; for `seconds` at the most."""
        if self._due is not None:
            seconds = min(seconds, self._due - time.monotonic())
        layer = self._layer()
        servers, key = layer.servers, layer.keys.delay_wake
        del layer  # it may go while this waits
        if seconds > 0:
            seconds = max(0.01, seconds)
            if servers.wait(("BLPOP", key, seconds), seconds) is not None:
                if self._stopped.is_set():
                    servers.call(("RPUSH", key, "1"))  # for another process
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

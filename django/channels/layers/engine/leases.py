"""
Leases: each process that claims messages or has a gateway renews its leases regularly, and recovers what
processes held whose leases have ended.

In each process one thread, "channels-lease", does this and sends delayed messages that are due. `step` and
`send_due` are what it repeats; a test can call them without the thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Callable

from ...exceptions import LayerUnavailable
from .threads import start_thread

if TYPE_CHECKING:
    from .layer import EngineLayer

logger = logging.getLogger("django.channels.layers")

#: Heartbeats between two sweeps of other expired messages. (Each heartbeat checks for expired events.)
SWEEP_INTERVAL = 4

#: Seconds between two tries to reach the store: at first; at most, the heartbeat.
RETRY_INTERVAL = 0.1

#: Seconds after the end of a lease at which other processes check it.
AFTER_END = 0.02


class LeaseManager:
    """
    The leases of one process on one layer. Thread-safe; `step` and `send_due` belong to the lease thread, and
    to tests that start none.
    """

    def __init__(self, layer: EngineLayer) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._names: dict[str, Callable[[], None] | None] = {}
        #: What is called after a heartbeat that failed, by name.
        self._doubting: dict[str, Callable[[], None]] = {}
        #: Names whose lease had run out, and whose owners have not been told.
        self._untold: set[str] = set()
        self._process: str | None = None
        self._taking_process = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._steps = 0
        #: Names of which a call said that their lease has ended. The next step takes them again.
        self._ended: set[str] = set()
        #: When (monotonic) to poll for delayed messages that are due; None: not before the next heartbeat.
        self._next_due: float | None = 0.0
        #: When the first message is due that this process has delayed since its last poll.
        self._expected: float | None = None
        #: When this process last polled for due messages.
        self._polled_at = 0.0
        #: When (monotonic) the store was last reached, and when it was first reached after a long pause.
        self._reached: float | None = None
        self._reachable_since: float | None = None

    # Names.

    @property
    def process(self) -> str:
        """The name of this process's workers. The first use takes its lease. Raises LayerUnavailable."""
        process = self._process
        if process is None:
            # One thread takes it, and the others wait: each lease that is taken is renewed until the end.
            with self._taking_process:
                process = self._process
                if process is None:
                    process = "%s.%d" % (uuid.uuid4().hex[:12], os.getpid())
                    self.acquire(process)
                    self._process = process
        return process

    def acquire(self, name: str, lost: Callable[[], None] | None = None) -> None:
        """
        Take the lease `name`, and renew it from now on. `lost()` is called in the lease thread if it had run
        out: others have recovered what the name held. Raises LayerUnavailable.
        """
        self._layer.store.register(name)
        self.renew(name, lost)

    def renew(self, name: str, lost: Callable[[], None] | None = None) -> None:
        """Renew the lease `name` from now on. With the first heartbeat, it is taken if it does not exist."""
        with self._lock:
            self._names[name] = lost
        self.start()

    def release(self, name: str) -> None:
        """Stop renewing `name`. The lease itself ends with `Store.leave`, or runs out."""
        with self._lock:
            self._names.pop(name, None)
            self._doubting.pop(name, None)

    def tell_failures(self, name: str, failed: Callable[[], None]) -> None:
        """Call `failed()`, which must not block, in the lease thread after each heartbeat that fails."""
        with self._lock:
            self._doubting[name] = failed

    # The thread.

    @property
    def runs(self) -> bool:
        """Whether the lease thread runs in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, if it does not run."""
        with self._lock:
            if self._stopped.is_set() or self.runs:
                return
            self._thread = start_thread("channels-lease", self._run)

    def has_ended(self, name: str) -> None:
        """Take the lease `name` again, now: a call found that it had ended."""
        with self._lock:
            self._ended.add(name)
        self._layer.store.wake_due()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        self._layer.store.wake_due()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def leave(self) -> None:
        """Release this process's own lease in order. Raises LayerUnavailable."""
        process, self._process = self._process, None
        if process is not None:
            self.release(process)
            self._layer.store.leave(process)

    def leave_gateway(self, name: str) -> None:
        """End the lease of a gateway that ends in order, or let it run out if the store is unavailable."""
        try:
            self._layer.store.leave(name)
        except LayerUnavailable as error:
            logger.warning(
                "The gateway %s could not leave the channel layer: %s. Its lease will run out.",
                name,
                error,
            )

    def _run(self) -> None:
        following, pause = 0.0, RETRY_INTERVAL
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                if began >= following or self._ended:
                    following = time.monotonic() + self.step()
                    self._layer.reachability.succeeded(began)
                if self.is_due():
                    self.send_due()
                pause = RETRY_INTERVAL
                self._wait(following)
            except LayerUnavailable as error:
                following = 0.0
                if not self._stopped.is_set():
                    self._layer.reachability.failed(error, began)
                    with self._lock:
                        doubting = list(self._doubting.values())
                    for each in doubting:
                        each()
                self._stopped.wait(pause)
                pause = min(pause * 2, self._layer.options.heartbeat)

    def _wait(self, following: float) -> None:
        """Wait until the next heartbeat, or until a message is due."""
        until = following if self._next_due is None else min(following, self._next_due)
        if self._layer.store.wait_due(max(0.0, until - time.monotonic())):
            self._next_due = max(time.monotonic(), self._polled_at + self._layer.store.due_pause)

    # Heartbeats.

    def step(self) -> float:
        """
        Send one heartbeat: renew the leases, recover the dead, report what expired, share counters. Return
        the seconds until the next. Raises LayerUnavailable; the next step does what was not finished.
        """
        layer, options = self._layer, self._layer.options
        self._notice_an_outage()
        with self._lock:
            names = dict(self._names)
            ended, self._ended = self._ended, set()
        self._untold.update(ended & set(names))
        began = time.monotonic()
        heartbeat = layer.store.heartbeat(list(names))
        self._reached = time.monotonic()
        if self._reached - began > options.lease / 2:
            # The heartbeats of the others may still wait in the server, as this one did.
            self._reachable_since = self._reached
        self._untold.update(heartbeat.missing)
        for name in sorted(self._untold):
            self._take_again(name, names.get(name))
        pause = options.heartbeat
        if heartbeat.next_end is not None:
            # A lease that ends before the next heartbeat is checked when it ends.
            pause = min(pause, max(0.0, heartbeat.next_end) + AFTER_END)
        if heartbeat.lost:
            # Processes that were cut off from the store together with this one need time for a heartbeat.
            wait = self._reachable_since + options.heartbeat - self._reached  # type: ignore[operator]
            if wait > 0:
                pause = min(options.heartbeat, wait + AFTER_END)
            else:
                done = self.recover()
                # The next heartbeat tells which lease ends next. Others may be recovering the dead.
                pause = AFTER_END if done else min(options.heartbeat, RETRY_INTERVAL)
        if heartbeat.expired:
            self.expire()
        self._steps += 1
        if self._steps % SWEEP_INTERVAL == 0:
            self.sweep()
        layer.notices.flush()
        layer.share_counters()
        return pause

    def recover(self) -> list[str]:
        """Recover what the dead held, and return their names. Raises LayerUnavailable."""
        done = self._layer.store.recover(self._layer.recovery.decide_lost)
        self._layer.recovery.lost(done)
        return done.names

    def expire(self) -> int:
        """Report the events that expired, and return how many. Raises LayerUnavailable."""
        count = 0
        while True:
            done = self._layer.store.expire(self._layer.recovery.decide_expired)
            if not done.decisions:
                return count
            self._layer.recovery.expired(done)
            count += len(done.decisions)

    def sweep(self) -> None:
        """Remove what else has expired. Raises LayerUnavailable."""
        self._layer.recovery.swept(self._layer.store.sweep())

    def _take_again(self, name: str, asked: Callable[[], None] | None) -> None:
        """
        Take a lease that had run out, unless it was released meanwhile, and tell its owner. `asked` is the
        owner that the heartbeat was sent for: a later owner of the same name has lost nothing.
        """
        with self._lock:
            wanted, lost = name in self._names, self._names.get(name)
            if wanted and lost != asked:
                self._untold.discard(name)
                return
        if wanted:
            # If its reply is lost, the owner is told with the next heartbeat.
            self._layer.store.register(name)
        if lost is not None:
            try:
                lost()
            except BaseException:  # the other owners are told, too
                logger.exception(
                    "The owner of the lease %s could not be told that it ran out.", name
                )
        # Only now, because a thread that sees the lease asks `is_told`.
        self._untold.discard(name)

    def is_told(self, name: str) -> bool:
        """
        Return False if the lease `name` had run out, and its owner hasn't been told yet. Ask after a look at
        the store, where the lease is there again before its owner is told.
        """
        return name not in self._untold

    def _notice_an_outage(self) -> None:
        """
        After a pause in which others could not renew their leases either, extend all leases: the store, or
        this machine, was unreachable, and the others are not dead.
        """
        now, lease = time.monotonic(), self._layer.options.lease
        if self._reached is None:
            self._reachable_since = now
        elif now - self._reached > lease / 2:
            self._layer.store.extend_leases()
            self._reachable_since = now
            logger.warning(
                "The channel layer %s was unreachable; all leases were extended.", self._layer
            )

    # Delay.

    def expect(self, seconds: float) -> None:
        """Poll for delayed messages again in `seconds`: this process has delayed one."""
        when = time.monotonic() + seconds
        with self._lock:
            if self._expected is None or when < self._expected:
                self._expected = when
            sooner = self._next_due is None or when < self._next_due
            if sooner:
                self._next_due = when
        if sooner:
            self._layer.store.wake_due()
        self.start()

    def is_due(self) -> bool:
        """Return whether to poll for delayed messages: one is due, or the last poll was long ago."""
        now = time.monotonic()
        if now - self._polled_at >= self._layer.store.due_interval():
            return True
        return self._next_due is not None and now >= self._next_due

    def send_due(self) -> None:
        """Send the delayed messages that are due. Raises LayerUnavailable; the next call continues."""
        with self._lock:
            self._polled_at = time.monotonic()
            self._next_due, self._expected = 0.0, None  # stays so if the store fails
        while True:
            due = self._layer.store.send_due()
            if due.full:
                self._layer.count("delayed_full", due.full)
            if due.next is None or due.next > 0:
                break
        with self._lock:
            # The store may have polled before it got what was delayed meanwhile.
            self._next_due = self._expected
            if due.next is not None:
                when = time.monotonic() + due.next
                self._next_due = when if self._expected is None else min(when, self._expected)

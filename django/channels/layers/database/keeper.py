"""
Leases: one thread a process renews its own, clears up after those that ran out, tells of what expired,
and sends what is due.

`beat()` and `send_due()` are the steps, apart from the thread that repeats them.
"""

import logging
import threading
import time
from collections import Counter

from ...exceptions import LayerUnavailable
from ...log import RateLimit

logger = logging.getLogger("django.channels.layers.database")

#: Beats between two removals of what has expired and nobody waits for. (Events are looked for each beat.)
SWEEP_EVERY = 4

#: Seconds between two tries to reach a database that is away.
PAUSE = 0.5

#: Seconds after the end of a lease at which it is looked for.
AFTER_END = 0.02

#: Seconds between two lines in the log about one thing, at least.
LOG_EVERY = 1.0


class Keeper:
    """The keeper of `layer`. Thread-safe."""

    def __init__(self, layer):
        self.layer = layer
        self.store = layer.store
        self._lock = threading.Condition()
        self._names = {}  # leases of this process: name to what is called when one was lost, or None
        self._thread = None
        self._stopped = False
        self._poked = False
        self._beats = 0
        self._rate_limits = {}  # a RateLimit for each text that is logged at most once a second
        self._next_due = 0.0  # when (monotonic) to look for what is due; None: nothing is
        self._asked_due = 0.0

    def hold(self, name, lost=None):
        """
        Take the lease `name` and keep it; `lost()` is called, in the keeper's thread, if it had run
        out.
        """
        self.store.register(name, self.layer.lease)
        with self._lock:
            self._names[name] = lost
        self.start()

    def let_go(self, name):
        """Renew `name` no longer."""
        with self._lock:
            self._names.pop(name, None)

    @property
    def runs(self):
        return self._thread is not None

    def start(self):
        """Start the thread, if it does not run yet."""
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._run, name="channels-keeper", daemon=True
                )
                self._thread.start()

    def stop(self):
        with self._lock:
            self._stopped = True
            self._lock.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)

    def _run(self):
        next_beat = time.monotonic() + self.layer.heartbeat
        while True:
            try:
                self.send_due()
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self.layer.heartbeat
                    ending = self.beat()
                    # Who is silent is noticed as its lease ends, not up to a heartbeat later.
                    if ending is not None:
                        soon = time.monotonic() + max(0.0, ending) + AFTER_END
                        next_beat = min(next_beat, soon)
                pause = 0.0
            except LayerUnavailable as error:
                logger.debug("The keeper cannot reach the database: %s", error)
                pause = PAUSE
            except Exception:
                logger.exception("The keeper of the database layer failed; it goes on.")
                pause = PAUSE
            with self._lock:
                if self._stopped:
                    return
                wait = next_beat - time.monotonic()
                due = self._asked_due + self.layer.due_patience
                if self._next_due is not None:
                    due = min(due, self._next_due)
                wait = min(wait, due - time.monotonic())
                wait = max(wait, pause)
                if wait > 0 and not self._poked:
                    self._lock.wait(wait)
                self._poked = False
                if self._stopped:
                    return

    # Leases.

    def beat(self):
        """
        Renew the leases, clear up after others, tell of events that expired, and now and then remove
        what else has. Returns in how many seconds the next lease ends, should its holder be dead.
        """
        with self._lock:
            names = list(self._names)
        if self.store.forgive(self.layer.lease):
            logger.warning("The database was away: nobody is taken for dead for it.")
        missing = self.store.beat(names, self.layer.lease)
        if missing:
            self.store.floors.clear()
        for name in missing:
            with self._lock:
                if name not in self._names:
                    continue
                lost = self._names[name]
            self.store.register(name, self.layer.lease)
            if lost is not None:
                lost()
        ending, expired = self.store.pulse()
        if ending is not None and ending < 0:
            self.reap()
            ending = self.store.shortest_lease()
        if expired:
            self.expire()
        self._beats += 1
        if self._beats % SWEEP_EVERY == 0:
            self.sweep()
        self.layer.share()
        return ending

    def reap(self):
        """Clear up after workers and gateways whose lease has run out. Returns their names."""
        most = self.layer.most_dead_letters
        names, queues, dropped = self.store.reap(self.layer.judge, most)
        for name in names:
            logger.warning("The %s was lost; what it held is taken care of.", describe(name))
        if names:
            self.layer.count("lost", len(names))
            self.layer.tell(queues, back=True)
        if dropped:
            self.layer.count("dead_letters_dropped", dropped)
            self._log_rate_limited(
                logging.ERROR,
                "There are more than %d dead letters, and the oldest were dropped (%d just now). See to "
                "them with manage.py deadletters, or raise the layer's option dead_letters.",
                most,
                dropped,
            )
        return names

    def expire(self):
        """
        Take the events that no worker took in time, and tell their gateways, which answer 502 or close
        the socket: nobody else would. Returns how many there were.
        """
        total = Counter()
        while True:
            channels, queues = self.store.expire(self.layer.report_expired)
            self.layer.tell(queues)
            if not channels:
                break
            self.layer.count("expired", len(channels))
            total.update(channels)
        self._log_expired(total)
        return sum(total.values())

    def sweep(self):
        """Remove what else has expired."""
        number, channels = self.store.sweep()
        if number:
            self.layer.count("expired", number)
        # Those that a worker takes: the others belong to one process, which has gone.
        self._log_expired(
            {name: count for name, count in channels.items() if "!" not in name and "?" not in name}
        )

    def _log_expired(self, channels):
        if channels:
            self._log_rate_limited(
                logging.WARNING,
                "No worker took what expired on %s: none is running that takes these channels, or too "
                "few. Start more of them with manage.py runworker.",
                ", ".join("%s (%d)" % each for each in sorted(channels.items())),
            )

    def _log_rate_limited(self, level, text, *args):
        if self._rate_limits.setdefault(text, RateLimit(LOG_EVERY)).allow() is not None:
            logger.log(level, text, *args)

    # Delay.

    def poke(self):
        """There may be something due sooner than known."""
        with self._lock:
            now = time.monotonic()
            soon = max(now, self._asked_due + self.layer.due_every)
            if self._next_due is None or self._next_due > soon:
                self._next_due = soon
                self._poked = True
                self._lock.notify()

    def expect(self, seconds):
        """This process has sent something that is due in `seconds`."""
        with self._lock:
            when = time.monotonic() + seconds
            if self._next_due is None or when < self._next_due:
                self._next_due = when
                self._poked = True
                self._lock.notify()

    def send_due(self):
        """Send what is due, if it is time to look."""
        with self._lock:
            now = time.monotonic()
            if self._next_due is None or now < self._next_due:
                # Others may have sent something that no notification told of.
                if now < self._asked_due + self.layer.due_patience:
                    return
            self._asked_due = now
            self._next_due = None
        try:
            while self._is_due():
                rows, count = self.store.move_due(self.layer.accept_due)
                self.layer.tell({row["queue"] for row in rows})
                if not count:
                    break  # another process is sending it
        except BaseException:
            with self._lock:
                self._next_due = time.monotonic()
            raise

    def _is_due(self):
        seconds = self.store.next_due()
        if seconds is not None and seconds > 0:
            with self._lock:
                when = time.monotonic() + seconds
                if self._next_due is None or when < self._next_due:
                    self._next_due = when
        return seconds is not None and seconds <= 0


def describe(name):
    """A lease's holder for the log: "worker process …" or "gateway …"."""
    name = name.partition(":")[2]
    return "gateway %s" % name if name.endswith("!") else "worker process %s" % name

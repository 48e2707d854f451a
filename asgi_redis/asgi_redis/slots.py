"""
What each worker thread holds, has done and has answered, between two round trips to the server.

While consumers of `websocket.receive` are quick and messages wait, a thread claims several at once, and
their answers leave together: then a message costs a fraction of a round trip. Answers wait for
PATIENCE seconds, about. A consumer that is not so quick after all holds up nobody: after that time
a watching thread sends the answers, and gives back what was claimed ahead.
"""

import logging
import threading
import time
from collections import deque

from .contract import LayerUnavailable

logger = logging.getLogger("django.channels.redis")

#: The channel of which several messages are claimed: its gateway is told of what is lost.
CHANNEL = "websocket.receive"

#: How many.
AHEAD = 16

#: A consumer is quick that ends within so many seconds; so many in a row make the next ones worth claiming.
QUICK, PROVEN = 0.001, 8

#: Seconds that answers, and messages claimed ahead, wait for the consumer that runs.
PATIENCE = 0.003


class Slot:
    """One worker thread's. Its thread and the watcher use it, each under `lock` while a consumer runs."""

    __slots__ = (
        "ahead",
        "answers",
        "channel",
        "current",
        "done",
        "lock",
        "name",
        "returned",
        "quick",
        "sent_at",
        "since",
    )

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.current = None  # the field that holds the message whose consumer runs
        self.channel = None  # and that message's channel
        self.done = []  # fields that are to be acknowledged
        self.answers = []  # (channel, what `encode` made)
        self.ahead = deque()  # (field, entry) claimed and not begun
        self.returned = []  # the same, given back: until the server has said that it has them
        self.quick = 0
        self.since = 0.0  # when its consumer began
        self.sent_at = 0.0  # when the server last took what was answered

    def end(self):
        """The consumer has ended."""
        with self.lock:
            if self.current is not None:
                self.done.append(self.current)
                self.current = None
                self.quick = self.quick + 1 if time.monotonic() - self.since < QUICK else 0

    def begin(self):
        """The next entry claimed ahead, if there is one; its consumer is about to run."""
        with self.lock:
            if not self.ahead:
                return None
            self.current, entry = self.ahead.popleft()
            self.since = time.monotonic()
            return entry

    def took(self, entries):
        """A claim has given these: all that was done and answered has been taken by the server."""
        self.sent()
        for number, entry in enumerate(entries):
            self.ahead.append(("%s+%d" % (self.name, number) if number else self.name, entry))

    def sent(self):
        """The server has taken all that was done, answered and given back."""
        self.done, self.answers, self.returned = [], [], []
        self.sent_at = time.monotonic()

    def give_back(self):
        """What was claimed ahead is not this thread's any more."""
        self.returned += reversed(self.ahead)
        self.ahead.clear()

    @property
    def is_late(self):
        """Whether answers have waited long enough, and more messages are ahead."""
        return bool(self.ahead and self.answers and time.monotonic() - self.sent_at > PATIENCE)

    @property
    def wanted(self):
        """How many messages to claim."""
        return AHEAD if self.quick >= PROVEN else 1


class Watch:
    """The thread that looks after slots whose consumers take long. `settle(slot)` is the layer's."""

    def __init__(self, settle):
        self._settle = settle
        self.forked()

    def forked(self):
        self._slots = {}
        self._thread = None
        self._wanted = threading.Event()
        self._lock = threading.Lock()

    def over(self, slot):
        """From now on, `slot` has something that must not wait long."""
        self._slots[slot.name] = slot
        if not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None:
                with self._lock:
                    if self._thread is None:
                        self._thread = threading.Thread(
                            target=self._run, name="channels-watch", daemon=True
                        )
                        self._thread.start()

    def _run(self):
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while self._slots:
                time.sleep(PATIENCE)
                for slot in list(self._slots.values()):
                    try:
                        self._look(slot)
                    except LayerUnavailable:
                        pass  # the slot's thread will find out, and try again
                    except Exception:
                        logger.exception("What a worker had claimed ahead could not be given back")

    def _look(self, slot):
        with slot.lock:
            if not slot.ahead and not slot.answers:
                # Nothing since the last look: it reports again when there is.
                self._slots.pop(slot.name, None)
            elif slot.current is not None and time.monotonic() - slot.since > PATIENCE:
                slot.quick = 0
                self._settle(slot)

"""
A gateway's end of the layer: two threads a process, so that no query ever runs in the event loop.

The reader takes batches out of the inbox when the watcher says that there is something; the sender puts
what the loop has sent since it last looked into one transaction.
"""

import asyncio
import logging
import threading
from collections import Counter, deque

from ...exceptions import LayerUnavailable
from ..base import Inbox
from .codec import decode, encode

logger = logging.getLogger("django.channels.layers.database")

#: Messages read at a time; and how many may wait for the event loop before reading pauses.
READ = 500
AHEAD = 5000

#: Seconds between two tries to reach a database that is away.
PAUSE = 0.3

#: Seconds that `close` waits for what is still to be sent.
CLOSE_PATIENCE = 5.0


class DatabaseInbox(Inbox):
    """The Inbox of a gateway on DatabaseChannelLayer."""

    def __init__(self, layer, name):
        self.name = name
        self._layer = layer
        self._store = layer.store
        self._queue = layer.store.key(name)
        self._loop = asyncio.get_event_loop()
        self._lock = threading.Condition()
        self._closed = False
        # What comes in.
        self._messages = []
        self._error = None
        self._waiting = None
        self._unread = True
        # What goes out: (verb, argument, argument) tuples.
        self._outgoing = deque()
        self._sending = False
        self._registered = False
        try:
            self._register()
        except LayerUnavailable:
            pass  # the sender tries again, before anything else leaves
        self._threads = [
            threading.Thread(target=self._read, name="channels-inbox", daemon=True),
            threading.Thread(target=self._send, name="channels-outbox", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        layer.watcher.subscribe(self._queue, self._look)

    def _register(self):
        self._layer.keeper.hold(self._queue, self._lost)
        self._registered = True

    def _lost(self):
        """
        The lease had run out: somebody has said farewell for every connection, or the data is gone.
        """
        self._arrived([(self.name, {"reset": True})])

    # What comes in.

    async def receive(self):
        while True:
            with self._lock:
                if self._messages:
                    messages, self._messages = self._messages, []
                    self._lock.notify_all()
                    return messages
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                waiting = self._waiting
                if waiting is None:
                    waiting = self._waiting = self._loop.create_future()
            # Shielded, for another reader may be waiting on the same future.
            await asyncio.shield(waiting)

    def _arrived(self, messages, error=None):
        with self._lock:
            self._messages.extend(messages)
            if error is not None:
                self._error = error
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._call(_wake, waiting)

    def _call(self, function, *args):
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has ended, and with it the gateway
            pass

    def _look(self):
        with self._lock:
            self._unread = True
            self._lock.notify_all()

    def _read(self):
        failed = False
        while True:
            with self._lock:
                while not self._closed and (not self._unread or len(self._messages) > AHEAD):
                    # Now and then unasked: a notification may have been lost.
                    if not self._lock.wait(self._layer.block_for):
                        self._unread = True
                if self._closed:
                    return
                self._unread = False
            try:
                rows = self._store.drain(self._queue, READ)
                messages = [(channel, decode(body)) for channel, body in rows]
                failed = False
            except LayerUnavailable as error:
                self._arrived([], None if failed else error)
                failed = True
                with self._lock:
                    self._unread = True
                    if not self._closed:
                        self._lock.wait(PAUSE)
                continue
            except Exception:
                logger.exception("The inbox of the gateway %s cannot be read", self.name)
                with self._lock:
                    self._lock.wait(PAUSE)
                continue
            if messages:
                self._arrived(messages)
                if len(messages) == READ:
                    self._look()

    # What goes out.

    def send(self, channel, message, failed):
        self._put("send", channel, (message, failed))

    def group_discard(self, group, channel):
        self._put("leave", self._store.key(group), channel)

    def set_will(self, channel, will):
        self._put("hold", self._store.key(channel), will)

    def clear_will(self, channel):
        self._put("drop", self._store.key(channel), None)

    def _put(self, *what):
        with self._lock:
            self._outgoing.append(what)
            if not self._sending:
                self._lock.notify_all()

    def _send(self):
        while True:
            with self._lock:
                self._sending = False
                while not self._outgoing and not self._closed:
                    self._lock.wait()
                if not self._outgoing:
                    return
                self._sending = True
                batch, self._outgoing = self._outgoing, deque()
            try:
                again = self._carry_out(batch)
            except Exception as error:
                logger.exception("What the gateway %s sent was lost", self.name)
                again = []
                for verb, _, what in batch:
                    if verb == "send":
                        self._call(what[1], LayerUnavailable(str(error)))
            if again:
                with self._lock:
                    self._outgoing.extendleft(reversed(again))
                    if self._closed:
                        return
                    self._lock.wait(PAUSE)

    def _carry_out(self, batch):
        """Do what the loop asked for; returns what must be tried again (never a message)."""
        held, dropped, left, rows, pending = {}, [], [], [], Counter()
        try:
            if not self._registered:
                self._register()
            for verb, name, what in batch:
                if verb == "send":
                    message, failed = what
                    error, row = self._layer.row(name, message, pending)
                    if error is None:
                        rows.append(row)
                    else:
                        self._call(failed, error)
                elif verb == "hold":
                    channel, farewell = what
                    held[name] = {
                        "channel": name,
                        "gateway": self._queue,
                        "queue": self._store.key(channel),
                        "body": encode(farewell),
                    }
                elif verb == "drop":
                    if held.pop(name, None) is None:
                        dropped.append(name)
                else:
                    left.append((name, what))
            topics = {self._layer.topic(row["queue"]) for row in rows} - {None}
            now = self._layer.notifier.due(topics) if topics else ()
            self._store.carry_out(self._queue, list(held.values()), dropped, left, rows, now)
            self._layer.notifier.tell(topics.difference(now))
            self._layer.sent(rows)
        except LayerUnavailable as error:
            for verb, _, what in batch:
                if verb == "send":
                    self._call(what[1], error)
            return [each for each in batch if each[0] != "send"]
        return []

    async def close(self):
        self._layer.watcher.unsubscribe(self._queue)
        self._layer.keeper.let_go(self._queue)
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        loop = asyncio.get_event_loop()
        await loop.run_in_executor(None, self._leave)

    def _leave(self):
        for thread in self._threads:
            thread.join(CLOSE_PATIENCE)
        try:
            self._store.leave(self._queue)
        except LayerUnavailable as error:
            logger.warning(
                "The gateway %s left without a word (%s): its lease will run out.", self.name, error
            )


def _wake(future):
    if not future.done():
        future.set_result(None)

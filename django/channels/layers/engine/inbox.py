"""
A gateway's end of a layer: an inbox of two threads over any store.

The event loop never waits for a store. It leaves its work in `PendingWork`; a thread takes it in batches.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable

from ...exceptions import LayerUnavailable, NotSent
from ...protocol import RESET, ignores_capacity, reply_address, reset
from ..base import Inbox
from .pending import UNSENDABLE, WILL_REFUSED, Batch, PendingWork, Send, encode
from .store import Entry, LeaseEnded, Outgoing, Will
from .threads import start_thread

if TYPE_CHECKING:
    from ..base import Message
    from .layer import EngineLayer

logger = logging.getLogger("django.channels.layers")

#: Messages read at a time; and how many may wait for the event loop before reading pauses.
READ_BATCH = 500
READ_AHEAD = 5000

#: Seconds after which what was read is acknowledged, unless something else is read before.
ACK_INTERVAL = 0.05

#: Seconds after which it is read without a notification: a store that has become silent is noticed then.
READ_INTERVAL = 2.0

#: Messages that leave in one batch at most.
SEND_BATCH = 500

#: Seconds between two tries to reach the store.
RETRY_INTERVAL = 0.3

#: Seconds that `close` waits until everything is sent.
CLOSE_TIMEOUT = 5.0


class ThreadedInbox(Inbox):
    """
    The inbox of a gateway over a store whose calls block.

    The event loop calls `receive`, `send` and the other methods of the contract. The thread "channels-inbox"
    reads, the thread "channels-outbox" sends; `_lock` guards what they share with the loop.
    """

    def __init__(self, layer: EngineLayer, name: str) -> None:
        self.name = name
        self._layer = layer
        self._store = layer.store
        self._loop = asyncio.get_event_loop()
        self._lock = threading.Condition()
        self._closed = False
        self._messages: list[tuple[str, Message]] = []
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._unread = True
        self._is_lost = False  # the lease had run out, and the gateway does not know
        #: The ids of what the reading thread has passed on and not acknowledged. Only for that thread.
        self._acked: list[Any] = []
        self._work = PendingWork()
        self._sending = False
        #: How many of the next messages leave one by one.
        self._singly = 0
        self._registered = False
        self._is_away = False  # the last batch failed
        self._is_doubted = False  # it is not known whether the store takes anything
        try:
            self._register()
        except LayerUnavailable as error:
            # The sender tries again, before anything else leaves.
            logger.warning("The gateway %s starts without its channel layer: %s", name, error)
        self._threads = [
            start_thread("channels-inbox", self._read_all),
            start_thread("channels-outbox", self._send_all),
        ]
        self._layer.leases.tell_failures(name, self._doubt)
        self._store.subscribe(name, self._changed)

    def _register(self) -> None:
        self._layer.leases.acquire(self.name, self._lost)
        self._registered = True

    def _lost(self) -> None:
        """
        The lease had run out: wills were sent and memberships removed, or the store lost its data. The next
        read tells it: the process that recovered this gateway has left a notice of the wills that it sent.
        """
        self._is_lost = True
        self._changed()

    def _read_all(self) -> None:
        self._unread = True  # a step that failed may have left something
        while self._read():
            pass

    def _send_all(self) -> None:
        while self._send():
            pass

    # What comes in.

    async def receive(self) -> list[tuple[str, Message]]:
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
            # Shielded, because another reader may wait on the same future.
            await asyncio.shield(waiting)

    def _arrived(self, messages: list[tuple[str, Message]], error: Exception | None = None) -> None:
        with self._lock:
            self._messages.extend(messages)
            if error is not None:
                self._error = error
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._call(_wake, waiting)

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop has ended, and the gateway with it

    def _changed(self) -> None:
        with self._lock:
            self._unread = True
            self._lock.notify_all()

    def _read(self) -> bool:
        """Read one batch, when there may be one. Return False once the inbox is closed."""
        with self._lock:
            while not self._closed and (not self._unread or len(self._messages) > READ_AHEAD):
                # Read unasked from time to time, because a notification may be lost.
                if not self._lock.wait(ACK_INTERVAL if self._acked else READ_INTERVAL):
                    self._unread = True
            if self._closed:
                return False
            self._unread = False
        began, is_lost = time.monotonic(), False
        try:
            if self.failing_since is not None and self._registered:
                self._check_lease()
            with self._lock:
                is_lost, self._is_lost = self._is_lost, False
            found = self._store.receive_inbox(self.name, self._acked, READ_BATCH)
        except LayerUnavailable as error:
            self.failing_since = self.failing_since or began
            self._arrived([], error)
            with self._lock:
                self._unread = True
                self._is_lost = self._is_lost or is_lost
                if not self._closed:
                    self._lock.wait(RETRY_INTERVAL)
            return True
        self.failing_since = None
        acked: list[Any] = []
        messages = list(self._decoded(found, acked))
        if is_lost and not any(RESET in each for name, each in messages if name == self.name):
            messages.insert(0, (self.name, reset()))
        if messages:
            self._arrived(messages)
        self._acked = acked
        if len(found) == READ_BATCH:
            self._changed()
        return True

    def _check_lease(self) -> None:
        """
        After an outage, raise LayerUnavailable while the lease is gone. The server may have lost its data.
        Workers then send once more what had arrived here, so the gateway must hear of the loss first.
        """
        if self.name in self._store.heartbeat([self.name]).missing:
            self._layer.leases.has_ended(self.name)  # takes it again, and tells the gateway
            raise LeaseEnded("The lease of %s has ended." % self.name)
        if not self._layer.leases.is_told(self.name):  # it was taken again just now
            raise LeaseEnded("The lease of %s had ended." % self.name)

    def _decoded(self, found: Iterable[Entry], acked: list[Any]) -> Iterable[tuple[str, Message]]:
        """
        Return (channel, message) of each entry, and add its id to `acked`. One that cannot be read becomes a
        dead letter.
        """
        for entry in found:
            try:
                yield entry.channel, self._store.decode(entry.channel, entry.body)
            except Exception as error:  # Unreadable, or a bug
                try:
                    self._layer.dead_letter(self.name, entry, error)
                except Exception:  # the good messages of this batch must arrive all the same
                    logger.exception("An unreadable message on %s stays there.", entry.channel)
                    continue
            acked.append(entry.id)

    # What goes out.

    def send(self, channel: str, message: Message, failed: Callable[[Exception], None]) -> None:
        self._add(self._work.send, Send(channel, message, ignores_capacity(message), failed))

    def withdraw(self) -> None:
        with self._lock:
            sends = self._work.withdraw()
        for each in sends:
            each.failed(NotSent("The channel layer is unavailable."))

    def group_discard(self, group: str, channel: str) -> None:
        self._add(self._work.discard, group, channel)

    def drop_channel(self, channel: str) -> None:
        self._add(self._work.drop, channel)

    def set_will(self, channel: str, will: tuple[str, Message]) -> None:
        self._add(self._work.set_will, channel, will)

    def clear_will(self, channel: str) -> None:
        self._add(self._work.clear_will, channel)

    def _add(self, method: Callable[..., None], *args: Any) -> None:
        """Call a method of `PendingWork`, and wake the sender."""
        with self._lock:
            method(*args)
            if not self._sending:
                self._lock.notify_all()

    def _send(self) -> bool:
        """Send one batch, when there is one. Return False once the inbox is closed and nothing is left."""
        with self._lock:
            self._sending = False
            while not (self._work or self._is_doubted or self._closed):
                self._lock.wait()
            if not self._work and self._closed:
                return False
            is_question = not self._work
            self._sending = True
        try:
            self._reach()
            if is_question:
                # No answer can be stored if the lease can't be renewed, because the disk is full for example.
                self._store.heartbeat([self.name])
                return self._sent()
        except BaseException as error:
            if not isinstance(error, LayerUnavailable):
                logger.exception("The gateway %s could not reach its channel layer:", self.name)
            return self._put_off(error)
        with self._lock:
            is_single = self._singly > 0
            self._singly -= is_single
            batch = self._work.take(1 if is_single else SEND_BATCH)
        try:
            self._send_batch(batch)
        except BaseException as error:
            reported: Any = error
            if isinstance(error, LeaseEnded):
                self._layer.leases.has_ended(self.name)  # takes it again, and tells the gateway
            if not isinstance(error, LayerUnavailable):
                logger.exception("What the gateway %s sent was lost.", self.name)
                if not is_single:
                    # One of them may be to blame. They will be tried again, one by one.
                    reported = LayerUnavailable(str(error))
                    self._singly = len(batch.sends)
            for each in batch.sends:
                self._call(each.failed, reported)
            with self._lock:
                self._work.put_back(batch)
            return self._put_off(error)
        with self._lock:
            self._work.done(batch)
        return self._sent()

    def _sent(self) -> bool:
        """Note that the store has taken something. Return True."""
        self._is_away, self._is_doubted, self.unsent_since = False, False, None
        return True

    def _doubt(self) -> None:
        """Find out whether the store takes anything. Called in the lease thread if a heartbeat has failed."""
        with self._lock:
            self._is_doubted = True
            self._lock.notify_all()

    def _reach(self) -> None:
        """
        Raise LayerUnavailable while a batch would fail. After a failure, of a read too, this is tried before
        a batch is taken, because what was taken may have been sent.
        """
        if not self._registered:
            self._register()
        elif self._is_away or self.failing_since is not None:
            self._store.reach()

    def _put_off(self, error: BaseException) -> bool:
        """
        Wait before the next try. In an outage, give what waits back to its senders. Return False once the
        inbox is closed.
        """
        self._is_away = isinstance(error, LayerUnavailable)
        if self._is_away:
            self._is_doubted = True  # until something is sent, although nothing may wait
            if self.note_unsent():
                self._arrived([], error)  # type: ignore[arg-type]
        if self._is_away or not self._registered:
            with self._lock:
                sends = self._work.withdraw()
            for each in sends:
                self._call(each.failed, NotSent.because_of(error))
        with self._lock:
            if self._closed:
                return False
            self._lock.wait(RETRY_INTERVAL)
        return True

    def _send_batch(self, batch: Batch) -> None:
        store = self._store
        wills, sends, senders = [], [], []
        for connection, (channel, message) in list(batch.wills.items()):
            try:
                wills.append(Will(connection, channel, encode(store, channel, message)))
            except UNSENDABLE as error:
                del batch.wills[connection]  # it would fail again
                logger.error(WILL_REFUSED, connection, error)
        for each in batch.sends:
            try:
                # An event that was tried before has the same id: it leaves once.
                address = reply_address(each.body)
                event = "%s#%s" % address if address else ""
                body = encode(store, each.channel, each.body)
                sends.append(Outgoing(each.channel, body, each.unlimited, id=event))
                senders.append(each)
            except UNSENDABLE as error:
                # One bad message does not take the others of its batch with it.
                self._call(each.failed, error)
        full = self._store.gateway_batch(self.name, wills, batch.cleared, batch.discards, sends)
        for index in full:
            send = senders[index]
            self._call(send.failed, self._layer.channel_full(send.channel))
        if sends:
            self._layer.count("sent", len(sends) - len(full))
        if batch.dropped:
            try:
                self._store.drop_channels(batch.dropped)
            except LayerUnavailable:
                pass  # nothing of the batch is sent twice for it: the messages expire

    # The end.

    async def close(self) -> None:
        self._end()
        await asyncio.get_event_loop().run_in_executor(None, self._leave)

    def abandon(self) -> None:
        self._end()
        start_thread("channels-leave", self._leave)

    def _end(self) -> None:
        self._store.unsubscribe(self.name)
        self._layer.leases.release(self.name)
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def _leave(self) -> None:
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT)
        self._layer.leases.leave_gateway(self.name)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

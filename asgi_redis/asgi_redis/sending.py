"""
What a gateway sends, in its event loop, over its second connection.

What one turn of the loop sends leaves together; while a batch is on its way the next one gathers. Batches
have numbers: when a reply is lost, the gateway asks whether the batch was done (lua/settle_batch.lua).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .contract import (
    UNSENDABLE,
    WILL_REFUSED,
    Batch,
    Inbox,
    LayerUnavailable,
    Message,
    NotSent,
    Outgoing,
    PendingWork,
    Send,
    encode,
    protocol,
)
from .failures import takes_no_writes, unavailable
from .scripts import Command, run

if TYPE_CHECKING:
    from .store import RedisStore

logger = logging.getLogger("django.channels.layers")

#: Messages, and bytes, that leave in one batch at most.
SEND_BATCH, SEND_BYTES = 200, 2 * 1024 * 1024

#: Seconds after which wills and other changes are sent again, if the server refused them or didn't answer.
RETRY_INTERVAL = 1.0

#: Events that are remembered because a batch was done whose reply was lost.
MAX_TAKEN = 10000

#: Seconds for which an encrypted will can be read: longer than any connection is open.
WILL_LIFE = 10 * 366 * 86400.0


class Step(NamedTuple):
    """A command of a batch, and what is done with its reply, which may be an exception."""

    command: Command
    after: Callable[[Any], None] | None = None


class SendingInbox(Inbox):
    """The part of a gateway's inbox that sends. Belongs to the event loop."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self.name = name
        self._store, self._layer = store, store.layer
        self._loop = asyncio.get_event_loop()
        self._token = uuid.uuid4().hex[:12]
        #: This gateway, and no former one of that name.
        self.gateway = "%s|%s" % (name, self._token)
        self._wills_key = store.keys.wills(self.gateway)
        self._writer = store.servers.link(blocks=False)
        self._writing: asyncio.Task[None] | None = None
        #: The timer of the next try. One is enough, however often something new is sent meanwhile.
        self._retry: asyncio.TimerHandle | None = None
        self._work = PendingWork()
        # Batches and changes of wills have numbers. By partition, those that may have been sent, and have no
        # reply; and of those that were done, the events.
        self._batches = self._changes = 0
        self._unsure: dict[int, tuple[int, list[Send]]] = {}
        self._taken: dict[Any, None] = {}
        self._extra: list[Step] = []
        self._closed = False

    def send(self, channel: str, message: Message, failed: Callable[[Exception], None]) -> None:
        try:
            body = encode(self._store, channel, message)
        except UNSENDABLE as error:
            self._loop.call_soon(failed, error)
            return
        event = protocol.reply_address(message)
        self._work.send(Send(channel, body, protocol.ignores_capacity(message), failed, event))
        self._schedule()

    def withdraw(self) -> None:
        self._put_off(NotSent("The channel layer is unavailable."))

    def _put_off(self, error: NotSent) -> None:
        """Give what waits back to its senders."""
        for each in self._work.withdraw():
            each.failed(error)

    def group_discard(self, group: str, channel: str) -> None:
        self._work.discard(group, channel)
        self._schedule()

    def drop_channel(self, channel: str) -> None:
        self._work.drop(channel)
        self._schedule()

    def set_will(self, channel: str, will: tuple[str, Message]) -> None:
        target, message = will
        expiry = int(self._layer.recovery.will_expiry(target) * 1000)
        try:
            body = encode(self._store, target, message)
        except UNSENDABLE as error:
            logger.error(WILL_REFUSED, channel, error)
            return
        # It must be readable for as long as the connection is open.
        body = self._store.renewed(target, body, WILL_LIFE)
        self._work.set_will(channel, b"%d:" % expiry + body)
        self._schedule()

    def clear_will(self, channel: str) -> None:
        self._work.clear_will(channel)
        self._schedule()

    def _schedule(self) -> None:
        if self._writing is None and not self._closed:
            self._writing = self._loop.create_task(self._write())

    def _try_again(self) -> None:
        self._retry = None
        self._schedule()

    async def _write(self) -> None:
        try:
            while self._work or self._extra:
                if not await self._write_once():
                    if self._retry is None:
                        self._retry = self._loop.call_later(RETRY_INTERVAL, self._try_again)
                    return
        except Exception:
            logger.exception("The gateway %s could not send.", self.name)
        finally:
            self._writing = None

    async def _write_once(self) -> bool:
        """Send one batch; return whether the server took it."""
        try:
            await self._writer.connect()
            await self._settle()
        except LayerUnavailable as error:
            # Nothing of the next batch was sent, and it would have to wait as long once more.
            self._put_off(NotSent.because_of(error))
            return False
        batch = self._work.take(SEND_BATCH, SEND_BYTES)
        extra, self._extra = self._extra, []
        try:
            # What was reported, and was done all the same, must not be reported again.
            batch = batch._replace(sends=list(filter(self._is_new, batch.sends)))
            wills, sends = self._will_steps(batch), self._send_steps(batch.sends)
            changes = wills + [self._discard_step(*each) for each in batch.discards]
            for place in map(self._store.place, batch.dropped):
                changes.append(Step(("DEL", place.queue, place.wake)))
            # Wills are set, and the last message leaves, before what the message ends is removed.
            steps = wills + sends + changes[len(wills) :] + extra
            commands = [step.command for step in steps]
            replies = await self._writer.call(commands) if steps else []
        except LayerUnavailable as error:
            self._work.put_back(batch)
            self._extra = extra + self._extra
            for each in batch.sends:
                each.failed(error)
            # What came meanwhile has waited as well. Its senders must not wait as long once more.
            self._put_off(NotSent(str(error)))
            return False
        self._unsure = {}
        refused = [step for reply, step in zip(replies, steps) if takes_no_writes(reply)]
        if any(step in refused for step in changes):
            self._work.put_back(batch)
        else:
            self._work.done(batch)
        self._extra = [step for step in extra if step in refused] + self._extra
        for reply, step in zip(replies, steps):
            if step.after is not None:
                step.after(reply)
        return not refused

    async def _settle(self) -> None:
        """Find out which batches without a reply were done. The others are never done, and are sent again."""
        if not self._unsure:
            return
        keys, unsure = self._store.keys, self._unsure
        replies = await self._writer.call(
            [
                run("settle_batch", [keys.batch(partition, self.gateway)], [number])
                for partition, (number, _) in unsure.items()
            ]
        )
        for (_, sends), refused in zip(unsure.values(), replies):
            if isinstance(refused, Exception):
                raise unavailable(refused, self._store.servers.where)
            if refused is not None:
                numbers = set(refused.decode().split(","))
                taken = [each for n, each in enumerate(sends, 1) if str(n) not in numbers]
                self._taken.update((each.event, None) for each in taken if each.event is not None)
                self._layer.count("sent", len(taken))
        self._unsure = {}
        # Some events are not sent again, because their clients left.
        while len(self._taken) > MAX_TAKEN:
            del self._taken[next(iter(self._taken))]

    def _is_new(self, send: Send) -> bool:
        """Return whether a message must be sent: not one that was reported, and was taken all the same."""
        if send.event not in self._taken:
            return True
        del self._taken[send.event]
        return False

    def _will_steps(self, batch: Batch) -> list[Step]:
        wills = dict(batch.wills, **dict.fromkeys(batch.cleared, b""))
        if not wills:
            return []
        self._changes += 1
        fields = tuple(part for item in wills.items() for part in item)
        keys = (self._wills_key, self._store.keys.wills_changed(self.gateway))
        return [Step(run("set_wills", keys, (self._changes,) + fields))]

    def _send_steps(self, sends: list[Send]) -> list[Step]:
        """Return one step for all queues of a partition, and one for each message to an inbox."""
        store, steps = self._store, []
        queued: dict[int, tuple[list[str], list[Any], list[Send]]] = defaultdict(
            lambda: ([], [], [])
        )
        for each in sends:
            channel, body, unlimited = each[:3]
            if "!" in channel:
                command = store.send_command(Outgoing(channel, body, unlimited))
                steps.append(Step(command, partial(self._sent, [each])))
                continue
            place = store.place(channel)
            keys, arguments, items = queued[place.partition]
            keys += (place.queue, place.wake)
            arguments += (-1 if unlimited else place.capacity, place.expiry, place.kind, "", body)
            items.append(each)
        for partition, (keys, arguments, items) in queued.items():
            self._batches += 1
            keys = list(store.keys.sending[partition]) + keys
            head = (store.keys.batch(partition, self.gateway), self._batches)
            command = run("send", keys, head + tuple(arguments))
            self._unsure[partition] = self._batches, items
            steps.append(Step(command, partial(self._sent, items)))
        return steps

    def _sent(self, sends: list[Send], reply: Any) -> None:
        """Take in the reply to some sends: 0, the numbers (from 1) of those refused, or an exception."""
        if isinstance(reply, Exception):
            error = unavailable(reply, self._store.servers.where)
            if takes_no_writes(reply):
                error = NotSent.because_of(error)
            for each in sends:
                each.failed(error)
            return
        refused = reply or ()
        if len(refused) < len(sends):
            self._layer.count("sent", len(sends) - len(refused))
        for number in refused:
            send = sends[number - 1]
            send.failed(self._layer.channel_full(send.channel))

    def _discard_step(self, group: str, channel: str) -> Step:
        keys, command = self._store.keys, self._store.discard_command(group, channel)
        if keys.partition(self.name) == keys.group(group).partition:
            return Step(command)

        def after(reply: Any) -> None:
            # The route lies in another partition, and so takes another script.
            if isinstance(reply, int) and reply > 0:
                self._extra.append(Step(self._store.remove_route_command(group, self.name, reply)))

        return Step(command, after)

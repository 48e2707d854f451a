"""
Channel and Group: how code sends.

Inside a consumer, a send waits until the consumer ends. Outside of one, or with `immediately=True`, it
leaves at once.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Iterable

from django.db import connection

from .advice import advise, advise_text
from .compat import on_commit as on_commit_of
from .coroutines import check_may_block
from .exceptions import InvalidChannelName
from .habits import add_missing, without_missing
from .hints import hinted, hinted_async
from .layers.names import check_channel_name, check_group_name
from .log import RateLimit, shown
from .outbox import TO_CHANNEL, TO_GROUP, PendingSend, outbox
from .protocol import drop_control_keys, excluding

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .types import Close

logger = logging.getLogger("django.channels")

_failed_sends = RateLimit(10.0)


class _Target:
    """What Channel and Group share: a name, a layer, and when a send leaves."""

    #: Where a PendingSend to this goes: TO_CHANNEL or TO_GROUP.
    _kind: ClassVar[str]

    #: Returns a valid name, or raises InvalidChannelName.
    _check: ClassVar[staticmethod[[str], str]]

    def __init__(
        self, name: str, alias: str = "default", channel_layer: BaseChannelLayer | None = None
    ) -> None:
        self.name: str = self._check(name)
        if channel_layer is None:
            from .asgi import channel_layers

            channel_layer = channel_layers[alias]
        self.channel_layer: BaseChannelLayer = channel_layer

    # What Python calls it in an error about its arguments.
    __init__.__qualname__ = "Channel or Group"

    if not TYPE_CHECKING:

        def __getitem__(self, key: object) -> Any:
            # For `for name in Group("room")` and `name in Group("room")`, too. An __iter__ or a __len__ would
            # make it an Iterable, or false.
            kind = type(self).__name__
            remedy = "Group(name).channels() returns the names of the members"
            if kind != "Group":
                remedy = "a consumer gets the messages of a channel: route(name, consumer)"
            raise TypeError("A %s isn't a collection: %s." % (kind, remedy))

    def _send(
        self,
        message: dict[str, Any],
        immediately: bool,
        on_commit: bool | None,
        fail_silently: bool,
    ) -> None:
        if immediately is not False and isinstance(immediately, (str, bytes, dict)):
            raise TypeError(
                "immediately is True or False, not %s. A message is one dict: write send({…}, "
                "immediately=True)." % shown(repr(immediately))
            )
        if on_commit is None:
            on_commit = self.channel_layer.sends_on_commit
        if on_commit and connection.in_atomic_block:
            on_commit_of(lambda: self._leave_or_report(message, immediately, fail_silently))
        elif immediately or not outbox.hold(self.channel_layer, self._kind, self.name, message):
            self._leave_or_report(message, immediately, fail_silently)

    def __dir__(self) -> list[str]:
        return without_missing(self, super().__dir__())

    async def _asend(self, message: dict[str, Any]) -> None:
        from .awaited import send_now

        send = PendingSend(self.channel_layer, self._kind, self.name, message)
        await send_now(send, functools.partial(self._deliver, self.name, message))

    @staticmethod
    def encode_json(content: Any, close: Close = False) -> dict[str, Any]:
        """Return the message that `send_json` sends."""
        from .generic.json_text import encode_json

        message: dict[str, Any] = {"text": encode_json(content)}
        if close:
            message["close"] = close
        return message

    def checked(self, content: dict[str, Any]) -> dict[str, Any]:
        """
        Return a copy of `content` as a site may send it here, without control keys. Raises as `send` does.

        Each road by which a site's message gets to a layer leads through here, `asgi.delay` too.
        """
        message = self.channel_layer.check_message(content)
        drop_control_keys(message, self.name)
        if isinstance(message.get("text"), (dict, list)):
            advise_text(self.name, self._kind == TO_CHANNEL)
        if "!" not in self.name:
            advise(self.channel_layer, self.name, self._kind == TO_CHANNEL)
        return message

    def _leave_or_report(
        self, message: dict[str, Any], immediately: bool, fail_silently: bool
    ) -> None:
        try:
            if immediately or not outbox.hold(self.channel_layer, self._kind, self.name, message):
                self._check_may_block("send", "asend")
                self._deliver(self.name, message)
        except Exception as error:
            if not fail_silently:
                raise
            report_failed_send(self, error)

    def _deliver(self, name: str, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def _check_may_block(self, call: str, instead: str) -> None:
        kind = type(self).__name__
        check_may_block("%s.%s(…)" % (kind, call), "await %s.%s(…)" % (kind.lower(), instead))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return "<%s %s>" % (type(self).__name__, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Target) and type(other) is type(self) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


def report_failed_send(target: _Target, error: Exception, number: int = 1) -> None:
    """Log that `number` messages, to `target` among others, were lost by `error`, and count them."""
    target.channel_layer.count("sends_dropped", number)
    _failed_sends.log(
        logger.error,
        "A message to %s was not sent, and is lost: %s: %s.",
        target.name,
        type(error).__name__,
        shown(error).rstrip("."),
    )


def group_names_of(names: Iterable[str], source: str) -> Iterable[str]:
    """Return `names`. Raises TypeError for text, whose letters would otherwise be the names."""
    if isinstance(names, (str, bytes)):
        raise TypeError("%s must be a list of names, not text: write [%r]." % (source, names))
    if not isinstance(names, Iterable):
        raise TypeError("%s must be a list of names, not %r." % (source, names))
    return names


class Channel(_Target):
    """A channel by name (text), on the layer of `alias`, or on `channel_layer` if it is given."""

    _kind = TO_CHANNEL
    _check = staticmethod(check_channel_name)

    @hinted
    def send(
        self,
        content: dict[str, Any],
        immediately: bool = False,
        on_commit: bool | None = None,
        fail_silently: bool = False,
    ) -> None:
        """
        Send `content` (dict). A bad message raises here: see `BaseChannelLayer.send` for the errors.

        The message leaves when the consumer that runs in this thread ends. It leaves at once if no
        consumer runs, or with `immediately`. With `on_commit`, inside `transaction.atomic()` of the default
        database, it leaves when that commits, and never if it rolls back. None means
        the layer's default (`sends_on_commit`). The keys that gateways and workers use among themselves are
        dropped, so that a site may pass on what a client sent.

        With `fail_silently`, a layer that is unavailable or full raises nothing when the message leaves: the
        loss is logged and counted ("sends_dropped"). Use it for a notification of what is already committed.
        """
        self._send(self.checked(content), immediately, on_commit, fail_silently)

    @hinted
    def send_json(self, content: Any, close: Close = False, **options: Any) -> None:
        """
        Send `content` to clients as a text frame of JSON, by Django's encoder. Then close the socket if
        `close` is True or a close code. `options` are those of `send`.
        """
        self.send(self.encode_json(content, close), **options)

    @hinted_async
    async def asend(self, content: dict[str, Any]) -> None:
        """
        Send `content` (dict) now, and before it what this consumer has sent without `await`.

        For asynchronous code: nothing blocks its event loop. Raises as `BaseChannelLayer.send` does. A
        consumer that sends to its own client waits here while the client is slow, and gets
        ClientDisconnected if the client has gone.
        """
        await self._asend(self.checked(content))

    async def asend_json(self, content: Any, close: Close = False) -> None:
        """Do as `send_json`, as `asend` does."""
        await self.asend(self.encode_json(content, close))

    def _deliver(self, name: str, message: dict[str, Any]) -> None:
        self.channel_layer.deliver(name, outbox.sign(self.channel_layer, name, message))


class Group(_Target):
    """A group of channels by name (text): each member gets what is sent to the group."""

    _kind = TO_GROUP
    _check = staticmethod(check_group_name)

    @hinted
    def send(
        self,
        content: dict[str, Any],
        immediately: bool = False,
        on_commit: bool | None = None,
        fail_silently: bool = False,
        exclude: Channel | str | None = None,
    ) -> None:
        """
        Send `content` to each member, as `Channel.send` does. The member `exclude` (a Channel or its name)
        doesn't get it: for the sender, write `exclude=message.reply_channel`.
        """
        message = _excluding(self.checked(content), exclude)
        self._send(message, immediately, on_commit, fail_silently)

    @hinted
    def send_json(self, content: Any, close: Close = False, **options: Any) -> None:
        """Do as `Channel.send_json`. `options` are those of `send`."""
        self.send(self.encode_json(content, close), **options)

    @hinted_async
    async def asend(self, content: dict[str, Any], exclude: Channel | str | None = None) -> None:
        """Do as `send`, as `Channel.asend` does."""
        await self._asend(_excluding(self.checked(content), exclude))

    async def asend_json(
        self, content: Any, close: Close = False, exclude: Channel | str | None = None
    ) -> None:
        """Do as `send_json`, as `asend` does."""
        await self.asend(self.encode_json(content, close), exclude=exclude)

    def add(self, channel: Channel | str) -> None:
        """Add `channel` (a Channel or its name), at once."""
        self._check_may_block("add", "aadd")
        self.channel_layer.group_add(self.name, _name_of(channel))

    def discard(self, channel: Channel | str) -> None:
        """Remove `channel` (a Channel or its name), at once."""
        self._check_may_block("discard", "adiscard")
        self.channel_layer.group_discard(self.name, _name_of(channel))

    def channels(self) -> list[str]:
        """Return the names of the members, in no particular order."""
        self._check_may_block("channels", "achannels")
        return self.channel_layer.group_channels(self.name)

    async def aadd(self, channel: Channel | str) -> None:
        """Do as `add`, in asynchronous code."""
        await self._call_layer(self.channel_layer.group_add, self.name, _name_of(channel))

    async def adiscard(self, channel: Channel | str) -> None:
        """Do as `discard`, in asynchronous code."""
        await self._call_layer(self.channel_layer.group_discard, self.name, _name_of(channel))

    async def achannels(self) -> list[str]:
        """Do as `channels`, in asynchronous code."""
        found: list[str] = await self._call_layer(self.channel_layer.group_channels, self.name)
        return found

    @staticmethod
    async def _call_layer(function: Callable[..., Any], *args: Any) -> Any:
        from .awaited import call_layer

        return await call_layer(function, *args)

    def _deliver(self, name: str, message: dict[str, Any]) -> None:
        self.channel_layer.deliver_group(name, message)


def _name_of(channel: Channel | str) -> str:
    if isinstance(channel, Channel):
        return channel.name
    if not isinstance(channel, str):
        raise InvalidChannelName(
            "A member of a group is a Channel or the name of one, such as message.reply_channel, not %s."
            % shown(repr(channel))
        )
    return channel


def _excluding(message: dict[str, Any], channel: Channel | str | None) -> dict[str, Any]:
    return message if channel is None else excluding(message, check_channel_name(_name_of(channel)))


add_missing(Channel)
add_missing(Group)

"""
Class-based consumers for WebSockets whose handlers are asynchronous: plain, JSON, and several streams.

They are the classes of `generic.websockets` with awaited sends: what `await self.send(…)` sends leaves at
once, and waits while the client is slow. In either module, each handler may be `def` or `async def`. A
synchronous handler, in whose thread no event loop runs, sends without `await`: as in `generic.websockets`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Coroutine

from ..channel import Group
from ..exceptions import SendNotAvailableOnDemultiplexer
from ..subprotocols import first_offered
from .websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
    acceptance,
    make_frame,
)

if TYPE_CHECKING:
    from ..channel import Channel
    from ..message import Message
    from ..types import Close


#: So that a type checker notices a missing `await`. In a synchronous handler, nothing is left to await.
Awaited = Coroutine[Any, Any, None]


class AsyncWebsocketConsumer(WebsocketConsumer):
    """
    A WebsocketConsumer for `async def connect`, `receive` and `disconnect`, with `await self.send(…)`,
    `await self.accept(…)`, `await self.close(…)` and `await self.group_send(…)`.
    """

    async def connect(self, message: Message, **kwargs: Any) -> None:
        """Accept the handshake. An override may refuse it with `await self.close()`."""
        await self.accept(first_offered(message.get("subprotocols") or (), self.subprotocols))

    def accept(self, subprotocol: str | None = None) -> Awaited:
        """Accept the handshake now, with a `subprotocol` that the client offered."""
        return _send(self.message.reply_channel, acceptance(subprotocol))

    def send(
        self, text: str | None = None, bytes: bytes | None = None, close: Close = False
    ) -> Awaited:
        """
        Send a frame to this socket now, then close it if `close` is True or a close code.

        Waits while the client is slow. Raises ClientDisconnected if it has gone, and otherwise as
        `WebsocketConsumer.send`.
        """
        if "multiplexer" in self.kwargs:
            raise SendNotAvailableOnDemultiplexer()
        return _send(self.message.reply_channel, make_frame(text, bytes, close))

    @classmethod
    def group_send(  # type: ignore[override]  # it sends at once
        cls,
        name: str,
        text: str | None = None,
        bytes: bytes | None = None,
        close: Close = False,
        exclude: Channel | str | None = None,
    ) -> Awaited:
        """
        Send a frame now to every socket in the group `name`; arguments as for `send`. `exclude` is that of
        `Group.send`.
        """
        return _send(Group(name), make_frame(text, bytes, close), exclude=exclude)

    def close(self, status: int | None = None) -> Awaited:
        """Close this socket now with the code `status` (int), or 1000. During connect, refuse it."""
        return _send(self.message.reply_channel, {"close": status or True})


def _send(target: Channel | Group, message: dict[str, Any], **options: Any) -> Awaited:
    """Return what sends `message` when it is awaited. Where no event loop runs, send it as `send` does."""
    if asyncio._get_running_loop() is None:
        target.send(message, **options)
        return None  # type: ignore[return-value]
    return target.asend(message, **options)


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer, JsonWebsocketConsumer):
    """An AsyncWebsocketConsumer whose frames are JSON text: `receive` gets the decoded `content`."""

    def send(self, content: Any, close: Close = False) -> Awaited:  # type: ignore[override]
        """Send `content` to this socket now as JSON, then close it if `close` is True or a close code."""
        return super().send(text=self.encode_json(content), close=close)

    @classmethod
    def group_send(  # type: ignore[override]
        cls,
        name: str,
        content: Any,
        close: Close = False,
        exclude: Channel | str | None = None,
    ) -> Awaited:
        """Send `content` now as JSON to every socket in the group `name`, except `exclude`."""
        return super().group_send(name, text=cls.encode_json(content), close=close, exclude=exclude)


class AsyncWebsocketMultiplexer(WebsocketMultiplexer):
    """
    One stream of a demultiplexed socket, with awaited sends. The consumer of the stream may be synchronous:
    its sends aren't awaited, and are those of a WebsocketMultiplexer.
    """

    def send(self, payload: Any) -> Awaited:
        """Send `payload` to the socket now, on this stream."""
        if asyncio._get_running_loop() is None:
            return super().send(payload)  # type: ignore[no-any-return]
        return self.reply_channel.asend(self.encode(self.stream, payload))

    @classmethod
    def group_send(  # type: ignore[override]
        cls,
        name: str,
        stream: str,
        payload: Any,
        close: Close = False,
        exclude: Channel | str | None = None,
    ) -> Awaited:
        """Send `payload` now on `stream` to every socket in the group `name`, except `exclude`."""
        if asyncio._get_running_loop() is None:
            super().group_send(name, stream, payload, close, exclude=exclude)
            return None  # type: ignore[return-value]
        return Group(name).asend(cls.encode(stream, payload, close), exclude=exclude)


class AsyncWebsocketDemultiplexer(  # type: ignore[misc]  # group_send has a stream, as in Channels 1.1
    WebsocketDemultiplexer, AsyncJsonWebsocketConsumer
):
    """
    A WebsocketDemultiplexer with awaited sends. The consumers of its streams may be of either kind; each of
    them gets an AsyncWebsocketMultiplexer.
    """

    multiplexer_class = AsyncWebsocketMultiplexer

from __future__ import annotations

from typing import Any

from channels import Channel, Group, channel_layers
from channels.auth import channel_session_user, channel_session_user_from_http
from channels.exceptions import DenyConnection, WebsocketCloseException
from channels.generic.async_websockets import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketDemultiplexer,
)
from channels.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer
from channels.message import Message
from channels.security.websockets import allowed_origins
from channels.sessions import channel_session


@allowed_origins("https://other.example")
@channel_session_user_from_http
def ws_connect(message: Message, room: str) -> None:
    if not message.user.is_authenticated:
        raise DenyConnection()
    message.channel_session["room"] = room
    Group("room-%s" % room).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


@channel_session_user
def ws_receive(message: Message) -> None:
    if message.get("text") is None:
        raise WebsocketCloseException(4000)
    room: str = message.channel_session["room"]
    Group("room-" + room).send({"text": message["text"]}, immediately=True)
    Channel("log").send({"text": message["text"], "path": message["path"]}, on_commit=True)


@channel_session
def ws_disconnect(message: Message) -> None:
    Group("room-" + message.channel_session["room"]).discard(message.reply_channel.name)


class Echo(WebsocketConsumer):
    http_user = True

    def connection_groups(self, **kwargs: Any) -> list[str]:
        return ["echo"]

    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:
        self.send(text=text, bytes=bytes)
        self.group_send("echo", text=self.path, close=1000)


class Rooms(JsonWebsocketConsumer):
    groups = ["rooms"]

    def receive(self, content: Any, **kwargs: Any) -> None:
        self.send({"members": Group("rooms").channels(), "content": content})
        if content is None:
            self.close(4001)


@channel_session_user
async def answer(message: Message) -> None:
    for word in message["text"].split():
        await message.reply_channel.asend({"text": word})
    members: list[str] = await Group("rooms").achannels()
    await Group("rooms").adiscard(members[0])
    await Group("rooms").aadd(message.reply_channel)
    await Group("rooms").asend({"text": message.user.get_username()})


class Asynchronous(AsyncJsonWebsocketConsumer):
    async def connect(self, message: Message, **kwargs: Any) -> None:
        await self.accept()

    async def receive(self, content: Any, **kwargs: Any) -> None:
        await self.send({"content": content})
        await self.group_send("rooms", content, close=1000)
        await self.close(4001)


class EitherKind(WebsocketConsumer):
    async def receive(
        self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any
    ) -> None:
        self.send(text=text)

    def disconnect(self, message: Message, **kwargs: Any) -> None:
        pass


class Streams(AsyncWebsocketDemultiplexer):
    consumers = {"one": Asynchronous, "two": EitherKind}


def pending() -> dict[str, int]:
    return channel_layers["default"].statistics()

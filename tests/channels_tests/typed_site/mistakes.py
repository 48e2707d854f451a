from __future__ import annotations

from typing import Any

from channels import Channel, Gruop, route, route_class  # error: attr-defined
from channels import Group
from channels.auth import channel_session_user
from channels.exceptions import WebsocketCloseException
from channels.generic.async_websockets import AsyncWebsocketConsumer
from channels.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer
from channels.message import Message
from channels.test import Client

Channel("x").sned({})  # error: attr-defined
Channel(7)  # error: arg-type
Channel("x", allias="default")  # error: call-arg
Channel("x").send("text")  # error: arg-type
Channel("x").send([("text", "x")])  # error: arg-type
Channel("x").send({"text": "x"}, imediately=True)  # error: call-arg
Channel("x").send({1: "x"})  # error: dict-item
Group("x").add(7)  # error: arg-type
Group("x").members()  # error: attr-defined
Group("x").channels().add("y")  # error: attr-defined
Group("x").send()  # error: call-arg
WebsocketCloseException("4000")  # error: arg-type
route(7, "mysite.consumers.receive")  # error: arg-type
route("websocket.receive", 7)  # error: arg-type
route("websocket.receive", "mysite.consumers.receive", path=7)  # error: arg-type
route_class(lambda message: None)  # error: arg-type


@channel_session_user
def receive(message: Message) -> None:
    message.reply_channel.sent({"text": "x"})  # error: attr-defined
    message.reply_channel.send("x")  # error: arg-type
    message.chanel_session["x"] = 1  # error: attr-defined
    message.copy().contents  # error: attr-defined


receive(7)  # error: arg-type
route("websocket.receive", receive).consumers  # error: attr-defined


class Echo(WebsocketConsumer):
    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:
        self.send(7)  # error: arg-type
        self.send(text="x", closed=True)  # error: call-arg
        self.group_send("x", txt="x")  # error: call-arg
        self.close("4000")  # error: arg-type


class Rooms(JsonWebsocketConsumer):
    groups = 7  # error: assignment

    def receive(self, content: Any, **kwargs: Any) -> None:
        self.send(content, bytes=b"x")  # error: call-arg


class Asynchronous(AsyncWebsocketConsumer):
    async def receive(
        self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any
    ) -> None:
        self.send(text="x")  # error: unused-coroutine
        await self.send(7)  # error: arg-type
        self.message.reply_channel.asend({"text": "x"})  # error: unused-coroutine
        await Group("x").aadd(7)  # error: arg-type


Client().send("x", "text")  # error: arg-type
Client().recieve()  # error: attr-defined

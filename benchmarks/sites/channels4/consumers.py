"""Echo and broadcast as the Channels 4 tutorial writes them, synchronous and asynchronous."""

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data)


class Broadcast(WebsocketConsumer):
    groups = ["everybody"]

    def receive(self, text_data=None, bytes_data=None):
        async_to_sync(self.channel_layer.group_send)(
            "everybody", {"type": "chat.message", "text": text_data}
        )

    def chat_message(self, event):
        self.send(text_data=event["text"])


class AsyncEcho(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


class AsyncBroadcast(AsyncWebsocketConsumer):
    groups = ["everybody"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(
            "everybody", {"type": "chat.message", "text": text_data}
        )

    async def chat_message(self, event):
        await self.send(text_data=event["text"])

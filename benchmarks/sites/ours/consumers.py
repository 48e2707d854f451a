"""Echo and broadcast as synchronous consumers; echo as an asynchronous one, at once and after a second."""

import asyncio

from channels import Group


def echo(message):
    message.reply_channel.send({"text": message["text"]})


async def echo_async(message):
    message.reply_channel.send({"text": message["text"]})


async def echo_later(message):
    await asyncio.sleep(1)
    message.reply_channel.send({"text": message["text"]})


def join(message):
    Group("everybody").add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def broadcast(message):
    Group("everybody").send({"text": message["text"]})


def leave(message):
    Group("everybody").discard(message.reply_channel)

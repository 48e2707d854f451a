"""Echo and broadcast as synchronous consumers; echo as an asynchronous one, at once and after a second."""

import asyncio
import re

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


def join_many(message, count):
    for number in range(int(count)):
        own_group(message, number).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def to_own_group(message):
    own_group(message, 0).send({"text": message["text"]})


def own_group(message, number):
    name = re.sub(r"[^A-Za-z0-9]", "-", message.reply_channel.name)
    return Group("%s.%d" % (name, number))

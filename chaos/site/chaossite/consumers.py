import asyncio
import json
import os
import signal
import time

from channels import Group

from .record import record
from .version import VERSION


def socket_id(message):
    return message["query_string"].decode().partition("id=")[2]


def connect(message):
    message.channel_session["id"] = socket_id(message)
    record("connect", id=message.channel_session["id"])
    message.reply_channel.send({"accept": True})


def receive(message):
    """Echoes its number, after `ms` milliseconds."""
    content = json.loads(message["text"])
    time.sleep(content.get("ms", 0) / 1000.0)
    record(
        "frame",
        id=message.channel_session["id"],
        n=content["n"],
        redelivered=bool(message.get("redelivered")),
    )
    message.reply_channel.send({"text": json.dumps({"n": content["n"], "v": VERSION})})


async def think(message):
    """Answers with its number, after `ms` milliseconds of waiting."""
    content = json.loads(message["text"])
    record(
        "think",
        id=message.channel_session["id"],
        n=content["n"],
        redelivered=bool(message.get("redelivered")),
    )
    await asyncio.sleep(content["ms"] / 1000.0)
    await message.reply_channel.asend({"text": json.dumps({"n": content["n"], "v": VERSION})})


async def waiting_job(message):
    """A numbered job that waits for very long, unless it lost its worker before."""
    redelivered = bool(message.get("redelivered"))
    record("begun", n=message["n"], redelivered=redelivered)
    await asyncio.sleep(0 if redelivered else 600)
    record("job", n=message["n"], redelivered=redelivered)


def disconnect(message):
    record(
        "disconnect",
        id=message.channel_session.get("id"),
        code=message["code"],
        redelivered=bool(message.get("redelivered")),
    )


def enter(message, room):
    message.channel_session["id"] = socket_id(message)
    Group("room-" + room).add(message.reply_channel)
    record("connect", id=message.channel_session["id"])
    message.reply_channel.send({"accept": True})


def speak(message, room):
    Group("room-" + room).send({"text": message["text"]})


def leave(message, room):
    disconnect(message)


def job(message):
    """A numbered job; the poisonous one takes its process with it."""
    if message.get("poison"):
        record("poison", n=message["n"])
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(message.get("ms", 0) / 1000.0)
    record("job", n=message["n"], redelivered=bool(message.get("redelivered")))

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

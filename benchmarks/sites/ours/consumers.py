"""Echo and broadcast as synchronous consumers."""

from channels import Group


def echo(message):
    message.reply_channel.send({"text": message["text"]})


def join(message):
    Group("everybody").add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def broadcast(message):
    Group("everybody").send({"text": message["text"]})


def leave(message):
    Group("everybody").discard(message.reply_channel)

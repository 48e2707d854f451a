"""Echo, as Channels 1.1 has it."""


def accept(message):
    message.reply_channel.send({"accept": True})


def echo(message):
    message.reply_channel.send({"text": message["text"]})

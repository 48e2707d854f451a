"""
Every exception of channels: what a layer refuses, and what a consumer may raise.

Nothing here does I/O, with one documented exception of Channels 1.1: the worker calls
`ChannelSocketException.run(message)` on one that a consumer raised.
"""


# What a channel layer raises.


class ChannelFull(Exception):
    """The channel holds as many messages as its capacity allows; the message was not sent."""


class MessageTooLarge(Exception):
    """The message weighs over one megabyte as JSON would weigh it; it was not sent."""


class InvalidMessage(TypeError):
    """The message is not a dict of what a layer carries; the text names the key at fault."""


class InvalidChannelName(TypeError):
    """A channel or group name outside the allowed alphabet or length."""


class LayerUnavailable(ConnectionError):
    """The server behind the layer cannot be reached; the message was not sent."""


# What a consumer raises.


class ConsumeLater(Exception):
    """Put this message back on its channel: it cannot be handled yet. What was held is not sent."""


class ResponseLater(Exception):
    """Raised by a view that answers later, through the request's reply channel."""


class RequestTimeout(Exception):
    """No part of the request's body arrived in time."""


class RequestAborted(Exception):
    """The client went away while its request was read, or its response was being sent."""


class DenyConnection(Exception):
    """Raised while handling `websocket.connect`: refuse the handshake (403)."""


class ChannelSocketException(Exception):
    """
    Base for exceptions by which a consumer ends its event and answers the socket:
    the worker calls `run(message)`, in which a subclass may send.
    """

    def run(self, message):
        raise NotImplementedError("A subclass of ChannelSocketException defines run(message).")


class WebsocketCloseException(ChannelSocketException):
    """Close the socket, with `code` (1000, or 3000 to 4999) where one is given."""

    def __init__(self, code=None):
        if code is not None and code != 1000 and not 3000 <= code <= 4999:
            raise ValueError(
                "A close code is 1000 or lies between 3000 and 4999, not %r." % (code,)
            )
        super().__init__(code)
        self.code = code

    def run(self, message):
        message.reply_channel.send({"close": self.code or True})


class SendNotAvailableOnDemultiplexer(Exception):
    """A demultiplexer has no stream of its own to send on: send from the stream's consumer."""

    def __init__(self, *args):
        super().__init__(
            *args
            or ("Send through the multiplexer of the stream's consumer, not the demultiplexer.",)
        )

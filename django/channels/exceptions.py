"""
Every exception of channels: what a layer refuses, and what a consumer may raise.

Nothing here does I/O, except as Channels 1.1 documents: the worker calls
`ChannelSocketException.run(message)` on one that a consumer raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message


# What a channel layer raises.


class ChannelFull(Exception):
    """The channel holds as many messages as its capacity allows; the message was not sent."""


class MessageTooLarge(Exception):
    """The message is larger than one megabyte, measured as JSON; it was not sent."""


class InvalidMessage(TypeError):
    """The message isn't a dict of values that a layer carries; the text names the key at fault."""


class InvalidChannelName(TypeError):
    """A name of a channel or group has characters that aren't allowed, or is too long."""


class LayerUnavailable(ConnectionError):
    """The server behind the layer cannot be reached. The message may have been sent, unless it is NotSent."""

    #: Whether the layer can be read all the same, because its server only refuses to write.
    is_readable = False


class NotSent(LayerUnavailable):
    """The server behind the layer cannot be reached, and the message was not sent."""

    @classmethod
    def because_of(cls, error: BaseException) -> NotSent:
        """Return `error` as one that says that nothing was sent."""
        if isinstance(error, cls):
            return error
        result = cls(str(error))
        result.__cause__ = error
        result.is_readable = getattr(error, "is_readable", False)
        return result


# What a consumer raises.


class ConsumeLater(Exception):
    """Requeue this message, because it cannot be handled yet. What the consumer sent is dropped."""

    def __str__(self) -> str:
        # Read only where it doesn't requeue the message: otherwise, nothing is logged.
        return super().__str__() or (
            "Only a consumer may raise ConsumeLater. A view, or the content of its response, can't: the "
            "response may have begun."
        )


class ResponseLater(Exception):
    """Raised by a view, or by middleware, that answers later, through the request's reply channel."""

    def __str__(self) -> str:
        # Read only where it doesn't end a view: otherwise, nothing is logged.
        return super().__str__() or (
            "Only a view or middleware may raise ResponseLater, before its response begins, in a site that "
            "%s serves: runserver, runworker or HttpClient, and no WSGI server. A consumer leaves its "
            "request open by sending nothing." % __package__
        )


class RequestTimeout(Exception):
    """No part of the request's body arrived in time."""


class RequestAborted(Exception):
    """The client went away while its request was read, or its response was being sent."""


class ClientGone(RequestAborted):
    """
    RequestAborted as this package raises it. A view that it ends needs no answer. If the site raises
    RequestAborted itself, its client may wait for one.
    """


#: The close codes that a site may choose (RFC 6455, section 7.4.2).
DENIAL_CODES = range(3000, 5000)


class DenyConnection(Exception):
    """
    Raised while handling `websocket.connect`: refuse the handshake (403).

    With `code` (3000 to 4999), accept it and close the socket with this code, because a browser sees the
    close code of an open socket only. The disconnect event follows, as for any socket that was open.
    """

    def __init__(self, *args: object, code: int | None = None) -> None:
        if code is not None and code not in DENIAL_CODES:
            raise ValueError("%r is not a close code: use a number from 3000 to 4999." % (code,))
        super().__init__(*args)
        self.code = code


class BadFrame(ValueError):
    """
    Raised for a frame that its consumer cannot read. The socket is closed with 1011, as by any exception, but
    the log gets a short warning, at most once a second, instead of a traceback: a client must not choose how
    much is logged.
    """


class ChannelSocketException(Exception):
    """
    Base class of exceptions that end a consumer and answer the socket. The worker calls `run(message)`,
    in which a subclass may send.
    """

    def run(self, message: Message) -> None:
        raise NotImplementedError("A subclass of ChannelSocketException defines run(message).")


class WebsocketCloseException(ChannelSocketException):
    """Close the socket, with `code` (1000, or 3000 to 4999) if it is given."""

    def __init__(self, code: int | None = None) -> None:
        if code is not None and code != 1000 and not 3000 <= code <= 4999:
            raise ValueError(
                "%r is not a close code: use 1000, or a number from 3000 to 4999." % (code,)
            )
        super().__init__(code)
        self.code = code

    def run(self, message: Message) -> None:
        message.reply_channel.send({"close": self.code or True})


class ClientDisconnected(ClientGone, ChannelSocketException):
    """
    Raised by `asend` for the client of the consumer itself, if it has gone, or takes nothing. A consumer that
    does not catch it ends in order.
    """

    def run(self, message: Message) -> None:
        pass


class SendNotAvailableOnDemultiplexer(Exception):
    """A frame of a demultiplexed socket needs a stream: send it through the consumer's `multiplexer`."""

    def __init__(self, *args: object) -> None:
        super().__init__(
            *args
            or (
                "Call multiplexer.send(): `multiplexer` is an argument of the consumer of a stream.",
            )
        )


if not TYPE_CHECKING:
    from .habits import former_names

    __getattr__ = former_names(__name__)

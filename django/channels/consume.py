"""
Run one consumer on one message: the same rules for the worker and for the test client.

`run_consumer` does what every consumer gets around it, and returns a Result. It sends nothing: the worker
delivers the result with the acknowledgement of the event (`replies.py`), the test client delivers it at
once. It knows nothing of routing, threads or acknowledgements.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from .exceptions import ChannelSocketException, ConsumeLater, DenyConnection
from .log import visible
from .message import Message
from .outbox import PendingSend, outbox
from .protocol import WEBSOCKET_CONNECT, SessionPatch
from .security.websockets import check_origin, origin_allowed
from .signals import consumer_finished, consumer_started, release_connections

logger = logging.getLogger("django.channels.worker")

Consumer = Callable[..., Any]

# What became of a message.
HANDLED = "handled"  # the consumer has ended, also by an exception that answers the socket
LATER = "later"  # it raised ConsumeLater: requeue the message
FAILED = "failed"  # it raised another exception


class Result:
    """
    What a consumer left behind.

    * `outcome`: HANDLED, LATER or FAILED;
    * `sends`: a list of PendingSend, in order; empty for LATER;
    * `session_patch`: what it changed in the session, or None. Only for HANDLED;
    * `error`: the exception that made it FAILED, or None;
    * `returned`: what the consumer returned.
    """

    __slots__ = ("error", "outcome", "returned", "sends", "session_patch")

    def __init__(
        self,
        outcome: str,
        sends: list[PendingSend],
        session_patch: SessionPatch | None = None,
        error: BaseException | None = None,
        returned: Any = None,
    ) -> None:
        self.outcome = outcome
        self.sends = sends
        self.session_patch = session_patch
        self.error = error
        self.returned = returned


def run_consumer(
    message: Message,
    consumer: Consumer,
    kwargs: dict[str, Any],
    sender: Any,
    answer_error: Callable[[Message, BaseException], None] | None = None,
    releases_connections: bool = True,
) -> Result:
    """
    Call `consumer(message, **kwargs)` in this thread, and return a Result. Raises nothing that the consumer
    raises, SystemExit and KeyboardInterrupt included.

    `sender` is the sender of the signals `consumer_started` and `consumer_finished`.
    `answer_error(message, error)`, called when the consumer failed, may send an error page.
    `releases_connections`: close database connections that are too old, before and after. A test case
    that runs in a transaction needs its own connection to stay open.
    """
    outcome, error, patch, returned = HANDLED, None, None, None
    outer = outbox.open()
    try:
        if releases_connections:
            release_connections()
        consumer_started.send(sender=sender, environ={})
        returned = _call(message, consumer, kwargs)
        patch = message.session_patch()
    except ConsumeLater:
        outcome = LATER
    except BaseException as raised:  # an exit that a consumer asks for does not end the worker
        outcome, error = FAILED, raised
        _answer_error(answer_error, message, raised)
    finally:
        try:
            consumer_finished.send(sender=sender)
            if releases_connections:
                release_connections()
        except Exception:  # of a receiver: the result stays what it is
            logger.exception("After the consumer %s:", consumer_name(consumer))
        sends = outbox.close(outer)
    try:
        return Result(outcome, [] if outcome == LATER else sends, patch, error, returned)
    finally:
        error = None  # its traceback holds this frame, which would hold it in turn


def _call(message: Message, consumer: Consumer, kwargs: dict[str, Any]) -> Any:
    """Call the consumer, and answer for the exceptions by which it ends its event in order."""
    connects = message.channel_name == WEBSOCKET_CONNECT
    try:
        if connects:
            _check_origin(message, consumer)
        return consumer(message, **kwargs)
    except DenyConnection as error:
        if not connects:
            raise DenyConnection(
                "DenyConnection is for websocket.connect; to end a socket, send {'close': True} or "
                "raise WebsocketCloseException."
            ) from error
        reply_channel = message.reply_channel
        # An accept that was sent before must not open the socket after all.
        outbox.withdraw(message.channel_layer, reply_channel.name)
        reply_channel.send({"close": True})
    except ChannelSocketException as error:
        error.run(message)
    return None


def _check_origin(message: Message, consumer: Consumer) -> None:
    """Raise DenyConnection for a page of another site, unless the consumer accepts it."""
    if not origin_allowed(message, consumer):
        logger.warning(
            "WebSocket %s denied: its Origin is not in ALLOWED_HOSTS.", visible(message.get("path"))
        )
        check_origin(message, consumer)


def _answer_error(answer_error: Any, message: Message, error: BaseException) -> None:
    try:
        if answer_error is not None:
            answer_error(message, error)
    except Exception:
        logger.exception("The error page for a message on %s failed:", message.channel_name)


def consumer_name(consumer: Consumer) -> str:
    """Return the dotted path of a consumer, for a log line."""
    return "%s.%s" % (
        getattr(consumer, "__module__", type(consumer).__module__),
        getattr(consumer, "__qualname__", type(consumer).__qualname__),
    )

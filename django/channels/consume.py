"""
Run one consumer on one message: the same rules for the worker and for the test client.

`run_consumer` does what every consumer gets around it, and returns a Result. It sends nothing: the worker
delivers the result with the acknowledgement of the event (`replies.py`), the test client delivers it at
once. It knows nothing of routing, threads or acknowledgements.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Callable

from .exceptions import BadFrame, ChannelSocketException, ConsumeLater, DenyConnection
from .log import RateLimit, shown
from .message import Message
from .outbox import Handshake, PendingSend, Rest, outbox
from .protocol import REPLY_CHANNEL, WEBSOCKET_CONNECT, SessionPatch
from .security.origins import explain, origin_text
from .security.websockets import origin_allowed
from .signals import consumer_finished, consumer_started
from .thread_state import apply_state, site_defaults

if TYPE_CHECKING:
    from .eventloop import Continued

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
    * `error_logged`: whether the error page has logged it;
    * `returned`: what the consumer returned;
    * `afterwards`: what to call, without arguments, after the sends have left: see `call_afterwards`;
    * `rest`: what the event loop must run before the event is acknowledged, or None.
    """

    __slots__ = (
        "afterwards",
        "error",
        "error_logged",
        "outcome",
        "rest",
        "returned",
        "sends",
        "session_patch",
    )

    def __init__(
        self,
        outcome: str,
        sends: list[PendingSend],
        session_patch: SessionPatch | None = None,
        error: BaseException | None = None,
        returned: Any = None,
        error_logged: bool = False,
        afterwards: list[Callable[[], Any]] | None = None,
        rest: Rest | None = None,
    ) -> None:
        self.outcome = outcome
        self.sends = sends
        self.session_patch = session_patch
        self.error = error
        self.error_logged = error_logged
        self.returned = returned
        self.afterwards = afterwards or []
        self.rest = rest


def run_consumer(
    message: Message,
    consumer: Consumer,
    kwargs: dict[str, Any],
    sender: Any,
    answer_error: Callable[[Message, BaseException], bool] | None = None,
) -> Result:
    """
    Call `consumer(message, **kwargs)` in this thread, and return a Result. Raises nothing that the consumer
    raises, of any class.

    The caller sends `Result.sends`, and then calls `call_afterwards(result.afterwards)` in this thread.
    `sender` is the sender of the signals `consumer_started` and `consumer_finished`.
    `answer_error(message, error)`, called when the consumer failed, may send an error page. It returns
    whether it has logged the error.
    """
    outcome, error, patch, returned, logged = HANDLED, None, None, None, False
    outer = outbox.open(_handshake_of(message))
    with site_defaults(message.get("root_path")):
        try:
            consumer_started.send(sender=sender, environ={})
            returned = _call(message, consumer, kwargs)
            patch = message.session_patch()
        except ConsumeLater:
            outcome = LATER
        except BaseException as raised:  # an exit that a consumer asks for does not end the worker
            outcome, error = FAILED, raised
            logged = _answer_error(answer_error, message, raised)
        try:
            consumer_finished.send(sender=sender)
        except BaseException:  # of a receiver: the result stays what it is
            logger.exception("After the consumer %s:", consumer_name(consumer))
    held = outbox.close(outer)
    try:
        sends = [] if outcome == LATER else held.sends
        rest = None
        if held.rests and outcome == HANDLED:
            rest = held.rests[0]._replace(answer_error=answer_error)
        return Result(outcome, sends, patch, error, returned, logged, held.afterwards, rest)
    finally:
        error = None  # its traceback holds this frame, which would hold it in turn


async def continue_consumer(event: Continued, rest: Rest) -> Result:
    """
    Run the rest of an event on the event loop, and return a Result, as `run_consumer` does. Raises nothing.
    """
    outcome, error, logged = HANDLED, None, False
    outbox.separate()
    outbox.open()
    apply_state(rest.state)
    try:
        await rest.run(event)
    except BaseException as raised:
        outcome, error = FAILED, raised
    event.task = None  # what follows is not cancelled
    if error is not None:
        logged = await event.loop.call(_answer_error, rest.answer_error, rest.message, error)
        if not logged:
            log_failure(rest.run, error)
    held = outbox.close()
    try:
        return Result(outcome, held.sends, None, error, None, logged, held.afterwards)
    finally:
        error = None


def _handshake_of(message: Message) -> Handshake | None:
    """Return what the gateway needs to know the own consumer of a connect event. None for other messages."""
    if message.channel_name != WEBSOCKET_CONNECT or message.event_id is None:
        return None
    return Handshake(message.channel_layer, message.content[REPLY_CHANNEL], message.event_id)


def call_afterwards(calls: list[Callable[[], Any]]) -> None:
    """Do what consumers have left to be done after their sends. Raises nothing that a call raises."""
    if not calls:
        return
    with site_defaults(None):
        for call in calls:
            try:
                call()
            except BaseException:
                logger.exception("After a response:")


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


_refused_origins = RateLimit()


def _check_origin(message: Message, consumer: Consumer) -> None:
    """
    Raise DenyConnection for a page of another site, unless the consumer accepts it. Log a line, at most one
    a second.
    """
    if origin_allowed(message, consumer):
        return
    suppressed = _refused_origins.allow()
    if suppressed is not None:
        logger.warning(
            "WebSocket %s denied: its Origin %s is %s (and %d before it, since the last line).",
            shown(message.get("path")),
            shown(origin_text(message)),
            _why_refused(message, consumer),
            suppressed,
        )
    raise DenyConnection("Origin refused.")


def _why_refused(message: Message, consumer: Consumer) -> str:
    """Return what refused an origin, and what to do about it."""
    name = consumer_name(consumer)
    if getattr(consumer, "origin_validator", None) is not None:
        return "refused by the origin validator of %s" % name
    return explain(message, name)


def _answer_error(answer_error: Any, message: Message, error: BaseException) -> bool:
    """Have the error page sent. Return whether the error is logged."""
    try:
        return answer_error is not None and bool(answer_error(message, error))
    except BaseException:
        logger.exception("The error page for a message on %s failed:", message.channel_name)
        return False


def consumer_name(consumer: Consumer) -> str:
    """Return the dotted path of a consumer, for a log line."""
    return "%s.%s" % (
        getattr(consumer, "__module__", type(consumer).__module__),
        getattr(consumer, "__qualname__", type(consumer).__qualname__),
    )


_bad_frames = RateLimit()


def log_failure(consumer: Consumer, error: BaseException | None) -> None:
    """Log what made a consumer fail. A bad frame of a client gets one short line a second."""
    if not isinstance(error, BadFrame):
        logger.error(
            "Error processing message with consumer %s:", consumer_name(consumer), exc_info=error
        )
        return
    suppressed = _bad_frames.allow()
    if suppressed is not None:
        logger.warning(
            "A client of %s sent a bad frame, and its socket is closed: %s (and %d before it, since the last "
            "line)",
            consumer_name(consumer),
            shown(error),
            suppressed,
        )

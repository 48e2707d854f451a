"""
Run one consumer on one message: the same rules for the worker and for the test client.

`run_consumer` does what every consumer gets around it, and returns a Result. It sends nothing: the worker
delivers the result with the acknowledgement of the event (`replies.py`), the test client delivers it at
once. It knows nothing of routing, threads or acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Optional, Sequence

from .advice import advise_returned
from .coroutines import finish, in_thread, run_here, unfinished, with_state
from .exceptions import BadFrame, ChannelSocketException, ConsumeLater, DenyConnection
from .hints import add_hint, hint_for
from .log import RateLimit, shown
from .message import Message
from .outbox import Handshake, Held, PendingSend, Rest, SendAhead, outbox
from .protocol import REPLY_CHANNEL, WEBSOCKET_CONNECT, SessionPatch
from .security.origins import explain, origin_text
from .security.websockets import origin_allowed
from .signals import consumer_finished, consumer_started
from .thread_state import apply_state, current_state, leave_opened, own_context, run_in
from .transactions import end_opened, open_here

if TYPE_CHECKING:
    from .continued import Continued

logger = logging.getLogger("django.channels.worker")

Consumer = Callable[..., Any]

# What became of a message.
HANDLED = "handled"  # the consumer has ended, also by an exception that answers the socket
LATER = "later"  # it raised ConsumeLater: requeue the message
FAILED = "failed"  # it raised another exception
WAITS = "waits"  # it is asynchronous, and has to be awaited
#: It was cancelled, because its process ends. The layer treats the message as lost.
CANCELLED = "cancelled"

#: Sends an error page, if it is not None: see `run_consumer`.
AnswerError = Optional[Callable[[Message, BaseException], bool]]


class Result:
    """
    What a consumer left behind.

    * `outcome`: HANDLED, LATER, FAILED, WAITS or CANCELLED;
    * `sends`: a list of PendingSend, in order; empty unless the outcome is HANDLED or FAILED;
    * `session_patch`: what it changed in the session, or None. Only for HANDLED;
    * `error`: the exception that made it FAILED, or None;
    * `error_logged`: whether the error page has logged it;
    * `returned`: what the consumer returned;
    * `afterwards`: what to call, without arguments, after the sends have left: see `call_afterwards`;
    * `rest`: what the event loop must run before the event is acknowledged, or None.
    """

    # Class attributes, because most consumers change only one or two of them.
    outcome = HANDLED
    sends: list[PendingSend]
    session_patch: SessionPatch | None = None
    error: BaseException | None = None
    error_logged = False
    returned: Any = None
    afterwards: Sequence[Callable[[], Any]] = ()
    rest: Rest | None = None

    def __init__(self, sends: list[PendingSend] | None = None) -> None:
        self.sends = [] if sends is None else sends

    def failed(self, raised: BaseException, message: Message) -> None:
        """Take note of what the consumer of `message` raised."""
        # Not isinstance: that would ask the class of the site's exception, which may raise.
        if issubclass(type(raised), ConsumeLater) and not message.has_response:
            self.outcome = LATER
        else:
            add_hint(raised, functools.partial(hint_for, message=message))
            self.outcome, self.error = FAILED, raised

    def take(self, held: Held, answer_error: AnswerError) -> Result:
        """Take over what the outbox held for the consumer, which has ended. Return this result."""
        self.afterwards = held.afterwards
        if self.outcome in (HANDLED, FAILED):
            self.sends = held.sends
        if held.rest is not None and self.outcome == HANDLED:
            self.rest = held.rest._replace(answer_error=answer_error)
        return self


def run_consumer(
    message: Message,
    consumer: Consumer,
    kwargs: dict[str, Any],
    sender: Any,
    answer_error: AnswerError = None,
    may_wait: bool = False,
    send_ahead: SendAhead = None,
) -> Result:
    """
    Call `consumer(message, **kwargs)` in this thread, and return a Result. Raises nothing that the consumer
    raises, of any class.

    The caller sends `Result.sends`, and then calls `call_afterwards(result.afterwards)` in this thread.
    `sender` is the sender of the signals `consumer_started` and `consumer_finished`.
    `answer_error(message, error)`, called when the consumer failed, may send an error page. It returns
    whether it has logged the error. `send_ahead(sends, last)` sends in order what the consumer doesn't leave
    to its end, and returns whether there was room. None: they leave one by one.

    An asynchronous consumer runs on a new event loop, to its end. With `may_wait`, it doesn't run
    here: the outcome is WAITS, and the caller has `Result.rest` run by `continue_consumer`.
    """
    context = own_context()
    root_path = message.content.get("root_path")
    result: Result = run_in(
        context,
        root_path,
        _run_held,
        message,
        consumer,
        kwargs,
        sender,
        answer_error,
        may_wait,
        send_ahead,
    )
    if result.afterwards:
        result.afterwards = [
            functools.partial(run_in, context, None, call) for call in result.afterwards
        ]
    try:
        return result
    finally:
        del result  # its error's traceback holds this frame, which would hold it in turn


def _run_held(
    message: Message,
    consumer: Consumer,
    kwargs: dict[str, Any],
    sender: Any,
    answer_error: AnswerError,
    may_wait: bool,
    send_ahead: SendAhead,
) -> Result:
    """Do what `run_consumer` does, in the consumer's context."""
    result = Result()
    outbox.open(_handshake_of(message), send_ahead)
    try:
        _run(result, message, consumer, kwargs, sender, answer_error, may_wait)
    finally:
        held = None if result.outcome == WAITS else outbox.close()
        if held is None:
            outbox.leave()
    try:
        return result if held is None else result.take(held, answer_error)
    finally:
        del result  # its error's traceback holds this frame, which would hold it in turn


def _run(
    result: Result,
    message: Message,
    consumer: Consumer,
    kwargs: dict[str, Any],
    sender: Any,
    answer_error: AnswerError,
    may_wait: bool,
) -> None:
    """Call the consumer, between the two signals. Write into `result` what became of it."""
    opened_before = open_here()
    try:
        if consumer_started.receivers:
            consumer_started.send(sender=sender, environ={})
        result.returned = _call(message, consumer, kwargs)
        if result.returned is not None:
            waiting = unfinished(result.returned)
            if waiting is not None and may_wait:
                result.outcome = WAITS
                result.rest = _rest_of(message, consumer, waiting, sender, answer_error)
            elif waiting is not None:
                awaited = run_here(_awaited(message, waiting))
                if waiting is result.returned:
                    result.returned = awaited
            advise_returned(consumer_name(consumer), result.returned)
        if result.outcome == HANDLED:
            result.session_patch = message.session_patch()
    except BaseException as raised:  # an exit that a consumer asks for does not end the worker
        result.failed(raised, message)
        if result.error is not None:
            result.error_logged = _answer_error(answer_error, message, raised)
    if consumer_finished.receivers and result.outcome != WAITS:
        _send_finished(sender, consumer)
    end_opened(opened_before, functools.partial(described, consumer))
    del result  # its error's traceback holds this frame


def _rest_of(
    message: Message, consumer: Consumer, waiting: Any, sender: Any, answer_error: AnswerError
) -> Rest:
    """Return what the event loop must run of an asynchronous consumer."""

    def run(event: Continued) -> Awaitable[Any]:
        return with_state(_awaited(message, waiting), state)

    context, held = leave_opened(contextvars.copy_context()), outbox.held
    state = current_state()
    return Rest(message, run, context, state, answer_error, held, sender, consumer, waiting)


def close_waiting(rest: Rest) -> None:
    """Give up an asynchronous consumer that has not run: its message will be handled again."""
    close = getattr(rest.waiting, "close", None)
    if close is not None:
        close()
    rest.context.run(outbox.give_up)
    _send_finished(rest.sender, rest.consumer)


async def _awaited(message: Message, waiting: Awaitable[Any]) -> Any:
    """Await an asynchronous consumer, and answer for the exceptions by which it ends its event in order."""
    try:
        return await finish(waiting)
    except (DenyConnection, ChannelSocketException) as error:
        await in_thread(_answer, message, error)
    return None


def _send_finished(sender: Any, consumer: Consumer) -> None:
    try:
        consumer_finished.send(sender=sender)
    except BaseException:  # of a receiver: the result stays what it is
        logger.exception("After the consumer %s:", consumer_name(consumer))


async def continue_consumer(event: Continued, rest: Rest) -> Result:
    """
    Run the rest of an event on the event loop. Return a Result, which `end_consumer` completes.
    Raises nothing.
    """
    result = Result()
    if rest.held is None:
        outbox.open()
        apply_state(rest.state)
    outbox.continue_by(event)
    try:
        result.returned = await rest.run(event)
        advise_returned(consumer_name(rest.consumer), result.returned)
    except BaseException as raised:
        result.failed(raised, rest.message)
        if event.stops and issubclass(type(raised), asyncio.CancelledError):
            result.outcome = CANCELLED
    try:
        return result
    finally:
        del result


async def end_consumer(event: Continued, rest: Rest, result: Result) -> Result:
    """
    Do what `run_consumer` does after a consumer, for one that the event loop has continued in this context.
    Return `result`, with what the consumer left. Raises nothing.
    """
    event.task = None  # what follows is not cancelled
    # Before the outbox closes: what its tasks and threads send meanwhile keeps its place among all sends.
    await event.loop.end_tasks(event, rest)
    if event.threads.running:
        may_send = result.outcome == HANDLED and _keeps_session(rest.message)
        await event.loop.end_threads(event, may_send)
    if rest.held is not None and result.outcome == HANDLED:
        try:
            result.session_patch = rest.message.session_patch()
        except BaseException as raised:
            result.failed(raised, rest.message)
    if result.outcome == FAILED:
        result.error_logged = await event.loop.call_site(
            _answer_error, rest.answer_error, rest.message, result.error
        )
    if rest.held is not None and consumer_finished.has_listeners(rest.sender):
        await event.loop.call_site(_send_finished, rest.sender, rest.consumer)
    try:
        return result.take(outbox.close(), rest.answer_error)
    finally:
        del result


def _keeps_session(message: Message) -> bool:
    """Return whether the consumer has not changed its session: what it sends needs no changed one."""
    try:
        return message.session_patch() is None
    except BaseException:  # a value that no layer carries: `end_consumer` reports it
        return False


def _handshake_of(message: Message) -> Handshake | None:
    """Return what the gateway needs to know the own consumer of a connect event. None for other messages."""
    if message.channel_name != WEBSOCKET_CONNECT or message.event_id is None:
        return None
    return Handshake(message.channel_layer, message.content[REPLY_CHANNEL], message.event_id)


def call_afterwards(calls: Sequence[Callable[[], Any]]) -> None:
    """Do what consumers have left to be done after their sends. Raises nothing that a call raises."""
    if not calls:
        return
    opened_before = open_here()
    for call in calls:
        try:
            call()
        except BaseException:
            logger.exception("After a response:")
    end_opened(opened_before, lambda: "The end of a response")


def _call(message: Message, consumer: Consumer, kwargs: dict[str, Any]) -> Any:
    """Call the consumer, and answer for the exceptions by which it ends its event in order."""
    try:
        if message.channel_name == WEBSOCKET_CONNECT:
            _check_origin(message, consumer)
        return consumer(message, **kwargs)
    except (DenyConnection, ChannelSocketException) as error:
        _answer(message, error)
    return None


def _answer(message: Message, error: DenyConnection | ChannelSocketException) -> None:
    """Do what an exception asks for that ends the event in order."""
    if isinstance(error, ChannelSocketException):
        error.run(message)
        return
    if message.channel_name != WEBSOCKET_CONNECT:
        raise DenyConnection(
            "DenyConnection is for websocket.connect; to end a socket, send {'close': True} or "
            "raise WebsocketCloseException."
        ) from error
    reply_channel = message.reply_channel
    # An accept that was sent before must not open the socket after all.
    outbox.withdraw(message.channel_layer, reply_channel.name)
    if error.code is not None:
        reply_channel.send({"accept": True})
    reply_channel.send({"close": error.code or True})


_refused_origins = RateLimit()


def _check_origin(message: Message, consumer: Consumer) -> None:
    """
    Raise DenyConnection for a page of another site, unless the consumer accepts it. Log a line, at most one
    a second.
    """
    if origin_allowed(message, consumer):
        return
    _refused_origins.log(
        logger.warning,
        "WebSocket %s denied: its Origin %s is %s.",
        shown(message.get("path")),
        shown(origin_text(message)),
        _why_refused(message, consumer),
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


def described(consumer: Consumer) -> str:
    """Return how a log line begins that is about a consumer."""
    return "The consumer %s" % consumer_name(consumer)


def consumer_name(consumer: Consumer) -> str:
    """Return the dotted path of a consumer, for a log line."""
    return "%s.%s" % (
        getattr(consumer, "__module__", type(consumer).__module__),
        getattr(consumer, "__qualname__", type(consumer).__qualname__),
    )


_bad_frames = RateLimit()


def log_failure(consumer: Consumer, error: BaseException | None) -> None:
    """Log what made a consumer fail. A bad frame of a client gets one short line a second."""
    if not issubclass(type(error), BadFrame):
        logger.error(
            "Error processing message with consumer %s:", consumer_name(consumer), exc_info=error
        )
        return
    _bad_frames.log(
        logger.warning,
        "A client of %s sent a bad frame, and its socket is closed: %s.",
        consumer_name(consumer),
        shown(error).rstrip("."),
    )

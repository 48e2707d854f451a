"""The consumer of `asgi.delay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..channel import Channel
from ..layers.engine.options import MAX_SECONDS, shown
from ..layers.names import check_channel_name
from ..outbox import send_once

if TYPE_CHECKING:
    from ..message import Message

#: The channel on which a message asks to be sent later, as in Channels 1.1.
DELAY_CHANNEL = "asgi.delay"

#: The longest delay, in milliseconds.
MAX_DELAY = 1000 * MAX_SECONDS


def delay_message(message: Message) -> None:
    """
    Store a message for later. The keys of `message` are `channel` (text), `content` (dict), and
    `delay`, milliseconds (a positive whole number). Raises ValueError for anything else.

    A layer with the "delay" extension stores it. For other layers, the database does.
    """
    channel, content, delay = read_request(message)
    layer = message.channel_layer
    if "delay" in layer.extensions:
        content = Channel(channel, channel_layer=layer).checked(content)
        send_once(layer, layer.send_later, channel, content, delay / 1000)
        return
    from .models import DelayedMessage

    delayed = DelayedMessage(channel_name=channel)
    delayed.message = content
    delayed.delay = delay
    delayed.save()


def read_request(message: Message) -> tuple[str, dict[str, Any], int]:
    """Return `(channel, content, delay)` of a message on `asgi.delay`. Raises ValueError."""
    missing = [key for key in ("channel", "content", "delay") if key not in message]
    if missing:
        raise ValueError(
            "A message on %s needs channel, content and delay. Add %s."
            % (DELAY_CHANNEL, ", ".join(missing))
        )
    channel, content, delay = message["channel"], message["content"], message["delay"]
    if isinstance(delay, float) and delay.is_integer():
        delay = int(delay)  # what JSON, or a division, made of it
    if not isinstance(delay, int) or isinstance(delay, bool) or not 0 <= delay <= MAX_DELAY:
        raise ValueError(
            "delay must be a number of milliseconds (a positive int, up to %d), not %s."
            % (MAX_DELAY, shown(delay))
        )
    if not isinstance(content, dict):
        raise ValueError("content must be the message to send later (a dict), not %r." % (content,))
    return check_channel_name(channel), content, delay

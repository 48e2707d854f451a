"""
Awaited sends: what `Channel.asend` and `Group.asend` do. They leave at once, without blocking the event loop.

What a consumer sends to its own client this way waits while the client is slow.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable

from .continued import Continued, current_event
from .coroutines import in_thread
from .exceptions import ChannelFull, ClientDisconnected
from .outbox import PendingSend, Slot, deliver_all, outbox
from .protocol import HTTP_REQUEST, window_units

#: How far a consumer may be ahead of its client: units of a socket, parts of a response.
SOCKET_WINDOW, RESPONSE_WINDOW = 32, 8

#: Seconds that a consumer waits for a client that takes nothing.
CLIENT_TIMEOUT = 300.0


async def call_layer(function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function(*args)` returns, which calls a layer. It blocks no event loop."""
    event = current_event()
    if event is not None:
        return await event.loop.call(function, *args)
    return await in_thread(function, *args)


async def send_now(send: PendingSend, deliver: Callable[[], Any]) -> None:
    """
    Send what the consumer has sent before, and then `send`: by `deliver`, unless a worker's event loop knows
    better. Raises ChannelFull or LayerUnavailable, and ClientDisconnected if the consumer's client has gone.
    """
    slot = outbox.slot
    if slot is None or slot.held is None:
        await call_layer(deliver)
        return
    if slot.event is None:
        # A synchronous consumer, by async_to_sync or asyncio.run, or one that runs without an event loop.
        async with slot.lock_of(asyncio.get_event_loop()):
            if await call_layer(_send_ahead, slot, send, deliver):
                return
    event = slot.event
    if event.loop.is_running_here():
        await _send_on_loop(slot, event, send, deliver)
    else:
        # From a loop in another thread, which a thread of this consumer has started.
        await event.loop.call_on_loop(_send_on_loop(slot, event, send, deliver))


async def send_so_far(event: Continued) -> None:
    """Send what the consumer of `event`, which runs here, has sent until now."""
    slot = outbox.slot
    if slot is not None:
        async with slot.lock_of(asyncio.get_event_loop()):
            await event.loop.call(event.replies.send_so_far, slot.take())


def _send_ahead(slot: Slot, send: PendingSend, deliver: Callable[[], Any]) -> bool:
    """
    Send what the consumer of `slot` has sent before, and then `send`, in this thread. Return False if an
    event loop continues the consumer meanwhile: it has to send.
    """
    with slot.sending:
        if slot.held is None:  # the consumer has ended meanwhile
            deliver()
        elif slot.event is not None:
            return False
        elif slot.send_ahead is None:
            error = deliver_all(slot.take())
            deliver()
            if error is not None:
                raise error
        elif not slot.send_ahead(slot.take(), send):
            raise ChannelFull("The inbox of the gateway of %s is full." % send.name)
    return True


async def _send_on_loop(
    slot: Slot, event: Continued, send: PendingSend, deliver: Callable[[], Any]
) -> None:
    async with slot.lock_of(asyncio.get_event_loop()):
        if slot.held is None:  # the consumer has ended meanwhile, and its replies with it
            await call_layer(deliver)
        elif event.replies.is_own(send):
            await _send_to_client(slot, event, send)
        else:
            await event.loop.call(event.replies.send_ahead, slot.take(), send)


async def _send_to_client(slot: Slot, event: Continued, send: PendingSend) -> None:
    """Send to the client of `event`. Wait while it is slow."""
    window, is_request = event.window, event.message.channel_name == HTTP_REQUEST
    size = RESPONSE_WINDOW if is_request else SOCKET_WINDOW
    units = 1 if is_request else window_units(send.message)
    in_time = True
    if window.ahead >= size and not window.is_closed:
        with event.waits_for_client():
            in_time = await window.below(size, CLIENT_TIMEOUT)
    if window.is_closed or not in_time:
        raise ClientDisconnected(
            "The client of this consumer has gone."
            if window.is_closed
            else "The client of this consumer took nothing for %g seconds." % CLIENT_TIMEOUT
        )
    window.ahead += units  # before the notice that they were written can come
    if not await event.loop.call(event.replies.send_ahead, slot.take(), send, window.name):
        window.ahead -= units
        raise ChannelFull("The inbox of the gateway of %s is full." % send.name)

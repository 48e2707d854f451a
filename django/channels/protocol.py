"""
The messages that gateways, workers and layers exchange: every key, with a constructor for each message.

A *gateway* sends the events of a connection (a request, a frame, a disconnect) to the workers, one at a
time; `event_id` numbers them. A worker sends replies to the connection's reply channel, and with the last
of them the acknowledgement (`ack`) of the event. A layer tells a gateway of lost events, of changes of
membership, of messages to groups, and of lost data.

Here are names, constructors, accessors and types: no I/O, no state, no imports of this package but
`compat`. No other module writes one of these keys as a literal. The keys that a site's code sees ("text",
"path", "status" and so on) are those of the ASGI 1.0 specification; `docs/ref/channels/messages.txt`
lists them.
"""

from __future__ import annotations

from typing import Any, Dict

from .compat import TypedDict

Message = Dict[str, Any]

# Names of channels.

#: The process-local channels of gateways begin with this.
GATEWAY_PREFIX = "gateway."

HTTP_REQUEST = "http.request"
HTTP_DISCONNECT = "http.disconnect"
WEBSOCKET_CONNECT = "websocket.connect"
WEBSOCKET_RECEIVE = "websocket.receive"
WEBSOCKET_DISCONNECT = "websocket.disconnect"

#: The channels on which gateways send events.
EVENT_CHANNELS = frozenset(
    [HTTP_REQUEST, HTTP_DISCONNECT] + [WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE, WEBSOCKET_DISCONNECT]
)

# Keys of events: from a gateway to a worker.

REPLY_CHANNEL = "reply_channel"  # text: where replies go; a key of the ASGI specification
EVENT_ID = "exchange"  # int: the number of this event on its connection
SESSION = "channel_session"  # dict: the session of the connection; in replies, a patch of it
FRAMES = "frames"  # list of dicts: several frames in one event, each with its own keys
REDELIVERED = (
    "redelivered"  # True: a worker was lost with it before; "maybe": it may have been sent twice
)
BODY_CHANNEL = (
    "body_channel"  # text: where the rest of the request's body is; of the ASGI specification
)

#: How often ConsumeLater has put a message back. The name is that of Channels 1.1.
RETRIES = "__retries__"

# Keys of replies: from a worker to a gateway.

ACK = "done"  # int: the id of the event that has been handled
REPLIES = "replies"  # list of dicts: what the consumers of the event sent to the client, in order
ERROR = "error"  # True: a consumer failed
BODY_CREDIT = "body_credit"  # int: so many more parts of the request's body may be sent
WINDOW_CHANNEL = (
    "window_channel"  # text: where the worker learns which parts of a stream were written
)

# Keys of flow control, on body channels and window channels.

WRITTEN = "written"  # int: so many parts of the stream have been given to the server
CLOSED = "closed"  # True: the client has gone

# Keys of a layer's notices to a gateway.

LOST = "lost"  # int: the id of an event whose worker died, or that expired
RESET = "reset"  # True: the layer lost its data
GROUP = "group"  # text: the group that a message was sent to
GROUP_MESSAGE = "message"  # dict: that message
GROUP_ADD = "group_add"  # text: the channel has become a member of this group
GROUP_DISCARD = "group_discard"  # text: the channel is not a member of this group any more

# What a site may not send, because it would speak for a gateway or a worker.

_REPLY_KEYS = frozenset(
    [ACK, REPLIES, ERROR, BODY_CREDIT, WINDOW_CHANNEL, SESSION, LOST, RESET, GROUP]
    + [GROUP_ADD, GROUP_DISCARD]
)
_EVENT_KEYS = frozenset([RETRIES, SESSION, EVENT_ID, FRAMES])
_CONSUMER_KEYS = frozenset([RETRIES, SESSION])
_ALL_KEYS = _REPLY_KEYS | _EVENT_KEYS


class SessionPatch(TypedDict):
    """What a consumer changed in the session of its connection."""

    set: dict[str, Any]
    removed: list[str]


class Event(TypedDict, total=False):
    """What every event carries besides the keys of its own kind."""

    reply_channel: str
    exchange: int
    channel_session: dict[str, Any]
    frames: list[Message]
    redelivered: Any


class Reply(TypedDict, total=False):
    """What a worker sends to a gateway besides the site's own replies."""

    done: int
    replies: list[Message]
    channel_session: SessionPatch
    error: bool


# Constructors.


def ack(
    event_id: int,
    replies: list[Message] | None = None,
    session: SessionPatch | None = None,
    error: bool = False,
) -> Message:
    """Return the last reply to an event: it has been handled, with these replies before it."""
    message: Message = {ACK: event_id}
    if replies:
        message[REPLIES] = replies
    if session is not None:
        message[SESSION] = session
    if error:
        message[ERROR] = True
    return message


def replies(messages: list[Message]) -> Message:
    """Return a message that carries some replies to an event ahead of its acknowledgement."""
    return {REPLIES: messages}


def session_patch(patch: SessionPatch) -> Message:
    """Return a message that changes the session of a connection."""
    return {SESSION: patch}


def lost(event_id: int) -> Message:
    """Return the notice that the event's worker died, or that the event expired."""
    return {LOST: event_id}


def reset() -> Message:
    """Return the notice that the layer lost its data."""
    return {RESET: True}


def group_message(group: str, message: Message) -> Message:
    """Return what an inbox gets, once for all members it has, of a message to `group`."""
    return {GROUP: group, GROUP_MESSAGE: message}


def group_added(group: str) -> Message:
    """Return the notice, on a connection's reply channel, that it is now a member of `group`."""
    return {GROUP_ADD: group}


def group_discarded(group: str) -> Message:
    """Return the notice, on a connection's reply channel, that it has left `group`."""
    return {GROUP_DISCARD: group}


def body_credit(parts: int) -> Message:
    """Return the permission to send so many more parts of a request's body."""
    return {BODY_CREDIT: parts}


def written(parts: int) -> Message:
    """Return the notice that so many parts of a stream were given to the server."""
    return {WRITTEN: parts}


def closed() -> Message:
    """Return the notice that the client has gone."""
    return {CLOSED: True}


# Accessors.


def reply_address(message: Message) -> tuple[str, int] | None:
    """
    Return (reply channel, event id) of an event whose gateway waits for its acknowledgement, or None for
    any other message.
    """
    if EVENT_ID in message and REPLY_CHANNEL in message:
        return message[REPLY_CHANNEL], message[EVENT_ID]
    return None


def ignores_capacity(message: Message) -> bool:
    """
    Return whether a reply must reach its gateway even if its inbox is full. The connection would wait
    forever for an acknowledgement or a notice of loss that was dropped.
    """
    return ACK in message or LOST in message


def drop_control_keys(message: Message, name: str) -> None:
    """
    Remove from `message`, which a site sends to the channel or group `name`, the keys that only gateways,
    workers and layers may use there. A site may pass on what a client sent.
    """
    if _ALL_KEYS.isdisjoint(message):
        return
    if name in EVENT_CHANNELS:
        keys = _EVENT_KEYS
    elif name.startswith(GATEWAY_PREFIX):
        keys = _REPLY_KEYS
    else:
        keys = _CONSUMER_KEYS
    for key in keys.intersection(message):
        del message[key]

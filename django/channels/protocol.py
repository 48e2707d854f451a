"""
The messages that gateways, workers and layers exchange: every key, with a constructor for each message.

A *gateway* sends the events of a connection (a request, a frame, a disconnect) to the workers, one at a
time; `EVENT_ID` numbers them. A worker sends replies to the connection's reply channel, and with the last
of them the acknowledgement (`ACK`) of the event. A layer tells a gateway of lost events, of changes of
membership, of messages to groups, and of lost data.

Two kinds of keys:

* The keys that a site's code sees ("path", "text", "status" and so on) are those of the ASGI 1.0
  specification. The TypedDicts below list them, and `docs/ref/channels/messages.txt` describes them.
  To add one to `websocket.connect`, add it to `WebSocketConnect` and set it in
  `gateway.scopes.connect_event`; for `http.request`, to `HttpRequest` and in `gateway.scopes.request_event`.
* The control keys are constants here. No other module writes one as a literal. To add one, add the
  constant, put it into the set of keys that a site may not send, and write a constructor or accessor.

Here are names, constructors, accessors and types: no I/O, no state, and nothing of this package but
`compat`. The file is a little over 400 lines because it is the only place for keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable

if TYPE_CHECKING:
    from typing import TypedDict
else:
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

#: Those of them that end a connection: always delivered, however late.
DISCONNECT_CHANNELS = frozenset([HTTP_DISCONNECT, WEBSOCKET_DISCONNECT])

#: Those of them that wait for their turn in a gateway, which limits how many wait for workers.
TURN_CHANNELS = frozenset([HTTP_REQUEST, WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE])

# Control keys of events, from a gateway to a worker.

#: Text: where replies go. The ASGI specification defines this key.
REPLY_CHANNEL = "reply_channel"
#: int: the number of this event on its connection.
EVENT_ID = "event_id"
#: Text: the address that the event counts for (shares.py). Absent if the server gives none.
COUNTS_FOR = "counts_for"
#: dict: the session of the connection. In a reply it is a SessionPatch.
SESSION = "channel_session"
#: List of dicts: several frames in one event, each with its own "text" or "bytes" and "order".
FRAMES = "frames"
#: True: a worker was lost with this message before. MAYBE: the message may have been sent twice.
REDELIVERED = "redelivered"
MAYBE = "maybe"
#: Text: where the rest of the request's body is. The ASGI specification defines this key.
BODY_CHANNEL = "body_channel"
#: int: how often ConsumeLater has requeued the message. The name is that of Channels 1.1.
RETRIES = "__retries__"

# Control keys of replies, from a worker to a gateway.

#: int: the id of the event that has been handled.
ACK = "ack"
#: List of dicts: what the consumers of the event sent to the client, in order.
REPLIES = "replies"
#: int: the milliseconds that the consumers of the event ran. Absent: less than one.
RAN = "ran"
#: int: the id of the event in flight, which a worker has had for a while: others need not wait for its end.
RUNNING = "running"
#: Text: the address that the event counts for. It has its share of the worker process's places, or more.
OVER_SHARE = "over_share"
#: True: a consumer failed.
ERROR = "error"
#: int: the id of the event whose consumer sends this message while it runs (`immediately=True`).
DURING = "during"
#: int: the number of further parts of the request's body that may be sent.
BODY_CREDIT = "body_credit"
#: Text: where the worker learns which parts of a streamed response, or which frames, were written.
WINDOW_CHANNEL = "window_channel"

# Control keys of flow control, on body channels and window channels.

#: int: the number of parts of a stream that have been given to the server.
WRITTEN = "written"
#: True: the client has gone.
CLOSED = "closed"

# Control keys of a layer's notices to a gateway.

#: int: the id of an event whose worker died, or that expired.
LOST = "lost"
#: True: the layer lost its data.
RESET = "reset"
#: Text: the group that a message was sent to.
GROUP = "group"
#: dict: that message.
GROUP_MESSAGE = "message"
#: Text: the reply channel of a member that doesn't get the message. In a site's message to a group, too.
EXCLUDE = "__exclude__"
#: Text: the channel has become a member of this group.
GROUP_ADD = "group_add"
#: Text: the channel has left this group.
GROUP_DISCARD = "group_discard"

# What a site may not send, because it would speak for a gateway, a worker or a layer.

_REPLY_KEYS = frozenset(
    [
        ACK,
        REPLIES,
        RAN,
        RUNNING,
        OVER_SHARE,
        ERROR,
        DURING,
        BODY_CREDIT,
        WINDOW_CHANNEL,
        SESSION,
        LOST,
        RESET,
        GROUP,
    ]
    + [GROUP_ADD, GROUP_DISCARD, EXCLUDE]
)
_EVENT_KEYS = frozenset([RETRIES, SESSION, REDELIVERED, EVENT_ID, COUNTS_FOR, FRAMES, EXCLUDE])
_CONSUMER_KEYS = frozenset([RETRIES, SESSION, REDELIVERED, EXCLUDE])
_ALL_KEYS = _REPLY_KEYS | _EVENT_KEYS


# Types of events.


class SessionPatch(TypedDict):
    """What a consumer changed in the session of its connection."""

    set: dict[str, Any]
    removed: list[str]


class Event(TypedDict, total=False):
    """The keys that every event has. `ConnectionState.event` sets them, and `EventSender` one of them."""

    reply_channel: str
    event_id: int
    counts_for: str
    root_path: str
    channel_session: dict[str, Any]
    redelivered: bool | str


class _Handshake(Event, total=False):
    """The keys of `http.request` and `websocket.connect` that describe the connection."""

    scheme: str
    path: str
    query_string: bytes
    headers: list[list[bytes]]
    client: list[Any] | None
    server: list[Any] | None


class HttpRequest(_Handshake, total=False):
    """`http.request`, built by `gateway.scopes.request_event`; the gateway adds the body."""

    http_version: str
    method: str
    body: bytes
    body_channel: str


class HttpDisconnect(Event, total=False):
    """`http.disconnect`, built by `gateway.http.Request`."""

    path: str


class WebSocketConnect(_Handshake, total=False):
    """`websocket.connect`, built by `gateway.scopes.connect_event`; the state adds the order."""

    subprotocols: list[str]
    order: int


class WebSocketReceive(Event, total=False):
    """`websocket.receive`, built by `gateway.websocket.WebSocket`."""

    path: str
    order: int
    text: str
    bytes: bytes
    frames: list[Message]


class WebSocketDisconnect(Event, total=False):
    """`websocket.disconnect`, built by `gateway.websocket.WebSocket`, also as its last will."""

    path: str
    order: int
    code: int


#: The type of the messages on each channel of EVENT_CHANNELS.
_EVENT_TYPES = {
    HTTP_REQUEST: HttpRequest,
    HTTP_DISCONNECT: HttpDisconnect,
    WEBSOCKET_CONNECT: WebSocketConnect,
    WEBSOCKET_RECEIVE: WebSocketReceive,
    WEBSOCKET_DISCONNECT: WebSocketDisconnect,
}


def event_keys(channel: str) -> set[str]:
    """Return the keys that messages on `channel`, one of EVENT_CHANNELS, may have."""
    classes = _EVENT_TYPES[channel].__mro__  # until Python 3.7 goes, each has its own keys only
    return set().union(*(getattr(each, "__annotations__", ()) for each in classes))


class BodyPart(TypedDict, total=False):
    """What a gateway sends on a body channel."""

    content: bytes
    more_content: bool
    closed: bool


# Types of replies.


class HttpReply(TypedDict, total=False):
    """One message of a response: the first has a status and headers."""

    status: int
    headers: list[list[bytes]]
    content: bytes
    more_content: bool
    window_channel: str


class WebSocketReply(TypedDict, total=False):
    """What a consumer sends to its socket."""

    accept: bool
    subprotocol: str
    text: str
    bytes: bytes
    close: bool | int


class Reply(TypedDict, total=False):
    """What a worker sends to a gateway besides the site's own replies."""

    ack: int
    replies: list[Message]
    channel_session: SessionPatch
    error: bool
    ran: int
    over_share: str


# Constructors.


def ack(
    event_id: int,
    replies: list[Message] | None = None,
    session: SessionPatch | None = None,
    error: bool = False,
    ran: int = 0,
    over_share: str | None = None,
) -> Message:
    """
    Return the last reply to an event: it has been handled, with these replies before it. Its consumers ran
    for `ran` milliseconds. `over_share`: its address, if that has its share of the places for asynchronous
    consumers in the worker process, or more.
    """
    message: Message = {ACK: event_id}
    if replies:
        message[REPLIES] = replies
    if session is not None:
        message[SESSION] = session
    if error:
        message[ERROR] = True
    if ran:
        message[RAN] = ran
    if over_share is not None:
        message[OVER_SHARE] = over_share
    return message


def replies(messages: list[Message], window: str | None = None) -> Message:
    """
    Return a message that carries some replies to an event ahead of its acknowledgement. The gateway tells the
    channel `window` when they were written.
    """
    if window is None:
        return {REPLIES: messages}
    return {REPLIES: messages, WINDOW_CHANNEL: window}


def told_on(window: str) -> Message:
    """
    Return a message that has the gateway tell the channel `window` when the client has gone; and, if it knows
    the channel already, that it is still there.
    """
    return {WINDOW_CHANNEL: window}


def running(event_id: int, ran: int, over_share: str | None = None) -> Message:
    """
    Return the notice that a worker has had an event for `ran` milliseconds, and will have it longer. For
    `over_share`, see `ack`.
    """
    notice: Message = {RUNNING: event_id, RAN: ran}
    if over_share is not None:
        notice[OVER_SHARE] = over_share
    return notice


def during(event_id: int, message: Message) -> Message:
    """Return `message` as one that the consumer of this event sends to its client while it runs."""
    return dict(message, **{DURING: event_id})


def session_patch(patch: SessionPatch) -> Message:
    """Return a message that changes the session of a connection."""
    return {SESSION: patch}


def lost(event_id: int) -> Message:
    """Return the notice that the event's worker died, or that the event expired."""
    return {LOST: event_id}


def reset(ended: list[str] | None = None) -> Message:
    """
    Return the notice that the layer lost its data. `ended`: the reply channels of connections of which the
    site was told that they have ended.
    """
    return {RESET: ended or True}


def group_message(group: str, message: Message) -> Message:
    """Return what an inbox gets, once for all members it has, of a message to `group`."""
    if EXCLUDE not in message:
        return {GROUP: group, GROUP_MESSAGE: message}
    inner = {key: value for key, value in message.items() if key != EXCLUDE}
    return {GROUP: group, GROUP_MESSAGE: inner, EXCLUDE: message[EXCLUDE]}


def excluding(message: Message, channel: str) -> Message:
    """Return `message` as one to a group that its member `channel` doesn't get."""
    return dict(message, **{EXCLUDE: channel})


def for_members(message: Message, channels: Iterable[str]) -> tuple[Message, list[str]]:
    """
    Return what members of a group get that no gateway holds, and those of `channels`, such members, that get
    it. If one of them is an event channel or a reply channel, what only workers send there is left out.
    """
    names = list(channels)
    if EXCLUDE in message:
        names = [each for each in names if each != message[EXCLUDE]]
        message = {key: value for key, value in message.items() if key != EXCLUDE}
    if not _ALL_KEYS.isdisjoint(message):
        message = dict(message)
        for each in names:
            drop_control_keys(message, each)
    return message, names


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


def still_there(has_ended: bool) -> Message:
    """Return the answer to `told_on`: the gateway is there, and its client `has_ended` or not."""
    return closed() if has_ended else written(0)


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
    Return whether a message must arrive even if its channel or inbox is full. Its receiver would wait forever
    for an acknowledgement, or for a notice of loss or of flow control, that was dropped. There are few of
    these: one for each event, or for each part of a stream.
    """
    return ACK in message or LOST in message or WRITTEN in message or CLOSED in message


#: A frame counts as one, and once more for each so many bytes, or characters, of it.
WINDOW_UNIT = 65536


def window_units(message: Message) -> int:
    """Return for how many frames a frame counts, where somebody must not be too far ahead of a client."""
    carried = message.get("text") or message.get("bytes")
    return 1 + (len(carried) // WINDOW_UNIT if isinstance(carried, (str, bytes)) else 0)


def is_notice(message: Message) -> bool:
    """Return whether a message on a reply channel has a control key: a worker or a layer has sent it."""
    return not _REPLY_KEYS.isdisjoint(message)


def lost_a_worker(message: Message) -> bool:
    """Return whether a worker was lost with this message before. A message sent twice doesn't count."""
    return message.get(REDELIVERED) is True


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


# Session patches.


def make_patch(before: dict[str, Any], changed: dict[str, Any], after: Any) -> SessionPatch:
    """
    Return the patch that sets the items of `changed`, and removes the keys of `before` that `after` (any
    container of keys) doesn't have.
    """
    return {"set": changed, "removed": [key for key in before if key not in after]}


def merge_patches(first: SessionPatch | None, second: SessionPatch) -> SessionPatch:
    """Return one patch that does what `first` and then `second` do."""
    if first is None:
        return second
    changed = {key: value for key, value in first["set"].items() if key not in second["removed"]}
    changed.update(second["set"])
    removed = set(first["removed"]).difference(second["set"]).union(second["removed"])
    return {"set": changed, "removed": sorted(removed)}


def apply_patch(session: dict[str, Any], patch: Any) -> bool:
    """Change `session` as `patch` says. Return whether `patch` was one (None isn't)."""
    if not isinstance(patch, dict):
        return False
    session.update(patch.get("set") or {})
    for key in patch.get("removed") or ():
        session.pop(key, None)
    return True

"""
Class-based consumers for WebSockets: plain, JSON, and several streams over one socket.

The frames of a demultiplexed socket are JSON objects with the keys `stream` and `payload`, in both
directions, as Channels 1.1 documents them. The file has over 400 lines because Channels 1.1 has all of these
classes here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, cast

from ..advice import advise_late_groups
from ..auth import channel_session_user, channel_session_user_from_http, login_required
from ..callables import is_own
from ..channel import Group, group_names_of
from ..coroutines import finish, in_thread, off_loop, unfinished
from ..exceptions import BadFrame, DenyConnection, SendNotAvailableOnDemultiplexer
from ..runnable import MULTIPLEXER, Call, problem_of
from ..sessions import channel_and_http_session, remembered_http_session
from ..subprotocols import first_offered
from .attributes import refused
from .base import BaseConsumer
from .json_text import decode_json, encode_json

if TYPE_CHECKING:
    from ..channel import Channel
    from ..message import Message
    from ..types import Close, Consumer


class WebsocketConsumer(BaseConsumer):
    """
    One class for the events of a WebSocket: `connect`, `receive` and `disconnect`.

    The socket joins the groups that `connection_groups` returns, and leaves them when it closes.
    """

    method_mapping: Mapping[str, str] = {
        "websocket.connect": "raw_connect",
        "websocket.receive": "raw_receive",
        "websocket.disconnect": "raw_disconnect",
    }

    #: True: `message.user` is the user of the HTTP session, copied on connect.
    http_user: bool = False

    #: True: as `http_user`, and `message.http_session` is that session.
    http_user_and_session: bool = False

    #: True: only users who are logged in may open a socket, and others get a 403. A close code (3000 to
    #: 4999): others get it instead. See `auth.login_required`.
    login_required: bool | int = False

    #: Kept from Channels 1.x: the events of a socket are always handled in order, one at a time.
    strict_ordering: bool = False
    slight_ordering: bool = False

    #: Groups for every socket of this class, unless `connection_groups` is overridden.
    groups: Iterable[str] | None = None

    #: The subprotocols that the sockets of this class speak. `connect` accepts the handshake with the first
    #: one that the client offers and that is here.
    subprotocols: Iterable[str] = ()

    def get_handler(self, message: Message, **kwargs: Any) -> Consumer:
        handler = super().get_handler(message, **kwargs)
        required = self.login_required
        if required and not callable(
            required
        ):  # a method of that name is of a class of Channels 1.x
            handler = login_required(handler, code=None if required is True else required)
        if self.http_user_and_session:
            return channel_and_http_session(_user_decorator(message)(handler))
        if self.http_user:
            return _user_decorator(message)(remembered_http_session(handler))
        return handler

    @classmethod
    def method_calls(cls) -> dict[str, Call]:
        calls = super().method_calls()
        called = {"connect": cls.raw_connect, "disconnect": cls.raw_disconnect}
        calls.update({name: Call(("message",)) for name in called if is_own(called[name])})
        steps: list[Any] = [cls.__init__, cls.dispatch, cls.get_handler]
        if all(map(is_own, [*steps, cls.raw_connect, cls.raw_disconnect])):
            calls["connection_groups"] = Call()
        if is_own(cls.raw_receive):
            calls["receive"] = Call((), ("text", "bytes"))
        return calls

    @classmethod
    def problem_of_attributes(cls, groups: Iterable[str]) -> str:
        # The site's own method reads the groups in its own way.
        return refused(cls, besides="" if is_own(cls.connection_groups) else "groups")

    # Connecting and disconnecting.

    def connection_groups(self, **kwargs: Any) -> Iterable[str]:
        """Return the names of the groups that this socket joins on connect and leaves on disconnect."""
        return self.groups or []

    def raw_connect(self, message: Message, **kwargs: Any) -> Any:
        """Join the groups, then call `connect`."""
        return off_loop(self._raw_connect, message, **kwargs)

    def _raw_connect(self, message: Message, **kwargs: Any) -> Any:
        groups = self.connection_groups(**kwargs)
        for name in group_names_of(groups, "connection_groups() of %s" % type(self).__name__):
            Group(name, channel_layer=message.channel_layer).add(message.reply_channel)
        before = self._own_groups()
        returned = self.connect(message, **kwargs)
        waiting = unfinished(returned)
        if waiting is not None:
            return self._connected(waiting, before)
        self._check_groups(before)
        return returned

    async def _connected(self, waiting: Any, before: Any) -> None:
        await finish(waiting)
        self._check_groups(before)

    def _check_groups(self, before: Any) -> None:
        """Warn if `connect` changed `groups`."""
        if before != self._own_groups() and is_own(self.connection_groups):
            advise_late_groups(type(self).__qualname__)

    def _own_groups(self) -> Any:
        """Return the value of `groups`, and how long it is, if the instance or the class has a list."""
        own = self.__dict__.get("groups", getattr(type(self), "groups", None))
        return (id(own), len(own)) if isinstance(own, list) else None

    def connect(self, message: Message, **kwargs: Any) -> Any:
        """Accept the handshake. An override may refuse it with `close`."""
        return self.accept(first_offered(message.get("subprotocols") or (), self.subprotocols))

    def accept(self, subprotocol: str | None = None) -> Any:
        """Accept the handshake, with a `subprotocol` that the client offered."""
        self.message.reply_channel.send(acceptance(subprotocol))

    def raw_disconnect(self, message: Message, **kwargs: Any) -> Any:
        """Leave the groups, then call `disconnect`."""
        return off_loop(self._raw_disconnect, message, **kwargs)

    def _raw_disconnect(self, message: Message, **kwargs: Any) -> Any:
        groups = self.connection_groups(**kwargs)
        for name in group_names_of(groups, "connection_groups() of %s" % type(self).__name__):
            Group(name, channel_layer=message.channel_layer).discard(message.reply_channel)
        return self.disconnect(message, **kwargs)

    def disconnect(self, message: Message, **kwargs: Any) -> Any:
        """Do nothing. Override it for what must happen when the socket has closed."""

    # Frames.

    def raw_receive(self, message: Message, **kwargs: Any) -> Any:
        """Call `receive` with the frame, as text or as bytes."""
        if message.get("text") is not None:
            return self.receive(text=message["text"], **kwargs)
        return self.receive(bytes=message["bytes"], **kwargs)

    def receive(self, *args: Any, **kwargs: Any) -> Any:
        """
        Do nothing. Override it as `receive(self, text=None, bytes=None, **kwargs)`: it is called for each
        frame, with either `text` or `bytes`. (The signature here lets a subclass take other arguments.)
        """

    def send(
        self, text: str | None = None, bytes: bytes | None = None, close: Close = False
    ) -> Any:
        """
        Send a frame to this socket, then close it if `close` is True or a close code.

        Raises ValueError without `text` or `bytes`, and SendNotAvailableOnDemultiplexer in the consumer of a
        stream, because the frame would lack a stream: send through its `multiplexer`.
        """
        if "multiplexer" in self.kwargs:
            raise SendNotAvailableOnDemultiplexer()
        self.message.reply_channel.send(make_frame(text, bytes, close))

    @classmethod
    def group_send(
        cls,
        name: str,
        text: str | None = None,
        bytes: bytes | None = None,
        close: Close = False,
        on_commit: bool | None = None,
        exclude: Channel | str | None = None,
    ) -> Any:
        """
        Send a frame to every socket in the group `name`; arguments as for `send`. `on_commit` and `exclude`
        are those of `Group.send`.
        """
        Group(name).send(make_frame(text, bytes, close), on_commit=on_commit, exclude=exclude)

    def close(self, status: int | None = None) -> Any:
        """Close this socket with the code `status` (int), or 1000. During connect, refuse it."""
        self.message.reply_channel.send({"close": status or True})

    def deny(self, code: int) -> Any:
        """
        Refuse the handshake with the close code `code` (3000 to 4999): accept it, then close the socket. A
        browser sees the close code of an open socket only. To refuse with a 403, call `close`.
        """
        raise DenyConnection(code=code)

    @property
    def path(self) -> str:
        """The URL path of this socket (text)."""
        return cast(str, self.message["path"])


def _user_decorator(message: Message) -> Callable[[Consumer], Consumer]:
    """Return the decorator for `message.user`. Only the handshake has cookies."""
    if message.channel_name == "websocket.connect":
        return channel_session_user_from_http
    return channel_session_user


def acceptance(subprotocol: str | None) -> dict[str, Any]:
    """Return the reply that accepts a handshake."""
    answer: dict[str, Any] = {"accept": True}
    if subprotocol is not None:
        answer["subprotocol"] = subprotocol
    return answer


def make_frame(text: str | None, bytes: bytes | None, close: Close) -> dict[str, Any]:
    """Return the reply that sends a frame, and then closes the socket if `close` says so."""
    if text is None and bytes is None:
        raise ValueError(
            "A frame needs text or bytes. To close the socket without a frame, call close()."
        )
    if isinstance(text, (dict, list)):
        raise TypeError(
            "text is a %s. Use the class JsonWebsocketConsumer and send(content), or json.dumps it."
            % type(text).__name__
        )
    frame: dict[str, Any] = {"text": text} if text is not None else {"bytes": bytes}
    if close:
        frame["close"] = close
    return frame


class JsonWebsocketConsumer(WebsocketConsumer):
    """
    A WebsocketConsumer whose frames are JSON text.

    `receive` gets the decoded `content`. `send` and `group_send` encode what they are given.
    """

    @classmethod
    def method_calls(cls) -> dict[str, Call]:
        calls = super().method_calls()
        if "receive" in calls:
            calls["receive"] = Call(("content",))
        return calls

    def raw_receive(self, message: Message, **kwargs: Any) -> Any:
        if message.get("text") is None:
            raise BadFrame("A JSON socket takes text frames, but the client sent a binary one.")
        try:
            content = self.decode_json(message["text"])
        except (ValueError, RecursionError) as error:
            raise BadFrame("The frame isn't JSON: %s" % str(error)[:200]) from None
        return self.receive(content, **kwargs)

    def receive(self, content: Any, **kwargs: Any) -> Any:
        """Do nothing. Override it: it is called for each frame with its decoded `content`."""

    def send(self, content: Any, close: Close = False) -> Any:  # type: ignore[override]  # as in 1.1
        """Send `content` to this socket as JSON, then close it if `close` is True or a close code."""
        super().send(text=self.encode_json(content), close=close)

    @classmethod
    def group_send(  # type: ignore[override]  # as in Channels 1.1
        cls,
        name: str,
        content: Any,
        close: Close = False,
        on_commit: bool | None = None,
        exclude: Channel | str | None = None,
    ) -> Any:
        """
        Send `content` as JSON to every socket in the group `name`. `on_commit` and `exclude` are those of
        `Group.send`.
        """
        text = cls.encode_json(content)
        super().group_send(name, text=text, close=close, on_commit=on_commit, exclude=exclude)

    @classmethod
    def decode_json(cls, text: str) -> Any:
        """Return the value that `text` encodes. Raises ValueError if it isn't JSON."""
        return decode_json(text)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return `content` as JSON text. It may hold what Django's JSON encoder takes."""
        return encode_json(content)


class WebsocketMultiplexer:
    """
    One stream of a demultiplexed socket, passed to its consumer as `multiplexer`.

    `stream` is its name, `reply_channel` the socket's Channel, and `demultiplexer` the consumer that
    split the frames.
    """

    demultiplexer: WebsocketDemultiplexer

    def __init__(self, stream: str, reply_channel: Channel) -> None:
        self.stream = stream
        self.reply_channel = reply_channel

    def send(self, payload: Any) -> Any:
        """Send `payload` to the socket, on this stream."""
        self.reply_channel.send(self.encode(self.stream, payload))

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return `content` as JSON text. Override it to use another encoder."""
        return encode_json(content)

    @classmethod
    def encode(cls, stream: str, payload: Any, close: Close = False) -> dict[str, Any]:
        """
        Return the message that sends `payload` on `stream`. With `close` (True or a close code), it also
        closes the socket.
        """
        return make_frame(cls.encode_json({"stream": stream, "payload": payload}), None, close)

    @classmethod
    def group_send(
        cls,
        name: str,
        stream: str,
        payload: Any,
        close: Close = False,
        on_commit: bool | None = None,
        exclude: Channel | str | None = None,
    ) -> Any:
        """
        Send `payload` on `stream` to every socket in the group `name`. `on_commit` and `exclude` are those of
        `Group.send`.
        """
        content = cls.encode(stream, payload, close)
        Group(name).send(content, on_commit=on_commit, exclude=exclude)


class WebsocketDemultiplexer(JsonWebsocketConsumer):
    """
    Several consumers behind one socket, each with its own stream.

    `consumers` maps stream names to consumers (usually JsonWebsocketConsumer classes). Each gets
    the handshake, the frames of its stream as a direct connection would bring them, and the
    disconnect, always with the keyword argument `multiplexer`.
    """

    consumers: Mapping[str, Consumer] = {}
    multiplexer_class: type[WebsocketMultiplexer] = WebsocketMultiplexer

    @classmethod
    def problem_of_attributes(cls, groups: Iterable[str]) -> str:
        steps: list[Any] = [cls.__init__, cls.dispatch, cls.get_handler, cls.receive]
        made: Any = cls.multiplexer_class
        if not callable(made) and not hasattr(made, "__get__"):
            return "multiplexer_class must be a class, such as WebsocketMultiplexer, not %r." % (
                made,
            )
        if hasattr(cls.consumers, "__get__") or not all(map(is_own, steps)):
            return super().problem_of_attributes(groups)
        if not isinstance(cls.consumers, Mapping):
            return (
                "consumers must be a dict of stream to consumer, not a %s: write {'stream': Consumer}."
                % type(cls.consumers).__name__
            )
        for stream, consumer in cls.consumers.items():
            if not callable(consumer):
                return "consumers[%r] isn't a consumer: %r." % (stream, consumer)
            problem = problem_of(consumer, list(groups) + [MULTIPLEXER])
            if problem:
                return "consumers[%r]: %s" % (stream, problem)
        return super().problem_of_attributes(groups)

    def connect(self, message: Message, **kwargs: Any) -> Any:
        """Pass the handshake to every stream's consumer, then accept (unless one has refused)."""
        accept = functools.partial(super().connect, message, **kwargs)
        return off_loop(self._to_every_stream, message, kwargs, accept)

    def disconnect(self, message: Message, **kwargs: Any) -> Any:
        """Pass the disconnect to every stream's consumer."""
        return off_loop(self._to_every_stream, message, kwargs)

    def receive(self, content: Any, **kwargs: Any) -> Any:
        """
        Pass the frame to its stream's consumer.

        Raises BadFrame for a frame without `stream` and `payload`, or for an unknown stream.
        """
        if not isinstance(content, dict) or "stream" not in content or "payload" not in content:
            raise BadFrame(
                "The client of a demultiplexed socket must send {stream: …, payload: …}."
            )
        stream = content["stream"]
        if not isinstance(stream, str) or stream not in self.consumers:
            named = repr(stream[:200]) if isinstance(stream, str) else type(stream).__name__
            raise BadFrame(
                "There is no stream %s: %s.consumers has %s."
                % (named, type(self).__name__, ", ".join(sorted(self.consumers)) or "none")
            )
        return off_loop(self._receive_stream, stream, content["payload"], kwargs)

    def _receive_stream(self, stream: str, payload: Any, kwargs: dict[str, Any]) -> Any:
        # The same Message, so that its user, its sessions and other attributes stay.
        message, frame = self.message, self.message.content
        message.content = dict(frame, text=self.encode_json(payload))
        waiting = None
        try:
            waiting = self._to_stream(stream, message, kwargs)
        finally:
            if waiting is None:
                message.content = frame
        return None if waiting is None else self._receive_on(waiting, message, frame)

    @staticmethod
    async def _receive_on(waiting: Any, message: Message, frame: dict[str, Any]) -> None:
        try:
            await finish(waiting)
        finally:
            message.content = frame

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Raise SendNotAvailableOnDemultiplexer: a stream's consumer sends through its `multiplexer`."""
        raise SendNotAvailableOnDemultiplexer()

    @classmethod
    def group_send(  # type: ignore[override]  # as in Channels 1.1
        cls,
        name: str,
        stream: str,
        payload: Any,
        close: Close = False,
        on_commit: bool | None = None,
        exclude: Channel | str | None = None,
    ) -> Any:
        """
        Send `payload` on `stream` to every socket in the group `name`. `on_commit` and `exclude` are those of
        `Group.send`.
        """
        options: dict[str, Any] = {} if exclude is None else {"exclude": exclude}
        if on_commit is not None:  # an asynchronous multiplexer sends at once, and doesn't take it
            options["on_commit"] = on_commit
        return cls.multiplexer_class.group_send(name, stream, payload, close, **options)

    @classmethod
    def encode(cls, stream: str, payload: Any, close: Close = False) -> dict[str, Any]:
        """Return the message that sends `payload` on `stream`: for `Group.send` and `Channel.send`."""
        return cls.multiplexer_class.encode(stream, payload, close)

    def _to_every_stream(
        self, message: Message, kwargs: dict[str, Any], then: Callable[[], Any] = lambda: None
    ) -> Any:
        """Call the consumer of each stream, in order, and then `then()`."""
        streams = iter(self.consumers)
        for stream in streams:
            waiting = self._to_stream(stream, message, kwargs)
            if waiting is not None:
                return self._to_other_streams(waiting, streams, message, kwargs, then)
        return then()

    async def _to_other_streams(
        self,
        waiting: Any,
        streams: Iterator[str],
        message: Message,
        kwargs: dict[str, Any],
        then: Callable[[], Any],
    ) -> None:
        """Go on with the streams after that of an asynchronous consumer."""
        await finish(waiting)
        for stream in streams:
            waiting = await in_thread(self._to_stream, stream, message, kwargs)
            if waiting is not None:
                await finish(waiting)
        waiting = unfinished(then())
        if waiting is not None:
            await finish(waiting)

    def _to_stream(self, stream: str, message: Message, kwargs: dict[str, Any]) -> Any:
        """Call the consumer of a stream. Return what must be awaited, or None."""
        multiplexer = self.multiplexer_class(stream, self.message.reply_channel)
        multiplexer.demultiplexer = self
        return unfinished(self.consumers[stream](message, multiplexer=multiplexer, **kwargs))


if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

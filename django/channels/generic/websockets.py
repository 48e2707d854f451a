"""
Class-based consumers for WebSockets: plain, JSON, and several streams over one socket.

The frames of a demultiplexed socket are JSON objects with the keys `stream` and `payload`, in both
directions, as Channels 1.1 documents them.
"""

import json

from django.core.serializers.json import DjangoJSONEncoder

from ..auth import channel_session_user, channel_session_user_from_http
from ..channel import Group
from ..exceptions import SendNotAvailableOnDemultiplexer
from ..sessions import channel_and_http_session, remembered_http_session
from .base import BaseConsumer


class WebsocketConsumer(BaseConsumer):
    """
    One class for the events of a WebSocket: `connect`, `receive` and `disconnect`.

    Its socket joins the groups that `connection_groups` names, and leaves them at its end.
    """

    method_mapping = {
        "websocket.connect": "raw_connect",
        "websocket.receive": "raw_receive",
        "websocket.disconnect": "raw_disconnect",
    }

    #: True: `message.user` is the user of the site's own session, taken over on connect.
    http_user = False

    #: True: as `http_user`, and `message.http_session` is that session.
    http_user_and_session = False

    #: Kept from Channels 1.x: the events of a socket are always handled in order, one at a time.
    strict_ordering = False
    slight_ordering = False

    #: Groups for every socket of this class, unless `connection_groups` is overridden.
    groups = None

    def get_handler(self, message, **kwargs):
        handler = super().get_handler(message, **kwargs)
        if self.http_user_and_session:
            return channel_and_http_session(_user_decorator(message)(handler))
        if self.http_user:
            return _user_decorator(message)(remembered_http_session(handler))
        return handler

    # Connecting and disconnecting.

    def connection_groups(self, **kwargs):
        """The groups this socket joins on connect and leaves on disconnect (a list of names)."""
        return self.groups or []

    def raw_connect(self, message, **kwargs):
        """Join the groups, then `connect`."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).add(message.reply_channel)
        self.connect(message, **kwargs)

    def connect(self, message, **kwargs):
        """Called for the handshake. Accepts; an override may refuse with `close`."""
        message.reply_channel.send({"accept": True})

    def raw_disconnect(self, message, **kwargs):
        """Leave the groups, then `disconnect`."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).discard(message.reply_channel)
        self.disconnect(message, **kwargs)

    def disconnect(self, message, **kwargs):
        """Called when the socket has closed."""

    # Frames.

    def raw_receive(self, message, **kwargs):
        """Call `receive` with the frame, as text or as bytes."""
        if message.get("text") is not None:
            self.receive(text=message["text"], **kwargs)
        else:
            self.receive(bytes=message["bytes"], **kwargs)

    def receive(self, text=None, bytes=None, **kwargs):
        """Called for each frame, with one of `text` (text) and `bytes` (bytes)."""

    def send(self, text=None, bytes=None, close=False):
        """
        Send a frame to this socket, then close it where `close` is True or a close code.

        Raises ValueError without `text` or `bytes`.
        """
        self.message.reply_channel.send(_frame(text, bytes, close))

    @classmethod
    def group_send(cls, name, text=None, bytes=None, close=False):
        """Send a frame to every socket in the group `name`; arguments as for `send`."""
        Group(name).send(_frame(text, bytes, close))

    def close(self, status=None):
        """Close this socket, with the code `status` (int) or 1000. During connect: refuse it."""
        self.message.reply_channel.send({"close": status or True})

    @property
    def path(self):
        """The URL path of this socket (text)."""
        return self.message["path"]


def _user_decorator(message):
    """Cookies come with the handshake alone; after it the channel session knows the user."""
    if message.channel.name == "websocket.connect":
        return channel_session_user_from_http
    return channel_session_user


def _frame(text, bytes, close):
    if text is None and bytes is None:
        raise ValueError("A frame needs text or bytes; to close the socket alone, use close().")
    frame = {"text": text} if text is not None else {"bytes": bytes}
    if close:
        frame["close"] = close
    return frame


class JsonWebsocketConsumer(WebsocketConsumer):
    """
    A WebsocketConsumer whose frames are JSON text.

    `receive` gets the decoded `content`, `send` and `group_send` take what is to be encoded.
    """

    def raw_receive(self, message, **kwargs):
        if message.get("text") is None:
            raise ValueError("A JSON socket takes text frames, and this one is binary.")
        self.receive(self.decode_json(message["text"]), **kwargs)

    def receive(self, content, **kwargs):
        """Called for each frame with its decoded `content`."""

    def send(self, content, close=False):
        """Send `content` to this socket as JSON, then close it where `close` is True or a code."""
        super().send(text=self.encode_json(content), close=close)

    @classmethod
    def group_send(cls, name, content, close=False):
        """Send `content` as JSON to every socket in the group `name`."""
        super().group_send(name, text=cls.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text):
        """The value that `text` encodes. Raises ValueError for what is not JSON."""
        return json.loads(text)

    @classmethod
    def encode_json(cls, content):
        """`content` as JSON text; besides JSON's own types, what Django's encoder takes."""
        return encode_json(content)


encode_json = DjangoJSONEncoder().encode


class WebsocketMultiplexer:
    """
    One stream of a demultiplexed socket, passed to its consumer as `multiplexer`.

    `stream` is its name, `reply_channel` the socket's Channel, `demultiplexer` the consumer that
    split the frames.
    """

    demultiplexer = None

    def __init__(self, stream, reply_channel):
        self.stream = stream
        self.reply_channel = reply_channel

    def send(self, payload):
        """Send `payload` to the socket, on this stream."""
        self.reply_channel.send(self.encode(self.stream, payload))

    @classmethod
    def encode_json(cls, content):
        """`content` as JSON text. Override for another encoder."""
        return encode_json(content)

    @classmethod
    def encode(cls, stream, payload, close=False):
        """The message that sends `payload` on `stream`; with `close` (True or a code), the last."""
        return _frame(cls.encode_json({"stream": stream, "payload": payload}), None, close)

    @classmethod
    def group_send(cls, name, stream, payload, close=False):
        """Send `payload` on `stream` to every socket in the group `name`."""
        Group(name).send(cls.encode(stream, payload, close))


class WebsocketDemultiplexer(JsonWebsocketConsumer):
    """
    Several consumers behind one socket, each with a stream of its own.

    `consumers` maps stream names to consumers (usually JsonWebsocketConsumer classes). Each gets
    the handshake, the frames of its stream as a direct connection would bring them, and the
    disconnect, always with the keyword argument `multiplexer`.
    """

    consumers = {}
    multiplexer_class = WebsocketMultiplexer

    def connect(self, message, **kwargs):
        """Hand the handshake to every stream's consumer, then accept (unless one has refused)."""
        self._to_every_stream(message, kwargs)
        super().connect(message, **kwargs)

    def disconnect(self, message, **kwargs):
        """Hand the disconnect to every stream's consumer."""
        self._to_every_stream(message, kwargs)

    def receive(self, content, **kwargs):
        """
        Hand the frame to its stream's consumer.

        Raises ValueError for a frame without `stream` and `payload`, or for a stream nobody has.
        """
        if not isinstance(content, dict) or "stream" not in content or "payload" not in content:
            raise ValueError("A frame of a demultiplexed socket is {stream: …, payload: …}.")
        stream = content["stream"]
        if not isinstance(stream, str) or stream not in self.consumers:
            raise ValueError(
                "There is no stream %r: %s.consumers has %s."
                % (stream, type(self).__name__, ", ".join(sorted(self.consumers)) or "none")
            )
        # The same Message, so that user, sessions and whatever else was set on it stay.
        message, frame = self.message, self.message.content
        message.content = dict(frame, text=self.encode_json(content["payload"]))
        try:
            self._to_stream(stream, message, kwargs)
        finally:
            message.content = frame

    def send(self, *args, **kwargs):
        """Not available: a stream's consumer sends through its `multiplexer`."""
        raise SendNotAvailableOnDemultiplexer()

    @classmethod
    def group_send(cls, name, stream, payload, close=False):
        """Send `payload` on `stream` to every socket in the group `name`."""
        cls.multiplexer_class.group_send(name, stream, payload, close)

    @classmethod
    def encode(cls, stream, payload, close=False):
        """The message that sends `payload` on `stream`: for `Group.send` and `Channel.send`."""
        return cls.multiplexer_class.encode(stream, payload, close)

    def _to_every_stream(self, message, kwargs):
        for stream in self.consumers:
            self._to_stream(stream, message, kwargs)

    def _to_stream(self, stream, message, kwargs):
        multiplexer = self.multiplexer_class(stream, self.message.reply_channel)
        multiplexer.demultiplexer = self
        self.consumers[stream](message, multiplexer=multiplexer, **kwargs)

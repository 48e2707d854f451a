"""
Message: what a consumer is called with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ItemsView, Iterator, KeysView, ValuesView

from .channel import Channel
from .habits import add_missing, without_missing
from .outbox import pending_message_store  # noqa: F401  (as in 1.1)
from .protocol import (
    REPLY_CHANNEL,
    WEBSOCKET_CONNECT,
    WEBSOCKET_RECEIVE,
    SessionPatch,
    event_keys,
)

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer
    from .sessions import ChannelSession


class MissingKey(KeyError):
    """A consumer asked a message for a key that it lacks. The text says which keys it has."""

    def __init__(self, key: str, message: Message) -> None:
        super().__init__(key)
        self._text = (
            "%r: a message on %s has the keys %s. If this one may lack it, use message.get(%r)."
            % (
                key,
                message.channel_name,
                ", ".join(sorted(map(str, message.content))),
                key,
            )
        )
        if message.channel_name == WEBSOCKET_RECEIVE and key in event_keys(WEBSOCKET_CONNECT):
            self._text += (
                " Only websocket.connect has it: keep it in message.channel_session there."
            )

    def __str__(self) -> str:
        return self._text


class Message:
    """
    One event, as a consumer sees it: a mapping over `content` (dict), with the channel it came on.

    `channel_layer` is the layer that it came from and that replies go to. `event_id` is the number of the
    event on its connection, or None for a message that a gateway didn't send. Belongs to the thread that
    runs the consumer.
    """

    #: A class attribute, because most messages of tests and site code lack an event id.
    event_id: int | None = None

    #: The Worker that handles it, or None outside of one.
    worker: Any = None

    #: The view that `async_views` guessed, None if no URL matched, or False if it made no guess.
    guessed_view: Any = False

    #: Whether a gateway reads the replies while the consumer runs. The test client doesn't.
    is_read: bool = True

    #: Whether Django's handler has sent `request_started` for it, and sends or has sent `request_finished`.
    is_signalled: bool = False

    #: Whether a view has made the response to it. The message can't be requeued after that.
    has_response: bool = False

    # Set by the decorators of `auth` and `sessions`, and missing without them.
    user: Any
    http_session: Any

    def __init__(
        self,
        content: dict[str, Any],
        channel_name: str,
        channel_layer: BaseChannelLayer,
        event_id: int | None = None,
        session_data: dict[str, Any] | None = None,
    ) -> None:
        self.content = content
        self.channel_layer = channel_layer
        #: The name of the channel that it came on.
        self.channel_name = channel_name
        self._reply_channel: Channel | None = None
        self._channel_session: ChannelSession | None = None
        self._session_data = session_data
        if event_id is not None:
            self.event_id = event_id

    @property
    def channel(self) -> Channel:
        """The Channel that it came on."""
        return Channel(self.channel_name, channel_layer=self.channel_layer)

    @property
    def reply_channel(self) -> Channel:
        """
        The Channel of the client, or None if no client waits for an answer.

        Its type leaves None out, because all events of a client have one.
        """
        if self._reply_channel is None:
            name = self.content.get(REPLY_CHANNEL)
            if name is None:
                return None  # type: ignore[return-value]  # see above
            self._reply_channel = Channel(name, channel_layer=self.channel_layer)
        return self._reply_channel

    @reply_channel.setter
    def reply_channel(self, channel: Channel | None) -> None:
        self._reply_channel = channel

    @property
    def channel_session(self) -> Any:
        """
        The session of the connection (a `sessions.ChannelSession`), or None for a message without a reply
        channel. It came with the event, and goes back when the consumer ends.
        """
        if self._channel_session is None and self.content.get(REPLY_CHANNEL):
            from .sessions import ChannelSession

            self._channel_session = ChannelSession(
                self._session_data or {}, self.content[REPLY_CHANNEL]
            )
        return self._channel_session

    @channel_session.setter
    def channel_session(self, session: Any) -> None:
        self._channel_session = session

    def session_patch(self) -> SessionPatch | None:
        """
        Return what the consumer changed in the session, for the gateway to merge; None for nothing. Raises
        InvalidMessage for a value that no layer carries.
        """
        patch = getattr(self._channel_session, "patch", None)
        return patch() if patch is not None else None

    def __getitem__(self, key: str) -> Any:
        try:
            return self.content[key]
        except KeyError:
            raise MissingKey(key, self) from None

    def __setitem__(self, key: str, value: Any) -> None:
        self.content[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __dir__(self) -> list[str]:
        return without_missing(self, super().__dir__())

    def __repr__(self) -> str:
        return "<Message on %s: %s>" % (self.channel_name, ", ".join(sorted(self.content)))

    def keys(self) -> KeysView[str]:
        return self.content.keys()

    def values(self) -> ValuesView[Any]:
        return self.content.values()

    def items(self) -> ItemsView[str, Any]:
        return self.content.items()

    def get(self, key: str, default: Any = None) -> Any:
        return self.content.get(key, default)

    def copy(self) -> Message:
        """Return a Message with a shallow copy of the content, of the same connection and session."""
        copy = Message(
            self.content.copy(),
            self.channel_name,
            self.channel_layer,
            self.event_id,
            self._session_data,
        )
        copy._reply_channel = self._reply_channel
        copy._channel_session = self._channel_session
        copy.worker = self.worker
        return copy


add_missing(Message)

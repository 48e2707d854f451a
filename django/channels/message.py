"""
Message: what a consumer is called with.
"""

from .channel import Channel
from .outbox import pending_message_store  # noqa: F401  (where Channels 1.1 has it)


class Message:
    """
    One event, as a consumer sees it: a mapping over `content` (dict), with the channel it came on.

    `channel_layer` is where it came from and where answers go. `exchange` is the number of the event on
    its connection, or None for a message that is not a gateway's.
    """

    exchange = None

    def __init__(self, content, channel_name, channel_layer, exchange=None, session_data=None):
        self.content = content
        self.channel_layer = channel_layer
        self._channel_name = channel_name
        self._reply_channel = None
        self._channel_session = None
        self._session_data = session_data
        if exchange is not None:
            self.exchange = exchange

    @property
    def channel(self):
        """The Channel it came on."""
        return Channel(self._channel_name, channel_layer=self.channel_layer)

    @property
    def reply_channel(self):
        """The Channel of the client, or None where nobody awaits an answer."""
        if self._reply_channel is None:
            name = self.content.get("reply_channel")
            if name is None:
                return None
            self._reply_channel = Channel(name, channel_layer=self.channel_layer)
        return self._reply_channel

    @reply_channel.setter
    def reply_channel(self, channel):
        self._reply_channel = channel

    @property
    def channel_session(self):
        """
        The session of the connection: it came with the event, and goes back when the consumer ends.

        A `sessions.ChannelSession`; for a message without a reply channel, None.
        """
        if self._channel_session is None and self.content.get("reply_channel"):
            from .sessions import ChannelSession

            self._channel_session = ChannelSession(
                self._session_data or {}, self.content["reply_channel"]
            )
        return self._channel_session

    @channel_session.setter
    def channel_session(self, session):
        self._channel_session = session

    def session_patch(self):
        """What the consumer changed in the session, for the gateway to merge; None if nothing."""
        patch = getattr(self._channel_session, "patch", None)
        return patch() if patch is not None else None

    def __getitem__(self, key):
        return self.content[key]

    def __setitem__(self, key, value):
        self.content[key] = value

    def __contains__(self, key):
        return key in self.content

    def __iter__(self):
        return iter(self.content)

    def __len__(self):
        return len(self.content)

    def __repr__(self):
        return "<Message on %s: %s>" % (self._channel_name, ", ".join(sorted(self.content)))

    def keys(self):
        return self.content.keys()

    def values(self):
        return self.content.values()

    def items(self):
        return self.content.items()

    def get(self, key, default=None):
        return self.content.get(key, default)

    def copy(self):
        """A Message with a content of its own (a shallow copy), of the same connection and session."""
        copy = Message(
            self.content.copy(),
            self._channel_name,
            self.channel_layer,
            self.exchange,
            self._session_data,
        )
        copy._reply_channel = self._reply_channel
        copy._channel_session = self._channel_session
        return copy

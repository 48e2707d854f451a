"""
Channel and Group: how code sends.

Inside a consumer a send is held until the consumer ends; elsewhere, or with `immediately=True`, it
leaves at once.
"""

from django.db import connection

from .compat import on_commit as on_commit_of
from .layers.names import check_channel_name, check_group_name
from .outbox import TO_CHANNEL, TO_GROUP, PendingSend, outbox
from .protocol import drop_control_keys


class _Target:
    """What Channel and Group share: a name, a layer, and when a send leaves."""

    def __init__(self, name, alias="default", channel_layer=None):
        self.name = self._check(name)
        if channel_layer is None:
            from .asgi import channel_layers

            channel_layer = channel_layers[alias]
        self.channel_layer = channel_layer

    def send(self, content, immediately=False, on_commit=None):
        """
        Send `content` (dict). A bad message raises here: see `BaseChannelLayer.send` for the errors.

        It leaves when the consumer that runs in this thread ends; at once where there is none, or with
        `immediately`. With `on_commit`, inside `transaction.atomic()` of the default database, it leaves
        when that commits, and never if it rolls back (Django 1.9 or newer). None is as the layer has it by
        default (`sends_on_commit`). The keys that gateways and workers use among themselves are ignored,
        so that what a client sent may be passed on.
        """
        message = self.channel_layer.check_message(content)
        drop_control_keys(message, self.name)
        if on_commit is None:
            on_commit = self.channel_layer.sends_on_commit
        if on_commit and connection.in_atomic_block:
            on_commit_of(lambda: self._leave(message, immediately))
        else:
            self._leave(message, immediately)

    def _leave(self, message, immediately):
        pending = outbox.pending
        if pending is None or immediately:
            self._deliver(self.name, message)
        else:
            pending.append(PendingSend(self.channel_layer, self._kind, self.name, message))

    def __str__(self):
        return self.name

    def __repr__(self):
        return "<%s %s>" % (type(self).__name__, self.name)

    def __eq__(self, other):
        return type(other) is type(self) and other.name == self.name

    def __hash__(self):
        return hash(self.name)


class Channel(_Target):
    """A channel by name, on the layer of `alias` or on `channel_layer`."""

    _kind = TO_CHANNEL
    _check = staticmethod(check_channel_name)

    def _deliver(self, name, message):
        self.channel_layer.deliver(name, message)


class Group(_Target):
    """A group of channels by name: what is sent to it reaches each member."""

    _kind = TO_GROUP
    _check = staticmethod(check_group_name)

    def add(self, channel):
        """Add `channel` (a Channel or its name), at once."""
        self.channel_layer.group_add(self.name, getattr(channel, "name", channel))

    def discard(self, channel):
        """Remove `channel` (a Channel or its name), at once."""
        self.channel_layer.group_discard(self.name, getattr(channel, "name", channel))

    def channels(self):
        """The names of the members, in no particular order."""
        return self.channel_layer.group_channels(self.name)

    def _deliver(self, name, message):
        self.channel_layer.deliver_group(name, message)

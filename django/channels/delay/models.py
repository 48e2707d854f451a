"""The messages that wait, and how one of them is sent exactly when due, by one process."""

import json
from datetime import timedelta

from django.db import models
from django.utils import timezone

from ..channel import Channel

#: After this time a message that a process took and did not send may be taken by another one.
CLAIM = timedelta(seconds=60)


class DelayedMessageQuerySet(models.QuerySet):
    def is_due(self):
        """The messages whose time has come, the oldest first."""
        return self.filter(due_date__lte=timezone.now()).order_by("due_date", "pk")


class DelayedMessage(models.Model):
    """A message for `channel_name`, to be sent at `due_date`."""

    due_date = models.DateTimeField(db_index=True, default=timezone.now)
    channel_name = models.CharField(max_length=100)
    content = models.TextField()

    objects = DelayedMessageQuerySet.as_manager()

    @property
    def delay(self):
        """Milliseconds from now until it is due (int). Set it to say when."""
        return int((self.due_date - timezone.now()) / timedelta(milliseconds=1))

    @delay.setter
    def delay(self, milliseconds):
        self.due_date = timezone.now() + timedelta(milliseconds=milliseconds)

    @property
    def message(self):
        """The message itself (a dict) of what JSON can hold; a TypeError says what it cannot."""
        return json.loads(self.content)

    @message.setter
    def message(self, content):
        self.content = json.dumps(content)

    def send(self, channel_layer=None, requeue_delay=1000):
        """
        Send it, and delete it. Returns whether it was sent.

        Nothing is sent where another process has taken it. One that cannot be sent, because its
        channel is full or the layer out of reach, is due again after `requeue_delay` milliseconds.
        Should the process die in between, it is due again after a minute: sent at least once.
        """
        channel = Channel(self.channel_name, channel_layer=channel_layer)
        claim = type(self).objects.filter(pk=self.pk, due_date=self.due_date)
        if not claim.update(due_date=timezone.now() + CLAIM):
            return False
        try:
            channel.send(self.message, immediately=True)
        except (channel.channel_layer.ChannelFull, channel.channel_layer.LayerUnavailable):
            self.delay = requeue_delay
            self.save(update_fields=["due_date"])
            return False
        self.delete()
        return True

    def __str__(self):
        return "%s at %s" % (self.channel_name, self.due_date)

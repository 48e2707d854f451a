"""Delayed messages, and how one process sends each of them when it is due."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..channel import Channel
from ..layers.messages import check_nesting

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer

#: If a process took a message and didn't send it within this time, another process may take it.
CLAIM = timedelta(seconds=60)


class DelayedMessageQuerySet(models.QuerySet):
    def is_due(self) -> Any:
        """Return the messages that are due (a QuerySet), the oldest first."""
        return self.filter(due_date__lte=timezone.now()).order_by("due_date", "pk")


class DelayedMessage(models.Model):
    """A message for `channel_name`, to be sent at `due_date`."""

    due_date = models.DateTimeField(_("due date"), db_index=True, default=timezone.now)
    channel_name = models.CharField(_("channel name"), max_length=512)
    content = models.TextField(_("content"))

    objects = DelayedMessageQuerySet.as_manager()

    class Meta:
        # The table of Channels 1.1, where the app's label was "channels.delay". See the migration.
        db_table = "channels.delay_delayedmessage"
        verbose_name = _("delayed message")
        verbose_name_plural = _("delayed messages")

    @property
    def delay(self) -> int:
        """Milliseconds from now until it is due (int). Set it to change `due_date`."""
        return int((self.due_date - timezone.now()) / timedelta(milliseconds=1))

    @delay.setter
    def delay(self, milliseconds: int) -> None:
        self.due_date = timezone.now() + timedelta(milliseconds=milliseconds)

    @property
    def message(self) -> dict[str, Any]:
        """The message (a dict). Setting it raises TypeError for a value that JSON cannot hold."""
        check_nesting(self.content)
        return cast("dict[str, Any]", json.loads(self.content))

    @message.setter
    def message(self, content: dict[str, Any]) -> None:
        self.content = json.dumps(content)

    def send(
        self, channel_layer: BaseChannelLayer | None = None, requeue_delay: int = 1000
    ) -> bool:
        """
        Send it, and delete it. Return whether it was sent.

        Nothing is sent if another process has taken it. If its channel is full or the layer cannot be
        reached, it is due again after `requeue_delay` milliseconds. If the process dies in between, it is
        due again after a minute, so it is sent at least once.
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

    def __str__(self) -> str:
        return "%s at %s" % (self.channel_name, self.due_date)

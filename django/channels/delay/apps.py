"""The app of delayed messages, under the label "channels_delay"."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DelayConfig(AppConfig):
    name = __package__
    label = "channels_delay"
    verbose_name = _("Channels: delayed messages")
    # Keeps one migration right on every Django, whatever the project's DEFAULT_AUTO_FIELD.
    default_auto_field = "django.db.models.AutoField"

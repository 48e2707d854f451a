"""The app of channels, under the label "channels" in the patched Django and as the add-on."""

from __future__ import annotations

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    name = __package__
    label = "channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        from django.conf import settings

        from .log import add_last_resort

        add_last_resort(settings)
        from . import (
            checks,  # noqa: F401  (registers the system checks)
            signals,  # noqa: F401  (connects the release of database connections)
        )

"""
The app of the database layer's tables, under the label "channels_database". Its migration
runs the SQL in sql/.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DatabaseLayerConfig(AppConfig):
    name = __package__
    label = "channels_database"
    verbose_name = _("Channels: the database layer")

    def ready(self) -> None:
        from .connections import remember_names

        remember_names()

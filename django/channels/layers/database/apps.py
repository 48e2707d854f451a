"""
The app of the database layer's tables, under the label "channels_database". It has no models: SQL
only.
"""

from django.apps import AppConfig


class DatabaseLayerConfig(AppConfig):
    name = __package__
    label = "channels_database"
    verbose_name = "Channels: the database layer"

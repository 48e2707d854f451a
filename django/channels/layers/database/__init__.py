"""
The channel layer in a database. It is a separate app, so that sites with another layer get no tables.

Add this package to INSTALLED_APPS, run `manage.py migrate`, and name `DatabaseChannelLayer` as the
BACKEND. On SQLite the layer has its own file, and creates its tables itself.
"""

from .layer import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]

default_app_config = __package__ + ".apps.DatabaseLayerConfig"  # where Django does not find it

"""
The channel layer in a database: an app of its own, so that sites with another layer get no tables.

Add this package to INSTALLED_APPS, run `manage.py migrate`, and name `DatabaseChannelLayer` as the
BACKEND. On SQLite the layer keeps a file of its own, and makes its tables itself.
"""

from .layer import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]

default_app_config = __package__ + ".apps.DatabaseLayerConfig"  # until Django 3.1 goes

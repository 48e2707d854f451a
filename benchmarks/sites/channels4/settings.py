"""The peer: Channels 4 on the shared settings, with its in-memory layer."""

from site_settings import *  # noqa: F403

INSTALLED_APPS = ["channels"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

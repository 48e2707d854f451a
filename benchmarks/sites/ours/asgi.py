"""Ours as a site has it: the layer is the ASGI 3 application, its worker threads live in this process."""

import os

from channels.asgi import get_channel_layer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
channel_layer = get_channel_layer()

"""Ours on the database layer. BENCH_DATABASE is an entry of DATABASES, as JSON."""

import json
import os

from settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "channels.layers.database"]  # noqa: F405
DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.database.DatabaseChannelLayer",
        "ROUTING": "routing.routing",
    }
}

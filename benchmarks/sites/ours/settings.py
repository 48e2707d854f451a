"""Ours: this add-on on the shared settings, with its in-memory layer. BENCH_PLAIN=1: plain ASGI only."""

import os

from site_settings import *  # noqa: F403

INSTALLED_APPS = ["channels"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.memory.MemoryChannelLayer",
        "ROUTING": "routing.routing",
    }
}
if os.environ.get("BENCH_ASYNC"):
    CHANNEL_LAYERS["default"]["CONFIG"] = {"async_concurrency": int(os.environ["BENCH_ASYNC"])}
if os.environ.get("BENCH_PLAIN"):
    CHANNEL_LAYERS["default"]["GATEWAY"] = {"share_frames": False}

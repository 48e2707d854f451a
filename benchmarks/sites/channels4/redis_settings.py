"""The peer with channels_redis. BENCH_REDIS is the server's URL."""

import os

from settings import *  # noqa: F403

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # Enough that nothing is dropped: by default it keeps 100 messages for a process.
        "CONFIG": {
            "hosts": [os.environ.get("BENCH_REDIS", "redis://localhost")],
            "capacity": 100000,
        },
    }
}

"""Ours as several processes: the same site on the Redis layer. BENCH_REDIS is the server's URL."""

import os

from settings import *  # noqa: F403

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "asgi_redis.RedisChannelLayer",
        "ROUTING": "routing.routing",
        # Room for the handshakes of a thousand sockets at once.
        "CONFIG": {"hosts": [os.environ.get("BENCH_REDIS", "redis://localhost")], "capacity": 2000},
    }
}

"""The channel layer on Redis: the BACKEND "asgi_redis.RedisChannelLayer" of CHANNEL_LAYERS."""

from .contract import DeadLetter
from .former import RedisLocalChannelLayer, RedisSentinelChannelLayer
from .layer import RedisChannelLayer

__version__ = "2.0.0"

__all__ = [
    "DeadLetter",
    "RedisChannelLayer",
    "RedisLocalChannelLayer",
    "RedisSentinelChannelLayer",
]

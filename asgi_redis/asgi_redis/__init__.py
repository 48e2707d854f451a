"""The channel layer on Redis: the BACKEND "asgi_redis.RedisChannelLayer" of CHANNEL_LAYERS."""

from .layer import RedisChannelLayer
from .recovery import DeadLetter

__version__ = "2.0.0a1"

__all__ = ["DeadLetter", "RedisChannelLayer"]

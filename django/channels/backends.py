"""
What a BACKEND of CHANNEL_LAYERS names. Layers of other releases of Channels are refused, and the error
says which BACKEND to write instead.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from .imports import CannotImport, import_path
from .pages import see

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

MEMORY = __package__ + ".layers.memory.MemoryChannelLayer"
DATABASE = __package__ + ".layers.database.DatabaseChannelLayer"
REDIS = "asgi_redis.RedisChannelLayer"

#: Paths that settings for Channels 1.x may have, and the layer that takes their CONFIG here.
_SAME = {
    "asgiref.inmemory.ChannelLayer": MEMORY,
    "asgi_redis.core.RedisChannelLayer": REDIS,
    "asgi_redis.local.RedisLocalChannelLayer": "asgi_redis.RedisLocalChannelLayer",
    "asgi_redis.sentinel.RedisSentinelChannelLayer": "asgi_redis.RedisSentinelChannelLayer",
}

_ONE_PROCESS = "%r, if the server and its workers are one process" % MEMORY
_BETWEEN = "%r or %r, which carry messages between processes" % (DATABASE, REDIS)

#: The beginnings of the paths of layers that other releases and other packages have, and what to write.
_FORMER = {
    "asgiref.": "%s; otherwise %s" % (_ONE_PROCESS, _BETWEEN),
    "asgi_ipc.": _BETWEEN,
    "asgi_rabbitmq.": _BETWEEN,
    "asgi_amqp.": _BETWEEN,
    "channels.backends.": _BETWEEN,
    "channels.database_layer.": repr(DATABASE),
    "channels.layers.InMemoryChannelLayer": repr(MEMORY),
    "channels_postgres.": repr(DATABASE),
    "channels_rabbitmq.": _BETWEEN,
    "channels_redis.": repr(REDIS),
}

#: Of these, the beginnings that settings for Channels 1.x have.
_OF_CHANNELS_1 = ("asgi", "channels.backends.", "channels.database_layer.")

#: What to do about asgi_redis 1.x, whose classes have the same names. The registry has 1.x alone.
_UPGRADE = "pip install ./asgi_redis, in a checkout of this project (or a wheel built from it)"


class InvalidChannelLayerError(ImproperlyConfigured, ValueError):
    """CHANNEL_LAYERS doesn't describe a layer; the text says how to correct it."""


def import_backend(alias: str, entry: dict[str, Any]) -> type[BaseChannelLayer]:
    """Return the class that `entry` (CHANNEL_LAYERS[alias]) names. Raises InvalidChannelLayerError."""
    backend = entry.get("BACKEND") if isinstance(entry, dict) else None
    if not isinstance(backend, str):
        raise InvalidChannelLayerError(
            "CHANNEL_LAYERS[%r] lacks BACKEND: write the dotted path of a layer class, such as %r."
            % (alias, MEMORY)
        )
    backend = _SAME.get(backend, backend)
    for beginning, remedy in _FORMER.items():
        if backend.startswith(beginning):
            if REDIS in remedy:
                remedy += ". Install asgi_redis with: %s" % _UPGRADE
            page = "1" if beginning.startswith(_OF_CHANNELS_1) else "2"
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS[%r]: the BACKEND %r is a layer of another release of Channels, which "
                "cannot work here. Write %s. %s"
                % (alias, backend, remedy, see("topics/channels/from-channels-" + page))
            )
    return _checked(alias, backend, _import(alias, backend))


def _import(alias: str, backend: str) -> Any:
    try:
        return import_path(backend)
    except Exception as error:  # an old package on a new Python raises anything
        text = str(error)
        if not isinstance(error, CannotImport):
            text = "%s: %s" % (type(error).__name__, text)
        remedy = "check the path"
        if getattr(error, "is_raised", True):
            remedy = "correct what raised it"
        if backend.startswith("asgi_redis.") and not _has_our_asgi_redis():
            remedy = "install the layer with: " + _UPGRADE
        elif backend == "asgi_redis":
            remedy = "write %r" % REDIS
        raise InvalidChannelLayerError(
            "CHANNEL_LAYERS[%r]: the BACKEND %r cannot be imported (%s); %s."
            % (alias, backend, text, remedy)
        ) from error


def _has_our_asgi_redis() -> bool:
    """Return whether the asgi_redis that is imported is the one of this release."""
    from .layers.base import BaseChannelLayer

    found = getattr(sys.modules.get("asgi_redis"), "RedisChannelLayer", None)
    return isinstance(found, type) and issubclass(found, BaseChannelLayer)


def _checked(alias: str, backend: str, found: Any) -> type[BaseChannelLayer]:
    """Return a layer class. Raises InvalidChannelLayerError for what was imported instead of one."""
    from .layers.base import BaseChannelLayer

    if not (isinstance(found, type) and issubclass(found, BaseChannelLayer)):
        remedy = "derive the class from %s.layers.base.BaseChannelLayer, or write %s" % (
            __package__,
            _BETWEEN,
        )
        if backend.startswith("asgi_redis."):
            remedy = "asgi_redis 1.x is installed. Replace it with: " + _UPGRADE
        raise InvalidChannelLayerError(
            "CHANNEL_LAYERS[%r]: the BACKEND %r isn't a channel layer of this release: %s."
            % (alias, backend, remedy)
        )
    return found

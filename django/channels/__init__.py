"""
Channels: WebSockets, long-polling and background messages for Django, on plain synchronous code.

`django.channels` inside the patched Django, `channels` as the add-on: one source.
"""

import django

from .installation import settle

__version__ = "2.0.0a1"

settle(__name__)

if django.VERSION < (3, 2):  # later versions find the AppConfig by themselves
    default_app_config = __name__ + ".apps.ChannelsConfig"

_EXPORTS = {
    "Channel": "channel",
    "channel_layers": "asgi",
    "Group": "channel",
    "route": "routing",
    "route_class": "routing",
    "include": "routing",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    # Lazily, so that `import channels` works before the settings are.
    if name in _EXPORTS:
        from importlib import import_module

        value = getattr(import_module("." + _EXPORTS[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError("module %r has no attribute %r" % (__name__, name))

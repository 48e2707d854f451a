"""
Channels: WebSockets, long-polling and background messages for Django, on plain synchronous code.

One source for each name that it has: `__package__` says which one this is.
"""

import django

from .installation import prepare

__version__ = "1.2.0"

__all__ = ["Channel", "Group", "channel_layers", "include", "route", "route_class"]

if not prepare(__name__):
    from .old_python import unavailable

    globals().update((name, unavailable) for name in __all__)
    default_app_config = __name__ + ".old_python.InertConfig"
else:
    from .habits import install

    install()
    if django.VERSION < (3, 2):  # later versions find the AppConfig by themselves
        default_app_config = __name__ + ".apps.ChannelsConfig"

# Not the one of `typing`, and no annotations here: a Python that is too old must reach the check above.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from .asgi import channel_layers
    from .channel import Channel, Group
    from .routing import include, route, route_class
else:
    _MODULES = {
        "Channel": "channel",
        "Group": "channel",
        "channel_layers": "asgi",
        "include": "routing",
        "route": "routing",
        "route_class": "routing",
    }

    def __getattr__(name):
        # Lazily, so that `import channels` works before the settings are configured.
        if name in _MODULES:
            from importlib import import_module

            value = getattr(import_module("." + _MODULES[name], __name__), name)
            globals()[name] = value
            return value
        if name == "DEFAULT_CHANNEL_LAYER":
            from .moved import moved_names

            return moved_names(__name__, {name: "asgi.DEFAULT_LAYER_ALIAS"})(name)
        from .habits import former_names

        return former_names(__name__, frames=2)(name)

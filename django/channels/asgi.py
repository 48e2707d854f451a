"""
The layers that the settings name: `get_channel_layer()` for asgi.py, `channel_layers` for everything else.
"""

import threading

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

DEFAULT_LAYER_ALIAS = "default"

#: What a site without CHANNEL_LAYERS gets.
DEFAULT_CHANNEL_LAYERS = {
    DEFAULT_LAYER_ALIAS: {"BACKEND": __package__ + ".layers.memory.MemoryChannelLayer"}
}

#: Backend paths of Channels 1.x, and what they name here.
_FORMER_BACKENDS = {
    "asgiref.inmemory.ChannelLayer": ".layers.memory.MemoryChannelLayer",
}


class InvalidChannelLayerError(ImproperlyConfigured, ValueError):
    """CHANNEL_LAYERS does not describe a layer; the text says how to mend it."""


class ChannelLayerManager:
    """The layers of CHANNEL_LAYERS by alias, each made when it is first asked for. Thread-safe."""

    def __init__(self):
        self._layers = {}
        self._lock = threading.RLock()

    @property
    def configs(self):
        return getattr(settings, "CHANNEL_LAYERS", None) or DEFAULT_CHANNEL_LAYERS

    def make_backend(self, alias):
        """A new layer as `CHANNEL_LAYERS[alias]` describes it. Raises InvalidChannelLayerError."""
        return self._make(alias, self._entry(alias).get("CONFIG") or {})

    def make_test_backend(self, alias):
        """A new layer for tests, by TEST_CONFIG. Raises InvalidChannelLayerError without one."""
        config = self._entry(alias).get("TEST_CONFIG")
        if config is None:
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS[%r] has no TEST_CONFIG: add one, so that tests cannot touch the "
                "layer of the site." % alias
            )
        return self._make(alias, config)

    def _entry(self, alias):
        try:
            return self.configs[alias]
        except KeyError:
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS has no %r; it has: %s."
                % (alias, ", ".join(sorted(map(repr, self.configs))) or "nothing")
            ) from None

    def _make(self, alias, config):
        entry = self._entry(alias)
        layer_class = import_backend(alias, entry)
        try:
            layer = layer_class(**config)
        except TypeError as error:
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS[%r]: %s does not take this CONFIG: %s."
                % (alias, entry["BACKEND"], error)
            ) from error
        layer.alias = alias
        layer.routing = entry.get("ROUTING", [])
        return layer

    def set(self, alias, layer):
        """Put `layer` (or None) in place; returns what stood there, or None. For tests."""
        with self._lock:
            former = self._layers.pop(alias, None)
            if layer is not None:
                self._layers[alias] = layer
            return former

    def __getitem__(self, alias):
        layer = self._layers.get(alias)
        if layer is None:
            with self._lock:
                layer = self._layers.get(alias)
                if layer is None:
                    layer = self._layers[alias] = self.make_backend(alias)
        return layer

    def __contains__(self, alias):
        return alias in self.configs

    def __iter__(self):
        return iter(self.configs)


def import_backend(alias, entry):
    """The class that `entry` (CHANNEL_LAYERS[alias]) names. Raises InvalidChannelLayerError."""
    backend = entry.get("BACKEND") if isinstance(entry, dict) else None
    if not isinstance(backend, str):
        raise InvalidChannelLayerError(
            "CHANNEL_LAYERS[%r] has no BACKEND: write the dotted path of a layer class, such as %r."
            % (alias, DEFAULT_CHANNEL_LAYERS[DEFAULT_LAYER_ALIAS]["BACKEND"])
        )
    if backend in _FORMER_BACKENDS:
        backend = __package__ + _FORMER_BACKENDS[backend]
    try:
        return import_string(backend)
    except ImportError as error:
        remedy = "check the path"
        if backend.startswith("asgi_redis."):
            remedy = "install it with: pip install asgi_redis"
        raise InvalidChannelLayerError(
            "CHANNEL_LAYERS[%r]: the BACKEND %r cannot be imported (%s); %s."
            % (alias, backend, error, remedy)
        ) from error


channel_layers = ChannelLayerManager()


def get_channel_layer(alias=DEFAULT_LAYER_ALIAS):
    """
    The layer of `alias`, with Django set up: an ASGI 3 application for any server, and what a worker runs on.

    For a project's asgi.py, which sets DJANGO_SETTINGS_MODULE before it calls this.
    """
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup(**_setup_options())
    return channel_layers[alias]


def _setup_options():
    """Django 1.10 and newer must not set a script prefix at start-up: each request brings its own."""
    import django

    return {"set_prefix": False} if django.VERSION >= (1, 10) else {}

"""
The layers that the settings name: `get_channel_layer()` for asgi.py, `channel_layers` for everything else.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Dict, Iterator

from django.conf import settings
from django.core.signals import setting_changed
from django.views.decorators.debug import sensitive_variables

from .backends import MEMORY, import_backend
from .backends import InvalidChannelLayerError as InvalidChannelLayerError
from .log import shown
from .pages import see

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

DEFAULT_LAYER_ALIAS = "default"

#: CHANNEL_LAYERS: what each alias has under BACKEND, CONFIG, GATEWAY, TEST_CONFIG and ROUTING.
Configs = Dict[str, Dict[str, Any]]

#: What a site without CHANNEL_LAYERS gets.
DEFAULT_CHANNEL_LAYERS: Configs = {DEFAULT_LAYER_ALIAS: {"BACKEND": MEMORY}}


class ChannelLayerManager:
    """The layers of CHANNEL_LAYERS by alias, each made when it is first asked for. Thread-safe."""

    def __init__(self) -> None:
        self._layers: dict[str, BaseChannelLayer] = {}
        #: The layers that were made from the settings. A test has set the others.
        self._made: weakref.WeakSet[BaseChannelLayer] = weakref.WeakSet()
        self._lock = threading.RLock()
        #: How many overrides of CHANNEL_LAYERS by `override_settings` are in force.
        self.overrides = 0

    @property
    def configs(self) -> Configs:
        """The setting CHANNEL_LAYERS, or DEFAULT_CHANNEL_LAYERS if it is missing or empty."""
        return getattr(settings, "CHANNEL_LAYERS", None) or DEFAULT_CHANNEL_LAYERS

    def make_backend(self, alias: str) -> BaseChannelLayer:
        """Return a new layer as `CHANNEL_LAYERS[alias]` describes it. Raises InvalidChannelLayerError."""
        made: BaseChannelLayer = self._make(alias, self._entry(alias).get("CONFIG") or {})
        return made

    def make_test_backend(self, alias: str) -> BaseChannelLayer:
        """Return a new layer for tests, made by TEST_CONFIG. Raises InvalidChannelLayerError without one."""
        config = self._entry(alias).get("TEST_CONFIG")
        if config is None:
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS[%r] lacks TEST_CONFIG: add it, so that tests cannot touch the layer of the "
                "site. It has the options of a layer that only tests use: a CONFIG with another database or "
                "prefix. Or write TEST_RUNNER = '%s.test.runner.ChannelTestRunner': tests then use layers "
                "in memory. %s" % (alias, __package__, see("topics/channels/testing"))
            )
        made: BaseChannelLayer = self._make(alias, config)
        return made

    def _entry(self, alias: str) -> dict[str, Any]:
        try:
            return self.configs[alias]
        except (KeyError, TypeError):
            text = "CHANNEL_LAYERS has no %r; it has: %s." % (
                alias,
                ", ".join(sorted(map(repr, self.configs))) or "nothing",
            )
            if not isinstance(alias, str):
                text = (
                    "The second argument of Channel(name, alias) and Group(name, alias) is the alias of a "
                    "layer, not %s. A message goes to send({…}), and a member to add(channel)."
                    % shown(repr(alias))
                )
            # A server that runs the function itself gives it a scope.
            if isinstance(alias, dict) and "type" in alias:
                text = (
                    "The server runs get_channel_layer itself. In asgi.py, write "
                    "channel_layer = get_channel_layer(), with parentheses. %s"
                    % see("howto/deployment/asgi/index")
                )
            raise InvalidChannelLayerError(text) from None

    @sensitive_variables()  # type: ignore[untyped-decorator]  # a password, maybe
    def _make(self, alias: str, config: dict[str, Any]) -> BaseChannelLayer:
        entry = self._entry(alias)
        layer_class = import_backend(alias, entry)
        try:
            layer = layer_class(**config)
        except TypeError as error:
            raise InvalidChannelLayerError(
                "CHANNEL_LAYERS[%r]: %s does not take this CONFIG: %s."
                % (alias, entry["BACKEND"], str(error).rstrip("."))
            ) from error
        layer.alias = alias
        layer.routing = entry.get("ROUTING", [])
        layer.gateway_options = entry.get("GATEWAY")
        return layer

    def set(self, alias: str, layer: BaseChannelLayer | None) -> BaseChannelLayer | None:
        """
        Replace the layer of `alias` by `layer`. None makes the next access build it from the settings.
        Return the former layer, or None. For tests.
        """
        with self._lock:
            former = self._layers.pop(alias, None)
            if layer is not None:
                self._layers[alias] = layer
            return former

    def is_from_settings(self, layer: BaseChannelLayer) -> bool:
        """Return whether `layer` was made as the settings say. A test may have set another one."""
        return layer in self._made

    def made_in_memory(self) -> list[BaseChannelLayer]:
        """Return the layers that were made from the settings until now and live in this process only."""
        with self._lock:
            layers = list(self._layers.values())
        return [each for each in layers if each in self._made and not each.crosses_processes]

    def forget(self) -> None:
        """
        Close the layers that were made from the settings, except one that this process serves. The next
        access to each alias makes a new one. What a test has set stays.
        """
        with self._lock:
            made = {alias: each for alias, each in self._layers.items() if each in self._made}
            for alias in made:
                del self._layers[alias]
        for layer in made.values():
            if not layer.is_served:
                layer.close()

    def __getitem__(self, alias: str) -> BaseChannelLayer:
        try:
            layer = self._layers.get(alias)
        except TypeError:  # a dict: it can't be a key
            self._entry(alias)
            raise
        if layer is None:
            with self._lock:
                layer = self._layers.get(alias)
                if layer is None:
                    layer = self._layers[alias] = self.make_backend(alias)
                    self._made.add(layer)
        return layer

    def __contains__(self, alias: object) -> bool:
        return alias in self.configs

    def __iter__(self) -> Iterator[str]:
        return iter(self.configs)


channel_layers: ChannelLayerManager = ChannelLayerManager()


def _setting_changed(setting: str, **kwargs: Any) -> None:
    """Follow `override_settings` in a test."""
    if setting == "CHANNEL_LAYERS":
        channel_layers.overrides += 1 if kwargs.get("enter") else -1
        channel_layers.forget()


setting_changed.connect(_setting_changed, dispatch_uid=__name__)


def get_channel_layer(alias: str = DEFAULT_LAYER_ALIAS, http: Any = None) -> BaseChannelLayer:
    """
    Set Django up, and return the layer of `alias`: an ASGI 3 application for any server.

    For a project's asgi.py, which sets DJANGO_SETTINGS_MODULE before it calls this. `http` is a WSGI or ASGI
    application that answers requests in the server's process: only WebSockets use the layer then.
    """
    import django
    from django.apps import apps

    from .serving import log_start

    if not apps.ready:
        django.setup(**_setup_options())
    layer = channel_layers[alias]
    if not layer.is_served:
        layer.is_served = True
        log_start(layer)
    if http is not None:
        layer.http_application = http
    return layer


def _setup_options() -> dict[str, Any]:
    """
    Return the arguments of `django.setup()`. Django 1.10 and newer must not set a script prefix at start-up,
    because each request brings a different one.
    """
    import django

    return {"set_prefix": False} if django.VERSION >= (1, 10) else {}

"""System checks of CHANNEL_LAYERS: each problem is reported with its remedy."""

from __future__ import annotations

from typing import Any

from django.core.checks import Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

TAG = "channels"


def _layers() -> Any:
    from .asgi import channel_layers

    return channel_layers.configs


@register(TAG)
def check_channel_layers(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.E001 (CHANNEL_LAYERS), E002 (BACKEND), E003 (ROUTING), W001 (no default)."""
    from .asgi import import_backend
    from .routing import Router

    layers = _layers()
    if not isinstance(layers, dict) or not all(isinstance(each, dict) for each in layers.values()):
        return [
            Error(
                "CHANNEL_LAYERS is not a dict of dicts.",
                hint='Write CHANNEL_LAYERS = {"default": {"BACKEND": "…", "ROUTING": "…"}}.',
                id="channels.E001",
            )
        ]
    problems = []
    if "default" not in layers:
        problems.append(
            Warning(
                "CHANNEL_LAYERS has no 'default'.",
                hint="Channel and Group send on 'default' if they are given no alias: add it.",
                id="channels.W001",
            )
        )
    for alias, entry in sorted(layers.items()):
        try:
            import_backend(alias, entry)
        except ImproperlyConfigured as error:
            problems.append(
                Error(
                    str(error),
                    hint="BACKEND is the dotted path of a channel layer class.",
                    id="channels.E002",
                )
            )
        try:
            Router(entry.get("ROUTING", []))
        except ImproperlyConfigured as error:
            problems.append(
                Error(
                    "CHANNEL_LAYERS[%r]: %s" % (alias, error),
                    hint="ROUTING is the dotted path of a list of route() and include().",
                    id="channels.E003",
                )
            )
    return problems

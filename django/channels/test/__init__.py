"""
For tests of sites and of layers: test cases, clients, a live server, and the layer conformance suite.

The live server and the conformance suite are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import ChannelTestCase, Client, TransactionChannelTestCase, apply_routes
from .http import HttpClient, WSClient

__all__ = [
    "ChannelLiveServerTestCase",
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]


if TYPE_CHECKING:
    from .conformance import LayerConformance as LayerConformance  # noqa: F401
    from .liveserver import ChannelLiveServerTestCase
else:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        from ..habits import former_names

        if name == "ChannelLiveServerTestCase":
            return import_module(".liveserver", __name__).ChannelLiveServerTestCase
        if name == "ChannelTestCaseMixin":
            return import_module(".base", __name__).__getattr__(name)
        if not name.startswith("_"):
            conformance = import_module(".conformance", __name__)
            if hasattr(conformance, name):
                return getattr(conformance, name)
        return former_names(__name__, 2)(name)

"""
For tests of sites and of layers: test cases, clients, a live server, and the layer conformance suite.

What needs a server, or is of use to authors of layers alone, is imported when it is first asked for.
"""

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


def __getattr__(name):
    from importlib import import_module

    if name == "ChannelLiveServerTestCase":
        return import_module(".liveserver", __name__).ChannelLiveServerTestCase
    if not name.startswith("_"):
        conformance = import_module(".conformance", __name__)
        if hasattr(conformance, name):
            return getattr(conformance, name)
    raise AttributeError("module %r has no attribute %r" % (__name__, name))

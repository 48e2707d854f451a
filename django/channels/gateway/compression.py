"""
Have the server refuse compressed frames (permessage-deflate, RFC 7692). No module of a server is imported.

A frame of 64 kB can be 64 MB of text, and a server decompresses what it has read before the gateway sees any
of it. 20 clients cost a server 2 GB, although the gateway bounded all else. Daphne and granian never agree to
compression.
"""

from __future__ import annotations

import functools
from typing import Any

from .internals import COMPRESSION, HYPERCORN, usable


def allow_compression(allowed: bool) -> None:
    """
    Have uvicorn and Hypercorn refuse compression, or agree to it as they do by themselves, on the connections
    that they accept from now on. Do nothing without them.
    """
    for kind in usable(COMPRESSION):
        if not hasattr(kind, "channels_compression"):
            if kind.__module__ == HYPERCORN:
                kind.accept = _refusing_hypercorn(kind.accept)
            else:
                kind.__init__ = _refusing_uvicorn(kind.__init__)
        kind.channels_compression = allowed


def _refusing_uvicorn(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if not self.channels_compression:
            config.ws_per_message_deflate = False
        original(self, config, *args, **kwargs)

    return __init__


def _refusing_hypercorn(original: Any) -> Any:
    @functools.wraps(original)
    def accept(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.channels_compression:
            self.extensions = None  # what the client offers
        return original(self, *args, **kwargs)

    return accept

"""
Fork and exit: which layers of this process are told.

A forked child may not use its parent's connections, threads or locks. A process that ends says goodbye, so
that its leases need not run out.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Union

    from ..memory import MemoryChannelLayer
    from .layer import EngineLayer

    Layer = Union[EngineLayer, MemoryChannelLayer]

logger = logging.getLogger("django.channels.layers")

_layers: weakref.WeakSet[Layer] = weakref.WeakSet()


def register(layer: Layer) -> None:
    """Call `layer.after_fork()` in child processes, and `layer.leave()` when this process ends."""
    _layers.add(layer)


def _after_fork() -> None:
    for layer in list(_layers):
        layer.after_fork()


def leave_all() -> None:
    """Tell the layers of this process that it ends. Raises nothing. Happens by itself if Python exits."""
    for layer in list(_layers):
        try:
            layer.leave()
        except Exception:
            logger.debug("The layer %s was not left in order.", layer, exc_info=True)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(leave_all)

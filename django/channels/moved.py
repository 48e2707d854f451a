"""
Names of Channels 1.x that are elsewhere now. Using one warns (DeprecationWarning) and names its new place.

A module that had such names calls `moved_names` for its `__getattr__`. A module that is gone as a whole
(`channels.tests`, `channels.test.websocket`, `channels.utils`) calls `warn_moved` when it is imported.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any, Callable

PACKAGE = __package__


def warn_moved(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller's caller that `old` is deprecated, and to use `new`."""
    warnings.warn(
        "%s is deprecated: use %s instead." % (old, new), DeprecationWarning, stacklevel=stacklevel
    )


def moved_names(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """
    Return the `__getattr__` of `module`, whose old `names` are in other modules now.

    `names` maps an old name to the new one, as "module.name" relative to this package.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError("Module %r lacks the attribute %r." % (module, name))
        place, _, new = names[name].rpartition(".")
        value = getattr(import_module("." + place, PACKAGE), new)
        warn_moved("%s.%s" % (module, name), "%s.%s" % (PACKAGE, names[name]))
        return value

    return get

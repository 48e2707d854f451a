"""The old place of WSClient: it is in `channels.test`."""

from __future__ import annotations

from ..moved import warn_moved
from .http import WSClient  # noqa: F401

warn_moved(__name__, __package__)

"""The old place of `name_that_thing`: `consume.consumer_name` does its work."""

from __future__ import annotations

from .consume import consumer_name as name_that_thing  # noqa: F401
from .moved import warn_moved

warn_moved(__name__, __package__ + ".consume.consumer_name")

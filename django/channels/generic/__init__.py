"""Class-based consumers: `BaseConsumer` here, those for WebSockets in `generic.websockets`."""

from typing import TYPE_CHECKING

from .base import BaseConsumer

__all__ = ["BaseConsumer"]

if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

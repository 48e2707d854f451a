"""Class-based consumers: `BaseConsumer` here, those for WebSockets in `generic.websockets`."""

from .base import BaseConsumer

__all__ = ["BaseConsumer"]

"""Data binding: changes of models out to sockets, and from sockets into models."""

from .base import Binding

__all__ = ["Binding"]

"""Data binding: changes of models out to sockets, and from sockets into models."""

from typing import TYPE_CHECKING

from .base import Binding

__all__ = ["Binding"]

if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

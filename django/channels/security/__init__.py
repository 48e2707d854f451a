"""Checks that a connection passes before its consumer sees it."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

"""Channel layers: what carries the messages. The contract is in base.py; each other module is a layer."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

"""
Channel layers, which carry the messages.

    base.py     the contract of every layer
    memory.py   the layer inside one process; memory_inbox.py and delay.py belong to it
    database/   the layer on the site's database
    engine/     the rules of layers that cross processes. A layer of your own needs only a store under them:
                docs/topics/channels/write-a-layer.txt has a whole one to copy
    messages.py what a message may hold
    names.py    how channels and groups may be named
"""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from ..habits import former_names

    __getattr__ = former_names(__name__)

"""
What the gateway bounds in its server, for the connections that it accepts from now on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fragments import bound_uvicorn
from .heads import Heads, bound_heads
from .portions import parse_in_portions
from .reading import read_little_of_chunks

if TYPE_CHECKING:
    from .limits import Limits
    from .refusal import Refusals


def bound_servers(limits: Limits, refusals: Refusals) -> None:
    """Bound what a connection costs uvicorn or Daphne before the gateway learns of it."""
    bound_heads(Heads.of(limits, refusals.note_head))
    bound_uvicorn(refusals.note_frames)
    parse_in_portions()
    read_little_of_chunks()

"""
What the gateway bounds in its server, for the connections that it accepts from now on.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from ..pages import see
from .compression import allow_compression
from .ends import end_both_sides
from .fragments import bound_uvicorn
from .heads import Heads, bound_heads
from .http2 import bound_streams
from .internals import HTTP2, PIPELINES, report_unknown, usable
from .portions import parse_in_portions
from .reading import read_little_of_chunks
from .sansio import answer_handshakes

if TYPE_CHECKING:
    from .limits import Limits
    from .refusal import Refusals

logger = logging.getLogger("django.channels.gateway")


def bound_servers(limits: Limits, refusals: Refusals) -> None:
    """Bound what a connection costs the server before the gateway learns of it."""
    bound_heads(Heads.of(limits, refusals.note_head))
    answer_handshakes()  # within what counts frames, which may hold some of them back
    bound_uvicorn(refusals.note_frames)
    end_both_sides()
    allow_compression(limits.compression)
    parse_in_portions()
    bound_streams(refusals.note_streams)
    read_little_of_chunks()
    for _ in usable(PIPELINES):  # what pipelines.py reads of each request
        pass
    report_unknown()
    if sys.modules.get(HTTP2) is not None:
        logger.warning(
            "uvicorn serves HTTP/2 (--http2). The gateway doesn't bound what a connection of HTTP/2 costs "
            "uvicorn: a client that sends many small frames can hold up the others. Use a proxy for it. %s",
            see("howto/deployment/asgi/uvicorn"),
        )

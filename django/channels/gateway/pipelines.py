"""
Bound the requests that wait behind another one of their connection (pipelined requests).

uvicorn with httptools makes an object of some kilobytes for each, reads on whenever it has answered one, and
sets no bound: 11 MB of requests take 1.2 GB of memory. With h11, uvicorn parses a request only when the one
before is answered, but reads and keeps another 256 KB after each answer. Other servers, and uvicorn's zttp,
have bounds. A proxy passes on one at a time. No module of a server is imported.
"""

from __future__ import annotations

from typing import Any

from .internals import H11, HTTPTOOLS

#: Requests of one connection that may wait behind the one that is answered. No browser sends any.
MAX_PIPELINED = 32

#: Bytes of requests that h11 may keep unparsed behind the one that is answered.
MAX_UNPARSED = 512 * 1024


def has_too_many(receive: Any) -> bool:
    """
    Return whether more than MAX_PIPELINED requests, or MAX_UNPARSED bytes, wait behind the one that `receive`
    belongs to. They are dropped then, and the connection must be closed after the response. Call this when
    the request comes.
    """
    cycle = getattr(receive, "__self__", None)
    module = type(cycle).__module__
    if module == H11:
        return len(getattr(getattr(cycle, "conn", None), "trailing_data", (b"",))[0]) > MAX_UNPARSED
    if module != HTTPTOOLS:
        return False
    connection = getattr(getattr(cycle, "on_response", None), "__self__", None)
    waiting: Any = getattr(connection, "pipeline", ())
    if len(waiting) <= MAX_PIPELINED:
        return False
    waiting.clear()
    return True

"""
Bound the requests that wait behind another one of their connection (pipelined requests).

uvicorn with httptools makes an object of some kilobytes of each, reads on whenever it has answered one, and
sets no bound: 11 MB of requests cost 1.2 GB. Other servers parse a request when the one before is answered.
A proxy passes on one at a time. No module of a server is imported.
"""

from __future__ import annotations

from typing import Any

#: Requests of one connection that may wait behind the one that is answered. No browser sends any.
MAX_PIPELINED = 32


def has_too_many(receive: Any) -> bool:
    """
    Return whether more than MAX_PIPELINED requests wait behind the one that `receive` belongs to. They are
    dropped then, and the connection must be closed after the response. Call this when the request comes.
    """
    cycle = getattr(receive, "__self__", None)
    if type(cycle).__module__ != "uvicorn.protocols.http.httptools_impl":
        return False
    connection = getattr(getattr(cycle, "on_response", None), "__self__", None)
    waiting: Any = getattr(connection, "pipeline", ())
    if len(waiting) <= MAX_PIPELINED:
        return False
    waiting.clear()
    return True

"""
Wait for one event of a server without a task, where the server is known to allow it.
"""

from __future__ import annotations

from typing import Any, Callable

from .internals import CYCLE, H11, HTTPTOOLS


def receives_in_any_task(receive: Any) -> bool:
    """Return whether this is the `receive` of a server (uvicorn) that doesn't ask which task calls it."""
    kind = type(getattr(receive, "__self__", None))
    return (
        kind.__module__ in (HTTPTOOLS, H11)
        and kind.__qualname__ == CYCLE
        and receive.__func__ is kind.__dict__.get("receive")
    )


class Watch:
    """
    Runs a coroutine that waits for one event, without a task: most requests end before the event comes.
    Calls `callback(event)`, with None if the coroutine raises or does something unusual.
    """

    __slots__ = ("_callback", "_coroutine", "_future")

    def __init__(self, coroutine: Any, callback: Callable[[Any], None]) -> None:
        self._coroutine = coroutine
        self._callback = callback
        self._future: Any = None
        self._step()

    def _step(self, future: Any = None) -> None:
        if self._coroutine is None:
            return
        try:
            future = self._coroutine.send(None)
        except StopIteration as end:
            self._callback(end.value)
        except Exception:
            self._callback(None)
        else:
            if not getattr(future, "_asyncio_future_blocking", False):
                self._coroutine.close()
                self._callback(None)
                return
            future._asyncio_future_blocking = False
            self._future = future
            future.add_done_callback(self._step)

    def cancel(self) -> None:
        """Stop waiting. A call of `_step` may be on its way all the same."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            if self._future is not None:
                self._future.remove_done_callback(self._step)
            coroutine.close()

"""The warning that a test client has received what a gateway doesn't send to its client."""

from __future__ import annotations

import warnings
from typing import Any, Iterator

from ..gateway.handshake import has_data
from ..gateway.http import head_problem
from ..gateway.state import LOG
from ..gateway.websocket import WebSocket
from ..log import shown
from ..protocol import REPLIES
from .shared import level_of_test


def warn_of_refused(reply: dict[str, Any], path: str) -> None:
    """
    Warn if a gateway would log an error for `reply` to the client of `path`. It decides by the same code.
    """
    is_http = "status" in reply or "content" in reply
    for problem in _of_response(reply, path) if is_http else _of_frame(reply, path):
        warnings.warn(
            "%s A test client gets it anyway, but a real one doesn't." % problem,
            RuntimeWarning,
            stacklevel=level_of_test(),
        )


def warn_of_late(reply: dict[str, Any], path: str) -> None:
    """Warn if `reply` carries a frame for the client of `path`, whose socket is closed."""
    if has_data(reply):
        warnings.warn(
            "A reply to %s comes after the one that closes its socket. A test client gets it anyway, but a "
            "real one doesn't." % shown(path),
            RuntimeWarning,
            stacklevel=level_of_test(),
        )


def _of_frame(reply: dict[str, Any], path: str) -> Iterator[str]:
    socket = WebSocket("", path)
    for action in socket.reply({REPLIES: [{"accept": True}, reply]}):
        if action[:2] == (LOG, "error"):
            yield action[2] % tuple(shown(value) for value in action[3:])


def _of_response(reply: dict[str, Any], path: str) -> Iterator[str]:
    problem = head_problem(reply if "status" in reply else dict(reply, status=200))
    if problem:
        yield "The reply to %s %s." % (shown(path), problem)

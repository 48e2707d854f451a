"""
The lines in the log about the start and the end of a server's process. Thread-safe.

Which signal has ended the process is known to the server alone.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING
from weakref import WeakSet

from django.apps import apps

from .advice import is_test
from .log import process_logger, show_processes
from .pages import see

if TYPE_CHECKING:
    from .gateway.application import Gateway
    from .layers.base import BaseChannelLayer

#: The modules of gunicorn's worker classes for WSGI. It loads only the one that it runs.
_WSGI_WORKERS = {
    "gunicorn.workers." + each for each in ("geventlet", "ggevent", "gthread", "gtornado", "sync")
}

#: The gateways of this process, to count their connections at its end.
_gateways: WeakSet[Gateway] = WeakSet()

#: The processes whose end is logged. A server may fork after it has loaded the application.
_ended: set[int] = set()


def log_start(layer: BaseChannelLayer) -> None:
    """Log that this process serves `layer`, and have its end logged."""
    from django.conf import settings

    if is_test():
        return
    show_processes(settings)
    process_logger.info("Server process %d started, on the channel layer %s.", os.getpid(), layer)
    if not apps.is_installed(__package__):
        process_logger.warning(
            "%r isn't in INSTALLED_APPS, so manage.py check, runserver and runworker know nothing of the "
            "channel layers: runserver answers each WebSocket with 404. Add it.",
            __package__,
        )
    if not _WSGI_WORKERS.isdisjoint(sys.modules):
        process_logger.error(
            "gunicorn runs a worker class for WSGI, and a channel layer is an ASGI application, so each "
            "request fails. Start gunicorn with a worker class for ASGI. %s",
            see("howto/deployment/asgi/uvicorn"),
        )
    atexit.register(log_end)


def watch_end(gateway: Gateway) -> None:
    """Have the end of this process logged before the exit handlers that were registered until now."""
    if is_test():  # at the exit of a test run, nothing says any more that it was one
        return
    _gateways.add(gateway)
    atexit.register(log_end)


def log_end() -> None:
    """Log that this process ends, once, and what its gateways still have."""
    pid = os.getpid()
    if pid in _ended or is_test():
        return
    _ended.add(pid)
    found = [each for gateway in list(_gateways) for each in list(gateway.connections.values())]
    process_logger.info(
        "Server process %d ends: it has %d connections, of which %d wait for a worker.",
        pid,
        len(found),
        sum(each.state.in_flight is not None for each in found),
    )

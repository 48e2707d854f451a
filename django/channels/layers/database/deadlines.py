"""
Deadlines of statements: a connection whose server stays silent is cut, so that the caller gets an error.

The drivers wait without a limit for a server that is frozen, or behind a path that passes nothing. One thread
a process, "channels-deadline", cuts the sockets of such connections. It runs while there are connections.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ..engine.threads import start_thread

if TYPE_CHECKING:
    from .connections import Connection

#: Seconds between two checks of the deadlines.
INTERVAL = 0.25

#: Seconds of silence after which the kernel asks the other side, between two questions, and their number.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

#: Milliseconds for which what was sent may stay unconfirmed by the other side's kernel.
USER_TIMEOUT = 15000

_lock = threading.Lock()
_watched: weakref.WeakSet[Connection] = weakref.WeakSet()
_thread: threading.Thread | None = None


def watch(connection: Connection) -> None:
    """Cut `connection` from now on whenever its deadline has passed. Any thread may call it."""
    global _thread
    with open_socket(connection) as sock:
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in dict(KEEPALIVE, TCP_USER_TIMEOUT=USER_TIMEOUT).items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    with _lock:
        _watched.add(connection)
        if _thread is None or not _thread.is_alive():
            _thread = start_thread("channels-deadline", _run)


def forget(connection: Connection) -> None:
    """Watch `connection` no longer."""
    with _lock:
        _watched.discard(connection)


def after_fork() -> None:
    """Begin anew in a child process."""
    global _lock, _watched, _thread
    _lock, _watched, _thread = threading.Lock(), weakref.WeakSet(), None


def open_socket(connection: Connection) -> socket.socket:
    """Return the socket of a connection, to be closed: the connection's own stays open."""
    return socket.socket(fileno=os.dup(connection.descriptor))


def _run() -> None:
    global _thread
    while True:
        with _lock:
            found = list(_watched)
            if not found:
                _thread = None
                return
        now = time.monotonic()
        for connection in found:
            connection.cut_if_late(now)
        del found, connection
        time.sleep(INTERVAL)


def readable(*descriptors: int, timeout: float = 0.0) -> list[int]:
    """Return those of which there is something to read, or the end is closed, within `timeout` seconds."""
    if hasattr(select, "poll"):
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN | select.POLLPRI)
        return [descriptor for descriptor, _ in poll.poll(timeout * 1000)]
    return select.select(descriptors, [], [], timeout)[0]

"""TCP ports of this machine."""

import contextlib
import os
import random
import socket
import tempfile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: The lowest and the highest port that is given. The system gives clients other ports, so no connection takes
#: one of these before the server that is to listen there has started.
FIRST, LAST = 10000, 32767

#: A file of which each test process locks the bytes whose numbers are its ports, until it ends.
LOCKS = os.path.join(tempfile.gettempdir(), "channels-test-ports-%s" % getattr(os, "getuid", int)())

_random = random.SystemRandom()
_given = set()
_locks = []


def _take(port):
    """Return whether no other test process has `port`, which then is this one's for good."""
    if port in _given:
        return False
    if fcntl is not None:
        # A forked process doesn't have its parent's lock, so it opens the file again.
        if not _locks or _locks[0] != os.getpid():
            _locks[:] = [os.getpid(), os.open(LOCKS, os.O_RDWR | os.O_CREAT, 0o600)]
        try:
            fcntl.lockf(_locks[1], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
    _given.add(port)
    return True


def _is_free(family, host, port):
    with socket.socket(family, socket.SOCK_STREAM) as found:
        try:
            found.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host="127.0.0.1", offset=0):
    """Return a TCP port of `host` on which nothing listens, and that no other test is given.

    With `offset`, the port that many higher is free as well (a Redis Cluster node needs port + 10000).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as found:
        found.bind((host, 0))  # raises if this machine lacks the address
    while True:
        port = _random.randint(FIRST, LAST - offset)
        ports = {port, port + offset}
        if all(_is_free(family, host, each) for each in ports) and all(map(_take, ports)):
            return port


def can_connect(port, host="127.0.0.1"):
    """Return whether a process listens on that TCP port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def can_connect_to(path):
    """Return whether a process listens on the Unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as found:
        return found.connect_ex(path) == 0

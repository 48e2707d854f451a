"""TCP ports of this machine."""

import contextlib
import socket


def free_port(host="127.0.0.1", offset=0):
    """Return a TCP port of `host` on which nothing listens at the moment.

    With `offset`, the port that many higher is free as well (a Redis Cluster node needs port + 10000).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with contextlib.ExitStack() as stack:
            first, second = (
                stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(2)
            )
            first.bind((host, 0))
            port = first.getsockname()[1]
            if not offset:
                return port
            if port + offset < 2**16:
                with contextlib.suppress(OSError):
                    second.bind((host, port + offset))
                    return port


def can_connect(port, host="127.0.0.1"):
    """Return whether a process listens on that TCP port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True

"""
Pause the transport of a client, for a server that queues whatever it reads without a bound (Daphne).

The transport is Twisted's (twisted.internet.interfaces.ITransport and IPushProducer). Nothing of Twisted
is imported.
"""

from __future__ import annotations

from typing import Any


class PausedTransport:
    """
    A context manager: nothing is read from the client of `transport` inside. The end of the client is
    noticed afterwards, too. Belongs to the event loop, which is Twisted's reactor, too.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __enter__(self) -> None:
        self._transport.pauseProducing()

    def __exit__(self, *exc: object) -> None:
        self._transport.resumeProducing()

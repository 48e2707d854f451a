"""The old place of the test cases and clients: Channels 1.1 moved them to `channels.test`."""

from __future__ import annotations

from .moved import warn_moved
from .test import (  # noqa: F401
    ChannelTestCase,
    Client,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)

warn_moved(__name__, __package__ + ".test")

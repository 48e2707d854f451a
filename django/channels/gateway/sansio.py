"""
End the connections whose handshake uvicorn's protocol `websockets-sansio` doesn't pass on and doesn't answer.
No module of uvicorn is imported.

The library websockets refuses some handshakes by itself: those with a method other than GET, with more than
128 headers, or with a header of more than 8 KB, such as a long cookie. uvicorn doesn't send that answer, and
keeps the connection. If a client sends what isn't a frame before its handshake is answered, uvicorn raises
an error, and the event loop logs a traceback for each such client.
"""

from __future__ import annotations

import functools
from typing import Any

from .internals import HANDSHAKES, usable

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def answer_handshakes() -> None:
    """Answer such handshakes from now on. Do nothing without that protocol."""
    for protocol in usable(HANDSHAKES):
        if not hasattr(protocol.data_received, "channels_answers"):
            protocol.data_received = _answering(protocol.data_received)


def _answering(original: Any) -> Any:
    @functools.wraps(original)
    def data_received(self: Any, data: bytes) -> None:
        try:
            original(self, data)
        except AssertionError:
            if self.handshake_complete:
                raise
            self.transport.abort()
            return
        # The library may have another name for it.
        refusal = getattr(self.conn, "handshake_exc", None)
        if refusal is not None and not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()

    data_received.channels_answers = True  # type: ignore[attr-defined]
    return data_received

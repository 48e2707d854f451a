"""
Encode the frame of a group message once, and write it to the sockets of all members.

Under plain ASGI, the server encodes the frame again for each member. A frame without compression is the same
bytes for all of them (RFC 6455), even if a client negotiated compression (RFC 7692, section 6). For the
servers that this module knows, the gateway therefore encodes the frame itself and writes it to each
transport. It follows the server's own rules: it doesn't write while the transport is paused, or after the
closing handshake has begun. Uvicorn also gets frames for one socket in this way, unless the client negotiated
compression.

Everything else uses plain ASGI: another server, a subclass, a wrapped `send`, a missing attribute. This
module imports no server.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from types import CodeType
from typing import Any

from .daphne import SocketSend
from .internals import SANSIO, WEBSOCKETS, WSPROTO

#: The longest payload (bytes) that the gateway writes to a client that negotiated compression. The server
#: sends a longer one, because compressing it saves more than it costs.
MAX_UNCOMPRESSED = 1024

#: Uvicorn's protocol classes, and the name of the method that is ASGI's `send`.
_SENDS = {
    (SANSIO, "WebSocketsSansIOProtocol"): "send",
    (WSPROTO, "WSProtocol"): "send",
    (WEBSOCKETS, "WebSocketProtocol"): "asgi_send",
}

#: The protocol classes whose `send` writes a frame to the transport and does nothing else.
_PLAIN = ("WebSocketsSansIOProtocol", "WSProtocol")

#: The major versions that this module knows. Another version may count or remember what it sends.
_VERSIONS = {"uvicorn": ("0",), "daphne": ("3", "4")}

#: All names that the `send` of these two classes uses, in uvicorn 0.22 to 0.54. A `send` that uses another
#: name does something that this module doesn't know: it may count what it sends, or write in another way.
_NAMES = frozenset(
    """
    AcceptConnection ClientDisconnected CloseConnection FORBIDDEN HTTPStatus Headers InvalidState
    LocalProtocolError Message PerMessageDeflate RejectConnection RejectData Response RuntimeError
    STATUS_PHRASES WebSocketAcceptEvent WebSocketCloseEvent WebSocketResponseBodyEvent
    WebSocketResponseStartEvent WebSocketSendEvent append call_later cast close close_sent close_timeout
    close_timer config conn data_to_send decode default_headers disconnected email encode events formatdate
    get get_client_addr get_path_with_query_string handshake_complete headers info initial_response
    is_closing join len list logger loop lower put_nowait queue read_paused reject response
    response_started resume_reading scope send send_binary send_close send_response send_text setdefault
    start_keepalive str transport typing update utils wait writable write ws_per_message_deflate wsproto
    """.split()
)

#: Daphne's classes of a socket and of the server.
_DAPHNE = [("daphne.ws_protocol", "WebSocketProtocol"), ("daphne.server", "Server")]

#: The attributes of such a protocol that UvicornWriter reads.
_ATTRIBUTES = ("writable", "close_sent", "disconnected", "handshake_complete", "transport", "conn")

#: The opcodes of RFC 6455, with the bit of a final fragment.
_TEXT, _BINARY = 0x81, 0x82


class Frame:
    """A message that consists of one frame. All members of a group share the instance."""

    __slots__ = ("event", "_encoded", "_payload", "_prepared")

    def __init__(self, event: dict[str, Any]) -> None:
        #: The ASGI event. Members share it, so only servers that don't change it may get it.
        self.event = event
        self._payload: bytes | None = None
        self._encoded: bytes | None = None
        self._prepared: Any = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Frame | None:
        """Return `message` as a Frame, or None if it is more than one frame or something else."""
        if message.get("close"):
            return None
        text, data = message.get("text"), message.get("bytes")
        if isinstance(text, str):
            return cls({"type": "websocket.send", "text": text})
        if text is None and isinstance(data, bytes):
            return cls({"type": "websocket.send", "bytes": data})
        return None

    @property
    def payload(self) -> bytes:
        """The payload as bytes. It is empty for text without a UTF-8 form, which servers refuse."""
        if self._payload is None:
            data = self.event.get("bytes")
            try:
                self._payload = self.event["text"].encode() if data is None else data
            except UnicodeEncodeError:
                self._payload = b""
        return self._payload or b""

    @property
    def encoded(self) -> bytes:
        """The frame as bytes, without compression. Don't use it for an empty payload."""
        if self._encoded is None:
            opcode = _TEXT if "text" in self.event else _BINARY
            self._encoded = _head(opcode, len(self.payload)) + self.payload
        return self._encoded

    def prepared_by(self, factory: Any) -> Any:
        """Return the prepared message that `factory`, a factory of autobahn, makes of the frame."""
        if self._prepared is None:
            self._prepared = factory.prepareMessage(self.payload, isBinary="bytes" in self.event)
        return self._prepared


def _head(opcode: int, length: int) -> bytes:
    """Return the head of an unmasked frame."""
    if length < 126:
        return struct.pack("!BB", opcode, length)
    if length < 65536:
        return struct.pack("!BBH", opcode, 126, length)
    return struct.pack("!BBQ", opcode, 127, length)


class UvicornWriter:
    """Write frames to the transport of one socket of uvicorn. Belongs to its event loop."""

    __slots__ = ("_open", "_protocol")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._open = type(protocol.conn.state).OPEN

    def write(self, frame: Frame, is_shared: bool = True) -> bool:
        """
        Write `frame` and return True. Return False, without writing, if the server must send it: the socket
        can't take it now, or the server compresses and the frame is long or for this socket alone.
        """
        protocol = self._protocol
        connection, transport = protocol.conn, protocol.transport
        if (
            connection.state is not self._open
            or protocol.close_sent
            or protocol.disconnected
            or not protocol.handshake_complete
            or not protocol.writable.is_set()
            or transport.is_closing()
        ):
            return False
        length = len(frame.payload)
        if not length or (
            not (is_shared and length <= MAX_UNCOMPRESSED) and _may_compress(protocol)
        ):
            return False
        transport.write(frame.encoded)
        return True


def _may_compress(protocol: Any) -> bool:
    """Return whether the server may compress what it sends."""
    extensions = getattr(protocol.conn, "extensions", None)
    if extensions is None:  # wsproto's aren't public
        return bool(protocol.config.ws_per_message_deflate)
    return bool(extensions)


class DaphneWriter:
    """Write prepared messages of autobahn to one socket of Daphne. Belongs to the event loop."""

    __slots__ = ("_details", "_protocol", "_send")

    def __init__(self, send: SocketSend, protocol: Any) -> None:
        self._send = send
        self._protocol = protocol
        #: Daphne's dict about the connection. It has "disconnected" when the client has gone.
        self._details = protocol.server.connections[protocol]

    def write(self, frame: Frame, is_shared: bool = True) -> bool:
        """Write a shared `frame` and return True. Return False, without writing, if Daphne must send it."""
        protocol, length = self._protocol, len(frame.payload)
        if (
            not is_shared
            or not self._send.is_flowing
            or protocol.state != protocol.STATE_OPEN
            or self._details.get("disconnected") is not None
            or not length  # Daphne sends no empty message
            or 0 < protocol.maxMessagePayloadSize < length
        ):
            return False
        protocol.sendPreparedMessage(frame.prepared_by(protocol.factory))
        return True


def _is_known(package: str) -> bool:
    """Return whether this module knows the installed version of a server."""
    version = str(getattr(sys.modules.get(package), "__version__", ""))
    return version.partition(".")[0] in _VERSIONS[package]


@lru_cache(maxsize=16)
def _uses_only_known_names(code: CodeType) -> bool:
    """Return whether a function with this code, and the functions inside it, use only names of _NAMES."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return _NAMES.issuperset(code.co_names) and all(map(_uses_only_known_names, inner))


def _method_of(send: Any) -> tuple[Any, str]:
    """Return the protocol of uvicorn that `send` belongs to, and the name of its class, or (None, "")."""
    protocol = getattr(send, "__self__", None)
    kind = type(protocol)
    name = _SENDS.get((kind.__module__, kind.__qualname__))
    if name is None or getattr(send, "__func__", None) is not kind.__dict__.get(name):
        return None, ""
    return protocol, kind.__qualname__


def accepts_immediately(send: Any) -> bool:
    """
    Return whether `send` may be called in the task that runs, without a new one. The servers that this module
    knows don't depend on the current task, and don't change the event.
    """
    return type(send) is SocketSend or _method_of(send)[0] is not None


def direct_writer(send: Any) -> UvicornWriter | DaphneWriter | None:
    """Return a writer for the socket of `send`, or None if the caller must use plain ASGI."""
    try:
        if type(send) is SocketSend:
            protocol = send.protocol
            kinds = [
                (kind.__module__, kind.__qualname__)
                for kind in map(type, (protocol, protocol.server))
            ]
            if (
                not _is_known("daphne")
                or kinds != _DAPHNE
                or protocol.autoFragmentSize
                or not callable(protocol.sendPreparedMessage)
            ):
                return None
            return DaphneWriter(send, protocol)
        protocol, name = _method_of(send)
        if (
            name not in _PLAIN
            or not _is_known("uvicorn")
            or not _uses_only_known_names(send.__func__.__code__)
            or not all(hasattr(protocol, each) for each in _ATTRIBUTES)
        ):
            return None
        # With `debug`, the server logs each frame.
        if getattr(protocol.conn, "debug", False) or not callable(protocol.transport.write):
            return None
        return UvicornWriter(protocol)
    except (AttributeError, KeyError):
        return None

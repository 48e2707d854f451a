"""
Frames that the gateway encodes itself: once for all members of a group, where that is known to be safe.

ASGI has a server encode the frame of a group message once for each member. A frame that isn't compressed is
the same bytes for all of them (RFC 6455), also where compression was negotiated (RFC 7692, section 6). So
for the servers below, the gateway encodes it once, and writes it to each transport under the server's own
rules: not while the transport is paused, and not after the handshake of the close has begun. A frame for one
socket is written in the same way to uvicorn, unless the client negotiated compression.

Anything unfamiliar (another server, a subclass, a wrapped `send`, an attribute that is missing) gets plain
ASGI. This module imports no server.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from types import CodeType
from typing import Any

from .daphne import SocketSend

#: The longest payload (bytes) that is shared with a client which negotiated compression. A longer one is
#: left to the server, because compressing it saves more than it costs.
MAX_UNCOMPRESSED = 1024

#: Uvicorn's protocols: the class, and its method that is ASGI's `send`.
_UVICORN = "uvicorn.protocols.websockets."
_SENDS = {
    (_UVICORN + "websockets_sansio_impl", "WebSocketsSansIOProtocol"): "send",
    (_UVICORN + "wsproto_impl", "WSProtocol"): "send",
    (_UVICORN + "websockets_impl", "WebSocketProtocol"): "asgi_send",
}

#: Those whose `send` writes a frame to the transport and does nothing else.
_PLAIN = ("WebSocketsSansIOProtocol", "WSProtocol")

#: The first part of the versions that are known. Another one may keep other books about what it sends.
_VERSIONS = {"uvicorn": ("0",), "daphne": ("3", "4")}

#: All names that `send` of those two uses, in uvicorn 0.22 to 0.54. One that uses another name does something
#: that isn't known here: count what it sends, or write in another way.
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

#: What such a protocol has, and what its transport and its connection have.
_ATTRIBUTES = ("writable", "close_sent", "disconnected", "handshake_complete", "transport", "conn")

#: The opcodes of RFC 6455, with the bit of a final fragment.
_TEXT, _BINARY = 0x81, 0x82


class Frame:
    """A message that is nothing but a frame. All members of a group share one."""

    __slots__ = ("event", "_encoded", "_payload", "_prepared")

    def __init__(self, event: dict[str, Any]) -> None:
        #: The ASGI event. Servers get it as it is, so it goes only to those that don't change it.
        self.event = event
        self._payload: bytes | None = None
        self._encoded: bytes | None = None
        self._prepared: Any = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Frame | None:
        """Return the frame that `message` is. None if it is anything else, or more."""
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
        """The payload as bytes. Empty for a text that isn't valid UTF-8, which servers refuse."""
        if self._payload is None:
            data = self.event.get("bytes")
            try:
                self._payload = self.event["text"].encode() if data is None else data
            except UnicodeEncodeError:
                self._payload = b""
        return self._payload or b""

    @property
    def encoded(self) -> bytes:
        """The frame as bytes, without compression. Only for a payload that isn't empty."""
        if self._encoded is None:
            opcode = _TEXT if "text" in self.event else _BINARY
            self._encoded = _head(opcode, len(self.payload)) + self.payload
        return self._encoded

    def prepared_by(self, factory: Any) -> Any:
        """Return the frame as `factory`, autobahn's, prepares it."""
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
    """Writes to the transport of one socket of uvicorn. Belongs to its event loop."""

    __slots__ = ("_open", "_protocol")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._open = type(protocol.conn.state).OPEN

    def write(self, frame: Frame, is_shared: bool = True) -> bool:
        """
        Write `frame`, and return True; or return False, and have written nothing. One that isn't shared is
        left to a server that compresses.
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
    """Return whether the server compresses what it sends, or may do so."""
    extensions = getattr(protocol.conn, "extensions", None)
    if extensions is None:  # wsproto's aren't public
        return bool(protocol.config.ws_per_message_deflate)
    return bool(extensions)


class DaphneWriter:
    """Writes prepared messages of autobahn to one socket of Daphne. Belongs to the event loop."""

    __slots__ = ("_details", "_protocol", "_send")

    def __init__(self, send: SocketSend, protocol: Any) -> None:
        self._send = send
        self._protocol = protocol
        #: What Daphne knows of the connection: it notes the client's end here.
        self._details = protocol.server.connections[protocol]

    def write(self, frame: Frame, is_shared: bool = True) -> bool:
        """Write a shared `frame`, and return True; or return False, and have written nothing."""
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
    """Return whether this version of a server is known."""
    version = str(getattr(sys.modules.get(package), "__version__", ""))
    return version.partition(".")[0] in _VERSIONS[package]


@lru_cache(maxsize=16)
def _uses_only_known_names(code: CodeType) -> bool:
    """Return whether a function of this code, and those in it, use no other names than _NAMES."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return _NAMES.issuperset(code.co_names) and all(map(_uses_only_known_names, inner))


def _method_of(send: Any) -> tuple[Any, str]:
    """Return uvicorn's protocol whose `send` this is, and the name of its class. Or (None, "")."""
    protocol = getattr(send, "__self__", None)
    kind = type(protocol)
    name = _SENDS.get((kind.__module__, kind.__qualname__))
    if name is None or getattr(send, "__func__", None) is not kind.__dict__.get(name):
        return None, ""
    return protocol, kind.__qualname__


def accepts_immediately(send: Any) -> bool:
    """
    Return whether `send` may be called outside a new task. Known servers don't ask which task runs,
    and don't change the event.
    """
    return type(send) is SocketSend or _method_of(send)[0] is not None


def direct_writer(send: Any) -> UvicornWriter | DaphneWriter | None:
    """Return what writes a Frame to the socket of `send`. None: use plain ASGI."""
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

"""
Messages to bytes and back: msgpack, and over it, where keys are given, AES-256-GCM. No I/O.

What is encrypted begins with the byte 0xC1, which no msgpack has: then 4 bytes that identify the key,
16 of salt, 8 of a counter, 8 of a time (seconds since 1970, 0: none), and the ciphertext with its tag.
A process encrypts under its own key, which HKDF derives from the salt, so that counters never meet. All
that stands before the ciphertext, and the channel's name, are authenticated with the message: it cannot be
moved to another channel, or be read after its time. The layer's prefix is part of each derived key, so that
two sites that share a key don't read each other's messages. (NIST SP 800-38D; RFC 5869.)

A member of a group that no gateway holds isn't a message, but a name that the layer sends to. Behind it
stands a newline and an HMAC of the group and the name. Otherwise a writer without the key could add
another channel, and read there what is sent to the group.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import threading
import time
from collections import OrderedDict
from typing import Any, Sequence

import msgpack
from django.core.exceptions import ImproperlyConfigured

from .contract import Message, Unreadable

try:
    import msgspec
except ImportError:
    msgspec = None

MARK = b"\xc1"
_KEY_ID, _SALT, _COUNTER, _UNTIL = 4, 16, 8, 8
_NONCE = 1 + _KEY_ID + _SALT + _COUNTER
_HEAD = _NONCE + _UNTIL

#: A key has at least so many characters, and so many different ones.
MIN_KEY_LENGTH, MIN_KEY_VARIETY = 16, 5

#: Derived keys that are kept: one for each process that sends.
MAX_DERIVED = 1024


class Codec:
    """msgpack as it is. Ignores all arguments but the message."""

    #: Whether it binds a message to its channel and its time.
    seals = False

    def pack(self, message: Message, channel: bytes = b"", life: float = 0.0) -> bytes:
        """Return the payload. It can be read for `life` seconds (0: for ever)."""
        if msgspec is not None:
            try:
                fast: bytes = _encode(message)
                return fast
            except (TypeError, UnicodeError):
                pass  # a gateway's path with a lone surrogate
        packed: bytes = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")
        return packed

    def unpack(self, payload: bytes, channel: bytes, late: bool = False) -> Message:
        """Return the message, with `late` also after its time. Raises Unreadable."""
        if payload[:1] == MARK:
            raise Unreadable("it is encrypted, and symmetric_encryption_keys is not set")
        return self._plain(payload)

    def _plain(self, payload: bytes) -> Message:
        try:
            if msgspec is not None:
                try:
                    message = _decode(payload)
                except (msgspec.DecodeError, UnicodeError):
                    message = _slow_decode(payload)
            else:
                message = _slow_decode(payload)
        except Exception as error:
            raise Unreadable("it is not msgpack: %s" % error) from error
        if not isinstance(message, dict):
            raise Unreadable("it holds a %s, not a dict" % type(message).__name__)
        return message

    def nonce(self, payload: bytes) -> bytes:
        """Return what no two payloads of `pack` have in common; nothing if it is not known."""
        return b""

    def members(self, group: bytes, name: bytes) -> list[bytes]:
        """Return each form in which the member `name` of a group may be stored. The first one is written."""
        return [name]

    def member_name(self, group: bytes, member: bytes) -> bytes | None:
        """Return the name of a member as it is stored; None for one that `members` doesn't return."""
        return None if b"\n" in member else member  # with a newline: of an encrypted layer

    def forked(self) -> None:
        """This process is a copy of another."""


def _slow_decode(payload: bytes) -> Any:
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, unicode_errors="surrogatepass")


if msgspec is not None:
    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder().decode


class EncryptingCodec(Codec):
    """
    msgpack, encrypted. `keys` is a list of text or bytes, best 32 random bytes each: the first encrypts,
    each of them decrypts.
    """

    seals = True

    def __init__(self, keys: Sequence[str | bytes], prefix: str) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ImportError(
                "symmetric_encryption_keys needs cryptography; install it with: "
                "pip install 'asgi_redis[encryption]'"
            ) from error
        for number, key in enumerate(keys, 1):
            if len(key) < MIN_KEY_LENGTH or len(set(key)) < MIN_KEY_VARIETY:
                raise ImproperlyConfigured(
                    "The key number %d in the channel layer's symmetric_encryption_keys is too weak: "
                    "it needs %d characters, %d of them different. Make one with: python -c "
                    "'import secrets; print(secrets.token_urlsafe(32))'. (Is the option a list?)"
                    % (number, MIN_KEY_LENGTH, MIN_KEY_VARIETY)
                )
        self._cipher, self._prefix = AESGCM, prefix.encode()
        self._masters: OrderedDict[bytes, bytes] = OrderedDict()
        for key in keys:
            key = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
            master = hashlib.sha256(b"asgi_redis key\0" + key).digest()
            identity = hashlib.sha256(b"asgi_redis key id\0" + master).digest()[:_KEY_ID]
            self._masters.setdefault(identity, master)
        self._member_keys = [
            hmac.new(master, b"asgi_redis member\0" + self._prefix, "sha256").digest()
            for master in self._masters.values()
        ]
        self._lock = threading.Lock()
        self._derived: OrderedDict[tuple[bytes, bytes], Any] = OrderedDict()
        self.forked()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._counter = 0
        identity = next(iter(self._masters))
        self._head = MARK + identity + os.urandom(_SALT)
        self._own = self._derive(identity, self._head[1 + _KEY_ID :])

    def pack(self, message: Message, channel: bytes = b"", life: float = 0.0) -> bytes:
        with self._lock:
            self._counter += 1
            counter = struct.pack(">Q", self._counter)
            head, cipher = self._head, self._own
        head += counter + struct.pack(">Q", int(time.time() + life) if life else 0)
        sealed: bytes = cipher.encrypt(b"\0\0\0\0" + counter, super().pack(message), head + channel)
        return head + sealed

    def nonce(self, payload: bytes) -> bytes:
        return payload[1:_NONCE]

    def unpack(self, payload: bytes, channel: bytes, late: bool = False) -> Message:
        if payload[:1] != MARK:
            raise Unreadable("it is not encrypted, and symmetric_encryption_keys is set")
        identity = payload[1 : 1 + _KEY_ID]
        salt = payload[1 + _KEY_ID : 1 + _KEY_ID + _SALT]
        if identity not in self._masters:
            raise Unreadable(
                "it is encrypted under the key %s, which is not in symmetric_encryption_keys"
                % identity.hex()
            )
        with self._lock:
            cipher = self._derived.get((identity, salt))
        if cipher is None:
            cipher = self._derive(identity, salt)
            with self._lock:
                self._derived[identity, salt] = cipher
                while len(self._derived) > MAX_DERIVED:
                    self._derived.popitem(last=False)
        head, counter = payload[:_HEAD], payload[_NONCE - _COUNTER : _NONCE]
        try:
            plain = cipher.decrypt(b"\0\0\0\0" + counter, payload[_HEAD:], head + channel)
        except Exception as error:
            raise Unreadable("it does not decrypt (%s)" % type(error).__name__) from error
        until = struct.unpack(">Q", head[_NONCE:])[0]
        if until and not late and time.time() > until:
            raise Unreadable("its time is over: it was put back into Redis, or a clock is wrong")
        return self._plain(plain)

    def members(self, group: bytes, name: bytes) -> list[bytes]:
        return [
            name + b"\n" + hmac.new(key, group + b"\n" + name, "sha256").hexdigest().encode()
            for key in self._member_keys
        ]

    def member_name(self, group: bytes, member: bytes) -> bytes | None:
        name = member.partition(b"\n")[0]
        forms = self.members(group, name)
        return name if any(hmac.compare_digest(member, form) for form in forms) else None

    def _derive(self, identity: bytes, salt: bytes) -> Any:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derivation = HKDF(hashes.SHA256(), 32, salt, b"asgi_redis message\0" + self._prefix)
        return self._cipher(derivation.derive(self._masters[identity]))


def make_codec(keys: Any, prefix: str) -> Codec:
    """Return the codec for `symmetric_encryption_keys` of a layer. Raises ImproperlyConfigured."""
    # A wrong type never means "don't encrypt": "" may come from an environment variable that isn't set.
    if keys is None or keys is False:
        return Codec()
    if not isinstance(keys, (list, tuple, set, frozenset)) or not all(
        isinstance(key, (str, bytes)) and key for key in keys
    ):
        raise ImproperlyConfigured(
            "The channel layer's option symmetric_encryption_keys is a list of text or bytes, such as "
            "[SECRET_KEY]. Without encryption, it is None or an empty list."
        )
    return EncryptingCodec(list(keys), prefix) if keys else Codec()

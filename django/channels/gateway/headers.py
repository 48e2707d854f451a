"""
Which headers a request or a response may have (RFC 9110, section 5). Pure: no I/O.

Servers should check this, and not all do. Twisted before 23.10 accepts any byte in a name, and Django's
META would have the names b"x-pa\\xdf" and b"x-pass" under one key.
"""

from __future__ import annotations

import re
import string
from typing import Any, Iterable

#: The characters of a token, which a header's name and a method are.
_TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()

#: The characters that a header's value must not have: they would end it, or the whole head.
_BREAK = re.compile(rb"[\r\n\0]")

#: What a value may not have at its ends, and the control characters that it may not have anywhere. A tab may
#: be inside.
_UNCLEAN = re.compile(rb"^[ \t]|[ \t]\Z|[\0-\x08\x0a-\x1f\x7f]")
_TO_SPACES = bytes(32 if byte in (*range(9), *range(10, 32), 127) else byte for byte in range(256))

#: The most digits of a Content-Length: no body has more bytes.
_LENGTH_DIGITS = 18


def is_token(name: bytes) -> bool:
    """Return whether `name` may be the name of a header, or a method."""
    return bool(name) and not name.translate(None, _TOKEN)


def is_value(value: bytes) -> bool:
    """Return whether `value` may be the value of a header."""
    return _BREAK.search(value) is None


def clean_value(value: bytes) -> bytes:
    """
    Return the value with spaces for control characters, and without spaces at its ends (RFC 9110, section
    5.5). Some servers send no response at all otherwise.
    """
    return value if _UNCLEAN.search(value) is None else value.translate(_TO_SPACES).strip(b" \t")


def are_headers(headers: Iterable[Any]) -> bool:
    """Return whether all `headers`, pairs of bytes, are well-formed."""
    if not headers:
        return True
    names, values = zip(*headers)
    return all(names) and is_token(b"".join(names)) and is_value(b"".join(values))


def has_one_end(headers: Iterable[Any]) -> bool:
    """
    Return whether the `headers` of an HTTP/1 request leave no doubt about where its body ends (RFC 9112,
    section 6.3). A proxy in front that sees another end takes the rest for a request, or the reverse.
    """
    codings, lengths = [], []
    for name, value in headers:
        name = name.lower()
        if name == b"transfer-encoding":
            codings.append(value.strip().lower())
        elif name == b"content-length":
            lengths.append(value.strip())
    if codings:
        return codings == [b"chunked"] and not lengths
    return not lengths or is_one_number(lengths)


def is_one_number(lengths: list[bytes]) -> bool:
    """Return whether these values of the headers Content-Length are a single one, and a number."""
    return len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) <= _LENGTH_DIGITS


def content_length(headers: Iterable[Any]) -> int | None:
    """Return the Content-Length, or None without one that is a number."""
    for name, value in headers:
        if name.lower() == b"content-length":
            digits = value.strip()
            # Python refuses to read a number of thousands of digits.
            return int(digits) if digits.isdigit() and len(digits) <= _LENGTH_DIGITS else None
    return None

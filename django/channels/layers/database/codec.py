"""
Messages as text: JSON in ASCII, which every database stores alike. No I/O and no state.

Bytes are a dict whose only key is a NUL character, with base64. A key of the message's own that
begins with NUL gets one more.
"""

import json
from base64 import b64decode, b64encode

_NUL = "\0"


def encode(message):
    """A clean message as ASCII text."""
    found = []

    def default(value):
        found.append(None)
        return {_NUL: b64encode(value).decode("ascii")}

    text = json.dumps(message, default=default, separators=(",", ":"), check_circular=False)
    if text.count('"\\u0000') != len(found):
        return json.dumps(_escape(message), default=default, separators=(",", ":"))
    return text


def decode(text):
    """The message that `encode` was given."""
    if '"\\u0000' in text:
        return json.loads(text, object_hook=_restore)
    return json.loads(text)


def _escape(value):
    if isinstance(value, dict):
        return {
            _NUL + key if key.startswith(_NUL) else key: _escape(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value


def _restore(found):
    if len(found) == 1 and _NUL in found:
        return b64decode(found[_NUL])
    return {key[1:] if key.startswith(_NUL) else key: item for key, item in found.items()}

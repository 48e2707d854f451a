"""JSON as frames carry it: Django's encoder, and a decoder that refuses what would cost too much."""

from __future__ import annotations

import json
from typing import Any, cast

from django.core.serializers.json import DjangoJSONEncoder

from ..layers.messages import check_nesting


def decode_json(text: str) -> Any:
    """
    Return the value that JSON `text` encodes. Raises ValueError if it isn't JSON, if it is nested more deeply
    than a message may be, and for numbers that JSON doesn't have (NaN, Infinity) or that are too large.
    """
    check_nesting(text)
    return json.loads(
        text, parse_constant=_not_a_number, parse_float=_finite, parse_int=_short_integer
    )


#: Digits of an integer. Reading one takes time that grows with their square.
_MAX_DIGITS = 4300


def _not_a_number(text: str) -> Any:
    raise ValueError("%s is not JSON." % text)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("The number is too large.")
    return number


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("The number is too long.")
    return int(text)


def encode_json(content: Any) -> str:
    """
    Return `content` as JSON text, by Django's encoder. NaN and infinities, which JSON doesn't have, become
    null, as in JavaScript.
    """
    try:
        return cast(str, _encoder.encode(content))
    except ValueError:
        return dump_json(content, cls=DjangoJSONEncoder)


def dump_json(content: Any, **options: Any) -> str:
    """Do as `json.dumps`, but write null in place of NaN and infinities."""
    try:
        return json.dumps(content, allow_nan=False, **options)
    except ValueError:  # also for a list that holds itself: encoding it again raises the same
        value = json.loads(json.dumps(content, **options), parse_constant=_null)
    return json.dumps(value, allow_nan=False, **options)


def json_value(value: Any) -> Any:
    """Return `value` as a client reads it from JSON: a date is text, NaN is None."""
    return json.loads(encode_json(value))


def _null(text: str) -> None:
    return None


_encoder = DjangoJSONEncoder(allow_nan=False)

"""
Names in a consumer or a binding that are near a name which this package calls or reads. Nothing would call
them, in silence. Pure: calls nothing of the site.
"""

from __future__ import annotations

import difflib
import functools
import types
from typing import Any, Iterable, Iterator

from django.utils.functional import cached_property

from .callables import is_own

_FUNCTIONS = (types.FunctionType, types.MethodType, classmethod, staticmethod)

#: What a class may define for this package to call or read. One text, because no module but protocol.py may
#: write a control key, and one of them has the name of an attribute.
CALLED = (
    "any_origin allowed_origins channel_session channel_session_user connect "
    "connection_groups consumers decode_json deserialize disconnect encode_json exclude "
    "fields get_handler group_names groups has_permission http_user http_user_and_session "
    "login_required method_mapping multiplexer_class receive run_action send_members "
    "serialize serialize_data subprotocols"
).split()

#: What other libraries call, browsers, and the demultiplexer of Channels 1.0.
_ELSEWHERE = {
    "mapping": "consumers",
    "on_close": "disconnect",
    "on_connect": "connect",
    "on_disconnect": "disconnect",
    "on_message": "receive",
    "on_open": "connect",
    "on_receive": "receive",
}

#: Words that are near one of CALLED, and are themselves.
_WORDS = {
    before + each + after
    for each in ("connect", "disconnect", "receive", "serialize", "deserialize")
    for before, after in (("re", ""), ("", "ed"), ("", "d"), ("", "r"), ("", "er"))
}

#: How near a name is to the one that is meant.
_NEAR = 0.85


def misspelt(owner: type) -> Iterator[tuple[str, str]]:
    """
    Return each name in `owner` that nothing there uses, with the name of CALLED that it stands for. A name of
    CALLED that the class defines itself was not misspelt.
    """
    classes = [each for each in owner.__mro__ if each is not object]
    bodies = [vars(each) for each in classes if not is_own(each)]
    own = [each for each in classes if is_own(each)]
    known = [each for each in CALLED if any(hasattr(base, each) for base in own)]
    known = [each for each in known if not any(each in body for body in bodies)]
    used: set[str] = set()
    for body in bodies:
        used.update(_used_in(body.values()))
    if "getattr" in used:
        return  # by any name
    for name in sorted({name for body in bodies for name in body}):
        if name.startswith("_") or name in used or any(hasattr(base, name) for base in own):
            continue
        near = difflib.get_close_matches(name, known, 1, _NEAR)
        meant = near[0] if near else _ELSEWHERE.get(name, "")
        if name in _WORDS or meant not in known:
            continue
        if _is_alike(getattr(owner, name), getattr(owner, meant)):
            yield name, meant


def _is_alike(one: Any, other: Any) -> bool:
    """Return whether both are methods, or both flags, or both collections."""
    if callable(one) or callable(other):
        return callable(one) and callable(other)
    if isinstance(other, bool):
        return isinstance(one, bool)
    return isinstance(one, (list, tuple, set, dict))


def _used_in(values: Iterable[Any]) -> Iterator[str]:
    """Return the names that these functions and nested values mention."""
    for value in values:
        if isinstance(value, property):
            yield from _used_in([value.fget, value.fset, value.fdel])
        elif isinstance(value, (dict, list, tuple)):
            # Of method_mapping or a table of commands, for example: names, and functions of the class.
            inside = value.values() if isinstance(value, dict) else value
            yield from (each for each in inside if isinstance(each, str))
            yield from (each.__name__ for each in inside if isinstance(each, types.FunctionType))
        else:
            value = getattr(value, "func", None) if _is_cached(value) else value
            while isinstance(value, _FUNCTIONS):  # others, such as proxies, have any attribute
                yield from _mentioned_by(getattr(value, "__code__", None))
                value = getattr(value, "__wrapped__", getattr(value, "__func__", None))


def _is_cached(value: Any) -> bool:
    """Return whether `value` is a cached property, Django's or that of functools (of Python 3.8)."""
    return isinstance(
        value, (cached_property, getattr(functools, "cached_property", cached_property))
    )


def _mentioned_by(code: Any) -> Iterator[str]:
    if code is not None:
        yield from code.co_names
        for each in code.co_consts:
            if isinstance(each, types.CodeType):
                yield from _mentioned_by(each)
            else:  # getattr(self, "name")
                yield from (one for one in _flat(each) if isinstance(one, str))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, frozenset)):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def mentions(function: Any) -> set[str]:
    """Return the names and texts that `function`, and what it decorates, mentions."""
    return set(_used_in([function]))

"""
The attributes that sites set on class-based consumers and bindings: which values cannot work, and which do
something else than they say. What Channels 1.x accepted isn't refused: `check` warns of it.
"""

from __future__ import annotations

import inspect
import types
from typing import Any, Callable, Iterator

from ..channel import group_names_of
from ..exceptions import DenyConnection
from ..layers.names import check_group_name
from ..protocol import SESSION
from ..security.websockets import allowed_origins
from ..subprotocols import SUBPROTOCOL

_METHODS = (types.FunctionType, staticmethod, classmethod)

#: Values that are what they look like. What a descriptor or a method returns is known later.
_PLAIN = (str, bytes, int, float, list, tuple, dict, set, frozenset)


def _check_groups(value: Any) -> None:
    names = group_names_of(value, "groups")
    for each in names:
        check_group_name(each)


def _check_subprotocols(value: Any) -> None:
    for each in group_names_of(value, "subprotocols"):
        if not isinstance(each, str) or not SUBPROTOCOL.match(each):
            raise ValueError("%r is not the name of a subprotocol, such as 'chat.v1'." % (each,))


def _check_any_origin(value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError("write True or False, not %r." % (value,))


#: Raise TypeError or ValueError for the value of an attribute of a class that cannot work.
_CHECKS: dict[str, Callable[[Any], object]] = {
    "groups": _check_groups,
    "subprotocols": _check_subprotocols,
    "allowed_origins": lambda value: allowed_origins(*group_names_of(value, "allowed_origins")),
    "any_origin": _check_any_origin,
    "login_required": lambda value: value is True or DenyConnection(code=value),
}


def refused(owner: type, besides: str = "") -> str:
    """Return the name of an attribute of `owner` that cannot work, and why, or "". Not that of `besides`."""
    for name, check in _CHECKS.items():
        value = getattr(owner, name, None)
        if value and name != besides and isinstance(value, _PLAIN):
            try:
                check(value)
            except (TypeError, ValueError) as error:
                return "%s cannot work: %s" % (name, error)
    return ""


def doubtful(owner: type) -> Iterator[tuple[str, str, str]]:
    """
    Return each attribute of `owner` that does something else than it says, what it does, and what to write.
    """
    for name, (check, remedy) in _DOUBTS.items():
        value = inspect.getattr_static(owner, name, None)
        problem = check(value)
        if problem:
            yield name, problem, remedy


def _doubt_flag(value: Any) -> str:
    if isinstance(value, _METHODS):
        return "is a method, so it counts as True"
    # None, 0 and 1 are as clear as True and False.
    if value is None or not isinstance(value, _PLAIN) or value in (0, 1):
        return ""
    return "is %r, which counts as %s" % (value, bool(value))


def _doubt_login(value: Any) -> str:
    return "is a method, and is ignored" if isinstance(value, _METHODS) else ""


def _doubt_iterator(value: Any) -> str:
    is_iterator = hasattr(type(value), "__next__") and not hasattr(type(value), "__get__")
    return "is an iterator, which the first event uses up" if is_iterator else ""


def _doubt_list(value: Any) -> str:
    if isinstance(value, _PLAIN) and not isinstance(value, (list, tuple, dict, set, frozenset)):
        return "is %r, and not a list of names" % (value,)
    return _doubt_iterator(value)


def _doubt_text(value: Any) -> str:
    is_other = isinstance(value, _PLAIN) and not isinstance(value, str)
    return "is %r, and not text" % (value,) if is_other else ""


def _doubt_streams(value: Any) -> str:
    names = [name for name in value if not isinstance(name, str)] if isinstance(value, dict) else []
    if isinstance(value, dict) and not value:
        return "is empty, so that each frame closes its socket"
    return "has the stream %r, but names of streams are text" % (names[0],) if names else ""


_FLAG = (_doubt_flag, "write True or False, or @property above a method")
_LIST = (_doubt_list, "write a list, such as ['title']")

#: What tells that an attribute doesn't do what it says, and what to write.
_DOUBTS: dict[str, tuple[Callable[[Any], str], str]] = {
    "http_user": _FLAG,
    "http_user_and_session": _FLAG,
    "channel_session_user": _FLAG,
    SESSION: _FLAG,  # the attribute has the name of the key
    "login_required": (_doubt_login, "write True, or a close code from 3000 to 4999"),
    "groups": (_doubt_iterator, "write a list, such as ['news']"),
    "subprotocols": (_doubt_iterator, "write a list, such as ['chat.v1']"),
    "allowed_origins": (_doubt_iterator, "write a list, such as ['https://other.example']"),
    "fields": _LIST,
    "exclude": _LIST,
    "send_members": _LIST,
    "stream": (_doubt_text, "write a name, such as 'items'"),
    "consumers": (_doubt_streams, "write {'stream': Consumer}"),
}

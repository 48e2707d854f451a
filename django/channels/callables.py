"""
What kind of callable a consumer is: this package's own, a method without its instance, or a view. Pure: calls
nothing.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

from .compat import view_class_of

PACKAGE = __package__

#: The module of `transaction.atomic`, which adds no argument to what it decorates.
_CONTEXT_MANAGERS = "contextlib"


def is_own(function: Any) -> bool:
    """Return whether a method is this package's, so that its calls are known."""
    return str(getattr(function, "__module__", "")).startswith(PACKAGE + ".")


def unwrapped(function: Any) -> Any:
    """
    Return the function inside this package's decorators and `atomic`. Those of others may add arguments.
    """
    while getattr(function, "__wrapped__", None) is not None and _adds_no_argument(function):
        function = function.__wrapped__
    return function


def _adds_no_argument(decorated: Any) -> bool:
    home = str(getattr(decorated, "__globals__", {}).get("__name__", ""))
    return home == _CONTEXT_MANAGERS or home.startswith(PACKAGE + ".")


def unbound(consumer: Any) -> types.FunctionType | None:
    """
    Return the function, if `consumer` is a method of a class without an instance.

    It is known by the name of its first parameter. A class that only groups functions, such as `class Chat:
    def connect(message): …`, works.
    """
    while not inspect.ismethod(consumer):
        if isinstance(consumer, functools.partial):
            if consumer.args:
                return None
            consumer = consumer.func
        elif getattr(consumer, "__wrapped__", None) is not None and _adds_no_argument(consumer):
            consumer = consumer.__wrapped__
        else:
            break
    if not isinstance(consumer, types.FunctionType):
        return None
    path, _, name = consumer.__qualname__.rpartition(".")
    code = consumer.__code__
    if (
        not path
        or path.endswith("<locals>")
        or code.co_varnames[: code.co_argcount][:1] != ("self",)
    ):
        return None
    owner = _class_at(consumer, path)
    if owner is not None and isinstance(inspect.getattr_static(owner, name, None), staticmethod):
        return None
    return consumer


def remedy_of_unbound(method: types.FunctionType) -> str:
    """Return what to write in place of a method that `unbound` has found."""
    path, _, name = method.__qualname__.rpartition(".")
    owner, short = _class_at(method, path), path.rpartition(".")[2]
    if hasattr(owner, "as_route"):
        return "The class is routed to as a whole: write %s.as_route(path=r'^/…$')" % short
    return "Write %s().%s, or a function outside of the class" % (short, name)


def _class_at(function: types.FunctionType, path: str) -> Any:
    """Return the class at `path` in the module of `function`, or None."""
    found: Any = None
    for name in path.split("."):
        names = function.__globals__ if found is None else vars(found)
        found = names.get(name)
        if not isinstance(found, type):
            return None
    return found


def view_class(consumer: Any) -> type | None:
    """Return the class of a view that `as_view()` has made, also inside decorators, or None."""
    while isinstance(consumer, types.FunctionType):
        found = view_class_of(consumer)
        if isinstance(found, type):
            return found
        consumer = getattr(consumer, "__wrapped__", None)
    return None

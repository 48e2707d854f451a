"""
What a consumer may call: the functions, methods and classes that its code mentions by name, and what those
mention. Pure: calls nothing of the site.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import sysconfig
import types
from typing import Any, Iterator

from django.dispatch import Signal

from .callables import PACKAGE
from .misspelt import mentions

#: How many functions and classes are looked at. What is behind them isn't known.
MAX_REACHED = 2000

#: Names by which code calls what it doesn't mention.
_BY_TEXT = {"__import__", "eval", "exec", "globals", "import_module", "import_string"}


class _Unknown(Exception):
    """Code calls what can't be found without running it."""


def reached(consumer: Any) -> list[Any] | None:
    """
    Return the functions that `consumer` may run, itself among them, with their decorators around them. None
    if that isn't known: an object with `__call__` of a library, a signal, an import inside a function.

    It doesn't follow what Django and the standard library do, which know no channel session.
    """
    waiting: list[Any] = [consumer]
    seen: set[int] = set()
    found: list[Any] = []
    try:
        while waiting:
            value = waiting.pop()
            if id(value) in seen:
                continue
            if len(seen) >= MAX_REACHED:
                return None
            seen.add(id(value))
            if isinstance(value, types.FunctionType) and not _is_library(value):
                found.append(value)
            waiting += _next(value)
    except _Unknown:
        return None
    return found


def _is_library(function: types.FunctionType) -> bool:
    """Return whether a function is foreign, and no decorator around one of the site."""
    is_decorator = "__wrapped__" in function.__dict__
    return not is_decorator and _is_foreign(function.__globals__.get("__name__"))


def _next(value: Any) -> Iterator[Any]:
    """Return what `value` leads to. Raises _Unknown."""
    if isinstance(value, types.FunctionType):
        yield from _next_of_function(value)
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, type):
        for base in value.__mro__:
            if not _is_foreign(base.__module__):
                yield from list(vars(base).values())
    elif isinstance(value, Signal):
        raise _Unknown
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif isinstance(value, dict):
        yield from list(value.values())
    elif not _is_foreign(type(value).__module__):
        yield type(value)
    elif isinstance(getattr(type(value), "__call__", None), types.FunctionType):  # noqa: B004
        raise _Unknown  # such as a Mock


def _next_of_function(function: types.FunctionType) -> Iterator[Any]:
    inner = function.__dict__.get("__wrapped__")
    if inner is not None:
        yield inner
    if _is_foreign(function.__globals__.get("__name__")):
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it isn't set yet
            raise _Unknown from None
    names = mentions(function)
    if names.intersection(_BY_TEXT) or any(map(_imports_here, _codes(function.__code__))):
        raise _Unknown
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, types.ModuleType):
            yield value
        elif not _is_foreign(value.__name__):
            yield from (vars(value)[each] for each in names if each in vars(value))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _imports_here(code: types.CodeType) -> bool:
    """Return whether the code of a function imports something of the site."""
    steps = list(dis.get_instructions(code))
    for number, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[number - 2].argval  # of a relative import, how far up it begins
            if level or not _is_foreign(step.argval):
                return True
    return False


def _is_foreign(module: Any) -> bool:
    """Return whether a module is this package's, Django's, or of the standard library."""
    name = str(module)
    top = name.partition(".")[0]
    return top == "django" or (name + ".").startswith(PACKAGE + ".") or _is_standard(top)


@functools.lru_cache(maxsize=1024)
def _is_standard(top: str) -> bool:
    module = sys.modules.get(top)
    path = getattr(module, "__file__", None)
    if path is None:  # built in; a folder without __init__.py has a path
        return module is not None and not hasattr(module, "__path__")
    path, folder = os.path.realpath(path), os.path.realpath(sysconfig.get_paths()["stdlib"])
    return path.startswith(folder + os.sep) and "-packages" + os.sep not in path

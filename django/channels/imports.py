"""
Imports of what settings and routes name by dotted path.

What a module of the site raises while it is imported is reported as itself, with its file and line. Django's
`import_string` would take an AttributeError that the module raises for a name that the module lacks.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import types
from typing import Any

#: The folders of this package and of Python's importlib, whose frames aren't the site's.
_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_IS_MODULE = "it is a module, and the name of what stands in it is missing"

_IMPORTLIB = os.path.join(os.path.dirname(importlib.__file__), "")


class CannotImport(Exception):
    """
    What a dotted path names cannot be imported. The text says why, and where that was raised. `is_raised`
    says whether the code of a module raised it, rather than that the path is wrong.
    """

    def __init__(self, text: str, is_raised: bool = False) -> None:
        super().__init__(text)
        self.is_raised = is_raised


def import_path(path: str) -> Any:
    """
    Return what the dotted `path` names. Raises CannotImport, whose cause is an ImportError or AttributeError.
    What else a module raises is raised as it is: runserver watches the file that the traceback names.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise CannotImport("it isn't a dotted path")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, AttributeError) as error:
        text, place = str(error) or "no text", place_of(error)
        if place or not isinstance(error, ImportError):
            text = "%s: %s" % (type(error).__name__, text)
        if place:
            text += " (%s)" % place
        raise CannotImport(text, bool(place)) from error
    try:
        found = getattr(module, name)
    except AttributeError as error:
        raise CannotImport(_lacks(module, name, str(error))) from error
    if isinstance(found, types.ModuleType):  # a package has those that something has imported
        raise CannotImport(_IS_MODULE) from ImportError(path)
    return found


def _lacks(module: types.ModuleType, name: str, text: str) -> str:
    """Return why `module` has no `name`: it is a module below it, or a misspelling; otherwise `text`."""
    if hasattr(module, "__path__") and importlib.util.find_spec("%s.%s" % (module.__name__, name)):
        return _IS_MODULE
    near = difflib.get_close_matches(name, [each for each in vars(module) if each[:1] != "_"], 1)
    return "%s; did you mean '%s.%s'?" % (text, module.__name__, near[0]) if near else text


def place_of(error: BaseException) -> str:
    """
    Return the file and line of the site's code that raised `error` or called what did, such as
    "/site/routing.py, line 7", or "".
    """
    place = _place_of(error)
    return "%s, line %d" % place if place else ""


def file_of(error: BaseException) -> str:
    """Return the file of the site's code that raised `error`, or its cause, or the cause of that, or ""."""
    place, cause = _place_of(error), error.__cause__
    while not place and cause is not None:
        place, cause = _place_of(cause), cause.__cause__
    return place[0] if place else ""


def _place_of(error: BaseException) -> tuple[str, int] | None:
    place, traceback = None, error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(("<frozen", _OWN, _IMPORTLIB)):
            place = file, traceback.tb_lineno
        traceback = traceback.tb_next
    return place

"""What a test needs beside Python: missing, it skips the test, or in CI (CI=true) fails it."""

import importlib.util
import os
import shutil
import unittest

#: Names that mean any one of several programs.
ALTERNATIVES = {
    "chromium": ["chromium", "chromium-browser", "google-chrome"],
}


def find(name):
    """The path of program `name`, or of the Python package `name`; None if there is neither."""
    for program in ALTERNATIVES.get(name, [name]):
        path = shutil.which(program)
        if path:
            return path
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None


def require(*names):
    """Call it in setUpClass, setUp or a test: skips, or in CI fails, if one of `names` is missing.

    A name is a program on PATH, an importable package, or "chromium" (any Chromium or Chrome).
    Returns the path of the first name.
    """
    missing = [name for name in names if find(name) is None]
    if missing:
        reason = "not installed here: " + ", ".join(missing)
        if os.environ.get("CI") == "true":
            raise AssertionError(reason + " (a test whose server is missing fails in CI)")
        raise unittest.SkipTest(reason)
    return find(names[0]) if names else None

"""What a test needs beyond Python. If it is missing, the test is skipped, or fails in CI (CI=true)."""

import glob
import importlib.util
import os
import shutil
import sys
import unittest

#: Names that mean any one of several programs.
ALTERNATIVES = {
    "chromium": ["chromium", "chromium-browser", "google-chrome"],
    "redis-server": ["redis-server", "valkey-server"],
}


def missing(reason):
    """Skip the test that calls it, with `reason`; in CI, fail it. Never returns."""
    if os.environ.get("CI") == "true":
        raise AssertionError(reason + " (a test whose server is missing fails in CI)")
    raise unittest.SkipTest(reason)


def find(name):
    """Return the path of program `name`, or of the Python package `name`; None if there is neither."""
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
    """Skip, or in CI fail, if one of `names` is missing. Call it in setUpClass, setUp or a test.

    A name is a program on PATH, an importable package, "chromium" (any Chromium or Chrome) or
    "redis-server" (or Valkey). Returns the path of the first name.
    """
    absent = [name for name in names if find(name) is None]
    if absent:
        missing("not installed here: " + ", ".join(absent))
    return find(names[0]) if names else None


def require_servers(*names):
    """Skip if Python is too old for today's servers; then `require` them all, and `names`."""
    if sys.version_info < (3, 10):
        raise unittest.SkipTest("today's granian, uvicorn-worker and uvloop need Python 3.10")
    require("daphne", "granian", "gunicorn", "httptools", "hypercorn", "uvicorn", "uvicorn_worker")
    require("uvloop", *names)


def find_program(name, *patterns):
    """Return the path of program `name`, on PATH or where one of `patterns` finds it; None if missing.

    Of several that a pattern finds, the last is taken, which is the newest version.
    """
    found = shutil.which(name)
    if found:
        return os.path.realpath(found)
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))
        if paths:
            return paths[-1]
    return None


def first_importable(*names):
    """Return the first of `names` that can be imported, or None. It is imported."""
    for name in names:
        try:
            __import__(name)
            return name
        except ImportError:
            pass
    return None

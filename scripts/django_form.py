"""Give this repository's files the form that they have inside Django 1.10.

What serves other versions of Django, or the add-on, is not in the patch:

* `LEFT_OUT` stays here. A file in patches/django-1.10/files replaces the one at the same path.
* In Python, an ``if`` on `__package__` or on `django.VERSION` becomes the branch that Django 1.10
  takes. Tests that skip themselves there go, and lines between the comments ``add-on: begin`` and
  ``add-on: end``. So do imports that nothing uses then. The style is that of Django 1.10's setup.cfg.
* In pages, what is between the comments ``.. add-on: begin`` and ``.. add-on: end`` goes. So does
  ``.. only:: addon`` with its block, ``.. only:: not addon`` leaves
  its block.
"""

import ast
import functools
import os
import re

from django_style import styled, without_unused_imports
from interpreters import ROOT
from make_docs import HINT

REPLACEMENTS = os.path.join(ROOT, "patches", "django-1.10", "files")

#: Paths, or their beginnings: the add-on's own.
LEFT_OUT = (
    "django/channels/alias.py",
    "django/channels/binding/deferred.py",
    "docs/addon/",
    "tests/channels_tests/async_site.py",
    "tests/channels_tests/test_alias.py",
    "tests/channels_tests/test_supported_versions.py",
    "tests/channels_tests/test_types.py",
    "tests/channels_tests/typed_site/",
)

#: What the code and the pages that the patch adds must not say.
FORBIDDEN = re.compile(
    r"\badd-?on\b|pip install [^\n]*\bchannels\b|\bDjango ([2-9]|1\.(8|9))\b|\bDjango before\b"
    r"|\b(newer|later) (version of )?Django|\bpatched Django",
    re.IGNORECASE,
)

_VERSION = (1, 10, 8, "final", 0)
_MARKED = re.compile(r"^ *# add-on: begin.*?^ *# add-on: end[^\n]*\n", re.MULTILINE | re.DOTALL)
_MARKED_PAGE = re.compile(
    r"^ *\.\. add-on: begin\n.*?^ *\.\. add-on: end\n\n?", re.MULTILINE | re.DOTALL
)
_ONLY = re.compile(
    r"^(?P<indent> *)\.\. only:: (?P<tag>[^\n]+)\n\n(?P<block>(?:(?P=indent) +[^\n]*\n|\n)+)",
    re.MULTILINE,
)


def is_left_out(path):
    """Return whether the file at `path`, relative to the repository, stays out of the patch."""
    return path.replace(os.sep, "/").startswith(LEFT_OUT)


@functools.lru_cache(maxsize=None)
def content(path):
    """Return the bytes that the file at `path`, relative to the repository, has inside Django."""
    replacement = os.path.join(REPLACEMENTS, path)
    replaced = os.path.exists(replacement)
    with open(replacement if replaced else os.path.join(ROOT, path), "rb") as stream:
        data = stream.read()
    if replaced:
        return data
    if path.endswith(".py"):
        return code(path, data.decode()).encode()
    if path.endswith(".txt"):
        return page(data.decode()).encode()
    return data


def replacements():
    """Yield the paths, relative to Django's tree, of the files in patches/django-1.10/files."""
    for folder, folders, names in os.walk(REPLACEMENTS):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), REPLACEMENTS)


def page(text):
    """Return a page of the documentation as Django's readers need it."""
    text = _MARKED_PAGE.sub("", HINT.sub("", text))
    return _ONLY.sub(_resolved, text)


def _resolved(match):
    if match["tag"].strip() != "not addon":
        return ""
    lines = match["block"].splitlines(True)
    depth = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    cut = depth - len(match["indent"])
    return "".join(line[cut:] if line.strip() else line for line in lines)


def code(path, text):
    """Return the text of a Python module as Django 1.10 needs it."""
    original, text = text, _MARKED.sub("", text)
    if path.startswith(os.path.join("tests", "channels_tests", "directory_layer")):
        text = re.sub(r"^from channels\b", "from django.channels", text, flags=re.MULTILINE)
    package = os.path.dirname(path).replace(os.sep, ".")
    folded = text
    if "django.VERSION" in text or "__package__" in text:
        folded = _folded(_unskipped(text), package)
    return styled(text if folded == original else without_unused_imports(folded))


def _folded(text, package):
    while True:
        found = [
            (node, outcome)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.If)
            for outcome in [_outcome(node.test, package)]
            if outcome is not None
        ]
        if not found:
            return text
        text = _without(text, *found[0])


def _unskipped(text):
    """Return `text` without the tests that skip themselves in Django 1.10, and without what decides it."""
    while True:
        found = [
            (node, decorator, skipped)
            for node in ast.walk(ast.parse(text))
            for decorator in getattr(node, "decorator_list", ())
            for skipped in [_is_skipped(decorator)]
            if skipped is not None
        ]
        if not found:
            return text
        node, decorator, skipped = found[0]
        lines = text.splitlines(True)
        if skipped:
            first = min(each.lineno for each in node.decorator_list)
            text = _cut(lines, first - 1, node.end_lineno)
        else:
            text = "".join(lines[: decorator.lineno - 1] + lines[decorator.end_lineno :])


def _cut(lines, first, last):
    """Return the text of `lines` without those from `first` to `last` and the blank ones above them."""
    while first and not lines[first - 1].strip():
        first -= 1
    return "".join(lines[:first] + lines[last:])


def _is_skipped(decorator):
    """Return whether `decorator` skips a test in Django 1.10, or None if the text does not say it."""
    if not isinstance(decorator, ast.Call) or not decorator.args:
        return None
    name = getattr(decorator.func, "attr", getattr(decorator.func, "id", ""))
    outcome = _outcome(decorator.args[0], "") if name in ("skipIf", "skipUnless") else None
    return None if outcome is None else outcome == (name == "skipIf")


def _outcome(test, package):
    """Return whether `test` holds in Django 1.10, or None if the text does not say it."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    left, right = ast.dump(test.left), test.comparators[0]
    try:
        value = ast.literal_eval(right)
    except ValueError:
        return None
    if left == ast.dump(ast.parse("__package__", mode="eval").body):
        return (package == value) == isinstance(test.ops[0], ast.Eq)
    if left == ast.dump(ast.parse("django.VERSION", mode="eval").body):
        if isinstance(test.ops[0], ast.Lt):
            return _VERSION < value
        if isinstance(test.ops[0], ast.GtE):
            return _VERSION >= value
    return None


def _without(text, node, outcome):
    """Return `text` with the branch of the ``if`` statement `node` that is taken, in its place."""
    lines = text.splitlines(True)
    first, last = node.lineno - 1, node.end_lineno
    is_elif = lines[first].lstrip().startswith("elif")
    branch = node.body if outcome else node.orelse
    if is_elif and (outcome or not branch):
        # `elif` that holds: it is the `else` of what is above it.
        if outcome:
            head = " " * node.col_offset + "else:\n"
            kept = lines[node.body[0].lineno - 1 : node.body[-1].end_lineno]
            return "".join(lines[:first] + [head] + kept + lines[last:])
        return "".join(lines[:first] + lines[last:])
    if not branch:
        return _cut(lines, first, last)
    kept = lines[branch[0].lineno - 1 : branch[-1].end_lineno]
    depth = branch[0].col_offset - node.col_offset
    kept = [line[depth:] if line.strip() else line for line in kept]
    return "".join(lines[:first] + kept + lines[last:])

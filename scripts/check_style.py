"""
isort and flake8 with the setup.cfg of Django 1.10, on each module that the patch adds or changes.

Code and pages are also searched for words that don't belong inside Django: see `check_words`.
"""

import os

import django_form
import django_style
import patch_django
from interpreters import CommandFailed, environment, python_of, run

#: flake8 of Django 1.10's time. isort is the last of that series.
TOOLS = [django_style.ISORT[0], "flake8==3.5.0", "mccabe==0.6.1"]

#: Installed with them, without regard to what flake8 3.5 asks for. A newer pycodestyle has checks that
#: Django's setup.cfg didn't know of. An older pyflakes takes names in annotations for unused.
CHECKERS = ["pycodestyle==2.3.1", "pyflakes==2.5.0"]


class NotInStyle(Exception):
    """isort or flake8 isn't silent, or a word doesn't belong there; the message has their output."""


def check_words():
    """Raise `NotInStyle` if code or a page names the add-on or another version of Django."""
    found = []
    for path in patch_django.added_files():
        if path.startswith(("django" + os.sep, "docs" + os.sep)):
            text = django_form.content(path).decode("utf-8", "replace")
            for number, line in enumerate(text.splitlines(), 1):
                if django_form.FORBIDDEN.search(line):
                    found.append(f"{path}:{number}: {line.strip()}")
    if found:
        raise NotInStyle(
            "Inside Django, these lines speak of the add-on or of another Django. Reword them, or "
            "mark them (see scripts/django_form.py):\n  " + "\n  ".join(found)
        )


def check(interpreter, version):
    """
    Raise `NotInStyle` unless words and style are Django's.

    `interpreter` is the path of Python `version` ("3.7").
    """
    check_words()
    paths = [path for path in patch_django.changed_files() if path.endswith(".py")]
    python = python_of(environment("django-style", version, interpreter, TOOLS))
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", *CHECKERS])
    found = []
    for tool in (["isort", "--check-only", "--diff"], ["flake8"]):
        try:
            said = run([python, "-W", "ignore", "-m", *tool, *paths], cwd=patch_django.PATCHED_TREE)
        except CommandFailed as error:
            said = str(error).split("\n", 1)[1]  # without the command, which has all the paths
        if said.strip():
            found.append(said)
    if found:
        raise NotInStyle("Django's style:\n" + "\n".join(found))
    print(f"  {len(paths)} modules: isort and flake8 are silent", flush=True)

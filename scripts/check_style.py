"""isort and flake8 with the setup.cfg of Django 1.10, on each module that the patch adds or changes."""

import django_style
import patch_django
from interpreters import CommandFailed, environment, python_of, run

#: flake8 of Django 1.10's time. isort is the last of that series.
TOOLS = [django_style.ISORT[0], "flake8==3.5.0", "mccabe==0.6.1"]

#: Installed beside them, without regard to what flake8 3.5 asks for. A newer pycodestyle has checks that
#: Django's setup.cfg didn't know of. An older pyflakes takes names in annotations for unused.
CHECKERS = ["pycodestyle==2.3.1", "pyflakes==2.5.0"]


class NotInStyle(Exception):
    """isort or flake8 isn't silent; the message has their output."""


def check(interpreter, version):
    """Raise `NotInStyle` unless both are silent. `interpreter` is the path of Python `version` ("3.7")."""
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

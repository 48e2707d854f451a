"""Build the distribution `channels` for the patched Django: the name of Channels 1.x, and no code.

``python scripts/make_alias.py`` writes dist/alias/channels-VERSION-py3-none-any.whl. Projects and
packages for Channels 1.x do ``import channels``. With this wheel next to the patched Django, each
of these modules is the one of ``django.channels``. It has the name and the version of the add-on,
so that ``pip`` accepts it where a package requires ``channels``.
"""

import glob
import os
import re
import shutil
import sys
import tempfile

from interpreters import BUILD, DIST, ROOT, CommandFailed, environment, own_version, python_of, run

SOURCE = os.path.join(ROOT, "patches", "django-1.10", "alias")
TARGET = os.path.join(DIST, "alias")


def version():
    """Return the version of django/channels, without importing it."""
    with open(os.path.join(ROOT, "django", "channels", "__init__.py"), encoding="utf-8") as stream:
        return re.search(r'^__version__ = "([^"]+)"', stream.read(), re.MULTILINE).group(1)


def make():
    """Build the wheel, and return its path. Raises `CommandFailed`."""
    venv = environment("build", own_version(), sys.executable, ["build", "setuptools>=64", "wheel"])
    shutil.rmtree(TARGET, ignore_errors=True)
    os.makedirs(BUILD, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="alias-", dir=BUILD) as folder:
        tree = os.path.join(folder, "alias")
        shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(os.path.join(ROOT, "django", "channels", "alias.py"), tree + "/channels")
        settings = os.path.join(tree, "pyproject.toml")
        with open(settings, encoding="utf-8") as stream:
            text = stream.read()
        with open(settings, "w", encoding="utf-8") as stream:
            stream.write(text.replace("@VERSION@", version()))
        run([python_of(venv), "-m", "build", "--wheel", "--no-isolation", "--outdir", TARGET, tree])
    (wheel,) = glob.glob(os.path.join(TARGET, "channels-*.whl"))
    return wheel


def main():
    try:
        wheel = make()
    except CommandFailed as error:
        sys.exit(f"make_alias: {error}")
    print(f"{os.path.relpath(wheel, ROOT)}  {os.path.getsize(wheel)} bytes")


if __name__ == "__main__":
    main()

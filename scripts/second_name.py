"""Write the add-on's source under its second import name, `django_channels`: a tree to build or to test.

``python scripts/second_name.py FOLDER`` writes it to FOLDER, which must not exist. Under this name the
add-on runs in one process with Channels 4, which has the name `channels`. What differs: the package,
the label of its app, the setting (DJANGO_CHANNEL_LAYERS), and the imports of `channels.handlers`.
``make test-names`` runs some of the tests under the second name.
"""

import os
import re
import shutil
import sys

from interpreters import ROOT

NAME = "django_channels"
SETTING = "DJANGO_CHANNEL_LAYERS"

#: The tree's folders that are packed, and where they are in the package.
FOLDERS = {
    "django/channels": "",
    "django/core/handlers": "handlers",
    "django/conf": "conf",
}


class NotReplaced(Exception):
    """The source lacks what has to differ under the second name."""


def write(target):
    """Write the tree to the folder `target`: the package, pyproject.toml, README and LICENSE."""
    skipped = shutil.ignore_patterns("__pycache__")
    for source, place in FOLDERS.items():
        folder = os.path.join(target, NAME, place) if place else os.path.join(target, NAME)
        shutil.copytree(os.path.join(ROOT, *source.split("/")), folder, ignore=skipped)
    for folder, _, names in os.walk(os.path.join(target, NAME)):
        for name in names:
            if name.endswith((".py", ".py-tpl")):
                _rewrite(os.path.join(folder, name), rename)
    _rewrite(os.path.join(target, NAME, "apps.py"), rename_label)
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(os.path.join(ROOT, name), target)
    _rewrite(os.path.join(target, "pyproject.toml"), rename_project)


def rename(text):
    """Return a module's source under the second name."""
    text = re.sub(r"\bfrom channels\.handlers\b", "from %s.handlers" % NAME, text)
    text = re.sub(r"\bfrom django\.channels\.asgi\b", "from %s.asgi" % NAME, text)
    return re.sub(r"(?<![\w.])CHANNEL_LAYERS\b", SETTING, text)


def rename_label(text):
    """Return apps.py with another label: an app of Channels 4 has `channels`."""
    changed = text.replace('label = "channels"', 'label = "%s"' % NAME)
    if changed == text:
        raise NotReplaced('apps.py lacks label = "channels".')
    return changed


def rename_project(text):
    """Return pyproject.toml of the second distribution, without the mapping of folders."""
    head, rest = text.split("[tool.setuptools]", 1)
    tables, rest = rest.split("[tool.setuptools.package-dir]", 1)
    data = rest[rest.index("[tool.setuptools.package-data]") : rest.index("[tool.ruff]")]
    if 'name = "channels"' not in head:
        raise NotReplaced('pyproject.toml lacks name = "channels".')
    head = head.replace('name = "channels"', 'name = "%s"' % NAME)
    tables = tables.replace('"channels', '"' + NAME)
    data = data.replace('"channels', '"' + NAME).replace(NAME + "/js", "channels/js")
    return head + "[tool.setuptools]" + tables + data


def _rewrite(path, change):
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(change(text))


if __name__ == "__main__":
    write(sys.argv[1])

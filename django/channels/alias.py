"""
`channels` as a second name of `django.channels`, where Django includes channels.

The add-on next to such a Django uses it. So does the distribution of the name alone, which contains this
file (scripts/make_alias.py). This file stays readable to every Python that Django 1.10 ran on.
"""

import importlib
import sys

# What the add-on is called, and the names that its modules have inside the patched Django.
ADDON = "channels"
IN_DJANGO = {ADDON: "django.channels", ADDON + ".handlers": "django.core.handlers"}


def name_in_django(name):
    """Return the patched Django's name for the add-on's module `name`, or None if it is not the add-on's."""
    for ours in sorted(IN_DJANGO, key=len, reverse=True):
        if name == ours or name.startswith(ours + "."):
            return IN_DJANGO[ours] + name[len(ours) :]
    return None


def become_alias():
    """Make `channels` and all below it second names for the modules of `django.channels`.

    One set of module objects under two names: signals, layers and models exist once, and either name in
    INSTALLED_APPS gives the one app.
    """
    sys.meta_path.insert(0, AliasFinder())
    for name in list(sys.modules):
        if name.startswith(ADDON + "."):
            del sys.modules[name]
    # The import system returns what stands here once the package's own code has run.
    sys.modules[ADDON] = importlib.import_module(IN_DJANGO[ADDON])


class AliasFinder(object):
    """Finder and loader (PEP 451) of the add-on's names: each loads Django's module in its place."""

    def find_spec(self, fullname, path=None, target=None):
        from importlib.util import find_spec, spec_from_loader

        real = name_in_django(fullname)
        if real is None or find_spec(real) is None:
            return None
        return spec_from_loader(fullname, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # Not by create_module: the import system would put the alias' spec on Django's module.
        sys.modules[module.__name__] = importlib.import_module(name_in_django(module.__name__))

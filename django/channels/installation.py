"""
The environment of this package: the versions of Python and Django, and a Django that has channels in it.

`django.channels` and `channels` run this before anything else of theirs, on whatever they are installed;
so this file stays readable to every Python that Django 1.10 ran on.
"""

import os
import sys
import warnings

from .alias import ADDON, become_alias

# The supported range. A test compares scripts/matrix.py, pyproject.toml, the README and the guides with it.
PYTHON_FLOOR = (3, 7)
DJANGO_FLOOR = (1, 8)
DJANGO_CEILING = (6, 1)


def prepare(package):
    """Check the versions. If `package` is the add-on next to the patched Django, make it an alias.

    Returns whether channels can run. Raises ImproperlyConfigured on a Python or a Django that is too old,
    and warns (RuntimeWarning) about a Django newer than this version of channels knows. The patched Django
    itself runs on an older Python, without channels.
    """
    import django

    if package != ADDON and sys.version_info[:2] < PYTHON_FLOOR:
        return False
    require_versions(sys.version_info, django.VERSION)
    if package == ADDON and has_channels(django):
        become_alias()
    return True


def require_versions(python, django):
    """Raise ImproperlyConfigured, or warn, unless these versions (tuples) are supported."""
    from django.core.exceptions import ImproperlyConfigured

    if python[:2] < PYTHON_FLOOR:
        raise ImproperlyConfigured(
            "Channels needs Python %s or newer, and this is Python %s. Use a newer one, or remove "
            "channels from INSTALLED_APPS." % (_dotted(PYTHON_FLOOR), _dotted(python))
        )
    if django[:2] < DJANGO_FLOOR:
        raise ImproperlyConfigured(
            "Channels supports Django %s to %s, and this is Django %s. Install a supported one: "
            "pip install 'Django>=%s'"
            % (
                _dotted(DJANGO_FLOOR),
                _dotted(DJANGO_CEILING),
                _dotted(django),
                _dotted(DJANGO_FLOOR),
            )
        )
    if django[:2] > DJANGO_CEILING:
        warnings.warn(
            "This version of channels supports Django %s to %s, and this is Django %s. Look for a newer "
            "version of channels."
            % (_dotted(DJANGO_FLOOR), _dotted(DJANGO_CEILING), _dotted(django)),
            RuntimeWarning,
            stacklevel=4,
        )


def _dotted(version):
    return ".".join(str(part) for part in version[:2])


def has_channels(django):
    """Return whether the installed Django (the module) is the patched one, which contains `channels`.

    Looks for the file: a name alone can be an alias, as it is where the tests run against the add-on.
    """
    here = os.path.realpath(os.path.dirname(__file__))
    return any(
        os.path.isfile(os.path.join(folder, "channels", "__init__.py"))
        and os.path.realpath(os.path.join(folder, "channels")) != here
        for folder in django.__path__
    )

"""
The app of channels inside Django, on a Python older than 3.7: it does nothing, and a system check says why.

Django 1.10 runs on Python 2.7, 3.4 and 3.5, and its new projects list django.channels. This file,
__init__.py and installation.py are written for all of these versions. The rest of the package is not.
"""

import os
import sys

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

NEEDS = "Channels needs Python 3.7 or newer, and this is Python %d.%d" % sys.version_info[:2]


class InertConfig(AppConfig):
    """An app without models, commands and files: `runserver` stays the WSGI server's."""

    name = "django.channels"
    label = "channels"
    verbose_name = _("Channels")
    # A folder that doesn't exist. In the package's own folder, Django would find commands.
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "old_python")

    def ready(self):
        checks.register(check_python, "channels")


class InertDelayConfig(InertConfig):
    """The same for django.channels.delay."""

    name = "django.channels.delay"
    label = "channels_delay"
    verbose_name = _("Channels: delayed messages")

    def import_models(self, all_models):
        self.models = all_models  # without the module, which this Python cannot read

    def ready(self):
        pass  # the check of django.channels has said it


def check_python(app_configs, **kwargs):
    """Check for channels.W003: this Python is too old for channels."""
    return [
        checks.Warning(
            NEEDS + ": this project is served by WSGI, without WebSockets.",
            hint="Use a newer Python, or remove django.channels from INSTALLED_APPS.",
            id="channels.W003",
        )
    ]


def unavailable(*args, **kwargs):
    """Raise ImproperlyConfigured. Stands for every public name of channels."""
    raise ImproperlyConfigured(NEEDS + ".")

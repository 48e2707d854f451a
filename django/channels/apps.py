"""The app of channels, with the label "channels" under each name of the package."""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChannelsConfig(AppConfig):
    name = __package__
    label = "channels"
    verbose_name = _("Channels")

    #: Whether `ready` has run.
    is_ready = False

    def ready(self) -> None:
        from django.conf import settings

        from .log import add_last_resort

        add_last_resort(settings)
        _take_runserver(self.name)
        ChannelsConfig.is_ready = True
        bindings = sys.modules.get(self.name + ".binding.base")
        if bindings is not None:
            bindings.BindingMetaclass.register_all()
        # The system checks; the release of connections.
        from . import checks, signals, url_checks  # noqa: F401
        from .security import checks as security_checks  # noqa: F401  (registers more)


def _take_runserver(name: str) -> None:
    """
    Make `runserver` the command of the app `name`, wherever the app stands in INSTALLED_APPS.

    Django takes the command of the first app that has it. Projects for Channels 1.x list channels last,
    below django.contrib.staticfiles, whose command ours includes. A command of any other app stays.
    """
    from django.core.management import get_commands

    commands = get_commands()  # Django keeps this dict and looks each command up in it
    if commands.get("runserver") in ("django.core", "django.contrib.staticfiles"):
        commands["runserver"] = name

"""`manage.py startasgi`: writes the asgi.py that `startproject` also writes.

Both use one template, django/conf/project_template/project_name/asgi.py-tpl.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

PACKAGE = import_module(__name__.rpartition(".management.")[0])

TEMPLATE = os.path.join("conf", "project_template", "project_name", "asgi.py-tpl")


def template_path() -> str:
    """Return the path of asgi.py-tpl: inside the package, if it is there, else next to it."""
    package_dir = os.path.dirname(os.path.abspath(PACKAGE.__file__ or ""))
    inside = os.path.join(package_dir, TEMPLATE)
    return (
        inside if os.path.exists(inside) else os.path.join(os.path.dirname(package_dir), TEMPLATE)
    )


def render(project_name: str, settings_module: str) -> str:
    """Return the text of asgi.py for a project whose settings are `settings_module` (a dotted path)."""
    with open(template_path(), encoding="utf-8") as template:
        text = template.read()
    text = text.replace("{{ project_name }}.settings", settings_module)
    text = text.replace("{{ project_name }}", project_name)
    # The template has one name of this package, which may have another.
    return text.replace("from django.channels.", "from %s." % PACKAGE.__name__)


#: How wsgi.py and manage.py name their settings: by setdefault(), or by an assignment.
_DEFAULT = re.compile(
    r"^[^#\n]*\bDJANGO_SETTINGS_MODULE[\"'](?:\]\s*=|,)\s*[\"']([\w.]+)[\"']", re.MULTILINE
)


def default_in(path: str) -> str | None:
    """Return the settings module that the script at `path` sets by default, or None if it can't be told."""
    try:
        with open(path, encoding="utf-8", errors="replace") as script:
            found = _DEFAULT.search(script.read())
    except OSError:
        return None
    return found.group(1) if found else None


def choose_settings(option: str | None, folder: str) -> tuple[str, str]:
    """Return the settings module that asgi.py names by default, and what it was taken from.

    The environment comes last: DJANGO_SETTINGS_MODULE may be set for this terminal only, such as for a
    trial, and asgi.py is for every server that is started later. `folder` is that of asgi.py.
    """
    if option:
        return option, "--settings"
    for path in (os.path.join(folder, "wsgi.py"), os.path.abspath(sys.argv[0])):
        found = default_in(path)
        if found:
            return found, os.path.basename(path)
    return settings.SETTINGS_MODULE, "the settings of this command"


class Command(BaseCommand):
    help = (
        "Writes asgi.py, which gives the channel layer to protocol servers such as Daphne, "
        "into the project's package."
    )

    requires_system_checks: Any = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--force",
            action="store_true",
            default=False,
            help="Replaces an asgi.py that exists, such as startproject may write.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name, path = self.destination()
        module, origin = choose_settings(options.get("settings"), os.path.dirname(path))
        text = render(name, module)
        if os.path.exists(path) and not options["force"]:
            raise CommandError(
                "%s exists already. Replace it with: manage.py startasgi --force, or add these "
                "lines below those that set DJANGO_SETTINGS_MODULE:\n\n"
                "from %s.asgi import get_channel_layer\n\n"
                "channel_layer = get_channel_layer()" % (path, PACKAGE.__name__)
            )
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        self.stdout.write("Wrote %s. Serve it with: daphne %s.asgi:channel_layer" % (path, name))
        self.stdout.write(
            "Without DJANGO_SETTINGS_MODULE in its environment, it uses the settings %s (from %s)."
            % (module, origin)
        )

    def destination(self) -> tuple[str, str]:
        """Return the project's package (its name) and the path of its asgi.py.

        The package is the one of WSGI_APPLICATION, else of ROOT_URLCONF, else of the settings.
        """
        candidates = [settings.WSGI_APPLICATION, settings.ROOT_URLCONF, settings.SETTINGS_MODULE]
        for dotted_path in candidates:
            name = (dotted_path or "").partition(".")[0]
            if name and "." in dotted_path and name != "django":
                package = import_module(name)
                if getattr(package, "__file__", None) is not None and package.__file__ is not None:
                    directory = os.path.dirname(os.path.abspath(package.__file__))
                    return name, os.path.join(directory, "asgi.py")
        raise CommandError(
            "There is no project package to write asgi.py into: none of WSGI_APPLICATION, "
            "ROOT_URLCONF and DJANGO_SETTINGS_MODULE names a module inside a package."
        )

"""
System checks of what is open to clients: with `check --deploy`, settings and routes that let them in; always,
installed versions with known faults that an upgrade removes. See SECURITY.md.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Iterable, Iterator, NamedTuple, Tuple

from django.conf import settings
from django.core.checks import Warning, register
from django.core.exceptions import ImproperlyConfigured

from ..asgi import channel_layers
from ..compat import installed_version
from ..consume import consumer_name
from ..protocol import WEBSOCKET_CONNECT
from ..routing import Include, Router
from .websockets import marked

TAG = "channels"

_Version = Tuple[int, ...]


class Floor(NamedTuple):
    """The first version of a package without a fault that matters here."""

    package: str
    version: _Version
    #: The oldest Python that this version supports.
    python: _Version
    fault: str


#: The page docs/howto/deployment/asgi/index.txt has the same table.
FLOORS = (
    Floor("daphne", (4, 2, 2), (3, 9), "a frame of a WebSocket may have any size"),
    Floor(
        "twisted",
        (24, 7),
        (3, 8),
        "it answers pipelined requests in the wrong order (CVE-2023-46137, CVE-2024-41671)",
    ),
    Floor("h11", (0, 16), (3, 8), "a body may hide another request (CVE-2025-43859)"),
    Floor("h2", (4, 3), (3, 9), "a header of HTTP/2 may hide another request (CVE-2025-57804)"),
    Floor("httptools", (0, 6, 3), (3, 8), "a header may hide another request (CVE-2024-27982)"),
    Floor(
        "gunicorn",
        (23,),
        (3, 7),
        "behind a proxy, a body may hide another request from its own workers, which are for WSGI "
        "(CVE-2024-1135, CVE-2024-6827)",
    ),
)


@register(TAG)
def check_versions(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W005: an installed package has a known fault that an upgrade removes."""
    return [each for floor, each in _below(FLOORS) if sys.version_info >= floor.python]


@register(TAG, deploy=True)
def check_old_python(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W005 where no newer package supports this Python."""
    return [each for floor, each in _below(FLOORS) if sys.version_info < floor.python]


def _below(floors: Iterable[Floor]) -> Iterator[tuple[Floor, Any]]:
    for floor in floors:
        found = installed_version(floor.package)
        if found is None or _numbers(found) >= floor.version:
            continue
        newer, python = (".".join(map(str, each)) for each in (floor.version, floor.python))
        hint = "Install %s %s or newer." % (floor.package, newer)
        if sys.version_info < floor.python:
            hint = (
                "%s %s needs Python %s. See the documentation of deployment for what to do without it."
                % (
                    floor.package,
                    newer,
                    python,
                )
            )
        yield (
            floor,
            Warning(
                "%s %s is installed: %s." % (floor.package, found, floor.fault),
                hint=hint,
                id="channels.W005",
            ),
        )


def _numbers(version: str) -> _Version:
    """Return the numbers at the beginning of a version: (4, 2, 1) of "4.2.1rc1"."""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])[:3]))


@register(TAG, deploy=True)
def check_settings(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W006 (ALLOWED_HOSTS), W008 (CSRF_TRUSTED_ORIGINS), W009 and W010 (own settings)."""
    problems = []
    if "*" in settings.ALLOWED_HOSTS:
        problems.append(
            Warning(
                "ALLOWED_HOSTS has '*': a page of any site may reach this one under its own name (DNS "
                "rebinding), and opens sockets then. It doesn't get the cookies of your visitors.",
                hint="Name your hosts.",
                id="channels.W006",
            )
        )
    open_origins = [
        each for each in getattr(settings, "CSRF_TRUSTED_ORIGINS", ()) if each.startswith("http://")
    ]
    if open_origins:
        problems.append(
            Warning(
                "CSRF_TRUSTED_ORIGINS trusts pages without TLS, which anyone on the way may change: %s."
                % ", ".join(map(repr, open_origins)),
                hint="Serve them with TLS, and write https://.",
                id="channels.W008",
            )
        )
    if getattr(settings, "CHANNEL_SESSION_KEY_IN_QUERY", False):
        problems.append(
            Warning(
                "CHANNEL_SESSION_KEY_IN_QUERY is on: the key of a visitor's session may stand in a URL, "
                "which servers log and visitors share.",
                hint="Let clients send the session cookie, and remove the setting.",
                id="channels.W009",
            )
        )
    if getattr(settings, "CHANNEL_DAPHNE_ROOT_PATH", False):
        problems.append(
            Warning(
                "CHANNEL_DAPHNE_ROOT_PATH is on: behind Daphne, the header Daphne-Root-Path begins every URL "
                "that the site builds.",
                hint="Be sure that the proxy replaces or removes this header, or use --root-path.",
                id="channels.W010",
            )
        )
    return problems


@register(TAG, deploy=True)
def check_routes(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W007: routes whose sockets pages of every site may open."""
    problems = []
    layers = channel_layers.configs
    for alias in sorted(layers, key=str) if isinstance(layers, dict) else ():
        try:
            router = Router(layers[alias].get("ROUTING", []))
        except (AttributeError, ImproperlyConfigured):
            continue  # channels.E001 or E003
        found = sorted(set(map(consumer_name, _open_consumers(router.root.routes))))
        if found:
            problems.append(
                Warning(
                    "CHANNEL_LAYERS[%r]: pages of every site may open the sockets of %s, with the cookies "
                    "of your visitors." % (alias, ", ".join(found)),
                    hint="Use allowed_origins in place of any_origin, or silence this check if the "
                    "sockets need no visitor.",
                    id="channels.W007",
                )
            )
    return problems


def _open_consumers(routes: Iterable[Any]) -> Iterator[Any]:
    for each in routes:
        if isinstance(each, Include):
            yield from _open_consumers(each.routes)
        elif WEBSOCKET_CONNECT in getattr(each, "channels", ()):
            consumer = marked(getattr(each, "consumer", None))
            validated = getattr(consumer, "origin_validator", None) is not None
            if getattr(consumer, "any_origin", False) and not validated:
                yield consumer

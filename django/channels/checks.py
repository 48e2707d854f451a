"""System checks of CHANNEL_LAYERS: each problem is reported with its remedy. Nothing is connected to."""

from __future__ import annotations

import difflib
import re
from importlib.util import find_spec
from typing import Any, Callable, Iterator

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands
from django.views.decorators.debug import sensitive_variables

from .asgi import channel_layers
from .backends import MEMORY, import_backend
from .compat import installed_version
from .consumer_checks import check_consumers
from .gateway.limits import make_limits
from .habits import OTHER_NAME, PACKAGE, PAGE
from .imports import file_of, place_of
from .layers.engine.layer import EngineLayer
from .log import shown
from .pages import see
from .route_checks import check_patterns, check_routes, suggest
from .routing import Router
from .streams import count_setting
from .subprotocols import SUBPROTOCOL

TAG = "channels"

#: What an entry of CHANNEL_LAYERS may have.
_ENTRY_KEYS = ("BACKEND", "CONFIG", "GATEWAY", "ROUTING", "TEST_CONFIG")


@register(TAG)
def check_channel_layers(app_configs: Any, **kwargs: Any) -> list[Any]:
    """
    Check CHANNEL_LAYERS for channels.E001 (not a dict of dicts), W001 (no default), and each of its entries.
    """
    layers = channel_layers.configs
    if not isinstance(layers, dict) or not all(isinstance(each, dict) for each in layers.values()):
        return [
            Error(
                "CHANNEL_LAYERS is not a dict of dicts.",
                hint='Write CHANNEL_LAYERS = {"default": {"BACKEND": "…", "ROUTING": "…"}}.',
                id="channels.E001",
            )
        ]
    problems: list[Any] = []
    if "default" not in layers:
        problems.append(
            Warning(
                "CHANNEL_LAYERS has no 'default'.",
                hint="Channel and Group send on 'default' if they are given no alias: add it.",
                id="channels.W001",
            )
        )
    for alias in sorted(layers, key=str):
        problems += _check_entry(alias, layers[alias])
    return problems


@register(TAG)
def check_subprotocols(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check CHANNELS_WS_PROTOCOLS for channels.E005: not a list of names of subprotocols."""
    names = getattr(settings, "CHANNELS_WS_PROTOCOLS", None)
    if names is None or (
        isinstance(names, (list, tuple))
        and all(isinstance(each, str) and SUBPROTOCOL.match(each) for each in names)
    ):
        return []
    return [
        Error(
            "CHANNELS_WS_PROTOCOLS is %s, not a list of names of subprotocols." % shown(names),
            hint='Write, for example, CHANNELS_WS_PROTOCOLS = ["graphql-ws"].',
            id="channels.E005",
        )
    ]


#: Settings that are numbers, and settings that are True or False.
_COUNTS = ("CHANNEL_ASYNC_STREAMS", "CHANNEL_ASYNC_THREADS", "CHANNEL_STREAM_THREADS")
_FLAGS = ("CHANNEL_DAPHNE_ROOT_PATH", "CHANNEL_SESSION_KEY_IN_QUERY")


@register(TAG)
def check_values(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.E008: a setting of the wrong type, such as the text "False", which is true."""
    wrong = []
    for name in _COUNTS:
        try:
            count_setting(name, 1)
        except ImproperlyConfigured as error:
            wrong.append(str(error))
    for name in _FLAGS:
        value = getattr(settings, name, False)
        if not isinstance(value, bool):
            wrong.append("The setting %s is True or False, not %s." % (name, shown(repr(value))))
    slow = getattr(settings, "CHANNEL_SLOW_CONSUMER", None) or 0
    if isinstance(slow, bool) or not isinstance(slow, (int, float)) or not slow >= 0:
        wrong.append(
            "The setting CHANNEL_SLOW_CONSUMER is a number of seconds, or None, not %s."
            % shown(repr(slow))
        )
    return [
        Error(text, hint="Correct it. %s" % see("ref/channels/settings"), id="channels.E008")
        for text in wrong
    ]


#: Distributions that only Channels 2 to 4 use.
_OF_CHANNELS_4 = ("channels_redis", "channels_postgres", "channels_rabbitmq")


@register(TAG)
def check_channels_4(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W011 (distributions of Channels 4) and W012 (its server in INSTALLED_APPS)."""
    if PACKAGE == OTHER_NAME:
        return []  # under this name, it runs next to Channels 4
    found = {name: installed_version(name) for name in _OF_CHANNELS_4}
    version = installed_version("channels")
    # Where it is part of Django, and after an installation over another one, it may be there, too.
    if version is not None and version.split(".")[0] in ("2", "3", "4"):
        found["channels"] = version
    problems = [
        Warning(
            "%s %s is installed. It belongs to Channels 2 to 4, and %s does not use it."
            % (name, each, PACKAGE),
            hint="pip uninstall %s. %s" % (name, PAGE),
            id="channels.W011",
        )
        for name, each in sorted(found.items())
        if each is not None
    ]
    if get_commands().get("runserver") == "daphne":  # that of the first app that has one
        problems.append(
            Warning(
                "'daphne' stands before %r in INSTALLED_APPS, so its runserver runs, which serves "
                "ASGI_APPLICATION and no channel layer." % PACKAGE,
                hint="Remove it. The runserver of %s starts Daphne by itself. %s" % (PACKAGE, PAGE),
                id="channels.W012",
            )
        )
    return problems


#: The settings of this package. Those of a site may have names near them.
_SETTINGS = (
    "CHANNEL_LAYERS",
    "CHANNELS_WS_PROTOCOLS",
    "CHANNEL_ASYNC_STREAMS",
    "CHANNEL_ASYNC_THREADS",
    "CHANNEL_DAPHNE_ROOT_PATH",
    "CHANNEL_SESSION_KEY_IN_QUERY",
    "CHANNEL_SLOW_CONSUMER",
    "CHANNEL_STREAM_THREADS",
)

#: How near a name of the site's settings is to one of _SETTINGS if it is meant: DJANGO_CHANNEL_LAYER is.
_NEAR = 0.85


@register(TAG)
def check_settings(app_configs: Any, **kwargs: Any) -> list[Any]:
    """
    Check for channels.W013 (a setting that is misspelt, or a CHANNEL_LAYERS that is missing) and W014
    (ASGI_APPLICATION of Channels 4, and no routes here).
    """
    name, problems = "CHANNEL_LAYERS", []
    given = [each for each in dir(settings) if each.isupper()]
    for each in given:
        meant = difflib.get_close_matches(each, _SETTINGS, 1, _NEAR)
        if meant and each != meant[0] and meant[0] not in given:
            problems.append(
                Warning(
                    "The settings have %s, which nothing reads, and no %s." % (each, meant[0]),
                    hint="Rename it. %s" % see("ref/channels/settings"),
                    id="channels.W013",
                )
            )
    if not getattr(settings, name, None) and not problems:
        problems.append(
            Warning(
                "The setting %s is missing or empty. The layer is then in memory and has no routes, so "
                "that views are served, and each WebSocket is refused." % name,
                hint='Write %s = {"default": {"BACKEND": %r, "ROUTING": "mysite.routing.channel_routing"}}. '
                "%s" % (name, MEMORY, see("ref/channels/settings")),
                id="channels.W013",
            )
        )
    if PACKAGE != OTHER_NAME and getattr(settings, "ASGI_APPLICATION", None) and not _has_routes():
        problems.append(
            Warning(
                "ASGI_APPLICATION is set, which %s doesn't read, and no layer of %s has ROUTING, so each "
                "WebSocket is refused." % (PACKAGE, name),
                hint="Write the routes of the consumers, and name them as ROUTING in %s. %s"
                % (name, PAGE),
                id="channels.W014",
            )
        )
    return problems


@register(TAG)
def check_logging(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W027: LOGGING names loggers like this package, which logs under another name."""
    loggers = (getattr(settings, "LOGGING", None) or {}).get("loggers") or {}
    ours = [each for each in loggers if (str(each) + ".").startswith("django.channels.")]
    wrong = sorted(each for each in loggers if (str(each) + ".").startswith(PACKAGE + "."))
    if ours or not wrong:
        return []
    return [
        Warning(
            "LOGGING configures %s, to which nothing logs." % ", ".join(map(repr, wrong)),
            hint="The loggers of this package are 'django.channels' and those below it. %s"
            % see("topics/channels/how-it-works"),
            id="channels.W027",
        )
    ]


#: An asgi.py that forgets to call the function.
_NOT_CALLED = re.compile(r"^\w+\s*=\s*(\w+\.)*get_channel_layer[ \t]*(#.*)?$", re.M)


@register(TAG, deploy=True)
def check_asgi(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W026: an asgi.py that serves no layer, such as that of startproject."""
    package = str(getattr(settings, "ROOT_URLCONF", "")).rpartition(".")[0]
    if PACKAGE == OTHER_NAME or not package or not _has_routes():
        return []
    try:
        spec = find_spec(package + ".asgi")  # without running it
        with open(spec.origin, encoding="utf-8") as source:  # type: ignore[union-attr, arg-type]
            text = source.read()
    except (AttributeError, ImportError, OSError, TypeError, ValueError):
        return []
    problem = ""
    if "get_asgi_application" in text and PACKAGE not in text:
        problem = "serves Django's own application, which refuses WebSockets, and no channel layer"
        hint = "Write it with manage.py startasgi --force."
    elif _NOT_CALLED.search(text):
        problem = "has the function get_channel_layer in place of the layer that it returns"
        hint = "Write channel_layer = get_channel_layer(), with parentheses."
    if not problem:
        return []
    hint += " " + see("howto/deployment/asgi/index")
    return [Warning("%s.asgi %s." % (package, problem), hint=hint, id="channels.W026")]


def _has_routes() -> bool:
    layers = channel_layers.configs
    return not isinstance(layers, dict) or any(
        isinstance(each, dict) and each.get("ROUTING") for each in layers.values()
    )


def _check_entry(alias: str, entry: dict[str, Any]) -> Iterator[Any]:
    """Check one layer for channels.E002 (BACKEND), W002 (keys), E003 (ROUTING), E004, E006 and W004."""
    for key in sorted(set(entry).difference(_ENTRY_KEYS), key=str):
        yield Warning(
            "CHANNEL_LAYERS[%r] has an unknown key %r." % (alias, key),
            hint=suggest(key, _ENTRY_KEYS) + " The options of the layer stand in CONFIG.",
            id="channels.W002",
        )
    try:
        make_limits(entry.get("GATEWAY"))
    except ImproperlyConfigured as error:
        yield Error(
            "CHANNEL_LAYERS[%r]: %s" % (alias, error),
            hint="See the options of GATEWAY in the documentation of CHANNEL_LAYERS.",
            id="channels.E006",
        )
    try:
        import_backend(alias, entry)
    except ImproperlyConfigured as error:
        yield Error(
            str(error),
            hint="BACKEND is the dotted path of a channel layer class.",
            id="channels.E002",
        )
    else:
        yield from _check_options(alias, entry)
    try:
        router = Router(entry.get("ROUTING", []))
    except ImproperlyConfigured as error:
        place = place_of(error)
        yield Error(
            "CHANNEL_LAYERS[%r]: %s" % (alias, error),
            hint="Raised at %s." % place if place else see("ref/channels/settings"),
            id="channels.E003",
        )
    else:
        yield from check_routes(alias, router)
        yield from check_patterns(alias, entry.get("CONFIG"), router)
        yield from check_consumers(alias, router.root.routes)


def file_of_failed_routing() -> str | None:
    """Return the file of the site that raises what E003 reports, or None."""
    for entry in channel_layers.configs.values():
        try:
            Router(entry.get("ROUTING", []))
        except Exception as error:
            return file_of(error) or None
    return None


def _check_options(alias: str, entry: dict[str, Any]) -> Iterator[Any]:
    """Check for channels.E004: the layer refuses its CONFIG or TEST_CONFIG."""
    makers: list[tuple[str, Callable[[str], Any]]] = [
        ("CONFIG", channel_layers.make_backend),
        ("TEST_CONFIG", channel_layers.make_test_backend),
    ]
    for key, make in makers:
        if entry.get(key) is None and key == "TEST_CONFIG":
            continue
        problem = _problem(make, alias).replace("CHANNEL_LAYERS[%r]: " % alias, "", 1)
        if problem:
            hint = "See the options of the layer in the documentation of its BACKEND."
            config = entry[key] if isinstance(entry.get(key), dict) else {}
            misplaced = sorted(set(config).intersection(_ENTRY_KEYS))
            if misplaced:
                hint = "Move %s out of %s, next to BACKEND." % (" and ".join(misplaced), key)
            yield Error(
                "CHANNEL_LAYERS[%r] has a %s that its layer refuses: %s" % (alias, key, problem),
                hint=hint,
                id="channels.E004",
            )
        elif key == "CONFIG":
            app = make(alias).required_app()
            if app and not apps.is_installed(app):
                yield Error(
                    "CHANNEL_LAYERS[%r] has a layer whose app isn't in INSTALLED_APPS." % alias,
                    hint="Add %r to INSTALLED_APPS, and run manage.py migrate." % app,
                    id="channels.E009",
                )


@sensitive_variables()  # a password, maybe
def _problem(make: Callable[[str], Any], alias: str) -> str:
    """Make a layer, which connects to nothing, and return why it cannot be made, or ""."""
    try:
        layer = make(alias)
        if isinstance(layer, EngineLayer):
            layer.make_store()  # some options are read only then
    except ImproperlyConfigured as error:
        return str(error)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    return ""

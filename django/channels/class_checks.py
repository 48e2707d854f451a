"""System checks of bindings, and of the names and attributes of class-based consumers and bindings."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Iterator

from django.conf import settings
from django.core.checks import Warning, register

from .callables import is_own
from .generic.attributes import doubtful
from .imports import import_path
from .misspelt import misspelt
from .pages import see


@register("channels")  # type: ignore[untyped-decorator]
def check_bindings(app_configs: Any, **kwargs: Any) -> list[Any]:
    """
    Check for channels.W016, a misspelt name in a binding, W020, a name that isn't a field, W025, a value of
    the wrong type, and W028, a binding that lacks what it needs.
    """
    _import_routing()
    base = sys.modules.get(__package__ + ".binding.base")
    bindings = [] if base is None else base.BindingMetaclass.binding_classes
    problems = [problem for each in bindings for problem in check_names("", each)]
    problems += [problem for each in bindings for problem in check_attributes("", each)]
    problems += [problem for each in bindings for problem in _check_complete(each)]
    return problems + [problem for each in bindings for problem in _check_fields(each)]


def _import_routing() -> None:
    """
    Import the routing of each layer, because that imports bindings, and Django runs checks in any order. What
    it raises is left to `check_channel_layers`.
    """
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    for entry in layers.values() if isinstance(layers, dict) else ():
        routing = entry.get("ROUTING") if isinstance(entry, dict) else None
        if isinstance(routing, str):
            with contextlib.suppress(Exception):
                import_path(routing)


def _check_fields(binding: Any) -> Iterator[Any]:
    """Check for channels.W020: a name in a binding that isn't a field."""
    for attribute, name in binding.unknown_names():
        yield Warning(
            "%s.%s.%s has %r, which isn't a field of its model: it has no effect."
            % (binding.__module__, binding.__qualname__, attribute, name),
            hint="Correct or remove it. Methods and properties go into send_members of a "
            "WebsocketBindingWithMembers; the primary key is always sent, as pk.",
            id="channels.W020",
        )


def _check_complete(binding: Any) -> Iterator[Any]:
    """Check for channels.W028: a binding that lacks what it needs for each change."""
    lacks = []
    if is_own(binding.group_names) and is_own(binding.post_change_receiver):
        lacks.append("group_names(cls, instance), a classmethod that returns the groups")
    if hasattr(binding, "stream") and not binding.stream and is_own(binding.serialize):
        lacks.append("stream, the name of its stream")
    for each in lacks:
        yield Warning(
            "%s.%s lacks %s. So it sends no change of its model."
            % (binding.__module__, binding.__qualname__, each),
            hint="Add it. %s" % see("topics/channels/binding"),
            id="channels.W028",
        )


def check_names(where: str, owner: type) -> Iterator[Any]:
    """Check for channels.W016: a misspelt name in a class. `where` begins the warning."""
    for name, meant in misspelt(owner):
        yield Warning(
            "%s%s.%s has %r, which nothing uses, and no %r."
            % (where, owner.__module__, owner.__qualname__, name, meant),
            hint="Did you mean %r? If other code uses it, give it another name." % meant,
            id="channels.W016",
        )


def check_attributes(where: str, owner: type) -> Iterator[Any]:
    """Check for channels.W025, as `check_names` does: an attribute that does something else than it says."""
    for name, problem, remedy in doubtful(owner):
        yield Warning(
            "%s%s.%s.%s %s." % (where, owner.__module__, owner.__qualname__, name, problem),
            hint="%s%s." % (remedy[:1].upper(), remedy[1:]),
            id="channels.W025",
        )

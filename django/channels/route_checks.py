"""System checks of the routes of a layer: what takes no message, and arguments that no filter gives."""

from __future__ import annotations

import difflib
import re
from fnmatch import fnmatchcase
from typing import Any, Iterable, Iterator, Tuple

from django.core.checks import Error, Warning

from .consume import consumer_name
from .log import shown
from .pages import see
from .protocol import EVENT_CHANNELS, event_keys
from .routing import Include, Route, Router, groups_of
from .runnable import missing_arguments, problem_of

#: A route or an include, and the name of one of its filters.
_Filter = Tuple[Any, str]

#: A filter by method that no method matches.
_LOWER = re.compile(r"\^?[a-z|()?:]+\$?\Z")

#: How near a name of a channel is to the one that is meant.
_NEAR = 0.85


def check_routes(alias: str, router: Router) -> Iterator[Any]:
    """Check the routes of a layer for channels.W004, W015, W022 and E007."""
    yield from _check_filters(alias, router)
    yield from _check_reachable(alias, router)
    yield from _check_shadowed(alias, router.root.routes)
    yield from _check_arguments(alias, router.root.routes, [])


def _check_filters(alias: str, router: Router) -> Iterator[Any]:
    """Check for channels.W004: a filter by a key that no message of a standard channel has."""
    unknown: dict[tuple[int, str], tuple[Any, set[str]]] = {}
    for (owner, name), channel in _filters(router.root.routes, []):
        if name not in event_keys(channel):
            unknown.setdefault((id(owner), name), (owner, set()))[1].add(channel)
    for (_, name), (owner, channels) in unknown.items():
        keys = set().union(*map(event_keys, channels))
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s filters by %r, a key that no message on %s has, so it takes no message "
            "from there." % (alias, shown(owner), name, " or ".join(sorted(channels))),
            hint=suggest(name, keys),
            id="channels.W004",
        )


def _check_reachable(alias: str, router: Router) -> Iterator[Any]:
    """Check for channels.W015: a misspelt channel of gateways, or a filter that no path can match."""
    for name in sorted(router.channels - EVENT_CHANNELS):
        near = difflib.get_close_matches(name, sorted(EVENT_CHANNELS), 1, _NEAR)
        if near:
            yield Warning(
                "CHANNEL_LAYERS[%r] has a route for the channel %r, to which no gateway sends."
                % (alias, name),
                hint="Did you mean %r? See %s" % (near[0], see("ref/channels/messages")[4:]),
                id="channels.W015",
            )
    for each in router.root.routes:
        if isinstance(each, Route) and not each.channels:
            yield Warning(
                "CHANNEL_LAYERS[%r]: %s names no channel, so it takes no message."
                % (alias, shown(each)),
                hint="A class names its channels in method_mapping: {'channel': 'method'}.",
                id="channels.W015",
            )
        if isinstance(each, Route) and each.channels.isdisjoint(EVENT_CHANNELS):
            continue
        for name, pattern in getattr(each, "filters", ()):
            if name == "path" and re.match(r"\^?\w", pattern.pattern):
                yield Warning(
                    "CHANNEL_LAYERS[%r]: %s filters by path=%r, but each path begins with a slash, so it "
                    "takes no message." % (alias, shown(each), pattern.pattern),
                    hint="Write path=r'^/%s'." % pattern.pattern.lstrip("^"),
                    id="channels.W015",
                )
            if name == "method" and _LOWER.match(pattern.pattern) and not pattern.flags & re.I:
                yield Warning(
                    "CHANNEL_LAYERS[%r]: %s filters by method=%r, but methods are in upper case, so it takes "
                    "no message." % (alias, shown(each), pattern.pattern),
                    hint="Write method=%r." % pattern.pattern.upper(),
                    id="channels.W015",
                )


def _check_shadowed(alias: str, routes: Iterable[Any]) -> Iterator[Any]:
    """Check for channels.W022: a route behind one that takes each of its messages."""
    earlier: list[Any] = []
    for each in routes:
        if getattr(type(each), "match", None) is Include.match:
            yield from _check_shadowed(alias, each.routes)
        if getattr(type(each), "match", None) is not Route.match:
            continue
        before = {
            channel: one
            for one in earlier
            for channel in one.channels
            if not one.filters or one.filters == each.filters
        }
        if each.channels and each.channels.issubset(before):
            yield Warning(
                "CHANNEL_LAYERS[%r]: %s takes no message, because the first route that matches takes it, and "
                "%s stands before it." % (alias, shown(each), shown(before[min(each.channels)])),
                hint="Remove one, or give them filters that differ, such as path=r'^/…$'.",
                id="channels.W022",
            )
        earlier.append(each)


def check_patterns(alias: str, config: Any, router: Router) -> Iterator[Any]:
    """Check for channels.W023: a pattern in a layer's CONFIG that is near a channel, and matches none."""
    known = router.channels | EVENT_CHANNELS
    globs = known.union(name.partition(".")[0] + ".*" for name in known)
    for option in ("channel_capacity", "channel_expiry", "lost"):
        patterns = config.get(option) if isinstance(config, dict) else None
        for pattern in patterns if isinstance(patterns, dict) else ():
            if not isinstance(pattern, str) or any(fnmatchcase(name, pattern) for name in known):
                continue
            near = difflib.get_close_matches(pattern, sorted(globs), 1, _NEAR)
            if near:
                yield Warning(
                    "CHANNEL_LAYERS[%r]: %r in the option %s matches no channel of a gateway or a route."
                    % (alias, pattern, option),
                    hint="Did you mean %r?" % near[0],
                    id="channels.W023",
                )


def _check_arguments(alias: str, routes: Iterable[Any], outer: list[str]) -> Iterator[Any]:
    """
    Check for channels.E007: a consumer that needs an argument that no filter gives. `outer` are the names
    that the filters of the includes around `routes` give.
    """
    for each in routes:
        if getattr(type(each), "match", None) not in (Route.match, Include.match):
            continue
        groups = outer + groups_of(each.filters)
        if isinstance(each, Include):
            yield from _check_arguments(alias, each.routes, groups)
            continue
        missing = missing_arguments(each.consumer, groups)
        problem = problem_of(each.consumer, groups)
        if missing:
            problem = "%s needs the argument %r, which no filter of its routes gives" % (
                consumer_name(each.consumer),
                missing[0],
            )
        if problem:
            yield Error(
                "CHANNEL_LAYERS[%r]: %s" % (alias, problem),
                hint=_hint_of_frame(each.consumer, missing)
                + "A consumer gets the message, and each named group of the filters as a keyword: "
                "path=r'^/(?P<%s>[^/]+)/$'. Add **kwargs for groups that it doesn't need."
                % (missing[0] if missing else "room"),
                id="channels.E007",
            )


def _hint_of_frame(consumer: Any, missing: list[str]) -> str:
    """Return what `receive` is called with, if the first argument that is missing is one of it."""
    receive = getattr(consumer, "receive", None)
    if not missing or missing[0] not in getattr(
        getattr(receive, "__code__", None), "co_varnames", ()
    ):
        return ""
    return (
        "For the frame: WebsocketConsumer calls receive(text=…, bytes=…), JsonWebsocketConsumer "
        "receive(content). For a part of the path: "
    )


def _filters(routes: Iterable[Any], outer: list[_Filter]) -> Iterator[tuple[_Filter, str]]:
    """
    Return each filter that decides about messages on a standard channel, with the channel. `outer` are the
    filters of the includes around `routes`.
    """
    for each in routes:
        if getattr(type(each), "match", None) not in (Route.match, Include.match):
            continue  # the site's own kind of route
        found = outer + [(each, name) for name, _ in each.filters]
        if isinstance(each, Include):
            yield from _filters(each.routes, found)
            continue
        for channel in sorted(EVENT_CHANNELS.intersection(each.channels)):
            for item in found:
                yield item, channel


def suggest(name: object, known: Iterable[str]) -> str:
    """Return a hint that names the key that was meant, if one is near, and those that there are."""
    keys = sorted(known)
    near = {each.lower(): each for each in keys}
    found = difflib.get_close_matches(str(name).lower(), list(near), 1)
    return "%sThe keys are: %s." % (
        "Did you mean %r? " % near[found[0]] if found else "",
        ", ".join(keys),
    )

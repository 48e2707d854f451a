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

#: Names of what is sent to a client, or of another protocol's events, and what to write.
_REPLIES = {
    "http.response": 'message.reply_channel.send({"status": 200, "content": b"…"})',
    "http.response.body": 'message.reply_channel.send({"content": b"…", "more_content": True})',
    "http.response.start": 'message.reply_channel.send({"status": 200, "more_content": True})',
    "websocket.accept": 'message.reply_channel.send({"accept": True})',
    "websocket.close": 'message.reply_channel.send({"close": True})',
    "websocket.message": "route('websocket.receive', consumer)",
    "websocket.open": "route('websocket.connect', consumer)",
    "websocket.send": 'message.reply_channel.send({"text": "…"})',
    "websocket.error": "route('websocket.disconnect', consumer)",
}

#: A path filter with a scheme and a host.
_URL = re.compile(r"\^?(wss?|https?)\??://[^/]*/?")

#: A path filter with a query string: an escaped question mark, or one before `name=`.
_QUERY = re.compile(r"(?<!\\)\\\?|(?<!\()\?\w+=")


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
        hint = "Did you mean %r?" % near[0] if near else ""
        if name in _REPLIES:
            hint = "Write %s." % _REPLIES[name]
        if hint:
            yield Warning(
                "CHANNEL_LAYERS[%r] has a route for the channel %r, to which no gateway sends."
                % (alias, name),
                hint="%s See %s" % (hint, see("ref/channels/messages")[4:]),
                id="channels.W015",
            )
    for owner, problem, hint in _unreachable(router.root.routes, []):
        yield Warning(
            "CHANNEL_LAYERS[%r]: %s %s, so it takes no message." % (alias, shown(owner), problem),
            hint=hint,
            id="channels.W015",
        )


def _unreachable(
    routes: Iterable[Any], outer: list[tuple[str, Any]]
) -> Iterator[tuple[Any, str, str]]:
    """
    Return each route that can take no message of a gateway, why, and what to write. `outer` are the filters
    of the includes around `routes`.
    """
    for each in routes:
        if getattr(type(each), "match", None) not in (Route.match, Include.match):
            continue  # the site's own kind of route
        if isinstance(each, Route) and not each.channels:
            yield (
                each,
                "names no channel",
                "A class names its channels in method_mapping: {'channel': 'method'}.",
            )
        if each.channel_names().isdisjoint(EVENT_CHANNELS):
            continue
        for name, pattern in each.filters:
            problem = _problem_of_filter(name, pattern, outer)
            if problem is not None:
                yield (each, *problem)
        if isinstance(each, Include):
            yield from _unreachable(each.routes, outer + each.filters)


def _problem_of_filter(
    name: str, pattern: Any, outer: list[tuple[str, Any]]
) -> tuple[str, str] | None:
    """Return why no message of a gateway passes a filter, and what to write, or None."""
    text = pattern.pattern
    prefixes = [one for key, one in outer if key == name]
    if prefixes and _is_end(prefixes[-1].pattern) and pattern.match("") is None:
        return (
            "filters by %s=%r, but its include takes the whole %s by %r"
            % (name, text, name, prefixes[-1].pattern),
            "Remove the $ at the end of the include's filter: its routes get what follows.",
        )
    if name == "path" and _QUERY.search(text):
        return (
            "filters by path=%r, but a path has no query string" % text,
            "Remove what begins with the question mark. The consumer of websocket.connect finds the query in "
            "message['query_string']. %s" % see("ref/channels/messages"),
        )
    if name == "path" and not prefixes and re.match(r"\^?\w", text):
        rest = _URL.sub("", text, count=1).lstrip("^")
        return (
            "filters by path=%r, but each path begins with a slash" % text,
            "Write path=r'^/%s'." % rest,
        )
    if name == "method" and _LOWER.match(text) and not pattern.flags & re.I:
        return (
            "filters by method=%r, but methods are in upper case" % text,
            "Write method=%r." % text.upper(),
        )
    return None


def _is_end(text: str) -> bool:
    """Return whether a pattern takes its value to the end."""
    return text.endswith("$") and not text.endswith("\\$")


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

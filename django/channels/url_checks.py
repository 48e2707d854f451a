"""The system check for consumers that stand in the URLconf."""

from __future__ import annotations

from typing import Any, Iterator

from django.conf import settings
from django.core.checks import Warning, register

from .checks import TAG
from .compat import get_resolver
from .consume import consumer_name
from .decorators import decorators_of
from .generic.base import BaseConsumer
from .pages import see

#: How deep the patterns of `include` are looked at. A URLconf may include itself.
MAX_DEPTH = 30


@register(TAG)
def check_urls(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Check for channels.W029: a consumer in the URLconf, which Django would call as a view."""
    urlconf = getattr(settings, "ROOT_URLCONF", None)
    if not urlconf:
        return []
    try:
        found = list(_consumers(get_resolver(urlconf), 0))
    except Exception:  # Django's check tells what is wrong with the URLconf
        return []
    return [
        Warning(
            "The URLconf has the consumer %s, which Django would call as a view, with a request."
            % consumer_name(each),
            hint="Write it into the ROUTING of a layer, with route() or route_class(). %s"
            % see("topics/channels/consumers"),
            id="channels.W029",
        )
        for each in found
    ]


def _consumers(resolver: Any, depth: int) -> Iterator[Any]:
    """Yield the callbacks of a resolver's patterns that are consumers."""
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            if depth < MAX_DEPTH:
                yield from _consumers(pattern, depth + 1)
            continue
        callback = getattr(pattern, "callback", None)
        is_class = isinstance(callback, type) and issubclass(callback, BaseConsumer)
        if is_class or decorators_of(callback):
            yield callback

"""The layers of asgi_redis 1.x under their names, with the settings that they had."""

from __future__ import annotations

from typing import Any, Sequence

from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from .layer import RedisChannelLayer

#: Where 1.x looked for Sentinel.
SENTINEL = ("localhost", 26379)


class RedisLocalChannelLayer(RedisChannelLayer):
    """
    RedisChannelLayer. In 1.x, some channels were in the memory of one machine; here all are in Redis, so
    workers may run on any machine.
    """


class RedisSentinelChannelLayer(RedisChannelLayer):
    """
    RedisChannelLayer with `hosts`, the addresses of the Sentinels, and `services`, the name of one primary.

    Raises ImproperlyConfigured for more than one service or none: 1.x spread channels over them, which loses
    messages when the list changes. `sentinel_refresh_interval` is accepted and ignored, because Sentinel is
    asked only when a connection is opened.
    """

    @sensitive_variables()  # type: ignore[untyped-decorator]
    def __init__(
        self,
        hosts: Any = None,
        services: Sequence[str] | str | None = None,
        sentinel_refresh_interval: float = 0,
        **config: Any,
    ) -> None:
        names = [services] if isinstance(services, str) else list(services or ())
        if len(names) != 1:
            raise ImproperlyConfigured(
                "services names %d primaries, but this layer uses one: write services=['mymaster'], the "
                "name in the line 'sentinel monitor' of sentinel.conf. If one Redis isn't enough, use a "
                "Redis Cluster (cluster=True)." % len(names)
            )
        super().__init__(sentinels=hosts or [SENTINEL], service=names[0], **config)

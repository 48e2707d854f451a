"""RedisChannelLayer: its options. The rules are the engine's; store.py says how things are stored."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from .codec import make_codec
from .contract import EngineLayer, Options, is_count, refusal, split
from .keys import Keys
from .project import identities
from .scripts import run
from .servers import make_servers
from .store import RedisStore

#: Partitions on a cluster, where `partitions` is not given.
CLUSTER_PARTITIONS = 16

#: A prefix stays reserved for its project for at least this many seconds after the last use, and longer
#: while a delayed message waits.
PROJECT_EXPIRY = 60.0

#: The options that only this layer has. Most go to `make_servers`.
DEFAULTS: dict[str, Any] = {
    "hosts": None,
    "prefix": None,
    "project": None,
    "symmetric_encryption_keys": None,
    "cluster": False,
    "sentinels": None,
    "service": None,
    "partitions": None,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "pool_size": 64,
    "connection_kwargs": None,
    "sentinel_kwargs": None,
    "stats_prefix": None,  # of asgi_redis 1.x: statistics now have the layer's prefix
}


class RedisChannelLayer(EngineLayer):
    """
    The channel layer on Redis 6.2 or newer, or Valkey. Making one connects to nothing.

    `hosts` is a list with one URL (`redis://`, `rediss://`, `unix://`), (host, port), or dict of redis-py's
    options; with `cluster`, of some nodes of a Redis Cluster. `sentinels`, a list of (host, port), and
    `service` take its place. `prefix` begins every key; layers of one project share it, and no other project
    may. `project` names this project for that (project.py). `partitions` (1; on a cluster 16) must be the
    same in all processes. `symmetric_encryption_keys`: see codec.py. `socket_timeout`,
    `socket_connect_timeout` (seconds), `pool_size` (idle connections kept), `connection_kwargs` and
    `sentinel_kwargs` go to redis-py. The other
    options are those of the engine's `Options` and of BaseChannelLayer.
    """

    #: `Worker.stop` wakes a waiting worker, so the wait can be long.
    block_for = 10.0

    store: RedisStore

    @sensitive_variables()  # type: ignore[untyped-decorator]
    def __init__(self, **config: Any) -> None:
        own, shared, common = split(config, DEFAULTS)
        if not is_count(own["pool_size"]):
            raise refusal("pool_size", "a number of connections, 0 or more", own["pool_size"])
        if not isinstance(own["cluster"], bool):
            raise refusal("cluster", "True or False", own["cluster"])
        super().__init__(Options(**shared), **common)
        partitions = own.pop("partitions")
        if partitions is None:
            partitions = CLUSTER_PARTITIONS if own["cluster"] else 1
        self._keys = Keys(own.pop("prefix"), partitions)
        del own["stats_prefix"]
        self._identities = identities(own.pop("project"))
        self._encryption_keys = own.pop("symmetric_encryption_keys")
        self._servers = own
        # An error report must not show the frames below, whose variables hold a password.
        problem = ""
        try:
            self.store  # noqa: B018  its options are checked now
        except ImproperlyConfigured as error:
            problem = str(error)
        if problem:
            raise ImproperlyConfigured(problem)

    def make_store(self) -> RedisStore:
        codec = make_codec(self._encryption_keys, self._keys.prefix)
        milliseconds = int(1000 * max(PROJECT_EXPIRY, 3 * self.options.lease))
        keys = [self._keys.project, self._keys.delay]
        check = run("check_project", keys, [milliseconds] + self._identities)
        servers = make_servers(greeting=[check], **self._servers)
        return RedisStore(servers, self._keys, codec, check)

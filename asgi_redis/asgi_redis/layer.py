"""RedisChannelLayer: its options. The rules are the engine's, what is stored how is told in store.py."""

from __future__ import annotations

from typing import Any, Sequence

from .codec import make_codec
from .contract import EngineLayer, Options
from .keys import Keys
from .servers import make_servers
from .store import RedisStore

#: Partitions on a cluster, where `partitions` is not given.
CLUSTER_PARTITIONS = 16


class RedisChannelLayer(EngineLayer):
    """
    The channel layer on Redis 6.2 or newer, or Valkey. Making one connects to nothing.

    `hosts` is a list with one URL (`redis://`, `rediss://`, `unix://`) or (host, port); with `cluster`, of
    some nodes of a Redis Cluster. `sentinels`, a list of (host, port), and `service` take its place.
    `prefix` begins every key; layers of one site share it. `partitions` (1; on a cluster 16) must be the
    same in all processes. `symmetric_encryption_keys`: see codec.py. `socket_timeout`,
    `socket_connect_timeout` (seconds), `pool_size` (idle connections kept), `connection_kwargs` and
    `sentinel_kwargs` go to redis-py. The other options are those of the engine's `Options` and of
    BaseChannelLayer.
    """

    #: A worker is woken when it has to end, so it need not poll often.
    block_for = 10.0

    store: RedisStore

    def __init__(
        self,
        hosts: Any = None,
        prefix: str = "asgi:",
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        cluster: bool = False,
        sentinels: Any = None,
        service: str | None = None,
        partitions: int | None = None,
        socket_timeout: float | None = 10.0,
        socket_connect_timeout: float | None = 5.0,
        pool_size: int = 64,
        connection_kwargs: dict[str, Any] | None = None,
        sentinel_kwargs: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        engine = {name: others.pop(name) for name in Options._fields if name in others}
        super().__init__(Options(**engine), **others)
        self._servers = {
            "hosts": hosts,
            "cluster": cluster,
            "sentinels": sentinels,
            "service": service,
            "sentinel_kwargs": sentinel_kwargs,
            "connection_kwargs": connection_kwargs,
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": socket_connect_timeout,
            "pool_size": pool_size,
        }
        self._keys = Keys(prefix, partitions or (CLUSTER_PARTITIONS if cluster else 1))
        self._encryption_keys = symmetric_encryption_keys
        self.store  # noqa: B018  its options are checked now

    def make_store(self) -> RedisStore:
        codec = make_codec(self._encryption_keys)
        return RedisStore(make_servers(**self._servers), self._keys, codec)

"""
Make the connections that a layer's CONFIG names: one server, the primary of a Sentinel, or a cluster.
Nothing here knows of channels, and nothing connects.
"""

from __future__ import annotations

from typing import Any, Union
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff

from .cluster import Clustered
from .direct import Direct, Pool

Servers = Union[Direct, Clustered]


def make_servers(
    hosts: Any = None,
    cluster: bool = False,
    sentinels: Any = None,
    service: str | None = None,
    sentinel_kwargs: dict[str, Any] | None = None,
    connection_kwargs: dict[str, Any] | None = None,
    socket_timeout: float | None = 10.0,
    socket_connect_timeout: float | None = 5.0,
    pool_size: int = 64,
) -> Servers:
    """Return the servers that a layer's CONFIG names. Raises ImproperlyConfigured with the remedy."""
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_connect_timeout,
    }
    options.update(connection_kwargs or {})
    options["protocol"] = 2
    if sentinels is not None:
        if hosts or cluster:
            raise ImproperlyConfigured("Give either sentinels and service, or hosts: not both.")
        if not service:
            raise ImproperlyConfigured(
                "sentinels needs service: the name of the primary, such as 'mymaster'."
            )
        return Direct(_sentinel_pool(sentinels, service, sentinel_kwargs, options), pool_size)
    hosts = (
        [hosts] if isinstance(hosts, (str, dict)) else list(hosts or ["redis://localhost:6379/0"])
    )
    urls = [_url(host) for host in hosts]
    if cluster:
        return Clustered(urls, options, ", ".join(map(where_of, urls)) + " (cluster)")
    if len(urls) > 1:
        raise ImproperlyConfigured(
            "hosts names %d servers. What Channels 1.x did with them, spreading channels over servers "
            "that know nothing of each other, lost messages: set cluster=True for the nodes of a Redis "
            "Cluster, use sentinels for a primary and its replicas, or name one server." % len(urls)
        )
    return Direct(_url_pool(urls[0], options), pool_size)


def _url(host: Any) -> str:
    if isinstance(host, dict) and "address" in host:  # as channels_redis writes it
        host = host["address"]
    if isinstance(host, (tuple, list)) and len(host) == 2:
        return "redis://%s:%d/0" % (host[0], int(host[1]))
    if isinstance(host, str) and "://" in host:
        return host
    raise ImproperlyConfigured(
        "hosts is a list of URLs ('redis://HOST:PORT/0') or (host, port), not %r." % (host,)
    )


def where_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def _url_pool(url: str, options: dict[str, Any]) -> Pool:
    options = {
        key: value
        for key, value in options.items()
        if not (url.startswith("unix:") and key == "socket_connect_timeout")
    }

    def make(module: Any, retry: Any) -> Any:
        return module.ConnectionPool.from_url(url, retry=retry(NoBackoff(), 0), **options)

    return make, where_of(url)


def _sentinel_pool(
    sentinels: Any, service: str, sentinel_kwargs: dict[str, Any] | None, options: dict[str, Any]
) -> Pool:
    addresses = []
    for each in sentinels:
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise ImproperlyConfigured(
                "sentinels is a list of (host, port), not %r." % (sentinels,)
            )
        addresses.append((each[0], int(each[1])))

    def make(module: Any, retry: Any) -> Any:
        kwargs: dict[str, Any] = {
            key: options[key]
            for key in ("socket_timeout", "socket_connect_timeout")
            if key in options
        }
        kwargs.update(sentinel_kwargs or {})
        kwargs["protocol"] = 2
        sentinel_module = redis.sentinel if module is redis else redis.asyncio.sentinel
        sentinel = sentinel_module.Sentinel(addresses, sentinel_kwargs=kwargs, **options)
        pool = sentinel.master_for(service, retry=retry(NoBackoff(), 0)).connection_pool
        return pool

    return make, "%s (by Sentinel)" % service

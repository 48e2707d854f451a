"""
Read the options that say where Redis is: one server, the primary of a Sentinel, or a cluster.

Each option is honoured, or refused with its remedy. Nothing here knows of channels, and nothing connects.
No error's text holds what a URL or a dict says, because that may be a password. The file is a little over
400 lines because every form of `hosts` is read here.
"""

from __future__ import annotations

import inspect
import re
import ssl
from typing import Any, NamedTuple, Sequence, Union
from urllib.parse import parse_qsl, urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from django.core.exceptions import ImproperlyConfigured
from redis.connection import parse_url
from redis.credentials import CredentialProvider

from .cluster import Clustered
from .contract import is_count
from .direct import Direct, Pool, no_retry
from .scripts import Command

Servers = Union[Direct, Clustered]

#: The value that each of these options has here, and what to do about another one.
FIXED: dict[str, tuple[Any, str]] = {
    "protocol": (2, "the layer speaks RESP2 with the server: leave it out"),
    "decode_responses": (False, "messages are bytes: leave it out"),
    "encoding": ("utf-8", "names are UTF-8: leave it out"),
    "encoding_errors": ("strict", "names are UTF-8: leave it out"),
    "legacy_responses": (True, "leave it out"),
    "retry_on_timeout": (False, "the layer repeats what may be repeated: leave it out"),
}

#: Options of redis-py that mean nothing here, and what to do about them.
REFUSED = {
    "max_connections": "use the layer's pool_size, which bounds the idle connections",
    "timeout": "use socket_timeout",
    "retry": FIXED["retry_on_timeout"][1],
    "retry_on_error": FIXED["retry_on_timeout"][1],
    "redis_connect_func": "leave it out",
    "parser_class": "leave it out; pip install hiredis for the fast one",
    "unix_socket_path": "write the host as 'unix:///path/to/redis.sock'",
    "driver_info": "use lib_name and lib_version",
    "event_dispatcher": "leave it out",
    "maint_notifications_config": "the server tells of maintenance in RESP3 only: leave it out",
}

_one_host = re.compile(r"[^\s\0,;/@]+\Z").match


def _is_word(value: Any) -> bool:
    """Return whether the server takes `value` as a name. It refuses connections whose name has a space."""
    return value is None or bool(isinstance(value, str) and re.match(r"[!-~]+\Z", value))


#: What the values of some options must be, and how to tell whether one is.
VALUES: dict[str, tuple[str, Any]] = {
    "host": (
        "the name or address of one host",
        lambda each: isinstance(each, str) and _one_host(each),
    ),
    "port": ("a number from 1 to 65535", lambda each: is_count(each) and 1 <= each <= 65535),
    "db": ("the number of a database", lambda each: is_count(each)),
    "path": ("text", lambda each: isinstance(each, str) and each != ""),
    "username": ("text", lambda each: each is None or isinstance(each, str)),
    "password": ("text", lambda each: each is None or isinstance(each, (str, bytes))),
    "client_name": ("ASCII text without spaces", _is_word),
    "lib_name": ("ASCII text without spaces", _is_word),
    "lib_version": ("ASCII text without spaces", _is_word),
    "credential_provider": (
        "an instance of redis.credentials.CredentialProvider",
        lambda each: each is None or isinstance(each, CredentialProvider),
    ),
    "socket_keepalive_options": (
        "a dict of numbers, from those of the options in Python's module socket",
        lambda each: (
            each is None or (isinstance(each, dict) and all(map(is_count, [*each, *each.values()])))
        ),
    ),
    "socket_keepalive": ("True or False", lambda each: each is None or isinstance(each, bool)),
    "socket_read_size": ("bytes, more than 0", lambda each: is_count(each) and each > 0),
    "ssl_check_hostname": ("True or False", lambda each: isinstance(each, bool)),
    "ssl_min_version": (
        "a ssl.TLSVersion",
        lambda each: each is None or each in list(ssl.TLSVersion),
    ),
    "health_check_interval": (
        "seconds",
        lambda each: is_count(each) or (isinstance(each, float) and each >= 0),
    ),
    "ssl_cert_reqs": (
        "'none', 'optional' or 'required'",
        lambda each: each in (None, "none", "optional", "required", 0, 1, 2),
    ),
}

#: Options that a URL's query can give, besides those for TLS. Others are parts of the URL, or aren't text.
IN_A_QUERY = {
    "client_name",
    "db",
    "health_check_interval",
    "lib_name",
    "lib_version",
    "password",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_timeout",
    "username",
}.union(FIXED, REFUSED)

#: What redis-py reads as True and False in a URL. It takes any other word for True.
_BOOLEANS = {"1", "t", "true", "y", "yes", "0", "f", "false", "n", "no"}

TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


class Host(NamedTuple):
    """One item of `hosts`: what redis-py's connection takes, and its address without user and password."""

    options: dict[str, Any]
    where: str

    def __repr__(self) -> str:
        return "<Host %s>" % self.where


def make_servers(
    hosts: Any,
    cluster: bool,
    sentinels: Any,
    service: str | None,
    sentinel_kwargs: dict[str, Any] | None,
    connection_kwargs: dict[str, Any] | None,
    socket_timeout: float,
    socket_connect_timeout: float,
    pool_size: int,
    greeting: Sequence[Command],
) -> Servers:
    """
    Return the servers that a layer's CONFIG names. Each new connection is sent `greeting`. Raises
    ImproperlyConfigured with the remedy.
    """
    common: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_connect_timeout,
    }
    common.update(_options("connection_kwargs", connection_kwargs))
    if isinstance(hosts, (str, dict)) or _is_address(hosts):
        hosts = [hosts]
    if hosts is not None and not isinstance(hosts, (list, tuple)):
        raise _bad_host(hosts)
    if sentinels is None and hosts and len(hosts) == 1:
        # As channels_redis writes it.
        if isinstance(hosts[0], dict) and "sentinels" in hosts[0]:
            common.update(hosts[0])
            sentinels, service = common.pop("sentinels"), common.pop("master_name", service)
            sentinel_kwargs = common.pop("sentinel_kwargs", sentinel_kwargs)
            hosts = None
    if sentinels is not None:
        if hosts or cluster:
            raise ImproperlyConfigured("Give either sentinels and service, or hosts: not both.")
        if not isinstance(service, str) or not service:
            raise ImproperlyConfigured(
                "sentinels needs service: the name of the primary, such as 'mymaster'."
            )
        return Direct(
            _sentinel_pool(sentinels, service, sentinel_kwargs, common), pool_size, greeting
        )
    if sentinel_kwargs or service:
        raise ImproperlyConfigured("service and sentinel_kwargs need sentinels.")
    if {"host", "port", "path"} & set(common):
        raise _refusal("host", "hosts tells where the server is: give host, port and path there")
    found = [_host(each, common) for each in hosts or ["redis://localhost:6379/0"]]
    if cluster:
        return _clustered(found, greeting)
    if len(found) > 1:
        raise ImproperlyConfigured(
            "hosts names %d servers. What Channels 1.x did with them, spreading channels over servers "
            "that know nothing of each other, lost messages: set cluster=True for the nodes of a Redis "
            "Cluster, use sentinels for a primary and its replicas, or name one server."
            % len(found)
        )
    return Direct(_pool(found[0]), pool_size, greeting)


# The forms of a host.


def _options(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, (dict, type(None))):
        raise ImproperlyConfigured("%s is a dict of options of redis-py." % name)
    return value or {}


def _is_address(value: Any) -> bool:
    """Return whether `value` is (host, port)."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and isinstance(value[0], str)
        and "://" not in value[0]
        and _is_number(value[1])
    )


def _is_number(value: Any) -> bool:
    """Return whether `value` is a number, or the text of one. `isdigit` alone also takes "²"."""
    text = str(value)
    return text.isascii() and text.isdigit()


def _host(value: Any, common: dict[str, Any]) -> Host:
    """Return one item of `hosts`. What it says itself comes before the `common` options."""
    options = dict(common)
    if isinstance(value, dict):
        given = dict(value)
        address = given.pop("address", None)
        if address is not None:
            found = _address(address)
            for name in set(found) & set(given):
                if found[name] != given[name]:
                    raise _refusal(name, "the address in hosts says something else: give it once")
            options.update(found)
        options.update(given)
        if address is None and not ({"host", "path"} & set(options)):
            names = ", ".join(sorted(filter(_is_name, value)))
            raise ImproperlyConfigured(
                "A dict in hosts needs 'address' (a URL or (host, port)), 'host' or 'path'. This one has: %s."
                % (names or "none of them")
            )
    else:
        options.update(_address(value))
    return _checked(options)


def _address(value: Any) -> dict[str, Any]:
    if _is_address(value):
        return {"host": value[0], "port": int(value[1])}
    if isinstance(value, str) and "://" in value:
        return _parse(value)
    raise _bad_host(value)


def _bad_host(value: Any) -> ImproperlyConfigured:
    # Not shown as it is: it may hold a password.
    return ImproperlyConfigured(
        "hosts is a list of URLs ('redis://HOST:PORT/0'), of (host, port), or of dicts with 'address' and "
        "options of redis-py; one of its items is something else (%s)." % type(value).__name__
    )


def _parse(url: str) -> dict[str, Any]:
    """Return the options of a URL. Its text is in no error, because it may hold a password."""
    try:
        parts = urlsplit(url)
        options: dict[str, Any] = dict(parse_url(url))
        given = parse_qsl(parts.query, keep_blank_values=True)
        port = parts.port
    except ValueError:
        raise _unreadable() from None
    for name, value in given:
        if not _is_name(name) or (name not in IN_A_QUERY and "@" in parts.query):
            raise _unreadable()  # a "?" in the password: this is the rest of it
        if not value or sum(each[0] == name for each in given) > 1:
            raise _refusal(name, "give it one value in the URL")
        if isinstance(options.get(name), bool) and value.lower() not in _BOOLEANS:
            raise _refusal(name, "give it True or False")
        if name not in IN_A_QUERY and not name.startswith("ssl_"):
            raise _refusal(name, "the query of a URL cannot give it: use the URL itself, or a dict")
        if (name == "db" and parts.path.strip("/") and parts.scheme != "unix") or (
            name in ("username", "password") and getattr(parts, name)
        ):
            raise _refusal(name, "the URL says it twice: give it once")
    if port == 0:  # redis-py would take its default
        raise _refusal("port", "give it a number from 1 to 65535")
    database = parts.path.strip("/")
    if parts.fragment or (parts.scheme != "unix" and database and not _is_number(database)):
        raise ImproperlyConfigured(
            "A URL in hosts ends in something else than /DB?OPTION=VALUE: percent-encode the special "
            "characters of user and password, and give the number of the database."
        )
    if parts.scheme == "unix" and not parts.path:
        raise ImproperlyConfigured("A unix:// URL in hosts lacks its path: write unix:///PATH.")
    kind = options.pop("connection_class", None)
    if kind is redis.SSLConnection:
        options["ssl"] = True
    return options


def _unreadable() -> ImproperlyConfigured:
    return ImproperlyConfigured(
        "A URL in hosts cannot be read. Write redis://USER:PASSWORD@HOST:PORT/DB, rediss:// for TLS, or "
        "unix:///PATH?db=DB, with the special characters of user and password percent-encoded, and with "
        "numbers where redis-py wants numbers."
    )


# Checks.


def _is_name(value: Any) -> bool:
    """Return whether `value` may be the name of an option, and not a URL or a password, and may be told."""
    return isinstance(value, str) and re.match(r"[A-Za-z_]\w*\Z", value, re.ASCII) is not None


def _refusal(name: str, remedy: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        "The Redis layer cannot use redis-py's option %s as it is given: %s." % (name, remedy)
    )


def _checked(options: dict[str, Any]) -> Host:
    """Return a host after checking its options. "ssl" says whether to use TLS."""
    options = dict(options)
    if not all(map(_is_name, options)):
        raise ImproperlyConfigured(
            "The names of redis-py's options are text, such as 'socket_timeout'."
        )
    for name, (value, remedy) in FIXED.items():
        if str(options.pop(name, value)).lower() != str(value).lower():  # a URL's are text
            raise _refusal(name, remedy)
    options["protocol"] = 2
    for name in TIMEOUTS:
        value = options.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
            raise _refusal(name, "give it seconds, more than 0: no call may wait for ever")
    for name in set(options) & set(VALUES):
        if name in ("port", "db") and _is_number(options[name]):
            options[name] = int(options[name])  # an environment variable's text
        wanted, is_right = VALUES[name]
        if not is_right(options[name]):
            raise _refusal(name, "give it " + wanted)
    for name in set(options) & set(REFUSED):
        raise _refusal(name, REFUSED[name])
    if options.get("credential_provider") and (options.get("username") or options.get("password")):
        raise _refusal("credential_provider", "it comes in place of username and password")
    is_secure = options.get("ssl", False)
    if not isinstance(is_secure, bool):
        raise _refusal("ssl", "give True or False, and also redis-py's options ssl_…")
    if "path" in options:
        if {"host", "port"} & set(options) or is_secure:
            raise _refusal("path", "a Unix socket needs no host, no port and no TLS")
        options.pop("ssl", None)
        del options["socket_connect_timeout"]  # redis-py has none for it, and it does not wait
        where = str(options["path"])
    else:
        if not is_secure and any(name.startswith("ssl_") for name in options):
            raise _refusal("ssl_…", "use rediss:// in the URL, or ssl=True")
        # redis-py's own defaults differ between its clients.
        options.setdefault("host", "localhost")
        options.setdefault("port", 6379)
        where = "%s:%s" % (options["host"], options["port"])
    return Host(options, where)


def _parameters(kind: Any) -> set[str]:
    """Return the names of the options that the constructors of a class take."""
    made = [vars(each).get("__init__") for each in kind.__mro__]
    return {
        name for each in made if each is not None for name in inspect.signature(each).parameters
    }


def _require_known(options: dict[str, Any], classes: Sequence[Any], where: str) -> None:
    """Refuse options that not all `classes` take."""
    known = set.intersection(*map(_parameters, classes)) | {"password", "username"}
    for name in options:
        if name not in known:
            raise _refusal(name, "%s does not have this option: leave it out" % where)


# What redis-py makes of them.


def _kind(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of redis-py's connection class for some options, and the options that it takes."""
    options = dict(options)
    kind = "SSLConnection" if options.pop("ssl", False) else "Connection"
    if "path" in options:
        kind = "UnixDomainSocketConnection"
    modules = (redis.connection, redis.asyncio.connection)
    _require_known(options, [getattr(module, kind) for module in modules], "redis-py's " + kind)
    return kind, options


def _pool(host: Host) -> Pool:
    kind, options = _kind(host.options)

    def make(module: Any) -> Any:
        return module.ConnectionPool(
            connection_class=getattr(module.connection, kind),
            retry=no_retry(module),
            **options,
        )

    return make, host.where


def _sentinel_pool(
    sentinels: Any, service: str, sentinel_kwargs: dict[str, Any] | None, common: dict[str, Any]
) -> Pool:
    if (
        not isinstance(sentinels, (tuple, list))
        or not sentinels
        or not all(map(_is_address, sentinels))
    ):
        raise ImproperlyConfigured("sentinels is a list of (host, port), one at least.")
    addresses = [(each[0], int(each[1])) for each in sentinels]
    for host, port in addresses:
        _checked(dict(common, host=host, port=port))
    if {"host", "port", "path"} & set(common):
        raise _refusal("host", "Sentinel tells where the primary is: leave out host, port and path")
    of_primary = _checked(common).options
    of_sentinel = {name: common[name] for name in TIMEOUTS}
    of_sentinel.update(_options("sentinel_kwargs", sentinel_kwargs))
    of_sentinel = _checked(of_sentinel).options
    for options in (of_primary, of_sentinel):
        del options["host"], options["port"]
    _kind(of_primary)
    _require_known(of_sentinel, [redis.Redis, redis.asyncio.Redis], "redis-py's client of Sentinel")

    def make(module: Any) -> Any:
        sentinel = module.sentinel.Sentinel(addresses, sentinel_kwargs=of_sentinel, **of_primary)
        return sentinel.master_for(service, retry=no_retry(module)).connection_pool

    return make, "%s (by Sentinel)" % service


def _clustered(hosts: Sequence[Host], greeting: Sequence[Command]) -> Clustered:
    addresses = []
    shared: dict[str, Any] | None = None
    for host in hosts:
        options = dict(host.options)
        if "path" in options:
            raise _refusal("path", "the nodes of a Cluster have host and port")
        addresses.append((options.pop("host"), options.pop("port")))
        if options.pop("db", 0) != 0:
            raise _refusal("db", "a Cluster has only the database 0")
        if shared is not None and options != shared:
            raise ImproperlyConfigured(
                "The hosts of a Cluster have different options: give each the same user and password."
            )
        shared = options
    assert shared is not None
    classes = [redis.Redis, redis.asyncio.RedisCluster]
    _require_known(shared, classes, "redis-py's client of a Cluster")
    for name in shared:
        if name not in redis.cluster.REDIS_ALLOWED_KEYS:
            raise _refusal(name, "redis-py's client of a Cluster ignores it: leave it out")
    return Clustered(
        addresses, shared, ", ".join(host.where for host in hosts) + " (cluster)", greeting
    )

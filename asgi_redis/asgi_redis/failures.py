"""Turn what redis-py raises into the one error of the contract, LayerUnavailable, with the remedy. No I/O."""

from __future__ import annotations

import redis.exceptions

from .contract import LayerUnavailable

#: Oldest server, and what it is needed for: XTRIM MINID, HRANDFIELD, ZADD GT, GETDEL.
OLDEST = (6, 2)

_NOT_ALLOWED = "its ACL does not let this user do that: see the guide of the Redis layer"

_REMEDIES = (
    (
        "OTHERPROJECT",
        "another project uses this prefix, or has delayed messages there: give each project its own prefix "
        "in CONFIG. If it is the same project with another SECRET_KEY, keep the former one in "
        "SECRET_KEY_FALLBACKS, or name the project from the start: the option project",
    ),
    ("NOAUTH", "it asks for a password: give it in the URL of hosts, redis://USER:PASSWORD@HOST"),
    ("WRONGPASS", "it refuses this user or password: check the URL of hosts"),
    ("invalid username-password", "it refuses this user or password: check the URL of hosts"),
    ("invalid password", "it refuses this password: check the URL of hosts"),
    ("NOPERM", _NOT_ALLOWED),
    ("no permissions", _NOT_ALLOWED),
    ("can't run this command", _NOT_ALLOWED),
    ("READONLY", "it is a read-only replica: name the primary in hosts, or use sentinels"),
    ("read only replica", "it is a read-only replica: name the primary in hosts, or use sentinels"),
    ("previous master is now a slave", "the primary has become a replica; a new one is looked for"),
    ("maxmemory", "it is out of memory (maxmemory): give it more, or find out what fills it"),
    ("MISCONF", "it cannot save to disk, and so takes no writes: see its log"),
    ("LOADING", "it is loading its data"),
    ("MASTERDOWN", "its replication link is down"),
    ("NOREPLICAS", "it has too few replicas to take writes"),
    ("CLUSTERDOWN", "the cluster is down"),
    ("cluster support disabled", "it is not a cluster: leave out cluster=True"),
    ("MOVED", "it is a node of a cluster: set cluster=True"),
)


#: Why a server that can be read refuses each write.
_TAKES_NO_WRITES = ("maxmemory", "MISCONF", "NOREPLICAS", "READONLY", "read only replica")


def takes_no_writes(reply: object) -> bool:
    """Return whether a reply is the error of a server that takes no writes: nothing was done."""
    return isinstance(reply, Exception) and any(sign in str(reply) for sign in _TAKES_NO_WRITES)


class Outdated(redis.exceptions.RedisError):
    """The server is older than OLDEST."""


def unavailable(error: Exception, where: str) -> LayerUnavailable:
    """
    Return a LayerUnavailable for `error` (an exception of redis-py, or OSError) at `where` (text). redis-py's
    part of the traceback is dropped: an error report would print its variables, and so a password.
    """
    if isinstance(error, LayerUnavailable):
        return error
    if error.__traceback__ is not None:
        error.__traceback__.tb_next = None
        error.__cause__ = error.__context__ = None
    text = str(error) or type(error).__name__
    if isinstance(error, redis.exceptions.AuthenticationError) and "NOAUTH" not in text:
        text = "WRONGPASS " + text
    for sign, remedy in _REMEDIES:
        if sign in text:
            text = "%s [%s]" % (remedy, text)
            break
    result = LayerUnavailable("Redis at %s: %s" % (where, text))
    result.__cause__ = error
    result.is_readable = takes_no_writes(error)
    return result


def check_version(info: str | bytes, where: str) -> None:
    """`info` is the text of INFO server. Raises Outdated, naming the version, for one below OLDEST."""
    if isinstance(info, bytes):
        info = info.decode("utf-8", "replace")
    for line in info.splitlines():
        if line.startswith("redis_version:"):
            version = line.split(":", 1)[1].strip()
            try:
                numbers = tuple(int(part) for part in version.split(".")[:2])
            except ValueError:
                return
            if numbers < OLDEST:
                raise Outdated(
                    "version %s is too old: asgi_redis needs Redis %d.%d or newer, or Valkey"
                    % ((version,) + OLDEST)
                )

"""
The share that one address may have of what all clients together are allowed. Pure: no I/O, no clock.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any, Mapping


class Shares:
    """
    What the clients of each address take of something that is bounded. Not thread-safe.

    One address may take as much as it leaves free: half if it is the only one, and less if others take
    something. So others find room, whatever it does, and no limit is wasted on addresses that aren't there.
    """

    __slots__ = ("used", "_by_address")

    def __init__(self) -> None:
        #: What all addresses take.
        self.used = 0
        self._by_address: dict[Any, int] = {}  # those that take something

    def allows(self, address: Any, size: int, limit: int, least: int = 1) -> bool:
        """
        Return whether `address` may take `size` more, if all may take `limit`. Up to `least`, which is what
        one client needs, only the limit counts.
        """
        share = max(limit - self.used, least)
        return self.used + size <= limit and self.of(address) + size <= share

    def of(self, address: Any) -> int:
        """Return what an address takes."""
        return self._by_address.get(address, 0)

    def take(self, address: Any, size: int) -> None:
        """Count that an address takes `size` more, or less if it is negative."""
        self.used += size
        own = self._by_address[address] = self.of(address) + size
        if not own:
            del self._by_address[address]


def client_address(scope: Mapping[str, Any]) -> str:
    """
    Return the address for which a scope, or the message that was made of it, counts.

    It is the one that the server gives, so behind a proxy it is the client's only if the server trusts the
    proxy's header. An IPv6 client counts by its network of 64 bits, because it has all of it.
    """
    address = str((scope.get("client") or ("",))[0])[:64]
    return _network(address) if ":" in address else address


def _network(address: str) -> str:
    # Some proxies write the client's port into their header, and some servers keep it. It is another one for
    # each connection.
    host, _, port = address.rpartition(":")
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif ":" not in host and port.isdigit():
        return host
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]

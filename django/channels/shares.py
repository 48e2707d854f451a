"""
The share that one address may have of what all clients together are allowed.
"""

from __future__ import annotations

from typing import Any


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

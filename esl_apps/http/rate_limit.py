"""Limit rates with token buckets in memory, whose number is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address


class Buckets:
    """One bucket per key. An absent key has a full bucket, so the buckets that rested longest can be dropped."""

    def __init__(self, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        """:param most: the number of buckets to keep. :param clock: returns seconds."""
        self._most = most
        self._clock = clock
        #: Each bucket's level and the time of that level, least recently used first.
        self._levels: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, key: Hashable, rate: float, capacity: float) -> float:
        """Return the seconds until a token can be taken; 0 for now.

        :param rate: tokens that return each second. :param capacity: tokens of a full bucket, at least 1.
        """
        level, _now = self._level(key, rate, capacity)
        return 0.0 if level >= _ONE else (1.0 - level) / rate

    def take(self, key: Hashable, rate: float, capacity: float) -> float:
        """As ``wait``; takes a token if the answer is 0."""
        level, now = self._level(key, rate, capacity)
        taken = level >= _ONE
        self._levels.pop(key, None)
        self._levels[key] = (level - 1.0 if taken else level, now)
        if len(self._levels) > self._most:
            del self._levels[next(iter(self._levels))]
        return 0.0 if taken else (1.0 - level) / rate

    def _level(self, key: Hashable, rate: float, capacity: float) -> tuple[float, float]:
        now = self._clock()
        last = self._levels.get(key)
        if last is None:
            return capacity, now
        return min(capacity, last[0] + (now - last[1]) * rate), now


#: One token, less the rounding error of adding fractions: a client that waits as told must be let in.
_ONE = 1.0 - 1e-6


def capacity_of(rate: float, burst: float) -> float:
    """Return the capacity of a bucket: `burst` seconds' worth of its rate, at least one token."""
    return max(1.0, rate * burst)


def source_of(address: str) -> str:
    """Return what requests and connections of an address are counted under.

    That is the address itself; for IPv6 its /64 network, which is what one customer gets.
    """
    if ":" not in address:
        return address
    ip = IPv6Address(address.partition("%")[0])
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else ip.packed[:8].hex()

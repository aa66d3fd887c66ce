"""Rates: token buckets in memory, and no more of them than there is room for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address


class Buckets:
    """One bucket a key. A key that is not there has a full one, so those not used longest can be forgotten first."""

    def __init__(self, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        """:param most: buckets that are kept. :param clock: seconds."""
        self._most = most
        self._clock = clock
        #: What was in it, and when; the one used last stands last.
        self._levels: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, key: Hashable, rate: float, capacity: float) -> float:
        """The seconds until one may be taken; 0: now.

        :param rate: how many come back a second. :param capacity: how many may be taken at once, 1 or more.
        """
        level, _now = self._level(key, rate, capacity)
        return 0.0 if level >= _ONE else (1.0 - level) / rate

    def take(self, key: Hashable, rate: float, capacity: float) -> float:
        """``wait``; where that is 0, one is taken."""
        level, now = self._level(key, rate, capacity)
        taken = level >= _ONE
        self._levels.pop(key, None)
        self._levels[key] = (level - 1.0 if taken else level, now)
        if len(self._levels) > self._most:
            del self._levels[next(iter(self._levels))]
        return 0.0 if taken else (1.0 - level) / rate

    def _level(self, key: Hashable, rate: float, capacity: float) -> tuple[float, float]:
        now = self._clock()
        found = self._levels.get(key)
        if found is None:
            return capacity, now
        return min(capacity, found[0] + (now - found[1]) * rate), now


#: One, but for what is lost in adding fractions: who waited as long as he was told is let in.
_ONE = 1.0 - 1e-6


def source_of(address: str) -> str:
    """Whose requests and connections are counted together: an address; of IPv6 the network of one customer."""
    if ":" not in address:
        return address
    ip = IPv6Address(address.partition("%")[0])
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else ip.packed[:8].hex()

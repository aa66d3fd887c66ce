"""Count what strangers can cause any number of, and say what is above an hour's quota."""

from __future__ import annotations

import time
from collections.abc import Callable


class HourlyQuota:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hour = 0
        self.count = 0
        """Those of this hour."""

    def take(self, quota: int) -> bool:
        """Count one. False: this hour's quota was used up before."""
        hour = int(self._clock() // 3600)
        self.count = self.count + 1 if hour == self._hour else 1
        self._hour = hour
        return self.count <= quota

"""Count what strangers can cause any number of, and say what is above an hour's quota."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class HourlyQuota:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = -math.inf
        self.count = 0
        """Those of this hour, which begins with the first one."""

    def take(self, quota: int) -> bool:
        """Count one. False: this hour's quota was used up before."""
        now = self._clock()
        if now >= self._until:
            self._until, self.count = now + 3600, 0
        self.count += 1
        return self.count <= quota

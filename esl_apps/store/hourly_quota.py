"""Count refused calls, of which strangers can cause any number, and say which are above an hour's quota."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class HourlyQuota:
    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``what``: what is kept of each call, for the log."""
        self._what = what
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
        if self.count == quota + 1:
            log.warning("refused_calls_not_kept", extra={"what": self._what, "per_hour": quota})
        return self.count <= quota

"""How many sessions the switch may have, and begin in a second (``max_sessions`` and ``sps``)."""

from __future__ import annotations

import time


class SessionLimits:
    """FreeSWITCH's two limits. A session that is over one of them is not made."""

    def __init__(self) -> None:
        self.most = 5000
        self.per_second = 1000
        self._second = 0
        self._left = 0

    def reset(self) -> None:
        """Restore the limits of a new switch."""
        self.most, self.per_second = 5000, 1000
        self._second = 0

    def take(self, sessions: int) -> bool:
        """Return whether one more session may be made next to ``sessions`` others.

        The count of a second ends before its last one, as FreeSWITCH's does: ``sps 1`` allows none.
        """
        second = int(time.time())
        if second != self._second:
            self._second, self._left = second, self.per_second
        self._left -= 1
        return self._left > 0 and sessions < self.most

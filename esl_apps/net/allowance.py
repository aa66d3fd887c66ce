"""A peer's allowance, beyond which it lets the others go first.

:func:`~esl_apps.net.turns.take_turn` looks at the clock for each unit of work, and a call has some seventy units. An
allowance counts instead: a call's own traffic doesn't use it up, so it costs a subtraction per frame, and only a peer
that floods takes turns.
"""

from __future__ import annotations

import time
from collections.abc import Hashable

from esl_apps.net.turns import take_turn

#: A unit of work is a read, a frame or 4 KB: about 10 microseconds. Units at once, and per second.
BURST, RATE = 200, 100.0
#: Units that a peer may use in one of its turns: half a millisecond.
TURN = 50
#: The binary logarithm of the bytes that count as one unit.
UNIT = 12


class Allowance:
    """``burst`` units at once and ``rate`` units a second. ``peer``: whose turns it takes beyond that."""

    __slots__ = ("_at", "_burst", "_left", "_peer", "_rate")

    def __init__(self, peer: Hashable, burst: float = BURST, rate: float = RATE) -> None:
        self._peer = peer
        self._burst = self._left = burst
        self._rate = rate
        self._at = time.monotonic()

    def over(self, units: float = 1) -> bool:
        """Charge the peer, before its work is done. True: it has used its allowance, so it must :meth:`give_way`."""
        self._left -= units
        return self._left < 0 and self._owes(units)

    def give_way(self) -> None:
        """Take turns until what the peer owes is paid."""
        while self._left < 0:
            take_turn(self._peer)
            self._left += TURN

    def spend(self, units: float = 1) -> None:
        """Charge the peer, and take turns if it has used its allowance."""
        if self.over(units):
            self.give_way()

    def _owes(self, units: float) -> bool:
        """Add what has grown since the last look: only now is the time asked for."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + units + (now - self._at) * self._rate) - units
        self._at = now
        return self._left < 0

"""This node's time of calls: Unix seconds that don't step while calls are up.

All times of a call (``CallFields``, ``Leg``, a timeline) are of this clock, so they may be subtracted from each other.
Times of other clocks are converted where they come in: a switch's by ``esl.switch_clock``, another node's by
``store.essence``. Durations that are in no record are measured by ``time.monotonic``.

The system's clock may be set at any time. This one goes on as it was until it is told to follow, by ``node.clocks``,
which also moves all times that are kept.
"""

from __future__ import annotations

import time


class NodeClock:
    def __init__(self) -> None:
        self._origin = time.time() - time.monotonic()
        """Unix seconds at which the monotonic clock was 0."""

    def now(self) -> float:
        return time.monotonic() + self._origin

    def behind(self) -> float:
        """Return by how many seconds the system's clock is ahead, because it was set or has stepped."""
        return time.time() - self.now()

    def follow(self, seconds: float) -> None:
        """Step as the system's clock did."""
        self._origin += seconds


clock = NodeClock()
now = clock.now

#: Seconds by which stamps may seem to differ because clocks tick and threads wait.
_JITTER = 0.05


class RemoteClock:
    """A clock elsewhere, whose distance from this node's is learnt from its stamps."""

    __slots__ = ("ahead",)

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        """Seconds by which it is ahead of this node's. 0 until a stamp proves otherwise."""

    def here(self, at: float) -> float:
        """Return a time of that clock as this node's."""
        return at - self.ahead

    def there(self, at: float) -> float:
        """Return a time of this node's as that clock's."""
        return at + self.ahead

    def now(self) -> float:
        """Return that clock's time."""
        return self.there(now())

    def learn(self, stamp: float, asked_at: float, heard_at: float) -> None:
        """Learn from a stamp that was made between two times of this node.

        The truth lies between two bounds. The estimate moves only if it is outside, and then to the nearer one: a late
        answer proves little, and a step of either clock shows at once.
        """
        least, most = stamp - heard_at, stamp - asked_at
        if self.ahead < least - _JITTER:
            self.ahead = least
        elif self.ahead > most + _JITTER:
            self.ahead = most

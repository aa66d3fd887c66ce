"""This node's time of calls: Unix seconds that never step while the process runs.

All times of a call (``CallFields``, ``Leg``, a timeline) are of this clock, so they may be subtracted from each other.
Times of other clocks are converted where they come in: a switch's by ``esl.switch_clock``, another node's by
``store.essence``. Durations that are in no record are measured by ``time.monotonic``.

The system's clock may be set at any time. This one doesn't follow. Where times leave the process (records, statuses,
essences, events) they are moved by what the system's clock has been set since the start, as :func:`shown` does.
"""

from __future__ import annotations

import time


class NodeClock:
    def __init__(self) -> None:
        self.monotonic = time.monotonic
        self.origin = time.time() - self.monotonic()
        """Unix seconds at which the monotonic clock was 0."""
        self.shift = 0.0
        """Seconds by which the system's clock has been set since."""

    def now(self) -> float:
        """Return the time by the node's clock, in Unix seconds: all points in time of a call are of this clock, and it
        doesn't step if the system's is set."""
        return self.monotonic() + self.origin

    def shown(self, at: float) -> float:
        """Return a time of this clock as the system's clock has it now."""
        return at + self.shift

    def behind(self) -> float:
        """Return by how many seconds the system's clock has been set that are not known yet."""
        return time.time() - self.shown(self.now())

    def follow(self, seconds: float) -> None:
        """Show times as the system's clock does, which was set by some seconds."""
        self.shift += seconds


clock = NodeClock()
now = clock.now
shown = clock.shown


def milliseconds(at: float) -> float:
    """Return a time, rounded to the millisecond. ``round(at, 3)`` takes more than twice as long."""
    return int(at * 1000 + 0.5) / 1000


#: Seconds by which stamps may seem to differ because clocks tick and threads wait.
_JITTER = 0.05


class RemoteClock:
    """A clock elsewhere, whose distance from the monotonic clock is learnt from its stamps."""

    __slots__ = ("_origin", "_own")

    def __init__(self, ahead: float = 0.0, own: NodeClock = clock) -> None:
        """``ahead``: as the property. Without a stamp, it is taken to be this node's clock."""
        self._own = own
        self._origin = own.origin + ahead

    @property
    def ahead(self) -> float:
        """Seconds by which it is ahead of this node's."""
        return self._origin - self._own.origin

    @property
    def ahead_of_system(self) -> float:
        """Seconds by which it is ahead of the system's clock."""
        return self.ahead - self._own.shift

    def here(self, at: float) -> float:
        """Return a time of that clock as this node's."""
        return at - self._origin + self._own.origin

    def there(self, at: float) -> float:
        """Return a time of this node's as that clock's."""
        return at + self.ahead

    def now(self) -> float:
        """Return that clock's time."""
        return time.monotonic() + self._origin

    def learn(self, stamp: float, asked: float, heard: float) -> None:
        """Learn from a stamp that was made between two times of the monotonic clock.

        The truth lies between two bounds. The estimate moves only if it is outside, and then to the nearer one: a late
        answer proves little, and a step of that clock shows at once.
        """
        least, most = stamp - heard, stamp - asked
        if self._origin < least - _JITTER:
            self._origin = least
        elif self._origin > most + _JITTER:
            self._origin = most

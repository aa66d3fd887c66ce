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

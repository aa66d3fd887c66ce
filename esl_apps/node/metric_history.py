"""The node's metrics over the last hour, for the console's charts: a sample every ten seconds, the oldest dropped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent

from esl_apps.process import background

#: Seconds between two samples, and for how many of them samples are kept.
EVERY, SPAN = 10.0, 3600.0


class Sample(NamedTuple):
    """Counts begin with the process."""

    at: float
    """Unix seconds."""
    live: int
    """Live calls."""
    ended: dict[str, float]
    """Calls ended, by ``end_reason``."""
    rang: dict[float, float]
    """Calls that rang within so many seconds, by the histogram's upper bounds."""


class MetricHistory(background.Kept):
    TASK = "history"

    def __init__(self, collect: Callable[[], Iterable[Any]], clock: Callable[[], float] = time.time) -> None:
        """:param collect: returns the metrics, of all workers if there are several. :param clock: Unix seconds."""
        self._collect = collect
        self._clock = clock
        # One more than intervals: counts are differences between two samples.
        self.samples: deque[Sample] = deque(maxlen=int(SPAN / EVERY) + 1)

    @property
    def now(self) -> float:
        return self._clock()

    def _run(self) -> None:
        while True:
            self.take()
            gevent.sleep(EVERY)

    def take(self) -> None:
        """Take a sample."""
        live = 0.0
        ended: dict[str, float] = {}
        rang: dict[float, float] = {}
        for family in self._collect():
            for name, labels, value, *_ in family.samples:
                if name == "esl_apps_live_calls":
                    live += value
                elif name == "esl_apps_calls_total":
                    reason = labels["end_reason"]
                    ended[reason] = ended.get(reason, 0.0) + value
                elif name == "esl_apps_time_to_ring_seconds_bucket":
                    bound = float(labels["le"])
                    rang[bound] = rang.get(bound, 0.0) + value
        self.samples.append(Sample(self.now, round(live), ended, rang))

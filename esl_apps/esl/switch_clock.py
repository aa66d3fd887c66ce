"""A switch's clock, and how to read its times as this node's.

FreeSWITCH takes the times of its legs and events from a clock of its own. It learns that clock's distance to the
machine's monotonic clock at its start and renews it only by ``fsctl sync_clock``, so it may differ from the node's by
hours, and step at any time (hazard 40). Only this module and ``esl.legs`` see a switch's time. Everything above works
with this node's (``core.node_clock``).
"""

from __future__ import annotations

from esl_apps.core.node_clock import RemoteClock
from esl_apps.esl.wire import Event


class SwitchClock(RemoteClock):
    """The clock of one FreeSWITCH process."""

    __slots__ = ()

    def hear(self, event: Event, asked: float, heard: float) -> None:
        """Learn from an event that the switch made between two times of the monotonic clock."""
        stamp = event.int("Event-Date-Timestamp") / 1e6
        if stamp:
            self.learn(stamp, asked, heard)

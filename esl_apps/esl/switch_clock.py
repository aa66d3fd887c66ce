"""A switch's clock, and how to read its times as this node's.

FreeSWITCH takes the times of its legs and events from a clock of its own. It learns that clock's distance to the
machine's monotonic clock at its start and renews it only by ``fsctl sync_clock``, so it may differ from the node's by
hours, and step at any time (hazard 40). Only this module and ``esl.legs`` see a switch's time. Everything above works
with this node's (``core.node_clock``).
"""

from __future__ import annotations

from esl_apps.esl.wire import Event

#: Seconds by which stamps may seem to differ because FreeSWITCH's clock ticks and its threads wait.
_JITTER = 0.05


class SwitchClock:
    """The clock of one FreeSWITCH process."""

    __slots__ = ("ahead",)

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        """Seconds by which it is ahead of this node's. 0 until an event proves otherwise."""

    def here(self, at: float) -> float:
        """Return a time of the switch as this node's."""
        return at - self.ahead

    def hear(self, event: Event, asked_at: float, heard_at: float) -> None:
        """Learn from an event that the switch made between two times of this node.

        The truth lies between two bounds. The estimate moves only if it is outside, and then to the nearer one: a late
        event proves little, and a step of either clock shows at once.
        """
        stamp = event.int("Event-Date-Timestamp") / 1e6
        if not stamp:
            return
        least, most = stamp - heard_at, stamp - asked_at
        if self.ahead < least - _JITTER:
            self.ahead = least
        elif self.ahead > most + _JITTER:
            self.ahead = most

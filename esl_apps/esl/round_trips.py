"""The round trips of a call's legs, as the switch works them out from RTCP (RFC 3550, 6.4.1)."""

from __future__ import annotations

from esl_apps.core.call import Leg
from esl_apps.esl.wire import Event

EVENT = "RECV_RTCP_MESSAGE"
EVENT_NAME = EVENT.encode()
#: Milliseconds between two reports of the switch.
INTERVAL = 5000
#: Legs of one call that are remembered, and the longest round trip that is believed, in seconds.
_LEGS, _LONGEST = 200, 60.0


class RoundTrips:
    """The latest average of each leg. The switch works it out from each report that a phone sends."""

    __slots__ = ("_averages",)

    def __init__(self) -> None:
        self._averages: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        uuid, text = event.uuid, event.get("Rtt0-Avg") or ""
        if uuid is None or len(text) > 20 or not text.replace(".", "", 1).isdigit():
            return
        average = float(text)
        # 0: the phone has not heard a report of the switch's yet.
        if 0 < average < _LONGEST and (uuid in self._averages or len(self._averages) < _LEGS):
            self._averages[uuid] = average

    def add_to(self, leg: Leg | None) -> None:
        """Add the round trip to the quality of a leg that has ended."""
        if leg is not None and leg.quality is not None and leg.uuid in self._averages:
            leg.quality.round_trip = round(self._averages[leg.uuid] * 1000, 1)

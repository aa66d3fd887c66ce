"""Watch the clocks: this node's own, which may be set, and those of the switches, which may be wrong.

Neither changes a record, because times are converted or moved. An operator should know all the same: a phone bill is
compared with the records, and PIN locks, callbacks and retention go by the time of day.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import gevent

from esl_apps.core.node_clock import NodeClock, clock
from esl_apps.esl.switch import Switch
from esl_apps.node.records import Records
from esl_apps.observe.alerts import Alerts
from esl_apps.process import background

log = logging.getLogger(__name__)

EVERY = 1.0
#: Seconds that are worth an alert: no record of a call is exact to more.
WRONG = 1.0
#: Seconds by which the system's clock must have been set until this node's follows.
_STEP = 0.25


class ClockWatch(background.Kept):
    TASK = "clocks"

    def __init__(
        self,
        switches: Sequence[Switch],
        records: Records,
        alerts: Alerts,
        own: NodeClock = clock,
    ) -> None:
        self._switches = switches
        self._records = records
        self._alerts = alerts
        self._own = own
        self._wrong: set[str] = set()

    def _run(self) -> None:
        while True:
            gevent.sleep(EVERY)
            self.look()

    def look(self) -> None:
        self._follow()
        for switch in self._switches:
            if switch.connected:
                self._judge(switch)

    def _follow(self) -> None:
        """If the system's clock was set, show the times of the calls that are up as it has them."""
        step = self._own.behind()
        if abs(step) < _STEP:
            return
        self._own.follow(step)
        self._records.save_all()
        log.warning("node_clock_stepped", extra={"seconds": round(step, 3)})
        if abs(step) > WRONG:
            self._alerts.tell("node_clock", seconds=round(step, 3))

    def _judge(self, switch: Switch) -> None:
        ahead = switch.clock.ahead_of_system
        if abs(ahead) > WRONG:
            if switch.name not in self._wrong:
                self._wrong.add(switch.name)
                log.error("switch_clock_wrong", extra={"switch": switch.name, "ahead": round(ahead, 3)})
                self._alerts.tell("switch_clock", switch=switch.name, ahead=round(ahead, 3))
        elif switch.name in self._wrong:
            self._wrong.discard(switch.name)
            log.info("switch_clock_right", extra={"switch": switch.name, "ahead": round(ahead, 3)})

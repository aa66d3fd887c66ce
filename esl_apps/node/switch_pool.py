"""The switches of a node: which of them places the next call.

The one with the most room: its sessions, as it last said itself (``status``, with each ping) and with what this node
has begun there since, beside its ``max_sessions``. Several nodes so spread over several switches without a word to
each other: what one begins, the others see.

One that is sick is taken out: not connected, not ready (``fsctl pause``, a shutdown under way), late with its answer
to a ping, or failing originate after originate by causes that are its own or its gateways', never the callee's. After a
while it gets one call again, and all of them once that went well. Where all are sick, the least sick: a call that
fails is no worse than none.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Collection

from esl_apps.core import causes
from esl_apps.esl.switch import Switch

log = logging.getLogger(__name__)

#: Originates in a row that failed by the switch's fault, before it is taken out.
FAULTS = 3
#: Seconds for which it is, doubled each time that the one call that tries it fails, too.
OUT_FIRST, OUT_LAST = 5.0, 60.0
#: Seconds of silence to a ping: a switch that is stopped takes calls and answers nothing.
LATE = 1.0
#: ``max_sessions`` of a switch that does not say; FreeSWITCH's own default.
_SESSIONS = 1000
_STATUS = re.compile(r"^(\d+) session\(s\) - peak.*?^(\d+) session\(s\) max", re.MULTILINE | re.DOTALL)


class Health:
    """One switch, as far as placing calls on it goes."""

    def __init__(self, switch: Switch, clock: Callable[[], float] = time.monotonic) -> None:
        self.switch = switch
        self._clock = clock
        self._faults = 0
        self._out_for = 0.0
        self._out_until = 0.0
        self._tried = False
        """Whether the one call is under way that says how it is."""
        self._sessions, self._most = 0, _SESSIONS
        self._read = ""
        self._begun = 0

    @property
    def load(self) -> float:
        """The part of its sessions that is taken: 0.0 to 1.0, or somewhat more."""
        status = self.switch.status
        if status is not self._read:
            self._read, self._begun = status, 0
            if found := _STATUS.search(status):
                self._sessions, self._most = int(found[1]), max(1, int(found[2]))
        return (self._sessions + self._begun) / self._most

    @property
    def ready(self) -> bool:
        return "is not ready" not in self.switch.status.partition("\n\n")[0]

    @property
    def out(self) -> bool:
        """Taken out by its faults."""
        return self._out_for > 0

    def rank(self) -> tuple[int, float, float]:
        """The lower, the better: how sick, until when, how full."""
        now = self._clock()
        if not self.ready or self.switch.silent_for() > LATE:
            return 3, 0.0, self.load
        if self.out and (self._tried or now < self._out_until):
            return 2, self._out_until, self.load
        # One whose time is over is tried at once, and by one call, however full it is: only that says how it is.
        return (0 if self.out else 1), 0.0, self.load

    def takes(self) -> None:
        """A call is placed on it."""
        self._begun += 1
        if self.out:
            self._tried = True

    def told(self, code: int | None) -> None:
        """How an originate ended: the Q.850 cause that it failed with; None: the switch itself said nothing, or 0
        where the leg was answered."""
        if code is not None and code not in causes.GATEWAY_FAILED:
            if self.out:
                log.info("switch let back in", extra={"switch": self.switch.name})
            self._faults, self._out_for, self._tried = 0, 0.0, False
            return
        self._faults += 1
        if self._faults < FAULTS and not self._tried:
            return
        if self.out and not self._tried:
            # One of those that were under way when it was taken out.
            return
        self._out_for = min(self._out_for * 2, OUT_LAST) if self.out else OUT_FIRST
        self._out_until = self._clock() + self._out_for
        self._tried = False
        log.warning("switch taken out", extra={"switch": self.switch.name, "seconds": self._out_for, "cause": code})


class Fleet:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.health: dict[str, Health] = {}
        """By the switch's name."""

    def add(self, switch: Switch) -> None:
        self.health[switch.name] = Health(switch, self._clock)

    def best(self, tried: Collection[str] = ()) -> Switch | None:
        """Where the next call is placed, of those whose names are not among ``tried``; None where none is
        connected. The call counts as begun there."""
        there = [one for one in self.health.values() if one.switch.connected and one.switch.name not in tried]
        # Of equals any: nodes that were started together must not all choose the first.
        random.shuffle(there)
        best = min(there, key=Health.rank, default=None)
        if best is None:
            return None
        best.takes()
        return best.switch

"""Choose the switch that places the next call.

The choice is the switch with the most room: its sessions relative to its ``max_sessions``, as it reported them with the
last ping (``status``), plus the calls that this node has placed there since. So several nodes spread their calls over
several switches without talking to each other.

A sick switch is taken out: it isn't connected, isn't ready (``fsctl pause``, shutting down), answers pings late, or
fails one originate after another for reasons that are its own or its gateways', never the callee's. After a while it
gets one call to try, and all of them again once that went well. If all switches are sick, the least sick one is chosen:
a call that may fail is better than one that isn't placed."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Collection

from esl_apps.core import causes
from esl_apps.esl.switch import Switch

log = logging.getLogger(__name__)

#: Failed originates in a row, by the switch's fault, before it is taken out.
FAULTS = 3
#: Seconds for which it is out, doubled up to the second value each time that the call which tries it fails too.
OUT_FIRST, OUT_LAST = 5.0, 60.0
#: Seconds without an answer to a ping. A switch that is stopped (SIGSTOP) still accepts connections.
LATE = 1.0
#: ``max_sessions`` of a switch that doesn't report it: FreeSWITCH's own default.
_SESSIONS = 1000
_STATUS = re.compile(r"^(\d+) session\(s\) - peak.*?^(\d+) session\(s\) max", re.MULTILINE | re.DOTALL)


class Health:
    """How fit one switch is for placing calls."""

    def __init__(self, switch: Switch, clock: Callable[[], float] = time.monotonic) -> None:
        self.switch = switch
        self._clock = clock
        self._faults = 0
        self._out_for = 0.0
        self._out_until = 0.0
        self._tried = False
        """Whether the call that tries it is under way."""
        self._sessions, self._most = 0, _SESSIONS
        self._read = ""
        self._begun = 0

    @property
    def load(self) -> float:
        """The share of its sessions in use: 0.0 to 1.0, or slightly more."""
        sessions, most = self.sessions
        return sessions / most

    @property
    def sessions(self) -> tuple[int, int]:
        """Its sessions, with the calls placed since it reported them, and how many it takes."""
        status = self.switch.status
        if status is not self._read:
            self._read, self._begun = status, 0
            if found := _STATUS.search(status):
                self._sessions, self._most = int(found[1]), max(1, int(found[2]))
        return self._sessions + self._begun, self._most

    @property
    def ready(self) -> bool:
        return "is not ready" not in self.switch.status.partition("\n\n")[0]

    @property
    def out(self) -> bool:
        """Whether its faults have taken it out."""
        return self._out_for > 0

    def rank(self) -> tuple[int, float, float]:
        """How sick, until when, how full; lower is better."""
        now = self._clock()
        if not self.ready or self.switch.silent_for() > LATE:
            return 3, 0.0, self.load
        if self.out and (self._tried or now < self._out_until):
            return 2, self._out_until, self.load
        # One whose time is over gets the next call, however full it is: only a call shows whether it works again.
        return (0 if self.out else 1), 0.0, self.load

    def takes(self) -> None:
        """Count a call that is placed on it."""
        self._begun += 1
        if self.out:
            self._tried = True

    def told(self, code: int | None) -> None:
        """Note how an originate ended: the Q.850 cause it failed with, 0 if the leg was answered, None if the switch
        didn't answer."""
        if code is not None and code not in causes.GATEWAY_FAILED:
            if self.out:
                log.info("switch_restored", extra={"switch": self.switch.name})
            self._faults, self._out_for, self._tried = 0, 0.0, False
            return
        self._faults += 1
        if self._faults < FAULTS and not self._tried:
            return
        if self.out and not self._tried:
            # It was under way when the switch was taken out.
            return
        self._out_for = min(self._out_for * 2, OUT_LAST) if self.out else OUT_FIRST
        self._out_until = self._clock() + self._out_for
        self._tried = False
        log.warning("switch_taken_out", extra={"switch": self.switch.name, "seconds": self._out_for, "cause": code})


class SwitchPool:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.health: dict[str, Health] = {}
        """By the switch's name."""
        self.paused: Collection[str] = frozenset()
        """The names of switches on which an operator has no calls placed."""

    def add(self, switch: Switch) -> None:
        self.health[switch.name] = Health(switch, self._clock)

    def find(self, name: str | None) -> Switch | None:
        """Return the switch of this name; None if it isn't configured."""
        health = self.health.get(name or "")
        return None if health is None else health.switch

    def best(self, tried: Collection[str] = ()) -> Switch | None:
        """The switch for the next call, neither a paused one nor one named in ``tried``; None if none is connected. The
        call counts as placed there."""
        without = {*tried, *self.paused}
        there = [
            health for health in self.health.values() if health.switch.connected and health.switch.name not in without
        ]
        if not there:
            return None
        if len(there) > 1:
            # Break ties at random, so that nodes started together don't all pick the same switch.
            random.shuffle(there)
            there.sort(key=Health.rank)
        best = there[0]
        best.takes()
        return best.switch

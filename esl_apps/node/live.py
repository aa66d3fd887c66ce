"""A live call: its attempt, its legs' ends, and a flag to wait on."""

from __future__ import annotations

import time
from collections.abc import Callable

from gevent.event import Event as Flag
from gevent.lock import Semaphore
from msgspec import Struct, field

from esl_apps.apps.context import Restored
from esl_apps.core.attempt import Attempt
from esl_apps.esl.switch import Switch
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event
from esl_apps.store.essence import Essence, essence

#: Seconds from an agent's answer to its leg's socket; FreeSWITCH connects at once.
ATTACH = 5.0
#: Seconds for a killed originate to report its end.
KILLED = 3.0
#: Seconds for which a switch may be unreachable before calls whose sockets it dropped are given up.
AWAY = 5.0
#: Seconds for which a leg of ours may be alone and do nothing. Its socket was lost, and FreeSWITCH keeps such a leg for
#: ever (hazard 10).
PARKED = 10.0


#: Seconds by which a wait is late if this process was stopped, and for which it goes on then.
_STOPPED, _READ = 1.0, 1.0

#: Makes an attempt known. Flows get it to begin further ones.
Begin = Callable[[Attempt], None]


class Full(Exception):
    """This node takes no further calls; ``str()`` says why (full, draining, no switch, no Redis)."""


class Crowded(Full):
    """One integrator or account has as many live or waiting calls as it may. Others' are taken."""


class Live(Struct, eq=False):
    """A call that has not ended."""

    attempt: Attempt
    switch: Switch
    core_uuid: str | None = None
    """The FreeSWITCH process that carries it."""
    clock: SwitchClock = field(default_factory=SwitchClock)
    """That process's clock."""
    had_by: list[str] = field(default_factory=list)
    """The processes that had the call before this one, by boot."""
    ends: dict[str, Event] = field(default_factory=dict)
    """CHANNEL_HANGUP_COMPLETE of its legs, by UUID, from the inbound connection."""
    rang: tuple[str, ...] = ()
    """UUIDs of A-legs that have rung: several if an agent has several phones."""
    changed: Flag = field(default_factory=Flag)
    """Set when a socket attaches, an A-leg or the call ends, a job is answered, the switch goes up or down."""
    attached: bool = False
    adopted: bool = False
    """Taken over from a process that died: no flow runs it here."""
    released: bool = False
    """No longer adopted: another process or flow has it, so following it stops."""
    placed: Restored | None = None
    """The call, if this process placed it: goes on with the leg that has answered."""

    seen_at: float | None = None
    """Until when it is known to have been up, after its socket was lost."""
    alone_since: float | None = None
    """Since when its parties may have lost each other (``time.monotonic``), if no flow runs it."""
    turn: Semaphore | None = None
    """Held while an action is done: one at a time."""

    @property
    def essence(self) -> Essence:
        return essence(self.attempt, self.core_uuid, self.clock.ahead, self.had_by)

    @property
    def bleg_ends(self) -> list[Event]:
        """The ends of its B-legs that have been heard."""
        return [end for end in self.ends.values() if end.var("esl_bleg") is not None]

    def move_to(self, switch: Switch) -> None:
        """Place it on another switch."""
        self.switch, self.core_uuid, self.clock = switch, switch.core_uuid, switch.clock
        self.attempt.switch = switch.name

    def poke(self) -> None:
        self.changed.set()

    def wait(self, done: Callable[[], bool], deadline: float) -> bool:
        """Wait until something is done. Return False at the deadline (``time.monotonic``)."""
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.changed.clear()
            self.changed.wait(left)
            if time.monotonic() - deadline > _STOPPED:
                # Read first: the switch has gone on meanwhile.
                deadline = time.monotonic() + _READ
        return True

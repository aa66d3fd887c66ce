"""A live call: its attempt, its legs' ends, and a flag to wait on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent.event import Event as Flag

from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event

#: Seconds from an agent's answer to its leg's socket; FreeSWITCH connects at once.
ATTACH = 5.0
#: Seconds for a killed originate to report its end.
KILLED = 3.0
#: Seconds for which a switch may be unreachable before calls whose sockets it dropped are given up.
AWAY = 5.0


#: Makes an attempt known. Flows get it to begin further ones.
Begin = Callable[[Attempt], None]


class Full(Exception):
    """This node takes no further calls; ``str()`` says why (full, draining, no switch, no Redis)."""


@dataclass(slots=True, eq=False)
class Live:
    """A call that has not ended."""

    attempt: Attempt
    switch: Switch
    core_uuid: str | None = None
    """The FreeSWITCH process that carries it."""
    ends: dict[str, Event] = field(default_factory=dict)
    """CHANNEL_HANGUP_COMPLETE of its A-legs, by UUID, from the inbound connection."""
    rang: frozenset[str] = frozenset()
    """UUIDs of A-legs that have rung: several if an agent has several phones."""
    changed: Flag = field(default_factory=Flag)
    """Set when a socket attaches, an A-leg ends, a job is answered, the switch goes up or down."""
    attached: bool = False
    adopted: bool = False
    """Taken over from a process that died: no flow runs it here."""
    released: bool = False
    """No longer adopted: another process or flow has it, so following it stops."""
    run: Callable[[Call, Begin], None] | None = None
    """For a call that this process placed: runs the application on the answered leg."""

    def poke(self) -> None:
        self.changed.set()

    def wait(self, done: Callable[[], bool], deadline: float) -> bool:
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.changed.clear()
            self.changed.wait(left)
        return True

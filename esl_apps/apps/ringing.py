"""Ring the A-leg of a call that a node places, until it answers or fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from esl_apps.apps.legs import UNHEARD
from esl_apps.core import causes, dialstring, node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs
from esl_apps.core.call import SWITCH_MARGIN, Leg

#: Seconds for which a number outside is rung, unless its application says otherwise.
RING = 45.0


class Aleg(Struct, frozen=True):
    """How A is rung."""

    variables: Mapping[str, str]
    endpoints: Sequence[str]
    """Tried in turn while gateways fail."""
    application: str
    """``socket(host:port/path async full)``: where the answered leg goes."""
    timeout: float = RING
    """Seconds to an answer, over all endpoints and switches."""


@dataclass(frozen=True, slots=True)
class Rang:
    """The outcome of one originate: ``answered``, ``failed`` (with its Q.850 code), ``timed_out``, ``lost``, or
    nothing was dialled: the switch was not reached (``away``), or had no session to spare (``full``), or another
    process has the call (``taken``)."""

    outcome: str
    code: int = causes.NORMAL_UNSPECIFIED
    heard: bool = True
    """Whether the leg rang or had early media."""
    leg: Leg | None = field(default=None, compare=False)
    """The leg that says why it failed."""


class Originator(Protocol):
    """A switch, or one after the other, on which A-legs are placed."""

    def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        """Place an A-leg and wait until it answers or fails. End it at ``deadline`` (``time.monotonic``).

        ``phone``: it goes to an extension's phones, whose failures are never the switch's.
        """

    def is_lost(self) -> bool:
        """Return whether another process may have the call by now: this one must dial nothing more for it."""

    def elsewhere(self) -> bool:
        """Go to another switch. Return False if all were tried."""


#: Causes for which another switch is tried: its gateways may work, or the phone may be registered there.
_NOT_FROM_HERE = causes.GATEWAY_FAILED | {causes.NOT_REGISTERED}


def ring_aleg(originator: Originator, attempt: Attempt, aleg: Aleg) -> bool:
    """Ring A. Try the next endpoint while gateways fail, and the next switch while A can't be rung from one: an
    extension may be registered on one of them only. One time-out covers all of them.

    Return True if A answered: its leg is on its way to its application. Otherwise the attempt has ended.
    """
    deadline = time.monotonic() + aleg.timeout
    while True:
        rang = _ring_from_here(originator, attempt, aleg, deadline)
        if rang.outcome == "answered":
            return True
        from_here = rang.outcome in ("away", "full") or (rang.outcome == "failed" and rang.code in _NOT_FROM_HERE)
        if _is_over(attempt) or not from_here or time.monotonic() >= deadline:
            break
        if _is_lost(originator, attempt) or not originator.elsewhere():
            break
    now = node_clock.now()
    attempt.a_seconds = None if rang.outcome == "lost" else 0.0
    note_legs(attempt, rang.leg, None)
    if attempt.cut is not None:
        attempt.end(terms.REJECTED, attempt.cut.code, terms.SYSTEM, now)
    elif attempt.cancelled_by is not None:
        attempt.end(terms.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, now)
    elif rang.outcome == "timed_out":
        attempt.end("agent_no_answer", causes.NO_ANSWER, terms.SYSTEM, now)
    elif rang.outcome == "taken":
        attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, now)
    elif rang.outcome == "full":
        attempt.end(terms.REJECTED, causes.SWITCH_CONGESTION, terms.SYSTEM, now)
    elif rang.outcome in ("lost", "away"):
        attempt.lose(now)
    else:
        attempt.end(f"agent_{causes.failure(rang.code)}", rang.code, terms.AGENT, now)
    return False


def _ring_from_here(originator: Originator, attempt: Attempt, aleg: Aleg, deadline: float) -> Rang:
    # Only for a lost application: its own time-out fires first (hazard 19).
    leg = {**aleg.variables, "originate_timeout": str(int(aleg.timeout) + SWITCH_MARGIN), **UNHEARD}
    rang: Rang | None = None
    for turn in dialstring.in_turn(aleg.endpoints):
        if _is_lost(originator, attempt):
            return rang or Rang("taken")
        command = dialstring.originate({**leg, **turn.patience}, turn.endpoint, aleg.application)
        attempt.dialled(node_clock.now())
        attempt.placed = True
        began = time.monotonic()
        rang = originator.originate(command, deadline, phone=turn.gateway is None)
        if rang.outcome == "timed_out" and not rang.heard and turn.is_silent(time.monotonic() - began):
            rang = Rang("failed", causes.NETWORK_OUT_OF_ORDER)
        if rang.outcome == "full":
            attempt.note("switch_full", "it had no session to spare")
        if _is_over(attempt) or rang.outcome != "failed" or rang.code not in causes.GATEWAY_FAILED:
            break
        attempt.note("gateway_failed", f"{turn.label}: cause {rang.code}" if turn.gateway else f"cause {rang.code}")
    return rang or Rang("failed", causes.NETWORK_OUT_OF_ORDER)


def _is_lost(originator: Originator, attempt: Attempt) -> bool:
    lost = originator.is_lost()
    if lost:
        attempt.note("not_rung", "another process has taken it over")
    return lost


def _is_over(attempt: Attempt) -> bool:
    return attempt.cancelled_by is not None or attempt.cut is not None

"""What may be spent: limits and breakers by card, account, integrator, installation and destination.

A call is a :class:`Charge` against *bounds*: each limit and each breaker of each level that it belongs to, for all
that the level dials and for the destinations that it names. Here is what a call is charged for and what it has
used of it; ``esl_apps/store/usage.py`` counts, over all nodes.

Minutes of a limit are **paid ahead**: a call takes the seconds that it is about to talk out of what is left, some at
a time, before it talks them, and gives back what it has not used. So however many calls share a last minute, it is
talked once. Minutes of a breaker are counted as they are talked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from esl_apps.core.limits import Bound, Level, Refusal, bounds
from esl_apps.core.numbers import Number

#: What a call's end gives back is of its last beats: so many are kept of each bound.
_SLICES = 8
#: Seconds for which what was paid ahead may wait for its talk: the hour is counted with so much to spare.
FRESH = 50.0


@dataclass(slots=True)
class Ticket:
    """What one leg has taken out of one bound."""

    bound: Bound
    taken: float = 0.0
    """Seconds, over all."""
    left: float = 0.0
    """Seconds that nobody had taken when this was last asked."""
    why: str = ""
    """What of the bound is used up first."""
    slices: list[tuple[float, str, str]] = field(default_factory=list)
    """The latest, :data:`_SLICES` at the most: how many seconds, of which day and of which minute."""

    @property
    def ahead(self) -> bool:
        """Whether its minutes are paid before they are talked."""
        return not self.bound.trips

    @property
    def timed(self) -> bool:
        return self.bound.timed and self.bound.limits.timed

    def take(self, seconds: float, left: float, day: str, minute: str, why: str) -> None:
        self.taken += seconds
        self.left = left
        self.why = why
        if seconds > 0:
            self.slices.append((seconds, day, minute))
            del self.slices[:-_SLICES]

    def owed(self, spent: float) -> float:
        """Seconds that were talked and not paid: always of a breaker, of a limit while Redis is away."""
        return max(0.0, spent - self.taken)

    def wanted(self, spent: float, ahead: float) -> float:
        """Seconds that are missing to have ``ahead`` paid."""
        return max(0.0, ahead - max(0.0, self.taken - spent)) if self.ahead else 0.0

    def unused(self, spent: float) -> list[tuple[float, str, str]]:
        """What goes back at the end: seconds, with the day and the minute that they were taken from."""
        rest = self.taken - spent
        back = []
        while rest > 0 and self.slices:
            seconds, day, minute = self.slices.pop()
            part = min(rest, seconds)
            rest -= part
            self.taken -= part
            back.append((part, day, minute))
        return back


class Charge:
    """One leg that is paid for, from before it is dialled to its end.

    ``Attempt.pay`` hands it to its attempt, which tells it when the leg answers and when the attempt ends. It knows
    the attempt by ``call_ref`` alone, so an ended call is freed by its last reference.
    """

    __slots__ = (
        "_clock",
        "_on_change",
        "_opened",
        "_talked",
        "adopted",
        "aleg",
        "aleg_uuid",
        "call_ref",
        "cut",
        "levels",
        "longest",
        "number",
        "outlives",
        "owner",
        "since",
        "stale",
        "switch",
        "tickets",
        "whole",
    )

    def __init__(
        self,
        call_ref: str,
        levels: Sequence[Level],
        number: Number | None,
        *,
        aleg: bool = False,
        owner: bool = True,
        whole: bool = True,
    ) -> None:
        """
        :param call_ref: The attempt that it belongs to.
        :param number: None where it is not known (a dry run), which counts against no destination.
        :param aleg: It is the first leg.
        :param owner: As :func:`bounds`.
        :param whole: When its money is spent, the whole call ends, not B alone.
        """
        self.call_ref = call_ref
        """The attempt that it belongs to now."""
        self.levels = tuple(level.name for level in levels)
        self.number = number
        self.aleg = aleg
        self.owner = owner
        self.whole = whole
        self.adopted = False
        """Of a process that died: it was counted, and is paid for from now on."""
        found = list(bounds(levels, number, call_ref, aleg=aleg, owner=owner))
        lengths = [bound.limits.longest_call for bound in found]
        self.longest: float | None = min((length for length in lengths if length is not None), default=None)
        self.tickets = [Ticket(bound) for bound in found if bound.limits.counts]
        self.cut: Refusal | None = None
        """Why it is ended, where it is."""
        self.outlives = False
        """It goes on when its attempt ends: a caller who was rung back dials one number after another."""
        self.switch: str | None = None
        self.aleg_uuid: str | None = None
        """Where its leg is, if it outlives its attempt."""
        self.since: float | None = None
        self.stale = False
        """It rang so long that what it had paid ahead is of another hour: to be given back, and paid anew."""
        self._opened = 0.0
        self._talked: float | None = None
        self._clock: Callable[[], float] | None = None
        self._on_change: Callable[[Charge], None] | None = None

    def open(self, clock: Callable[[], float], on_change: Callable[[Charge], None]) -> None:
        """Its leg may be dialled. ``on_change`` is called when it talks, and when it has ended."""
        self._clock, self._on_change = clock, on_change
        self._opened = clock()

    def outlive(self, switch: str | None, aleg_uuid: str) -> None:
        """Go on when the attempt ends. ``switch``, ``aleg_uuid``: where its leg can be hung up between two attempts."""
        self.outlives = True
        self.switch, self.aleg_uuid = switch, aleg_uuid

    @property
    def essence(self) -> dict[str, Any]:
        """What it takes to go on with it in another process, in JSON's own types."""
        return {
            "levels": list(self.levels),
            "number": self.number.dialled if self.number is not None else None,
            "aleg": self.aleg,
            "owner": self.owner,
            "whole": self.whole,
        }

    @property
    def ended(self) -> bool:
        return self._talked is not None

    def talk(self, ago: float = 0.0) -> None:
        """Its leg has answered, ``ago`` seconds since."""
        if self.since is None and not self.ended and self._clock is not None and self._on_change is not None:
            self.since = self._clock() - ago
            self.stale = self.since - self._opened > FRESH
            self._on_change(self)

    def end(self, talked: float | None = None) -> None:
        """``talked``: seconds; None: as many as were seen here."""
        if not self.ended and self._clock is not None and self._on_change is not None:
            self._talked = self.spent(self._clock()) if talked is None else max(0.0, talked)
            self._on_change(self)

    def spent(self, now: float) -> float:
        """Seconds talked."""
        if self._talked is not None:
            return self._talked
        return 0.0 if self.since is None else max(0.0, now - self.since)

    def paid(self, *, away: bool = False) -> float | None:
        """Seconds that may be talked in all with what is paid; None: as many as it likes. ``away``: with what was left
        when Redis was last asked."""
        least = self._least(away)
        return None if least is None else _may(least, away)

    def short(self, now: float, *, away: bool = False) -> Ticket | None:
        """What has run out, if something has: within 50 ms, nobody asks again for less."""
        least = self._least(away)
        return least if least is not None and _may(least, away) - self.spent(now) < 0.05 else None

    def _least(self, away: bool) -> Ticket | None:
        ahead = [one for one in self.tickets if one.ahead and one.timed]
        return min(ahead, key=lambda one: _may(one, away), default=None)


def _may(ticket: Ticket, away: bool) -> float:
    return ticket.taken + (ticket.left if away else 0.0)

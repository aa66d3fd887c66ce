"""Count what one leg has taken of each of its bounds.

Minutes of a limit are **paid ahead**: a call takes some seconds out of what is left before it talks them, and gives
back those that it didn't use. So a last minute is talked once, however many calls share it. Minutes of a breaker are
counted as they are talked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from esl_apps.core.limits import Bound

#: For how many minutes the payments of each bound are remembered. The end of a call gives back the latest ones only;
#: an adopted call, whose process may live after all, all of this day's.
_SLICES, _ADOPTED_SLICES = 8, 1440

#: Seconds, and the day and the minute that they were counted for.
Slice = tuple[float, str, str]


class Payments(Struct):
    """The payments of a process for one leg, for the process that takes the call over."""

    talked: float = 0.0
    """Seconds that the leg had talked then."""
    tickets: dict[str, tuple[float, list[Slice]]] = field(default_factory=dict)
    """By bound: seconds taken in all, and the latest of them."""


class Ticket(Struct):
    """One leg's share of one bound."""

    bound: Bound
    taken: float = 0.0
    """Seconds taken so far."""
    inherited: float = 0.0
    """Those of them that other processes have taken, which had the call before."""
    left: float = 0.0
    """Seconds of the bound that were free when Redis was last asked."""
    why: str = ""
    """The limit of the bound that runs out first, as ``minutes_per_day``."""
    slices: list[Slice] = field(default_factory=list)
    """The latest payments, :attr:`kept` at most."""
    kept: int = _SLICES
    ahead: bool = False
    """Whether seconds are paid before they are talked."""
    timed: bool = False
    """Whether seconds are paid at all."""

    def __post_init__(self) -> None:
        # Once, not every five seconds for each call that is up.
        self.ahead = not self.bound.trips
        self.timed = self.bound.timed and self.bound.limits.timed

    def take(self, seconds: float, left: float, day: str, minute: str, why: str) -> None:
        self.taken += seconds
        self.left = left
        self.why = why
        if seconds <= 0:
            return
        if self.slices and self.slices[-1][1:] == (day, minute):
            seconds += self.slices.pop()[0]
        self.slices.append((seconds, day, minute))
        del self.slices[: -self.kept]

    def timed_from(self, spent: float) -> Ticket:
        """Return it as that of a leg whose seconds count from now on. ``spent``: those that it has talked."""
        return Ticket(replace(self.bound, timed=True), spent, left=self.left, why=self.why, kept=self.kept)

    def asks(self, spent: float, ahead: float) -> tuple[float, float]:
        """Return the seconds that were talked but not paid (always some for a breaker; for a limit, while Redis is
        down), and those to take so that ``ahead`` are prepaid."""
        prepaid = self.taken - spent
        if prepaid <= 0.0:
            return -prepaid, ahead if self.ahead else 0.0
        return 0.0, ahead - prepaid if self.ahead and prepaid < ahead else 0.0

    def payable(self, *, away: bool) -> float:
        """Return the seconds that may be talked in all. ``away``: as ``Charge.paid``."""
        return self.taken + (self.left if away else 0.0)

    def unused(self, spent: float) -> list[Slice]:
        """Return what goes back at the end."""
        rest = self.taken - spent
        back = []
        while rest > 0 and self.slices:
            seconds, day, minute = self.slices.pop()
            part = min(rest, seconds)
            rest -= part
            self.taken -= part
            back.append((part, day, minute))
        return back

    def keep(self, back: Sequence[Slice]) -> None:
        """Undo :meth:`unused`: Redis hasn't taken it."""
        self.taken += sum(seconds for seconds, _day, _minute in back)
        self.slices += reversed(back)

    def adopt(self) -> None:
        """Go on for a call whose process died."""
        # Unknown until Redis answers; until then it doesn't end.
        self.left = math.inf
        self.kept = _ADOPTED_SLICES

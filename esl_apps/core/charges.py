"""Charge a call's legs against limits and breakers.

Each leg is a :class:`Charge` against *bounds*: the limits and breakers of each level that the call belongs to (card,
account, integrator, installation), for everything that the level dials and for single destinations. Of each it has a
:class:`Ticket`, which holds what it has taken; ``esl_apps/store/usage.py`` counts over all nodes.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from esl_apps.core.limits import Level, Refusal, bounds
from esl_apps.core.numbers import Number
from esl_apps.core.tickets import Payments, Slice, Ticket

#: Seconds that prepaid time may wait for the talk to begin. The hourly count allows for that much delay.
FRESH = 50.0


#: The attributes that ``Charge.part`` changes, as its leg goes on in another call.
_PARTED = (
    *("call_ref", "moved", "before", "stored", "outlives", "switch", "aleg_uuid"),
    *("whole", "owner", "tickets", "timed", "payments_id"),
)


class Charge:
    """One leg that is paid for, from before it is dialled to its end.

    ``Attempt.pay`` hands it to its attempt, which tells it when the leg answers and when the attempt ends. It knows
    the attempt by ``call_ref`` alone, so an ended call is freed by its last reference.
    """

    __slots__ = (
        "_clock",
        "_on_change",
        "_opened",
        "_prepaid",
        "_talked",
        "adopted",
        "aleg_uuid",
        "before",
        "began_as_aleg",
        "call_ref",
        "cut",
        "earlier",
        "levels",
        "longest",
        "moved",
        "number",
        "outlives",
        "owner",
        "payments_id",
        "proven",
        "provisional",
        "since",
        "spared",
        "stale",
        "stored",
        "switch",
        "tickets",
        "timed",
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
        payments_id: str = "",
    ) -> None:
        """
        :param call_ref: The attempt that it belongs to.
        :param number: None if it isn't known (a dry run): then no destination counts.
        :param aleg: It is the first leg.
        :param owner: As :func:`bounds`.
        :param whole: When its money is spent, the whole call ends, not B alone.
        :param payments_id: As another process has it; by default it gets one.
        """
        self.call_ref = call_ref
        """The attempt that it belongs to now."""
        self.levels = tuple([level.name for level in levels])
        self.number = number
        self.began_as_aleg = aleg
        self.owner = owner
        self.whole = whole
        self.stored: dict[str, Any] | None = None
        """Its essence as the process that died wrote it, with what this version doesn't know."""
        self.adopted = False
        """Taken over from a process that died: counted there, and paid for here from now on."""
        leg_bounds = list(bounds(levels, number, call_ref, aleg=aleg, owner=owner))
        lengths = [length for bound in leg_bounds if (length := bound.limits.longest_call) is not None]
        self.longest: float | None = min(lengths, default=None)
        self.tickets = [Ticket(bound) for bound in leg_bounds if bound.limits.counts]
        self.timed = any(ticket.timed for ticket in self.tickets)
        """Whether its seconds are paid for at all."""
        self.payments_id = payments_id or (_new_id() if self.timed else "")
        """Under which another process finds what was paid."""
        self.moved = False
        """Its leg talked in another attempt before, and is A of this one."""
        self.before = 0.0
        """The seconds that it talked there."""
        self.earlier = 0.0
        """The seconds that its leg talked while other limits held. Another charge has paid for them."""
        self.proven = 0.0
        """If it was adopted: the seconds that its leg certainly talked."""
        self._prepaid = Raw(b"{}")
        """The payments before the talk in this attempt, as JSON: a quarter of the memory, and each state is written
        with them."""
        self.provisional = False
        """A stranger may have caused it: if it ends so, its call doesn't count for a customer, nor, unless it was
        answered, for anyone. ``Attempt.confirm`` takes it off."""
        self.cut: Refusal | None = None
        """Why the leg is being ended; None: it may go on."""
        self.spared = False
        """A party of its call talks to an emergency number: nothing that is spent and no breaker ends it. It goes on to
        count."""
        self.outlives = False
        """It goes on when its attempt ends: a caller who was rung back dials one number after another."""
        self.switch: str | None = None
        self.aleg_uuid: str | None = None
        """Where its leg is, if it outlives its attempt."""
        self.since: float | None = None
        self.stale = False
        """It rang so long that its prepaid seconds belong to another hour: they go back and are paid again."""
        self._opened = 0.0
        self._talked: float | None = None
        self._clock: Callable[[], float] | None = None
        self._on_change: Callable[[Charge], None] | None = None

    def open(self, clock: Callable[[], float], on_change: Callable[[Charge], None]) -> None:
        """Its leg may be dialled. ``on_change`` is called when it talks, and when it has ended."""
        self._clock, self._on_change = clock, on_change
        self._opened = clock()
        if self.timed and self.stored is None:
            self._prepaid = Raw(msgspec.json.encode(self.payments(self._opened)))

    def outlive(self, switch: str | None, aleg_uuid: str) -> None:
        """Go on when the attempt ends. ``switch``, ``aleg_uuid``: where its leg can be hung up between two attempts."""
        self.outlives = True
        self.switch, self.aleg_uuid = switch, aleg_uuid

    def part(self, switch: str | None, leg: str) -> Callable[[], None]:
        """Go on with its leg in another call, without the leg that it was with: its seconds count for its levels, too,
        and its call ends with it. Return a function that undoes it."""
        earlier = [(name, getattr(self, name)) for name in _PARTED]
        self.outlive(switch, leg)
        self.whole = True
        if not self.owner:
            self.owner = True
            # The other leg has paid until now.
            talked = 0.0 if self._clock is None else self.spent(self._clock())
            self.tickets = [ticket if ticket.bound.timed else ticket.timed_from(talked) for ticket in self.tickets]
            self.timed = any(ticket.timed for ticket in self.tickets)
            self.payments_id = self.payments_id or (_new_id() if self.timed else "")

        def undo() -> None:
            for name, value in earlier:
                setattr(self, name, value)

        return undo

    @property
    def of_aleg(self) -> bool:
        """Whether its leg is A of its attempt."""
        return self.began_as_aleg or self.moved

    @property
    def left(self) -> float | None:
        """The seconds that its leg may still talk by ``longest_call``; None: any number."""
        if self.longest is None:
            return None
        talked = 0.0 if self._clock is None else self.spent(self._clock())
        return max(0.0, self.longest - self.earlier - max(self.before, talked))

    def has_limits_of(self, other: Charge) -> bool:
        """Return whether two charges have the same limits."""
        mine, others = ([replace(ticket.bound, member="") for ticket in charge.tickets] for charge in (self, other))
        return (mine, self.longest) == (others, other.longest)

    def follow(self, other: Charge) -> None:
        """Go on for the leg of a charge that has other limits."""
        self.earlier = other.earlier + (0.0 if other._clock is None else other.spent(other._clock()))

    @property
    def essence(self) -> dict[str, Any]:
        """Its data for another process."""
        return self.stored or {
            "levels": list(self.levels),
            "number": self.number.dialled if self.number is not None else None,
            "aleg": self.began_as_aleg,
            "owner": self.owner,
            "whole": self.whole,
            **({"id": self.payments_id, "paid": self._prepaid} if self.timed else {}),
            **({"provisional": True} if self.provisional else {}),
        }

    def payments(self, now: float) -> Payments:
        """Return what was paid so far, for a process that takes the call over."""
        return Payments(
            round(self.spent(now), 3),
            {ticket.bound.key: (round(ticket.taken, 3), ticket.slices) for ticket in self.tickets if ticket.timed},
        )

    def move(self, call_ref: str, ago: float) -> None:
        """Go on in another attempt, in which its leg is since ``ago`` seconds."""
        self.call_ref, self.moved = call_ref, True
        if self._clock is not None:
            now = self._clock()
            self.before = round(self.spent(now - ago), 3)
            self.stored = {**self.essence, "owner": self.owner, "whole": self.whole, "before": self.before}
            if self.timed:
                self.stored |= {"id": self.payments_id, "paid": Raw(msgspec.json.encode(self.payments(now)))}

    def confirm(self) -> None:
        """Its call counts, however it ends."""
        self.provisional = False
        if self.stored is not None:
            self.stored = {name: value for name, value in self.stored.items() if name != "provisional"}

    @property
    def ended(self) -> bool:
        return self._talked is not None

    def talk(self, ago: float = 0.0) -> None:
        """Its leg began to talk in this attempt ``ago`` seconds ago."""
        if self.since is None and not self.ended and self._clock is not None and self._on_change is not None:
            self.since = self._clock() - ago - self.before
            self.stale = self.since - self._opened > FRESH
            self._on_change(self)

    def end(self, talked: float | None = None, *, ago: float = 0.0) -> None:
        """End it. ``talked``: seconds; None: those that this process has seen. ``ago``: seconds since its leg ended."""
        if not self.ended and self._clock is not None and self._on_change is not None:
            seen = self.spent(self._clock() - max(0.0, ago))
            self._talked = seen if talked is None else max(0.0, talked)
            self._on_change(self)

    def undo(self) -> None:
        """End it, since its leg is not dialled: it counts nowhere."""
        self.provisional = True
        self.end()

    def leave(self) -> None:
        """End it here: its call goes on in another process, or in another flow of this one."""
        self.provisional = False
        self.end()

    def returns(self, spent: float) -> list[Return]:
        """Return what goes back, now that it has ended or is stale. ``spent``: seconds that it has talked.

        If it is provisional its call doesn't count after all. But an answered one costs money: it counts for what
        protects the operator, the limits of the installation and breakers. A customer's own calls are not used up.
        """
        # That an adopted leg was answered may be known from its end alone.
        answered = self.since is not None or bool(self._talked)
        back = []
        for ticket in self.tickets:
            customers = ticket.bound.key.startswith(("card:", "account:"))
            uncount = self.ended and self.provisional and (customers or not answered)
            parts = ticket.unused(spent) if ticket.timed else []
            if parts or uncount:
                back.append(Return(self, ticket, parts, uncount))
        self.stale = False
        self.provisional = self.provisional and not self.ended
        return back

    def adopt(self) -> None:
        """Take it over from a process that died: it was counted there, and is paid for here from now on."""
        self.adopted = True
        for ticket in self.tickets:
            ticket.adopt()

    def inherit(self, paid: Payments | None, ago: float) -> None:
        """Go on from what the process that died has paid.

        :param paid: None if it isn't known: then all is paid that was talked.
        :param ago: Seconds that the leg has talked, by when it answered.
        """
        self.proven = ago if paid is None else min(ago, paid.talked)
        for ticket in self.tickets:
            if not ticket.timed:
                continue
            taken, slices = (ago, []) if paid is None else paid.tickets.get(ticket.bound.key, (ago, []))
            ticket.taken = ticket.inherited = taken
            ticket.slices = list(slices)

    @property
    def covered(self) -> float:
        """The seconds that are paid for by all of its bounds; without any, all are."""
        return min((ticket.taken for ticket in self.tickets if ticket.timed), default=math.inf)

    def prove(self) -> None:
        """The leg is seen to be up."""
        if self.adopted and self._clock is not None:
            self.proven = max(self.proven, self.spent(self._clock()))

    def waive(self) -> None:
        """Return all that was paid here, even after the end: the process that had the call lives, and pays itself."""
        if self._clock is not None and self._on_change is not None:
            self._talked, self.provisional = 0.0, False
            for ticket in self.tickets:
                # That one returns its own. What was returned of it here is taken again.
                ticket.taken -= ticket.inherited
                ticket.inherited = 0.0
            self._on_change(self)

    def spent(self, now: float) -> float:
        """Return the seconds talked so far."""
        if self._talked is not None:
            return self._talked
        return 0.0 if self.since is None else max(0.0, now - self.since)

    def paid(self, *, away: bool = False) -> float | None:
        """Return the seconds that may be talked in all with what is paid; None: any number.

        ``away``: while Redis is down, count what was left when it was last asked.
        """
        least = self._least(away)
        return None if least is None else least.payable(away=away)

    def short(self, now: float, *, away: bool = False) -> Ticket | None:
        """Return the ticket that runs out within 50 ms, if one does. For less, Redis isn't asked again."""
        least = self._least(away)
        return least if least is not None and least.payable(away=away) - self.spent(now) < 0.05 else None

    def _least(self, away: bool) -> Ticket | None:
        least: Ticket | None = None
        for ticket in self.tickets:
            if (
                ticket.ahead
                and ticket.timed
                and (least is None or ticket.payable(away=away) < least.payable(away=away))
            ):
                least = ticket
        return least


class Return(NamedTuple):
    """The seconds of a leg's share of one bound that are given back."""

    charge: Charge
    ticket: Ticket
    parts: Sequence[Slice]
    uncount: bool
    """Count its call no longer."""

    def keep(self, *, sure: bool) -> None:
        """Return it later. ``sure``: Redis hasn't taken it; otherwise only the call, which Redis takes once."""
        if self.uncount:
            self.charge.provisional = True
        if sure:
            self.ticket.keep(self.parts)
            self.charge.stale = not self.charge.ended


def _new_id() -> str:
    return secrets.token_hex(4)

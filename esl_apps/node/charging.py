"""Charges of a node's calls: ended on the switch when they are cut, taken up again for calls that were adopted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import gevent
import msgspec

from esl_apps.apps.session import account_level
from esl_apps.core import node_clock
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.limits import SYSTEM, Level
from esl_apps.core.number_text import NotDialable
from esl_apps.core.tickets import Payments
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import CommandError
from esl_apps.node.live import Live
from esl_apps.node.policy import Policies, Policy
from esl_apps.process import background
from esl_apps.store.membership import BEAT, DEAD, Membership
from esl_apps.store.usage import UsageStore

log = logging.getLogger(__name__)


def cut_on(switches: Sequence[Switch], calls: Mapping[str, Live]) -> Callable[[Charge], None]:
    """Return a function that ends a charge's legs on their switch: the whole call, or B alone, whose caller then hears
    why."""

    def cut(charge: Charge) -> None:
        live = calls.get(charge.call_ref)
        attempt = None if live is None else live.attempt
        if attempt is not None and not any(moment.what == "cut" for moment in attempt.timeline):
            attempt.note("cut", str(charge.cut))
        # Between two numbers of a session only its first leg exists, without an attempt.
        name = charge.switch if attempt is None else attempt.switch
        switch = next((switch for switch in switches if switch.name == name), None)
        if switch is None:
            return
        commands = []
        if charge.whole:
            commands = [f"hupall ALLOTTED_TIMEOUT esl_call_ref {charge.call_ref}"]
            aleg_uuid = charge.aleg_uuid if attempt is None else attempt.aleg_uuid
            if aleg_uuid is not None:
                commands.append(f"uuid_kill {aleg_uuid} ALLOTTED_TIMEOUT")
        elif attempt is not None and attempt.followed and attempt.bleg_uuid is not None:
            # A consultation has taken it from the session's B-legs.
            commands = [f"uuid_kill {attempt.bleg_uuid} ALLOTTED_TIMEOUT"]
        elif attempt is not None:
            commands = [f"hupall ALLOTTED_TIMEOUT esl_bleg {attempt.session_ref}"]
        background.once("charge_cutting", _order, switch, commands, call_ref=charge.call_ref)

    return cut


def _order(switch: Switch, commands: list[str]) -> None:
    for command in commands:
        # The next beat repeats it, and a leg that is already gone needs no hang-up.
        with suppress(SwitchFailed):
            try:
                switch.api(command)
            except CommandError as error:
                log.warning("hupall_refused", extra={"reason": str(error)})


class _Paid(msgspec.Struct):
    """``Charge.essence``, read from Redis."""

    levels: list[str]
    number: str | None
    aleg: bool
    owner: bool
    whole: bool
    id: str = ""
    paid: Payments | None = None
    """The payments that were made before it was dialled, or before it came into this attempt."""
    before: float | None = None
    """The seconds that it talked in other attempts; None: it was in none, or an older version's."""
    provisional: bool = False


class Charging:
    """Takes up the charges of calls whose process died."""

    def __init__(self, policies: Policies, usage: UsageStore, membership: Membership) -> None:
        self._policies = policies
        self._usage = usage
        self._membership = membership

    def resume(self, attempt: Attempt, had_by: Sequence[str] = ()) -> None:
        """Go on charging an attempt for what its legs cost, at today's levels.

        ``had_by``: the processes that had it, by boot; without them, what was talked counts as paid.
        """
        policy = self._policies.now
        charges = []
        prepaid: dict[str, Payments | None] = {}
        for essence in attempt.paid_for:
            try:
                # As JSON: what this process prepaid is encoded already.
                paid = msgspec.json.decode(msgspec.json.encode(essence), type=_Paid)
                levels = [_level(policy, name, attempt) for name in paid.levels]
                number = policy.settings.plan.read(paid.number) if paid.number else None
            except (StoreUnavailable, NotDialable, msgspec.ValidationError) as error:
                log.error("charge_not_resumed", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                continue
            charge = Charge(
                attempt.call_ref,
                levels,
                number,
                aleg=paid.aleg,
                owner=paid.owner,
                whole=paid.whole,
                payments_id=paid.id,
            )
            charge.stored, charge.provisional = essence, paid.provisional
            if paid.before is not None:
                charge.moved, charge.before = True, paid.before
            if had_by and paid.id:
                prepaid[paid.id] = paid.paid
            charges.append(charge)
        try:
            prepaid.update(self._usage.payments(prepaid, had_by))
        except StoreUnavailable:
            prepaid.clear()
        now = node_clock.now()
        self._usage.adopt(*charges)
        attempt.pay(*charges)
        for charge in charges:
            talked = attempt.talked(charge, now)
            charge.inherit(prepaid.get(charge.payments_id), talked)
            if attempt.began(charge) is not None:
                # What no process has paid for is paid at the end, by the switch's times.
                charge.talk(min(talked, charge.covered) - charge.before)

    def settle_later(self, attempt: Attempt, had_by: Sequence[str]) -> None:
        """Settle what a process has paid for a call whose caller goes on here, if it died. If it lives, it does that
        itself, and which it is shows in some seconds. ``had_by``: as :meth:`resume`."""
        if attempt.paid_for:
            at = attempt.timeline[-1].at if attempt.ended else node_clock.now()
            paid = msgspec.structs.replace(attempt, charges=[], timeline=[], observer=None)
            background.once("charge_settling", self._settle, paid, list(had_by), at, call_ref=attempt.call_ref)

    def _settle(self, attempt: Attempt, had_by: Sequence[str], at: float) -> None:
        gevent.sleep(DEAD + 2 * BEAT)
        if not self._membership.is_dead(had_by[-1]):
            return
        self.resume(attempt, had_by)
        for charge in attempt.charges:
            if not attempt.ended:
                # The call is counted for the flow that goes on with it here.
                charge.provisional = False
            charge.end(attempt.talked(charge, at))


def _level(policy: Policy, name: str, attempt: Attempt) -> Level:
    """Return a level as it is configured now. :raises StoreUnavailable: an imported account while Redis is down."""
    kind, _, id = name.partition(":")
    if kind == "integrator" and id in policy.clients:
        return next(level for level in policy.clients[id].levels if level.name == name)
    if kind == "account" and (account := policy.cards.account(id)) is not None:
        return account_level(account)
    if kind == "card":
        return Level(name, policy.cards.card_limits(attempt.account_id or ""))
    return policy.system if name == SYSTEM else Level(name)

"""Transfer: one party of a talk stays, and is connected with another one.

The leg of the party that stays is taken out of its bridge and comes to an event socket, like a leg that a node has rung
and that has answered. From there it is A of an attempt of its own: ``restore`` goes on with it on any node.

A consultation is such a call, too: the party that asks is A, and the one that they talked with hears music meanwhile.
When the new party is busy, doesn't answer or leaves, A's dialplan takes A back to the one on hold. When A leaves after
an answer, B's takes B there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from esl_apps.apps.application import Application
from esl_apps.apps.click2dial import code_of, limit_fault
from esl_apps.apps.context import AppPolicy, Host
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import (
    ANONYMOUS,
    LONGEST,
    OF_PHONE,
    PHONE,
    Bleg,
    aleg_variables,
    has_phone,
    join,
    phone_of,
    recording_of,
)
from esl_apps.core import causes, node_clock, numbers, parties, talk, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs
from esl_apps.core.call import Bridged, Call, CallEnded, Ended, Leg
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.core.reference import new_ref

REF = "transfer"
#: The detail of ``agent_answered``, by the party that comes: the other one stays, and has answered long ago.
STAYS = {terms.AGENT: "the callee stays", terms.CALLEE: "the agent stays"}


class KeptTransfer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of ``Attempt.order`` from which another process takes a transfer over."""

    to: str
    shown: str
    """The caller ID that the new party is shown."""
    second_party: str
    """The new party: an agent, if a customer stays."""
    record: bool
    """The call before was being recorded, so this one is, too. One whose recording was paused or stopped isn't."""
    consults: str = ""
    """The party that asks, if this is a consultation."""
    held: str = ""
    """The UUID of the leg on hold; empty: that party has left."""
    next: str = ""
    """The ``call_ref`` of the call in which the other two will be joined."""
    back: bool = False
    """The party that asked goes back to the one on hold."""
    max_duration: float | None = None
    """Seconds that the two may talk, once the new party has answered, by the request for the first call; None: it
    doesn't say."""


@dataclass(frozen=True, slots=True)
class TransferCall:
    """A transfer from the request to the end of the talk that it leads to."""

    attempt: Attempt
    to: Number
    client: IntegratorRules
    kept: KeptTransfer
    """As it was asked for; ``consultation`` says what has changed since."""

    def charges(self, stays: Sequence[Charge] = ()) -> list[Charge]:
        """Return the new leg's charges: the integrator pays, as for the first call.

        ``stays``: those of the leg that stays. The minutes of the call count once for each of their levels.
        """
        if self.to.is_emergency:
            return []
        paid = {level for charge in stays for level in charge.levels}
        levels = {
            owner: [level for level in self.client.levels if (level.name not in paid) == owner]
            for owner in (True, False)
        }
        # When the limit is reached, the party that asks goes back to the one on hold.
        return [
            Charge(self.attempt.call_ref, part, self.to, owner=owner, whole=not self.consults)
            for owner, part in levels.items()
            if part
        ]

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """The leg of the party that stays is here: dial the new one, and see the call to its end."""
        attempt = self.attempt
        attempt.aleg_uuid = call.uuid
        attempt.enter(terms.AGENT_ANSWERED, node_clock.now(), STAYS[self.kept.second_party])
        failed: Bridged | None = None
        bridged: Bridged | None = None
        back: Ended | None = None
        fault = self._fault(policy, host)
        try:
            if fault is not None:
                attempt.note("refused", f"{fault.field}: {fault.message}")
                call.play("limit_reached" if fault.field == "limits" else "transfer_refused")
            elif attempt.cancelled_by is None and attempt.cut is None:
                stays, comes = self._keys(policy)
                call.set({**self._variables(policy), **stays})
                bridged = self._dial(call, policy, comes)
                failed = None if bridged.answered else bridged
                if failed is not None and attempt.cancelled_by is None:
                    # They have talked already, and would take a silent end for a fault.
                    call.play(f"callee_{causes.failure(failed.code)}")
            if self.consults:
                note(attempt, back=True)
                call.go_on()
                back = Ended(node_clock.now(), Leg(call.uuid), bridged.bleg if bridged is not None else None)
            else:
                call.hangup("NORMAL_CLEARING")
        except CallEnded as ended:
            attempt.note("aleg_ended", str(ended))
        end = back or call.ended()
        if fault is not None:
            attempt.end(terms.REJECTED, code_of([fault]), terms.SYSTEM, end.at)
        agent = end.aleg if self.kept.second_party == terms.CALLEE else end.bleg
        attempt.hold_time = talk.hold_time(attempt, end.at, agent.hold_seconds if agent is not None else 0.0)
        if self.consults and back is None and _parted(attempt, end):
            return
        for charge in attempt.charges:
            if charge.outlives:
                # That of the leg that stayed goes on from the call before. It may be up for longer than the talk.
                charge.end(ago=node_clock.now() - end.at)
        conclude(attempt, end, failed, self.kept.second_party)

    @property
    def consults(self) -> bool:
        return consultation(self.attempt) is not None

    @property
    def _owner(self) -> dict[str, str]:
        """Whose legs they are: the client's, also if the call began with an account's card."""
        return {"esl_account_id": self.client.name}

    def _variables(self, policy: AppPolicy) -> dict[str, str]:
        variables = {**aleg_variables(policy.settings, self.attempt, self.attempt.extension or ""), **self._owner}
        # The party that asks goes back to the one on hold.
        return {**variables, "hangup_after_bridge": "false"} if self.consults else variables

    def _fault(self, policy: AppPolicy, host: Host) -> Fault | None:
        """Return what the rules in force have against it."""
        client = policy.clients.get(self.attempt.integrator or "")
        if client is None:
            return Fault("integrator", "restricted", "is not configured any more")
        try:
            client.read_target(self.to.dialled)
        except Refused as refused:
            return refused.faults[0]
        # The leg that stays may go on: a breaker that ends calls has ended it.
        refusal = host.usage.tripped(*(charge for charge in self.attempt.charges if not charge.of_aleg))
        return None if refusal is None else limit_fault(refusal)

    def _keys(self, policy: AppPolicy) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the variables that make the agent's transfer key work: of the leg that stays, and of the new one."""
        settings = policy.settings
        if self.consults:
            # The two legs of a consultation stay as they are, until it is completed or cancelled.
            return {}, {}
        if self.kept.second_party == terms.AGENT:
            return (OF_PHONE, PHONE) if has_phone(settings, self.to) else ({}, {})
        return (PHONE, OF_PHONE) if phone_of(settings, self.attempt) is not None else ({}, {})

    def _dial(self, call: Call, policy: AppPolicy, variables: Mapping[str, str]) -> Bridged:
        attempt, client, kept, settings = self.attempt, self.client, self.kept, policy.settings
        lengths = [left for charge in attempt.charges if (left := charge.left) is not None]
        if kept.max_duration is not None and not self.consults:
            # A consultation doesn't end with the call on hold.
            lengths.append(kept.max_duration)
        bleg = Bleg(
            caller_id=kept.shown,
            timeout=client.callee_timeout,
            longest=LONGEST if attempt.is_emergency else max(1.0, min([client.longest, *lengths])),
            user=attempt.extension or "",
            recording=recording_of(call, attempt, client.name, settings) if kept.record and client.record else None,
            variables={**variables, **self._owner},
        )
        endpoints = settings.endpoints.of(self.to, as_asked=True)
        return join(call, attempt, settings, bleg, endpoints, parts=self.consults, second=kept.second_party)


def _parted(attempt: Attempt, end: Ended) -> bool:
    """End a consultation whose first party has left the other two to each other. False: there aren't two."""
    consult = consultation(attempt)
    if consult is None or not consult.held or attempt.bridged_at is None:
        return False
    if attempt.cancelled_by is not None or end.lost or end.bleg is None or end.bleg.ended_at is not None:
        return False
    attempt.b_seconds = max(0.0, end.at - attempt.bridged_at)
    note_legs(attempt, end.aleg, None, second_party(attempt) or terms.CALLEE)
    leave_to_each_other(attempt, consult, end.at)
    return True


def leave_to_each_other(attempt: Attempt, consult: KeptTransfer, at: float) -> None:
    """End a consultation that has led to the call ``consult.next``."""
    attempt.transferred_to = consult.next
    attempt.end(terms.ANSWERED, causes.NORMAL_CLEARING, consult.consults, at)


def consultation(attempt: Attempt) -> KeptTransfer | None:
    """Return a consultation's order; None for any other call."""
    if attempt.app != REF or not (attempt.order or {}).get("consults"):
        return None
    try:
        return msgspec.convert(attempt.order, KeptTransfer)
    except msgspec.ValidationError:
        return None


def note(attempt: Attempt, **fields: object) -> None:
    """Change fields of a consultation's order."""
    attempt.order = {**(attempt.order or {}), **fields}


def new_consultation(
    old: Attempt, to: Number, consults: str, held: str, client: IntegratorRules, plan: NumberPlan
) -> TransferCall:
    """Make the attempt in which a party of ``old`` asks a third one. ``held``: the UUID of the leg on hold."""
    made = new_call(old, to, terms.other_party(consults), client, plan)
    kept = msgspec.structs.replace(made.kept, consults=consults, held=held, next=new_ref())
    made.attempt.order = msgspec.to_builtins(kept)
    # The call on hold closes the session.
    made.attempt.apart = []
    return replace(made, kept=kept)


def new_call(
    old: Attempt,
    to: Number,
    leaves: str,
    client: IntegratorRules,
    plan: NumberPlan,
    ref: str = "",
    *,
    dialled: bool = True,
) -> TransferCall:
    """Make the attempt that follows ``old``, once the party ``leaves`` (``agent`` or ``callee``) has left it.

    ``ref``: its reference, if it has one already. ``dialled``: False if the new party called in, and shows ``to``.
    """
    agent, customer = old.extension, old.number
    known = to if dialled else parties.caller(to)
    if leaves == terms.AGENT:
        named = {"extension": to.dialled, "number": customer, **parties.first(known)}
        named |= {"number_e164": old.number_e164, "number_class": old.number_class, "country": old.country}
        named["claimed"] = not dialled
        shown = (customer if to.is_extension else old.dial_number) or ANONYMOUS
    else:
        named = {"extension": agent, "number": to.dialled, **parties.second(known)}
        named |= {"extension_e164": old.extension_e164, "extension_class": old.extension_class}
        named |= {"extension_country": old.extension_country, "claimed": old.claimed}
        shown = (agent if to.is_extension else old.dial_number) or ANONYMOUS
    second = terms.AGENT if leaves == terms.AGENT else terms.CALLEE
    kept = KeptTransfer(to.dialled, shown, second, old.recording == talk.ON, max_duration=seconds_left(old))
    stays = plan.find(customer if leaves == terms.AGENT else agent)
    attempt = Attempt(
        app=REF,
        call_ref=ref or new_ref(),
        integrator=client.name,
        account_id=old.account_id,
        card_id=old.card_id,
        user_id=old.user_id,
        dial_number=old.dial_number,
        call_dir=numbers.direction(*((to, stays) if leaves == terms.AGENT else (stays, to))),
        session_ref=old.session_ref,
        contact_ref=old.contact_ref,
        metadata=old.metadata,
        transferred_from=old.call_ref,
        apart=[*old.apart, old.call_ref],
        session_at=old.session_at,
        session_answered_at=old.session_answered_at,
        language=old.language,
        order=msgspec.to_builtins(kept),
        **named,
    )
    attempt.dialled(node_clock.now())
    return TransferCall(attempt, to, client, kept)


def seconds_left(old: Attempt) -> float | None:
    """Return the seconds that a talk may still last, by the request for its session's first call; None: it doesn't say.
    Those of an emergency call don't count."""
    longest = (old.order or {}).get("max_duration")
    if not isinstance(longest, int | float):
        return None
    talked = 0.0 if old.bridged_at is None or old.is_emergency else node_clock.now() - old.bridged_at
    return max(1.0, longest - talked)


def restore(attempt: Attempt, call: Call, policy: AppPolicy) -> TransferCall | None:
    """Read a transfer of another process; None if its order or its integrator is missing or wrong."""
    client = policy.clients.get(attempt.integrator or "")
    try:
        kept = msgspec.convert(attempt.order, KeptTransfer)
        to = policy.settings.plan.read(kept.to)
    except (NotDialable, msgspec.ValidationError):
        return None
    if client is None:
        return None
    return TransferCall(attempt, to, client, kept)


def second_party(attempt: Attempt) -> str | None:
    """Return the new party of a transfer; None for any other call."""
    order: dict[str, Any] = attempt.order or {}
    return order.get("second_party") if attempt.app == REF else None


APPLICATION = Application(
    ref=REF,
    path="transfer",
    title="A client or an agent's phone transfers a talk: one party stays and is connected with another.",
    recorded=True,
    restore=restore,
    holds=True,
)

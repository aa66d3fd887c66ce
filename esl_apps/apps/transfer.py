"""Transfer: one party of a talk stays, and is connected with another one.

The leg of the party that stays is taken out of its bridge and comes to an event socket, like a leg that a node has rung
and that has answered. From there it is A of an attempt of its own: ``restore`` goes on with it on any node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from esl_apps.apps.application import Application
from esl_apps.apps.click2dial import limit_fault
from esl_apps.apps.context import AppPolicy, Host
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import Bleg, aleg_variables, join, recording_of
from esl_apps.core import causes, node_clock, numbers, parties, talk, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Call, CallEnded
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.order import IntegratorRules

REF = "transfer"


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of ``Attempt.order`` from which another process takes a transfer over."""

    to: str
    shown: str
    second_party: str
    record: bool


@dataclass(frozen=True, slots=True)
class TransferCall:
    """A transfer from the request to the end of the talk that it leads to."""

    attempt: Attempt
    to: Number
    shown: str
    """The caller ID that the new party is shown."""
    client: IntegratorRules
    second_party: str
    """The new party: an agent, if a customer stays."""
    record: bool
    """The call before was recorded, so this one is, too."""

    def charges(self, policy: AppPolicy) -> list[Charge]:
        """The new leg's. Whoever dialled the first call pays."""
        if self.to.is_emergency:
            return []
        return [Charge(self.attempt.call_ref, self.client.levels, self.to)]

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """The leg of the party that stays is here: dial the new one, and see the call to its end."""
        attempt = self.attempt
        attempt.aleg_uuid = call.uuid
        attempt.enter(terms.AGENT_ANSWERED, node_clock.now())
        failed: Bridged | None = None
        fault = self._fault(policy, host)
        try:
            if fault is not None:
                attempt.note("refused", f"{fault.field}: {fault.message}")
                call.play("limit_reached" if fault.field == "limits" else "transfer_refused")
            elif attempt.cancelled_by is None and attempt.cut is None:
                call.set(aleg_variables(policy.settings, attempt, attempt.extension or ""))
                failed = self._dial(call, policy)
                if failed is not None:
                    # They have talked already, and would take a silent end for a fault.
                    call.play(f"callee_{causes.failure(failed.code)}")
            call.hangup("NORMAL_CLEARING")
        except CallEnded as ended:
            attempt.note("aleg_ended", str(ended))
        end = call.ended()
        if fault is not None:
            attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, end.at)
        attempt.hold_time = round(talk.seconds(attempt, talk.HOLD, end.at))
        conclude(attempt, end, failed, self.second_party)
        for charge in attempt.charges:
            # Those of the leg that stayed go on from the call before.
            charge.end()

    def _fault(self, policy: AppPolicy, host: Host) -> Fault | None:
        """Return what the rules in force have against it."""
        client = policy.clients.get(self.attempt.integrator or "")
        if client is None:
            return Fault("integrator", "restricted", "is not configured any more")
        try:
            client.read_target(self.to.dialled)
        except Refused as refused:
            return refused.faults[0]
        refusal = host.usage.tripped(*self.attempt.charges)
        return None if refusal is None else limit_fault(refusal)

    def _dial(self, call: Call, policy: AppPolicy) -> Bridged | None:
        """Return B's outcome if it didn't answer; None after the two have talked."""
        attempt, client, settings = self.attempt, self.client, policy.settings
        lengths = [charge.longest for charge in attempt.charges if charge.longest is not None]
        bleg = Bleg(
            caller_id=self.shown,
            timeout=client.callee_timeout,
            longest=min([client.longest, *lengths]),
            user=attempt.extension or "",
            recording=recording_of(call, attempt, client.name, settings) if self.record and client.record else None,
        )
        bridged = join(call, attempt, settings, bleg, settings.endpoints.of(self.to, as_asked=True))
        return None if bridged.answered else bridged


def new_call(old: Attempt, to: Number, leaves: str, client: IntegratorRules, plan: NumberPlan) -> TransferCall:
    """Make the attempt that follows ``old``, once the party ``leaves`` (``agent`` or ``callee``) has left it."""
    agent, customer = old.extension, old.number
    if leaves == terms.AGENT:
        named = {"extension": to.dialled, "number": customer, **parties.first(to)}
        named |= {"number_e164": old.number_e164, "number_class": old.number_class, "country": old.country}
        shown = (customer if to.is_extension else old.dial_number) or "anonymous"
    else:
        named = {"extension": agent, "number": to.dialled, **parties.second(to)}
        named |= {"extension_e164": old.extension_e164, "extension_class": old.extension_class}
        named["extension_country"] = old.extension_country
        shown = (agent if to.is_extension else old.dial_number) or "anonymous"
    second = terms.AGENT if leaves == terms.AGENT else terms.CALLEE
    record = old.recording_url is not None
    stays = _read(plan, customer if leaves == terms.AGENT else agent)
    attempt = Attempt(
        app=REF,
        integrator=client.name,
        dial_number=old.dial_number,
        call_dir=numbers.direction(*((to, stays) if leaves == terms.AGENT else (stays, to))),
        session_ref=old.session_ref,
        contact_ref=old.contact_ref,
        metadata=old.metadata,
        transferred_from=old.call_ref,
        order=msgspec.to_builtins(_Kept(to.dialled, shown, second, record)),
        **named,
    )
    attempt.dialled(node_clock.now())
    return TransferCall(attempt, to, shown, client, second, record)


def restore(attempt: Attempt, call: Call, policy: AppPolicy) -> TransferCall | None:
    """Read a transfer of another process; None if its order or its integrator is missing or wrong."""
    client = policy.clients.get(attempt.integrator or "")
    try:
        kept = msgspec.convert(attempt.order, _Kept)
        to = policy.settings.plan.read(kept.to)
    except (NotDialable, msgspec.ValidationError):
        return None
    if client is None:
        return None
    return TransferCall(attempt, to, kept.shown, client, kept.second_party, kept.record)


def second_party(attempt: Attempt) -> str | None:
    """Return the new party of a transfer; None for any other call."""
    order: dict[str, Any] = attempt.order or {}
    return order.get("second_party") if attempt.app == REF else None


def _read(plan: NumberPlan, text: str | None) -> Number | None:
    try:
        return plan.read(text or "")
    except NotDialable:
        return None


APPLICATION = Application(
    ref=REF,
    path="transfer",
    title="A client or an agent's phone transfers a talk: one party stays and is connected with another.",
    recorded=True,
    restore=restore,
    holds=True,
)

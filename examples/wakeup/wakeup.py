"""Wake-up calls: a caller keys a number of minutes, and is rung back then and hears a prompt.

Everyone who can dial the number makes the account pay for ringing back, so it rings only extensions and numbers of this
country that the account may dial, and each of them only so often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from esl_apps.apps import interface as esl

REF = "wakeup"
TRIES, FIRST_DIGIT, BETWEEN = 3, 10.0, 3.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``applications.wakeup`` of the configuration."""

    number: str
    """The number that callers dial."""
    account: str
    """The account that pays for ringing back."""
    prompt: str = "announcement"
    longest: int = 1440
    """Minutes."""
    cool_down: float = 60.0
    """Seconds between two wake-up calls to one number."""
    per_day: int = 10


@dataclass(frozen=True, slots=True)
class WakeupCall:
    """One wake-up call: how a node places it and runs it."""

    attempt: esl.Attempt
    number: esl.Number
    account: esl.Account

    def charges(self, policy: esl.AppPolicy) -> list[esl.Charge]:
        if self.number.is_extension:
            return []
        levels = [policy.rules.system, esl.account_level(self.account)]
        return [esl.Charge(self.attempt.call_ref, levels, self.number, aleg=True)]

    def aleg(self, policy: esl.AppPolicy, application: str) -> esl.Aleg:
        shown = self.attempt.dial_number or ""
        variables = esl.aleg_variables(policy.settings, self.attempt, "")
        variables |= {"origination_caller_id_number": shown, "origination_caller_id_name": shown}
        return esl.Aleg(variables, policy.settings.endpoints.of(self.number, as_asked=False), application)

    def answered(self, call: esl.Call, policy: esl.AppPolicy, host: esl.Host) -> None:
        self.attempt.enter(esl.terms.AGENT_ANSWERED, call.answered_at or esl.now())
        self.attempt.enter(esl.terms.BRIDGED, esl.now())
        try:
            call.play(policy.own(REF).prompt)
            call.hangup("NORMAL_CLEARING")
        except esl.CallEnded as ended:
            self.attempt.note("aleg_ended", str(ended))
        esl.conclude(self.attempt, call.ended(), None, esl.terms.CALLEE)


def arrive(call: esl.Call, arrival: esl.Arrival, policy: esl.AppPolicy, host: esl.Host) -> None:
    """Ask the caller for minutes, and have a node ring back then."""
    session, own = esl.Session.open(call, REF, arrival, policy, host), policy.own(REF)

    def talk() -> None:
        session.answer()
        target = whom_to_wake(session.caller, policy)
        if isinstance(target, str):
            raise esl.SessionRefused("unauthorized_call", note=target)
        number, _account = target
        due_at = esl.now() + 60 * ask(session, own.longest)
        frequency = esl.Frequency(own.cool_down, own.per_day)
        scheduled = host.schedule(number.e164, [number.dialled], due_at, frequency)
        session.attempt.note("wakeup", scheduled.refused or "scheduled")
        call.play("goodbye" if scheduled else "limit_reached")

    session.run(talk)


def ask(session: esl.Session, longest: int) -> int:
    """The minutes that the caller keys. :raises SessionRefused: none of use in three tries."""
    for _ in range(TRIES):
        keyed = session.collect("enter_number", len(str(longest)), FIRST_DIGIT, BETWEEN)
        if keyed.isdecimal() and 1 <= int(keyed) <= longest:
            return int(keyed)
        session.call.play("invalid_extension")
    raise esl.SessionRefused("retries_exceeded", note="no number of minutes")


def whom_to_wake(caller: str | None, policy: esl.AppPolicy) -> tuple[esl.Number, esl.Account] | str:
    """The caller's number and who pays, or why it isn't rung. :raises StoreUnavailable: Redis is down."""
    plan, account = policy.settings.plan, policy.cards.account(policy.own(REF).account)
    try:
        number = plan.read(caller or "")
    except esl.NotDialable:
        return "no number to ring back"
    if account is None or number.is_emergency or number.e164 in policy.rules.own_numbers or not plan.is_home(number):
        return "a number that is not rung back"
    denied = esl.denied(number, account.call_restriction)
    return f"class {denied} is denied" if denied else (number, account)


def due(timed: esl.TimedCall, policy: esl.AppPolicy) -> WakeupCall | str:
    """A wake-up call is due: the call to place, or why it isn't."""
    target = whom_to_wake(timed.data[0], policy)
    if isinstance(target, str):
        return target
    number, account = target
    attempt = esl.Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=number.dialled,
        number=None,
        dial_number=policy.caller_id_of(account),
        call_dir="external",
    )
    return WakeupCall(attempt, number, account)


def restore(attempt: esl.Attempt, _call: esl.Call, policy: esl.AppPolicy) -> WakeupCall | None:
    """A wake-up call that another node rang."""
    target = whom_to_wake(attempt.extension, policy)
    return None if isinstance(target, str) else WakeupCall(attempt, *target)


def extensions(config: Mapping[str, Any]) -> Iterator[esl.Extension]:
    yield esl.Extension([REF], [config["applications"][REF]["number"]], "applications.wakeup.number")


APPLICATION = esl.Application(
    ref=REF,
    path=REF,
    title="Key a number of minutes, be rung back then.",
    arrive=arrive,
    restore=restore,
    timed=esl.Timed(due=due, store="wakeups"),
    extensions=extensions,
    settings=Settings,
)

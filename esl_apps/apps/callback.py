"""Callback: a caller who is refused unanswered, pays nothing, and is rung back (the cb of Kazoo's ``cccp``)."""

from __future__ import annotations

from dataclasses import dataclass

from esl_apps.apps import dialthrough
from esl_apps.apps.application import Application
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.legs import aleg_variables
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.session import Session, SessionRefused, account_level, session_variables
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.restrictions import denied
from esl_apps.core.terms import AGENT_ANSWERED

REF = "callback"
APPLICATION = Application(
    ref=REF, path="callback", title="A missed call is returned, then goes on as a calling card.", placed=True
)
#: Seconds for which an answered callback waits for the key that confirms it (``callback.confirm``).
CONFIRM = 10.0


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A caller has come to the callback number: refused unanswered and perhaps rung back later."""
    caller = policy.caller(call)
    dnis = call.header("Caller-Destination-Number") or ""
    if refuse(call, policy.settings.callback_answer_after):
        host.missed(caller, dnis)
    else:
        dialthrough.arrive(call, arrival, policy, host)


def refuse(call: Call, answer_after: float) -> bool:
    """The incoming call: 486 at once, known or unknown, before anything is looked up. Nobody learns who is
    enrolled from the answer or from how long it takes.

    With ``answer_after`` the caller may stay that many seconds: False where it did, and is to be answered.
    """
    try:
        if answer_after > 0:
            call.ring()
            call.wait_for_hangup(answer_after)
            return False
        call.hangup("USER_BUSY")
    except CallEnded:
        pass
    return True


def whom_to_call(caller: str | None, policy: AppPolicy) -> tuple[Number, Card] | str:
    """The number to ring and its card, or why there is none.

    Never an own DID, a class that is denied, a number that is not enrolled, or one without a dial string.
    :raises StoreUnavailable: Redis is away: that is no answer, and no reason to forget a callback.
    """
    settings, rules, cards = policy.settings, policy.rules, policy.cards
    if caller is None:
        return "the number is withheld"
    try:
        number = settings.plan.read(caller)
    except NotDialable:
        return "the number can't be read"
    if number.is_extension or number.is_emergency or number.e164 in rules.own_numbers:
        return "a number of this installation"
    card = cards.by_number(number.e164)
    if card is None or not card.active:
        return "not enrolled"
    account = cards.account(card.account_id)
    if account is None:
        return "the card's account is not known"
    if what := denied(number, account.call_restriction, account.users.get(card.user_id or "", {})):
        return f"class {what} is denied"
    if not policy.settings.endpoints.reaches(number):
        return "dial.external is empty"
    return number, card


@dataclass(frozen=True, slots=True)
class RingBack:
    """One try at ringing a caller back."""

    attempt: Attempt
    number: Number
    card: Card
    account: Account


def new_call(number: Number, card: Card, account: Account, policy: AppPolicy) -> RingBack:
    """``extension`` is the number that is called back."""
    attempt = Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=number.plus,
        number=None,
        dial_number=policy.caller_id_of(account),
        call_dir="external",
        order={"card": card.id},
    )
    return RingBack(attempt, number, card, account)


def restore(attempt: Attempt, policy: AppPolicy) -> RingBack | None:
    """A try of another process; None if what it needs is gone. :raises StoreUnavailable: Redis is down."""
    account = policy.cards.account(attempt.account_id or "")
    if attempt.order is None or account is None:
        return None
    card = policy.cards.get(account.id, str(attempt.order.get("card")))
    if card is None or not card.active:
        return None
    try:
        number = policy.settings.plan.read(attempt.extension or "")
    except NotDialable:
        return None
    return RingBack(attempt, number, card, account)


def charges(ring_back: RingBack, policy: AppPolicy) -> list[Charge]:
    """What ringing back costs: as a call of the card's, to its own number. :raises StoreUnavailable: Redis is down."""
    account = ring_back.account
    card_level = Level(f"card:{ring_back.card.id}", policy.cards.card_limits(account.id))
    levels = [policy.rules.system, account_level(account), card_level]
    return [Charge(ring_back.attempt.call_ref, levels, ring_back.number, aleg=True)]


def aleg(ring_back: RingBack, policy: AppPolicy, application: str) -> Aleg:
    """How the number is rung back."""
    settings, shown = policy.settings, ring_back.attempt.dial_number or ""
    variables = {
        **aleg_variables(settings, ring_back.attempt, ring_back.card.user_id or ""),
        "hangup_after_bridge": "false",
        "origination_caller_id_number": shown,
        "origination_caller_id_name": shown,
        "ignore_early_media": "true",
    }
    return Aleg(variables, settings.endpoints.of(ring_back.number, as_asked=False), application)


def answered(call: Call, ring_back: RingBack, policy: AppPolicy, host: Host) -> None:
    """The number called back has answered: as dialthrough, from asking for the number."""
    attempt, card, settings = ring_back.attempt, ring_back.card, policy.settings
    session = Session.of_answered(call, attempt, policy, host, ring_back.account, card)
    session.caller = attempt.extension

    def talk() -> None:
        call.answer(session_variables(settings, attempt, session.user))
        attempt.enter(AGENT_ANSWERED, call.answered_at or call.created_at)
        call.wait_for_hangup(session.rules.prompt_delay)
        if settings.callback_confirm and not session.collect("confirm_callback", 1, CONFIRM, 1.0):
            # A mailbox answers and presses nothing.
            raise SessionRefused("goodbye", note="nobody pressed a key")
        dialthrough.take(session, card)
        dialthrough.dial_on(session, home_only=False)

    session.run(talk)

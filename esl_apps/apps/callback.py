"""Callback: a caller who is refused unanswered, pays nothing, and is rung back (the cb of Kazoo's ``cccp``)."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.apps import dialthrough
from esl_apps.apps.application import Application
from esl_apps.apps.legs import aleg_variables
from esl_apps.apps.session import Refused, Rules, Session, account_level, session_variables
from esl_apps.apps.settings import Settings
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.cards import Account, Card, Cards, Usage
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.restrictions import denied
from esl_apps.core.terms import AGENT_ANSWERED

REF = "callback"
APPLICATION = Application(
    ref=REF, path="callback", title="A missed call is returned, then goes on as a calling card.", placed=True
)
#: Seconds for which an answered callback waits for the key that confirms it (``callback.confirm``).
CONFIRM = 10.0


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


def whom_to_call(caller: str | None, settings: Settings, rules: Rules, cards: Cards) -> tuple[Number, Card] | str:
    """The number to ring and its card, or why there is none.

    Never an own DID, a class that is denied, or a number that is not enrolled.
    :raises StoreUnavailable: Redis is away: that is no answer, and no reason to forget a callback.
    """
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
    return number, card


def new_attempt(number: Number, account: Account, caller_id: str) -> Attempt:
    """A try at ringing back; ``extension`` is the number that is called back."""
    return Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=number.plus,
        number=None,
        dial_number=caller_id,
        call_dir="external",
    )


def charge(
    attempt: Attempt, number: Number, rules: Rules, account: Account, card: Card, card_limits: Limits | None
) -> Charge:
    """What ringing back costs: as a call of the card's, to its own number."""
    return Charge(
        attempt.call_ref,
        [rules.system, account_level(account), Level(f"card:{card.id}", card_limits)],
        number,
        aleg=True,
    )


def aleg(settings: Settings, attempt: Attempt, card: Card, caller_id: str) -> dict[str, str]:
    """The variables of the leg that rings back."""
    return {
        **aleg_variables(settings, attempt, card.user_id or ""),
        "hangup_after_bridge": "false",
        "origination_caller_id_number": caller_id,
        "origination_caller_id_name": caller_id,
        "ignore_early_media": "true",
    }


def run(
    call: Call,
    attempt: Attempt,
    card: Card,
    account: Account,
    settings: Settings,
    rules: Rules,
    cards: Cards,
    usage: Usage,
    *,
    confirm: bool,
    begin: Callable[[Attempt], None],
) -> None:
    """The number called back has answered: as dialthrough, from asking for the number."""
    session = Session(
        call, REF, settings, rules, begin, usage, attempt, account=account, card=card, caller=attempt.extension
    )
    session.longest = rules.max_session
    session.own_aleg()
    attempt.aleg_uuid = call.uuid

    def talk() -> None:
        call.answer(session_variables(settings, attempt, session.user))
        attempt.enter(AGENT_ANSWERED, call.answered_at or call.created_at)
        call.wait_for_hangup(rules.prompt_delay)
        if confirm and not session.collect("confirm_callback", 1, CONFIRM, 1.0):
            # A mailbox answers and presses nothing.
            raise Refused("goodbye", note="nobody pressed a key")
        dialthrough.take(session, cards, card)
        dialthrough.dial_on(session, cards, home_only=False)

    session.run(talk)

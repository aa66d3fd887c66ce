"""Callback: the caller is refused unanswered, pays nothing, and is rung back (the cb of Kazoo's ``cccp``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from esl_apps.apps import dialthrough
from esl_apps.apps.agent_prompts import GREETING, QUIET, is_confirmed
from esl_apps.apps.application import Application, Extension, Timed
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.legs import aleg_variables, caller_id_variables
from esl_apps.apps.permission import denial, is_own
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.session import Session, SessionRefused, account_level
from esl_apps.core import causes, node_clock, parties
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level
from esl_apps.core.numbers import Number
from esl_apps.core.terms import LOST
from esl_apps.core.timed_call import TimedCall
from esl_apps.core.unavailable import StoreUnavailable

log = logging.getLogger(__name__)

REF = "callback"


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A caller has called the callback number: refuse them unanswered, and perhaps ring them back later."""
    if call.answered_at is not None:
        # By a node that has died since.
        dialthrough.arrive(call, arrival, policy, host)
        return
    caller = policy.caller(call)
    dnis = call.header("Caller-Destination-Number") or ""
    if refuse(call, policy.settings.callback_answer_after):
        host.afterwards(lambda: _schedule(caller, dnis, policy, host))
    else:
        dialthrough.arrive(call, arrival, policy, host)


def _schedule(caller: str | None, dnis: str, policy: AppPolicy, host: Host) -> None:
    """Have the caller rung back, if they may be. :raises StoreUnavailable: Redis is down."""
    target = whom_to_call(caller, policy)
    if isinstance(target, str):
        log.info("callback_refused", extra={"reason": target})
        return
    number, card = target
    due_at = node_clock.now() + policy.rules.callback_delay
    # One phone has one callback, in whichever form networks give its number. It is rung by the form that it has now.
    data = [card.id, dnis] if number.subscriber == number.e164 else [card.id, dnis, number.e164]
    scheduled = host.schedule(number.subscriber, data, due_at, policy.settings.callback_frequency)
    if scheduled:
        log.info("callback_scheduled", extra={"card": card.id})
    else:
        log.info("callback_refused", extra={"card": card.id, "reason": scheduled.refused})


def due(timed: TimedCall, policy: AppPolicy) -> RingBack | str:
    """A callback is due: check again whether it may be placed. :raises StoreUnavailable: Redis is down."""
    target = whom_to_call("+" + (timed.data[2] if len(timed.data) > 2 else timed.number), policy)
    if isinstance(target, str):
        return target
    number, card = target
    account = policy.cards.account(card.account_id)
    if account is None:
        return "the card's account is not known"
    return new_call(number, card, account, policy, "".join(timed.data[1:2]))


def retry_in(attempt: Attempt, timed: TimedCall, policy: AppPolicy) -> float | None:
    """Return the seconds until the number is rung again; None if it was reached, or was rung often enough."""
    record, settings = attempt.record, policy.settings
    if attempt.answered_at is not None or record is None or timed.attempt > settings.callback_retries:
        return None
    unreached = record.end_reason in ("agent_no_answer", "agent_busy", LOST) or record.end_code in causes.UNREACHABLE
    return settings.callback_retry_after if unreached else None


def refuse(call: Call, answer_after: float) -> bool:
    """Refuse the incoming call with 486 at once, before anything is looked up: neither the answer nor its delay tells
    whether the caller is enrolled.

    With ``answer_after`` the caller hears ringing for that many seconds. Return False if they are still there, to be
    answered.
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
    """Return the number to ring and its card, or why it isn't rung.

    A DID of this installation is never rung, nor a denied class, a number that isn't enrolled or one without a dial
    string.

    :raises StoreUnavailable: Redis is down. The callback must not be forgotten for that.
    """
    settings, rules, cards = policy.settings, policy.rules, policy.cards
    if caller is None:
        return "the number is withheld"
    number = settings.plan.find(caller)
    if number is None:
        return "the number can't be read"
    if number.is_extension or number.is_emergency or is_own(number, rules.own_numbers):
        return "a number of this installation"
    card = cards.by_number(number.e164)
    if card is None or not card.active:
        return "not enrolled"
    account = cards.account(card.account_id)
    if account is None:
        return "the card's account is not known"
    levels = account.call_restriction, account.users.get(card.user_id or "", {})
    refused = denial(number, settings, rules, *levels)
    return (number, card) if refused is None else refused.note


@dataclass(frozen=True, slots=True)
class RingBack:
    """One try at ringing a caller back."""

    attempt: Attempt
    number: Number
    card: Card
    account: Account

    def charges(self, policy: AppPolicy) -> list[Charge]:
        """The first leg's charge: as if the card had called its own number. :raises StoreUnavailable: Redis is down."""
        account = self.account
        card_level = Level(f"card:{self.card.id}", policy.cards.card_limits(account.id))
        levels = [policy.rules.system, account_level(account), card_level]
        charge = Charge(self.attempt.call_ref, levels, self.number, aleg=True)
        # Anyone can forge a missed call, and must not use up what the card may call.
        charge.provisional = True
        return [charge]

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        """How the number is rung back."""
        settings, name = policy.settings, policy.caller_of(self.account, self.card.user_id).name
        variables = {
            **aleg_variables(settings, self.attempt, self.card.user_id or ""),
            "hangup_after_bridge": "false",
            **caller_id_variables(self.attempt.dial_number or "", name),
            "ignore_early_media": "true",
        }
        return Aleg(variables, settings.endpoints.of(self.number, as_asked=False), application)

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """The number has answered: go on as dialthrough does, from asking for a number."""
        card = self.card
        session = Session.of_answered(call, self.attempt, policy, host, self.account, card)
        session.caller = self.attempt.extension
        session.unconfirmed = session.settings.callback_confirm

        def talk() -> None:
            session.answer()
            call.wait_for_hangup(session.rules.prompt_delay)
            # A mailbox answers, too, and its greeting may have tones in it: what comes before a prompt is not for it.
            call.drop_keys(QUIET, GREETING)
            if session.unconfirmed and not is_confirmed(call, session.collect, "confirm_callback"):
                raise SessionRefused("goodbye", note="the key that confirms was not pressed")
            session.unconfirmed = False
            dialthrough.take(session, card)
            dialthrough.dial_on(session, None)

        session.run(talk)
        if session.dialled:
            # Only now is it sure that the person asked for it. Anyone can forge a missed call.
            with suppress(StoreUnavailable):
                host.used(self.number.subscriber)


def new_call(number: Number, card: Card, account: Account, policy: AppPolicy, dnis: str = "") -> RingBack:
    """Make a try. Its record's ``extension`` is the number called back. ``dnis``: the number that they rang.

    :raises StoreUnavailable: Redis is down.
    """
    attempt = Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        card_id=card.id,
        user_id=card.user_id,
        extension=number.plus,
        **parties.first(number),
        number=None,
        dial_number=policy.caller_of(account, card.user_id).number,
        call_dir="external",
        language=policy.language(dnis, account, card),
        order={"card": card.id},
    )
    return RingBack(attempt, number, card, account)


def restore(attempt: Attempt, _call: Call, policy: AppPolicy) -> RingBack | None:
    """A try of another process; None if what it needs is gone. :raises StoreUnavailable: Redis is down."""
    account = policy.cards.account(attempt.account_id or "")
    if attempt.order is None or account is None:
        return None
    card = policy.cards.get(account.id, str(attempt.order.get("card")))
    if card is None or not card.active:
        return None
    number = policy.settings.plan.find(attempt.extension)
    return None if number is None else RingBack(attempt, number, card, account)


def extensions(config: Mapping[str, Any]) -> Iterator[Extension]:
    number = (config.get("cccp") or {}).get("cccp_cb_number")
    if number:
        yield Extension([APPLICATION.path], [number], "cccp.cccp_cb_number")


APPLICATION = Application(
    ref=REF,
    path="callback",
    title="A missed call is returned, then goes on as a calling card.",
    arrive=arrive,
    restore=restore,
    timed=Timed(due=due, store="callbacks", retry_in=retry_in),
    refuses=True,
    extensions=extensions,
)

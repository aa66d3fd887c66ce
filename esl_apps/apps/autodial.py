"""Autodial: one HTTP request connects two numbers, or a number and a conference, after an announcement."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from esl_apps.apps.application import Application
from esl_apps.apps.context import AppPolicy, Host
from esl_apps.apps.legs import aleg_variables
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.session import Session, account_level, shown_number
from esl_apps.core import dialstring, node_clock, numbers, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.terms import AGENT_ANSWERED

REF = "autodial"
CONFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A conference's name."""


@dataclass(frozen=True, slots=True)
class AutodialOrder:
    """A request whose numbers are read and checked. ``delay``: seconds before A is rung."""

    a: Number
    b: Number | None
    """None if B is a conference."""
    conference: str | None
    delay: float
    retain_cid: bool
    """Whether B is shown A's number."""
    media_id: str | None
    """The announcement that A hears first: a prompt by name, or a URL that the configuration lists."""


class _KeptOrder(msgspec.Struct):
    """An order as it is kept for another process."""

    a: str
    b: str | None
    conference: str | None
    retain_cid: bool
    media_id: str | None


@dataclass(frozen=True, slots=True)
class AutodialCall:
    """A call from an order to its end."""

    attempt: Attempt
    order: AutodialOrder
    account: Account

    def charges(self, policy: AppPolicy) -> list[Charge]:
        """A's charge. An extension costs nothing, unless it joins a conference: then this is the only leg."""
        order = self.order
        if order.a.is_emergency or (order.a.is_extension and order.b is not None):
            return []
        levels = [policy.rules.system, account_level(self.account)]
        return [Charge(self.attempt.call_ref, levels, order.a, aleg=True)]

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        """How A is rung: it is shown the account's number."""
        settings, account = policy.settings, self.account
        shown = account.caller_id or policy.rules.default_caller_id or "anonymous"
        variables = {
            **aleg_variables(settings, self.attempt, ""),
            "origination_caller_id_number": shown,
            "origination_caller_id_name": dialstring.encode(account.caller_id_name or shown),
            "ignore_early_media": "true",
        }
        return Aleg(variables, settings.endpoints.of(self.order.a, as_asked=False), application)

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """A has answered: the announcement, then B."""
        attempt, order, account = self.attempt, self.order, self.account
        session = Session.of_answered(call, attempt, policy, host, account)
        session.caller = order.a.plus

        def talk() -> None:
            attempt.enter(AGENT_ANSWERED, call.answered_at or call.created_at)
            if order.media_id is not None:
                call.play(order.media_id)
            if order.b is None:
                attempt.enter(terms.BRIDGED, node_clock.now())
                # Each account has its own conferences: two may both have a ``weekly``. No name contains a ~.
                call.conference(f"{account.id}~{order.conference}", session.talk_left)
                return
            session.check(order.b, account.call_restriction)
            shown, _ = shown_number(session, order.a.plus if order.retain_cid else None)
            session.dial(order.b, shown)

        session.run(talk)


def new_call(order: AutodialOrder, account: Account) -> AutodialCall:
    b = order.b.dialled if order.b else None
    attempt = Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=order.a.dialled,
        number=b or f"conference:{order.conference}",
        dial_number=None,
        call_dir=numbers.direction(order.a, order.b),
        order=msgspec.to_builtins(_KeptOrder(order.a.dialled, b, order.conference, order.retain_cid, order.media_id)),
    )
    return AutodialCall(attempt, order, account)


def restore(attempt: Attempt, _call: Call, policy: AppPolicy) -> AutodialCall | None:
    """A call of another process; None if what it needs is gone. :raises StoreUnavailable: Redis is down."""
    account = policy.cards.account(attempt.account_id or "")
    if attempt.order is None or account is None:
        return None
    plan = policy.settings.plan
    try:
        kept = msgspec.convert(attempt.order, _KeptOrder)
        a, b = plan.read(kept.a), plan.read(kept.b) if kept.b else None
    except (msgspec.ValidationError, NotDialable):
        return None
    # Others can write to Redis: execute nothing but a conference or a prompt.
    if b is None and not CONFERENCE.fullmatch(kept.conference or ""):
        return None
    if kept.media_id is not None and not policy.is_media(kept.media_id):
        return None
    return AutodialCall(attempt, AutodialOrder(a, b, kept.conference, 0.0, kept.retain_cid, kept.media_id), account)


APPLICATION = Application(
    ref=REF,
    path="autodial",
    title="One HTTP request joins two numbers, or a number and a conference.",
    restore=restore,
)

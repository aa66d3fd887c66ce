"""Autodial: one HTTP request connects two numbers, or a number and a conference, after an announcement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from esl_apps.apps.application import Application, Timed
from esl_apps.apps.context import AppPolicy, Host
from esl_apps.apps.legs import LONGEST, aleg_variables, caller_id_variables
from esl_apps.apps.permission import Denial, denial
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.session import Session, SessionRefused, account_level
from esl_apps.apps.settings import Rules, Settings
from esl_apps.apps.shown import shown
from esl_apps.core import causes, node_clock, numbers, parties, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.display_name import PATTERN
from esl_apps.core.limits import Level
from esl_apps.core.number_text import NotDialable, presented
from esl_apps.core.numbers import Number
from esl_apps.core.reference import new_ref
from esl_apps.core.terms import AGENT_ANSWERED
from esl_apps.core.timed_call import TimedCall

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
    a_leg_name: str | None = None
    """The name that B is shown with A's number."""


class _KeptOrder(msgspec.Struct, omit_defaults=True):
    """An order as it is kept for another process."""

    a: str
    b: str | None
    conference: str | None
    retain_cid: bool
    media_id: str | None
    a_leg_name: Annotated[str, msgspec.Meta(pattern=PATTERN)] | None = None


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
        return [Charge(self.attempt.call_ref, self._levels(policy), order.a, aleg=True)]

    def later_charges(self, policy: AppPolicy) -> list[Charge]:
        """B's charge, which begins once A has answered. It is asked before A is rung: A's leg may cost money."""
        b = self.order.b
        if b is None or b.is_emergency:
            return []
        owner = not self.charges(policy)
        return [Charge(self.attempt.call_ref, self._levels(policy), b, owner=owner, whole=False)]

    def _levels(self, policy: AppPolicy) -> list[Level]:
        return [policy.rules.system, account_level(self.account)]

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        """How A is rung: it is shown the account's number."""
        settings, caller_id = policy.settings, policy.caller_of(self.account)
        variables = {
            **aleg_variables(settings, self.attempt, ""),
            **caller_id_variables(caller_id.number or "", caller_id.name),
            "ignore_early_media": "true",
        }
        return Aleg(variables, settings.endpoints.of(self.order.a, as_asked=False), application)

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """A has answered: the announcement, then B."""
        attempt, order = self.attempt, self.order
        session = Session.of_answered(call, attempt, policy, host, self.account)
        session.caller, session.caller_name = order.a.plus, order.a_leg_name or ""

        def talk() -> None:
            attempt.enter(AGENT_ANSWERED, call.answered_at or call.created_at)
            if order.media_id is not None:
                call.play(order.media_id)
            dialled = (order.b or order.a).dialled
            session.renew(dialled)
            # An emergency call goes on whatever has become of the account and of Redis.
            account = self.account if session.is_emergency(dialled) else _renewed(session)
            if order.b is None:
                if not attempt.is_emergency:
                    session.in_time()
                attempt.enter(terms.BRIDGED, node_clock.now())
                # Each account has its own conferences: two may both have a ``weekly``. No name contains a ~.
                longest = LONGEST if attempt.is_emergency else session.left
                call.conference(f"{account.id}~{order.conference}", longest)
                return
            number = session.settings.plan.read(order.b.dialled)
            refusal = leg_denial(number, session.settings, session.rules, account)
            if refusal is not None:
                session.refuse(number, refusal.note, refusal.prompt)
            caller_id = shown(session, order.a.plus if order.retain_cid else None)
            session.dial(number, caller_id.number, name=caller_id.name, last=True)

        session.run(talk)


def _renewed(session: Session) -> Account:
    """Return the account as it is now. :raises SessionRefused: it is gone."""
    assert session.account is not None
    account = session.policy.cards.account(session.account.id)
    if account is None:
        raise SessionRefused(
            "unauthorized_call", causes.BEARER_NOT_AUTHORIZED, note="the account is not known any more"
        )
    session.account = account
    session.note_owner()
    return account


def leg_denial(number: Number, settings: Settings, rules: Rules, account: Account) -> Denial | None:
    """Return why an account's autodial may not dial a number, as A or as B; None if it may."""
    refusal = denial(number, settings, rules, account.call_restriction)
    if number.is_emergency or (refusal is not None and refusal.code == "forbidden"):
        return refusal
    if rules.allowed_callee is not None and not rules.allowed_callee("+" + number.e164):
        return Denial("forbidden", "not allowed by allowed_callee_regex")
    return refusal


def new_call(order: AutodialOrder, account: Account, ref: str = "") -> AutodialCall:
    """Make a call. ``ref``: its reference, if it has one already."""
    attempt = Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=order.a.dialled,
        number=parties.shown(order.b) if order.b else f"conference:{order.conference}",
        **parties.first(order.a),
        **parties.second(order.b),
        dial_number=None,
        call_dir=numbers.direction(order.a, order.b),
        language=account.language,
        order=msgspec.to_builtins(
            _KeptOrder(
                order.a.dialled,
                order.b.dialled if order.b else None,
                order.conference,
                order.retain_cid,
                order.media_id,
                order.a_leg_name,
            )
        ),
        call_ref=ref or new_ref(),
    )
    return AutodialCall(attempt, order, account)


# With a delay ------------------------------------------------------------------------------------------


def kept(call: AutodialCall) -> list[str]:
    """Return the data of a timed call, known by its ``call_ref``: its account and its order."""
    return [call.account.id, msgspec.json.encode(call.attempt.order).decode()]


def due(timed: TimedCall, policy: AppPolicy) -> AutodialCall | str:
    """A call is due: check again whether it may be placed. :raises StoreUnavailable: Redis is down."""
    account_id, order = _read(timed.data)
    account = policy.cards.account(account_id)
    if account is None:
        return "the account is not known any more"
    read = _order_of(order, policy)
    if read is None:
        return "the order can't be read"
    for number in (read.a, read.b):
        refusal = None if number is None else leg_denial(number, policy.settings, policy.rules, account)
        if refusal is not None:
            return refusal.note
    return new_call(read, account, timed.number)


def unplaced(timed: TimedCall, policy: AppPolicy) -> Attempt:
    """Return the attempt of a call that isn't placed: its client has a ``call_ref``, so it gets a record."""
    account_id, order = _read(timed.data)
    account = policy.cards.account(account_id)
    kept_order = order or _KeptOrder("", None, None, False, None)
    b = policy.settings.plan.find(kept_order.b)
    number = parties.shown(b) if b is not None else presented(kept_order.b)
    return Attempt(
        app=REF,
        integrator=account.integrator if account is not None else None,
        account_id=account_id,
        extension=presented(kept_order.a),
        number=number or (f"conference:{kept_order.conference}" if order else None),
        dial_number=None,
        call_dir="external",
        call_ref=timed.number,
    )


def order_numbers(data: Sequence[str]) -> tuple[str, str]:
    """Return A and B of a call that waits, for people to see."""
    order = _read(data)[1]
    return ("", "") if order is None else (order.a, order.b or f"conference:{order.conference}")


def _read(data: Sequence[str]) -> tuple[str, _KeptOrder | None]:
    account_id, text = (*data, "", "")[:2]
    try:
        return account_id, msgspec.json.decode(text, type=_KeptOrder)
    except msgspec.DecodeError:
        return account_id, None


def _order_of(kept_order: _KeptOrder | None, policy: AppPolicy) -> AutodialOrder | None:
    """Return a kept order as it may be dialled. Others can write to Redis: execute nothing but a conference or a
    prompt."""
    if kept_order is None:
        return None
    plan = policy.settings.plan
    try:
        a, b = plan.read(kept_order.a), plan.read(kept_order.b) if kept_order.b else None
    except NotDialable:
        return None
    if b is None and not CONFERENCE.fullmatch(kept_order.conference or ""):
        return None
    if kept_order.media_id is not None and not policy.is_media(kept_order.media_id):
        return None
    return AutodialOrder(
        a, b, kept_order.conference, 0.0, kept_order.retain_cid, kept_order.media_id, kept_order.a_leg_name
    )


def restore(attempt: Attempt, _call: Call, policy: AppPolicy) -> AutodialCall | None:
    """A call of another process; None if what it needs is gone. :raises StoreUnavailable: Redis is down."""
    account = policy.cards.account(attempt.account_id or "")
    if attempt.order is None or account is None:
        return None
    try:
        order = _order_of(msgspec.convert(attempt.order, _KeptOrder), policy)
    except msgspec.ValidationError:
        return None
    return None if order is None else AutodialCall(attempt, order, account)


APPLICATION = Application(
    ref=REF,
    path="autodial",
    title="One HTTP request joins two numbers, or a number and a conference.",
    restore=restore,
    timed=Timed(due=due, store="autodials", unplaced=unplaced, exclusive=False),
)

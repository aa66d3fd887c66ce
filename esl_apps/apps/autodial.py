"""Autodial: one HTTP request joins two numbers, or a number and a conference, after an announcement."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from esl_apps.apps.application import Application
from esl_apps.apps.legs import aleg_variables
from esl_apps.apps.session import Rules, Session, account_level, shown_number
from esl_apps.apps.settings import Settings
from esl_apps.core import dialstring, numbers, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account, Usage
from esl_apps.core.charges import Charge
from esl_apps.core.numbers import Number
from esl_apps.core.terms import AGENT_ANSWERED

REF = "autodial"
APPLICATION = Application(
    ref=REF, path="autodial", title="One HTTP request joins two numbers, or a number and a conference.", placed=True
)
CONFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""The name of a room."""


@dataclass(frozen=True, slots=True)
class AutodialOrder:
    """A request whose numbers are read and checked. ``delay``: seconds before A is rung."""

    a: Number
    b: Number | None
    """None where B is a conference."""
    conference: str | None
    delay: float
    retain_cid: bool
    """B is shown A's number."""
    media_id: str | None
    """What A hears first: a prompt by name, or a URL that the configuration lists."""


def new_attempt(order: AutodialOrder, account: Account) -> Attempt:
    return Attempt(
        app=REF,
        integrator=account.integrator,
        account_id=account.id,
        extension=order.a.dialled,
        number=order.b.dialled if order.b else f"conference:{order.conference}",
        dial_number=None,
        call_dir=numbers.direction(order.a, order.b),
    )


def charges(attempt: Attempt, order: AutodialOrder, rules: Rules, account: Account) -> list[Charge]:
    """What is paid before A is rung. An extension costs nothing, but a conference has no other leg to pay for."""
    if order.a.is_emergency or (order.a.is_extension and order.b is not None):
        return []
    return [Charge(attempt.call_ref, [rules.system, account_level(account)], order.a, aleg=True)]


def aleg(settings: Settings, rules: Rules, attempt: Attempt, account: Account) -> dict[str, str]:
    """The variables of A's leg: it is shown the account's number."""
    shown = account.caller_id or rules.default_caller_id or "anonymous"
    return {
        **aleg_variables(settings, attempt, ""),
        "origination_caller_id_number": shown,
        "origination_caller_id_name": dialstring.encode(account.caller_id_name or shown),
        "ignore_early_media": "true",
    }


def run(
    call: Call,
    attempt: Attempt,
    order: AutodialOrder,
    account: Account,
    settings: Settings,
    rules: Rules,
    usage: Usage,
    *,
    begin: Callable[[Attempt], None],
) -> None:
    """A has answered: the announcement, then B."""
    session = Session(call, REF, settings, rules, begin, usage, attempt, account=account, caller=order.a.plus)
    session.longest = rules.max_session
    session.own_aleg()
    attempt.aleg_uuid = call.uuid

    def talk() -> None:
        attempt.enter(AGENT_ANSWERED, call.answered_at or call.created_at)
        if order.media_id is not None:
            call.play(order.media_id)
        if order.b is None:
            attempt.enter(terms.BRIDGED, time.time())
            # An account's conferences are its own: two accounts may both have a ``weekly``. No name has a ~.
            call.conference(f"{account.id}~{order.conference}", session.talk_left)
            return
        session.check(order.b, account.call_restriction)
        shown, _ = shown_number(session, order.a.plus if order.retain_cid else None)
        session.dial(order.b, shown)

    session.run(talk)

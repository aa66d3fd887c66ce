"""Who is rung back: what ``whom_to_call`` decides, and what it may not decide on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esl_apps.apps.callback import whom_to_call
from esl_apps.apps.settings import Rules
from esl_apps.core.cards import Account, Card, Limits
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.unavailable import StoreUnavailable
from tests.support.scripted import SETTINGS, ScriptedPolicy

NUMBER = "27825556666"
CARD = Card("c1", "acme", None, NUMBER, active=True)


class Away:
    """Cards whose Redis is away."""

    def by_pin(self, pin: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def by_number(self, e164: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def get(self, account_id: str, id: str) -> Card | None:
        raise StoreUnavailable("redis: away")

    def account(self, account_id: str) -> Account | None:
        raise StoreUnavailable("redis: away")

    def card_limits(self, account_id: str) -> Limits | None:
        return None

    def last_number(self, card_id: str) -> str | None:
        raise StoreUnavailable("redis: away")

    def dial(self, account_id: str, id: str, number: str) -> Card | None:
        raise StoreUnavailable("redis: away")


class Known(Away):
    """One card, of one account."""

    def by_number(self, e164: str) -> Card | None:
        return CARD if e164 == NUMBER else None

    def account(self, account_id: str) -> Account | None:
        return Account("acme")


def test_an_enrolled_number_is_rung_back() -> None:
    target = whom_to_call("0825556666", ScriptedPolicy(rules=Rules(), cards=Known()))
    assert not isinstance(target, str)
    number, card = target
    assert (number.e164, card) == (NUMBER, CARD)


@pytest.mark.parametrize(
    ("caller", "why"),
    [
        (None, "withheld"),
        ("anonymous", "can't be read"),
        ("1000", "of this installation"),
        ("112", "of this installation"),
        ("0115552000", "of this installation"),
        ("0845550000", "not enrolled"),
    ],
)
def test_who_is_not_rung_back(caller: str | None, why: str) -> None:
    rules = Rules(own_numbers=frozenset({"27115552000"}))
    target = whom_to_call(caller, ScriptedPolicy(rules=rules, cards=Known()))
    assert isinstance(target, str)
    assert why in target


def test_number_without_a_gateway_is_not_rung_back() -> None:
    settings = replace(SETTINGS, endpoints=Endpoints("user/{number}", ()))
    policy = ScriptedPolicy(settings, Rules(), cards=Known())
    assert whom_to_call("0825556666", policy) == "dial.external is empty"


def test_a_redis_that_is_away_is_no_reason_to_drop_a_callback() -> None:
    with pytest.raises(StoreUnavailable):
        whom_to_call("0825556666", ScriptedPolicy(rules=Rules(), cards=Away()))

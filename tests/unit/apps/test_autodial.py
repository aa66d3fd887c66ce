"""Autodial by script: what A hears and is shown, whom B is, and what another process can go on with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import autodial
from esl_apps.apps.autodial import AutodialCall, AutodialOrder
from esl_apps.apps.settings import Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account
from esl_apps.core.timed_call import TimedCall
from esl_apps.testing import PLAN, Purse, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import ACCOUNT, CardTable

POLICY = ScriptedPolicy(cards=CardTable())
ORDER = AutodialOrder(PLAN.read("0825556666"), PLAN.read("0820001234"), None, 0.0, retain_cid=False, media_id=None)
ROOM = replace(ORDER, b=None, conference="weekly")


def run(
    order: AutodialOrder = ORDER, *, account: Account = ACCOUNT, usage: Purse | None = None
) -> tuple[ScriptedCall, AutodialCall]:
    made = autodial.new_call(order, account)
    call = ScriptedCall([talks()], ended(a_by="recv_bye"))
    made.answered(call, ScriptedPolicy(cards=CardTable(known=account)), host([], usage))
    return call, made


def bridged(call: ScriptedCall) -> tuple[dict[str, str], list[Any]]:
    ((leg, endpoints, _timeout, _longest),) = call.did("bridge")
    return leg, endpoints


def test_autodial_announces_before_b_is_dialled() -> None:
    call, _made = run(replace(ORDER, media_id="announcement"))
    assert [entry[0] for entry in call.log if entry[0] in ("play", "bridge")] == ["play", "bridge"]
    assert call.did("play") == [("announcement",)]


def test_answered_autodial_without_announcement_dials_at_once() -> None:
    call, made = run()
    assert call.did("play") == []
    leg, endpoints = bridged(call)
    assert endpoints == [("sofia/gateway/pstn/27820001234", None)]
    assert leg["esl_call_ref"] == made.attempt.call_ref


@pytest.mark.parametrize(
    ("retain_cid", "account", "shown"),
    [
        (False, ACCOUNT, "+27115550000"),
        (True, ACCOUNT, "+27115550000"),
        (True, replace(ACCOUNT, caller_ids=("0825556666",)), "+27825556666"),
    ],
)
def test_b_is_shown_a_number_that_the_account_may_present(retain_cid: bool, account: Account, shown: str) -> None:
    call, made = run(replace(ORDER, retain_cid=retain_cid), account=account)
    assert bridged(call)[0]["origination_caller_id_number"] == shown
    assert made.attempt.dial_number == shown


def test_conference_is_joined_and_recorded_as_a_number() -> None:
    call, made = run(ROOM)
    assert [name for name, _longest in call.did("conference")] == ["acme~weekly"]
    assert made.attempt.record is not None
    assert (made.attempt.record.number, made.attempt.record.end_reason) == ("conference:weekly", "answered")


@pytest.mark.parametrize(
    ("a", "order", "paid"),
    [
        ("0825556666", ORDER, ["0825556666"]),
        ("1000", ORDER, []),
        ("1000", ROOM, ["1000"]),
        ("112", ROOM, []),
    ],
)
def test_first_leg_is_paid_for_unless_it_costs_nothing(a: str, order: AutodialOrder, paid: list[str]) -> None:
    made = autodial.new_call(replace(order, a=PLAN.read(a)), ACCOUNT)
    assert [charge.number.dialled for charge in made.charges(POLICY) if charge.number] == paid
    assert all(charge.began_as_aleg for charge in made.charges(POLICY))


@pytest.mark.parametrize(
    ("account", "rules", "shown", "name"),
    [
        (replace(ACCOUNT, caller_id_name="Acme (Pty)"), Rules(), "+27115550000", "Acme%20%28Pty%29"),
        (replace(ACCOUNT, caller_id=None), Rules(default_caller_id="27115559999"), "27115559999", "27115559999"),
        (replace(ACCOUNT, caller_id=None), Rules(), "anonymous", "anonymous"),
    ],
)
def test_is_shown_the_accounts_number_and_name(account: Account, rules: Rules, shown: str, name: str) -> None:
    aleg = autodial.new_call(ORDER, account).aleg(replace(POLICY, rules=rules), "socket(x)")
    assert aleg.variables["origination_caller_id_number"] == shown
    assert aleg.variables["origination_caller_id_name"] == name
    assert aleg.endpoints == ("sofia/gateway/pstn/27825556666", "sofia/gateway/spare/27825556666")
    assert aleg.application == "socket(x)"


@pytest.mark.parametrize(
    ("order", "number"),
    [
        (ORDER, "+27820001234"),
        (replace(ORDER, b=PLAN.read("1001")), "1001"),
        (replace(ORDER, b=PLAN.read("00112")), "00112"),
        (ROOM, "conference:weekly"),
    ],
)
def test_number_is_the_same_whether_or_not_a_answers(order: AutodialOrder, number: str) -> None:
    made = autodial.new_call(order, ACCOUNT)
    kept = TimedCall("id", "ref", tuple(autodial.kept(made)), 1, "claim")
    assert (made.attempt.number, autodial.unplaced(kept, POLICY).number) == (number, number)


# In another process -----------------------------------------------------------------------------------


def restored(order: Any, policy: ScriptedPolicy = POLICY) -> AutodialCall | None:
    attempt = Attempt(app="autodial", call_dir="external", account_id="acme", order=order)
    return autodial.restore(attempt, ScriptedCall(), policy)


@pytest.mark.parametrize("order", [ORDER, ROOM, replace(ORDER, media_id="announcement", retain_cid=True)])
def test_order_is_restored_as_it_was(order: AutodialOrder) -> None:
    again = restored(autodial.new_call(order, ACCOUNT).attempt.order)
    assert again is not None
    assert again.order == order


@pytest.mark.parametrize(
    "changes",
    [
        {"a": "not a number"},
        {"a": None},
        {"b": "not a number"},
        {"b": None},
        {"b": None, "conference": "a b"},
        {"b": None, "conference": "x@default+flags{deaf}"},
        {"media_id": "/etc/passwd"},
        {"retain_cid": "yes"},
    ],
)
def test_order_that_is_not_one_is_not_restored(changes: dict[str, Any]) -> None:
    kept = autodial.new_call(ORDER, ACCOUNT).attempt.order
    assert kept is not None
    assert restored({**kept, **changes}) is None


def test_order_whose_account_is_gone_is_not_restored() -> None:
    kept = autodial.new_call(ORDER, ACCOUNT).attempt.order
    assert restored(kept, replace(POLICY, cards=CardTable(known=None))) is None
    assert restored(None) is None

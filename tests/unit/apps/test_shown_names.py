"""Whose name and number the phones of each application show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from msgspec import structs

from esl_apps.apps import autodial, callback, dialthrough, disa, inbound
from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Entrance, Queue, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account, CallerId
from esl_apps.testing import PLAN, ScriptedCall, ScriptedPolicy, Step, ended, host, talks
from tests.support.card_table import ACCOUNT, CARD, PIN, CardTable

CALLER, CALLEE = "0825556666", "0820001234"
NAMED = replace(ACCOUNT, caller_id_name="Acme", caller_ids=(CALLER,))
FROM = {"sip_from_display": "Zo\u00eb\r\nX: 1"}
HERS = "Zo\u00eb X: 1"


def called(keyed: Sequence[str] = (), *, steps: Sequence[Step] = (), **variables: str) -> ScriptedCall:
    return ScriptedCall([*steps, talks()], ended(a_by="recv_bye"), keyed=list(keyed), variables={**FROM, **variables})


def shown(call: ScriptedCall) -> tuple[str, str]:
    leg = call.did("bridge")[0][0]
    return leg["origination_caller_id_number"], unquote(leg["origination_caller_id_name"])


def dialled_through(account: Account = NAMED, *, retain_cid: bool = False, **rules: Any) -> tuple[str, str]:
    call = called([PIN, CALLEE])
    cards = CardTable(pins={PIN: structs.replace(CARD, retain_cid=retain_cid)}, known=account)
    policy = ScriptedPolicy(rules=Rules(**rules), cards=cards, number=CALLER)
    dialthrough.arrive(call, Arrival(("dialthrough",)), policy, host([]))
    return shown(call)


@pytest.mark.parametrize(("own", "expected"), [(False, (CALLER, HERS)), (True, ("+27115550000", "Acme"))])
def test_disa_shows_the_account_or_the_caller(own: bool, expected: tuple[str, str]) -> None:
    entrance = Entrance("front", NAMED, None, 10, 3, 3.0, 15, "tone", 1.0, own, True, 3600.0)
    call = called([CALLEE])
    policy = ScriptedPolicy(number=CALLER, entrances={("acme", "front"): entrance})
    disa.arrive(call, Arrival(("disa", "acme", "front")), policy, host([]))
    assert shown(call) == expected


def test_dialthrough_shows_the_accounts_name() -> None:
    assert dialled_through() == ("+27115550000", "Acme")
    assert dialled_through(ACCOUNT) == ("+27115550000", "+27115550000")


def test_dialthrough_with_retain_cid_shows_the_callers_name() -> None:
    assert dialled_through(retain_cid=True) == (CALLER, HERS)


def test_number_that_may_not_be_shown_takes_its_name_along() -> None:
    foreign = replace(NAMED, caller_ids=())
    assert dialled_through(foreign, retain_cid=True) == ("+27115550000", "Acme")
    assert dialled_through(foreign, retain_cid=True, ensure_valid_caller_id=False) == (CALLER, HERS)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (CallerId("+27115551111", "Zo\u00eb"), ("+27115551111", "Zo\u00eb")),
        (CallerId(None, "Zo\u00eb"), ("+27115550000", "Zo\u00eb")),
        (CallerId("+27115551111"), ("+27115551111", "Acme")),
    ],
)
def test_cards_user_may_have_a_caller_id_of_their_own(theirs: CallerId, expected: tuple[str, str]) -> None:
    assert dialled_through(replace(NAMED, user_caller_ids={"u1": theirs})) == expected
    assert dialled_through(replace(NAMED, user_caller_ids={"u2": theirs})) == ("+27115550000", "Acme")


def test_callback_shows_the_users_caller_id() -> None:
    account = replace(NAMED, user_caller_ids={"u1": CallerId("+27115551111", "Zo\u00eb")})
    policy = ScriptedPolicy()
    made = callback.new_call(PLAN.read(CALLER), CARD, account, policy)
    variables = made.aleg(policy, "socket(x)").variables
    assert made.attempt.dial_number == variables["origination_caller_id_number"] == "+27115551111"
    assert variables["origination_caller_id_name"] == "Zo%C3%AB"


@pytest.mark.parametrize(
    ("retain_cid", "name", "expected"),
    [
        (True, HERS, ("+27825556666", HERS)),
        (True, None, ("+27825556666", "+27825556666")),
        (False, HERS, ("+27115550000", "Acme")),
    ],
)
def test_autodial_shows_a_leg_name_with_retain_cid(
    retain_cid: bool, name: str | None, expected: tuple[str, str]
) -> None:
    order = AutodialOrder(PLAN.read(CALLER), PLAN.read(CALLEE), None, 0.0, retain_cid, None, name)
    policy = ScriptedPolicy(cards=CardTable(known=NAMED))
    made = autodial.new_call(order, NAMED)
    call = called()
    made.answered(call, policy, host([]))
    assert shown(call) == expected
    again = autodial.restore(made.attempt, ScriptedCall(), policy)
    assert again is not None
    assert again.order == order


@pytest.mark.parametrize(
    ("number", "display", "expected"),
    [
        (CALLER, FROM["sip_from_display"], (CALLER, HERS)),
        (CALLER, "", (CALLER, CALLER)),
        (None, FROM["sip_from_display"], ("anonymous", "anonymous")),
    ],
)
def test_agents_see_the_callers_name(number: str | None, display: str, expected: tuple[str, str]) -> None:
    queue = Queue(PLAN.read("27115550000"), "acme", (PLAN.read("1000"),), 20, 3600, record=False)
    call = called(sip_from_display=display)
    call.headers["Caller-Destination-Number"] = "27115550000"
    begun: list[Attempt] = []
    policy = ScriptedPolicy(queues={"27115550000": queue}, number=number)
    inbound.arrive(call, Arrival(("inbound",)), policy, host(begun, announce=lambda *_: None))
    assert shown(call) == expected

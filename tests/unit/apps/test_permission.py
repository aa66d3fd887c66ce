"""Whether a number may be dialled: it is never one of this installation's own, however it is written."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from esl_apps.apps import autodial, callback, disa
from esl_apps.apps.autodial import leg_denial
from esl_apps.apps.context import Arrival
from esl_apps.apps.permission import denial, is_own
from esl_apps.apps.settings import Entrance, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.faults import Refused
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.testing import PLAN, SETTINGS, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.card_table import ACCOUNT, CardTable

OWN = frozenset({"27115550002", "5000"})
RULES = Rules(own_numbers=OWN)
WRITINGS = ["0115550002", "27115550002", "+27115550002", "0027115550002", "+270115550002", "5000"]


@dataclass(frozen=True)
class Rule:
    action: str


@pytest.mark.parametrize("text", WRITINGS)
def test_denial_of_an_own_number_in_any_writing(text: str) -> None:
    number = PLAN.read(text)
    assert is_own(number, OWN) or number.is_extension
    refused = denial(number, SETTINGS, RULES)
    assert refused is not None
    assert refused.note == "a number of this installation"


@pytest.mark.parametrize("text", ["+15141115555", "15141115555", "5141115555", "01115141115555"])
def test_denial_of_an_own_number_in_north_america(text: str) -> None:
    assert is_own(NumberPlan("US", r"^\d{3,4}$").read(text), {"15141115555"})


@pytest.mark.parametrize("classifiers", [{}, {"national": r"^\+27"}])
def test_denial_of_an_own_number_with_digits_after_it(classifiers: dict[str, str]) -> None:
    """An exchange that ignores them would ring it, if unknown numbers are allowed."""
    number = NumberPlan("ZA", r"^\d{3,4}$", classifiers).read("271155500021234")
    refused = denial(number, SETTINGS, RULES, {"unknown": Rule("allow")})
    assert refused is not None
    assert refused.note == "a number of this installation"
    assert not is_own(PLAN.read("27115550003"), OWN)


def test_extension_that_begins_with_an_own_number_is_not_own() -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", {"extension": r"^\+27115550002\d\d$"})
    assert not is_own(plan.read("2711555000212"), OWN)


def test_denial_names_no_reason_for_a_number_that_may_be_dialled() -> None:
    assert denial(PLAN.read("0820001234"), SETTINGS, RULES) is None


# In each application --------------------------------------------------------------------------------------


def by_disa(keyed: str, dnis: str = "", rules: Rules = RULES) -> tuple[ScriptedCall, Attempt]:
    entrance = Entrance("front", ACCOUNT, None, 10, 3, 2.0, 15, disa.DIALTONE, 10.0, True, True, 3600.0)
    policy = ScriptedPolicy(rules=rules, entrances={("acme", "front"): entrance}, number="0825556666")
    call = ScriptedCall([talks()], ended(a_by="recv_bye"), keyed=[keyed])
    call.headers["Caller-Destination-Number"] = dnis
    begun: list[Attempt] = []
    disa.arrive(call, Arrival(("disa", "acme", "front")), policy, host(begun))
    return call, begun[0]


@pytest.mark.parametrize("text", WRITINGS)
def test_disa_dials_no_own_number(text: str) -> None:
    call, attempt = by_disa(text)
    assert call.did("bridge") == []
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 57)


@pytest.mark.parametrize("dnis", ["27115550009", "0115550009"])
def test_disa_does_not_dial_the_number_that_was_dialled(dnis: str) -> None:
    """The dialplan of an operator may send a number here that the configuration doesn't have."""
    call, _attempt = by_disa("0115550009", dnis)
    assert call.did("bridge") == []


def test_session_dials_no_form_of_the_number_that_was_dialled() -> None:
    """+54 9 … and +54 … are one subscriber in Argentina."""
    call, _attempt = by_disa("005491123456789", "+541123456789")
    assert call.did("bridge") == []
    call, _attempt = by_disa("005491123456789", "+541123456780")
    assert len(call.did("bridge")) == 1


@pytest.mark.parametrize("text", WRITINGS)
def test_autodial_rings_no_own_number_as_a_or_b(text: str) -> None:
    refused = leg_denial(PLAN.read(text), SETTINGS, RULES, ACCOUNT)
    assert refused is not None
    assert refused.code == "forbidden"


def test_autodial_refuses_b_that_became_an_own_number() -> None:
    order = autodial.AutodialOrder(PLAN.read("0825556666"), PLAN.read("0115550002"), None, 0.0, False, None)
    call = ScriptedCall([talks()], ended(a_by="recv_bye"))
    autodial.new_call(order, ACCOUNT).answered(call, ScriptedPolicy(rules=RULES, cards=CardTable()), host([]))
    assert call.did("bridge") == []


@pytest.mark.parametrize("text", WRITINGS[:4])
def test_callback_rings_no_own_number(text: str) -> None:
    target = callback.whom_to_call(text, ScriptedPolicy(rules=RULES, cards=CardTable()))
    assert target == "a number of this installation"


@pytest.mark.parametrize("field", ["agent", "callee"])
@pytest.mark.parametrize("text", ["0115550002", "27115550002", "0027115550002"])
def test_click_dials_no_own_number(field: str, text: str) -> None:
    def own(number: Number) -> bool:
        return is_own(number, OWN)

    client = IntegratorRules("acme", PLAN, is_own=own, patterns={"agent": r"\d+", "callee": r"\d+"})
    fields = {"agent": "1000", "callee": "0820001234", "outbound_id": "0115550000", field: text}
    with pytest.raises(Refused) as refused:
        client.read(fields)
    assert [(fault.field, fault.code) for fault in refused.value.faults] == [(field, "restricted")]

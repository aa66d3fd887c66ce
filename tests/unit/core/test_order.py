"""An integrator's request, field by field: what is accepted, and how faults are listed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esl_apps.apps.click2dial import new_call
from esl_apps.apps.legs import Bleg, bleg_variables
from esl_apps.core import dialstring
from esl_apps.core.faults import Refused
from esl_apps.core.order import IntegratorRules, Order
from esl_apps.sandbox.wire.strings import brackets, separate
from esl_apps.testing import PLAN, ScriptedPolicy
from tests.support.dial_strings import ATTACKS, SETTINGS

GOOD: dict[str, object] = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}


@dataclass(frozen=True)
class Rule:
    action: str


def client(**more: Any) -> IntegratorRules:
    return IntegratorRules("acme", PLAN, **more)


def read(fields: Mapping[str, object], one: IntegratorRules | None = None, **more: object) -> Order:
    return (one or client()).read({**GOOD, **fields, **more})


def faults(fields: Mapping[str, object], one: IntegratorRules | None = None) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        (one or client()).read(fields)
    return [(fault.field, fault.code) for fault in caught.value.faults]


def faults_of(one: IntegratorRules | None = None, /, **more: object) -> list[tuple[str, str]]:
    return faults({**GOOD, **more}, one)


def faults_with(field: str, value: object) -> list[tuple[str, str]]:
    return faults({**GOOD, field: value}, None)


# agent and callee ----------------------------------------------------------------------------------------

NUMBERS = ["100", "1000", "0820001234", "27820001234", "0027820001234", "00442079460000", "0049301234567890"]
NO_NUMBERS = [
    "10",
    "10000",
    "082000123",
    "08200012345",
    "2782000123",
    "278200012345",
    "002782000123",
    "00278200012345678",
    "1820001234",
    "0820001234\n",
    "\n0820001234",
    "1000\r\n",
    "user",
    "*0",
    "1000#",
    "1000;x=y",
    "1000@127.0.0.1",
    "1000\0",
    "tvc_spring",
    "-100",
    "1e3",
    "0x10",
    *ATTACKS,
]


@pytest.mark.parametrize("field", ["agent", "callee"])
@pytest.mark.parametrize("text", NUMBERS)
def test_accepted_numbers(field: str, text: str) -> None:
    assert getattr(read({field: text}), field).dialled == text


@pytest.mark.parametrize("field", ["agent", "callee"])
@pytest.mark.parametrize("text", NO_NUMBERS)
def test_refused_numbers(field: str, text: str) -> None:
    assert [one for one, _code in faults_with(field, text)] == [field]


@pytest.mark.parametrize("field", ["agent", "callee", "outbound_id"])
@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "required"), ("", "required"), (1000, "type"), (["1000"], "type"), ({"a": 1}, "type"), (True, "type")],
)
def test_field_is_a_string_that_is_there(field: str, value: object, code: str) -> None:
    assert faults_with(field, value) == [(field, code)]


def test_every_fault_is_told_at_once() -> None:
    told = faults({"agent": "x", "contact_ref": "a b", "colour": "red"})
    assert sorted(told) == [
        ("agent", "pattern"),
        ("callee", "required"),
        ("colour", "unknown"),
        ("contact_ref", "pattern"),
        ("outbound_id", "required"),
    ]


def test_fault_says_what_was_expected() -> None:
    with pytest.raises(Refused) as caught:
        client().read({**GOOD, "callee": "12345"})
    assert caught.value.faults[0].message == (
        "read as +2712345; expected 10 digits from 0; 11 digits from 27; 13 to 16 digits from 00; or 3 or 4 digits"
    )


@pytest.mark.parametrize(
    "text", ["0900123456", "27900123456", "0027900123456", "0088161234567", "00447012345678", "0000000000"]
)
@pytest.mark.parametrize("field", ["agent", "callee"])
def test_fraud_classes_are_refused_on_both_legs(field: str, text: str) -> None:
    assert faults_with(field, text) == [(field, "restricted")]


def test_class_can_be_allowed_or_denied_for_an_integrator() -> None:
    assert read({"callee": "0900123456"}, client(call_restriction={"premium": Rule("allow")}))
    assert faults_of(client(call_restriction={"mobile": Rule("deny")})) == [("callee", "restricted")]
    assert faults_of(client(call_restriction={"extension": Rule("deny")})) == [("agent", "restricted")]


def test_emergency_number_is_refused_and_never_an_extension() -> None:
    assert faults_of(callee="112") == [("callee", "restricted")]
    assert faults_of(agent="112") == [("agent", "restricted")]


def test_emergency_dial_string_allows_a_callee_but_no_agent() -> None:
    one = client(emergency=True)
    assert read({"callee": "112"}, one).callee.is_emergency
    assert faults_of(one, agent="112") == [("agent", "restricted")]


def test_client_without_a_gateway_refuses_numbers_outside() -> None:
    inside = client(outside=False, emergency=True)
    assert faults_of(inside, agent="0115550000") == [("agent", "restricted"), ("callee", "restricted")]
    assert read({"callee": "1001"}, inside).callee.is_extension
    assert read({"callee": "112"}, inside).callee.is_emergency


# outbound_id ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0115550000", "27115550000"])
def test_accepted_outbound_ids(text: str) -> None:
    assert read({"outbound_id": text}).outbound.dialled == text


@pytest.mark.parametrize(
    "text",
    [
        "1000",
        "011555000",
        "01155500000",
        "anonymous",
        "tvc_",
        "tvc_a b",
        "tvc_../x",
        "TVC_spring",
        "0115550000\n",
        "random",
        *ATTACKS,
    ],
)
def test_refused_outbound_ids(text: str) -> None:
    assert [field for field, _code in faults_of(client(campaigns={"spring": "27115550001"}), outbound_id=text)] == [
        "outbound_id"
    ]


@pytest.mark.parametrize("text", ["27115550000", "0115550000"])
def test_listed_caller_id_may_be_written_either_way(text: str) -> None:
    assert read({"outbound_id": text}, client(caller_ids=["+27115550000"])).outbound.e164 == "27115550000"


def test_number_that_is_not_the_integrators_is_refused() -> None:
    assert faults_of(client(caller_ids=["27115550009"])) == [("outbound_id", "not_yours")]


def test_campaigns_numbers_are_the_integrators_own() -> None:
    one = client(caller_ids=["27115550009"], campaigns={"spring": ["27115550001", "27115550002"]})
    assert read({"outbound_id": "27115550002"}, one).outbound.e164 == "27115550002"
    assert read({"outbound_id": "tvc_spring"}, one).outbound.e164 == "27115550001"


def test_campaigns_numbers_are_taken_in_turn() -> None:
    one = client(campaigns={"spring": ["27115550001", "27115550002"], "autumn": "27115550003"})
    shown = [read({"outbound_id": text}, one).outbound.e164[-1] for text in ["tvc_spring"] * 3 + ["tvc_autumn"] * 2]
    assert shown == ["1", "2", "1", "3", "3"]


def test_neither_a_dry_run_nor_a_refused_request_takes_a_turn() -> None:
    one = client(campaigns={"spring": ["27115550001", "27115550002"]})
    one.read({**GOOD, "outbound_id": "tvc_spring"}, peek=True)
    faults_of(one, outbound_id="tvc_spring", callee="x")
    faults_of(one, outbound_id="tvc_spring", contact_ref="a b")
    assert read({"outbound_id": "tvc_spring"}, one).outbound.e164 == "27115550001"


def test_turn_that_is_returned_is_the_next_orders() -> None:
    one = client(campaigns={"spring": ["27115550001", "27115550002", "27115550003"]})
    first, second, third = (read({"outbound_id": "tvc_spring"}, one) for _ in range(3))
    one.return_turn(second)
    one.return_turn(first)
    shown = [read({"outbound_id": "tvc_spring"}, one).outbound.e164 for _ in range(3)]
    assert shown == [second.outbound.e164, first.outbound.e164, "27115550001"]
    assert third.outbound.e164 == "27115550003"
    one.return_turn(read({"outbound_id": "27115550002"}, one))


def test_random_is_one_of_the_caller_ids() -> None:
    one = client(caller_ids=["27115550000", "0115550001"], campaigns={"x": "27115550002"}, random_caller_id=True)
    shown = {read({"outbound_id": "random"}, one).outbound.e164 for _ in range(100)}
    assert shown == {"27115550000", "27115550001"}


@pytest.mark.parametrize("more", [{}, {"caller_ids": ["27115550000"]}, {"random_caller_id": True}])
def test_random_without_the_integrators_leave_is_refused(more: dict[str, Any]) -> None:
    assert faults_of(client(**more), outbound_id="random") == [("outbound_id", "not_allowed")]


def test_unknown_campaign_is_refused() -> None:
    assert faults_of(outbound_id="tvc_winter") == [("outbound_id", "unknown_campaign")]


# contact_ref ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["contact_ref", "call_ref"])
def test_contact_ref_and_its_older_name(field: str) -> None:
    assert read({field: "Lead-7.a_b~c:d"}).contact_ref == "Lead-7.a_b~c:d"


def test_newer_name_wins() -> None:
    assert read({"contact_ref": "new", "call_ref": "old"}).contact_ref == "new"


@pytest.mark.parametrize("value", [None, ""])
def test_absent_contact_ref_is_the_calls_own_reference(value: object) -> None:
    order = read({"contact_ref": value})
    made = new_call(order, client(), SETTINGS).attempt
    assert made.contact_ref == made.call_ref


def test_long_contact_ref_is_cut_at_230_characters() -> None:
    assert read({"contact_ref": "a" * 231}).contact_ref == "a" * 230
    assert read({"contact_ref": "a" * 230}).contact_ref == "a" * 230


@pytest.mark.parametrize("value", ["a b", "a/b", "a\n", "a,b", "é", "a%0A", 7, ["a"], *ATTACKS[:4], "\0"])
def test_refused_contact_refs(value: object) -> None:
    assert faults_of(contact_ref=value) == [("contact_ref", "pattern")]


def test_older_name_is_named_where_it_is_wrong() -> None:
    assert faults_of(call_ref="a b") == [("call_ref", "pattern")]


# Own patterns -------------------------------------------------------------------------------------------


def test_own_patterns_replace_the_defaults_and_are_whole_matches() -> None:
    one = client(patterns={"callee": r"\+44\d{10}"})
    assert read({"callee": "+442079460000"}, one).callee.e164 == "442079460000"
    assert faults_of(one) == [("callee", "pattern")]
    assert faults_of(one, callee="+442079460000\n") == [("callee", "pattern")]


def test_fault_shows_an_own_pattern() -> None:
    with pytest.raises(Refused) as caught:
        client(patterns={"callee": r"\+44\d{10}"}).read(GOOD)
    assert r"\+44\d{10}" in caught.value.faults[0].message


@pytest.mark.parametrize("text", ATTACKS)
def test_no_pattern_lets_anything_but_a_number_be_dialled(text: str) -> None:
    one = client(patterns=dict.fromkeys(["agent", "callee", "outbound_id"], r"(?s).*"))
    assert {field for field, _code in faults(dict.fromkeys(["agent", "callee", "outbound_id"], text), one)} == {
        "agent",
        "callee",
        "outbound_id",
    }


# Injection -----------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(ATTACKS),
    st.sampled_from([*NUMBERS, "27115550000", "tvc_spring", "lead-7"]),
    st.builds("{}{}".format, st.sampled_from([*NUMBERS, "27115550000"]), st.sampled_from(ATTACKS)),
)
ANYTHING = client(campaigns={"spring": "27115550001"}, patterns={"contact_ref": r"(?s).*"})
APPLICATION = "socket(127.0.0.1:8084/click2dial async full)"
ENDPOINT = r"(user/[0-9]{3,4}@127\.0\.0\.1|sofia/gateway/pstn/[0-9]+)"


@given(agent=texts, callee=texts, outbound_id=texts, contact_ref=texts)
@example(agent="1000", callee="0820001234", outbound_id="27115550000", contact_ref="'a}sofia/gateway/gw/0900123456 '")
@example(agent="1000", callee="0820001234", outbound_id="27115550000", contact_ref="a!esl_callee=0900123456")
def test_no_field_of_a_request_leaves_its_place_in_a_dial_string(
    agent: str, callee: str, outbound_id: str, contact_ref: str
) -> None:
    fields = {"agent": agent, "callee": callee, "outbound_id": outbound_id, "contact_ref": contact_ref}
    try:
        order = ANYTHING.read(fields)
    except Refused:
        return
    click = new_call(order, ANYTHING, SETTINGS)
    attempt, variables = click.attempt, click.aleg(ScriptedPolicy(SETTINGS), "socket(x)").variables
    (endpoint,) = SETTINGS.endpoints.of(order.agent, as_asked=True)
    words = separate(dialstring.originate(variables, endpoint, APPLICATION), " ")
    assert len(words) == 3
    assert words[2] == f"&{APPLICATION}"
    found = brackets(words[1], "{", "}", ",")
    assert found is not None
    assert found[0].keys() == {name for name, value in variables.items() if value}
    assert re.fullmatch(ENDPOINT, found[1])

    leg = bleg_variables(SETTINGS, attempt, Bleg(attempt.dial_number or "", 60, 60, order.agent.dialled, "/r/x.wav"))
    (endpoint,) = SETTINGS.endpoints.of(order.callee, as_asked=True)
    found = brackets(dialstring.bridge(leg, [(endpoint, None)]), "{", "}", ",")
    assert found is not None
    assert found[0].keys() == {name for name, value in leg.items() if value}
    assert re.fullmatch(ENDPOINT, found[1])


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(["agent", "callee", "outbound_id", "contact_ref", "call_ref"]), st.text(max_size=50)),
        json_values,
        max_size=6,
    )
)
def test_any_json_object_is_an_order_or_is_refused_with_reasons(body: dict[str, object]) -> None:
    try:
        order, reasons = ANYTHING.read(body), []
    except Refused as refused:
        order, reasons = None, refused.faults
    assert bool(order) != bool(reasons)
    assert all(fault.code and fault.message and len(fault.field) <= 40 for fault in reasons)
    assert order is None or len(order.contact_ref) <= 230


def test_own_caller_id_in_another_form_stays_the_integrators() -> None:
    """Argentina's +54 9 … and +54 … are one subscriber. The call was refused once the agent had answered."""
    one = client(caller_ids=["+541123456789"], patterns={"outbound_id": "[0-9]{15}"})
    order = read({"outbound_id": "005491123456789"}, one)
    assert one.faults_now(order) == []
    assert [fault.field for fault in client(caller_ids=["27115550009"]).faults_now(order)] == ["outbound_id"]


@pytest.mark.parametrize(
    ("text", "agent"),
    [("1000", "1000"), ("082 000 1234", "0820001234"), ("+27820001234", "0820001234"), ("27820001234", "27820001234")],
)
def test_agent_in_any_writing_is_named_as_calls_name_them(text: str, agent: str) -> None:
    assert client().agent(text) == agent


@pytest.mark.parametrize("text", ["", "x", "10", "1" * 300, "1000;ext=1"])
def test_agent_that_cannot_be_read_stays_as_it_is(text: str) -> None:
    assert client().agent(text) == text

"""Originate and bridge strings: no value gets out of its place (hazards 13, 15 and 16).

Read back with the sandbox's tokeniser, which has FreeSWITCH's faults: a ``}`` ends the variables inside quotes too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esl_apps.core import dialstring
from esl_apps.core.dialstring import Endpoints, Raw
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.sandbox.wire.strings import brackets, separate
from tests.support.dial_strings import ATTACKS

PLAN = NumberPlan("ZA", r"^\d{3,4}$")
ENDPOINTS = Endpoints("user/{number}@127.0.0.1", ("sofia/gateway/pstn/{number}", "sofia/gateway/spare/{e164}"))
MOBILE = PLAN.read("0820001234")

names = st.from_regex(r"\A[A-Za-z0-9_.-]+\Z")
values = st.one_of(st.text(max_size=60), st.sampled_from(ATTACKS))


def parsed(text: str) -> tuple[dict[str, str], str]:
    found = brackets(text, "{", "}", ",")
    assert found is not None, text
    return found


def with_attacks(test: Callable[..., None]) -> Callable[..., None]:
    for attack in ATTACKS:
        test = example({"n": attack, "after": "1"})(test)
    return test


@with_attacks
@given(st.dictionaries(names, values, max_size=6))
def test_every_value_comes_back_and_none_leaves_the_braces(leg: dict[str, str]) -> None:
    variables, rest = parsed(dialstring.variables(leg) + "user/1000")
    assert rest == "user/1000"
    expected = {name: value for name, value in leg.items() if value}
    assert {name: dialstring.decode(value) for name, value in variables.items()} == expected


@given(st.dictionaries(names, values, min_size=1, max_size=6))
def test_string_is_of_a_closed_alphabet(leg: dict[str, str]) -> None:
    assert re.fullmatch(r"\{\^\^![A-Za-z0-9_.~:+@/*#%=!-]*\}", dialstring.variables(leg))


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a}", "a,b", "a!b", "é", "a\n", "${x}"])
def test_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="variable"):
        dialstring.variables({name: "1"})


def test_tone_goes_as_it_is() -> None:
    tone = "%(2000,4000,440,480)"
    variables, _rest = parsed(dialstring.variables({"transfer_ringback": Raw(tone), "a": "1"}) + "user/1000")
    assert variables == {"transfer_ringback": tone, "a": "1"}


def test_originate_is_three_words_the_last_one_whole() -> None:
    text = dialstring.originate({"a": "x y"}, "user/1000@127.0.0.1", "socket(127.0.0.1:8084/click2dial async full)")
    assert separate(text, " ") == [
        "originate",
        "{^^!a=x%20y}user/1000@127.0.0.1",
        "&socket(127.0.0.1:8084/click2dial async full)",
    ]


def test_several_endpoints_ring_at_once_each_with_its_user() -> None:
    text = dialstring.bridge({"a": "1"}, [("user/1000@h", "1000"), ("user/1001@h", "1001")])
    assert text == (
        "{^^!a=1!esl_user_id=1000!presence_data=/1000@}user/1000@h:_:"
        "{^^!a=1!esl_user_id=1001!presence_data=/1001@}user/1001@h"
    )


def test_gateway_has_variables_of_its_own() -> None:
    gateway = dialstring.Gateway("sofia/gateway/pstn/1", variables={"a": "2", "b": "3"})
    assert dialstring.bridge({"a": "1"}, [("user/1000@h", None), (gateway, None)]) == (
        "{^^!a=1}user/1000@h:_:{^^!a=2!b=3}sofia/gateway/pstn/1"
    )


@given(values)
def test_users_name_does_not_leave_its_brackets(user: str) -> None:
    text = dialstring.bridge({"a": "1"}, [("user/1000@h", user)])
    found, rest = parsed(text)
    assert rest == "user/1000@h"
    assert found.keys() <= {"a", "esl_user_id", "presence_data"}
    assert ":_:" not in text


def test_click2dial_dials_as_asked_and_the_others_dial_e164() -> None:
    assert ENDPOINTS.of(MOBILE, as_asked=True) == ("sofia/gateway/pstn/0820001234", "sofia/gateway/spare/27820001234")
    assert ENDPOINTS.of(MOBILE, as_asked=False) == ("sofia/gateway/pstn/27820001234", "sofia/gateway/spare/27820001234")


def test_every_placeholder() -> None:
    endpoints = Endpoints("user/{number}", ("a/{e164}", "a/{plus}", "a/{national}", "a/{dialled}"))
    assert endpoints.of(PLAN.read("0027820001234"), as_asked=False) == (
        "a/27820001234",
        "a/+27820001234",
        "a/0820001234",
        "a/0027820001234",
    )


def test_foreign_number_is_never_dialled_as_one_at_home() -> None:
    endpoints = Endpoints("user/{number}", ("a/{national}",))
    assert endpoints.of(PLAN.read("+442079460000"), as_asked=False) == ("a/00442079460000",)


@pytest.mark.parametrize("as_asked", [True, False])
def test_extension_goes_to_its_phone_and_to_no_gateway(as_asked: bool) -> None:
    assert ENDPOINTS.of(PLAN.read("1000"), as_asked=as_asked) == ("user/1000@127.0.0.1",)


def test_gateway_has_no_dictionary() -> None:
    """It would be 0.3 KB of a held call."""
    assert not any(hasattr(gateway, "__dict__") for gateway in ENDPOINTS.of(MOBILE, as_asked=True))


def test_emergency_number_uses_its_own_dial_string_only() -> None:
    number = PLAN.read("112")
    assert ENDPOINTS.of(number, as_asked=True) == ()
    endpoints = Endpoints("user/{number}", ("a/{number}",), "sofia/gateway/sos/{number}")
    assert endpoints.of(number, as_asked=True) == ("sofia/gateway/sos/112",)


def test_endpoints_without_a_gateway_reach_extensions_only() -> None:
    endpoints = Endpoints("user/{number}", ())
    assert endpoints.of(PLAN.read("0820001234"), as_asked=True) == ()
    assert [endpoints.reaches(PLAN.read(text)) for text in ("1000", "0820001234", "112")] == [True, False, False]
    assert ENDPOINTS.reaches(PLAN.read("0820001234"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_endpoint_with_more_than_a_number_in_it_is_refused(attack: str) -> None:
    # The number plan refuses such a text; this is the second barrier.
    number = Number(attack, attack, "mobile")
    with pytest.raises(ValueError, match="endpoint"):
        ENDPOINTS.of(number, as_asked=True)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"\A\+?[0-9]{1,32}\Z")))
def test_whatever_was_dialled_the_endpoint_is_one_of_digits(text: str) -> None:
    try:
        number = PLAN.read(text)
    except NotDialable:
        return
    for endpoint in ENDPOINTS.of(number, as_asked=True):
        assert re.fullmatch(r"(user/[0-9]+@127\.0\.0\.1|sofia/gateway/(pstn|spare)/\+?[0-9]+)", endpoint)


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("as_given", "0027820001234"),
        ("e164", "27820001234"),
        ("plus", "+27820001234"),
        ("national", "0820001234"),
    ],
)
def test_caller_id_format(how: str, shown: str) -> None:
    assert dialstring.caller_id(PLAN.read("0027820001234"), how) == shown


def test_caller_id_of_a_foreign_number_is_none_at_home() -> None:
    assert dialstring.caller_id(PLAN.read("+493012345678"), "national") == "00493012345678"

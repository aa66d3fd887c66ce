"""Numbers as people write them: many ways lead to one number, and nothing else leads to any."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.apps.click2dial import new_call
from esl_apps.core import written_number
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.faults import Refused
from esl_apps.core.number_text import NotDialable, plain
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.order import IntegratorRules, Order
from esl_apps.core.written_number import as_dtmf, split
from esl_apps.testing import PLAN, SETTINGS
from tests.support.dial_strings import ATTACKS

CLIENT = IntegratorRules("acme", PLAN)
GOOD = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}

WAYS = (
    "0820001234",
    "082 000 1234",
    "082-000-1234",
    "082.000.1234",
    "082/0001234",
    "(082) 000 1234",
    "(082)0001234",
    "(082) 000-1234",
    "0 82 000 1234",
    " 0820001234",
    "0820001234 ",
    "+27820001234",
    "+27 82 000 1234",
    "+27-82-000-1234",
    "+27.82.000.1234",
    "+27(82)0001234",
    "(+27) 82 000 1234",
    "+27 (0)82 000 1234",
    "+27 (0) 82 000 1234",
    "+27 082 000 1234",
    "27 82 000 1234",
    "27-82-000-1234",
    "27 (0)82 000 1234",
    "00 27 82 000 1234",
    "0027 82 000 1234",
    "0027 (0)82 000 1234",
    "tel:0820001234",
    "TEL:+27820001234",
    "tel:+27-82-000-1234",
    "tel:082-000-1234;phone-context=+27",
    "tel:82-000-1234;phone-context=+27",
    "\u202a+27 82 000 1234\u202c",
    "\ufeff082 000 1234",
    "082\u00a0000\u00a01234",
    "+27\u202f82\u202f000\u202f1234",
    "082\u2011000\u20111234",
    "082\u2013000\u20131234",
    "".join(chr(0xFEE0 + ord(character)) for character in "0820001234"),
    "".join(chr(0xFEE0 + ord(character)) for character in "+27820001234"),
    "".join(chr(0xFEE0 + ord(character)) for character in "(082)000-1234"),
    "".join(chr(0x660 + int(digit)) for digit in "0820001234"),
    "".join(chr(0x966 + int(digit)) for digit in "0820001234"),
)


def read(client: IntegratorRules = CLIENT, /, **fields: Any) -> Order:
    return client.read({**GOOD, **fields})


def refusal(client: IntegratorRules = CLIENT, /, **fields: Any) -> str:
    """Return the only fault, as a client sees it."""
    with pytest.raises(Refused) as caught:
        client.read({**GOOD, **fields})
    return str(caught.value)


def test_table_has_forty_ways() -> None:
    assert len(set(WAYS)) >= 40


USERS = {
    "{number}": "0820001234",
    "{dialled}": "0820001234",
    "{e164}": "27820001234",
    "{plus}": "+27820001234",
    "{national}": "0820001234",
}


@pytest.mark.parametrize("field", ["agent", "callee"])
def test_forty_ways_lead_to_one_user(field: str) -> None:
    endpoints = Endpoints("x", tuple(f"sofia/gateway/pstn/{template}" for template in USERS))
    expected = tuple(f"sofia/gateway/pstn/{user}" for user in USERS.values())
    for text in WAYS:
        number = getattr(read(CLIENT, **{field: text}), field)
        assert endpoints.of(number, as_asked=True) == expected, text


def test_forty_ways_lead_to_one_record() -> None:
    made = [new_call(read(callee=text), CLIENT, SETTINGS).attempt for text in WAYS]
    assert {(attempt.number, attempt.number_e164) for attempt in made} == {("0820001234", "+27820001234")}


@pytest.mark.parametrize("text", ["27820001234", "0027820001234"])
def test_form_of_the_v3_api_stays_as_it_was(text: str) -> None:
    assert (read(callee=text).callee.dialled, read(callee=text).callee.e164) == (text, "27820001234")


@pytest.mark.parametrize("text", ["+27 11 555 0000", "(011) 555-0000", "tel:+27115550000", "00 27 11 555 0000"])
def test_outbound_id_is_shown_as_e164(text: str) -> None:
    """The form that the API recommends, and that most trunks want."""
    assert read(outbound_id=text).outbound.dialled == "27115550000"
    assert read(IntegratorRules("acme", PLAN, caller_ids=["0115550000"]), outbound_id=text)


@pytest.mark.parametrize(
    ("text", "dialled"),
    [
        ("+44 20 7946 0000", "00442079460000"),
        ("+33 1 23 45 67 89", "0033123456789"),
        ("+1 (212) 555-0100", "0012125550100"),
        ("1 000", "1000"),
        ("tel:1000", "1000"),
        ("tel:1000;phone-context=example.com", "1000"),
    ],
)
def test_number_takes_the_first_form_that_matches(text: str, dialled: str) -> None:
    assert read(callee=text).callee.dialled == dialled


@pytest.mark.parametrize(
    ("pattern", "dialled"),
    [
        (r"0\d{9}", "0820001234"),
        (r"27\d{9}", "27820001234"),
        (r"0027\d{9}", "0027820001234"),
        (r"\+27\d{9}", "+27820001234"),
    ],
)
def test_number_is_matched_in_each_canonical_form(pattern: str, dialled: str) -> None:
    client = IntegratorRules("acme", PLAN, patterns={"callee": pattern})
    for text in WAYS:
        assert read(client, callee=text).callee.dialled == dialled


def test_foreign_number_outside_the_00_regions_keeps_its_plus() -> None:
    client = IntegratorRules("acme", NumberPlan("US", r"^\d{3,4}$"), patterns={"callee": r"\+?\d{3,16}"})
    assert client.read({**GOOD, "callee": "+44 20 7946 0000", "outbound_id": "27115550000"}).callee.dialled == (
        "+442079460000"
    )


def test_numbers_are_read_in_the_integrators_region() -> None:
    client = IntegratorRules("acme", NumberPlan("US", r"^\d{3,4}$"), patterns={"callee": r"1\d{10}"})
    for text in ("(212) 555-0100", "212.555.0100", "+1 212 555 0100", "1-212-555-0100"):
        assert client.read({**GOOD, "callee": text, "outbound_id": "27115550000"}).callee.dialled == "12125550100"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("082 000 12AB", "read as 08200012 and then a character that is in no number, U+0041"),
        ("082 000 12\u0410", "read as 08200012 and then a character that is in no number, U+0410"),
        ("Jane", "begins with a character that begins no number, U+004A"),
        ("0820001234\n", "read as 0820001234 and then a character that is in no number, U+000A"),
        ("-100", "read as 100 with something before or after it"),
        ("100-", "read as 100 with something before or after it"),
        ("011 555 0000/0001", "read as +271155500000001"),
        ("+298 123456", "read as +298123456"),
        ("1" * 65, "this is too long"),
        ("+", "begins with a character that begins no number, U+002B"),
        ("1000;x=y", "expected no parameters but"),
    ],
)
def test_refusal_says_how_the_number_was_read(text: str, message: str) -> None:
    said = refusal(callee=text)
    assert message in said
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize("text", ["+27 900 123456", "090 012 3456", "tel:+881-6-12345678", "+44 70 1234 5678"])
def test_fraud_class_is_refused_in_any_way_of_writing(text: str) -> None:
    assert "numbers of class" in refusal(callee=text)


def test_refusal_by_class_says_how_the_number_was_read() -> None:
    assert refusal(callee="011 555 1234/5") == (
        "callee: read as +271155512345: numbers of class unknown are not dialled from here"
    )
    assert refusal(callee="0900123456") == "callee: numbers of class premium are not dialled from here"


@pytest.mark.parametrize("text", ["1 1 2", "tel:112", "1-1-2"])
def test_emergency_number_is_refused_in_any_way_of_writing(text: str) -> None:
    assert "emergency" in refusal(callee=text)


@pytest.mark.parametrize("field", ["agent", "callee", "outbound_id"])
def test_attack_written_around_a_number_dials_nothing(field: str) -> None:
    for way in ("{0}0820001234", "0820001234{0}", "0820001234,{0}", "0820001234;ext={0}", "tel:{0}"):
        for text in ATTACKS:
            if text not in ("a,b", ";"):
                assert refusal(CLIENT, **{field: way.format(text)}).startswith(f"{field}: "), (way, text)


# Digits for after the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "digits", "sent"),
    [
        ("0820001234,,12#", ",,12#", "WWWW12#"),
        ("+27 82 000 1234 , 12", ",12", "WW12"),
        ("0820001234;ext=12", "12", "12"),
        ("tel:+27-82-000-1234;ext=1-2", "12", "12"),
        ("0820001234;postd=,,*1#", ",,*1#", "WWWW*1#"),
        ("0820001234;ext=12;postd=,3", "12,3", "12WW3"),
        ("0820001234;EXT=12;isub=7", "12", "12"),
        ("1000,1", ",1", "WW1"),
        ("0820001234\uff0c\uff11\uff12\uff03", ",12#", "WW12#"),
    ],
)
def test_digits_behind_the_number_are_for_the_callee(text: str, digits: str, sent: str) -> None:
    order = read(callee=text)
    assert order.callee.dialled in ("0820001234", "1000")
    assert (order.digits, as_dtmf(order.digits)) == (digits, sent)


@pytest.mark.parametrize(
    "text",
    [
        "0820001234,",
        "0820001234,,",
        "0820001234,a",
        "0820001234,1;ext=2",
        "0820001234;ext=",
        "0820001234;ext=x",
        "0820001234;postd=p1",
        "0820001234," + "1" * 32,
        "0820001234" + "," * 16 + "1",
        "0820001234,1\n2",
        "0820001234;ext=${x}",
        ",12",
    ],
)
def test_digits_that_cannot_be_sent_are_refused(text: str) -> None:
    assert refusal(callee=text).startswith("callee: ")


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ("820,001,234", "820"),
        ("820, 001, 234", "820"),
        ("082,000,1234", "082"),
        ("212,555,0100", "212"),
        ("820,001", "820"),
        ("1000,123,456", "1000"),
        ("820\uff0c001\uff0c234", "820"),
    ],
)
def test_number_with_commas_does_not_ring_an_extension(text: str, extension: str) -> None:
    said = refusal(callee=text)
    assert said.startswith(f"callee: read as extension {extension} and digits to send; write a number without commas")


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("1000,,5", ",,5"),
        ("1000,,123", ",,123"),
        ("1000,12#", ",12#"),
        ("1000,123", ",123"),
        ("1000,1234", ",1234"),
        ("1000;ext=123", "123"),
        ("1000;postd=,123", ",123"),
    ],
)
def test_extension_is_sent_digits_that_are_no_group(text: str, digits: str) -> None:
    order = read(callee=text)
    assert (order.callee.dialled, order.digits) == ("1000", digits)


@pytest.mark.parametrize("field", ["agent", "outbound_id"])
def test_digits_behind_another_number_are_refused(field: str) -> None:
    assert "only the callee can be sent digits" in refusal(CLIENT, **{field: "0115550000,,12"})


def test_digits_are_taken_off_before_an_own_pattern() -> None:
    loose = IntegratorRules("acme", PLAN, patterns={"callee": r"(?s).*"})
    order = read(loose, callee="0820001234,,12#")
    assert (order.callee.dialled, order.digits) == ("0820001234", ",,12#")


@given(st.text(st.sampled_from("0123456789+-(), ;=#*.epxt:\u0660\uff10\u202a\n${}"), max_size=40))
def test_text_is_a_number_and_digits_or_not_dialable(text: str) -> None:
    try:
        written = split(text)
    except NotDialable:
        return
    assert re.fullmatch(r"[0-9*#,]{0,32}", written.digits)
    assert len(as_dtmf(written.digits)) < 99


@pytest.mark.parametrize("text", ["\U0001f600" * 256, "1 " * 127 + "x", "\u0661" * 256])
def test_refusal_of_a_long_text_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Each of 250 beginnings was read: three such numbers in a request took 20 ms."""
    looked: list[int] = []

    def count(part: str) -> str:
        looked.append(len(part))
        return plain(part)

    monkeypatch.setattr(written_number, "plain", count)
    with pytest.raises(NotDialable):
        written_number.read(text, PLAN)
    assert sum(looked) <= 256 + 70 * 70 / 2 + 70

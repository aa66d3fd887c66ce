"""Reading and classifying numbers. The region is South Africa unless a test says otherwise."""

from __future__ import annotations

import re
import tracemalloc

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType

from esl_apps.core.number_classes import CLASSES, subscriber
from esl_apps.core.number_text import NotDialable, presented
from esl_apps.core.numbers import Number, NumberPlan, of_region

PLAN = NumberPlan("ZA", r"^\d{3,4}$")


@pytest.mark.parametrize("written", ["0820001234", "27820001234", "0027820001234", "+27820001234"])
def test_one_number_however_it_is_written(written: str) -> None:
    number = PLAN.read(written)
    assert (number.e164, number.plus, number.national) == ("27820001234", "+27820001234", "0820001234")
    assert number.dialled == written


@pytest.mark.parametrize(
    ("region", "written", "national"),
    [
        ("GB", "+499090123456", "00499090123456"),
        ("ZA", "00442079460000", "00442079460000"),
        ("ZA", "+870776123456", "00870776123456"),
        ("US", "+442079460000", "011442079460000"),
        ("AU", "+442079460000", "0011442079460000"),
        ("RU", "+442079460000", "810442079460000"),
        # Each carrier has its own.
        ("BR", "+442079460000", "+442079460000"),
        # One country code, several regions.
        ("CA", "+12125550123", "2125550123"),
        ("GB", "+441534123456", "01534123456"),
        ("RU", "+77012345678", "87012345678"),
    ],
)
def test_national_form_of_a_foreign_number_is_no_home_number(region: str, written: str, national: str) -> None:
    """+49 9090 123456, dialled as 09090 123456 in Britain, is a premium number."""
    assert NumberPlan(region, r"^\d{3,4}$").read(written).national == national


def test_national_form_of_a_foreign_number_is_that_number() -> None:
    """In Singapore 001 is a carrier's prefix: 00 before a 1 and Somalia's 252 is Somalia, and not North Carolina."""
    foreign = ["+12522123456", "+442079460123", "+491711234567", "+5511987654321", "+77011234567"]
    misdialled = set()
    for region in phonenumbers.SUPPORTED_REGIONS:
        plan = NumberPlan(region, r"^\d{3}$")
        for number in map(plan.read, foreign):
            heard = phonenumbers.parse(number.national, region)
            if phonenumbers.format_number(heard, phonenumbers.PhoneNumberFormat.E164) != number.plus:
                misdialled.add((region, number.plus, number.national))
    assert not misdialled


@pytest.mark.parametrize("written", ["+39 0341 123456", "+39 (0)341 123456", "0039 (0) 341 123456"])
def test_zero_that_belongs_to_the_number_is_kept(written: str) -> None:
    """Without it, this number of Lecco is a mobile in Italy."""
    assert PLAN.read(written).e164 == "390341123456"


@pytest.mark.parametrize(
    ("written", "e164"),
    [
        ("+34 (0)91 123 45 67", "34911234567"),
        ("+1 (0)212 555 0100", "12125550100"),
        ("+36 (0)1 234 5678", "3612345678"),
        ("+7 (0)495 123 45 67", "74951234567"),
    ],
)
def test_zero_that_is_in_no_number_of_its_country_is_left_out(written: str, e164: str) -> None:
    assert PLAN.read(written).e164 == e164


def test_bracketed_zero_is_read_in_every_country() -> None:
    misread = set()
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE):
            example = phonenumbers.example_number_for_type(region, kind)
            if example is not None:
                code, digits = example.country_code, phonenumbers.national_significant_number(example)
                number = PLAN.read(f"+{code} (0){digits.removeprefix('0')}")
                if number.subscriber != subscriber(f"{code}{digits}"):
                    misread.add(region)
    # There, the digits with 0 and those without are two subscribers' numbers.
    assert misread == {"AC", "IT", "VA"}


@pytest.mark.parametrize(
    ("text", "klass"),
    [
        ("0820001234", "mobile"),
        ("0115550000", "fixed"),
        ("0800123456", "tollfree"),
        ("0860123456", "shared_cost"),
        ("0871234567", "voip"),
        ("0900123456", "premium"),
        ("0027900123456", "premium"),
        ("27900123456", "premium"),
        ("+447012345678", "premium"),
        ("+442079460000", "international"),
        ("00442079460000", "international"),
        ("+15142223333", "international"),
        ("+88161234567", "satellite"),
        ("+870773111632", "satellite"),
        ("+8835100123456", "satellite"),
        ("+97912345678", "premium"),
        ("+80012345678", "tollfree"),
        ("1000", "extension"),
        ("911", "extension"),
        ("112", "emergency"),
        ("10111", "emergency"),
        ("0000000000", "unknown"),
        ("12345", "unknown"),
    ],
)
def test_class(text: str, klass: str) -> None:
    assert PLAN.read(text).klass == klass


@pytest.mark.parametrize("text", ["+27112", "0027112", "+2710111"])
def test_emergency_number_behind_a_country_code_is_one(text: str) -> None:
    assert PLAN.read(text).is_emergency


@pytest.mark.parametrize("text", ["00112", "+112", "0010111"])
def test_number_whose_e164_is_an_emergency_number_is_one(text: str) -> None:
    # Country code 1, number 12: a gateway that is given E.164 would dial 112.
    assert PLAN.read(text).is_emergency


def test_number_abroad_with_the_same_country_code_is_not_home() -> None:
    plan = NumberPlan("US", r"^\d{3,4}$")
    assert plan.is_home(plan.read("2125550123"))
    assert not plan.is_home(plan.read("+18765123456"))


def test_numbers_with_long_parameters_are_not_kept() -> None:
    """A stranger writes them behind the number that they dial: 4,096 texts of 60 KB are 240 MB."""
    plan = NumberPlan("ZA", r"^\d{3,4}$")
    tracemalloc.start()
    try:
        for i in range(100):
            plan.read(f"+27821234567;x={i}" + "a" * 60_000)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_emergency_number_that_looks_like_an_extension_is_none() -> None:
    number = PLAN.read("112")
    assert number.is_emergency
    assert not number.is_extension
    assert number.plus == "112"


def test_emergency_numbers_are_the_regions() -> None:
    assert NumberPlan("US", r"^\d{3,4}$").read("911").is_emergency
    assert NumberPlan("GB", r"^\d{3,4}$").read("999").is_emergency


def test_extension_regex_without_anchors_matches_whole_numbers() -> None:
    plan = NumberPlan("ZA", r"\d{3,4}")
    assert plan.read("1000").is_extension
    assert plan.read("0820001234").klass == "mobile"


def test_extension_is_dialled_as_it_is() -> None:
    number = PLAN.read("1000")
    assert (number.e164, number.plus, number.national) == ("1000", "1000", "1000")


def test_operators_classes_come_first_and_in_their_order() -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", {"cell": r"^\+2782", "home": r"^\+27", "other": "."})
    assert [plan.read(text).klass for text in ("0820001234", "0115550000", "+442079460000")] == [
        "cell",
        "home",
        "other",
    ]


def test_operator_class_never_changes_extension_or_emergency() -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", {"all": "."})
    assert plan.read("1000").is_extension
    assert plan.read("112").is_emergency


def test_freephone_or_shared_cost_number_abroad_is_abroad() -> None:
    assert PLAN.read("+18005551234").abroad
    assert PLAN.read("+447012345678").abroad
    assert not PLAN.read("0800123456").abroad
    assert not PLAN.read("0900123456").abroad


def test_north_american_freephone_number_is_home_in_canada() -> None:
    canada = NumberPlan("CA", r"^\d{3,4}$")
    assert not canada.read("+18005551234").abroad
    assert canada.read("+15142223333").klass == "fixed"
    assert canada.read("+12125550123").klass == "international"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++27820001234",
        "27820001234+",
        "0820001234\n",
        "\n0820001234",
        "sip:1000",
        "1000@evil",
        "tel:+27820001234",
        "0800FLOWERS",
        "*0",
        "0820001234#",
        "1" * 33,
        "0",
        "+27",
        "+999123456789",
        "%0A",
        "0820001234\0",
        "0820001234%0A",
    ],
)
def test_number_of_other_characters_is_refused(text: str) -> None:
    with pytest.raises(NotDialable):
        PLAN.read(text)


def test_refusal_does_not_repeat_the_text() -> None:
    with pytest.raises(NotDialable) as caught:
        PLAN.read("secret-text")
    assert "secret-text" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_number_of_digits_or_is_refused(text: str) -> None:
    try:
        number = PLAN.read(text)
    except NotDialable:
        return
    assert re.fullmatch(r"\+?[0-9]+", number.dialled)
    assert re.fullmatch(r"[0-9]+", number.e164)
    assert re.fullmatch(r"[0-9]+", number.national)
    assert number.klass in CLASSES


@given(st.from_regex(r"\A\+?[0-9]{1,32}\Z"))
def test_any_digits_are_a_number_of_a_known_class_or_are_refused(text: str) -> None:
    try:
        number = PLAN.read(text)
    except NotDialable:
        return
    assert number.dialled == text
    assert re.fullmatch(r"[0-9]+", number.e164)
    assert re.fullmatch(r"[0-9]+", number.national)
    assert number.klass in CLASSES


def test_numbers_are_compared_as_e164() -> None:
    assert PLAN.same("0820001234", "+27820001234")
    assert not PLAN.same("0820001234", "0820001235")
    assert not PLAN.same("garbage", "garbage")


@pytest.mark.parametrize("text", ["0820001234", "+27820001234", "1000"])
def test_callers_number_is_presented_as_it_came(text: str) -> None:
    assert presented(text) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "anonymous",
        "Anonymous",
        "unknown",
        "0820001234\nCaller-Caller-ID-Number: 0",
        "+",
        "08200%3012",
        "1" * 33,
    ],
)
def test_callers_number_of_other_characters_is_none(text: str | None) -> None:
    assert presented(text) is None


# Countries and high-risk ranges ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("0820001234", "ZA"),
        ("+5371234567", "CU"),
        ("+18765551234", "JM"),
        ("+12125551234", "US"),
        ("+88216123456", "001"),
        ("+97912345678", "001"),
        ("1000", ""),
        ("112", ""),
        # It isn't a valid number of Latvia, but would cost as much.
        ("+37191234567", "LV"),
    ],
)
def test_numbers_country(text: str, country: str) -> None:
    assert PLAN.read(text).country == country


@pytest.mark.parametrize(
    ("prefix", "region", "own"),
    [
        ("+53", "CU", True),
        ("+53", "ZA", False),
        ("+1876", "JM", True),
        ("+1876", "US", False),
        ("+1658", "JM", True),
        ("+1809", "DO", True),
        ("+4470", "GB", True),
        ("+3719", "LV", True),
        ("+7495", "RU", True),
        ("+77", "KZ", True),
        ("+77", "RU", False),
    ],
)
def test_whose_a_prefix_is(prefix: str, region: str, own: bool) -> None:
    assert of_region(prefix, region) is own


def test_extension_or_an_emergency_number_is_never_high_risk() -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", high_risk=["+1", "+53"])
    assert [plan.read(text).high_risk for text in ("1000", "112", "531", "+5371234567")] == [False, False, False, True]


@pytest.mark.parametrize("text", ["0115550110", "+27115550110"])
def test_operator_class_may_be_emergency_or_extension(text: str) -> None:
    def read(name: str) -> Number:
        return NumberPlan("ZA", r"^\d{3,4}$", {name: r"^\+2711555011\d$"}).read(text)

    assert (read("emergency").is_emergency, read("emergency").plus) == (True, "27115550110")
    assert (read("extension").is_extension, read("extension").plus) == (True, "27115550110")
    assert (read("cell").is_extension, read("cell").is_emergency, read("cell").plus) == (False, False, "+27115550110")


@pytest.mark.parametrize(
    ("name", "regex"),
    [("emergency", "112"), ("emergency", r"^\+27112"), ("extension", "10.."), ("extension", r"^\+2711")],
)
def test_operator_class_that_matches_a_part_opens_nothing(name: str, regex: str) -> None:
    """An emergency number is dialled past all rules and limits, so it is one as a whole or not at all."""
    plan = NumberPlan("ZA", r"^\d{3,4}$", {name: regex})
    for text in ("+27112345112", "+27861121012", "+5371121012", "+271121012345"):
        number = plan.read(text)
        assert not number.is_emergency
        assert not number.is_extension
        assert number.klass == number.built_in


@pytest.mark.parametrize("regex", ["112", r"^112", "112$", "112|119"])
def test_emergency_class_matches_short_numbers_as_a_whole(regex: str) -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", {"emergency": regex})
    assert plan.read("112").is_emergency
    assert [plan.read(text).klass for text in ("1123", "5112")] == ["extension", "extension"]
    assert [plan.read(text).is_emergency for text in ("911234", "082112")] == [False, False]


# Built-in classes and the operator's -------------------------------------------------------------------

#: Kazoo's own default, system_config/number_manager.
KAZOO = {
    "tollfree_us": r"^\+1((?:800|888|877|866|855)\d{7})$",
    "toll_us": r"^\+1(900\d{7})$",
    "caribbean": r"^\+?1((?:684|264|268|242|246|441|284|345|767|809|829|849|473|671|876|664|670|787|869|340)\d{7})$",
    "did_us": r"^\+?1?([2-9][0-9]{2}[2-9][0-9]{6})$",
}
US = NumberPlan("US", r"^\d{3,4}$", KAZOO)


@pytest.mark.parametrize(
    ("text", "klass", "built_in", "abroad"),
    [
        ("+17875551234", "caribbean", "international", True),
        ("+16715551234", "caribbean", "international", True),
        ("+18765551234", "caribbean", "international", True),
        ("+16045551234", "did_us", "international", True),
        ("+19005551234", "toll_us", "premium", False),
        ("+12129761234", "did_us", "premium", False),
        ("+18002255288", "tollfree_us", "tollfree", False),
        ("+12125550123", "did_us", "fixed", False),
        ("+442079460000", "international", "international", True),
    ],
)
def test_number_keeps_its_built_in_class(text: str, klass: str, built_in: str, abroad: bool) -> None:
    number = US.read(text)
    assert (number.klass, number.built_in, number.abroad) == (klass, built_in, abroad)
    assert US.is_home(number) is not abroad
    assert number.is_of(klass)
    assert number.is_of(built_in)
    assert number.is_of("international") is abroad


def test_classifier_names_a_number_unknown_to_the_metadata() -> None:
    plan = NumberPlan("ZA", r"^\d{3,4}$", {"service": r"^\+27999"})
    number = plan.read("0999123456")
    assert (number.klass, number.built_in) == ("service", "service")
    assert not number.is_of("unknown")


@pytest.mark.parametrize(
    ("region", "text", "klass"),
    [
        ("US", "+12129761234", "premium"),
        ("CA", "6049765555", "premium"),
        ("CA", "+16005551234", "satellite"),
        ("AU", "0145123456", "satellite"),
        ("ZA", "+61147123456", "satellite"),
        ("RU", "+79541234567", "satellite"),
        ("RU", "+79531234567", "mobile"),
        ("AU", "0412345678", "mobile"),
        ("ZA", "084545", "unknown"),
        ("ZA", "0845551234", "mobile"),
    ],
)
def test_number_in_a_corrected_range_has_its_class(region: str, text: str, klass: str) -> None:
    assert NumberPlan(region, r"^\d{3,4}$").read(text).klass == klass


@pytest.mark.parametrize(
    ("text", "klass"),
    [
        ("+18005551234", "tollfree_us"),
        ("+19005551234", "toll_us"),
        ("+18765551234", "caribbean"),
        ("+14155550123", "did_us"),
        ("+442079460000", None),
    ],
)
def test_number_is_of_kazoos_first_matching_class(text: str, klass: str | None) -> None:
    number = NumberPlan("US", r"^\d{3,4}$").read(text)
    assert [name for name in ("tollfree_us", "toll_us", "caribbean", "did_us") if number.is_of(name)] == (
        [klass] if klass else []
    )


@pytest.mark.parametrize("regex", [r"^988$", r"^\+988$", r"^\+?1?988$", r"^\+1988$"])
def test_operators_emergency_number_comes_before_extensions(regex: str) -> None:
    plan = NumberPlan("US", r"^\d{3,4}$", {"emergency": regex})
    assert plan.read("988").is_emergency
    assert plan.read("989").is_extension


# One door ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "+27115550000",
        "+27 11 555 0000",
        "+27 (0)11 555-0000",
        "(011) 555.0000",
        "011/555/0000",
        "+27\u00a011\u2011555\u20110000",
        "\uff0b27115550000",
        "\u0660\u0661\u0661\u0665\u0665\u0665\u0660\u0660\u0660\u0660",
        "0115550000;npdi;rn=+27829999999",
        "+27115550000;ext=12",
        "+27115550000;x=" + "9" * 9000,
        "5550000;phone-context=+2711",
        "5550000;isub=1;phone-context=+27-11;x=y",
        "0115550000;phone-context=example.net",
        "0027115550000",
        "115550000",
    ],
)
def test_number_written_in_another_way_is_the_same(text: str) -> None:
    assert PLAN.read(text).e164 == "27115550000"


@pytest.mark.parametrize(
    ("region", "forms"),
    [
        ("MX", ["+525512345678", "+5215512345678", "5512345678", "0445512345678", "0455512345678"]),
        ("AR", ["+5491112345678", "+541112345678", "01115 12345678", "011 15 1234-5678"]),
        ("BR", ["+5511987654321", "+551187654321"]),
    ],
)
def test_subscriber_is_the_same_in_all_forms(region: str, forms: list[str]) -> None:
    plan = NumberPlan(region, r"^\d{3,4}$")
    assert len({plan.read(form).subscriber for form in forms}) == 1
    assert all(plan.same(forms[0], form) for form in forms)
    assert not plan.same(forms[0], forms[0][:-1] + "0")

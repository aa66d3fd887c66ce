"""Class restrictions: the first level that denies wins, and classes that fraud dials must be allowed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from esl_apps.core.numbers import NumberPlan
from esl_apps.core.restrictions import denied

PLAN = NumberPlan("ZA", r"^\d{3,4}$", {"gulf": r"^\+971"})
MOBILE, PREMIUM, SATELLITE, UNKNOWN = "0820001234", "0900123456", "+88161234567", "0000000000"


@dataclass(frozen=True)
class Rule:
    action: str


ALLOW, DENY, INHERIT = Rule("allow"), Rule("deny"), Rule("inherit")


def is_denied(text: str, *levels: dict[str, Rule]) -> str:
    return denied(PLAN.read(text), *levels)


@pytest.mark.parametrize("text", [PREMIUM, SATELLITE, UNKNOWN, "+447012345678", "+97912345678"])
def test_premium_satellite_and_unknown_are_denied_unless_allowed(text: str) -> None:
    assert is_denied(text)
    assert is_denied(text, {}, {})


@pytest.mark.parametrize(("text", "klass"), [(PREMIUM, "premium"), (SATELLITE, "satellite"), (UNKNOWN, "unknown")])
def test_default_denial_can_be_lifted_at_any_level(text: str, klass: str) -> None:
    assert not is_denied(text, {klass: ALLOW})
    assert not is_denied(text, {}, {klass: ALLOW})


@pytest.mark.parametrize("text", [MOBILE, "0115550000", "0800123456", "+442079460000", "1000"])
def test_other_classes_are_allowed_unless_denied(text: str) -> None:
    assert not is_denied(text)
    assert is_denied(text, {PLAN.read(text).klass: DENY})


@pytest.mark.parametrize("levels", [({"mobile": DENY}, {"mobile": ALLOW}), ({"mobile": ALLOW}, {"mobile": DENY})])
def test_level_that_denies_wins_wherever_it_stands(levels: tuple[dict[str, Rule], ...]) -> None:
    assert is_denied(MOBILE, *levels)


def test_inherit_says_nothing() -> None:
    assert not is_denied(MOBILE, {"mobile": INHERIT})
    assert is_denied(PREMIUM, {"premium": INHERIT})
    assert is_denied(MOBILE, {"mobile": DENY}, {"mobile": INHERIT})


def test_operators_own_class_is_ruled_by_its_name() -> None:
    assert not is_denied("+97142223333")
    assert is_denied("+97142223333", {"gulf": DENY})


@pytest.mark.parametrize("text", ["+18005551234", "+443301234567"])
def test_denied_international_includes_freephone_abroad(text: str) -> None:
    assert PLAN.read(text).klass != "international"
    assert not is_denied(text)
    assert is_denied(text, {"international": DENY})


def test_allowed_premium_is_denied_abroad_with_international() -> None:
    levels = {"premium": ALLOW, "international": DENY}
    assert not is_denied(PREMIUM, levels)
    assert is_denied("+449012345678", levels)


def test_international_allowed_does_not_allow_premium_abroad() -> None:
    assert is_denied("+449012345678", {"international": ALLOW})


# High-risk ranges ------------------------------------------------------------------------------------

RISKY = NumberPlan("ZA", r"^\d{3,4}$", high_risk=["+53", "+881", "+3719"])
CUBA, IRIDIUM, LATVIA = RISKY.read("+5371234567"), RISKY.read("+88161234567"), RISKY.read("+37120000000")


def test_high_risk_number_is_denied_in_any_class_unless_allowed() -> None:
    assert denied(CUBA) == "high_risk"
    assert denied(CUBA, {"international": ALLOW}) == "high_risk"
    assert denied(CUBA, {}, {"high_risk": ALLOW}) == ""
    assert denied(CUBA, {"high_risk": DENY}, {"high_risk": ALLOW}) == "high_risk"
    assert denied(CUBA, {"high_risk": ALLOW}, {"high_risk": DENY}) == "high_risk"
    assert denied(CUBA, {"high_risk": INHERIT}) == "high_risk"
    assert denied(LATVIA) == ""


def test_high_risk_allowed_allows_no_class() -> None:
    assert denied(CUBA, {"high_risk": ALLOW, "international": DENY}) == "international"
    assert denied(IRIDIUM, {"high_risk": ALLOW}) == "satellite"


def test_satellites_that_are_allowed_by_name_need_no_second_word() -> None:
    assert denied(IRIDIUM, {"satellite": ALLOW}) == ""
    assert denied(IRIDIUM, {"satellite": ALLOW, "high_risk": DENY}) == "high_risk"


# Classifiers of the operator's, and Kazoo's ----------------------------------------------------------

OWN = NumberPlan("US", r"^\d{3,4}$", {"did_us": r"^\+1", "cheap": r"^\+88"}, high_risk=["+1876", "+88"])


@pytest.mark.parametrize("text", ["+18765551234", "+16045551234", "+16715551234", "+442079460000"])
def test_international_denied_holds_for_an_operators_class(text: str) -> None:
    assert denied(OWN.read(text), {"international": DENY, "high_risk": ALLOW}) == "international"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("+19005551234", "premium"),
        ("+12129761234", "premium"),
        ("+88161234567", "satellite"),
        ("+18765551234", "high_risk"),
    ],
)
def test_operators_class_takes_no_protection_away(text: str, why: str) -> None:
    assert denied(OWN.read(text)) == why
    assert denied(OWN.read(text), {"did_us": ALLOW, "cheap": ALLOW}) == why


@pytest.mark.parametrize("klass", ["premium", "satellite", "unknown", "high_risk"])
def test_operators_class_of_a_fraud_name_needs_a_rule(klass: str) -> None:
    number = NumberPlan("ZA", r"^\d{3,4}$", {klass: r"^\+2786"}).read("0860123456")
    assert denied(number) == klass
    assert denied(number, {"shared_cost": ALLOW}) == klass
    assert denied(number, {klass: ALLOW}) == ""


def test_number_of_two_fraud_classes_needs_both_allowed() -> None:
    number = NumberPlan("ZA", r"^\d{3,4}$", {"satellite": r"^\+2790"}).read(PREMIUM)
    assert denied(number, {"satellite": ALLOW}) == "premium"
    assert denied(number, {"premium": ALLOW}) == "satellite"
    assert denied(number, {"premium": ALLOW, "satellite": ALLOW}) == ""


INVALID_ABROAD = "0097199999999999"


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        ({}, "unknown"),
        ({"international": ALLOW}, "unknown"),
        ({"gulf": INHERIT}, "unknown"),
        ({"gulf": DENY}, "gulf"),
        ({"gulf": ALLOW}, ""),
        ({"unknown": ALLOW}, ""),
        ({"gulf": ALLOW, "unknown": DENY}, ""),
        ({"gulf": ALLOW, "international": DENY}, "international"),
    ],
)
def test_operators_class_opens_unknown_numbers_if_it_is_allowed(levels: dict[str, Rule], why: str) -> None:
    assert is_denied(INVALID_ABROAD, {}, levels) == why


@pytest.mark.parametrize("klass", ["extension", "emergency"])
def test_classifier_of_extensions_needs_no_rule(klass: str) -> None:
    assert denied(NumberPlan("ZA", r"^\d{3,4}$", {klass: r"(\+27)?99999"}).read("99999")) == ""


def test_kazoos_stock_class_denied_is_refused() -> None:
    plan = NumberPlan("US", r"^\d{3,4}$")
    assert denied(plan.read("8005551212"), {"tollfree_us": DENY}) == "tollfree_us"
    assert denied(plan.read("4155550123"), {"did_us": DENY}) == "did_us"
    assert denied(plan.read("8005551212"), {"did_us": DENY}) == ""

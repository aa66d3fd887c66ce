"""A party's number as a record describes it."""

from __future__ import annotations

import pytest

from esl_apps.core import parties
from esl_apps.testing import PLAN


@pytest.mark.parametrize(
    ("dialled", "facts"),
    [
        ("0820001234", ("+27820001234", "mobile", "ZA")),
        ("00442079460000", ("+442079460000", "international", "GB")),
        ("00882123456789", ("+882123456789", "satellite", "001")),
        ("1000", (None, "extension", None)),
        ("112", (None, "emergency", None)),
        (None, (None, None, None)),
    ],
)
def test_party_has_its_numbers_class_and_country(dialled: str | None, facts: tuple[str | None, ...]) -> None:
    number = None if dialled is None else PLAN.read(dialled)
    assert tuple(parties.second(number).values()) == facts
    assert tuple(parties.first(number).values()) == facts


def test_agent_without_a_charge_is_an_extension() -> None:
    assert parties.first(PLAN.read("1000")) == parties.EXTENSION


@pytest.mark.parametrize(("shown", "klass"), [("112", None), ("0820001234", "mobile"), (None, None)])
def test_caller_who_shows_an_emergency_number_has_no_class(shown: str | None, klass: str | None) -> None:
    number = None if shown is None else PLAN.read(shown)
    assert parties.first(parties.caller(number))["extension_class"] == klass

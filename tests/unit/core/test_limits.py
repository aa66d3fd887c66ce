"""Limits: how destinations and scopes are read, and which counters a leg has."""

from __future__ import annotations

import pytest

from esl_apps.core.limits import (
    BREAKER,
    CALLS_PER_HOUR,
    Breaker,
    Level,
    Limits,
    Refusal,
    bounds,
    covers,
    read_destination,
    read_scope,
)
from esl_apps.core.numbers import NumberPlan

PLAN = NumberPlan("ZA", r"^\d{3,4}$", high_risk=["+53"])
HOME, CUBA, LONDON, INSIDE = (PLAN.read(text) for text in ("0820001234", "+5371234567", "+442079460000", "1000"))


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        ("country:CU", [CUBA], [HOME, LONDON]),
        ("class:mobile", [HOME], [LONDON]),
        ("prefix:+4420", [LONDON], [HOME, CUBA, INSIDE]),
        ("high_risk", [CUBA], [HOME, LONDON]),
    ],
)
def test_destination_matches_its_numbers_alone(text: str, matching: list[object], others: list[object]) -> None:
    destination = read_destination(text)
    assert str(destination) == text
    assert [number for number in (HOME, CUBA, LONDON, INSIDE) if destination.matches(number)] == matching
    assert not any(destination.matches(number) for number in (HOME, CUBA, LONDON, INSIDE) if number in others)


@pytest.mark.parametrize("text", ["country:cu", "country:CUB", "prefix:53", "prefix:+0", "class:", "anything", ""])
def test_destination_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="country:XX"):
        read_destination(text)


@pytest.mark.parametrize(
    ("text", "level", "destination"),
    [
        ("system", "system", None),
        ("account:acme", "account:acme", None),
        ("integrator:acme/high_risk", "integrator:acme", "high_risk"),
        ("card:c1/prefix:+53", "card:c1", "prefix:+53"),
    ],
)
def test_scope_is_a_level_and_perhaps_a_destination(text: str, level: str, destination: str | None) -> None:
    read_level, read = read_scope(text)
    assert (read_level, None if read is None else str(read)) == (level, destination)


@pytest.mark.parametrize("text", ["", "acme", "account:", "account:a b", "system/", "system/nowhere", "card:c1/x:y"])
def test_scope_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected system, account:NAME"):
        read_scope(text)


def test_breaker_covers_its_level_and_its_destination() -> None:
    assert covers("account:acme", ["system", "account:acme"], None)
    assert not covers("account:other", ["system", "account:acme"], CUBA)
    assert covers("account:acme/country:CU", ["account:acme"], CUBA)
    assert not covers("account:acme/country:CU", ["account:acme"], HOME)
    assert not covers("account:acme/country:CU", ["account:acme"], None)


def test_breaker_with_an_unreadable_scope_lets_nothing_through() -> None:
    assert covers("galaxy:andromeda", ["system"], HOME)


def keys(levels: list[Level], number: object, **more: bool) -> list[str]:
    return [bound.key for bound in bounds(levels, number, "r", **{"aleg": False, "owner": True, **more})]  # type: ignore[arg-type]


def test_leg_counts_for_each_level_and_matching_destinations() -> None:
    cuba = Limits(calls_per_day=1)
    limits = Limits(calls_per_hour=5, destinations={read_destination("country:CU"): cuba})
    levels = [Level("system", limits), Level("account:acme"), Level("card:c1", Limits(minutes_per_day=9))]
    assert keys(levels, CUBA) == ["system", "system/country:CU", "card:c1"]
    assert keys(levels, HOME) == keys(levels, None) == ["system", "card:c1"]


def test_leg_counts_against_breakers_of_its_own_and_of_high_risk() -> None:
    breaker = Breaker(Limits(calls_per_hour=5), high_risk_calls_per_hour=1, end_calls=True)
    found = list(bounds([Level("account:acme", None, breaker)], CUBA, "r", aleg=False, owner=True))
    assert [(bound.key, bound.trips, bound.scope, bound.end_calls) for bound in found] == [
        ("breaker:account:acme/high_risk_calls", "account:acme", "account:acme", True),
        ("breaker:account:acme", "account:acme", "account:acme", True),
    ]
    assert keys([Level("account:acme", None, breaker)], HOME) == ["breaker:account:acme"]


def test_leg_has_no_counter_twice() -> None:
    destinations = {read_destination(text): Limits(calls_per_hour=1) for text in ("high_risk", "country:CU")}
    same = Limits(calls_per_hour=1, destinations=destinations)
    named = ["system", "integrator:acme", "account:acme", "card:acme"]
    found = keys([Level(name, same, Breaker(same, 1)) for name in named], CUBA)
    assert len(found) == len(set(found)) == 4 * (2 * 3 + 1)


def test_leg_does_not_count_where_nothing_is_bounded() -> None:
    cuba = Limits(destinations={read_destination("country:CU"): Limits(calls_per_day=1)})
    levels = [Level("system", Limits(), Breaker(Limits())), Level("card:c1", cuba), Level("card:c2", Limits(None, 9))]
    assert keys(levels, HOME) == ["card:c2"]
    assert keys(levels, CUBA) == ["card:c1/country:CU", "card:c2"]


def test_two_legs_of_a_call_are_one_call_of_a_level() -> None:
    level = Level(
        "system", Limits(calls_per_day=9, destinations={read_destination("high_risk"): Limits(calls_per_day=9)})
    )
    first = list(bounds([level], CUBA, "r", aleg=True, owner=True))
    second = list(bounds([level], CUBA, "r", aleg=False, owner=False))
    assert [bound.member for bound in first] == ["r", "r/a"]
    assert [bound.member for bound in second] == ["r", "r"]
    assert [bound.timed for bound in second] == [False, True]


@pytest.mark.parametrize(
    ("limits", "counts", "timed"),
    [
        (Limits(), False, False),
        (Limits(longest_call=60), False, False),
        (Limits(calls_per_day=1), True, False),
        (Limits(calls_per_hour=1), True, False),
        (Limits(minutes_per_hour=1), True, True),
        (Limits(minutes_per_day=1), True, True),
    ],
)
def test_limits_say_what_must_be_counted(limits: Limits, counts: bool, timed: bool) -> None:
    assert (limits.counts, limits.timed) == (counts, timed)


def test_refusal_tells_a_client_less_than_the_operator() -> None:
    over, tripped = Refusal(CALLS_PER_HOUR, "account:acme"), Refusal(BREAKER, "system")
    assert (over.code, over.message, str(over)) == (
        17,
        "calls_per_hour is reached",
        "calls_per_hour is reached: account:acme",
    )
    assert (tripped.code, tripped.message) == (21, "the breaker has tripped")

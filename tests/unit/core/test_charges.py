"""A charge takes seconds from its limits, and gives back those that it didn't use."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core.charges import FRESH, Charge
from esl_apps.core.limits import Breaker, Level, Limits
from esl_apps.core.numbers import NumberPlan

CALLEE = NumberPlan("ZA", r"^\d{3,4}$").read("0820001234")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.changes: list[str] = []

    def changed(self, charge: Charge) -> None:
        self.changes.append("ended" if charge.ended else "talks")


def charge(clock: Clock | None = None, **more: Any) -> Charge:
    limits = Limits(minutes_per_day=10, calls_per_hour=5, longest_call=90)
    one = Charge("r", [Level("account:acme", limits, Breaker(Limits(minutes_per_hour=60)))], CALLEE, **more)
    if clock is not None:
        one.open(lambda: clock.now, clock.changed)
    return one


def test_charge_has_a_ticket_per_counter_and_the_shortest_call() -> None:
    one = charge()
    assert [ticket.bound.key for ticket in one.tickets] == ["account:acme", "breaker:account:acme"]
    assert one.longest == 90
    assert Charge("r", [Level("system")], None).longest is None


def test_charge_talks_from_its_answer_to_its_end() -> None:
    clock = Clock()
    one = charge(clock)
    assert one.spent(clock.now) == 0.0
    one.talk(ago=2.0)
    one.talk()
    clock.now += 10
    assert one.spent(clock.now) == 12.0
    one.end()
    clock.now += 10
    one.end()
    one.talk()
    assert one.spent(clock.now) == 12.0
    assert clock.changes == ["talks", "ended"]


def test_charge_that_was_not_counted_neither_talks_nor_ends() -> None:
    one = charge()
    one.talk()
    one.end()
    assert (one.since, one.ended) == (None, False)


@pytest.mark.parametrize(("talked", "spent"), [(42.5, 42.5), (-1.0, 0.0)])
def test_charge_ends_with_the_time_that_the_switch_said(talked: float, spent: float) -> None:
    clock = Clock()
    one = charge(clock)
    one.end(talked)
    assert one.spent(clock.now) == spent


def test_charge_ends_when_its_leg_did_although_it_is_told_late() -> None:
    now = 100.0
    charge = Charge("ref", [Level("account:a", Limits(minutes_per_day=10))], None)
    charge.open(lambda: now, lambda _charge: None)
    charge.talk()
    now = 130.0
    charge.end(ago=1.5)
    assert charge.spent(now) == 28.5


@pytest.mark.parametrize(("talked", "counts"), [(0.0, False), (3.0, True)])
def test_charge_of_a_stranger_counts_if_its_end_tells_an_answer(talked: float, *, counts: bool) -> None:
    """Its node died before it heard of the answer."""
    one = Charge("r", [Level("system", Limits(calls_per_day=9)), Level("card:1", Limits(calls_per_day=9))], CALLEE)
    one.open(lambda: 100.0, lambda _charge: None)
    one.provisional = True
    one.end(talked)
    assert [back.ticket.bound.key for back in one.returns(talked)] == [*([] if counts else ["system"]), "card:1"]
    assert one.returns(talked) == []


@pytest.mark.parametrize("limits", [Limits(longest_call=90), Limits(minutes_per_day=10, longest_call=90)])
def test_charge_that_moves_keeps_what_its_leg_has_talked(limits: Limits) -> None:
    """Also if no minutes are paid for: another process knows by it whose leg it is, and how long that may talk."""
    clock = Clock()
    one = Charge("r", [Level("account:acme", limits)], CALLEE)
    one.open(lambda: clock.now, clock.changed)
    assert (one.left, one.of_aleg) == (90, False)
    one.talk()
    clock.now += 80
    one.move("next", 0.0)
    assert (one.left, one.of_aleg, one.essence["before"]) == (10, True, 80)
    clock.now += 20
    assert one.left == 0


def test_charge_that_parts_pays_for_its_levels_from_then_on() -> None:
    clock = Clock()
    one = charge(clock, owner=False, whole=False)
    one.talk()
    clock.now += 30
    assert (one.timed, one.payments_id) == (False, "")
    undo = one.part("fs1", "B")
    one.move("next", 0.0)
    assert [(ticket.timed, ticket.asks(one.spent(clock.now), 0.0)[0]) for ticket in one.tickets] == 2 * [(True, 0.0)]
    clock.now += 10
    assert [ticket.asks(one.spent(clock.now), 0.0)[0] for ticket in one.tickets] == [10.0, 10.0]
    assert (one.essence["owner"], one.essence["whole"], one.essence["id"]) == (True, True, one.payments_id)
    undo()
    assert (one.timed, one.payments_id, one.owner, one.whole, one.of_aleg, one.call_ref) == (
        False,
        "",
        False,
        False,
        False,
        "r",
    )


def test_charge_that_rang_for_long_is_stale() -> None:
    clock = Clock()
    one = charge(clock)
    clock.now += FRESH + 1
    one.talk()
    assert one.stale


def test_charge_may_talk_for_what_its_limits_have_paid() -> None:
    clock = Clock()
    one = charge(clock)
    one.tickets[0].take(10.0, 20.0, "1", "2", "minutes_per_day")
    assert (one.paid(), one.paid(away=True)) == (10.0, 30.0)
    one.talk()
    clock.now += 9.9
    assert one.short(clock.now) is None
    clock.now += 0.1
    assert one.short(clock.now) is one.tickets[0]
    assert one.short(clock.now, away=True) is None


def test_charge_without_timed_limits_talks_as_long_as_it_likes() -> None:
    one = Charge("r", [Level("system", Limits(calls_per_day=3))], None)
    assert one.paid() is None
    assert one.short(1e9) is None


def test_essence_of_a_charge_is_json_of_its_levels_and_number() -> None:
    assert charge(aleg=True, owner=False, whole=False).essence == {
        "levels": ["account:acme"],
        "number": "0820001234",
        "aleg": True,
        "owner": False,
        "whole": False,
    }
    assert Charge("r", [], None).essence["number"] is None

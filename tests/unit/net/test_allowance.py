"""A peer's allowance: when it has to take turns."""

from __future__ import annotations

import pytest

from esl_apps.net import allowance as allowance_module
from esl_apps.net.allowance import TURN, Allowance


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("esl_apps.net.allowance.time.monotonic", lambda: now[0])
    return now


def test_allowance_within_its_burst_isnt_over(clock: list[float]) -> None:
    allowance = Allowance("peer", burst=3, rate=1)
    assert [allowance.over() for _ in range(4)] == [False, False, False, True]


def test_allowance_grows_with_time_up_to_its_burst(clock: list[float]) -> None:
    allowance = Allowance("peer", burst=3, rate=1)
    assert not allowance.over(3)
    clock[0] += 1
    assert not allowance.over()
    assert allowance.over(100)
    clock[0] += 1000
    assert not allowance.over(3)
    assert allowance.over(100)


@pytest.mark.parametrize("units", [1, TURN, TURN + 1, 3 * TURN])
def test_allowance_is_paid_for_turn_by_turn(monkeypatch: pytest.MonkeyPatch, units: int) -> None:
    turns: list[object] = []
    monkeypatch.setattr(allowance_module, "take_turn", turns.append)
    Allowance("peer", burst=0, rate=0).spend(units)
    assert turns == ["peer"] * -(-units // TURN)

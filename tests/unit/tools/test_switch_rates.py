"""How the benchmark of a whole machine looks for the highest rate without a failed call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.suites import switch
from benchmarks.suites.switch import Found, Step, climb

MEMORY = {"node": 50.0, "FreeSWITCH": 100.0, "Redis": 10.0}


class FakeBench:
    """A machine on which so many calls fail at a rate."""

    def __init__(self, failed: Callable[[int], int]) -> None:
        self._failed = failed
        self.rates: list[int] = []

    def step(self, contender: str, rate: int, seconds: int) -> Step:
        self.rates.append(rate)
        return Step(contender, rate, rate * seconds, self._failed(rate), {}, dict.fromkeys(switch.SHARES, 0.0), MEMORY)


def climbed(bench: FakeBench, most: int = 500) -> Found:
    found = Found()
    taken: Any = bench
    climb(taken, "DISA", 10, found, most)
    return found


@pytest.mark.parametrize("limit", [20, 25, 40, 50, 99])
def test_highest_rate_is_within_a_quarter_step_of_the_limit(limit: int) -> None:
    best = climbed(FakeBench(lambda rate: int(rate > limit))).best
    assert best is not None
    assert best.rate <= limit < best.rate * 1.25


def test_rate_that_is_good_the_second_time_counts() -> None:
    first = iter([1])
    bench = FakeBench(lambda rate: next(first, 0) if rate == 30 else int(rate > 40))
    best = climbed(bench).best
    assert best is not None
    assert best.rate >= 30
    assert bench.rates[:3] == [20, 30, 30]


def test_good_rate_above_a_bad_one_does_not_count() -> None:
    found = Found(
        [Step("DISA", rate, 100, failed, {}, {}, {}) for rate, failed in ((10, 0), (15, 0), (22, 3), (33, 0))]
    )
    assert found.best is not None
    assert found.best.rate == 15


def test_machine_that_fails_at_once_has_no_rate() -> None:
    found = climbed(FakeBench(lambda _rate: 1))
    assert found.best is None
    assert "fewer than 20" in switch.ramp({"DISA": found}, 10)


def test_rates_end_at_the_most() -> None:
    assert max(climbed(FakeBench(lambda _rate: 0), most=60).steps, key=lambda step: step.rate).rate == 45


def test_rate_that_fails_after_a_minute_is_lowered() -> None:
    bench: Any = FakeBench(lambda rate: int(rate > 30))
    text = switch.hold(bench, "DISA", 45, 0.001, lower=True)
    assert list(dict.fromkeys(bench.rates)) == [45, 38, 32, 27]
    assert text.startswith("DISA: 27 calls a second")


def test_rate_that_was_asked_for_is_held_though_calls_fail() -> None:
    bench: Any = FakeBench(lambda _rate: 1)
    assert switch.hold(bench, "DISA", 45, 0.001).startswith("DISA: 45 calls a second")
    assert set(bench.rates) == {45}

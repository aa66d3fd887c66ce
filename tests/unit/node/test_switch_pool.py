"""Which switch places the next call: the emptiest that is well."""

from __future__ import annotations

from collections import Counter

import pytest

from esl_apps.node.switch_pool import FAULTS, LATE, OUT_FIRST, OUT_LAST, SwitchPool
from tests.support.clock import Clock

STATUS = """UP 0 years, 0 days, 0 hours, 19 minutes, 28 seconds, 276 milliseconds, 992 microseconds
FreeSWITCH (Version 1.11.1-release  64bit) is {ready}
848 session(s) since startup
{sessions} session(s) - peak 43, last 5min 4
0 session(s) per Sec out of max 1000, peak 41, last 5min 4
{most} session(s) max
min idle cpu 0.00/97.00
"""


class StatusSwitch:
    """A switch, as far as the pool looks at it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = True
        self.silence = 0.0
        self.says(0)

    def says(self, sessions: int, most: int = 1000, ready: str = "ready") -> None:
        self.status = STATUS.format(sessions=sessions, most=most, ready=ready)

    def silent_for(self) -> float:
        return self.silence


class Stand:
    """Three switches and a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pool = SwitchPool(self.clock)
        self.a, self.b, self.c = self.switches = [StatusSwitch(name) for name in "abc"]
        for one in self.switches:
            self.pool.add(one)  # type: ignore[arg-type]

    def best(self, *tried: str) -> str | None:
        switch = self.pool.best(tried)
        return None if switch is None else switch.name

    def told(self, name: str, *codes: int | None) -> None:
        for code in codes:
            self.pool.health[name].told(code)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_pool_spreads_calls_over_equal_switches(stand: Stand) -> None:
    assert Counter(stand.best() for _ in range(300)) == {"a": 100, "b": 100, "c": 100}


def test_pool_takes_the_switch_with_the_most_room(stand: Stand) -> None:
    stand.a.says(500)
    stand.b.says(600, 5000)
    stand.c.says(200, 250)
    # b: 0.12, a: 0.5, c: 0.8; and b has room for 1900 more until it is as full as a.
    assert Counter(stand.best() for _ in range(1000)) == {"b": 1000}


def test_pool_counts_begun_calls_until_the_next_status(stand: Stand) -> None:
    stand.b.says(30)
    stand.c.connected = False
    assert {stand.best() for _ in range(30)} == {"a"}
    stand.a.says(29)
    assert stand.best() == "a"
    stand.a.says(31)
    assert stand.best() == "b"


def test_pool_first_of_equal_switches_is_by_chance(stand: Stand) -> None:
    assert {Stand().best() for _ in range(200)} == {"a", "b", "c"}


def test_pool_passes_over_switches_away_or_tried(stand: Stand) -> None:
    stand.a.connected = False
    assert {stand.best("b") for _ in range(9)} == {"c"}
    assert stand.best("b", "c") is None
    stand.b.connected = stand.c.connected = False
    assert stand.best() is None


@pytest.mark.parametrize("sick", ["silent", "not ready"])
def test_pool_sick_switch_gets_nothing_while_another_is_well(stand: Stand, sick: str) -> None:
    if sick == "silent":
        stand.a.silence = LATE + 0.1
    else:
        stand.a.says(0, ready="not ready")
    assert {stand.best() for _ in range(40)} == {"b", "c"}
    stand.b.connected = stand.c.connected = False
    # Better than nothing.
    assert stand.best() == "a"
    stand.b.connected = True
    stand.a.silence = 0.0
    stand.a.says(0)
    stand.b.says(900)
    assert stand.best() == "a"


def test_pool_switch_with_unreadable_status_is_empty(stand: Stand) -> None:
    stand.a.status = ""
    stand.b.status = "-ERR no reply\n"
    stand.c.says(999999999, 0)
    assert {stand.best() for _ in range(20)} == {"a", "b"}


@pytest.mark.parametrize("code", [None, 34, 38, 41, 42, 44])
def test_pool_faults_take_a_switch_out_and_a_call_back_in(stand: Stand, code: int | None) -> None:
    stand.told("a", *[code] * (FAULTS - 1))
    assert not stand.pool.health["a"].out
    stand.told("a", code)
    assert stand.pool.health["a"].out
    assert {stand.best() for _ in range(40)} == {"b", "c"}
    stand.clock.now += OUT_FIRST
    # One call, and no second while that is under way.
    assert [stand.best() for _ in range(20)].count("a") == 1
    stand.told("a", 0)
    assert not stand.pool.health["a"].out
    assert "a" in {stand.best() for _ in range(40)}


@pytest.mark.parametrize("code", [0, 1, 16, 17, 18, 19, 20, 21])
def test_pool_callees_failures_are_not_the_switchs(stand: Stand, code: int) -> None:
    stand.told("a", *[42] * (FAULTS - 1), code, *[42] * (FAULTS - 1))
    assert not stand.pool.health["a"].out


def test_pool_switch_that_fails_again_is_out_for_longer(stand: Stand) -> None:
    stand.told("a", *[42] * FAULTS)
    waits = []
    for _ in range(6):
        began = stand.clock.now
        while "a" not in {stand.best() for _ in range(3)}:
            stand.clock.now += 0.5
        waits.append(stand.clock.now - began)
        stand.told("a", 42)
    assert waits == [5.0, 10.0, 20.0, 40.0, OUT_LAST, OUT_LAST]


def test_pool_failures_of_earlier_calls_do_not_prolong_it(stand: Stand) -> None:
    stand.told("a", *[42] * (FAULTS + 20))
    stand.clock.now += OUT_FIRST
    assert stand.best() == "a"


def test_pool_with_all_switches_out_tries_the_next_due(stand: Stand) -> None:
    stand.told("b", *[42] * FAULTS)
    stand.clock.now += 1
    stand.told("a", *[42] * FAULTS)
    stand.told("c", *[42] * FAULTS)
    assert {stand.best() for _ in range(10)} == {"b"}

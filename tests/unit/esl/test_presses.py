"""How often a key was pressed that was heard in one way or two. Times are in seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.esl.presses import SETTLED, TOGETHER, Presses, key_of_info

#: One thing that the switch reports: when, a key, or the INFO that a key came by.
Report = tuple[float, str, bool]


def counted(reports: list[Report]) -> str:
    """Return the presses, as a flow would get them that looks every 10 ms."""
    presses, got, now = Presses(), "", 0.0
    for at, key, is_info in sorted(reports, key=lambda report: report[0]):
        while now < at:
            if presses.doubt(now) == 0:
                got += presses.settle()
            now += 0.01
        got += presses.hear_info(key, at) if is_info else presses.hear(key, at)
    return got + presses.settle()


def said(keys: str, period: float, *, by: str, lag: float = 0.0, report: float = 0.01) -> list[Report]:
    """A phone's keys ``by`` one way. A ``report`` of an INFO comes some time before or after its key."""
    reports = [(1.0 + number * period + lag, key, False) for number, key in enumerate(keys)]
    if by == "info":
        reports += [(at + report, key, True) for at, key, _ in reports]
    return reports


@pytest.mark.parametrize("by", ["info", "other"])
@pytest.mark.parametrize("period", [0.08, 0.12, 0.2, 0.4, 1.0])
def test_presses_by_one_way_all_count(by: str, period: float) -> None:
    assert counted(said("1122333#", period, by=by)) == "1122333#"


@pytest.mark.parametrize("report", [-0.15, -0.3, -0.5])
def test_presses_whose_infos_are_reported_first_all_count(report: float) -> None:
    """INFOs are reported over another connection, which a busy node may read some keys sooner."""
    assert counted(said("2000333#", 0.12, by="info", report=report)) == "2000333#"


@pytest.mark.parametrize("lag", [-0.25, -0.2, -0.005, 0.0, 0.05, 0.12, 0.2])
@pytest.mark.parametrize("report", [-0.02, 0.0, 0.02, 0.06])
def test_presses_by_two_ways_count_once(lag: float, report: float) -> None:
    keys = "1122333#"
    reports = said(keys, 0.3, by="other") + said(keys, 0.3, by="info", lag=lag, report=report)
    assert counted(reports) == keys


@pytest.mark.parametrize("held", [0.1, 0.5, 0.9])
def test_press_by_info_and_its_long_release_count_once(held: float) -> None:
    reports = said("1223#", 1.3, by="info") + said("1223#", 1.3, by="other", lag=held)
    assert counted(reports) == "1223#"


def test_info_that_the_switch_ignores_counts_nothing() -> None:
    """Without ``liberal-dtmf`` the switch reports the INFO, but no key of it."""
    ignored = [(at, key, True) for at, key, _ in said("1122#", 0.2, by="other", lag=-0.1)]
    assert counted(said("1122#", 0.2, by="other") + ignored) == "1122#"


def test_presses_by_two_ways_are_known_as_twofold() -> None:
    presses = Presses()
    for at, key in ((1.0, "1"), (1.5, "2")):
        presses.hear(key, at)
        presses.hear(key, at + 0.1)
        presses.hear_info(key, at + 0.11)
    assert presses.twofold


def test_presses_by_info_twice_are_not_twofold() -> None:
    presses = Presses()
    for at in (1.0, 1.1):
        presses.hear("1", at)
        presses.hear_info("1", at + 0.01)
    presses.hear("2", 1.5)
    assert not presses.twofold


def test_second_press_is_certain_after_a_while() -> None:
    presses = Presses()
    assert presses.hear("1", 1.0) == "1"
    assert presses.doubt(1.0) is None
    assert presses.hear("1", 1.1) == ""
    assert presses.doubt(1.1) == pytest.approx(SETTLED)
    assert presses.doubt(1.1 + SETTLED) == 0
    assert presses.settle() == "1"
    assert not presses.in_doubt


def test_equal_key_after_a_pause_is_a_press_at_once() -> None:
    presses = Presses()
    assert presses.hear("1", 1.0) + presses.hear("1", 1.0 + TOGETHER + 0.01) == "11"


@given(st.text("0123456789*#", max_size=12), st.floats(0.12, 0.6), st.floats(-0.1, 0.1), st.booleans())
def test_presses_are_those_of_the_phone(keys: str, period: float, lag: float, twice: bool) -> None:
    reports = said(keys, period, by="other")
    if twice:
        reports += said(keys, period, by="info", lag=lag)
    assert counted(reports) == keys


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("Signal=5\r\nDuration=160\r\n", "5"),
        ("Signal= *\r\nDuration= 160\r\n", "*"),
        ("signal=#", "#"),
        ("Signal=10\r\n", "*"),
        ("11", "#"),
        ("7\r\n", "7"),
        ("<media_control/>", None),
        ("", None),
        ("Signal=x", None),
    ],
)
def test_key_of_info_reads_both_kinds(body: str, key: str | None) -> None:
    assert key_of_info(body) == key

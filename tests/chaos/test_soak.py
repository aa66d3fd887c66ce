"""The soak in its short form, ``make soak`` with fewer calls; and its verdict on a node that leaks.

Only the long form checks memory: during the first thousands of calls it grows to its steady size.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos import soak
from tests.chaos.soak import EXACT, Reading, faults, soaking

HALF = 150


@pytest.mark.timeout(300)
def test_soak_node_gives_back_all_it_used() -> None:
    with soaking() as running:
        first = running.warm_up()
        running.run(HALF)
        middle = running.rest(first)
        running.run(HALF)
        last = running.rest(first)
        assert running.live() == 0
    for reading in (middle, last):
        assert {name: reading[name] for name in EXACT if reading[name] > first[name]} == {}
        assert reading.live == 0
        assert reading.calls == reading.records == reading.answered
    assert faults([first, middle, last]) == []


def readings() -> list[Reading]:
    """Readings of a run without faults."""
    figures = dict.fromkeys((*EXACT, "esl_apps_live_calls", "esl_apps_outbound_sockets", "esl_apps_outbox_depth"), 0.0)
    calls = range(0, soak.ENOUGH + 1, soak.ENOUGH // 10)
    return [Reading(count, float(count), {**figures, "rss_kb": 80_000.0}, count, count) for count in calls]


def test_soak_verdict_on_steady_figures_is_good() -> None:
    assert faults(readings()) == []


@pytest.mark.parametrize("name", EXACT)
def test_soak_verdict_names_what_was_not_given_back(name: str) -> None:
    leaks = readings()
    leaks[-1].figures[name] += 1
    assert [text.partition(":")[0] for text in faults(leaks)] == [name]


def test_soak_verdict_names_memory_that_keeps_growing() -> None:
    grows = readings()
    for one in grows[8:]:
        one.figures["rss_kb"] *= 1.03
    assert [text.partition(":")[0] for text in faults(grows)] == ["memory"]


def test_soak_verdict_names_missing_records_and_left_calls() -> None:
    lost = readings()
    lost[-1] = replace(lost[-1], records=lost[-1].records - 1)
    lost[-1].figures["esl_apps_live_calls"] = 1.0
    assert len(faults(lost)) == 2

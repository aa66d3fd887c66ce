"""Clocks that are set or wrong: times are moved, and the operator is told."""

from __future__ import annotations

import time

import pytest

from esl_apps.core import node_clock, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.node_clock import NodeClock
from esl_apps.core.status import snapshot
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.node.clocks import ClockWatch
from esl_apps.store.essence import restored
from tests.support.bench import Bench


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> NodeClock:
    """The process's clock, which is as it was after the test."""
    monkeypatch.setattr(node_clock.clock, "shift", 0.0)
    return node_clock.clock


def watch_of(bench: Bench, own: NodeClock) -> ClockWatch:
    services = bench.services
    return ClockWatch(services.switches, services.records, services.alerts, own)


@pytest.mark.parametrize("step", [-3600.0, -2.0, 2.0, 3600.0])
def test_clocks_step_of_the_node_moves_live_calls(
    bench: Bench, own: NodeClock, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """B's leg was read before the step, its talk ends after it."""
    switch = bench.services.switches[0]
    attempt = Attempt(app="disa", call_dir="external", queued_at=own.now())
    live = bench.services.calls.begin(attempt, switch)
    began = own.now()
    attempt.dialled(began)
    attempt.enter(terms.AGENT_ANSWERED, began + 1.0)
    attempt.enter(terms.BRIDGED, began + 2.0)
    ahead, ended_at = switch.clock.ahead_of_system, began + 7.0
    system = time.time
    monkeypatch.setattr(time, "time", lambda: system() + step)
    watch_of(bench, own).look()
    shown = snapshot(attempt)
    assert shown["bridged_at"] == pytest.approx(began + 2.0 + step, abs=0.5)
    assert shown["timeline"][-1]["at"] == pytest.approx(began + 2.0 + step, abs=0.5)
    assert live.essence.bridged_at == pytest.approx(began + 2.0 + step, abs=0.5)
    assert restored(live.essence).bridged_at == pytest.approx(began + 2.0, abs=0.001)
    # The switch has not stepped, so it is off by as much now, and its times are read as before.
    assert switch.clock.ahead_of_system == pytest.approx(ahead - step, abs=0.5)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, ended_at)
    record = bench.record()
    assert record["call_time"] == 7
    assert record["ended_at"] - record["bridged_at"] == pytest.approx(5.0, abs=0.01)
    assert record["ended_at"] == pytest.approx(ended_at + step, abs=0.5)


def test_clocks_that_go_on_change_nothing(bench: Bench) -> None:
    attempt = Attempt(app="disa", call_dir="external")
    bench.services.calls.begin(attempt, bench.services.switches[0])
    before = attempt.queued_at
    watch_of(bench, NodeClock()).look()
    assert attempt.queued_at == before


def test_clocks_wrong_switch_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    watch = watch_of(bench, NodeClock())
    for ahead in (0.9, -0.9, 1.1, 1.2, -3600.0, 0.0, -1.1):
        bench.services.switches[0].clock = SwitchClock(ahead)
        watch.look()
    told = [record.message for record in caplog.records if record.message.startswith("switch_clock")]
    assert told == ["switch_clock_wrong", "switch_clock_right", "switch_clock_wrong"]
    alerts = [vars(record)["alert"] for record in caplog.records if record.message == "alert_raised"]
    assert alerts == ["switch_clock", "switch_clock"]

"""Clocks that are set or wrong: times are moved, and the operator is told."""

from __future__ import annotations

import time

import pytest

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.node_clock import NodeClock
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.node.clocks import ClockWatch
from tests.support.bench import Bench


def watch_of(bench: Bench, own: NodeClock) -> ClockWatch:
    services = bench.services
    return ClockWatch(services.switches, services.calls.live, services.records, services.alerts, own)


@pytest.mark.parametrize("step", [-3600.0, -2.0, 2.0, 3600.0])
def test_clocks_step_of_the_node_moves_live_calls(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    own, switch = NodeClock(), bench.services.switches[0]
    attempt = Attempt(app="disa", call_dir="external", queued_at=own.now())
    bench.services.calls.begin(attempt, switch)
    attempt.dialled(own.now())
    attempt.enter(terms.AGENT_ANSWERED, own.now())
    before, began = attempt.dialed_at, attempt.timeline[-1].at
    system = time.time
    monkeypatch.setattr(time, "time", lambda: system() + step)
    watch_of(bench, own).look()
    assert abs(own.now() - time.time()) < 1.0
    assert before is not None
    assert attempt.dialed_at == pytest.approx(before + step, abs=0.5)
    assert attempt.timeline[-1].at == pytest.approx(began + step, abs=0.5)
    attempt.end(terms.ANSWERED, 16, terms.AGENT, own.now())
    assert bench.record()["call_time"] == 0


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

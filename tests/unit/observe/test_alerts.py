"""Alerts for a person: a metric, a log line, and an event on one switch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from esl_apps.observe.alerts import KINDS, Alerts
from esl_apps.observe.metrics import Metrics
from tests.support import ROOT


@dataclass
class PlayedSwitch:
    connected: bool = True
    posted: list[str] = field(default_factory=list)

    def post_raw(self, raw: bytes) -> None:
        self.posted.append(raw.decode())


def tell(*switches: PlayedSwitch, **details: object) -> Metrics:
    metrics = Metrics()
    played: Any = switches
    Alerts(metrics, lambda: played).tell("breaker", **details)
    return metrics


def test_alert_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    metrics = tell(scope="system", why="minutes_per_day")
    assert metrics.registry.get_sample_value("esl_apps_alerts_total", {"alert": "breaker"}) == 1.0
    (record,) = caplog.records
    assert vars(record).items() >= {"alert": "breaker", "scope": "system", "why": "minutes_per_day"}.items()


def test_alert_kinds_are_those_that_are_raised() -> None:
    """Only a kind that is known at the start can raise an alarm the first time."""
    raised = {
        match[1]
        for path in (ROOT / "esl_apps").rglob("*.py")
        for match in re.finditer(r'\b_?(?:alerts\.)?tell\("(\w+)", \w+=', path.read_text())
    }
    assert raised == set(KINDS)


def test_alert_goes_to_the_first_switch_that_is_connected() -> None:
    """A listener to all switches must see one event."""
    away, first, second = PlayedSwitch(connected=False), PlayedSwitch(), PlayedSwitch()
    tell(away, first, second, scope="system")
    assert (len(away.posted), len(first.posted), len(second.posted)) == (0, 1, 0)
    assert "Event-Subclass: esl_apps::alert" in first.posted[0]
    assert "esl_alert: breaker" in first.posted[0]
    assert "esl_scope: system" in first.posted[0]


@pytest.mark.parametrize("text", ["x\n\napi shutdown", "x\r\nesl_alert: forged", "x\x00", "Zoë"])
def test_alert_values_put_nothing_of_their_own_on_the_wire(text: str) -> None:
    switch = PlayedSwitch()
    tell(switch, caller=text)
    (event,) = switch.posted
    (line,) = [line for line in event.split("\n") if line.startswith("esl_caller: ")]
    assert line == "esl_caller: " + "".join(char if " " <= char <= "~" else "?" for char in text)
    assert "api shutdown" not in event.split("\n")


def test_alert_without_a_switch_is_still_told() -> None:
    assert tell().registry.get_sample_value("esl_apps_alerts_total", {"alert": "breaker"}) == 1.0

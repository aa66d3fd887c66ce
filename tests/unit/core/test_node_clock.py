"""The node's clock goes on while the system's is set, until it is told to follow."""

from __future__ import annotations

import time

import pytest

from esl_apps.core.node_clock import NodeClock


def test_node_clock_is_the_systems_at_first() -> None:
    assert abs(NodeClock().now() - time.time()) < 1.0


def test_node_clock_follows_a_step_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = NodeClock()
    before, system = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: system() + 3600.0)
    assert clock.now() - before < 60.0
    assert abs(clock.behind() - 3600.0) < 1.0
    clock.follow(clock.behind())
    assert clock.now() - before < 60.0
    assert abs(clock.shown(clock.now()) - time.time()) < 1.0

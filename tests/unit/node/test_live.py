"""Waiting for a live call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.node import live as live_module
from esl_apps.node.live import Live


class Flag:
    """Sleeps for as long as it is told, and for ``late`` seconds more; then the switch says something."""

    def __init__(self, late: float) -> None:
        self.now, self.late, self.heard = 100.0, late, False
        self.slept: list[float] = []

    def clear(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.heard = bool(self.slept)
        self.slept.append(seconds)
        self.now += seconds + (self.late if len(self.slept) == 1 else 0.0)


@pytest.mark.parametrize(("late", "heard"), [(0.2, False), (10.0, True)])
def test_live_wait_of_a_stopped_process_reads_what_has_come(
    monkeypatch: pytest.MonkeyPatch, late: float, heard: bool
) -> None:
    live = Live(Attempt(app="click-dial", call_dir="internal"), cast("Any", None))
    flag = Flag(late)
    live.changed = cast("Any", flag)
    monkeypatch.setattr(live_module, "time", SimpleNamespace(monotonic=lambda: flag.now))
    assert live.wait(lambda: flag.heard, 105.0) is heard
    assert flag.slept[0] == 5.0

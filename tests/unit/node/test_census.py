"""Strangers on a switch, and who looks for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from esl_apps.node import census
from esl_apps.process import background
from tests.support.peer import eventually


def test_strangers_are_sought_by_one_task_for_each_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the next one comes while the first task rests, with nothing left: the second would take its numbers."""
    begun: list[Any] = []

    def once(task: str, work: Any, *args: Any) -> None:
        begun.append(gevent.spawn(work, *args))

    monkeypatch.setattr(background, "once", once)
    monkeypatch.setattr(census, "SOUGHT", -1.0)
    monkeypatch.setattr(census, "EVERY", 0.01)
    switch: Any = SimpleNamespace(name="fs1", api=lambda _command: '{"rows": []}')
    strangers = census.Strangers()
    strangers.end(switch, "park", "one")
    gevent.sleep(0)
    strangers.end(switch, "park", "two")
    assert len(begun) == 1
    eventually(lambda: begun[0].dead)
    assert begun[0].successful()
    strangers.end(switch, "park", "three")
    assert len(begun) == 2

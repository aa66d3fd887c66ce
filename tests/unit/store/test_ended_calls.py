"""What a list need not read again."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.store import ended_calls
from esl_apps.store.ended_calls import TRUSTED, EndedCalls
from tests.support.clock import Clock


def call(ref: str = "a", **fields: Any) -> dict[str, Any]:
    return {"call_ref": ref, "state": "ended", "agent": "1000", "contact_ref": "x", "callee": "2000", **fields}


def test_ended_call_is_excluded_by_each_field() -> None:
    ended = EndedCalls()
    ended.remember(call())
    for wanted in ({"state": "queued"}, {"agent": "1001"}, {"contact_ref": "y"}, {"state": "ended", "agent": "1"}):
        assert ended.excludes("a", wanted)
    # The last one is a field that isn't remembered.
    for wanted in ({"state": "ended"}, {"agent": "1000", "contact_ref": "x"}, {}, {"callee": "9"}):
        assert not ended.excludes("a", wanted)
    assert not ended.excludes("b", {"agent": "1001"})


def test_call_that_has_not_ended_is_not_remembered() -> None:
    ended = EndedCalls()
    ended.remember(call(state="queued"))
    assert not ended.excludes("a", {"agent": "1001"})


def test_ended_call_is_read_again_after_a_time() -> None:
    clock = Clock()
    ended = EndedCalls(clock)
    ended.remember(call())
    clock.now += TRUSTED - 1
    assert ended.excludes("a", {"state": "queued"})
    clock.now += 1
    assert not ended.excludes("a", {"state": "queued"})


def test_ended_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_calls, "MOST", 3)
    ended = EndedCalls()
    for ref in "abcde":
        ended.remember(call(ref))
    assert len(ended) == 3
    assert [ended.excludes(ref, {"agent": "1001"}) for ref in "abcde"] == [False, False, True, True, True]

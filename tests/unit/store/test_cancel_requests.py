"""Requests to cancel calls, from nodes that don't reach their switches."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.cancel_requests import CancelRequests


def test_cancel_requests_are_read_once_by_each_process(client: Any) -> None:
    asking, first, second = CancelRequests(client), CancelRequests(client), CancelRequests(client)
    assert first.new() == []
    asking.add("r-1")
    asking.add("r-2")
    assert first.new() == ["r-1", "r-2"]
    asking.add("r-3")
    assert (first.new(), first.new(), second.new()) == (["r-3"], [], ["r-1", "r-2", "r-3"])


def test_cancel_requests_are_kept_within_bounds(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.store.cancel_requests._KEPT", 10)
    requests = CancelRequests(client)
    for number in range(250):
        requests.add(f"r-{number}")
    # Redis drops whole pieces of a hundred.
    (entries,) = client.send_all([("XRANGE", keys.CANCELS, "-", "+")])
    assert len(entries) <= 110


def test_cancel_requests_say_that_redis_is_down(away: Any) -> None:
    with pytest.raises(StoreUnavailable):
        CancelRequests(away).add("r-1")

"""Waiting calls, as operators see and drop them."""

from __future__ import annotations

import pytest

from esl_apps.operations import waiting
from esl_apps.store import redis_client
from esl_apps.store.timed_calls import LISTED, TimedCalls
from tests.support.node import RedisServer


@pytest.fixture
def autodials(redis: RedisServer) -> TimedCalls:
    return TimedCalls(redis_client.connect(redis.url), "app1", "autodials")


def test_drop_finds_a_call_that_is_not_listed(autodials: TimedCalls) -> None:
    """More may wait than a person is shown."""
    for number in range(LISTED + 1):
        autodials.schedule(f"ref-{number}", ["acme"], 1000.0 + number, now=0.0, owner=f"acme{number}", most=1)
    stores, last = {"autodial": autodials}, f"autodial/ref-{LISTED}"
    assert last not in {call["key"] for call in waiting.listed(stores)}
    assert waiting.drop(stores, last) is True
    assert waiting.drop(stores, last) is False

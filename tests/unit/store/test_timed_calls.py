"""Timed calls: one per number, each placed by one node, even if nodes die."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from esl_apps.core.timed_call import Frequency, Scheduled, TimedCall
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys, redis_client
from esl_apps.store.timed_calls import RELEASE_FOR, UNUSED_PAUSE, TimedCalls
from tests.support.node import RedisServer
from tests.support.threads import at_once

NUMBER, CARD, DNIS = "27820001234", "c" * 32, "5142223333"
#: A Monday, 23:00 UTC.
EVENING = 1_700_002_800.0
#: The noon after it.
NOON = EVENING + 13 * 3600
RULES: dict[str, Any] = {"cool_down": 60, "per_day": 10}


@pytest.fixture
def callbacks(client: Any) -> TimedCalls:
    return TimedCalls(client, "one", "callbacks")


@pytest.fixture
def other(connect: Callable[[], Any]) -> TimedCalls:
    """Another node."""
    return TimedCalls(connect(), "two", "callbacks")


def schedule(callbacks: TimedCalls, now: float = EVENING, number: str = NUMBER, **rules: Any) -> str | None:
    """Schedule a call; return why it was refused, or None."""
    scheduled = callbacks.schedule(number, [CARD, DNIS], now + 3, now=now, frequency=Frequency(**{**RULES, **rules}))
    assert bool(scheduled) == (scheduled.refused is None)
    return scheduled.refused


def take(callbacks: TimedCalls, now: float) -> TimedCall:
    pending = callbacks.claim_due(now, 30)
    assert pending is not None
    return pending


def test_schedule_by_ten_at_once_makes_one_call(connect: Callable[[], Any], callbacks: TimedCalls) -> None:
    nodes = [TimedCalls(connect(), f"node{i}", "callbacks") for i in range(10)]
    results = at_once([partial(schedule, nodes[i]) for i in range(10)])
    assert sorted(results, key=str) == [None] + ["pending"] * 9
    take(callbacks, EVENING + 3)
    assert callbacks.claim_due(EVENING + 4, 30) is None


def test_each_call_is_taken_by_one_node(connect: Callable[[], Any], callbacks: TimedCalls) -> None:
    for i in range(100):
        assert schedule(callbacks, number=str(27820000000 + i)) is None

    def poll(node: TimedCalls) -> list[str]:
        taken = []
        while (pending := node.claim_due(EVENING + 3, 30)) is not None:
            taken.append(pending.number)
        return taken

    nodes = [TimedCalls(connect(), f"node{i}", "callbacks") for i in range(4)]
    results: list[Any] = at_once([partial(poll, node) for node in nodes])
    taken = [number for result in results for number in result]
    assert sorted(taken) == [str(27820000000 + i) for i in range(100)]


def test_schedule_that_comes_late_has_no_effect(callbacks: TimedCalls) -> None:
    """``until`` is by Redis's own clock: the node doesn't wait for the command any more."""

    def ask(until: float) -> Scheduled:
        return callbacks.schedule("ref", [CARD], NOON, now=EVENING, owner="acme", most=9, until=until)

    before = time.time()
    refused = ask(before - 1)
    assert refused.refused == "late"
    assert before - 0.1 <= refused.at <= time.time() + 0.1
    assert callbacks.waiting() == []
    assert ask(time.time() + 60)
    assert ask(time.time() - 1).refused == "pending"


def test_call_is_taken_when_due_and_not_before(callbacks: TimedCalls) -> None:
    assert callbacks.waiting() == []
    schedule(callbacks)
    assert callbacks.waiting()[0].due_at == EVENING + 3
    assert callbacks.claim_due(EVENING + 2.9, 30) is None
    pending = take(callbacks, EVENING + 3)
    assert (pending.number, pending.data, pending.attempt) == (NUMBER, (CARD, DNIS), 1)
    assert callbacks.waiting()[0].due_at == EVENING + 33


def test_earliest_call_is_taken_first(callbacks: TimedCalls) -> None:
    schedule(callbacks, EVENING + 5, "27820000002")
    schedule(callbacks, EVENING, "27820000001")
    assert take(callbacks, EVENING + 60).number == "27820000001"
    assert take(callbacks, EVENING + 60).number == "27820000002"


def test_call_of_a_dead_node_goes_to_one_other(callbacks: TimedCalls, other: TimedCalls) -> None:
    schedule(callbacks)
    lost = take(callbacks, EVENING + 3)
    assert other.claim_due(EVENING + 32, 30) is None
    found = take(other, EVENING + 33)
    assert (found.id, found.attempt) == (lost.id, 2)
    # The first node was not dead but stopped. Its claim has no effect any more.
    assert not callbacks.done(lost, EVENING + 34)
    assert not callbacks.retry(lost, EVENING + 34)
    assert not callbacks.release(lost, EVENING + 34)
    assert callbacks.claim_due(EVENING + 40, 30) is None
    assert other.done(found, EVENING + 40)
    assert callbacks.waiting() == []
    assert not other.done(found, EVENING + 40)


def test_call_that_is_renewed_is_taken_by_no_other(callbacks: TimedCalls, other: TimedCalls) -> None:
    schedule(callbacks)
    call = take(callbacks, EVENING + 3)
    assert callbacks.renew(call, EVENING + 20, 30)
    assert other.claim_due(EVENING + 49, 30) is None
    assert take(other, EVENING + 50).attempt == 2
    assert not callbacks.renew(call, EVENING + 51, 300)
    assert take(callbacks, EVENING + 80).attempt == 3


def test_retry_is_the_same_call(callbacks: TimedCalls, other: TimedCalls) -> None:
    schedule(callbacks)
    first = take(callbacks, EVENING + 3)
    assert callbacks.retry(first, EVENING + 100)
    assert callbacks.claim_due(EVENING + 99, 30) is None
    # Another missed call meanwhile doesn't schedule a second one.
    assert schedule(callbacks, EVENING + 50) == "pending"
    second = take(other, EVENING + 100)
    assert (second.id, second.attempt) == (first.id, 2)
    assert not callbacks.retry(first, EVENING + 200)


def test_call_released_untried_does_not_count_as_an_attempt(callbacks: TimedCalls, other: TimedCalls) -> None:
    schedule(callbacks)
    assert callbacks.release(take(callbacks, EVENING + 3), EVENING + 3)
    # A full node doesn't get the call back at once.
    assert callbacks.claim_due(EVENING + 3, 30) is None
    assert take(other, EVENING + 3 + RELEASE_FOR).attempt == 1


def test_cool_down_refuses_a_number_for_a_while(callbacks: TimedCalls) -> None:
    schedule(callbacks)
    callbacks.done(take(callbacks, EVENING + 3), EVENING + 20)
    assert schedule(callbacks, EVENING + 79) == "cool_down"
    assert schedule(callbacks, EVENING + 79, "27820009999") is None
    assert schedule(callbacks, EVENING + 80) is None


def test_cool_down_longer_than_a_day_holds(callbacks: TimedCalls, server: RedisServer) -> None:
    schedule(callbacks, cool_down=200_000)
    callbacks.done(take(callbacks, EVENING + 3), EVENING + 20)
    assert server.client.ttl(keys.timed_past("callbacks", NUMBER)) > 199_000
    assert schedule(callbacks, EVENING + 200_000, cool_down=200_000) == "cool_down"


def test_cap_of_a_day_holds_until_midnight(callbacks: TimedCalls) -> None:
    now = EVENING
    for _ in range(2):
        assert schedule(callbacks, now, per_day=2, cool_down=0) is None
        callbacks.done(take(callbacks, now + 3), now + 3)
        now += 10
    assert schedule(callbacks, now, per_day=2, cool_down=0) == "per_day"
    assert schedule(callbacks, EVENING + 3599, per_day=2, cool_down=0) == "per_day"
    # Midnight UTC.
    assert schedule(callbacks, EVENING + 3600, per_day=2, cool_down=0) is None
    assert schedule(callbacks, number="27820009999", per_day=0) == "per_day"


def test_done_call_leaves_only_what_the_limits_need(callbacks: TimedCalls, server: RedisServer) -> None:
    schedule(callbacks)
    callbacks.done(take(callbacks, EVENING + 3), EVENING + 20)
    [key] = list(server.client.scan_iter())
    assert key == keys.timed_past("callbacks", NUMBER)
    assert 0 < server.client.ttl(key) <= 86400
    # A call that outlives the record of its number leaves nothing without an expiry, either.
    schedule(callbacks, EVENING + 80)
    server.client.delete(key)
    callbacks.done(take(callbacks, EVENING + 83), EVENING + 84)
    assert 0 < server.client.ttl(key) <= 86400


def test_call_survives_redis_and_its_node() -> None:
    server = RedisServer(persistent=True)
    schedule(TimedCalls(redis_client.connect(server.url), "one", "callbacks"))
    server.kill()
    server.start()
    assert take(TimedCalls(redis_client.connect(server.url), "two", "callbacks"), EVENING + 3).number == NUMBER
    server.close()


def test_every_method_raises_while_redis_is_down(away: Any) -> None:
    callbacks = TimedCalls(away, "one", "callbacks")
    pending = TimedCall("id", NUMBER, (CARD, DNIS), 1, "one:1")
    asked: list[Callable[[], object]] = [
        lambda: schedule(callbacks),
        lambda: callbacks.claim_due(EVENING, 30),
        lambda: callbacks.retry(pending, EVENING),
        lambda: callbacks.release(pending, EVENING),
        lambda: callbacks.done(pending, EVENING),
        lambda: callbacks.used(NUMBER, EVENING),
        callbacks.waiting,
        lambda: callbacks.waiting_of("acme"),
        lambda: callbacks.drop(NUMBER, ""),
    ]
    for ask in asked:
        with pytest.raises(StoreUnavailable):
            ask()


# Using up a number's calls --------------------------------------------------------------------------

FORGED: dict[str, Any] = {"cool_down": 60, "per_day": 10, "unused_per_day": 50}


def unused(callbacks: TimedCalls, times: int, now: float = NOON) -> float:
    """Schedule calls that come to nothing, a minute apart; return when the next could come."""
    for _ in range(times):
        assert schedule(callbacks, now, **FORGED) is None
        callbacks.done(take(callbacks, now + 3), now + 3)
        now += 63
    return now


def test_forged_calls_leave_a_number_its_calls(callbacks: TimedCalls) -> None:
    now = unused(callbacks, 10)
    for _ in range(10):
        assert schedule(callbacks, now, **FORGED) is None
        callbacks.done(take(callbacks, now + 3), now + 3)
        callbacks.used(NUMBER, now + 5)
        now += 63
    assert schedule(callbacks, now, **FORGED) == "per_day"


def test_many_forged_calls_delay_by_an_hour_at_most(callbacks: TimedCalls) -> None:
    now = unused(callbacks, 50)
    assert schedule(callbacks, now, **FORGED) == "cool_down"
    assert schedule(callbacks, now - 60 + UNUSED_PAUSE, **FORGED) is None


def test_used_call_of_yesterday_is_not_counted_today(callbacks: TimedCalls) -> None:
    unused(callbacks, 1)
    callbacks.used(NUMBER, NOON + 86_400)
    assert schedule(callbacks, NOON + 86_400, per_day=1, unused_per_day=9) is None


# Owners ---------------------------------------------------------------------------------------------------


def owned(callbacks: TimedCalls, ref: str, owner: str = "acme", most: int = 2, due_at: float = NOON + 9) -> str | None:
    return callbacks.schedule(ref, [CARD], due_at, now=NOON, owner=owner, most=most).refused


def test_owner_has_as_many_calls_as_allowed(callbacks: TimedCalls) -> None:
    assert owned(callbacks, "one") is None
    assert owned(callbacks, "two", due_at=NOON + 5) is None
    assert owned(callbacks, "three") == "too_many"
    assert owned(callbacks, "three", owner="other") is None
    assert [call.number for call in callbacks.waiting_of("acme")] == ["one", "two"]
    assert {(call.number, call.owner) for call in callbacks.waiting()} == {
        ("two", "acme"),
        ("one", "acme"),
        ("three", "other"),
    }
    callbacks.done(take(callbacks, NOON + 5), NOON + 6)
    assert owned(callbacks, "three") == "pending"
    assert owned(callbacks, "four") is None


def test_call_waits_until_it_is_dropped_by_its_owner(callbacks: TimedCalls, server: RedisServer) -> None:
    owned(callbacks, "one")
    assert callbacks.drop("one", "other") is False
    assert callbacks.drop("one", "") is False
    assert callbacks.drop("two", "acme") is False
    assert callbacks.drop("one", "acme") is True
    assert callbacks.drop("one", "acme") is False
    assert (callbacks.waiting(), callbacks.waiting_of("acme")) == ([], [])
    # A node ends it at once.
    dropped = take(callbacks, NOON)
    assert dropped.dropped
    assert callbacks.done(dropped, NOON)
    assert list(server.client.scan_iter()) == []


def test_call_that_is_being_placed_is_not_dropped(callbacks: TimedCalls) -> None:
    owned(callbacks, "one")
    taken = take(callbacks, NOON + 9)
    assert taken.owner == "acme"
    assert callbacks.drop("one", "acme") is None
    assert [call.placing for call in callbacks.waiting()] == [True]


def test_call_of_a_later_version_is_left_to_others(callbacks: TimedCalls, client: Any) -> None:
    """It costs no attempt, holds up no other, and a node that can read it has it within a second."""
    assert schedule(callbacks) is None
    assert schedule(callbacks, number="27820001235", now=EVENING + 1) is None
    pending = keys.timed_pending("callbacks")
    raw = client.hget(pending, NUMBER)
    client.hset(pending, NUMBER, raw[:-1] + b',{"v":3}]')
    assert take(callbacks, EVENING + 10).number == "27820001235"
    assert callbacks.claim_due(EVENING + 10.5, 30) is None
    assert [waiting.number for waiting in callbacks.waiting()] == ["27820001235"]
    # One version ahead.
    client.hset(pending, NUMBER, raw[:-1] + b',{"v":2}]')
    found = take(callbacks, EVENING + 10 + RELEASE_FOR)
    assert (found.number, found.data, found.attempt) == (NUMBER, (CARD, DNIS), 1)

"""Limits across nodes: never one call too many, and given back however a call or a node ends."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from esl_apps import redisclient
from esl_apps.core.cards import Limits, Unavailable
from esl_apps.usage import CALLS_PER_HOUR, MINUTES_PER_DAY, UsageStore
from tests.cards.conftest import everything
from tests.node import RedisServer

HOLDER, KEY = "user:acme:u1", "card:1"
TRIALS = 1000
#: A Monday, 23:00 UTC.
EVENING = 1_700_002_800.0


class Clock:
    def __init__(self, at: float = EVENING) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def usage(client: Any, clock: Clock) -> UsageStore:
    return UsageStore(client, "one", clock=clock)


@pytest.fixture
def other(connect: Callable[[], Any], clock: Clock) -> UsageStore:
    """Another node."""
    return UsageStore(connect(), "two", clock=clock)


# Concurrent calls ------------------------------------------------------------------------------------


def _enter_at_each_trial(url: str, name: str, barrier: Any, passed: Any) -> None:
    usage = UsageStore(redisclient.connect(url), name)
    usage.enter("warm-up", 2, name)
    for trial in range(TRIALS):
        barrier.wait(60)
        passed[trial] += usage.enter(f"card:{trial}", 1, f"{name}-{trial}")


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_of_two_calls_at_the_same_instant_one_passes_at_every_trial(server: RedisServer) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    passed = [spawn.Array("i", TRIALS, lock=False) for _ in range(2)]
    nodes = [
        spawn.Process(target=_enter_at_each_trial, args=(server.url, f"node{i}", barrier, passed[i])) for i in range(2)
    ]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
        assert node.exitcode == 0
    assert [one + two for one, two in zip(*passed, strict=True)] == [1] * TRIALS
    # It was a race: neither of them won them all.
    assert 0 < sum(passed[0]) < TRIALS


def test_a_limit_of_none_lets_nobody_in(usage: UsageStore, server: RedisServer) -> None:
    assert not usage.enter(HOLDER, 0, "a")
    assert everything(server) == "[]"


def test_a_call_counts_once_and_is_given_back(usage: UsageStore, other: UsageStore) -> None:
    assert usage.enter(HOLDER, 2, "a")
    assert usage.enter(HOLDER, 2, "a")
    assert other.enter(HOLDER, 2, "b")
    assert not other.enter(HOLDER, 2, "c")
    assert other.enter("user:acme:u2", 1, "c")
    usage.leave(HOLDER, "a")
    usage.leave(HOLDER, "a")
    assert other.enter(HOLDER, 2, "c")
    assert not usage.enter(HOLDER, 2, "a")


def test_a_dead_nodes_calls_are_given_back(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    assert usage.enter(HOLDER, 1, "a")
    clock.at += 29
    assert not other.enter(HOLDER, 1, "b")
    clock.at += 2
    assert other.enter(HOLDER, 1, "b")


def test_a_live_nodes_calls_are_not(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    assert usage.enter(HOLDER, 1, "a")
    for _ in range(5):
        clock.at += 10
        usage.renew()
        assert not other.enter(HOLDER, 1, "b")


def test_a_call_that_is_up_counts_again_after_redis_came_back_empty(
    usage: UsageStore, other: UsageStore, server: RedisServer
) -> None:
    assert usage.enter(HOLDER, 1, "a")
    server.client.flushall()
    usage.renew()
    assert not other.enter(HOLDER, 1, "b")


def test_a_call_that_ends_while_it_is_renewed_is_given_back(
    usage: UsageStore, other: UsageStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usage.enter(HOLDER, 1, "a")
    pipeline = client.pipeline

    def slow(**options: Any) -> Any:
        # The call ends between the moment when renew looked and the moment when Redis hears of it.
        usage.leave(HOLDER, "a")
        return pipeline(**options)

    monkeypatch.setattr(client, "pipeline", slow)
    usage.renew()
    assert other.enter(HOLDER, 1, "b")


def test_the_heartbeat_renews_until_it_stops(client: Any, connect: Callable[[], Any]) -> None:
    usage, other = UsageStore(client, "one", lease=0.3), UsageStore(connect(), "two", lease=0.3)
    usage.start()
    assert usage.enter(HOLDER, 1, "a")
    gevent.sleep(0.7)
    assert not other.enter(HOLDER, 1, "b")
    usage.stop()
    time.sleep(0.35)
    assert other.enter(HOLDER, 1, "b")


@pytest.mark.parametrize("server", ["alone"], indirect=True)
def test_a_killed_process_loses_its_calls_and_only_those(server: RedisServer, client: Any) -> None:
    program = f"""
import gevent.monkey; gevent.monkey.patch_all()
import gevent
from esl_apps.redisclient import connect
from esl_apps.usage import UsageStore
usage = UsageStore(connect({server.url!r}), "doomed", lease=1.0)
usage.start()
print(usage.enter({HOLDER!r}, 2, "theirs"), flush=True)
gevent.sleep(60)
"""
    mine = UsageStore(client, "mine", lease=30)
    assert mine.enter(HOLDER, 2, "mine")
    node = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert node.stdout is not None
    assert node.stdout.readline() == b"True\n"
    time.sleep(1.2)
    assert not mine.enter(HOLDER, 2, "next")
    node.kill()
    node.wait()
    assert not mine.enter(HOLDER, 2, "next")
    time.sleep(1.1)
    assert mine.enter(HOLDER, 2, "next")
    assert not mine.enter(HOLDER, 2, "one too many")


def test_leases_go_by_redis_own_clock(client: Any, server: RedisServer) -> None:
    UsageStore(client, "one", lease=30).enter(HOLDER, 1, "a")
    [(_call, ends)] = server.client.zrange(f"esl_apps:concurrent:{{{HOLDER}}}", 0, -1, withscores=True)
    assert abs(ends - time.time() - 30) < 1
    assert 28000 < server.client.pttl(f"esl_apps:concurrent:{{{HOLDER}}}") <= 30000


# Calls an hour ---------------------------------------------------------------------------------------


def test_in_any_hour_no_more_than_the_limit(usage: UsageStore, other: UsageStore, clock: Clock) -> None:
    keys = {KEY: Limits(calls_per_hour=2)}
    assert usage.begin_call(keys, "a") is None
    clock.at += 1800
    assert other.begin_call(keys, "b") is None
    assert usage.begin_call(keys, "c") == CALLS_PER_HOUR
    clock.at += 1799
    assert usage.begin_call(keys, "c") == CALLS_PER_HOUR
    clock.at += 2
    assert usage.begin_call(keys, "c") is None
    assert usage.begin_call(keys, "d") == CALLS_PER_HOUR


def test_the_same_call_counts_once(usage: UsageStore) -> None:
    keys = {KEY: Limits(calls_per_hour=1)}
    assert usage.begin_call(keys, "a") is None
    assert usage.begin_call(keys, "a") is None
    assert usage.begin_call(keys, "b") == CALLS_PER_HOUR


def test_a_call_that_one_limit_refuses_counts_against_none(usage: UsageStore) -> None:
    both = {KEY: Limits(calls_per_hour=2), "account:acme": Limits(calls_per_hour=1)}
    assert usage.begin_call(both, "a") is None
    for i in range(5):
        assert usage.begin_call(both, f"b{i}") == CALLS_PER_HOUR
    # Only "a" was dialled: the card has one left.
    assert usage.begin_call({KEY: both[KEY]}, "c") is None
    assert usage.begin_call({KEY: both[KEY]}, "d") == CALLS_PER_HOUR


def test_what_has_no_bound_asks_nobody(away: Any) -> None:
    usage = UsageStore(away, "one")
    keys = {KEY: Limits(), "account:acme": Limits(longest_call=60)}
    assert usage.begin_call(keys, "a") is None
    assert usage.seconds_left(keys) == 60
    assert usage.seconds_left({}) is None
    usage.end_call(keys, 10)


# Minutes a day ---------------------------------------------------------------------------------------


def test_a_days_minutes_are_counted_over_nodes_and_end_at_midnight(
    usage: UsageStore, other: UsageStore, clock: Clock, server: RedisServer
) -> None:
    keys = {KEY: Limits(minutes_per_day=2)}
    assert usage.seconds_left(keys) == 120
    usage.end_call(keys, 50.5)
    assert other.seconds_left(keys) == pytest.approx(69.5)
    assert other.begin_call(keys, "a") is None
    other.end_call(keys, 80)
    assert usage.seconds_left(keys) == 0
    assert usage.begin_call(keys, "b") == MINUTES_PER_DAY
    clock.at += 3599
    assert usage.begin_call(keys, "b") == MINUTES_PER_DAY
    clock.at += 2
    assert usage.begin_call(keys, "b") is None
    assert usage.seconds_left(keys) == 120
    usage.end_call(keys, 1)
    # Yesterday is kept no longer than it is needed.
    assert len(server.client.hgetall(f"esl_apps:usage:{{{KEY}}}:seconds")) == 1


def test_a_call_may_last_as_the_least_of_all_limits_lets_it(usage: UsageStore) -> None:
    keys = {KEY: Limits(longest_call=90), "account:acme": Limits(minutes_per_day=1, longest_call=300)}
    assert usage.seconds_left(keys) == 60
    usage.end_call({"account:acme": keys["account:acme"]}, 45)
    assert usage.seconds_left(keys) == 15


# Redis away ------------------------------------------------------------------------------------------


def test_limits_fail_closed(away: Any) -> None:
    usage = UsageStore(away, "one")
    keys = {KEY: Limits(calls_per_hour=5, minutes_per_day=5)}
    for ask in (
        lambda: usage.enter(HOLDER, 5, "a"),
        lambda: usage.begin_call(keys, "a"),
        lambda: usage.seconds_left(keys),
    ):
        with pytest.raises(Unavailable):
            ask()


def test_an_end_is_never_an_error_and_its_minutes_are_counted_when_redis_is_back() -> None:
    server = RedisServer()
    usage = UsageStore(redisclient.connect(server.url), "one", lease=0.3)
    keys = {KEY: Limits(minutes_per_day=10)}
    assert usage.enter(HOLDER, 1, "a")
    server.kill()
    usage.leave(HOLDER, "a")
    usage.end_call(keys, 60)
    usage.end_call(keys, 30)
    usage.start()
    gevent.sleep(0.2)
    server.start()
    end = time.monotonic() + 5
    while usage.seconds_left(keys) != 600 - 90:
        assert time.monotonic() < end
        gevent.sleep(0.05)
    usage.stop()
    assert usage.enter(HOLDER, 1, "b")
    server.close()

"""The poller of breakers, and breakers that Redis lost. ``test_usage.py`` tests what trips one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from esl_apps.core.limits import Level
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import breakers as breakers_module
from esl_apps.store import keys
from esl_apps.store.breakers import Breakers, Trip
from tests.support.node import RedisServer


class Node:
    def __init__(self, client: Any, name: str) -> None:
        self.alerts: list[str] = []
        self.learnt: list[str] = []
        self.breakers = Breakers(client, name, tell=self._tell, on_trip=self._learn)

    def _tell(self, _kind: str, *, scope: str, **_details: object) -> None:
        self.alerts.append(scope)

    def _learn(self, scope: str, _trip: Trip) -> None:
        self.learnt.append(scope)


@pytest.fixture
def one(client: Any) -> Node:
    return Node(client, "one")


@pytest.fixture
def two(connect: Callable[[], Any]) -> Node:
    return Node(connect(), "two")


def wait_for(condition: Callable[[], object]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers_module, "POLL", 0.02)


def test_poller_learns_of_a_trip_and_of_its_reset(one: Node, two: Node) -> None:
    two.breakers.start()
    assert two.breakers.count == 0
    assert one.breakers.trip("account:acme", "by hand", by="jo@desk")
    assert not one.breakers.trip("account:acme", "again")
    wait_for(lambda: two.learnt == ["account:acme"])
    assert two.breakers.count == 1
    assert two.breakers.covering(["account:acme"], None) == "account:acme"
    assert one.breakers.reset("account:acme", by="jo@desk")
    assert not one.breakers.reset("account:acme", by="jo@desk")
    wait_for(lambda: two.breakers.count == 0)
    two.breakers.stop()
    assert [(line.what, line.by) for line in one.breakers.log()] == [("reset", "jo@desk"), ("tripped", "jo@desk")]
    assert (one.alerts, two.alerts) == (["account:acme"], [])


def test_breaker_tripped_while_redis_was_away_is_written_later(
    one: Node, two: Node, away: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.breakers.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(one.breakers._trip, "_client", away)
        with pytest.raises(StoreUnavailable):
            one.breakers.trip("system", "calls_per_hour")
    assert one.learnt == ["system"]
    assert one.alerts == []
    one.breakers.refresh()
    assert one.alerts == ["system"]
    assert two.breakers.tripped["system"].by == "node one"
    assert one.breakers.tripped["system"].at > 0


def test_breaker_that_two_trip_at_once_is_the_first_ones(one: Node, two: Node) -> None:
    one.breakers.refresh()
    two.breakers.refresh()
    assert one.breakers.trip("system", "first")
    assert not two.breakers.trip("system", "second")
    assert two.alerts == []
    two.breakers.refresh()
    assert two.breakers.tripped["system"].why == "first"


def test_poller_goes_on_whatever_is_raised(one: Node, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = [StoreUnavailable("redis: down"), RuntimeError("unforeseen")]
    refresh = one.breakers.refresh

    def faulty() -> None:
        if faults:
            raise faults.pop()
        refresh()

    monkeypatch.setattr(one.breakers, "refresh", faulty)
    one.breakers.start()
    server.client.hset(keys.TRIPPED, Level("system").name, b"unreadable")
    wait_for(lambda: one.breakers.count == 1)
    one.breakers.stop()
    assert one.breakers.tripped["system"] == Trip(0.0, "unreadable", "unknown")


def test_poller_that_was_not_started_can_be_stopped(one: Node) -> None:
    one.breakers.stop()
    assert one.breakers.count == 0


@pytest.mark.parametrize("stored", [None, "garbage", "7", '{"at":1,"why":"","by":""}'])
def test_tripped_breaker_trips_again_to_end_its_calls(
    one: Node, two: Node, server: RedisServer, stored: str | None
) -> None:
    if stored is None:
        one.breakers.trip("system", "calls_per_hour")
    else:
        server.client.hset(keys.TRIPPED, "system", stored)
    for node in (one, two):
        node.breakers.refresh()
    assert one.breakers.trip("system", "by hand", by="jo@desk", end_calls=True)
    assert not one.breakers.trip("system", "by hand", by="jo@desk", end_calls=True)
    assert not one.breakers.trip("system", "by hand", by="jo@desk")
    for node in (one, two, one, two):
        node.breakers.refresh()
    assert one.learnt == two.learnt == ["system", "system"]
    assert two.breakers.tripped["system"].end_calls
    assert one.alerts == (["system"] if stored is None else [])
    lines = [(line.what, line.why, line.by) for line in one.breakers.log()]
    again = ("tripped", "by hand", "jo@desk"), ("reset", "to trip again and end its calls", "jo@desk")
    assert lines[:2] == list(again)


def test_trip_that_another_node_made_end_calls_acts_here(one: Node, two: Node) -> None:
    """This node hears of it as it trips the breaker itself."""
    one.breakers.refresh()
    two.breakers.trip("system", "by hand", end_calls=True)
    assert not one.breakers.trip("system", "calls_per_hour")
    assert one.learnt == ["system", "system"]
    one.breakers.refresh()
    assert one.learnt == ["system", "system"]


def test_reset_after_a_second_trip_holds_for_all(one: Node, two: Node) -> None:
    """A node was away from Redis for both."""
    one.breakers.trip("system", "calls_per_hour")
    two.breakers.refresh()
    assert one.breakers.trip("system", "by hand", end_calls=True)
    assert one.breakers.reset("system", by="jo@desk")
    two.breakers.refresh()
    two.breakers.refresh()
    one.breakers.refresh()
    assert (one.breakers.count, two.breakers.count) == (0, 0)


# Clocks that step, and unreadable values -----------------------------------------------------------------


def trip_at(server: RedisServer, at: float) -> None:
    """A trip as it was written while Redis's clock said so."""
    server.client.hset(keys.TRIPPED, "system", json.dumps({"at": at, "why": "by hand", "by": "jo"}))


@pytest.mark.parametrize("ago", [-3600.0, 0.0, 3600.0, 1e9])
def test_reset_holds_whatever_the_clocks_say(one: Node, two: Node, server: RedisServer, ago: float) -> None:
    """Redis's clock was set back between the trip and its reset."""
    trip_at(server, time.time() - ago)
    two.breakers.refresh()
    assert two.breakers.count == 1
    assert one.breakers.reset("system", by="jo@desk")
    two.breakers.refresh()
    two.breakers.refresh()
    assert two.breakers.count == 0
    assert not server.client.exists(keys.TRIPPED)


def test_reset_of_an_earlier_trip_is_not_this_ones(one: Node, two: Node, server: RedisServer) -> None:
    """Redis was restored from before the trip, and its clock is ahead of the reset's."""
    assert one.breakers.trip("system", "first")
    assert one.breakers.reset("system", by="jo@desk")
    trip_at(server, time.time() - 3600)
    two.breakers.refresh()
    server.client.delete(keys.TRIPPED)
    two.breakers.refresh()
    assert two.breakers.count == 1
    assert server.client.hexists(keys.TRIPPED, "system")


def test_reset_logged_by_an_earlier_version_counts(two: Node, server: RedisServer) -> None:
    trip_at(server, 1000.0)
    two.breakers.refresh()
    server.client.delete(keys.TRIPPED)
    line = {"at": 1001.0, "scope": "system", "what": "reset", "why": "", "by": "jo"}
    server.client.lpush(keys.BREAKER_LOG, json.dumps(line))
    two.breakers.refresh()
    assert two.breakers.count == 0


def test_unreadable_trip_can_be_reset(one: Node, two: Node, server: RedisServer) -> None:
    server.client.hset(keys.TRIPPED, "system", "garbage")
    two.breakers.refresh()
    assert two.breakers.tripped["system"].why == "unreadable"
    assert one.breakers.reset("system", by="jo@desk")
    two.breakers.refresh()
    assert two.breakers.count == 0


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"{}", b"\xff", b""])
def test_garbage_in_the_log_blinds_no_node(
    one: Node, two: Node, server: RedisServer, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    for each in (one, two):
        each.breakers.refresh()
    assert one.breakers.trip("account:acme", "by hand")
    two.breakers.refresh()
    server.client.lpush(keys.BREAKER_LOG, line)
    # Redis loses the first trip, which makes the nodes look into the log, and has another.
    server.client.delete(keys.TRIPPED)
    one.breakers.trip("integrator:acme", "by hand")
    two.breakers.refresh()
    assert sorted(two.breakers.tripped) == ["account:acme", "integrator:acme"]
    assert "breaker_log_unreadable" in caplog.messages
    assert one.breakers.reset("account:acme", by="jo@desk")
    two.breakers.refresh()
    assert sorted(two.breakers.tripped) == ["integrator:acme"]


def test_log_of_another_type_keeps_breakers_tripped(one: Node, two: Node, server: RedisServer) -> None:
    assert one.breakers.trip("system", "by hand")
    two.breakers.refresh()
    server.client.delete(keys.TRIPPED, keys.BREAKER_LOG)
    server.client.set(keys.BREAKER_LOG, "text")
    with pytest.raises(StoreUnavailable):
        two.breakers.refresh()
    assert two.breakers.covering(["system"], None) == "system"
    with pytest.raises(StoreUnavailable):
        one.breakers.reset("system", by="jo@desk")
    assert server.client.hexists(keys.TRIPPED, "system")


def test_breakers_of_another_type_refuse_every_call(
    one: Node, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one.breakers.refresh()
    assert one.breakers.covering(["system"], None) is None
    server.client.set(keys.TRIPPED, "text")
    for _ in range(3):
        one.breakers._look()
        with pytest.raises(StoreUnavailable):
            one.breakers.covering(["system"], None)
    assert caplog.messages.count("breakers_unreadable") == 1
    server.client.delete(keys.TRIPPED)
    assert one.breakers.covering(["system"], None) is None


def test_scope_that_is_no_text_covers_everything(connect: Callable[[], Any], server: RedisServer) -> None:
    raw = connect()
    raw.hset(keys.TRIPPED, b"\xff\xfe", b"{}")
    node = Node(raw, "one")
    (scope,) = node.breakers.tripped
    assert node.breakers.covering(["account:acme"], None) == scope
    assert node.breakers.reset(scope, by="jo@desk")
    assert not server.client.exists(keys.TRIPPED)

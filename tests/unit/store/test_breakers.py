"""The poller of breakers, and breakers that Redis lost. ``test_usage.py`` tests what trips one."""

from __future__ import annotations

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

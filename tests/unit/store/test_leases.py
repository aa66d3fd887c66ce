"""Leases while Redis is down, and leases that change nodes. ``test_usage.py`` tests that they limit calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.leases import Leases
from tests.support.node import RedisServer

HOLDER = "user:acme:u1"


def test_only_node_goes_by_its_own_count_while_redis_is_down(away: Any) -> None:
    leases = Leases(away, alone=lambda: True)
    assert leases.enter(HOLDER, 2, "a")
    assert leases.enter(HOLDER, 2, "b")
    assert not leases.enter(HOLDER, 2, "c")
    assert leases.enter(HOLDER, 2, "a")
    assert leases.enter("another", 1, "c")
    leases.leave(HOLDER, "a")
    assert leases.enter(HOLDER, 2, "c")


def test_one_of_several_nodes_takes_none_while_redis_is_down(away: Any) -> None:
    with pytest.raises(StoreUnavailable):
        Leases(away).enter(HOLDER, 2, "a")


def test_lease_of_a_dead_node_is_renewed_by_its_new_holder(
    client: Any, connect: Callable[[], Any], server: RedisServer
) -> None:
    now = [1000.0]
    dead, alive = (Leases(made, seconds=30, clock=lambda: now[0]) for made in (client, connect()))
    assert dead.enter(HOLDER, 1, "a")
    alive.hold(HOLDER, "a")
    now[0] += 29
    alive.renew()
    assert server.client.zscore(keys.concurrent(HOLDER), "a") == 1059
    alive.let_go(HOLDER, "a")
    now[0] += 29
    alive.renew()
    assert server.client.zscore(keys.concurrent(HOLDER), "a") == 1059


def test_renew_takes_many_leases_in_batches(client: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.store.leases._BATCH", 2)
    now = [1000.0]
    leases = Leases(client, seconds=30, clock=lambda: now[0])
    for i in range(5):
        assert leases.enter(f"holder{i}", 1, "a")
    now[0] += 20
    leases.renew()
    assert [server.client.zscore(keys.concurrent(f"holder{i}"), "a") for i in range(5)] == [1050] * 5

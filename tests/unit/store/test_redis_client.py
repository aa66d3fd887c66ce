"""Clients of a Sentinel's service and of a cluster: the same commands, the same exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from esl_apps.store.errors import Fault, NoScript, Unreadable, Unsent, read_text, refusal
from esl_apps.store.redis_client import connect
from tests.support.cluster import cluster_of_one
from tests.support.node import RedisServer
from tests.support.ports import free_port
from tests.support.sentinel import SentinelServer


@pytest.fixture(scope="module")
def sentinel() -> Iterator[SentinelServer]:
    made = SentinelServer()
    yield made
    made.close()


def test_sentinel_client_asks_the_master(sentinel: SentinelServer) -> None:
    client = connect(sentinel.url)
    assert client.send_all([("SET", "a", "1"), ("GET", "a")]) == [True, b"1"]
    assert client.masters() == [client]
    assert not client.closes_within(0.05)
    assert client.info("replication")["role"] == "master"


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:{}/main", "redis://127.0.0.1:{}?socket_keepalive=1"])
def test_redis_that_is_down_is_known_to_have_run_nothing(url: str) -> None:
    client: Any = connect(url.format(free_port()))
    for ask in (client.ping, lambda: client.send_all([("GET", "a")]), lambda: client.closes_within(1)):
        with pytest.raises(Unsent):
            ask()


def test_cluster_that_is_down_has_run_nothing() -> None:
    client = connect(f"redis+cluster://127.0.0.1:{free_port()}")
    asks: list[Callable[[], object]] = [
        lambda: client.ping(),
        lambda: client.send_all([("GET", "a")]),
        lambda: client.masters(),
    ]
    for ask in asks:
        with pytest.raises(Unsent):
            ask()


def test_cluster_that_goes_down_has_run_nothing() -> None:
    with cluster_of_one() as port:
        client = connect(f"redis+cluster://127.0.0.1:{port}")
        assert client.send_all([("SET", "a", "1"), ("GET", "a")]) == [True, b"1"]
    with pytest.raises(Unsent):
        client.get("a")
    with pytest.raises(Unsent):
        client.send_all([("GET", "a")])


@pytest.mark.parametrize("server", ["cluster"], indirect=True)
def test_cluster_client_asks_every_slot(client: Any, server: RedisServer) -> None:
    commands = [("SET", f"key{i}", i) for i in range(20)]
    assert client.send_all(commands) == [True] * 20
    assert client.send_all([("GET", f"key{i}") for i in range(20)]) == [str(i).encode() for i in range(20)]
    (master,) = client.masters()
    assert master.info()["run_id"] == server.client.info()["run_id"]
    answers = client.send_all([("LPUSH", "key1", "x"), ("EVALSHA", "0" * 40, 1, "key1")], raise_on_error=False)
    assert [type(answer) for answer in answers] == [Fault, NoScript]


@pytest.mark.parametrize("server", ["cluster"], indirect=True)
def test_cluster_client_has_no_line_to_watch(client: Any) -> None:
    other = gevent.spawn(gevent.sleep, 0.01)
    assert not client.closes_within(0.1)
    assert other.ready()


@pytest.mark.parametrize("url", ["redis://{0}", "redis://{0}?socket_keepalive=1"])
def test_client_tells_how_long_each_round_trip_took(redis: RedisServer, url: str) -> None:
    told: list[float] = []
    client = connect(url.format(redis.url.partition("//")[2]), observe=told.append)
    client.set("a", "1")
    client.send_all([("GET", "a"), ("GET", "b")])
    assert len(told) == 2
    assert all(0.0 < seconds < 2.0 for seconds in told)


@pytest.mark.parametrize("server", ["cluster"], indirect=True)
def test_cluster_client_tells_its_round_trips(server: RedisServer) -> None:
    told: list[float] = []
    client = connect(f"redis+cluster://{server.url.partition('//')[2]}", observe=told.append)
    client.set("a", "1")
    client.send_all([("GET", "a"), ("GET", "b")])
    assert len(told) == 2


def test_client_tells_nothing_without_an_answer() -> None:
    """A refused connection fails within 1 ms, and would look like a fast Redis."""
    told: list[float] = []
    client = connect(f"redis://127.0.0.1:{free_port()}", observe=told.append)
    with pytest.raises(Unsent):
        client.ping()
    assert told == []


def test_error_replies_have_their_exceptions() -> None:
    assert type(refusal("NOSCRIPT No matching script.")) is NoScript
    assert str(refusal("WRONGTYPE Operation")) == "redis: WRONGTYPE Operation"


def test_stored_text_that_cannot_be_read_is_told() -> None:
    assert read_text("é".encode()) == "é"
    with pytest.raises(Unreadable):
        read_text(b"\xff")

"""Which processes live, by Redis's clock. None is judged before Redis has answered for long enough."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys, membership, redis_client
from esl_apps.store.membership import DEAD, Membership, boots
from tests.support.cluster import cluster_of_one
from tests.support.node import RedisServer


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with cluster_of_one() as port:
        yield f"redis+cluster://127.0.0.1:{port}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest, redis: RedisServer) -> str:
    url: str = redis.url if request.param == "redis" else request.getfixturevalue("cluster_url")
    redis_client.connect(url).flushall()
    return url


def silent(one: Membership, seconds: float) -> None:
    """Set a process's last beat to some seconds ago."""
    text = [one.name, "host:1", False, f"{time.time() - seconds:.3f}"]
    one._client.hset(keys.NODES, one.boot, msgspec.json.encode(text))


def test_silent_process_is_dead_and_a_speaking_one_is_not(url: str) -> None:
    client, clock = redis_client.connect(url), Clock()
    one = Membership(client, "one", "host:1", clock)
    two, three = (Membership(client, name, f"host:{name}") for name in ("two", "three"))
    for each in (two, three, one):
        each.say()
    clock.now += DEAD + 1
    one.say()
    assert one.dead() == []
    assert one.others() == ["host:three", "host:two"]
    silent(two, DEAD + 1)
    three.say(draining=True)
    one.say()
    assert one.dead() == [two.boot]
    assert one.others() == []
    two.say()
    one.say()
    assert one.dead() == []


def test_restarted_node_is_another_process(url: str) -> None:
    client = redis_client.connect(url)
    before = Membership(client, "one", "host:1")
    before.say()
    after = Membership(client, "one", "host:1")
    after.say()
    # Dead at once, because its name has been taken over.
    assert after.dead() == [before.boot]
    after.forget(before.boot)
    assert boots(client) == [after.boot]


def test_process_that_left_is_dead_at_once(url: str) -> None:
    client = redis_client.connect(url)
    one, two = Membership(client, "one", "host:1"), Membership(client, "two", "host:2")
    two.say()
    two.leave()
    one.say()
    assert one.dead() == [two.boot]


def test_process_is_not_dead_for_silence_of_redis(url: str, redis: RedisServer) -> None:
    """Redis was down for a minute, so it has no fresh beats."""
    clock = Clock()
    one = Membership(redis_client.connect(url), "one", "host:1", clock)
    two = Membership(redis_client.connect(url), "two", "host:2")
    two.say()
    one.say()
    one._say._client, client = redis_client.connect("redis://127.0.0.1:1/0"), one._say._client
    clock.now += 60
    with pytest.raises(StoreUnavailable):
        one.say()
    one._say._client = client
    silent(two, 60)
    one.say()
    assert not one.is_dead(two.boot)
    assert not one.is_dead("never heard of")
    clock.now += DEAD + 1
    assert one.is_dead(two.boot)
    assert one.is_dead("never heard of")
    assert not one.is_dead(one.boot)


def test_beat_is_well_below_the_silence_of_the_dead() -> None:
    assert membership.BEAT * 3 < DEAD


def test_living_and_dead_peers_are_told_apart(url: str) -> None:
    client, clock = redis_client.connect(url), Clock()
    one, two = Membership(client, "one", "host:1", clock), Membership(client, "two", "host:2", clock)
    one.say()
    assert one.alone
    two.say()
    one.say()
    assert not one.alone
    assert (one.living(), one.dead()) == ([two.boot], [])
    two.leave()
    one.say()
    assert (one.living(), one.dead()) == ([], [two.boot])
    one.forget(two.boot)
    one.say()
    assert one.alone

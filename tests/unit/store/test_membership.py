"""Which processes live: each measures the others' silence by its own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from esl_apps.core import node_clock
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys, membership, redis_client
from esl_apps.store.membership import BEAT, DEAD, Membership, boots
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


@pytest.fixture
def one(url: str) -> Membership:
    return Membership(redis_client.connect(url), "one", "host:1", Clock())


def other(one: Membership, name: str) -> Membership:
    return Membership(one._client, name, f"host:{name}")


def beats(one: Membership, seconds: float, *others: Membership) -> None:
    """Have a process beat for some seconds, together with others."""
    assert isinstance(one._clock, Clock)
    for _ in range(round(seconds / BEAT)):
        one._clock.now += BEAT
        for each in others:
            each.say()
        one.say()


def stamp(one: Membership, name: str, boot: str, text: str) -> None:
    one._client.hset(keys.NODES, boot, msgspec.json.encode([name, "host:9", False, text]))


def test_silent_process_is_dead_and_a_speaking_one_is_not(one: Membership) -> None:
    two, three = other(one, "two"), other(one, "three")
    for each in (two, three, one):
        each.say()
    assert one.dead() == []
    assert one.others() == ["host:three", "host:two"]
    beats(one, DEAD - BEAT, three)
    assert one.dead() == []
    three.say(draining=True)
    beats(one, 2 * BEAT)
    assert one.dead() == [two.boot]
    assert one.others() == []
    two.say()
    one.say()
    assert one.dead() == []


def test_clock_of_redis_that_steps_kills_no_process(one: Membership) -> None:
    """Its stamps jump by 10 s, or go back by an hour: they have changed."""
    for at in (1000.0, 1010.0, 1011.0, 1012.0, -2588.0, 1013.0):
        stamp(one, "two", "b2", f"{at:.6f}")
        beats(one, BEAT)
    assert (one.living(), one.dead()) == (["b2"], [])


def test_stamp_of_another_time_is_silence_all_the_same(one: Membership) -> None:
    """A dead process's last stamp lies in the future, because Redis's clock was set back."""
    stamp(one, "two", "b2", f"{time.time() + 3600:.6f}")
    beats(one, DEAD + 2 * BEAT)
    assert one.dead() == ["b2"]


def test_pause_of_the_judge_is_not_silence(one: Membership) -> None:
    """It was stopped for a minute, as were all others: a machine that was suspended."""
    two = other(one, "two")
    two.say()
    one.say()
    assert isinstance(one._clock, Clock)
    one._clock.now += 60.0
    one.say()
    assert one.dead() == []
    assert one.longest_gap() == 60.0
    assert one.longest_gap() == 0.0


def test_process_that_left_is_dead_at_once(one: Membership) -> None:
    two = other(one, "two")
    two.say()
    two.leave()
    one.say()
    assert one.dead() == [two.boot]


def test_process_is_not_dead_for_silence_of_redis(one: Membership) -> None:
    two = other(one, "two")
    two.say()
    beats(one, DEAD)
    one._say._client, client = redis_client.connect("redis://127.0.0.1:1/0"), one._say._client
    for _ in range(60):
        with pytest.raises(StoreUnavailable):
            one.say()
    one._say._client = client
    beats(one, DEAD)
    assert not one.is_dead(two.boot)
    assert not one.is_dead("never heard of")
    beats(one, 2 * BEAT)
    assert one.is_dead(two.boot)
    assert one.is_dead("never heard of")
    assert not one.is_dead(one.boot)


def test_beat_is_well_below_the_silence_of_the_dead() -> None:
    assert membership.BEAT * 3 < DEAD


def test_living_and_dead_peers_are_told_apart(one: Membership) -> None:
    two = other(one, "two")
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


def test_unreadable_entry_hides_no_other(one: Membership) -> None:
    two = other(one, "two")
    two.say()
    for boot, raw in (("b3", "not JSON"), ("b4", "[1]"), ("b5", b"\xff")):
        one._client.hset(keys.NODES, boot, raw)
    beats(one, DEAD + 2 * BEAT, two)
    assert one.living() == [two.boot]
    assert sorted(one.dead()) == ["b3", "b4", "b5"]


# A process that was only slow --------------------------------------------------------------------------


def test_dead_process_that_beats_again_has_returned(one: Membership) -> None:
    two = other(one, "two")
    two.say()
    beats(one, DEAD + 2 * BEAT)
    assert one.returned([two.boot]) is None
    two.say()
    one.say()
    assert one.returned(["gone", two.boot]) == two.boot


def test_forgotten_process_that_beats_again_has_returned(one: Membership) -> None:
    two = other(one, "two")
    two.say()
    beats(one, DEAD + 2 * BEAT)
    one.forget(two.boot)
    beats(one, BEAT)
    beats(one, 2 * BEAT, two)
    assert one.returned([two.boot]) == two.boot


def test_dead_process_has_not_returned_with_redis(one: Membership) -> None:
    """Redis was away, and its silence is counted from zero again."""
    two = other(one, "two")
    two.say()
    beats(one, DEAD + 2 * BEAT)
    one._say._client, client = redis_client.connect("redis://127.0.0.1:1/0"), one._say._client
    with pytest.raises(StoreUnavailable):
        one.say()
    one._say._client = client
    beats(one, BEAT)
    assert not one.is_dead(two.boot)
    assert one.returned([two.boot]) is None


# One process for a name -------------------------------------------------------------------------------


def test_last_run_with_the_same_files_is_dead_at_once(url: str) -> None:
    client = redis_client.connect(url)
    before = Membership(client, "one", "host:1")
    before.say()
    after = Membership(client, "one", "host:1", predecessor=before.boot)
    assert after.watch_namesakes(lambda _seconds: None) is None
    after.say()
    assert after.dead() == [before.boot]
    after.forget(before.boot)
    assert boots(client) == [after.boot]


def test_process_of_the_same_name_is_not_dead(one: Membership) -> None:
    two = other(one, "one")
    two.say()
    beats(one, 2 * DEAD, two)
    assert (one.living(), one.dead()) == ([two.boot], [])
    assert one.namesakes() == [two.boot]


def test_process_that_was_stopped_is_not_sure_of_its_calls(one: Membership) -> None:
    assert isinstance(one._clock, Clock)
    one.say()
    began = one._clock.now
    beats(one, 3 * DEAD)
    assert one.held_since(began)
    one._clock.now += DEAD
    assert not one.held_since(began)
    one.say()
    assert not one.held_since(began)
    assert one.held_since(one._clock.now)


def test_namesake_that_beats_is_found_at_the_start(one: Membership) -> None:
    two = other(one, "one")
    two.say()
    assert one.watch_namesakes(lambda _seconds: two.say()) == two.boot
    assert one.boot not in boots(one._client)


def test_namesake_that_crashed_elsewhere_is_waited_for(one: Membership) -> None:
    other(one, "one").say()
    waited: list[float] = []
    assert one.watch_namesakes(waited.append) is None
    assert DEAD < sum(waited) < DEAD + 2 * BEAT


def test_namesake_that_left_is_not_waited_for(one: Membership) -> None:
    two, three = other(one, "one"), other(one, "three")
    two.say()
    two.leave()
    three.say()
    waited: list[float] = []
    assert one.watch_namesakes(waited.append) is None
    assert waited == []


# Redis's clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
def test_clock_of_redis_is_learnt_from_beats(one: Membership, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """This node's clock is wrong, not Redis's."""
    right = node_clock.now()
    monkeypatch.setattr(node_clock.clock, "origin", node_clock.clock.origin + wrong)
    one.say()
    assert one.redis_clock.now() == pytest.approx(right, abs=5.0)

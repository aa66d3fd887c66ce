"""Two switches: both place calls, and a call that one can't place goes to the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import CDRS, Node, RedisServer, configuration, request

CALLEE = "0820001234"


class Two:
    def __init__(self, redis: RedisServer) -> None:
        self.first, self.second = SandboxRig(), SandboxRig()
        config = configuration(self.first, redis, agent_timeout=10, callee_timeout=10)
        config["switches"].append(
            {"name": "fs2", "address": self.second.esl_address, "password": self.second.esl_password}
        )
        self.node = Node(config)

    @property
    def rigs(self) -> tuple[SandboxRig, SandboxRig]:
        return self.first, self.second

    def close(self) -> None:
        self.node.end()
        for rig in self.rigs:
            rig.close()


@pytest.fixture(scope="module")
def made(redis: RedisServer) -> Iterator[Two]:
    two = Two(redis)
    yield two
    two.close()


@pytest.fixture
def two(made: Two, redis: RedisServer) -> Iterator[Two]:
    for rig in made.rigs:
        rig.reset()
    redis.flush()
    eventually(lambda: all(metric(made.node, f'esl_apps_switch_up{{switch="{name}"}}') for name in ("fs1", "fs2")))
    yield made
    for rig in made.rigs:
        rig.reset()


def metric(node: Node, name: str) -> float:
    text = request(node.admin, "GET", "/metrics", token=None).body.decode()
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def states(node: Node, ref: str) -> tuple[str, list[str]]:
    call = node.get(ref)
    return call["switch"], [one["what"] for one in call["decisions"]]


def record(redis: RedisServer) -> Any:
    return redis.pop(timeout=30)


def test_pool_places_calls_on_both_switches(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000")
        rig.outside(CALLEE, Script(answer_after=0.0))
    refs = [two.node.call("1000", CALLEE) for _ in range(20)]
    for ref in refs:
        eventually(lambda ref=ref: two.node.get(ref)["state"] == "bridged")  # type: ignore[misc]
    placed = Counter(two.node.get(ref)["switch"] for ref in refs)
    assert min(placed["fs1"], placed["fs2"]) >= 7
    assert [rig.live_channels() for rig in two.rigs] == [2 * placed["fs1"], 2 * placed["fs2"]]
    for ref in refs:
        two.node.delete(ref)
    assert {record(redis)["end_reason"] for _ in refs} == {"answered"}


def test_pool_rings_an_agent_where_it_is_registered(two: Two, redis: RedisServer) -> None:
    two.first.phone("1000").unregister()
    two.second.phone("1000")
    two.second.outside(CALLEE, Script(answer_after=0.0, hangup_after=0.1))
    for _ in range(6):
        ref = two.node.call("1000", CALLEE)
        assert (found := record(redis))["call_ref"] == ref
        assert (found["end_reason"], found["switch"]) == ("answered", "fs2")


def test_pool_agent_registered_nowhere_fails_at_once(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000").unregister()
    ref = two.node.call("1000", CALLEE)
    found = record(redis)
    assert (found["end_reason"], found["end_code"], found["hung_up_by"]) == ("agent_failed", 20, "agent")
    assert found["ended_at"] - found["dialed_at"] < 2
    assert states(two.node, ref)[1].count("switch") == 1


def test_pool_busy_agent_is_not_rung_over_another_switch(two: Two, redis: RedisServer) -> None:
    phones = [rig.phone("1000", Script(reject=486)) for rig in two.rigs]
    two.node.call("1000", CALLEE)
    assert record(redis)["end_reason"] == "agent_busy"
    assert sum(len(phone.calls) for phone in phones) == 1


def test_pool_passes_over_a_stopped_switch(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000", Script(reject=486))
    two.first.pause()
    placed: set[str] = set()
    told: set[str] = set()
    try:
        # The next ping is at most two seconds away, and a second without an answer is too long.
        def passed_over() -> bool:
            fresh = {two.node.call("1000", CALLEE) for _ in range(3)}
            placed.update(fresh)
            time.sleep(0.3)
            told.update(heard(redis))
            return fresh <= told

        eventually(passed_over)
    finally:
        two.first.resume()

    # Calls placed on it before also come to their end.
    def all_told() -> bool:
        told.update(heard(redis))
        return told == placed

    eventually(all_told)


def heard(redis: RedisServer) -> set[str]:
    """Pop all records; return their calls."""
    return {json.loads(text)["payload"]["call_ref"] for text in redis.client.rpop(CDRS, 1000) or ()}


def test_pool_dead_switch_leaves_calls_to_the_other(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000", Script(reject=486))
    two.first.kill()
    try:
        eventually(lambda: not metric(two.node, 'esl_apps_switch_up{switch="fs1"}'))
        for _ in range(6):
            two.node.call("1000", CALLEE)
            found = record(redis)
            assert (found["end_reason"], found["switch"]) == ("agent_busy", "fs2"), found
    finally:
        two.first.start()


def test_pool_excludes_a_switch_whose_originates_fail(two: Two, redis: RedisServer) -> None:
    """An agent outside: the first switch's gateways are down, so the call goes through the other's."""
    for rig in two.rigs:
        rig.outside("0831112222")
        rig.outside(CALLEE, Script(answer_after=0.0, hangup_after=0.1))
    two.first.gateway("pstn", down=True)
    try:
        # Either of two equally full switches may be tried first, so this one may take a few calls.
        for _ in range(60):
            two.node.call("0831112222", CALLEE, confirm=False)
            found = record(redis)
            assert (found["end_reason"], found["switch"]) == ("answered", "fs2")
            if metric(two.node, 'esl_apps_switch_out{switch="fs1"}') == 1:
                break
        assert [line["switch"] for line in two.node.lines() if line["event"] == "switch_taken_out"] == ["fs1"]
    finally:
        two.first.gateway("pstn")

"""Which switch places a call: the emptiest that is well; and a call that one can't place goes to another."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from esl_apps.node.switch_pool import FAULTS, LATE, OUT_FIRST, OUT_LAST, SwitchPool
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import CDRS, Node, RedisServer, configuration, request

CALLEE = "0820001234"
STATUS = """UP 0 years, 0 days, 0 hours, 19 minutes, 28 seconds, 276 milliseconds, 992 microseconds
FreeSWITCH (Version 1.11.1-release  64bit) is {ready}
848 session(s) since startup
{sessions} session(s) - peak 43, last 5min 4
0 session(s) per Sec out of max 1000, peak 41, last 5min 4
{most} session(s) max
min idle cpu 0.00/97.00
"""


class FakeSwitch:
    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = True
        self.silence = 0.0
        self.says(0)

    def says(self, sessions: int, most: int = 1000, ready: str = "ready") -> None:
        self.status = STATUS.format(sessions=sessions, most=most, ready=ready)

    def silent_for(self) -> float:
        return self.silence


class Stand:
    """Three switches and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fleet = SwitchPool(lambda: self.now)
        self.a, self.b, self.c = self.switches = [FakeSwitch(name) for name in "abc"]
        for one in self.switches:
            self.fleet.add(one)  # type: ignore[arg-type]

    def best(self, *tried: str) -> str | None:
        switch = self.fleet.best(tried)
        return None if switch is None else switch.name

    def told(self, name: str, *codes: int | None) -> None:
        for code in codes:
            self.fleet.health[name].told(code)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_calls_are_spread_over_switches_that_are_equal(stand: Stand) -> None:
    assert Counter(stand.best() for _ in range(300)) == {"a": 100, "b": 100, "c": 100}


def test_the_one_with_the_most_room_is_taken(stand: Stand) -> None:
    stand.a.says(500)
    stand.b.says(600, 5000)
    stand.c.says(200, 250)
    # b: 0.12, a: 0.5, c: 0.8; and b has room for 1900 more until it is as full as a.
    assert Counter(stand.best() for _ in range(1000)) == {"b": 1000}


def test_what_is_begun_counts_until_the_switch_says_it_itself(stand: Stand) -> None:
    stand.b.says(30)
    stand.c.connected = False
    assert {stand.best() for _ in range(30)} == {"a"}
    stand.a.says(29)
    assert stand.best() == "a"
    stand.a.says(31)
    assert stand.best() == "b"


def test_first_of_equals_is_by_chance(stand: Stand) -> None:
    assert {Stand().best() for _ in range(200)} == {"a", "b", "c"}


def test_one_that_is_away_or_was_tried_is_no_choice(stand: Stand) -> None:
    stand.a.connected = False
    assert {stand.best("b") for _ in range(9)} == {"c"}
    assert stand.best("b", "c") is None
    stand.b.connected = stand.c.connected = False
    assert stand.best() is None


@pytest.mark.parametrize("sick", ["silent", "not ready"])
def test_one_that_is_silent_or_not_ready_gets_nothing_while_another_is_well(stand: Stand, sick: str) -> None:
    if sick == "silent":
        stand.a.silence = LATE + 0.1
    else:
        stand.a.says(0, ready="not ready")
    assert {stand.best() for _ in range(40)} == {"b", "c"}
    stand.b.connected = stand.c.connected = False
    # Better than nothing.
    assert stand.best() == "a"
    stand.b.connected = True
    stand.a.silence = 0.0
    stand.a.says(0)
    stand.b.says(900)
    assert stand.best() == "a"


def test_a_status_that_says_nothing_is_an_empty_switch(stand: Stand) -> None:
    stand.a.status = ""
    stand.b.status = "-ERR no reply\n"
    stand.c.says(999999999, 0)
    assert {stand.best() for _ in range(20)} == {"a", "b"}


@pytest.mark.parametrize("code", [None, 34, 38, 41, 42, 44])
def test_faults_in_a_row_take_it_out_and_a_call_that_goes_well_lets_it_back_in(stand: Stand, code: int | None) -> None:
    stand.told("a", *[code] * (FAULTS - 1))
    assert not stand.fleet.health["a"].out
    stand.told("a", code)
    assert stand.fleet.health["a"].out
    assert {stand.best() for _ in range(40)} == {"b", "c"}
    stand.now += OUT_FIRST
    # One call, and no second while that is under way.
    assert [stand.best() for _ in range(20)].count("a") == 1
    stand.told("a", 0)
    assert not stand.fleet.health["a"].out
    assert "a" in {stand.best() for _ in range(40)}


@pytest.mark.parametrize("code", [0, 1, 16, 17, 18, 19, 20, 21])
def test_what_a_callee_does_is_no_fault_of_the_switch(stand: Stand, code: int) -> None:
    stand.told("a", *[42] * (FAULTS - 1), code, *[42] * (FAULTS - 1))
    assert not stand.fleet.health["a"].out


def test_each_time_that_it_fails_again_it_is_out_for_longer(stand: Stand) -> None:
    stand.told("a", *[42] * FAULTS)
    waits = []
    for _ in range(6):
        began = stand.now
        while "a" not in {stand.best() for _ in range(3)}:
            stand.now += 0.5
        waits.append(stand.now - began)
        stand.told("a", 42)
    assert waits == [5.0, 10.0, 20.0, 40.0, OUT_LAST, OUT_LAST]


def test_failures_of_calls_that_were_under_way_do_not_prolong_it(stand: Stand) -> None:
    stand.told("a", *[42] * (FAULTS + 20))
    stand.now += OUT_FIRST
    assert stand.best() == "a"


def test_where_all_are_out_the_one_whose_time_ends_first_is_tried(stand: Stand) -> None:
    stand.told("b", *[42] * FAULTS)
    stand.now += 1
    stand.told("a", *[42] * FAULTS)
    stand.told("c", *[42] * FAULTS)
    assert {stand.best() for _ in range(10)} == {"b"}


# Two switches --------------------------------------------------------------------------------------------


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
        assert self.node.stop() == 0
        assert "Traceback" not in self.node.log.read_text()
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
    redis.client.flushdb()
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


def test_calls_are_placed_on_both(two: Two, redis: RedisServer) -> None:
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


def test_an_agent_is_rung_where_the_phone_is_registered(two: Two, redis: RedisServer) -> None:
    two.first.phone("1000").unregister()
    two.second.phone("1000")
    two.second.outside(CALLEE, Script(answer_after=0.0, hangup_after=0.1))
    for _ in range(6):
        ref = two.node.call("1000", CALLEE)
        assert (found := record(redis))["call_ref"] == ref
        assert (found["end_reason"], found["switch"]) == ("answered", "fs2")


def test_an_agent_who_is_registered_nowhere_is_so_at_once(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000").unregister()
    ref = two.node.call("1000", CALLEE)
    found = record(redis)
    assert (found["end_reason"], found["end_code"], found["hung_up_by"]) == ("agent_failed", 20, "agent")
    assert found["ended_at"] - found["dialed_at"] < 2
    assert states(two.node, ref)[1].count("switch") == 1


def test_a_busy_agent_is_not_rung_over_another_switch(two: Two, redis: RedisServer) -> None:
    phones = [rig.phone("1000", Script(reject=486)) for rig in two.rigs]
    two.node.call("1000", CALLEE)
    assert record(redis)["end_reason"] == "agent_busy"
    assert sum(len(phone.calls) for phone in phones) == 1


def test_a_switch_that_stands_still_is_passed_over(two: Two, redis: RedisServer) -> None:
    for rig in two.rigs:
        rig.phone("1000", Script(reject=486))
    two.first.pause()
    placed: set[str] = set()
    told: set[str] = set()
    try:
        # A ping is two seconds away at most, and a second without an answer is too long.
        def passed_over() -> bool:
            fresh = {two.node.call("1000", CALLEE) for _ in range(3)}
            placed.update(fresh)
            time.sleep(0.3)
            told.update(heard(redis))
            return fresh <= told

        eventually(passed_over)
    finally:
        two.first.resume()

    # What it was given before comes to its end, too.
    def all_told() -> bool:
        told.update(heard(redis))
        return told == placed

    eventually(all_told)


def heard(redis: RedisServer) -> set[str]:
    """The calls of all records that are there."""
    return {json.loads(text)["payload"]["call_ref"] for text in redis.client.rpop(CDRS, 1000) or ()}


def test_a_switch_that_dies_leaves_its_calls_to_the_other(two: Two, redis: RedisServer) -> None:
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


def test_a_switch_whose_originates_fail_is_taken_out_and_told_of(two: Two, redis: RedisServer) -> None:
    """An agent outside: the first switch's gateways are down, and the call goes over the other's."""
    for rig in two.rigs:
        rig.outside("0831112222")
        rig.outside(CALLEE, Script(answer_after=0.0, hangup_after=0.1))
    two.first.gateway("pstn", down=True)
    try:
        # Where both are as full, either is tried first: by chance it may take some calls.
        for _ in range(60):
            two.node.call("0831112222", CALLEE)
            found = record(redis)
            assert (found["end_reason"], found["switch"]) == ("answered", "fs2")
            if metric(two.node, 'esl_apps_switch_out{switch="fs1"}') == 1:
                break
        assert [line["switch"] for line in two.node.lines() if line["event"] == "switch_taken_out"] == ["fs1"]
    finally:
        two.first.gateway("pstn")

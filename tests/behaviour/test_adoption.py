"""A node killed at any point of a call loses none: its next run, or another node, sees the call to its end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from esl_apps.store import keys
from tests.conftest import on_the_sandbox
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support.callers import AGENT, CALLEE, CALLER_E164, CARDS, CB, CC_NATIONAL, E164, card
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, configuration, request

#: The phone rings until the test says what it does.
RINGS = Script(answer_after=None)


@pytest.fixture
def stage(rig: Rig, redis: RedisServer) -> Iterator[Callable[..., Node]]:
    rig.reset()
    redis.client.flushdb()
    nodes: list[Node] = []

    def start(**more: Any) -> Node:
        config = configuration(rig, redis, record=True)
        config.update(more)
        nodes.append(Node(config))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()
        assert "Traceback" not in node.log.read_text(), node.log.read_text()
    rig.reset()


def kill(node: Node) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()


def acquainted(redis: RedisServer, count: int) -> None:
    """Wait until ``count`` nodes have reported, each once more after the last of them: every node knows all others."""

    def said() -> dict[str, float]:
        return {boot: float(json.loads(raw)[3]) for boot, raw in redis.client.hgetall(keys.NODES).items()}

    eventually(lambda: len(said()) >= count)
    all_there = max(said().values())
    # Entries of dead nodes don't count.
    eventually(lambda: sum(at > all_there for at in said().values()) >= count)


def metric(node: Node, name: str) -> float:
    text = request(node.admin, "GET", "/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def talking(rig: Rig, node: Node) -> tuple[str, Any, Any]:
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.2))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    return ref, agent, callee


def test_adoption_call_that_ended_meanwhile_has_a_record(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node = stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    hung_up = time.time()
    callee.calls[0].hangup()
    eventually(lambda: rig.live_channels() == 0)
    over = time.time()
    assert redis.client.llen("enigma:notifications:cdr") == 0
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert record["end_code"] == 16
    # The switch's time, not the time at which a node noticed.
    assert hung_up - 0.05 <= record["ended_at"] <= over
    assert record["recording_url"] == f"{ref}.wav"
    assert node.get(ref)["state"] == "ended"
    eventually(lambda: metric(node, "esl_apps_live_calls") == 0)
    acquainted(redis, 1)
    assert redis.client.llen("enigma:notifications:cdr") == 0


@on_the_sandbox
def test_adoption_talk_is_ended_by_the_next_run(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    ref, agent, callee = talking(rig, node)
    kill(node)
    node.start()
    eventually(lambda: metric(node, "esl_apps_live_calls") == 1)
    assert node.get(ref)["state"] == "bridged"
    assert callee.calls[0].leg.ended_at is None
    assert redis.client.llen("enigma:notifications:cdr") == 0
    agent.calls[0].hangup()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "agent")


@on_the_sandbox
def test_adoption_adopted_call_can_be_cancelled(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    node.start()
    assert node.delete(ref).status == 202
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "api")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)


def test_cancel_at_another_node_ends_the_call(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node, other = stage(), stage()
    acquainted(redis, 2)
    agent = rig.phone(AGENT, Script(answer_after=None))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: agent.calls)
    eventually(lambda: request(other.api, "GET", f"/click2dial/calls/{ref}").status == 200)
    assert other.delete(ref).status == 202
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "cancelled", "api")
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_adoption_other_node_takes_the_call_at_once(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node, other = stage(), stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    eventually(lambda: metric(other, "esl_apps_calls_adopted_total") == 1)
    callee.calls[0].hangup()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    node.start()
    acquainted(redis, 2)
    assert redis.client.llen("enigma:notifications:cdr") == 0


@on_the_sandbox
def test_adoption_restarted_node_does_not_reclaim_a_call(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node, other = stage(), stage()
    ref, _agent, _callee = talking(rig, node)
    kill(node)
    eventually(lambda: metric(other, "esl_apps_live_calls") == 1)
    node.start()
    assert metric(node, "esl_apps_live_calls") == 0
    # Any node may be asked: it tells the node that follows the call.
    assert node.delete(ref).status == 202
    record = redis.pop(timeout=30)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "api")


def test_adoption_agent_answers_after_the_death_is_joined(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    """The answered leg goes to the next node, which dials the callee."""
    other, node = stage(), stage()
    acquainted(redis, 2)
    agent = rig.phone(AGENT, RINGS)
    callee = rig.outside(CALLEE, Script(answer_after=0.2, hangup_after=0.5))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    kill(node)
    agent.calls[0].answer()
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert len(agent.calls) == 1
    assert request(other.api, "GET", f"/click2dial/calls/{ref}").json["state"] == "ended"


@pytest.mark.parametrize(
    ("decide", "reason", "code"),
    [(lambda leg: leg.reject(486), "agent_busy", 17), (lambda leg: leg.answer(), "lost", 31)],
    ids=["rejected", "answered"],
)
def test_adoption_agent_decided_with_no_node_up_has_a_record(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node], decide: Callable[[PhoneLeg], None], reason: str, code: int
) -> None:
    """An agent who rejects late leaves a cause of their own. One who answers with no node up is lost."""
    node = stage()
    agent = rig.phone(AGENT, RINGS)
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    kill(node)
    decide(agent.calls[0])
    eventually(lambda: rig.live_channels() == 0)
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (ref, reason, code)


@on_the_sandbox
def test_cancel_holds_though_its_node_dies_at_once(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    rig.phone(AGENT, RINGS)
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    assert node.delete(ref).status == 202
    kill(node)
    node.start()
    record = redis.pop(timeout=15)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "cancelled", "api")


def test_adoption_callee_answers_after_the_death_talks(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node = stage()
    rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, replace(RINGS, hangup_after=0.5))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "callee_ringing")
    kill(node)
    callee.calls[0].answer()
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert record["bridged_at"] is not None
    assert record["recording_url"] == f"{ref}.wav"


# Cards -----------------------------------------------------------------------------------------------------


def live(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if metric(node, "esl_apps_live_calls") > 0]


def test_adoption_callback_answered_after_the_death_talks(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    """Another node takes the answered leg, and the number isn't rung a second time."""
    nodes = [stage(**CARDS), stage(**CARDS)]
    acquainted(redis, 2)
    rig.route(CB, "callback", nodes[0].config["node"]["listen"])
    card(nodes[0], cid=CALLER_E164)
    back = rig.outside(CALLER_E164, RINGS)
    callee = rig.outside(E164, Script(answer_after=0.1))
    leg = rig.outside("0825556666").dial(CB)
    eventually(lambda: leg.leg.ended_at is not None)
    eventually(lambda: back.calls)
    (placing,) = live(nodes)
    kill(placing)
    back.calls[0].answer()
    eventually(lambda: back.calls[0].leg.answered_at is not None)
    # A caller who is asked for a number first takes the phone to their ear.
    back.calls[0].digits(",," + CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at is not None)
    callee.calls[0].hangup()
    record = redis.pop(timeout=15)
    assert (record["end_reason"], record["ref"], record["number"]) == ("answered", "callback", "+27820001234")
    assert not redis.client.exists(keys.timed_pending("callbacks"))
    back.calls[0].hangup()
    assert len(back.calls) == 1


@on_the_sandbox
def test_adoption_refused_callback_is_tried_again(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage(**CARDS)
    rig.route(CB, "callback", node.config["node"]["listen"])
    card(node, cid=CALLER_E164)
    back = rig.outside(CALLER_E164, RINGS)
    leg = rig.outside("0825556666").dial(CB)
    eventually(lambda: leg.leg.ended_at is not None)
    eventually(lambda: back.calls)
    kill(node)
    back.script(Script(reject=486))
    back.calls[0].reject(486)
    eventually(lambda: back.calls[0].leg.ended_at is not None)
    node.start()
    for _ in range(2):
        record = redis.pop(timeout=15)
        assert (record["end_reason"], record["end_code"], record["ref"]) == ("agent_busy", 17, "callback")
    eventually(lambda: not redis.client.exists(keys.timed_pending("callbacks")))
    assert len(back.calls) == 2


@on_the_sandbox
def test_adoption_autodial_answered_after_the_death_talks(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    other, node = stage(**CARDS), stage(**CARDS)
    acquainted(redis, 2)
    first = rig.outside("27831112222", RINGS)
    second = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.5))
    data = {"data": {"a_leg_number": "0831112222", "b_leg_number": CALLEE, "callback_delay": 0}}
    answer = request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", data, token=ADMIN_TOKEN)
    assert answer.status in (200, 201, 202), answer.body
    eventually(lambda: first.calls and redis.live())
    kill(node)
    first.calls[0].answer()
    eventually(lambda: second.calls and second.calls[0].leg.answered_at is not None)
    record = redis.pop(timeout=15)
    assert (record["end_reason"], record["ref"]) == ("answered", "autodial")
    assert metric(other, "esl_apps_calls_adopted_total") <= 1


def test_adoption_limit_is_held_until_the_talk_ends(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage(**CARDS)
    rig.route(CC_NATIONAL, "dialthrough", node.config["node"]["listen"])
    card(node, cid=CALLER_E164)
    callee = rig.outside(E164, Script(answer_after=0.1))
    caller = rig.outside("0825556666").dial(CC_NATIONAL)
    eventually(lambda: caller.leg.answered_at is not None)
    caller.digits("," + CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at is not None)
    eventually(lambda: redis.client.keys(keys.concurrent("*")))
    eventually(lambda: any('"state":"bridged"' in one for one in redis.live()))
    kill(node)
    node.start()
    eventually(lambda: metric(node, "esl_apps_calls_adopted_total") == 1)
    assert redis.client.keys(keys.concurrent("*"))
    callee.calls[0].hangup()
    caller.hangup()
    record = redis.pop(timeout=15)
    assert (record["end_reason"], record["number"]) == ("answered", "+27820001234")
    eventually(lambda: not redis.client.keys(keys.concurrent("*")))


@on_the_sandbox
def test_adoption_talk_is_limited_though_no_node_lives(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node = stage()
    node.config["integrators"][0]["max_duration"] = 3
    assert node.stop() == 0
    node.start()
    ref, agent, _callee = talking(rig, node)
    kill(node)
    # The application would have ended it after three seconds; the switch's own timer is the safety net.
    eventually(lambda: agent.calls[0].leg.ended_at is not None)
    node.start()
    record = redis.pop(timeout=15)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "system")


def test_adoption_conference_is_limited_though_no_node_lives(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node = stage(**{**CARDS, "accounts": {"acme": {**CARDS["accounts"]["acme"], "limits": {"longest_call": 3}}}})
    first = rig.outside("27831112222", Script(answer_after=0.1))
    data = {"data": {"a_leg_number": "0831112222", "b_leg_number": "conference:weekly", "callback_delay": 0}}
    answer = request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", data, token=ADMIN_TOKEN)
    assert answer.status in (200, 201, 202), answer.body
    eventually(lambda: "schedule_hangup" in rig.api("show tasks"))
    kill(node)
    eventually(lambda: first.calls[0].leg.ended_at is not None)


# The switch, too -------------------------------------------------------------------------------------------


def test_adoption_switch_killed_meanwhile_has_a_record(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node = stage()
    ref, _agent, _callee = talking(rig, node)
    kill(node)
    rig.kill()
    rig.start()
    node.start()
    record = redis.pop(timeout=15)
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (ref, "lost", 31)


@on_the_sandbox
def test_adoption_takes_calls_that_outlive_drain_timeout(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node]
) -> None:
    node, other = stage(), stage()
    node.config["node"]["drain_timeout"] = 0.5
    assert node.stop() == 0
    node.start()
    ref, _agent, callee = talking(rig, node)
    assert node.stop() == 0
    eventually(lambda: metric(other, "esl_apps_live_calls") == 1)
    assert callee.calls[0].leg.ended_at is None
    callee.calls[0].hangup()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")


@on_the_sandbox
def test_adoption_call_redis_forgot_has_one_record(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    """The node writes again what was not on Redis's disk yet, so a node killed after that loses nothing."""
    own = RedisServer()
    try:
        node = stage(redis={"url": own.url})
        ref, agent, _callee = talking(rig, node)
        own.kill()
        own.start()
        eventually(lambda: own.client.get(keys.call(ref)))
        kill(node)
        node.start()
        agent.calls[0].hangup()
        record = own.pop(timeout=10)
        assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "agent")
    finally:
        own.close()

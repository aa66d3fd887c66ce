"""A node that is killed at any point of a call loses none: its next run, or another node, sees the call to its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.node import Node, RedisServer, configuration, request
from tests.rig.base import Rig, Script, eventually

AGENT, CALLEE = "1000", "0820001234"


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


def metric(node: Node, name: str) -> float:
    text = request(node.admin, "GET", "/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def talking(rig: Rig, node: Node) -> tuple[str, Any, Any]:
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.2))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged", within=10)
    return ref, agent, callee


def test_it_ended_while_no_node_ran(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    time.sleep(1.0)
    callee.calls[0].hangup()
    hung_up = time.time()
    eventually(lambda: callee.calls[0].leg.ended_at is not None)
    time.sleep(1.0)
    assert redis.client.llen("enigma:notifications:cdr") == 0
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert record["end_code"] == 16
    assert abs(record["ended_at"] - hung_up) < 0.5
    assert record["recording_url"] == f"{ref}.wav"
    assert node.get(ref)["state"] == "ended"
    eventually(lambda: metric(node, "esl_apps_live_calls") == 0)
    time.sleep(0.5)
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_they_talk_on_and_the_next_run_sees_the_end(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    ref, agent, callee = talking(rig, node)
    kill(node)
    node.start()
    eventually(lambda: metric(node, "esl_apps_live_calls") == 1, within=10)
    assert node.get(ref)["state"] == "bridged"
    assert callee.calls[0].leg.ended_at is None
    assert redis.client.llen("enigma:notifications:cdr") == 0
    agent.calls[0].hangup()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "agent")


def test_an_adopted_call_can_be_cancelled(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    node.start()
    assert node.delete(ref).status == 202
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "api")
    eventually(lambda: callee.calls[0].leg.ended_at is not None)


def test_another_node_takes_it_at_once(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node, other = stage(), stage()
    ref, _agent, callee = talking(rig, node)
    kill(node)
    eventually(lambda: metric(other, "esl_apps_calls_adopted_total") == 1, within=10)
    callee.calls[0].hangup()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    node.start()
    time.sleep(1.5)
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_the_agent_answers_after_its_node_died(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    """The answered leg goes to the next node, which dials the callee."""
    other, node = stage(), stage()
    # Each has heard of the other.
    time.sleep(1.5)
    agent = rig.phone(AGENT, Script(answer_after=1.5))
    callee = rig.outside(CALLEE, Script(answer_after=0.2, hangup_after=0.5))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    kill(node)
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at, within=10)
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert len(agent.calls) == 1
    assert request(other.api, "GET", f"/click2dial/calls/{ref}").json["state"] == "ended"


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [(Script(answer_after=1.0, reject=486), "agent_busy", 17), (Script(answer_after=1.0), "lost", 31)],
    ids=["rejected", "answered"],
)
def test_nobody_was_there_when_the_agent_decided(
    rig: Rig, redis: RedisServer, stage: Callable[..., Node], script: Script, reason: str, code: int
) -> None:
    """Rejected late: the agent's own cause. Answered with no node to go to: lost."""
    node = stage()
    rig.phone(AGENT, script)
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    kill(node)
    time.sleep(1.5)
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["end_code"]) == (ref, reason, code)


def test_the_callee_answers_after_the_node_died(rig: Rig, redis: RedisServer, stage: Callable[..., Node]) -> None:
    node = stage()
    rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=1.5, hangup_after=0.5))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "callee_ringing", within=10)
    kill(node)
    eventually(lambda: callee.calls[0].leg.ended_at is not None, within=10)
    node.start()
    record = redis.pop(timeout=10)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "callee")
    assert record["bridged_at"] is not None
    assert record["recording_url"] == f"{ref}.wav"

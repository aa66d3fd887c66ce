"""A node that has reached ``max_calls``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, RedisServer, configuration

AGENT, CALLEE, DISA, CALLER = "1000", "0820001234", "27115550002", "0825556666"


@pytest.fixture
def node(rig: Rig, redis: RedisServer) -> Iterator[Node]:
    """Allow one call."""
    rig.reset()
    redis.client.flushdb()
    config = configuration(rig, redis)
    config["node"]["max_calls"] = 1
    config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}, "disa": {"open": {"allow_no_pin": True}}}}
    made = Node(config)
    rig.route(DISA, "disa/acme/open", config["node"]["listen"])
    yield made
    assert made.stop() == 0
    assert "Traceback" not in made.log.read_text(), made.log.read_text()
    rig.reset()


def refused(rig: Rig) -> int | None:
    """The SIP status that a caller gets."""
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.answered_at is None
    return leg.leg.status


def test_full_node_lets_in_only_the_agent_it_rang(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The agent's call holds its slot from the request on: a caller who took it while the agent's phone rang would cost
    a sale."""
    agent = rig.phone(AGENT, Script(answer_after=None))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: agent.calls)
    assert refused(rig) == 503
    agent.calls[0].answer()
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    assert refused(rig) == 503
    assert node.post(AGENT, CALLEE, "27115550000").status == 503
    callee.calls[0].hangup()
    record = redis.pop()
    assert (record["call_ref"], record["end_reason"]) == (ref, "answered")
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_full_node_gives_a_freed_slot_to_the_next_caller(rig: Rig, redis: RedisServer, node: Node) -> None:
    first = rig.outside(CALLER).dial(DISA)
    eventually(lambda: first.leg.answered_at is not None)
    assert refused(rig) == 503
    first.hangup()
    assert redis.pop()["end_reason"] == "abandoned"

    def answered() -> bool:
        second = rig.outside(CALLER).dial(DISA)
        eventually(lambda: second.leg.answered_at is not None or second.leg.status is not None)
        second.hangup()
        return second.leg.answered_at is not None

    # The first caller's socket lingers for a moment and still counts.
    eventually(answered)

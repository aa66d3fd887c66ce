"""Inbound calls to agents with outside numbers, whose first gateway fails before it has made a leg."""

from __future__ import annotations

from typing import Any

from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, RedisServer

GROUP, OUTSIDE = "27115550000", "27115550077"
CALLER = "0825556666"


def CONFIG(config: dict[str, Any]) -> None:
    config["dial"]["external"] = ["sofia/gateway/nosuch/{number}", "sofia/gateway/pstn/{number}"]
    config["inbound"] = {
        GROUP: {"integrator": "acme", "agents": ["1000", "0831112222", "0832223333"], "ring_timeout": 4},
        OUTSIDE: {"integrator": "acme", "agents": ["0831112222"], "ring_timeout": 4},
    }
    config["integrators"][0]["payload"] = "v4"


def fared(record: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(agent["agent"], agent["end_reason"], agent["end_code"]) for agent in record["agents"]]


def talk(rig: Rig, redis: RedisServer, did: str) -> dict[str, Any]:
    """Call, hang up once an agent has answered, and return the record."""
    leg = rig.outside(CALLER).dial(did)
    eventually(lambda: leg.leg.answered_at is not None)
    leg.hangup()
    record: dict[str, Any] = redis.pop()
    return record


def test_inbound_agent_behind_a_dead_gateway_is_reached(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(OUTSIDE, "inbound", node.config["node"]["listen"])
    rig.outside("27831112222", Script(answer_after=0.2))
    record = talk(rig, redis, OUTSIDE)
    assert (record["end_reason"], record["gateway"], record["gateways_failed"]) == ("answered", "pstn", ["nosuch"])
    assert fared(record) == [("0831112222", "answered", 16)]


def test_inbound_group_rings_its_outside_agents_once_more(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The second gateway rings both of them at once, and the phone inside no more."""
    rig.route(GROUP, "inbound", node.config["node"]["listen"])
    inside = rig.phone("1000", Script(reject=486))
    rig.outside("27831112222", Script(answer_after=None))
    rig.outside("27832223333", Script(answer_after=0.5))
    record = talk(rig, redis, GROUP)
    assert (record["extension"], record["gateway"], record["gateways_failed"]) == ("0832223333", "pstn", ["nosuch"])
    assert fared(record) == [("1000", "busy", 17), ("0831112222", "elsewhere", 16), ("0832223333", "answered", 16)]
    assert len(inside.calls) == 1

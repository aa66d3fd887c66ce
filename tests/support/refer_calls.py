"""Calls of an agent whose phone transfers them."""

from __future__ import annotations

from typing import Any

from tests.rig.base import Phone, PhoneLeg, Rig, RigError, Script, eventually
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ
from tests.support.node import Node, request

EXPERT, DID = "0820005678", "27115550000"
TARGET_HZ = 1400


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(payload="v4", agent_timeout=2, callee_timeout=2)
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000", EXPERT], "ring_timeout": 5}}


def inbound_talk(rig: Rig, node: Node, phone: Phone | None = None) -> tuple[str, PhoneLeg, PhoneLeg]:
    agent = phone or rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    rig.outside(EXPERT, Script(answer_after=None))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    caller = rig.outside(CALLEE, Script(tone=CALLEE_HZ)).dial(DID)
    assert caller.hears(AGENT_HZ)
    eventually(lambda: request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"])
    (call,) = request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"]
    return call["call_ref"], agent.calls[0], caller


def is_resumed(agent: PhoneLeg) -> bool:
    """Take the other party off hold. Meanwhile the switch may be telling the phone of the new bridge."""
    try:
        agent.unhold()
    except RigError:
        return False
    return True

"""A gateway that takes an INVITE and never responds (hazard 43), and one that is only slow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER, DISA, DISA_PIN, E164, disa_config
from tests.support.node import Node, RedisServer, asks

DID = "27115550000"
#: Seconds of ``gateway_timeout``. The switch counts whole seconds of its clock, so it may take one more.
SILENCE = 1


def CONFIG(config: dict[str, Any]) -> None:
    disa_config(config)
    external = ["sofia/gateway/silent/{number}", "sofia/gateway/pstn/{number}", "sofia/gateway/silent/{number}"]
    config["dial"].update(external=external, gateway_timeout=SILENCE)
    config["integrators"][0].update(agent_timeout=6, callee_timeout=8, payload="v4")
    config["records"] = {"payload": "v4"}
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["0831112222"], "ring_timeout": 6}}


def decisions(node: Node, ref: str) -> list[str]:
    return [what["detail"] for what in node.get(ref)["decisions"] if what["what"] == "gateway_failed"]


def test_silent_gateway_of_the_callee_is_passed_over(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, hangup_after=0.5))
    ref = node.call("1000", CALLEE)
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "callee")
    assert decisions(node, ref) == ["silent: cause 38"]
    assert (record["gateway"], record["gateways_failed"]) == ("pstn", ["silent"])
    waited = callee.calls[0].leg.started_at - record["answered_at"]
    assert SILENCE - 0.2 < waited < SILENCE + 1.5


def test_silent_gateway_of_an_outside_agent_is_passed_over(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.outside("0831112222", Script(answer_after=0.1, hangup_after=0.5))
    ref = node.call("0831112222", "1001", confirm=False)
    record = redis.pop()
    # These are B's gateways. The agent's is in the quality of its leg.
    assert (record["gateway"], record["gateways_failed"]) == (None, [])
    assert record["quality"]["agent"]["gateway"] == "pstn"
    assert agent.calls[0].leg.answered_at is not None
    assert decisions(node, ref)[:1] == ["silent: cause 38"]


def test_silent_gateway_of_a_disa_is_passed_over(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])
    callee = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.5))
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN)
    assert leg.hears(350, 440)
    leg.digits(CALLEE + "#")
    record = redis.pop()
    assert (record["end_reason"], record["gateway"], record["gateways_failed"]) == ("answered", "pstn", ["silent"])
    assert len(callee.calls) == 1
    leg.hangup()


def test_silent_gateway_of_an_inbound_agent_is_passed_over(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(DID, "inbound", node.config["node"]["listen"])
    agent = rig.outside("27831112222", Script(answer_after=0.1, hangup_after=0.5))
    rig.outside(CALLER).dial(DID)
    record = redis.pop()
    assert (record["end_reason"], record["gateway"], record["gateways_failed"]) == ("answered", "pstn", ["silent"])
    assert SILENCE - 0.2 < agent.calls[0].leg.started_at - record["dialed_at"] < SILENCE + 1.5


@pytest.mark.parametrize("early_media", [False, True], ids=["180", "183"])
def test_gateway_that_rings_for_long_is_waited_for(rig: Rig, node: Node, redis: RedisServer, early_media: bool) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    script = Script(ring_after=0.3, early_media=early_media, answer_after=SILENCE + 2, hangup_after=0.3)
    callee = rig.outside("0820001235", script)
    ref = node.call("1000", "0820001235")
    record = redis.pop()
    assert (record["end_reason"], len(callee.calls)) == ("answered", 1)
    assert decisions(node, ref) == ["silent: cause 38"]

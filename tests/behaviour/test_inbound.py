"""An inbound call to an integrator's number, as the caller, the agents and the integrator see it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.rig.base import Rig, Script, ended, eventually
from tests.support.node import Node, RedisServer, request

DID, OUTSIDE_DID, IN_ORDER_DID = "27115550000", "27115550077", "27115550078"
CALLER = "0825556666"
INBOUND = "enigma:notifications:inbound"


def CONFIG(config: dict[str, Any]) -> None:
    config["inbound"] = {
        DID: {"integrator": "acme", "agents": ["1000", "1001"], "ring_timeout": 2},
        OUTSIDE_DID: {"integrator": "acme", "agents": ["0831112222"], "ring_timeout": 2},
        IN_ORDER_DID: {
            "integrator": "acme",
            "agents": ["1000", "1001", "1002"],
            "strategy": "in_order",
            "ring_timeout": 1,
        },
    }
    config["integrators"][0]["payload"] = "v4"
    config["integrators"][0]["limits"] = {"calls_per_hour": 1}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(DID, "inbound", node.config["node"]["listen"])


def rung_now(node: Node) -> list[str]:
    """The agents of the one call that rings."""
    calls = request(node.api, "GET", "/click2dial/calls?state=ringing").json["calls"]
    return [agent["agent"] for call in calls for agent in call["agents"] if agent["end_reason"] is None]


def fared(record: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(agent["agent"], agent["end_reason"], agent["end_code"]) for agent in record["agents"]]


def test_inbound_first_agent_to_answer_talks(rig: Rig, node: Node, redis: RedisServer) -> None:
    first = rig.phone("1000", Script(answer_after=None))
    second = rig.phone("1001", Script(answer_after=1.1, tone=500))
    caller = rig.outside(CALLER, Script(tone=900))
    leg = caller.dial(DID)
    eventually(lambda: first.calls and second.calls)
    eventually(lambda: leg.leg.answered_at is not None)
    # The phones are processes of their own.
    assert leg.leg.answered_after > second.calls[0].leg.answered_after - 0.2
    assert leg.hears(500)
    assert second.calls[0].hears(900)
    assert first.calls[0].leg.caller_number == CALLER
    eventually(lambda: first.calls[0].leg.ended_at is not None)
    announced = redis.pop(INBOUND)
    assert announced["number"] == CALLER
    assert announced["dial_number"] == DID
    assert announced["ref"] == "1001"
    assert announced["call_dir"] == "inbound"
    assert announced["hold_time"] == pytest.approx(second.calls[0].leg.answered_after, abs=0.6)
    leg.hangup()
    record = redis.pop()
    assert record["call_ref"] == announced["call_ref"]
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("answered", 16, "callee")
    assert record["extension"] == "1001"
    assert record["number"] == CALLER
    assert record["dial_number"] == DID
    assert record["hold_time"] == pytest.approx(second.calls[0].leg.answered_after, abs=0.6)
    assert record["ref"] == "inbound"
    assert record["call_dir"] == "inbound"
    assert record["recording_url"] is not None
    assert fared(record) == [("1000", "elsewhere", 16), ("1001", "answered", 16)]
    assert min(agent["seconds"] for agent in record["agents"]) >= 1


def test_inbound_agents_in_order_ring_one_by_one(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The caller, who is an agent, is passed over; the first agent doesn't answer; the next one is rung and named."""
    rig.route(IN_ORDER_DID, "inbound", node.config["node"]["listen"])
    caller = rig.phone("1000")
    silent = rig.phone("1001", Script(answer_after=None))
    rig.phone("1002", Script(answer_after=0.5))
    leg = caller.dial(IN_ORDER_DID)
    eventually(lambda: silent.calls)
    eventually(lambda: rung_now(node) == ["1001"])
    eventually(lambda: rung_now(node) == ["1002"])
    eventually(lambda: leg.leg.answered_at is not None)
    leg.hangup()
    assert fared(redis.pop()) == [("1001", "no_answer", 19), ("1002", "answered", 16)]


def test_inbound_agent_hangs_up_is_in_the_record(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1))
    rig.phone("1001", Script(answer_after=None))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: leg.leg.answered_at)
    agent.calls[0].hangup()
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"], record["extension"]) == ("answered", "agent", "1000")


def test_inbound_caller_who_gives_up_abandons(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=None))
    rig.phone("1001", Script(answer_after=None))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: agent.calls)
    time.sleep(0.2)
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("abandoned", 16, "callee")
    eventually(lambda: agent.calls[0].leg.ended_at is not None)
    assert redis.client.llen(INBOUND) == 0


def test_inbound_no_agent_registered_is_480(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000").unregister()
    rig.phone("1001").unregister()
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 480
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("agent_failed", 20)


def test_inbound_all_agents_busy_is_486(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(reject=486))
    rig.phone("1001", Script(reject=486))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 486
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("agent_busy", 17)


def test_inbound_no_agent_answers_plays_a_message_and_480(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=None))
    rig.phone("1001", Script(answer_after=None))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: leg.leg.early_media_at is not None)
    assert leg.leg.answered_at is None
    phone = ended(agent.calls[0])
    # The default is 20 s.
    assert 1.75 < phone.lasted < 15
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 480
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("agent_no_answer", 19)
    # Without the message.
    assert record["ring_seconds"]["agent"] == pytest.approx(phone.rang, abs=0.25)


def test_inbound_number_not_configured_is_refused(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("27115559999", "inbound", node.config["node"]["listen"])
    leg = rig.outside(CALLER).dial("27115559999")
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 404
    assert redis.pop()["end_reason"] == "rejected"


def test_inbound_asserted_identity_of_a_stranger_is_ignored(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, hangup_after=0.3))
    rig.phone("1001", Script(answer_after=None))
    rig.outside(CALLER).dial(DID, {"P-Asserted-Identity": "<sip:0117770000@127.0.0.1>"})
    record = redis.pop()
    assert record["number"] == CALLER
    assert agent.calls[0].leg.caller_number == CALLER


def test_inbound_withheld_number_is_not_passed_on(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, hangup_after=0.3))
    rig.phone("1001", Script(answer_after=None))
    rig.outside(CALLER).dial(DID, {"Privacy": "id", "P-Asserted-Identity": f"<sip:{CALLER}@127.0.0.1>"})
    record = redis.pop()
    assert record["number"] is None
    leg = agent.calls[0].leg
    assert leg.caller_number == "anonymous"
    assert "privacy=full" in str(leg.headers), leg.headers
    assert CALLER not in str(leg.headers), leg.headers


def test_inbound_two_agents_answer_at_once_is_one_call(rig: Rig, node: Node, redis: RedisServer) -> None:
    first = rig.phone("1000", Script(answer_after=0.5, tone=500))
    second = rig.phone("1001", Script(answer_after=0.5, tone=700))
    leg = rig.outside(CALLER, Script(tone=900)).dial(DID)
    eventually(lambda: leg.leg.answered_at is not None)
    eventually(lambda: any(phone.calls[0].leg.ended_at for phone in (first, second)))
    talking = [phone.number for phone in (first, second) if phone.calls[0].leg.ended_at is None]
    assert len(talking) == 1
    assert leg.hears({"1000": 500, "1001": 700}[talking[0]])
    leg.hangup()
    assert redis.pop(INBOUND)["ref"] == talking[0]
    record = redis.pop()
    assert (record["extension"], record["end_reason"], record["hung_up_by"]) == (talking[0], "answered", "callee")
    assert record["recording_url"] is not None


def test_inbound_rings_no_agent_outside_past_a_limit(rig: Rig, node: Node, redis: RedisServer) -> None:
    """A stranger's call would dial out at the integrator's expense."""
    agent = rig.outside("27831112222", Script(answer_after=0.1))
    rig.route(OUTSIDE_DID, "inbound", node.config["node"]["listen"])
    answered = rig.outside(CALLER).dial(OUTSIDE_DID)
    eventually(lambda: answered.leg.answered_at is not None)
    answered.hangup()
    assert redis.pop()["end_reason"] == "answered"
    # The first used up the integrator's call of this hour.
    refused = rig.outside(CALLER).dial(OUTSIDE_DID)
    eventually(lambda: refused.leg.ended_at is not None)
    assert refused.leg.answered_at is None
    assert len(agent.calls) == 1
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("rejected", 17)

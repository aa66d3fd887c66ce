"""Transfers as the three parties see them; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ, talk
from tests.support.node import Node, RedisServer, request
from tests.support.ports import free_port
from tests.support.transfers import dying_node, kill, records, target

EXPERT, PREMIUM, DID = "0820005678", "0900123456", "27115550000"
TARGET_HZ = 1400


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(payload="v4", agent_timeout=2, callee_timeout=2)
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}}


def transfer(node: Node, ref: str, **body: str) -> Any:
    return request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", body)


@pytest.mark.parametrize(("number", "shown"), [("1001", CALLEE), (EXPERT, "27115550000")])
def test_blind_transfer_leaves_the_customer_with_the_new_party(
    rig: Rig, node: Node, redis: RedisServer, number: str, shown: str
) -> None:
    ref, agent, callee = talk(rig, node)
    phone = target(rig, number, Script(answer_after=0.3, tone=TARGET_HZ))
    answer = transfer(node, ref, to=number)
    assert answer.status == 202, answer.body
    new = answer.json["transfer_ref"]
    eventually(lambda: agent.leg.ended_at)
    eventually(lambda: node.get(new)["state"] == "bridged")
    assert callee.hears(TARGET_HZ)
    assert phone.calls[0].hears(CALLEE_HZ)
    assert phone.calls[0].leg.caller_number == shown
    phone.calls[0].hangup()
    eventually(lambda: callee.leg.ended_at)
    first, second = records(redis, ref, new)
    assert (first["end_reason"], first["hung_up_by"], first["transferred_to"]) == ("answered", "agent", new)
    assert (second["end_reason"], second["hung_up_by"], second["transferred_from"]) == ("answered", "agent", ref)
    assert (second["extension"], second["number"]) == (number, CALLEE)
    assert first["session_ref"] == second["session_ref"] == ref
    assert second["recording"]["seconds"] > 0
    assert second["ring_seconds"]["agent"] > 0.2
    assert second["ring_seconds"]["callee"] is None


def test_blind_transfer_by_the_callee_leaves_the_agent(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    expert = rig.outside(EXPERT, Script(answer_after=0.3, tone=TARGET_HZ))
    new = transfer(node, ref, to=EXPERT, by="callee").json["transfer_ref"]
    eventually(lambda: callee.leg.ended_at)
    assert agent.hears(TARGET_HZ)
    assert expert.calls[0].hears(AGENT_HZ)
    agent.hangup()
    first, second = records(redis, ref, new)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "callee")
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "agent")
    assert (second["extension"], second["number"]) == ("1000", EXPERT)


def test_blind_transfer_of_an_inbound_caller(rig: Rig, node: Node, redis: RedisServer) -> None:
    first_agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    second_agent = rig.phone("1001", Script(answer_after=0.3, tone=TARGET_HZ))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    caller = rig.outside(CALLEE, Script(tone=CALLEE_HZ)).dial(DID)
    assert caller.hears(AGENT_HZ)
    eventually(lambda: request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"])
    (call,) = request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"]
    new = transfer(node, call["call_ref"], to="1001").json["transfer_ref"]
    eventually(lambda: first_agent.calls[0].leg.ended_at)
    assert caller.hears(TARGET_HZ)
    assert second_agent.calls[0].hears(CALLEE_HZ)
    caller.hangup()
    first, second = records(redis, call["call_ref"], new)
    assert (first["extension"], first["hung_up_by"], first["transferred_to"]) == ("1000", "agent", new)
    assert (second["extension"], second["number"], second["hung_up_by"]) == ("1001", CALLEE, "callee")


def sip_call_ids(record: dict[str, Any]) -> tuple[str, str]:
    """Those of the agent's leg and of the customer's."""
    return record["quality"]["agent"]["sip_call_id"], record["quality"]["callee"]["sip_call_id"]


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_blind_transfer_keeps_phones_hold_and_sound(rig: Rig, node: Node, redis: RedisServer, by: str) -> None:
    """The leg that leaves ends after its record; the switch counts the hold of one that is moved from 0."""
    ref, agent, callee = talk(rig, node)
    phone = rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
    held = [hold(agent)]
    new = transfer(node, ref, to="1001", by=by).json["transfer_ref"]
    stays = callee if by == "agent" else agent
    assert stays.hears(TARGET_HZ)
    held.append(hold(phone.calls[0] if by == "agent" else agent))
    stays.hangup()
    first, second = records(redis, ref, new)
    for record, most in zip((first, second), held, strict=True):
        assert 1 <= record["hold_time"] <= most
    same = [one == other for one, other in zip(sip_call_ids(first), sip_call_ids(second), strict=True)]
    assert same == [by == "callee", by == "agent"]
    assert all(leg["packets_in"] > 10 for leg in first["quality"].values())


def hold(leg: PhoneLeg) -> int:
    """Long enough to count: ``hold_time`` is in whole seconds. Return the most that it may be."""
    began = time.monotonic()
    leg.hold()
    time.sleep(0.9)
    leg.unhold()
    time.sleep(0.1)
    return round(time.monotonic() - began)


def test_blind_transfer_keeps_the_longest_duration(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1))
    rig.phone("1001", Script(answer_after=0.1))
    ref = node.call("1000", CALLEE, max_duration=4)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    new = transfer(node, ref, to="1001").json["transfer_ref"]
    eventually(lambda: callee.calls[0].leg.ended_at)
    first, second = records(redis, ref, new)
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "system")
    assert 3.5 < first["b_seconds"] + second["b_seconds"] < 15


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(reject=486), "agent_busy"),
        (Script(answer_after=None), "agent_no_answer"),
    ],
)
def test_blind_transfer_that_fails_ends_after_a_prompt(
    rig: Rig, node: Node, redis: RedisServer, script: Script, reason: str
) -> None:
    ref, _agent, callee = talk(rig, node)
    phone = rig.phone("1001", script)
    new = transfer(node, ref, to="1001").json["transfer_ref"]
    eventually(lambda: callee.leg.ended_at)
    first, second = records(redis, ref, new)
    assert first["end_reason"] == "answered"
    assert second["end_reason"] == reason
    # Without the prompt.
    assert second["ring_seconds"]["agent"] == pytest.approx(phone.calls[0].leg.rang, abs=0.2)


def test_transfer_to_a_premium_number_dials_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    premium = rig.outside(PREMIUM)
    answer = transfer(node, ref, to=PREMIUM)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "to")
    assert callee.hears(AGENT_HZ)
    assert not premium.calls
    agent.hangup()
    (record,) = records(redis, ref)
    assert record["transferred_to"] is None


def test_transfer_is_cancelled_while_it_rings(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, _agent, callee = talk(rig, node)
    rig.phone("1001", Script(answer_after=None))
    new = transfer(node, ref, to="1001").json["transfer_ref"]
    eventually(lambda: node.get(new)["state"] == "callee_ringing")
    assert node.delete(new).status == 202
    eventually(lambda: callee.leg.ended_at)
    _first, second = records(redis, ref, new)
    assert second["end_reason"] == "cancelled"


# Death of the node ----------------------------------------------------------------------------------------


def test_transfer_goes_on_at_another_node(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The node dies before the leg that stays has come to it."""
    dying = dying_node(rig, redis, advertise=f"127.0.0.1:{free_port()}")
    rig.route(CALLEE, "click2dial", dying.config["node"]["listen"])
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    target(rig, "1001", Script(answer_after=0.3, tone=TARGET_HZ))
    agent = rig.phone("1000", Script(tone=AGENT_HZ)).dial(CALLEE, {"X-Teleforge-Outbound-ID": DID})
    assert agent.hears(CALLEE_HZ)
    eventually(lambda: request(dying.api, "GET", "/click2dial/calls?state=bridged").json["calls"])
    (call,) = request(dying.api, "GET", "/click2dial/calls?state=bridged").json["calls"]
    new = transfer(dying, call["call_ref"], to="1001").json["transfer_ref"]
    kill(dying)
    eventually(lambda: agent.leg.ended_at)
    assert callee.calls[0].hears(TARGET_HZ)
    callee.calls[0].hangup()
    # If it saw the first call end, its record may be in its journal.
    dying.start()
    first, second = records(redis, call["call_ref"], new)
    dying.stop()
    assert (first["end_reason"], first["transferred_to"]) == ("answered", new)
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "callee")


def test_transfer_whose_node_dies_while_it_rings_goes_on(rig: Rig, redis: RedisServer, node: Node) -> None:
    dying = dying_node(rig, redis)
    ref, _agent, callee = talk(rig, dying)
    expert = target(rig, EXPERT, Script(answer_after=None, tone=TARGET_HZ))
    new = transfer(dying, ref, to=EXPERT).json["transfer_ref"]
    eventually(lambda: dying.get(new)["state"] == "callee_ringing")
    kill(dying)
    expert.calls[0].answer()
    assert callee.hears(TARGET_HZ)
    expert.calls[0].hangup()
    eventually(lambda: callee.leg.ended_at)
    first, second = records(redis, ref, new)
    assert (first["end_reason"], first["transferred_to"]) == ("answered", new)
    assert (second["end_reason"], second["transferred_from"]) == ("answered", ref)


@pytest.mark.parametrize("step", ["pause", "stop"])
@pytest.mark.parametrize("mode", ["blind", "consult"])
def test_transfer_with_the_recording_off_records_nothing(
    rig: Rig, node: Node, redis: RedisServer, step: str, mode: str
) -> None:
    """A client has stopped it while a card number is read out, or because a party doesn't want it."""
    ref, _agent, callee = talk(rig, node)
    assert request(node.api, "POST", f"/click2dial/calls/{ref}/record", {"action": step}).status == 202
    expert = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
    refs = [ref, transfer(node, ref, to=EXPERT, mode=mode).json["transfer_ref"]]
    eventually(lambda: node.get(refs[1])["state"] == "bridged")
    if mode == "consult":
        assert request(node.api, "POST", f"/click2dial/calls/{ref}/transfer/complete").status == 202
        refs.append(node.get(ref)["record"]["transferred_to"])
        eventually(lambda: node.get(refs[2])["state"] == "bridged")
    assert callee.hears(TARGET_HZ)
    assert node.get(refs[-1])["recording"] == "off"
    expert.calls[0].hangup()
    assert [record["recording_url"] for record in records(redis, *refs)][1:] == [None] * (len(refs) - 1)

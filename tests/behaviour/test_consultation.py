"""Transfers after a consultation, as the three parties hear them; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.base import Phone, PhoneLeg, Rig, Script, eventually
from tests.rig.fs_configuration import MOH_HZ
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ, silent, talk
from tests.support.node import Node, RedisServer, configuration, request
from tests.support.transfers import dying_node, kill, records, target

EXPERT, PREMIUM, DID = "0820005678", "0900123456", "27115550000"
TARGET_HZ = 1400


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(payload="v4", agent_timeout=2, callee_timeout=2)
    config["dial"]["emergency"] = config["dial"]["external"][0]
    config["dial"]["hold_music"] = f"tone_stream://%(10000,0,{MOH_HZ});loops=-1"
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"], "ring_timeout": 5}}


def act(node: Node, ref: str, name: str, body: object = None) -> Any:
    return request(node.api, "POST", f"/click2dial/calls/{ref}/{name}", body)


def consult(node: Node, ref: str, **body: str) -> str:
    """Begin a consultation. Asking twice changes nothing."""
    answers = [act(node, ref, "transfer", {"mode": "consult", **body}) for _ in range(2)]
    for answer in answers:
        assert answer.status == 202, answer.body
    assert answers[0].json["transfer_ref"] == answers[1].json["transfer_ref"]
    assert answers[1].json["held"]
    return str(answers[0].json["transfer_ref"])


def refused(answer: Any, state: str) -> None:
    assert answer.status == 409, answer.body
    assert answer.json["errors"][0]["state"] == state


def asking(rig: Rig, node: Node, number: str = EXPERT) -> tuple[str, str, PhoneLeg, PhoneLeg, Phone]:
    """Agent and new party talk; the customer hears music."""
    ref, agent, callee = talk(rig, node)
    expert = target(rig, number, Script(answer_after=0.3, tone=TARGET_HZ))
    new = consult(node, ref, to=number)
    eventually(lambda: node.get(new)["state"] == "bridged")
    assert agent.hears(TARGET_HZ)
    assert expert.calls[0].hears(AGENT_HZ)
    assert callee.hears(MOH_HZ)
    assert silent(callee, AGENT_HZ)
    assert node.get(ref)["held"]
    assert node.get(ref)["consultation"] == new
    return ref, new, agent, callee, expert


def back(agent: PhoneLeg, callee: PhoneLeg) -> None:
    """The two talk again."""
    assert agent.hears(CALLEE_HZ)
    assert callee.hears(AGENT_HZ)
    assert silent(callee, MOH_HZ)


@pytest.mark.parametrize("number", ["1001", EXPERT])
@pytest.mark.parametrize("by", ["request", "hang-up"])
def test_consultation_is_completed(rig: Rig, node: Node, redis: RedisServer, number: str, by: str) -> None:
    ref, asked, agent, callee, phone = asking(rig, node, number)
    if by == "request":
        answers = [act(node, ref, "transfer/complete") for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202], answers[1].body
        assert answers[0].json["state"] == "ended"
    else:
        agent.hangup()
    eventually(lambda: agent.leg.ended_at)
    assert callee.hears(TARGET_HZ)
    assert phone.calls[0].hears(CALLEE_HZ)
    eventually(lambda: node.get(ref)["state"] == "ended")
    new = node.get(ref)["record"]["transferred_to"]
    status, gateway = node.get(new), "pstn" if number == EXPERT else None
    assert (status["state"], status["gateway"]) == ("bridged", gateway)
    refused(act(node, ref, "hold"), "ended")
    phone.calls[0].hangup()
    eventually(lambda: callee.leg.ended_at)
    first, second, third = records(redis, ref, asked, new)
    for record in (first, second):
        assert (record["end_reason"], record["hung_up_by"]) == ("answered", "agent")
        assert record["transferred_to"] == new
        assert record["session_ref"] == ref
    assert second["transferred_from"] == third["transferred_from"] == ref
    assert (second["extension"], second["number"]) == ("1000", number)
    assert (third["extension"], third["number"], third["gateway"]) == (number, CALLEE, gateway)
    assert (third["end_reason"], third["hung_up_by"], third["session_ref"]) == ("answered", "agent", ref)
    assert first["hold_time"] >= 1
    assert all(record["recording"]["seconds"] > 0 for record in (first, second, third))
    assert 0.2 < second["ring_seconds"]["callee"] == pytest.approx(phone.calls[0].leg.rang, abs=0.2)
    assert third["ring_seconds"] == {"agent": None, "callee": None}
    assert first["quality"]["agent"]["sip_call_id"] == second["quality"]["agent"]["sip_call_id"]
    assert first["quality"]["callee"]["sip_call_id"] == third["quality"]["callee"]["sip_call_id"]
    # The customer's leg is divided between the first call and the third, the new party's between the other two.
    assert abs(first["b_seconds"] + third["a_seconds"] - (third["ended_at"] - first["bridged_at"])) < 1
    assert abs(second["b_seconds"] + third["b_seconds"] - (third["ended_at"] - second["bridged_at"])) < 1


def test_consultation_is_completed_in_the_moment_of_the_answer(rig: Rig, node: Node, redis: RedisServer) -> None:
    """A client that follows the events completes it some milliseconds after the new party's answer."""
    ref, agent, callee = talk(rig, node)
    expert = rig.outside(EXPERT, Script(answer_after=0.3, tone=TARGET_HZ))
    asked = consult(node, ref, to=EXPERT)
    while (answer := act(node, ref, "transfer/complete")).status == 409:
        assert "not answered" in answer.json["errors"][0]["message"], answer.body
    assert answer.status == 202, answer.body
    new = answer.json["transfer_ref"]
    eventually(lambda: agent.leg.ended_at)
    assert callee.hears(TARGET_HZ)
    assert expert.calls[0].hears(CALLEE_HZ)
    callee.hangup()
    records(redis, ref, asked, new)


def test_consultation_of_112_leaves_no_timer(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The customer who is joined with it had one, of the call on hold."""
    ref, asked, _agent, callee, service = asking(rig, node, "112")
    assert rig.api("show tasks").count("schedule_hangup") == 2
    assert act(node, ref, "transfer/complete").status == 202
    assert callee.hears(TARGET_HZ)
    eventually(lambda: "schedule_hangup" not in rig.api("show tasks"))
    new = node.get(ref)["record"]["transferred_to"]
    service.calls[0].hangup()
    eventually(lambda: callee.leg.ended_at)
    records(redis, ref, asked, new)


def test_consultation_is_cancelled_while_they_talk(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, asked, agent, callee, expert = asking(rig, node)
    for _ in range(2):
        answer = act(node, ref, "transfer/cancel")
        assert (answer.status, answer.json["state"], answer.json["held"]) == (202, "bridged", False), answer.body
    eventually(lambda: expert.calls[0].leg.ended_at)
    back(agent, callee)
    callee.hangup()
    eventually(lambda: agent.leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"], first["transferred_to"]) == ("answered", "callee", None)
    assert (second["end_reason"], second["hung_up_by"], second["transferred_to"]) == ("answered", "api", None)


def test_consultations_mute_ends_with_it(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, asked, agent, callee, _expert = asking(rig, node)
    assert act(node, asked, "mute", {"party": "agent"}).json["muted"] == ["agent"]
    assert act(node, ref, "transfer/cancel").json["muted"] == []
    back(agent, callee)
    asked = consult(node, ref, to=EXPERT)
    eventually(lambda: node.get(asked)["state"] == "bridged")
    assert act(node, asked, "mute", {"party": "callee"}).json["muted"] == ["callee"]
    assert act(node, ref, "transfer/complete").status == 202
    assert callee.hears(TARGET_HZ)
    callee.hangup()


def test_consultation_is_completed_from_its_own_hold(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, asked, _agent, callee, expert = asking(rig, node)
    assert act(node, asked, "hold").json["held"]
    assert expert.calls[0].hears(MOH_HZ)
    assert act(node, ref, "transfer/complete").status == 202
    assert callee.hears(TARGET_HZ)
    assert expert.calls[0].hears(CALLEE_HZ)
    callee.hangup()


def test_consultation_is_cancelled_while_it_rings(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    expert = rig.outside(EXPERT, Script(answer_after=None))
    asked = consult(node, ref, to=EXPERT)
    eventually(lambda: node.get(asked)["state"] == "callee_ringing")
    assert callee.hears(MOH_HZ)
    refused(act(node, ref, "transfer/complete"), "bridged")
    refused(act(node, ref, "resume"), "bridged")
    refused(act(node, ref, "transfer", {"to": "1001"}), "bridged")
    refused(act(node, asked, "transfer", {"to": "1001"}), "callee_ringing")
    assert act(node, ref, "transfer/cancel").status == 202
    eventually(lambda: expert.calls[0].leg.ended_at)
    back(agent, callee)
    agent.hangup()
    eventually(lambda: callee.leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "agent")
    assert second["end_reason"] == "cancelled"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(reject=486), "callee_busy"),
        (Script(answer_after=None), "callee_no_answer"),
        (Script(answer_after=0.1, hangup_after=0.8, tone=TARGET_HZ), "answered"),
    ],
)
def test_consultation_without_the_new_party_ends(
    rig: Rig, node: Node, redis: RedisServer, script: Script, reason: str
) -> None:
    """The agent gets the customer back, and may ask again."""
    ref, agent, callee = talk(rig, node)
    rig.outside(EXPERT, script)
    asked = consult(node, ref, to=EXPERT)
    assert callee.hears(MOH_HZ)
    eventually(lambda: node.get(asked)["state"] == "ended", 15)
    back(agent, callee)
    eventually(lambda: not node.get(ref)["held"])
    rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
    again = consult(node, ref, to="1001")
    assert agent.hears(TARGET_HZ)
    eventually(lambda: node.get(again)["state"] == "bridged")
    assert callee.hears(MOH_HZ)
    assert act(node, ref, "transfer/cancel").status == 202
    back(agent, callee)
    callee.hangup()
    first, second, third = records(redis, ref, asked, again)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "callee")
    assert second["end_reason"] == reason
    assert third["end_reason"] == "answered"


def test_consultation_goes_on_without_the_customer(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, asked, agent, callee, expert = asking(rig, node)
    callee.hangup()
    eventually(lambda: node.get(ref)["state"] == "ended")
    assert agent.hears(TARGET_HZ)
    refused(act(node, ref, "transfer/complete"), "ended")
    agent.hangup()
    eventually(lambda: expert.calls[0].leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"], first["transferred_to"]) == ("answered", "callee", None)
    assert (second["end_reason"], second["hung_up_by"], second["transferred_to"]) == ("answered", "agent", None)


def test_consultation_outlasts_the_longest_duration(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The first call may take so long, on hold or not; the agent goes on with the new party."""
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    expert = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
    order = {"agent": "1000", "callee": CALLEE, "outbound_id": DID, "max_duration": 4}
    ref = request(node.api, "POST", "/click2dial/calls", order).json["call_ref"]
    eventually(lambda: node.get(ref)["state"] == "bridged")
    asked = consult(node, ref, to=EXPERT)
    assert callee.calls[0].hears(MOH_HZ)
    eventually(lambda: callee.calls[0].leg.ended_at, 15)
    assert agent.calls[0].hears(TARGET_HZ)
    expert.calls[0].hangup()
    eventually(lambda: agent.calls[0].leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "system")
    assert 3 <= first["ended_at"] - first["bridged_at"] <= 7
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "callee")


def test_consultation_ends_with_an_agent_who_leaves_early(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    expert = rig.outside(EXPERT, Script(answer_after=None))
    asked = consult(node, ref, to=EXPERT)
    eventually(lambda: node.get(asked)["state"] == "callee_ringing")
    agent.hangup()
    eventually(lambda: expert.calls[0].leg.ended_at and callee.leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"], first["transferred_to"]) == ("answered", "agent", None)
    assert (second["end_reason"], second["hung_up_by"]) == ("abandoned", "agent")


def test_consultation_by_the_callee_holds_the_agent(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    expert = rig.outside(EXPERT, Script(answer_after=0.3, tone=TARGET_HZ))
    asked = consult(node, ref, to=EXPERT, by="callee")
    eventually(lambda: node.get(asked)["state"] == "bridged")
    assert callee.hears(TARGET_HZ)
    assert agent.hears(MOH_HZ)
    assert act(node, ref, "transfer/complete").status == 202
    eventually(lambda: callee.leg.ended_at)
    assert agent.hears(TARGET_HZ)
    assert expert.calls[0].hears(AGENT_HZ)
    agent.hangup()
    eventually(lambda: expert.calls[0].leg.ended_at)
    new = node.get(ref)["record"]["transferred_to"]
    first, _second, third = records(redis, ref, asked, new)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "callee")
    assert (third["extension"], third["number"], third["hung_up_by"]) == ("1000", EXPERT, "agent")


@pytest.mark.parametrize("step", ["complete", "cancel"])
def test_consultation_about_an_inbound_caller(rig: Rig, node: Node, redis: RedisServer, step: str) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    expert = rig.phone("1001", Script(answer_after=0.3, tone=TARGET_HZ))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    caller = rig.outside(CALLEE, Script(tone=CALLEE_HZ)).dial(DID)
    assert caller.hears(AGENT_HZ)
    eventually(lambda: request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"])
    (call,) = request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"]
    ref = call["call_ref"]
    asked = consult(node, ref, to="1001")
    assert agent.calls[0].hears(TARGET_HZ)
    assert caller.hears(MOH_HZ)
    eventually(lambda: node.get(asked)["state"] == "bridged")
    assert act(node, ref, f"transfer/{step}").status == 202
    if step == "complete":
        eventually(lambda: agent.calls[0].leg.ended_at)
        assert caller.hears(TARGET_HZ)
        assert expert.calls[0].hears(CALLEE_HZ)
        caller.hangup()
        new = node.get(ref)["record"]["transferred_to"]
        first, _second, third = records(redis, ref, asked, new)
        assert (third["extension"], third["number"], third["hung_up_by"]) == ("1001", CALLEE, "callee")
    else:
        back(agent.calls[0], caller)
        agent.calls[0].hangup()
        eventually(lambda: caller.leg.ended_at)
        first, _second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"], first["extension"]) == ("answered", "agent", "1000")


def test_consultation_with_a_premium_number_dials_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    ref, agent, callee = talk(rig, node)
    premium = rig.outside(PREMIUM)
    answer = act(node, ref, "transfer", {"to": PREMIUM, "mode": "consult"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "to")
    assert callee.hears(AGENT_HZ)
    assert not premium.calls
    agent.hangup()
    (record,) = records(redis, ref)
    assert record["transferred_to"] is None


def test_consultation_at_another_node(rig: Rig, redis: RedisServer, node: Node) -> None:
    """Every step may be asked of any node."""
    other = Node(configuration(rig, redis))
    try:
        ref, agent, callee = talk(rig, node)
        expert = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
        first = consult(other, ref, to=EXPERT)
        eventually(lambda: other.get(first)["state"] == "bridged")
        assert act(other, ref, "transfer/cancel").status == 202
        back(agent, callee)
        second = consult(other, ref, to=EXPERT)
        eventually(lambda: other.get(second)["state"] == "bridged")
        assert act(other, ref, "transfer/complete").status == 202
        assert callee.hears(TARGET_HZ)
        eventually(lambda: other.get(ref)["state"] == "ended")
        new = other.get(ref)["record"]["transferred_to"]
        expert.calls[1].hangup()
        assert len(records(redis, ref, first, second, new)) == 4
    finally:
        other.stop()


# Death of the node ----------------------------------------------------------------------------------------


def test_consultation_whose_node_dies_while_it_rings(rig: Rig, redis: RedisServer, node: Node) -> None:
    dying = dying_node(rig, redis)
    ref, agent, callee = talk(rig, dying)
    expert = rig.outside(EXPERT, Script(answer_after=None, tone=TARGET_HZ))
    asked = consult(dying, ref, to=EXPERT)
    eventually(lambda: dying.get(asked)["state"] == "callee_ringing")
    kill(dying)
    expert.calls[0].answer()
    assert agent.hears(TARGET_HZ)
    expert.calls[0].hangup()
    back(agent, callee)
    callee.hangup()
    eventually(lambda: agent.leg.ended_at)
    first, second = records(redis, ref, asked)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "callee")
    assert (second["end_reason"], second["transferred_from"]) == ("answered", ref)


def test_consultation_whose_node_dies_goes_on_at_another(rig: Rig, redis: RedisServer, node: Node) -> None:
    dying = dying_node(rig, redis)
    ref, asked, agent, callee, expert = asking(rig, dying)
    kill(dying)
    eventually(lambda: act(node, ref, "transfer/complete").status == 202, 15)
    eventually(lambda: agent.leg.ended_at)
    assert callee.hears(TARGET_HZ)
    eventually(lambda: node.get(ref)["state"] == "ended", 10)
    new = node.get(ref)["record"]["transferred_to"]
    expert.calls[0].hangup()
    eventually(lambda: callee.leg.ended_at)
    first, second, third = records(redis, ref, asked, new)
    assert (first["transferred_to"], second["transferred_to"], third["transferred_from"]) == (new, new, ref)
    assert third["end_reason"] == "answered"


def test_consultation_completed_with_no_node_up(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The agent hangs up while no node lives to see it."""
    dying = dying_node(rig, redis)
    ref, asked, agent, callee, expert = asking(rig, dying)
    kill(dying)
    agent.hangup()
    assert callee.hears(TARGET_HZ)
    assert expert.calls[0].hears(CALLEE_HZ)
    eventually(lambda: node.get(ref)["state"] == "ended", 20)
    new = node.get(ref)["record"]["transferred_to"]
    callee.hangup()
    eventually(lambda: expert.calls[0].leg.ended_at)
    first, second, third = records(redis, ref, asked, new)
    assert (first["end_reason"], second["end_reason"], third["end_reason"]) == ("answered",) * 3
    assert (first["transferred_to"], second["transferred_to"], third["transferred_from"]) == (new, new, ref)


def test_consultation_left_with_no_node_up(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The agent gives up while it rings and no node lives: the customer hears music until one does."""
    dying = dying_node(rig, redis)
    ref, agent, callee = talk(rig, dying)
    rig.outside(EXPERT, Script(answer_after=None))
    asked = consult(dying, ref, to=EXPERT)
    eventually(lambda: dying.get(asked)["state"] == "callee_ringing")
    kill(dying)
    agent.hangup()
    assert callee.hears(MOH_HZ)
    eventually(lambda: callee.leg.ended_at, 20)
    first, second = records(redis, ref, asked)
    assert first["end_reason"] == "answered"
    assert second["end_reason"] in ("abandoned", "callee_no_answer", "lost")

"""The transfer key of an agent's phone in two calls (REFER with Replaces), as the parties see it."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.rig.base import Phone, PhoneLeg, Rig, Script, eventually
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ, talk
from tests.support.node import Node, RedisServer, configuration, request
from tests.support.refer_calls import CONFIG, DID, EXPERT, TARGET_HZ, inbound_talk, is_resumed

__all__ = ["CONFIG"]

TALKS = pytest.mark.parametrize("begin", [talk, inbound_talk], ids=["click2dial", "inbound"])


@pytest.fixture
def refers(rig: Rig, node: Node) -> Node:
    """A node to which the switch sends what phones transfer."""
    rig.route_refers(node.config["node"]["listen"])
    return node


@pytest.fixture
def desk(rig: Rig) -> Phone:
    """The agent's phone. It takes two calls."""
    return rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))


def second_talk(
    rig: Rig, node: Node, desk: Phone, number: str = EXPERT, **fields: Any
) -> tuple[str, PhoneLeg, PhoneLeg]:
    """A second call of the agent's phone, which holds the first one: its reference, and the legs."""
    desk.calls[0].hold()
    script = Script(answer_after=0.1, tone=TARGET_HZ)
    phone = rig.phone(number, script) if number == "1001" else rig.outside(number, script)
    ref = node.call("1000", number, **fields)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    mine = desk.calls[-1]
    assert mine.hears(TARGET_HZ)
    return ref, mine, phone.calls[0]


def taken(redis: RedisServer, *refs: str) -> list[dict[str, Any]]:
    """The records of these calls, in this order; there are no others."""
    found = {record["call_ref"]: record for record in (redis.pop() for _ in refs)}
    assert not redis.client.lrange("enigma:notifications:cdr", 0, -1)
    return [found[ref] for ref in refs]


@TALKS
@pytest.mark.parametrize("number", ["1001", EXPERT])
def test_attended_refer_joins_the_other_two(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone, begin: Any, number: str
) -> None:
    ref, agent, customer = begin(rig, refers, desk)
    other, mine, target = second_talk(rig, refers, desk, number)
    agent.attend(mine)
    assert customer.hears(TARGET_HZ)
    assert target.hears(CALLEE_HZ)
    eventually(lambda: agent.leg.ended_at and mine.leg.ended_at)
    eventually(lambda: refers.get(ref)["state"] == refers.get(other)["state"] == "ended")
    new = refers.get(ref)["record"]["transferred_to"]
    assert refers.get(new)["state"] == "bridged"
    target.hangup()
    eventually(lambda: customer.leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    first, second, third = taken(redis, ref, other, new)
    for record in (first, second):
        assert (record["end_reason"], record["hung_up_by"]) == ("answered", "agent")
        assert record["transferred_to"] == new
    assert {record["session_ref"] for record in (first, second, third)} == {ref}
    assert (first["extension"], first["number"]) == ("1000", CALLEE)
    assert (second["extension"], second["number"]) == ("1000", number)
    assert (third["extension"], third["number"], third["transferred_from"]) == (number, CALLEE, ref)
    assert (third["end_reason"], third["hung_up_by"]) == ("answered", "agent")


@pytest.mark.parametrize("why", ["paused", "not_asked_for"])
def test_attended_refer_to_an_unrecorded_talk_is_not_recorded(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone, why: str
) -> None:
    ref, agent, customer = talk(rig, refers, desk)
    other, mine, _target = second_talk(rig, refers, desk, record=why == "paused")
    if why == "paused":
        path = f"/click2dial/calls/{other}/record"
        assert request(refers.api, "POST", path, {"action": "pause"}).status == 202
    agent.attend(mine)
    assert customer.hears(TARGET_HZ)
    eventually(lambda: refers.get(ref)["state"] == refers.get(other)["state"] == "ended")
    new = refers.get(ref)["record"]["transferred_to"]
    assert refers.get(new)["recording"] == "off"
    customer.hangup()
    assert taken(redis, ref, other, new)[-1]["recording_url"] is None


def go_on(agent: PhoneLeg, customer: PhoneLeg) -> None:
    """Check that the two talk, once the agent has taken the customer off hold."""
    eventually(lambda: is_resumed(agent))
    assert agent.hears(CALLEE_HZ)
    assert customer.hears(AGENT_HZ)


def told(agent: PhoneLeg, other: PhoneLeg) -> int:
    """Ask to join two calls, and return the status that the phone is told."""
    before = len(agent.leg.referred)
    agent.attend(other)
    eventually(lambda: len(agent.leg.referred) > before)
    return agent.leg.referred[before]


@pytest.mark.parametrize("first", ["dialled", "rung"])
def test_attended_refer_of_a_call_that_the_phone_dialled(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone, first: str
) -> None:
    """The switch reports a REFER on a leg that it has placed, and none on one that the phone has dialled."""
    rig.route(EXPERT, "click2dial", refers.config["node"]["listen"])
    ref, agent, customer = talk(rig, refers, desk)
    agent.hold()
    target = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
    mine = desk.dial(EXPERT, {"X-Teleforge-Outbound-ID": DID})
    assert mine.hears(TARGET_HZ)
    if first == "rung":
        agent.attend(mine)
        assert customer.hears(TARGET_HZ)
        eventually(lambda: refers.get(ref)["state"] == "ended")
        target.calls[0].hangup()
    else:
        assert told(mine, agent) == 403
        assert mine.hears(TARGET_HZ)
        go_on(agent, customer)
        mine.hangup()
    customer.hangup()
    eventually(lambda: rig.live_channels() == 0)
    for _ in range(3 if first == "rung" else 2):
        assert redis.pop()["end_reason"] == "answered"


def test_attended_refer_before_the_second_answer_is_refused(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone
) -> None:
    ref, agent, customer = talk(rig, refers, desk)
    agent.hold()
    target = rig.outside(EXPERT, Script(answer_after=None))
    other = refers.call("1000", EXPERT)
    eventually(lambda: refers.get(other)["state"] == "callee_ringing")
    assert told(agent, desk.calls[-1]) == 403
    go_on(agent, customer)
    assert refers.get(ref)["state"] == "bridged"
    assert refers.get(other)["state"] == "callee_ringing"
    assert not target.calls[0].leg.ended_at
    desk.calls[-1].hangup()
    customer.hangup()
    redis.pop()
    redis.pop()


@pytest.mark.parametrize("held", ["by_client", "both_by_phone"])
def test_attended_refer_of_held_or_muted_talks(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone, held: str
) -> None:
    ref, agent, customer = talk(rig, refers, desk)
    other, mine, target = second_talk(rig, refers, desk)
    if held == "by_client":
        for one in (ref, other):
            assert request(refers.api, "POST", f"/click2dial/calls/{one}/mute", {"party": "callee"}).status == 202
            assert request(refers.api, "POST", f"/click2dial/calls/{one}/hold").status == 202
    else:
        mine.hold()
    agent.attend(mine)
    assert customer.hears(TARGET_HZ)
    assert target.hears(CALLEE_HZ)
    customer.hangup()
    eventually(lambda: rig.live_channels() == 0)
    new = refers.get(ref)["record"]["transferred_to"]
    assert [record["end_reason"] for record in taken(redis, ref, other, new)] == ["answered"] * 3


def test_attended_refer_twice_joins_once(rig: Rig, refers: Node, redis: RedisServer, desk: Phone) -> None:
    ref, agent, customer = talk(rig, refers, desk)
    other, mine, target = second_talk(rig, refers, desk)
    for _ in range(3):
        agent.attend(mine)
    assert customer.hears(TARGET_HZ)
    assert target.hears(CALLEE_HZ)
    customer.hangup()
    eventually(lambda: rig.live_channels() == 0)
    taken(redis, ref, other, refers.get(ref)["record"]["transferred_to"])


def test_attended_refer_during_a_consultation_is_refused(
    rig: Rig, refers: Node, redis: RedisServer, desk: Phone
) -> None:
    ref, agent, customer = talk(rig, refers, desk)
    other, mine, target = second_talk(rig, refers, desk)
    rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ + 200))
    body = {"to": "1001", "mode": "consult"}
    assert request(refers.api, "POST", f"/click2dial/calls/{other}/transfer", body).status == 202
    assert mine.hears(TARGET_HZ + 200)
    assert told(agent, mine) == 403
    go_on(agent, customer)
    assert request(refers.api, "POST", f"/click2dial/calls/{other}/transfer/cancel", {}).status == 202
    assert mine.hears(TARGET_HZ)
    target.hangup()
    customer.hangup()
    eventually(lambda: refers.get(ref)["state"] == refers.get(other)["state"] == "ended")


def test_attended_refer_of_calls_on_two_nodes_joins(rig: Rig, node: Node, redis: RedisServer, desk: Phone) -> None:
    second = Node(configuration(rig, redis, record=True, payload="v4"))
    try:
        ref, agent, customer = talk(rig, node, desk)
        other, mine, target = second_talk(rig, second, desk)
        agent.attend(mine)
        assert customer.hears(TARGET_HZ)
        eventually(lambda: node.get(ref)["state"] == second.get(other)["state"] == "ended")
        new = node.get(ref)["record"]["transferred_to"]
        customer.hangup()
        eventually(lambda: target.leg.ended_at)
        records = taken(redis, ref, other, new)
        assert [record["transferred_to"] for record in records] == [new, new, None]
        assert {record["session_ref"] for record in records} == {ref}
    finally:
        assert second.stop() == 0


def test_attended_refer_whose_node_is_dead_is_refused(rig: Rig, node: Node, redis: RedisServer, desk: Phone) -> None:
    _ref, agent, customer = talk(rig, node, desk)
    _other, mine, target = second_talk(rig, node, desk)
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    try:
        assert told(agent, mine) == 403
        go_on(agent, customer)
        assert mine.hears(TARGET_HZ)
        assert target.hears(AGENT_HZ)
        customer.hangup()
        target.hangup()
    finally:
        node.process.send_signal(signal.SIGCONT)
    redis.pop()
    redis.pop()


@pytest.mark.parametrize("before", ["", f"X-A={'a' * 600}&"], ids=["short", "long"])
@pytest.mark.parametrize("party", ["agent", "customer"])
def test_refer_of_an_unknown_dialog_ends_the_call(
    rig: Rig, node: Node, redis: RedisServer, party: str, before: str
) -> None:
    """FreeSWITCH dials what it names, unless the profile forbids that. It reports the first 511 bytes of the header."""
    _ref, agent, customer = talk(rig, node)
    sender = agent if party == "agent" else customer
    sender.transfer(f"<sip:x@127.0.0.1:9?{before}Replaces=unknown%3Bto-tag%3Da%3Bfrom-tag%3Db>")
    eventually(lambda: agent.leg.ended_at and customer.leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "system")

"""The transfer key of an agent's phone, as the parties see it; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.conftest import on_a_real_switch
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support.click_calls import AGENT_HZ, CALLEE, CALLEE_HZ, talk
from tests.support.node import Node, RedisServer, configuration, request
from tests.support.ports import free_port
from tests.support.refer_calls import CONFIG, EXPERT, TARGET_HZ, inbound_talk, is_resumed

__all__ = ["CONFIG"]

PREMIUM = "0900123456"


@pytest.fixture
def refers(rig: Rig, node: Node) -> Node:
    """A node to which the switch sends what phones transfer."""
    rig.route_refers(node.config["node"]["listen"])
    return node


def to(number: str) -> str:
    return f"<sip:{number}@127.0.0.1>"


TALKS = pytest.mark.parametrize("begin", [talk, inbound_talk], ids=["click2dial", "inbound"])


def records(redis: RedisServer, count: int) -> list[dict[str, Any]]:
    """The records of a call and of those that follow it, in this order; there are no others."""
    found = [redis.pop() for _ in range(count)]
    more = redis.client.lrange("enigma:notifications:cdr", 0, -1)
    assert not more, (found, more)
    by_origin = {record["transferred_from"]: record for record in found}
    chain = [by_origin[None]]
    while chain[-1]["call_ref"] in by_origin:
        chain.append(by_origin[chain[-1]["call_ref"]])
    assert len(chain) == count
    assert {record["session_ref"] for record in chain} == {chain[0]["session_ref"]}
    assert [one["transferred_to"] for one in chain] == [*(one["call_ref"] for one in chain[1:]), None]
    return chain


def refer(agent: PhoneLeg, number: str) -> int:
    """Transfer with the phone's key, and return the status that the phone is told."""
    before = len(agent.leg.referred)
    agent.transfer(to(number))
    eventually(lambda: len(agent.leg.referred) > before)
    return agent.leg.referred[before]


def is_refused(agent: PhoneLeg, customer: PhoneLeg, number: str) -> bool:
    """Whether a transfer is refused, and the two are joined again."""
    return refer(agent, number) == 403 and agent.hears(CALLEE_HZ) and customer.hears(AGENT_HZ)


@TALKS
@pytest.mark.parametrize("number", ["1001", EXPERT])
def test_refer_connects_the_customer_with_the_new_party(
    rig: Rig, refers: Node, redis: RedisServer, begin: Any, number: str
) -> None:
    ref, agent, customer = begin(rig, refers)
    script = Script(answer_after=0.3, tone=TARGET_HZ)
    phone = rig.phone(number, script) if number == "1001" else rig.outside(number, script)
    assert refer(agent, number) == 200
    eventually(lambda: agent.leg.ended_at)
    assert agent.leg.ended_by == "phone"
    assert customer.hears(TARGET_HZ)
    assert phone.calls[0].hears(CALLEE_HZ)
    phone.calls[0].hangup()
    eventually(lambda: customer.leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    first, second = records(redis, 2)
    assert (first["call_ref"], first["extension"], first["number"]) == (ref, "1000", CALLEE)
    assert (first["end_reason"], first["hung_up_by"]) == ("answered", "agent")
    assert (second["ref"], second["extension"], second["number"]) == ("transfer", number, CALLEE)
    assert (second["end_reason"], second["hung_up_by"]) == ("answered", "agent")


@pytest.mark.parametrize("number", ["1001", PREMIUM])
def test_refer_of_a_customer_on_hold_counts_the_hold(rig: Rig, refers: Node, redis: RedisServer, number: str) -> None:
    """Most phones put the customer on hold before they transfer. After a refusal the switch counts from 0."""
    _ref, agent, customer = talk(rig, refers)
    rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
    began = time.monotonic()
    agent.hold()
    time.sleep(0.9)
    refer(agent, number)
    if number == "1001":
        assert customer.hears(TARGET_HZ)
    customer.hangup()
    first = records(redis, 2 if number == "1001" else 1)[0]
    assert 1 <= first["hold_time"] < time.monotonic() - began + 1


@TALKS
@pytest.mark.parametrize("who_ends", ["agent", "customer"])
def test_refer_to_a_premium_number_joins_the_two_again(
    rig: Rig, refers: Node, redis: RedisServer, begin: Any, who_ends: str
) -> None:
    ref, agent, customer = begin(rig, refers)
    premium = rig.outside(PREMIUM, Script(answer_after=0.1))
    for _ in range(2):
        assert is_refused(agent, customer, PREMIUM)
    assert refers.get(ref)["state"] == "bridged"
    assert not premium.calls
    (agent if who_ends == "agent" else customer).hangup()
    eventually(lambda: agent.leg.ended_at and customer.leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    (record,) = records(redis, 1)
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "agent" if who_ends == "agent" else "callee")


def test_refer_by_a_transfer_s_new_agent_goes_on(rig: Rig, refers: Node, redis: RedisServer) -> None:
    _ref, agent, customer = talk(rig, refers)
    second = rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
    third = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ + 200))
    agent.transfer(to("1001"))
    assert customer.hears(TARGET_HZ)
    assert refer(second.calls[0], PREMIUM) == 403
    assert customer.hears(TARGET_HZ)
    second.calls[0].transfer(to(EXPERT))
    assert customer.hears(TARGET_HZ + 200)
    assert third.calls[0].hears(CALLEE_HZ)
    customer.hangup()
    chain = records(redis, 3)
    assert [record["extension"] for record in chain] == ["1000", "1001", EXPERT]


def test_refer_to_a_busy_agent_ends_after_a_prompt(rig: Rig, refers: Node, redis: RedisServer) -> None:
    """The old call's socket may not end the new one's park."""
    _ref, agent, customer = inbound_talk(rig, refers)
    rig.phone("1001", Script(reject=486))
    agent.transfer(to("1001"))
    eventually(lambda: customer.leg.ended_at)
    _first, second = records(redis, 2)
    assert second["end_reason"] == "agent_busy"


def test_refer_without_its_context_joins_the_two_again(rig: Rig, node: Node, redis: RedisServer) -> None:
    _ref, agent, customer = talk(rig, node)
    assert is_refused(agent, customer, EXPERT)
    agent.hangup()
    (record,) = records(redis, 1)
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "agent")


def test_refer_while_no_node_serves_joins_the_two_again(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route_refers(f"127.0.0.1:{free_port()}")
    _ref, agent, customer = talk(rig, node)
    assert is_refused(agent, customer, EXPERT)
    agent.hangup()
    records(redis, 1)


def test_refer_comes_to_a_node_without_the_call(rig: Rig, node: Node, redis: RedisServer) -> None:
    other = Node(configuration(rig, redis, record=True, payload="v4"))
    try:
        rig.route_refers(other.config["node"]["listen"])
        _ref, agent, customer = talk(rig, node)
        premium = rig.outside(PREMIUM, Script(answer_after=0.1))
        assert is_refused(agent, customer, PREMIUM)
        assert not premium.calls
        rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
        agent.transfer(to(EXPERT))
        assert customer.hears(TARGET_HZ)
        customer.hangup()
        records(redis, 2)
    finally:
        assert other.stop() == 0


def test_refer_whose_node_dies_leaves_nobody_in_silence(rig: Rig, redis: RedisServer, node: Node) -> None:
    """The call's node dies: another one refuses the transfer, and has the record."""
    dying = Node(configuration(rig, redis, record=True, payload="v4"))
    rig.route_refers(node.config["node"]["listen"])
    _ref, agent, customer = talk(rig, dying)
    assert dying.process is not None
    dying.process.send_signal(signal.SIGKILL)
    dying.process.wait()
    assert is_refused(agent, customer, EXPERT)
    agent.hangup()
    eventually(lambda: customer.leg.ended_at)
    (record,) = records(redis, 1)
    assert record["end_reason"] == "answered"


# In each state ---------------------------------------------------------------------------------------------


def test_refer_while_the_callee_rings_dials_nothing(rig: Rig, refers: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=None, tone=CALLEE_HZ))
    expert = rig.outside(EXPERT, Script(answer_after=0.1))
    ref = refers.call("1000", CALLEE)
    eventually(lambda: refers.get(ref)["state"] == "callee_ringing")
    agent.calls[0].transfer(to(EXPERT))
    eventually(lambda: agent.calls[0].leg.referred or agent.calls[0].leg.ended_at)
    eventually(lambda: refers.get(ref)["state"] == "ended")
    # Without media a prompt would have no end, and they would ring on.
    eventually(lambda: callee.calls[0].leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    assert not expert.calls
    assert callee.calls[0].leg.answered_at is None
    records(redis, 1)


@pytest.mark.parametrize("asked", [{"announce": "number"}, {"confirm": True}], ids=["announce", "confirm"])
def test_refer_before_the_callee_is_dialled_is_refused(
    rig: Rig, refers: Node, redis: RedisServer, asked: dict[str, Any]
) -> None:
    agent = rig.phone("1000", Script(answer_after=0.1, tone=AGENT_HZ))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
    expert = rig.outside(EXPERT, Script(answer_after=0.1))
    ref = refers.call("1000", CALLEE, **asked)
    eventually(lambda: refers.get(ref)["state"] == "agent_answered")
    assert refer(agent.calls[0], EXPERT) == 403
    assert not callee.calls
    if "confirm" in asked:
        agent.calls[0].digits("1")
    assert agent.calls[0].hears(CALLEE_HZ)
    assert not expert.calls
    agent.calls[0].hangup()
    (record,) = records(redis, 1)
    assert (record["call_ref"], record["end_reason"]) == (ref, "answered")


@on_a_real_switch
def test_refer_during_a_consultation_joins_the_two_again(rig: Rig, refers: Node, redis: RedisServer) -> None:
    ref, agent, customer = talk(rig, refers)
    rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
    expert = rig.outside(EXPERT, Script(answer_after=0.1))
    body = {"to": "1001", "mode": "consult"}
    assert request(refers.api, "POST", f"/click2dial/calls/{ref}/transfer", body).status == 202
    assert agent.hears(TARGET_HZ)
    assert refer(agent, EXPERT) == 403
    assert agent.hears(TARGET_HZ)
    assert not expert.calls
    assert request(refers.api, "POST", f"/click2dial/calls/{ref}/transfer/complete", {}).status == 202
    assert customer.hears(TARGET_HZ)
    customer.hangup()
    eventually(lambda: rig.live_channels() == 0)
    assert {redis.pop()["call_ref"] for _ in range(3)} >= {ref}


@TALKS
@pytest.mark.parametrize("state", ["hold", "mute", "phone_hold"])
@pytest.mark.parametrize("allowed", [True, False])
def test_refer_of_a_held_or_muted_talk(
    rig: Rig, refers: Node, redis: RedisServer, begin: Any, state: str, allowed: bool
) -> None:
    ref, agent, customer = begin(rig, refers)
    body = {"party": "agent"} if state == "mute" else {}
    if state == "phone_hold":
        # As most phones do before a transfer.
        agent.hold()
    else:
        assert request(refers.api, "POST", f"/click2dial/calls/{ref}/{state}", body).status == 202
    eventually(lambda: not customer.hears(AGENT_HZ, within=0.1))
    if allowed:
        rig.phone("1001", Script(answer_after=0.1, tone=TARGET_HZ))
        assert refer(agent, "1001") == 200
        assert customer.hears(TARGET_HZ)
    else:
        assert refer(agent, PREMIUM) == 403
        if state == "phone_hold":
            eventually(lambda: is_resumed(agent))
        if state == "mute":
            assert request(refers.api, "POST", f"/click2dial/calls/{ref}/unmute", body).status == 202
        assert agent.hears(CALLEE_HZ)
        assert customer.hears(AGENT_HZ)
    customer.hangup()
    eventually(lambda: rig.live_channels() == 0)
    records(redis, 2 if allowed else 1)


@TALKS
@pytest.mark.parametrize("who_leaves", ["agent", "customer"])
def test_refer_whose_party_leaves_during_the_prompt_ends_both(
    rig: Rig, refers: Node, redis: RedisServer, begin: Any, who_leaves: str
) -> None:
    _ref, agent, customer = begin(rig, refers)
    agent.transfer(to(PREMIUM))
    eventually(lambda: not customer.hears(AGENT_HZ, within=0.1))
    (agent if who_leaves == "agent" else customer).hangup()
    eventually(lambda: agent.leg.ended_at and customer.leg.ended_at)
    eventually(lambda: rig.live_channels() == 0)
    (record,) = records(redis, 1)
    assert record["end_reason"] == "answered"


def test_refer_twice_at_once_transfers_once(rig: Rig, refers: Node, redis: RedisServer) -> None:
    _ref, agent, customer = talk(rig, refers)
    expert = rig.outside(EXPERT, Script(answer_after=0.1, tone=TARGET_HZ))
    for _ in range(3):
        agent.transfer(to(EXPERT))
    assert customer.hears(TARGET_HZ)
    assert len(expert.calls) == 1
    customer.hangup()
    records(redis, 2)

"""Recordings of calls whose parties change, as their files sound; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.rig.tones import tones
from tests.support.click_calls import AGENT_HZ, CALLEE_HZ, recording, silent, talk
from tests.support.node import Node, RedisServer, request
from tests.support.transfers import dying_node, kill, records, target

EXPERT, COLLEAGUE = "0820005678", "1001"
EXPERT_HZ, COLLEAGUE_HZ = 1800, 1400


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(payload="v4", agent_timeout=2, callee_timeout=2)


def act(node: Node, ref: str, name: str, **body: str) -> Any:
    answer = request(node.api, "POST", f"/click2dial/calls/{ref}/{name}", body)
    assert answer.status == 202, answer.body
    return answer.json


def expert(rig: Rig) -> None:
    target(rig, EXPERT, Script(answer_after=0.1, tone=EXPERT_HZ))


def consult(node: Node, ref: str, asks: PhoneLeg, by: str = "agent") -> str:
    """Have a party ask the expert, until they talk."""
    assert silent(asks, EXPERT_HZ)
    asked = str(act(node, ref, "transfer", to=EXPERT, mode="consult", by=by)["transfer_ref"])
    eventually(lambda: node.get(asked)["state"] == "bridged")
    assert asks.hears(EXPERT_HZ)
    return asked


def complete(node: Node, ref: str, stays: PhoneLeg) -> str:
    """Complete a consultation, and return the call of the two that are left."""
    act(node, ref, "transfer/complete")
    assert stays.hears(EXPERT_HZ)
    return str(node.get(ref)["record"]["transferred_to"])


def to_colleague(rig: Rig, node: Node) -> tuple[str, str, PhoneLeg, PhoneLeg]:
    """A talk that the agent has transferred to a colleague: both calls, and the legs of the two."""
    ref, _agent, customer = talk(rig, node)
    phone = target(rig, COLLEAGUE, Script(answer_after=0.1, tone=COLLEAGUE_HZ))
    new = str(act(node, ref, "transfer", to=COLLEAGUE)["transfer_ref"])
    eventually(lambda: node.get(new)["state"] == "bridged")
    assert customer.hears(COLLEAGUE_HZ)
    assert phone.calls[0].hears(CALLEE_HZ)
    return ref, new, phone.calls[0], customer


def heard(rig: Rig, record: dict[str, Any], hz: int) -> list[list[bool]]:
    """Whether each channel of a recording has a tone, stretch by stretch."""
    path = recording(rig, record)
    channels = ([present for _at, present in tones(path, hz, channel)] for channel in (0, 1))
    return [[now for now, before in zip(steps, [None, *steps], strict=False) if now != before] for steps in channels]


def is_as_long_as_the_talk(record: dict[str, Any]) -> bool:
    talked: float = record["ended_at"] - record["bridged_at"]
    return bool(abs(record["recording"]["seconds"] - talked) < 0.5)


@pytest.mark.parametrize("asks", ["colleague", "customer"])
def test_recording_is_silent_while_its_party_consults(rig: Rig, node: Node, redis: RedisServer, asks: str) -> None:
    """Its leg goes on with the expert, and what the two say is none of the other party's."""
    expert(rig)
    if asks == "colleague":
        *refs, leg, customer = to_colleague(rig, node)
        asked = consult(node, refs[-1], leg)
    else:
        ref, _agent, customer = talk(rig, node)
        refs, leg = [ref], customer
        asked = consult(node, ref, leg, by="callee")
    act(node, refs[-1], "transfer/cancel")
    other_hz, own_hz = (CALLEE_HZ, COLLEAGUE_HZ) if asks == "colleague" else (AGENT_HZ, CALLEE_HZ)
    assert leg.hears(other_hz)
    assert silent(leg, EXPERT_HZ)
    eventually(lambda: not node.get(refs[-1])["held"])
    customer.hangup()
    record = records(redis, *refs, asked)[-2]
    assert heard(rig, record, EXPERT_HZ) == [[False], [False]]
    assert [True, False, True] in [stretches[:3] for stretches in heard(rig, record, own_hz)]
    assert is_as_long_as_the_talk(record)


def test_recording_goes_on_after_a_consultation_with_no_node_up(rig: Rig, node: Node, redis: RedisServer) -> None:
    phone = target(rig, EXPERT, Script(answer_after=0.1, tone=EXPERT_HZ))
    dying = dying_node(rig, redis)
    ref, _agent, customer = talk(rig, dying)
    asked = consult(dying, ref, customer, by="callee")
    kill(dying)
    phone.calls[0].hangup()
    assert customer.hears(AGENT_HZ)
    assert silent(customer, EXPERT_HZ)
    customer.hangup()
    record, _asked = records(redis, ref, asked)
    assert heard(rig, record, EXPERT_HZ) == [[False], [False]]
    assert [stretches[:3] for stretches in heard(rig, record, CALLEE_HZ)] == [[False], [True, False, True]]


def test_recording_ends_when_the_party_on_hold_leaves(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The one who asks goes on with the expert."""
    expert(rig)
    ref, agent, customer = talk(rig, node)
    asked = consult(node, ref, customer, by="callee")
    agent.hangup()
    eventually(lambda: node.get(ref)["state"] == "ended")
    assert customer.hears(EXPERT_HZ)
    customer.hangup()
    record, _asked = records(redis, ref, asked)
    assert heard(rig, record, EXPERT_HZ) == [[False], [False]]
    assert is_as_long_as_the_talk(record)


def test_recording_ends_when_the_customer_leaves_for_an_expert(rig: Rig, node: Node, redis: RedisServer) -> None:
    """It is on the colleague's leg, who goes on with the expert."""
    expert(rig)
    ref, new, colleague, customer = to_colleague(rig, node)
    asked = consult(node, new, customer, by="callee")
    last = complete(node, new, colleague)
    colleague.hangup()
    _first, record, _asked, _last = records(redis, ref, new, asked, last)
    assert is_as_long_as_the_talk(record)


def test_recording_begun_in_a_consultation_ends_with_it(rig: Rig, node: Node, redis: RedisServer) -> None:
    """It is on the expert's leg, who goes on with the customer."""
    expert(rig)
    ref, agent, customer = talk(rig, node)
    act(node, ref, "record", action="stop")
    asked = consult(node, ref, agent)
    act(node, asked, "record", action="start")
    assert silent(agent, CALLEE_HZ)
    new = complete(node, ref, customer)
    assert node.get(new)["recording"] == "off"
    assert silent(customer, AGENT_HZ)
    customer.hangup()
    _first, record, _last = records(redis, ref, asked, new)
    assert heard(rig, record, CALLEE_HZ) == [[False], [False]]


@pytest.mark.parametrize("step", ["pause", "stop"])
def test_recording_off_in_a_consultation_is_off_after_it(rig: Rig, node: Node, redis: RedisServer, step: str) -> None:
    """The expert doesn't want it, whom the customer talks to next."""
    expert(rig)
    ref, agent, customer = talk(rig, node)
    asked = consult(node, ref, agent)
    act(node, asked, "record", action=step)
    new = complete(node, ref, customer)
    assert node.get(new)["recording"] == "off"
    customer.hangup()
    assert records(redis, ref, asked, new)[-1]["recording_url"] is None


def is_left(rig: Rig, record: dict[str, Any], agent_hz: int) -> bool:
    """Whether the agent is on the left of a recording, and the customer on its right."""
    sides = [[any(stretches) for stretches in heard(rig, record, hz)] for hz in (agent_hz, CALLEE_HZ)]
    return sides == [[True, False], [False, True]]


def test_recording_after_a_transfer_has_the_agent_left(rig: Rig, node: Node, redis: RedisServer) -> None:
    """Also a part that a client begins."""
    ref, new, _colleague, customer = to_colleague(rig, node)
    for step in ("stop", "start"):
        act(node, new, "record", action=step)
    assert silent(customer, AGENT_HZ)
    customer.hangup()
    assert is_left(rig, records(redis, ref, new)[-1], COLLEAGUE_HZ)


def test_recording_after_a_consultation_has_the_new_party_left(rig: Rig, node: Node, redis: RedisServer) -> None:
    """They take the agent's place."""
    expert(rig)
    ref, agent, customer = talk(rig, node)
    asked = consult(node, ref, agent)
    new = complete(node, ref, customer)
    assert node.get(new)["recording"] == "on"
    assert silent(customer, AGENT_HZ)
    customer.hangup()
    assert is_left(rig, records(redis, ref, asked, new)[-1], EXPERT_HZ)

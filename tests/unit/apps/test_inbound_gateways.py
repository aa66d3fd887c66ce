"""Agents with outside numbers, whose gateways fail: which gateway rings them next, and the record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from esl_apps.apps import inbound
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Queue, Settings
from esl_apps.core import dialstring
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Leg, Progress
from esl_apps.core.record import Record
from esl_apps.testing import (
    PLAN,
    SETTINGS,
    ScriptedCall,
    ScriptedPolicy,
    Step,
    caller_leaves,
    ended,
    fails,
    host,
    talks,
)

DID, AGENT, OTHER = "27115550000", "0831112222", "0832223333"
PSTN, SPARE = "sofia/gateway/pstn/27831112222", "sofia/gateway/spare/27831112222"
GATEWAY_FAILED = fails("NORMAL_TEMPORARY_FAILURE", users=[AGENT])
ANSWERS = Leg("B", answered_at=1004.4, ended_at=1010.0, q850=16, user=AGENT)


def serve(
    call: ScriptedCall,
    agents: Sequence[str] = (AGENT,),
    *,
    strategy: Any = "all",
    silence: float | None = None,
    settings: Settings = SETTINGS,
) -> Attempt:
    queue = Queue(PLAN.read(DID), "acme", tuple(map(PLAN.read, agents)), 20, 3600, False, strategy)
    settings = replace(settings, endpoints=replace(settings.endpoints, silence=silence))
    begun: list[Attempt] = []
    call.headers["Caller-Destination-Number"] = DID
    policy = ScriptedPolicy(settings, queues={DID: queue}, number="0825556666")
    inbound.arrive(call, Arrival(("inbound",)), policy, host(begun, announce=lambda *_: None))
    return begun[0]


def run(call: ScriptedCall, agents: Sequence[str] = (AGENT,), **options: Any) -> Record:
    record = serve(call, agents, **options).record
    assert record is not None
    return record


def rung(call: ScriptedCall) -> list[list[tuple[str, str]]]:
    return [endpoints for _leg, endpoints, _timeout, _longest in call.did("bridge")]


def agents_of(record: Record) -> list[tuple[str, str | None, int | None]]:
    return [(agent["agent"], agent["end_reason"], agent["end_code"]) for agent in record.agents or ()]


def several(*legs: tuple[str, int]) -> Step:
    """Several agents fail, each on a leg of its own."""
    made = [Leg(f"B{user}", ended_at=1005.0, q850=code, user=user) for user, code in legs]
    # As ``failure_of_all`` sums them up.
    code = made[0].q850 or 0 if made else 20
    return lambda _progress: Bridged(False, code, legs=made)


def test_agent_outside_is_rung_through_the_next_gateway() -> None:
    call = ScriptedCall([GATEWAY_FAILED, talks(ANSWERS)], ended(a_by="recv_bye", b=ANSWERS, legs=[ANSWERS]))
    record = run(call)
    assert rung(call) == [[(PSTN, AGENT)], [(SPARE, AGENT)]]
    assert (record.end_reason, record.gateway, record.gateways_failed) == ("answered", "spare", ["pstn"])
    assert agents_of(record) == [(AGENT, "answered", 16)]


@pytest.mark.parametrize(("how", "shown"), [("as_given", "0825556666"), ("plus", "+27825556666")])
def test_agent_outside_is_shown_the_caller_as_the_trunk_wants(how: str, shown: str) -> None:
    settings = replace(SETTINGS, caller_id_format=how)
    call = ScriptedCall([talks(ANSWERS)], ended(a_by="recv_bye", b=ANSWERS, legs=[ANSWERS]))
    run(call, ("1000", AGENT), settings=settings)
    ((leg, endpoints, *_times),) = call.did("bridge")
    inside, outside = (part.split("!") for part in dialstring.bridge(leg, endpoints).split(":_:"))
    assert "origination_caller_id_number=0825556666" in inside
    assert f"origination_caller_id_number={shown}" in outside
    assert f"origination_caller_id_name={shown}" in outside


def test_agent_whose_gateways_all_fail_has_the_last_ones_code() -> None:
    call = ScriptedCall([GATEWAY_FAILED, fails("GATEWAY_DOWN")], ended(a_by="send_refuse"))
    record = run(call)
    assert (record.end_reason, record.end_code, record.hung_up_by) == ("agent_failed", 38, "agent")
    assert (record.gateway, record.gateways_failed) == (None, ["pstn", "spare"])
    # Through a gateway that is down, the switch makes no leg.
    assert agents_of(record) == [(AGENT, "failed", 38)]


def test_agent_who_rang_through_a_gateway_that_failed_has_rung() -> None:
    def rings_then_fails(progress: Progress) -> Bridged:
        leg = Leg("B1", ringing_at=1003.5, ended_at=1013.5, q850=41, user=AGENT)
        progress("ringing", 1003.5, leg)
        return Bridged(False, 41, bleg=leg, legs=[leg])

    call = ScriptedCall([rings_then_fails, fails("GATEWAY_DOWN")], ended(a_by="send_refuse", at=1020.0))
    record = run(call)
    assert record.agents == [{"agent": AGENT, "seconds": 10, "end_reason": "failed", "end_code": 38}]
    assert record.ring_seconds is not None
    assert record.ring_seconds.agent == 10.0


def test_ringing_through_the_next_gateway_names_who_rings_again() -> None:
    def ring_then_fail(progress: Progress) -> Bridged:
        progress("ringing", 1002.5, Leg("B1000", user="1000"))
        return several(("1000", 17), (AGENT, 41))(progress)

    call = ScriptedCall([ring_then_fail, talks(ANSWERS)], ended(a_by="recv_bye", b=ANSWERS, legs=[ANSWERS]))
    moments = serve(call, ["1000", AGENT]).timeline
    rings = [(moment.at, moment.detail) for moment in moments if moment.what == "ringing"]
    assert rings == [(1002.5, f"1000, {AGENT}"), (1003.5, AGENT)]


@pytest.mark.parametrize("cause", ["USER_BUSY", "CALL_REJECTED", "UNALLOCATED_NUMBER"])
def test_agent_outside_who_refuses_is_not_rung_again(cause: str) -> None:
    call = ScriptedCall([fails(cause, users=[AGENT])], ended(a_by="send_refuse"))
    record = run(call)
    assert rung(call) == [[(PSTN, AGENT)]]
    assert (record.gateway, record.gateways_failed) == ("pstn", [])


def test_next_gateway_has_what_is_left_of_the_ring_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def fails_late(progress: Progress) -> Bridged:
        now[0] += 15.0
        return GATEWAY_FAILED(progress)

    call = ScriptedCall([fails_late, fails_late], ended(a_by="send_refuse"))
    record = run(call)
    assert [timeout for _leg, _endpoints, timeout, _longest in call.did("bridge")] == [20.0, 5.0]
    assert record.end_code == 41


def test_only_agents_whose_gateways_failed_are_rung_again() -> None:
    call = ScriptedCall([several(("1000", 17), (AGENT, 41), (OTHER, 19)), caller_leaves()], ended(a_by="recv_cancel"))
    record = run(call, ["1000", AGENT, OTHER])
    assert rung(call)[1:] == [[(SPARE, AGENT)]]
    assert agents_of(record) == [("1000", "busy", 17), (AGENT, "abandoned", 16), (OTHER, "no_answer", 19)]
    assert record.gateways_failed == ["pstn"]


def test_agents_who_were_busy_tell_more_than_the_next_gateway() -> None:
    call = ScriptedCall([several(("1000", 17), (AGENT, 41)), GATEWAY_FAILED], ended(a_by="send_refuse"))
    assert (run(call, ["1000", AGENT]).end_reason, call.did("hangup")) == ("agent_busy", [("USER_BUSY",)])


def test_agents_outside_without_a_leg_have_a_bad_gateway() -> None:
    call = ScriptedCall([several(), several()], ended(a_by="send_refuse"))
    record = run(call, [AGENT, OTHER])
    assert [len(endpoints) for endpoints in rung(call)] == [2, 2]
    assert (record.end_reason, record.end_code, record.gateways_failed) == ("agent_failed", 38, ["pstn", "spare"])
    assert agents_of(record) == [(AGENT, "failed", 38), (OTHER, "failed", 38)]


def test_agent_outside_without_a_leg_while_another_answers_is_38() -> None:
    answers = replace(ANSWERS, user="1000")
    call = ScriptedCall([talks(answers)], ended(a_by="recv_bye", b=answers, legs=[answers]))
    record = run(call, ["1000", "1001", AGENT])
    assert agents_of(record) == [("1000", "answered", 16), ("1001", "failed", 20), (AGENT, "failed", 38)]
    assert (record.gateway, record.gateways_failed) == (None, [])


def test_gateway_of_several_agents_is_of_the_one_who_answers() -> None:
    call = ScriptedCall([talks(ANSWERS)], ended(a_by="recv_bye", b=ANSWERS, legs=[ANSWERS]))
    assert run(call, ["1000", AGENT]).gateway == "pstn"


@pytest.mark.parametrize(
    ("agents", "strategy", "patience"),
    [([AGENT], "all", "5"), (["1000", AGENT], "all", None), (["1000", AGENT], "in_order", "5")],
)
def test_silent_gateway_of_an_agent_rung_alone_is_given_up(
    agents: list[str], strategy: str, patience: str | None
) -> None:
    """One of several agents who is only slow to ring would be hung up while the others ring."""
    busy = fails("USER_BUSY", users=["1000", AGENT])
    call = ScriptedCall([busy, busy], ended(a_by="send_refuse"))
    run(call, agents, strategy=strategy, silence=5.0)
    assert call.did("bridge")[-1][0].get("leg_progress_timeout") == patience

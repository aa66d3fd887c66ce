"""Whose failure a call is that was not connected, by what phones, gateways and the switch itself report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from esl_apps.node.switch_pool import FAULTS
from tests.rig.base import Rig, Script, ended, eventually
from tests.support.callers import CALLEE, CALLER, DISA, disa_config
from tests.support.node import Node, RedisServer, configuration, request

DID = "27115550000"
INBOUND = "enigma:notifications:inbound"


def CONFIG(config: dict[str, Any]) -> None:
    disa_config(config)
    config["dial"]["external"] = ["sofia/gateway/pstn/{number}", "sofia/gateway/pstn2/{number}"]
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000", "1001"], "ring_timeout": 2}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(DID, "inbound", node.config["node"]["listen"])
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])


def told(redis: RedisServer) -> tuple[str, int, str]:
    record = redis.pop()
    return record["end_reason"], record["end_code"], record["hung_up_by"]


def test_phone_is_refused_with_the_cause_of_the_record(rig: Rig, redis: RedisServer) -> None:
    """FreeSWITCH's own word for an unknown gateway is 484, as if the number were too short."""
    rig.reset()
    config = configuration(rig, redis)
    config["dial"]["external"] = ["sofia/gateway/nosuch/{number}"]
    node = Node(config)
    try:
        rig.route(CALLEE, "click2dial", config["node"]["listen"])
        leg = rig.phone("1000").dial(CALLEE, {"X-Teleforge-Outbound-ID": "27115550000"})
        assert ended(leg).status == 503
        assert leg.leg.headers["reason"][0].startswith("Q.850;cause=38")
        assert told(redis) == ("callee_failed", 38, "callee")
    finally:
        assert node.stop() == 0


# Silent and telling refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (486, "Q.850;cause=16", ("callee_busy", 17, "callee")),
        (600, "Q.850;cause=31", ("callee_busy", 17, "callee")),
        (480, 'Q.850;cause=16;text="NORMAL_CLEARING"', ("callee_no_answer", 18, "callee")),
        (603, "Q.850;cause=16", ("callee_failed", 21, "callee")),
        (404, "Q.850;cause=16", ("callee_failed", 1, "callee")),
        (604, None, ("callee_failed", 1, "callee")),
        (607, None, ("callee_failed", 21, "callee")),
        (608, "Q.850;cause=31", ("callee_failed", 21, "callee")),
        (428, None, ("callee_failed", 21, "callee")),
        (438, None, ("callee_failed", 21, "callee")),
        # A Reason that says something counts, whatever the status.
        (503, "Q.850;cause=17", ("callee_busy", 17, "callee")),
    ],
)
def test_callees_refusal_is_read_from_what_says_something(
    rig: Rig, node: Node, redis: RedisServer, status: int, reason: str | None, expected: tuple[str, int, str]
) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(reject=status, reason=reason))
    node.call("1000", CALLEE)
    assert told(redis) == expected
    # It is the callee's: no other gateway is tried.
    assert len(callee.calls) == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(503, "Q.850;cause=16"), (500, "Q.850;cause=31"), (486, "Q.850;cause=34")]
)
def test_gateways_refusal_has_the_next_one_tried(
    rig: Rig, node: Node, redis: RedisServer, status: int, reason: str
) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(reject=status, reason=reason))
    ref = node.call("1000", CALLEE)
    assert told(redis)[0] == "callee_failed"
    assert len(callee.calls) == 2
    assert [what["what"] for what in node.get(ref)["decisions"]].count("gateway_failed") == 2


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (486, "Q.850;cause=16", ("agent_busy", 17, "agent")),
        (480, "Q.850;cause=31", ("agent_no_answer", 18, "agent")),
        (607, None, ("agent_failed", 21, "agent")),
    ],
)
def test_agents_refusal_is_read_from_what_says_something(
    rig: Rig, node: Node, redis: RedisServer, status: int, reason: str | None, expected: tuple[str, int, str]
) -> None:
    rig.phone("1000", Script(reject=status, reason=reason))
    node.call("1000", CALLEE)
    assert told(redis) == expected


# Phones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"), [(486, ("agent_busy", 17, "agent")), (603, ("agent_failed", 21, "agent"))]
)
def test_living_phone_counts_next_to_a_dead_registration(
    rig: Rig, node: Node, redis: RedisServer, status: int, expected: tuple[str, int, str]
) -> None:
    rig.phone("1000", Script(reject=status, answer_after=0.2))
    rig.dead_registration("1000")
    node.call("1000", CALLEE)
    assert told(redis) == expected


def test_living_callee_counts_next_to_a_dead_registration(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.phone("1002", Script(reject=486, answer_after=0.2))
    rig.dead_registration("1002")
    node.call("1000", "1002")
    assert told(redis) == ("callee_busy", 17, "callee")


def test_dead_phones_never_take_the_switch_out(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1003").unregister()
    rig.dead_registration("1003")
    for _ in range(FAULTS):
        node.call("1003", CALLEE)
        assert told(redis)[0] == "agent_failed"
    assert 'esl_apps_switch_out{switch="fs1"} 0' in request(node.admin, "GET", "/metrics", token=None).body.decode()


# The switch --------------------------------------------------------------------------------------------


@pytest.fixture
def one_session(rig: Rig, node: Node) -> Iterator[None]:
    """The switch has only one session."""
    rig.api("fsctl max_sessions 1")
    yield
    rig.api("fsctl max_sessions 5000")


def test_switch_without_a_session_for_b_is_not_the_callee(
    rig: Rig, node: Node, redis: RedisServer, one_session: None
) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE)
    node.call("1000", CALLEE)
    assert told(redis) == ("rejected", 42, "system")
    assert callee.calls == []


def test_switch_without_a_session_for_a_is_not_the_agent(
    rig: Rig, node: Node, redis: RedisServer, one_session: None
) -> None:
    agent = rig.phone("1000")
    rig.phone("1001")
    assert rig.api("originate user/1001@127.0.0.1 &park()").startswith("+OK")
    node.call("1000", CALLEE)
    assert told(redis) == ("rejected", 42, "system")
    assert agent.calls == []


# Media -------------------------------------------------------------------------------------------------


def test_caller_without_a_common_codec_rings_no_agent(rig: Rig, node: Node, redis: RedisServer) -> None:
    agents = [rig.phone("1000"), rig.phone("1001")]
    assert rig.offer(DID, ["G729"]) == 488
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("rejected", 88, "system")
    assert (record["answered_at"], record["bridged_at"]) == (None, None)
    assert redis.client.llen(INBOUND) == 0
    assert [agent.calls for agent in agents] == [[], []]


def test_disa_caller_without_a_common_codec_is_not_answered(rig: Rig, node: Node, redis: RedisServer) -> None:
    assert rig.offer(DISA, ["G729"]) == 488
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("rejected", 88, "system")
    assert record["answered_at"] is None


def test_caller_with_one_common_codec_is_answered(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    assert rig.offer(DID, ["G729", "PCMU"]) == 200
    assert redis.pop()["end_reason"] == "answered"
    assert redis.pop(INBOUND)["number"] == "0825550009"


def test_caller_who_leaves_unanswered_is_not_announced(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent, _other = (rig.phone(number, Script(answer_after=None)) for number in ("1000", "1001"))
    leg = rig.outside(CALLER).dial(DID)
    eventually(lambda: agent.calls)
    leg.hangup()
    assert told(redis) == ("abandoned", 16, "callee")
    assert redis.client.llen(INBOUND) == 0

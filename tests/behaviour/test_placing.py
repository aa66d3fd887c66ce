"""What a request may say of its call: numbers as people write them, names, headers and times."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, RedisServer, request

CALLEE = "0820001234"


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0].update(names=True, headers=["X-Lead"], random_caller_id=True, caller_ids=["27115550000"])


@pytest.mark.parametrize(
    "text", ["+27 (0)82 000-1234", "tel:082-000-1234;phone-context=+27", "\uff10\uff18\uff12 000 1234"]
)
def test_written_number_reaches_one_user(rig: Rig, node: Node, redis: RedisServer, text: str) -> None:
    rig.phone("1000", Script(answer_after=0.05))
    callee = rig.outside(CALLEE, Script(answer_after=0.05, hangup_after=0.1))
    node.call("1000", text, outbound_id="+27 11 555 0000")
    record = redis.pop()
    assert callee.calls[-1].leg.number == CALLEE
    assert (record["number"], record["dial_number"]) == (CALLEE, "27115550000")


def test_digits_behind_a_number_are_sent_after_the_answer(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.05, tone=500))
    callee = rig.outside(CALLEE, Script(answer_after=0.05, tone=900))
    node.call("1000", f"{CALLEE},1#")
    eventually(lambda: callee.calls and callee.calls[0].received)
    answered_at = callee.calls[0].leg.answered_at
    assert answered_at is not None
    assert time.time() - answered_at > 1.9
    eventually(lambda: callee.calls[0].received == "1#")
    callee.calls[0].hangup()
    assert redis.pop()["number"] == CALLEE


@pytest.mark.parametrize("name", ["Zo\u00eb O'Brien, 100% (VIP)", "\u5c71\u7530 %0D%0AX-A: 1"])
def test_names_are_shown_on_both_phones(rig: Rig, node: Node, redis: RedisServer, name: str) -> None:
    agent = rig.phone("1000", Script(answer_after=0.05))
    callee = rig.outside(CALLEE, Script(answer_after=0.05, hangup_after=0.1))
    node.call("1000", CALLEE, callee_name=name, outbound_name=f"Acme {name}")
    redis.pop()
    shown, theirs = agent.calls[0].leg, callee.calls[0].leg
    assert (shown.caller_number, shown.caller_name) == (CALLEE, name)
    assert (theirs.caller_number, theirs.caller_name) == ("27115550000", f"Acme {name}")
    assert not {"x-a"} & (shown.headers.keys() | theirs.headers.keys())


def test_headers_are_in_the_invites(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.05))
    callee = rig.outside(CALLEE, Script(answer_after=0.05, hangup_after=0.1))
    theirs = "00Q5g a=1;b=2 (x) 5%"
    order = {
        "agent": "1000",
        "callee": CALLEE,
        "outbound_id": "random",
        "headers": {"agent": {"X-Lead": theirs}, "callee": {"X-Lead": "7 8"}},
        "ringback": "%(400,200,400,450)",
    }
    assert request(node.api, "POST", "/click2dial/calls", order).status == 202
    assert redis.pop()["dial_number"] == "27115550000"
    assert agent.calls[0].leg.headers["x-lead"] == [theirs]
    assert callee.calls[0].leg.headers["x-lead"] == ["7 8"]


def test_agent_hears_the_requests_ringback(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone("1000", Script(answer_after=0.05))
    rig.outside(CALLEE, Script(answer_after=None))
    ref = node.call("1000", CALLEE, ringback="%(2000,100,1000)")
    eventually(lambda: node.get(ref)["state"] == "callee_ringing")
    assert agent.calls[0].hears(1000)
    agent.calls[0].hangup()
    assert redis.pop()["end_reason"] == "abandoned"

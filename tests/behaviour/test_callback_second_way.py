"""The callback number with ``answer_after`` and ``confirm``: a caller who stays is answered, one who is rung back
presses a key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.base import Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER, CALLER_E164, CB, E164, card
from tests.support.node import Node, RedisServer, asks


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {"cccp_cb_number": CB, "callback_delay": 0.3, "prompt_delay": 0.1}
    config["callback"] = {"retries": 0, "cool_down": 0.2, "answer_after": 1.0, "confirm": True}
    config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(CB, "callback", node.config["node"]["listen"])


def test_callback_answer_after_serves_a_caller_who_stays(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = rig.outside(CALLER).dial(CB)
    eventually(lambda: leg.leg.ringing_at is not None)
    eventually(lambda: leg.leg.answered_at is not None)
    assert leg.leg.answered_after > 0.9
    eventually(lambda: asks(rig, "enter_number"))
    leg.digits(CALLEE + "#")
    assert leg.hears(900)
    leg.hangup()
    assert redis.pop()["ref"] == "dialthrough"


def test_callback_answer_after_rings_back_who_leaves(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    rig.outside(E164, Script(answer_after=0.1, tone=900))
    back = rig.outside(CALLER_E164, Script(answer_after=0.1))
    leg = rig.outside(CALLER).dial(CB)
    eventually(lambda: leg.leg.ringing_at is not None)
    leg.hangup()
    eventually(lambda: back.calls and back.calls[0].leg.answered_at)
    eventually(lambda: asks(rig, "confirm_callback"))
    back.calls[0].digits("1")
    eventually(lambda: asks(rig, "enter_number"))
    back.calls[0].digits(CALLEE + "#")
    assert back.calls[0].hears(900)
    back.calls[0].hangup()
    assert redis.pop()["ref"] == "callback"

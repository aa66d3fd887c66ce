"""Callback and autodial; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from esl_apps.store import keys
from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER, CALLER_E164, CB, E164, STRANGER, card
from tests.support.node import ADMIN_TOKEN, Answer, Node, RedisServer, request


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {"cccp_cb_number": CB, "callback_delay": 0.6, "prompt_delay": 0.1}
    config["callback"] = {"retries": 1, "retry_after": 0.5, "cool_down": 0.5}
    config["accounts"] = {
        "acme": {
            "caller_id": {"number": "+27115550000"},
            "call_restriction": {"shared_cost": {"action": "deny"}},
        },
        "few": {"card_limits": {"calls_per_day": 1}, "limits": {"calls_per_hour": 1}},
    }


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(CB, "callback", node.config["node"]["listen"])


def missed_call(rig: Rig, number: str = CALLER) -> None:
    """Ring the callback number from outside, which is refused at once."""
    leg = rig.outside(number).dial(CB)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 486
    assert leg.leg.answered_at is None
    # If no node does, the dialplan refuses it after 8 s.
    assert leg.leg.lasted < 8


def refusals(node: Node) -> int:
    """How often the node decided not to return a missed call."""
    return sum(line["event"] == "callback_refused" for line in node.lines())


def scheduled(redis: RedisServer) -> bool:
    """Whether a callback is still to come, or under way."""
    return bool(redis.client.exists(keys.timed_pending("callbacks")))


def test_callback_missed_call_is_rung_back_and_connected(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.2, tone=500))
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    began = time.time()
    missed_call(rig)
    eventually(lambda: back.calls)
    # A callback whose node died is placed once its claim ends, after 120 s.
    assert 0.5 < back.calls[0].leg.started_at - began < 60
    assert back.calls[0].leg.caller_number == "+27115550000"
    eventually(lambda: back.calls[0].leg.answered_at is not None)
    back.calls[0].digits("," + CALLEE + "#")
    assert back.calls[0].hears(900)
    assert callee.calls[0].hears(500)
    back.calls[0].hangup()
    record = redis.pop()
    assert (record["end_reason"], record["ref"]) == ("answered", "callback"), record
    assert record["extension"] == "+27825556666"
    assert record["number"] == "+27820001234"


def test_callback_unknown_caller_is_refused_alike(rig: Rig, node: Node, redis: RedisServer) -> None:
    back, before = rig.outside("27845550000"), refusals(node)
    missed_call(rig, STRANGER)
    eventually(lambda: refusals(node) > before)
    assert not scheduled(redis)
    assert back.calls == []
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_callback_five_missed_calls_are_one_callback(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.1, hangup_after=0.5))
    # At once: all must come before the first is called back.
    caller = rig.outside(CALLER)
    missed = [caller.dial(CB) for _ in range(5)]
    eventually(lambda: all(call.leg.ended_at is not None for call in missed))
    assert {(call.leg.status, call.leg.answered_at) for call in missed} == {(486, None)}
    assert redis.pop()["end_reason"] == "abandoned"
    eventually(lambda: not scheduled(redis))
    assert len(back.calls) == 1
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_callback_unanswered_is_retried_with_a_record_each(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(reject=486))
    missed_call(rig)
    one, two = redis.pop(), redis.pop()
    assert one["end_reason"] == two["end_reason"] == "agent_busy"
    assert one["call_ref"] != two["call_ref"]
    eventually(lambda: not scheduled(redis))
    assert len(back.calls) == 2


def test_callback_node_killed_before_it_is_still_placed(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.1, hangup_after=0.3))
    missed_call(rig)
    eventually(lambda: list(redis.client.scan_iter("*callback*")))
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()
    eventually(lambda: back.calls and not scheduled(redis))
    assert len(back.calls) == 1


@on_the_sandbox
def test_callback_missed_while_redis_hangs_is_placed(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.1, hangup_after=0.3))
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        missed_call(rig)
        # By then Redis's time-out of 2 s has passed.
        eventually(lambda: any(line["event"] == "task_postponed" for line in node.lines()))
    finally:
        redis.process.send_signal(signal.SIGCONT)
    eventually(lambda: back.calls)
    assert redis.pop(timeout=30)["end_reason"] in ("answered", "abandoned")
    assert len(back.calls) == 1


def test_callback_to_a_denied_class_is_never_placed(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid="0860123456")
    back, before = rig.outside("27860123456"), refusals(node)
    missed_call(rig, "0860123456")
    eventually(lambda: refusals(node) > before)
    assert not scheduled(redis)
    assert back.calls == []


# Autodial ----------------------------------------------------------------------------------------------


def autodial(node: Node, **data: Any) -> Answer:
    return request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", {"data": data}, token=ADMIN_TOKEN)


def test_autodial_joins_two_numbers_after_an_announcement(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside("27831112222", Script(answer_after=0.1, tone=500))
    b = rig.outside(E164, Script(answer_after=0.1, tone=900))
    answer = autodial(node, a_leg_number="0831112222", b_leg_number=CALLEE, callback_delay=0.2, media_id="beep")
    assert answer.status in (200, 201, 202), answer.body
    assert answer.json["status"] == "success"
    eventually(lambda: a.calls and a.calls[0].leg.answered_at)
    assert a.calls[0].hears(900)
    assert b.calls[0].hears(500)
    assert b.calls[0].leg.caller_number == "+27115550000"
    b.calls[0].hangup()
    record = redis.pop()
    assert (record["end_reason"], record["ref"], record["hung_up_by"]) == ("answered", "autodial", "callee"), record
    eventually(lambda: rig.live_channels() == 0)


def test_autodial_that_waits_outlives_its_node(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside("27831112222", Script(answer_after=0.1, tone=500))
    b = rig.outside(E164, Script(answer_after=0.1, tone=900))
    answer = autodial(node, a_leg_number="0831112222", b_leg_number=CALLEE, callback_delay=3)
    ref = answer.json["data"]["call_ref"]
    # It is no live call: nothing has to be waited for.
    assert redis.live() == []
    assert node.stop() == 0
    assert a.calls == []
    node.start()
    eventually(lambda: b.calls and b.calls[0].leg.answered_at, within=15)
    b.calls[0].hangup()
    record = redis.pop()
    assert (record["call_ref"], record["end_reason"], record["number"]) == (ref, "answered", "+27820001234")


def test_autodial_that_waits_is_dropped(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside("27831112222")
    ref = autodial(node, a_leg_number="0831112222", b_leg_number=CALLEE, callback_delay=3600).json["data"]["call_ref"]
    path = "/v2/accounts/acme/cccps/autodials"
    (waiting,) = request(node.admin, "GET", path, token=ADMIN_TOKEN).json["data"]
    assert (waiting["call_ref"], waiting["a_leg_number"], waiting["b_leg_number"]) == (ref, "0831112222", CALLEE)
    assert request(node.admin, "DELETE", f"{path}/{ref}", token=ADMIN_TOKEN).status == 200
    record = redis.pop()
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "cancelled", "api")
    assert request(node.admin, "DELETE", f"{path}/{ref}", token=ADMIN_TOKEN).status == 404
    assert a.calls == []


@on_the_sandbox  # Redis decides: a real switch would only ring eleven times, as in the tests above
def test_callback_forged_ten_times_is_still_placed(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The person with the number picks up, wonders, and hangs up. Their own missed call comes last."""
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.05, hangup_after=0.05))
    for i in range(11):
        missed_call(rig)
        eventually(lambda i=i: len(back.calls) > i and not scheduled(redis))  # type: ignore[misc]
        # Its cool-down, of the test's configuration.
        past = float(redis.client.hget(keys.timed_past("callbacks", CALLER_E164), "ended"))
        eventually(lambda past=past: time.time() > past + 0.5)  # type: ignore[misc]
        assert redis.pop()["ref"] == "callback"
    assert len(back.calls) == 11


def test_callback_forged_uses_up_no_limit_of_the_card(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, account="few", cid=CALLER)
    back = rig.outside(CALLER_E164, Script(reject=486))
    callee = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.2))
    missed_call(rig)
    assert [redis.pop()["end_reason"] for _ in range(2)] == ["agent_busy"] * 2
    eventually(lambda: not scheduled(redis))
    # The caller's own.
    back.script(Script(answer_after=0.1, digits=f",,{CALLEE}#"))
    time.sleep(0.5)
    missed_call(rig)
    eventually(lambda: callee.calls)
    assert redis.pop()["end_reason"] == "answered"


def test_autodial_into_a_conference_joins_it(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside("27831112222", Script(answer_after=0.1))
    answer = autodial(node, a_leg_number="0831112222", b_leg_number="conference:weekly", callback_delay=0)
    assert answer.json["status"] == "success", answer.body
    eventually(lambda: a.calls and a.calls[0].leg.answered_at)
    eventually(lambda: any("bridged_at" in str(call) for call in redis.live()))
    a.calls[0].hangup()
    record = redis.pop()
    assert (record["end_reason"], record["number"]) == ("answered", "conference:weekly")


def test_autodial_to_a_denied_class_dials_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside("27831112222")
    answer = autodial(node, a_leg_number="0831112222", b_leg_number="0860123456", callback_delay=0)
    assert answer.status == 400, answer.body
    assert answer.json["status"] == "error"
    # An allowed order follows, and is the only call placed.
    rig.outside(E164, Script(reject=486))
    assert autodial(node, a_leg_number="0831112222", b_leg_number=CALLEE, callback_delay=0).json["status"] == "success"
    assert redis.pop()["number"] == "+27820001234"
    assert len(a.calls) == 1
    assert not scheduled(redis)
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_autodial_a_does_not_answer_has_a_record(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.outside("27831112222", Script(reject=486))
    b = rig.outside(E164)
    assert autodial(node, a_leg_number="0831112222", b_leg_number=CALLEE).json["status"] == "success"
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("agent_busy", 17)
    assert b.calls == []

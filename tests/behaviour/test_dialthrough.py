"""Calling cards by telephone: known by number or by PIN; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import on_a_real_switch
from tests.rig.base import PhoneLeg, Rig, Script, ended, eventually
from tests.support.callers import CALLEE, CALLER, CC, E164, STRANGER, card, reach
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, asks, request

PIN = "482190735"


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {
        "cccp_cc_number": "0115551000",
        "last_number_redial_code": "*0",
        "default_caller_id_number": "+15140000000",
        "allowed_callee_regex": r"^\+?\d{11,}$",
    }
    config["accounts"] = {
        "acme": {
            "caller_id": {"number": "+27115550000"},
            "caller_ids": [CALLER],
            "call_restriction": {"shared_cost": {"action": "deny"}},
            "users": {"strict": {"call_restriction": {"mobile": {"action": "deny"}}}},
        },
        "bare": {},
    }


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(CC, "dialthrough", node.config["node"]["listen"])


def dial_in(rig: Rig, number: str = CALLER, asked: str = "enter_number", **script: Any) -> PhoneLeg:
    """Dial the calling-card number, and wait until it asks for the callee or, for a stranger, the PIN."""
    leg = rig.outside(number, Script(**script)).dial(CC)
    eventually(lambda: asks(rig, asked))
    return leg


def test_dialthrough_caller_known_by_number_dials(rig: Rig, node: Node, redis: RedisServer) -> None:
    made = card(node, cid=CALLER)
    callee = rig.outside(E164, Script(answer_after=0.2, tone=900))
    leg = dial_in(rig, tone=500)
    reach(leg, CALLEE + "#", 900)
    assert callee.calls[0].hears(500)
    assert callee.calls[0].leg.caller_number == "+27115550000"
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["ref"], record["extension"]) == ("answered", "dialthrough", CALLER)
    assert record["number"] == "+27820001234"
    assert made["id"]


def test_dialthrough_pin_opens_and_is_not_kept(rig: Rig, node: Node, redis: RedisServer) -> None:
    made = card(node, pin=PIN)
    assert PIN not in str(made)
    rig.outside(E164, Script(answer_after=0.2, tone=900))
    leg = dial_in(rig, STRANGER, "enter_pin")
    # Typed ahead, without waiting for the prompts.
    reach(leg, PIN + "#" + CALLEE + "#", 900)
    leg.hangup()
    assert redis.pop()["end_reason"] == "answered"
    stored = repr([redis.client.hgetall(k) for k in redis.client.scan_iter() if redis.client.type(k) == "hash"])
    assert PIN not in stored
    assert PIN not in node.log.read_text()


def test_dialthrough_three_wrong_pins_end_the_call(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, pin=PIN)
    leg = dial_in(rig, STRANGER, "enter_pin")
    for _ in range(3):
        leg.digits("999999999#")
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 21, None)


def test_dialthrough_inactive_card_opens_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, pin=PIN, active=False)
    leg = dial_in(rig, STRANGER, "enter_pin")
    for _ in range(3):
        leg.digits(PIN + "#")
    eventually(lambda: leg.leg.ended_at is not None)
    assert redis.pop()["end_reason"] == "rejected"


def test_dialthrough_redial_code_dials_the_last_number(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    reach(leg, CALLEE + "#", 900)
    leg.hangup()
    redis.pop()
    eventually(lambda: rig.live_channels() == 0)
    again = dial_in(rig)
    reach(again, "*0#", 900)
    eventually(lambda: len(callee.calls) == 2)
    again.hangup()
    assert redis.pop()["number"] == "+27820001234"


def test_dialthrough_class_denied_to_account_or_user_ends(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER, user_id="strict")
    callee = rig.outside(E164)
    for digits, number in (("0860123456#", "+27860123456"), (CALLEE + "#", "+27820001234")):
        leg = dial_in(rig)
        leg.digits(digits)
        ended(leg)
        record = redis.pop()
        assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 57, number)
    assert callee.calls == []


def test_dialthrough_caller_known_by_number_dials_nationally(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    abroad = rig.outside("442079460000")
    leg = dial_in(rig)
    leg.digits("00442079460000#")
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_code"], record["number"]) == (57, "+442079460000")
    assert abroad.calls == []


def test_dialthrough_allowed_callee_regex_refuses_extension(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    inside = rig.phone("1000")
    leg = dial_in(rig)
    for _ in range(3):
        leg.digits("1000#")
    eventually(lambda: leg.leg.ended_at is not None)
    assert inside.calls == []
    assert redis.pop()["end_reason"] == "rejected"


def test_dialthrough_over_the_concurrent_limit_is_refused(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER, max_concurrent_calls_per_user=1)
    rig.outside(E164, Script(answer_after=0.1, tone=900))
    phone = rig.outside(CALLER)
    first = phone.dial(CC)
    eventually(lambda: asks(rig, "enter_number"))
    reach(first, CALLEE + "#", 900)
    second = phone.dial(CC)
    eventually(lambda: second.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("rejected", 17)
    first.hangup()
    assert redis.pop()["end_reason"] == "answered"
    third = dial_in(rig)
    reach(third, CALLEE + "#", 900)
    third.hangup()
    assert redis.pop()["end_reason"] == "answered"


def test_dialthrough_retain_cid_adds_diversion(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER, retain_cid=True)
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    reach(leg, CALLEE + "#", 900)
    seen = callee.calls[0].leg
    assert seen.caller_number == CALLER
    assert re.search(r"<sip:\+27115550000@.*>;reason=unconditional", seen.headers["diversion"][0])
    leg.hangup()
    assert redis.pop()["dial_number"] == CALLER


def test_dialthrough_account_without_number_shows_default(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, "bare", cid=CALLER, retain_cid=True)
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    reach(leg, CALLEE + "#", 900)
    assert callee.calls[0].leg.caller_number == "+15140000000"
    leg.hangup()
    redis.pop()


@pytest.mark.parametrize(("status", "reason", "code"), [(486, "callee_busy", 17), (404, "callee_failed", 1)])
def test_dialthrough_failed_number_then_another_connects(
    rig: Rig, node: Node, redis: RedisServer, status: int, reason: str, code: int
) -> None:
    card(node, cid=CALLER)
    busy = rig.outside(E164, Script(reject=status))
    rig.outside("27831112222", Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    leg.digits(CALLEE + "#")
    eventually(lambda: busy.calls)
    # Keys pressed while the first number is being dialled don't belong to the next.
    eventually(lambda: redis.client.llen("enigma:notifications:cdr") == 1)
    eventually(lambda: asks(rig, "enter_number"))
    reach(leg, "0831112222#", 900)
    leg.hangup()
    one, two = redis.pop(), redis.pop()
    assert (one["end_reason"], one["end_code"]) == (reason, code)
    assert two["end_reason"] == "answered"
    assert one["session_ref"] == two["session_ref"]


def test_dialthrough_card_removed_in_its_call_dials_no_more(rig: Rig, node: Node, redis: RedisServer) -> None:
    made = card(node, cid=CALLER)
    callee = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.3))
    leg = dial_in(rig)
    leg.digits(CALLEE + "#")
    assert redis.pop()["end_reason"] == "answered"
    path = f"/v2/accounts/acme/cccps/{made['id']}"
    assert request(node.admin, "PATCH", path, {"data": {"active": False}}, token=ADMIN_TOKEN).status == 200
    leg.digits(CALLEE + "#")
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 57, "+27820001234")
    assert len(callee.calls) == 1


@pytest.mark.parametrize("privacy", ["id", "user", "header", "id;critical"])
@on_a_real_switch
def test_dialthrough_withheld_number_opens_nothing(rig: Rig, node: Node, redis: RedisServer, privacy: str) -> None:
    card(node, cid=CALLER)
    leg = rig.outside(CALLER).dial(CC, {"Privacy": privacy})
    eventually(lambda: asks(rig, "enter_pin"))
    leg.hangup()
    assert redis.pop()["extension"] is None


def test_dialthrough_strangers_identity_opens_nothing(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    leg = rig.outside(STRANGER).dial(CC, {"P-Asserted-Identity": f"<sip:{CALLER}@127.0.0.1>"})
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(CALLEE + "#")
    eventually(lambda: asks(rig, "invalid_pin"))
    leg.hangup()
    record = redis.pop()
    assert record["number"] is None
    assert record["extension"] == STRANGER

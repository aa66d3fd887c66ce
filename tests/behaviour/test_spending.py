"""Limits stop spending before a call and during it; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from esl_apps.store import keys
from tests.conftest import on_a_real_switch
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support import zygote
from tests.support.callers import DIALTONE
from tests.support.node import ADMIN_TOKEN, Answer, Node, RedisServer, asks, request

DISA, CALLER, CALLEE, E164 = "27115550002", "0825556666", "0820001234", "27820001234"
PIN = "4821907356"
A, A_E164 = "0831112222", "27831112222"


def CONFIG(config: dict[str, Any]) -> None:
    mobiles = {"class:mobile": {"calls_per_hour": 2}}
    config["integrators"][0]["limits"] = {"minutes_per_day": 30, "destinations": mobiles}
    config["integrators"][0]["breaker"] = {"calls_per_hour": 3, "end_calls": True}
    account = {
        "caller_id": {"number": "+27115550000"},
        "integrator": "acme",
        "limits": {"minutes_per_day": 30},
        "disa": {"front": {"pin": PIN, "interdigit": 700}},
    }
    config["accounts"] = {"acme": account, "other": account}


@pytest.fixture(autouse=True)
def reset(rig: Rig, node: Node, redis: RedisServer) -> Iterator[None]:
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])
    yield
    # The node remembers tripped breakers even if Redis is emptied.
    for scope in redis.client.hkeys(keys.TRIPPED):
        put_back(node, scope)


def breaker(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``esl-apps breaker`` as an operator does."""
    return zygote.run(["breaker", "-c", str(node.file), *arguments])


def logged(node: Node, event: str) -> list[dict[str, Any]]:
    return [line for line in node.lines() if line["event"] == event]


def put_back(node: Node, scope: str) -> None:
    """Reset a breaker and wait until the node knows."""
    seen = len(logged(node, "breaker_reset"))
    assert breaker(node, "--reset", scope).returncode == 0
    eventually(lambda: len(logged(node, "breaker_reset")) > seen)
    assert "@" in logged(node, "breaker_reset")[-1]["by"]


def leave(redis: RedisServer, key: str, seconds: float) -> None:
    """Leave ``seconds`` of today's 30 minutes, as if the others had been talked."""
    day, spent = int(time.time() // 86400), f"{1800 - seconds:.3f}"
    # The day may end meanwhile.
    redis.client.hset(keys.usage_sums(key), mapping={f"d{day}": spent, f"d{day + 1}": spent})


def dial_in(rig: Rig) -> PhoneLeg:
    leg = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(PIN)
    assert leg.hears(*DIALTONE)
    leg.digits(CALLEE + "#")
    return leg


def autodial(node: Node, **data: Any) -> Answer:
    path = f"/v2/accounts/{data.pop('account', 'acme')}/cccps/autodial"
    return request(node.admin, "PUT", path, {"data": {"callback_delay": 0, **data}}, token=ADMIN_TOKEN)


def test_spending_call_ends_with_its_accounts_minutes(rig: Rig, node: Node, redis: RedisServer) -> None:
    leave(redis, "account:acme", 2.5)
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    eventually(lambda: callee.calls and callee.calls[0].leg.ended_at)
    talked = (callee.calls[0].leg.ended_at or 0.0) - (callee.calls[0].leg.answered_at or 0.0)
    assert 1.5 < talked < 12
    assert callee.calls[0].leg.ended_by == "far"
    eventually(lambda: leg.leg.ended_at)
    assert leg.leg.ended_by == "far"
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "system"), record
    # One record; the next call is refused and never reaches the callee.
    assert redis.client.llen("enigma:notifications:cdr") == 0
    assert autodial(node, a_leg_number=A, b_leg_number=CALLEE).status == 429
    assert len(callee.calls) == 1


def test_spending_two_calls_share_the_minutes_left(rig: Rig, node: Node, redis: RedisServer) -> None:
    leave(redis, "integrator:acme", 12)
    # The first call paid ten seconds ahead; the second gets the rest and ends first.
    phones = [rig.phone(number, Script(answer_after=0.1)) for number in ("1000", "1001", "1002", "1003")]
    refs = [node.call("1000", "1001")]
    eventually(lambda: node.get(refs[0])["state"] == "bridged")
    refs.append(node.call("1002", "1003"))
    eventually(lambda: node.get(refs[1])["state"] == "ended")
    record = node.get(refs[1])["record"]
    assert (record["end_reason"], record["hung_up_by"]) == ("answered", "system"), record
    answer = node.post("1002", "1003")
    assert (answer.status, answer.json["errors"][0]["code"]) == (429, "limit_reached"), answer.body
    assert answer.headers["retry-after"] == "60"
    assert len(phones[3].calls) == 1
    node.delete(refs[0])
    assert {redis.pop()["call_ref"] for _ in refs} == set(refs)
    eventually(lambda: rig.live_channels() == 0)


def test_spending_destination_has_its_own_limit(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(reject=486))
    for _ in range(2):
        node.call("1000", CALLEE)
        assert redis.pop()["end_reason"] == "agent_busy"
    dry = node.post("1000", CALLEE, query="?dry_run=1")
    assert [(one["check"], one["message"]) for one in dry.json["checks"] if not one["ok"]] == [
        ("limits", "calls_per_hour is reached")
    ]
    refused = node.post("1000", CALLEE)
    assert (refused.status, refused.json["errors"][0]["field"]) == (429, "limits")
    # Another destination has its own limit, and the dry run counted nothing.
    assert node.post("1000", "1001").status == 202
    redis.pop()


def test_breaker_tripped_ends_calls_until_it_is_reset(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone("1000", Script(answer_after=0.1))
    rig.phone("1001", Script(answer_after=0.1))
    rig.phone("1002", Script(reject=486))
    up = node.call("1000", "1001")
    eventually(lambda: node.get(up)["state"] == "bridged")
    for _ in range(2):
        node.call("1002", "1001")
        assert redis.pop()["end_reason"] == "agent_busy"
    seen = len(logged(node, "alert_raised"))
    for _ in range(2):
        refused = node.post("1002", "1001")
        assert (refused.status, refused.json["errors"][0]["code"]) == (503, "breaker"), refused.body
        assert "retry-after" in refused.headers
    record = redis.pop()
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (up, "answered", "system"), record
    alerts = logged(node, "alert_raised")[seen:]
    assert [(line["alert"], line["scope"]) for line in alerts] == [("breaker", "integrator:acme")]
    listed = breaker(node)
    assert "TRIPPED integrator:acme: calls_per_hour 3 of integrator:acme" in listed.stdout, listed
    put_back(node, "integrator:acme")
    assert node.post("1002", "1001").status == 202
    redis.pop()


def test_breaker_tripped_by_hand_is_one_accounts(rig: Rig, node: Node, redis: RedisServer) -> None:
    a = rig.outside(A_E164, Script(answer_after=0.1))
    seen = len(logged(node, "breaker_tripped"))
    assert breaker(node, "--trip", "account:acme/country:ZA").returncode == 0
    eventually(lambda: len(logged(node, "breaker_tripped")) > seen)
    refused = autodial(node, a_leg_number=A, b_leg_number="conference:weekly")
    assert (refused.status, list(refused.json["data"]["limits"])) == (503, ["breaker"])
    assert autodial(node, a_leg_number=A, b_leg_number="conference:weekly", account="other").status == 201
    eventually(lambda: a.calls and a.calls[0].leg.answered_at)
    time.sleep(0.5)
    a.calls[0].hangup()
    assert redis.pop()["end_reason"] == "answered"
    assert len(a.calls) == 1


def test_spending_conference_ends_with_the_minutes(rig: Rig, node: Node, redis: RedisServer) -> None:
    leave(redis, "account:acme", 2.5)
    a = rig.outside(A_E164, Script(answer_after=0.1))
    answer = autodial(node, a_leg_number=A, b_leg_number="conference:weekly")
    assert answer.status == 201, answer.body
    eventually(lambda: a.calls and a.calls[0].leg.answered_at)
    eventually(lambda: a.calls[0].leg.ended_at)
    record = redis.pop()
    assert (record["end_reason"], record["hung_up_by"], record["number"]) == (
        "answered",
        "system",
        "conference:weekly",
    ), record
    refused = autodial(node, a_leg_number=A, b_leg_number="conference:weekly")
    assert (refused.status, list(refused.json["data"]["limits"])) == (429, ["limit_reached"])


def test_spending_killed_nodes_call_ends_with_the_minutes(rig: Rig, node: Node, redis: RedisServer) -> None:
    leave(redis, "integrator:acme", 14)
    rig.phone("1000", Script(answer_after=0.1))
    rig.phone("1001", Script(answer_after=0.1))
    ref = node.call("1000", "1001")
    eventually(lambda: node.get(ref)["state"] == "bridged")
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()
    # Ten seconds were paid when the node died; the four that are left are talked, and no more.
    record = redis.pop(timeout=40)
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (ref, "answered", "system"), record
    eventually(lambda: rig.live_channels() == 0)
    assert node.post("1000", "1001").status == 429


@on_a_real_switch
def test_conference_of_one_name_is_each_accounts_own(rig: Rig, node: Node, redis: RedisServer) -> None:
    a, b = rig.outside(A_E164, Script(answer_after=0.1)), rig.outside("27833334444", Script(answer_after=0.1))
    assert autodial(node, a_leg_number=A, b_leg_number="conference:weekly").status == 201
    assert autodial(node, a_leg_number="0833334444", b_leg_number="conference:weekly", account="other").status == 201
    eventually(lambda: a.calls and a.calls[0].leg.answered_at and b.calls and b.calls[0].leg.answered_at)
    eventually(lambda: "acme~weekly" in rig.api("conference list") and "other~weekly" in rig.api("conference list"))
    for phone in (a, b):
        phone.calls[0].hangup()
        assert redis.pop()["number"] == "conference:weekly"

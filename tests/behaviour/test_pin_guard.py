"""A caller who guesses PINs is locked and hears no difference; on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from esl_apps.store import keys
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.rig.event_socket import EslClient, EventTap
from tests.support.callers import DIALTONE, card
from tests.support.node import Node, RedisServer, asks, request

DISA, CC = "27115550002", "0115551000"
GUESSER, HONEST, ENROLLED = "0845550000", "0835550000", "0825556666"
PIN = "4821"
#: A number that is only claimed counts together with the address that claims it.
GUESSER_AT = "27845550000@127.0.0.1"


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {"cccp_cc_number": CC}
    config["pin_guard"] = {"per_number": 2, "per_service": 3, "overall": 3, "lock": 60}
    config["callflow.disa"] = {"default_pin_length": 4}
    config["accounts"] = {"acme": {"disa": {"front": {"pin": PIN}}}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])
    rig.route(CC, "dialthrough", node.config["node"]["listen"])


@pytest.fixture
def tap(rig: Rig, node: Node) -> Iterator[EventTap]:
    """The switch's ``esl_apps::alert`` events."""
    port = int(rig.esl_address.rpartition(":")[2])
    with EventTap(EslClient(port, rig.esl_password, 5), "CUSTOM esl_apps::alert") as listening:
        yield listening


def alerts_in_log(node: Node) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in node.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "alert_raised"]


def metric(node: Node) -> float:
    text = request(node.admin, "GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith('esl_apps_alerts_total{alert="pin_lock"}')]
    return float(lines[0].split()[1]) if lines else 0.0


def dial(rig: Rig, number: str, did: str, *keys: str) -> PhoneLeg:
    leg = rig.outside(number).dial(did)
    eventually(lambda: asks(rig, "enter_pin") or asks(rig, "enter_number"))
    leg.digits("".join(keys))
    return leg


def test_pin_guard_second_wrong_pin_locks_in_silence(rig: Rig, node: Node, redis: RedisServer, tap: EventTap) -> None:
    told, counted = len(alerts_in_log(node)), metric(node)
    leg = dial(rig, GUESSER, DISA, "1111", "2222", PIN)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.ended_by == "far"
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("rejected", 21, "system")
    assert record["number"] is None
    alerts = alerts_in_log(node)[told:]
    assert [(one["alert"], one["lock"], one["seconds"], one["level"]) for one in alerts] == [
        ("pin_lock", f"number:{GUESSER_AT}", 60, "warning")
    ]
    assert metric(node) - counted == 1
    eventually(lambda: tap.events)
    assert [event["esl_lock"] for event in tap.events] == [f"number:{GUESSER_AT}"]
    # Another caller's PIN still works.
    leg = dial(rig, HONEST, DISA, PIN)
    assert leg.hears(*DIALTONE)
    leg.hangup()
    redis.pop()


@pytest.mark.parametrize("rig", ["sandbox"], indirect=True)
def test_pin_guard_changing_numbers_lock_the_service(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=ENROLLED)
    callee = rig.outside("27820001234", Script(answer_after=0.1, tone=900))
    told = len(alerts_in_log(node))
    for i in range(1, 4):
        leg = dial(rig, f"083111000{i}", DISA, "1#")
        eventually(partial(redis.client.exists, keys.pin_tries(f"number:2783111000{i}@127.0.0.1")))
        leg.hangup()
        redis.pop()
    locks = {"entrance:disa/acme/front", "dnis:27115550002", "all"}
    eventually(lambda: {alert["lock"] for alert in alerts_in_log(node)[told:]} == locks)
    leg = dial(rig, HONEST, DISA, PIN * 3)
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 21, None)
    # A caller known by number isn't asked for a PIN.
    leg = dial(rig, ENROLLED, CC, "0820001234#")
    assert leg.hears(900)
    assert len(callee.calls) == 1
    leg.hangup()
    redis.pop()

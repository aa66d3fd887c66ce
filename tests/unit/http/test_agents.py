"""Agents over HTTP: whether they are there, and calls that are placed only if they are."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from esl_apps.core.order import IntegratorRules
from tests.support.http_services import World, errors
from tests.support.presence_switch import CONTACT, NOBODY, AnsweringSwitch

AGENT = "/click2dial/agents/1000"
CALLS = "/click2dial/calls"
ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"
CHANNEL = {
    "uuid": "B",
    "direction": "outbound",
    "name": "sofia/internal/1000@192.0.2.7",
    "esl_call_ref": REF,
    "esl_account_id": "acme",
}


def post(world: World, wanted: str, path: str = CALLS, **more: str) -> Any:
    return world.api.simulate_post(path, json={**ORDER, "require_agent": wanted, **more})


def test_agent_is_answered_for_with_all_its_calls(world: World) -> None:
    world.services.switches = [AnsweringSwitch(CONTACT, CHANNEL)]
    result = world.api.simulate_get(AGENT)
    assert result.status_code == 200
    assert result.json == {"extension": "1000", "registered": True, "state": "busy", "calls": [REF]}
    assert result.headers["cache-control"] == "no-store"


def test_agent_without_a_switch_is_unknown(world: World) -> None:
    assert world.api.simulate_get(AGENT).json == {
        "extension": "1000",
        "registered": None,
        "state": "unknown",
        "calls": [],
    }


@pytest.mark.parametrize(
    ("agent", "code"),
    [
        ("0820001234", "value"),
        ("1", "pattern"),
        ("1000%20api", "pattern"),
        ("1000%0Aapi", "pattern"),
        ("%25", "pattern"),
    ],
)
def test_agent_that_is_no_extension_is_refused(world: World, agent: str, code: str) -> None:
    switch = AnsweringSwitch(CONTACT)
    world.services.switches = [switch]
    result = world.api.simulate_get(f"/click2dial/agents/{agent}")
    assert errors(result, 422) == [("agent", code)]
    assert switch.asked == []


def test_agent_needs_the_scope_call(world: World) -> None:
    result = world.api.simulate_get(AGENT, headers={"Authorization": "Bearer the-wallboards-token"})
    assert result.status_code == 403


def test_agent_token_opens_its_own_agent_only(world: World) -> None:
    token = world.api.simulate_post(f"{AGENT}/token", json={}).json["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert world.api.simulate_get(AGENT, headers=headers).status_code == 200
    assert errors(world.api.simulate_get("/click2dial/agents/1001", headers=headers), 403) == [("agent", "agent")]


@pytest.mark.parametrize(
    ("switch", "wanted", "reason"),
    [
        (AnsweringSwitch(NOBODY), "registered", "not_registered"),
        (AnsweringSwitch(NOBODY), "idle", "not_registered"),
        (AnsweringSwitch(CONTACT, CHANNEL), "idle", "busy"),
    ],
)
def test_call_for_an_agent_who_is_not_there_is_409(
    world: World, switch: AnsweringSwitch, wanted: str, reason: str
) -> None:
    world.services.switches = [switch]
    result = post(world, wanted)
    assert errors(result, 409) == [("agent", "agent_unavailable")]
    assert result.json["errors"][0]["reason"] == reason
    assert world.outgoing.placed == []


@pytest.mark.parametrize(
    ("switch", "wanted"), [(AnsweringSwitch(CONTACT), "idle"), (AnsweringSwitch(CONTACT, CHANNEL), "registered")]
)
def test_call_for_an_agent_who_is_there_is_placed(world: World, switch: AnsweringSwitch, wanted: str) -> None:
    world.services.switches = [switch]
    assert post(world, wanted).status_code == 202
    assert len(world.outgoing.placed) == 1


def test_call_without_require_agent_asks_no_switch(world: World) -> None:
    switch = AnsweringSwitch()
    world.services.switches = [switch]
    assert world.api.simulate_post(CALLS, json=ORDER).status_code == 202
    assert switch.asked == []


def test_call_for_an_agent_of_a_silent_switch_is_503_in_time(world: World) -> None:
    silent = AnsweringSwitch(CONTACT)
    silent.takes = 60.0
    world.services.switches = [silent]
    began = time.monotonic()
    result = post(world, "registered")
    assert time.monotonic() - began < 5.0
    assert errors(result, 503) == [("", "unavailable")]
    assert result.headers["retry-after"] == "5"


def test_call_for_an_outside_agent_cannot_require_one(world: World) -> None:
    assert errors(post(world, "registered", agent="0820001111"), 422) == [("require_agent", "not_allowed")]


def test_key_of_a_call_for_an_absent_agent_may_be_used_again(world: World) -> None:
    switch = AnsweringSwitch(NOBODY)
    world.services.switches = [switch]
    headers = {"Idempotency-Key": "k"}
    body = {**ORDER, "require_agent": "registered"}
    assert world.api.simulate_post(CALLS, json=body, headers=headers).status_code == 409
    world.services.switches = [AnsweringSwitch(CONTACT)]
    assert world.api.simulate_post(CALLS, json=body, headers=headers).status_code == 202


def test_call_for_an_absent_agent_takes_no_campaigns_turn(world: World) -> None:
    policy = world.services.policy
    rules = IntegratorRules("acme", policy.settings.plan, campaigns={"spring": ["27115550001", "27115550002"]})
    world.services.policies.now = dataclasses.replace(policy, clients={"acme": rules})
    for contact in (CONTACT, NOBODY, NOBODY, NOBODY, CONTACT):
        world.services.switches = [AnsweringSwitch(contact)]
        post(world, "registered", outbound_id="tvc_spring")
    assert [attempt.dial_number for attempt in world.outgoing.placed] == ["27115550001", "27115550002"]


@pytest.mark.parametrize(
    ("contact", "agent", "ok", "message"),
    [
        (CONTACT, "1000", True, "ok"),
        (NOBODY, "1000", False, "no phone of the agent is registered"),
        (CONTACT, "0820001111", False, "this agent's phone doesn't register with the switch"),
    ],
)
def test_dry_run_says_whether_the_agent_is_there(
    world: World, contact: str, agent: str, ok: bool, message: str
) -> None:
    world.services.switches = [AnsweringSwitch(contact)]
    result = post(world, "idle", f"{CALLS}?dry_run=1", agent=agent)
    (check,) = [check for check in result.json["checks"] if check["check"] == "require_agent"]
    assert (check["ok"], check["message"]) == (ok, message)
    assert result.json["ok"] is ok

"""Tokens for one agent: what they open, and how they end."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from esl_apps.apps import inbound, rung_agents
from esl_apps.core.actions import Undone
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Leg
from esl_apps.http import agent_tokens
from esl_apps.http.access import Token
from esl_apps.http.agent_tokens import AgentTokens
from esl_apps.testing import PLAN
from tests.support.http_services import World, errors

CALLS = "/click2dial/calls"
ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
FULL, READER = Token(b"\x01" * 32, None, "acme"), Token(b"\x02" * 32, frozenset({"read"}), "acme/wallboard")


def issue(world: World, agent: str = "1000", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return world.api.simulate_post(f"/click2dial/agents/{agent}/token", json=fields, headers=headers or {})


def bearer(world: World, agent: str = "1000", **fields: Any) -> dict[str, str]:
    result = issue(world, agent, **fields)
    assert result.status_code == 200, result.text
    return {"Authorization": f"Bearer {result.json['token']}"}


def place(world: World, headers: dict[str, str], **fields: str) -> Any:
    return world.api.simulate_post(CALLS, json={**ORDER, **fields}, headers=headers)


def placed(world: World, agent: str = "1000") -> Attempt:
    result = world.api.simulate_post(CALLS, json={**ORDER, "agent": agent})
    assert result.status_code == 202
    attempt: Attempt = world.outgoing.placed[-1]
    return attempt


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time on the port's clock, which the test may change."""
    held = [1_800_000_000.0]
    monkeypatch.setattr("esl_apps.http.agents.time.time", lambda: held[0])
    monkeypatch.setattr("esl_apps.http.calls_port.time.time", lambda: held[0])
    return held


# Issuing ---------------------------------------------------------------------------------------------------


def test_agent_token_lasts_15_minutes_by_default(world: World, now: list[float]) -> None:
    result = issue(world)
    assert result.json["expires_at"] == now[0] + 900
    assert result.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("seconds", [0, -1, 901, 10**9, 1.5, True, "60", None])
def test_agent_token_for_any_other_time_is_422(world: World, seconds: object) -> None:
    assert errors(issue(world, expires_in=seconds), 422) == [("expires_in", "range")]


@pytest.mark.parametrize("scopes", [[], ["record"], ["call", "cards"], "call", [["call"]], {"call": 1}, ["operate"]])
def test_agent_token_with_other_scopes_is_422(world: World, scopes: object) -> None:
    assert errors(issue(world, scopes=scopes), 422) == [("scopes", "value")]


@pytest.mark.parametrize("agent", ["10", "abc", "1000;x", "12345"])
def test_agent_token_for_no_agent_is_422(world: World, agent: str) -> None:
    (error,) = errors(issue(world, agent), 422)
    assert error == ("agent", "pattern")


def test_agent_token_order_with_unknown_fields_is_422(world: World) -> None:
    assert errors(issue(world, expires=60), 422) == [("expires", "unknown")]


def test_agent_token_needs_the_scope_call(world: World) -> None:
    reader = {"Authorization": "Bearer the-wallboards-token"}
    assert errors(issue(world, headers=reader), 403) == [("", "scope")]
    assert errors(issue(world, headers={"Authorization": "Bearer wrong"}), 401) == [("", "unauthorized")]


def test_agent_token_issues_no_token(world: World) -> None:
    assert errors(issue(world, headers=bearer(world)), 403) == [("", "scope")]


def test_agent_token_is_logged_without_itself(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    token = issue(world, expires_in=60).json["token"]
    (line,) = [line for line in caplog.records if line.msg == "agent_token_issued"]
    fields = vars(line)
    assert (fields["agent"], fields["token"], fields["seconds"]) == ("1000", "acme", 60)
    assert token not in caplog.text


# Using -----------------------------------------------------------------------------------------------------


def test_agent_token_opens_calls_of_its_agent(world: World) -> None:
    headers = bearer(world)
    ref = place(world, headers).json["call_ref"]
    assert world.api.simulate_get(f"{CALLS}/{ref}", headers=headers).status_code == 200
    assert world.api.simulate_delete(f"{CALLS}/{ref}", headers=headers).status_code == 202
    assert world.services.cancelled == [ref]


@pytest.mark.parametrize("agent", ["1001", "01000", "0820001111", 1000, None, ["1000"]])
def test_agent_token_is_refused_for_another_agent(world: World, agent: Any) -> None:
    assert errors(place(world, bearer(world), agent=agent), 403) == [("agent", "agent")]
    assert world.outgoing.placed == []


@pytest.mark.parametrize("query", [{}, {"dry_run": "1"}])
def test_agent_token_is_refused_without_an_agent(world: World, query: dict[str, str]) -> None:
    order = {name: text for name, text in ORDER.items() if name != "agent"}
    result = world.api.simulate_post(CALLS, json=order, params=query, headers=bearer(world))
    assert errors(result, 403) == [("agent", "agent")]


@pytest.mark.parametrize("written", ["+27820001111", "0820001111", "082 000 1111"])
def test_agent_token_reads_its_agent_however_written(world: World, written: str) -> None:
    headers = bearer(world, "+27820001111")
    result = place(world, headers, agent=written)
    assert result.status_code == 202, result.text
    assert world.api.simulate_get(f"{CALLS}/{result.json['call_ref']}", headers=headers).status_code == 200
    assert world.api.simulate_get(CALLS, params={"agent": written}, headers=headers).status_code == 200
    # An extension it isn't, but its own agent.
    agent = world.api.simulate_get(f"/click2dial/agents/{written}", headers=headers)
    assert errors(agent, 422) == [("agent", "value")]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_agent_token_sees_no_call_of_another(world: World, method: str) -> None:
    theirs = placed(world, "1001")
    result = world.api.simulate_request(method, f"{CALLS}/{theirs.call_ref}", headers=bearer(world))
    assert errors(result, 404) == [("", "not_found")]
    assert world.services.cancelled == []
    world.end(theirs)
    result = world.api.simulate_request(method, f"{CALLS}/{theirs.call_ref}", headers=bearer(world))
    assert errors(result, 404) == [("", "not_found")]


def statuses(world: World, attempt: Attempt, agent: str) -> list[int]:
    """Return how GET, DELETE and an action of an agent's token are answered."""
    world.services.calls.live[attempt.call_ref] = SimpleNamespace(attempt=attempt)
    headers, path = bearer(world, agent), f"{CALLS}/{attempt.call_ref}"
    answers = (
        world.api.simulate_get(path, headers=headers),
        world.api.simulate_delete(path, headers=headers),
        world.api.simulate_post(f"{path}/hold", headers=headers),
    )
    return [answer.status_code for answer in answers]


def test_agent_token_opens_a_call_that_rings_its_agent(world: World) -> None:
    attempt = Attempt(app="inbound", call_dir="inbound", integrator="acme", extension="1000")
    rung_agents.ask(attempt, [PLAN.read("1000")])
    attempt.ring(["1000"], 1.0)
    assert [statuses(world, attempt, agent) for agent in ("1000", "1001")] == [[200, 202, 202], [404, 404, 404]]
    rung_agents.fared(attempt, [], Bridged(False, 19, timed_out=True))
    rung_agents.ask(attempt, [PLAN.read("1001")])
    attempt.ring(["1001"], 2.0)
    assert [statuses(world, attempt, agent) for agent in ("1000", "1001")] == [[200, 403, 403], [200, 202, 202]]


def test_agent_token_changes_no_call_that_rings_others(world: World) -> None:
    attempt = Attempt(app="inbound", call_dir="inbound", integrator="acme", extension="1000")
    rung_agents.ask(attempt, [PLAN.read("1000"), PLAN.read("1001")])
    attempt.ring(["1000", "1001"], 1.0)
    assert [statuses(world, attempt, agent) for agent in ("1000", "1001")] == [[200, 403, 403], [200, 403, 403]]
    result = world.api.simulate_delete(f"{CALLS}/{attempt.call_ref}", headers=bearer(world, "1001"))
    assert "rings other agents" in result.json["errors"][0]["message"]
    assert world.services.cancelled == []


def test_agent_token_gets_the_refusal_of_the_calls_node(world: World) -> None:
    attempt = placed(world)
    world.services.acting.fails = Undone(403, "agent", "agent 1000 is not in this call now")
    assert statuses(world, attempt, "1000") == [200, 403, 403]
    assert world.services.cancelled == []


def test_agent_token_cancels_a_call_that_ends_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node has it no more, so none answers the one that was asked."""
    attempt, headers = placed(world), bearer(world)

    def fail(_call: dict[str, Any], _agent: str | None) -> None:
        world.end(attempt)
        raise Undone(503, "unavailable", "the call's node doesn't answer")

    monkeypatch.setattr(world.services.acting, "cancel", fail)
    result = world.api.simulate_delete(f"{CALLS}/{attempt.call_ref}", headers=headers)
    assert (result.status_code, result.json["state"]) == (200, "ended")


def test_agent_token_cancels_no_call_of_a_silent_node(world: World) -> None:
    attempt = placed(world)
    world.services.acting.fails = Undone(503, "unavailable", "the call's node doesn't answer")
    result = world.api.simulate_delete(f"{CALLS}/{attempt.call_ref}", headers=bearer(world))
    assert errors(result, 503) == [("", "unavailable")]


def test_agent_token_tells_the_calls_node_its_agent(world: World) -> None:
    attempt = placed(world)
    attempt.enter("bridged", attempt.queued_at)
    statuses(world, attempt, "1000")
    world.api.simulate_post(f"{CALLS}/{attempt.call_ref}/hold")
    assert [action.agent for action in world.services.acting.done] == ["1000", ""]


def test_agent_token_changes_no_call_that_another_answered(world: World) -> None:
    attempt = Attempt(app="inbound", call_dir="inbound", integrator="acme", extension="1000")
    rung_agents.ask(attempt, [PLAN.read("1000"), PLAN.read("1001")])
    attempt.ring(["1000", "1001"], 1.0)
    inbound.agent_answered(attempt, 2.0, Leg("B", user="1001"), lambda *_: None)
    assert [statuses(world, attempt, agent) for agent in ("1000", "1001")] == [[200, 403, 403], [200, 202, 202]]
    assert world.services.cancelled == [attempt.call_ref]
    attempt.end("answered", 16, "agent", 3.0)
    assert statuses(world, attempt, "1000")[:2] == [200, 200]


def test_agent_token_lists_its_agent_alone(world: World) -> None:
    headers = bearer(world)
    assert world.api.simulate_get(CALLS, params={"state": "ended"}, headers=headers).status_code == 200
    assert world.services.store.asked[1] == {"state": "ended", "agent": "1000"}
    result = world.api.simulate_get(CALLS, params={"agent": "1001"}, headers=headers)
    assert errors(result, 403) == [("agent", "agent")]


def test_agent_token_has_only_its_scopes(world: World) -> None:
    headers = bearer(world, scopes=["read"])
    assert errors(place(world, headers), 403) == [("", "scope")]
    assert world.api.simulate_get(CALLS, headers=headers).status_code == 200
    headers = bearer(world, scopes=["call"])
    assert errors(world.api.simulate_get(CALLS, headers=headers), 403) == [("", "scope")]


def test_agent_token_opens_no_route_but_its_own(world: World) -> None:
    """Routes that don't say that they keep to an agent's calls are closed to agents."""
    headers, mine = bearer(world), placed(world)
    closed = []
    for path, methods in world.api.simulate_get("/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            if operation.get("security") == [] or method == "parameters":
                continue
            url = (
                path.replace("{ref}", mine.call_ref)
                .replace("{name}", f"{mine.call_ref}.wav")
                .replace("{agent}", "1000")
            )
            result = world.api.simulate_request(method.upper(), url, headers=headers, json={})
            opened = any(scope.endswith(":agent") for scope in operation.get("x-scopes", []))
            if not opened:
                closed.append((path, method, result.status_code))
    assert closed
    assert {status for _path, _method, status in closed} <= {403, 404}


def test_agent_token_expires(world: World, now: list[float]) -> None:
    headers = bearer(world, expires_in=60)
    now[0] += 59.9
    assert place(world, headers).status_code == 202
    now[0] += 0.1
    assert errors(place(world, headers), 401) == [("", "expired")]
    assert errors(world.api.simulate_get(CALLS, headers=headers), 401) == [("", "expired")]
    assert world.services.counted[-1] == 401


def test_agent_token_ends_with_its_issuer(world: World) -> None:
    headers = bearer(world)
    world.configure(integrators={"token_hash": "sha256:" + "5" * 64})
    assert errors(place(world, headers), 401) == [("", "unauthorized")]


def test_agent_token_ends_with_the_pin_key(world: World) -> None:
    headers = bearer(world)
    policy = world.services.policy
    world.services.policies.now = policy.__class__(**{**vars(policy), "config": _with_pin_key(policy.config)})
    assert errors(place(world, headers), 401) == [("", "unauthorized")]


def _with_pin_key(config: Any) -> Any:
    return msgspec.structs.replace(config, pin_key="another-key-for-tests")


# The signature ---------------------------------------------------------------------------------------------


def test_agent_token_of_a_narrower_issuer_loses_scopes() -> None:
    token = AgentTokens("acme", [FULL], "k").issue(FULL, "1000", ["call", "read"], 100)
    narrow = Token(FULL.digest, frozenset({"read"}), "acme")
    read = AgentTokens("acme", [READER, narrow], "k").read(token)
    assert read is not None
    assert (read.token.agent, read.token.scopes, read.expires) == ("1000", frozenset({"read:agent"}), 100)


@pytest.mark.parametrize(
    "other", [AgentTokens("acme", [READER], "k"), AgentTokens("other", [FULL], "k"), AgentTokens("acme", [FULL], "")]
)
def test_agent_token_of_another_key_is_unknown(other: AgentTokens) -> None:
    token = AgentTokens("acme", [FULL], "k").issue(FULL, "1000", ["call"], 100)
    assert AgentTokens("acme", [READER, FULL], "k").read(token) is not None
    assert other.read(token) is None


def test_agent_token_changed_in_any_character_is_unknown() -> None:
    tokens = AgentTokens("acme", [FULL], "k")
    token = tokens.issue(FULL, "1000", ["call"], 100)
    # The last character of a signature has two bits that count for nothing, but they are compared all the same.
    for i in range(len(token)):
        for char in "Aé.":
            if token[i] != char:
                assert tokens.read(token[:i] + char + token[i + 1 :]) is None
    assert tokens.read(token + "A") is None
    assert tokens.read(token + "=" * 1000) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'["1000",100,["call"],1]', b'["1000","100",["call"]]'])
def test_agent_token_in_another_form_is_unknown(content: bytes) -> None:
    tokens = AgentTokens("acme", [FULL], "k")
    text = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
    ((_issuer, key),) = tokens._keys
    assert tokens.read(f"agent.{text}.{agent_tokens._signature(key, text)}") is None
    good = base64.urlsafe_b64encode(json.dumps(["1000", 100, ["call", "later"]]).encode()).rstrip(b"=").decode()
    read = tokens.read(f"agent.{good}.{agent_tokens._signature(key, good)}")
    assert read is not None
    assert read.token.scopes == frozenset({"call:agent"})

"""Click-to-dial over HTTP: every answer of an integrator's port, except for recordings."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from esl_apps.config.tokens import hash_token
from esl_apps.core import call_options
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_options import OPTIONS
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http import calls_port
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import Full
from esl_apps.node.outgoing import Spent
from esl_apps.store.errors import NoAnswer, refusal
from tests.support.http_services import BOOT, World, errors

CALLS = "/click2dial/calls"
ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
DOWN = StoreUnavailable("connection refused")
#: A reference from 2024, which no call has.
OLD = "01900000-0000-7000-8000-000000000000"


def post(world: World, order: object = ORDER, **headers: str) -> Any:
    return world.api.simulate_post(CALLS, json=order, headers={k.replace("_", "-"): v for k, v in headers.items()})


def placed(world: World) -> Attempt:
    result = post(world)
    assert result.status_code == 202
    attempt: Attempt = world.outgoing.placed[-1]
    return attempt


# POST /click2dial/calls -----------------------------------------------------------------------------------


def test_create_call_is_202_with_its_location(world: World) -> None:
    result = post(world, {**ORDER, "contact_ref": "lead-7"})
    (attempt,) = world.outgoing.placed
    assert result.status_code == 202
    assert result.json == {"call_ref": attempt.call_ref, "contact_ref": "lead-7", "state": "queued"}
    assert result.headers["location"] == f"{CALLS}/{attempt.call_ref}"
    assert (attempt.extension, attempt.number) == ("1000", "0820001234")


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, ("", "not_json")),
        (b"{", 400, ("", "not_json")),
        (b'{"agent": "\xff"}', 400, ("", "not_json")),
        (b"[" * 60000, 400, ("", "not_json")),
        (b"[]", 422, ("", "type")),
        (b"null", 422, ("", "type")),
        (b" " * 65537, 413, ("", "too_large")),
    ],
    ids=["empty", "begun", "not UTF-8", "deep", "list", "null", "large"],
)
def test_create_call_without_a_json_object_is_refused(
    world: World, body: bytes, status: int, error: tuple[str, str]
) -> None:
    result = world.api.simulate_post(CALLS, body=body, content_type="application/json")
    assert errors(result, status) == [error]
    assert world.outgoing.placed == []


@pytest.mark.parametrize("query", ["", "?dry_run=1"])
def test_create_call_with_thousands_of_fields_is_refused(world: World, query: str) -> None:
    """A dry run that named each of 5,400 took 320 ms, in which the node did nothing else."""
    body = {**ORDER, **{str(number): 1 for number in range(5000)}}
    result = world.api.simulate_post(CALLS + query, json=body)
    assert errors(result, 422) == [("", "too_many")]
    assert len(result.text) < 1000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_create_call_with_another_media_type_is_415(world: World, kind: str) -> None:
    result = world.api.simulate_post(CALLS, body=b"{}", content_type=kind)
    assert errors(result, 415) == [("", "media_type")]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/hal+json"])
def test_create_call_with_any_json_media_type_is_read(world: World, kind: str) -> None:
    assert errors(world.api.simulate_post(CALLS, body=b"{}", content_type=kind), 422)


def test_create_call_after_a_byte_order_mark_is_read(world: World) -> None:
    data = json.dumps(ORDER).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}
    results = [world.api.simulate_post(CALLS, body=body, headers=headers) for body in (b"\xef\xbb\xbf" + data, data)]
    assert [result.status_code for result in results] == [202, 202]
    assert len(world.outgoing.placed) == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_create_call_with_a_wrong_option_dials_nothing(world: World, name: str) -> None:
    assert errors(post(world, {**ORDER, name: [1]}), 422) == [(name, "value")]
    assert world.outgoing.placed == []


def test_create_call_carries_metadata_to_its_status(world: World) -> None:
    metadata = {"crm.lead": "7 \u00e9\u0000\r\n\u202e"}
    ref = post(world, {**ORDER, "metadata": metadata}).json["call_ref"]
    assert world.api.simulate_get(f"{CALLS}/{ref}").json["metadata"] == metadata


def test_create_call_names_every_wrong_field(world: World) -> None:
    result = post(world, {"agent": "1", "callee": 5, "colour": "red"})
    assert sorted(errors(result, 422)) == [
        ("agent", "pattern"),
        ("callee", "type"),
        ("colour", "unknown"),
        ("outbound_id", "required"),
    ]
    assert world.services.counted == [422]
    assert world.outgoing.placed == []


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (Full("this node is full"), 503, ("", "unavailable"), "5"),
        (StoreUnavailable("redis: refused"), 503, ("", "unavailable"), "5"),
        (Spent(Refusal("calls_per_hour", "integrator:acme")), 429, ("limits", "limit_reached"), "60"),
        (Spent(Refusal(BREAKER, "system")), 503, ("limits", "breaker"), "60"),
    ],
)
def test_create_call_that_cannot_be_placed_has_retry_after(
    world: World, error: Exception, status: int, code: tuple[str, str], retry: str
) -> None:
    world.outgoing.fails = error
    result = post(world)
    assert errors(result, status) == [code]
    assert result.headers["retry-after"] == retry
    assert world.services.counted == [status]
    # The client doesn't need to know whose limit it is, or why Redis is down.
    assert not any(word in result.text for word in ("acme", "system", "refused"))


# Idempotency ----------------------------------------------------------------------------------------------


def test_create_call_with_the_same_key_returns_the_same_call(world: World) -> None:
    first, again = (post(world, Idempotency_Key="k") for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json == again.json
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.outgoing.placed) == 1


def test_create_call_with_the_key_of_an_ended_call_returns_it(world: World) -> None:
    first = post(world, Idempotency_Key="k")
    world.end(world.outgoing.placed[0])
    again = post(world, Idempotency_Key="k")
    assert (again.status_code, again.json["call_ref"]) == (202, first.json["call_ref"])
    assert again.json["state"] == "ended"


def test_create_call_with_the_key_of_another_body_is_409(world: World) -> None:
    post(world, Idempotency_Key="k")
    result = post(world, {**ORDER, "callee": "0820009999"}, Idempotency_Key="k")
    assert errors(result, 409) == [("Idempotency-Key", "key_reused")]


def claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request take the key "k" and not place its call yet."""
    monkeypatch.setattr(calls_port, "_YOUNG", 0)
    world.outgoing.fails = Full("full")
    monkeypatch.setattr(world.services.store, "release", lambda *_args: None)
    assert post(world, Idempotency_Key="k").status_code == 503
    world.outgoing.fails = None


def test_create_call_with_the_key_of_a_running_request_is_409(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed(world, monkeypatch)
    assert errors(post(world, Idempotency_Key="k"), 409) == [("Idempotency-Key", "in_progress")]
    assert world.outgoing.placed == []


def test_create_call_with_the_key_of_a_dead_process_dials(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed(world, monkeypatch)
    world.services.dead.add(BOOT)
    assert post(world, Idempotency_Key="k").status_code == 202
    assert len(world.outgoing.placed) == 1


def test_create_call_with_a_key_left_behind_dials(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request was refused, and Redis was away when its key should have been released."""
    claimed(world, monkeypatch)
    world.services.store.claimed_for = 59.0
    assert errors(post(world, Idempotency_Key="k"), 409) == [("Idempotency-Key", "in_progress")]
    world.services.store.claimed_for = 61.0
    world.services.membership.is_current = False
    assert post(world, Idempotency_Key="k").status_code == 409
    world.services.membership.is_current = True
    assert post(world, Idempotency_Key="k").status_code == 202
    assert len(world.outgoing.placed) == 1


def test_create_call_whose_key_others_may_take_asks_redis(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes too long must not dial what another has dialled."""
    now = [100.0]
    monkeypatch.setattr(calls_port, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    world.services.membership.held_since = lambda _at: True
    claims: list[DialClaim] = []
    place = world.outgoing.click2dial

    def click2dial(*args: Any) -> Attempt:
        claims.append(args[3])
        attempt: Attempt = place(*args)
        return attempt

    monkeypatch.setattr(world.outgoing, "click2dial", click2dial)
    post(world, Idempotency_Key="k")
    monkeypatch.setattr(world.services.store, "holds", lambda *_args: False, raising=False)
    now[0] += 29.0
    assert not claims[0].is_lost()
    now[0] += 2.0
    assert claims[0].is_lost()


def test_create_call_that_is_refused_releases_its_key(world: World) -> None:
    world.outgoing.fails = Full("full")
    assert post(world, Idempotency_Key="k").status_code == 503
    assert world.services.store.released == ["k"]
    world.outgoing.fails = None
    assert post(world, Idempotency_Key="k").status_code == 202


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 201])
def test_create_call_with_an_invalid_key_is_422(world: World, key: str) -> None:
    assert errors(post(world, Idempotency_Key=key), 422) == [("Idempotency-Key", "pattern")]
    headers = {"Idempotency-Key": key}
    dry = world.api.simulate_post(CALLS, params={"dry_run": "1"}, json=ORDER, headers=headers)
    assert errors(dry, 422) == [("Idempotency-Key", "pattern")]
    assert world.outgoing.placed == []


def test_create_call_with_a_key_and_redis_down_is_503(world: World) -> None:
    world.services.store.fails = DOWN
    result = post(world, Idempotency_Key="k")
    assert errors(result, 503) == [("", "unavailable")]
    assert result.headers["retry-after"] == "5"
    assert world.outgoing.placed == []


# Dry run --------------------------------------------------------------------------------------------------


def dry_run(world: World, order: object = ORDER) -> dict[str, tuple[bool, str]]:
    """Return the verdict and the message of each check."""
    result = world.api.simulate_post(CALLS, params={"dry_run": "1"}, json=order)
    assert result.status_code == 200, result.text
    assert result.json["dry_run"] is True
    checks = {check["check"]: (check["ok"], check["message"]) for check in result.json["checks"]}
    assert result.json["ok"] is all(passed for passed, _message in checks.values())
    assert world.outgoing.placed == []
    return checks


def test_dry_run_passes_every_check(world: World) -> None:
    names = {"agent", "callee", "outbound_id", "contact_ref", "limits", "breaker", "ready"}
    assert dry_run(world) == dict.fromkeys(names, (True, "ok"))


def test_dry_run_checks_each_option_that_is_given(world: World) -> None:
    wrong = {name: [1] for name in OPTIONS}
    checks = dry_run(world, {**ORDER, **wrong})
    assert all(checks[name] == (False, f"expected {call_options.expected(name)}") for name in OPTIONS)
    assert dry_run(world, {**ORDER, "agent_timeout": 5})["agent_timeout"] == (True, "ok")


def test_dry_run_of_a_wrong_order_fails_its_fields(world: World) -> None:
    checks = dry_run(world, {**ORDER, "callee": "112345678901234567890", "colour": "red"})
    assert {name for name, (passed, _message) in checks.items() if not passed} == {"callee", "colour"}
    # The limits are checked nevertheless.
    assert len(world.services.charged) == 1


@pytest.mark.parametrize(
    ("spent", "limits", "breaker"),
    [
        (Refusal("calls_per_day", "system"), (False, "calls_per_day is reached"), (True, "ok")),
        (Refusal(BREAKER, "system"), (True, "ok"), (False, "the breaker has tripped")),
        (NoAnswer("x"), (False, "redis: no answer"), None),
        (refusal("WRONGTYPE x"), (False, "redis: WRONGTYPE, a key is of another type"), None),
    ],
)
def test_dry_run_past_a_limit_fails_that_check(
    world: World, spent: Refusal | Exception, limits: tuple[bool, str], breaker: tuple[bool, str] | None
) -> None:
    world.services.spent = spent
    checks = dry_run(world)
    assert (checks["limits"], checks.get("breaker")) == (limits, breaker)


def test_dry_run_on_a_draining_node_fails_ready(world: World) -> None:
    world.services.reasons += ["draining", "redis: no answer"]
    assert dry_run(world)["ready"] == (False, "draining; redis: no answer")


def test_dry_run_with_a_wrong_value_is_422(world: World) -> None:
    result = world.api.simulate_post(CALLS, params={"dry_run": "perhaps"}, json=ORDER)
    assert errors(result, 422) == [("dry_run", "value")]
    assert world.api.simulate_post(CALLS, params={"dry_run": "0"}, json=ORDER).status_code == 202


# GET /click2dial/calls ------------------------------------------------------------------------------------


def test_list_calls_asks_the_store_for_a_page(world: World) -> None:
    for _ in range(3):
        world.end(placed(world))
    query = {"limit": "2", "state": "ended", "agent": "1000", "before": OLD}
    result = world.api.simulate_get(CALLS, params=query)
    assert world.services.store.asked == ("acme", {"state": "ended", "agent": "1000"}, 2, OLD)
    refs = [call["call_ref"] for call in result.json["calls"]]
    assert refs == [attempt.call_ref for attempt in world.outgoing.placed[:2]]
    assert result.json["next"] == refs[-1]


def test_list_calls_filters_by_pairs_of_the_metadata(world: World) -> None:
    query = {"metadata.lead": "7", "metadata.Lead": "8"}
    assert world.api.simulate_get(CALLS, params=query).status_code == 200
    assert world.services.store.asked[1] == query


@pytest.mark.parametrize("name", ["metadata", "metadatax.lead", "agent.NAME", "NAME"])
def test_list_calls_with_an_unknown_filter_is_422(world: World, name: str) -> None:
    assert errors(world.api.simulate_get(CALLS, params={name: "7"}), 422) == [(name, "unknown")]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"state": "rings"}, "state"),
        ({"before": "x"}, "before"),
    ],
)
def test_list_calls_with_a_wrong_parameter_is_422(world: World, query: dict[str, str], field: str) -> None:
    assert errors(world.api.simulate_get(CALLS, params=query), 422) == [(field, "value")]


def test_list_calls_with_redis_down_is_503(world: World) -> None:
    world.services.store.fails = DOWN
    assert errors(world.api.simulate_get(CALLS), 503) == [("", "unavailable")]


# One call -------------------------------------------------------------------------------------------------


def test_get_call_shows_a_live_call_without_redis(world: World) -> None:
    attempt = placed(world)
    world.services.store.fails = DOWN
    result = world.api.simulate_get(f"{CALLS}/{attempt.call_ref}")
    assert (result.status_code, result.json["state"], result.json["agent"]) == (200, "queued", "1000")
    assert "record" not in result.json


def test_get_call_shows_the_record_of_an_ended_call(world: World) -> None:
    attempt = placed(world)
    world.end(attempt)
    result = world.api.simulate_get(f"{CALLS}/{attempt.call_ref}")
    assert result.json["record"]["end_reason"] == "cancelled"


@pytest.mark.parametrize("ref", ["x", "*", OLD, OLD.upper(), f"{OLD}%0A", "a" * 5000])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_call_that_does_not_exist_is_404(world: World, method: str, ref: str) -> None:
    assert errors(world.api.simulate_request(method, f"{CALLS}/{ref}"), 404) == [("", "not_found")]


def test_call_of_another_integrator_is_404(world: World) -> None:
    attempt = placed(world)
    attempt.integrator = "beta"
    for method in ("GET", "DELETE"):
        result = world.api.simulate_request(method, f"{CALLS}/{attempt.call_ref}")
        assert errors(result, 404) == [("", "not_found")]
    assert world.services.cancelled == []


def test_get_call_with_redis_down_is_503(world: World) -> None:
    world.services.store.fails = DOWN
    assert errors(world.api.simulate_get(f"{CALLS}/{OLD}"), 503) == [("", "unavailable")]


def test_get_call_waits_for_a_new_call_of_another_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = placed(world)
    world.end(attempt)
    late = world.services.store.saved.pop(attempt.call_ref)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            world.services.store.saved[attempt.call_ref] = late

    monkeypatch.setattr(gevent, "sleep", sleep)
    assert world.api.simulate_get(f"{CALLS}/{attempt.call_ref}").status_code == 200
    assert slept == [0.05] * 3
    slept.clear()
    assert world.api.simulate_get(f"{CALLS}/{new_ref()}").status_code == 404
    assert sum(slept) < 0.5


def test_cancel_call_ends_a_live_call(world: World) -> None:
    attempt = placed(world)
    result = world.api.simulate_delete(f"{CALLS}/{attempt.call_ref}")
    assert (result.status_code, result.json["call_ref"]) == (202, attempt.call_ref)
    assert world.services.cancelled == [attempt.call_ref]


def test_cancel_call_that_has_ended_returns_its_record(world: World) -> None:
    attempt = placed(world)
    world.end(attempt)
    result = world.api.simulate_delete(f"{CALLS}/{attempt.call_ref}")
    assert (result.status_code, result.json["record"]["end_reason"]) == (200, "cancelled")
    assert world.services.cancelled == []


# GET /call.php --------------------------------------------------------------------------------------------

LISTED, STRANGER = "198.51.100.7", "203.0.113.7"


def legacy(world: World, address: str, token: str = "", **changes: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    return world.api.simulate_get(
        "/call.php", params={**ORDER, "call_ref": "lead-7", **changes}, headers=headers, remote_addr=address
    )


def test_legacy_from_a_listed_address_needs_no_token(world: World) -> None:
    result = legacy(world, LISTED)
    assert (result.status_code, result.json["contact_ref"]) == (202, "lead-7")
    assert result.headers["location"] == f"{CALLS}/{result.json['call_ref']}"


def test_legacy_from_another_address_needs_the_token(world: World) -> None:
    assert errors(legacy(world, STRANGER, "wrong"), 401) == [("", "unauthorized")]
    assert legacy(world, STRANGER, "the-integrators-token").status_code == 202


def test_legacy_with_a_wrong_field_is_422(world: World) -> None:
    assert errors(legacy(world, LISTED, callee="x"), 422) == [("callee", "pattern")]
    assert errors(legacy(world, LISTED, agent=["1000", "1001"]), 422) == [("agent", "value")]


def test_legacy_with_an_idempotency_key_is_422(world: World) -> None:
    """It keeps none, so a repeated request would dial twice."""
    headers = {"Idempotency-Key": "one"}
    result = world.api.simulate_get("/call.php", params=ORDER, headers=headers, remote_addr=LISTED)
    assert errors(result, 422) == [("Idempotency-Key", "unknown")]
    assert world.outgoing.placed == []


def test_legacy_is_404_unless_it_is_configured(world: World) -> None:
    world.configure(integrators={"legacy_get": None})
    assert errors(legacy(world, LISTED), 404) == [("", "not_found")]


# Tokens and the description -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", CALLS), ("GET", CALLS), ("GET", f"{CALLS}/{OLD}"), ("DELETE", f"{CALLS}/{OLD}")],
)
def test_route_with_a_wrong_token_is_401(world: World, method: str, path: str) -> None:
    result = world.api.simulate_request(method, path, headers={"Authorization": "Bearer wrong"})
    assert errors(result, 401) == [("", "unauthorized")]
    assert result.headers["www-authenticate"] == "Bearer"


def test_route_with_a_token_without_its_scope_is_403(world: World) -> None:
    headers = {"Authorization": "Bearer the-wallboards-token"}
    assert world.api.simulate_get(CALLS, headers=headers).status_code == 200
    assert errors(world.api.simulate_post(CALLS, json=ORDER, headers=headers), 403) == [("", "scope")]


def test_route_after_a_reload_knows_the_new_token_only(world: World) -> None:
    assert world.api.simulate_get(CALLS).status_code == 200
    world.configure(integrators={"token_hash": hash_token("another-token")})
    assert world.api.simulate_get(CALLS).status_code == 401


def test_description_has_this_integrators_patterns(world: World) -> None:
    document = world.api.simulate_get("/openapi.json").json
    order = document["components"]["schemas"]["Order"]["properties"]
    client = world.services.policy.clients["acme"]
    assert order["contact_ref"]["pattern"] == f"^(?:{client.patterns['contact_ref']})$"
    # Numbers are read as people write them, so their patterns are not those of the texts.
    assert all(client.expected(field) in order[field]["description"] for field in ("agent", "callee", "outbound_id"))

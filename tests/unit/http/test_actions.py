"""Actions on a live call over HTTP: what is read, and each answer."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core.actions import UNKNOWN, Action, Undone
from esl_apps.store.errors import NoAnswer
from esl_apps.store.idempotency import DONE, Claim
from tests.support.http_services import BOOT, World, errors

ORDER = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
#: A consultation, and the call in which two parties are joined.
ASKED, JOINED = "01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"
#: A right body of each action.
BODIES: dict[str, Any] = {
    "hold": None,
    "resume": None,
    "mute": {"party": "agent"},
    "unmute": {"party": "callee"},
    "digits": {"to": "callee", "digits": "12#"},
    "record": {"action": "pause"},
    "transfer": {"to": "1001", "mode": "consult"},
    "transfer/complete": None,
    "transfer/cancel": None,
}


def call(world: World) -> str:
    return str(world.api.simulate_post("/click2dial/calls", json=ORDER).json["call_ref"])


def act(world: World, ref: str, name: str, body: Any = None, **headers: str) -> Any:
    more = {} if body is None else {"json": body}
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return world.api.simulate_post(f"/click2dial/calls/{ref}/{name}", headers=sent, **more)


@pytest.mark.parametrize("name", BODIES)
def test_action_is_202_with_the_calls_state(world: World, name: str) -> None:
    ref = call(world)
    result = act(world, ref, name, BODIES[name])
    assert result.status_code == 202, result.text
    assert result.json == {"call_ref": ref, "state": "queued", "held": False, "muted": [], "recording": "off"}
    assert [action.name for action in world.services.acting.done] == [name]


def test_action_parts_are_those_of_the_body(world: World) -> None:
    ref = call(world)
    for name in ("unmute", "digits", "record"):
        act(world, ref, name, BODIES[name])
    assert world.services.acting.done == [
        Action("unmute", party="callee"),
        Action("digits", party="callee", digits="12#"),
        Action("record", step="pause"),
    ]


@pytest.mark.parametrize("mode", ["blind", "consult"])
def test_transfer_passes_its_mode_on(world: World, mode: str) -> None:
    act(world, call(world), "transfer", {"to": "1001", "mode": mode})
    assert world.services.acting.done == [Action("transfer", to="1001", by="agent", mode=mode)]


def dry_transfer(world: World, body: object) -> dict[str, tuple[bool, str]]:
    result = world.api.simulate_post(f"/click2dial/calls/{call(world)}/transfer", params={"dry_run": "1"}, json=body)
    assert result.status_code == 200, result.text
    assert world.services.acting.done == []
    return {check["check"]: (check["ok"], check["message"]) for check in result.json["checks"]}


def test_transfer_dry_run_says_what_is_wrong(world: World) -> None:
    checks = dry_transfer(world, {"to": "0900123456", "mode": "attended"})
    assert checks["mode"] == (False, "expected one of blind, consult")
    assert checks["state"] == (False, "the call is queued; expected bridged")
    assert not dry_transfer(world, {"to": "0900123456"})["to"][0]


def test_transfer_names_every_wrong_field(world: World) -> None:
    body = {"to": "0900123456", "mode": "attended", "by": "both", "colour": "red"}
    wrong = {"to", "mode", "by", "colour"}
    assert {field for field, _code in errors(act(world, call(world), "transfer", body), 422)} == wrong
    assert {name for name, (ok, _message) in dry_transfer(world, body).items() if not ok} == {*wrong, "state"}


def test_transfer_dry_run_passes_a_good_target(world: World) -> None:
    checks = dry_transfer(world, {"to": "1001", "mode": "consult"})
    assert [name for name, (ok, _message) in checks.items() if not ok] == ["state"]


def test_transfer_dry_run_of_an_unknown_call_is_404(world: World) -> None:
    path = "/click2dial/calls/01a2004f-0618-7326-8e79-3050ef6dfc2c/transfer"
    assert world.api.simulate_post(path, params={"dry_run": "1"}, json={"to": "1001"}).status_code == 404


@pytest.mark.parametrize(
    ("name", "body", "wrong"),
    [
        ("hold", {"party": "agent"}, [("party", "unknown")]),
        ("mute", {}, [("party", "required")]),
        ("mute", {"party": "api"}, [("party", "value")]),
        ("mute", {"party": ["agent"]}, [("party", "value")]),
        ("digits", {"to": "callee", "digits": ""}, [("digits", "value")]),
        ("digits", {"to": "callee", "digits": "1 2"}, [("digits", "value")]),
        ("digits", {"to": "callee", "digits": "1@9000"}, [("digits", "value")]),
        ("digits", {"to": "callee", "digits": "1\nhupall"}, [("digits", "value")]),
        ("digits", {"to": "callee", "digits": "\u0661"}, [("digits", "value")]),
        ("digits", {"to": "callee", "digits": "1" * 65}, [("digits", "value")]),
        ("digits", {"digits": 5, "x": 1}, [("digits", "value"), ("to", "required"), ("x", "unknown")]),
        ("record", {"action": "delete"}, [("action", "value")]),
    ],
)
def test_action_names_every_wrong_field(world: World, name: str, body: Any, wrong: list[tuple[str, str]]) -> None:
    assert sorted(errors(act(world, call(world), name, body), 422)) == wrong
    assert world.services.acting.done == []


def test_action_on_an_unknown_call_is_404(world: World) -> None:
    assert errors(act(world, "01900000-0000-7000-8000-000000000000", "hold"), 404) == [("", "not_found")]


def test_action_not_possible_now_is_409_with_the_state(world: World) -> None:
    ref = call(world)
    world.services.acting.fails = Undone(409, "state", "not connected", state="callee_ringing")
    result = act(world, ref, "hold")
    assert result.status_code == 409
    assert result.json == {
        "errors": [{"field": "", "code": "state", "message": "not connected", "state": "callee_ringing"}]
    }


def test_action_whose_node_is_silent_is_503(world: World) -> None:
    ref = call(world)
    world.services.acting.fails = Undone(503, "unavailable", "its node doesn't answer")
    result = act(world, ref, "hold")
    assert errors(result, 503) == [("", "unavailable")]
    assert result.headers["retry-after"] == "5"


def test_action_repeated_with_its_key_is_done_once(world: World) -> None:
    ref = call(world)
    results = [act(world, ref, "digits", BODIES["digits"], Idempotency_Key="k") for _ in range(2)]
    assert [result.status_code for result in results] == [202, 202]
    assert results[0].json == results[1].json
    assert len(world.services.acting.done) == 1


@pytest.mark.parametrize("later", [{}, {"consultation": JOINED}, {"transferred_to": JOINED}])
def test_transfer_repeated_with_its_key_has_its_reference(world: World, later: dict[str, str]) -> None:
    """Its consultation may have been cancelled, followed by another one, or completed."""
    ref = call(world)
    attempt = world.services.calls.live[ref].attempt
    attempt.consultation = ASKED
    first = act(world, ref, "transfer", BODIES["transfer"], Idempotency_Key="k")
    assert first.json["transfer_ref"] == ASKED
    attempt.consultation = None
    attempt.set(later)
    if attempt.transferred_to:
        world.end(attempt)
    again = act(world, ref, "transfer", BODIES["transfer"], Idempotency_Key="k")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json["transfer_ref"] == ASKED


@pytest.mark.parametrize("later", [{"consultation": ASKED}, {"transferred_to": ASKED}])
def test_transfer_done_by_an_earlier_node_has_a_reference(world: World, later: dict[str, str]) -> None:
    """Its claim has none. The call's present one is the best guess."""
    ref = call(world)
    act(world, ref, "transfer", BODIES["transfer"], Idempotency_Key="k")
    claims = world.services.idempotency.claims
    ((name, claim),) = [(name, claim) for name, claim in claims.items() if claim.outcome == DONE]
    claims[name] = Claim(claim.body, claim.call_ref, claim.boot, DONE)
    attempt = world.services.calls.live[ref].attempt
    attempt.set(later)
    if attempt.transferred_to:
        world.end(attempt)
    again = act(world, ref, "transfer", BODIES["transfer"], Idempotency_Key="k")
    assert (again.status_code, again.json["transfer_ref"]) == (202, ASKED)


def test_action_repeated_during_a_consultation_names_none(world: World) -> None:
    ref = call(world)
    act(world, ref, "mute", BODIES["mute"], Idempotency_Key="k")
    world.services.calls.live[ref].attempt.consultation = ASKED
    assert "transfer_ref" not in act(world, ref, "mute", BODIES["mute"], Idempotency_Key="k").json


def test_action_with_the_key_of_another_request_is_409(world: World) -> None:
    ref = call(world)
    act(world, ref, "digits", BODIES["digits"], Idempotency_Key="k")
    other = act(world, ref, "mute", BODIES["mute"], Idempotency_Key="k")
    assert errors(other, 409) == [("Idempotency-Key", "key_reused")]
    assert errors(act(world, ref, "hold", Idempotency_Key="a b"), 422) == [("Idempotency-Key", "pattern")]


def test_action_that_was_not_done_frees_its_key(world: World) -> None:
    ref = call(world)
    world.services.acting.fails = Undone(409, "state", "not connected", state="queued")
    act(world, ref, "hold", Idempotency_Key="k")
    world.services.acting.fails = None
    assert act(world, ref, "hold", Idempotency_Key="k").status_code == 202


@pytest.mark.parametrize("error", [Undone(503, UNKNOWN, "no answer"), NoAnswer(), ValueError()])
def test_action_that_may_have_been_done_keeps_its_key(world: World, error: Exception) -> None:
    """Digits would be sent twice. Other actions change nothing the second time."""
    ref = call(world)
    for name, key in (("digits", "d"), ("hold", "h")):
        world.services.acting.fails = error
        assert act(world, ref, name, BODIES.get(name), Idempotency_Key=key).status_code in (500, 503)
        world.services.acting.fails = None
        again = act(world, ref, name, BODIES.get(name), Idempotency_Key=key)
        assert "idempotent-replayed" not in again.headers
        assert again.status_code == 202 if name == "hold" else errors(again, 503) == [("", UNKNOWN)]
    assert [action.name for action in world.services.acting.done] == ["hold"]


@pytest.mark.parametrize("name", BODIES)
def test_action_whose_first_request_runs_is_409(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ref, repeated = call(world), []

    def act_slowly(_call: dict[str, Any], _action: Action) -> None:
        repeated.append(act(world, ref, name, BODIES[name], Idempotency_Key="k"))
        raise Undone(503, "unavailable", "the call's node doesn't answer")

    with monkeypatch.context() as slow:
        slow.setattr(world.services.acting, "act", act_slowly)
        assert act(world, ref, name, BODIES[name], Idempotency_Key="k").status_code == 503
    assert errors(repeated[0], 409) == [("Idempotency-Key", "in_progress")]
    assert repeated[0].headers["retry-after"] == "1"
    assert world.services.acting.done == []
    assert act(world, ref, name, BODIES[name], Idempotency_Key="k").status_code == 202


@pytest.mark.parametrize("name", BODIES)
def test_action_whose_node_was_killed_is_done_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whether it had sent digits isn't known."""
    ref = call(world)

    def kill(_call: dict[str, Any], _action: Action) -> None:
        raise SystemExit

    with monkeypatch.context() as killed:
        killed.setattr(world.services.acting, "act", kill)
        with pytest.raises(SystemExit):
            act(world, ref, name, BODIES[name], Idempotency_Key="k")
    assert act(world, ref, name, BODIES[name], Idempotency_Key="k").status_code == 409
    world.services.dead.add(BOOT)
    after = act(world, ref, name, BODIES[name], Idempotency_Key="k")
    assert "idempotent-replayed" not in after.headers
    if name == "digits":
        assert errors(after, 503) == [("", UNKNOWN)]
        assert world.services.acting.done == []
    else:
        assert after.status_code == 202
        assert len(world.services.acting.done) == 1
        replayed = act(world, ref, name, BODIES[name], Idempotency_Key="k")
        assert (replayed.status_code, replayed.headers["idempotent-replayed"]) == (202, "true")


def test_digits_that_could_not_be_sent_free_their_key(world: World) -> None:
    ref = call(world)
    world.services.acting.fails = Undone(503, "unavailable", "this node isn't connected to the call's switch")
    assert act(world, ref, "digits", BODIES["digits"], Idempotency_Key="k").status_code == 503
    world.services.acting.fails = None
    assert "idempotent-replayed" not in act(world, ref, "digits", BODIES["digits"], Idempotency_Key="k").headers


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k"}])
def test_action_on_a_call_that_ends_meanwhile_is_409(
    world: World, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Its node has it no more, so none answers the one that was asked."""
    ref = call(world)
    attempt = world.services.calls.live[ref].attempt

    def fail(asked: dict[str, Any], _action: Action) -> None:
        if asked["state"] == "ended":
            raise Undone(409, "state", "the call has ended", state="ended")
        attempt.end("answered", 16, "agent", attempt.queued_at + 1)
        world.end(attempt)
        raise Undone(503, "unavailable", "the call's node doesn't answer")

    monkeypatch.setattr(world.services.acting, "act", fail)
    result = act(world, ref, "hold", **headers)
    assert errors(result, 409) == [("", "state")]
    assert result.json["errors"][0]["state"] == "ended"


def test_action_takes_the_scope_call(world: World) -> None:
    ref = call(world)
    result = act(world, ref, "hold", Authorization="Bearer the-wallboards-token")
    assert errors(result, 403) == [("", "scope")]

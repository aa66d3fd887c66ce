"""Notifications that are due to an integrator, and sessions that are not closed."""

from __future__ import annotations

from typing import Any

from tests.chaos.accounts import DOUBLED, MISSING, WRONG
from tests.chaos.notified import Notified
from tests.chaos.witness import Leg


def leg(ref: str, account: str = "") -> Leg:
    variables = {"esl_call_ref": ref} | ({"esl_account_id": account} if account else {})
    return Leg(
        uuid=f"leg-{ref}", direction="outbound", number="", caller="", created=0.0, ringing=None, answered=None,
        bridged=None, ended=1.0, cause="", q850=16, ended_by=None, other=None, variables=variables, applications=[],
    )  # fmt: skip


def record(ref: str, app: str, session: str = "") -> dict[str, Any]:
    return {"call_ref": ref, "ref": app, "session_ref": session or ref}


def test_due_is_all_but_callers_without_a_card() -> None:
    records = [record("a", "click-dial"), record("b", "disa"), record("c", "dialthrough"), record("d", "dialthrough")]
    found = Notified(records, [{"session_ref": "b"}], [{"call_ref": "i"}])
    legs = [leg("a"), leg("c"), leg("d", "acme"), leg("gone", "acme")]
    assert found.due(legs) == {("cdr", "a"), ("cdr", "b"), ("cdr", "d"), ("session", "b"), ("call", "i")}
    found.streamed = {("cdr", "c")}
    assert ("cdr", "c") in found.due(legs)


def kinds(records: list[dict[str, Any]], *sessions: tuple[str, int]) -> list[str]:
    found = Notified(records, [{"session_ref": ref, "calls": calls} for ref, calls in sessions])
    return [one.kind for one in found.compare_sessions({("cdr", one["call_ref"]) for one in records})]


def test_session_that_is_not_closed_once_is_found() -> None:
    records = [record("a", "disa", "a"), record("b", "disa", "a")]
    assert kinds(records, ("a", 2)) == []
    assert kinds(records) == [MISSING]
    assert kinds(records, ("a", 1)) == [WRONG]
    assert kinds(records, ("a", 2), ("a", 2)) == [DOUBLED]
    assert kinds([], ("a", 1)) == [WRONG]
    assert list(Notified(records, [{"session_ref": "a", "calls": 1}]).compare_sessions(set(), {"a"})) == []

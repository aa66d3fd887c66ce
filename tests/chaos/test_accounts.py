"""The comparison finds what is wrong in forged accounts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from esl_apps.core.reference import new_ref
from tests.chaos.accounts import DOUBLED, MINUTES, MISSING, WRONG, Accounts, compare_minutes
from tests.chaos.load import CALLBACK, Asked
from tests.chaos.witness import JsonCdrs, Leg, SandboxLegs
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig

BEGAN = 1_795_000_000.0


def leg(uuid: str, ref: str | None = None, **fields: Any) -> Leg:
    """An A-leg that a node rang: answered after one second, ended by its phone after five."""
    variables = {"esl_app": "click-dial", **({"esl_call_ref": ref} if ref else {}), **fields.pop("variables", {})}
    values: dict[str, Any] = {
        "direction": "outbound",
        "number": "1000",
        "caller": "0820000000",
        "created": BEGAN,
        "ringing": BEGAN,
        "answered": BEGAN + 1,
        "bridged": None,
        "ended": BEGAN + 5,
        "cause": "NORMAL_CLEARING",
        "q850": 16,
        "ended_by": "far",
        "other": None,
        "applications": [],
        **fields,
    }
    return Leg(uuid=uuid, variables=variables, **values)


def bleg(uuid: str, ref: str, aleg: str = "a", **fields: Any) -> Leg:
    """Its B-leg: dialled at one, answered at two, hung up by its phone at five."""
    values = {
        "number": "0820000000",
        "created": BEGAN + 1,
        "answered": BEGAN + 2,
        "bridged": BEGAN + 2,
        "ended_by": "phone",
        "other": aleg,
        **fields,
    }
    return leg(uuid, ref, variables={"esl_bleg": ref}, **values)


def record(call_ref: str, **fields: Any) -> dict[str, Any]:
    """The record that such a call owes."""
    return {
        "call_ref": call_ref,
        "session_ref": call_ref,
        "ref": "click-dial",
        "number": "0820000000",
        "dialed_at": int(BEGAN),
        "answered_at": BEGAN + 1,
        "bridged_at": BEGAN + 2,
        "ended_at": BEGAN + 5,
        "end_reason": "answered",
        "end_code": 16,
        "hung_up_by": "callee",
        **fields,
    }


REF, OTHER = new_ref(BEGAN), new_ref(BEGAN + 1)
TALK = [leg("a", REF), bleg("b", REF)]


def found(legs: list[Leg], records: list[dict[str, Any]], *asked: Asked, **more: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in Accounts(legs, records, list(asked), **more).compare()]


def request_(ref: str, app: str = "click2dial") -> Asked:
    return Asked(app, BEGAN, "chaos-1", 202, ref)


def test_accounts_that_agree_have_no_finding() -> None:
    assert found(TALK, [record(REF)], request_(REF)) == []


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], (MISSING, "no record of a talk of 3.0 s")),
        ([record(REF), record(REF)], (DOUBLED, "2 records")),
        ([record(REF, end_reason="lost", end_code=31)], (WRONG, "end_reason lost 31, expected answered")),
        ([record(REF, ended_at=BEGAN + 9)], (WRONG, "ended_at is +4.0 s off")),
        ([record(REF, bridged_at=None)], (WRONG, "bridged_at is null")),
        ([record(REF, hung_up_by="agent")], (WRONG, "hung_up_by agent, expected callee")),
        ([record(REF, dialed_at=int(BEGAN) + 60)], (WRONG, "dialed_at is +60.0 s off")),
    ],
)
def test_accounts_find_a_record_the_switch_contradicts(
    records: list[dict[str, Any]], expected: tuple[str, str]
) -> None:
    assert found(TALK, records, request_(REF)) == [expected]


def test_accounts_want_a_record_of_each_accepted_request() -> None:
    assert found([], [], request_(REF)) == [(MISSING, "no record, and no leg: accepted over HTTP")]
    assert found([], [record(REF, end_reason="agent_failed", bridged_at=None)], request_(REF)) == []


def test_accounts_find_a_talk_that_never_ended() -> None:
    cut = [leg("a", REF), bleg("b", REF, ended_by="far")]
    assert found(cut, [record(REF)], request_(REF)) == [(WRONG, "a talk that neither party ended")]


def test_accounts_find_a_talk_only_in_the_records() -> None:
    assert found([], [record(REF)]) == [(WRONG, "a talk in the records that no switch saw")]


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        ({"q850": 17, "cause": "USER_BUSY"}, "callee_busy"),
        ({"q850": 1, "cause": "UNALLOCATED_NUMBER"}, "callee_failed"),
        ({"q850": 18, "cause": "NO_USER_RESPONSE"}, "callee_no_answer"),
        ({"q850": 16, "ended_by": "far"}, "callee_no_answer"),
    ],
)
def test_accounts_compare_why_b_did_not_answer(b: dict[str, Any], reason: str) -> None:
    legs = [leg("a", REF), bleg("b", REF, **{"answered": None, "bridged": None, "ended": BEGAN + 3, **b})]
    assert found(legs, [record(REF, end_reason=reason, bridged_at=None)]) == []
    wrong = found(legs, [record(REF, end_reason="abandoned", bridged_at=None)])
    assert [kind for kind, _ in wrong] == [WRONG]


@pytest.mark.parametrize(
    "first",
    [
        {"q850": 38, "cause": "NETWORK_OUT_OF_ORDER", "ended_by": "phone"},
        {"q850": 16, "cause": "PROGRESS_TIMEOUT", "ended_by": "far"},
    ],
)
def test_accounts_pass_over_a_gateway_that_failed(first: dict[str, Any]) -> None:
    failed = bleg("b", REF, answered=None, bridged=None, ended=BEGAN + 2, **first)
    busy = bleg("c", REF, created=BEGAN + 2, ended=BEGAN + 4, answered=None, bridged=None, q850=17, cause="USER_BUSY")
    for reason, right in (("callee_busy", True), ("callee_failed", False), ("callee_no_answer", False)):
        legs = [leg("a", REF), failed, busy]
        assert (found(legs, [record(REF, end_reason=reason, bridged_at=None)]) == []) is right
    # No other gateway was tried: perhaps because A left.
    alone = [leg("a", REF), failed]
    assert found(alone, [record(REF, end_reason="callee_failed", bridged_at=None)]) == []
    left = [leg("a", REF, ended_by="phone"), failed]
    assert found(left, [record(REF, end_reason="abandoned", bridged_at=None)]) == []
    assert found([leg("a", REF, ended_by="phone"), busy], [record(REF, end_reason="abandoned", bridged_at=None)]) != []


def test_accounts_cancel_that_no_node_took_proves_nothing() -> None:
    asked = request_(REF)
    asked.cancelled_at = BEGAN + 1
    lost = [record(REF, end_reason="lost", bridged_at=None)]
    assert found([leg("a", REF)], lost, asked) == []
    asked.cancel_taken = True
    assert found([leg("a", REF)], lost, asked) != []


def test_accounts_find_a_repeated_request_that_rang_twice() -> None:
    twice = [
        leg("a", REF, ended_by="phone", variables={"esl_contact_ref": "chaos-1"}),
        leg("c", OTHER, ended_by="phone", variables={"esl_contact_ref": "chaos-1"}),
    ]
    records = [record(ref, end_reason="abandoned", bridged_at=None) for ref in (REF, OTHER)]
    assert found(twice, records) == [(DOUBLED, "chaos-1 was placed 2 times")]


def session(*refs: str) -> Leg:
    """The leg of a DISA caller, which carried these references."""
    return leg(
        "a",
        direction="inbound",
        number="27115550002",
        ended_by="phone",
        variables={"esl_app": "disa", "esl_call_ref": refs[-1]},
        applications=[("multiset", f"^^|esl_app=disa|esl_call_ref={ref}", BEGAN) for ref in refs],
    )


def null(ref: str, first: str = "") -> dict[str, Any]:
    return record(ref, ref="disa", session_ref=first or ref, number=None, end_reason="abandoned", bridged_at=None)


def test_accounts_want_one_record_of_a_caller_without_number() -> None:
    assert found([session(REF)], [null(REF)]) == []
    assert found([session(REF)], []) == [(MISSING, "no record of a caller who dialled no number")]
    assert [kind for kind, _ in found([session(REF, OTHER)], [null(REF), null(OTHER, REF)])] == [WRONG]


def test_accounts_want_a_record_of_each_number_of_a_session() -> None:
    legs = [session(REF, OTHER), bleg("b", REF), bleg("c", OTHER)]
    talks = [record(ref, ref="disa", session_ref=REF) for ref in (REF, OTHER)]
    assert found(legs, talks) == []
    assert found(legs, talks[:1]) == [(MISSING, "no record of a talk of 3.0 s")]
    scattered = [talks[0], {**talks[1], "session_ref": OTHER}]
    assert found(legs, scattered) == [(WRONG, "several session_refs in one session")]


def test_accounts_want_each_callback_once() -> None:
    ring = {"direction": "inbound", "number": CALLBACK, "caller": "0850000001"}
    rang = leg("a", answered=None, cause="USER_BUSY", q850=17, **ring)
    rang.variables.clear()
    missed = {"27850000001": BEGAN}
    assert found([rang], [], missed=missed) == [(MISSING, "refused with 486 and never called back")]
    assert found([rang], [], missed=missed, no_callback=lambda at: True) == []
    back = [
        leg(ref, ref, number="27850000001", ended_by="phone", variables={"esl_app": "callback", "esl_call_ref": ref})
        for ref in (REF, OTHER)
    ]
    records = [null(ref) for ref in (REF, OTHER)]
    assert found([rang, back[0]], records[:1], missed=missed) == []
    twice = found([rang, *back], records, missed=missed)
    assert twice == [(DOUBLED, "called back 2 times, answered more than once")]
    # Answered, but cut off by the node's death: that doesn't count as a callback.
    back[0].ended_by = "far"
    assert (DOUBLED, "called back 2 times, answered more than once") not in found([rang, *back], records, missed=missed)


# The witnesses ----------------------------------------------------------------------------------------


def test_sandbox_reports_each_leg_to_the_accounts(tmp_path: Path) -> None:
    """The sandbox's mod_json_cdr folder gives the same account, whatever its reader does to the files."""
    file = tmp_path / "legs"
    with SandboxRig(tick=0, arguments=[f"--legs={file}"]) as rig:
        handed_on = tmp_path / "spool"
        handed_on.mkdir()
        kept = JsonCdrs(rig.spool, handed_on)
        rig.phone("1000", Script(answer_after=0.1))
        rig.outside("0820000001", Script(answer_after=0.1, hangup_after=0.3))
        rig.api(
            f"originate {{esl_call_ref={REF}}}user/1000@127.0.0.1 "
            f"'&bridge({{esl_call_ref={REF},esl_bleg={REF}}}sofia/gateway/pstn/0820000001)'"
        )
        eventually(lambda: not rig.live_channels() and len(list(rig.spool.iterdir())) == 2)
        eventually(lambda: len(list(handed_on.iterdir())) == 2)
        for one in handed_on.iterdir():
            one.unlink()
        kept.close()
        for witness in (SandboxLegs(file), kept):
            first, second = sorted(witness.read(), key=lambda leg: leg.created)
            assert (first.number, first.direction, first.is_b, first.ended_by) == ("1000", "outbound", False, "far")
            assert (second.number, second.is_b, second.other) == ("0820000001", True, first.uuid)
            assert second.ended_itself
            assert first.refs == second.refs == [REF]
            assert None not in (first.answered, second.answered, second.bridged)
            assert abs(second.ended - time.time()) < 60


# Clocks and minutes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "ahead", "found"),
    [((0.0, 30.0), 30.0, []), ((0.0,), 30.0, [WRONG, WRONG, WRONG]), ((0.0, 30.0), 29.0, [])],
)
def test_times_of_a_clock_that_was_set_are_right(steps: tuple[float, ...], ahead: float, found: list[str]) -> None:
    times = {name: BEGAN + at + ahead for name, at in (("dialed_at", 0.0), ("bridged_at", 2.0), ("ended_at", 5.0))}
    accounts = Accounts([leg("a", "1"), bleg("b", "1")], [record("1", **times)], [], steps=steps)
    assert [finding.kind for finding in accounts.compare()] == found


def test_talk_across_a_step_of_the_clock_is_wrong() -> None:
    times = {"bridged_at": BEGAN + 2.0, "ended_at": BEGAN + 35.0}
    accounts = Accounts([leg("a", "1"), bleg("b", "1")], [record("1", **times)], [], steps=(0.0, 30.0))
    assert [finding.text for finding in accounts.compare()] == ["the talk is +30.0 s too long"]


@pytest.mark.parametrize(
    ("counted", "disturbed", "wrong"),
    [(3.0, False, 0), (5.0, False, 1), (5.0, True, 0), (14.0, True, 1), (0.0, False, 1)],
)
def test_minutes_are_compared_with_the_talk(counted: float, disturbed: bool, wrong: int) -> None:
    legs = [leg("a", "1"), bleg("b", "1")]
    found = compare_minutes(legs, {"integrator:acme": counted}, lambda _begin, _end: disturbed)
    assert [finding.kind for finding in found] == [MINUTES] * wrong

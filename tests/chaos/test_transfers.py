"""The account of transferred calls finds what is wrong in forged ones."""

from __future__ import annotations

from typing import Any

from tests.chaos.accounts import DOUBLED, MISSING
from tests.chaos.load import CUSTOMER, Transfer
from tests.chaos.transfers import SILENCE, pays, split
from tests.chaos.witness import Leg

BEGAN = 1_795_000_000.0
FIRST, ASKED, NEXT, OTHER = (f"01a2004f-0618-7326-8e79-3050ef6dfc{i:02}" for i in range(4))


def leg(uuid: str, ref: str, *, up: float, number: str = CUSTOMER, runs: str = "endless_playback", **more: str) -> Leg:
    """A leg that was answered at once and was up for so many seconds."""
    return Leg(
        uuid=uuid,
        direction="outbound",
        number=number,
        caller="1020",
        created=BEGAN,
        ringing=BEGAN,
        answered=BEGAN,
        bridged=BEGAN,
        ended=BEGAN + up,
        cause="NORMAL_CLEARING",
        q850=16,
        ended_by="phone",
        other=None,
        variables={"esl_call_ref": ref, "esl_app": "transfer", **more},
        applications=[(runs, "", BEGAN + 5)],
    )


def record(ref: str, **fields: Any) -> dict[str, Any]:
    values = {"call_ref": ref, "session_ref": FIRST, "bridged_at": BEGAN, "end_reason": "answered"}
    return {**values, "transferred_to": None, **fields}


#: A consultation that was completed.
LEGS = [
    leg("agent", ASKED, up=10, number="1020", esl_session_ref=FIRST),
    leg("customer", NEXT, up=30, esl_session_ref=FIRST),
    leg("target", NEXT, up=30, number="1001", esl_bleg=FIRST),
]
RECORDS = [record(FIRST, transferred_to=NEXT), record(ASKED, transferred_to=NEXT), record(NEXT)]
TRANSFERS = [Transfer(BEGAN, FIRST, "consult", ASKED)]


def kinds(legs: list[Leg], records: list[dict[str, Any]]) -> list[str]:
    moved, _legs, _records = split(TRANSFERS, legs, records)
    return [finding.kind for finding in moved.findings()]


def test_transfers_with_all_records_are_right() -> None:
    assert kinds(LEGS, RECORDS) == []


def test_transfers_record_of_each_call_is_missed() -> None:
    for lost in range(3):
        assert MISSING in kinds(LEGS, RECORDS[:lost] + RECORDS[lost + 1 :])


def test_transfers_two_records_of_one_call_are_found() -> None:
    assert kinds(LEGS, [*RECORDS, record(NEXT)]) == [DOUBLED]


def test_transfers_party_left_in_silence_is_found() -> None:
    for runs, found in (("park", [SILENCE]), ("endless_playback", [])):
        alone = leg("customer", NEXT, up=90, runs=runs, esl_session_ref=FIRST)
        assert kinds([LEGS[0], alone, LEGS[2]], RECORDS) == found


def test_transfers_leave_other_calls_alone() -> None:
    other, its = leg("other", OTHER, up=5), record(OTHER, session_ref=OTHER)
    moved, legs, records = split(TRANSFERS, [*LEGS, other], [*RECORDS, its])
    assert (moved.legs, legs, moved.records, records) == (LEGS, [other], RECORDS, [its])
    assert [leg.uuid for leg in moved.legs if pays(leg)] == ["customer", "target"]
